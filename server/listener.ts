/**
 * The HTTP server under every listener: limits on sizes, times and connections, and what to say to bytes that are no
 * request. Node's strict parser refuses what makes two readers disagree (two lengths, bare line feeds, folded lines).
 */
import { createServer, ServerResponse, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { GapferryError } from '../manifests/errors.ts'
import { readHead, type RequestHead } from './conditions.ts'

const MAX_HEADER_BYTES = 8 * 1024
const HEADERS_TIMEOUT_MS = 2_000
/** for a whole request with its body, which is at most MAX_BODY_BYTES */
const REQUEST_TIMEOUT_MS = 15_000
/** how often those two are looked at */
const TIMEOUT_CHECK_MS = 500
/** between two requests of a connection */
const KEEP_ALIVE_MS = 15_000
/** without a byte in either direction: a client that stopped reading its answer. Node counts it twice where a write is half
 *  done. */
export const IDLE_MS = 120_000
/** A FreePBX box posts a form of some kilobytes to whatever path it reads. */
export const MAX_BODY_BYTES = 1024 * 1024
/** of all bodies that are kept at a time; boxes send 10 kB each */
const MAX_KEPT_BYTES = 32 * 1024 * 1024
const MAX_CONNECTIONS = 512
const MAX_CONNECTIONS_PER_ADDRESS = 128
/** of one connection at a time. apt sends 10 requests ahead of their answers, boxes with yum or dnf none. */
const MAX_UNANSWERED = 16

/** What a request's body came to. */
export interface BodyEnd {
  /** BODY_TOO_LONG; the connection must end after its answer */
  refused?: GapferryError
  /** the whole body, where it was wanted and there was room for it */
  kept?: Buffer
}

export type BodyHandler = (req: IncomingMessage, res: ServerResponse, head: RequestHead, body: BodyEnd) => void

/** How many may be connected, over all listeners that share it. */
export class ConnectionLimit {
  readonly #perAddress = new Map<string, number>()
  #total = 0

  /** Lets `socket` in, or closes it at once. */
  admit(socket: Socket): void {
    const address = socket.remoteAddress
    const count = this.#perAddress.get(address ?? '') ?? 0
    if (address === undefined || count >= MAX_CONNECTIONS_PER_ADDRESS || this.#total >= MAX_CONNECTIONS) {
      socket.destroy()
      return
    }
    this.#perAddress.set(address, count + 1)
    this.#total++
    socket.once('close', () => this.#leave(address))
  }

  #leave(address: string): void {
    this.#total--
    const count = this.#perAddress.get(address)! - 1
    if (count === 0) this.#perAddress.delete(address)
    else this.#perAddress.set(address, count)
  }
}

const unanswered = new WeakMap<Socket, number>()

/** Counts the requests of a connection that wait for an answer, those that Node answers by itself too, and cuts a
 *  connection that sends more than MAX_UNANSWERED (RFC 9112 §9.3.2 lets it ask again, one by one). To stop reading would
 *  be too late: Node handles the requests of 64 KB that it has read, some 1,800, and keeps each while nobody reads. */
class CountedResponse extends ServerResponse {
  constructor(...args: ConstructorParameters<typeof ServerResponse>) {
    super(...args)
    const { socket } = this.req
    const count = (unanswered.get(socket) ?? 0) + 1
    unanswered.set(socket, count)
    if (count === MAX_UNANSWERED + 1) cut(socket)
  }

  /** Node calls this when the answer is written. */
  override detachSocket(socket: Socket): void {
    unanswered.set(socket, unanswered.get(socket)! - 1)
    super.detachSocket(socket)
  }
}

/** Node lets go of a connection's requests on 'close', which by itself comes when all connections that have bytes were
 *  read. Measured with 128 of them: up to 400 MB less. A second 'close' finds nothing left to do. */
function cut(socket: Socket): void {
  socket.destroy()
  process.nextTick(() => socket.emit('close'))
}

/** Of every server. */
export const LIMITS = {
  ServerResponse: CountedResponse,
  maxHeaderSize: MAX_HEADER_BYTES,
  headersTimeout: HEADERS_TIMEOUT_MS,
  requestTimeout: REQUEST_TIMEOUT_MS,
  connectionsCheckingInterval: TIMEOUT_CHECK_MS,
  keepAliveTimeout: KEEP_ALIVE_MS,
} as const

/** A server that is not listening yet. It has no 'clientError' listener: Fastify adds the one it is given. */
export function limitedServer(limit: ConnectionLimit, handle: RequestListener): Server {
  // A tenth more answers per second: no stream is set up for the body that a GET does not have.
  const server = createServer({ ...LIMITS, optimizeEmptyRequests: true }, handle)
  // Bounded by MAX_HEADER_BYTES; Node's own limit would drop the rest without a word, a second Host among it.
  server.maxHeadersCount = 0
  server.setTimeout(IDLE_MS)
  server.on('connection', (socket) => limit.admit(socket))
  return server
}

/** Reads a body of whatever type before the request is handled, drops it unless it is wanted, and handles a connection's
 *  requests one after the other: an answer that is made before its turn would wait in memory, as long as the client likes.
 *  @param wants  how many bytes of the body of a request are kept at most: 0 drops it */
export function readsBody(
  wants: (method: string, target: string) => number,
  handle: BodyHandler,
): { request: RequestListener; checkContinue: RequestListener } {
  const room = new BodyRoom()
  const read = (req: IncomingMessage, res: ServerResponse, head: RequestHead): void => {
    // A body that has to wait for its turn would lie there as long as the client likes; boxes never ask ahead.
    const wanted = wants(req.method ?? '', req.url ?? '')
    const keep = wanted > 0 && res.socket !== null ? room : undefined
    const maxBytes = Math.max(wanted, MAX_BODY_BYTES)
    readBody(req, head, { room: keep, maxBytes }, (body) => waitTurn(req, res, () => handle(req, res, head, body)))
  }
  return {
    request: (req, res) => {
      const head = readHead(req.rawHeaders)
      if (head.contentLength !== undefined || head.transferEncoding !== undefined) read(req, res, head)
      else waitTurn(req, res, () => handle(req, res, head, NO_BODY))
    },
    checkContinue: (req, res) => {
      const head = readHead(req.rawHeaders)
      const maxBytes = Math.max(wants(req.method ?? '', req.url ?? ''), MAX_BODY_BYTES)
      if (!isTooLong(head, maxBytes)) res.writeContinue()
      read(req, res, head)
    },
  }
}

const NO_BODY: BodyEnd = {}

/** How many bytes of bodies lie in memory, over all connections of a listener. Where there is no room a body is dropped. */
class BodyRoom {
  #bytes = 0

  /** @returns false where they do not fit */
  take(bytes: number): boolean {
    if (this.#bytes + bytes > MAX_KEPT_BYTES) return false
    this.#bytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#bytes -= bytes
  }
}

/** Tells a client that its bytes are no request, unless an answer is on its way already: it would become part of that. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) {
    socket.destroy()
    return
  }
  const status = CLIENT_ERRORS.get(error.code ?? '') ?? '400 Bad Request'
  const body = `${status.slice(4).toLowerCase()}\n`
  const headers = `Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close`
  socket.end(`HTTP/1.1 ${status}\r\n${headers}\r\n\r\n${body}`, () => socket.destroy())
}

const CLIENT_ERRORS = new Map([
  ['HPE_HEADER_OVERFLOW', '431 Request Header Fields Too Large'],
  ['HPE_CHUNK_EXTENSIONS_OVERFLOW', '413 Content Too Large'],
  ['ERR_HTTP_REQUEST_TIMEOUT', '408 Request Timeout'],
])

/** A request waits with little: its fields were read, and thousands of empty ones take ten times the bytes they came in. */
function waitTurn(req: IncomingMessage, res: ServerResponse, handle: () => void): void {
  if (res.socket !== null) {
    handle()
    return
  }
  req.headers = {}
  req.rawHeaders = []
  req.rawTrailers = []
  res.once('socket', handle)
}

/** Counts by hand: a stream that ends early would destroy the connection, and with it the answer. */
function readBody(
  req: IncomingMessage,
  head: RequestHead,
  { room, maxBytes }: { room: BodyRoom | undefined; maxBytes: number },
  done: (body: BodyEnd) => void,
): void {
  if (isTooLong(head, maxBytes)) {
    done({ refused: tooLong() })
    return
  }
  const keeper = new BodyKeeper(room)
  let bytes = 0
  const end = (): void => done(keeper.end())
  const count = (chunk: Buffer): void => {
    bytes += chunk.length
    keeper.add(chunk)
    if (bytes <= maxBytes) return
    req.off('data', count).off('end', end)
    done({ refused: tooLong() })
  }
  req.on('data', count).once('end', end)
  if (room !== undefined) req.once('close', () => keeper.end())
}

/** One body, while it comes. */
class BodyKeeper {
  readonly #room: BodyRoom | undefined
  #chunks: Buffer[] | undefined
  #bytes = 0

  constructor(room: BodyRoom | undefined) {
    this.#room = room
    if (room !== undefined) this.#chunks = []
  }

  add(chunk: Buffer): void {
    if (this.#chunks === undefined) return
    if (!this.#room!.take(chunk.length)) {
      this.end()
      return
    }
    this.#bytes += chunk.length
    this.#chunks.push(chunk)
  }

  /** Gives the room back; again, it finds nothing to give. */
  end(): BodyEnd {
    const chunks = this.#chunks
    if (chunks === undefined) return NO_BODY
    this.#chunks = undefined
    this.#room!.give(this.#bytes)
    return { kept: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) }
  }
}

function tooLong(): GapferryError {
  return new GapferryError('BODY_TOO_LONG', 'request: body')
}

function isTooLong(head: RequestHead, maxBytes: number): boolean {
  return Number(head.contentLength ?? 0) > maxBytes
}
