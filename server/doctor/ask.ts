/**
 * The doctor's requests: as boxes send them, to one origin and nowhere else. No redirect is followed, no proxy is used;
 * each answer has a limit in bytes and in time. This is the one place in server/ that opens a connection.
 */
import { createHash } from 'node:crypto'
import { request, type IncomingHttpHeaders, type IncomingMessage, type RequestOptions } from 'node:http'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls, rootCertificates, type TLSSocket } from 'node:tls'
import { gunzipSync, inflateSync } from 'node:zlib'
import { GapferryError } from '../../manifests/errors.ts'
import { systemCode } from '../../storage/durable.ts'

/** A box's own limits, as FreePBX and yum have them. */
export interface AskLimits {
  connectMs: number
  /** a whole answer that is not a payload */
  answerMs: number
  /** a payload: without a byte */
  idleMs: number
  /** a payload: all of it */
  payloadMs: number
}

const LIMITS: AskLimits = { connectMs: 10_000, answerMs: 30_000, idleMs: 30_000, payloadMs: 1_800_000 }
/** What PHP's own HTTP client reads of a header is about as much. */
const MAX_HEAD_BYTES = 16 * 1024

export interface Place {
  /** as boxes are told: `http://mirror.hq.lan:8416` */
  origin: string
  /** the address that is connected to */
  address: string
}

/** An answer as it came, its content coding taken off. */
export interface Reply {
  status: number
  headers: IncomingHttpHeaders
  body: Buffer
  /** of the body on the wire */
  wireBytes: number
  /** lower case; empty where it came plain */
  coding: string
}

/** A payload's answer. Digests in lower-case hex. */
export interface Payload {
  status: number
  headers: IncomingHttpHeaders
  bytes: number
  md5: string
  sha1: string
  sha256: string
}

export interface HeadReply {
  status: number
  /** lower-case name → value, of the last of a name */
  headers: Map<string, string>
}

export class BoxClient {
  readonly #url: URL
  readonly #address: string
  readonly #signal: AbortSignal
  readonly #limits: AskLimits

  constructor({ origin, address }: Place, signal: AbortSignal, limits: Partial<AskLimits> = {}) {
    this.#url = new URL(origin)
    this.#address = address
    this.#signal = signal
    this.#limits = { ...LIMITS, ...limits }
  }

  /** As yum asks for metadata.
   *  @throws FETCH_FAILED, FETCH_TIMEOUT, FETCH_TOO_LONG */
  get(path: string, maxBytes: number): Promise<Reply> {
    const headers = { 'User-Agent': 'urlgrabber/3.10 yum/3.4.3', Accept: '*/*' }
    return this.#whole({ method: 'GET', path, headers }, '', maxBytes)
  }

  /** As FreePBX asks for its lists.
   *  @param how.headers  beside Host, type and length of the form
   *  @throws as get */
  post(
    path: string,
    how: { form: string; maxBytes: number; headers?: Record<string, string> | undefined },
  ): Promise<Reply> {
    return this.#whole({ method: 'POST', path, headers: formHeaders(how) }, how.form, how.maxBytes)
  }

  /** As FreePBX downloads a module.
   *  @param how.maxBytes  the answer may be so long; one byte more ends it
   *  @param how.onBytes   told of each piece
   *  @throws as get */
  async payload(
    path: string,
    how: { form: string; maxBytes: number; onBytes?: (bytes: number) => void },
  ): Promise<Payload> {
    const { payloadMs, idleMs } = this.#limits
    const hashes = (['md5', 'sha1', 'sha256'] as const).map((name) => createHash(name))
    let bytes = 0
    const options = { method: 'POST', path, headers: formHeaders(how) }
    const { status, headers } = await this.#ask(options, how.form, { totalMs: payloadMs, idleMs }, (piece) => {
      bytes += piece.length
      how.onBytes?.(piece.length)
      if (bytes > how.maxBytes) throw tooLong(path, how.maxBytes)
      for (const hash of hashes) hash.update(piece)
    })
    const [md5, sha1, sha256] = hashes.map((hash) => hash.digest('hex')) as [string, string, string]
    return { status, headers, bytes, md5, sha1, sha256 }
  }

  /** As PHP's get_headers asks before a download: HTTP/1.0, a question mark behind the path, a Host without its port.
   *  @throws FETCH_FAILED, also where the answer is no HTTP; FETCH_TIMEOUT */
  async head(path: string): Promise<HeadReply> {
    const { hostname } = this.#url
    const socket = await this.#open()
    const timeout = AbortSignal.timeout(this.#limits.answerMs)
    const end = (): void => void socket.destroy(timeout.aborted ? timedOut(path, this.#limits.answerMs) : undefined)
    const signals = [timeout, this.#signal]
    for (const signal of signals) signal.addEventListener('abort', end, { once: true })
    try {
      socket.write(`HEAD ${path}? HTTP/1.0\r\nHost: ${hostname}\r\n\r\n`)
      let text = ''
      for await (const piece of socket as AsyncIterable<Buffer>) {
        text += piece.toString('latin1')
        if (text.includes('\r\n\r\n') || text.length > MAX_HEAD_BYTES) break
      }
      return parseHead(text, path)
    } catch (error) {
      throw this.#failure(error, path)
    } finally {
      for (const signal of signals) signal.removeEventListener('abort', end)
      socket.destroy()
    }
  }

  /** Whether PHP's bundled authorities vouch for the certificate, which are Mozilla's, as Node's are.
   *  @returns why not; undefined where they do, or where no certificate is asked for */
  async certificateFault(): Promise<string | undefined> {
    if (this.#url.protocol !== 'https:') return undefined
    const socket = (await this.#open()) as TLSSocket
    socket.destroy()
    return socket.authorized ? undefined : String(socket.authorizationError)
  }

  async #whole(options: RequestOptions, form: string, maxBytes: number): Promise<Reply> {
    const pieces: Buffer[] = []
    let wireBytes = 0
    const path = options.path ?? ''
    const { answerMs } = this.#limits
    const head = await this.#ask(options, form, { totalMs: answerMs, idleMs: answerMs }, (piece) => {
      wireBytes += piece.length
      if (wireBytes > maxBytes) throw tooLong(path, maxBytes)
      pieces.push(piece)
    })
    const coding = (head.headers['content-encoding'] ?? '').toLowerCase()
    return { ...head, body: decoded(Buffer.concat(pieces), coding, { path, maxBytes }), wireBytes, coding }
  }

  async #ask(
    options: RequestOptions,
    form: string,
    { totalMs, idleMs }: { totalMs: number; idleMs: number },
    take: (piece: Buffer) => void,
  ): Promise<{ status: number; headers: IncomingHttpHeaders }> {
    const path = options.path ?? ''
    const socket = await this.#open()
    const total = AbortSignal.timeout(totalMs)
    const idle = new AbortController()
    socket.setTimeout(idleMs, () => idle.abort())
    const signal = AbortSignal.any([this.#signal, total, idle.signal])
    try {
      const response = await answerTo({ ...options, signal, createConnection: () => socket }, this.#url.host, form)
      for await (const piece of response as AsyncIterable<Buffer>) take(piece)
      if (!response.complete) throw new GapferryError('FETCH_FAILED', `${path}: the answer was cut off`)
      return { status: response.statusCode ?? 0, headers: response.headers }
    } catch (error) {
      if (idle.signal.aborted) throw timedOut(path, idleMs)
      throw total.aborted ? timedOut(path, totalMs) : this.#failure(error, path)
    } finally {
      socket.destroy()
    }
  }

  async #open(): Promise<Socket> {
    const { protocol, hostname, port } = this.#url
    const isTls = protocol === 'https:'
    const where = { host: this.#address, port: Number(port || (isTls ? 443 : 80)) }
    const servername = isIP(bare(hostname)) === 0 ? { servername: hostname } : {}
    // A bad certificate is a finding of its own; what lies behind it is looked at all the same.
    const socket = isTls
      ? connectTls({ ...where, ...servername, ca: [...rootCertificates], rejectUnauthorized: false })
      : connect(where)
    const limit = AbortSignal.timeout(this.#limits.connectMs)
    try {
      await opened(socket, isTls ? 'secureConnect' : 'connect', AbortSignal.any([limit, this.#signal]))
      return socket
    } catch (error) {
      socket.destroy()
      throw limit.aborted ? timedOut('no connection', this.#limits.connectMs) : this.#failure(error, 'no connection')
    }
  }

  #failure(error: unknown, what: string): unknown {
    if (this.#signal.aborted || error instanceof GapferryError) return error
    const code = systemCode(error)
    const why = FAILURES.get(code) ?? (error as Error).message
    return new GapferryError('FETCH_FAILED', `${what}: ${why}`, { cause: error })
  }
}

const FAILURES = new Map([
  ['ECONNREFUSED', 'nothing listens there'],
  ['ECONNRESET', 'the connection was cut'],
  ['EPIPE', 'the connection was cut'],
  ['EHOSTUNREACH', 'there is no way to that machine'],
  ['ENETUNREACH', 'there is no way to that network'],
])

/** The address in a URL's host, without the brackets of IPv6. */
export function bare(hostname: string): string {
  return hostname.replace(/^\[(.*)\]$/, '$1')
}

function formHeaders({ form, headers }: { form: string; headers?: Record<string, string> | undefined }) {
  return {
    Accept: '*/*',
    'Content-Type': 'application/x-www-form-urlencoded',
    'Content-Length': String(Buffer.byteLength(form)),
    Connection: 'close',
    ...headers,
  }
}

function answerTo(options: RequestOptions, host: string, form: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = { Host: host, ...(options.headers as Record<string, string>) }
    const outgoing = request({ ...options, headers, setHost: false, maxHeaderSize: MAX_HEAD_BYTES })
    outgoing.once('response', resolve).once('error', reject)
    outgoing.end(form)
  })
}

function opened(socket: Socket, event: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    socket.once(event, () => {
      signal.removeEventListener('abort', abort)
      resolve()
    })
    socket.once('error', reject)
  })
}

function parseHead(text: string, path: string): HeadReply {
  const [first = '', ...lines] = text.split('\r\n\r\n')[0]!.split('\r\n')
  const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first)?.[1]
  if (status === undefined) {
    const found = text === '' ? 'nothing' : `"${first.slice(0, 60)}"`
    throw new GapferryError('FETCH_FAILED', `${path}: expected an answer of HTTP, found ${found}`)
  }
  const headers = lines.map((line) => /^([^:]+): *(.*?) *$/.exec(line)).filter((match) => match !== null)
  return { status: Number(status), headers: new Map(headers.map(([, name, value]) => [name!.toLowerCase(), value!])) }
}

function decoded(body: Buffer, coding: string, { path, maxBytes }: { path: string; maxBytes: number }): Buffer {
  if (coding === '' || coding === 'identity' || body.length === 0) return body
  if (coding !== 'gzip' && coding !== 'deflate')
    throw new GapferryError('FETCH_FAILED', `${path}: came as "${coding.slice(0, 40)}", which nobody asked for`)
  try {
    return (coding === 'gzip' ? gunzipSync : inflateSync)(body, { maxOutputLength: maxBytes })
  } catch (cause) {
    if ((cause as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE') throw tooLong(path, maxBytes)
    throw new GapferryError('FETCH_FAILED', `${path}: its ${coding} is broken`, { cause })
  }
}

function tooLong(path: string, maxBytes: number): GapferryError {
  return new GapferryError('FETCH_TOO_LONG', `${path}: longer than ${maxBytes} bytes`)
}

function timedOut(what: string, ms: number): GapferryError {
  return new GapferryError('FETCH_TIMEOUT', `${what}: no answer within ${ms / 1000} s`)
}
