/**
 * What a box may need for its update: every package that yum or dnf could choose, and what these could choose it for.
 * No solver is played; a set is grown until nothing is missing that any choice could ask for (the rules below), so that
 * the box's own solver finds on the mirror all that it would have found at the upstream.
 *
 * Rules, to a fix-point, on what the box's settings leave (box-settings.ts):
 *   newer      every newer version of an installed name: the newest may be broken, an older one required
 *   native     the installed version for the box's own architecture, where only another one's is installed
 *   obsoleter  every package that obsoletes an installed or a chosen one
 *   provider   every provider of a requirement, of installed or chosen packages, that no installed package fulfils for
 *              sure: what may be updated or obsoleted may take its provides with it
 *   newest     the newest version, per architecture, of every name that came in: managers judge by it
 * A version older than the installed one, or the same, is no provider of what the installed one fulfils: no update goes
 * back for something that it has.
 * The set only grows, each package is looked at once, and a requirement again only when the installed package that
 * fulfilled it may go: so loops of requirements and of obsoletes end.
 */
import { GapferryError } from '../manifests/errors.ts'
import type { PackageTable } from '../manifests/package-table.ts'
import { relationOf, type Available } from './yum/available.ts'
import { findBeside } from './yum/beside.ts'
import type { BoxRules } from './yum/box-settings.ts'
import { PackageIndex } from './yum/package-index.ts'
import { mayHold } from './yum/requirements.ts'

export const RULES = ['newer', 'native', 'obsoleter', 'provider', 'newest', 'wanted'] as const
export type Rule = (typeof RULES)[number]

/** Why a package was taken first. */
export interface Reason {
  rule: Rule
  /** row of the installed table, or place in Available; null for what the settings want */
  by: { isInstalled: boolean; index: number } | null
  /** for `provider`: row of Available's requirements */
  requirement: number | null
}

export interface Closure {
  /** places in Available, in the order in which they were taken */
  packages: number[]
  /** so many of them, from the first, follow from the box; the others from what the settings want */
  candidates: number
  reasonOf: (place: number) => Reason
  /** of each installed name the newest version that has all it requires: no update is smaller */
  least: number[]
  /** requirements of what is installed or newest that nothing on offer can fulfil after an update */
  unresolved: Unresolved[]
}

export interface Unresolved {
  /** row of Available's requirements */
  requirement: number
  by: { isInstalled: boolean; index: number }
  /** `leaving`: an installed package fulfils it, and may be replaced by one that does not */
  kind: 'missing' | 'leaving'
}

/** @param available  of the box's group
 *  @param installed  in a table with Available's pool
 *  @param wanted  places that are carried whatever the box has, with what they need there */
export function resolveBox(
  available: Available,
  { installed, rules }: { installed: PackageTable; rules: BoxRules },
  wanted: Iterable<number> = [],
): Closure {
  available.order.refill()
  const growing = new Growing(available, installed, rules)
  growing.start()
  const candidates = growing.packages.length
  const [least, unresolved] = [growing.least(), growing.unresolved()]
  for (const place of wanted) growing.want(place)
  growing.finish()
  return { packages: growing.packages, candidates, reasonOf: (place) => growing.reasonOf(place), least, unresolved }
}

/** Packages that supplement packages that supplement …: each link is a look at all of them. */
const MAX_ROUNDS = 100
const OUT = 0
/** Who asks is one number: places in Available from 0 on, rows of the installed table from -1 down. */
const NOBODY = 2 ** 31 - 1

class Growing {
  readonly packages: number[] = []
  readonly #available: Available
  readonly #table: PackageTable
  readonly #installed: PackageTable
  readonly #present: PackageIndex
  readonly #rules: BoxRules
  /** place → 1 + place in RULES; OUT */
  readonly #rule: Uint8Array
  readonly #by: Int32Array
  readonly #requirement: Int32Array
  readonly #names = new Set<number>()
  /** installed row → 1: a version of it stays installed whatever is chosen, unless it is obsoleted */
  readonly #isBeside: Uint8Array
  readonly #mayGo: Uint8Array
  /** requirement → who asked first; it is asked once */
  readonly #askedBy = new Map<number, number>()
  /** installed row → requirements that it fulfils and nobody else had to */
  readonly #leaningOn = new Map<number, number[]>()
  readonly #supplementing: number[]
  #done = 0

  constructor(available: Available, installed: PackageTable, rules: BoxRules) {
    this.#available = available
    this.#table = available.table
    this.#installed = installed
    this.#present = new PackageIndex(installed, available.order)
    this.#rules = rules
    this.#rule = new Uint8Array(this.#table.count)
    this.#by = new Int32Array(this.#table.count)
    this.#requirement = new Int32Array(this.#table.count)
    this.#isBeside = findBeside(this.#present, available, rules)
    this.#mayGo = new Uint8Array(installed.count)
    this.#supplementing = rules.takesWeak ? withRelations(this.#table.supplements.start, this.#rules.isOffered) : []
  }

  start(): void {
    for (const name of new Set(this.#installed.name)) this.#takeNewer(name)
    for (let i = 0; i < this.#installed.count; i++) {
      this.#takeObsoleters(this.#installed, i, ~i)
      this.#require(this.#installed, 'requires', i, ~i)
    }
    this.finish()
  }

  want(place: number): void {
    this.#take(place, 'wanted', NOBODY)
  }

  /** Looks at what was taken until nothing more comes. */
  finish(): void {
    for (let rounds = 0; ; rounds++) {
      while (this.#done < this.packages.length) this.#follow(this.packages[this.#done++]!)
      if (!this.#takeSupplements()) return
      if (rounds === MAX_ROUNDS) throw tooDeep()
    }
  }

  reasonOf(place: number): Reason {
    const by = this.#by[place]!
    const requirement = this.#requirement[place]!
    return {
      rule: RULES[this.#rule[place]! - 1]!,
      by: by === NOBODY ? null : sourceOf(by),
      requirement: requirement < 0 ? null : requirement,
    }
  }

  unresolved(): Unresolved[] {
    const found = new Map<number, Unresolved>()
    const look = (table: PackageTable, index: number, by: number): void => {
      for (const row of this.#available.requirementsOf(table, 'requires', index)) {
        if (found.has(row)) continue
        const kind = this.#lackOf(row)
        // what the box lacks already does not come from its update
        if (kind === undefined || (by < 0 && kind === 'missing')) continue
        found.set(row, { requirement: row, by: sourceOf(by), kind })
      }
    }
    for (let i = 0; i < this.#installed.count; i++) if (this.#mayGo[i] === 0) look(this.#installed, i, ~i)
    for (const place of this.#newestTaken()) look(this.#table, place, place)
    return [...found.values()]
  }

  least(): number[] {
    const found = new Set<number>()
    for (let i = 0; i < this.#installed.count; i++) {
      const newer = [...this.#available.index.named(this.#installed.name[i]!)]
        .filter((place) => this.#rule[place] !== OUT && this.#isUpdateOf(place, i))
        .sort((a, b) => this.#available.order.compare(this.#table, b, this.#table, a))
      const first = newer.find((place) => this.#isWhole(place))
      if (first !== undefined) found.add(first)
    }
    return [...found]
  }

  /** Of one name: a package of another architecture stands beside, one of none in its place. */
  #canReplace(place: number, row: number): boolean {
    const { pool } = this.#available
    const [arch, own] = [pool.text(this.#table.arch[place]!), pool.text(this.#installed.arch[row]!)]
    return arch === own || arch === 'noarch' || own === 'noarch'
  }

  #isUpdateOf(place: number, row: number): boolean {
    const { order } = this.#available
    const isLast =
      this.#isBeside[row] === 0 ||
      this.#present
        .named(this.#installed.name[row]!)
        .every((i) => order.compare(this.#installed, i, this.#installed, row) <= 0)
    return this.#canReplace(place, row) && isLast && order.compare(this.#table, place, this.#installed, row) > 0
  }

  #isWhole(place: number): boolean {
    return this.#available
      .requirementsOf(this.#table, 'requires', place)
      .every((row) => this.#lackOf(row) !== 'missing')
  }

  #follow(place: number): void {
    const name = this.#table.name[place]!
    if (!this.#names.has(name)) {
      this.#names.add(name)
      for (const i of this.#present.named(name)) if (this.#isBeside[i] === 0) this.#letGo(i)
      this.#takeNewest(name, place)
    }
    this.#present.findObsoleted(this.#table, place, (i) => this.#letGo(i))
    this.#takeObsoleters(this.#table, place, place)
    this.#require(this.#table, 'requires', place, place)
    if (this.#rules.takesWeak) this.#require(this.#table, 'recommends', place, place)
  }

  #take(place: number, rule: Rule, by: number, requirement = -1): void {
    if (this.#rule[place] !== OUT || this.#rules.isOffered[place] === 0) return
    this.#rule[place] = RULES.indexOf(rule) + 1
    this.#by[place] = by
    this.#requirement[place] = requirement
    this.packages.push(place)
  }

  /** Newer than the oldest that is installed; where versions stand beside each other, than the newest. */
  #takeNewer(name: number): void {
    const { order } = this.#available
    let least: number | undefined
    for (const i of this.#present.named(name)) {
      const isBefore =
        least === undefined ||
        order.compare(this.#installed, i, this.#installed, least) === (this.#isBeside[i] === 0 ? -1 : 1)
      if (isBefore) least = i
    }
    const { fixes } = this.#rules
    if (fixes?.named(name).every((i) => order.compare(fixes.table, i, this.#installed, least!) <= 0) === true) return
    for (const place of this.#available.index.named(name)) {
      const way = order.compare(this.#table, place, this.#installed, least!)
      if (way > 0) this.#take(place, 'newer', ~least!)
      else if (way === 0 && this.#isNativeTwin(place, name)) this.#take(place, 'native', ~least!)
    }
  }

  /** A name of which only builds for another architecture are installed may get its native build instead of an update. */
  #isNativeTwin(place: number, name: number): boolean {
    const { pool } = this.#available
    const isNative = (arch: number, also = ''): boolean => [this.#rules.arch, also].includes(pool.text(arch))
    if (!isNative(this.#table.arch[place]!)) return false
    return !this.#present.named(name).some((i) => isNative(this.#installed.arch[i]!, 'noarch'))
  }

  #takeNewest(name: number, by: number): void {
    const newest = new Map<number, number>()
    for (const place of this.#available.index.named(name)) {
      if (this.#rules.isOffered[place] === 0) continue
      const arch = this.#table.arch[place]!
      const other = newest.get(arch)
      if (other === undefined || this.#available.order.compare(this.#table, place, this.#table, other) > 0)
        newest.set(arch, place)
    }
    for (const place of newest.values()) this.#take(place, 'newest', by)
  }

  #takeObsoleters(table: PackageTable, index: number, by: number): void {
    if (!this.#rules.followsObsoletes) return
    this.#available.index.findObsoleters(table, index, (place) => this.#take(place, 'obsoleter', by))
  }

  #require(table: PackageTable, kind: 'requires' | 'recommends', index: number, by: number): void {
    for (const row of this.#available.requirementsOf(table, kind, index)) {
      if (this.#askedBy.has(row)) continue
      this.#askedBy.set(row, by)
      this.#fulfil(row)
    }
  }

  /** Lets the requirement lean on an installed package that stays, or takes all that fulfil it. */
  #fulfil(row: number): void {
    const going: number[] = []
    const isKept = this.#present.findProviders(this.#available.requirements, row, (i) => {
      if (this.#mayGo[i] === 1) {
        if (this.#isBeside[i] === 0) going.push(i)
        return false
      }
      const leaning = this.#leaningOn.get(i)
      if (leaning === undefined) this.#leaningOn.set(i, [row])
      else leaning.push(row)
      return true
    })
    if (isKept) return
    const by = this.#askedBy.get(row)!
    for (const place of this.#available.providersOf(row)) {
      if (!going.some((i) => this.#wouldGoBack(place, i))) this.#take(place, 'provider', by, row)
    }
  }

  #wouldGoBack(place: number, row: number): boolean {
    if (this.#table.name[place] !== this.#installed.name[row] || !this.#canReplace(place, row)) return false
    return this.#available.order.compare(this.#table, place, this.#installed, row) <= 0
  }

  #letGo(row: number): void {
    if (this.#mayGo[row] === 1) return
    this.#mayGo[row] = 1
    const leaning = this.#leaningOn.get(row) ?? []
    this.#leaningOn.delete(row)
    for (const requirement of leaning) this.#fulfil(requirement)
  }

  /** Packages that come by themselves once what they supplement comes. @returns whether any came */
  #takeSupplements(): boolean {
    const before = this.packages.length
    for (const place of this.#supplementing) if (this.#rule[place] === OUT) this.#takeSupplement(place)
    return this.packages.length > before
  }

  #takeSupplement(place: number): void {
    const { supplements } = this.#table
    for (let i = supplements.start[place]!; i < supplements.start[place + 1]!; i++) {
      let comes: number | undefined
      const may = mayHold(relationOf(this.#available.pool, supplements, i), (atom) => {
        const row = this.#available.rowOf(atom)
        const taken = this.#available.providersOf(row).find((one) => this.#rule[one] !== OUT)
        comes ??= taken
        return taken !== undefined || this.#present.findProviders(this.#available.requirements, row, () => true)
      })
      // what supplements only what is there already was left out when that was installed
      if (may && comes !== undefined)
        return this.#take(
          place,
          'provider',
          comes,
          this.#available.rowOf(relationOf(this.#available.pool, supplements, i)),
        )
    }
  }

  #lackOf(row: number): Unresolved['kind'] | undefined {
    if (this.#available.providersOf(row).some((place) => this.#rule[place] !== OUT)) return undefined
    let isThere = false
    const isKept = this.#present.findProviders(this.#available.requirements, row, (i) => {
      isThere = true
      return this.#mayGo[i] === 0
    })
    return isKept ? undefined : isThere ? 'leaving' : 'missing'
  }

  /** The newest of what was taken, per name and architecture. */
  #newestTaken(): Iterable<number> {
    const newest = new Map<string, number>()
    for (const place of this.packages) {
      const key = `${this.#table.name[place]} ${this.#table.arch[place]}`
      const other = newest.get(key)
      if (other === undefined || this.#available.order.compare(this.#table, place, this.#table, other) > 0)
        newest.set(key, place)
    }
    return newest.values()
  }
}

function tooDeep(): GapferryError {
  return new GapferryError(
    'REPODATA_INVALID',
    `expected at most ${MAX_ROUNDS} packages that supplement one another in a row`,
  )
}

function sourceOf(by: number): { isInstalled: boolean; index: number } {
  return by < 0 ? { isInstalled: true, index: ~by } : { isInstalled: false, index: by }
}

function withRelations(start: Uint32Array, isOffered: Uint8Array): number[] {
  const found: number[] = []
  for (let i = 0; i + 1 < start.length; i++) if (start[i] !== start[i + 1] && isOffered[i] === 1) found.push(i)
  return found
}
