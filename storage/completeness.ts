/**
 * When a bundle is complete: its documents, all blobs of `current`, of the other trees the pointers with their companions, and
 * every blob of its licenses.
 * Other blobs of `previous` and `return` are wanted, not required: only going back needs them.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { parseSealedLicenses, type SealedLicenses } from '../manifests/licenses.ts'
import { isPointer, isTreeTarget, LICENSES_TARGET, parseTree, type Tree, type TreeRole } from '../manifests/tree.ts'
import { parseTreePath, type TreePath } from '../manifests/path.ts'
import type { BlobStore } from './blobs.ts'
import type { NamedBlob } from './catalog.ts'

/** A path that a bundle cannot answer yet; of its licenses, which have none, what `licensePath` calls the blob. */
export interface MissingPath {
  group: string
  role: TreeRole
  path: TreePath
  sha256: Sha256
  bytes: number
}

/** Every required path whose blob is not there; a path that several trees answer with the same blob once, for the first.
 *  @param trees  `current` ones first, so that a path is named for the tree that a person knows
 *  @param has       whether a blob is there
 *  @param licenses  undefined where the bundle has none */
export function missingPaths(
  trees: Iterable<Tree>,
  has: (sha256: Sha256) => boolean,
  licenses?: SealedLicenses,
): MissingPath[] {
  const missing = new Map<string, MissingPath>()
  for (const { group, role, entries } of trees) {
    for (const [path, entry] of entries) {
      if (role !== 'current' && !isPointer(entry)) continue
      const key = `${group} ${path} ${entry.sha256}`
      if (missing.has(key) || has(entry.sha256)) continue
      missing.set(key, { group, role, path, sha256: entry.sha256, bytes: entry.bytes })
    }
  }
  for (const [sha256, bytes] of licenses?.blobs ?? []) {
    if (has(sha256)) continue
    const path = licensePath(licenses!, sha256)
    missing.set(path, { group: 'licenses', role: 'current', path, sha256, bytes })
  }
  return [...missing.values()]
}

/** What messages call a blob of the licenses: `index`, or its digest. No origin has it. */
export function licensePath({ index }: SealedLicenses, sha256: Sha256): TreePath {
  return parseTreePath(sha256 === index ? 'index' : sha256, 'license')
}

/** How much has to come: a blob that answers several paths counts once. */
export function missingBytes(missing: readonly MissingPath[]): number {
  return [...new Map(missing.map(({ sha256, bytes }) => [sha256, bytes])).values()].reduce(
    (sum, bytes) => sum + bytes,
    0,
  )
}

/** The trees of a bundle, from the store.
 *  @param named  what the metadata names; what is no tree is left out
 *  @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH */
export function readTrees(blobs: Pick<BlobStore, 'read'>, named: Map<string, NamedBlob>): Map<string, Tree> {
  const trees = new Map<string, Tree>()
  for (const [target, { sha256, bytes }] of named) {
    if (isTreeTarget(target)) trees.set(target, parseTree(blobs.read(sha256, bytes), target))
  }
  return trees
}

/** What a bundle says of licenses, from the store; undefined where it has none.
 *  @throws as readTrees; LICENSE_INVALID */
export function readLicenses(
  blobs: Pick<BlobStore, 'read'>,
  named: ReadonlyMap<string, NamedBlob>,
): SealedLicenses | undefined {
  const document = named.get(LICENSES_TARGET)
  return document === undefined ? undefined : parseSealedLicenses(blobs.read(document.sha256, document.bytes))
}
