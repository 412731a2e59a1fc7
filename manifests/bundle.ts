/**
 * The parts of a bundle: plain ustar archives, of which exactly the spelling that we write is read. Rules:
 *   - every header is type '0' with fixed mode, owner and time, its checksum right, its size in plain octal;
 *   - entries come in one order: timestamp, snapshot, targets, roots, trees, part.json, blobs; rising inside each section;
 *   - no name comes twice, no name is outside the scheme, nothing is larger or more numerous than the limits below;
 *   - unused bytes of a block are zero; two blocks of zeros end the archive, and the file.
 * Pure: storage/parts.ts reads the bytes and checks the entries against the metadata. FORMAT.md#parts.
 */
import type { Sha256 } from './digest.ts'
import { GapferryError, type ErrorCode } from './errors.ts'
import { MAX_METADATA_BYTES, type RoleName } from './metadata.ts'
import { MAX_BLOB_BYTES, MAX_TREE_BYTES } from './tree.ts'

export const BLOCK_BYTES = 512
/** The end of an archive: two blocks of zeros. */
export const END_BYTES = 2 * BLOCK_BYTES
export const MAX_HINT_BYTES = 65_536
export const MAX_PART_BLOBS = 20_000
const MAX_NAME_LENGTH = 200

/** How many entries of a section one part may have, and how many bytes an entry and all of them together. */
const LIMITS = {
  timestamp: { count: 1, each: MAX_METADATA_BYTES.timestamp, total: MAX_METADATA_BYTES.timestamp },
  snapshot: { count: 1, each: MAX_METADATA_BYTES.snapshot, total: MAX_METADATA_BYTES.snapshot },
  targets: { count: 1, each: MAX_METADATA_BYTES.targets, total: MAX_METADATA_BYTES.targets },
  root: { count: 256, each: MAX_METADATA_BYTES.root, total: 8 * 2 ** 20 }, // held in memory before anything is verified
  tree: { count: 700, each: MAX_TREE_BYTES, total: 2 * MAX_TREE_BYTES }, // held in memory; a usual one has under 1 MB
  hint: { count: 1, each: MAX_HINT_BYTES, total: MAX_HINT_BYTES },
  blob: { count: MAX_PART_BLOBS, each: MAX_BLOB_BYTES, total: Number.MAX_SAFE_INTEGER },
} as const satisfies Record<Section, { count: number; each: number; total: number }>

/** The sections of a part, in their order. */
const SECTIONS = ['timestamp', 'snapshot', 'targets', 'root', 'tree', 'hint', 'blob'] as const
type Section = RoleName | 'tree' | 'hint' | 'blob'

/** One entry of a part. `name` is the archive name without its folder. */
export type PartEntry = { name: string; bytes: number } & (
  { section: RoleName; version: number } | { section: 'tree' | 'blob'; sha256: Sha256 } | { section: 'hint' }
)

/** What the name of a part's file says; nobody has signed it. */
export interface PartName {
  site: string
  number: number
  /** from 1 */
  part: number
  parts: number
}

/** `hq-7.tar`; `hq-7-2of3.tar` where there is more than one part. */
export function partName({ site, number, part, parts }: PartName): string {
  return parts === 1 ? `${site}-${number}.tar` : `${site}-${number}-${part}of${parts}.tar`
}

/** @returns undefined for a name that `partName` would not give */
export function parsePartName(name: string): PartName | undefined {
  if (name.length > MAX_NAME_LENGTH) return undefined
  const match = /^([a-z0-9._-]+)-([1-9][0-9]*)(?:-([1-9][0-9]*)of([1-9][0-9]*))?\.tar$/.exec(name)
  if (match === null) return undefined
  const [, site, number, part = '1', parts = '1'] = match
  const found = { site: site!, number: Number(number), part: Number(part), parts: Number(parts) }
  return partName(found) === name && found.part <= found.parts ? found : undefined
}

/** The bytes that follow an entry's own, up to the next block. */
export function paddingOf(bytes: number): number {
  return -bytes & (BLOCK_BYTES - 1)
}

/** How many bytes an entry takes in a part: header, content, padding. */
export function entryBytes(bytes: number): number {
  return BLOCK_BYTES + bytes + paddingOf(bytes)
}

/** The fields of a header that never differ: name, offset, bytes as tar-stream writes them. */
const FIXED_FIELDS: readonly [field: string, at: number, text: string][] = [
  ['magic and version', 257, 'ustar\x0000'],
  ['mode', 100, '000644 \0'],
  ['owner', 108, '000000 \x00000000 \0'],
  ['time', 136, '00000000000 '],
  ['link name', 157, '\0'.repeat(100)],
  ['owner names', 265, '\0'.repeat(64)],
  ['device', 329, '000000 \x00000000 \0'],
  ['prefix', 345, '\0'.repeat(BLOCK_BYTES - 345)],
]

/** Reads one header block.
 *  @returns undefined for a block of zeros, which ends the archive
 *  @throws BUNDLE_HEADER_INVALID; BUNDLE_ENTRY_TYPE for links, devices, folders, PAX and GNU extensions; BUNDLE_TOO_LARGE */
export function parseHeader(block: Buffer): { name: string; bytes: number } | undefined {
  if (isZero(block)) return undefined
  const text = (at: number, length: number): string => block.toString('latin1', at, at + length)
  if (text(148, 8) !== `${checksumOf(block).toString(8).padStart(6, '0')} \0`) {
    throw headerInvalid('the checksum is wrong (compressed, packed by another program, or no archive at all?)')
  }
  const name = text(0, 100).replace(/\0+$/, '')
  if (text(156, 1) !== '0') {
    throw new GapferryError('BUNDLE_ENTRY_TYPE', `"${name}": expected a plain file, found type "${text(156, 1)}"`)
  }
  if (name.includes('\0')) throw headerInvalid(`"${name}": bytes behind the end of the name`)
  for (const [field, at, expected] of FIXED_FIELDS) {
    if (text(at, expected.length) !== expected)
      throw headerInvalid(`"${name}": the ${field} is not as gapferry writes it`)
  }
  if (!/^[0-7]{11} $/.test(text(124, 12))) throw headerInvalid(`"${name}": the size is not eleven octal digits`)
  const bytes = Number.parseInt(text(124, 11), 8)
  if (bytes > MAX_BLOB_BYTES) throw tooLarge(`"${name}" says ${bytes} bytes, more than ${MAX_BLOB_BYTES}`)
  return { name, bytes }
}

/** True when all bytes are zero: the padding of an entry, or the end of the archive. */
export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

/** Follows the entries of one part, in reading or in writing, and refuses the first that breaks a rule. */
export class EntryOrder {
  readonly #seen = new Set<string>()
  #section = -1
  #key: string | number = ''
  #count = 0
  #bytes = 0
  #number: number | undefined

  /** @param header  name with folder, size in bytes
   *  @throws BUNDLE_ENTRY_UNKNOWN, BUNDLE_ENTRY_DUPLICATE, BUNDLE_ENTRY_ORDER, BUNDLE_MIXED (snapshot and targets of
   *  different numbers), BUNDLE_TOO_LARGE */
  next(header: { name: string; bytes: number }): PartEntry {
    const entry = parseEntry(header)
    if (this.#seen.has(header.name)) throw refused('BUNDLE_ENTRY_DUPLICATE', header.name, 'comes twice')
    this.#seen.add(header.name)
    this.#checkOrder(entry, header.name)
    this.#checkNumber(entry)
    this.#checkLimits(entry, header.name)
    return entry
  }

  /** The archive ends here.
   *  @throws BUNDLE_ENTRY_MISSING before part.json: what comes up to it, every part has */
  end(): void {
    const missing = SECTIONS[this.#section + 1]
    if (missing === undefined || missing === 'blob') return
    throw new GapferryError('BUNDLE_ENTRY_MISSING', `expected ${DESCRIPTIONS[missing]}, found the end of the archive`)
  }

  #checkOrder(entry: PartEntry, name: string): void {
    const section = SECTIONS.indexOf(entry.section)
    const key = 'version' in entry ? entry.version : entry.name
    const follows = section === this.#section ? key > this.#key : section === this.#section + 1
    if (!follows) {
      const next = SECTIONS[this.#section + 1]
      throw refused(
        'BUNDLE_ENTRY_ORDER',
        name,
        `stands at the wrong place${next ? ` (next: ${DESCRIPTIONS[next]})` : ''}`,
      )
    }
    if (section !== this.#section) [this.#section, this.#count, this.#bytes] = [section, 0, 0]
    this.#key = key
  }

  #checkNumber(entry: PartEntry): void {
    if (entry.section !== 'snapshot' && entry.section !== 'targets') return
    this.#number ??= entry.version
    if (this.#number === entry.version) return
    throw refused('BUNDLE_MIXED', entry.name, `the snapshot has number ${this.#number}`)
  }

  #checkLimits(entry: PartEntry, name: string): void {
    const { count, each, total } = LIMITS[entry.section]
    this.#count += 1
    this.#bytes += entry.bytes
    if (this.#count > count) throw tooLarge(`${name}: one ${entry.section} more than the ${count} that a part may have`)
    if (entry.bytes > each) throw tooLarge(`${name}: ${entry.bytes} bytes, more than ${each}`)
    if (this.#bytes > total) throw tooLarge(`${name}: the entries of its kind have more than ${total} bytes`)
  }
}

const DESCRIPTIONS: Record<Section, string> = {
  timestamp: 'metadata/timestamp.json',
  snapshot: 'metadata/NUMBER.snapshot.json',
  targets: 'metadata/NUMBER.targets.json',
  root: 'metadata/VERSION.root.json',
  tree: 'trees/SHA256',
  hint: 'part.json',
  blob: 'blobs/SHA256',
}

function parseEntry({ name, bytes }: { name: string; bytes: number }): PartEntry {
  if (name === 'metadata/timestamp.json') return { section: 'timestamp', name: 'timestamp.json', version: 0, bytes }
  if (name === 'part.json') return { section: 'hint', name, bytes }
  const role = /^metadata\/(([1-9][0-9]{0,12})\.(snapshot|targets|root)\.json)$/.exec(name)
  if (role !== null) return { section: role[3] as RoleName, name: role[1]!, version: Number(role[2]), bytes }
  const content = /^(tree|blob)s\/([0-9a-f]{64})$/.exec(name)
  if (content === null) throw refused('BUNDLE_ENTRY_UNKNOWN', name, 'is no name that a part may have')
  return { section: content[1] as 'tree' | 'blob', name: content[2]!, sha256: content[2] as Sha256, bytes }
}

/** The sum of all bytes, those of the checksum itself counted as spaces. */
function checksumOf(block: Buffer): number {
  let sum = 8 * 32
  for (let i = 0; i < BLOCK_BYTES; i++) if (i < 148 || i >= 156) sum += block[i]!
  return sum
}

function refused(code: ErrorCode, name: string, why: string): GapferryError {
  return new GapferryError(code, `"${name}" ${why}`)
}

function headerInvalid(why: string): GapferryError {
  return new GapferryError('BUNDLE_HEADER_INVALID', why)
}

function tooLarge(why: string): GapferryError {
  return new GapferryError('BUNDLE_TOO_LARGE', why)
}
