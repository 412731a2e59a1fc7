/**
 * Reads everything that the imported bundles name and says what is not as it was signed, and what never came, in these steps:
 *   1. the documents (trees, site facts, licenses) of every bundle; one that is not sound names nothing for step 2;
 *   2. every blob that the trees and licenses name, each once;
 *   3. what the faulty ones answer, asked of the catalogue again: what a prune took away meanwhile is no fault.
 *   4. of bundles that were never whole, what they still lack.
 * Needs no lock and writes nothing. Memory holds the names of the blobs, never their bytes.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { parsePartHint, partHolding, partNames } from '../manifests/part-hint.ts'
import { isGapferryError } from '../manifests/errors.ts'
import type { SealedLicenses } from '../manifests/licenses.ts'
import { isPointer, isTreeTarget, LICENSES_TARGET, MAX_TREE_BYTES, parseTree, type Tree } from '../manifests/tree.ts'
import { blobFault, CHECK_BUFFER_BYTES, type BlobFault } from './blob-check.ts'
import type { BlobStore } from './blobs.ts'
import type { Catalog } from './catalog.ts'
import { licensePath, missingPaths, readLicenses, type MissingPath } from './completeness.ts'

/** A blob that is not as it was signed. */
export interface RottenBlob {
  sha256: Sha256
  /** as signed */
  bytes: number
  fault: BlobFault
  /** what it answers, `<group>/<path>`, or `tree <group>/<role>`, `site facts`, `licenses/…`; with the bundles, highest first */
  uses: { name: string; bundles: number[] }[]
}

export interface Soundness {
  bundles: number
  /** checked, documents among them */
  blobs: number
  bytes: number
  /** of trees for going back, because a bundle was skipped; only going back needs them, so this is no fault */
  neverCame: number
  rotten: RottenBlob[]
  /** bundles that were never whole, highest number first: what has not come yet is no fault of the store */
  incomplete: IncompleteBundle[]
}

export interface IncompleteBundle {
  number: number
  /** false: a later one took its place, and it can neither be completed nor released */
  isNewest: boolean
  /** `part`: the name of the file that should have it; null where that is not known */
  missing: (MissingPath & { part: string | null })[]
}

interface CheckedStore {
  catalog: Catalog
  blobs: BlobStore
}

interface Named {
  bytes: number
  isRequired: boolean
}

/** @param options.onBytes  bytes checked since the last call, and how many there are in all as far as is known
 *  @throws the signal's reason; what Catalog throws */
export async function checkStore(
  store: CheckedStore,
  options: { onBytes?: (bytes: number, totalBytes: number) => void; signal?: AbortSignal } = {},
): Promise<Soundness> {
  const { catalog, blobs } = store
  const bundles = catalog.bundles()
  const numbers = bundles.map(({ number }) => number)
  const buffer = Buffer.allocUnsafeSlow(CHECK_BUFFER_BYTES)
  const faults = new Map<Sha256, Named & { fault: BlobFault }>()
  const neverCame = new Set<Sha256>()
  const result: Soundness = { bundles: numbers.length, blobs: 0, bytes: 0, neverCame: 0, rotten: [], incomplete: [] }
  const check = async (named: Map<Sha256, Named>): Promise<void> => {
    const totalBytes = [...named.values()].reduce((total, { bytes }) => total + bytes, 0)
    for (const [sha256, { bytes, isRequired }] of named) {
      const onBytes = (count: number): void => options.onBytes?.(count, totalBytes)
      const fault = await blobFault(blobs, { sha256, bytes }, { buffer, onBytes, signal: options.signal })
      if (fault === 'missing' && !isRequired) {
        neverCame.add(sha256)
        continue
      }
      result.blobs += 1
      result.bytes += bytes
      if (fault !== undefined) faults.set(sha256, { bytes, isRequired, fault })
    }
  }
  await check(documentsOf(catalog, numbers))
  await check(blobsOf(store, numbers, faults))
  const uses = faults.size === 0 ? new Map<Sha256, Map<string, number[]>>() : usesOf(store, faults)
  for (const [sha256, { bytes, fault }] of faults) {
    const names = uses.get(sha256)
    if (names === undefined) continue
    result.rotten.push({ sha256, bytes, fault, uses: [...names].map(([name, bundles]) => ({ name, bundles })) })
  }
  result.incomplete = incompleteBundles(store, faults)
  for (const { sha256 } of result.incomplete.flatMap(({ missing }) => missing)) neverCame.delete(sha256)
  result.neverCame = neverCame.size
  return result
}

function incompleteBundles(store: CheckedStore, faults: ReadonlyMap<Sha256, unknown>): IncompleteBundle[] {
  const { catalog, blobs } = store
  const newest = catalog.newestBundle()?.number
  const unfinished = catalog.bundles().filter(({ wasComplete }) => !wasComplete)
  const found = unfinished.map(({ number }) => {
    const trees = treesOf(store, [number], faults)
    const licenses = licensesOf(store, number, faults)
    const missing = missingPaths(treesOnly(trees), (sha256) => blobs.has(sha256) || faults.has(sha256), licenses)
    const holder = partNamer(catalog.partHint(number), catalog.readParts(number))
    return {
      number,
      isNewest: number === newest,
      missing: missing.map((one) => ({ ...one, part: holder(one.sha256) })),
    }
  })
  return found.filter(({ missing }) => missing.length > 0)
}

function* treesOnly(trees: Iterable<{ tree: Tree }>): Generator<Tree> {
  for (const { tree } of trees) yield tree
}

/** A part that was read and does not have it was packed without it: nobody shall look for it there. */
function partNamer(bytes: Buffer | undefined, readParts: readonly number[]): (sha256: Sha256) => string | null {
  try {
    const hint = bytes === undefined ? undefined : parsePartHint(bytes)
    const read = new Set(hint === undefined ? [] : partNames(hint, readParts))
    return (sha256) => {
      const part = hint === undefined ? undefined : partHolding(hint, sha256)
      return part === undefined || read.has(part) ? null : part
    }
  } catch {
    return () => null // it serves messages only
  }
}

function documentsOf(catalog: Catalog, numbers: number[]): Map<Sha256, Named> {
  const named = new Map<Sha256, Named>()
  for (const number of numbers) {
    for (const { sha256, bytes } of catalog.trees(number).values()) named.set(sha256, { bytes, isRequired: true })
  }
  return named
}

/** A blob is required where its tree is served, and of a bundle that was whole once where a current tree names it or it is a
 *  pointer. */
function blobsOf(store: CheckedStore, numbers: number[], faults: ReadonlyMap<Sha256, unknown>): Map<Sha256, Named> {
  const inForce = new Set(store.catalog.releases(Number.MAX_SAFE_INTEGER).map(({ sha256 }) => sha256))
  const whole = new Set(store.catalog.bundles().flatMap(({ number, wasComplete }) => (wasComplete ? [number] : [])))
  const named = new Map<Sha256, Named>()
  for (const { tree, sha256: treeName, number } of treesOf(store, numbers, faults)) {
    const isServed = inForce.has(treeName)
    for (const entry of tree.entries.values()) {
      const before = named.get(entry.sha256)?.isRequired ?? false
      const cameOnce = whole.has(number) && (tree.role === 'current' || isPointer(entry))
      named.set(entry.sha256, { bytes: entry.bytes, isRequired: before || isServed || cameOnce })
    }
  }
  for (const number of numbers) {
    // What a bundle is not whole without; a restored mirror may lack it, and says so.
    for (const [sha256, bytes] of licensesOf(store, number, faults)?.blobs ?? [])
      named.set(sha256, { bytes, isRequired: whole.has(number) })
  }
  return named
}

function usesOf(store: CheckedStore, faults: ReadonlyMap<Sha256, unknown>): Map<Sha256, Map<string, number[]>> {
  const uses = new Map<Sha256, Map<string, number[]>>()
  const add = (sha256: Sha256, name: string, number: number): void => {
    if (!faults.has(sha256)) return
    const names = uses.get(sha256) ?? new Map<string, number[]>()
    uses.set(sha256, names)
    const bundles = names.get(name) ?? []
    names.set(name, bundles.includes(number) ? bundles : [...bundles, number])
  }
  const numbers = store.catalog.bundles().map(({ number }) => number)
  for (const number of numbers) {
    for (const [target, { sha256 }] of store.catalog.trees(number)) {
      add(sha256, documentName(target), number)
    }
    const licenses = licensesOf(store, number, faults)
    for (const sha256 of licenses?.blobs.keys() ?? []) add(sha256, `licenses/${licensePath(licenses!, sha256)}`, number)
  }
  for (const { tree, number } of treesOf(store, numbers, faults)) {
    for (const [path, { sha256 }] of tree.entries) add(sha256, `${tree.group}/${path}`, number)
  }
  return uses
}

function documentName(target: string): string {
  if (target === LICENSES_TARGET) return 'list of licenses'
  return target === 'site' ? 'site facts' : `tree ${target}`
}

/** undefined where the bundle has none, or the document is not sound */
function licensesOf(
  { catalog, blobs }: CheckedStore,
  number: number,
  faults: ReadonlyMap<Sha256, unknown>,
): SealedLicenses | undefined {
  const named = catalog.trees(number)
  const document = named.get(LICENSES_TARGET)
  if (document === undefined || faults.has(document.sha256)) return undefined
  try {
    return readLicenses(blobs, named)
  } catch (error) {
    if (isGapferryError(error)) return undefined // it was read as sound just now: a prune took it
    throw error
  }
}

/** The sound trees of `numbers`, one in memory at a time. */
function* treesOf(
  { catalog, blobs }: CheckedStore,
  numbers: number[],
  faults: ReadonlyMap<Sha256, unknown>,
): Generator<{ tree: Tree; sha256: Sha256; number: number }> {
  for (const number of numbers) {
    for (const [target, { sha256 }] of catalog.trees(number)) {
      if (!isTreeTarget(target) || faults.has(sha256)) continue
      yield { tree: parseTree(blobs.read(sha256, MAX_TREE_BYTES), target), sha256, number }
    }
  }
}
