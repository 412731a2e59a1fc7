import type { ModuleEntry, ModuleFeed } from '../../manifests/module-feed.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'

/** What a box has of a module: `db` is the version that its database has, `file` that of the files that lie there. */
export interface Held {
  db?: string
  file?: string
  isOn: boolean
  /** of the files */
  depends: readonly string[]
}

type Status = 'not-installed' | 'disabled' | 'enabled' | 'needs-upgrade' | 'broken'

/**
 * A box that walks through a list step by step, as FreePBX 17 does: files are put down first, then what they demand is
 * looked for one by one, each install checks again. It knows of no other module list than the one it is given.
 */
export class WalkingBox {
  readonly held: Map<string, Held>
  /** modules that it asked the list for in vain */
  readonly missed = new Set<string>()
  /** `rawname version` */
  readonly fetched = new Set<string>()
  /** what it finds of the list */
  readonly online = new Map<string, ModuleEntry>()
  #walking = new Set<string>()

  constructor(held: ReadonlyMap<string, Held>, feed: ModuleFeed, takesEdge: boolean) {
    this.held = new Map([...held].map(([name, one]) => [name, { ...one }]))
    for (const entry of feed.entries) if (entry.section === 'module') this.online.set(entry.rawname, entry)
    for (const entry of takesEdge ? feed.entries : []) {
      const stable = this.online.get(entry.rawname)
      const isNewer = stable !== undefined && compareModuleVersions(stable.version, entry.version) < 0
      if (entry.section === 'edge' && isNewer) this.online.set(entry.rawname, entry)
    }
  }

  status(name: string): Status | undefined {
    const one = this.held.get(name)
    if (one === undefined) return undefined
    if (one.file === undefined) return 'broken'
    if (one.db === undefined) return 'not-installed'
    if (!one.isOn) return 'disabled'
    return compareModuleVersions(one.db, one.file) === 0 ? 'enabled' : 'needs-upgrade'
  }

  /** Names in the order of upgradeall. */
  showUpgrades(): string[] {
    const pending = [...this.held.keys()].sort().filter((name) => {
      const online = this.online.get(name)
      const status = this.status(name)
      if (online === undefined) return false
      return (
        status === 'needs-upgrade' ||
        (status === 'enabled' && compareModuleVersions(this.held.get(name)!.file!, online.version) < 0)
      )
    })
    const first = ['framework', 'core', 'sipsettings'].filter((name) => pending.includes(name))
    return [...first, ...pending.filter((name) => !first.includes(name))]
  }

  upgradeAll(): void {
    for (const name of this.showUpgrades()) this.fetchAndInstall(name)
  }

  installAll(): void {
    this.upgradeAll()
    for (const name of [...this.online.keys()]) {
      const status = this.status(name)
      if (status === undefined || status === 'not-installed' || status === 'needs-upgrade') this.fetchAndInstall(name)
    }
  }

  fetchAndInstall(name: string): void {
    this.#walking = new Set()
    if (this.#fetch(name) && this.#resolve(name)) this.#install(name)
  }

  #fetch(name: string): boolean {
    const online = this.online.get(name)
    if (online === undefined) {
      this.missed.add(name)
      return false
    }
    this.fetched.add(`${name} ${online.version}`)
    const { db, isOn = false } = this.held.get(name) ?? {}
    this.held.set(name, { ...(db !== undefined && { db }), isOn, file: online.version, depends: online.depends.module })
    return true
  }

  /** Real ones walk in circles until they fall. */
  #resolve(name: string): boolean {
    if (this.#walking.has(name)) return true
    this.#walking.add(name)
    for (const [needed, version] of this.#unmet(name)) if (!this.#obtain(needed, version)) return false
    return true
  }

  #obtain(name: string, version: string): boolean {
    const before = this.status(name)
    const one = this.held.get(name)
    const isOlder = [one?.db, one?.file].some((has) => has !== undefined && compareModuleVersions(has, version) < 0)
    if (one === undefined || isOlder) {
      if (!this.#fetch(name) || !this.#resolve(name) || !this.#install(name)) return false
    }
    if (one === undefined) return true
    if (!this.#resolve(name)) return false
    if (before === 'not-installed' || before === 'needs-upgrade') return this.#install(name)
    if (before === 'disabled') return this.#enable(name)
    if (before === 'broken') return this.#fetch(name) && this.#resolve(name) && this.#install(name)
    return true
  }

  #install(name: string): boolean {
    if (this.#unmet(name).length > 0) return false
    const one = this.held.get(name)!
    const isOn = one.db === undefined || one.isOn
    this.held.set(name, { ...one, db: one.file!, isOn })
    return true
  }

  #enable(name: string): boolean {
    if (this.#unmet(name).length > 0) return false
    this.held.get(name)!.isOn = true
    return true
  }

  /** @returns what the box would look for, with the version it would look for */
  #unmet(name: string): [name: string, version: string][] {
    return (this.held.get(name)?.depends ?? []).flatMap((text): [string, string][] => {
      const [needed = '', operator, version = ''] = text.split(' ')
      if (this.status(needed) !== 'enabled') return [[needed, version]]
      if (operator === undefined) return []
      const order = compareModuleVersions(this.held.get(needed)!.db!, version)
      return HOLDS[operator]!(order) ? [] : [[needed, version]]
    })
  }
}

const HOLDS: Record<string, (order: number) => boolean> = {
  lt: (order) => order < 0,
  le: (order) => order <= 0,
  gt: (order) => order > 0,
  ge: (order) => order >= 0,
  eq: (order) => order === 0,
  ne: (order) => order !== 0,
}
