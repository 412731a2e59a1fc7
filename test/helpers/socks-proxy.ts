/**
 * A SOCKS5 proxy on loopback that remembers what it was asked, and misbehaves where it is told to.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Teardown } from './process.ts'

export interface SocksProxy {
  /** `socks5://127.0.0.1:PORT` */
  url: string
  /** `name HOST:PORT` or `v4 HOST:PORT`, with `as USER:PASSWORD` where the proxy asked for them */
  asked: string[]
}

export interface SocksManners {
  /** USER:PASSWORD that it wants */
  user?: string
  /** answers CONNECT with this code */
  reply?: number
  /** sends these bytes instead of its first answer; empty: says nothing at all */
  garbage?: Buffer
  /** hangs up after so many answers */
  answers?: number
  /** sends what it says byte by byte */
  isSlow?: boolean
}

export async function startSocksProxy(t: Teardown, manners: SocksManners = {}): Promise<SocksProxy> {
  const asked: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    void serve(socket, manners, asked, sockets).catch(() => socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    return new Promise((resolve) => server.close(resolve))
  })
  return { url: `socks5://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

async function serve(socket: Socket, manners: SocksManners, asked: string[], sockets: Set<Socket>): Promise<void> {
  const { user, reply = 0, garbage, answers = Infinity, isSlow = false } = manners
  let said = 0
  const say = (bytes: number[]): void => {
    if (said++ >= answers) return void socket.destroy()
    for (const piece of isSlow ? bytes.map((byte) => [byte]) : [bytes]) socket.write(Buffer.from(piece))
  }
  const [, count] = await take(socket, 2)
  const methods = [...(await take(socket, count!))]
  if (garbage !== undefined) return void socket.write(garbage)
  const method = user === undefined ? 0 : methods.includes(2) ? 2 : 255
  say([5, method])
  let as = ''
  if (method === 2) {
    const [, length] = await take(socket, 2)
    const name = (await take(socket, length!)).toString()
    const [more] = await take(socket, 1)
    const given = `${name}:${(await take(socket, more!)).toString()}`
    say([1, given === user ? 0 : 1])
    as = ` as ${given}`
  }
  const [, , , type] = await take(socket, 4)
  const host =
    type === 1 ? [...(await take(socket, 4))].join('.') : (await take(socket, (await take(socket, 1))[0]!)).toString()
  const port = (await take(socket, 2)).readUInt16BE()
  asked.push(`${type === 1 ? 'v4' : 'name'} ${host}:${port}${as}`)
  if (reply !== 0) return say([5, reply, 0, 1, 0, 0, 0, 0, 0, 0])
  const upstream = connect(port, '127.0.0.1')
  sockets.add(upstream)
  upstream.on('error', () => socket.destroy())
  await new Promise((resolve) => upstream.once('connect', resolve))
  say(isSlow ? [5, 0, 0, 3, 4, 97, 46, 98, 99, 0, 80] : [5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
  socket.pipe(upstream).pipe(socket)
}

/** Takes bytes one after another; what is not wanted yet stays in `heard`. */
async function take(socket: Socket, count: number): Promise<Buffer> {
  let bytes = heard.get(socket) ?? Buffer.alloc(0)
  while (bytes.length < count) {
    const more = socket.read() as Buffer | null
    if (more !== null) bytes = Buffer.concat([bytes, more])
    else if (socket.destroyed || socket.readableEnded) throw new Error('gone')
    else await Promise.race(['readable', 'close'].map((name) => new Promise((resolve) => socket.once(name, resolve))))
  }
  heard.set(socket, bytes.subarray(count))
  return bytes.subarray(0, count)
}

const heard = new WeakMap<Socket, Buffer>()
