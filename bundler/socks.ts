/**
 * Connections through a SOCKS5 proxy (RFC 1928; user and password: RFC 1929). Names are resolved by the proxy: where one is
 * needed, the laptop itself often has no name server.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { once } from 'node:events'
import type { buildConnector } from 'undici'

const VERSION = 5
const NO_AUTH = 0
const PASSWORD = 2
const CONNECT = 1
const DOMAIN = 3
const MAX_FIELD_BYTES = 255
const DEFAULT_PORT = 1080
const ADDRESS_BYTES: Record<number, number> = { 1: 4, 4: 16 }
/** RFC 1928 §6, as codes that networkFailure() knows. */
const REPLIES: Record<number, [code: string, words: string]> = {
  1: ['PROXY_FAILED', 'general failure'],
  2: ['PROXY_REFUSED', 'not allowed by its rules'],
  3: ['ENETUNREACH', 'network unreachable'],
  4: ['EHOSTUNREACH', 'host unreachable'],
  5: ['ECONNREFUSED', 'connection refused'],
  6: ['EHOSTUNREACH', 'TTL expired'],
  7: ['PROXY_REFUSED', 'command not supported'],
  8: ['PROXY_REFUSED', 'address type not supported'],
}

/** @param proxy  `socks5://USER:PASSWORD@HOST:PORT`
 *  @param direct  makes TLS of a connection
 *  @param timeoutMs  for the connection to the proxy and all that is said there */
export function socksConnector(
  proxy: URL,
  direct: buildConnector.connector,
  timeoutMs: number,
): buildConnector.connector {
  return (options, callback) => void connectThrough(options, callback)

  async function connectThrough(options: buildConnector.Options, callback: buildConnector.Callback): Promise<void> {
    const port = Number(options.port) || (options.protocol === 'https:' ? 443 : 80)
    try {
      const socket = await openTunnel(proxy, { host: options.hostname, port }, timeoutMs)
      if (options.protocol === 'https:') direct({ ...options, httpSocket: socket }, callback)
      else callback(null, socket.setNoDelay(true))
    } catch (error) {
      callback(error as Error, null)
    }
  }
}

/** An error of the way to the proxy. */
export function proxyError(code: string, cause: unknown): Error {
  return Object.assign(new Error('proxy', { cause }), { code })
}

async function openTunnel(proxy: URL, to: { host: string; port: number }, timeoutMs: number): Promise<Socket> {
  const host = proxy.hostname.replace(/^\[|\]$/g, '')
  const socket = connectTcp({ host, port: Number(proxy.port) || DEFAULT_PORT, autoSelectFamily: true })
  const clock = AbortSignal.timeout(timeoutMs)
  const isLate = (): boolean => clock.aborted
  try {
    await once(socket, 'connect', { signal: clock })
    const ear = new Ear(socket, clock)
    await greet(socket, ear, proxy)
    await askFor(socket, ear, to)
    ear.end()
    return socket
  } catch (error) {
    socket.on('error', () => {}).destroy()
    if (isLate()) throw proxyError('UND_ERR_CONNECT_TIMEOUT', error)
    throw error instanceof SocksError ? error : proxyError('PROXY_DOWN', error)
  }
}

class SocksError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

async function greet(socket: Socket, ear: Ear, { username, password }: URL): Promise<void> {
  const hasUser = username !== '' || password !== ''
  socket.write(Buffer.from(hasUser ? [VERSION, 2, NO_AUTH, PASSWORD] : [VERSION, 1, NO_AUTH]))
  const [version, method] = await ear.take(2)
  if (version !== VERSION) throw new SocksError('PROXY_INVALID', 'not SOCKS5')
  if (method === NO_AUTH) return
  if (method !== PASSWORD || !hasUser) throw new SocksError('PROXY_AUTH', 'no method that both know')
  socket.write(
    Buffer.concat([Buffer.from([1]), field(decodeURIComponent(username)), field(decodeURIComponent(password))]),
  )
  const [, status] = await ear.take(2)
  if (status !== 0) throw new SocksError('PROXY_AUTH', 'user or password refused')
}

async function askFor(socket: Socket, ear: Ear, { host, port }: { host: string; port: number }): Promise<void> {
  const portBytes = Buffer.from([port >> 8, port & 255])
  socket.write(Buffer.concat([Buffer.from([VERSION, CONNECT, 0]), addressOf(host), portBytes]))
  const [version, reply, , type] = await ear.take(4)
  if (version !== VERSION) throw new SocksError('PROXY_INVALID', 'not SOCKS5')
  if (reply !== 0) throw new SocksError(...(REPLIES[reply!] ?? ['PROXY_FAILED', `reply ${reply}`]))
  const bytes = type === DOMAIN ? (await ear.take(1))[0]! : ADDRESS_BYTES[type!]
  if (bytes === undefined) throw new SocksError('PROXY_INVALID', 'not SOCKS5')
  await ear.take(bytes + 2) // where the proxy's own end is: of no use
}

/** A v4 address as such, for proxies that know no names; names and v6 addresses as names. */
function addressOf(host: string): Buffer {
  if (isIP(host) === 4) return Buffer.from([1, ...host.split('.').map(Number)])
  return Buffer.concat([Buffer.from([DOMAIN]), field(host)])
}

function field(text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length > MAX_FIELD_BYTES) throw new SocksError('PROXY_REFUSED', 'longer than SOCKS5 can say')
  return Buffer.concat([Buffer.from([bytes.length]), bytes])
}

/** What the proxy says, piece by piece. */
class Ear {
  readonly #socket: Socket
  readonly #clock: AbortSignal
  #heard = Buffer.alloc(0)

  constructor(socket: Socket, clock: AbortSignal) {
    this.#socket = socket
    this.#clock = clock
  }

  /** Exactly so many bytes. Everything that is there is read: what stays would call again at once, for ever. */
  async take(count: number): Promise<Buffer> {
    while (this.#heard.length < count) {
      const more = this.#socket.read() as Buffer | null
      if (more !== null) this.#heard = Buffer.concat([this.#heard, more])
      else if (this.#socket.readableEnded || this.#socket.destroyed) throw new Error('the proxy hung up')
      else await this.#more()
    }
    const bytes = this.#heard.subarray(0, count)
    this.#heard = this.#heard.subarray(count)
    return bytes
  }

  /** What follows is the upstream's. */
  end(): void {
    if (this.#heard.length > 0) this.#socket.unshift(this.#heard)
  }

  async #more(): Promise<void> {
    const seen = new AbortController()
    const either = { signal: AbortSignal.any([this.#clock, seen.signal]) }
    const signs = [once(this.#socket, 'readable', either), once(this.#socket, 'close', either)]
    await Promise.race(signs).finally(() => seen.abort())
  }
}
