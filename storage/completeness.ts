/**
 * When a bundle is complete: its trees, all blobs of `current`, and of the other trees the pointers with their companions.
 * Other blobs of `previous` and `return` are wanted, not required: only going back needs them.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { isPointer, parseTree, type Tree, type TreeRole } from '../manifests/tree.ts'
import type { TreePath } from '../manifests/path.ts'
import type { BlobStore } from './blobs.ts'
import type { NamedBlob } from './catalog.ts'

/** A path that a bundle cannot answer yet. */
export interface MissingPath {
  group: string
  role: TreeRole
  path: TreePath
  sha256: Sha256
  bytes: number
}

/** Every required path whose blob is not there; a path that several trees answer with the same blob once, for the first.
 *  @param trees  `current` ones first, so that a path is named for the tree that a person knows
 *  @param has    whether a blob is there */
export function missingPaths(trees: Iterable<Tree>, has: (sha256: Sha256) => boolean): MissingPath[] {
  const missing = new Map<string, MissingPath>()
  for (const { group, role, entries } of trees) {
    for (const [path, entry] of entries) {
      if (role !== 'current' && !isPointer(entry)) continue
      const key = `${group} ${path} ${entry.sha256}`
      if (missing.has(key) || has(entry.sha256)) continue
      missing.set(key, { group, role, path, sha256: entry.sha256, bytes: entry.bytes })
    }
  }
  return [...missing.values()]
}

/** How much has to come: a blob that answers several paths counts once. */
export function missingBytes(missing: readonly MissingPath[]): number {
  return [...new Map(missing.map(({ sha256, bytes }) => [sha256, bytes])).values()].reduce(
    (sum, bytes) => sum + bytes,
    0,
  )
}

/** The trees of a bundle, from the store.
 *  @param named  what the metadata names; the site facts among them are left out
 *  @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH */
export function readTrees(blobs: Pick<BlobStore, 'read'>, named: Map<string, NamedBlob>): Map<string, Tree> {
  const trees = new Map<string, Tree>()
  for (const [target, { sha256, bytes }] of named) {
    if (target !== 'site') trees.set(target, parseTree(blobs.read(sha256, bytes), target))
  }
  return trees
}
