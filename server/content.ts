/**
 * The one way from a request to an answer. A request is decoded once, checked once (method, Host, path) and looked up
 * once in what is released; its path is a key and is never joined to a folder. Nothing here touches disk or network.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, httpStatus, type ErrorCode } from '../manifests/errors.ts'
import { parseRequestTarget, type TreePath } from '../manifests/path.ts'
import { judge, type Outcome, type RequestHead } from './conditions.ts'
import type { HostTable } from './hosts.ts'
import type { Resource, Served } from './served.ts'

export interface ContentRequest {
  method: string
  /** as on the request line */
  target: string
  head: RequestHead
  connection: { readonly remoteAddress?: string | undefined; readonly localAddress?: string | undefined }
}

/** Part of a blob, or all of it. */
export interface BlobSlice {
  sha256: Sha256
  /** of the whole blob, as the tree says */
  bytes: number
  start: number
  length: number
}

export interface Answer {
  status: number
  /** name, value, name, value …; always with Content-Length, except for 304 */
  headers: readonly string[]
  body: BlobSlice | Buffer | undefined
  /** HEAD: everything as for GET, but the body's bytes are not sent */
  isHeadOnly: boolean
  /** why this is a refusal */
  error?: unknown
}

const METHODS = new Set(['GET', 'HEAD', 'POST'])
const ALLOW = ['Allow', 'GET, HEAD, POST']

/** What a client is told. It never repeats what was asked, names no file and no other name that is served here. */
const REFUSALS: Partial<Record<ErrorCode, string>> = {
  METHOD_UNKNOWN: 'only GET, HEAD and POST are answered here',
  HOST_INVALID: 'one well-formed Host header is needed',
  HOST_UNKNOWN: 'this name is not served here; names are listed under origins, hosts in mirror.yaml',
  PATH_INVALID: 'the path is malformed',
  PATH_UNKNOWN: 'nothing is served at this path',
  CONDITION_FAILED: 'the file is not the one the condition names',
  RANGE_INVALID: 'the range starts behind the end of the file',
  BODY_TOO_LONG: 'the request body is too long',
  RELEASE_NOTHING: 'nothing is released here yet',
  BLOB_MISSING: 'the file is damaged or missing at the mirror',
  BLOB_DIGEST_MISMATCH: 'the file is damaged or missing at the mirror',
  BLOB_SIZE_MISMATCH: 'the file is damaged or missing at the mirror',
  BLOB_UNREADABLE: 'the file is damaged or missing at the mirror',
}

/** @param hosts  the names of one listener → group
 *  @returns a function from request to answer that never throws */
export function contentAnswers(hosts: HostTable<string>, served: Served): (request: ContentRequest) => Answer {
  return (request) => {
    try {
      if (!METHODS.has(request.method)) throw new GapferryError('METHOD_UNKNOWN', 'request: method')
      const resource = find(request, hosts, served)
      return present(resource, judge(request.head, resource), request.method === 'HEAD')
    } catch (error) {
      return refusal(error, { isHeadOnly: request.method === 'HEAD', isLast: request.method === 'TRACE' })
    }
  }
}

/** The answer to what cannot be answered: a short text that starts with the error's code.
 *  @param options.isLast  close the connection after it
 *  @param options.extra   more headers */
export function refusal(
  error: unknown,
  options: { isHeadOnly?: boolean; isLast?: boolean; extra?: readonly string[] } = {},
): Answer {
  const code = error instanceof GapferryError ? error.code : 'INTERNAL'
  const body = Buffer.from(`${code}: ${REFUSALS[code] ?? 'the mirror failed; its log says why'}\n`)
  const headers = [
    'Content-Type',
    'text/plain; charset=utf-8',
    'Content-Length',
    String(body.length),
    'Cache-Control',
    'no-store',
    'X-Content-Type-Options',
    'nosniff',
    ...(code === 'METHOD_UNKNOWN' ? ALLOW : []),
    ...(options.isLast === true ? ['Connection', 'close'] : []),
    ...(options.extra ?? []),
  ]
  return { status: httpStatus(error), headers, body, isHeadOnly: options.isHeadOnly ?? false, error }
}

function find(request: ContentRequest, hosts: HostTable<string>, served: Served): Resource {
  const { head, connection } = request
  const { value: group, target } = hosts.find(request.target, head, connection)
  return served.find(group, parseContentPath(target), connection.remoteAddress ?? '')
}

/** A folder is a good question with no answer; the rest is parseRequestTarget's to judge. */
function parseContentPath(target: string): TreePath {
  const query = target.indexOf('?')
  const path = query < 0 ? target : target.slice(0, query)
  if (!path.endsWith('/')) return parseRequestTarget(path)
  const folder = path.replace(/\/{2,}/g, '/').slice(0, -1)
  if (folder !== '') parseRequestTarget(folder)
  throw new GapferryError('PATH_UNKNOWN', 'request: a folder')
}

function present(resource: Resource, outcome: Outcome, isHeadOnly: boolean): Answer {
  const { sha256, bytes, headers } = resource
  if (outcome.status === 200) {
    return { status: 200, headers, body: { sha256, bytes, start: 0, length: bytes }, isHeadOnly }
  }
  if (outcome.status === 304) return { status: 304, headers: notModified(headers), body: undefined, isHeadOnly }
  if (outcome.status === 206) {
    const { start, end } = outcome
    const length = end - start + 1
    const partial = [...replaceLength(headers, length), 'Content-Range', `bytes ${start}-${end}/${bytes}`]
    return { status: 206, headers: partial, body: { sha256, bytes, start, length }, isHeadOnly }
  }
  if (outcome.status === 412) {
    return refusal(new GapferryError('CONDITION_FAILED', 'request: condition'), { isHeadOnly })
  }
  const extra = ['Content-Range', `bytes */${bytes}`, 'ETag', resource.etag]
  return refusal(new GapferryError('RANGE_INVALID', 'request: range'), { isHeadOnly, extra })
}

function replaceLength(headers: readonly string[], length: number): string[] {
  return headers.map((value, i) => (headers[i - 1] === 'Content-Length' && i % 2 === 1 ? String(length) : value))
}

/** RFC 9110 §15.4.5: what a cache may need to update, and nothing that describes the body that is not sent. */
function notModified(headers: readonly string[]): string[] {
  const kept = new Set(['ETag', 'Last-Modified', 'Cache-Control', 'X-Content-Type-Options'])
  return headers.filter((_, i) => kept.has(headers[i - (i % 2)]!))
}
