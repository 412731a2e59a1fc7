/**
 * `<package>` elements by a real parser: what a box reads from one, whatever tricks the element plays. It takes half a
 * millisecond for each, and a repository has 30,000: package-quick.ts reads those that play none.
 */
import { GapferryError } from './errors.ts'
import type { Checksum } from './digest.ts'
import { RELATION_KINDS, type RelationKind } from './package-table.ts'
import { parseChecksum } from './repomd.ts'
import type { StringPool } from './string-pool.ts'
import { formatNevra, type Nevra, type Relation } from './rpm-version.ts'
import { childrenNamed, decodeUtf8, escapeXml, parseXml, type XmlElement } from './xml.ts'

/** A package as primary describes it. */
export interface PackageRow extends Nevra {
  /** as formatNevra writes it: unique among the different packages of a repository */
  nevra: string
  /** of the RPM file; its hex is the package's id in filelists and other */
  checksum: Checksum
  /** size of the RPM file */
  bytes: number
  /** where the RPM file is: relative to the repository's base URL, or absolute where the element has an `xml:base` */
  href: string
  /** of the RPM file at the upstream, seconds since 1970 */
  fileTime: number
}

/** The element of a package and what it says beyond the row. */
export interface StrictPackage extends Record<RelationKind, Relation[]> {
  row: PackageRow
  /** the paths that primary lists: those in /etc and bin folders; all others stand in filelists */
  files: string[]
  /** its `<location>` tag */
  location: TagPlace
}

/** Where a tag begins and ends in the bytes of an element. */
export interface TagPlace {
  start: number
  end: number
}

const NAME_PATTERN = /^[A-Za-z0-9_.+-]{1,255}$/
const VERSION_PATTERN = /^[!-,.-9;-~]{1,255}$/
/** What the fields may hold at most. */
export const FIELD_LIMITS = {
  nameLength: 255,
  epoch: 2 ** 31 - 1,
  packageBytes: 2 ** 31 - 1,
  hrefLength: 2048,
  time: 2 ** 40,
} as const
const MIN_ID_LENGTH = 32
const MAX_ID_LENGTH = 128
const ID_TAG = Buffer.from('<package pkgid="')
const CHECKSUM = Buffer.from('<chec')
const GREATER = 0x3e
const LESS = 0x3c
const QUOTE = 0x22
/** `<package pkgid="` and the longest id. */
const MAX_ID_TAG = 150

/** By a real parser: fields count only as children of the package, and none may stand there twice.
 *  @param element  UTF-8, as cut by PackageScanner
 *  @param what  names the document in messages
 *  @throws REPODATA_INVALID where a field is missing or impossible; XML_INVALID */
export function readPackageStrictly(element: Buffer, what: string): StrictPackage {
  const text = decodeUtf8(element, what)
  const root = parseXml(text, what)
  const row = checkFields(fieldsOf(root), what)
  const format = onlyOne(root, 'format', what)
  const location = root.children.find((child) => child.name === 'location')!
  return {
    row,
    ...(Object.fromEntries(RELATION_KINDS.map((kind) => [kind, relations(format, kind, what)])) as Relations),
    files: format === undefined ? [] : childrenNamed(format, 'file').map((file) => file.text),
    location: {
      start: Buffer.byteLength(text.slice(0, location.start)),
      end: Buffer.byteLength(text.slice(0, location.tagEnd)),
    },
  }
}

/** The element with another place for the RPM file, and without `xml:base`; all else as it came. */
export function withHref(element: Buffer, { start, end }: TagPlace, href: string): Buffer {
  const tag = element.toString('utf8', start, end)
  const name = /^<[^\s/>]+/.exec(tag)![0]
  const replaced = `${name} href="${escapeXml(href)}"${tag.endsWith('/>') ? '/>' : '>'}`
  return Buffer.concat([element.subarray(0, start), Buffer.from(replaced), element.subarray(end)])
}

/** Whether an element of primary is about one of the packages `ids`, by its checksum's digits: only good for passing over
 *  what is not wanted, since the element may be anything. */
export function seemsWanted(element: Buffer, ids: StringPool): boolean {
  const start = element.indexOf(GREATER, element.indexOf(CHECKSUM)) + 1
  const end = element.indexOf(LESS, start)
  if (isHex(element, start, end)) return ids.findBytes(element, start, end) !== undefined
  const text = element.toString('latin1', start, Math.min(end, start + MAX_ID_TAG))
  return Boolean(ids.find(text.trim().toLowerCase()))
}

/** The number in `ids` of the `pkgid` of an element of filelists or other; undefined where it is not among them.
 *  @throws REPODATA_INVALID, XML_INVALID */
export function findPackageId(element: Buffer, ids: StringPool, what: string): number | undefined {
  if (ID_TAG.every((byte, i) => element[i] === byte)) {
    const end = element.indexOf(QUOTE, ID_TAG.length)
    if (isHex(element, ID_TAG.length, end)) return ids.findBytes(element, ID_TAG.length, end)
  }
  return ids.find(readPackageId(element, what))
}

/** The `pkgid` of an element of filelists or other. @throws REPODATA_INVALID, XML_INVALID */
export function readPackageId(element: Buffer, what: string): string {
  const quick = /^<package pkgid="([0-9a-f]+)"/.exec(element.toString('latin1', 0, MAX_ID_TAG))?.[1]
  const found = quick ?? (parseXml(element, what).attributes.get('pkgid') ?? '').toLowerCase()
  if (!/^[0-9a-f]{32,128}$/.test(found)) throw invalid(what, 'a package without a usable pkgid')
  return found
}

function isHex(bytes: Buffer, start: number, end: number): boolean {
  if (end - start < MIN_ID_LENGTH || end - start > MAX_ID_LENGTH) return false
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!
    if (byte < 0x30 || (byte > 0x39 && (byte < 0x61 || byte > 0x66))) return false
  }
  return true
}

/** What the upstream wrote, nothing checked. */
type Fields = Record<
  'name' | 'arch' | 'epoch' | 'version' | 'release' | 'type' | 'hex' | 'size' | 'time' | 'href' | 'base',
  string | undefined
>

function fieldsOf(root: XmlElement): Fields {
  const only = (name: string): XmlElement | undefined => {
    const [first, second] = childrenNamed(root, name)
    return second === undefined ? first : undefined
  }
  const version = only('version')?.attributes
  const location = only('location')?.attributes
  return {
    name: only('name')?.text,
    arch: only('arch')?.text,
    epoch: version?.get('epoch'),
    version: version?.get('ver'),
    release: version?.get('rel'),
    type: only('checksum')?.attributes.get('type'),
    hex: only('checksum')?.text,
    size: only('size')?.attributes.get('package'),
    time: only('time')?.attributes.get('file'),
    href: location?.get('href'),
    base: location?.get('xml:base'),
  }
}

function checkFields(fields: Fields, what: string): PackageRow {
  const { name = '', arch = '', epoch = '0', version = '', release = '', href = '', base } = fields
  const of = `${what}: package ${name.slice(0, 80)}`
  if (!NAME_PATTERN.test(name)) throw invalid(of, 'name is missing, twice, or holds what no name holds')
  if (!NAME_PATTERN.test(arch) || arch.includes('-') || arch.includes('.'))
    throw invalid(of, 'arch is missing or twice')
  if (!VERSION_PATTERN.test(version) || !VERSION_PATTERN.test(release)) throw invalid(of, 'version is missing or twice')
  if (href === '' || href.length > FIELD_LIMITS.hrefLength) throw invalid(of, 'location is missing, twice or too long')
  const nevra = { name, epoch: String(integer(epoch, FIELD_LIMITS.epoch, of, 'epoch')), version, release, arch }
  return {
    ...nevra,
    nevra: formatNevra(nevra),
    checksum: parseChecksum(fields.type, fields.hex, of),
    bytes: integer(fields.size, FIELD_LIMITS.packageBytes, of, 'size'),
    href: place(href, base, of),
    fileTime: integer(fields.time ?? '0', FIELD_LIMITS.time, of, 'time'),
  }
}

function place(href: string, base: string | undefined, of: string): string {
  const found = placeOf(href, base)
  if (found === undefined) throw invalid(of, `location "${href}" with base "${base}" is no address`)
  return found
}

/** Where the RPM file is, as in PackageRow, by a location's `href` and `xml:base`; undefined where they make no address. */
export function placeOf(href: string, base: string | undefined): string | undefined {
  // a file name with an epoch is not an address with a scheme
  if (base === undefined) return /^[^/:]+:(?!\/\/)/.test(href) ? `./${href}` : href
  return URL.parse(href, base.endsWith('/') ? base : `${base}/`)?.href
}

function integer(text: string | undefined, max: number, of: string, field: string): number {
  const value = text !== undefined && /^\d{1,13}$/.test(text) ? Number(text) : Number.NaN
  if (!(value <= max)) throw invalid(of, `${field} "${text ?? ''}" is not a number from 0 to ${max}`)
  return value
}

const FLAGS = ['EQ', 'LT', 'LE', 'GT', 'GE'] as const

type Relations = Record<RelationKind, Relation[]>

/** Solvers differ in which of two counts. */
function onlyOne(parent: XmlElement, name: string, what: string): XmlElement | undefined {
  const [first, second] = childrenNamed(parent, name)
  if (second !== undefined) throw invalid(what, `${name} stands there twice`)
  return first
}

function relations(format: XmlElement | undefined, kind: string, what: string): Relation[] {
  const list = format === undefined ? undefined : onlyOne(format, kind, what)
  return (list === undefined ? [] : childrenNamed(list, 'entry')).map(({ attributes }) => {
    const flags = FLAGS.find((known) => known === attributes.get('flags'))
    const relation: Relation = { name: attributes.get('name') ?? '' }
    if (relation.name === '') throw invalid(what, `an entry of ${kind} has no name`)
    if (flags === undefined) return relation
    relation.flags = flags
    relation.epoch = attributes.get('epoch') ?? '0'
    relation.version = attributes.get('ver') ?? ''
    relation.release = attributes.get('rel') ?? ''
    return relation
  })
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPODATA_INVALID', `${what}: ${why}`)
}
