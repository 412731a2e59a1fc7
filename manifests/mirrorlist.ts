/**
 * Where a repository's base URLs come from: yum's variables, mirrorlist and metalink, read as yum 3.4.3 reads them
 * (parser.varReplace, yumRepo._readMirrorList, metalink.MetaLinkRepoMD).
 */
import { hash } from 'node:crypto'
import { GapferryError, isGapferryError } from './errors.ts'
import { newestTimestamp, type Repomd } from './repomd.ts'
import { childrenNamed, parseXml, type XmlElement } from './xml.ts'

/** What a metalink says of one state of repomd.xml. */
export interface RepomdFacts {
  /** newest timestamp in it, seconds since 1970 */
  timestamp: number
  bytes: number
  /** algorithm → hex digits in lower case; only those that yum computes */
  hashes: Map<string, string>
}

export interface Metalink {
  /** the newest state first, then the older ones that are accepted too */
  accepted: RepomdFacts[]
  /** base URLs as they stand there, best first, one per host; variables not yet expanded */
  baseurls: string[]
}

export const MAX_MIRRORLIST_BYTES = 5 * 1024 * 1024
const MAX_BASEURLS = 100
const REPOMD_PATH = '/repodata/repomd.xml'
const HASHES = ['sha256', 'sha512'] as const

/** `text` with yum's variables filled in. A name is as long as its letters go (`$releasever` in `$releasever7` is none),
 *  upper and lower case count alike, an unknown one stays as it is.
 *  @param vars  without the `$` */
export function expandVariables(text: string, vars: Readonly<Record<string, string>>): string {
  const known = new Map(Object.entries(vars).map(([name, value]) => [name.toLowerCase(), value]))
  return text.replace(/\$(\w+)/g, (whole, name: string) => known.get(name.toLowerCase()) ?? whole)
}

/** A base URL as it is used: variables filled in, with `/` at the end of its path; undefined unless http(s). */
export function toBaseurl(text: string, vars: Readonly<Record<string, string>>): string | undefined {
  const url = URL.parse(expandVariables(text, vars))
  if (url === null || !['http:', 'https:'].includes(url.protocol)) return undefined
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  return url.href
}

/** The base URLs of a mirrorlist, variables not yet expanded: every line that is one word with a scheme.
 *  @param what  names the list in messages: its URL
 *  @throws MIRRORLIST_EMPTY saying what came instead */
export function parseMirrorlist(bytes: Uint8Array, what: string): string[] {
  const text = Buffer.from(bytes.subarray(0, MAX_MIRRORLIST_BYTES)).toString('utf8')
  const lines = text.split('\n').filter((line) => /^\w+:\/\/\S+\s*$/.test(line))
  if (lines.length === 0) {
    throw new GapferryError('MIRRORLIST_EMPTY', `${what}: lists no mirror; it starts with "${text.slice(0, 60)}"`)
  }
  return lines.slice(0, MAX_BASEURLS).map((line) => line.trimEnd().replaceAll('$ARCH', '$BASEARCH'))
}

/** @param what  names the file in messages: its URL
 *  @throws METALINK_INVALID also for what is no XML at all; it says what came instead */
export function parseMetalink(bytes: Uint8Array, what: string): Metalink {
  if (bytes.length > MAX_MIRRORLIST_BYTES) throw invalid(what, `larger than ${MAX_MIRRORLIST_BYTES} bytes`)
  const files = childrenNamed(parseRoot(bytes, what), 'files')
    .flatMap((list) => childrenNamed(list, 'file'))
    .filter((file) => (file.attributes.get('name') ?? '').split('/').at(-1) === 'repomd.xml')
  const [file, second] = files
  if (file === undefined) throw invalid(what, 'names no repomd.xml')
  if (second !== undefined) throw invalid(what, 'names repomd.xml twice')
  const alternates = childrenNamed(file, 'alternates').flatMap((list) => childrenNamed(list, 'alternate'))
  const accepted = [file, ...alternates].map((element) => parseFacts(element, what))
  const baseurls = mirrorsOf(file)
  if (baseurls.length === 0) throw invalid(what, 'names no http or https mirror')
  return { accepted, baseurls }
}

/** The state of a metalink that these bytes are. Timestamp, size and every hash must agree.
 *  @param what  names the bytes in messages: their URL
 *  @throws METALINK_MISMATCH */
export function matchMetalink(metalink: Metalink, bytes: Uint8Array, repomd: Repomd, what: string): RepomdFacts {
  const timestamp = newestTimestamp(repomd)
  const found = metalink.accepted.find(
    (facts) =>
      facts.timestamp === timestamp &&
      facts.bytes === bytes.length &&
      [...facts.hashes].every(([algorithm, hex]) => hash(algorithm, bytes, 'hex') === hex),
  )
  if (found !== undefined) return found
  const [newest] = metalink.accepted
  throw new GapferryError(
    'METALINK_MISMATCH',
    `${what}: expected one of the ${metalink.accepted.length} states the metalink accepts (newest: ${newest!.bytes} bytes, ` +
      `timestamp ${newest!.timestamp}), found ${bytes.length} bytes, timestamp ${timestamp}`,
  )
}

function parseRoot(bytes: Uint8Array, what: string): XmlElement {
  try {
    const root = parseXml(bytes, what)
    if (root.name !== 'metalink') throw invalid(what, `expected <metalink>, found <${root.name}>`)
    return root
  } catch (cause) {
    if (!isGapferryError(cause, 'XML_INVALID')) throw cause
    const start = Buffer.from(bytes.subarray(0, 60)).toString('utf8')
    throw new GapferryError('METALINK_INVALID', `${cause.message}; it starts with "${start}"`, { cause })
  }
}

function parseFacts(element: XmlElement, what: string): RepomdFacts {
  const hashes = new Map<string, string>()
  for (const one of childrenNamed(element, 'verification').flatMap((list) => childrenNamed(list, 'hash'))) {
    const algorithm = HASHES.find((known) => known === one.attributes.get('type'))
    if (algorithm !== undefined) hashes.set(algorithm, one.text.trim().toLowerCase())
  }
  if (hashes.size === 0) throw invalid(what, 'has no sha256 or sha512 of repomd.xml')
  return { timestamp: numberOf(element, 'timestamp', what), bytes: numberOf(element, 'size', what), hashes }
}

function numberOf(element: XmlElement, name: string, what: string): number {
  const text = childrenNamed(element, name)[0]?.text.trim() ?? ''
  if (!/^\d{1,13}$/.test(text)) throw invalid(what, `${name} of repomd.xml is missing or no number`)
  return Number(text)
}

/** Highest preference first, of equals https first. The first of a host stands for the host, usable or not. */
function mirrorsOf(file: XmlElement): string[] {
  const hosts = new Set<string>()
  return childrenNamed(file, 'resources')
    .flatMap((list) => childrenNamed(list, 'url'))
    .sort((a, b) => rank(b) - rank(a))
    .map((url) => url.text.trim())
    .filter((url) => {
      const host = /^https?:\/\/(?:[^/@]*@)?([^/]+)\//.exec(url)?.[1]
      if (host === undefined || hosts.has(host)) return false
      hosts.add(host)
      return url.endsWith(REPOMD_PATH)
    })
    .slice(0, MAX_BASEURLS)
    .map((url) => url.slice(0, -REPOMD_PATH.length))
}

function rank(url: XmlElement): number {
  const preference = Number(url.attributes.get('preference') ?? '-1')
  const protocol = url.attributes.get('type') ?? url.attributes.get('protocol')
  return (Number.isFinite(preference) ? preference : -1) * 2 + (protocol === 'https' ? 1 : 0)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('METALINK_INVALID', `${what}: ${why}`)
}
