import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:tls'
import t from 'tap'
import { integer, oid, readDer, sequence } from '../../manifests/der.ts'
import { requestBytes, requestedKey } from '../../server/certificate-request.ts'
import { newCode, openCode, proofOf, sealCode } from '../../server/enrol-code.ts'
import { boxMirror, enrolment, enrolWith, head, pem, post, requestFor, type BoxMirror } from '../helpers/box-mirror.ts'

const HOUR_MS = 3_600_000
const newP256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const portOf = ({ listener }: BoxMirror): number => Number(new URL(listener.url).port)
const deliver = async (mirror: BoxMirror, box: Parameters<BoxMirror['get']>[1], deployment: string) =>
  (await mirror.get(`/boxes/${box!.name}/license`, box, { 'Gapferry-Deployment': deployment })).status

t.test('a code is 120 bits in readable groups, and the database alone does not tell it', (t) => {
  const codes = Array.from({ length: 50 }, newCode)
  for (const code of codes) t.match(code, /^(?:[0-9A-HJKMNP-TV-Z]{4}-){5}[0-9A-HJKMNP-TV-Z]{4}$/)
  t.equal(new Set(codes).size, 50)
  const key = { key: newP256(), site: 'hq' }
  const sealed = sealCode(codes[0]!, 'pbx1', key)
  t.notOk(sealed.includes(codes[0]!.replaceAll('-', '').slice(0, 8)))
  t.equal(openCode(sealed, 'pbx1', key), codes[0]!.replaceAll('-', ''))
  t.equal(openCode(sealed, 'pbx2', key), undefined, 'put in another row')
  t.equal(openCode(sealed, 'pbx1', { key: newP256(), site: 'hq' }), undefined, 'of another mirror')
  t.equal(openCode(Buffer.alloc(3), 'pbx1', key), undefined)
  t.equal(proofOf('ab-cd', 'x'), proofOf('ABCD', 'x'))
  // hmac.new(b'ABCD', b'gapferry-enrol 1\npbx1\n00\n11', sha256) of Python
  t.equal(
    proofOf('ABCD', 'gapferry-enrol 1', 'pbx1', '00', '11'),
    '5d4fe43debc9d9437620972755dbb0e234b5f54477f26df8f21ebdd04e5777fb',
  )
  t.end()
})

t.test('requests: P-256 and RSA from 2048 to 4096 bits, signed with SHA-256 by that key, and nothing else', (t) => {
  const refused = (request: Buffer, what: string) =>
    t.throws(() => requestedKey(request), { code: 'CERTIFICATE_INVALID' }, what)
  const ec = newP256()
  const rsa = (bits: number) => generateKeyPairSync('rsa', { modulusLength: bits }).privateKey
  const good = requestFor(ec)
  t.equal(requestedKey(good).asymmetricKeyType, 'ec')
  t.equal(requestedKey(requestFor(rsa(2048))).asymmetricKeyType, 'rsa')
  refused(requestFor(rsa(1024)), 'a short key')
  refused(requestFor(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey), 'another curve')
  refused(requestFor(ec, { hash: 'sha384' }), 'another digest')
  refused(requestFor(ec, { signer: newP256() }), 'the key of somebody else')
  refused(requestFor(ec, { signer: rsa(2048) }), 'signed with another kind of key')
  for (let at = 0; at < good.length; at++) {
    const bytes = Buffer.from(good)
    bytes[at]! ^= 1
    refused(bytes, `byte ${at}`)
    refused(good.subarray(0, at), `${at} bytes`)
  }
  refused(Buffer.concat([good, Buffer.of(0)]), 'a byte more')
  refused(sequence(readDer(good)!.content, integer(Buffer.of(1))), 'a value more')
  refused(sequence(sequence(integer(Buffer.of(0)), sequence(), sequence(oid('1.2.3')))), 'a key that is none')
  t.same(requestBytes(pem(good)), good)
  for (const text of [
    pem(good, 'CERTIFICATE'),
    `x${pem(good)}`,
    pem(good) + pem(good),
    '',
    pem(Buffer.alloc(9000)),
    pem(Buffer.alloc(0)),
  ]) {
    t.equal(requestBytes(text), undefined, text.slice(0, 40))
  }
  t.end()
})

t.test('only who has the code gets a certificate, once, and only over the connection that it saw', async (t) => {
  const mirror = await boxMirror(t)
  const port = portOf(mirror)
  const code = mirror.offer('pbx1')
  const request = requestFor(newP256())
  const tryWith = async (what: string, code: string, change?: (body: string) => string, name = 'pbx1') =>
    t.equal((await enrolWith(port, { name, code, request }, change)).status, 404, what)
  const edit = (change: (doc: Record<string, string>) => void) => (body: string) => {
    const doc = JSON.parse(body) as Record<string, string>
    change(doc)
    return JSON.stringify(doc)
  }
  const other = requestFor(newP256())
  await tryWith('another code', newCode())
  await tryWith(
    'for another name',
    code,
    edit((doc) => (doc['name'] = 'pbx2')),
  )
  await tryWith(
    'another request behind the proof',
    code,
    edit((doc) => (doc['request'] = pem(other))),
  )
  await tryWith(
    'the proof in capitals',
    code,
    edit((doc) => (doc['proof'] = doc['proof']!.toUpperCase())),
  )
  const middle = enrolment({ name: 'pbx1', code, request, server: mirror.identity.authority.certificate.raw })
  t.equal((await mirror.send(post('/enrol', middle)))?.status, 404, 'made for the certificate of somebody between')
  t.equal(mirror.store.catalog.enrolments.code('pbx1')?.wrong, 3, 'each of these is counted')
  const bad = requestFor(newP256(), { signer: newP256() })
  t.equal((await enrolWith(port, { name: 'pbx1', code, request: bad })).status, 404)
  t.match(mirror.log.at(-1), /CERTIFICATE_INVALID.*a box could not be enrolled/)
  let sent = ''
  const answer = await enrolWith(port, { name: 'PBX1', code, request }, (body) => (sent = body))
  t.equal(answer.status, 200)
  t.equal((await mirror.send(post('/enrol', sent)))?.status, 404, 'what was sent is no use again')
  const got = JSON.parse(answer.body.toString()) as Record<'certificate' | 'authority' | 'proof', string>
  const certificate = new X509Certificate(got.certificate)
  t.equal(
    got.proof,
    proofOf(
      code,
      'gapferry-enrolled 1',
      ...[certificate, mirror.identity.authority.certificate].map(({ fingerprint256 }) =>
        fingerprint256.replaceAll(':', '').toLowerCase(),
      ),
    ),
  )
  t.equal(certificate.subject, 'O=hq\nCN=pbx1')
  t.ok(certificate.verify(mirror.identity.authority.certificate.publicKey))
  t.match(mirror.store.catalog.enrolments.all(), [{ name: 'pbx1', revokedAtMs: null }])
  t.equal(mirror.store.catalog.enrolments.all().length, 1, 'and nothing else was made')
})

t.test('ten wrong proofs end a code, twenty an address; a code ends by itself', async (t) => {
  const mirror = await boxMirror(t)
  const port = portOf(mirror)
  const request = requestFor(newP256())
  const code = mirror.offer('pbx1')
  for (let i = 0; i < 9; i++) await enrolWith(port, { name: 'pbx1', code: `${code}${i}`, request })
  t.ok(mirror.store.catalog.enrolments.code('pbx1'))
  await enrolWith(port, { name: 'pbx1', code: `${code}X`, request })
  t.equal(mirror.store.catalog.enrolments.code('pbx1'), undefined)
  t.equal((await enrolWith(port, { name: 'pbx1', code, request })).status, 404)
  t.match(mirror.rows().at(-1), {
    command: 'enrol',
    result: 'DELIVERY_REFUSED',
    reason: 'wrong proof; the code has ended',
    who: '? (127.0.0.1)',
  })
  t.equal(mirror.rows().length, 10, 'names without a code leave no rows')
  for (let i = 0; i < 9; i++) await enrolWith(port, { name: `guess${i}`, code, request })
  const right = mirror.offer('pbx2')
  t.equal((await enrolWith(port, { name: 'pbx2', code: right, request })).status, 404, 'from here nothing is looked at')
  mirror.later(HOUR_MS)
  t.equal((await enrolWith(port, { name: 'pbx2', code: right, request })).status, 200, 'for an hour')
  const late = mirror.offer('pbx3')
  mirror.later(24 * HOUR_MS)
  t.equal((await enrolWith(port, { name: 'pbx3', code: late, request })).status, 404, 'a day later')
  const [old, fresh] = [mirror.offer('pbx4'), mirror.offer('pbx4')]
  t.equal((await enrolWith(port, { name: 'pbx4', code: old, request })).status, 404, 'the newer code counts')
  t.equal((await enrolWith(port, { name: 'pbx4', code: fresh, request })).status, 200)
})

t.test('a box is bound to one deployment, and a deployment to one box', async (t) => {
  const mirror = await boxMirror(t)
  for (const id of ['1', '2', '3']) await mirror.license(id, `license of ${id}`)
  const [a, b] = [await mirror.enrol('a'), await mirror.enrol('b')]
  t.equal(await deliver(mirror, a, '9'), 404, 'a deployment without a license binds nobody')
  t.equal(await deliver(mirror, a, '1'), 200)
  t.equal(await deliver(mirror, a, '2'), 404, 'bound at its first use')
  t.equal(await deliver(mirror, b, '1'), 404, 'it belongs to another box')
  t.equal(await deliver(mirror, b, '2'), 200)
  const c = await mirror.enrol('c', { deployment: '3' })
  t.equal(await deliver(mirror, c, '2'), 404, 'fixed when its code was made')
  t.equal(await deliver(mirror, c, '3'), 200)
  const again = await mirror.enrol('a')
  t.equal(await deliver(mirror, a, '1'), 404, 'its certificate was replaced')
  t.equal(await deliver(mirror, again, '2'), 404)
  t.equal(await deliver(mirror, again, '1'), 200, 'the name keeps its deployment')
  mirror.store.catalog.write(() => mirror.store.catalog.enrolments.revoke('a', Date.now()))
  t.equal(await deliver(mirror, again, '1'), 404)
  const moved = await mirror.enrol('d', { deployment: '2' })
  t.equal(await deliver(mirror, b, '2'), 404, 'what an operator fixes counts more than a first use')
  t.equal(await deliver(mirror, moved, '2'), 200)
  t.equal(await deliver(mirror, await mirror.enrol('e'), '1'), 200, 'what a revoked box had is free')
  const reasons = new Set(
    mirror
      .rows()
      .filter(({ result }) => result !== 'ok')
      .map(({ reason }) => reason),
  )
  t.same(reasons, new Set(['no license', 'other deployment', 'the deployment of another', 'revoked']))
})

t.test('a box that is revoked while it is connected gets nothing more', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license('1', 'license of 1')
  const box = await mirror.enrol('a')
  const options = {
    key: box.key.export({ type: 'pkcs8', format: 'pem' }),
    cert: box.certificate,
    rejectUnauthorized: false,
  }
  const socket = connect({ host: '127.0.0.1', port: portOf(mirror), ...options })
  t.teardown(() => socket.destroy())
  await once(socket, 'secureConnect')
  const ask = async () => {
    socket.write(head('GET', '/boxes/a/license', { 'Gapferry-Deployment': '1' }))
    return ((await once(socket, 'data')) as [Buffer])[0].toString('latin1').slice(0, 12)
  }
  t.equal(await ask(), 'HTTP/1.1 200')
  t.equal(await ask(), 'HTTP/1.1 200')
  mirror.store.catalog.write(() => mirror.store.catalog.enrolments.revoke('a', Date.now()))
  t.equal(await ask(), 'HTTP/1.1 404')
})

t.test('revoked while its license is being sealed', async (t) => {
  const mirror = await boxMirror(t)
  await mirror.license('1', 'license of 1')
  const box = await mirror.enrol('a')
  const { get } = mirror.licenses
  mirror.licenses.get = (deployment) => {
    mirror.store.catalog.write(() => mirror.store.catalog.enrolments.revoke('a', Date.now()))
    return get.call(mirror.licenses, deployment)
  }
  t.equal(await deliver(mirror, box, '1'), 404)
  t.notMatch(mirror.rows(), [{}, { command: 'deliver', result: 'ok' }])
})

t.test('results are kept without what is not known here, and so many requests are too many', async (t) => {
  const mirror = await boxMirror(t)
  const box = await mirror.enrol('a')
  const said = { result: 'installed', license: 'a'.repeat(64), expires: [{ name: 'sysadmin', date: '2027-03-01' }] }
  const put = async (body: unknown) => (await mirror.put('/boxes/a/result', JSON.stringify(body), box)).status
  t.equal(await put({ ...said, deployment: '71234567', newer: { x: 1 } }), 204)
  t.same(JSON.parse(mirror.store.catalog.enrolments.active('a')!.result!), said)
  t.match(mirror.rows().at(-1), { command: 'license result', result: 'ok', reason: 'installed' })
  t.equal(await put({ result: 'failed', code: 'CMS_INVALID' }), 204)
  t.match(mirror.rows().at(-1), { reason: 'CMS_INVALID' })
  for (const wrong of [
    { result: 'fine' },
    { result: 'failed', code: 'my ID 7' },
    { result: 'failed', license: 'x' },
    [],
  ]) {
    t.equal(await put(wrong), 404)
  }
  for (let i = 0; i < 54; i++) await put({ result: 'unchanged' })
  t.equal(await put({ result: 'unchanged' }), 404, 'sixty in an hour')
  mirror.later(HOUR_MS)
  t.equal(await put({ result: 'unchanged' }), 204)
})

t.test('an inventory that is refused is not quoted', async (t) => {
  const mirror = await boxMirror(t)
  const box = await mirror.enrol('a')
  const { inventories } = mirror
  t.equal((await mirror.put('/boxes/a/inventory', 'first', box)).status, 204)
  t.equal(inventories.length, 1)
  t.equal((await mirror.put('/boxes/a/inventory', 'refuse 71234567', box)).status, 404)
  t.match(mirror.log.join(''), /"code":"INVENTORY_INVALID"/)
  t.notMatch(mirror.log.join(''), /71234567/)
})
