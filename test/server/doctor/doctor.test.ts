import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { createServer as createSocketServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import type { Sheet } from '../../../server/doctor/sheet.ts'
import { ContactStore, type BoxContact, type Oddity } from '../../../storage/contacts.ts'
import { inventoryText } from '../../helpers/inventory-text.ts'
import { mustRun } from '../../helpers/process.ts'
import { DAY } from '../../helpers/site.ts'
import { answering, hasFinding, makeWard, MODULES, pass } from '../../helpers/ward.ts'

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
  const { boxes } = JSON.parse((await ward.run('boxes', 'list', '--json')).stdout) as { boxes: object[] }
  t.equal(boxes.length, 1, 'the doctor is no box')
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
