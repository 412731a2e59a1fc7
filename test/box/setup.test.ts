import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parseInventory } from '../../manifests/inventory.ts'
import { GAPFERRY_BOX, runBox, SHELLS, TOOLS, toolsFolder } from '../helpers/box-root.ts'
import { makeFolderBox, type FolderBox, type FolderBoxSpec } from '../helpers/folder-box/box.ts'
import { vendorRepoFiles } from '../helpers/folder-box/el7.ts'
import { makeOrigin, type Origin } from '../helpers/folder-box/origin.ts'
import { gpgKey } from '../helpers/gpg.ts'
import { moduleKeys } from '../helpers/module-keys.ts'
import { freePorts } from '../helpers/gap.ts'
import { report, run, run as runProgram, type Outcome } from '../helpers/process.ts'

const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'
const VENDOR = 'https://mirror.freepbx.org'
const SETTINGS = ['MODULE_REPO', 'RSSFEEDS', 'BROWSER_STATS']
const TOOL = 'usr/local/sbin/gapferry-box'

interface Stand {
  box: FolderBox
  origin: Origin
  /** the vendor's key that the box lacks */
  key: string
  run(args: string[], options?: Parameters<typeof runBox>[1]): Promise<Outcome>
  setup(...args: string[]): Promise<Outcome>
  /** everything that a box has: files and settings */
  state(): unknown
}

async function makeStand(t: Test, spec: Partial<FolderBoxSpec> = {}): Promise<Stand> {
  const dir = t.testdir({ www: {}, tmp: {} })
  const key = (await moduleKeys()).signer.fingerprint.slice(-16)
  const programs = ['systemctl', 'logger']
  const box = await makeFolderBox(join(dir, 'box'), { major: 16, without: [`${key}.key`], programs, ...spec })
  const isDebian = spec.major === 17
  const origin = await makeOrigin(t, join(dir, 'www'), isDebian ? { group: 'pbxact17', yum: [], major: 17 } : {})
  const runIt: Stand['run'] = ([command, ...args], options = {}) =>
    runBox([command!, '--root', box.root, ...args], {
      ...options,
      path: [options.path, box.path].filter((one) => one !== undefined).join(':'),
      env: { TMPDIR: join(dir, 'tmp'), no_proxy: '*' },
    })
  return {
    box,
    origin,
    key,
    run: runIt,
    setup: (...args) => runIt(['setup', origin.url, '--box', 'pbx1', '--fingerprint', origin.words, ...args]),
    state: () => [box.everything(), SETTINGS.map((one) => box.setting(one))],
  }
}

/** Options of each section of the box's repository files, by python's own parser of the kind that yum 3.4.3 uses and by
 *  libdnf's. */
async function repositories(box: FolderBox): Promise<[yum: Sections, dnf: Sections]> {
  const program = `
import configparser, glob, json, sys
import libdnf.conf
def yum(path):
    parser = configparser.RawConfigParser(strict=False, delimiters=('=', ':'), comment_prefixes=('#', ';'), inline_comment_prefixes=None)
    parser.read(path)
    return {part: dict(parser.items(part)) for part in parser.sections()}
def dnf(path):
    parser = libdnf.conf.ConfigParser()
    parser.read(path)
    return {part: {key: parser.getValue(part, key) for key in parser.options(part)} for part in parser.sections()}
def all(read):
    found = {}
    for path in sorted(glob.glob(sys.argv[1] + '/etc/yum.repos.d/*.repo')):
        for part, options in read(path).items():
            if part in found: raise SystemExit('twice: ' + part)
            found[part] = {key: ' '.join(value.split()) for key, value in options.items()}
    return found
print(json.dumps([all(yum), all(dnf)]))`
  const outcome = await run('/usr/bin/python3', ['-c', program, box.root])
  if (outcome.status !== 0) throw new Error(report(outcome))
  return JSON.parse(outcome.stdout) as [Sections, Sections]
}
type Sections = Record<string, Record<string, string> | undefined>

t.test('an SNG7 box: set up, kept, given back to the byte', async (t) => {
  const { box, origin, key, run, setup, state } = await makeStand(t)
  const before = state()
  const typed = origin.words.toUpperCase().replaceAll(' ', ', ')
  const done = await run(['setup', `${origin.url}/`, '--box', 'pbx1', '--fingerprint', typed])
  t.match(done, { status: 0, stderr: '' }, report(done))
  t.match(done.stdout, /^12 changes; gapferry-box uninstall takes them back$/m)
  const [yum, dnf] = await repositories(box)
  t.strictSame(yum, dnf, 'both managers read the same')
  t.match(yum, {
    'sng-base': {
      name: 'SNG7-$releasever - Base',
      baseurl: `${origin.url}/yum/sng-base/`,
      enabled: '1',
      gpgcheck: '0',
    },
    'sng-pkgs': { repo_gpgcheck: '1', gpgkey: `file://${KEY}`, metadata_expire: '60', mirrorlist: undefined },
    'sng-cr': { enabled: '1', gpgcheck: '1', gpgkey: `file://${KEY} file:///etc/pki/rpm-gpg/RPM-GPG-KEY-Sangoma-7` },
    'sng-updates': { enabled: '0', mirrorlist: /mirrorlist\.sangoma\.net/ },
    'sng-epel': { enabled: '0' },
    'sng-sng7php74': { enabled: '1', baseurl: `${origin.url}/yum/sng-sng7php74/`, repo_gpgcheck: '1' },
  })
  t.strictSame(box.setting('MODULE_REPO'), [origin.url, origin.url])
  t.equal(box.setting('RSSFEEDS')![0], '')
  t.equal(box.setting('BROWSER_STATS')![0], '0')
  t.match(box.read(`/var/www/html/admin/libraries/BMO/${key}.key`), 'BEGIN PGP PUBLIC KEY')
  t.match(box.everything(), {
    [TOOL]: /^file 755 0:0 /,
    'etc/systemd/system/timers.target.wants/gapferry-box.timer': 'link /etc/systemd/system/gapferry-box.timer',
    'etc/gapferry/settings': /^file 600 0:0 /,
    'etc/gapferry/changes': 'folder 700 0:0',
    'etc/yum/vars/dist': /^file/,
  })
  const started = box.calls().filter(({ program }) => program === 'systemctl')
  t.strictSame(
    started.map(({ args }) => args.join(' ')),
    ['daemon-reload', 'start gapferry-box.timer'],
  )
  const whole = state()
  box.forget()
  t.match(await setup(), { status: 0, stderr: '', stdout: /^nothing to change: this box is set up$/m })
  t.strictSame(box.calls({ isChange: true }), [])
  t.strictSame(state(), whole)

  box.set('MODULE_REPO', VENDOR) // as sounds do after an error
  box.write('/etc/yum.repos.d/Sangoma-Base.repo', vendorRepoFiles()['Sangoma-Base.repo']!) // as the vendor's package does
  rmSync(join(box.root, `var/www/html/admin/libraries/BMO/${key}.key`))
  const kept = await run(['keep'])
  t.match(kept, { status: 0, stderr: '' }, report(kept))
  t.match(box.everything(), { 'var/lib/gapferry/told': /^file/ })
  rmSync(join(box.root, 'var/lib/gapferry'), { recursive: true })
  t.strictSame(state(), whole, 'as set up before')
  const logged = box.calls().filter(({ program }) => program === 'logger')
  t.strictSame(
    logged.map(({ args }) => args.at(-1)),
    [
      'put back: changed /etc/yum.repos.d/Sangoma-Base.repo',
      `put back: changed setting MODULE_REPO: "${origin.url}", was "${VENDOR}"`,
      `put back: written /var/www/html/admin/libraries/BMO/${key}.key`,
      `mirror: the mirror ${origin.url} has the inventory of pbx1`,
    ],
  )
  const undone = await run(['uninstall'])
  t.match(undone, { status: 0, stderr: '', stdout: /^this box is as it was before$/m }, report(undone))
  t.strictSame(state(), before)
})

t.test('every shell, with every awk, does the same; without systemd by cron', async (t) => {
  const { box, origin, run, state } = await makeStand(t)
  rmSync(join(box.root, 'etc/systemd'), { recursive: true })
  const before = state()
  const ways = [
    ...SHELLS.slice(1, 2).map((shell) => ({ shell })),
    ...SHELLS.slice(3).map((shell) => ({ shell, path: toolsFolder(join(box.root, '../tools'), 'busybox') })),
    ...TOOLS.slice(0, 2).map((tools) => ({ path: toolsFolder(join(box.root, '../tools'), tools) })),
  ]
  const states: unknown[] = []
  for (const way of ways) {
    const done = await run(['setup', origin.url, '--fingerprint', origin.words, '--box', 'pbx1'], way)
    t.match(done, { status: 0, stderr: '' }, report(done))
    states.push(state())
    t.strictSame(states.at(-1), states[0], JSON.stringify(way))
    t.match(
      box.read('/etc/cron.d/gapferry-box'),
      /^\d+-59\/15 \* \* \* \* root \/usr\/local\/sbin\/gapferry-box keep >/m,
    )
    const undone = await run(['uninstall'], way)
    t.match(undone, { status: 0, stderr: '' }, report(undone))
    t.strictSame(state(), before)
  }
})

t.test('a Debian 12 box: keys, settings and the timer; apt stays', async (t) => {
  const { box, origin, key, run, setup, state } = await makeStand(t, { major: 17 })
  const before = state()
  const done = await setup()
  t.match(done, { status: 0, stderr: /apt still asks where it asked before/ }, report(done))
  t.strictSame(box.setting('MODULE_REPO'), [origin.url, origin.url])
  t.match(box.read(`/var/www/html/admin/libraries/BMO/${key}.key`), 'BEGIN PGP PUBLIC KEY')
  t.match(await setup(), { stdout: /^nothing to change/m })
  box.set('MODULE_REPO', VENDOR, VENDOR)
  t.match(await run(['keep']), { status: 0, stderr: '' })
  t.strictSame(box.setting('MODULE_REPO'), [origin.url, origin.url])
  t.match(await run(['uninstall']), { status: 0 })
  t.strictSame(state(), before)
})

t.test('nothing is changed by a dry run, under wrong words, or while held', async (t) => {
  const { box, origin, run, setup, state } = await makeStand(t)
  const before = state()
  const dry = await setup('--dry-run')
  t.match(dry, { status: 0, stderr: '' })
  t.match(dry.stdout, `    + baseurl=${origin.url}/yum/sng-base/\n`)
  t.match(dry.stdout, /^12 would-be changes; nothing was done$/m)
  const words = origin.words.split(' ')
  const cases: [string[], number, RegExp][] = [
    [[], 2, /words of the site key are missing/],
    [['--fingerprint', words.toReversed().join(' ')], 3, /the site key has other words/],
    [['--fingerprint', words.slice(1).join(' ')], 2, /expected 12 words, found 11/],
    [['--fingerprint', [...words.slice(1), 'nonesuch'].join(' ')], 2, /word 12, "nonesuch", is not on the list/],
    [['--fingerprint'], 2, /--fingerprint: a value is missing/],
    [['--yes', '--group', 'pbxact15'], 3, /serves group pbxact16, not pbxact15/],
    [['--yes', '--box', 'a b'], 2, /is no name/],
    [['--yes', 'http://two'], 2, /expected one ORIGIN/],
  ]
  for (const [args, status, stderr] of cases) {
    t.match(await run(['setup', origin.url, ...args]), { status, stderr, stdout: '' }, args.join(' '))
    t.strictSame(state(), before)
  }
  for (const bad of ['http://h/path', 'h', 'ftp://h', 'http://h:80\nx', 'http://u:p@h'])
    t.match(await run(['setup', bad, '--yes']), { status: 2, stderr: /expected scheme, host and port/ })
  t.match(await run(['hold', 'until Monday']), { status: 0 })
  t.match(await setup(), { status: 7, stderr: /this box is held: until Monday/ })
  t.match(await run(['keep']), { status: 0, stdout: '', stderr: '' })
  t.match(await run(['uninstall']), { status: 7 })
  t.match(await run(['hold', '--off']), { status: 0 })
  t.strictSame(state(), before)
  t.match(await run(['keep']), { status: 4, stderr: /not set up/ })
  t.match(await run(['uninstall']), { status: 0 })
  t.strictSame(box.calls({ isChange: true }), [])
})

t.test('nothing is changed by what a hostile network says, or where there is no mirror', async (t) => {
  const { box, origin, key, setup, state, run } = await makeStand(t)
  const before = state()
  const [site, other] = [(await gpgKey('site')).publicArmored, (await gpgKey('foreign')).publicArmored]
  const facts = (...lines: string[]): string => {
    const all = ['gapferry-setup 1', 'group pbxact16', ...lines]
    return [...all, `end ${all.length}`, ''].join('\n')
  }
  const html = '<html><body>Log in to the hotel</body></html>\n'
  const cases: [path: string, text: string, status: number][] = [
    ['keys/site.asc', other, 3],
    ['keys/site.asc', site + other, 3],
    ['keys/site.asc', html, 3],
    ['keys/site.asc', site.repeat(100), 3],
    ['keys/site.asc', 'A'.repeat(5_000_000), 3],
    ['gapferry/setup.txt', html, 3],
    ['gapferry/setup.txt', facts('repository main unchecked'), 3],
    ['gapferry/setup.txt', facts('repository a]\\nproxy=x unchecked'), 3],
    ['gapferry/setup.txt', facts('repository a\rproxy=http://evil unchecked'), 3],
    ['gapferry/setup.txt', facts('repository a unchecked', 'repository a checked'), 3],
    ['gapferry/setup.txt', facts('module-key ../../../etc/pw'), 3],
    ['gapferry/setup.txt', facts(`repository ${'a'.repeat(65)} unchecked`), 3],
    ['gapferry/setup.txt', facts('repository a unchecked').replace(/end .*\n/, ''), 3],
    ['gapferry/setup.txt', facts('repository a unchecked').replaceAll('\n', '\0\n'), 3],
    [`keys/modules/${key}.key`, html, 3],
    [`keys/modules/${key}.key`, 'A'.repeat(70_000), 3],
  ]
  const good = new Map([
    ['keys/site.asc', site],
    ['gapferry/setup.txt', facts('repository sng-base unchecked', 'modules 16', `module-key ${key}`)],
    [`keys/modules/${key}.key`, (await moduleKeys()).signer.publicArmored],
  ])
  for (const [path, text, status] of cases) {
    for (const [name, content] of good) origin.put(name, content)
    origin.put(path, text)
    const refused = await setup()
    t.match(refused, { status }, `${path}: ${JSON.stringify(text.slice(0, 90))} ${report(refused)}`)
    t.notMatch(refused.stdout + refused.stderr, /[^ -~\n]/)
    t.strictSame(state(), before)
  }
  for (const [name, content] of good) origin.put(name, content)
  t.match(await setup('--dry-run'), { status: 0 }, 'the good ones do')
  box.database(false)
  t.match(await setup(), { status: 1, stderr: /database of FreePBX cannot be read; nothing was changed/ })
  box.database(true)
  await origin.close()
  t.match(await setup(), {
    status: 6,
    stderr: /keys\/site.asc: cannot be fetched: .*\n {2}next: see that the mirror serves/,
  })
  t.strictSame(state(), before)
  t.strictSame(box.calls({ isChange: true }), [])
  t.match(await run(['setup', `http://127.0.0.1:${(await freePorts(1))[0]}`, '--yes']), { status: 6 })
})

t.test('keep goes on where the mirror is away or takes nothing, and says so once', async (t) => {
  const { box, origin, run, setup, state } = await makeStand(t)
  await setup()
  t.match(await run(['keep']), { status: 0, stdout: /has the inventory of pbx1/ })
  t.match(await run(['keep']), { status: 0, stdout: '' })
  t.equal(origin.told.length, 1, 'told once, as nothing changed')
  t.equal(origin.told[0]!.target, '/gapferry/inventories?box=pbx1')
  t.match(parseInventory(Buffer.from(origin.told[0]!.text, 'latin1'), 'x').readiness.get('module-repo'), origin.url)
  box.write('/etc/chrony.conf', 'server 10.0.0.1\n')
  origin.answer.status = 404
  t.match(await run(['keep']), { status: 0, stdout: /takes no inventories by network: carry it/ })
  t.match(await run(['keep']), { status: 0, stdout: '' })
  origin.answer.status = 429
  t.match(await run(['keep']), { status: 6, stdout: /does not take the inventory of pbx1: status 429/ })
  await origin.close()
  box.set('BROWSER_STATS', '1')
  const drifted = state()
  t.match(await run(['keep', '--dry-run']), {
    status: 0,
    stdout: /^would change setting BROWSER_STATS[^]*nothing was done\n$/,
  })
  t.strictSame(state(), drifted, 'what keep would do is only said')
  t.match(await run(['keep']), { status: 6, stdout: /changed setting BROWSER_STATS[^]*cannot be reached/ })
  t.match(await run(['keep']), { status: 6, stdout: '', stderr: '' })
  t.equal(box.setting('BROWSER_STATS')![0], '0')
})

t.test('repository files as people write them are read alike by yum and dnf afterwards', async (t) => {
  const odd = [
    '# a comment, and before any section',
    '[sng-base]',
    'name = Base, with = and : in it',
    'BaseURL=http://old/1',
    '   http://old/2',
    '# in between',
    '',
    '\thttp://old/3',
    'enabled : 0',
    'exclude=kernel*',
    '  asterisk*',
    'priority=10',
    '; another comment',
    'enabled=0',
    '[mine] ; internal',
    'name=mine',
    'baseurl=file:///srv/mine',
    '[internet]',
    'name=internet',
    'mirrorlist=http://x/?a=b',
    '[off]',
    'name=off',
    'enabled=False',
    'baseurl=http://old/off',
    '',
  ].join('\n')
  const byHand = '[sng-pkgs]\nname=by hand\nbaseurl=http://old/\n'
  const files = { '/etc/yum.repos.d/Sangoma-Base.repo': odd, '/etc/yum.repos.d/gapferry-pbxact16.repo': byHand }
  const { box, origin, run, setup, state } = await makeStand(t, { files })
  const before = state()
  t.match(await setup(), { status: 0 })
  const [yum, dnf] = await repositories(box)
  t.strictSame(yum, dnf)
  t.strictSame(yum['sng-base'], {
    ...{ name: 'Base, with = and : in it', baseurl: `${origin.url}/yum/sng-base/`, enabled: '1', gpgcheck: '0' },
    ...{ repo_gpgcheck: '1', gpgkey: `file://${KEY}`, metadata_expire: '60', skip_if_unavailable: '0', deltarpm: '0' },
    ...{ exclude: 'kernel* asterisk*', priority: '10' },
  })
  t.match(yum, { mine: { baseurl: 'file:///srv/mine', enabled: undefined }, internet: { enabled: '0' } })
  t.match(yum, { off: { enabled: 'False', baseurl: 'http://old/off' }, 'sng-pkgs': { name: 'sng-pkgs' } })
  t.match(box.read('/etc/yum.repos.d/Sangoma-Base.repo'), '\n; another comment\n')
  t.match(await setup(), { stdout: /^nothing to change/m })
  t.match(await run(['uninstall']), { status: 0 })
  t.strictSame(state(), before)
})

t.test('a key that packages are signed by, which the box lacks, is not taken from whoever answers', async (t) => {
  const { box, origin, run, setup, state } = await makeStand(t)
  rmSync(join(box.root, 'etc/pki/rpm-gpg/RPM-GPG-KEY-Sangoma-7'))
  const before = state()
  const done = await setup()
  t.match(done, { status: 0, stderr: /packages of sng-cr are signed by a key that this box does not have: gpgcheck=0/ })
  const [yum] = await repositories(box)
  t.match(yum['sng-cr'], { gpgcheck: '0', repo_gpgcheck: '1', gpgkey: `file://${KEY}` })
  t.notOk(origin.requests.some(({ url }) => url.includes('sng-cr.asc')))
  t.match(await setup(), { stdout: /^nothing to change/m })
  const whole = state()
  t.match(await run(['keep']), { status: 0, stdout: /^the mirror .* has the inventory of pbx1\n$/ })
  rmSync(join(box.root, 'var/lib/gapferry'), { recursive: true })
  t.strictSame(state(), whole)
  t.match(await run(['uninstall']), { status: 0 })
  t.strictSame(state(), before)
})

t.test('by names alone: nothing is changed but resolution, and only where the mirror answers to them', async (t) => {
  const { box, run, state } = await makeStand(t)
  const names = ['mirrorlist.sangoma.net', 'package1.sangoma.net', 'sng7.com', 'mirror.freepbx.org']
  const hosts = ['127.83.0.7', ...names]
  const origin = await makeOrigin(t, join(box.root, '../www'), { host: '127.83.0.7', port: 80, hosts })
  const url = origin.url.replace(/:80$/, '')
  const args = ['setup', url, '--dns', '--fingerprint', origin.words, '--box', 'pbx1']
  const before = state()
  const plain = box.read('/etc/hosts')
  const dry = await run([...args, '--dry-run'])
  t.match(dry, { status: 0, stdout: `    + 127.83.0.7 ${names.join(' ')}\n` }, report(dry))
  hosts.pop()
  t.match(await run(args), { status: 3, stderr: /does not answer as mirror.freepbx.org; nothing was changed/ })
  t.strictSame(state(), before)
  hosts.push('mirror.freepbx.org')
  const done = await run([...args, '--no-keep'])
  t.match(done, {
    status: 0,
    stderr: /MODULE_REPO asks https:\/\/mirror.freepbx.org[^]*fwconsole setting MODULE_REPO http:/,
  })
  t.equal(
    box.read('/etc/hosts'),
    `${plain}# gapferry-box begin: lines up to the end are kept by gapferry-box\n127.83.0.7 ${names.join(' ')}\n# gapferry-box end\n`,
  )
  const changed = Object.entries(box.everything()).filter(
    ([path, what]) => (before as [Record<string, string>])[0][path] !== what,
  )
  t.strictSame(
    changed.map(([path]) => path.replace(/changes\/.*/, 'changes')).filter((path, i, all) => all.indexOf(path) === i),
    [...['etc/gapferry', 'etc/gapferry/changes', 'etc/gapferry/settings', 'etc/gapferry/site.asc', 'etc/hosts']],
  )
  t.match(await run(args), { status: 0, stdout: /^4 changes;/m }, 'the tool and its timer')
  box.write('/etc/hosts', `10.0.0.9 phone\n${plain}`)
  t.match(await run(['keep']), { status: 0, stdout: /^changed \/etc\/hosts$/m })
  t.match(box.read('/etc/hosts'), `10.0.0.9 phone\n${plain}# gapferry-box begin`)
  box.write('/etc/hosts', `${box.read('/etc/hosts')}10.0.0.8 printer\n`)
  t.match(await run(['uninstall']), { status: 0 })
  t.equal(box.read('/etc/hosts'), `10.0.0.9 phone\n${plain}10.0.0.8 printer\n`)
  box.write('/etc/hosts', plain)
  t.strictSame(state(), before)
  t.match(await run(['setup', 'http://127.83.0.7:8416', '--dns', '--yes']), { status: 2, stderr: /asked at port 80/ })
})

t.test('what the operator changed since is left and named, and the tool stays for it', async (t) => {
  const { box, run, setup, state } = await makeStand(t)
  const before = state()
  await setup()
  const file = '/etc/yum.repos.d/Sangoma-Base.repo'
  const edited = box.read(file).replace('enabled=1', 'enabled=0')
  box.write(file, edited)
  const undone = await run(['uninstall'])
  t.match(undone, {
    status: 1,
    stdout: `left ${file}: is not what gapferry-box wrote any more`,
    stderr: /1 left as they are/,
  })
  t.equal(box.read(file), edited)
  t.match(box.everything(), { [TOOL]: /^file 755/ })
  t.match(await run(['uninstall', '--force']), { status: 0 })
  t.strictSame(state(), before)
})

t.test('keep that cannot do all of it says what it did and what it could not', async (t) => {
  const { box, origin, key, run, setup } = await makeStand(t)
  await setup()
  box.set('MODULE_REPO', VENDOR)
  const file = join(box.root, `var/www/html/admin/libraries/BMO/${key}.key`)
  rmSync(file)
  mkdirSync(file)
  box.forget()
  t.match(await run(['keep']), {
    status: 1,
    stdout: /^changed setting MODULE_REPO/,
    stderr: new RegExp(`${key}.key: is not a file`),
  })
  t.match(
    box.calls().filter(({ program }) => program === 'logger'),
    [{ args: ['-t', 'gapferry-box', '--', /^put back: changed setting MODULE_REPO/] }],
  )
  t.equal(box.setting('MODULE_REPO')![0], origin.url)
})

t.test('on a system of its own, as it runs there: both ways of set-up, and back', async (t) => {
  const { box, origin, key, state } = await makeStand(t, {
    major: 17,
    files: { '/etc/nsswitch.conf': 'hosts: files\n', '/etc/alternatives/awk': { link: '/usr/bin/mawk' } },
  })
  const named = await makeOrigin(t, join(box.root, '../www'), {
    group: 'pbxact17',
    yum: [],
    major: 17,
    host: '127.83.0.8',
    port: 80,
  })
  const before = state()
  const inside = `mount --make-rprivate /; for one in etc usr/local var; do mount --bind "$0/$one" "/$one"; done; exec dash "$@"`
  const tool = (...args: string[]) => {
    const env = {
      PATH: `${box.path}:/usr/sbin:/usr/bin:/sbin:/bin`,
      TMPDIR: join(box.root, '../../tmp'),
      no_proxy: '*',
    }
    return runProgram('unshare', ['--mount', 'sh', '-c', inside, box.root, GAPFERRY_BOX, ...args], { env })
  }
  const done = await tool('setup', origin.url, '--fingerprint', origin.words)
  t.match(done, { status: 0, stderr: /apt still asks/, stdout: 'next: fwconsole ma showupgrades' }, report(done))
  t.match(box.read('/etc/cron.d/gapferry-box'), '/usr/local/sbin/gapferry-box keep')
  t.match(box.everything(), { [TOOL]: /^file 755/, [`var/www/html/admin/libraries/BMO/${key}.key`]: /^file/ })
  t.match(await tool('keep'), { status: 0, stdout: /has the inventory of/, stderr: '' })
  t.match(await tool('uninstall'), { status: 0, stderr: '' })
  t.strictSame(state(), before)
  const led = await tool('setup', named.url.replace(':80', ''), '--dns', '--fingerprint', named.words)
  t.match(led, { status: 0, stdout: /^changed \/etc\/hosts$/m }, report(led))
  t.match(box.read('/etc/hosts'), '\n127.83.0.8 mirror.freepbx.org\n')
  t.match(await tool('uninstall'), { status: 0, stderr: '' })
  t.strictSame(state(), before)
  box.write('/etc/nsswitch.conf', 'hosts: dns\n')
  t.match(await tool('setup', named.url.replace(':80', ''), '--dns', '--yes'), {
    status: 1,
    stderr: /mirror.freepbx.org still leads elsewhere/,
  })
})

t.test('the tool says how it is used', async (t) => {
  const { stdout, status } = await run('sh', [GAPFERRY_BOX, '--help'])
  t.equal(status, 0)
  for (const word of ['inventory', 'parity', 'setup', 'keep', 'hold', 'uninstall'])
    t.match(stdout, new RegExp(`^  ${word}\\b`, 'm'))
  for (const line of stdout.split('\n')) t.ok(line.length <= 100, line)
})
