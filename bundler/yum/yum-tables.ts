/** Repositories as resolving takes them: all of primary as a table, and from filelists who has certain paths. */
import type { RepositoryTable } from '../../manifests/package-columns.ts'
import { findFiles, type ListBlobs, type ListReader } from './yum-lists.ts'

export interface ListedRepository {
  id: string
  data: ListBlobs
  /** primary */
  packages: RepositoryTable
}

/** Who has which of the wanted paths, by filelists; nobody where there are none.
 *  @returns path → rows of `packages`
 *  @throws what reading lists throws */
export async function findPaths(
  { id, data, packages }: ListedRepository,
  wanted: ReadonlySet<string>,
  reader: ListReader,
): Promise<Map<string, number[]>> {
  const { filelists } = data
  if (filelists === undefined || wanted.size === 0) return new Map()
  const found = await findFiles({ type: 'filelists', blob: filelists, what: `filelists of ${id}` }, wanted, reader)
  const ids = new Set([...found.values()].flatMap((owners) => [...owners]))
  const rows = new Map<string, number[]>()
  for (let i = 0; ids.size > 0 && i < packages.count; i++) {
    const hex = packages.checksum.text(i)
    if (ids.has(hex)) rows.set(hex, [...(rows.get(hex) ?? []), i])
  }
  return new Map([...found].map(([path, owners]) => [path, [...owners].flatMap((hex) => rows.get(hex) ?? [])]))
}
