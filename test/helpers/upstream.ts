/**
 * A vendor's server on loopback, with faults: it serves a folder or a map, misbehaves where it is told to, and remembers
 * every request, so that "never fetched twice" can be asserted.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** What a path does instead of answering; with `times`, only for that many requests. */
export type Fault = { times?: number } & (
  | { kind: 'portal'; title?: string } // 200 and a login page
  | { kind: 'status'; status: number; body?: string }
  | { kind: 'truncate'; after: number } // announces all, ends after so many bytes
  | { kind: 'reset'; after: number } // the same with a reset
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
  if (fault?.kind === 'echo') return send(response, fault.status ?? 200, `<title>no rights for ${body}</title>`, page)
  if (fault !== undefined) return misbehave(fault, bytes ?? Buffer.alloc(0), path, query, request, response)
  if (bytes === undefined) return send(response, 404, '<html><title>404 Not Found</title></html>', page)
  send(response, 200, bytes, { ...validators(bytes), ...state.headers.get(path) })
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

function misbehave(
  fault: Exclude<Fault, { kind: 'echo' }>,
  bytes: Buffer,
  path: string,
  query: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const hop = Number(/^hop=(\d+)$/.exec(query)?.[1] ?? 0)
  switch (fault.kind) {
    case 'portal':
      return send(response, 200, portal(fault.title ?? 'Welcome to HotelNet'), page)
    case 'status':
      return send(response, fault.status, fault.body ?? '', page)
    case 'truncate':
      return cut(response, bytes, fault.after, () => response.socket?.end())
    case 'reset':
      return cut(response, bytes, fault.after, () => response.socket?.resetAndDestroy())
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

function cut(response: ServerResponse, bytes: Buffer, after: number, end: () => void): void {
  response.writeHead(200, { 'content-length': String(bytes.length) })
  response.flushHeaders()
  response.write(bytes.subarray(0, after), end)
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
