/**
 * A tree is the complete state of one origin: every path a box may ask for, and the blob that answers it.
 * It is canonical JSON, so that equal trees have equal digests; its SHA-256 is a TUF target of the bundle, and through it
 * every blob is bound to the pinned root. Fields and limits: FORMAT.md#trees.
 */
import { GapferryError } from './errors.ts'
import { parseSha256, type Sha256 } from './digest.ts'
import { canonicalJson, isCanonicalJson } from './json.ts'
import { parseTreePath, type TreePath } from './path.ts'

/** `current`: what the bundle is about. `previous`: the content before, stamped newer. `return`: current, newer still. */
export type TreeRole = 'current' | 'previous' | 'return'
export const TREE_ROLES: readonly TreeRole[] = ['current', 'previous', 'return']

/** `immutable`: one path, one blob, for ever (per origin). `pointer`: changes with each release. `companion`: belongs to
 *  a pointer and must be answered from the same tree (repomd.xml.asc). */
export type EntryKind = 'immutable' | 'pointer' | 'companion'

/** What the laptop found out about the upstream's own signature over these bytes. */
export type Verdict = 'good' | 'bad' | 'unsigned' | 'unchecked'

export interface TreeEntry {
  sha256: Sha256
  bytes: number
  /** seconds since 1970, answered as Last-Modified */
  modified: number
  /** Content-Type */
  type: string
  kind: EntryKind
  /** companions only: the pointer it belongs to */
  of?: TreePath
  /** upstream URL it came from, without credentials; absent for what the laptop made */
  source?: string
  /** absent for what the laptop made */
  verdict?: Verdict
}

export interface Tree {
  site: string
  group: string
  role: TreeRole
  /** the bundle's number */
  number: number
  /** repository id → the `<timestamp>` of its repomd.xml; strictly rising per origin over everything ever released */
  stamps: Map<string, number>
  /** sorted by path */
  entries: Map<TreePath, TreeEntry>
}

export const MAX_TREE_BYTES = 32 * 1024 * 1024
const MAX_TREE_ENTRIES = 20_000
const MAX_STAMPS = 1000
const MAX_COMPANIONS = 16
export const MAX_BLOB_BYTES = 2 ** 31 - 1
const FORMAT = 1
const NAME_PATTERN = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/
const REPO_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$/
const TYPE_PATTERN = /^[a-z0-9.+-]+\/[a-z0-9.+-]+(?:; ?charset=utf-8)?$/
const PRINTABLE = /^[\x20-\x7e]{1,2048}$/

/** The target of what a bundle says of licenses (licenses.ts). */
export const LICENSES_TARGET = 'licenses'

/** Whether a target of a bundle is a tree: the others are documents of the site. */
export function isTreeTarget(target: string): boolean {
  return target.includes('/')
}

/** @throws TREE_INVALID unless `text` is a name for a site or group: a–z 0–9 . _ -, at most 64, starts and ends with a letter or digit */
export function parseName(text: unknown, what: string): string {
  if (typeof text !== 'string' || !NAME_PATTERN.test(text)) throw invalid(what, `expected a name (a-z 0-9 . _ -)`)
  return text
}

/** The bytes of a tree. @throws TREE_INVALID where the tree breaks a rule that parseTree would refuse */
export function serializeTree(tree: Tree): Buffer {
  const bytes = canonicalJson({
    _type: 'gapferry-tree',
    format: FORMAT,
    site: tree.site,
    group: tree.group,
    role: tree.role,
    number: tree.number,
    stamps: Object.fromEntries(tree.stamps),
    entries: Object.fromEntries(tree.entries),
  })
  parseTree(bytes, `${tree.group}/${tree.role}`)
  return bytes
}

/** @param what  names the tree in messages
 *  @throws TREE_INVALID, PATH_INVALID, DIGEST_INVALID; also when the bytes are not the canonical spelling */
export function parseTree(bytes: Buffer, what: string): Tree {
  if (bytes.length > MAX_TREE_BYTES) throw invalid(what, `larger than ${MAX_TREE_BYTES} bytes`)
  const doc = record(parseJson(bytes, what), what)
  allowKeys(doc, ['_type', 'format', 'site', 'group', 'role', 'number', 'stamps', 'entries'], what)
  if (doc['_type'] !== 'gapferry-tree') throw invalid(what, 'is not a tree')
  if (doc['format'] !== FORMAT) throw invalid(what, `format ${String(doc['format'])} is not known here (${FORMAT} is)`)
  const role = TREE_ROLES.find((r) => r === doc['role'])
  if (role === undefined) throw invalid(what, 'role is none of current, previous, return')
  const stamps = new Map<string, number>()
  const given = Object.entries(record(doc['stamps'], `${what} stamps`))
  if (given.length > MAX_STAMPS) throw invalid(what, `more than ${MAX_STAMPS} stamps`)
  for (const [id, stamp] of given) {
    if (!REPO_ID_PATTERN.test(id)) throw invalid(what, `stamps: "${id}" is not a repository id`)
    stamps.set(id, integer(stamp, 1, 2 ** 40, `${what} stamp of ${id}`))
  }
  const tree: Tree = {
    site: parseName(doc['site'], `${what} site`),
    group: parseName(doc['group'], `${what} group`),
    role,
    number: integer(doc['number'], 1, 2 ** 40, `${what} number`),
    stamps,
    entries: parseEntries(record(doc['entries'], `${what} entries`), what),
  }
  // Canonical or nothing: otherwise one tree could have two digests, and a key given twice would hide its first value.
  if (!isCanonicalJson(doc, bytes)) throw invalid(what, 'is not in canonical form')
  return tree
}

/** True for the paths that a release needs whatever the tree's role: signed repository metadata and the like. */
export function isPointer(entry: TreeEntry): boolean {
  return entry.kind !== 'immutable'
}

function parseEntries(doc: Record<string, unknown>, what: string): Map<TreePath, TreeEntry> {
  const keys = Object.keys(doc)
  if (keys.length > MAX_TREE_ENTRIES) throw invalid(what, `more than ${MAX_TREE_ENTRIES} paths`)
  const entries = new Map<TreePath, TreeEntry>()
  for (const key of keys.sort()) {
    entries.set(parseTreePath(key, what), parseEntry(doc[key], `${what} ${key}`))
  }
  const companions = new Map<TreePath, number>()
  for (const [path, entry] of entries) {
    refuseFileAsFolder(path, entries, what)
    if ((entry.kind === 'companion') !== (entry.of !== undefined))
      throw invalid(what, `${path}: "of" goes with companions`)
    if (entry.of === undefined) continue
    if (entries.get(entry.of)?.kind !== 'pointer') throw invalid(what, `${path}: its pointer is not in the tree`)
    const count = (companions.get(entry.of) ?? 0) + 1
    if (count > MAX_COMPANIONS) throw invalid(what, `${entry.of} has more than ${MAX_COMPANIONS} companions`)
    companions.set(entry.of, count)
  }
  return entries
}

/** An unpacked tree must be possible: no path may be a folder of another. */
function refuseFileAsFolder(path: TreePath, entries: Map<TreePath, TreeEntry>, what: string): void {
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) {
    if (entries.has(path.slice(0, at) as TreePath))
      throw invalid(what, `${path.slice(0, at)} is both a file and a folder`)
  }
}

function parseEntry(value: unknown, what: string): TreeEntry {
  const doc = record(value, what)
  allowKeys(doc, ['sha256', 'bytes', 'modified', 'type', 'kind', 'of', 'source', 'verdict'], what)
  const kind = (['immutable', 'pointer', 'companion'] as const).find((k) => k === doc['kind'])
  if (kind === undefined) throw invalid(what, 'kind is none of immutable, pointer, companion')
  if (typeof doc['type'] !== 'string' || !TYPE_PATTERN.test(doc['type']))
    throw invalid(what, 'type is not a media type')
  const entry: TreeEntry = {
    sha256: parseSha256(doc['sha256'], what),
    bytes: integer(doc['bytes'], 0, MAX_BLOB_BYTES, `${what} bytes`),
    modified: integer(doc['modified'], 0, 2 ** 40, `${what} modified`),
    type: doc['type'],
    kind,
  }
  if (doc['of'] !== undefined) entry.of = parseTreePath(doc['of'], `${what} of`)
  if (doc['source'] !== undefined) {
    if (typeof doc['source'] !== 'string' || !PRINTABLE.test(doc['source']))
      throw invalid(what, 'source is not printable text')
    entry.source = doc['source']
  }
  if (doc['verdict'] !== undefined) {
    const verdict = (['good', 'bad', 'unsigned', 'unchecked'] as const).find((v) => v === doc['verdict'])
    if (verdict === undefined) throw invalid(what, 'verdict is none of good, bad, unsigned, unchecked')
    entry.verdict = verdict
  }
  return entry
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new GapferryError('TREE_INVALID', `${what}: is not JSON`, { cause })
  }
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(what, 'expected an object')
  return value as Record<string, unknown>
}

function allowKeys(doc: Record<string, unknown>, keys: string[], what: string): void {
  const unknown = Object.keys(doc).find((key) => !keys.includes(key))
  if (unknown !== undefined) throw invalid(what, `unknown field "${unknown}"`)
}

function integer(value: unknown, min: number, max: number, what: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max) {
    throw invalid(what, `expected a whole number from ${min} to ${max}`)
  }
  return value as number
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('TREE_INVALID', `${what}: ${why}`)
}
