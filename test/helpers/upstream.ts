/**
 * A vendor's server on loopback, with faults: it serves a folder or a map, misbehaves where it is told to, and remembers
 * every request, so that "never fetched twice" can be asserted.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** What a path does instead of answering; with `times`, only for that many requests. */
export type Fault = { times?: number } & (
  | { kind: 'portal'; title?: string } // 200 and a login page
  | { kind: 'status'; status: number; body?: string; headers?: Record<string, string> }
  | { kind: 'truncate'; after: number } // announces all, ends after so many bytes of the answer
  | { kind: 'reset'; after: number } // the same with a reset
  | { kind: 'stall'; after: number } // the same, and then nothing more comes
  | { kind: 'babble'; after: number; text: string } // error text in the middle of the file, then the end
  | { kind: 'unranged'; after?: number } // sends all, or so many bytes of it, whatever is asked for
  | { kind: 'deaf' } // heeds Range and not If-Range
  | { kind: 'range'; said: string } // 206 with another Content-Range; '' for none, LAST for the bytes sent less one
  | { kind: 'short'; bytes: number } // 206 with fewer bytes than were asked for
  | { kind: 'endless' } // no Content-Length, no end
  | { kind: 'drip'; bytes: number; everyMs: number } // the file, so many bytes at a time
  | { kind: 'replace'; body: string | Buffer } // other bytes
  | { kind: 'flip'; at: number } // one wrong bit; nothing a HEAD could see or use up
  | { kind: 'redirect'; to: string; status?: number } // to itself: a loop
  | { kind: 'chain'; length: number } // so many redirects, then the file
  | { kind: 'length'; announced: number } // a Content-Length that is not true
  | { kind: 'unsized' } // no Content-Length
  | { kind: 'gzip'; coded?: Buffer } // in the coding gzip, asked for or not
  | { kind: 'echo'; status?: number } // a page that says what was posted
  | { kind: 'hang' } // takes the request and never answers
  | { kind: 'informs' } // 103 Early Hints for ever, never an answer
)

export interface SeenRequest {
  method: string
  /** without the query */
  path: string
  query: string
  headers: IncomingMessage['headers']
  /** of a POST */
  body: string
}

/** What a path answers, or undefined for 404, computed from the request. */
export type Answers = (request: SeenRequest) => Buffer | undefined

export interface Upstream {
  /** `http://127.0.0.1:PORT`, without a slash at the end */
  url: string
  requests: SeenRequest[]
  /** how often `path` was asked for, with any method or only `method` */
  count(path: string, method?: string): number
  /** bytes of all connections so far, headers included: what it got and what it sent */
  wire(): { got: number; sent: number }
  /** more faults on one path come one after another, each for its `times` */
  fault(path: string, ...faults: Fault[]): void
  /** adds or changes a file (maps only) */
  set(path: string, bytes: string | Buffer): void
  /** replaces headers of a path; '' leaves one out */
  headers(path: string, headers: Record<string, string>): void
  close(): Promise<void>
}

interface State {
  requests: SeenRequest[]
  faults: Map<string, Fault[]>
  headers: Map<string, Record<string, string>>
  read: Answers
}

/** @param content  a folder, or `/path` → bytes, or what computes them from the request
 *  @param t  the test (or anything with `teardown`) that ends the server */
export async function startUpstream(
  t: { teardown(fn: () => unknown): void },
  content: string | Map<string, string | Buffer> | Answers = new Map(),
): Promise<Upstream> {
  const state: State = { requests: [], faults: new Map(), headers: new Map(), read: reader(content) }
  const server = createServer(
    (request, response) => void bodyOf(request).then((body) => answer(state, request, response, body)),
  )
  const sockets: Socket[] = []
  server.on('connection', (socket) => void sockets.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  t.teardown(close)
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: state.requests,
    count: (path, method) =>
      state.requests.filter((one) => one.path === path && (method === undefined || one.method === method)).length,
    wire: () => ({
      got: sockets.reduce((sum, { bytesRead }) => sum + bytesRead, 0),
      sent: sockets.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0),
    }),
    fault: (path, ...faults) => void state.faults.set(path, faults),
    set: (path, bytes) => {
      if (!(content instanceof Map)) throw new Error('this upstream serves no map')
      content.set(path, bytes)
    },
    headers: (path, headers) => void state.headers.set(path, headers),
    close,
  }
}

function reader(content: string | Map<string, string | Buffer> | Answers): Answers {
  if (typeof content === 'function') return content
  if (typeof content !== 'string') {
    return ({ path }) => (content.has(path) ? Buffer.from(content.get(path)!) : undefined)
  }
  return ({ path }) => {
    try {
      return readFileSync(join(content, decodeURIComponent(path)))
    } catch {
      return undefined
    }
  }
}

/** Only of a POST: a request without a body is answered in the order of arrival. */
async function bodyOf(request: IncomingMessage): Promise<string> {
  if (request.method !== 'POST') return ''
  const chunks: Buffer[] = []
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer)
  } catch {
    // the client is gone: what came is remembered
  }
  return Buffer.concat(chunks).toString()
}

function answer(state: State, request: IncomingMessage, response: ServerResponse, body: string): void {
  const [path = '/', query = ''] = request.url!.split('?', 2)
  const seen: SeenRequest = { method: request.method!, path, query, headers: request.headers, body }
  state.requests.push(seen)
  response.on('error', () => {})
  const fault = takeFault(state.faults.get(path), seen.method)
  const bytes = state.read(seen)
  const whole = bytes ?? Buffer.alloc(0)
  const headers = { ...validators(whole), ...state.headers.get(path) }
  if (fault !== undefined) return misbehave(fault, { bytes: whole, headers, path, query, body }, request, response)
  if (bytes === undefined) return send(response, 404, '<html><title>404 Not Found</title></html>', page)
  if (isUnchanged(request, headers)) return send(response, 304, '', { ...headers, 'content-length': '' })
  sendPiece(response, pieceOf(bytes, headers, request))
}

/** What of a file a request is for: RFC 9110 §13.1.5, §14.2. */
interface Piece {
  status: number
  bytes: Buffer
  headers: Record<string, string>
}

function pieceOf(bytes: Buffer, headers: Record<string, string>, request: IncomingMessage, isDeaf = false): Piece {
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1]
  const ifRange = request.headers['if-range']
  const isSame =
    isDeaf || ifRange === undefined || [headers['etag'], headers['last-modified']].includes(String(ifRange))
  if (from === undefined || !isSame) return { status: 200, bytes, headers }
  const first = Number(from)
  if (first >= bytes.length) {
    return { status: 416, bytes: Buffer.alloc(0), headers: { 'content-range': `bytes */${bytes.length}` } }
  }
  const range = `bytes ${first}-${bytes.length - 1}/${bytes.length}`
  return { status: 206, bytes: bytes.subarray(first), headers: { ...headers, 'content-range': range } }
}

function sendPiece(response: ServerResponse, { status, bytes, headers }: Piece): void {
  send(response, status, bytes, headers)
}

/** RFC 9110 §13.1.2, §13.1.3: the date counts only where no ETag is asked about. */
function isUnchanged({ headers: asked }: IncomingMessage, headers: Record<string, string>): boolean {
  const tag = asked['if-none-match']
  if (tag !== undefined) return tag.replace(/^W\//, '') === headers['etag']?.replace(/^W\//, '')
  return asked['if-modified-since'] !== undefined && asked['if-modified-since'] === headers['last-modified']
}

function takeFault(faults: Fault[] | undefined, method: string): Fault | undefined {
  const fault = faults?.[0]
  if (fault?.kind === 'flip' && method === 'HEAD') return undefined
  if (fault?.times === undefined) return fault
  fault.times--
  if (fault.times <= 0) faults!.shift()
  return fault
}

const page = { 'content-type': 'text/html; charset=utf-8' }

function validators(bytes: Buffer): Record<string, string> {
  return {
    'content-type': 'application/octet-stream',
    etag: `"${createHash('sha1').update(bytes).digest('hex').slice(0, 16)}"`,
    'last-modified': 'Sun, 01 Nov 2026 10:00:00 GMT',
  }
}

function send(
  response: ServerResponse,
  status: number,
  body: string | Buffer,
  headers: Record<string, string> = {},
): void {
  const bytes = Buffer.from(body)
  const all = { 'content-length': String(bytes.length), ...headers }
  response.writeHead(status, Object.fromEntries(Object.entries(all).filter(([, value]) => value !== '')))
  response.end(bytes)
}

interface Asked {
  bytes: Buffer
  headers: Record<string, string>
  path: string
  query: string
  body: string
}

function misbehave(
  fault: Fault,
  { bytes, headers, path, query, body }: Asked,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const hop = Number(/^hop=(\d+)$/.exec(query)?.[1] ?? 0)
  const piece = pieceOf(bytes, headers, request)
  switch (fault.kind) {
    case 'echo':
      return send(response, fault.status ?? 200, `<title>no rights for ${body}</title>`, page)
    case 'portal':
      return send(response, 200, portal(fault.title ?? 'Welcome to HotelNet'), page)
    case 'status':
      return send(response, fault.status, fault.body ?? '', { ...page, ...fault.headers })
    case 'truncate':
      return cut(response, piece, fault.after, () => response.socket?.end())
    case 'reset':
      return cut(response, piece, fault.after, () => response.socket?.resetAndDestroy())
    case 'stall':
      return cut(response, piece, fault.after, () => {})
    case 'babble':
      return cut(response, babbled(piece, fault), Infinity, () => response.socket?.end())
    case 'unranged':
      return cut(response, { status: 200, bytes, headers }, fault.after ?? Infinity, () => response.socket?.end())
    case 'deaf':
      return sendPiece(response, pieceOf(bytes, headers, request, true))
    case 'range':
      return send(response, 206, piece.bytes, {
        ...headers,
        'content-range': fault.said.replace('LAST', String(piece.bytes.length - 1)),
      })
    case 'short':
      return sendPiece(response, shortened(piece, bytes.length, fault.bytes))
    case 'endless':
      return pour(request, response)
    case 'drip':
      return drip(response, bytes, fault.bytes, fault.everyMs)
    case 'replace':
      return send(response, 200, fault.body, validators(bytes))
    case 'flip':
      return send(response, 200, flipped(bytes, fault.at), validators(bytes))
    case 'redirect':
      return send(response, fault.status ?? 302, '', { location: fault.to })
    case 'chain':
      if (hop < fault.length) return send(response, 302, '', { location: `${path}?hop=${hop + 1}` })
      return send(response, 200, bytes, validators(bytes))
    case 'length':
      response.writeHead(200, { 'content-length': String(fault.announced), connection: 'close' })
      return void response.end(bytes, () => response.socket?.end())
    case 'unsized':
      response.writeHead(200, validators(bytes))
      response.write('')
      return void response.end(bytes)
    case 'gzip':
      return send(response, 200, fault.coded ?? gzipSync(bytes), { ...validators(bytes), 'content-encoding': 'gzip' })
    case 'hang':
      return
    case 'informs':
      return inform(response)
  }
}

function portal(title: string): string {
  return `<!DOCTYPE html>\n<html><head><title>${title}</title></head><body><form action="/login">${'room '.repeat(400)}</form></body></html>`
}

/** An answer that is shorter than the cut is whole. */
function cut(response: ServerResponse, piece: Piece, after: number, end: () => void): void {
  const { status, bytes, headers } = piece
  if (bytes.length <= after && headers['content-length'] === undefined) return sendPiece(response, piece)
  const all = { 'content-length': String(bytes.length), ...headers }
  response.writeHead(status, Object.fromEntries(Object.entries(all).filter(([, value]) => value !== '')))
  response.flushHeaders()
  response.write(bytes.subarray(0, after), end)
}

function babbled({ status, bytes, headers }: Piece, { after, text }: { after: number; text: string }): Piece {
  const sent = Buffer.concat([bytes.subarray(0, after), Buffer.from(text)]).subarray(0, bytes.length)
  return { status, bytes: sent, headers: { ...headers, 'content-length': String(bytes.length) } }
}

function shortened({ status, bytes, headers }: Piece, total: number, size: number): Piece {
  if (status !== 206) return { status, bytes, headers }
  const first = total - bytes.length
  const last = Math.min(first + size, total) - 1
  return {
    status,
    bytes: bytes.subarray(0, size),
    headers: { ...headers, 'content-range': `bytes ${first}-${last}/${total}` },
  }
}

function pour(request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200)
  if (request.method === 'HEAD') return void response.end()
  const piece = Buffer.alloc(64 * 1024, 'endless ')
  const more = (): void => {
    while (!response.destroyed && response.write(piece));
  }
  response.on('drain', more)
  more()
}

function drip(response: ServerResponse, bytes: Buffer, size: number, everyMs: number): void {
  response.writeHead(200, { 'content-length': String(bytes.length) })
  response.flushHeaders()
  let at = 0
  const timer = setInterval(() => {
    response.write(bytes.subarray(at, (at += size)))
    if (at >= bytes.length) response.end()
  }, everyMs)
  response.on('close', () => clearInterval(timer))
}

function inform(response: ServerResponse): void {
  const timer = setInterval(() => response.writeEarlyHints({ link: '</x>; rel=preload' }), 5)
  response.on('close', () => clearInterval(timer))
}

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = copy[at]! ^ 1
  return copy
}
