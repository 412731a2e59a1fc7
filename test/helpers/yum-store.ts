import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { dataOfType, parseRepomd } from '../../manifests/repomd.ts'
import { readPrimary, type ListBlobs } from '../../bundler/yum/yum-lists.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { rowsOf } from './tables.ts'

/** A repository's metadata in a store, as looking at an upstream leaves it. */
export interface StoredRepository {
  store: BlobStore
  data: ListBlobs
  packages: PackageRow[]
}

/** Puts the repodata of `dir` into a store at `storeDir`. `edit` may change the unpacked text of a list; undefined leaves
 *  the list away. */
export async function storeRepository(
  dir: string,
  storeDir: string,
  edit: (type: string, bytes: Buffer) => Buffer | undefined = (_, bytes) => bytes,
): Promise<StoredRepository> {
  const store = new BlobStore(storeDir)
  const names = readdirSync(join(dir, 'repodata'))
  const data: Partial<ListBlobs> = {}
  for (const type of ['primary', 'filelists', 'other'] as const) {
    const name = names.find((one) => one.includes(`-${type}.xml`))!
    const bytes = edit(type, readFileSync(join(dir, 'repodata', name)))
    if (bytes !== undefined) data[type] = await store.put(bytes)
  }
  const lists = data as ListBlobs
  const repomd = parseRepomd(readFileSync(join(dir, 'repodata/repomd.xml')), dir)
  const { openChecksum: _, openBytes: __, ...declared } = dataOfType(repomd, 'primary')!
  const table = await readPrimary({ type: 'primary', blob: lists.primary, what: 'primary' }, declared, { store })
  return { store, data: lists, packages: rowsOf(table) }
}
