/** Clients that are slow for minutes; all at once, since nothing happens but waiting. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t from 'tap'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, TestReleases } from '../helpers/content.ts'

const BYTES = 30_000_000
/** The mirror waits for two minutes without a byte; Node counts them again where a write was half done. */
const UNREAD_MS = 250_000
t.setTimeout(400_000)

t.test('a dripped body, an idle connection and an answer that nobody reads all end', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  releases.release(await makeTree(blobs, { x: { bytes: 'x' }, large: { bytes: Buffer.alloc(BYTES, 'large') } }), 0)
  const mirror = await startMirror({ releases, blobs })
  t.teardown(() => mirror.close())
  const { host, port } = new URL(mirror.origins[0]!.url)
  const open = async (head: string): Promise<Socket> => {
    const socket = connect(Number(port), '127.0.0.1').on('error', () => undefined)
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    socket.write(head)
    return socket
  }
  const seconds = async (socket: Socket): Promise<number> => {
    const startMs = performance.now()
    await new Promise<void>((resolve) => socket.once('close', () => resolve()))
    return (performance.now() - startMs) / 1000
  }

  const body = await open(`POST /x HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000\r\n\r\n`)
  const drip = setInterval(() => body.writable && body.write('x'), 500)
  t.teardown(() => clearInterval(drip))
  const idle = await open(`GET /x HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  const unread = await open(`GET /large HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  unread.pause()
  const [bodyS, idleS] = await Promise.all([seconds(body.resume()), seconds(idle.resume())])
  t.ok(bodyS < 20, `the body: ${bodyS} s`)
  t.ok(idleS > 10 && idleS < 20, `idle: ${idleS} s`)
  // A client that does not read is not told either: what it finds when it reads again is the end of what was on its way.
  await new Promise((resolve) => setTimeout(resolve, UNREAD_MS))
  let bytes = 0
  unread.on('data', (chunk: Buffer) => (bytes += chunk.length))
  await seconds(unread.resume())
  t.ok(bytes > 0 && bytes < BYTES, `${bytes} bytes of an answer that nobody read`)
})
