/**
 * The one way from a request to an answer. A request is decoded once, checked once (method, Host, path) and looked up
 * once in what is released; its path is a key and is never joined to a folder. Nothing here touches disk or network.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, httpStatus, type ErrorCode } from '../manifests/errors.ts'
import { parseRequestTarget, type TreePath } from '../manifests/path.ts'
import { judge, type RequestHead } from './conditions.ts'
import type { HostTable } from './hosts.ts'
import { insteadOfRefusal, moduleRole, versionPath, type ModuleRole } from './module-answers.ts'
import type { Resource, Served } from './served.ts'
import { vendorAnswer } from './vendor-answers.ts'

export interface ContentRequest {
  method: string
  /** as on the request line */
  target: string
  head: RequestHead
  /** only where module-answers.ts wants it */
  form?: Buffer | undefined
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
  /** whose origin was asked; undefined where none was */
  group?: string | undefined
  /** what to say where the body cannot be sent: see insteadOfRefusal */
  role?: ModuleRole | undefined
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
  INVENTORY_INVALID: 'the inventory is not whole, or not understood: on the box, gapferry-box inventory writes it',
  INVENTORY_OLDER: 'a newer inventory of this box is here',
  INVENTORY_LIMIT: 'too many inventories for now',
  BOX_CONFLICT: 'another machine has this name here: give each box a host name of its own',
  RELEASE_NOTHING: 'nothing is released here yet',
  BLOB_MISSING: 'the file is damaged or missing at the mirror',
  BLOB_DIGEST_MISMATCH: 'the file is damaged or missing at the mirror',
  BLOB_SIZE_MISMATCH: 'the file is damaged or missing at the mirror',
  BLOB_UNREADABLE: 'the file is damaged or missing at the mirror',
}

/** @param hosts        the names of one listener → group
 *  @param vendorNames  groups that answer under the vendor's names, too
 *  @returns a function from request to answer that never throws */
export function contentAnswers(
  hosts: HostTable<string>,
  served: Served,
  vendorNames: ReadonlySet<string> = new Set(),
): (request: ContentRequest) => Answer {
  return (request) => {
    const { method, head, connection } = request
    const isHeadOnly = method === 'HEAD'
    if (!METHODS.has(method)) {
      return refusal(new GapferryError('METHOD_UNKNOWN', 'request: method'), { isHeadOnly, isLast: method === 'TRACE' })
    }
    let group: string | undefined
    try {
      const found = hosts.find(request.target, head, connection)
      group = found.value
      const client = connection.remoteAddress ?? ''
      const vendor = vendorNames.has(group)
        ? vendorAnswer(head.host ?? '', found.target, served.carried(group))
        : undefined
      if (vendor !== undefined && 'body' in vendor) return madeHere(vendor, { isHeadOnly, group })
      const path = parseContentPath(vendor?.target ?? found.target)
      const resource = served.find(group, path, client, head.acceptEncoding)
      return present(resource, head, { isHeadOnly, group })
    } catch (error) {
      return answerWithoutFile(request, { error, group, isHeadOnly, served })
    }
  }
}

/** The answer to what cannot be answered: a short text that starts with the error's code.
 *  @param options.isLast  close the connection after it
 *  @param options.extra   more headers
 *  @param options.role    a box makes more of a refusal than a refusal: it gets what insteadOfRefusal says
 *  @param options.client  address */
export function refusal(
  error: unknown,
  options: {
    isHeadOnly?: boolean
    isLast?: boolean
    extra?: readonly string[]
    group?: string | undefined
    role?: ModuleRole | undefined
    client?: string | undefined
  } = {},
): Answer {
  const code = error instanceof GapferryError ? error.code : 'INTERNAL'
  const { role, group, client = '', isHeadOnly = false } = options
  const instead = role === undefined ? undefined : insteadOfRefusal(role, error, client)
  const body = Buffer.from(instead?.text ?? `${code}: ${REFUSALS[code] ?? 'the mirror failed; its log says why'}\n`)
  const headers = [
    'Content-Type',
    instead?.type ?? 'text/plain; charset=utf-8',
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
  return { status: instead?.status ?? httpStatus(error), headers, body, isHeadOnly, error, group }
}

function madeHere(
  { type, body }: { type: string; body: Buffer },
  about: { isHeadOnly: boolean; group: string },
): Answer {
  const length = ['Content-Length', String(body.length)]
  const headers = ['Content-Type', type, ...length, 'Cache-Control', 'no-cache', 'X-Content-Type-Options', 'nosniff']
  return { status: 200, headers, body, ...about }
}

/** A box's question that needs no file, or one whose file is not there. */
function answerWithoutFile(
  { target, head, form, connection }: ContentRequest,
  about: { error: unknown; group: string | undefined; isHeadOnly: boolean; served: Served },
): Answer {
  const { error, group, isHeadOnly, served } = about
  const client = connection.remoteAddress ?? ''
  const role = roleOf(target, group, served)
  if (role === 'version' && group !== undefined) {
    const path = versionPath(target, form)
    try {
      if (path !== undefined) return present(served.find(group, path, client), head, { isHeadOnly, group, role })
    } catch (unknown) {
      return refusal(unknown, { isHeadOnly, group, role, client })
    }
  }
  return refusal(error, { isHeadOnly, group, role, client })
}

/** Only an origin that has modules, or may have them, is asked for them. What asks for lists and sounds under a name that is
 *  not ours is a box all the same. */
function roleOf(target: string, group: string | undefined, served: Served): ModuleRole | undefined {
  const role = moduleRole(target)
  if (role === undefined || (group !== undefined && !served.mayHaveModules(group))) return undefined
  return group !== undefined || role === 'list' || role === 'sounds' || role === 'sound' ? role : undefined
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

function present(
  resource: Resource,
  head: RequestHead,
  options: { isHeadOnly: boolean; group: string; role?: ModuleRole },
): Answer {
  const outcome = judge(head, resource)
  const { sha256, bytes, headers } = resource
  const { isHeadOnly, group, role = resource.role } = options
  if (outcome.status === 200) {
    return { status: 200, headers, body: { sha256, bytes, start: 0, length: bytes }, isHeadOnly, group, role }
  }
  if (outcome.status === 304) return { status: 304, headers: notModified(headers), body: undefined, isHeadOnly, group }
  if (outcome.status === 206) {
    const { start, end } = outcome
    const length = end - start + 1
    const partial = [...replaceLength(headers, length), 'Content-Range', `bytes ${start}-${end}/${bytes}`]
    return { status: 206, headers: partial, body: { sha256, bytes, start, length }, isHeadOnly, group, role }
  }
  if (outcome.status === 412) {
    return refusal(new GapferryError('CONDITION_FAILED', 'request: condition'), { isHeadOnly, group })
  }
  const extra = ['Content-Range', `bytes */${bytes}`, 'ETag', resource.etag]
  return refusal(new GapferryError('RANGE_INVALID', 'request: range'), { isHeadOnly, group, extra })
}

function replaceLength(headers: readonly string[], length: number): string[] {
  return headers.map((value, i) => (headers[i - 1] === 'Content-Length' && i % 2 === 1 ? String(length) : value))
}

/** RFC 9110 §15.4.5: what a cache may need to update, and nothing that describes the body that is not sent. */
function notModified(headers: readonly string[]): string[] {
  const kept = new Set(['ETag', 'Last-Modified', 'Cache-Control', 'Vary', 'X-Content-Type-Options'])
  return headers.filter((_, i) => kept.has(headers[i - (i % 2)]!))
}
