/**
 * What the repositories of a group offer, ready to be resolved against one box after the other: one table of all packages,
 * and for each requirement that was asked for, who fulfils it.
 */
import type { PackageTable, RelationKind, StringPool } from '../../manifests/package-table.ts'
import { EMPTY, SENSE } from '../../manifests/package-table.ts'
import { formatNevra, formatRelation, type Relation } from '../../manifests/rpm-version.ts'
import { nevraAt } from './globs.ts'
import { joinTables, PackageIndex } from './package-index.ts'
import { atomsOf } from './requirements.ts'
import { VersionOrder } from './version-order.ts'

/** One repository: what its primary says, and from its filelists who has the paths that `wantedPaths` names. */
export interface OfferedRepository {
  id: string
  table: PackageTable
  /** path → rows of `table` */
  paths?: ReadonlyMap<string, readonly number[]>
}

const FLAGS = { [SENSE.EQ]: 'EQ', [SENSE.LT]: 'LT', [SENSE.LE]: 'LE', [SENSE.GT]: 'GT', [SENSE.GE]: 'GE' } as const

/** Packages are known by their place: the rows of the first repository, then those of the second, and so on. */
export class Available {
  readonly pool: StringPool
  readonly order: VersionOrder
  readonly index: PackageIndex
  readonly table: PackageTable
  readonly repositories: readonly { id: string; start: number; end: number }[]
  /** requirements that were asked for, each meaning once */
  readonly requirements = {
    name: [] as number[],
    sense: [] as number[],
    epoch: [] as number[],
    version: [] as number[],
    release: [] as number[],
  }
  readonly #known = new Map<string, number>()
  readonly #providers: (Uint32Array | undefined)[] = []
  readonly #asked = new Map<PackageTable, (readonly number[])[][]>()

  /** @param caret  as in rpmvercmp: false for boxes with rpm 4.11 */
  constructor(pool: StringPool, repositories: readonly OfferedRepository[], { caret }: { caret: boolean }) {
    this.pool = pool
    this.order = new VersionOrder(pool, caret)
    this.table = joinTables(
      pool,
      repositories.map((one) => one.table),
    )
    let end = 0
    this.repositories = repositories.map(({ id, table }) => ({ id, start: end, end: (end += table.count) }))
    const paths = new Map<number, number[]>()
    repositories.forEach((one, i) => addPaths(paths, pool, one, this.repositories[i]!.start))
    this.index = new PackageIndex(this.table, this.order, paths)
  }

  /** The requirements of package `index` of `table` as rows of `requirements`, those of rpm itself left out, rich ones taken
   *  apart. */
  requirementsOf(table: PackageTable, kind: 'requires' | 'recommends', index: number): number[] {
    const relations = table[kind]
    const rows: number[] = []
    for (let i = relations.start[index]!; i < relations.start[index + 1]!; i++)
      rows.push(...this.#rowsOf(table, kind, i))
    return rows
  }

  /** The packages that fulfil requirement `row`, each once. */
  providersOf(row: number): Uint32Array {
    const known = this.#providers[row]
    if (known !== undefined) return known
    const found = new Set<number>()
    this.index.findProviders(this.requirements, row, (i) => {
      found.add(i)
      return false
    })
    return (this.#providers[row] = Uint32Array.from(found))
  }

  /** The row of a requirement. */
  rowOf({ name, flags, epoch, version, release }: Relation): number {
    const number = (text: string | undefined): number => this.pool.intern(text ?? '')
    return this.#row(
      number(name),
      flags === undefined ? 0 : SENSE[flags],
      number(epoch),
      number(version),
      number(release),
    )
  }

  requirementText(row: number): string {
    const { name, sense, epoch, version, release } = this.requirements
    return formatRelation(relationOf(this.pool, { name, sense, epoch, version, release }, row))
  }

  nevraOf(table: PackageTable, index: number): string {
    return formatNevra(nevraAt(table, index))
  }

  #rowsOf(table: PackageTable, kind: RelationKind, relation: number): readonly number[] {
    const asked = this.#askedOf(table, kind)
    return (asked[relation] ??= this.#findRows(table, kind, relation))
  }

  #askedOf(table: PackageTable, kind: RelationKind): (readonly number[])[] {
    // of the repositories alone: a box's own table is asked once and forgotten
    if (table !== this.table) return []
    const kinds = this.#asked.get(table) ?? [[], []]
    this.#asked.set(table, kinds)
    return kinds[kind === 'requires' ? 0 : 1]!
  }

  #findRows(table: PackageTable, kind: RelationKind, relation: number): readonly number[] {
    const { name, sense, epoch, version, release } = table[kind]
    const text = this.pool.text(name[relation]!)
    if (text.startsWith('rpmlib(')) return NO_ROWS
    if (text.startsWith('(')) return atomsOf({ name: text }).map((atom) => this.rowOf(atom))
    return [this.#row(name[relation]!, sense[relation]!, epoch[relation]!, version[relation]!, release[relation]!)]
  }

  #row(name: number, sense: number, givenEpoch: number, version: number, release: number): number {
    const epoch = givenEpoch === EMPTY ? this.pool.intern('0') : givenEpoch
    const key = sense === 0 ? `${name}` : `${name} ${sense} ${epoch} ${version} ${release}`
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const { requirements } = this
    const row = requirements.name.push(name) - 1
    requirements.sense.push(sense)
    requirements.epoch.push(epoch)
    requirements.version.push(version)
    requirements.release.push(release)
    this.#known.set(key, row)
    return row
  }
}

/** Relation `i` of columns as an object. */
export function relationOf(
  pool: StringPool,
  columns: Record<'name' | 'sense' | 'epoch' | 'version' | 'release', ArrayLike<number>>,
  i: number,
): Relation {
  const flags = FLAGS[columns.sense[i] as keyof typeof FLAGS]
  const name = pool.text(columns.name[i]!)
  if (columns.sense[i] === 0) return { name }
  const text = (column: ArrayLike<number>): string => pool.text(column[i]!)
  return { name, flags, epoch: text(columns.epoch), version: text(columns.version), release: text(columns.release) }
}

/** What createrepo puts into primary; all other paths stand in filelists alone. */
const PRIMARY_PATH = /^\/etc\/|bin\/|^\/usr\/lib\/sendmail$/

/** The paths that packages require and that only filelists can answer for.
 *  @param tables  of everything that may be installed together: repositories and boxes */
export function wantedPaths(tables: readonly PackageTable[]): Set<string> {
  const inPrimary = new Set<number>(tables.flatMap((table) => [...table.files.path]))
  const wanted = new Set<string>()
  for (const table of tables) {
    const { pool } = table
    const names = new Set(PATH_KINDS.flatMap((kind) => [...new Set(table[kind].name)]))
    for (const name of names) {
      const text = pool.text(name)
      if (!text.startsWith('/') && !text.startsWith('(')) continue
      for (const atom of atomsOf({ name: text })) {
        if (!atom.name.startsWith('/')) continue
        if (!PRIMARY_PATH.test(atom.name) || !inPrimary.has(pool.find(atom.name) ?? EMPTY)) wanted.add(atom.name)
      }
    }
  }
  return wanted
}

const PATH_KINDS = ['requires', 'recommends', 'supplements'] as const

const NO_ROWS: readonly number[] = []

function addPaths(to: Map<number, number[]>, pool: StringPool, { paths }: OfferedRepository, start: number): void {
  for (const [path, rows] of paths ?? []) {
    const number = pool.intern(path)
    const known = to.get(number) ?? []
    known.push(...rows.map((row) => row + start))
    to.set(number, known)
  }
}
