/**
 * How far a box is behind what is served for it: packages and modules of which a newer version is there. Packages are known
 * by their file names, which do not tell the epoch; where the bundle has a plan for the box, by that, which also knows what its
 * settings hold back. Pure.
 */
import type { Sha256 } from './digest.ts'
import type { Inventory } from './inventory.ts'
import { MAX_MODULE_LIST_BYTES, parseModuleFeed } from './module-feed.ts'
import { compareModuleVersions } from './module-version.ts'
import { MAX_PARITY_BYTES, parityPath } from './parity.ts'
import type { TreePath } from './path.ts'
import { compareEvr, parseNevra, type Evr, type Nevra } from './rpm-version.ts'
import type { TreeEntry } from './tree.ts'

export interface Pending {
  /** `name.arch`, sorted; undefined where the box’s packages or the repository’s are not known */
  packages: string[] | undefined
  /** rawnames, sorted; undefined where the box has no modules or no list is served for them */
  modules: string[] | undefined
  /** of the bundle */
  number: number
}

interface Served {
  number: number
  entries: ReadonlyMap<TreePath, TreeEntry>
  /** the bytes of a small file of it. @throws where they cannot be had */
  read: (sha256: Sha256, maxBytes: number) => Buffer
}

/** @param served  the tree that the box's group updates from
 *  @param name    what the box is called there */
export function pendingUpdates(box: Inventory, name: string, served: Served): Pending {
  return { packages: pendingPackages(box, name, served), modules: pendingModules(box, served), number: served.number }
}

/** `0 behind`, `12 behind`: packages and modules together. */
export function behindCount({ packages, modules }: Pending): number {
  return (packages?.length ?? 0) + (modules?.length ?? 0)
}

function pendingPackages(box: Inventory, name: string, { entries, read }: Served): string[] | undefined {
  if (box.manager === 'apt') return undefined
  const plan = entries.get(parityPath(name))
  const offered = plan === undefined ? carriedPackages(entries) : candidates(read(plan.sha256, MAX_PARITY_BYTES))
  if (offered.length === 0 && plan === undefined) return undefined
  const installed = newestInstalled(box)
  const pending = new Set<string>()
  for (const { name: one, arch, epoch, version, release } of offered) {
    if (isLocked(box, one)) continue
    const key = `${one}.${arch}`
    const has = installed.get(key)
    const isNewer = has !== undefined && compareEvr([plan === undefined ? has[0] : epoch, version, release], has) > 0
    if (isNewer) pending.add(key)
  }
  return [...pending].sort()
}

function newestInstalled({ packages }: Inventory): Map<string, Evr> {
  const newest = new Map<string, Evr>()
  for (const { name, arch, epoch, version, release } of packages) {
    const known = newest.get(`${name}.${arch}`)
    const evr = [epoch, version, release] as const
    if (known === undefined || compareEvr(evr, known) > 0) newest.set(`${name}.${arch}`, evr)
  }
  return newest
}

/** A lock's version is not looked at: whoever locks a package updates it by hand. Forms as dnf's and yum's plugins have them:
 *  `name-[epoch:]version-release…`, `epoch:name-version-release…`. */
function isLocked({ plugins, versionLocks }: Inventory, name: string): boolean {
  if (!plugins.includes('versionlock')) return false
  return versionLocks.some((lock) => {
    const text = lock.replace(/^\d+:/, '')
    return text.startsWith(`${name}-`) && /^(?:\d+:)?[^-]+-[^-]+$/.test(text.slice(name.length + 1))
  })
}

function carriedPackages(entries: Served['entries']): Nevra[] {
  return [...entries].flatMap(([path, { kind }]) => {
    const file = kind === 'immutable' && path.startsWith('yum/') ? path.slice(path.lastIndexOf('/') + 1) : ''
    return file.endsWith('.rpm') ? (parseNevra(file.slice(0, -'.rpm'.length)) ?? []) : []
  })
}

function candidates(plan: Buffer): Nevra[] {
  const lines = plan.toString('latin1').split('\n')
  return lines.flatMap((line) => (line.startsWith('candidate ') ? (parseNevra(line.slice(10)) ?? []) : []))
}

function pendingModules({ freepbx }: Inventory, { entries, read }: Served): string[] | undefined {
  const major = /^(\d{1,3})\./.exec(freepbx?.framework ?? '')?.[1]
  const path = `all-${major}.0.xml` as TreePath
  const list = major === undefined ? undefined : entries.get(path)
  if (list === undefined || freepbx === undefined) return undefined
  const feed = parseModuleFeed(read(list.sha256, MAX_MODULE_LIST_BYTES), path)
  const listed = new Map(feed.entries.flatMap((one) => (one.section === 'module' ? [[one.rawname, one.version]] : [])))
  const isBehind = ({ name, version, state }: (typeof freepbx.modules)[number]): boolean => {
    const newest = listed.get(name)
    return newest !== undefined && state !== 'not-installed' && compareModuleVersions(newest, version) > 0
  }
  const behind = freepbx.modules.filter((one) => one.version !== '?' && isBehind(one))
  return behind.map(({ name }) => name).sort()
}
