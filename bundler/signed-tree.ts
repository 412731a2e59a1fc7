/**
 * Trees of bundles that this laptop signed, and the documents in them that nobody else could make again.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { isPointer, MAX_TREE_BYTES, parseTree, type Tree, type TreeEntry } from '../manifests/tree.ts'
import type { BlobStore } from '../storage/blobs.ts'
import { ifSound } from './rot.ts'

/** @returns undefined where the tree, or a document in it, is not in the store any more or not what it was */
export function signedTree(store: BlobStore, sha256: Sha256, target: string): Tree | undefined {
  return ifSound(() => {
    const tree = parseTree(store.read(sha256, MAX_TREE_BYTES), target)
    for (const entry of tree.entries.values()) if (isDocument(entry)) store.read(entry.sha256, entry.bytes)
    return tree
  })
}

/** Made and signed here: no upstream has it. */
export function isDocument(entry: TreeEntry): boolean {
  return isPointer(entry) && entry.verdict === undefined
}
