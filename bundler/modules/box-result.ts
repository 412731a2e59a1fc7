/** What a box would do with the list that it will find, and what would not work. */
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { isMet, isUpgrade, parseVersionDemand, versionAfter } from '../../manifests/module-depends.ts'
import type { BoxView, Slots } from './box-view.ts'
import { demandsOf, unmetOf, type BoxAfter } from './demands.ts'

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
  /** what the box lacks and nothing demands there, of a repository that is active or may be: `installall` installs it */
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
  const wanted = entries.filter(({ rawname }) => served.isWanted(rawname))
  const { needed, taken } = follow([...upgrades, ...wanted], view, served)
  const mayInstall = entries.filter((one) => view.has(one.rawname) || isActive(one, view))
  const weekly = follow(mayInstall, view, served).taken
  return {
    name: view.box.name,
    upgrades: upgrades.map(({ rawname, version }) => ({
      rawname,
      from: view.installed.get(rawname)!.version,
      to: version,
    })),
    installs: [...needed]
      .flatMap(([rawname, by]) => installOf(rawname, by, view, served))
      .sort((a, b) => (a.rawname < b.rawname ? -1 : 1)),
    ...unmetOn(view, weekly, served, (entry) => !taken.has(entry)),
    conflicts: conflictsOn(view, entries, served),
    additions: mayInstall.map(({ rawname }) => rawname).filter((rawname) => !view.has(rawname) && !needed.has(rawname)),
  }
}

/** Rule: getInstallableModules of FreePBX framework; a box whose repositories are not known is taken to look at all. */
function isActive({ repo = '' }: ModuleEntry, { box }: BoxView): boolean {
  return box.activeRepos === undefined || box.activeRepos.has(repo.toLowerCase())
}

/** A list can make that many of them, for each box, that no memory holds them. Of real lists a dozen is much. */
const MAX_TOLD = 1000
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

/** What comes with entries that a box takes.
 *  @returns `needed`: what is not running there, → what demands it first; `taken`: all entries that the box goes by, the
 *           given ones first */
function follow(
  roots: readonly ModuleEntry[],
  view: BoxView,
  served: Served,
): { needed: Map<string, string>; taken: Set<ModuleEntry> } {
  const needed = new Map<string, string>()
  const taken = new Set(roots)
  const rooted = new Set(roots.map(({ rawname }) => rawname))
  // grows while it is gone through
  for (const entry of taken) {
    for (const demand of demandsOf(entry).modules) {
      if (view.isRunning(demand.name)) continue
      if (!rooted.has(demand.name) && !needed.has(demand.name)) needed.set(demand.name, entry.rawname)
      const startsFromFiles = view.startsFromFiles(demand)
      const here = startsFromFiles ? served.entryHere(demand.name) : undefined
      if (here !== undefined) taken.add(here)
      const seen = view.seen(served.slotsOf(demand.name))
      if (seen !== undefined && (!startsFromFiles || view.lacks(seen))) taken.add(seen)
    }
  }
  return { needed, taken }
}

function installOf(rawname: string, by: string, view: BoxView, served: Served): ModuleBoxResult['installs'] {
  const version = versionAfter(view.installed.get(rawname), view.seen(served.slotsOf(rawname))?.version)
  return version === undefined ? [] : [{ rawname, version, by }]
}

function unmetOn(
  view: BoxView,
  entries: Iterable<ModuleEntry>,
  served: Served,
  isWeekly: (entry: ModuleEntry) => boolean,
): Pick<ModuleBoxResult, 'unresolved' | 'unknown'> {
  const after = view.after(served.slotsOf, served.whyNot)
  const unresolved: ModuleBoxResult['unresolved'] = []
  const unknown = new Map<string, ModuleBoxResult['unknown'][number]>()
  let told = 0
  for (const entry of entries) {
    if (told > MAX_TOLD) {
      const why = `of the demands of this list that are not fulfilled, the first ${MAX_TOLD} are told`
      unresolved.push({ requirement: 'more than that', by: entry.rawname, why, isWeekly: isWeekly(entry) })
      break
    }
    for (const { requirement, why, isUnknown } of unmetOf(demandsOf(entry), after)) {
      told++
      if (!isUnknown) unresolved.push({ requirement, by: entry.rawname, why, isWeekly: isWeekly(entry) })
      else if (unknown.has(requirement)) unknown.get(requirement)!.by.push(entry.rawname)
      else unknown.set(requirement, { requirement, by: [entry.rawname], why })
    }
  }
  return { unresolved, unknown: [...unknown.values()] }
}

function conflictsOn(view: BoxView, entries: readonly ModuleEntry[], served: Served): string[] {
  const conflicts: string[] = []
  for (const entry of entries) {
    if (conflicts.length > MAX_TOLD) return [...conflicts.slice(0, MAX_TOLD), 'there are more conflicts than that']
    conflicts.push(...conflictsOf(entry, view, served))
  }
  return conflicts
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
