import { generateKeyPairSync, createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import { connect, type ConnectionOptions } from 'node:tls'
import t, { type Test } from 'tap'
import { issueCertificate, pemOf } from '../../server/issue.ts'
import { freePorts, makeGap, type Gap } from '../helpers/gap.ts'
import { licenseText, makeLicenseBox, MARKER, PYTHONS, type LicenseBox } from '../helpers/license-box.ts'
import { makeAuthority } from '../helpers/license-mirror.ts'
import { functionOf } from '../helpers/license-scene.ts'
import { filesWith } from '../helpers/licenses.ts'
import { must, type Running } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'

const A = 'MARK-11112222-a'
const B = 'MARK-33334444-b'
const ZL = '/etc/schmooze/schmooze.zl'
const TXT = '/etc/sangoma/license.txt'

interface Site {
  gap: Gap
  url: string
  /** an SNG7 box and a Debian 12 box */
  a: LicenseBox
  b: LicenseBox
  mirror: Running
  /** captured on the box as it is, added on the laptop, bundled, released */
  carry(...boxes: LicenseBox[]): Promise<void>
  enrol(box: LicenseBox, name: string, ...options: string[]): Promise<void>
  /** everything that was said */
  said: string[]
}

async function makeSite(t: Test): Promise<Site> {
  const dir = t.testdir({ vendor: { 'firmware.bin': 'firmware' } })
  const vendor = await serveFolder(join(dir, 'vendor'))
  t.teardown(() => vendor.close())
  const made = await makeGap(
    t,
    join(dir, 'gap'),
    `files: [ { url: ${vendor.url}/firmware.bin, as: firmware/x.bin } ]\n`,
  )
  const said: string[] = []
  const loud =
    (work: Gap['gapferry']): Gap['gapferry'] =>
    async (...args) => {
      const outcome = await work(...args)
      said.push(outcome.stdout, outcome.stderr)
      return outcome
    }
  const gap = { ...made, gapferry: loud(made.gapferry), mirror: loud(made.mirror) }
  const [port] = await freePorts(1)
  appendFileSync(join(gap.mirrorDir, 'mirror.yaml'), `boxes: { listen: 127.0.0.1:${port}, hosts: [localhost] }\n`)
  must(await gap.gapferry('report', 'add', join(gap.mirrorDir, 'store/mirror-identity.json'), '--yes'))
  const a = await boxOf(join(dir, 'a'), A, 16)
  const b = await boxOf(join(dir, 'b'), B, 17)
  const url = `https://localhost:${port}`
  const carry = async (...boxes: LicenseBox[]): Promise<void> => {
    for (const box of boxes) {
      const { status, stdout } = await box.run(['capture'])
      t.equal(status, 0)
      const file = join(box.dir, 'box.license.tar')
      writeFileSync(file, stdout, 'latin1')
      must(await gap.gapferry('license', 'add', file))
    }
    must(await gap.gapferry('bundle', '--to', gap.stickDir))
    must(await gap.mirror('import', '--release', gap.stickDir))
  }
  await carry(a, b)
  const mirror = await gap.serve()
  const enrol = async (box: LicenseBox, name: string, ...options: string[]): Promise<void> => {
    const { stdout } = must(await made.mirror('boxes', 'enrol', name, '--json', ...options))
    const { code } = JSON.parse(stdout) as { code: string }
    t.match(await box.run(['enrol', url, '--code', code, '--box', name]), { status: 0, stderr: '' })
  }
  return { ...{ gap, url, a, b, mirror, carry, enrol, said } }
}

/** As it was when it was online: activated, with all that it may have. */
async function boxOf(dir: string, deployment: string, major: 16 | 17): Promise<LicenseBox> {
  const text = licenseText({ deployment, until: '2028-06-30' })
  const python = PYTHONS.at(-1)!
  const box = await makeLicenseBox(dir, {
    major,
    ...(major === 16 ? { python } : {}),
    files: { [ZL]: text, [TXT]: text },
  })
  box.write('/etc/schmooze/pbxid', `${deployment}\n`)
  return box
}

/** What an older activation left: the license that was captured is not here any more. */
function makeOld(box: LicenseBox, deployment: string): void {
  for (const path of [ZL, TXT]) box.write(path, licenseText({ deployment, until: '2026-12-31' }))
}

/** Every byte of an answer but the time in it; `closed` where there is none. */
async function answerTo(
  url: string,
  path: string,
  box?: LicenseBox,
  headers: Record<string, string> = {},
): Promise<string> {
  const own = (name: string): string | undefined => box?.read(`/etc/gapferry/${name}.pem`)
  const identity = box === undefined ? {} : { cert: own('box'), key: box.read('/etc/gapferry/box.key') }
  const agent = new Agent({ rejectUnauthorized: false, ...identity })
  const asked = request(`${url}${path}`, { agent, headers })
  asked.end()
  const [answer] = (await once(asked, 'response')) as [import('node:http').IncomingMessage]
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk as Buffer)
  agent.destroy()
  const lines = answer.rawHeaders.map((text, i) => (answer.rawHeaders[i - 1] === 'Date' ? 'a date' : text))
  return [answer.statusCode, ...lines, Buffer.concat(chunks).toString('latin1')].join('\n')
}

t.test('captured, carried, delivered and installed; renewed; refused to others; revoked', async (t) => {
  const { gap, url, a, b, mirror, carry, enrol, said } = await makeSite(t)
  makeOld(a, A)
  makeOld(b, B)
  await enrol(a, 'pbx-a')
  await enrol(b, 'pbx-b', '--deployment', B)

  const outcome = await a.run(['license'])
  t.match(outcome, {
    status: 0,
    stderr: '',
    stdout: /^license installed: \d files, for PBXact\n {2}endpoint_exp 2028-06-30\n/,
  })
  t.match(await b.run(['license']), { status: 0, stderr: '', stdout: /^license installed/ })
  for (const [box, deployment] of [
    [a, A],
    [b, B],
  ] as const) {
    for (const path of [ZL, TXT]) t.equal(box.read(path), licenseText({ deployment, until: '2028-06-30' }))
    t.strictSame(box.restarts(), ['apache2', 'httpd', 'php-fpm'])
    t.match(await box.run(['license']), { status: 0, stdout: 'the license is the one that the mirror has\n' })
  }

  // A asks for all that is B's
  const deployments = [{}, { 'Gapferry-Deployment': A }, { 'Gapferry-Deployment': B }]
  const nonsense = await answerTo(url, '/no/such/thing', a)
  t.match(nonsense, /^404\n/)
  for (const path of [
    '/boxes/pbx-b/license',
    '/boxes/pbx-b/inventory',
    '/boxes/pbx-b/result',
    '/boxes/pbx-b',
    '/boxes/',
    '/',
  ]) {
    for (const headers of deployments) t.equal(await answerTo(url, path, a, headers), nonsense, path)
  }
  t.equal(await answerTo(url, '/boxes/pbx-a/license', a, { 'Gapferry-Deployment': B }), nonsense)
  t.equal(await answerTo(url, '/boxes/pbx-a/license', undefined, { 'Gapferry-Deployment': A }), nonsense)

  // A takes the deployment ID of B for its own
  a.write('/etc/schmooze/pbxid', `${B}\n`)
  t.match(await a.run(['license']), { status: 4, stderr: /has no license for this box/ })
  a.write('/etc/schmooze/pbxid', `${A}\n`)
  t.equal(a.read(ZL), licenseText({ deployment: A, until: '2028-06-30' }))

  // renewed online, carried again, and brought by keep
  const renewed = licenseText({ deployment: A, until: '2031-06-30' })
  a.write(ZL, renewed)
  await carry(a)
  makeOld(a, A)
  a.forget()
  const kept = await functionOf(a, 'license_keep')
  t.match(kept, {
    status: 0,
    stderr: '',
    stdout: /^license installed: \d files, for PBXact\n {2}endpoint_exp 2031-06-30\n/,
  })
  t.equal(a.read(ZL), renewed)
  t.strictSame(await functionOf(b, 'license_keep'), { status: 0, stdout: '', stderr: '' })

  const early: [string, ...string[]] = ['faketime', '-f', '-900d', 'dash']
  t.match(await a.run(['license'], { shell: early }), { status: 3, stderr: /the clocks differ by (?:899|900) days/ })
  t.equal(a.read(ZL), renewed)
  await checkConnections(t, { gap, url })

  must(await gap.mirror('boxes', 'revoke', 'pbx-a'))
  t.match(await a.run(['license', '--force']), { status: 4, stderr: /has no license for this box/ })
  t.equal(await answerTo(url, '/boxes/pbx-a/license', a, { 'Gapferry-Deployment': A }), nonsense)
  t.equal(a.read(ZL), renewed)

  const audit = must(await gap.mirror('audit')).stdout
  for (const row of [/enrol.*pbx-a/, /license result.*pbx-a/, /revoke.*pbx-a/]) t.match(audit, row)
  await checkMarkers(t, { gap, mirror, said: [...said, outcome.stdout, kept.stdout] })
})

/** Neither license nor deployment ID is anywhere but on the boxes. */
async function checkMarkers(t: Test, { gap, mirror, said }: Pick<Site, 'gap' | 'mirror' | 'said'>): Promise<void> {
  const outside = join(gap.dir, 'outside')
  mkdirSync(outside)
  must(await gap.mirror('report', '--to', outside, '--yes'))
  must(await gap.mirror('backup', '--to', join(outside, 'plain.backup')))
  const texts = [
    must(await gap.mirror('boxes', 'list')),
    must(await gap.mirror('status')),
    must(await gap.gapferry('license', 'list')),
  ]
  const { stdout, stderr } = mirror.output()
  for (const folder of [gap.laptopDir, gap.stickDir, gap.mirrorDir, outside]) {
    t.strictSame(filesWith(folder, [MARKER, A, B]), [], folder)
  }
  for (const marker of [MARKER, A, B]) {
    for (const text of [...said, stdout, stderr, ...texts.flatMap((one) => [one.stdout, one.stderr])]) {
      t.notOk(text.includes(marker), `${marker} in ${text.slice(0, 200)}`)
    }
  }
}

/** Connections that end before anything is said. */
async function checkConnections(t: Test, { gap, url }: Pick<Site, 'gap' | 'url'>): Promise<void> {
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const port = Number(new URL(url).port)
  const store = join(gap.mirrorDir, 'store')
  const own = {
    key: createPrivateKey(readFileSync(join(store, 'authority.key'))),
    certificate: new X509Certificate(readFileSync(join(store, 'authority.pem'))),
  }
  const now = Date.now()
  const about = { kind: 'box', site: 'hq', name: 'pbx-a', key } as const
  const expired = issueCertificate({ ...about, issuer: own, notBeforeMs: now - 9e8, notAfterMs: now - 8e8 })
  const foreign = issueCertificate({ ...about, issuer: makeAuthority(), notBeforeMs: now - 9e8, notAfterMs: now + 9e8 })
  const pem = key.export({ type: 'pkcs8', format: 'pem' })
  for (const [what, options] of Object.entries<ConnectionOptions>({
    'TLS 1.1': { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' },
    'an expired certificate': { cert: pemOf(expired), key: pem },
    'a certificate of another authority': { cert: pemOf(foreign), key: pem },
  })) {
    t.equal(await spokenTo(port, options), '', what)
  }
  t.match(await spokenTo(port, {}), /^HTTP\/1\.1 404 /, 'without a certificate')
}

/** What comes back over TLS before the connection ends. */
async function spokenTo(port: number, options: ConnectionOptions): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  socket.on('error', () => {})
  socket.write('GET /boxes/pbx-a/license HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  await new Promise((done) => socket.once('close', done))
  return text
}
