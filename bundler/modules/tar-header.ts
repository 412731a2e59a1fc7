/**
 * Headers of a vendor's tar archive, as GNU tar reads them: ustar, GNU's long names and PAX records, and nothing else.
 * Whatever two readers of tar take for different things is refused, so that what was looked at here is what a box unpacks.
 * Pure; module-archive.ts says which entries a module may have.
 */
import { GapferryError } from '../../manifests/errors.ts'

export const TAR_BLOCK = 512
/** What may stand in front of an entry to describe it: a PAX header or a GNU long name. */
export const MAX_META_BYTES = 64 * 1024
const MAX_SHOWN = 120

/** One header as written; names are latin1, one character for each byte. */
export interface TarHeader {
  /** the type flag; '0' for the old '\0', too */
  type: string
  name: string
  link: string
  bytes: number
}

/** What a header in front of an entry says of it. */
export interface TarMeta {
  name?: string
  link?: string
  /** PAX: must agree with the entry's own */
  bytes?: number
}

// Keys that change what GNU tar makes of an entry, and have no business in a module.
const REFUSED_KEYS = /^(?:GNU\.|SCHILY\.(?:realsize|devminor|devmajor)|hdrcharset$|LIBARCHIVE\.symlinktype$)/
const GLOBAL_REFUSED = ['path', 'linkpath', 'size']

/** @throws MODULE_ARCHIVE naming the module and the entry */
export function badArchive(what: string, why: string, cause?: unknown): GapferryError {
  return new GapferryError('MODULE_ARCHIVE', `${what}: ${why}`, cause === undefined ? {} : { cause })
}

/** A name in a message. */
export function shown(name: string): string {
  return `"${name.length > MAX_SHOWN ? `${name.slice(0, MAX_SHOWN)}…` : name}"`
}

/** @returns undefined for a block of zeros
 *  @throws MODULE_ARCHIVE for a wrong checksum, a format that is neither ustar nor GNU's, and numbers that are none */
export function parseTarHeader(block: Buffer, what: string): TarHeader | undefined {
  if (isZeroBlock(block)) return undefined
  const magic = block.toString('latin1', 257, 265)
  if (octal(block, 148, 8) !== checksumOf(block))
    throw badArchive(what, 'a header of its tar archive has a wrong checksum')
  if (magic !== 'ustar\x0000' && magic !== 'ustar  \0')
    throw badArchive(what, 'its archive is neither ustar nor GNU tar')
  const name = field(block, 0, 100, what)
  const bytes = octal(block, 124, 12)
  if (bytes === undefined) throw badArchive(what, `${shown(name)}: its size is no octal number`)
  const isGnu = magic.startsWith('ustar ')
  // Readers differ in whether these bytes of GNU's format are a folder's name.
  if (isGnu && !isZeroBlock(block.subarray(345))) throw badArchive(what, `${shown(name)}: GNU extensions in its header`)
  const prefix = isGnu ? '' : field(block, 345, 155, what)
  const type = block.toString('latin1', 156, 157)
  return {
    type: type === '\0' ? '0' : type,
    name: prefix === '' ? name : `${prefix}/${name}`,
    link: field(block, 157, 100, what),
    bytes,
  }
}

/** What a 'L', 'K', 'x' or 'g' entry says.
 *  @throws MODULE_ARCHIVE for records that are malformed, doubled, or change how the archive is read */
export function parseTarMeta(type: 'L' | 'K' | 'x' | 'g', body: Buffer, what: string): TarMeta {
  if (type === 'L') return { name: longName(body, what) }
  if (type === 'K') return { link: longName(body, what) }
  const records = paxRecords(body, what)
  const refused = [...records.keys()].find(
    (key) => REFUSED_KEYS.test(key) || (type === 'g' && GLOBAL_REFUSED.includes(key)),
  )
  if (refused !== undefined) throw badArchive(what, `its archive has a PAX record ${shown(refused)}`)
  const [name, link, size] = [records.get('path'), records.get('linkpath'), records.get('size')]
  if (size !== undefined && !/^\d{1,15}$/.test(size))
    throw badArchive(what, 'its archive has a PAX size that is no number')
  return {
    ...(name === undefined ? {} : { name }),
    ...(link === undefined ? {} : { link }),
    ...(size === undefined ? {} : { bytes: Number(size) }),
  }
}

function longName(body: Buffer, what: string): string {
  const end = body.indexOf(0)
  if (end < 1 || !isZeroBlock(body.subarray(end))) throw badArchive(what, 'its archive has a malformed long name')
  return body.toString('latin1', 0, end)
}

/** Each is "LENGTH KEY=VALUE\n", LENGTH counting itself. */
function paxRecords(body: Buffer, what: string): Map<string, string> {
  const records = new Map<string, string>()
  for (let at = 0; at < body.length;) {
    const [head = '', digits = ''] = /^([1-9]\d{0,5}) /.exec(body.toString('latin1', at, at + 8)) ?? []
    const end = at + Number(digits)
    const record = body.toString('latin1', at + head.length, end)
    const equals = record.indexOf('=')
    const isRecord = head !== '' && end <= body.length && equals > 0 && record.endsWith('\n') && !record.includes('\0')
    const key = record.slice(0, equals)
    if (!isRecord || records.has(key)) throw badArchive(what, 'its archive has a malformed PAX header')
    records.set(key, record.slice(equals + 1, -1))
    at = end
  }
  return records
}

/** Text up to the first NUL; nothing may hide behind that. */
function field(block: Buffer, at: number, length: number, what: string): string {
  const text = block.toString('latin1', at, at + length)
  const end = text.indexOf('\0')
  if (end < 0) return text
  if (/[^\0]/.test(text.slice(end)))
    throw badArchive(what, `${shown(text.slice(0, end))}: bytes behind the end of a name`)
  return text.slice(0, end)
}

/** Octal digits, spaces in front, ended by spaces or NULs; undefined for all else, GNU's binary numbers too. */
function octal(block: Buffer, at: number, length: number): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(block.toString('latin1', at, at + length))?.[1]
  return digits === undefined ? undefined : Number.parseInt(digits, 8)
}

function checksumOf(block: Buffer): number {
  let sum = 8 * 32
  for (let i = 0; i < TAR_BLOCK; i++) if (i < 148 || i >= 156) sum += block[i]!
  return sum
}

export function isZeroBlock(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}
