/** How often something may happen, by name. What was counted is in memory, for a bounded number of names. */

const MAX_NAMES = 10_000

/** So many of each name in a span of time. */
export class Allowance {
  readonly #max: number
  readonly #spanMs: number
  readonly #counts = new Map<string, { sinceMs: number; count: number }>()

  constructor(max: number, spanMs: number) {
    this.#max = max
    this.#spanMs = spanMs
  }

  has(name: string, nowMs: number): boolean {
    return this.#of(name, nowMs).count < this.#max
  }

  /** @returns false where nothing is left */
  take(name: string, nowMs: number): boolean {
    const now = this.#of(name, nowMs)
    if (now.count >= this.#max) return false
    this.#counts.set(name, { ...now, count: now.count + 1 })
    if (this.#counts.size > MAX_NAMES) this.#counts.delete(this.#counts.keys().next().value!)
    return true
  }

  /** A clock that was set back begins anew. */
  #of(name: string, nowMs: number): { sinceMs: number; count: number } {
    const known = this.#counts.get(name)
    const isFresh = known !== undefined && nowMs >= known.sinceMs && nowMs - known.sinceMs < this.#spanMs
    return isFresh ? known : { sinceMs: nowMs, count: 0 }
  }
}

/** True for the first of each name in a span of time. */
export class Once {
  readonly #allowance: Allowance

  constructor(spanMs: number) {
    this.#allowance = new Allowance(1, spanMs)
  }

  isFirst(name: string, nowMs: number): boolean {
    return this.#allowance.take(name, nowMs)
  }
}
