/** What resolving needs of a repository beside its table: from filelists, who has certain paths. */
import type { RepositoryTable } from '../manifests/package-columns.ts'
import { findFiles, type ListBlobs, type ListReader } from './yum-lists.ts'

export interface ListedRepository {
  id: string
  data: ListBlobs
  packages: RepositoryTable
}

/** Who has which of the wanted paths, by filelists; nobody where there are none.
 *  @returns path → rows of `packages`
 *  @throws as findFiles */
export async function findPaths(
  { id, data, packages }: ListedRepository,
  wanted: ReadonlySet<string>,
  reader: ListReader,
): Promise<Map<string, number[]>> {
  if (data.filelists === undefined || wanted.size === 0) return new Map()
  const owners = await findFiles(
    { type: 'filelists', blob: data.filelists, what: `filelists of ${id}` },
    wanted,
    reader,
  )
  const ids = new Set([...owners.values()].flatMap((some) => [...some]))
  const rows = new Map<string, number>()
  for (let i = 0; i < packages.count && ids.size > 0; i++) {
    const hex = packages.checksum.text(i)
    if (ids.has(hex)) rows.set(hex, i)
  }
  return new Map(
    [...owners].map(([path, some]) => [path, [...some].flatMap((hex) => rows.get(hex) ?? []).sort((a, b) => a - b)]),
  )
}
