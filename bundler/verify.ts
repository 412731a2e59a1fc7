/**
 * Judges bundles with nothing but the root: `verify` reads and checks every byte, `inspect` lists what is described.
 * Parts are read as a mirror reads them (storage/parts.ts), and nothing is kept.
 */
import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { partHolding } from '../manifests/part-hint.ts'
import { TREE_ROLES, type Tree, type TreeEntry, type TreeRole } from '../manifests/tree.ts'
import { checkDigest } from '../storage/blobs.ts'
import { missingPaths, type MissingPath } from '../storage/completeness.ts'
import { readPart, type BlobConsumer, type PartBundle } from '../storage/parts.ts'
import { verifyMetadata, type TrustedState } from '../storage/trust.ts'

export interface JudgeOptions {
  /** what is believed: the root that was pinned, at least */
  trusted: TrustedState
  /** the site that the bundle must be for; default: the root's */
  site?: string
  nowMs: number
  /** where a temporary folder may be made */
  scratchDir: string
  signal?: AbortSignal
  /** bytes of blobs read since the last call */
  onProgress?: (bytes: number) => void
  /** judge what the medium has, where the system can, and not what it remembers of the medium */
  isPastCache?: boolean
}

/** What the given parts of one bundle are together. */
export interface JudgedBundle {
  site: string
  number: number
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  /** as given, in that order */
  parts: { file: string; blobs: number; bytes: number; isPastCache: boolean }[]
  /** distinct blobs in the given parts, and their bytes */
  blobs: number
  bytes: number
  /** what the bundle requires and no given part has; `part`: the file that should hold it */
  missing: (MissingPath & { part?: string })[]
  /** all its parts are given and paths are missing all the same: it was packed for a site that has them */
  isDifferential: boolean
}

/** What a bundle says of one group. */
interface InspectedGroup {
  group: string
  origin: string
  /** ids of its yum repositories */
  yum: string[]
  trees: { role: TreeRole; paths: number; bytes: number; stamps: Record<string, number> }[]
  /** of the current tree; `isHere`: a given part has the blob */
  entries: (TreeEntry & { path: string; isHere: boolean })[]
}

/** Sealed blobs of a bundle; whose they are, only the mirror's delivery key tells. */
interface InspectedLicenses {
  index: Sha256 | null
  blobs: { sha256: Sha256; bytes: number; isHere: boolean }[]
}

export type InspectedBundle = JudgedBundle & { groups: InspectedGroup[]; licenses: InspectedLicenses | null }

/** Checks every byte of the given parts: signatures, trees, the digest of each blob.
 *  @returns one row per bundle (parts of one bundle count together), in order of the first part given
 *  @throws ROLE_*, BUNDLE_*, TREE_*, SITE_*, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH for the first fault of the first part that has
 *          one, when all are read; the message names the others. BUNDLE_MIXED for parts of one number that were signed apart */
export async function verifyFiles(files: string[], options: JudgeOptions): Promise<JudgedBundle[]> {
  const bundles = await readAll(files, options, (sha256) => hashing(sha256, options.onProgress))
  return bundles.map(judged)
}

/** What one part is that somebody has just written. */
export interface JudgedPart {
  /** SHA-256 over all of it that is no blob's content: what `frameOf` (part-bytes.ts) says beforehand */
  frame: Sha256
  /** false: what was judged may have come from the system's cache */
  isPastCache: boolean
}

/** Checks every byte of one part, as verifyFiles does, for whoever has just written it.
 *  @throws as verifyFiles */
export async function verifyPart(file: string, options: JudgeOptions): Promise<JudgedPart> {
  const [read] = await readAll([file], options, (sha256) => hashing(sha256, options.onProgress))
  return { frame: read!.frame, isPastCache: read!.parts[0]!.isPastCache }
}

/** Lists what the given parts describe. Signatures and trees are checked, the blobs' bytes are not.
 *  @throws as verifyFiles, but for BLOB_DIGEST_MISMATCH in a blob */
export async function inspectFiles(files: string[], options: JudgeOptions): Promise<InspectedBundle[]> {
  const bundles = await readAll(files, options, () => undefined)
  return bundles.map((read) => ({ ...judged(read), groups: inspectedGroups(read), licenses: inspectedLicenses(read) }))
}

/** The parts read so far of one bundle. */
interface ReadBundle {
  /** over the signed timestamp, which names all the rest */
  signed: Sha256
  bundle: PartBundle
  parts: JudgedBundle['parts']
  here: Set<Sha256>
  /** which of its parts, from 1 */
  numbers: Set<number>
  /** of the part that was read last */
  frame: Sha256
}

async function readAll(files: string[], options: JudgeOptions, onBlob: OnBlob): Promise<ReadBundle[]> {
  const bundles = new Map<number, ReadBundle>()
  const faults: GapferryError[] = []
  for (const file of files) {
    try {
      await readOne(file, options, onBlob, bundles)
    } catch (error) {
      if (!isGapferryError(error) || error.code === 'BUNDLE_MIXED') throw error
      faults.push(error)
    }
  }
  if (faults.length > 0) throw allFaults(faults)
  return [...bundles.values()]
}

type OnBlob = (sha256: Sha256) => BlobConsumer | undefined

async function readOne(
  file: string,
  options: JudgeOptions,
  onBlob: OnBlob,
  bundles: Map<number, ReadBundle>,
): Promise<void> {
  const { trusted, site, nowMs, scratchDir, signal, isPastCache: wantsMedium = false } = options
  const here = new Set<Sha256>()
  let signed = '' as Sha256
  const { bundle, blobs, bytes, frame, isPastCache } = await readPart(
    file,
    {
      verify: (offered) => {
        signed = sha256Of(offered.get('timestamp.json') ?? '')
        return verifyMetadata({ trusted, offered, nowMs, scratchDir, ...(site === undefined ? {} : { site }) })
      },
      onBlob: (sha256) => {
        here.add(sha256)
        return onBlob(sha256)
      },
    },
    { signal, isPastCache: wantsMedium },
  )
  const read = bundles.get(bundle.metadata.number) ?? {
    signed,
    bundle,
    parts: [],
    here: new Set(),
    numbers: new Set(),
    frame,
  }
  if (read.signed !== signed) throw signedApart(file, read)
  read.parts.push({ file, blobs, bytes, isPastCache })
  read.numbers.add(bundle.hint.part)
  read.frame = frame
  for (const sha256 of here) read.here.add(sha256)
  bundles.set(bundle.metadata.number, read)
}

/** The first, naming them all: whoever mends a stick wants to know how much of it is bad. */
function allFaults(faults: GapferryError[]): GapferryError {
  const [first, ...others] = faults as [GapferryError, ...GapferryError[]]
  if (others.length === 0) return first
  const message = `${faults.length} parts are bad: ${faults.map((fault) => fault.message).join('; ')}`
  return new GapferryError(first.code, message, {
    cause: first,
    ...(first.hint === undefined ? {} : { hint: first.hint }),
  })
}

function hashing(sha256: Sha256, onProgress?: (bytes: number) => void): BlobConsumer {
  const hash = createHash('sha256')
  return {
    write: (chunk) => {
      hash.update(chunk)
      onProgress?.(chunk.length)
    },
    finish: () => checkDigest(sha256, hash.digest('hex') as Sha256),
    abort: () => undefined,
  }
}

function judged({ bundle, parts, here, numbers }: ReadBundle): JudgedBundle {
  const { site, number, createdAtMs, expiresAtMs, bundler } = bundle.metadata
  const bytes = [...here].reduce((total, sha256) => total + bundle.wanted.get(sha256)!.bytes, 0)
  const hasAllParts = numbers.size === bundle.hint.parts.length
  const trees = byRole(bundle.trees.values())
  const missing = missingPaths(trees, (sha256) => here.has(sha256), bundle.licenses).map((path) => {
    const part = hasAllParts ? undefined : partHolding(bundle.hint, path.sha256)
    return part === undefined ? path : { ...path, part }
  })
  const isDifferential = hasAllParts && missing.length > 0
  const about = { site, number, createdAtMs, expiresAtMs, bundler }
  return { ...about, parts, blobs: here.size, bytes, missing, isDifferential }
}

function inspectedLicenses({ bundle: { licenses }, here }: ReadBundle): InspectedLicenses | null {
  if (licenses === undefined) return null
  const blobs = [...licenses.blobs].map(([sha256, bytes]) => ({ sha256, bytes, isHere: here.has(sha256) }))
  return { index: licenses.index, blobs }
}

function inspectedGroups({ bundle, here }: ReadBundle): InspectedGroup[] {
  return [...bundle.facts.groups].map(([group, { origin, yum }]) => {
    const trees = byRole([...bundle.trees.values()].filter((tree) => tree.group === group))
    const entries = [...bundle.trees.get(`${group}/current`)!.entries]
    return {
      group,
      origin,
      yum,
      trees: trees.map((tree) => ({
        role: tree.role,
        paths: tree.entries.size,
        bytes: [...tree.entries.values()].reduce((total, entry) => total + entry.bytes, 0),
        stamps: Object.fromEntries(tree.stamps),
      })),
      entries: entries.map(([path, entry]) => ({ path, ...entry, isHere: here.has(entry.sha256) })),
    }
  })
}

/** Current trees first, so that a missing path is named for the tree that a person knows. */
function byRole(trees: Iterable<Tree>): Tree[] {
  return [...trees].sort((a, b) => TREE_ROLES.indexOf(a.role) - TREE_ROLES.indexOf(b.role))
}

function signedApart(file: string, { parts, bundle }: ReadBundle): GapferryError {
  const other = basename(parts[0]!.file)
  return new GapferryError(
    'BUNDLE_MIXED',
    `${basename(file)}: says to be bundle ${bundle.metadata.number} like ${other}, but was signed apart from it`,
    { hint: 'take all parts from one run of: gapferry pack' },
  )
}
