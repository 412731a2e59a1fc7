/** A sample of test/slow/crash-*.test.ts: a few of the moments at which each work may end, and of what the disk may refuse. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeScene, straced } from '../helpers/crash.ts'
import { removeFolder } from '../helpers/cache.ts'
import { plainFailure, WORKS, type Work } from '../helpers/crash-work.ts'

const POINTS: Record<Work['name'], string[]> = {
  import: ['fdatasync:signal=KILL:when=2', 'rename:signal=KILL:when=3', 'rename:error=EDQUOT:when=2'],
  release: ['pwrite64:signal=KILL:when=4', 'fsync:error=EIO:when=1+'],
  pack: ['rename:signal=KILL:when=12', 'fsync:error=EIO:when=30+'],
  pull: ['rename:signal=KILL:when=2', 'fdatasync:error=EIO:when=2'],
}

const scene = await makeScene(t, { count: 3, bytes: 20_000 })

for (const work of Object.values(WORKS)) {
  t.test(`${work.name}, ended or refused: nothing is lost, and the same command goes on`, async (t) => {
    for (const point of POINTS[work.name]) {
      const dir = work.begin(scene)
      const ended = await straced(work.program, dir, work.args(scene), [point])
      t.not(ended.status, 0, point)
      if (point.includes('error=')) t.strictSame(plainFailure(ended).wrong, [], `${point}: a plain error`)
      const { wrong, state } = await work.check(scene, dir, ended)
      t.strictSame(wrong, [], `${point}: ${state}`)
      removeFolder(dir)
    }
  })
}

t.test('a part on the stick that a crash left half-written goes with the next bundle, too', async (t) => {
  const dir = WORKS.pack.begin(scene)
  mkdirSync(join(dir, 'stick/gapferry/hq'), { recursive: true })
  writeFileSync(join(dir, 'stick/gapferry/hq/hq-1.tar.part'), 'half of it')
  const { wrong } = await WORKS.pack.check(scene, dir, { status: null, stdout: '' })
  t.strictSame(wrong, [])
})

t.test('what gapferry verify leaves when it is killed goes with its next run', async (t) => {
  const dir = WORKS.pack.begin(scene)
  const parts = readdirSync(join(scene.stick, 'gapferry/hq')).filter((name) => name.endsWith('.tar'))
  const args = ['verify', join(scene.stick, 'gapferry/hq', parts[0]!)]
  const killed = await straced('gapferry', dir, args, ['unlink:signal=KILL:when=1'])
  t.equal(killed.status, null)
  t.equal(readdirSync(join(dir, 'tmp')).length, 1, 'it had no time to tidy up')
  const again = await straced('gapferry', dir, args, ['unlink'])
  t.ok(existsSync(join(dir, 'tmp')))
  t.strictSame(readdirSync(join(dir, 'tmp')), [], again.stderr)
})

t.test('keys are whole or not there, and half-made ones go', async (t) => {
  const dir = t.testdir({ lap: {}, tmp: {} })
  const args = ['init', 'lap', '--no-passphrase']
  const killed = await straced('gapferry', dir, args, ['rename:signal=KILL:when=2'])
  t.equal(killed.status, null)
  t.match(readdirSync(join(dir, 'lap/keys')), [/^\.new-\d+-/])
  const again = await straced('gapferry', dir, args, ['rename'])
  t.equal(again.status, 0, again.stderr)
  t.strictSame(readdirSync(join(dir, 'lap/keys')), ['hq'])
  t.equal(spawnSync('find', [dir, '-name', '*.part'], { encoding: 'utf8' }).stdout, '')
})
