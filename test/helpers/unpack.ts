import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { MAX_BLOB_BYTES, MAX_TREE_BYTES, parseTree } from '../../manifests/tree.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Catalog } from '../../storage/catalog.ts'
import type { Gap } from './gap.ts'

/** Writes every path of an origin's newest imported current tree as a plain file below `to`. @returns `to` */
export function unpackOrigin(gap: Gap, to: string, group = gap.group): string {
  const store = join(gap.mirrorDir, 'store')
  const blobs = new BlobStore(store)
  const catalog = new Catalog(join(store, 'catalog.db'))
  try {
    const { sha256 } = catalog.trees(catalog.newestBundle()!.number).get(`${group}/current`)!
    for (const [path, entry] of parseTree(blobs.read(sha256, MAX_TREE_BYTES), 'tree').entries) {
      mkdirSync(dirname(join(to, path)), { recursive: true })
      writeFileSync(join(to, path), blobs.read(entry.sha256, MAX_BLOB_BYTES))
    }
  } finally {
    catalog.close()
  }
  return to
}

/** Flips one bit in the middle of the one file that matches, or takes it away. @returns puts it back */
export function alter(folder: string, name: RegExp, how: 'flip' | 'remove' = 'flip'): () => void {
  const [match, ...more] = readdirSync(folder).filter((one) => name.test(one))
  if (match === undefined || more.length > 0) throw new Error(`${folder}: not exactly one ${String(name)}`)
  const file = join(folder, match)
  if (how === 'remove') {
    renameSync(file, `${file}.away`)
    return () => renameSync(`${file}.away`, file)
  }
  const good = readFileSync(file)
  const bad = Buffer.from(good)
  const middle = Math.floor(bad.length / 2)
  bad[middle] = bad[middle]! ^ 1
  writeFileSync(file, bad)
  return () => writeFileSync(file, good)
}
