/**
 * Mends the parts of a bundle that a stick spoiled: what is there is compared with what should be, and only what differs is
 * written again, in its place. So it needs no room, and little time on a slow stick. While a part is worked on it has no
 * name but `.part`; where that ends early, the next repair goes on from there.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, lstatSync, openSync, readSync } from 'node:fs'
import { readdirSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { partName } from '../manifests/bundle.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { parsePartHint, type PartHint } from '../manifests/part-hint.ts'
import { noticeShortSpace, removeFile, syncFolder, systemCode } from '../storage/durable.ts'
import { PartSource } from '../storage/part-source.ts'
import { giveAligned, openPastCache, takeAligned } from '../storage/past-cache.ts'
import type { OnBytes, PackOptions } from './pack.ts'
import { composePart } from './part-bytes.ts'
import { readBack } from './read-back.ts'
import { splitAsBefore, splitIntoParts, type PlannedPart } from './split.ts'

const BUFFER_BYTES = 1024 * 1024

/** The parts of the bundle whose files are in `folder`, cut as they are there: as part.json of any of them says, else as
 *  `partSizeBytes` does.
 *  @returns with the names of the others, and what all of them carry: `wanted`, or `wantedElse`
 *  @throws BUNDLE_NOT_FOUND where the folder has none of them */
export async function partsThere(
  folder: string,
  options: PackOptions,
): Promise<{ parts: PlannedPart[]; absent: string[]; wanted: PackOptions['wanted'] }> {
  const found = lstatSync(folder, { throwIfNoEntry: false }) === undefined ? [] : readdirSync(folder)
  const names = new Set(found.map((name) => name.replace(/\.part$/, '')))
  for (const { parts, wanted } of await cuts(folder, names, options)) {
    const there = parts.filter(({ name }) => names.has(name))
    if (there.length === 0) continue
    return { parts: there, absent: parts.filter(({ name }) => !names.has(name)).map(({ name }) => name), wanted }
  }
  const { site, number } = options
  throw new GapferryError('BUNDLE_NOT_FOUND', `${folder}: no part of bundle ${number} of ${site} to mend here`, {
    hint: `to write it: gapferry pack --to DIR; where there are parts of it, give the same --part-size as then`,
  })
}

/** A way in which the bundle may have been cut. */
interface Cut {
  parts: PlannedPart[]
  wanted: PackOptions['wanted']
}

/** The likelier ones first. */
async function cuts(folder: string, names: Set<string>, options: PackOptions): Promise<Cut[]> {
  const contents = [options.wanted, ...(options.wantedElse === undefined ? [] : [options.wantedElse])]
  const found: Cut[] = []
  for (const hint of await hintsThere(folder, names, options)) {
    for (const wanted of contents) {
      const parts = splitAsBefore({ ...options, wanted }, hint.parts)
      if (parts !== undefined) found.push({ parts, wanted })
    }
  }
  // What is left out may lie between the same ends: then the files' sizes tell.
  const fitting = ({ parts }: Cut): number => parts.filter(({ name, bytes }) => sizeOf(folder, name) === bytes).length
  const bySize = (some: Cut[]): Cut[] => some.sort((a, b) => fitting(b) - fitting(a))
  const anew = contents.map((wanted) => ({
    parts: splitIntoParts({ ...options, wanted }, options.partSizeBytes),
    wanted,
  }))
  return [...bySize(found), ...bySize(anew)]
}

/** What the parts that are there say of how the bundle was cut. */
async function hintsThere(folder: string, names: Set<string>, options: PackOptions): Promise<PartHint[]> {
  const found: PartHint[] = []
  for (const name of names) {
    if (!name.endsWith('.tar')) continue
    const file = [name, `${name}.part`].map((one) => join(folder, one)).find(isPlainFile)
    const hint = file === undefined ? undefined : await readHint(file)
    if (hint?.site !== options.site || hint.number !== options.number) continue
    if (partName({ ...hint, parts: hint.parts.length }) === name) found.push(hint)
  }
  return found
}

function sizeOf(folder: string, name: string): number | undefined {
  const file = [name, `${name}.part`].map((one) => join(folder, one)).find(isPlainFile)
  return file === undefined ? undefined : lstatSync(file).size
}

function isPlainFile(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isFile() === true
}

/** What part.json says, where it can be read. It is signed by nobody: it only tells how the parts were cut. */
async function readHint(file: string): Promise<PartHint | undefined> {
  const source = new PartSource(file)
  try {
    for (let entry = await source.next(); entry !== undefined; entry = await source.next()) {
      const bytes = await source.body(entry)
      if (entry.section === 'hint') return parsePartHint(bytes)
    }
  } catch (error) {
    if (!isGapferryError(error)) throw error
  } finally {
    await source.close()
  }
  return undefined
}

/** Makes a part whole that is damaged, cut, or too long.
 *  @throws as writing it does; PACK_READ_BACK where it is not whole afterwards */
export async function mendPart(
  folder: string,
  part: PlannedPart,
  options: PackOptions,
  onBytes: OnBytes,
): Promise<{ sha256: Sha256; isPastCache: boolean; mendedBytes: number }> {
  const file = join(folder, part.name)
  const temp = `${file}.part`
  if (isPlainFile(file)) renameSync(file, temp)
  else removeFile(file) // a link, a pipe: only a plain file is written into
  if (!isPlainFile(temp)) removeFile(temp)
  syncFolder(folder)
  const { sha256, mendedBytes } = await mendTemp(temp, part, options, onBytes)
  const isPastCache = await readBack(temp, part, sha256, options)
  renameSync(temp, file)
  syncFolder(folder)
  return { sha256, isPastCache, mendedBytes }
}

async function mendTemp(
  temp: string,
  part: PlannedPart,
  { blobs, signal }: PackOptions,
  onBytes: OnBytes,
): Promise<{ sha256: Sha256; mendedBytes: number }> {
  const hash = createHash('sha256')
  const fd = openSync(temp, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o644)
  const medium = openPastCache(temp, constants.O_RDONLY | constants.O_NOFOLLOW).fd
  const buffer = takeAligned(BUFFER_BYTES)
  let [at, mendedBytes] = [0, 0]
  const emit = (chunk: Buffer): void => {
    hash.update(chunk)
    if (!isThere(medium, chunk, at, buffer)) {
      writeAt(fd, chunk, at, part.name)
      mendedBytes += chunk.length
    }
    at += chunk.length
    onBytes(chunk.length)
  }
  try {
    await composePart(part.entries, blobs, emit, signal)
    if (fstatSync(fd).size !== part.bytes) ftruncateSync(fd, part.bytes)
    noticeShortSpace(part.name, () => fsyncSync(fd))
    return { sha256: hash.digest('hex') as Sha256, mendedBytes }
  } finally {
    giveAligned(buffer)
    closeSync(medium)
    closeSync(fd)
  }
}

/** @param buffer  as large as the largest chunk; chunks but the last are all of that size, so that positions are aligned */
function isThere(fd: number, chunk: Buffer, at: number, buffer: Buffer): boolean {
  try {
    const count = readSync(fd, buffer, 0, buffer.length, at)
    return count >= chunk.length && buffer.subarray(0, chunk.length).equals(chunk)
  } catch (error) {
    // EINVAL: behind the end of a file that does not end at a block.
    if (['EIO', 'EINVAL'].includes(systemCode(error))) return false
    throw error
  }
}

function writeAt(fd: number, bytes: Buffer, at: number, what: string): void {
  for (let done = 0; done < bytes.length;) {
    done += noticeShortSpace(what, () => writeSync(fd, bytes, done, bytes.length - done, at + done))
  }
}
