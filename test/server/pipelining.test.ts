import { once } from 'node:events'
import type { Server } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { ConnectionLimit, limitedServer, readsBody } from '../../server/listener.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const GET = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
/** what a socket and the kernel will not take whole while nobody reads */
const BODY = Buffer.alloc(16_000_000, 'x')

/** A listener that counts what it is asked, and what its answers hold. */
async function setUp(t: Test, { body = BODY } = {}) {
  const seen = { parsed: 0, handled: 0, sockets: new Set<Socket>() }
  const { request, checkContinue } = readsBody(
    () => 0,
    (req, res) => {
      seen.handled++
      res.writeHead(200, ['Content-Length', String(body.length)]).end(req.method === 'HEAD' ? undefined : body)
    },
  )
  const server: Server = limitedServer(new ConnectionLimit(), (req, res) => {
    seen.parsed++
    request(req, res)
  })
  server.on('checkContinue', checkContinue).on('clientError', (_, socket) => socket.destroy())
  server.on('connection', (socket) => seen.sockets.add(socket.once('close', () => seen.sockets.delete(socket))))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => (server.closeAllConnections(), server.close()))
  const { port } = server.address() as AddressInfo
  return { seen, port, url: `http://127.0.0.1:${port}` }
}

/** A client that sends and never reads. */
function deaf(t: Test, port: number, bytes: string): Socket {
  const socket = connect(port, '127.0.0.1').on('error', () => undefined)
  t.teardown(() => socket.destroy())
  socket.pause().write(bytes)
  return socket
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve))
}

t.test('sixteen requests ahead of their answers are handled one after the other', async (t) => {
  const { seen, port } = await setUp(t)
  const socket = deaf(t, port, GET.repeat(16))
  await until(() => seen.parsed === 16)
  t.equal(seen.handled, 1, 'the rest waits without an answer')
  const [held] = seen.sockets
  t.ok(held!.writableLength <= BODY.length + 1000, `${held!.writableLength} bytes wait`)
  socket.resume()
  await until(() => seen.handled === 16)
})

t.test('one more cuts the connection, and what Node has read by then is not answered', async (t) => {
  const { seen, port } = await setUp(t)
  for (let i = 0; i < 8; i++) deaf(t, port, GET.repeat(100_000))
  await until(() => seen.parsed >= 8 * 16 && seen.sockets.size === 0)
  t.ok(seen.parsed <= (8 * 65_536) / GET.length + 8, `${seen.parsed} requests were made of one read each`)
  t.equal(seen.handled, 8)
})

t.test('requests that Node answers by itself count', async (t) => {
  const { seen, port } = await setUp(t)
  for (const rest of ['GET / HTTP/1.1\r\n\r\n', 'GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n']) {
    deaf(t, port, GET + rest.repeat(100))
    await until(() => seen.sockets.size === 1)
    await until(() => seen.sockets.size === 0)
  }
  t.equal(seen.parsed, 2)
})

t.test('answered requests do not count', async (t) => {
  const { seen, port, url } = await setUp(t, { body: Buffer.from('short') })
  const socket = connect(port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  for (let round = 1; round <= 20; round++) {
    let text = ''
    socket.write(GET.repeat(10))
    while (text.split('short').length <= 10) text += String((await once(socket, 'data'))[0])
  }
  t.equal(seen.handled, 200)
  const post = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
  t.equal(parseAnswers(await exchange(url, (GET + post).repeat(8))).length, 16)
})
