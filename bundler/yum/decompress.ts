/**
 * Unpacks what upstreams send: gzip, xz, bzip2, zstd or plain, told apart by the first bytes and not by the name. Output is
 * bounded in size and in proportion to the input, so that a small hostile file cannot fill memory or keep us for ever.
 */
import { closeSync, createReadStream, fstatSync, openSync, readSync } from 'node:fs'
import type { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ReadableStream } from 'node:stream/web'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import type Bunzip from 'seek-bzip'
import { formatBytes } from '../../manifests/console.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'

export type Packing = 'gzip' | 'xz' | 'bzip2' | 'zstd' | 'plain'

export interface DecompressLimits {
  /** the most that may come out */
  maxBytes?: number
  /** the most that may come out of each byte that goes in … */
  maxRatio?: number
  /** … above this size */
  ratioFloorBytes?: number
}

const MAX_BYTES = 512 * 1024 * 1024
const MAX_RATIO = 200
const RATIO_FLOOR_BYTES = 16 * 1024 * 1024
const CHUNK_BYTES = 256 * 1024
/** One buffer for all of a file: a stream's many cost 40 MB of memory and twice the time. */
const PLAIN_CHUNK_BYTES = 1024 * 1024
const MAGIC_BYTES = 6
const MAGIC: readonly [Packing, readonly number[]][] = [
  ['gzip', [0x1f, 0x8b]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
]

/** The unpacked bytes of a file, piece by piece; each piece is only valid until the next one.
 *  @param what  names the file in messages
 *  @throws DECOMPRESS_INVALID for damaged and truncated files, DECOMPRESS_TOO_LONG past a limit */
export async function* decompress(
  file: string,
  what: string,
  limits: DecompressLimits = {},
): AsyncGenerator<Uint8Array, void> {
  const { maxBytes = MAX_BYTES, maxRatio = MAX_RATIO, ratioFloorBytes = RATIO_FLOOR_BYTES } = limits
  const { packing, bytes } = examine(file)
  const limit = Math.min(maxBytes, packing === 'plain' ? Infinity : Math.max(ratioFloorBytes, bytes * maxRatio))
  let length = 0
  const count = (more: number): void => {
    length += more
    if (length > limit) throw tooLong(what, packing, bytes, limit)
  }
  try {
    for await (const chunk of unpack(file, packing, count)) yield chunk
  } catch (cause) {
    if (isGapferryError(cause)) throw cause
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new GapferryError('DECOMPRESS_INVALID', `${what}: is damaged or cut off (${packing}: ${why})`, { cause })
  }
}

/** @param count  told of every byte before it is passed on */
async function* unpack(
  file: string,
  packing: Packing,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void> {
  if (packing === 'bzip2') {
    // counts by itself: one block may be fifty times larger than the chunks of the others
    yield* bunzip(file, count)
    return
  }
  for await (const chunk of source(file, packing)) {
    count(chunk.length)
    yield chunk
  }
}

function source(file: string, packing: Exclude<Packing, 'bzip2'>): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (packing === 'gzip') return through(file, createGunzip({ chunkSize: CHUNK_BYTES }))
  if (packing === 'zstd') return through(file, createZstdDecompress({ chunkSize: CHUNK_BYTES }))
  if (packing === 'xz') return unxz(file)
  return readChunks(file, Buffer.allocUnsafe(PLAIN_CHUNK_BYTES))
}

async function* through(file: string, transform: Transform): AsyncGenerator<Uint8Array, void> {
  const done = pipeline(createReadStream(file, { highWaterMark: CHUNK_BYTES }), transform)
  done.catch(() => {}) // the loop below meets the same error
  for await (const chunk of transform) yield chunk as Buffer
  await done
}

/** Only the first of several streams in a file, which no repository tool writes: the reader of the document, and the
 *  declared size and checksum, notice what is missing. */
async function* unxz(file: string): AsyncGenerator<Uint8Array, void> {
  const packed = readChunks(file)
  const input = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const { done, value } = packed.next()
      if (done === true) controller.close()
      else controller.enqueue(value)
    },
  })
  try {
    // Leaving this loop early cancels the stream; the decoder works on one file at a time and would else stay taken.
    // loaded where it is needed: it makes its WebAssembly as it loads, which took a tenth of the program's start
    const { default: xz } = await import('xz-decompress')
    for await (const chunk of new xz.XzReadableStream(input)) yield chunk
  } finally {
    packed.return()
  }
}

/** Block by block: the library's own way would hold all of it in memory. */
async function* bunzip(file: string, count: (bytes: number) => void): AsyncGenerator<Uint8Array, void> {
  // oxlint-disable no-underscore-dangle -- the names are the library's
  const input = new BunzipInput(file)
  const output = new BunzipOutput(count)
  try {
    const { default: Decoder } = await import('seek-bzip')
    const decoder = new Decoder(input, output)
    for (;;) {
      if (decoder._init_block()) {
        decoder._read_bunzip()
        yield* output.take()
      } else {
        if (decoder.reader.read(32) >>> 0 !== decoder.streamCRC) throw new Error('bad checksum of the stream')
        if (input.isAtEnd()) return
        decoder._start_bunzip(input, output)
      }
    }
  } finally {
    input.close()
  }
}

class BunzipInput implements Bunzip.Input {
  readonly #chunks: Generator<Buffer, void>
  #chunk: Buffer = Buffer.alloc(0)
  #at = 0

  constructor(file: string) {
    this.#chunks = readChunks(file)
  }

  isAtEnd(): boolean {
    if (this.#at < this.#chunk.length) return false
    const { done, value } = this.#chunks.next()
    if (done === true) return true
    this.#chunk = value
    this.#at = 0
    return false
  }

  readByte(): number {
    if (this.#at >= this.#chunk.length && this.isAtEnd()) throw new Error('unexpected end of file')
    return this.#chunk[this.#at++]!
  }

  read(buffer: Uint8Array, offset: number, length: number): number {
    for (let i = 0; i < length; i++) buffer[offset + i] = this.readByte()
    return length
  }

  close(): void {
    this.#chunks.return()
  }
}

class BunzipOutput implements Bunzip.Output {
  readonly #count: (bytes: number) => void
  #pieces: Buffer[] = []
  #piece = Buffer.allocUnsafe(CHUNK_BYTES)
  #length = 0

  constructor(count: (bytes: number) => void) {
    this.#count = count
  }

  writeByte(byte: number): void {
    if (this.#length === CHUNK_BYTES) this.#next()
    this.#piece[this.#length++] = byte
  }

  take(): Buffer[] {
    this.#next()
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  #next(): void {
    this.#count(this.#length)
    this.#pieces.push(this.#piece.subarray(0, this.#length))
    this.#piece = Buffer.allocUnsafe(CHUNK_BYTES)
    this.#length = 0
  }
}

/** @param reused  takes every chunk, one after the other; without it each has a buffer of its own */
function* readChunks(file: string, reused?: Buffer): Generator<Buffer, void> {
  const fd = openSync(file, 'r')
  try {
    for (;;) {
      const chunk = reused ?? Buffer.allocUnsafe(CHUNK_BYTES)
      const count = readSync(fd, chunk)
      if (count === 0) return
      yield chunk.subarray(0, count)
    }
  } finally {
    closeSync(fd)
  }
}

/** How a file is packed, and how large it is. */
export function examine(file: string): { packing: Packing; bytes: number } {
  const fd = openSync(file, 'r')
  try {
    const head = Buffer.alloc(MAGIC_BYTES)
    readSync(fd, head)
    const [packing = 'plain'] = MAGIC.find(([, magic]) => magic.every((byte, i) => head[i] === byte)) ?? []
    return { packing, bytes: fstatSync(fd).size }
  } finally {
    closeSync(fd)
  }
}

function tooLong(what: string, packing: Packing, bytes: number, limit: number): GapferryError {
  return new GapferryError(
    'DECOMPRESS_TOO_LONG',
    `${what}: ${formatBytes(bytes)} of ${packing} unpack to more than ${formatBytes(limit)}`,
  )
}
