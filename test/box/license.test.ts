import { X509Certificate } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { parseLicense } from '../../manifests/license.ts'
import { GAPFERRY_BOX, SHELLS } from '../helpers/box-root.ts'
import { DEPLOYMENT, licenseDocument, licenseText, makeLicenseBox, MARKER, PYTHONS } from '../helpers/license-box.ts'
import { filesWith } from '../helpers/licenses.ts'
import { startLicenseMirror } from '../helpers/license-mirror.ts'
import { functionOf, makeScene } from '../helpers/license-scene.ts'
import { run } from '../helpers/process.ts'

const ZL = '/etc/schmooze/schmooze.zl'
const TXT = '/etc/sangoma/license.txt'
const UNTIL = '2029-02-28'

const BOXES = [
  ...PYTHONS.map((python) => ({ what: `SNG7, ${python}`, options: { major: 16 as const, python } })),
  { what: 'Debian 12', options: { major: 17 as const } },
]
for (const { what, options } of BOXES) {
  t.test(`a license is delivered and installed: ${what}`, async (t) => {
    const { mirror, box, license, keep } = await makeScene(t, options)
    mirror.licenses.set('pbx1', licenseDocument())
    const outcome = await license()
    t.match(outcome, { status: 0, stderr: '' })
    t.match(outcome.stdout, /^license installed: 2 files, for PBXact\n {2}endpoint_exp 2029-02-28\n/)
    t.match(outcome.stdout, /\nfwconsole sa info:\n {2}Deployment ID: \*\*\*\n {2}License valid\n$/)
    for (const [path, mode, uid, gid] of [
      [TXT, 0o644, 0, 993],
      [ZL, 0o640, 995, 0],
    ] as const) {
      t.equal(box.read(path), licenseText({ until: UNTIL }))
      const stat = lstatSync(join(box.root, path))
      t.match({ mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid }, { mode, uid, gid }, path)
    }
    const expected = ['apache2', 'httpd', 'php-fpm']
    t.strictSame(box.restarts(), expected)
    t.match(box.calls().at(-1), { program: 'fwconsole', args: ['sa', 'info'] })
    const content = sha256Of(mirror.licenses.get('pbx1')!)
    t.strictSame(mirror.results, [
      {
        ...{ result: 'installed', license: content, restarted: expected, info: 0 },
        expires: ['endpoint_exp', 'sysadmin_exp'].map((name) => ({ name, date: UNTIL })),
      },
    ])
    const kept = readdirSync(join(box.root, 'var/lib/gapferry/license')).filter((name) => name.startsWith('before-'))
    t.equal(kept.length, 1)
    t.equal(box.read(`/var/lib/gapferry/license/${kept[0]}${ZL}`), licenseText())

    box.forget()
    t.match(await license(), { status: 0, stdout: 'the license is the one that the mirror has\n', stderr: '' })
    t.strictSame(await keep(), { status: 0, stdout: '', stderr: '' })
    t.strictSame([...box.calls(), ...box.restarts()], [])
    t.equal(mirror.results.length, 1)
    t.equal(mirror.requests.at(-1)!.headers['if-none-match'], `"${content}"`)
  })
}

t.test('what is tested with is what the laptop writes', (t) => {
  t.equal(parseLicense(licenseDocument(), 'x').files.length, 2)
  t.end()
})

t.test('a newer license updates the dates, by keep', async (t) => {
  const { mirror, box, license, keep } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  await license()
  const renewed = licenseText({ until: '2031-12-31' })
  mirror.licenses.set('pbx1', licenseDocument({ files: [{ path: ZL, text: renewed }] }))
  box.forget()
  mirror.faults.aheadMs = 40 * 86_400_000
  const kept = await keep()
  t.match(kept, { status: 0, stderr: /the clocks differ by (?:39|40) days/ })
  t.match(
    kept.stdout,
    /^license installed: 1 file, for PBXact\n {2}endpoint_exp 2031-12-31\n {2}sysadmin_exp 2031-12-31\nrestarted: [^\n]*\n$/,
  )
  const logged = readFileSync(box.syslog, 'utf8')
  t.match(logged, /^-t gapferry-box -- mirror: license installed: 1 file, for PBXact\n/)
  t.notMatch(logged, new RegExp(`${DEPLOYMENT}|${MARKER}`))
  t.equal(box.read(ZL), renewed)
  t.equal(box.read(TXT), licenseText({ until: UNTIL }))
  t.strictSame(box.restarts(), ['apache2', 'httpd', 'php-fpm'])
  t.match(mirror.results[1], { result: 'installed', expires: [{ date: '2031-12-31' }, {}] })
  const { clockSeconds } = mirror.results[1] as { clockSeconds: number }
  t.ok(Math.abs(clockSeconds + 40 * 86_400) < 60, `the box is behind: ${clockSeconds}`)
  // what the mirror goes back to is installed, too: which bundle is served is decided there
  mirror.licenses.set('pbx1', licenseDocument())
  t.match(await keep(), { status: 0 })
  t.equal(box.read(ZL), licenseText({ until: UNTIL }))
})

t.test('only the last three of what was replaced are kept', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  for (let n = 1; n <= 4; n++) {
    mirror.licenses.set(
      'pbx1',
      licenseDocument({ files: [{ path: ZL, text: licenseText({ until: `203${n}-01-01` }) }] }),
    )
    await license()
  }
  const kept = readdirSync(join(box.root, 'var/lib/gapferry/license'))
    .filter((name) => name.startsWith('before-'))
    .sort()
  const texts = kept.map((name) => box.read(`/var/lib/gapferry/license/${name}${ZL}`))
  t.strictSame(
    texts,
    ['2031', '2032', '2033'].map((year) => licenseText({ until: `${year}-01-01` })),
  )
})

t.test('a revoked box gets nothing, and keeps what it has', async (t) => {
  const { mirror, license, keep, system } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  await license()
  const before = system()
  mirror.boxes.delete('pbx1')
  t.match(await license(), { status: 4, stderr: /has no license for this box, or does not take it/ })
  t.strictSame(await keep(), { status: 0, stdout: '', stderr: '' })
  t.strictSame(system(), before)
})

t.test('a mirror that is away is no news to keep', async (t) => {
  const { box, license, keep } = await makeScene(t)
  const text = box.read('/etc/gapferry/enrolled').replace(/:\d+/, ':9')
  writeFileSync(join(box.root, 'etc/gapferry/enrolled'), text)
  t.strictSame(await keep(), { status: 6, stdout: '', stderr: '' })
  t.match(await license(), { status: 6, stderr: /next: see that the mirror serves/ })
})

t.test('what somebody else renewed is not taken back, unless it is asked for', async (t) => {
  const { mirror, box, license, keep } = await makeScene(t)
  const newest = licenseText({ until: '2035-01-01' })
  box.write(ZL, newest)
  mirror.licenses.set('pbx1', licenseDocument({ files: [{ path: ZL, text: licenseText({ until: UNTIL }) }] }))
  t.match(await keep(), { status: 3, stderr: /is newer than the one that was brought: it stays/ })
  t.match(await keep(), { status: 0, stderr: '' })
  t.match(await license(), { status: 3, stderr: /next: gapferry-box license --force/ })
  t.equal(box.read(ZL), newest)
  t.match(mirror.results[0], { result: 'refused', code: 'LICENSE_OLDER' })
  t.match(await license('--force'), { status: 0, stdout: /^license installed/ })
  t.equal(box.read(ZL), licenseText({ until: UNTIL }))
})

t.test('dates as vendors write them are compared as days', async (t) => {
  const spellings = ['31-Jan-2035', 'Jan 31, 2035', '20350131', '2035-01-31 10:00:00', '1/31/2035', '2053814400']
  const { mirror, box, license } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument({ files: [{ path: ZL, text: licenseText({ until: '2035-01-30' }) }] }))
  for (const until of spellings) {
    box.write(ZL, licenseText({ until }))
    t.match(await license(), { status: 3, stderr: /it stays/ }, until)
  }
  mirror.licenses.set('pbx1', licenseDocument({ files: [{ path: ZL, text: licenseText({ until: '2035-02-01' }) }] }))
  t.match(await license(), { status: 0 })
})

t.test('a license from a file, sealed for the key of a box without a mirror', async (t) => {
  for (const python of PYTHONS) {
    const box = await makeLicenseBox(join(t.testdir(), 'box'), { python })
    await box.run(['key', '--box', 'pbx1'])
    const certificate = new X509Certificate(box.read('/etc/gapferry/box.pem')).raw
    const file = join(box.dir, 'sealed')
    writeFileSync(file, await sealCms(licenseDocument(), [certificate]))
    t.match(await functionOf(box, 'license_opens', file), { status: 0, stdout: '', stderr: '' })
    t.match(await functionOf(box, 'license_install', file, 'hq'), { status: 0, stdout: /^license installed/ })
    t.equal(box.read(ZL), licenseText({ until: UNTIL }))
    t.match(box.restarts(), ['apache2', 'httpd', 'php-fpm'])
    box.forget()
    t.strictSame(await box.run(['license', '--file', file]), { status: 0, stdout: '', stderr: '' })
    t.strictSame([...box.calls(), ...box.restarts()], [])
    writeFileSync(file, await sealCms(licenseDocument(), [(await startLicenseMirror(t)).authority.certificate.raw]))
    t.match(await functionOf(box, 'license_opens', file), { status: 3, stdout: '', stderr: '' })
    t.match(await box.run(['license', '--file', file]), { status: 3, stderr: /is sealed for another key/ })
    t.match(await box.run(['license', '--file', `${file}.no`]), { status: 4, stderr: /is not here/ })
  }
})

t.test('as openssl seals it', async (t) => {
  const box = await makeLicenseBox(join(t.testdir(), 'box'))
  await box.run(['key', '--box', 'pbx1'])
  const [plain, file] = [join(box.dir, 'plain'), join(box.dir, 'sealed')]
  writeFileSync(plain, licenseDocument())
  const how = ['-encrypt', '-binary', '-aes-256-cbc', '-outform', 'DER', '-in', plain, '-out', file]
  t.match(await run('openssl', ['cms', ...how, join(box.root, 'etc/gapferry/box.pem')]), { status: 0 })
  t.match(await box.run(['license', '--file', file]), { status: 0, stdout: /^license installed/ })
})

t.test('a web server that does not come back is named', async (t) => {
  const { mirror, box, license } = await makeScene(t)
  box.write('/usr/lib/systemd/system/php74-php-fpm.service', '')
  writeFileSync(
    join(box.path, 'systemctl'),
    `#!/bin/sh\ncase "$*" in *httpd*|"is-active --quiet php74-php-fpm") exit 0 ;; esac\nexit 3\n`,
  )
  mirror.licenses.set('pbx1', licenseDocument())
  t.match(await license(), {
    ...{ status: 1, stdout: /\nrestarted: httpd\n/ },
    stderr: /the license is installed, but not restarted: php74-php-fpm\n {2}next: systemctl status php74-php-fpm\n/,
  })
  t.match(mirror.results, [{ result: 'installed', restarted: ['httpd'] }])
  t.match(await license(), { status: 0 })
})

t.test('a mirror that went away after delivering hears of it later; nothing is restarted twice', async (t) => {
  const { mirror, box, license, keep } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  const { results } = mirror
  // it forgets the box between delivery and result
  mirror.faults.spoil = (_, body) => {
    mirror.boxes.delete('pbx1')
    return body
  }
  const certificate = mirror.boxes.get('pbx1')!
  t.match(await license(), { status: 0, stdout: /^license installed/ })
  t.strictSame(results, [])
  mirror.faults = {}
  mirror.boxes.set('pbx1', certificate)
  box.forget()
  t.match(await keep(), { status: 0 })
  t.match(results, [{ result: 'installed', restarted: ['apache2', 'httpd', 'php-fpm'] }])
  t.strictSame([...box.calls(), ...box.restarts()], [])
})

t.test('a box that is held is left alone', async (t) => {
  const { mirror, box, license, keep, system } = await makeScene(t)
  mirror.licenses.set('pbx1', licenseDocument())
  box.write('/etc/gapferry/hold', 'no changes this week\n')
  const before = system()
  t.match(await license(), { status: 7, stderr: /held: no changes this week/ })
  t.strictSame(await keep(), { status: 0, stdout: '', stderr: '' })
  t.strictSame(system(), before)
})

t.test('license text and Deployment ID are in no argument, message, temporary file or note', async (t) => {
  for (const python of PYTHONS) {
    const { mirror, box } = await makeScene(t, { python })
    mirror.licenses.set('pbx1', licenseDocument())
    const [tmp, log] = [join(box.dir, 'tmp'), join(box.dir, 'exec.log')]
    mkdirSync(tmp)
    const PATH = `${box.path}:/usr/sbin:/usr/bin:/sbin:/bin`
    const traced = ['-f', '-s', '4096', '-e', 'trace=execve,sendto,connect', '-e', 'signal=none', '-o', log]
    const outcome = await run('strace', [...traced, 'dash', GAPFERRY_BOX, 'license', '--root', box.root], {
      env: { PATH, TMPDIR: tmp },
    })
    t.match(outcome, { status: 0, stdout: /^license installed/ })
    const seen = [outcome.stdout, outcome.stderr, readFileSync(log, 'utf8'), JSON.stringify(mirror.results)]
    seen.push(JSON.stringify(box.calls()))
    for (const text of [MARKER, DEPLOYMENT]) {
      for (const where of seen) t.notMatch(where, new RegExp(text))
    }
    const holding = filesWith(box.root, [MARKER, DEPLOYMENT]).map((file) => file.slice(box.root.length))
    const allowed = /^\/etc\/(?:schmooze|sangoma)\/|^\/var\/lib\/gapferry\/license\/before-/
    t.strictSame(
      holding.filter((file) => !allowed.test(file)),
      [],
    )
    t.strictSame(readdirSync(tmp), [])
    const files = [...readdirSync(join(box.root, 'etc/schmooze')), ...readdirSync(join(box.root, 'etc/sangoma'))]
    t.strictSame(files.sort(), ['license.txt', 'pbx-brand', 'pbx-version', 'pbxid', 'schmooze.zl'])
    t.match(readFileSync(log, 'utf8'), /execve\("[^"]*openssl", \["openssl", "cms", "-decrypt"/)
  }
})

t.test('it works in every shell', async (t) => {
  const { mirror, box } = await makeScene(t)
  for (const [n, shell] of SHELLS.entries()) {
    mirror.licenses.set(
      'pbx1',
      licenseDocument({ files: [{ path: ZL, text: licenseText({ until: `203${n}-01-01` }) }] }),
    )
    const outcome = await box.run(['license'], { shell })
    t.match(outcome, { status: 0, stdout: /^license installed/, stderr: '' }, shell.join(' '))
  }
})
