/**
 * Files that came only in part: `partial/<key>` under a store's root, and beside it `<key>.note`. The note says what the
 * bytes are the beginning of, then, line by line, how many there were and their SHA-256. Invariants:
 *   - bytes are only added at the end; starting over empties the file and takes the note away before;
 *   - of what a crash left, no more is believed than the note's last digest covers, except where the whole file has a
 *     declared checksum: then the bytes behind it stay, too, because the checksum decides in the end;
 *   - a file without a note, or a note without a file, is rubbish.
 * The notes are not synced: what a power cut leaves of file and note is found out by the digest.
 */
import { createHash, randomUUID, type Hash } from 'node:crypto'
import { closeSync, constants, fstatSync, ftruncateSync, lstatSync, mkdirSync, openSync, readdirSync } from 'node:fs'
import { readFileSync, readSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Checksum, Sha256 } from '../manifests/digest.ts'
import type { BlobBatch } from './blobs.ts'
import { noticeShortSpace, writeAll } from './durable.ts'

/** What a partial file is the beginning of. */
export interface PartialSource {
  /** the address that gave it, as it may be shown */
  url: string
  /** SHA-256 of the address */
  address: Sha256
  /** the strong validator that came with it: a quoted ETag, or a date */
  validator: string | null
  totalBytes: number | null
  /** the address was asked for the rest and gave the whole: who cannot pay for that need not begin */
  isWholeOnly?: boolean
}

/** Bounds of what is kept for later runs. */
export interface PartialLimits {
  maxAgeMs: number
  maxBytes: number
}

/** Less is fetched again sooner than it is looked after. */
export const MIN_KEPT_BYTES = 64 * 1024
const NOTE_EVERY_BYTES = 1024 * 1024
const MAX_NOTE_BYTES = 4 * 1024 * 1024
const READ_BYTES = 1024 * 1024
const LIMITS: PartialLimits = { maxAgeMs: 30 * 24 * 3_600_000, maxBytes: 2_000_000_000 }
const NOTE = '.note'
const FOLDER_MODE = 0o700
const FILE_MODE = 0o600

export class PartialFiles {
  readonly #folder: string
  readonly #inUse = new Set<string>()

  /** @param root  the store's folder; partial/ is made when the first file is opened */
  constructor(root: string) {
    this.#folder = join(root, 'partial')
  }

  /** Opens the file of `key`, with what is left of it. A key that is open already gets an empty file that is not kept.
   *  @param key  SHA-256 of whatever tells one wanted file from another
   *  @param checksum  declared for the whole file
   *  @throws SPACE_SHORT */
  open(key: Sha256, checksum: Checksum | undefined): PartialFile {
    mkdirSync(this.#folder, { recursive: true, mode: FOLDER_MODE })
    const isTaken = this.#inUse.has(key)
    const name = isTaken ? randomUUID() : key
    this.#inUse.add(name)
    return new PartialFile(join(this.#folder, name), { checksum, isKept: !isTaken }, () => this.#inUse.delete(name))
  }

  /** What is kept: key → bytes. */
  kept(): Map<Sha256, number> {
    return new Map(this.#pairs().map(({ name, bytes }) => [name, bytes]))
  }

  /** Those of them that their server gives whole or not at all. */
  wholeOnly(): Set<Sha256> {
    const isOne = ({ name }: { name: Sha256 }): boolean =>
      readNote(join(this.#folder, name + NOTE))?.source.isWholeOnly === true
    return new Set(this.#pairs().flatMap((pair) => (isOne(pair) ? [pair.name] : [])))
  }

  /** Removes rubbish, what is too old, and the oldest of what is too much. Only for the holder of the store's lock.
   *  @returns how many files went */
  sweep(nowMs: number, limits: PartialLimits = LIMITS): number {
    const pairs = this.#pairs().toSorted((a, b) => b.changedMs - a.changedMs)
    let total = 0
    const kept = pairs.filter(({ bytes, changedMs }) => {
      total += bytes
      return total <= limits.maxBytes && nowMs - changedMs <= limits.maxAgeMs
    })
    const names = new Set(kept.flatMap(({ name }) => [name, name + NOTE]))
    const rubbish = this.#names().filter((name) => !names.has(name))
    for (const name of rubbish) rmSync(join(this.#folder, name), { recursive: true, force: true })
    return rubbish.filter((name) => !name.endsWith(NOTE)).length
  }

  remove(key: Sha256): void {
    rmSync(join(this.#folder, key), { force: true })
    rmSync(join(this.#folder, key + NOTE), { force: true })
  }

  #names(): string[] {
    return lstatSync(this.#folder, { throwIfNoEntry: false })?.isDirectory() === true ? readdirSync(this.#folder) : []
  }

  #pairs(): { name: Sha256; bytes: number; changedMs: number }[] {
    const names = new Set(this.#names())
    return [...names].flatMap((name) => {
      if (!/^[0-9a-f]{64}$/.test(name) || !names.has(name + NOTE)) return []
      const stats = lstatSync(join(this.#folder, name))
      return stats.isFile() ? [{ name: name as Sha256, bytes: stats.size, changedMs: stats.mtimeMs }] : []
    })
  }
}

/** One file on its way into the store. After `keep`, `drop` or `adopt` it is closed. */
export class PartialFile {
  /** what the bytes are the beginning of; undefined while nobody said */
  source: PartialSource | undefined
  bytes = 0
  readonly #file: string
  readonly #checksum: Checksum | undefined
  readonly #isKept: boolean
  readonly #onEnd: () => void
  readonly #fd: number
  #hashes: Map<string, Hash>
  #notedBytes = 0
  #isOpen = true

  constructor(
    file: string,
    { checksum, isKept }: { checksum: Checksum | undefined; isKept: boolean },
    onEnd: () => void,
  ) {
    this.#file = file
    this.#checksum = checksum
    this.#isKept = isKept
    this.#onEnd = onEnd
    this.#hashes = this.#newHashes()
    const note = isKept ? readNote(file + NOTE) : undefined
    if (note === undefined || !isPlainFile(file)) rmSync(file, { recursive: true, force: true })
    const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = constants
    this.#fd = noticeShortSpace(file, () => openSync(file, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, FILE_MODE))
    if (note === undefined || !this.#takeUp(note)) this.restart()
  }

  /** @throws SPACE_SHORT */
  write(chunk: Uint8Array): void {
    writeAll(this.#fd, chunk, this.#file)
    for (const hash of this.#hashes.values()) hash.update(chunk)
    this.bytes += chunk.length
    if (this.bytes - this.#notedBytes >= NOTE_EVERY_BYTES && this.#isWorthKeeping()) this.#note()
  }

  /** Begins again with nothing. @param source  what comes now */
  restart(source?: PartialSource): void {
    rmSync(this.#file + NOTE, { recursive: true, force: true })
    ftruncateSync(this.#fd, 0)
    this.#hashes = this.#newHashes()
    this.source = source
    this.bytes = 0
    this.#notedBytes = 0
  }

  /** Of all bytes. @param algorithm  sha256, or that of the declared checksum */
  digest(algorithm: Checksum['algorithm']): string {
    return this.#hashes.get(algorithm)!.copy().digest('hex')
  }

  /** Closes it and leaves it for a later run, where that run could go on with it; otherwise removes it. */
  keep(): void {
    if (!this.#isOpen) return
    if (this.bytes < MIN_KEPT_BYTES || !this.#isWorthKeeping()) return this.drop()
    try {
      this.#note()
    } catch {
      return this.drop() // a note that cannot be written: nobody could go on
    }
    this.#close()
  }

  drop(): void {
    if (!this.#isOpen) return
    this.#close()
    rmSync(this.#file, { force: true })
    rmSync(this.#file + NOTE, { force: true })
  }

  /** Makes it a blob of `batch`, as it is. */
  adopt(batch: BlobBatch): Sha256 {
    const sha256 = this.digest('sha256') as Sha256
    this.#isOpen = false
    this.#onEnd()
    // First the note: without it, what a crash leaves is rubbish, and not the beginning of anything.
    rmSync(this.#file + NOTE, { force: true })
    batch.adopt(this.#file, this.#fd, sha256)
    return sha256
  }

  #isWorthKeeping(): boolean {
    return this.#isKept && this.source !== undefined && (this.#checksum ?? this.source.validator) !== null
  }

  #newHashes(): Map<string, Hash> {
    const algorithms = new Set(['sha256', this.#checksum?.algorithm ?? 'sha256'])
    return new Map([...algorithms].map((algorithm) => [algorithm, createHash(algorithm)]))
  }

  /** @returns false when it is not what the note says */
  #takeUp({ source, bytes, sha256 }: Note): boolean {
    if (fstatSync(this.#fd).size < bytes) return false
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    const readTo = (end: number): void => {
      while (this.bytes < end) {
        const count = readSync(this.#fd, buffer, 0, Math.min(buffer.length, end - this.bytes), this.bytes)
        if (count === 0) return
        for (const hash of this.#hashes.values()) hash.update(buffer.subarray(0, count))
        this.bytes += count
      }
    }
    readTo(bytes)
    if (this.digest('sha256') !== sha256) return false
    readTo(this.#checksum === undefined ? bytes : Infinity)
    ftruncateSync(this.#fd, this.bytes)
    this.source = source
    this.#notedBytes = bytes
    return true
  }

  #note(): void {
    const head = this.#notedBytes === 0 ? `${JSON.stringify(this.source)}\n` : ''
    const line = `${this.bytes} ${this.digest('sha256')}\n`
    noticeShortSpace(this.#file, () =>
      writeFileSync(this.#file + NOTE, head + line, { flag: head === '' ? 'a' : 'wx', mode: FILE_MODE }),
    )
    this.#notedBytes = this.bytes
  }

  #close(): void {
    this.#isOpen = false
    this.#onEnd()
    closeSync(this.#fd)
  }
}

interface Note {
  source: PartialSource
  bytes: number
  sha256: string
}

/** The last whole line counts: a crash may have cut one off. */
function readNote(file: string): Note | undefined {
  const stats = lstatSync(file, { throwIfNoEntry: false })
  if (stats?.isFile() !== true || stats.size > MAX_NOTE_BYTES) return undefined
  const [head = '', ...lines] = readFileSync(file, 'utf8').split('\n').slice(0, -1)
  const last = /^(\d{1,15}) ([0-9a-f]{64})$/.exec(lines.at(-1) ?? '')
  const source = parseSource(head)
  if (last === null || source === undefined) return undefined
  return { source, bytes: Number(last[1]), sha256: last[2]! }
}

function parseSource(line: string): PartialSource | undefined {
  try {
    const { url, address, validator, totalBytes, isWholeOnly } = JSON.parse(line) as Record<string, unknown>
    if (typeof url !== 'string' || typeof address !== 'string') return undefined
    if (validator !== null && typeof validator !== 'string') return undefined
    if (totalBytes !== null && !Number.isSafeInteger(totalBytes)) return undefined
    const known = { url, address: address as Sha256, validator, totalBytes: totalBytes as number | null }
    return isWholeOnly === true ? { ...known, isWholeOnly } : known
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined
    throw error
  }
}

function isPlainFile(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isFile() === true
}
