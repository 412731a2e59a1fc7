/**
 * Everything that is offered to the boxes of a group, in one order of places: each repository, and behind it what the last
 * bundle has of it.
 */
import { packageRow, type RepositoryTable } from '../../manifests/package-columns.ts'
import { StringPool, tableOf, type PackageFacts } from '../../manifests/package-table.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { formatNevra } from '../../manifests/rpm-version.ts'
import { wantedPaths, type OfferedRepository } from './available.ts'
import type { EarlierRepository } from './carried-before.ts'
import { nevraAt } from './globs.ts'
import type { ListedRepository } from './yum-tables.ts'

/** A repository, and what the last bundle has of it. */
export interface Offer {
  upstream: ListedRepository
  earlier: EarlierRepository | undefined
}

interface OfferedList extends OfferedRepository {
  table: RepositoryTable
  /** of its first package */
  start: number
  /** of its repository among the offers */
  offer: number
  isEarlier: boolean
}

export class Offers {
  readonly pool: StringPool
  readonly lists: readonly OfferedList[]
  /** places of the last bundle that an upstream has as well, or the store no more */
  readonly hidden: readonly number[]
  /** required paths that no filelists name */
  openPaths: readonly string[] = []

  /** @param offers  their tables share one pool */
  constructor(offers: readonly Offer[]) {
    this.pool = offers[0]?.upstream.packages.pool ?? new StringPool()
    const lists: OfferedList[] = []
    let start = 0
    for (const [offer, { upstream, earlier }] of offers.entries()) {
      for (const { id, packages } of earlier === undefined ? [upstream] : [upstream, earlier]) {
        lists.push({ id, table: packages, start, offer, isEarlier: packages === earlier?.packages })
        start += packages.count
      }
    }
    this.lists = lists
    this.hidden = hiddenPlaces(lists, new Set(offers.flatMap(({ earlier }) => [...(earlier?.gone ?? [])])))
  }

  /** Finds out who has the paths that something requires which no primary tells of. */
  async findPaths(
    installed: readonly (readonly PackageFacts[])[],
    find: (repository: ListedRepository, wanted: ReadonlySet<string>) => Promise<Map<string, number[]>>,
    offers: readonly Offer[],
  ): Promise<void> {
    const tables = [
      ...this.lists.map(({ table }) => table),
      ...installed.map((packages) => tableOf(this.pool, packages)),
    ]
    const paths = wantedPaths(tables)
    for (const list of this.lists) {
      const { upstream, earlier } = offers[list.offer]!
      list.paths = await find(list.isEarlier ? earlier! : upstream, paths)
    }
    this.openPaths = [...paths].filter((path) => !this.lists.some((list) => list.paths!.has(path)))
  }

  rowAt(place: number): PackageRow {
    const { table, start } = this.listAt(place)
    return packageRow(table, place - start)
  }

  bytesAt(place: number): number {
    const { table, start } = this.listAt(place)
    return table.bytes[place - start]!
  }

  listAt(place: number): OfferedList {
    return this.lists.findLast((list) => list.start <= place && list.table.count > 0)!
  }

  /** Where the rows stand that were selected from repository `offer`. */
  placesOf(offer: number, rows: readonly PackageRow[]): number[] {
    const { table, start } = this.lists.find((list) => list.offer === offer)!
    const wanted = new Map(rows.map((row) => [row.nevra, row.checksum.hex]))
    const names = new Set(rows.map(({ name }) => this.pool.find(name)))
    const places: number[] = []
    for (let i = 0; i < table.count && wanted.size > 0; i++) {
      if (!names.has(table.name[i])) continue
      const hex = wanted.get(formatNevra(nevraAt(table, i)))
      if (hex === table.checksum.text(i)) places.push(start + i)
    }
    return places
  }
}

function hiddenPlaces(lists: readonly OfferedList[], gone: ReadonlySet<string>): number[] {
  const nevrasOf = ({ table }: OfferedList): string[] =>
    Array.from({ length: table.count }, (_, i) => formatNevra(nevraAt(table, i)))
  const earlier = lists.filter(({ isEarlier }) => isEarlier)
  if (earlier.length === 0) return []
  const offered = new Set(lists.filter(({ isEarlier }) => !isEarlier).flatMap(nevrasOf))
  return earlier.flatMap((list) =>
    nevrasOf(list).flatMap((nevra, i) => (offered.has(nevra) || gone.has(nevra) ? [list.start + i] : [])),
  )
}
