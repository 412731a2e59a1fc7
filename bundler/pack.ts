/**
 * Writes the parts of a signed bundle to a stick: `DIR/gapferry/<site>/`. A part has its name only when it is whole: it is
 * written under another, made durable, read back from the medium and judged, then renamed. A crash or a stop leaves parts
 * that are whole and at most one `.part`, which the next run removes, whatever bundle it writes. What is there already,
 * with the same bytes, stays. Where a run wrote one part beside others, those are read again in the end: a stick with less
 * room than it claims writes later bytes over earlier ones.
 *
 * Every bulk byte is hashed twice: for the part's own digest while it is written, for its blob's while it is read back.
 * With the frame (all that is no blob) the second covers the part; a third hash, of a blob on its way out of the store,
 * would find nothing that this does not.
 */
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, renameSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { parsePartName } from '../manifests/bundle.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { withCode } from '../manifests/system-error.ts'
import type { BlobStore } from '../storage/blobs.ts'
import { noticeShortSpace, removeAfter, removeFile, replaceFile, syncFolder, writeAll } from '../storage/durable.ts'
import { BOX_TOOL_NAME } from './box/tool.ts'
import { mendPart, partsThere } from './mend.ts'
import { composePart } from './part-bytes.ts'
import { badMedium, digestOf, judged, readBack, type Judge } from './read-back.ts'
import { MEND } from './rot.ts'
import { slipName } from './slip.ts'
import { splitIntoParts, type BundleContent, type PlannedPart } from './split.ts'
import { checkLimits, checkSpace } from './stick.ts'

export interface PackOptions extends BundleContent {
  blobs: BlobStore
  /** the stick, or any folder */
  toDir: string
  /** the largest part, in bytes; default: one part */
  partSizeBytes?: number
  /** for inspection, beside the parts; never trusted */
  rootFile: Buffer
  verifyPy: Buffer
  /** gapferry-box */
  boxTool: Buffer
  /** judges a part before it gets its name */
  verify: Judge
  /** for people, beside the parts */
  slip?: (files: readonly PackedFile[]) => Buffer
  /** only mend the parts of this bundle that are on the stick, cut as they are there, and in them only what is bad */
  isRepair?: boolean
  /** of a repair: what the parts there may carry instead of `wanted` */
  wantedElse?: BundleContent['wanted']
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
  /** how much of it was bad and written again, where it was mended */
  mendedBytes?: number
}

export interface PackResult {
  files: PackedFile[]
  /** false: what was read back may have come from the system's cache, as this system or file system has no way past it */
  isPastCache: boolean
  /** of a repair: parts that are not on this stick */
  absent: string[]
  /** what all the parts carry */
  wanted: BundleContent['wanted']
}

const AHEAD_BYTES = 32 * 1024 * 1024
const OTHER_FILES = ['root.json', 'verify.py', BOX_TOOL_NAME]
/** One file of a few bytes takes a block, on a stick as much as this. */
const SMALL_FILE_BYTES = 32 * 1024

/** When this resolves, everything is on the medium and it can be pulled.
 *  @throws PART_SIZE_SHORT, SPACE_SHORT (with figures, before anything is written), BLOB_MISSING, BLOB_SIZE_MISMATCH,
 *          BLOB_DIGEST_MISMATCH, MEDIUM_UNUSABLE, PACK_READ_BACK when the medium gives back other bytes than it was given, whatever
 *          `verify` throws, the signal's reason; of a repair BUNDLE_NOT_FOUND. Parts that were finished before stay. */
export async function pack(options: PackOptions): Promise<PackResult> {
  const folder = folderOf(options)
  const { parts, absent, wanted } =
    options.isRepair === true
      ? await partsThere(folder, options)
      : { parts: splitIntoParts(options, options.partSizeBytes), absent: [], wanted: options.wanted }
  checkStore({ ...options, wanted })
  mkdirSync(folder, { recursive: true })
  checkLimits(folder, options.site, parts)
  if (options.isRepair !== true) sweep(folder, options.site)
  const run = new Run(folder, parts, options)
  await run.findKept()
  const check = (): void => checkSpace(folder, run.neededBytes(), options)
  check()
  try {
    await run.writeParts()
  } catch (error) {
    // What was free is not any more: with figures a person knows how much to make room for.
    if (isGapferryError(withCode(error), 'SPACE_SHORT')) check()
    throw error
  }
  await run.judgeAgain()
  run.writeOthers(absent.length === 0)
  return { files: run.files, isPastCache: run.isPastCache, absent, wanted }
}

/** @throws MEDIUM_UNUSABLE: a link would lead elsewhere */
function folderOf({ toDir, site }: PackOptions): string {
  const folder = join(toDir, 'gapferry', site)
  for (const place of [join(toDir, 'gapferry'), folder]) {
    const found = lstatSync(place, { throwIfNoEntry: false })
    if (found?.isDirectory() === true || found === undefined) continue
    throw new GapferryError('MEDIUM_UNUSABLE', `${place}: expected a folder, found a link or a file`, {
      hint: 'remove it, or use another stick',
    })
  }
  return folder
}

class Run {
  readonly files: PackedFile[] = []
  isPastCache = true
  readonly #folder: string
  readonly #parts: PlannedPart[]
  readonly #options: PackOptions
  /** parts that need not be written, those that were included */
  readonly #kept = new Map<string, Sha256>()
  #lastWritten: string | undefined

  constructor(folder: string, parts: PlannedPart[], options: PackOptions) {
    this.#folder = folder
    this.#parts = parts
    this.#options = options
  }

  async findKept(): Promise<void> {
    for (const part of this.#parts) {
      const sha256 = await this.#digestIfThere(part)
      if (sha256 !== undefined) this.#kept.set(part.name, sha256)
    }
  }

  /** Where nothing is to be written, a stick that is full does no harm. What is mended is there already. */
  neededBytes(): number {
    const toWrite = this.#parts.filter(({ name }) => !this.#kept.has(name))
    if (toWrite.length === 0) return 0
    const bytes = this.#options.isRepair === true ? 0 : sumOf(toWrite)
    return bytes + (toWrite.length + OTHER_FILES.length + 1) * SMALL_FILE_BYTES
  }

  async writeParts(): Promise<void> {
    const onBytes = (bytes: number): void => this.#options.onProgress?.(bytes, sumOf(this.#parts))
    for (const part of this.#parts) {
      const { name, bytes } = part
      const kept = this.#kept.get(name)
      if (kept !== undefined) onBytes(bytes)
      const {
        sha256,
        isPastCache = true,
        ...more
      } = kept === undefined ? await this.#write(part, onBytes) : { sha256: kept }
      this.isPastCache &&= isPastCache
      replaceFile(join(this.#folder, `${name}.sha256`), Buffer.from(`${sha256}  ${name}\n`))
      this.files.push({ name, bytes, sha256, isKept: kept !== undefined, ...more })
      this.#kept.set(name, sha256)
      if (kept === undefined) this.#lastWritten = name
    }
  }

  #write(part: PlannedPart, onBytes: OnBytes): Promise<{ sha256: Sha256; isPastCache: boolean; mendedBytes?: number }> {
    const write = this.#options.isRepair === true ? mendPart : writePart
    return write(this.#folder, part, this.#options, onBytes)
  }

  /** All that was there before the last byte was written. */
  async judgeAgain(): Promise<void> {
    if (this.#lastWritten === undefined) return
    for (const part of this.#parts) {
      if (part.name === this.#lastWritten) continue
      const file = join(this.#folder, part.name)
      if ((await judged(file, part, this.#options.verify)) !== undefined) continue
      renameSync(file, `${file}.part`)
      throw badMedium(part.name, 'was whole before the other parts were written, and is not any more')
    }
  }

  writeOthers(isWhole: boolean): void {
    const { slip, site, number, rootFile, verifyPy, boxTool } = this.#options
    if (slip !== undefined && isWhole) replaceFile(join(this.#folder, slipName(site, number)), slip(this.files))
    replaceFile(join(this.#folder, 'root.json'), rootFile)
    replaceFile(join(this.#folder, 'verify.py'), verifyPy, 0o755)
    replaceFile(join(this.#folder, BOX_TOOL_NAME), boxTool, 0o755)
  }

  /** @returns the digest of the part when a file of its name holds exactly its bytes */
  async #digestIfThere(part: PlannedPart): Promise<Sha256 | undefined> {
    const file = join(this.#folder, part.name)
    const found = lstatSync(file, { throwIfNoEntry: false })
    if (found?.isFile() !== true || found.size !== part.bytes) return undefined
    const whole = await judged(file, part, this.#options.verify)
    if (whole === undefined) return undefined
    this.isPastCache &&= whole.isPastCache
    return digestOf(file, this.#options.signal)
  }
}

/** Removes what a crash left: the temporary names of this folder's own files. */
function sweep(folder: string, site: string): void {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.part')) continue
    const file = name.slice(0, -'.part'.length)
    const isPart =
      parsePartName(file.replace(/\.sha256$|\.txt$/, (ending) => (ending === '.txt' ? '.tar' : '')))?.site === site
    if (isPart || OTHER_FILES.includes(file)) removeFile(join(folder, name))
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

function sumOf(parts: PlannedPart[]): number {
  return parts.reduce((total, { bytes }) => total + bytes, 0)
}

export type OnBytes = (bytes: number) => void

async function writePart(
  folder: string,
  part: PlannedPart,
  options: PackOptions,
  onBytes: OnBytes,
): Promise<{ sha256: Sha256; isPastCache: boolean }> {
  const file = join(folder, part.name)
  const temp = `${file}.part`
  try {
    const sha256 = await writeTemp(temp, part, options, onBytes)
    const isPastCache = await readBack(temp, part, sha256, options)
    renameSync(temp, file)
    syncFolder(folder)
    return { sha256, isPastCache }
  } catch (error) {
    removeAfter(temp)
    throw error
  }
}

async function writeTemp(temp: string, part: PlannedPart, options: PackOptions, onBytes: OnBytes): Promise<Sha256> {
  removeFile(temp)
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
