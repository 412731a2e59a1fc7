/**
 * What a group carries of the module lists that the upstream gives its boxes: all that an unmodified box takes from its
 * list, with all that this depends on, and what the settings want. No box downloads here; a set is grown until nothing is
 * missing that any box of the group could ask for.
 *
 * Rules, in this order; the first that brings a module in is its reason:
 *   upgrade     a box has it lower than its own list does; enabled or waiting for its upgrade, or disabled with an
 *               announced weakness that the listed version ends (the box downloads that by itself)
 *   pinned      the same for a version that the settings fix
 *   wanted      the settings want it, whatever the boxes have
 *   dependency  something carried demands it on a box that would install that, and the box lacks it or has it switched
 *               off or older: the version in the list, as the box fetches no other
 *   always      framework and core: repaired first, and a list needs two
 *   kept        the last bundle had this very version, and a box has the module still
 * Every box of a group sees the whole list, and `installall` of a box installs all of it: so demands of everything
 * carried are followed on every box that lacks it. Nothing goes back: a lower version in a list is nobody's upgrade.
 */
import { isUpgrade } from '../manifests/module-depends.ts'
import type { ModuleEntry } from '../manifests/module-feed.ts'
import { BoxView } from './modules/box-view.ts'
import { boxResult, type ModuleBoxResult } from './modules/box-result.ts'
import { CarriedSet, type ResolvedModule } from './modules/carried-set.ts'
import { demandsOf, type ModuleDemand } from './modules/demands.ts'
import type { ModuleBox } from './modules/module-box.ts'
import { boxesText, Offers, type OfferedList } from './modules/offers.ts'
import { checkPolicy, type Policy } from './modules/policy.ts'

export type { ModuleBox, Policy, ResolvedModule }

export interface ResolvedModules {
  /** by rawname; of one module first the entry for all boxes, then that of its edge build */
  carried: ResolvedModule[]
  /** by name */
  boxes: ModuleBoxResult[]
  /** what the policy blocks of what a list or a box has */
  blocked: string[]
  warnings: string[]
}

export interface ModuleQuestion {
  lists: readonly OfferedList[]
  boxes: readonly ModuleBox[]
  policy: ReadonlyMap<string, Policy>
  /** rawname → version of the site's last bundle */
  before: ReadonlyMap<string, string>
}

/** @throws MODULE_CONFLICT where the lists differ in something that is carried; MODULE_UNKNOWN for a module that the policy
 *  wants or pins and that cannot be carried */
export function resolveModules(question: ModuleQuestion): ResolvedModules {
  const growing = new Growing(question)
  const warnings = growing.check()
  growing.takeUpgrades()
  growing.takeWanted()
  growing.finish()
  growing.takeAlways()
  growing.finish()
  growing.takeKept(question.before)
  growing.finish()
  return { ...growing.result(), warnings: [...warnings, ...growing.warnings()] }
}

/** Repaired first when a box is broken. */
const ALWAYS = ['framework', 'core']

class Growing {
  readonly #offers: Offers
  readonly #views: BoxView[]
  readonly #policy: ReadonlyMap<string, Policy>
  readonly #carried: CarriedSet
  /** what to look at, on one box or on all: a module in the list, or files that a box has. No recursion: how long a chain of
   *  demands is, the upstream says. */
  #todo: { rawname: string; view: BoxView | undefined; here?: ModuleEntry }[] = []

  constructor({ lists, boxes, policy }: ModuleQuestion) {
    this.#views = [...boxes].sort((a, b) => (a.name < b.name ? -1 : 1)).map((box) => new BoxView(box))
    this.#policy = policy
    this.#offers = new Offers(lists, policy, boxes.length > 0 && boxes.every(({ edge }) => edge))
    this.#carried = new CarriedSet(this.#offers, (rawname) => this.#todo.push({ rawname, view: undefined }))
  }

  check(): string[] {
    return checkPolicy({
      policy: this.#policy,
      entriesOf: (rawname) => this.#offers.entriesOf(rawname),
      problemOf: (rawname) => this.#offers.problemOf(rawname),
      versionsOf: (rawname) =>
        this.#views.filter((view) => view.has(rawname)).map((view) => view.installed.get(rawname)!.version),
      known: () => new Set([...this.#offers.rawnames(), ...this.#views.flatMap((view) => [...view.installed.keys()])]),
    })
  }

  takeUpgrades(): void {
    for (const view of this.#views) {
      const weak = this.#weaknesses(view)
      for (const [rawname, installed] of view.installed) {
        const entry = this.#offers.own(view.box.name, rawname, view.box.edge)
        if (entry === undefined) continue
        const isPinned = this.#policy.get(rawname)?.kind === 'pin'
        const because = { box: view.box.name, from: installed.version }
        if (isPinned ? view.hasLower(rawname, entry.version) : isUpgrade(installed, entry.version)) {
          this.#carried.add(rawname, view, { reason: isPinned ? 'pinned' : 'upgrade', ...because })
        } else if (weak.has(rawname) && view.hasLower(rawname, entry.version)) {
          this.#carried.add(rawname, view, { reason: 'upgrade', ...because, requirement: weak.get(rawname)! })
        }
      }
    }
  }

  takeWanted(): void {
    for (const [rawname, { kind }] of this.#policy) {
      if (kind !== 'want') continue
      const takers = this.#views.filter((view) => this.#offers.own(view.box.name, rawname, view.box.edge) !== undefined)
      for (const view of takers) {
        if (view.has(rawname)) view.switchedOn.set(rawname, 'files')
        this.#carried.add(rawname, view, { reason: 'wanted' })
      }
      if (takers.length === 0) this.#carried.add(rawname, undefined, { reason: 'wanted' })
    }
  }

  takeAlways(): void {
    for (const rawname of ALWAYS) this.#carried.add(rawname, undefined, { reason: 'always' })
  }

  takeKept(before: ReadonlyMap<string, string>): void {
    for (const [rawname, version] of before) {
      if (this.#carried.slotsOf(rawname) !== undefined) continue
      for (const view of this.#views) {
        const own = this.#offers.own(view.box.name, rawname, view.box.edge)
        if (own?.version !== version || !view.has(rawname)) continue
        this.#carried.add(rawname, view, { reason: 'kept', box: view.box.name })
      }
    }
  }

  /** Follows demands until nothing more comes. */
  finish(): void {
    for (const { rawname, view, here } of this.#todo) {
      for (const one of view === undefined ? this.#views : [view]) this.#look(rawname, one, here)
    }
    this.#todo = []
  }

  result(): Omit<ResolvedModules, 'warnings'> {
    const rawnames = this.#carried.rawnames()
    return {
      carried: this.#carried.resolved(this.#views.length),
      boxes: this.#views.map((view) =>
        boxResult(view, {
          rawnames,
          slotsOf: (rawname) => this.#carried.slotsOf(rawname),
          isWanted: (rawname) => this.#policy.get(rawname)?.kind === 'want',
          entryHere: (rawname) => this.#entryHere(rawname, view),
          whyNot: (rawname) => this.#whyNot(rawname, view),
        }),
      ),
      blocked: [...this.#policy]
        .filter(([rawname, { kind }]) => kind === 'block' && this.#isKnown(rawname))
        .map(([rawname]) => rawname)
        .sort(),
    }
  }

  warnings(): string[] {
    const unknown = this.#views.filter(({ box }) => box.modules.some(({ state }) => state === 'unknown'))
    return [
      ...unknown.map(({ box }) => `${box.name}: its database could not be read; all its modules are taken as enabled`),
      ...this.#strangers(),
    ]
  }

  #look(rawname: string, view: BoxView, here: ModuleEntry | undefined): void {
    const entry = here ?? view.seen(this.#carried.slotsOf(rawname))
    if (entry === undefined || view.followed.has(entry)) return
    if (here === undefined && !view.takes(entry)) return
    view.followed.add(entry)
    for (const demand of demandsOf(entry).modules) this.#fulfil(demand, view, entry.rawname)
  }

  /** Of what the box has running, an upgrade is carried already where there is one. */
  #fulfil(demand: ModuleDemand, view: BoxView, by: string): void {
    const { name, text } = demand
    if (view.isRunning(name)) return
    const from = view.startsFromFiles(demand) ? 'files' : 'list'
    if (view.installed.has(name) && view.switchedOn.get(name) !== 'list' && view.switchedOn.get(name) !== from) {
      view.switchedOn.set(name, from)
      this.#todo.push({ rawname: name, view })
    }
    const here = from === 'files' ? this.#entryHere(name, view) : undefined
    if (here !== undefined) this.#todo.push({ rawname: name, view, here })
    const own = this.#offers.own(view.box.name, name, view.box.edge)
    if (own === undefined || (from === 'files' && !view.lacks(own))) return
    this.#carried.add(name, view, { reason: 'dependency', box: view.box.name, by, requirement: text })
  }

  /** What the box's list says of the very version that the box has. */
  #entryHere(rawname: string, view: BoxView): ModuleEntry | undefined {
    const installed = view.installed.get(rawname)
    return installed && this.#offers.versionOf(view.box.name, rawname, installed.version)
  }

  /** @returns rawname → the announced weakness, of what the box has without running it: it downloads the end of it */
  #weaknesses(view: BoxView): Map<string, string> {
    const found = new Map<string, string>()
    for (const { id, fixes, vulnerable } of this.#offers.listOf(view.box.name)?.issues ?? []) {
      if (vulnerable !== true) continue
      for (const [rawname, version] of fixes) {
        const state = view.installed.get(rawname)?.state
        const isIdle = state === 'disabled' || state === 'broken'
        if (isIdle && view.hasLower(rawname, version) && !found.has(rawname)) found.set(rawname, id)
      }
    }
    return found
  }

  #whyNot(rawname: string, view: BoxView): string {
    const rule = this.#policy.get(rawname)
    const found = view.installed.get(rawname)?.version
    const seen = view.seen(this.#carried.slotsOf(rawname))?.version
    if (rule?.kind === 'block') return `the policy blocks ${rawname}`
    if (rule?.kind === 'pin') return `the policy pins ${rawname} to ${rule.version}`
    const own = this.#offers.own(view.box.name, rawname, view.box.edge)
    const offered = seen ?? own?.version
    const has = found === undefined ? '' : `; the box has ${found}`
    const problem = this.#offers.problemOf(rawname)
    if (offered === undefined && problem !== undefined) return `the vendor's entry of ${rawname} ${problem}`
    if (offered === undefined) return `the vendor's list has no ${rawname}${has}`
    return `the vendor's list has ${rawname} ${offered}${has}`
  }

  #isKnown(rawname: string): boolean {
    return this.#offers.entriesOf(rawname).length > 0 || this.#views.some((view) => view.installed.has(rawname))
  }

  /** One list serves all: a box may be offered what its own would not have had. */
  #strangers(): string[] {
    return this.#carried.rawnames().flatMap((rawname) => {
      const slots = this.#carried.slotsOf(rawname)
      const names = this.#views
        .filter(
          (view) => view.takes(view.seen(slots)!) && this.#offers.own(view.box.name, rawname, false) === undefined,
        )
        .map(({ box }) => box.name)
      if (names.length === 0) return []
      return [`${rawname} is not in the vendor's list for ${boxesText(names)}, and will be offered there too`]
    })
  }
}
