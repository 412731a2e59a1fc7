/**
 * What a request's headers ask of an answer: RFC 9110 §13 (conditions) and §14 (ranges), read from the headers as they
 * came. Pure. Where the RFC lets a server ignore a field, a doubtful one is ignored: the whole body is never wrong.
 */

/** The header fields that matter here. A field given several times is joined by `, ` (RFC 9110 §5.3). */
export interface RequestHead {
  host: string | undefined
  /** Node's parser joins or drops repeated Host fields without a word, hence the count. */
  hostCount: number
  contentLength: string | undefined
  transferEncoding: string | undefined
  range: string | undefined
  ifRange: string | undefined
  ifMatch: string | undefined
  ifNoneMatch: string | undefined
  ifModifiedSince: string | undefined
  ifUnmodifiedSince: string | undefined
  acceptEncoding: string | undefined
}

/** What conditions are compared with. */
export interface Validators {
  /** strong, with its quotes */
  etag: string
  /** seconds since 1970, answered as Last-Modified */
  modified: number
  bytes: number
  /** the path never changes its bytes; else a date says too little (two releases within its second, a rollback) */
  isImmutable: boolean
}

export type Outcome =
  | { status: 200 | 304 | 412 | 416 }
  /** `end` is inclusive, as in Content-Range */
  | { status: 206; start: number; end: number }

const GZIP = new Set(['gzip', 'x-gzip'])
const ZERO_WEIGHT = /^q=0(?:\.0{0,3})?$/
const WHOLE: Outcome = { status: 200 }

const FIELDS = new Map<string, Exclude<keyof RequestHead, 'hostCount'>>([
  ['host', 'host'],
  ['content-length', 'contentLength'],
  ['transfer-encoding', 'transferEncoding'],
  ['range', 'range'],
  ['if-range', 'ifRange'],
  ['if-match', 'ifMatch'],
  ['if-none-match', 'ifNoneMatch'],
  ['if-modified-since', 'ifModifiedSince'],
  ['if-unmodified-since', 'ifUnmodifiedSince'],
  ['accept-encoding', 'acceptEncoding'],
])

/** @param rawHeaders  name, value, name, value … as received */
export function readHead(rawHeaders: readonly string[]): RequestHead {
  const head: RequestHead = {
    host: undefined,
    hostCount: 0,
    contentLength: undefined,
    transferEncoding: undefined,
    range: undefined,
    ifRange: undefined,
    ifMatch: undefined,
    ifNoneMatch: undefined,
    ifModifiedSince: undefined,
    ifUnmodifiedSince: undefined,
    acceptEncoding: undefined,
  }
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const field = FIELDS.get(rawHeaders[i]!.toLowerCase())
    if (field === undefined) continue
    const before = head[field]
    head[field] = before === undefined ? rawHeaders[i + 1]! : `${before}, ${rawHeaders[i + 1]}`
    if (field === 'host') head.hostCount++
  }
  return head
}

/** RFC 9110 §12.5.3: a coding that is not named is not asked for, and nor is one of weight 0; `*` asks for nothing in
 *  particular.
 *  @param field  Accept-Encoding */
export function acceptsGzip(field: string | undefined): boolean {
  if (field === undefined) return false
  return field.split(',').some((item) => {
    const [coding = '', weight = ''] = item.toLowerCase().split(';', 2)
    return GZIP.has(coding.trim()) && !ZERO_WEIGHT.test(weight.trim())
  })
}

/** Precedence of RFC 9110 §13.2.2. GET, HEAD and POST are judged alike. */
export function judge(head: RequestHead, of: Validators): Outcome {
  if (isRefused(head, of)) return { status: 412 }
  if (head.ifNoneMatch !== undefined) {
    if (listHolds(head.ifNoneMatch, of.etag, true)) return { status: 304 }
  } else if (head.ifModifiedSince !== undefined && !isModifiedSince(head.ifModifiedSince, of)) {
    return { status: 304 }
  }
  if (head.range === undefined || !rangeApplies(head.ifRange, of)) return WHOLE
  return parseRange(head.range, of.bytes)
}

/** Seconds since 1970 of an HTTP date in any of the three forms that RFC 9110 §5.6.7 asks to read; undefined for others. */
export function parseHttpDate(text: string): number | undefined {
  const isZoned = IMF_FIXDATE.test(text) || RFC850_DATE.test(text)
  if (!isZoned && !ASCTIME_DATE.test(text)) return undefined
  const ms = Date.parse(isZoned ? text : `${text} GMT`)
  return Number.isNaN(ms) ? undefined : ms / 1000
}

const IMF_FIXDATE = /^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/
const RFC850_DATE = /^[A-Z][a-z]{5,8}, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/
const ASCTIME_DATE = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/

function isRefused(head: RequestHead, of: Validators): boolean {
  if (head.ifMatch !== undefined) return !listHolds(head.ifMatch, of.etag, false)
  if (head.ifUnmodifiedSince === undefined) return false
  const since = parseHttpDate(head.ifUnmodifiedSince)
  return since !== undefined && of.modified > since
}

/** A pointer's date is only compared for being the same: after a rollback the served bytes may carry an older one. */
function isModifiedSince(text: string, of: Validators): boolean {
  const since = parseHttpDate(text)
  if (since === undefined) return true
  return of.isImmutable ? of.modified > since : of.modified !== since
}

function listHolds(list: string, etag: string, isWeakEnough: boolean): boolean {
  if (list.trim() === '*') return true
  for (const [tag] of list.matchAll(/(?:W\/)?"[^"]*"/g)) {
    if (tag === etag || (isWeakEnough && tag === `W/${etag}`)) return true
  }
  return false
}

/** If-Range wants a strong validator: the tag itself, or the date of what never changes. */
function rangeApplies(ifRange: string | undefined, of: Validators): boolean {
  if (ifRange === undefined || ifRange === of.etag) return true
  return of.isImmutable && parseHttpDate(ifRange) === of.modified
}

/** One range of bytes. Several or malformed: the whole body, which no client can misread and which costs a server no more
 *  than one answer. Of an empty body, too: some clients always send a Range. */
function parseRange(text: string, bytes: number): Outcome {
  const match = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(text)
  if (match === null || bytes === 0) return WHOLE
  const [, first, last] = match as unknown as [string, string, string]
  if (first === '') {
    if (last === '') return WHOLE
    const count = Math.min(Number(last), bytes)
    return count === 0 ? { status: 416 } : { status: 206, start: bytes - count, end: bytes - 1 }
  }
  const start = Number(first)
  const end = last === '' ? bytes - 1 : Number(last)
  if (end < start && last !== '') return WHOLE
  return start >= bytes ? { status: 416 } : { status: 206, start, end: Math.min(end, bytes - 1) }
}
