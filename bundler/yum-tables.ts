/** What resolving needs of a repository's lists: all of primary as a table, and from filelists who has certain paths. */
import {
  RELATION_KINDS,
  tableOf,
  type PackageFacts,
  type PackageTable,
  type StringPool,
} from '../manifests/package-table.ts'
import { readPackageId, readPackageStrictly, type PackageRow } from '../manifests/package-xml.ts'
import { parseXml } from '../manifests/xml.ts'
import { readList, type ListBlobs, type ListReader } from './yum-lists.ts'

export interface ListedRepository {
  id: string
  data: ListBlobs
  /** as primary has them, in its order */
  packages: readonly PackageRow[]
}

/** The packages of a primary, row i for `packages[i]`. @throws what reading lists throws */
export async function readTable(
  pool: StringPool,
  { id, data, packages }: ListedRepository,
  reader: ListReader,
): Promise<PackageTable> {
  const facts: PackageFacts[] = []
  const list = { type: 'primary', blob: data.primary, what: `primary of ${id}` } as const
  await readList(list, reader, (element) => {
    const found = readPackageStrictly(element, list.what)
    const relations = Object.entries(found).filter(([kind]) => (RELATION_KINDS as readonly string[]).includes(kind))
    facts.push({ ...packages[facts.length]!, ...Object.fromEntries(relations), files: found.files })
  })
  return tableOf(pool, facts)
}

const FILE_END = '</file>'

/** Who has which of the wanted paths, by filelists; nobody where there are none.
 *  @returns path → rows of `packages` */
export async function findPaths(
  { id, data, packages }: ListedRepository,
  wanted: ReadonlySet<string>,
  reader: ListReader,
): Promise<Map<string, number[]>> {
  const found = new Map<string, number[]>()
  if (data.filelists === undefined || wanted.size === 0) return found
  const rows = new Map(packages.map((one, i) => [one.checksum.hex, i]))
  const list = { type: 'filelists', blob: data.filelists, what: `filelists of ${id}` } as const
  await readList(list, reader, (element) => {
    let row: number | undefined
    const text = element.toString('utf8')
    for (let end = text.indexOf(FILE_END); end >= 0; end = text.indexOf(FILE_END, end + 1)) {
      let path = text.slice(text.lastIndexOf('>', end) + 1, end)
      if (path.includes('&')) path = parseXml(`<file>${path}</file>`, list.what).text
      if (!wanted.has(path)) continue
      row ??= rows.get(readPackageId(element, list.what))
      if (row === undefined) continue
      const owners = found.get(path)
      if (owners === undefined) found.set(path, [row])
      else if (owners.at(-1) !== row) owners.push(row)
    }
  })
  return found
}
