/** One box against what is carried so far: what it would see in the list, and what it would do with it. */
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { isUpgrade, versionAfter, type InstalledModule, type NamedDemand } from '../../manifests/module-depends.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { ModuleBox } from './module-box.ts'
import type { BoxAfter } from './demands.ts'

/** What is carried of one module: `edge` is what a box finds instead that takes edge builds. */
export interface Slots<T extends { entry: ModuleEntry } = { entry: ModuleEntry }> {
  stable: T
  edge?: T
}

export class BoxView {
  readonly box: ModuleBox
  readonly installed: ReadonlyMap<string, InstalledModule>
  /** what the box has idle and something demands: it switches that on, with its own files or with those of the list */
  readonly switchedOn = new Map<string, 'files' | 'list'>()
  /** entries whose demands were looked at */
  readonly followed = new Set<ModuleEntry>()

  constructor(box: ModuleBox) {
    this.box = box
    this.installed = new Map(box.modules.map((one) => [one.name, one]))
  }

  /** Of what is carried, what this box finds in its list. */
  seen(slots: Slots | undefined): ModuleEntry | undefined {
    return ((this.box.edge ? slots?.edge : undefined) ?? slots?.stable)?.entry
  }

  /** Whether the module is installed, running or not: its files alone are not enough. */
  has(rawname: string): boolean {
    const state = this.installed.get(rawname)?.state
    return state !== undefined && state !== 'not-installed'
  }

  /** Whether the module is in use, or waits for its upgrade to be. */
  isRunning(rawname: string): boolean {
    return RUNNING.has(this.installed.get(rawname)?.state ?? '')
  }

  /** Whether the box fulfils a demand for what is idle with the files that it has: whatever the operator is, older ones
   *  than the version beside it are replaced from the list. */
  startsFromFiles({ name, version }: NamedDemand): boolean {
    const installed = this.installed.get(name)
    if (installed === undefined || installed.state === 'broken') return false
    return version === undefined || compareModuleVersions(installed.version, version.version) >= 0
  }

  /** Whether the module would come in a newer version, or come at all. */
  lacks({ rawname, version }: ModuleEntry): boolean {
    const installed = this.installed.get(rawname)
    if (installed === undefined || installed.state === 'broken') return true
    return compareModuleVersions(installed.version, version) < 0
  }

  /** Whether its database has the module in a lower version. */
  hasLower(rawname: string, version: string): boolean {
    const installed = this.installed.get(rawname)
    return this.has(rawname) && compareModuleVersions(installed!.version, version) < 0
  }

  /** Whether the box fetches a listed module by itself sooner or later: as an upgrade, because something needs it, or with
   *  all that it lacks (`installall`). */
  takes(entry: ModuleEntry): boolean {
    const installed = this.installed.get(entry.rawname)
    if (installed === undefined || installed.state === 'not-installed') return true
    if (this.isRunning(entry.rawname)) return isUpgrade(installed, entry.version)
    const from = this.switchedOn.get(entry.rawname)
    return from === 'list' || (from === 'files' && this.lacks(entry))
  }

  /** The box after all that, for looking at what is not fulfilled. */
  after(slotsOf: (rawname: string) => Slots | undefined, whyNot: BoxAfter['whyNot']): BoxAfter {
    const seen = (rawname: string): string | undefined => this.seen(slotsOf(rawname))?.version
    return {
      phpver: this.box.phpver,
      astver: this.box.astver,
      components: this.box.components ?? new Map(),
      framework: versionAfter(this.installed.get('framework'), seen('framework')) ?? this.box.framework,
      versionFor: (demand) =>
        this.isRunning(demand.name) || this.startsFromFiles(demand)
          ? versionAfter(this.installed.get(demand.name), seen(demand.name))
          : seen(demand.name),
      isStuck: (rawname) => {
        const installed = this.installed.get(rawname)
        const entry = this.seen(slotsOf(rawname))
        return installed?.state === 'needs-upgrade' && (entry === undefined || !this.takes(entry))
      },
      whyNot,
    }
  }
}

/** States in which a box takes upgrades of a module by itself. */
const RUNNING: ReadonlySet<string> = new Set(['enabled', 'needs-upgrade', 'unknown'])
