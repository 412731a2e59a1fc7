/**
 * The head of an RPM file: lead, signature header, main header. Only what says which package it is; the payload is not
 * looked at, its digest is the metadata's affair. Rule: rpm's file format, version 3 and 4.
 */
import { GapferryError } from './errors.ts'
import { formatNevra, parseNevra, type Nevra } from './rpm-version.ts'

export interface RpmPackage extends Nevra {
  nevra: string
  /** a signature over header or payload is there; whether it is good is not checked here */
  isSigned: boolean
}

/** More than this of a file's beginning is never needed: rpm 4.11 reads no header over 16 MiB. */
export const MAX_RPM_HEADER_BYTES = 16 * 1024 * 1024
const LEAD_BYTES = 96
const LEAD_MAGIC = 0xedabeedb
const HEADER_MAGIC = 0x8eade801
const INTRO_BYTES = 16
const ENTRY_BYTES = 16
const MAX_ENTRIES = 65_536
const TAG = { name: 1000, version: 1001, release: 1002, epoch: 1003, arch: 1022, sourcerpm: 1044, sourcepackage: 1106 }
/** DSA, RSA and OpenPGP over the header, PGP and GPG over header and payload. */
const SIGNATURE_TAGS = [267, 268, 278, 1002, 1005]
const TYPE_INT32 = 4
const TYPE_STRING = 6
const FIELDS = ['name', 'epoch', 'version', 'release', 'arch'] as const

/** @param head  the file's first bytes: all of it, or its first MAX_RPM_HEADER_BYTES
 *  @param what  names the file in messages
 *  @throws RPM_INVALID for what is no RPM, is cut off, or says sizes that do not fit */
export function parseRpm(head: Buffer, what: string): RpmPackage {
  if (head.length < LEAD_BYTES || head.readUInt32BE(0) !== LEAD_MAGIC) {
    throw invalid(what, `is no RPM; it starts with "${head.toString('latin1', 0, 16)}"`)
  }
  const signature = readHeader(head, LEAD_BYTES, what)
  const header = readHeader(head, signature.end + ((8 - (signature.end % 8)) % 8), what)
  const isSource = header.tags.has(TAG.sourcepackage) || !header.tags.has(TAG.sourcerpm)
  const nevra = {
    name: text(header, TAG.name, what),
    epoch: header.tags.has(TAG.epoch) ? String(int32(header, TAG.epoch, what)) : '0',
    version: text(header, TAG.version, what),
    release: text(header, TAG.release, what),
    arch: isSource ? 'src' : text(header, TAG.arch, what),
  }
  return { ...nevra, nevra: formatNevra(nevra), isSigned: SIGNATURE_TAGS.some((tag) => signature.tags.has(tag)) }
}

/** Refuses an RPM that is another package than its repository's metadata says.
 *  @param expected  what the metadata says
 *  @throws RPM_MISMATCH with field, expected and found; RPM_INVALID */
export function checkRpm(head: Buffer, expected: { nevra: string }): RpmPackage {
  const found = parseRpm(head, expected.nevra)
  const want = parseNevra(expected.nevra)
  const field = FIELDS.find((name) => found[name] !== want?.[name])
  if (field === undefined) return found
  throw new GapferryError(
    'RPM_MISMATCH',
    `${expected.nevra}: the file's own header says another ${field}: expected "${want?.[field] ?? ''}", found "${found[field]}"`,
    { hint: 'the upstream is inconsistent; exclude the package or ask the vendor' },
  )
}

interface Header {
  /** tag → its entry */
  tags: Map<number, { type: number; offset: number; count: number }>
  data: Buffer
  /** position after the header */
  end: number
}

function readHeader(head: Buffer, at: number, what: string): Header {
  if (head.length < at + INTRO_BYTES) throw invalid(what, 'is cut off in its header')
  if (head.readUInt32BE(at) !== HEADER_MAGIC) throw invalid(what, `has no header at byte ${at}`)
  const entries = head.readUInt32BE(at + 8)
  const dataBytes = head.readUInt32BE(at + 12)
  if (entries > MAX_ENTRIES || dataBytes > MAX_RPM_HEADER_BYTES)
    throw invalid(what, 'says that its header is too large')
  const dataStart = at + INTRO_BYTES + entries * ENTRY_BYTES
  const end = dataStart + dataBytes
  if (head.length < end) throw invalid(what, 'is cut off in its header')
  const tags: Header['tags'] = new Map()
  for (let entry = at + INTRO_BYTES; entry < dataStart; entry += ENTRY_BYTES) {
    const [tag, type, offset, count] = [0, 4, 8, 12].map((i) => head.readUInt32BE(entry + i)) as [
      number,
      number,
      number,
      number,
    ]
    // The first of two equal tags would be ours, the last perhaps rpm's.
    if (tags.has(tag)) throw invalid(what, `has the header tag ${tag} twice`)
    tags.set(tag, { type, offset, count })
  }
  return { tags, data: head.subarray(dataStart, end), end }
}

function text({ tags, data }: Header, tag: number, what: string): string {
  const entry = tags.get(tag)
  if (entry?.type !== TYPE_STRING) throw invalid(what, `has no header tag ${tag} that is text`)
  const end = data.indexOf(0, entry.offset)
  if (entry.offset >= data.length || end < 0) throw invalid(what, `header tag ${tag} points outside`)
  return data.toString('utf8', entry.offset, end)
}

function int32({ tags, data }: Header, tag: number, what: string): number {
  const entry = tags.get(tag)!
  if (entry.type !== TYPE_INT32 || entry.count < 1 || entry.offset + 4 > data.length) {
    throw invalid(what, `header tag ${tag} is no number`)
  }
  return data.readUInt32BE(entry.offset)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('RPM_INVALID', `${what}: ${why}`)
}
