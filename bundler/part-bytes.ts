/**
 * The bytes of one part, from front to end. The same entries give the same bytes. tar-stream makes the headers; bulk bytes
 * go through one reused buffer of 1 MiB, read and handed on synchronously.
 */
import { createHash } from 'node:crypto'
import { closeSync, readSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { pack as tarStream } from 'tar-stream'
import { END_BYTES, EntryOrder, paddingOf } from '../manifests/bundle.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { BlobStore } from '../storage/blobs.ts'

/** One entry to write: `from` holds its bytes, or names the blob that does. */
export interface OutgoingEntry {
  /** with its folder */
  name: string
  bytes: number
  from: Buffer | Sha256
}

const BUFFER_BYTES = 1024 * 1024
const ZEROS = Buffer.alloc(END_BYTES)
const MODE = 0o644
const EPOCH = new Date(0)

/** Hands the bytes of a part to `emit`, piece by piece; a piece is only valid during the call. Nobody looks at the blobs'
 *  digests here: whoever reads the part back does, and reads it anyway.
 *  @throws BLOB_MISSING, BLOB_SIZE_MISMATCH; BUNDLE_* where a reader would refuse the entries; the signal's reason */
export async function composePart(
  entries: OutgoingEntry[],
  blobs: BlobStore,
  emit: (chunk: Buffer) => void,
  signal?: AbortSignal,
): Promise<void> {
  const order = new EntryOrder()
  const buffer = new ChunkBuffer(emit, signal)
  for (const entry of entries) {
    order.next(entry)
    await buffer.put(await tarHeader(entry))
    if (typeof entry.from === 'string') await copyBlob(blobs, entry.from, entry.bytes, buffer)
    else await buffer.put(entry.from)
    await buffer.put(ZEROS.subarray(0, paddingOf(entry.bytes)))
  }
  order.end()
  await buffer.put(ZEROS)
  buffer.flush()
}

/** The SHA-256 over all bytes of a part that are no blob's content: what `verifyPart` finds when all of them are there. */
export async function frameOf(entries: OutgoingEntry[]): Promise<Sha256> {
  const hash = createHash('sha256')
  for (const entry of entries) {
    hash.update(await tarHeader(entry))
    if (typeof entry.from !== 'string') hash.update(entry.from)
    hash.update(ZEROS.subarray(0, paddingOf(entry.bytes)))
  }
  return hash.update(ZEROS).digest('hex') as Sha256
}

async function copyBlob(blobs: BlobStore, sha256: Sha256, bytes: number, buffer: ChunkBuffer): Promise<void> {
  const blob = blobs.open(sha256)
  try {
    if (blob.bytes !== bytes) throw sizeMismatch(sha256, bytes, blob.bytes)
    for (let done = 0; done < bytes;) {
      const room = (await buffer.room()).subarray(0, bytes - done)
      const count = readSync(blob.fd, room, 0, room.length, done)
      if (count === 0) throw sizeMismatch(sha256, bytes, done)
      buffer.advance(count)
      done += count
    }
  } finally {
    closeSync(blob.fd)
  }
}

function tarHeader({ name, bytes }: OutgoingEntry): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const archive = tarStream()
    archive.once('data', (header: unknown) => resolve(header as Buffer))
    archive.once('error', reject)
    archive.entry({ name, size: bytes, mode: MODE, mtime: EPOCH, type: 'file' }).once('error', reject)
  })
}

/** Gathers pieces until the buffer is full, because a part is mostly many small ones. */
class ChunkBuffer {
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
  readonly #emit: (chunk: Buffer) => void
  readonly #signal: AbortSignal | undefined
  #used = 0

  constructor(emit: (chunk: Buffer) => void, signal?: AbortSignal) {
    this.#emit = emit
    this.#signal = signal
  }

  async put(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const count = bytes.copy(await this.room(), 0, done)
      this.advance(count)
      done += count
    }
  }

  /** The free end of the buffer, at least a byte; fill it from its start, then say how far with `advance`. */
  async room(): Promise<Buffer> {
    if (this.#used === BUFFER_BYTES) {
      this.flush()
      await setImmediate() // all else is synchronous: let signals and progress through
      this.#signal?.throwIfAborted()
    }
    return this.#buffer.subarray(this.#used)
  }

  advance(count: number): void {
    this.#used += count
  }

  flush(): void {
    this.#emit(this.#buffer.subarray(0, this.#used))
    this.#used = 0
  }
}

function sizeMismatch(sha256: Sha256, expected: number, found: number): GapferryError {
  return new GapferryError('BLOB_SIZE_MISMATCH', `blob ${sha256}: expected ${expected} bytes, found ${found}`)
}
