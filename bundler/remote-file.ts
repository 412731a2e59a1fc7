/**
 * A file as an upstream's metadata describes it, and the check of what comes for it: never more than the declared or
 * permitted bytes, nothing that differs from its declared size or digest, no login page in its place.
 */
import { createHash, type Hash } from 'node:crypto'
import { gunzipSync } from 'node:zlib'
import type { Checksum, Sha256 } from '../manifests/digest.ts'
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

/** The body of one answer on its way to `sink`: bounded, and judged by its first bytes. */
export class Body implements Receiver {
  takenBytes = 0
  readonly #file: RemoteFile
  readonly #sink: (chunk: Buffer) => void
  readonly #hash: Hash | undefined
  #answer: Answer | undefined
  #head = Buffer.alloc(0)
  #refusal: FetchFailure | undefined

  constructor(file: RemoteFile, sink: (chunk: Buffer) => void) {
    this.#file = file
    this.#sink = sink
    const algorithm = file.checksum?.algorithm ?? 'sha256'
    this.#hash = algorithm === 'sha256' ? undefined : createHash(algorithm)
  }

  begin(answer: Answer): void {
    this.#answer = answer
    this.#refusal = sizeRefusal(this.#file, contentLength(answer)) ?? codingRefusal(this.#file, answer)
  }

  data(chunk: Buffer): void {
    if (this.#head.length < HEAD_BYTES) {
      this.#head = Buffer.concat([this.#head, chunk.subarray(0, HEAD_BYTES)])
      if (this.#head.length >= HEAD_BYTES) this.#judgeHead()
    }
    // What is refused is read on only until the head tells why.
    if (this.#refusal !== undefined) return
    const refusal = this.takenBytes + chunk.length > limitOf(this.#file) ? tooLong(this.#file) : undefined
    if (refusal !== undefined) throw this.#explain(refusal)
    this.#hash?.update(chunk)
    this.#sink(chunk)
    this.takenBytes += chunk.length
  }

  /** @param sha256  called once the size is right: the digest of what the sink has */
  end(sha256: () => Sha256): Sha256 {
    this.#judgeHead()
    const { bytes, checksum } = this.#file
    if (bytes !== undefined && this.takenBytes !== bytes) {
      const found = `expected ${bytes} bytes, found ${this.takenBytes}`
      throw this.#explain(new FetchFailure('FETCH_SIZE_MISMATCH', found, { isTransient: true, hint: CHANGED }))
    }
    const digest = sha256()
    const found = this.#hash?.digest('hex') ?? digest
    if (checksum !== undefined && found !== checksum.hex.toLowerCase()) {
      const message = `expected ${checksum.algorithm} ${checksum.hex}, found ${found}`
      throw this.#explain(new FetchFailure('FETCH_DIGEST_MISMATCH', message, { hint: CHANGED }))
    }
    return digest
  }

  /** A declared checksum decides by itself; without one a page must not pass for the file. */
  #judgeHead(): void {
    if (this.#refusal !== undefined) throw this.#explain(this.#refusal)
    if (this.#file.checksum === undefined && this.#isUnwantedPage()) throw this.#captive()
  }

  #explain(failure: FetchFailure): FetchFailure {
    return this.#isUnwantedPage() ? this.#captive() : failure
  }

  #isUnwantedPage(): boolean {
    return this.#file.isPage !== true && looksLikePage(this.#head)
  }

  #captive(): FetchFailure {
    const { place } = this.#answer!
    const title = this.#file.form === undefined ? ` "${excerptOf(this.#head)}"` : ''
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

  constructor(file: RemoteFile, sink: (chunk: Buffer) => void) {
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
  end(sha256: () => Sha256): Sha256 {
    if (this.#answer !== undefined) {
      const bytes = gunzip(Buffer.concat(this.#coded), this.#file)
      const { 'content-encoding': _, 'content-length': __, ...headers } = this.#answer.headers
      this.#plain.begin({ ...this.#answer, headers })
      this.#plain.data(bytes)
    }
    return this.#plain.end(sha256)
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

/** The size that an answer announces. */
export function contentLength({ headers }: Answer): number | undefined {
  const text = headers['content-length']
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
