import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { checkAfterwards, countOf, dropCopy, killedAt, makeCrashScene } from '../helpers/license-crash.ts'
import { licenseText } from '../helpers/license-box.ts'
import { run } from '../helpers/process.ts'

for (const call of ['rename', 'unlink', 'fsync']) {
  t.test(
    `killed at each ${call}, the old license is whole or the new one is, and the next run completes`,
    async (t) => {
      const scene = await makeCrashScene(t)
      const count = await countOf(scene.copy(), call, join(scene.dir, 'log'))
      t.ok(count >= 3, `${count} times`)
      const states = new Set<string>()
      // every fsync in test/slow
      for (let n = 1; n <= count; n += call === 'fsync' ? 4 : 1) {
        const box = scene.copy()
        t.match(await killedAt(box, call, n), { status: 137 })
        states.add(box.state())
        await checkAfterwards(t, box, `${call} ${n} of ${count}`)
        dropCopy(box)
      }
      t.ok(call === 'unlink' ? states.has('new') : states.has('old') && states.has('new'), [...states].join(', '))
    },
  )
}

t.test('killed at any moment', async (t) => {
  const scene = await makeCrashScene(t)
  const wholeMs = await scene.copy().killedAfter(undefined)
  for (let n = 1; n <= 6; n++) {
    const box = scene.copy()
    const ms = (wholeMs * (n + Math.random())) / 7
    await box.killedAfter(ms)
    await checkAfterwards(t, box, `after ${ms.toFixed(0)} of ${wholeMs.toFixed(0)} ms`)
    dropCopy(box)
  }
})

t.test('what cannot be completed is put back', async (t) => {
  const scene = await makeCrashScene(t)
  const box = scene.copy()
  // behind the second rename of a license file
  await killedAt(box, 'rename', 4)
  t.equal(box.state(), 'new old')
  for (const folder of ['etc/schmooze', 'etc/sangoma', 'var/lib/gapferry/license']) {
    for (const name of readdirSync(join(box.root, folder)).filter((name) => name.startsWith('.gapferry-'))) {
      rmSync(join(box.root, folder, name))
    }
  }
  writeFileSync(join(box.root, '..', 'sealed'), 'nothing')
  const outcome = await run('dash', ['-c', 'exit 0'])
  t.equal(outcome.status, 0)
  const again = await box.install()
  t.match(again, { status: 0, stderr: /cannot be completed: what was there before is put back/ })
  t.strictSame([box.state(), box.leftOvers()], ['new', []])
})

/** A file system with no room at all below one of the folders, then with room. */
const FULL = `
cp -a "$1" "$1.before"
mount -t tmpfs -o size=64k none "$1"
cp -a "$1.before/." "$1"
rm -r "$1.before"
cat /dev/zero >"$1/filler" 2>/dev/null
folder=$1
shift
"$@"
echo "status $?"
cat "$ROOT/etc/schmooze/schmooze.zl" "$ROOT/etc/sangoma/license.txt" | grep -c 2027-01-31
find "$ROOT/etc" "$ROOT/var/lib/gapferry" -name '.gapferry-*' | grep -c .
rm "$folder/filler"
"$@"
echo "status $?"
cat "$ROOT/etc/schmooze/schmooze.zl" "$ROOT/etc/sangoma/license.txt" | grep -c 2029-02-28
`

t.test('a full disk leaves the old license whole, and says so', async (t) => {
  const scene = await makeCrashScene(t)
  for (const folder of ['etc/schmooze', 'etc/sangoma', 'var/lib/gapferry/license']) {
    const box = scene.copy()
    await run('mkdir', ['-p', join(box.root, 'var/lib/gapferry/license')])
    const isolated = ['unshare', '--mount', 'env', `ROOT=${box.root}`, 'sh', '-c', FULL, 'sh', join(box.root, folder)]
    const outcome = await box.install(isolated)
    t.match(
      outcome.stdout,
      /^status 5\n4\n0\nlicense installed(?:.|\n)*\nstatus 0\n4\n$/,
      `${folder}: ${outcome.stdout}`,
    )
    t.match(outcome.stderr, /no space left in \S+: nothing was changed/)
    dropCopy(box)
  }
})

t.test('while another run is at it', async (t) => {
  const box = (await makeCrashScene(t)).copy()
  const home = join(box.root, 'var/lib/gapferry/license')
  await run('mkdir', ['-p', home])
  t.match(await box.install(['flock', home]), {
    status: 7,
    stderr: /another gapferry-box is at work/,
  })
  t.equal(box.state(), 'old')
  t.match(await box.install(), { status: 0 })
  t.equal(readFileSync(join(box.root, 'etc/schmooze/schmooze.zl'), 'utf8'), licenseText({ until: '2029-02-28' }))
})
