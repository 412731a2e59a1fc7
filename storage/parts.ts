/**
 * Reads one part of a bundle, front to end, trusting nothing that was not proved before it:
 *   1. the metadata is verified before anything else is read;
 *   2. each tree is checked against the digest and size that the metadata gives, then parsed, then against its target;
 *   3. each blob must be named by a tree and have its size; its digest is for the consumer of its bytes to check.
 * Nothing is kept here. Memory is bounded by the limits of manifests/bundle.ts, time by the size of the file.
 */
import { basename } from 'node:path'
import { entryBytes, type PartEntry } from '../manifests/bundle.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError, type ErrorCode } from '../manifests/errors.ts'
import { parseSealedLicenses, type SealedLicenses } from '../manifests/licenses.ts'
import { parsePartHint, type PartHint } from '../manifests/part-hint.ts'
import { parseSiteFacts, type SiteFacts } from '../manifests/site.ts'
import { LICENSES_TARGET, parseTree, TREE_ROLES, type Tree } from '../manifests/tree.ts'
import { checkDigest } from './blobs.ts'
import { licensePath } from './completeness.ts'
import { PartSource } from './part-source.ts'
import type { VerifiedMetadata } from './trust.ts'

/** What a blob that the trees name is for, whether it is in this part or not. */
interface BlobUse {
  bytes: number
  /** paths of the origins that it answers, those of current trees first; of licenses what completeness.ts calls them */
  paths: string[]
}

/** What every part says, whatever blobs it holds. */
export interface PartBundle {
  metadata: VerifiedMetadata
  /** by target name, `<group>/<role>` */
  trees: Map<string, Tree>
  /** the bytes of the trees and of the site facts */
  treeBytes: Map<Sha256, Buffer>
  facts: SiteFacts
  /** undefined where the bundle has none */
  licenses: SealedLicenses | undefined
  /** signed by nobody: for messages only */
  hint: PartHint
  /** every blob that a tree or the licenses name */
  wanted: Map<Sha256, BlobUse>
}

/** Takes the bytes of one blob, as BlobWriter does. */
export interface BlobConsumer {
  /** `chunk` is only valid during the call */
  write(chunk: Uint8Array): void
  finish(): unknown
  abort(): void
}

/** What a caller does with a part. */
export interface PartReader {
  /** @param offered  archive names without folder → bytes */
  verify(offered: Map<string, Buffer>): Promise<VerifiedMetadata>
  /** before the first blob */
  onVerified?(bundle: PartBundle): void | Promise<void>
  /** @returns undefined where the caller needs no bytes of this blob */
  onBlob(sha256: Sha256, bytes: number): BlobConsumer | undefined | Promise<BlobConsumer | undefined>
  /** Where this is given, damage among the blobs costs the blobs that it hit, and reading goes on behind it. What no damage
   *  explains is refused all the same. */
  onDamaged?(damage: Damage): void
}

/** What a medium did to one blob, or to more where it hit what stands between them. */
export interface Damage {
  /** null where nothing tells which blob it was */
  sha256: Sha256 | null
  /** BLOB_DIGEST_MISMATCH and BUNDLE_*, its message starting with the file's name */
  error: GapferryError
}

/** Blobs in this part and their bytes, skipped ones too. */
export interface PartContent {
  bundle: PartBundle
  blobs: number
  bytes: number
  /** SHA-256 over all that is no blob's content, for whoever wrote the part */
  frame: Sha256
  /** read past the system's cache: what the medium has */
  isPastCache: boolean
}

/** What a medium can do to a part; anything else was written so. */
const DAMAGE = [
  'BLOB_DIGEST_MISMATCH',
  'BUNDLE_HEADER_INVALID',
  'BUNDLE_PADDING',
  'BUNDLE_TRAILING',
  'BUNDLE_TRUNCATED',
  'BUNDLE_UNREADABLE',
] as const satisfies ErrorCode[]

/** @throws GapferryError: BUNDLE_* and TREE_* for the archive, BLOB_DIGEST_MISMATCH and BLOB_SIZE_MISMATCH for what does
 *  not have the digest or size that is signed for it, and whatever `reader` throws; the message starts with the file's name */
export async function readPart(
  file: string,
  reader: PartReader,
  options: { signal?: AbortSignal | undefined; isPastCache?: boolean } = {},
): Promise<PartContent> {
  try {
    const source = new PartSource(file, { ...options, skipUnreadable: reader.onDamaged !== undefined })
    try {
      return await readFrom(source, naming(file, reader))
    } finally {
      await source.close()
    }
  } catch (error) {
    throw named(file, error)
  }
}

function naming(file: string, reader: PartReader): PartReader {
  if (reader.onDamaged === undefined) return reader
  const onDamaged = ({ sha256, error }: Damage): void => {
    reader.onDamaged!({ sha256, error: named(file, error) as GapferryError })
  }
  return {
    verify: (offered) => reader.verify(offered),
    onVerified: (bundle) => reader.onVerified?.(bundle),
    onBlob: (sha256, bytes) => reader.onBlob(sha256, bytes),
    onDamaged,
  }
}

function named(file: string, error: unknown): unknown {
  if (!isGapferryError(error)) return error
  const options = { cause: error, ...(error.hint === undefined ? {} : { hint: error.hint }) }
  return new GapferryError(error.code, `${basename(file)}: ${error.message}`, options)
}

async function readFrom(source: PartSource, reader: PartReader): Promise<PartContent> {
  const offered = new Map<string, Buffer>()
  let entry = await source.next()
  for (; entry !== undefined && 'version' in entry; entry = await source.next()) {
    offered.set(entry.name, await source.body(entry))
  }
  const metadata = await reader.verify(offered)
  checkNumber(offered, metadata)

  const treeBytes = new Map<Sha256, Buffer>()
  const sizes = new Map([...metadata.targets.values()].map(({ sha256, bytes }) => [sha256, bytes]))
  for (; entry?.section === 'tree'; entry = await source.next()) {
    treeBytes.set(entry.sha256, await readTree(source, entry, sizes))
  }
  const { trees, facts, licenses } = parseTargets(metadata, treeBytes)
  if (entry?.section !== 'hint') throw new GapferryError('INTERNAL', 'the order of entries was not kept')
  const hint = parsePartHint(await source.body(entry))
  if (hint.site !== metadata.site || hint.number !== metadata.number) throw mixed('part.json', hint, metadata)

  const bundle = { metadata, trees, treeBytes, facts, licenses, hint, wanted: namedBlobs(trees, licenses) }
  await reader.onVerified?.(bundle)
  return { bundle, ...(await readBlobs(source, bundle, reader)) }
}

async function readBlobs(source: PartSource, { wanted }: PartBundle, reader: PartReader) {
  let [blobs, bytes] = [0, 0]
  const unseen = new Unseen(wanted)
  let entry = await nextBlob(source, unseen, reader)
  while (entry !== undefined) {
    const { sha256 } = entry
    const named = wanted.get(sha256)
    if (named === undefined) throw unknown(`blobs/${entry.name}`, 'no tree names it')
    checkSize(`blobs/${entry.name}`, named.bytes, entry.bytes)
    const isSound = await readBlob(source, entry, reader)
    unseen.saw(sha256)
    blobs += 1
    bytes += isSound ? entry.bytes : 0
    entry = await nextBlob(source, unseen, reader)
  }
  return { blobs, bytes, frame: source.frame(), isPastCache: source.isPastCache }
}

type BlobEntry = PartEntry & { sha256: Sha256 }

/** The blobs that may still come, which is how far it is worth looking behind damage. */
class Unseen {
  readonly #sizes: Map<Sha256, number>
  bytes = 0

  constructor(wanted: PartBundle['wanted']) {
    this.#sizes = new Map([...wanted].map(([sha256, { bytes }]) => [sha256, bytes]))
    for (const bytes of this.#sizes.values()) this.bytes += entryBytes(bytes)
  }

  saw(sha256: Sha256): void {
    this.bytes -= entryBytes(this.#sizes.get(sha256) ?? 0)
    this.#sizes.delete(sha256)
  }

  isOne({ name, bytes }: { name: string; bytes: number }): boolean {
    return this.#sizes.get(name.replace('blobs/', '') as Sha256) === bytes
  }
}

/** @returns undefined at the end of the part */
async function nextBlob(source: PartSource, unseen: Unseen, reader: PartReader): Promise<BlobEntry | undefined> {
  try {
    return asBlob(await source.next())
  } catch (error) {
    if (reader.onDamaged === undefined || !isGapferryError(error, ...DAMAGE)) throw error
    // Where every blob has come, nothing was damaged: something was added.
    if (unseen.bytes === 0 && error.code === 'BUNDLE_TRAILING') throw error
    reader.onDamaged({ sha256: null, error })
    return asBlob(await goOn(source, unseen))
  }
}

function asBlob(entry: PartEntry | undefined): BlobEntry | undefined {
  if (entry === undefined || entry.section === 'blob') return entry
  throw new GapferryError('INTERNAL', 'the order of entries was not kept')
}

/** @returns undefined also where the medium gives nothing back any more */
async function goOn(source: PartSource, unseen: Unseen): Promise<PartEntry | undefined> {
  try {
    return await source.findNext((header) => unseen.isOne(header), unseen.bytes)
  } catch (error) {
    if (isGapferryError(error, ...DAMAGE)) return undefined
    throw error
  }
}

/** @returns false where it was damaged */
async function readBlob(source: PartSource, entry: BlobEntry, reader: PartReader): Promise<boolean> {
  const consumer = await reader.onBlob(entry.sha256, entry.bytes)
  try {
    await source.stream(entry, (chunk) => consumer?.write(chunk))
    consumer?.finish()
    return true
  } catch (error) {
    consumer?.abort()
    if (reader.onDamaged === undefined || !isGapferryError(error, ...DAMAGE)) throw error
    reader.onDamaged({ sha256: entry.sha256, error })
    return false
  }
}

/** The names in the archive carry the bundle's number too, and nobody has signed names. */
function checkNumber(offered: Map<string, Buffer>, { number }: VerifiedMetadata): void {
  for (const role of ['snapshot', 'targets']) {
    const name = `${number}.${role}.json`
    if (!offered.has(name)) throw new GapferryError('BUNDLE_MIXED', `expected metadata/${name} for bundle ${number}`)
  }
}

async function readTree(
  source: PartSource,
  entry: PartEntry & { sha256: Sha256 },
  sizes: Map<Sha256, number>,
): Promise<Buffer> {
  const what = `trees/${entry.name}`
  const expected = sizes.get(entry.sha256)
  if (expected === undefined) throw unknown(what, 'the metadata does not name it')
  checkSize(what, expected, entry.bytes)
  const bytes = await source.body(entry)
  checkDigest(entry.sha256, sha256Of(bytes), what)
  return bytes
}

function parseTargets(metadata: VerifiedMetadata, treeBytes: Map<Sha256, Buffer>) {
  const trees = new Map<string, Tree>()
  let facts: SiteFacts | undefined
  let licenses: SealedLicenses | undefined
  for (const [name, { sha256 }] of metadata.targets) {
    const bytes = treeBytes.get(sha256)
    if (bytes === undefined) throw missing(`trees/${sha256} (${name})`)
    if (name === 'site') facts = checkAbout('site', parseSiteFacts(bytes), metadata)
    else if (name === LICENSES_TARGET) licenses = checkAbout(name, parseSealedLicenses(bytes), metadata)
    else trees.set(name, checkTree(name, parseTree(bytes, name), metadata))
  }
  if (facts === undefined) throw missing('the site facts among the targets')
  checkGroups(facts, trees)
  return { trees, facts, licenses }
}

function checkTree(name: string, tree: Tree, metadata: VerifiedMetadata): Tree {
  const found = `${tree.group}/${tree.role}`
  if (found !== name) throw new GapferryError('BUNDLE_MIXED', `target ${name}: found the tree of ${found}`)
  return checkAbout(name, tree, metadata)
}

function checkAbout<T extends { site: string; number: number }>(what: string, doc: T, metadata: VerifiedMetadata): T {
  if (doc.site !== metadata.site || doc.number !== metadata.number) throw mixed(what, doc, metadata)
  return doc
}

/** Each group of the facts has its current tree, and no other group has any. */
function checkGroups(facts: SiteFacts, trees: Map<string, Tree>): void {
  for (const group of facts.groups.keys()) if (!trees.has(`${group}/current`)) throw missing(`target ${group}/current`)
  for (const { group } of trees.values()) {
    if (!facts.groups.has(group)) throw new GapferryError('BUNDLE_MIXED', `the site facts do not know group ${group}`)
  }
}

function namedBlobs(trees: Map<string, Tree>, licenses: SealedLicenses | undefined): Map<Sha256, BlobUse> {
  const blobs = new Map<Sha256, { bytes: number; paths: Set<string> }>()
  const byRole = [...trees.values()].sort((a, b) => TREE_ROLES.indexOf(a.role) - TREE_ROLES.indexOf(b.role))
  for (const { entries } of byRole) {
    for (const [path, { sha256, bytes }] of entries) addUse(blobs, { sha256, bytes, path })
  }
  for (const [sha256, bytes] of licenses?.blobs ?? []) {
    addUse(blobs, { sha256, bytes, path: `licenses/${licensePath(licenses!, sha256)}` })
  }
  return new Map([...blobs].map(([sha256, { bytes, paths }]) => [sha256, { bytes, paths: [...paths] }]))
}

function addUse(
  blobs: Map<Sha256, { bytes: number; paths: Set<string> }>,
  { sha256, bytes, path }: { sha256: Sha256; bytes: number; path: string },
): void {
  const blob = blobs.get(sha256) ?? { bytes, paths: new Set() }
  if (blob.bytes !== bytes)
    throw new GapferryError('BUNDLE_MIXED', `blob ${sha256}: ${blob.bytes} bytes, but ${bytes} for ${path}`)
  blobs.set(sha256, blob)
  blob.paths.add(path)
}

function checkSize(what: string, expected: number, found: number): void {
  if (expected === found) return
  throw new GapferryError('BLOB_SIZE_MISMATCH', `${what}: expected ${expected} bytes, found ${found}`)
}

function mixed(what: string, found: { site: string; number: number }, metadata: VerifiedMetadata): GapferryError {
  const message = `${what}: expected site ${metadata.site} number ${metadata.number}, found site ${found.site} number ${found.number}`
  return new GapferryError('BUNDLE_MIXED', message)
}

function unknown(what: string, why: string): GapferryError {
  return new GapferryError('BUNDLE_ENTRY_UNKNOWN', `"${what}": ${why}`)
}

function missing(what: string): GapferryError {
  return new GapferryError('BUNDLE_ENTRY_MISSING', `expected ${what}, found none`)
}
