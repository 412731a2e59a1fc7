/**
 * repomd.xml: the index of a repository's metadata. Read as yum 3.4.3 reads it (namespaces and `xml:base` do not count),
 * written so that yum 3.4.3 and dnf read it. Rule: createrepo's format, yum's repoMDObject.
 */
import type { Checksum } from './digest.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import { childrenNamed, escapeXml, parseXml, type XmlElement } from './xml.ts'

/** One file of the metadata. */
export interface RepomdData {
  /** primary, filelists, other, primary_db … */
  type: string
  /** of the file as it is sent */
  checksum: Checksum
  /** of the file when it is unpacked */
  openChecksum?: Checksum
  /** relative to the repository's base URL */
  href: string
  /** seconds since 1970; 0 where the upstream's is no number */
  timestamp: number
  /** size as sent */
  bytes?: number
  /** size when unpacked */
  openBytes?: number
}

export interface Repomd {
  revision: string
  data: RepomdData[]
}

/** yum itself has no limit; the largest seen is 20 kB. */
export const MAX_REPOMD_BYTES = 1024 * 1024
const MAX_DATA = 1000
const MAX_SIZE = 2 ** 40
/** How long the digits of a checksum are. */
export const HEX_DIGITS = { md5: 32, sha1: 40, sha256: 64, sha384: 96, sha512: 128 } as const

/** @param what  names the file in messages: its URL
 *  @throws REPOMD_INVALID also for what is no XML at all; it says what came instead */
export function parseRepomd(bytes: Uint8Array, what: string): Repomd {
  if (bytes.length > MAX_REPOMD_BYTES) throw invalid(what, `larger than ${MAX_REPOMD_BYTES} bytes`)
  const root = parseRoot(bytes, what)
  if (root.name !== 'repomd') throw invalid(what, `expected <repomd>, found <${root.name}>`)
  const data = childrenNamed(root, 'data')
  if (data.length > MAX_DATA) throw invalid(what, `more than ${MAX_DATA} files`)
  return {
    revision: textOf(root, 'revision') ?? '',
    data: data.map((element) => parseData(element, what)),
  }
}

/** The bytes of a repomd.xml: the same for the same values. */
export function writeRepomd({ revision, data }: Repomd): Buffer {
  const lines = [
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">',
    `  <revision>${escapeXml(revision)}</revision>`,
    ...data.flatMap(writeData),
    '</repomd>',
    '',
  ]
  return Buffer.from(lines.join('\n'))
}

/** The file of this type. Of several the smallest, as yum chooses. */
export function dataOfType(repomd: Repomd, type: string): RepomdData | undefined {
  return repomd.data
    .filter((data) => data.type === type)
    .reduce<RepomdData | undefined>((best, data) => (best && !isSmaller(data, best) ? best : data), undefined)
}

/** What yum takes for the age of the repository: the newest timestamp of all files. */
export function newestTimestamp(repomd: Repomd): number {
  return Math.max(0, ...repomd.data.map((data) => data.timestamp))
}

/** A declared checksum; `sha` is sha1. @throws REPODATA_INVALID; `what` says where it stands */
export function parseChecksum(type: string | undefined, hex: string | undefined, what: string): Checksum {
  const algorithm = type === 'sha' ? 'sha1' : type
  if (algorithm === undefined || !Object.hasOwn(HEX_DIGITS, algorithm)) {
    throw new GapferryError('REPODATA_INVALID', `${what}: checksum type "${type ?? ''}" is not known here`)
  }
  const known = algorithm as Checksum['algorithm']
  const digits = hex?.trim().toLowerCase() ?? ''
  if (!/^[0-9a-f]+$/.test(digits) || digits.length !== HEX_DIGITS[known]) {
    throw new GapferryError('REPODATA_INVALID', `${what}: "${digits.slice(0, 140)}" is not a ${known} checksum`)
  }
  return { algorithm: known, hex: digits }
}

function parseRoot(bytes: Uint8Array, what: string): XmlElement {
  try {
    return parseXml(bytes, what)
  } catch (cause) {
    if (!isGapferryError(cause, 'XML_INVALID')) throw cause
    const start = Buffer.from(bytes.subarray(0, 60)).toString('utf8')
    throw new GapferryError('REPOMD_INVALID', `${cause.message}; it starts with "${start}"`, { cause })
  }
}

function parseData(element: XmlElement, what: string): RepomdData {
  const type = element.attributes.get('type') ?? ''
  const of = `${what}: data "${type.slice(0, 80)}"`
  const data: RepomdData = {
    type,
    checksum: checksumOf(element, 'checksum', of) ?? missing(of, 'checksum'),
    href: parseHref(childrenNamed(element, 'location')[0]?.attributes.get('href'), of),
    timestamp: parseTimestamp(textOf(element, 'timestamp')),
  }
  const openChecksum = checksumOf(element, 'open-checksum', of)
  const bytes = sizeOf(element, 'size', of)
  const openBytes = sizeOf(element, 'open-size', of)
  if (openChecksum !== undefined) data.openChecksum = openChecksum
  if (bytes !== undefined) data.bytes = bytes
  if (openBytes !== undefined) data.openBytes = openBytes
  return data
}

function checksumOf(element: XmlElement, name: string, of: string): Checksum | undefined {
  const [child] = childrenNamed(element, name)
  return child === undefined ? undefined : parseChecksum(child.attributes.get('type'), child.text, `${of} ${name}`)
}

function sizeOf(element: XmlElement, name: string, of: string): number | undefined {
  const text = textOf(element, name)
  if (text === undefined) return undefined
  const size = /^\d{1,13}$/.test(text) ? Number(text) : Number.NaN
  if (!(size <= MAX_SIZE)) throw invalid(of, `${name} "${text.slice(0, 40)}" is not a size`)
  return size
}

function parseHref(href: string | undefined, of: string): string {
  if (href === undefined || href === '') return missing(of, 'location')
  if (href.length > 2048 || href.startsWith('/') || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(href)) {
    throw invalid(of, `location "${href.slice(0, 200)}" is not relative to the repository`)
  }
  return href
}

/** Some old tools wrote fractions. yum does not count those; here they count, so that ours are newer for certain. */
function parseTimestamp(text: string | undefined): number {
  return text !== undefined && /^\d{1,12}(?:\.\d*)?$/.test(text) ? Math.floor(Number(text)) : 0
}

function textOf(element: XmlElement, name: string): string | undefined {
  return childrenNamed(element, name)[0]?.text.trim()
}

function writeData({ type, checksum, openChecksum, href, timestamp, bytes, openBytes }: RepomdData): string[] {
  return [
    `  <data type="${escapeXml(type)}">`,
    writeChecksum('checksum', checksum),
    ...(openChecksum === undefined ? [] : [writeChecksum('open-checksum', openChecksum)]),
    `    <location href="${escapeXml(href)}"/>`,
    `    <timestamp>${timestamp}</timestamp>`,
    ...(bytes === undefined ? [] : [`    <size>${bytes}</size>`]),
    ...(openBytes === undefined ? [] : [`    <open-size>${openBytes}</open-size>`]),
    '  </data>',
  ]
}

function writeChecksum(name: string, { algorithm, hex }: Checksum): string {
  return `    <${name} type="${algorithm}">${hex}</${name}>`
}

function isSmaller(data: RepomdData, than: RepomdData): boolean {
  return data.bytes !== undefined && than.bytes !== undefined && data.bytes < than.bytes
}

function missing(of: string, field: string): never {
  throw invalid(of, `has no ${field}`)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPOMD_INVALID', `${what}: ${why}`)
}
