/** What gapferry-box, as root, is led to by whoever else is at work on a box (the web server's user above all), by a stick and
 *  by what answers at a mirror's address. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import t, { type Test } from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { boxContent, idleYum } from '../helpers/apply.ts'
import { GAPFERRY_BOX, runBox } from '../helpers/box-root.ts'
import { makeFolderBox, type FolderBox } from '../helpers/folder-box/box.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { licenseDocument } from '../helpers/license-box.ts'
import { makeScene } from '../helpers/license-scene.ts'
import { signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { report, run, type Outcome } from '../helpers/process.ts'
import { fingerprintWords } from '../../manifests/words.ts'

const ASTERISK = 1234
const BMO = '/var/www/html/admin/libraries/BMO'
const KEY = '0123456789ABCDEF'

interface Bench {
  dir: string
  box: FolderBox
  /** runs lines of sh in the tool, with its functions; @param path  in front of PATH */
  script(lines: string, path?: string): Promise<Outcome>
}

async function makeBench(t: Test): Promise<Bench> {
  const dir = t.testdir({ tmp: {}, yum: {} })
  const box = await makeFolderBox(join(dir, 'box'), { major: 16 })
  const tool = boxTool()
    .toString()
    .replace(/main "\$@"\n$/, '')
  const script: Bench['script'] = (lines, path = box.path) => {
    writeFileSync(join(dir, 'script'), `${tool}\nROOT=$1\n${lines}\n`)
    const env = { PATH: `${path}:${box.path}:/usr/sbin:/usr/bin:/sbin:/bin`, TMPDIR: join(dir, 'tmp') }
    return run('setsid', ['-f', '-w', 'dash', join(dir, 'script'), box.root], { env })
  }
  return { dir, box, script }
}

async function makeStick(t: Test): Promise<Bench & { stick: string; apply(...args: string[]): Promise<Outcome> }> {
  const bench = await makeBench(t)
  const { dir, box } = bench
  const stick = join(dir, 'stick')
  writeParts(
    join(stick, 'gapferry/hq'),
    signContent(boxContent(1, (await gpgKey('vendor')).publicArmored, { count: 1, bytes: 10 })),
  )
  writeFileSync(join(stick, 'gapferry/hq/root.json'), sampleRoot)
  const env = { PYTHONPATH: idleYum(join(dir, 'yum')) }
  const args = ['apply', stick, '--root', box.root, '--fingerprint', fingerprintWords(sampleRoot), '--box', 'pbx1']
  return { ...bench, stick, apply: (...more) => runBox([...args, ...more], { path: box.path, env }) }
}

t.test(
  'a folder of the web server’s user: no link that he puts there while a key is written is followed',
  async (t) => {
    const { dir, box, script } = await makeBench(t)
    chownSync(join(box.root, BMO), ASTERISK, ASTERISK)
    const victim = join(dir, 'shadow')
    writeFileSync(victim, 'secret', { mode: 0o600 })
    const fresh = join(box.root, BMO, `${KEY}.key.gapferry-new`)
    const thief = join(dir, 'thief')
    mkdirSync(thief)
    for (const name of ['rm', 'cp', 'cat', 'chmod', 'chown', 'mv', 'python3', 'sync']) {
      const text = `#!/bin/dash\nln -sfT '${victim}' '${fresh}'\nexec /usr/bin/${name} "$@"\n`
      writeFileSync(join(thief, name), text, { mode: 0o755 })
    }
    const write = `begin_changes; mode=mirror own_files=$SCRATCH/own module_repo='' module_keys=${KEY}
    mkdir -p "$own_files/keys"; printf 'the key' | tee "$own_files/keys/${KEY}.key" >/dev/null; assert_modules`
    const outcome = await script(write, thief)
    t.equal(outcome.status, 0, report(outcome))
    t.match(lstatSync(victim), { uid: 0, mode: 0o100600 })
    t.equal(readFileSync(victim, 'utf8'), 'secret')
    t.equal(box.read(`${BMO}/${KEY}.key`), 'the key')
    t.match(lstatSync(join(box.root, BMO, `${KEY}.key`)), { uid: ASTERISK, gid: ASTERISK, mode: 0o100644 })

    writeFileSync(join(box.root, BMO, `${KEY}.key`), '* * * * * root owned\n')
    t.match(await script(write), { status: 0 })
    t.equal(box.read(`${BMO}/${KEY}.key`), 'the key')
    t.match(await script('begin_changes; undo_changes'), { status: 0 })
    t.notOk(existsSync(join(box.root, BMO, `${KEY}.key`)), 'what he wrote there is not what uninstall gives back')
    writeFileSync(join(box.root, BMO, `${KEY}.key`), '')
    rmSync(join(box.root, BMO, `${KEY}.key`))
    await script(write)
    truncateSync(join(box.root, BMO, `${KEY}.key`), 1e8)
    t.match(await script(write), { status: 0, stderr: /larger than 65536 bytes: it is left/ })
  },
)

t.test('a path in the database that is none', async (t) => {
  const { box, script } = await makeBench(t)
  for (const path of ['/etc/x\nafter file 1', 'relative', '/a/../b', "/a'b"]) {
    box.set('AMPWEBROOT', path)
    const lines =
      'begin_changes; own_files=$SCRATCH module_repo= module_keys=; assert_modules >/dev/null; printf %s "$WEBROOT"'
    t.match(await script(lines), { status: 0, stdout: '/var/www/html' }, path)
  }
})

t.test('freepbx.conf, which is the web server’s, gives mysql no options, and a server no files', async (t) => {
  const { box, script } = await makeBench(t)
  const text = box.read('/etc/freepbx.conf').replace('"asterisk"', '"--plugin-dir=/tmp/evil"')
  box.write('/etc/freepbx.conf', text)
  await script('setting_row MODULE_REPO')
  const [call] = box.calls()
  t.notOk(call!.args.includes('--plugin-dir=/tmp/evil'), call!.args.join(' '))
  t.ok(call!.args.includes('--database=--plugin-dir=/tmp/evil'))
  t.ok(call!.args.includes('--local-infile=0'))
})

t.test('a module’s file without end', async (t) => {
  const { box, script } = await makeBench(t)
  box.write('/var/www/html/admin/modules/big/module.xml', '<rawname>big</rawname>\n<version>1</version>\n')
  truncateSync(join(box.root, 'var/www/html/admin/modules/big/module.xml'), 6_000_000)
  const { stdout } = await script('WEBROOT=/var/www/html; module_files')
  t.match(stdout, /^xml\tcore\t/m)
  t.notMatch(stdout, 'big')
})

t.test('a link to a folder is replaced, nothing is put inside', async (t) => {
  const { box, script } = await makeBench(t)
  box.write('/etc/linked', { link: 'yum.repos.d' })
  t.match(await script('begin_changes; change_file /etc/linked </etc/hostname'), { status: 0 })
  t.ok(lstatSync(join(box.root, 'etc/linked')).isFile())
  t.match(await script('begin_changes; undo_changes'), { status: 0 })
  t.equal(box.everything()['etc/linked'], 'link yum.repos.d')
  t.notOk(readdirSync(join(box.root, 'etc/yum.repos.d')).some((name) => name.includes('gapferry')))
})

t.test('lines behind a block whose end somebody took away are not ours', async (t) => {
  const { script } = await makeBench(t)
  const { stdout } = await script(`printf '%s\\n' a "$BLOCK_BEGIN" b "$BLOCK_END" c "$BLOCK_BEGIN" d e | without_block`)
  t.equal(stdout, 'a\nc\nd\ne\n')
})

t.test('two folders of repository files with one name', async (t) => {
  const { box, script } = await makeBench(t)
  box.write('/etc/yum/repos.d/twice.repo', '[one]\nbaseurl=http://one/\n')
  box.write('/etc/yum.repos.d/twice.repo', '[two]\nbaseurl=http://two/\n')
  const lines = `begin_changes; MANAGER=yum origin=http://mirror own_files=$SCRATCH repositories='one unchecked' group=g
    printf key | tee "$SCRATCH/site.asc" >/dev/null; assert_repositories`
  t.match(await script(lines), { status: 0 })
  t.match(box.read('/etc/yum/repos.d/twice.repo'), /\[one\]\nbaseurl=http:\/\/mirror\/yum\/one\//)
  t.match(box.read('/etc/yum.repos.d/twice.repo'), /\[two\]\nenabled=0\n/)
})

t.test('a key of packages that a stick brought, where its digest was signed, is taken', async (t) => {
  const { box, script } = await makeBench(t)
  box.write('/etc/yum.repos.d/one.repo', '[one]\nbaseurl=http://one/\n')
  const lines = `begin_changes; MANAGER=yum origin=file:///tree own_files=$SCRATCH repositories='one checked' group=g
    mkdir "$SCRATCH/keys"; printf key | tee "$SCRATCH/site.asc" "$SCRATCH/keys/one.asc" >/dev/null; assert_repositories`
  t.match(await script(lines), { status: 0 })
  const key = 'file:///etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
  t.match(box.read('/etc/yum.repos.d/one.repo'), `gpgcheck=1\nrepo_gpgcheck=1\ngpgkey=${key} ${key}-one\n`)
  t.equal(box.read('/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry-one'), 'key')
})

t.test('a run with --once that was ended by force: also uninstall gives its changes back', async (t) => {
  const { box, script } = await makeBench(t)
  const before = box.everything()
  const once = `self='${GAPFERRY_BOX}'; begin_changes; begin_once; echo changed | tee "$SCRATCH/x" >/dev/null; change_file /etc/hosts <"$SCRATCH/x"
    mkdir "$CHANGES/0009.tmp"; kill -KILL $$`
  await script(once)
  t.notSame(box.everything(), before)
  const undone = await runBox(['uninstall', '--root', box.root], { path: box.path })
  t.match(undone, { status: 0, stdout: /restored \/etc\/hosts/ }, report(undone))
  t.strictSame(box.everything(), before)
  const failed = await script(once.replace('kill -KILL $$', 'fail 1 stop'))
  t.match(failed, { status: 1, stdout: /restored \/etc\/hosts/ }, 'an error is no reason to leave them')
  t.strictSame(box.everything(), before)
})

t.test('a folder that licenses or keep made for root alone: the web server can read the tree', async (t) => {
  const { box, apply } = await makeStick(t)
  mkdirSync(join(box.root, 'var/lib/gapferry'), { recursive: true, mode: 0o700 })
  chmodSync(join(box.root, 'var/lib/gapferry'), 0o700)
  const outcome = await apply('--no-report')
  t.equal(outcome.status, 0, report(outcome))
  t.equal(statSync(join(box.root, 'var/lib/gapferry')).mode & 0o777, 0o755)
})

t.test('a stick whose folders are links: nothing is written where they lead', async (t) => {
  for (const name of ['gapferry', 'gapferry/hq']) {
    await t.test(name, async (t) => {
      const { dir, stick, box, apply } = await makeStick(t)
      const outside = join(dir, 'outside')
      renameSync(join(stick, name), outside)
      symlinkSync(outside, join(stick, name))
      const before = readdirSync(outside, { recursive: true })
      const outcome = await apply()
      t.match(outcome, { status: 0, stderr: /the stick cannot be written: .* is not a folder/ }, report(outcome))
      t.strictSame(readdirSync(outside, { recursive: true }), before)
      t.strictSame(readdirSync(join(box.root, 'var/lib/gapferry/report')).sort(), ['pbx1-1.applied', 'pbx1.gfi'])
    })
  }
})

t.test('a folder that somebody put beside the licenses under our name is not emptied', async (t) => {
  const { box, mirror, license } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  const planted = join(box.root, 'etc/schmooze/.gapferry-license.0123')
  mkdirSync(planted)
  writeFileSync(join(planted, 'file'), '')
  const outcome = await license()
  t.equal(outcome.status, 0, report(outcome))
  t.ok(existsSync(join(planted, 'file')))
})

t.test('what answers at a mirror’s address plays no tricks on the terminal', async (t) => {
  const dir = t.testdir()
  const [key, cert] = [join(dir, 'key'), join(dir, 'cert')]
  const args = [
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=x',
    '-keyout',
    key,
    '-out',
    cert,
  ]
  execFileSync('openssl', ['req', ...args], { stdio: 'ignore' })
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (socket) => {
    socket.on('error', () => {})
    socket.end('\x1b]0;owned\x07\x1b[2Jnothing\xe9\r\n\r\n', 'latin1')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const box = await makeFolderBox(join(dir, 'box'), { major: 16 })
  const outcome = await runBox([
    'enrol',
    `https://127.0.0.1:${port}`,
    '--root',
    box.root,
    '--code',
    'X',
    '--box',
    'pbx1',
  ])
  t.match(outcome, { status: 6, stdout: '' }, report(outcome))
  t.notMatch(outcome.stderr, /[^\n -~]/)
})

t.test('verify.py, run by root, leaves folders of others in /tmp alone', async (t) => {
  const dir = t.testdir({ 'gapferry-verify-py-mine': { file: '' }, 'gapferry-verify-py-his': { file: '' } })
  chownSync(join(dir, 'gapferry-verify-py-his'), ASTERISK, ASTERISK)
  for (const name of readdirSync(dir)) utimesSync(join(dir, name), 1e9, 1e9)
  const verify = join(import.meta.dirname, '../../bundler/verify.py')
  await run('python3', ['-B', verify, '/dev/null', '/dev/null'], { env: { TMPDIR: dir } })
  t.strictSame(readdirSync(dir), ['gapferry-verify-py-his'])
})
