/**
 * The bytes of one archive, read once from front to end through one reused buffer, and never past the file's end: a size
 * that a header merely claims allocates nothing. What is read is not checked here beyond the archive's own rules.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { BLOCK_BYTES, EntryOrder, isZero, paddingOf, parseHeader, type PartEntry } from '../manifests/bundle.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { systemCode } from './durable.ts'

/** One buffer for all bulk bytes: per-chunk streams cost twice the CPU (test/bench). */
const BUFFER_BYTES = 1024 * 1024

export class PartSource {
  readonly #fd: number
  readonly #size: number
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
  readonly #order = new EntryOrder()
  readonly #frame = createHash('sha256')
  /** unread bytes are buffer[#start, #end); the file is read up to #at */
  #start = 0
  #end = 0
  #at = 0

  readonly #signal: AbortSignal | undefined

  /** Opens exactly one regular file: no link is followed, no pipe is waited for.
   *  @throws BUNDLE_NOT_FOUND, BUNDLE_NOT_REGULAR, BUNDLE_UNREADABLE */
  constructor(file: string, signal?: AbortSignal) {
    this.#signal = signal
    this.#fd = openRegular(file)
    this.#size = fstatSync(this.#fd).size
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** The next entry; its bytes must be taken with `body` or `stream` before the one after it is asked for.
   *  @returns undefined at the end of the archive, which is the end of the file
   *  @throws BUNDLE_TRUNCATED, BUNDLE_TRAILING and what parseHeader and EntryOrder throw */
  next(): PartEntry | undefined {
    const header = parseHeader(this.#take(BLOCK_BYTES))
    if (header === undefined) {
      this.#finish()
      return undefined
    }
    const entry = this.#order.next(header)
    const left = this.#left()
    if (entry.bytes + paddingOf(entry.bytes) > left) {
      throw truncated(`${header.name} should have ${entry.bytes} bytes, the file has ${left} left`)
    }
    return entry
  }

  /** The SHA-256 of all that was read and is no blob's content: with the blobs' own digests it tells of every byte. After
   *  the end of the archive, once. */
  frame(): Sha256 {
    return this.#frame.digest('hex') as Sha256
  }

  /** All bytes of a small entry, in a buffer of their own. */
  async body(entry: PartEntry): Promise<Buffer> {
    const body = Buffer.allocUnsafe(entry.bytes)
    let at = 0
    await this.stream(entry, (chunk) => {
      at += chunk.copy(body, at)
    })
    return body
  }

  /** The bytes of an entry, piece by piece; a piece is only valid during the call.
   *  @throws BUNDLE_TRUNCATED; BUNDLE_PADDING where the block is not filled up with zeros */
  async stream(entry: PartEntry, each: (chunk: Buffer) => void): Promise<void> {
    for (let left = entry.bytes; left > 0;) {
      if (this.#start === this.#end) {
        this.#fill()
        await setImmediate() // reading is synchronous: let signals and progress through
        this.#signal?.throwIfAborted()
      }
      const length = Math.min(left, this.#end - this.#start)
      const chunk = this.#buffer.subarray(this.#start, this.#start + length)
      if (entry.section !== 'blob') this.#frame.update(chunk)
      each(chunk)
      this.#start += length
      left -= length
    }
    if (!isZero(this.#take(paddingOf(entry.bytes)))) {
      throw new GapferryError('BUNDLE_PADDING', `"${entry.name}": the bytes up to the next block are not zero`)
    }
  }

  #finish(): void {
    if (!isZero(this.#take(BLOCK_BYTES))) throw trailing('a second block of zeros', 'an entry hidden behind the first')
    if (this.#left() > 0) throw trailing('the end of the file', `${this.#left()} bytes`)
    this.#order.end()
  }

  /** The next `length` bytes (a block at most), in one piece; valid until the next call. */
  #take(length: number): Buffer {
    if (length > this.#left()) throw truncated('the file ends before the archive does')
    while (this.#end - this.#start < length) this.#fill()
    this.#start += length
    const taken = this.#buffer.subarray(this.#start - length, this.#start)
    this.#frame.update(taken)
    return taken
  }

  #fill(): void {
    this.#buffer.copyWithin(0, this.#start, this.#end)
    this.#end -= this.#start
    this.#start = 0
    const count = readSome(this.#fd, this.#buffer, this.#end, this.#at)
    if (count === 0) throw truncated('the file became shorter while it was read')
    this.#end += count
    this.#at += count
  }

  #left(): number {
    return this.#size - this.#at + this.#end - this.#start
  }
}

function openRegular(file: string): number {
  let fd
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'ENOENT') throw new GapferryError('BUNDLE_NOT_FOUND', 'there is no such file', { cause })
    if (code === 'ELOOP') throw notRegular('a symbolic link', cause)
    throw unreadable(cause)
  }
  if (fstatSync(fd).isFile()) return fd
  closeSync(fd)
  throw notRegular('a folder, pipe or device')
}

function readSome(fd: number, buffer: Buffer, offset: number, position: number): number {
  try {
    return readSync(fd, buffer, offset, buffer.length - offset, position)
  } catch (cause) {
    throw unreadable(cause)
  }
}

function notRegular(found: string, cause?: unknown): GapferryError {
  return new GapferryError('BUNDLE_NOT_REGULAR', `expected a regular file, found ${found}`, { cause })
}

function unreadable(cause: unknown): GapferryError {
  return new GapferryError('BUNDLE_UNREADABLE', `cannot be read (${systemCode(cause)})`, {
    cause,
    hint: 'copy the part again, or use another stick',
  })
}

function truncated(why: string): GapferryError {
  return new GapferryError('BUNDLE_TRUNCATED', why, {
    hint: 'copy the part again; its .sha256 tells whether it is whole',
  })
}

function trailing(expected: string, found: string): GapferryError {
  return new GapferryError('BUNDLE_TRAILING', `expected ${expected}, found ${found}`)
}
