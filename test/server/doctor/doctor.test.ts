import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createSocketServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ContactStore, type BoxContact, type Oddity } from '../../../storage/contacts.ts'
import type { Sheet } from '../../../server/doctor/sheet.ts'
import { inventoryText } from '../../helpers/inventory-text.ts'
import { mustRun } from '../../helpers/process.ts'
import { DAY } from '../../helpers/site.ts'
import { makeWard, MODULES, type Front } from '../../helpers/ward.ts'

/** Every finding as `check: what was seen`. */
function findings(sheet: Sheet): string[] {
  return sheet.findings.map(({ check, text }) => `${check}: ${text}`)
}

/** One finding under this name, complete; others may be there. */
function hasFinding(t: Test, sheet: Sheet, check: string, text: RegExp): void {
  const found = sheet.findings.find((one) => one.check === check && text.test(one.text))
  if (!t.ok(found, `${check} ${String(text)}`)) t.comment(findings(sheet).join('\n'))
  for (const part of ['asked', 'effect', 'remedy'] as const) t.ok((found?.[part] ?? '').length > 10, part)
}

const pass: Front = () => false

/** A front that answers `path` itself. */
const answering =
  (path: string, answer: (res: ServerResponse, req: IncomingMessage) => void): Front =>
  (req, res) => {
    if (req.url!.split('?')[0] !== path || req.method === 'HEAD') return false
    req.resume()
    answer(res, req)
    return true
  }

t.test('a healthy mirror has a clean bill, a line for each thing', async (t) => {
  const sounds = [{ version: '1.6.1' }, { version: '1.6.1', format: 'g722' }]
  const ward = await makeWard(t, { sounds })
  const { status, stdout, stderr } = await ward.run('doctor')
  t.equal(status, 0, stdout + stderr)
  t.match(stdout, /^pbx {2}http:\/\/127\.0\.0\.1:\d+\n(?: {2}(?:ok|-) .+\n)+$/)
  const lines = stdout.trim().split('\n')
  for (const check of [
    ...['release', 'clock', 'name', 'listener', 'Host', 'yum base', 'module list', 'modules'],
    ...['dependencies', 'versions', 'announcement', 'sounds'],
  ]) {
    t.equal(lines.filter((line) => line.startsWith(`  ok  ${check} `)).length, 1, check)
  }
  t.match(stdout, / 3 modules, 2 security issues/)
  const { groups, error } = JSON.parse((await ward.run('doctor', '--json')).stdout)
  t.equal(error, undefined)
  t.match(groups, [{ group: 'pbx', origin: ward.origin, left: {} }])
  t.ok(groups[0].checks.every(({ state }: { state: string }) => state !== 'found'))
})

t.test('help has an example; a group or box that is not known is an error of usage', async (t) => {
  const ward = await makeWard(t, { isListening: false })
  t.match((await ward.run('doctor', '--help')).stdout, /Examples:\n {2}gapferry-mirror doctor\n/)
  t.match(await ward.run('doctor', '--group', 'nobody'), { status: 2, stderr: /GROUP_UNKNOWN/ })
  writeFileSync(join(ward.dir, 'cut.gfi'), inventoryText().slice(0, -20))
  t.match(await ward.run('doctor', '--box', '../cut.gfi'), { status: 3, stderr: /INVENTORY_INVALID/ })
})

t.test('nothing listens: exit 1, what a box does, the command', async (t) => {
  const ward = await makeWard(t, { isListening: false })
  const { status, stdout, stderr } = await ward.run('doctor')
  t.equal(status, 1)
  t.match(
    stdout,
    /^ {2}! {3}listener +http.+: no connection: nothing\s+listens there\n {8}a box +yum .+\n(?:.+\n)? {8}remedy +gapferry-mirror serve$/m,
  )
  t.match(stderr, /1 finding: listener \[DOCTOR_FOUND\]\n {2}next: .*gapferry-mirror doctor/)
  const json = JSON.parse((await ward.run('doctor', '--json')).stdout)
  t.match(json, { site: 'hq', error: { code: 'DOCTOR_FOUND' } })
  t.match(
    json.groups[0].checks.find(({ state }: { state: string }) => state === 'found'),
    { check: 'listener', asked: /^http/, effect: /yum/, remedy: 'gapferry-mirror serve' },
  )
})

t.test('a name that does not resolve; the rest is asked all the same', async (t) => {
  const ward = await makeWard(t, { name: 'mirror.hq.invalid', hosts: ['mirror.hq.invalid'] })
  const network = { lookup: () => Promise.reject(new Error('ENOTFOUND')), addresses: () => ['192.0.2.9', '127.0.0.1'] }
  const sheet = await ward.examine({}, { network })
  hasFinding(t, sheet, 'name', /does not resolve/)
  t.match(sheet.findings[0]!.remedy, /mirror\.hq\.invalid = 192\.0\.2\.9 in the name server/)
  t.ok(sheet.checks.some(({ check, state }) => check === 'yum base' && state === 'passed'))
})

t.test('a name that leads to another machine', async (t) => {
  const ward = await makeWard(t, { name: 'mirror.hq.lan', hosts: ['mirror.hq.lan'], front: () => false })
  const network = { lookup: async () => ['127.0.0.1'], addresses: () => ['192.0.2.9'] }
  const own = await ward.examine({}, { network })
  t.match(
    own.checks.find(({ check }) => check === 'name'),
    { state: 'passed', text: /but what answers there is this mirror/ },
  )

  const other = await makeWard(t, {
    ...{ name: 'mirror.hq.lan', hosts: ['mirror.hq.lan'] },
    front: (_, res) => res.end('<html>a router</html>') !== undefined,
  })
  const sheet = await other.examine({}, { network })
  hasFinding(t, sheet, 'name', /127\.0\.0\.1, which is no address of this machine; .* is not this mirror/)
})

t.test('another program at the port; a mirror with a damaged file', async (t) => {
  const other = await makeWard(t, { front: (_, res) => res.end('hello') !== undefined })
  hasFinding(t, await other.examine(), 'listener', /is not this mirror/)
  const damaged = await makeWard(t, {
    front: answering('/gapferry-pbx.repo', (res) => res.writeHead(503).end('BLOB_MISSING')),
  })
  const sheet = await damaged.examine()
  hasFinding(t, sheet, 'listener', /answers 503/)
  t.equal(sheet.findings[0]!.remedy, 'gapferry-mirror verify')
  t.ok(
    sheet.checks.some(({ check }) => check === 'module list'),
    'and goes on',
  )
})

t.test('a Host that is not served: 421, and 403 of a proxy', async (t) => {
  const ward = await makeWard(t, { name: 'mirror.hq.lan' })
  const sheet = await ward.examine()
  hasFinding(t, sheet, 'Host', /answered 421/)
  t.match(sheet.findings[0]!.remedy, /hosts: \[mirror\.hq\.lan\]/)
  const proxy = await makeWard(t, { front: (_, res) => res.writeHead(403).end() !== undefined })
  hasFinding(t, await proxy.examine(), 'Host', /answered 403/)
})

t.test('PHP asks over HTTP/1.0, without the port', async (t) => {
  const port = createSocketServer((socket) => socket.on('error', () => undefined).end('no HTTP\r\n\r\n'))
  port.listen(0, '127.0.0.1')
  await once(port, 'listening')
  t.teardown(() => port.close())
  const asked: string[] = []
  const ward = await makeWard(t, {
    front: (req, res) => {
      if (req.method === 'HEAD') asked.push(`${req.httpVersion} ${req.url} ${req.rawHeaders.join(' ')}`)
      if (req.method !== 'HEAD' || req.url !== '/gapferry-pbx.repo?') return false
      res.socket!.end('gone\r\n\r\n')
      return true
    },
  })
  hasFinding(t, await ward.examine(), 'Host', /expected an answer of HTTP, found "gone"/)
  t.equal(asked[0], '1.0 /gapferry-pbx.repo? Host 127.0.0.1')
  t.ok(asked.includes('1.0 /modules/packages/core/core-16.0.68.tgz.gpg? Host 127.0.0.1'))
})

t.test('https with a private authority', async (t) => {
  const dir = t.testdir()
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
  await mustRun('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-keyout', key, '-out', cert, '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
  ])
  const tls = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  const ward = await makeWard(t, { name: 'localhost', tls, front: () => false })
  const sheet = await ward.examine()
  hasFinding(t, sheet, 'certificate', /no public authority vouches for it \(.*SELF_SIGNED/)
  t.ok(
    sheet.checks.some(({ check, state }) => check === 'modules' && state === 'passed'),
    'and goes on',
  )
})

t.test('MODULE_REPO: prefix, slash, https, another server, and what a box has', async (t) => {
  const ward = await makeWard(t)
  const { origin } = ward
  for (const [value, expected] of [
    [`${origin}/pbx16`, /there is \/pbx16 behind the origin/],
    [`${origin}/`, /a slash at its end/],
    [origin.replace('http', 'https'), /the mirror speaks http there/],
    ['https://mirror.freepbx.org', /boxes of this group are told/],
    [`${origin},https://mirror.freepbx.org`, /boxes of this group are told/],
    ['', /it is empty/],
    ['mirror', /no http address/],
  ] as const) {
    hasFinding(t, await ward.examine({ moduleRepos: [{ where: '--module-repo', value }] }), 'MODULE_REPO', expected)
  }
  const slash = await ward.run('doctor', '--module-repo', `${origin}/`)
  t.equal(slash.status, 1)
  t.match(slash.stdout, new RegExp(`remedy +on the box: fwconsole setting MODULE_REPO ${origin}\\n`))

  const readiness = [`module-repo ${origin}`, 'module-repo-default https://mirror.freepbx.org']
  writeFileSync(join(ward.dir, 'pbx1.gfi'), inventoryText({ sections: { readiness } }))
  const reset = await ward.run('doctor', '--box', '../pbx1.gfi')
  t.match(
    reset.stdout,
    /! +MODULE_REPO +the default of MODULE_REPO, from the inventory of pbx1: it\s+is\s+https:\/\/mirror/,
  )
  t.match(reset.stdout, /UPDATE freepbx_settings SET defaultval=/)
  const right = await ward.examine({
    moduleRepos: [
      { where: 'pbx1', value: origin },
      { where: 'pbx1', value: origin, isDefault: true },
    ],
  })
  t.match(
    right.checks.find(({ check }) => check === 'MODULE_REPO'),
    { state: 'passed' },
  )
})

t.test('boxes that asked before: their settings, and what they have', async (t) => {
  const modules = [...MODULES, { rawname: 'ivr', version: '16.0.9', depends: { module: 'recordings' } }]
  const ward = await makeWard(t, { modules })
  const contact = (oddities: [Oddity, number][], has: [string, string][]): BoxContact => ({
    ...{
      group: 'pbx',
      installid: '6f0e2a8c-1',
      address: '192.0.2.17',
      deployment: null,
      framework: null,
      phpver: null,
    },
    ...{ brand: null, firstMs: 1000, lastMs: 1000, modules: new Map(has), oddities: new Map(oddities) },
  })
  const odd = await ward.examine({
    contacts: [
      contact(
        [
          ['slash', 1000],
          ['prefix', 1000],
          ['list', 1000],
        ],
        [],
      ),
    ],
  })
  for (const text of [/ends with a slash/, /a path behind/, /not served here/]) hasFinding(t, odd, 'MODULE_REPO', text)
  t.match(odd.findings[0]!.asked, /box 6f0e2a8c \(192\.0\.2\.17\)/)
  const lacking = await ward.examine({ contacts: [contact([], [['ivr', '16.0.1']])] })
  hasFinding(t, lacking, 'dependencies', /neither listed nor installed on box 6f0e2a8c/)
  const fitting = await ward.examine({
    contacts: [
      contact(
        [],
        [
          ['ivr', '16.0.1'],
          ['recordings', '16.0.1'],
        ],
      ),
    ],
  })
  t.match(
    fitting.checks.find(({ check }) => check === 'dependencies'),
    { state: 'passed', text: /box 6f0e2a8c/ },
  )

  const store = new ContactStore(join(ward.dir, 'mir/store'), { onDamage: () => undefined })
  store.write([{ ...contact([], []), atMs: Date.now(), modules: null, oddities: ['slash'] }])
  store.close()
  t.match((await ward.run('doctor')).stdout, /! +MODULE_REPO +what box 6f0e2a8c .+ its\s+MODULE_REPO ends with a slash/)
  t.match(
    await ward.run('boxes', 'list', '--json'),
    { stdout: /^\{"site":"hq","boxes":\[\{[^{]*\{[^{]*\{[^{]*\}\]\}\n$/ },
    'the doctor is no box',
  )
})

t.test('yum: an index of somebody else, no signature, a file with another checksum, an endless one', async (t) => {
  const index = '/yum/base/repodata/repomd.xml'
  const { behind } = await makeWard(t, { front: pass })
  const ward = (path: string, answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering(path, answer))
  hasFinding(t, await ward(index, (res) => res.end('<repomd/>')), 'yum base', /not the index that was released/)
  hasFinding(t, await ward(`${index}.asc`, (res) => res.end('x')), 'yum base', /no signature in it/)
  hasFinding(t, await ward(`${index}.asc`, (res) => res.writeHead(404).end()), 'yum base', /answered 404/)
  const primary = '/yum/base/repodata/primary.xml.gz'
  hasFinding(t, await ward(primary, (res) => res.end('<metadatA/>')), 'yum base', /checksum is another/)
  const endless = await ward(index, (res) => {
    const more = (): void => {
      while (!res.destroyed && res.write(Buffer.alloc(65_536)));
    }
    res.on('drain', more).on('error', () => undefined)
    more()
  })
  hasFinding(t, endless, 'yum base', /longer than 1048576 bytes/)
})

t.test('the list: error, empty, page, short of modules and issues, sent on', async (t) => {
  const other = createServer((_, res) => void res.end())
  other.listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  let strayed = 0
  other.on('connection', () => strayed++)
  const elsewhere = `http://127.0.0.1:${(other.address() as AddressInfo).port}/all-16.0.xml`

  const { behind } = await makeWard(t, { front: pass })
  const list = (answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering('/all-16.0.xml', answer))
  const lost = await list((res) => res.writeHead(404).end('<html>'))
  hasFinding(t, lost, 'module list', /answered 404/)
  t.match(lost.findings[0]!.effect, /takes the text for the list/)
  hasFinding(t, await list((res) => res.end()), 'module list', /the answer is empty/)
  hasFinding(t, await list((res) => res.end('<html><body>log in</body></html>')), 'module list', /expected <xml>/)
  hasFinding(
    t,
    await list((res) => res.writeHead(302, { location: elsewhere }).end()),
    'module list',
    /sent on to http/,
  )
  t.equal(strayed, 0, 'the doctor does not follow')
  const cut = await list((res) => res.writeHead(200, { 'content-length': '9999' }).write('<xml>', () => res.destroy()))
  hasFinding(t, cut, 'module list', /cut/)
  const coded = await list((res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end('no gzip'))
  hasFinding(t, coded, 'module list', /its gzip is broken/)

  const one = await makeWard(t, { modules: [MODULES[0]!], issues: [{ id: 'SEC-1' }] })
  const short = await one.examine()
  hasFinding(t, short, 'module list', /1 module, and needs 2/)
  hasFinding(t, short, 'module list', /1 security issue, and needs 2/)
  const none = await makeWard(t, { modules: [] })
  t.match((await none.examine()).checks.at(-1), { check: 'modules', state: 'skipped' })
})

t.test('a list that nobody signed', async (t) => {
  const ward = await makeWard(t, { front: answering('/all-16.0.xml', (res) => res.end(list)) })
  const list = String(readFileSync(await signedList(ward.dir)))
    .replace('<newfield', '<neWfield')
    .replace('</newfield', '</neWfield')
  hasFinding(t, await ward.examine(), 'module list', /not the list that was released/)
})

t.test('files of modules: missing, short, other bytes, coded, unsafe, refused', async (t) => {
  const path = (file: string): string => `/modules/packages/${file}`
  const core = path('core/core-16.0.68.tgz.gpg')
  const { behind } = await makeWard(t, { front: pass })
  const files = (at: string, answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering(at, answer))
  hasFinding(t, await files(core, (res) => res.end('x')), 'modules', /1 of \d+ bytes came/)
  const length = 'signed archive of core 16.0.68'.length
  hasFinding(t, await files(core, (res) => res.end('x'.repeat(length))), 'modules', /its sha1 is .*, the list says/)
  hasFinding(t, await files(core, (res) => res.end('x'.repeat(length + 1))), 'modules', /longer than/)
  const plain = path('labmod/labmod-16.0.2.tgz')
  hasFinding(t, await files(plain, (res) => res.end('archive of labmod 16.0.3')), 'modules', /its md5 is/)
  hasFinding(
    t,
    await files(plain, (res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end('archive of labmod 16.0.2')),
    'modules',
    /Content-Encoding gzip/,
  )
  const absent = await makeWard(t, { modules: [...MODULES, { rawname: 'gone', version: '16.0.1', absent: true }] })
  hasFinding(t, await absent.examine(), 'modules', /answered 404/)
  const unsafe = { rawname: 'bad', version: '16.0.1', entry: { location: '../../etc/passwd' } }
  hasFinding(
    t,
    await (await makeWard(t, { modules: [...MODULES, unsafe] })).examine(),
    'module list',
    /"bad".*<location>/,
  )
})

t.test('many findings of one kind are counted', async (t) => {
  const modules = Array.from({ length: 30 }, (_, i) => ({ rawname: `m${i}`, version: '16.0.1', absent: true as const }))
  const ward = await makeWard(t, { modules })
  const { stdout } = await ward.run('doctor')
  t.equal(stdout.match(/POST \/modules\/packages/g)?.length, 8)
  t.match(stdout, /modules +and 22 more\n/)
  t.equal(stdout.match(/the module stays as it is/g)?.length, 1, 'what is the same is said once')
})

t.test('dependencies, with the box that is played', async (t) => {
  const modules = [
    ...MODULES,
    { rawname: 'ivr', version: '16.0.9', depends: { module: ['recordings ge 16.0.5', 'core'] } },
  ]
  const ward = await makeWard(t, { modules })
  const told = (await ward.examine()).checks.find(({ check }) => check === 'dependencies')
  t.match(told, { state: 'skipped', text: /not listed, .*: recordings; --box/ })
  const box = async (...lines: string[]) => {
    const freepbx = ['framework 16.0.40', 'module ivr 16.0.1 enabled GPLv3+', ...lines]
    writeFileSync(join(ward.dir, 'pbx1.gfi'), inventoryText({ sections: { freepbx } }))
    return ward.run('doctor', '--box', '../pbx1.gfi')
  }
  t.match(
    (await box()).stdout,
    /! +dependencies +what ivr depends on: recordings ge 16\.0\.5: it is neither listed\s+nor/,
  )
  t.match((await box('module recordings 16.0.1 enabled GPLv3+')).stdout, /pbx1 would have\s+16\.0\.1/)
  t.match((await box('module recordings 16.0.7 enabled GPLv3+')).stdout, /ok +dependencies +all that pbx1 would take/)
})

t.test('a build for another PHP; sounds that are newer and not carried', async (t) => {
  const sounds = [{ version: '1.6.1' }, { version: '1.6.1', format: 'g722' }]
  const endpoint = { rawname: 'endpoint', version: '16.0.9', depends: { phpversion: 'ge 8.2' } }
  const files = { 'sounds/asterisk-core-en-ulaw-1.6.1.tar.gz': undefined }
  const ward = await makeWard(t, { modules: [...MODULES, endpoint], sounds, files })
  const box = async (php: string, sound: string): Promise<string> => {
    const freepbx = ['framework 16.0.40', 'module endpoint 16.0.1 enabled Commercial', `profile phpver ${php}`]
    const sections = { freepbx: [...freepbx, `sound asterisk core en ulaw ${sound}`] }
    writeFileSync(join(ward.dir, 'pbx1.gfi'), inventoryText({ sections }))
    return (await ward.run('doctor', '--box', '../pbx1.gfi')).stdout
  }
  const wrong = await box('7.4.33', '1.5')
  t.match(wrong, /! +dependencies +what endpoint 16\.0\.9 depends on: PHP ge 8\.2: pbx1 has PHP 7\.4\.33\n/)
  t.match(wrong, /! +sounds +.*ulaw-1\.6\.1\.tar\.gz: it is listed and\s+not\s+carried, and pbx1\s+has\s+1\.5\n/)
  const right = await box('8.2.7', '1.6.1')
  t.match(right, /ok +dependencies /)
  t.match(right, /ok +sounds /)
})

t.test('versions for --tag: no answer, another file, one that is not there', async (t) => {
  const { behind } = await makeWard(t, { front: pass })
  const versions = (answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering('/mversion.php', answer))
  hasFinding(t, await versions((res) => res.end()), 'versions', /the answer is empty/)
  hasFinding(t, await versions((res) => res.end('none')), 'versions', /no JSON object/)
  hasFinding(t, await versions((res) => res.writeHead(404).end()), 'versions', /answered 404/)
  hasFinding(t, await versions((res) => res.end('{"rawname":"core","version":"1"}')), 'versions', /another file/)
})

t.test('sounds: any error makes a box leave', async (t) => {
  const sounds = [{ version: '1.6.1' }, { version: '1.6.1', format: 'g722' }]
  const { behind } = await makeWard(t, { sounds, front: pass })
  const at = (path: string, answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering(path, answer))
  const lost = await at('/sounds-16.0.xml', (res) => res.writeHead(500).end())
  hasFinding(t, lost, 'sounds', /answered 500/)
  t.match(lost.findings.find(({ check }) => check === 'sounds')!.effect, /sets MODULE_REPO back/)
  hasFinding(t, await at('/sounds-16.0.xml', (res) => res.end()), 'sounds', /the answer is empty/)
  hasFinding(t, await at('/sounds-16.0.xml', (res) => res.end('<html>')), 'sounds', /./)
  const file = '/sounds/asterisk-core-en-ulaw-1.6.1.tar.gz'
  hasFinding(t, await at(file, (res) => res.writeHead(404).end()), 'sounds', /answered 404/)
  const nowhere = '/sounds/module-doctor-xx-license.txt'
  hasFinding(t, await at(nowhere, (res) => res.writeHead(404).end()), 'sounds', /answered 404/)
  hasFinding(t, await (await makeWard(t, { sounds: [{ version: '1' }] })).examine(), 'sounds', /1 package/)
})

t.test('time: an answer that does not come, a clock that is off, a bundle past its end', async (t) => {
  const { behind } = await makeWard(t, { front: pass })
  const silent = answering('/all-16.0.xml', () => undefined)
  hasFinding(t, await behind(silent, { limits: { answerMs: 300 } }), 'module list', /no answer within 0\.3 s/)
  const core = '/modules/packages/core/core-16.0.68.tgz.gpg'
  const stuck = answering(core, (res) => void res.write('x'))
  hasFinding(t, await behind(stuck, { limits: { idleMs: 300 } }), 'modules', /no answer within 0\.3 s/)

  const late = answering('/gapferry-pbx.repo', (res) => {
    res.setHeader('date', new Date(0).toUTCString()).end('[base]\n')
  })
  hasFinding(t, await behind(late), 'clock', /s behind this machine's clock/)
  const old = await makeWard(t, { expiresAtMs: Date.now() - DAY / 2 })
  t.match((await old.run('doctor')).stdout, /! +release +what is released for group pbx: bundle 1 was good until/)
  hasFinding(t, await old.examine({}, { clockFault: 'it says 1970' }), 'clock', /1970/)
})

t.test('nothing is released, or no origin is told', async (t) => {
  const ward = await makeWard(t, { isListening: false })
  hasFinding(t, await ward.examine({ released: null, origin: undefined }), 'release', /nothing is released/)
  hasFinding(t, await ward.examine({ origin: undefined }), 'release', /does not say where/)
})

/** The blob of the released list. */
async function signedList(dir: string): Promise<string> {
  const { stdout } = await mustRun('grep', ['-rl', '<newfield', join(dir, 'mir/store/blobs')])
  return stdout.trim()
}

t.test('of several groups, the one that the box is planned in', async (t) => {
  const ward = await makeWard(t, { isListening: false, files: { 'gapferry/parity/pbx1.txt': 'a plan' } })
  const config = join(ward.dir, 'mir/mirror.yaml')
  const text = readFileSync(config, 'utf8')
  writeFileSync(config, text.replace('origins:', 'origins:\n  - { group: lab, listen: 127.0.0.1:0 }'))
  const doctor = async (...args: string[]): Promise<string[]> => {
    const { groups } = JSON.parse((await ward.run('doctor', '--json', ...args)).stdout)
    return groups.map(({ group }: { group: string }) => group)
  }
  t.strictSame(await doctor(), ['lab', 'pbx'])
  t.strictSame(await doctor('--group', 'pbx'), ['pbx'])
  const [planned, stranger] = ['PBX1', 'pbx9'].map((box) => {
    writeFileSync(join(ward.dir, `${box}.gfi`), inventoryText({ box }))
    return `../${box}.gfi`
  }) as [string, string]
  t.strictSame(await doctor('--box', planned), ['pbx'])
  t.match(await ward.run('doctor', '--box', stranger), {
    status: 2,
    stderr: /which group pbx9 .*\n {2}next: .*--group lab/,
  })
  t.match((await ward.run('doctor', '--group', 'lab')).stdout, /^lab\n {2}! {3}release +.*nothing is released for it/)
})
