/**
 * Writes an answer. Small blobs come from memory, large ones by positional reads into buffers that are used again:
 * streams per request cost twice the processor time. Bytes that are not what was signed are never sent: a blob that is
 * missing, damaged or of another size is a 503, and one that ends early cuts the connection. Small blobs are checked when
 * they are read, large ones once per process and file, before the first answer from it.
 */
import { close, fstatSync, read } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { promisify } from 'node:util'
import type { Logger } from 'pino'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, httpStatus, isGapferryError } from '../manifests/errors.ts'
import { checkDigest } from '../storage/blobs.ts'
import { digestOf } from '../storage/blob-check.ts'
import { refusal, type Answer, type BlobSlice } from './content.ts'

/** The part of storage/blobs.ts that serving needs. */
export interface BlobSource {
  open(sha256: Sha256): { fd: number; bytes: number }
  read(sha256: Sha256, maxBytes: number): Buffer
}

/** Measured at 100 KB, answers per processor second: nginx 21,000, from memory 17,500, synchronous reads 12,100,
 *  reads with callbacks 7,500, streams 3,100. */
const MAX_SMALL_BYTES = 128 * 1024
/** Above this a blob is kept in memory when it is asked for again soon: a box that reads a thousand packages once would
 *  only make garbage (measured: 65 MB more in memory). */
const MAX_TINY_BYTES = 16 * 1024
const MAX_RECENT = 256
const MAX_CACHE_BYTES = 24 * 1024 * 1024
/** A few hundred bytes each: as many as a tree may have paths. */
const MAX_LARGE_KNOWN = 20_000
/** Larger ones measured no faster. Slow clients hold their buffer while they read, so these are few and the rest make do
 *  with less: 512 connections hold at most 35 MB. */
const BUFFER_BYTES = 256 * 1024
const MAX_BUFFERS = 16
const SPARE_BUFFER_BYTES = 64 * 1024

const readAt = promisify(read)
const closeFile = promisify(close)

export class Sender {
  readonly #blobs: BlobSource
  readonly #log: Logger
  readonly #small: SmallBlobs
  readonly #large = new LargeBlobs()
  readonly #buffers: Buffer[] = []
  readonly #spareBuffers: Buffer[] = []
  #buffersMade = 0

  constructor(blobs: BlobSource, log: Logger) {
    this.#blobs = blobs
    this.#log = log
    this.#small = new SmallBlobs(blobs)
  }

  /** Never throws: what goes wrong is logged, and answered where the answer has not begun. */
  send(res: ServerResponse, answer: Answer): void {
    const { body } = answer
    if (body === undefined || Buffer.isBuffer(body)) {
      this.#sendBytes(res, answer, body)
    } else if (this.#small.isFor(body)) {
      this.#sendSmall(res, answer, body)
    } else {
      void this.#sendLarge(res, answer, body)
    }
  }

  #sendBytes(res: ServerResponse, answer: Answer, bytes: Buffer | undefined): void {
    if (answer.error !== undefined && httpStatus(answer.error) >= 500) this.#report(res, answer)
    res.writeHead(answer.status, answer.headers as string[])
    if (bytes === undefined || answer.isHeadOnly) res.end()
    else res.end(bytes)
  }

  /** A mirror without a release is no fault. */
  #report(res: ServerResponse, { error }: Answer): void {
    if (isGapferryError(error, 'RELEASE_NOTHING')) return
    this.#log.error({ ...errorFields(error), path: pathOf(res) }, 'a request failed')
  }

  #sendSmall(res: ServerResponse, answer: Answer, { sha256, bytes, start, length }: BlobSlice): void {
    try {
      const whole = this.#small.get(sha256, bytes)
      this.#sendBytes(res, answer, length === bytes ? whole : whole.subarray(start, start + length))
    } catch (error) {
      this.#fail(res, answer, error)
    }
  }

  async #sendLarge(res: ServerResponse, answer: Answer, slice: BlobSlice): Promise<void> {
    let fd: number | undefined
    try {
      const file = this.#blobs.open(slice.sha256)
      fd = file.fd
      if (file.bytes !== slice.bytes) {
        throw sizeMismatch(slice.sha256, slice.bytes, file.bytes)
      }
      await this.#checkLarge(fd, slice)
      if (res.destroyed) return
      res.writeHead(answer.status, answer.headers as string[])
      if (!answer.isHeadOnly) await this.#copy(fd, slice, res)
      if (!res.destroyed) res.end()
    } catch (error) {
      this.#fail(res, answer, error)
    } finally {
      if (fd !== undefined) await closeFile(fd)
    }
  }

  async #checkLarge(fd: number, { sha256, bytes }: BlobSlice): Promise<void> {
    const found = this.#large.digest(sha256, fd, async () => {
      const buffer = this.#takeBuffer()
      try {
        return await digestOf(fd, { bytes, buffer })
      } finally {
        this.#giveBuffer(buffer)
      }
    })
    checkDigest(sha256, typeof found === 'string' ? found : await found)
  }

  async #copy(fd: number, { sha256, start, length }: BlobSlice, res: ServerResponse): Promise<void> {
    const buffer = this.#takeBuffer()
    try {
      for (let done = 0; done < length && !res.destroyed;) {
        const { bytesRead } = await readAt(fd, buffer, 0, Math.min(buffer.length, length - done), start + done)
        if (bytesRead === 0) throw sizeMismatch(sha256, start + length, start + done)
        done += bytesRead
        if (!(await written(res, buffer.subarray(0, bytesRead)))) return
      }
    } finally {
      this.#giveBuffer(buffer)
    }
  }

  #takeBuffer(): Buffer {
    const ready = this.#buffers.pop() ?? (this.#buffersMade < MAX_BUFFERS ? undefined : this.#spareBuffers.pop())
    if (ready !== undefined) return ready
    if (this.#buffersMade >= MAX_BUFFERS) return Buffer.allocUnsafeSlow(SPARE_BUFFER_BYTES)
    this.#buffersMade++
    return Buffer.allocUnsafeSlow(BUFFER_BYTES)
  }

  #giveBuffer(buffer: Buffer): void {
    if (buffer.length === BUFFER_BYTES) this.#buffers.push(buffer)
    else this.#spareBuffers.push(buffer)
  }

  #fail(res: ServerResponse, { isHeadOnly, role }: Answer, cause: unknown): void {
    const error = isGapferryError(cause)
      ? cause
      : new GapferryError('BLOB_UNREADABLE', 'a blob cannot be read', { cause })
    if (!res.headersSent) return this.send(res, refusal(error, { isHeadOnly, role }))
    this.#log.error({ ...errorFields(error), path: pathOf(res) }, 'an answer was cut short')
    res.destroy()
  }
}

/** Small blobs in memory, checked against their digest when they are read; the least recently asked for leave first. */
class SmallBlobs {
  readonly #blobs: BlobSource
  readonly #memory = new Map<Sha256, Buffer>()
  /** asked for once and not kept, the latest last */
  readonly #recent = new Set<Sha256>()
  #bytes = 0

  constructor(blobs: BlobSource) {
    this.#blobs = blobs
  }

  /** Whether the blob is here, or to be kept from now on. */
  isFor({ sha256, bytes }: BlobSlice): boolean {
    if (bytes <= MAX_TINY_BYTES || this.#memory.has(sha256)) return true
    if (bytes > MAX_SMALL_BYTES) return false
    if (this.#recent.delete(sha256)) return true
    this.#recent.add(sha256)
    const [oldest] = this.#recent
    if (this.#recent.size > MAX_RECENT) this.#recent.delete(oldest!)
    return false
  }

  /** @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH; BLOB_SIZE_MISMATCH when it is not `bytes` long */
  get(sha256: Sha256, bytes: number): Buffer {
    const known = this.#memory.get(sha256)
    if (known === undefined) return this.#load(sha256, bytes)
    this.#memory.delete(sha256)
    this.#memory.set(sha256, known)
    return known
  }

  #load(sha256: Sha256, bytes: number): Buffer {
    const blob = this.#blobs.read(sha256, bytes)
    if (blob.length !== bytes) throw sizeMismatch(sha256, bytes, blob.length)
    this.#memory.set(sha256, blob)
    this.#bytes += blob.length
    for (const [oldest, { length }] of this.#memory) {
      if (this.#bytes <= MAX_CACHE_BYTES) break
      this.#memory.delete(oldest)
      this.#bytes -= length
    }
    return blob
  }
}

/** Which files were read whole, and the digests they have. A file that was changed or replaced since is another file. */
class LargeBlobs {
  readonly #known = new Map<Sha256, { file: string; digest: Sha256 | Promise<Sha256> }>()

  /** @param read  makes the digest; called once however many ask meanwhile, unless it fails */
  digest(sha256: Sha256, fd: number, read: () => Promise<Sha256>): Sha256 | Promise<Sha256> {
    const { dev, ino, size, mtimeNs, ctimeNs } = fstatSync(fd, { bigint: true })
    const file = [dev, ino, size, mtimeNs, ctimeNs].join(' ')
    const known = this.#known.get(sha256)
    if (known?.file === file) return known.digest
    const digest = this.#remember(sha256, file, read())
    this.#known.delete(sha256)
    this.#known.set(sha256, { file, digest })
    const [oldest] = this.#known.keys()
    if (this.#known.size > MAX_LARGE_KNOWN) this.#known.delete(oldest!)
    return digest
  }

  async #remember(sha256: Sha256, file: string, reading: Promise<Sha256>): Promise<Sha256> {
    try {
      const digest = await reading
      if (this.#known.get(sha256)?.file === file) this.#known.set(sha256, { file, digest })
      return digest
    } catch (error) {
      if (this.#known.get(sha256)?.file === file) this.#known.delete(sha256)
      throw error
    }
  }
}

/** What the log needs of an error: for ours the code and the message, for others everything. */
export function errorFields(error: unknown): object {
  return isGapferryError(error) ? { code: error.code, reason: error.message, cause: error.cause } : { err: error }
}

/** @returns true when `chunk` was handed to the kernel, so that its memory may change; false when the client is gone */
function written(res: ServerResponse, chunk: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const gone = (): void => resolve(false)
    res.once('close', gone)
    res.write(chunk, (error) => {
      res.removeListener('close', gone)
      resolve(error === undefined || error === null)
    })
  })
}

/** Without the query, where a box may say who it is. */
function pathOf({ req }: ServerResponse): string | undefined {
  return req.url?.replace(/\?.*$/s, '')
}

function sizeMismatch(sha256: Sha256, expected: number, found: number): GapferryError {
  return new GapferryError('BLOB_SIZE_MISMATCH', `blob ${sha256}: expected ${expected} bytes, found ${found}`)
}
