import { appendFileSync, chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { SHELLS } from '../helpers/box-root.ts'
import { makeFolderBox, type FolderBox } from '../helpers/folder-box/box.ts'
import { killAt } from '../helpers/folder-box/kill.ts'
import { report, run, type Outcome } from '../helpers/process.ts'

const SETTLED = ['MODULE_REPO', 'RSSFEEDS'] as const
/** Every kind of change: a file of every origin, a new folder, a link over a file, a file taken away, settings. */
const CHANGES = `
  change_file /etc/hosts <<'TEXT'
127.0.0.1 localhost
TEXT
  printf 'new' | tee "$SCRATCH/x" >/dev/null
  change_file /etc/new/folder/new.conf 0640 1:2 <"$SCRATCH/x"
  change_file /etc/linked </dev/null
  change_link /etc/debian_version ../over/there
  remove_file /etc/os-release
  change_setting MODULE_REPO http://mirror.hq.lan:8417 http://mirror.hq.lan:8417
  change_setting RSSFEEDS ''
  change_setting NO_SUCH 1`

interface Bench {
  box: FolderBox
  /** runs lines of sh in the tool, with its functions */
  script(lines: string, options?: { shell?: readonly string[]; env?: Record<string, string> }): Promise<Outcome>
  /** everything as it is now, settings with it */
  state(): unknown
}

async function makeBench(t: Test): Promise<Bench> {
  const dir = t.testdir()
  const box = await makeFolderBox(join(dir, 'box'), {
    major: 17,
    files: { '/etc/linked': { link: 'hosts' }, '/etc/odd': { text: '\0\xff\n\n', mode: 0o604 } },
  })
  chmodSync(join(box.root, 'etc/hosts'), 0o2640)
  chownSync(join(box.root, 'etc/hosts'), 12, 34)
  const tool = boxTool()
    .toString()
    .replace(/main "\$@"\n$/, '')
  const file = join(dir, 'script')
  mkdirSync(join(dir, 'tmp'))
  return {
    box,
    script: async (lines, { shell = SHELLS[0]!, env = {} } = {}) => {
      writeFileSync(file, `${tool}\nROOT=$1\n${lines}\n`)
      const PATH = `${env['PATH'] ?? box.path}:/usr/sbin:/usr/bin:/sbin:/bin`
      const args = ['-f', '-w', ...shell, file, box.root]
      return run('setsid', args, { env: { ...env, PATH, TMPDIR: join(dir, 'tmp') } })
    },
    state: () => [box.everything(), SETTLED.map((key) => box.setting(key))],
  }
}

const UNDO = 'begin_changes; undo_changes && rmdir "$CHANGES" "$ROOT/etc/gapferry"'

t.test('what is changed comes back to the byte, with mode and owner, in every shell', async (t) => {
  const { box, script, state } = await makeBench(t)
  const before = state()
  for (const shell of SHELLS) {
    const changed = await script(`begin_changes; ${CHANGES}\n echo "$CHANGED changes"`, { shell })
    t.match(changed, { status: 0, stderr: '' }, report(changed))
    t.matchOnly(changed.stdout.split('\n'), [
      ...['changed /etc/hosts', 'written /etc/new/folder/new.conf', 'changed /etc/linked'],
      ...['changed /etc/debian_version', 'removed /etc/os-release'],
      'changed setting MODULE_REPO: "http://mirror.hq.lan:8417", was "https://mirror.freepbx.org"',
      /^changed setting RSSFEEDS: "", was "http:\/\/www.freepbx.org\/rss.xml http:/,
      ...['7 changes', ''],
    ])
    t.match(box.everything(), {
      'etc/hosts': /^file 2640 12:34 /,
      'etc/new/folder': 'folder 755 0:0',
      'etc/new/folder/new.conf': /^file 640 1:2 /,
      'etc/linked': /^file 644 0:0 /,
      'etc/debian_version': 'link ../over/there',
      'etc/os-release': undefined,
      'etc/gapferry/changes': 'folder 700 0:0',
    })
    t.equal(box.read('/etc/new/folder/new.conf'), 'new')
    t.strictSame(box.setting('MODULE_REPO'), ['http://mirror.hq.lan:8417', 'http://mirror.hq.lan:8417'])
    t.equal(box.setting('RSSFEEDS')![0], '')
    t.match(await script(`begin_changes; ${CHANGES}`, { shell }), { status: 0, stdout: '', stderr: '' }, 'done once')
    const undone = await script(UNDO, { shell })
    t.match(undone, { status: 0, stderr: '' }, report(undone))
    t.strictSame(state(), before)
  }
})

t.test('a dry run says all of it and does nothing', async (t) => {
  const { script, state } = await makeBench(t)
  const before = state()
  const dry = await script(`DRY=1; begin_changes; ${CHANGES}`)
  t.match(dry, { status: 0, stderr: '' })
  t.match(dry.stdout, 'would change /etc/hosts\n    - 127.0.0.1   localhost localhost.localdomain\n')
  t.match(dry.stdout, '    + 127.0.0.1 localhost\n')
  t.match(dry.stdout, 'would remove /etc/os-release\n')
  t.match(dry.stdout, 'would change setting MODULE_REPO: "http')
  t.strictSame(state(), before)
})

t.test('what others wrote since is left and named, and what they put in its place comes back', async (t) => {
  const { box, script, state } = await makeBench(t)
  const before = state()
  await script(`begin_changes; ${CHANGES}`)
  box.write('/etc/hosts', 'by hand\n')
  box.set('MODULE_REPO', 'http://elsewhere')
  const undone = await script(UNDO)
  t.equal(undone.status, 1)
  t.match(undone.stdout, 'left /etc/hosts: is not what gapferry-box wrote any more')
  t.match(undone.stdout, 'left setting MODULE_REPO: is not what gapferry-box wrote any more')
  t.equal(box.read('/etc/hosts'), 'by hand\n')
  t.equal((await script(UNDO.replace('undo_changes', 'undo_changes force'))).status, 0)
  t.strictSame(state(), before)

  await script(`begin_changes; ${CHANGES}`)
  box.write('/etc/hosts', "the vendor's newer file\n")
  t.match(await script(`begin_changes; ${CHANGES}`), { stdout: 'changed /etc/hosts\n' })
  t.equal((await script(UNDO)).status, 0)
  t.equal(box.read('/etc/hosts'), "the vendor's newer file\n")
})

t.test('a block of ours goes from among the lines of others', async (t) => {
  const { box, script } = await makeBench(t)
  const block =
    'printf "a\\n%s\\nours\\n%s\\n" "$BLOCK_BEGIN" "$BLOCK_END" >"$SCRATCH/x"; change_file /etc/hosts <"$SCRATCH/x"'
  await script(`begin_changes; ${block}`)
  appendFileSync(join(box.root, 'etc/hosts'), 'by hand\n')
  t.match(await script(UNDO), { status: 0, stdout: 'changed /etc/hosts\n' })
  t.equal(box.read('/etc/hosts'), 'a\nby hand\n')
})

t.test('a held box, another run, a folder in the way: nothing is changed', async (t) => {
  const { box, script, state } = await makeBench(t)
  t.match(await script('begin_changes; change_file /etc </dev/null'), { status: 1, stderr: /\/etc: is not a file/ })
  t.match(await script('begin_changes; flock -n "$CHANGES" true || echo busy'), { stdout: 'busy\n' })
  const busy = `mkdir -p "$ROOT/etc/gapferry/changes"; flock "$ROOT/etc/gapferry/changes" dash "$0" "$ROOT" again`
  t.match(await script(`if [ $# = 1 ]; then ${busy}; else begin_changes; fi`), {
    status: 7,
    stderr: /another gapferry-box/,
  })
  box.write('/etc/gapferry/hold', 'until \x1b[31mMonday\n')
  const before = state()
  t.match(await script(`begin_changes; ${CHANGES}`), { status: 7, stderr: /this box is held: until \[31mMonday\n/ })
  t.strictSame(state(), before)
})

t.test('killed anywhere on either way, what was there comes back', async (t) => {
  const { box, script, state } = await makeBench(t)
  const before = state()
  const work = `begin_changes; ${CHANGES}`
  for (const [first, prepare] of [
    [work, ''],
    [UNDO, work],
  ] as const) {
    if (prepare !== '') await script(prepare)
    const steps = await killAt(box, Infinity, (env) => script(first, { env }))
    t.ok(steps > 40, `${steps} steps`)
    await script(UNDO)
    for (let at = 1; at <= steps; at += 19) {
      if (prepare !== '') await script(prepare)
      await killAt(box, at, (env) => script(first, { env }))
      const undone = await script(UNDO)
      t.equal(undone.status, 0, report(undone))
      t.strictSame(state(), before, `killed before step ${at} of ${steps}`)
    }
  }
})
