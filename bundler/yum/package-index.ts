/**
 * What resolving has to find at once in a table of packages: who is called so, who provides this, who has that path, who
 * obsoletes whom. Made once for the repositories of a group, whatever the number of its boxes.
 */
import {
  RELATION_KINDS,
  SENSE,
  type PackageTable,
  type RelationKind,
  type Relations,
  type StringPool,
} from '../../manifests/package-table.ts'
import type { EvrColumns, VersionOrder } from './version-order.ts'

/** Numbers by text: those of text n stand at start[n] … start[n + 1] - 1 of items. */
interface Postings {
  start: Uint32Array
  items: Uint32Array
}

/** Requirements in columns, known by their row. */
export interface RequirementColumns extends EvrColumns {
  name: ArrayLike<number>
  sense: ArrayLike<number>
}

const NONE = new Uint32Array(0)

export class PackageIndex {
  readonly table: PackageTable
  readonly #order: VersionOrder
  readonly #byName: Postings
  readonly #provides: Postings
  readonly #provideOwner: Uint32Array
  readonly #obsoletes: Postings
  readonly #obsoleteOwner: Uint32Array
  readonly #paths: Postings
  readonly #morePaths: ReadonlyMap<number, readonly number[]>

  /** @param morePaths  path → packages that have it, beyond `table.files`: what filelists say */
  constructor(
    table: PackageTable,
    order: VersionOrder,
    morePaths: ReadonlyMap<number, readonly number[]> = new Map<number, number[]>(),
  ) {
    const texts = table.pool.size
    this.table = table
    this.#order = order
    this.#byName = postings(table.name, identity(table.count), texts)
    this.#provideOwner = ownersOf(table.provides.start)
    this.#provides = postings(table.provides.name, identity(table.provides.name.length), texts)
    this.#obsoleteOwner = ownersOf(table.obsoletes.start)
    this.#obsoletes = postings(table.obsoletes.name, identity(table.obsoletes.name.length), texts)
    this.#paths = postings(table.files.path, ownersOf(table.files.start), texts)
    this.#morePaths = morePaths
  }

  /** Packages of this name. */
  named(name: number): Uint32Array {
    return itemsOf(this.#byName, name)
  }

  /** Calls `found` with each package that fulfils requirement `row`: by its own name, by a provide or by a path; with one
   *  that does so in several ways, several times. Stops and returns true as soon as `found` does. */
  findProviders(require: RequirementColumns, row: number, found: (index: number) => boolean): boolean {
    const { table } = this
    const { provides } = table
    const name = require.name[row]!
    const sense = require.sense[row]!
    for (const i of this.named(name)) {
      if (this.#order.overlap(SENSE.EQ, table, i, sense, require, row) && found(i)) return true
    }
    for (const relation of itemsOf(this.#provides, name)) {
      if (!this.#order.overlap(provides.sense[relation]!, provides, relation, sense, require, row)) continue
      if (found(this.#provideOwner[relation]!)) return true
    }
    for (const i of itemsOf(this.#paths, name)) if (found(i)) return true
    for (const i of this.#morePaths.get(name) ?? []) if (found(i)) return true
    return false
  }

  /** Calls `found` with each package here that obsoletes package `index` of `table`, by name and version, never by what it
   *  provides; and with the number of the relation that says so. */
  findObsoleters(table: PackageTable, index: number, found: (obsoleter: number, relation: number) => void): void {
    const { obsoletes } = this.table
    for (const relation of itemsOf(this.#obsoletes, table.name[index]!)) {
      if (!this.#order.overlap(SENSE.EQ, table, index, obsoletes.sense[relation]!, obsoletes, relation)) continue
      found(this.#obsoleteOwner[relation]!, relation)
    }
  }

  /** Calls `found` with each package here that one of the `obsoletes` of package `index` of `table` is about. */
  findObsoleted(table: PackageTable, index: number, found: (obsoleted: number) => void): void {
    const { obsoletes } = table
    for (let relation = obsoletes.start[index]!; relation < obsoletes.start[index + 1]!; relation++) {
      for (const i of this.named(obsoletes.name[relation]!)) {
        if (this.#order.overlap(SENSE.EQ, this.table, i, obsoletes.sense[relation]!, obsoletes, relation)) found(i)
      }
    }
  }
}

/** One table with the packages of all, in their order. All share one pool. */
export function joinTables(pool: StringPool, tables: readonly PackageTable[]): PackageTable {
  const column = (pick: (table: PackageTable) => Uint32Array): Uint32Array => joinColumns(tables.map(pick))
  const relations = RELATION_KINDS.map((kind) => [kind, joinRelations(tables.map((table) => table[kind]))] as const)
  return {
    pool,
    count: tables.reduce((sum, table) => sum + table.count, 0),
    name: column((table) => table.name),
    epoch: column((table) => table.epoch),
    version: column((table) => table.version),
    release: column((table) => table.release),
    arch: column((table) => table.arch),
    ...(Object.fromEntries(relations) as Record<RelationKind, Relations>),
    files: {
      start: joinStarts(tables.map((table) => table.files.start)),
      path: column((table) => table.files.path),
    },
  }
}

function joinRelations(all: readonly Relations[]): Relations {
  return {
    start: joinStarts(all.map((one) => one.start)),
    name: joinColumns(all.map((one) => one.name)),
    sense: Uint8Array.from(joinColumns(all.map((one) => Uint32Array.from(one.sense)))),
    epoch: joinColumns(all.map((one) => one.epoch)),
    version: joinColumns(all.map((one) => one.version)),
    release: joinColumns(all.map((one) => one.release)),
  }
}

function joinColumns(columns: readonly Uint32Array[]): Uint32Array {
  const joined = new Uint32Array(columns.reduce((sum, column) => sum + column.length, 0))
  let at = 0
  for (const column of columns) {
    joined.set(column, at)
    at += column.length
  }
  return joined
}

/** The first numbers of packed lists, the lists of one table behind those of the one before. */
function joinStarts(starts: readonly Uint32Array[]): Uint32Array {
  const joined = new Uint32Array(starts.reduce((sum, start) => sum + start.length - 1, 1))
  let [at, offset] = [0, 0]
  for (const start of starts) {
    for (let i = 0; i < start.length - 1; i++) joined[at++] = start[i]! + offset
    offset += start.at(-1)!
  }
  joined[at] = offset
  return joined
}

function itemsOf({ start, items }: Postings, text: number): Uint32Array {
  // a text that came after the index was made stands nowhere in it
  return text + 1 < start.length ? items.subarray(start[text], start[text + 1]) : NONE
}

/** @param keys  a text for each item
 *  @param texts  how many there are */
function postings(keys: Uint32Array, items: Uint32Array, texts: number): Postings {
  const start = new Uint32Array(texts + 1)
  for (const key of keys) start[key + 1]!++
  for (let i = 0; i < texts; i++) start[i + 1]! += start[i]!
  const next = start.slice()
  const sorted = new Uint32Array(keys.length)
  for (let i = 0; i < keys.length; i++) sorted[next[keys[i]!]!++] = items[i]!
  return { start, items: sorted }
}

/** Whose each item of a packed list is. */
function ownersOf(start: Uint32Array): Uint32Array {
  const owners = new Uint32Array(start.at(-1)!)
  for (let i = 0; i + 1 < start.length; i++) owners.fill(i, start[i], start[i + 1])
  return owners
}

function identity(length: number): Uint32Array {
  const numbers = new Uint32Array(length)
  for (let i = 0; i < length; i++) numbers[i] = i
  return numbers
}
