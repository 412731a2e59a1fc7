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
