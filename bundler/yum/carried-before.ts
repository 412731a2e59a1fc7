/**
 * What the boxes of a site find now, read from the bundle that brought it: a package that the upstream dropped since is one
 * that a box may still need, and the site has it.
 */
import type { Sha256 } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { formatNevra } from '../../manifests/rpm-version.ts'
import { parseTreePath } from '../../manifests/path.ts'
import { dataOfType, MAX_REPOMD_BYTES, parseRepomd, type RepomdData } from '../../manifests/repomd.ts'
import { MAX_TREE_BYTES, parseTree, type Tree } from '../../manifests/tree.ts'
import type { StringPool } from '../../manifests/string-pool.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import { ifSound } from '../rot.ts'
import { nevraAt } from './globs.ts'
import { packagePath } from './repodata.ts'
import { readPrimary, type ListBlobs } from './yum-lists.ts'
import type { ListedRepository } from './yum-tables.ts'

export interface EarlierRepository extends ListedRepository {
  /** NEVRAs of packages that the store has no more */
  gone: ReadonlySet<string>
}

export interface EarlierReader {
  store: BlobStore
  signal?: AbortSignal
  /** of the tables that these will be resolved with */
  pool: StringPool
}

/** The repositories of a group as its boxes find them now, by id.
 *  @param sha256  of the group's tree; undefined before a site's first bundle
 *  @returns nothing for what the store has lost, or has damaged: the upstream is asked again then */
export async function carriedBefore(
  sha256: Sha256 | undefined,
  group: string,
  reader: EarlierReader,
): Promise<Map<string, EarlierRepository>> {
  const { store } = reader
  const found = new Map<string, EarlierRepository>()
  if (sha256 === undefined) return found
  const bytes = ifSound(() => store.read(sha256, MAX_TREE_BYTES))
  if (bytes === undefined) return found
  const tree = parseTree(bytes, `${group}/current`)
  for (const id of tree.stamps.keys()) {
    try {
      found.set(id, await readEarlier(tree, id, reader))
    } catch (error) {
      // It was sound when it was signed here: whatever is wrong with it now, the disk did it.
      if (!isGapferryError(error)) throw error
    }
  }
  return found
}

async function readEarlier(tree: Tree, id: string, reader: EarlierReader): Promise<EarlierRepository> {
  const what = `yum ${id} of the last bundle`
  const blobAt = (path: string): ReturnType<typeof tree.entries.get> => tree.entries.get(parseTreePath(path, what))
  const root = `yum/${id}`
  const entry = blobAt(`${root}/repodata/repomd.xml`)!
  const repomd = parseRepomd(reader.store.read(entry.sha256, MAX_REPOMD_BYTES), what)
  const data: Partial<ListBlobs> = {}
  let primary: RepomdData | undefined
  for (const type of ['primary', 'filelists', 'other'] as const) {
    const declared = dataOfType(repomd, type)!
    if (type === 'primary') primary = declared
    data[type] = blobAt(`${root}/${declared.href}`)!.sha256
  }
  const lists = data as ListBlobs
  const list = { type: 'primary', blob: lists.primary, what } as const
  const packages = await readPrimary(list, primary!, reader, reader.pool)
  const gone = new Set<string>()
  for (let i = 0; i < packages.count; i++) {
    const { sha256, bytes } = tree.entries.get(packagePath(id, packages.href.text(i)))!
    if (reader.store.sizeOf(sha256) !== bytes) gone.add(formatNevra(nevraAt(packages, i)))
  }
  return { id, data: lists, packages, gone }
}
