import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, testConfig, TestReleases } from '../helpers/content.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const BODY = 'package'
const FILE = '/yum/base/p.rpm'
const LARGE = Buffer.alloc(300_000, 'large ')
const HUGE = Buffer.alloc(30_000_000, 'huge ')

async function setUp(t: Test) {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  releases.release(
    await makeTree(blobs, { [FILE.slice(1)]: { bytes: BODY }, large: { bytes: LARGE }, huge: { bytes: HUGE } }),
    0,
  )
  const mirror = await startMirror({ releases, blobs, config: testConfig([{ group: 'pbx', hosts: ['mirror.lan'] }]) })
  t.teardown(() => mirror.close())
  return { url: mirror.origins[0]!.url.replace('mirror.lan', '127.0.0.1') }
}

/** Status of each answer to the bytes; `closed` when the server said nothing. */
async function statuses(url: string, bytes: string): Promise<string> {
  const text = await exchange(url, bytes)
  return text === ''
    ? 'closed'
    : parseAnswers(text)
        .map((answer) => answer.status)
        .join(' ')
}

t.test('request lines and Host', async (t) => {
  const { url } = await setUp(t)
  const { port } = new URL(url)
  const table: [string, string][] = [
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '200'],
    [`GET ${FILE}? HTTP/1.0\r\nHost: mirror.lan\r\n\r\n`, '200'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan:${port}\r\n\r\n`, '200'],
    [`GET ${FILE} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`, '200'],
    [`GET ${FILE} HTTP/1.1\r\nHost: MIRROR.LAN\r\n\r\n`, '200'],
    [`GET ${FILE} HTTP/1.0\r\n\r\n`, '200'],
    [`GET http://mirror.lan${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '200'],
    [`GET http://evil.lan${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '421'],
    [`GET http://evil.lan${FILE} HTTP/1.1\r\nHost: evil.lan\r\n\r\n`, '421'],
    [`GET http://127.0.0.1${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '421'],
    [`GET ${FILE} HTTP/1.1\r\nHost: evil.lan\r\n\r\n`, '421'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan:1\r\n\r\n`, '421'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nHost: mirror.lan\r\n\r\n`, '400'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nhOST: evil.lan\r\n\r\n`, '400'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan, evil.lan\r\n\r\n`, '400'],
    [`GET ${FILE} HTTP/1.1\r\nHost:\r\n\r\n`, '400'],
    [`GET ${FILE} HTTP/1.1\r\n\r\n`, '400'],
    [`GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '400'],
    [`GET /yum/..%2fx HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '400'],
    [`GET /yum/ HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '404'],
    [`GET * HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '400'],
    [`OPTIONS * HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '405'],
    [`DELETE ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '405'],
    [`PROPFIND ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '405'],
    [`TRACE ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '405'],
    [`CONNECT mirror.lan:80 HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, 'closed'],
    [`FROB ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`, '400'],
    [`GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n`, '200'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '400'],
    ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', '400'],
    ['', 'closed'],
  ]
  for (const [bytes, want] of table) t.equal(await statuses(url, bytes), want, JSON.stringify(bytes.slice(0, 90)))
})

t.test('what makes two readers disagree is refused', async (t) => {
  const { url } = await setUp(t)
  const head = `POST ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n`
  const smuggled = `GET /smuggled HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`
  const table = [
    `${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `${head}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde${smuggled}`,
    `${head}Content-Length: 4, 5\r\n\r\nabcde`,
    `${head}Content-Length: -1\r\n\r\n`,
    `${head}Content-Length: 0x4\r\n\r\nabcd`,
    `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `${head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
    `${head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`,
    `${head}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n`,
    `GET ${FILE} HTTP/1.1\nHost: mirror.lan\n\n`,
    `GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nX: a\r\n b\r\n\r\n`,
    `GET ${FILE} HTTP/1.1\r\nHost : mirror.lan\r\n\r\n`,
    `GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nX: a\0b\r\n\r\n`,
    `GET ${FILE} HTTP/1.1 \r\nHost: mirror.lan\r\n\r\n`,
    `GET /a b HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`,
  ]
  for (const bytes of table) t.equal(await statuses(url, bytes), '400', JSON.stringify(bytes.slice(0, 120)))
})

t.test('header sizes', async (t) => {
  const { url } = await setUp(t)
  const get = (extra: string): string => `GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n${extra}\r\n`
  t.equal(await statuses(url, get(`X: ${'x'.repeat(9000)}\r\n`)), '431')
  t.equal(await statuses(url, get('a:\r\n'.repeat(9000))), '431')
  t.equal(await statuses(url, `GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`), '431')
  t.equal(await statuses(url, get(`X: ${'x'.repeat(7000)}\r\n`)), '200')
  t.equal(
    await statuses(url, get(`${'a:\r\n'.repeat(1500)}Host: evil.lan\r\n`)),
    '400',
    'a Host after 1500 others counts',
  )
})

t.test('bodies are read and dropped, whatever they are', async (t) => {
  const { url } = await setUp(t)
  const next = `GET ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n\r\n`
  const post = (headers: string, body: string, method = 'POST'): string =>
    `${method} ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n${headers}\r\n${body}${next}`
  const form = 'a[b]=c&sv=2'
  const types = [
    'application/x-www-form-urlencoded',
    'application/json',
    'text/xml',
    'multipart/form-data',
    ';;;',
    '',
    'a/b/c; =',
  ]
  for (const type of types) {
    const bytes = post(`Content-Type: ${type}\r\nContent-Length: ${form.length}\r\n`, form)
    t.equal(await statuses(url, bytes), '200 200', `Content-Type: ${type}`)
  }
  t.equal(await statuses(url, post(`Content-Length: ${form.length}\r\n`, form)), '200 200', 'no Content-Type')
  t.equal(await statuses(url, post('', '')), '200 200', 'no body')
  t.equal(await statuses(url, post('Content-Length: 0\r\n', '')), '200 200', 'an empty body')
  t.equal(
    await statuses(url, post('Transfer-Encoding: chunked\r\n', '3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\n')),
    '200 200',
  )
  t.equal(await statuses(url, post('Transfer-Encoding: chunked\r\n', '0\r\n\r\n')), '200 200')
  t.equal(await statuses(url, post('Content-Length: 3\r\n', 'abc', 'GET')), '200 200', 'GET with a body')
  const most = 'x'.repeat(1024 * 1024)
  t.equal(await statuses(url, post(`Content-Length: ${most.length}\r\n`, most)), '200 200', '1 MiB')
})

t.test('a body over 1 MiB is refused and ends the connection', async (t) => {
  const { url } = await setUp(t)
  const head = `POST ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\n`
  const declared = parseAnswers(await exchange(url, `${head}Content-Length: 1048577\r\n\r\nabc`, { keepOpen: true }))
  t.match(declared, [{ status: 413, body: /^BODY_TOO_LONG/ }])
  t.equal(declared[0]!.headers.get('connection'), 'close')
  const chunk = `10000\r\n${'x'.repeat(65536)}\r\n`
  const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(16)}1\r\nx\r\n`
  t.match(parseAnswers(await exchange(url, chunked, { keepOpen: true })), [{ status: 413 }])
})

t.test('Expect: 100-continue', async (t) => {
  const { url } = await setUp(t)
  const head = (length: number): string =>
    `POST ${FILE} HTTP/1.1\r\nHost: mirror.lan\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`
  t.match(await exchange(url, `${head(3)}abc`), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  t.match(await exchange(url, head(2_000_000), { keepOpen: true }), /^HTTP\/1\.1 413 /, 'no invitation to a long body')
})

t.test('requests in a row are answered in order, large files among them', async (t) => {
  const { url } = await setUp(t)
  const methods = ['GET', 'GET', 'HEAD', 'GET', 'HEAD', 'POST', 'GET', 'GET', 'GET', 'GET', 'GET', 'GET']
  const targets = [FILE, '/large', '/large', '/none', FILE, '/large', ...Array.from({ length: 6 }, () => '/large')]
  const requests = methods.map((method, i) => `${method} ${targets[i]} HTTP/1.1\r\nHost: mirror.lan\r\n`)
  const bytes = `${requests.join('\r\n')}Connection: close\r\n\r\n`
  const answers = parseAnswers(await exchange(url, bytes, { keepOpen: true }), methods)
  t.same(
    answers.map((answer) => answer.status),
    targets.map((target) => (target === '/none' ? 404 : 200)),
  )
  for (const [i, answer] of answers.entries()) {
    if (methods[i] === 'HEAD') t.equal(answer.headers.get('content-length'), targets[i] === FILE ? '7' : '300000')
    else if (targets[i] === '/large') t.ok(Buffer.from(answer.body, 'latin1').equals(LARGE), `answer ${i} is whole`)
  }
})

t.test('rubbish behind a request never becomes part of its answer', async (t) => {
  const { url } = await setUp(t)
  const socket = connect(Number(new URL(url).port), '127.0.0.1').on('error', () => undefined)
  socket.write('GET /huge HTTP/1.1\r\nHost: mirror.lan\r\n\r\n')
  const chunks: Buffer[] = [await once(socket, 'data').then(([chunk]) => chunk as Buffer)]
  // Unread, the answer is still under way when the rubbish comes.
  socket.pause().write('\0\0rubbish\r\n\r\n')
  await new Promise((resolve) => socket.write('', resolve))
  socket.on('data', (chunk) => chunks.push(chunk)).resume()
  await once(socket, 'close')
  const text = Buffer.concat(chunks)
  const body = text.subarray(text.indexOf('\r\n\r\n') + 4)
  t.ok(body.length < HUGE.length, 'the answer was cut')
  t.ok(HUGE.subarray(0, body.length).equals(body), 'what came of it is true')
})

t.test('a slow header is cut after two seconds', async (t) => {
  const { url } = await setUp(t)
  const startMs = performance.now()
  const [answers, silence] = await Promise.all([
    exchange(url, `GET ${FILE} HTTP/1.1\r\nHost: mirr`, { keepOpen: true }),
    exchange(url, '', { keepOpen: true }),
  ])
  t.match(parseAnswers(answers), [{ status: 408 }])
  t.ok(silence === '' || silence.startsWith('HTTP/1.1 408'), 'and one who says nothing')
  t.ok(performance.now() - startMs < 5000)
})
