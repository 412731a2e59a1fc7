/**
 * A file as an upstream's metadata describes it, and the check of what comes for it: never more than the declared or
 * permitted bytes, nothing that differs from its declared size or digest, no login page in its place.
 */
import { gunzipSync } from 'node:zlib'
import type { Checksum } from '../manifests/digest.ts'
import { type Answer, excerptOf, FetchFailure, looksLikePage, signInHint } from './fetch-failure.ts'
import type { Receiver } from './http.ts'

/** Enough to tell a page from a package. */
const HEAD_BYTES = 1024
/** Files that are compressed in themselves; some servers call that a content coding. */
const COMPRESSED_NAME = /\.(?:t?gz|tbz2?|bz2|t?xz|zst|z)$/i
const CHANGED = 'the upstream may be changing just now, or a proxy alters it; run the command again later'

/** One file of an upstream. */
export interface RemoteFile {
  /** http or https, tried in this order */
  urls: string[]
  /** declared size; then exactly this many bytes are taken */
  bytes?: number
  checksum?: Checksum
  /** the limit where no size is declared, and for declared sizes */
  maxBytes: number
  /** names the item in messages */
  what: string
  /** an HTML page is what is wanted; without it one is taken for a login page */
  isPage?: boolean
  /** sent by POST as application/x-www-form-urlencoded; a secret: in no message */
  form?: string
  /** `Fetcher.get` may ask for it in the coding gzip; size, digest and limit are those of the decoded bytes. Not for files
   *  that are compressed in themselves. */
  acceptsGzip?: boolean
}

/** Where the bytes of a file go. */
export interface Sink {
  /** what it has of the file before an answer comes */
  readonly bytes: number
  /** forgets that: the file comes from its beginning, or what came is not the file */
  restart(answer: Answer): void
  write(chunk: Buffer): void
  /** of all bytes, in hexadecimal digits */
  digest(algorithm: Checksum['algorithm']): string
}

/** The body of one answer on its way to `sink`: bounded, and judged by its first bytes. A 206 goes on where the sink is. */
export class Body implements Receiver {
  readonly #file: RemoteFile
  readonly #sink: Sink
  #answer: Answer | undefined
  #head: Buffer | undefined
  /** of what looks like a page */
  #page: Buffer | undefined
  #refusal: FetchFailure | undefined
  #takenBytes = 0
  #totalBytes: number | undefined

  constructor(file: RemoteFile, sink: Sink) {
    this.#file = file
    this.#sink = sink
    this.#totalBytes = file.bytes
  }

  begin(answer: Answer): void {
    this.#answer = answer
    this.#refusal = codingRefusal(this.#file, answer)
    if (answer.status === 206) {
      const total = checkRange(this.#file, this.#sink.bytes, answer)
      this.#totalBytes ??= total
      this.#takenBytes = this.#sink.bytes
    } else {
      this.#refusal = sizeRefusal(this.#file, contentLength(answer)) ?? this.#refusal
      this.#head = Buffer.alloc(0)
    }
    if (this.#refusal !== undefined && this.#head === undefined) throw this.#refusal
  }

  data(chunk: Buffer): void {
    if (this.#head === undefined) return this.#take(chunk)
    // Nothing of the answer is taken, and nothing that was there is given up, before its first bytes were seen.
    this.#head = Buffer.concat([this.#head, chunk])
    if (this.#head.length >= HEAD_BYTES) this.#judgeHead(this.#head)
  }

  /** @throws FetchFailure when what the sink has is not the file. Too few bytes stay there: they are a beginning. */
  end(): void {
    if (this.#head !== undefined) this.#judgeHead(this.#head)
    const { checksum } = this.#file
    if (this.#totalBytes !== undefined && this.#takenBytes !== this.#totalBytes) {
      const found = `expected ${this.#totalBytes} bytes, found ${this.#takenBytes}`
      throw this.#explain(new FetchFailure('FETCH_SIZE_MISMATCH', found, { isTransient: true, hint: CHANGED }))
    }
    const found = checksum === undefined ? undefined : this.#sink.digest(checksum.algorithm)
    if (checksum === undefined || found === checksum.hex.toLowerCase()) return
    this.#sink.restart(this.#answer!)
    const message = `expected ${checksum.algorithm} ${checksum.hex}, found ${found}`
    throw this.#explain(new FetchFailure('FETCH_DIGEST_MISMATCH', message, { hint: CHANGED }))
  }

  #take(chunk: Buffer): void {
    if (this.#takenBytes + chunk.length > limitOf(this.#file)) {
      this.#sink.restart(this.#answer!)
      throw this.#explain(tooLong(this.#file))
    }
    this.#takenBytes += chunk.length
    this.#sink.write(chunk)
  }

  /** A declared checksum decides by itself, but no page takes the place of what is here; without one none passes for the file. */
  #judgeHead(head: Buffer): void {
    if (this.#file.isPage !== true && looksLikePage(head)) this.#page = head
    if (this.#refusal !== undefined) throw this.#explain(this.#refusal)
    if (this.#page !== undefined && (this.#file.checksum === undefined || this.#sink.bytes > 0))
      throw this.#captive(head)
    this.#head = undefined
    this.#sink.restart(this.#answer!)
    this.#take(head)
  }

  #explain(failure: FetchFailure): FetchFailure {
    return this.#page === undefined ? failure : this.#captive(this.#page)
  }

  #captive(head: Buffer): FetchFailure {
    const { place } = this.#answer!
    const title = this.#file.form === undefined ? ` "${excerptOf(head)}"` : ''
    const found = `expected a file, found an HTML page${title} from ${place}`
    return new FetchFailure('FETCH_CAPTIVE', found, { hint: signInHint(place) })
  }
}

/** The body of an answer that may come in the coding gzip, judged when it is decoded. */
export class CodedBody implements Receiver {
  readonly #file: RemoteFile
  readonly #plain: Body
  readonly #coded: Buffer[] = []
  #codedBytes = 0
  #answer: Answer | undefined

  constructor(file: RemoteFile, sink: Sink) {
    this.#file = file
    this.#plain = new Body(file, sink)
  }

  begin(answer: Answer): void {
    if (/^(?:x-)?gzip$/i.test(answer.headers['content-encoding'] ?? '')) this.#answer = answer
    else this.#plain.begin(answer)
  }

  data(chunk: Buffer): void {
    if (this.#answer === undefined) return this.#plain.data(chunk)
    this.#codedBytes += chunk.length
    if (this.#codedBytes > this.#file.maxBytes) throw tooLong(this.#file)
    this.#coded.push(chunk)
  }

  /** As Body.end. */
  end(): void {
    if (this.#answer !== undefined) {
      const bytes = gunzip(Buffer.concat(this.#coded), this.#file)
      const { 'content-encoding': _, 'content-length': __, ...headers } = this.#answer.headers
      this.#plain.begin({ ...this.#answer, headers })
      this.#plain.data(bytes)
    }
    this.#plain.end()
  }
}

function gunzip(coded: Buffer, file: RemoteFile): Buffer {
  try {
    return gunzipSync(coded, { maxOutputLength: limitOf(file) })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code === 'ERR_BUFFER_TOO_LARGE') throw tooLong(file)
    const found = `expected the coding gzip, found ${message}`
    throw new FetchFailure('FETCH_FAILED', found, { isTransient: true, hint: CHANGED, cause })
  }
}

function limitOf(file: RemoteFile): number {
  return Math.min(file.bytes ?? file.maxBytes, file.maxBytes)
}

/** @returns what is wrong with a file of `bytes` bytes, or with the declared size itself */
export function sizeRefusal(file: RemoteFile, bytes: number | undefined): FetchFailure | undefined {
  const size = bytes ?? file.bytes
  if (size !== undefined && size > file.maxBytes) {
    return new FetchFailure('FETCH_TOO_LONG', `expected at most ${file.maxBytes} bytes, found ${size}`)
  }
  if (bytes !== undefined && file.bytes !== undefined && bytes !== file.bytes) {
    return new FetchFailure('FETCH_SIZE_MISMATCH', `expected ${file.bytes} bytes, found ${bytes}`, { hint: CHANGED })
  }
  return undefined
}

function tooLong(file: RemoteFile): FetchFailure {
  return file.bytes === undefined
    ? new FetchFailure('FETCH_TOO_LONG', `expected at most ${file.maxBytes} bytes, found more`)
    : new FetchFailure('FETCH_SIZE_MISMATCH', `expected ${file.bytes} bytes, found more`, { hint: CHANGED })
}

/** Bytes in a coding that was not asked for would be kept as the file itself; only a checksum can tell that they are. */
function codingRefusal(file: RemoteFile, { headers, url }: Answer): FetchFailure | undefined {
  const coding = headers['content-encoding'] ?? 'identity'
  if (coding === 'identity' || file.checksum !== undefined || COMPRESSED_NAME.test(url.pathname)) return undefined
  return new FetchFailure('FETCH_FAILED', `expected the file as it is, found it in the coding ${coding}`, {
    hint: 'give a sha256 if this is the file as it shall be',
  })
}

/** What a 206 says of the whole file.
 *  @returns its size, where the server tells it
 *  @throws RangeFailure for another piece than was asked for */
function checkRange(file: RemoteFile, fromBytes: number, { headers }: Answer): number | undefined {
  const said = headers['content-range'] ?? 'none'
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(said)
  const [first, last] = [Number(match?.[1]), Number(match?.[2])]
  const total = match === null || match[3] === '*' ? undefined : Number(match[3])
  const length = contentLength({ headers })
  const isPiece = first === fromBytes && last >= first && last < (total ?? Infinity)
  if (isPiece && (length ?? last - first + 1) === last - first + 1) return refuseTotal(file, total)
  throw new RangeFailure(`expected the range ${fromBytes}- of the file, found ${said.slice(0, MAX_SHOWN)}`)
}

const MAX_SHOWN = 60

function refuseTotal(file: RemoteFile, total: number | undefined): number | undefined {
  const refusal = sizeRefusal(file, total)
  if (refusal !== undefined) throw new RangeFailure(refusal.message)
  return total
}

/** A server that does not send the piece that was asked for: what is here of the file is of no use with it. */
export class RangeFailure extends FetchFailure {
  constructor(message: string) {
    super('FETCH_FAILED', message, { isTransient: true, hint: CHANGED })
  }
}

/** The size that an answer announces. */
export function contentLength({ headers }: Pick<Answer, 'headers'>): number | undefined {
  const text = headers['content-length']
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
