import { execFile } from 'node:child_process'
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { deploymentHmac, lifeOf } from '../../server/identity.ts'
import { issueCertificate, pemOf } from '../../server/issue.ts'
import {
  boxMirror,
  enrolWith,
  head,
  post,
  requestFor,
  writeBox,
  type Answer,
  type BoxMirror,
  type TestBox,
} from '../helpers/box-mirror.ts'
import { openssl } from '../helpers/openssl.ts'

const run = promisify(execFile)
const CLIENT = join(import.meta.dirname, '../helpers/box-client.py')
const DEPLOYMENT = '71234567'
const LICENSE = '{"_type":"gapferry-license","marker":"sysadmin_exp = 2027-03-01"}'
const DAY_MS = 86_400_000
const portOf = ({ listener }: BoxMirror): number => Number(new URL(listener.url).port)
const newP256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

const licenseOf = (mirror: BoxMirror, box: TestBox, more: Record<string, string> = {}, name = box.name) =>
  mirror.get(`/boxes/${name}/license`, box, { 'Gapferry-Deployment': DEPLOYMENT, ...more })

t.test('a box enrols and gets its license, sealed for its own key', async (t) => {
  const mirror = await boxMirror(t)
  const digest = await mirror.license(DEPLOYMENT, LICENSE)
  const box = await mirror.enrol('pbx1')
  const first = await licenseOf(mirror, box)
  t.match(
    [first.status, first.headers.get('content-type'), first.headers.get('etag')],
    [200, 'application/pkcs7-mime', `"${digest}"`],
  )
  t.ok(first.headers.has('date'), 'by which a box can tell a wrong clock')
  const dir = join(mirror.dir, 'box')
  writeBox(dir, box, mirror.identity)
  const files = ['-inkey', join(dir, 'box.key'), '-recip', join(dir, 'box.pem')]
  t.equal(openssl(['cms', '-decrypt', '-binary', '-inform', 'DER', ...files], first.body).toString(), LICENSE)
  const again = await licenseOf(mirror, box, { 'If-None-Match': `"${digest}"` })
  t.match([again.status, again.body.length], [304, 0])
  const newer = await mirror.license(DEPLOYMENT, `${LICENSE} `)
  t.equal((await licenseOf(mirror, box, { 'If-None-Match': `"${digest}"` })).headers.get('etag'), `"${newer}"`)
  t.same(
    mirror.rows().map(({ command, who, result }) => [command, who, result]),
    [
      ['enrol', 'box pbx1 (127.0.0.1)', 'ok'],
      ['deliver', 'box pbx1 (127.0.0.1)', 'ok'],
      ['deliver', 'box pbx1 (127.0.0.1)', 'ok'],
    ],
    'what is delivered has a row; that nothing is new has none',
  )
  t.match(mirror.store.catalog.enrolments.active('pbx1'), { delivered: newer })
  const own = await sealCms(Buffer.from('for the box'), [new X509Certificate(box.certificate).raw])
  const key = deploymentHmac(mirror.identity, 'hq', DEPLOYMENT)
  mirror.licenses.set(key, { cms: own, recipient: 'box', content: sha256Of(Buffer.from('for the box')) })
  t.same((await licenseOf(mirror, box)).body, own, 'what the laptop sealed for the box is passed on as it is')
})

t.test('a client of the standard library, openssl and curl', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license(DEPLOYMENT, LICENSE)
  const dir = t.testdir()
  const [url, code] = [mirror.listener.url, mirror.offer('pbx1')]
  const py = async (...args: string[]) => (await run('python3', [CLIENT, ...args])).stdout.trim()
  const key = ['-newkey', 'rsa:2048', '-keyout', join(dir, 'box.key'), '-out', join(dir, 'box.csr')]
  openssl(['req', '-new', '-nodes', '-sha256', '-subj', '/CN=whoever', ...key])
  t.equal(await py('enrol', url, 'PBX1', `${code.slice(0, -1)}-`, join(dir, 'box.csr'), dir), '404')
  t.equal(await py('enrol', url, 'PBX1', code.toLowerCase(), join(dir, 'box.csr'), dir), '200')
  t.equal(await py('enrol', url, 'PBX1', code, join(dir, 'box.csr'), dir), '404', 'a code is good once')
  openssl([
    'verify',
    '-x509_strict',
    '-purpose',
    'sslclient',
    '-CAfile',
    join(dir, 'authority.pem'),
    join(dir, 'box.pem'),
  ])
  for (const host of ['127.0.0.1', 'localhost']) {
    const named = url.replace('localhost', host)
    t.match(
      await py('get', named, '/boxes/pbx1/license', DEPLOYMENT, dir),
      /^200 "[0-9a-f]{64}"$/,
      `checked as ${host}`,
    )
  }
  const opened = openssl(
    ['cms', '-decrypt', '-binary', '-inform', 'DER', '-inkey', join(dir, 'box.key'), '-recip', join(dir, 'box.pem')],
    readFileSync(join(dir, 'answer')),
  )
  t.equal(opened.toString(), LICENSE, 'for an RSA key, too')
  writeFileSync(join(dir, 'inventory'), 'gapferry-inventory 1\n')
  t.equal(await py('put', url, '/boxes/pbx1/inventory', join(dir, 'inventory'), dir), '204')
  t.match(mirror.inventories, [{ box: 'pbx1', bytes: Buffer.from('gapferry-inventory 1\n') }])
  const files = ['--cacert', join(dir, 'authority.pem'), '--cert', join(dir, 'box.pem'), '--key', join(dir, 'box.key')]
  const curl = await run(
    'curl',
    ['-s', ...files, '-H', `Gapferry-Deployment: ${DEPLOYMENT}`, `${url}/boxes/pbx1/license`],
    {
      encoding: 'buffer',
    },
  )
  t.equal(curl.stdout[0], 0x30)
  const old = await run('curl', ['-sk', '--tls-max', '1.1', '--ciphers', 'DEFAULT@SECLEVEL=0', url]).catch(
    (error: { code: number }) => error,
  )
  t.match(old, { code: 35 }, 'TLS 1.1 is no connection')
  for (const version of ['-tls1', '-tls1_1']) {
    const tried = await run('openssl', [
      's_client',
      '-connect',
      new URL(url).host,
      version,
      '-cipher',
      'ALL@SECLEVEL=0',
    ]).catch((error: { stdout: string; stderr: string }) => error)
    t.match(tried.stdout, /Cipher is \(NONE\)/, version)
  }
})

t.test('everything else is one and the same 404', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license(DEPLOYMENT, LICENSE)
  await mirror.license('5', 'of b')
  const [a, b, gone] = [await mirror.enrol('a'), await mirror.enrol('b'), await mirror.enrol('gone')]
  const [replaced] = [await mirror.enrol('c')]
  await mirror.enrol('c')
  t.equal((await licenseOf(mirror, a)).status, 200)
  t.equal((await mirror.get('/boxes/b/license', b, { 'Gapferry-Deployment': '5' })).status, 200)
  mirror.store.catalog.write(() => mirror.store.catalog.enrolments.revoke('gone', Date.now()))
  const answers = new Map<string, Answer | undefined>()
  const ask = async (what: string, bytes: string | Buffer, box?: TestBox): Promise<void> => {
    answers.set(what, await mirror.send(bytes, box))
  }
  const own = { 'Gapferry-Deployment': DEPLOYMENT }
  const never = requestFor(newP256())
  const nobody = issueCertificate({
    ...{ kind: 'box', site: 'hq', name: 'nobody', key: a.key, issuer: mirror.identity.authority },
    ...lifeOf(mirror.identity.authority),
  })
  await ask('a license of another', head('GET', '/boxes/b/license', own), a)
  await ask('with its deployment', head('GET', '/boxes/b/license', { 'Gapferry-Deployment': '5' }), a)
  await ask('its deployment by the own path', head('GET', '/boxes/a/license', { 'Gapferry-Deployment': '5' }), a)
  await ask('a deployment without a license', head('GET', '/boxes/a/license', { 'Gapferry-Deployment': '6' }), a)
  await ask('an unbound box with the deployment of another', head('GET', '/boxes/c/license', own), replaced)
  await ask('no deployment', head('GET', '/boxes/a/license'), a)
  await ask('no such deployment', head('GET', '/boxes/a/license', { 'Gapferry-Deployment': '../x' }), a)
  await ask(
    'two of them',
    `GET /boxes/a/license HTTP/1.1\r\nHost: x\r\nGapferry-Deployment: 5\r\nGapferry-Deployment: ${DEPLOYMENT}\r\n\r\n`,
    a,
  )
  await ask('revoked', head('GET', '/boxes/gone/license', own), gone)
  await ask('a certificate of the authority that nobody has', head('GET', '/boxes/a/license', own), {
    ...a,
    certificate: pemOf(nobody),
  })
  await ask('an inventory of another', post('/boxes/b/inventory', 'x').toString().replace('POST', 'PUT'), a)
  await ask(
    'an inventory of one that was revoked',
    post('/boxes/gone/inventory', 'x').toString().replace('POST', 'PUT'),
    gone,
  )
  await ask('a result that is none', post('/boxes/a/result', '{}').toString().replace('POST', 'PUT'), a)
  await ask('a long inventory', head('PUT', '/boxes/a/inventory', { 'Content-Length': '4194305' }), a)
  for (const path of [
    '/',
    '/boxes',
    '/boxes/',
    '/boxes/a',
    '/boxes/a/license/',
    '/boxes/a/license?x',
    '//boxes/a/license',
    '/boxes/a/LICENSE',
    '/boxes/x/license',
    '/boxes/%61/license',
    '/enrol',
    '/healthz',
    '/boxes/../boxes/a/license',
    '*',
  ]) {
    await ask(`GET ${path}`, head('GET', path, own), a)
    await ask(`GET ${path} without a certificate`, head('GET', path, own))
  }
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', 'PROPFIND']) {
    await ask(method, head(method, '/boxes/a/license', own), a)
  }
  await ask('no certificate', head('GET', '/boxes/a/license', own))
  await ask('no certificate and an inventory', post('/boxes/a/inventory', 'x').toString().replace('POST', 'PUT'))
  await ask('an expectation', head('GET', '/boxes/a/license', { ...own, Expect: 'nonsense' }))
  await ask('an upgrade', head('GET', '/boxes/a/license', { ...own, Connection: 'Upgrade', Upgrade: 'h2c' }))
  await ask('HTTP/1.0', 'GET /boxes/b/license HTTP/1.0\r\n\r\n', a)
  await ask('an absolute target', head('GET', 'https://x/boxes/a/license', own), a)
  for (const body of ['', '{}', 'null', '[]', '{"name":"a"}', 'x'.repeat(32 * 1024), '\0'])
    await ask(`enrol ${body.slice(0, 9)} ${body.length}`, post('/enrol', body))
  await ask('enrol, too long', post('/enrol', 'x'.repeat(32 * 1024 + 1)))
  await ask(
    'enrol, too long in chunks',
    `${head('POST', '/enrol', { 'Transfer-Encoding': 'chunked' })}${`4000\r\n${'x'.repeat(0x4000)}\r\n`.repeat(4)}0\r\n\r\n`,
  )
  answers.set('enrol without a code', await enrolWith(portOf(mirror), { name: 'd', code: 'X', request: never }))
  const code = mirror.offer('e')
  answers.set('a wrong code', await enrolWith(portOf(mirror), { name: 'e', code: `${code}0`, request: never }))
  answers.set('the code of another name', await enrolWith(portOf(mirror), { name: 'a', code, request: never }))
  answers.set('no request', await enrolWith(portOf(mirror), { name: 'e', code, request: Buffer.from('x') }))
  const spellings = new Map<string, string[]>()
  for (const [what, answer] of answers) {
    const plain = answer?.plain ?? 'closed'
    spellings.set(plain, [...(spellings.get(plain) ?? []), what])
  }
  const [one, ...others] = [...spellings].sort(([, x], [, y]) => y.length - x.length)
  t.same(others, [], 'byte for byte')
  t.match(one?.[0], /^HTTP\/1\.1 404 Not Found\r\n(?:.+\r\n)+\r\n404\n$/)
  t.ok(answers.size > 60)
  t.ok(await mirror.enrol('e', { code }), 'and a code that was right all the time still is')
})

t.test('a stranger is cut off before a word of HTTP', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license(DEPLOYMENT, LICENSE)
  const box = await mirror.enrol('pbx1')
  const { authority } = mirror.identity
  const other = (await boxMirror(t)).identity.authority
  const now = Date.now()
  const certificate = (
    kind: 'box' | 'server' | 'delivery',
    issuer = authority,
    from = now - DAY_MS,
    to = now + DAY_MS,
  ) =>
    pemOf(issueCertificate({ kind, site: 'hq', name: 'pbx1', key: box.key, issuer, notBeforeMs: from, notAfterMs: to }))
  const self = pemOf(
    issueCertificate({
      kind: 'authority',
      site: 'hq',
      name: 'x',
      key: box.key,
      notBeforeMs: now - DAY_MS,
      notAfterMs: now + DAY_MS,
    }),
  )
  // The authority of another mirror may have our site's name.
  const twin = { key: other.key, certificate: other.certificate }
  const strangers = {
    'of another authority': certificate('box', twin),
    'self-signed': self,
    'with its authority beside it': certificate('box', twin) + pemOf(other.certificate.raw),
    expired: certificate('box', authority, now - 2 * DAY_MS, now - 1000),
    'not yet valid': certificate('box', authority, now + DAY_MS / 2, now + DAY_MS),
    'for a server': certificate('server'),
    'signed by a box':
      certificate('box', { key: box.key, certificate: new X509Certificate(box.certificate) }) + box.certificate,
  }
  const asked = head('GET', '/boxes/pbx1/license', { 'Gapferry-Deployment': DEPLOYMENT })
  for (const [what, cert] of Object.entries(strangers)) {
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      t.equal(
        await mirror.send(asked, { ...box, certificate: cert }, { maxVersion }),
        undefined,
        `${what}, ${maxVersion}`,
      )
    }
    t.equal(await mirror.send(post('/enrol', '{}'), { ...box, certificate: cert }), undefined, `${what}: nor to enrol`)
  }
  t.match(
    mirror.log.join(''),
    /"why":"CERT_HAS_EXPIRED".*"subject":"O=hq, CN=pbx1".*"msg":"closed: a box’s certificate is not valid by this machine’s clock"/,
  )
  t.match(mirror.log.join(''), /"why":"CERT_NOT_YET_VALID"/)
  t.match(mirror.log.join(''), /closed: its certificate is not of this mirror’s authority/)
  for (const version of ['TLSv1', 'TLSv1.1'] as const) {
    const old = { minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' }
    t.equal(await mirror.send(asked, box, old), undefined, version)
  }
  for (const ciphers of ['ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES128-SHA', 'ECDHE-ECDSA-CHACHA20-POLY1305']) {
    t.equal(await mirror.send(asked, box, { ciphers, maxVersion: 'TLSv1.2' }), undefined, ciphers)
  }
  t.equal((await licenseOf(mirror, box)).status, 200, 'and the box itself goes on')
})

t.test('a refusal comes a fixed time after its request', async (t) => {
  const mirror = await boxMirror(t, { refusalMs: 100 })
  const box = await mirror.enrol('pbx1')
  const code = mirror.offer('pbx2')
  const request = requestFor(newP256())
  const timed = async (work: Promise<unknown>) => {
    const before = performance.now()
    await work
    return performance.now() - before
  }
  const times = await Promise.all([
    timed(mirror.get('/nonsense')),
    timed(mirror.get('/boxes/other/license', box)),
    timed(licenseOf(mirror, box)),
    timed(enrolWith(portOf(mirror), { name: 'pbx2', code: `${code}0`, request })),
    timed(enrolWith(portOf(mirror), { name: 'nobody', code, request })),
  ])
  for (const ms of times) t.ok(ms >= 98, `${Math.round(ms)} ms`)
})

t.test('many connections, slow ones, and bytes that are no TLS', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license(DEPLOYMENT, LICENSE)
  const box = await mirror.enrol('pbx1')
  const open = Array.from({ length: 160 }, () => {
    const socket = connect(portOf(mirror), '127.0.0.1')
    socket.on('error', () => undefined)
    return socket
  })
  const refused = new Promise<void>((done) => {
    let closed = 0
    for (const socket of open) socket.once('close', () => ++closed === 32 && done())
  })
  await refused
  t.ok(open.filter(({ destroyed }) => !destroyed).length <= 128, 'so many of one address, and no more')
  for (const socket of open) socket.destroy()
  const garbage = (bytes: Buffer): Promise<Buffer> =>
    new Promise((done) => {
      const chunks: Buffer[] = []
      const socket = connect(portOf(mirror), '127.0.0.1', () => socket.write(bytes))
      socket.on('data', (chunk) => chunks.push(chunk))
      socket.on('error', () => undefined)
      socket.on('close', () => done(Buffer.concat(chunks)))
    })
  t.notMatch((await garbage(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))).toString('latin1'), /HTTP/)
  t.notMatch((await garbage(Buffer.alloc(70_000, 0x16))).toString('latin1'), /HTTP/)
  const slow = Array.from({ length: 20 }, () => mirror.send('POST /enrol HTTP/1.1\r\nHost: x\r\nContent-Le', undefined))
  t.equal((await licenseOf(mirror, box)).status, 200, 'meanwhile a box is served')
  t.same(
    await Promise.all(slow),
    slow.map(() => undefined),
    'a head that does not end is cut off',
  )
  t.equal(
    await mirror.send(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(9000)}\r\n\r\n`),
    undefined,
    'so is an endless one',
  )
  t.equal(await mirror.send('nonsense\r\n\r\n'), undefined)
  const pipelined = await mirror.send(head('GET', '/').repeat(500), box)
  t.ok(pipelined === undefined || pipelined.status === 404)
})
