/** What a box would do with the list that it will find, and what would not work. */
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { BUILTIN, isMet, isUpgrade, parseVersionDemand, versionAfter } from '../../manifests/module-depends.ts'
import { demandedBy, type BoxView, type Slots } from './box-view.ts'
import { unmetOf, type BoxAfter } from './unmet.ts'

export interface ModuleBoxResult {
  name: string
  /** in the order in which `upgradeall` takes them */
  upgrades: { rawname: string; from: string; to: string }[]
  /** what the box installs or switches on because an upgrade, or something that is wanted, demands it */
  installs: { rawname: string; version: string; by: string }[]
  /** demands that stay unfulfilled: an upgrade with one is downloaded and does not install. `isWeekly`: only `installall`
   *  would come to it */
  unresolved: { requirement: string; by: string; why: string; isWeekly: boolean }[]
  /** demands of which it is not known whether the box fulfils them, each once */
  unknown: { requirement: string; by: string[]; why: string }[]
  /** `breaking` entries that keep an upgrade away, as texts */
  conflicts: string[]
  /** what the box lacks and nothing demands there: `installall` installs it, where its repository is active */
  additions: string[]
}

interface Served {
  /** carried, sorted */
  rawnames: readonly string[]
  slotsOf: (rawname: string) => Slots | undefined
  isWanted: (rawname: string) => boolean
  /** the entry of the very version that the box has, where its list tells of it */
  entryHere: (rawname: string) => ModuleEntry | undefined
  whyNot: BoxAfter['whyNot']
}

export function boxResult(view: BoxView, served: Served): ModuleBoxResult {
  const entries = served.rawnames.map((rawname) => view.seen(served.slotsOf(rawname))!).filter((one) => view.takes(one))
  const upgrades = inUpgradeOrder(entries.filter((one) => isUpgradeOn(view, one)))
  const needed = neededBy([...upgrades, ...entries.filter(({ rawname }) => served.isWanted(rawname))], view, served)
  return {
    name: view.box.name,
    upgrades: upgrades.map(({ rawname, version }) => ({
      rawname,
      from: view.installed.get(rawname)!.version,
      to: version,
    })),
    installs: [...needed].flatMap(([rawname, { by }]) => installOf(rawname, by, view, served)).sort(byRawname),
    ...unmetOn(view, withSwitchedOn(entries, needed), served, ({ rawname }) => !needed.has(rawname)),
    conflicts: entries.flatMap((one) => conflictsOf(one, view, served)),
    additions: entries
      .map(({ rawname }) => rawname)
      .filter((name) => !view.has(name) && needed.get(name)?.by === undefined),
  }
}

/** Upgraded before all others. */
const FIRST = ['framework', 'core', 'sipsettings']

function inUpgradeOrder(entries: readonly ModuleEntry[]): ModuleEntry[] {
  const first = FIRST.flatMap((rawname) => entries.filter((one) => one.rawname === rawname))
  return [...first, ...entries.filter(({ rawname }) => !FIRST.includes(rawname))]
}

function isUpgradeOn(view: BoxView, { rawname, version }: ModuleEntry): boolean {
  const installed = view.installed.get(rawname)
  return installed !== undefined && isUpgrade(installed, version)
}

/** What is taken before any `installall`, and the entry that the box then goes by. */
type Needed = Map<string, { by: string | undefined; entry: ModuleEntry | undefined }>

/** @param roots  what is taken for itself: `by` is undefined */
function neededBy(roots: readonly ModuleEntry[], view: BoxView, served: Served): Needed {
  const needed: Needed = new Map(roots.map((entry) => [entry.rawname, { by: undefined, entry }]))
  // grows while it is gone through
  for (const [by, { entry }] of needed) {
    for (const rawname of entry === undefined ? [] : demandedBy(entry)) {
      if (needed.has(rawname) || rawname === BUILTIN || isRunning(view, rawname)) continue
      const seen = view.seen(served.slotsOf(rawname))
      const isTaken = seen !== undefined && view.takes(seen)
      needed.set(rawname, { by, entry: isTaken ? seen : served.entryHere(rawname) })
    }
  }
  return needed
}

function withSwitchedOn(entries: readonly ModuleEntry[], needed: Needed): ModuleEntry[] {
  const more = [...needed.values()].flatMap(({ entry }) =>
    entry === undefined || entries.includes(entry) ? [] : [entry],
  )
  return [...entries, ...more]
}

function isRunning(view: BoxView, rawname: string): boolean {
  return view.has(rawname) && !['disabled', 'broken'].includes(view.installed.get(rawname)!.state)
}

function installOf(
  rawname: string,
  by: string | undefined,
  view: BoxView,
  served: Served,
): ModuleBoxResult['installs'] {
  if (by === undefined) return []
  const version = versionAfter(view.installed.get(rawname), view.seen(served.slotsOf(rawname))?.version)
  return version === undefined ? [] : [{ rawname, version, by }]
}

function unmetOn(
  view: BoxView,
  entries: readonly ModuleEntry[],
  served: Served,
  isWeekly: (entry: ModuleEntry) => boolean,
): Pick<ModuleBoxResult, 'unresolved' | 'unknown'> {
  const after = view.after(served.slotsOf, served.whyNot)
  const unresolved: ModuleBoxResult['unresolved'] = []
  const unknown = new Map<string, ModuleBoxResult['unknown'][number]>()
  for (const entry of entries) {
    for (const { requirement, why, isUnknown } of unmetOf(entry.depends, after)) {
      if (!isUnknown) unresolved.push({ requirement, by: entry.rawname, why, isWeekly: isWeekly(entry) })
      else if (unknown.has(requirement)) unknown.get(requirement)!.by.push(entry.rawname)
      else unknown.set(requirement, { requirement, by: [entry.rawname], why })
    }
  }
  return { unresolved, unknown: [...unknown.values()] }
}

/** Rule: checkConflicts of FreePBX framework, for what the box has enabled. */
function conflictsOf({ rawname, version, breaking }: ModuleEntry, view: BoxView, served: Served): string[] {
  return breaking.flatMap((one) => {
    const installed = view.installed.get(one.rawname)
    if (installed?.state !== 'enabled') return []
    const demand = one.version === undefined ? undefined : parseVersionDemand(one.version)
    if (demand !== undefined && !isMet(installed.version, demand)) return []
    const next = versionAfter(installed, view.seen(served.slotsOf(one.rawname))?.version)!
    const isPassing = demand !== undefined && !isMet(next, demand)
    const what = one.type === 'deprecated' ? 'replaces' : 'conflicts with'
    const until = isPassing ? ` until that is upgraded to ${next}` : ''
    return [
      `${rawname} ${version} ${what} ${one.rawname} ${installed.version}${until}; it is refused without --skipbreakingcheck`,
    ]
  })
}

function byRawname(a: { rawname: string }, b: { rawname: string }): number {
  return a.rawname < b.rawname ? -1 : a.rawname > b.rawname ? 1 : 0
}
