/**
 * Writes the parts of a signed bundle to a stick: `DIR/gapferry/<site>/`. A part has its name only when it is whole: it is
 * written under another, made durable, read back from the medium and judged, then renamed. A crash or a stop leaves parts
 * that are whole and at most one `.part`, which the next run removes, whatever bundle it writes. What is there already,
 * with the same bytes, stays.
 *
 * Every bulk byte is hashed twice: for the part's own digest while it is written, for its blob's while it is read back.
 * With the frame (all that is no blob) the second covers the part; a third hash, of a blob on its way out of the store,
 * would find nothing that this does not.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { parsePartName } from '../manifests/bundle.ts'
import { formatBytes } from '../manifests/console.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { withCode } from '../manifests/system-error.ts'
import type { BlobStore } from '../storage/blobs.ts'
import { noticeShortSpace, replaceFile, syncFolder, writeAll } from '../storage/durable.ts'
import { composePart, frameOf } from './part-bytes.ts'
import { MEND } from './rot.ts'
import { splitIntoParts, type BundleContent, type PlannedPart } from './split.ts'

export interface PackOptions extends BundleContent {
  blobs: BlobStore
  /** the stick, or any folder */
  toDir: string
  /** the largest part, in bytes; default: one part */
  partSizeBytes?: number
  /** for inspection, beside the parts; never trusted */
  rootFile: Buffer
  verifyPy: Buffer
  /** judges a part before it gets its name: reads every byte of it, checks each blob's digest
   *  @returns the SHA-256 over all that is no blob's content */
  verify: (file: string) => Promise<Sha256>
  signal?: AbortSignal
  /** bytes written since the last call, and all that will be */
  onProgress?: (bytes: number, totalBytes: number) => void
}

export interface PackedFile {
  name: string
  bytes: number
  sha256: Sha256
  /** nothing was written: a file of this name and these bytes stood there */
  isKept: boolean
}

const BUFFER_BYTES = 1024 * 1024
const AHEAD_BYTES = 32 * 1024 * 1024
const OTHER_FILES = ['root.json', 'verify.py']
/** One file of a few bytes takes a block, on a stick as much as this. */
const SMALL_FILE_BYTES = 32 * 1024

/** When this resolves, everything is on the medium and it can be pulled.
 *  @throws PART_SIZE_SHORT, SPACE_SHORT (with both figures, before anything is written), BLOB_MISSING, BLOB_SIZE_MISMATCH,
 *          BLOB_DIGEST_MISMATCH, PACK_READ_BACK when the medium gives back other bytes than it was given, whatever `verify` throws,
 *          the signal's reason. Parts that were finished before stay. */
export async function pack(options: PackOptions): Promise<{ files: PackedFile[] }> {
  const parts = splitIntoParts(options, options.partSizeBytes)
  checkStore(options)
  const folder = join(options.toDir, 'gapferry', options.site)
  mkdirSync(folder, { recursive: true })
  sweep(folder, options.site)
  const kept = new Map<string, Sha256>()
  for (const part of parts) {
    const sha256 = await digestIfThere(folder, part, options)
    if (sha256 !== undefined) kept.set(part.name, sha256)
  }
  checkSpace(folder, parts, kept)
  try {
    return { files: await writeFiles(folder, parts, kept, options) }
  } catch (error) {
    // What was free is not any more: with figures a person knows how much to make room for.
    if (isGapferryError(withCode(error), 'SPACE_SHORT')) checkSpace(folder, parts, kept)
    throw error
  }
}

/** @param kept  parts that need not be written; those that are written are added */
async function writeFiles(
  folder: string,
  parts: PlannedPart[],
  kept: Map<string, Sha256>,
  options: PackOptions,
): Promise<PackedFile[]> {
  const onBytes = (bytes: number): void => options.onProgress?.(bytes, sumOf(parts))
  const files: PackedFile[] = []
  for (const part of parts) {
    const isKept = kept.has(part.name)
    const sha256 = kept.get(part.name) ?? (await writePart(folder, part, options, onBytes))
    if (isKept) onBytes(part.bytes)
    replaceFile(join(folder, `${part.name}.sha256`), Buffer.from(`${sha256}  ${part.name}\n`))
    files.push({ name: part.name, bytes: part.bytes, sha256, isKept })
    kept.set(part.name, sha256)
  }
  replaceFile(join(folder, 'root.json'), options.rootFile)
  replaceFile(join(folder, 'verify.py'), options.verifyPy, 0o755)
  return files
}

/** Removes what a crash left: the temporary names of this folder's own files. */
function sweep(folder: string, site: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.part')) continue
    const file = name.slice(0, -'.part'.length)
    const isPart = parsePartName(file.replace(/\.sha256$/, ''))?.site === site
    if (isPart || OTHER_FILES.includes(file)) rmSync(join(folder, name), { force: true })
  }
}

/** Looks for all blobs before the first byte is written; their digests are checked when they are read back. */
function checkStore({ wanted, blobs }: PackOptions): void {
  for (const [sha256, bytes] of wanted) {
    const found = blobs.sizeOf(sha256)
    if (found === undefined) throw new GapferryError('BLOB_MISSING', `blob ${sha256} is not in the store`, PULL_HINT)
    if (found === bytes) continue
    throw new GapferryError('BLOB_SIZE_MISMATCH', `blob ${sha256}: expected ${bytes} bytes, found ${found}`, MEND)
  }
}

const PULL_HINT = { hint: 'gapferry pull' }

/** @returns the digest of the part when a file of its name holds exactly its bytes */
async function digestIfThere(folder: string, part: PlannedPart, options: PackOptions): Promise<Sha256 | undefined> {
  const file = join(folder, part.name)
  const found = lstatSync(file, { throwIfNoEntry: false })
  if (found?.isFile() !== true || found.size !== part.bytes) return undefined
  dropCache(file)
  const frame = await options.verify(file).catch((error: unknown) => {
    if (isGapferryError(error)) return undefined
    throw error
  })
  return frame === (await frameOf(part.entries)) ? digestOf(file, options.signal) : undefined
}

function sumOf(parts: PlannedPart[]): number {
  return parts.reduce((total, { bytes }) => total + bytes, 0)
}

function checkSpace(folder: string, parts: PlannedPart[], kept: ReadonlyMap<string, unknown>): void {
  const toWrite = parts.filter(({ name }) => !kept.has(name))
  // Where nothing is to be written, a stick that is full does no harm.
  const needed = toWrite.length === 0 ? 0 : sumOf(toWrite) + (toWrite.length + OTHER_FILES.length) * SMALL_FILE_BYTES
  const { bavail, bsize } = statfsSync(folder)
  const free = bavail * bsize
  if (needed <= free) return
  throw new GapferryError('SPACE_SHORT', `${folder}: ${formatBytes(needed)} to write, ${formatBytes(free)} free`, {
    hint: 'use a larger stick; or --part-size, and copy the parts to several',
  })
}

type OnBytes = (bytes: number) => void

async function writePart(folder: string, part: PlannedPart, options: PackOptions, onBytes: OnBytes): Promise<Sha256> {
  const file = join(folder, part.name)
  const temp = `${file}.part`
  try {
    const sha256 = await writeTemp(temp, part, options, onBytes)
    await readBack(temp, part, sha256, options)
    renameSync(temp, file)
    syncFolder(folder)
    return sha256
  } finally {
    rmSync(temp, { force: true })
  }
}

async function writeTemp(temp: string, part: PlannedPart, options: PackOptions, onBytes: OnBytes): Promise<Sha256> {
  rmSync(temp, { force: true })
  const hash = createHash('sha256')
  const handle = await open(temp, 'wx', 0o644)
  const ahead = new WriteAhead(() => handle.datasync())
  try {
    const emit = (chunk: Buffer): void => {
      hash.update(chunk)
      writeAll(handle.fd, chunk, part.name)
      ahead.wrote(chunk.length)
      onBytes(chunk.length)
    }
    await composePart(part.entries, options.blobs, emit, options.signal)
    await ahead.end()
    await handle.sync()
  } catch (error) {
    return noticeShortSpace(part.name, () => {
      throw error
    })
  } finally {
    await ahead.end().catch(() => undefined) // not beside a close
    await handle.close()
  }
  return hash.digest('hex') as Sha256
}

/** Keeps the medium busy while the rest is read and hashed: left to itself the system begins to write when it is told to
 *  sync, at the end. */
class WriteAhead {
  readonly #sync: () => Promise<void>
  #waiting = 0
  #isBusy = false
  #last = Promise.resolve()

  constructor(sync: () => Promise<void>) {
    this.#sync = sync
  }

  wrote(bytes: number): void {
    this.#waiting += bytes
    if (this.#isBusy || this.#waiting < AHEAD_BYTES) return
    this.#waiting = 0
    this.#isBusy = true
    this.#last = this.#sync().then(() => void (this.#isBusy = false))
    this.#last.catch(() => undefined) // it stays busy, and `end` throws: the system may tell of an error only once
  }

  /** @throws what the system said of a write that failed */
  async end(): Promise<void> {
    await this.#last
  }
}

/** Judges what the medium gives back, not what the cache remembers of what was written.
 *  @param sha256  of what was written */
async function readBack(temp: string, part: PlannedPart, sha256: Sha256, options: PackOptions): Promise<void> {
  dropCache(temp)
  let cause: unknown
  try {
    if ((await options.verify(temp)) === (await frameOf(part.entries))) return
  } catch (error) {
    cause = error
  }
  // Which of the two is bad, the medium or what was to be written?
  const found = await digestOf(temp, options.signal)
  if (found === sha256 && cause !== undefined) throw explainRot(part.name, cause)
  throw new GapferryError('PACK_READ_BACK', `${part.name}: wrote sha256 ${sha256}, read back ${found}`, {
    hint: 'the medium is faulty: use another stick',
    cause,
  })
}

/** What was written is what the store gave. The bundle stays signed: with the file mended, the next run writes the same one. */
function explainRot(name: string, cause: unknown): unknown {
  if (!isGapferryError(cause, 'BLOB_DIGEST_MISMATCH')) return cause
  const what = cause.message.replace(`${name}.part: `, '')
  return new GapferryError(cause.code, `${name} was not written: a file of the store is damaged: ${what}`, {
    ...MEND,
    cause,
  })
}

async function digestOf(file: string, signal?: AbortSignal): Promise<Sha256> {
  const hash = createHash('sha256')
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
  const fd = openSync(file, 'r')
  try {
    for (;;) {
      const count = readSync(fd, buffer, 0, buffer.length, null)
      if (count === 0) return hash.digest('hex') as Sha256
      hash.update(buffer.subarray(0, count))
      await setImmediate()
      signal?.throwIfAborted()
    }
  } finally {
    closeSync(fd)
  }
}

/** Node has no posix_fadvise; dd does it (`iflag=nocache`, count=0: the whole file). Where there is no such dd the read
 *  may come from the cache and proves less. */
function dropCache(file: string): void {
  spawnSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' })
}
