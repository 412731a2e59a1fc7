/**
 * Packages as columns. A repository has 30,000 packages and 400,000 relations: an object for each would cost more than
 * reading them. Texts are numbers into one pool that all tables of a resolution share, so equal names are equal numbers.
 */
import type { Nevra, Relation } from './rpm-version.ts'

/** The number of the empty text in every pool; in a relation it stands for what was left out. */
export const EMPTY = 0

/** rpm's bits for a relation's comparison; 0 is "any version", LE is less | equal. */
export const SENSE = { LT: 2, GT: 4, EQ: 8, LE: 10, GE: 12 } as const

/** Texts by number, each once. */
export class StringPool {
  readonly #texts: string[] = ['']
  readonly #numbers = new Map<string, number>([['', EMPTY]])

  get size(): number {
    return this.#texts.length
  }

  intern(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    this.#texts.push(text)
    this.#numbers.set(text, this.#texts.length - 1)
    return this.#texts.length - 1
  }

  /** The number of a text that is there; undefined for one that never was interned. */
  find(text: string): number | undefined {
    return this.#numbers.get(text)
  }

  text(number: number): string {
    return this.#texts[number]!
  }
}

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
