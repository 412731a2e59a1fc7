/** Attacks on the listener of the boxes, by strangers and by boxes with a certificate. */
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, type ConnectionOptions } from 'node:tls'
import t from 'tap'
import { pemOf } from '../../server/issue.ts'
import {
  boxMirror,
  enrolWith,
  head,
  ofBox,
  post,
  requestFor,
  type BoxMirror,
  type TestBox,
} from '../helpers/box-mirror.ts'
import { openssl } from '../helpers/openssl.ts'

const portOf = ({ listener }: BoxMirror): number => Number(new URL(listener.url).port)
const newP256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const own = (deployment: string) => ({ 'Gapferry-Deployment': deployment })
const statusOf = async (mirror: BoxMirror, box: TestBox, deployment: string) =>
  (await mirror.get(`/boxes/${box.name}/license`, box, own(deployment))).status

t.test('a refusal does not take longer where more was looked at', async (t) => {
  const mirror = await boxMirror(t, { refusalMs: 600 })
  await mirror.license('1', 'license of 1')
  const [a, b] = [await mirror.enrol('a'), await mirror.enrol('b')]
  t.equal(await statusOf(mirror, a, '1'), 200)
  const found = mirror.licenses.get.bind(mirror.licenses)
  let slow = 0
  mirror.licenses.get = (deployment) => {
    for (const until = performance.now() + 400; performance.now() < until;) slow++
    return found(deployment)
  }
  const before = performance.now()
  t.equal(await statusOf(mirror, b, '1'), 404, 'there is a license, of another')
  const ms = performance.now() - before
  t.ok(slow > 0)
  t.ok(ms >= 598 && ms < 950, `${Math.round(ms)} ms, of which it was looked at for 400`)
})

t.test('who kept a revoked certificate does not use up what its successor may ask', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license('1', 'license of 1')
  const lost = await mirror.enrol('a')
  const box = await mirror.enrol('a')
  for (let i = 0; i < 70; i++) await statusOf(mirror, lost, '1')
  t.equal(await statusOf(mirror, box, '1'), 200)
})

t.test('no session is taken up again, with or without a certificate', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license('1', 'license of 1')
  const box = await mirror.enrol('a')
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const options: ConnectionOptions = {
      host: '127.0.0.1',
      port: portOf(mirror),
      rejectUnauthorized: false,
      maxVersion,
    }
    const first = connect({ ...options, ...ofBox(box) })
    const sessions: Buffer[] = []
    first.on('session', (session) => sessions.push(session))
    await once(first, 'secureConnect')
    first.write(head('GET', '/boxes/a/license', own('1')))
    t.match(((await once(first, 'data')) as [Buffer])[0].toString('latin1'), /^HTTP\/1.1 200/)
    const known = first.getSession()
    first.destroy()
    for (const session of [...sessions, ...(known === undefined ? [] : [known])]) {
      const again = connect({ ...options, session })
      await once(again, 'secureConnect')
      t.equal(again.isSessionReused(), false, maxVersion)
      again.write(head('GET', '/boxes/a/license', own('1')))
      t.match(((await once(again, 'data')) as [Buffer])[0].toString('latin1'), /^HTTP\/1.1 404/)
      again.destroy()
    }
  }
})

t.test('odd requests for the license of another get the one 404, or no word', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license('1', 'license of 1')
  await mirror.license('2', 'license of 2')
  const [a, b] = [await mirror.enrol('a'), await mirror.enrol('k')]
  t.equal(await statusOf(mirror, a, '1'), 200)
  t.equal(await statusOf(mirror, b, '2'), 200)
  const nothing = (await mirror.send(head('GET', '/nothing'), a))!.plain
  const line = 'GET /boxes/k/license'
  const ask = `${line} HTTP/1.1\r\nHost: x\r\nGapferry-Deployment: 2\r\n`
  const certificate = pemOf(mirror.identity.delivery.certificate.raw)
  const delivery: TestBox = { name: 'k', key: mirror.identity.delivery.key, certificate }
  const requests: [string, string | Buffer, TestBox][] = [
    ['no Host', `${line} HTTP/1.1\r\nGapferry-Deployment: 2\r\n\r\n`, a],
    ['two Hosts', `${ask}Host: y\r\n\r\n`, a],
    ['HTTP/1.0 with keep-alive', `${line} HTTP/1.0\r\nConnection: keep-alive\r\nGapferry-Deployment: 2\r\n\r\n`, a],
    ['two deployments', `${ask}Gapferry-Deployment: 1\r\n\r\n`, a],
    ['a deployment in two headers', `${ask}X-Box: k\r\nX-SSL-Client-CN: k\r\n\r\n`, a],
    ['the Kelvin sign', Buffer.from(head('GET', '/boxes/\u212a/license', own('2'))), a],
    ['a NUL', head('GET', '/boxes/k\0/license', own('2')), a],
    ['a NUL, escaped', head('GET', '/boxes/k%00a/license', own('2')), a],
    ['a fragment', head('GET', '/boxes/k/license#/boxes/a/license', own('2')), a],
    ['two lengths', `${ask}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc`, a],
    ['a length and chunks', `${ask}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, a],
    ['a folded header', `${ask}X: a\r\n b\r\n\r\n`, a],
    ['what TLS would end', `CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n`, a],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', a],
    ['the certificate for delivery', `${ask}\r\n`, delivery],
    ['a request in the body of another', post('/nothing', `${ask}\r\n`), a],
  ]
  for (const [what, bytes, box] of requests) {
    const plain = (await mirror.send(bytes, box))?.plain
    t.ok(plain === undefined || plain === nothing, what, { plain })
  }
  const behind = await mirror.send(`${head('GET', '/nothing')}${ask}\r\n`, a)
  t.equal(behind?.plain, nothing, 'one behind the other')
  t.equal(await statusOf(mirror, { ...a, name: 'A' }, '1'), 200, 'its own name may be spelled in capitals')
})

t.test('a body that does not come to its end is one of a few', async (t) => {
  const mirror = await boxMirror(t)
  const box = await mirror.enrol('a')
  const other = await mirror.enrol('b')
  const started = head('PUT', '/boxes/a/inventory', { 'Content-Length': '4000000' })
  const sockets = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const socket = connect({ host: '127.0.0.1', port: portOf(mirror), rejectUnauthorized: false, ...ofBox(box) })
      socket.on('error', () => undefined)
      await once(socket, 'secureConnect')
      const answered = once(socket, 'data').then(([bytes]) => String(bytes).slice(0, 12))
      socket.write(Buffer.concat([Buffer.from(started), Buffer.alloc(100_000)]))
      return { socket, answered }
    }),
  )
  t.teardown(() => sockets.forEach(({ socket }) => socket.destroy()))
  const refused = Promise.all(sockets.map(({ answered }) => answered.then((text) => refusals.push(text))))
  const refusals: string[] = []
  refused.catch(() => undefined)
  t.equal((await mirror.put('/boxes/b/inventory', 'x', other)).status, 204, 'others are heard')
  while (refusals.length < 5) await new Promise((done) => setImmediate(done))
  t.same(refusals, Array<string>(5).fill('HTTP/1.1 404'))
  for (const { socket } of sockets) socket.destroy()
  let status = 0
  while (status !== 204) ({ status } = await mirror.put('/boxes/a/inventory', 'x', box))
  t.equal(status, 204, 'when they are gone it may send again')
})

t.test('of two that have one code, one gets a certificate', async (t) => {
  const mirror = await boxMirror(t)
  const code = mirror.offer('a')
  const tries = Array.from({ length: 6 }, () =>
    enrolWith(portOf(mirror), { name: 'a', code, request: requestFor(newP256()) }),
  )
  const statuses = (await Promise.all(tries)).map(({ status }) => status).sort((a, b) => a - b)
  t.same(statuses, [200, 404, 404, 404, 404, 404])
  t.equal(mirror.store.catalog.enrolments.all().length, 1)
})

t.test('a code that is taken away while its proof is looked at', async (t) => {
  const mirror = await boxMirror(t)
  const { catalog } = mirror.store
  const code = mirror.offer('a')
  const write = catalog.write.bind(catalog)
  catalog.write = (work) => {
    catalog.write = write
    write(() => catalog.enrolments.dropCode('a'))
    return write(work)
  }
  t.equal((await enrolWith(portOf(mirror), { name: 'a', code, request: requestFor(newP256()) })).status, 404)
  t.same(catalog.enrolments.all(), [])
})

t.test('what a request asks for beside its key is not given', async (t) => {
  const mirror = await boxMirror(t)
  const dir = t.testdir()
  writeFileSync(
    join(dir, 'req.cnf'),
    '[req]\ndistinguished_name=dn\nreq_extensions=ext\nprompt=no\n[dn]\nCN=mirror\n' +
      '[ext]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n',
  )
  writeFileSync(join(dir, 'key'), newP256().export({ type: 'pkcs8', format: 'pem' }))
  const request = openssl(['req', '-new', '-key', join(dir, 'key'), '-config', join(dir, 'req.cnf'), '-outform', 'DER'])
  const answer = await enrolWith(portOf(mirror), { name: 'a', code: mirror.offer('a'), request })
  const { certificate } = JSON.parse(answer.body.toString()) as { certificate: string }
  const text = openssl(['x509', '-noout', '-text'], Buffer.from(certificate)).toString()
  t.match(text, /Subject: O = hq, CN = a\n/)
  t.match(text, /CA:FALSE/)
  t.notMatch(text, /CA:TRUE|Certificate Sign|localhost|TLS Web Server/)
})
