/**
 * What a box's own settings leave of what its repositories offer, before anything is resolved, and how it resolves the
 * rest. Rule: yum 3.4.3 and dnf 4, their versionlock and priorities plugins. In doubt a package stays: the box hides it
 * there as well, and a candidate too many costs only its bytes.
 */
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { PackageTable } from '../../manifests/package-table.ts'
import type { Available } from './available.ts'
import { compileGlob, namesOf, nevraAt, type Glob } from './globs.ts'
import type { PackageIndex } from './package-index.ts'

/** The part of an inventory that decides what is offered to a box. */
export interface BoxSettings {
  manager: 'yum' | 'dnf'
  arch: string
  /** `[main]`; keys in lower case */
  mainOptions: ReadonlyMap<string, string>
  repositories: readonly { id: string; options: ReadonlyMap<string, string> }[]
  versionLocks: readonly string[]
  plugins: readonly string[]
}

/** How a box chooses among what it is offered, and what of that is to be carried. */
export interface BoxRules {
  /** by place in Available: 1 where the box may take the package */
  isOffered: Uint8Array
  /** the box's own architecture */
  arch: string
  /** obsoleting packages replace what they obsolete */
  followsObsoletes: boolean
  /** recommended and supplementing packages come too */
  takesWeak: boolean
  /** names of which several versions may be installed beside each other */
  isInstallonly: (name: string, provides: () => Iterable<string>) => boolean
  /** so many of them, 0: without limit */
  installonlyLimit: number
  /** packages that security advisories name; where given, only names with one newer than installed are updated */
  fixes?: PackageIndex
}

const X86_64 = ['x86_64', 'amd64', 'ia32e', 'i686', 'i586', 'i486', 'i386', 'athlon', 'noarch']
const COMPATIBLE: Record<string, readonly string[]> = {
  x86_64: X86_64,
  amd64: X86_64,
  i686: ['i686', 'i586', 'i486', 'i386', 'noarch'],
}
const PRIORITY = 99
const MAX_GLOBS = 1000
const MAX_LOCKS = 10_000
const INSTALLONLY_LIMIT = { yum: 0, dnf: 3 } as const
/** Built into both managers. */
const INSTALLONLY = [
  'kernel',
  'kernel-PAE',
  'kernel-PAE-debug',
  'kernel-bigmem',
  'kernel-core',
  'kernel-debug',
  'kernel-devel',
  'kernel-enterprise',
  'kernel-modules',
  'kernel-smp',
  'kernel-source',
  'kernel-unsupported',
  'installonlypkg(kernel)',
  'installonlypkg(kernel-module)',
  'installonlypkg(vm)',
]

export function rulesOf(box: BoxSettings, available: Available): BoxRules {
  const option = (key: string): string | undefined => box.mainOptions.get(key)
  const isOffered = new Uint8Array(available.table.count)
  for (const repository of available.repositories) {
    const own = box.repositories.find(({ id }) => id === repository.id)?.options ?? new Map<string, string>()
    if (isOff(own.get('enabled'))) continue
    isOffered.fill(1, repository.start, repository.end)
    hideBySettings(isOffered, available, repository, [box.mainOptions, own], box.manager)
  }
  hideArches(isOffered, available.table, box.arch)
  if (box.plugins.includes('priorities')) hideByPriority(isOffered, available, box)
  if (box.plugins.includes('versionlock')) hideByLocks(isOffered, available.table, box.versionLocks)
  const own = listOf(option('installonlypkgs'))
  return {
    isOffered,
    arch: box.arch,
    followsObsoletes: !isOff(option('obsoletes')),
    takesWeak: box.manager === 'dnf' && !isOff(option('install_weak_deps')),
    isInstallonly: installonly(own.length > 0 && box.manager === 'yum' ? own : [...INSTALLONLY, ...own]),
    installonlyLimit: Number(option('installonly_limit') ?? INSTALLONLY_LIMIT[box.manager]) || 0,
  }
}

/** An option of yum or dnf that says no. */
export function isOff(value: string | undefined): boolean {
  return value !== undefined && /^(?:0|no|false|off)$/i.test(value.trim())
}

/** @throws INVENTORY_INVALID for more than anybody writes: each is held against every package */
function listOf(value: string | undefined): string[] {
  const words = (value ?? '').split(/[\s,]+/).filter((word) => word !== '')
  if (words.length <= MAX_GLOBS) return words
  throw new GapferryError(
    'INVENTORY_INVALID',
    `expected at most ${MAX_GLOBS} globs in one option, found ${words.length}`,
  )
}

function globsOf(value: string | undefined): Glob[] {
  return listOf(value).flatMap(globOf)
}

/** A pattern that is none matches nothing on the box either. */
function globOf(text: string): Glob[] {
  try {
    return [compileGlob(text)]
  } catch (error) {
    if (isGapferryError(error, 'CONFIG_INVALID')) return []
    throw error
  }
}

function patternOf(text: string): Glob['pattern'] {
  return globOf(text)[0]?.pattern ?? /(?!)/
}

function installonly(list: readonly string[]): BoxRules['isInstallonly'] {
  const globs = list.flatMap(globOf)
  const matches = (text: string): boolean => globs.some(({ pattern }) => pattern.test(text))
  return (name, provides) =>
    matches(name) || [...provides()].some((one) => one.startsWith('installonlypkg(') && matches(one))
}

function hideArches(isOffered: Uint8Array, { arch, pool }: PackageTable, own: string): void {
  const known = new Set(COMPATIBLE[own] ?? [own, 'noarch'])
  const arches = new Set(arch)
  for (const one of arches) if (known.has(pool.text(one))) arches.delete(one)
  for (let i = 0; i < isOffered.length; i++) if (arches.has(arch[i]!)) isOffered[i] = 0
}

/** exclude=, excludepkgs= and includepkgs= of the main section and of the repository. */
function hideBySettings(
  isOffered: Uint8Array,
  { table }: Available,
  { start, end }: { start: number; end: number },
  sections: readonly ReadonlyMap<string, string>[],
  manager: BoxSettings['manager'],
): void {
  const globs = (...keys: string[]): Glob[][] =>
    sections.map((options) => keys.flatMap((key) => globsOf(options.get(key))))
  const excluded = globs('exclude', 'excludepkgs').flat()
  // yum knows includepkgs of a repository only
  const included = globs('includepkgs').slice(manager === 'yum' ? 1 : 0)
  const limits = included.filter((list) => list.length > 0)
  if (excluded.length + limits.length === 0) return
  for (let i = start; i < end; i++) {
    const names = namesOf(nevraAt(table, i))
    const isIn = (list: readonly Glob[]): boolean =>
      list.some(({ pattern }) => names.some((name) => pattern.test(name)))
    if (isIn(excluded) || !limits.every(isIn)) isOffered[i] = 0
  }
}

/** A repository of lower priority does not offer a name that a better one has. */
function hideByPriority(isOffered: Uint8Array, { table, repositories }: Available, box: BoxSettings): void {
  const priorityOf = (id: string): number => {
    const value = box.repositories.find((one) => one.id === id)?.options.get('priority')
    return value !== undefined && /^\s*\d{1,2}\s*$/.test(value) ? Number(value) : PRIORITY
  }
  const best = new Map<number, number>()
  const sorted = [...repositories].sort((a, b) => priorityOf(a.id) - priorityOf(b.id))
  for (const { id, start, end } of sorted) {
    const priority = priorityOf(id)
    for (let i = start; i < end; i++) {
      if (isOffered[i] === 0) continue
      const other = best.get(table.name[i]!)
      if (other === undefined) best.set(table.name[i]!, priority)
      else if (other < priority) isOffered[i] = 0
    }
  }
}

interface Lock {
  isExclusion: boolean
  name: Glob['pattern']
  epoch: Glob['pattern']
  version: Glob['pattern']
  release: Glob['pattern']
}

/** `name-epoch:version-release.arch` (dnf) or `epoch:name-version-release.arch` (yum); the arch does not count. A name that
 *  is locked is offered in locked versions alone; `!` hides the versions it matches. */
function hideByLocks(isOffered: Uint8Array, table: PackageTable, lines: readonly string[]): void {
  if (lines.length > MAX_LOCKS) {
    throw new GapferryError('INVENTORY_INVALID', `expected at most ${MAX_LOCKS} version locks, found ${lines.length}`)
  }
  const locks = lines.flatMap((line) => parseLock(line) ?? [])
  const byName = new Map<number, { only: Lock[]; never: Lock[] }>()
  for (let i = 0; i < isOffered.length; i++) {
    if (isOffered[i] === 0) continue
    let lists = byName.get(table.name[i]!)
    if (lists === undefined) {
      const name = table.pool.text(table.name[i]!)
      const about = locks.filter((lock) => lock.name.test(name))
      lists = { only: about.filter((lock) => !lock.isExclusion), never: about.filter((lock) => lock.isExclusion) }
      byName.set(table.name[i]!, lists)
    }
    const { only, never } = lists
    if (only.length + never.length === 0) continue
    const nevra = nevraAt(table, i)
    const isAbout = ({ epoch, version, release }: Lock): boolean =>
      epoch.test(nevra.epoch) && version.test(nevra.version) && release.test(nevra.release)
    if (never.some(isAbout) || (only.length > 0 && !only.some(isAbout))) isOffered[i] = 0
  }
}

function parseLock(line: string): Lock | undefined {
  const match = /^(!?)(?:(\d+|\*):)?(.+)-(?:([^-:]+):)?([^-:]+)-([^-]+)\.[^.-]+$/.exec(line.trim())
  if (match === null) return undefined
  const [, not, before, name, epoch, version, release] = match
  return {
    isExclusion: not === '!',
    name: patternOf(name!),
    epoch: patternOf(epoch ?? before ?? '*'),
    version: patternOf(version!),
    release: patternOf(release!),
  }
}
