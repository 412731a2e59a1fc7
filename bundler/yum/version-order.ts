/** Orders and matches versions that are numbers of a pool: the same answers as rpm-version.ts, each comparison made once. */
import { GapferryError } from '../../manifests/errors.ts'
import { EMPTY, SENSE, type StringPool } from '../../manifests/package-table.ts'
import { rpmvercmp } from '../../manifests/rpm-version.ts'

/** Columns of epoch, version and release: of packages or of relations. */
export interface EvrColumns {
  epoch: ArrayLike<number>
  version: ArrayLike<number>
  release: ArrayLike<number>
}

/** Pairs of numbers stand in one number; a pool never holds that many texts. */
const PAIR = 2 ** 26

/** For one box. 30,000 packages and a box with 1500 need some hundred thousand; lists that were made to keep a plan busy need
 *  as many as there are pairs of packages. */
const MAX_COMPARISONS = 5_000_000
/** What is remembered is begun anew then. */
const MAX_KNOWN = 2 ** 20
/** Comparing takes as long as versions are; real ones have below 100 characters. */
const MAX_VERSION_CHARACTERS = 4096

/** @throws from any comparison: REPODATA_INVALID when they become too many, or too long */
export class VersionOrder {
  readonly #pool: StringPool
  readonly #caret: boolean
  readonly #known = new Map<number, -1 | 0 | 1>()
  readonly #zero: number
  #left = MAX_COMPARISONS

  /** @param caret  as in rpmvercmp */
  constructor(pool: StringPool, caret: boolean) {
    this.#pool = pool
    this.#caret = caret
    this.#zero = pool.intern('0')
  }

  /** For the next box. */
  refill(): void {
    this.#left = MAX_COMPARISONS
  }

  /** Orders build `i` of `a` and build `j` of `b`. */
  compare(a: EvrColumns, i: number, b: EvrColumns, j: number): -1 | 0 | 1 {
    this.#count()
    return (
      this.#epochs(a.epoch[i]!, b.epoch[j]!) ||
      this.#texts(a.version[i]!, b.version[j]!) ||
      this.#texts(a.release[i]!, b.release[j]!)
    )
  }

  /** As rangesOverlap: `senseA` and `senseB` are SENSE or 0; a missing version is EMPTY. */
  overlap(senseA: number, a: EvrColumns, i: number, senseB: number, b: EvrColumns, j: number): boolean {
    this.#count()
    if (senseA === 0 || senseB === 0 || a.version[i] === EMPTY || b.version[j] === EMPTY) return true
    const order = this.#epochs(a.epoch[i]!, b.epoch[j]!) || this.#texts(a.version[i]!, b.version[j]!)
    if (order !== 0) return reaches(order, senseA, senseB)
    const [mine, theirs] = [a.release[i]!, b.release[j]!]
    const byRelease = mine === EMPTY || theirs === EMPTY ? 0 : this.#texts(mine, theirs)
    if (byRelease !== 0) return reaches(byRelease, senseA, senseB)
    if (mine !== EMPTY && theirs === EMPTY && (senseB & SENSE.EQ) !== 0) return true
    if (theirs !== EMPTY && mine === EMPTY && (senseA & SENSE.EQ) !== 0) return true
    return (senseA & senseB) !== 0
  }

  #epochs(a: number, b: number): -1 | 0 | 1 {
    return this.#texts(a === EMPTY ? this.#zero : a, b === EMPTY ? this.#zero : b)
  }

  #texts(a: number, b: number): -1 | 0 | 1 {
    if (a === b) return 0
    const key = a * PAIR + b
    let order = this.#known.get(key)
    if (order === undefined) {
      order = rpmvercmp(this.#text(a), this.#text(b), { caret: this.#caret })
      if (this.#known.size >= MAX_KNOWN) this.#known.clear()
      this.#known.set(key, order)
    }
    return order
  }

  #text(number: number): string {
    const text = this.#pool.text(number)
    if (text.length <= MAX_VERSION_CHARACTERS) return text
    throw tooMuch(`expected versions of at most ${MAX_VERSION_CHARACTERS} characters, found ${text.length}`)
  }

  #count(): void {
    if (--this.#left < 0) throw tooMuch(`expected at most ${MAX_COMPARISONS} comparisons of versions for one box`)
  }
}

function tooMuch(why: string): GapferryError {
  return new GapferryError('REPODATA_INVALID', `what the repositories offer and the box has: ${why}`, {
    hint: 'look for a name with thousands of versions in the lists or in the inventory, and exclude it',
  })
}

/** Two ranges around different versions meet where the lower one reaches up or the higher one down. */
function reaches(order: -1 | 0 | 1, senseA: number, senseB: number): boolean {
  return order < 0
    ? (senseA & SENSE.GT) !== 0 || (senseB & SENSE.LT) !== 0
    : (senseA & SENSE.LT) !== 0 || (senseB & SENSE.GT) !== 0
}
