/**
 * The bytes of one archive, read once from front to end through reused buffers, and never past the file's end: a size
 * that a header merely claims allocates nothing. What is read is not checked here beyond the archive's own rules.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { BLOCK_BYTES, EntryOrder, isZero, paddingOf, parseHeader, type PartEntry } from '../manifests/bundle.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { systemCode } from './durable.ts'
import { giveAligned, openPastCache, PAGE_BYTES, readAhead, takeAligned } from './past-cache.ts'

/** Few buffers for all bulk bytes: per-chunk streams cost twice the CPU (test/bench). */
const BUFFER_BYTES = 1024 * 1024
/** How many such reads wait for a medium at a time, past the cache: with one it idles while that is hashed. Beside one, 0.79 of
 *  the wall time and 0.95 of the CPU (600 MB, median of 24 interleaved pairs on a busy machine of two cores). */
const READS_AHEAD = 3
/** Where in a buffer what is read begins; before it lies what is left of the block that was begun. */
const LEAD_BYTES = PAGE_BYTES
/** What a medium cannot give back is left out in pieces of this size, and not for ever: each try takes such a medium
 *  seconds. */
const PIECE_BYTES = 65_536
const MAX_UNREADABLE_PIECES = 64

export interface SourceOptions {
  /** looked at while bytes are read */
  signal?: AbortSignal | undefined
  /** read what the medium has, not what the system remembers of it, where the system can */
  isPastCache?: boolean
  /** zeros for what the medium cannot give back, up to a limit: whoever hashes will see */
  skipUnreadable?: boolean
}

export class PartSource {
  readonly #fd: number
  readonly #size: number
  readonly #isPastCache: boolean
  readonly #options: SourceOptions
  readonly #order = new EntryOrder()
  readonly #frame = createHash('sha256')
  /** unread bytes are buffer[#start, #end); the file is read up to #at */
  #buffer: Buffer
  /** for what is read next; where the cache is read through, #buffer itself */
  readonly #spares: Buffer[]
  #start = LEAD_BYTES
  #end = LEAD_BYTES
  #at = 0
  #unreadable = 0
  /** the reads that are under way from #at on, past the cache only: there nobody else reads ahead */
  #ahead: Ahead[] = []

  /** Opens exactly one regular file: no link is followed, no pipe is waited for.
   *  @throws BUNDLE_NOT_FOUND, BUNDLE_NOT_REGULAR, BUNDLE_UNREADABLE */
  constructor(file: string, options: SourceOptions = {}) {
    this.#options = options
    const opened = openRegular(file, options.isPastCache === true)
    this.#fd = opened.fd
    this.#isPastCache = opened.isPastCache
    this.#size = fstatSync(this.#fd).size
    const bytes = LEAD_BYTES + BUFFER_BYTES
    this.#buffer = opened.isPastCache ? takeAligned(bytes) : Buffer.allocUnsafeSlow(bytes)
    const spares = opened.isPastCache ? Math.min(READS_AHEAD, Math.ceil(this.#size / BUFFER_BYTES)) : 0
    this.#spares = Array.from({ length: spares }, () => takeAligned(bytes))
  }

  /** True when what is read comes from the medium for sure. */
  get isPastCache(): boolean {
    return this.#isPastCache
  }

  async close(): Promise<void> {
    await this.#dropAhead() // not beside a close
    closeSync(this.#fd)
    if (this.#isPastCache) giveAligned(this.#buffer, ...this.#spares)
  }

  /** The next entry; its bytes must be taken with `body` or `stream` before the one after it is asked for.
   *  @returns undefined at the end of the archive, which is the end of the file
   *  @throws BUNDLE_TRUNCATED, BUNDLE_TRAILING and what parseHeader and EntryOrder throw */
  async next(): Promise<PartEntry | undefined> {
    const header = parseHeader(await this.#take(BLOCK_BYTES))
    if (header === undefined) {
      await this.#finish()
      return undefined
    }
    return this.#entered(header)
  }

  /** After damage: goes on to the next header that `isWanted`, and its entry.
   *  @param maxBytes  is looked through at most
   *  @returns undefined when there is none up to there, or to the end of the file */
  async findNext(
    isWanted: (header: { name: string; bytes: number }) => boolean,
    maxBytes: number,
  ): Promise<PartEntry | undefined> {
    for (let passed = 0; passed < maxBytes && this.#left() >= BLOCK_BYTES; passed += BLOCK_BYTES) {
      if (this.#start === this.#end) await this.#pause()
      const header = headerIn(await this.#take(BLOCK_BYTES))
      if (header !== undefined && isWanted(header)) return this.#entered(header)
    }
    return undefined
  }

  #entered(header: { name: string; bytes: number }): PartEntry {
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
        await this.#fill()
        await this.#pause()
      }
      const length = Math.min(left, this.#end - this.#start)
      const chunk = this.#buffer.subarray(this.#start, this.#start + length)
      if (entry.section !== 'blob') this.#frame.update(chunk)
      each(chunk)
      this.#start += length
      left -= length
    }
    if (!isZero(await this.#take(paddingOf(entry.bytes)))) {
      throw new GapferryError('BUNDLE_PADDING', `"${entry.name}": the bytes up to the next block are not zero`)
    }
  }

  async #finish(): Promise<void> {
    if (!isZero(await this.#take(BLOCK_BYTES))) {
      throw trailing('a second block of zeros', 'an entry hidden behind the first')
    }
    if (this.#left() > 0) throw trailing('the end of the file', `${this.#left()} bytes`)
    this.#order.end()
  }

  /** The next `length` bytes (a block at most), in one piece; valid until the next call. */
  async #take(length: number): Promise<Buffer> {
    if (length > this.#left()) throw truncated('the file ends before the archive does')
    while (this.#end - this.#start < length) await this.#fill()
    this.#start += length
    const taken = this.#buffer.subarray(this.#start - length, this.#start)
    this.#frame.update(taken)
    return taken
  }

  async #fill(): Promise<void> {
    const { buffer, count } = this.#isPastCache ? await this.#readPast() : this.#readThrough()
    const rest = this.#buffer.subarray(this.#start, this.#end)
    rest.copy(buffer, LEAD_BYTES - rest.length)
    if (buffer !== this.#buffer) this.#spares.push(this.#buffer)
    this.#buffer = buffer
    this.#start = LEAD_BYTES - rest.length
    this.#end = LEAD_BYTES + count
    this.#at += count
    if (count === 0) throw truncated('the file became shorter while it was read')
    if (this.#isPastCache) this.#goAhead()
  }

  /** Over what is left of the block that was begun, once that has moved. */
  #readThrough(): Filled {
    const rest = this.#buffer.subarray(this.#start, this.#end)
    rest.copy(this.#buffer, LEAD_BYTES - rest.length)
    ;[this.#start, this.#end] = [LEAD_BYTES - rest.length, LEAD_BYTES]
    const area = this.#buffer.subarray(LEAD_BYTES)
    try {
      return { buffer: this.#buffer, count: readSync(this.#fd, area, 0, area.length, this.#at) }
    } catch (cause) {
      return { buffer: this.#buffer, count: this.#mendRead(area, cause) }
    }
  }

  async #readPast(): Promise<Filled> {
    this.#goAhead()
    const { buffer, reading, bytes } = this.#ahead.shift()!
    let count: number
    try {
      count = await reading
    } catch (cause) {
      await this.#dropAhead()
      count = this.#mendRead(buffer.subarray(LEAD_BYTES), cause)
    }
    // What was asked for behind a short read does not follow it.
    if (count < bytes) await this.#dropAhead()
    return { buffer, count }
  }

  #goAhead(): void {
    for (let at = this.#at + sumOf(this.#ahead); at < this.#size && this.#spares.length > 0;) {
      const buffer = this.#spares.pop()!
      const reading = readAhead(this.#fd, buffer.subarray(LEAD_BYTES), at, this.#size)
      reading.catch(() => undefined) // whoever fills next is told
      const bytes = Math.min(BUFFER_BYTES, this.#size - at)
      this.#ahead.push({ buffer, reading, bytes })
      at += bytes
    }
  }

  async #dropAhead(): Promise<void> {
    const dropped = this.#ahead.splice(0)
    await Promise.allSettled(dropped.map(({ reading }) => reading))
    this.#spares.push(...dropped.map(({ buffer }) => buffer))
  }

  #mendRead(area: Buffer, cause: unknown): number {
    if (this.#options.skipUnreadable === true && systemCode(cause) === 'EIO') return this.#readPieces(area)
    throw unreadable(cause)
  }

  /** What can be had, with zeros for the rest. */
  #readPieces(area: Buffer): number {
    const bytes = Math.min(area.length, this.#size - this.#at)
    for (let done = 0; done < bytes; done += PIECE_BYTES) {
      const piece = area.subarray(done, Math.min(done + PIECE_BYTES, bytes))
      try {
        if (readSync(this.#fd, piece, 0, piece.length, this.#at + done) === piece.length) continue
        throw truncated('the file became shorter while it was read')
      } catch (cause) {
        this.#unreadable += 1
        if (systemCode(cause) !== 'EIO' || this.#unreadable > MAX_UNREADABLE_PIECES) throw unreadable(cause)
        piece.fill(0)
      }
    }
    return bytes
  }

  /** Reading is synchronous: lets signals and progress through. */
  async #pause(): Promise<void> {
    await setImmediate()
    this.#options.signal?.throwIfAborted()
  }

  #left(): number {
    return this.#size - this.#at + this.#end - this.#start
  }
}

/** A read under way: `bytes` are asked for. */
interface Ahead {
  buffer: Buffer
  reading: Promise<number>
  bytes: number
}

interface Filled {
  buffer: Buffer
  count: number
}

function sumOf(reads: readonly Ahead[]): number {
  return reads.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** The header in a block, when it is one. */
function headerIn(block: Buffer): { name: string; bytes: number } | undefined {
  if (block.toString('latin1', 0, BLOB_FOLDER.length) !== BLOB_FOLDER) return undefined
  try {
    return parseHeader(block)
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}

const BLOB_FOLDER = 'blobs/'

function openRegular(file: string, isPastCache: boolean): { fd: number; isPastCache: boolean } {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  let opened
  try {
    opened = isPastCache ? openPastCache(file, flags) : { fd: openSync(file, flags), isPastCache }
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'ENOENT') throw new GapferryError('BUNDLE_NOT_FOUND', 'there is no such file', { cause })
    if (code === 'ELOOP') throw notRegular('a symbolic link', cause)
    throw unreadable(cause)
  }
  if (fstatSync(opened.fd).isFile()) return opened
  closeSync(opened.fd)
  throw notRegular('a folder, pipe or device')
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
