import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import { formatNevra, formatRelation } from '../../manifests/rpm-version.ts'
import { GAPFERRY_BOX, makeBoxRoot, manyPackages, runBox, SHELLS, TOOLS, toolsFolder } from '../helpers/box-root.ts'
import { mustRun, report, run } from '../helpers/process.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'

const PACKAGES: PackageSpec[] = [
  {
    ...{ name: 'glibc', version: '2.17', release: '326.el7', arch: 'x86_64' },
    provides: ['libc.so.6()(64bit)', 'libc.so.6(GLIBC_2.4)(64bit)', 'odd = 1:-2'],
    requires: ['basesystem', 'rpmlib(CompressedFileNames) <= 3.0.4-1'],
    files: { '/lib64/libc.so.6': '', '/sbin/ldconfig': '', '/usr/bin/tool': '' },
  },
  { name: 'glibc', version: '2.17', release: '326.el7', arch: 'i686', requires: ['/sbin/ldconfig'] },
  {
    ...{ name: 'bash', epoch: 2, version: '4.2~rc1', release: '35.el7' },
    requires: ['libc.so.6()(64bit)', 'libc.so.6()(64bit)', '/bin/tool', '/sbin/ldconfig', 'glibc >= 2.0-1', '(a if b)'],
    obsoletes: ['bash2 < 3'],
    conflicts: ['glibc < 1:0'],
    recommends: ['foo > 2'],
    supplements: ['bar'],
    files: { '/usr/share/a b%c\xe9': '' },
  },
  {
    name: 'centos-release',
    version: '7',
    release: '9.2009',
    provides: ['redhat-release = 7.9', 'system-release(releasever) = 7'],
  },
  { name: 'yum', version: '3.4.3', release: '168.el7' },
]

const PEM = `-----BEGIN CERTIFICATE-----\nMIIB+/==\nMMMM\n-----END CERTIFICATE-----\n`
const CUT_SHORT = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ\n'
const KEY = '-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: 1%\n\nmQIN+/==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n'

const YUM_FILES = {
  '/etc/redhat-release': 'Sangoma Linux release 7.8.2003 (Core)\n',
  '/etc/yum.conf': [
    '[main]',
    'Plugins = 1 ; a comment',
    'exclude=kernel*',
    '  php-*   ',
    '# between the lines of a value',
    '\tmariadb',
    'proxy=http://joe:secret@proxy.lan:3128',
    'proxy_password = s3cret',
    '  more of it',
    '# a comment',
    '',
    '  after the comment',
    '#old_password=commented',
    'distroverpkg: centos-release',
    '[in-main]',
    'baseurl=http://127.0.0.1/main',
    '',
  ].join('\n'),
  '/etc/yum.repos.d/b.repo':
    '[sng-pkgs]\nname=Sang\xf6ma 100%\nmirrorlist=http://u:p@h/?r=$releasever&a=%20\n priority = no\nenabled = 1\nexclude = a,b\n  c\n',
  '/etc/yum.repos.d/a.repo':
    'rem nothing\n; nothing\n[off]\nenabled=FALSE\n[twice]\npriority=1\npassword=geheim\nbaseurl=http://a/\n  http://anna:sl/4711@0815@b/\n\n  http://c/\n',
  '/etc/yum.repos.d/c.repo': '[twice]\r\npriority=2\r\nenabled=0\r\n',
  '/etc/yum/vars/dist': 'sng7\n',
  '/etc/yum/pluginconf.d/versionlock.conf': '[main]\nenabled = 1\nlocklist = /etc/yum/my locks.txt\n',
  '/etc/yum/pluginconf.d/priorities.conf': '[main]\nenabled = 0\n',
  '/etc/yum/my locks.txt': '# why\n 0:asterisk-18.1-1.* \n\n!0:x-1-1.*\n',
  '/usr/lib/yum-plugins/versionlock.py': '',
  '/usr/lib/yum-plugins/priorities.py': '',
  '/usr/lib/yum-plugins/fastestmirror.py': '',
}

async function inventory(root: string, options: Parameters<typeof runBox>[1] = {}): Promise<Inventory> {
  const outcome = await runBox(['inventory', '--root', root], options)
  if (outcome.status !== 0) throw new Error(report(outcome))
  return parseInventory(Buffer.from(outcome.stdout, 'latin1'), 'box.gfi')
}

t.test('the sh file is clean for shellcheck, as sh and as each of its shells', async (t) => {
  const checks = ['sh', 'dash', 'bash'].map((shell) => run('shellcheck', ['-s', shell, GAPFERRY_BOX]))
  for (const outcome of await Promise.all(checks)) t.equal(outcome.status, 0, outcome.stdout)
  t.equal(statSync(GAPFERRY_BOX).mode & 0o111, 0o111, 'it can be run')
})

t.test('every shell, with every awk, says the same, and all that rpm says', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, PACKAGES, YUM_FILES)
  symlinkSync('usr/bin', join(root, 'bin'))
  const ways = [
    ...SHELLS.map((shell) => ({ shell })),
    ...TOOLS.map((tools) => ({ path: toolsFolder(join(root, '..', 'tools'), tools) })),
  ]
  t.teardown(() => rmSync(join(root, '..', 'tools'), { recursive: true }))
  const outcomes = await Promise.all(ways.map((way) => runBox(['inventory', '--root', root], way)))
  const texts = outcomes.map(({ stdout }) => stdout.replace(/^created .*$/m, '').replace(/^end .*$/m, ''))
  for (const [i, outcome] of outcomes.entries()) {
    t.equal(outcome.status, 0, report(outcome))
    t.equal(outcome.stderr, '')
    t.equal(texts[i], texts[0], JSON.stringify(ways[i]))
    t.match(outcome.stdout, /^[ -~\n]*$/, 'printable ASCII')
  }
  const { packages } = parseInventory(Buffer.from(outcomes[0]!.stdout), 'box.gfi')
  t.strictSame(
    packages.map((one) => formatNevra(one)),
    await rpmRows(root, '%{NEVRA}\\n'),
    'NEVRAs',
  )
  for (const kind of ['provides', 'requires', 'obsoletes', 'conflicts', 'recommends', 'supplements'] as const) {
    const tag = kind.slice(0, -1).toUpperCase()
    const rows = await rpmRows(root, `[%{=NEVRA} %{${tag}NEVRS}\\n]`)
    const own = packages.flatMap((one) =>
      (one[kind] ?? []).map((each) => `${formatNevra(one)} ${formatRelation(each)}`),
    )
    const theirs = rows.filter((row) => !row.includes(' rpmlib('))
    t.strictSame(own.sort(), [...new Set(theirs)].sort(), kind)
  }
  const files = packages.map((one) => [one.name, one.files ?? []])
  t.strictSame(files, [
    ['glibc', ['/sbin/ldconfig', '/bin/tool']],
    ['glibc', []],
    ['bash', []],
    ['centos-release', []],
    ['yum', []],
  ])
})

t.test('odd but legal configuration means what yum takes it for, without passwords', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, PACKAGES, YUM_FILES)
  const { stdout } = await runBox(['inventory', '--root', root])
  for (const secret of [
    's3cret',
    'secret',
    'geheim',
    'more of it',
    'u:p@',
    'after the',
    'commented',
    'anna',
    '4711',
    '0815',
  ])
    t.notOk(stdout.includes(secret), secret)
  const box = parseInventory(Buffer.from(stdout), 'box.gfi')
  t.strictSame(Object.fromEntries(box.mainOptions), {
    ...{ plugins: '1', exclude: 'kernel*\nphp-*\nmariadb', proxy: 'http://***@proxy.lan:3128' },
    ...{ proxy_password: '***\n***\n***', distroverpkg: 'centos-release' },
  })
  t.strictSame(
    box.repositories.map(({ id, file }) => [id, file]),
    [
      ['in-main', '/etc/yum.conf'],
      ['off', '/etc/yum.repos.d/a.repo'],
      ['twice', '/etc/yum.repos.d/a.repo'],
      ['sng-pkgs', '/etc/yum.repos.d/b.repo'],
      ['twice', '/etc/yum.repos.d/c.repo'],
    ],
  )
  t.equal(box.repositories[2]!.options.get('baseurl'), 'http://a/\nhttp://***@b/\nhttp://c/')
  t.equal(box.repositories[3]!.options.get('mirrorlist'), 'http://***@h/?r=$releasever&a=%20\npriority = no')
  t.strictSame(Object.fromEntries(box.variables), { arch: box.arch, basearch: box.arch, releasever: '7', dist: 'sng7' })
  t.strictSame(box.versionLocks, ['0:asterisk-18.1-1.*', '!0:x-1-1.*'])
  t.strictSame(box.plugins, ['versionlock'])
  t.match(box, { manager: 'yum', managerVersion: '3.4.3', isGuess: false })
  t.strictSame(box.distribution, { id: 'sangoma', version: '7.8.2003', name: 'Sangoma Linux release 7.8.2003 (Core)' })
  t.match(
    stdout,
    /^section settings \d+\n(?:main .*\n)+(?:repository .*\n)+lock 0:asterisk-18.1-1.\*\nlock !0:x-1-1.\*\n/m,
  )
})

t.test('a box that is pointed to the mirror keeps its state; an exclude or another package changes it', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, PACKAGES, {
    '/etc/yum.repos.d/v.repo': '[b]\nmirrorlist=http://v/\ngpgcheck=0\n[a]\nmirrorlist=http://v/\n',
  })
  const vendor = (await inventory(root)).stateDigest
  writeFileSync(join(root, 'etc/yum.repos.d/v.repo'), '[b]\nenabled=0\n[a]\nenabled = no\n')
  const mirror = '[a]\nbaseurl=http://m/yum/a/\nenabled=1\nrepo_gpgcheck=1\n[b]\nbaseurl=http://m/yum/b/\n'
  writeFileSync(join(root, 'etc/yum.repos.d/gapferry-g.repo'), mirror)
  t.not((await inventory(root)).stateDigest, vendor, 'a repository of one id twice is off where the first is')
  writeFileSync(join(root, 'etc/yum.repos.d/v.repo'), '')
  t.equal((await inventory(root)).stateDigest, vendor)
  writeFileSync(join(root, 'etc/yum.conf'), '[main]\nexclude=x\n')
  t.not((await inventory(root)).stateDigest, vendor)
})

t.test('dnf’s own reader finds the same settings in its files', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(
    root,
    [...PACKAGES, { name: 'dnf', version: '4.14.0' }],
    {
      '/etc/os-release': 'NAME="A B"\nID="rocky"\nVERSION_ID=8.9\nPRETTY_NAME="Rocky Linux 8.9 (Green Obsidian)"\n',
      '/etc/dnf/dnf.conf': '[main]\nexcludepkgs=a*\n  b*\n  # c\n\te\n\ninstallonly_limit=3\nbest=True\n#best=0\n',
      '/etc/yum.repos.d/x.repo':
        '[x]\nname=x ; no comment\nbaseurl=http://127.0.0.1/x\n  http://127.0.0.1/y\nenabled=no\npriority=7\n[y]\nbaseurl=http://127.0.0.1/y\nexcludepkgs=one,two\n three\n;priority=1\n',
    },
    'dnf',
  )
  const box = await inventory(root)
  const script = [
    'import dnf, json, sys',
    'base = dnf.Base(); base.conf.config_file_path = sys.argv[1] + "/etc/dnf/dnf.conf"; base.conf.installroot = sys.argv[1]; base.conf.substitutions["releasever"] = "7"',
    'base.conf.read(); base.conf.reposdir = [sys.argv[1] + "/etc/yum.repos.d"]; base.read_all_repos()',
    'print(json.dumps({"main": [list(base.conf.excludepkgs), base.conf.best, base.conf.installonly_limit],',
    '  "repos": [[r.id, list(r.baseurl), bool(r.enabled), r.priority, list(r.excludepkgs)] for r in base.repos.values()]}))',
  ].join('\n')
  const { stdout } = await mustRun('/usr/bin/python3', ['-c', script, root], { env: { HOME: root } })
  const theirs = JSON.parse(stdout) as { main: unknown[]; repos: unknown[][] }
  const list = (text: string | undefined): string[] => (text ?? '').split(/[\s,]+/).filter((word) => word !== '')
  t.strictSame(theirs.main, [
    list(box.mainOptions.get('excludepkgs')),
    true,
    Number(box.mainOptions.get('installonly_limit')),
  ])
  t.strictSame(
    theirs.repos,
    box.repositories.map(({ id, options }) => {
      const isEnabled = (options.get('enabled') ?? '1') === '1'
      return [
        id,
        list(options.get('baseurl')),
        isEnabled,
        Number(options.get('priority') ?? 99),
        list(options.get('excludepkgs')),
      ]
    }),
  )
  t.strictSame(box.distribution, { id: 'rocky', version: '8.9', name: 'Rocky Linux 8.9 (Green Obsidian)' })
  t.equal(box.repositories[0]!.options.get('name'), 'x ; no comment')
})

t.test('of FreePBX: modules, fields, names and dates of licenses; never their content', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, PACKAGES, {
    '/etc/freepbx.conf':
      "<?php\n$amp_conf['AMPDBUSER'] = 'freepbxuser';\n$amp_conf[\"AMPDBPASS\"]  = \"pa'ss\";\n$amp_conf['AMPDBNAME'] = 'asterisk';\n",
    '/etc/sangoma/pbx-version': '16.0\n',
    '/etc/sangoma/pbx-brand': 'pbxact\n',
    '/etc/machine-id': 'abc\n',
    '/etc/schmooze/schmooze.zl':
      'Product-Name = PBXact\r\ndeploymentid = 12345678\nsysadmin_exp = 2027-01-31\nkey = TOPSECRET\nhostid = SECRETHOST\nx_exp = 12 $(SECRET)\n',
    '/etc/sangoma/license.txt': 'binary\0SECRET',
    '/etc/sangoma/license of 5% x.zl': 'a_exp = 31-Jan-2027\n',
    '/web/admin/modules/core/module.xml':
      '<module>\n<rawname>core</rawname><version>16.0.68.26</version><license>GPL v3 or 100% later</license>\n</module>',
    '/web/admin/modules/endpoint/module.xml':
      '<module>\n <rawname>endpoint</rawname>\n <version>16.0.2</version>\n <license>Commercial</license>\n <depends><version>13.0</version></depends>\n</module>',
    '/web/admin/modules/new/module.xml': '<module><rawname>new</rawname>\n<version>1.0</version></module>',
    '/web/admin/libraries/BMO/9f9169f4b33b4659.key': `Comment\r\n${KEY.replaceAll('\n', '\r\n')}SECRET\n`,
    '/web/admin/libraries/BMO/signatures/9F9169F4B33B4659.key': KEY.replace('mQ', 'other'),
    '/web/admin/libraries/BMO/signatures/b53d215a755231a3.key': `${CUT_SHORT}-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nSECRET\n-----END PGP PRIVATE KEY BLOCK-----\n`,
    '/web/admin/libraries/BMO/server.key': KEY,
    '/web/admin/libraries/BMO/0000000000000001.key': `${KEY}${'x'.repeat(65_536)}`,
    '/etc/postfix/main.cf': 'relayhost = [mail.lan]\n',
    '/etc/resolv.conf': '# none\nnameserver 127.0.0.1\nnameserver 10.0.0.1 # x\n',
    '/etc/chrony.conf': 'server ntp1.lan iburst\n#server no\npool ntp2.lan\n',
    '/etc/localtime': '',
    '/etc/timezone': 'America/Toronto\n',
    '/etc/environment': 'HTTPS_PROXY_OFF=1\nhttps_proxy="http://joe:s3cret@proxy.lan:3128"\n',
    '/etc/rsyslog.d/a.conf': '# *.* @no.lan\n*.* @@(o)log.lan:514\n*.* @logs.lan\n',
    '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry': 'key\n',
    '/etc/gapferry/settings': 'mode mirror\norigin http://m:8416\nsecret x\n',
    '/etc/gapferry/hold': '',
    '/etc/gapferry/box.pem': `text\n${PEM}${PEM.replaceAll('M', 'N')}`,
    '/etc/crontab': 'SHELL=/bin/bash\n0 5 * * * root yum -y update | logger -t yum\n',
    '/etc/cron.d/x': '@daily root fwconsole ma upgradeall\n0 1 * * * root fwconsole reload\n',
    '/etc/yum/yum-cron.conf': '[commands]\napply_updates = yes\n',
    '/usr/lib/systemd/system/dnf-automatic.timer': '[Timer]\nOnCalendar=*-*-* 6:00\n',
    '/usr/lib/systemd/system/fstrim.timer': '[Timer]\nOnCalendar=weekly\n',
    '/etc/systemd/system/dnf-automatic.timer.d/a.conf':
      '[Timer]\nOnCalendar=\nOnCalendar=Sat 04:00\nOnCalendar = Sun 05:00\n',
    '/var/spool/cron/asterisk':
      '# x\n5 4 * * 6 /usr/sbin/fwconsole ma installall --sendemail -q > /dev/null 2>&1\n* * * * * /bin/true\n',
  })
  const wants = join(root, 'etc/systemd/system')
  for (const folder of ['timers.target.wants', 'multi-user.target.wants']) mkdirSync(join(wants, folder))
  for (const name of ['dnf-automatic', 'fstrim'])
    symlinkSync(`/usr/lib/systemd/system/${name}.timer`, join(wants, `timers.target.wants/${name}.timer`))
  symlinkSync('/usr/lib/systemd/system/postfix.service', join(wants, 'multi-user.target.wants/postfix.service'))
  const stubs = join(t.testdirName, 'stubs')
  mkdirSync(stubs)
  const rows = [
    'version\\t16.0.40.11',
    'module\\tcore\\t16.0.68.26\\t1',
    'module\\tendpoint\\t16.0.1\\t1',
    'module\\tgone\\t1.2\\t1',
    'setting\\tAMPWEBROOT\\t/web\\t/var/www/html',
    'setting\\tMODULE_REPO\\thttp://m:8416\\thttps://mirror.freepbx.org',
    'setting\\tRSSFEEDS\\t\\thttp://feed',
    'setting\\tBROWSER_STATS\\t1\\t1',
    'profile\\tinstallid\\tNULL',
    'profile\\tucount\\t12',
    'setting\\tMODULEADMINEDGE\\t1\\t0',
    'setting\\tAUTOMODULEUPDATES\\temailonly\\tenabled',
    'setting\\tPROXY_ENABLED\\t1\\t0',
    'setting\\tPROXY_ADDRESS\\thttp://u:s3cret@p.lan:1\\t',
    'trunk\\tsip.provider.com',
    'trunk\\t10.0.0.9:5061',
    'repos\\t{"standard":1,"commercial":"1","unsupported":0}',
    'sound\\tasterisk\\tcore-sounds\\ten_GB 1\\tulaw\\t1.6.1',
  ].join('\\n')
  writeFileSync(
    join(stubs, 'mysql'),
    `#!/bin/sh\n[ "$MYSQL_PWD" = "pa'ss" ] && printf '${rows}\\n'\ncase "$*" in *INSERT*|*UPDATE*|*pa\\'ss*) echo bad;; esac\n`,
    { mode: 0o755 },
  )
  const { stdout, stderr } = await runBox(['inventory', '--root', root], { path: stubs })
  t.equal(stderr, '')
  t.notOk(/SECRET|s3cret/.test(stdout))
  const bodyOf = (text: string): string => text.replace(/^(?:created|end) .*$/gm, '')
  const ways = [
    ...SHELLS.map((shell) => ({ shell, path: stubs })),
    ...TOOLS.map((tools) => ({ path: `${toolsFolder(join(stubs, 'tools'), tools)}:${stubs}` })),
  ]
  for (const outcome of await Promise.all(ways.map((way) => runBox(['inventory', '--root', root], way))))
    t.equal(bodyOf(outcome.stdout), bodyOf(stdout), 'every shell and every awk says the same')
  const { freepbx, readiness } = parseInventory(Buffer.from(stdout), 'box.gfi')
  t.equal(freepbx?.framework, '16.0.40.11')
  t.strictSame(
    freepbx?.modules.map((one) => Object.values(one).join(' ')),
    [
      'core 16.0.68.26 enabled GPL v3 or 100% later',
      'endpoint 16.0.1 needs-upgrade Commercial',
      'gone 1.2 broken ?',
      'new 1.0 not-installed ?',
    ],
  )
  t.strictSame(
    freepbx?.licenses.map(({ file, facts }) => [file, Object.fromEntries(facts)]),
    [
      ['/etc/schmooze/schmooze.zl', { 'Product-Name': 'PBXact', deploymentid: '12345678', sysadmin_exp: '2027-01-31' }],
      ['/etc/sangoma/license of 5% x.zl', { a_exp: '31-Jan-2027' }],
      ['/etc/sangoma/license.txt', {}],
    ],
  )
  t.match(Object.fromEntries(freepbx!.profile), {
    ucount: '12',
    brandid: 'pbxact',
    distrover: '16.0',
    distro: 'freepbxdistro',
    machineid: /^[0-9a-f]{64}$/,
  })
  t.strictSame(freepbx?.keys, ['0000000000000001', '9F9169F4B33B4659', 'B53D215A755231A3'])
  t.strictSame(
    [...freepbx!.keyFiles],
    [
      ['9F9169F4B33B4659', KEY],
      ['B53D215A755231A3', CUT_SHORT],
    ],
    'of key files: their public keys',
  )
  t.strictSame(freepbx?.sounds, [
    { type: 'asterisk', module: 'core-sounds', language: 'en_GB 1', format: 'ulaw', version: '1.6.1' },
  ])
  t.strictSame(Object.fromEntries(freepbx!.settings), { MODULEADMINEDGE: '1', AUTOMODULEUPDATES: 'emailonly' })
  t.strictSame(freepbx?.activeRepos, ['commercial', 'standard'])
  t.strictSame(Object.fromEntries(readiness), {
    readiness: '2',
    'setup-mode': 'mirror',
    'setup-origin': 'http://m:8416',
    held: 'yes',
    'dns-servers': '127.0.0.1 10.0.0.1',
    'time-servers': 'ntp1.lan ntp2.lan',
    'setting-names': 'log.lan logs.lan m mail.lan ntp1.lan ntp2.lan sip.provider.com',
    'mail-relay': '[mail.lan]',
    'mail-service': 'postfix',
    timezone: 'America/Toronto',
    trunks: 'sip.provider.com | 10.0.0.9:5061',
    proxy: 'fwconsole=http://***@p.lan:1 | https_proxy=http://***@proxy.lan:3128',
    'package-keys': `/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry=${sha256Of('key\n')}`,
    'box-certificate': PEM.split('\n').slice(1, -2).join(''),
    'module-repo': 'http://m:8416',
    'module-repo-default': 'https://mirror.freepbx.org',
    'news-feeds': '',
    statistics: '1',
    automatic: [
      'automoduleupdates=emailonly',
      '5 4 * * 6 /usr/sbin/fwconsole ma installall --sendemail -q > /dev/null 2>&1',
      '0 5 * * * yum -y update |logger -t yum',
      '@daily fwconsole ma upgradeall',
      'yum-cron=yes',
      'timer dnf-automatic.timer Sat 04:00',
      'timer dnf-automatic.timer Sun 05:00',
    ].join(' | '),
  })
})

t.test('1500 packages: under a megabyte, under ten seconds, nothing written', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, manyPackages(1500), YUM_FILES)
  await rpmRows(root, '') // sqlite makes its shared memory when a database is read first
  const before = snapshot(root)
  const trace = join(root, '..', 'trace')
  const file = join(root, '..', 'box.gfi')
  const script = `times; exec 3>&1; strace -f -qq -o ${trace} -e trace=open,openat,creat,unlink,unlinkat,rename,renameat,mkdir,mkdirat,link,symlink,chmod,chown,truncate,flock dash ${GAPFERRY_BOX} inventory --root ${root} >${file}`
  await mustRun('sh', ['-c', script])
  const isolated = `mount --bind ${root} ${root} && mount -o remount,ro,bind ${root} && dash ${GAPFERRY_BOX} inventory --root ${root} && times >&2`
  const unwritable = await mustRun('unshare', ['--mount', 'sh', '-c', isolated])
  const bytes = readFileSync(file)
  t.ok(bytes.length < 1_000_000, `${bytes.length} bytes`)
  t.equal(parseInventory(bytes, 'box.gfi').packages.length, 1500)
  t.equal(withoutTime(unwritable.stdout), withoutTime(bytes.toString()), 'the same where nothing can be written')
  const seconds = unwritable.stderr
    .trim()
    .split('\n')[1]!
    .split(' ')
    .map((time) => Number(/^(\d+)m([\d.]+)s$/.exec(time)![2]))
  t.ok(seconds[0]! + seconds[1]! < 10, `${seconds.join(' + ')} s of processor`)
  const changes = readFileSync(trace, 'utf8')
    .split('\n')
    .filter((line) => /O_WRONLY|O_RDWR|O_CREAT|unlink|rename|mkdir|link|chmod|chown|flock/.test(line))
  const own = changes.filter(
    (line) => !line.includes('ENOENT') && !line.includes('/dev/') && !line.includes('readlink'),
  )
  // sqlite's readers share these two, which stand beside the database already; rpm 4.11 has no such files
  t.strictSame(
    own.filter((line) => !/rpmdb\.sqlite-(?:wal|shm)"/.test(line)),
    [],
  )
  t.strictSame(snapshot(root), before)
})

t.test('what cannot be read whole is no inventory', async (t) => {
  const root = t.testdir()
  const refusal = async (): Promise<string> => {
    const { status, stdout, stderr } = await runBox(['inventory', '--root', root])
    t.equal(stdout, '')
    return `${status} ${stderr}`
  }
  t.match(await refusal(), /^4 gapferry-box: .*neither yum nor dnf/)
  await makeBoxRoot(root, PACKAGES)
  writeFileSync(join(root, 'var/lib/rpm/rpmdb.sqlite'), 'x'.repeat(10_000))
  t.match(await refusal(), /^1 gapferry-box: the package database cannot be read: error:/)
  mkdirSync(join(root, 'var/run'), { recursive: true })
  writeFileSync(join(root, 'var/run/yum.pid'), `${process.pid}\n`)
  t.match(await refusal(), /^7 gapferry-box: .*another program is changing packages/)
})

t.test('a Debian 12 box tells everything but its packages, passwords taken out', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(
    root,
    [],
    {
      '/usr/bin/apt-get': '',
      '/var/lib/dpkg/status': '',
      '/etc/os-release': 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
      '/etc/debian_version': '12.11\n',
      '/etc/apt/sources.list': 'deb http://me:secret@deb.lan/freepbx17-prod bookworm main\n',
      '/etc/apt/preferences.d/99sangoma': 'Package: *\nPin: origin deb.freepbx.org\n',
      '/etc/machine-id': 'abc\n',
    },
    'dnf',
  )
  const { stdout } = await runBox(['inventory', '--root', root])
  t.notOk(stdout.includes('secret'))
  const box = parseInventory(Buffer.from(stdout), 'box.gfi')
  t.match(box, { manager: 'apt', packages: [], distribution: { id: 'debian', version: '12' }, freepbx: undefined })
  t.match(box.machine, /^[0-9a-f]{64}$/)
  t.match(await runBox(['parity', '--root', root, 'http://x']), { status: 2, stderr: /parity is for yum and dnf/ })
})

t.test('an empty package database is refused, not reported as a box without packages', async (t) => {
  const root = t.testdir()
  await makeBoxRoot(root, [])
  mkdirSync(join(root, 'var/lib/rpm'), { recursive: true })
  await mustRun('rpm', ['--root', root, '--dbpath', '/var/lib/rpm', '--initdb'])
  const { status, stderr } = await runBox(['inventory', '--root', root])
  t.equal(status, 1)
  t.match(stderr, /holds no package/)
})

t.test('wrong use names what is wrong and the help', async (t) => {
  for (const args of [
    [],
    ['upgrade'],
    ['inventory', '--rot'],
    ['inventory', '--root', '/no/such/folder'],
    ['inventory', '--root'],
  ]) {
    const { status, stdout, stderr } = await runBox(args)
    t.equal(status, 2, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, /^gapferry-box: .*\n {2}next: gapferry-box --help\n$/)
  }
  const help = await runBox(['--help'])
  t.match(help, { status: 0, stderr: '', stdout: /gapferry-box inventory > box.gfi/ })
})

async function rpmRows(root: string, format: string): Promise<string[]> {
  const { stdout } = await mustRun('rpm', ['--root', root, '--dbpath', '/var/lib/rpm', '-qa', '--qf', format])
  return stdout.split('\n').filter((line) => line !== '')
}

function withoutTime(text: string): string {
  return text.replace(/^created .*$/m, '').replace(/^end .*$/m, '')
}

/** Every file with size and time of change, but sqlite's shared memory. */
function snapshot(root: string): string[] {
  const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => !/sqlite-(?:wal|shm)$/.test(name),
  )
  return names.sort().map((name) => {
    const { size, mtimeMs } = statSync(join(root, name))
    return `${name} ${size} ${mtimeMs}`
  })
}

t.test('what the web server put among the modules neither hangs root nor hides the others', async (t) => {
  const root = t.testdir()
  const modules = join(root, 'var/www/html/admin/modules')
  await makeBoxRoot(root, PACKAGES, {
    ...YUM_FILES,
    '/var/www/html/admin/modules/core/module.xml':
      '<module><rawname>core</rawname><version>16.0.1</version></module>\n',
  })
  for (const name of ['aaa', 'bbb']) mkdirSync(join(modules, name))
  symlinkSync('/nowhere', join(modules, 'aaa/module.xml'))
  t.equal((await run('mkfifo', [join(modules, 'bbb/module.xml')])).status, 0)
  t.match((await inventory(root)).freepbx?.modules, [{ name: 'core', version: '16.0.1' }])
})

t.test('below another root, PHP is what is beside that box, never this system’s own', async (t) => {
  const dir = t.testdir({ root: {}, bin: {}, own: {} })
  await makeBoxRoot(join(dir, 'root'), PACKAGES, { '/etc/freepbx.conf': '<?php\n' })
  const phpOf = async (path: string): Promise<string | undefined> => {
    const { stdout } = await runBox(['inventory', '--root', join(dir, 'root')], { path })
    return parseInventory(Buffer.from(stdout), 'box.gfi').freepbx?.profile.get('phpver')
  }
  writeFileSync(join(dir, 'bin/php'), '#!/bin/sh\necho "PHP 7.4.33 (cli)"\n', { mode: 0o755 })
  t.equal(await phpOf(join(dir, 'bin')), '7.4.33')
  t.match(await run('php', ['-v']), { status: 0 })
  t.equal(await phpOf(join(dir, 'own')), undefined)
})
