/** One box against what is carried so far: what it would see in the list, and what it would do with it. */
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { isUpgrade, parseModuleDemand, versionAfter, type InstalledModule } from '../../manifests/module-depends.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { ModuleBox } from './module-box.ts'
import type { BoxAfter } from './unmet.ts'

/** What is carried of one module: `edge` is what a box finds instead that takes edge builds. */
export interface Slots<T extends { entry: ModuleEntry } = { entry: ModuleEntry }> {
  stable: T
  edge?: T
}

export class BoxView {
  readonly box: ModuleBox
  readonly installed: ReadonlyMap<string, InstalledModule>
  /** modules that something asks for which the box has, switched off or as files alone: it switches them on */
  readonly switchedOn = new Set<string>()
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

  /** Whether its database has the module in a lower version. */
  hasLower(rawname: string, version: string): boolean {
    const installed = this.installed.get(rawname)
    return this.has(rawname) && compareModuleVersions(installed!.version, version) < 0
  }

  /** Whether the box fetches a listed module by itself sooner or later: as an upgrade, because something needs it, or with
   *  all that it lacks (`installall`). */
  takes({ rawname, version }: ModuleEntry): boolean {
    const installed = this.installed.get(rawname)
    if (installed === undefined || installed.state === 'not-installed') return true
    if (installed.state === 'broken') return this.switchedOn.has(rawname)
    if (installed.state === 'disabled') return this.switchedOn.has(rawname) && this.hasLower(rawname, version)
    return isUpgrade(installed, version)
  }

  /** The box after all that, for looking at what is not fulfilled. */
  after(slotsOf: (rawname: string) => Slots | undefined, whyNot: BoxAfter['whyNot']): BoxAfter {
    const versionOf = (rawname: string): string | undefined =>
      versionAfter(this.installed.get(rawname), this.seen(slotsOf(rawname))?.version)
    return {
      phpver: this.box.phpver,
      astver: this.box.astver,
      components: this.box.components ?? new Map(),
      framework: versionOf('framework') ?? this.box.framework,
      versionOf,
      whyNot,
    }
  }
}

/** Names of the modules that an entry demands. */
export function demandedBy(entry: ModuleEntry): string[] {
  return entry.depends.module.flatMap((text) => parseModuleDemand(text)?.name ?? [])
}
