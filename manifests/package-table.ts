/**
 * Packages as columns. A repository has 30,000 packages and 400,000 relations: an object for each would cost more than
 * reading them. Texts are numbers into one pool that all tables of a resolution share, so equal names are equal numbers.
 */
import type { Nevra, Relation } from './rpm-version.ts'
import type { StringPool } from './string-pool.ts'

export { EMPTY, StringPool } from './string-pool.ts'

/** rpm's bits for a relation's comparison; 0 is "any version", LE is less | equal. */
export const SENSE = { LT: 2, GT: 4, EQ: 8, LE: 10, GE: 12 } as const

/** The relations of one kind of all packages, packed: those of package i stand at start[i] … start[i + 1] - 1. */
export interface Relations {
  start: Uint32Array
  name: Uint32Array
  /** SENSE, or 0 */
  sense: Uint8Array
  epoch: Uint32Array
  version: Uint32Array
  release: Uint32Array
}

export const RELATION_KINDS = ['provides', 'requires', 'obsoletes', 'conflicts', 'recommends', 'supplements'] as const
export type RelationKind = (typeof RELATION_KINDS)[number]

/** `count` packages; every column but the packed ones has one number for each, texts as numbers of `pool`. */
export interface PackageTable extends Record<RelationKind, Relations> {
  pool: StringPool
  count: number
  name: Uint32Array
  /** digits; '0' where the source says nothing */
  epoch: Uint32Array
  version: Uint32Array
  release: Uint32Array
  arch: Uint32Array
  /** paths that the source lists; primary holds only those in /etc and bin folders */
  files: { start: Uint32Array; path: Uint32Array }
}

/** A package to put into a table: what was left out is empty. A rich requirement is a relation whose name is all of it. */
export interface PackageFacts extends Nevra, Partial<Record<RelationKind, readonly Relation[]>> {
  files?: readonly string[]
}

/** @param pool  shared by all tables that are to be resolved together */
export function tableOf(pool: StringPool, packages: readonly PackageFacts[]): PackageTable {
  const column = (text: (one: PackageFacts) => string): Uint32Array => {
    return Uint32Array.from(packages, (one) => pool.intern(text(one)))
  }
  const relations = RELATION_KINDS.map((kind) => [kind, relationsOf(pool, packages, kind)] as const)
  return {
    pool,
    count: packages.length,
    name: column((one) => one.name),
    epoch: column((one) => one.epoch || '0'),
    version: column((one) => one.version),
    release: column((one) => one.release),
    arch: column((one) => one.arch),
    ...(Object.fromEntries(relations) as Record<RelationKind, Relations>),
    files: filesOf(pool, packages),
  }
}

function relationsOf(pool: StringPool, packages: readonly PackageFacts[], kind: RelationKind): Relations {
  const start = startsOf(packages, (one) => one[kind]?.length ?? 0)
  const all = packages.flatMap((one) => one[kind] ?? [])
  const column = (text: (relation: Relation) => string | undefined): Uint32Array => {
    return Uint32Array.from(all, (relation) => pool.intern(text(relation) ?? ''))
  }
  return {
    start,
    name: column((relation) => relation.name),
    sense: Uint8Array.from(all, ({ flags }) => (flags === undefined ? 0 : SENSE[flags])),
    epoch: column((relation) => relation.epoch),
    version: column((relation) => relation.version),
    release: column((relation) => relation.release),
  }
}

function filesOf(pool: StringPool, packages: readonly PackageFacts[]): PackageTable['files'] {
  const start = startsOf(packages, (one) => one.files?.length ?? 0)
  return {
    start,
    path: Uint32Array.from(
      packages.flatMap((one) => one.files ?? []),
      (path) => pool.intern(path),
    ),
  }
}

function startsOf(packages: readonly PackageFacts[], lengthOf: (one: PackageFacts) => number): Uint32Array {
  const start = new Uint32Array(packages.length + 1)
  packages.forEach((one, i) => (start[i + 1] = start[i]! + lengthOf(one)))
  return start
}
