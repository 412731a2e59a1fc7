/** Orders and matches versions that are numbers of a pool: the same answers as rpm-version.ts, each comparison made once. */
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

export class VersionOrder {
  readonly #pool: StringPool
  readonly #caret: boolean
  readonly #known = new Map<number, -1 | 0 | 1>()
  readonly #zero: number

  /** @param caret  as in rpmvercmp */
  constructor(pool: StringPool, caret: boolean) {
    this.#pool = pool
    this.#caret = caret
    this.#zero = pool.intern('0')
  }

  /** Orders build `i` of `a` and build `j` of `b`. */
  compare(a: EvrColumns, i: number, b: EvrColumns, j: number): -1 | 0 | 1 {
    return (
      this.#epochs(a.epoch[i]!, b.epoch[j]!) ||
      this.#texts(a.version[i]!, b.version[j]!) ||
      this.#texts(a.release[i]!, b.release[j]!)
    )
  }

  /** As rangesOverlap: `senseA` and `senseB` are SENSE or 0; a missing version is EMPTY. */
  overlap(senseA: number, a: EvrColumns, i: number, senseB: number, b: EvrColumns, j: number): boolean {
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
      order = rpmvercmp(this.#pool.text(a), this.#pool.text(b), { caret: this.#caret })
      this.#known.set(key, order)
    }
    return order
  }
}

/** Two ranges around different versions meet where the lower one reaches up or the higher one down. */
function reaches(order: -1 | 0 | 1, senseA: number, senseB: number): boolean {
  return order < 0
    ? (senseA & SENSE.GT) !== 0 || (senseB & SENSE.LT) !== 0
    : (senseA & SENSE.LT) !== 0 || (senseB & SENSE.GT) !== 0
}
