/** Clients that want to be expensive. Exact bytes and smuggling: raw-socket.test.ts; paths: content.test.ts; names:
 *  hosts.test.ts; how many connections: app.test.ts; how many requests ahead: pipelining.test.ts; who is slow for
 *  minutes: test/slow/slow-clients.test.ts. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, TestReleases } from '../helpers/content.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const BYTES = Buffer.alloc(100_000, 'package ')

async function setUp(t: Test): Promise<{ url: string; host: string; port: number }> {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  releases.release(await makeTree(blobs, { x: { bytes: BYTES } }), 0)
  const mirror = await startMirror({ releases, blobs })
  t.teardown(() => mirror.close())
  const { origin, host, port } = new URL(mirror.origins[0]!.url)
  return { url: origin, host, port: Number(port) }
}

/** However it ends: a reset is the server's right. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

t.test('five hundred ranges cost one whole answer, not five hundred parts', async (t) => {
  const { url, host } = await setUp(t)
  const ranges: [string, number][] = [
    [Array.from({ length: 500 }, (_, i) => `${i}-`).join(','), 200],
    [Array.from({ length: 500 }, () => '0-').join(','), 200],
    [`0-0${','.repeat(3000)}1-1`, 200],
    [`${'9'.repeat(3000)}-`, 416],
    [`0-${'9'.repeat(3000)}`, 206],
    [`-${'9'.repeat(3000)}`, 206],
  ]
  for (const [range, status] of ranges) {
    const request = `GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\nRange: bytes=${range}\r\n\r\n`
    const text = await exchange(url, request, { keepOpen: true })
    const [answer] = parseAnswers(text)
    t.equal(answer?.status, status, range.slice(0, 30))
    t.ok(text.length < BYTES.length + 1000)
    t.notMatch(text.slice(0, 1000), /multipart/)
  }
})

t.test('conditions that are made to be long are judged at once', async (t) => {
  const { url, host } = await setUp(t)
  const values = [
    '"'.repeat(7000),
    'W/"'.repeat(2300),
    `${'"x",'.repeat(1700)}"`,
    ' ,'.repeat(3500),
    `"${' '.repeat(7000)}`,
  ]
  const cpu = process.cpuUsage()
  for (const name of ['If-None-Match', 'If-Match', 'If-Range', 'If-Modified-Since', 'Range', 'Host', 'Content-Type']) {
    for (const value of values) {
      const bytes = `GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${name}: ${value}\r\n\r\n`
      const [answer] = parseAnswers(await exchange(url, bytes, { keepOpen: true }))
      t.ok([200, 206, 304, 400, 412].includes(answer!.status), `${name} ${answer!.status}`)
    }
  }
  t.ok(process.cpuUsage(cpu).user < 3e6)
})

t.test('a hundred clients that never finish their head keep nobody from being served, and are cut', async (t) => {
  const { url, host, port } = await setUp(t)
  const sockets: Socket[] = []
  t.teardown(() => sockets.forEach((socket) => socket.destroy()))
  const cut: Promise<unknown>[] = []
  for (let i = 0; i < 100; i++) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined)
    await once(socket, 'connect')
    socket.write(`GET /x HTTP/1.1\r\nHost: ${host}\r\nX-${i}: `)
    cut.push(closed(socket.resume()))
    sockets.push(socket)
  }
  const drip = setInterval(() => sockets.forEach((socket) => socket.writable && socket.write('x')), 100)
  t.teardown(() => clearInterval(drip))
  const plain = `GET /x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`
  const [answer] = parseAnswers(await exchange(url, plain, { keepOpen: true }))
  t.equal(answer?.status, 200)
  await Promise.all(cut)
  t.pass('all were cut, though a byte came every 100 ms')
})

t.test('whoever sends rubbish for ever is cut at the first bytes of it', async (t) => {
  const { port } = await setUp(t)
  for (const rubbish of [
    Buffer.alloc(65_536, 0),
    Buffer.alloc(65_536, 'A'),
    Buffer.alloc(65_536, '\r\n'),
    Buffer.alloc(65_536, 0xff),
  ]) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined)
    let sent = 0
    const feed = (): void => {
      while (!socket.destroyed && socket.write(rubbish)) sent += rubbish.length
    }
    const ended = closed(socket)
    socket.on('drain', feed).resume()
    await once(socket, 'connect')
    feed()
    await ended
    // Empty lines may come before a request (RFC 9112 §2.2): those end with the time for a head.
    t.ok(sent < 50 << 20 || rubbish[0] === 13, `${sent} bytes of ${rubbish[0]}`)
  }
})
