/**
 * What the files of an inventory mean: the manager's configuration, its repositories, variables and plugins, and which
 * distribution the box is.
 */
import { parseIni, isOn, type IniSection } from './ini.ts'
import { invalidInventory } from './inventory-lines.ts'
import type { Inventory, InventoryRepository } from './inventory.ts'
import type { PackageFacts } from './package-table.ts'

type Manager = Inventory['manager']

const RELEASE_FILES = ['/etc/os-release', '/etc/redhat-release', '/etc/sangoma-release', '/etc/debian_version']
/** What tells a manager its release where the configuration names no package: yum 3.4.3's list and dnf 4's. */
const RELEASE_PACKAGES = {
  yum: ['system-release(releasever)', 'redhat-release'],
  dnf: [
    'system-release(releasever)',
    'system-release',
    'distribution-release(releasever)',
    'distribution-release',
    'redhat-release',
    'suse-release',
  ],
  apt: [],
}
const BASE_ARCHES: Record<string, string> = { i386: 'i386', i486: 'i386', i586: 'i386', i686: 'i386', athlon: 'i386' }

export interface Configuration {
  main: Map<string, string>
  repositories: InventoryRepository[]
  /** plugin → its own `[main]` */
  plugins: Map<string, Map<string, string>>
}

/** Every file has its meaning here or is refused.
 *  @param files  path → lines without line ends
 *  @throws INVENTORY_INVALID */
export function readConfiguration(files: Map<string, string[]>, manager: Manager, what: string): Configuration {
  const found: Configuration = { main: new Map(), repositories: [], plugins: new Map() }
  for (const [file, lines] of files) {
    const kind = kindOf(file)
    if (kind === undefined) throw invalidInventory(what, `the file ${file} has no meaning here`)
    if (kind === 'plugin') found.plugins.set(fileName(file, '.conf'), mainOf(parseIni(lines, manager)))
    if (kind !== 'main' && kind !== 'repository') continue
    for (const { name, options } of parseIni(lines, manager)) {
      if (name === 'main') found.main = kind === 'main' ? options : found.main
      else found.repositories.push({ id: name, file, options })
    }
  }
  return found
}

function kindOf(file: string): 'release' | 'main' | 'repository' | 'variable' | 'plugin' | 'apt' | undefined {
  if (RELEASE_FILES.includes(file)) return 'release'
  if (['/etc/yum.conf', '/etc/yum/yum.conf', '/etc/dnf/dnf.conf'].includes(file)) return 'main'
  if (/^\/etc\/(?:yum|dnf)\/vars\/[^/]+$/.test(file)) return 'variable'
  if (/^\/etc\/(?:yum\/pluginconf\.d|dnf\/plugins)\/[^/]+\.conf$/.test(file)) return 'plugin'
  if (file.startsWith('/etc/apt/')) return 'apt'
  if (file.endsWith('.repo')) return 'repository'
  return undefined
}

function mainOf(sections: readonly IniSection[]): Map<string, string> {
  return sections.find((one) => one.name === 'main')?.options ?? new Map<string, string>()
}

/** yum's plugins are off unless both its configuration and theirs turn them on; dnf's are on unless one turns them off. */
export function pluginsOf(installed: string[], { main, plugins }: Configuration, manager: Manager): string[] {
  const otherwise = manager === 'dnf'
  if (!isOn(main.get('plugins'), otherwise)) return []
  return installed.filter((name) => {
    const own = plugins.get(name) ?? plugins.get(name.replaceAll('_', '-'))
    return isOn(own?.get('enabled'), otherwise)
  })
}

/** The manager’s variables as it expands them; files count over what it computes. */
export function variablesOf(box: {
  files: Map<string, string[]>
  main: Map<string, string>
  packages: readonly PackageFacts[]
  arch: string
  manager: Manager
}): Map<string, string> {
  const variables = new Map<string, string>([
    ['arch', box.arch],
    ['basearch', BASE_ARCHES[box.arch] ?? box.arch],
  ])
  const release = releaseVersion(box.packages, box.main.get('distroverpkg'), box.manager)
  if (release !== undefined) variables.set('releasever', release)
  for (const [file, lines] of box.files) {
    if (kindOf(file) === 'variable') variables.set(fileName(file, ''), (lines[0] ?? '').trim())
  }
  return variables
}

/** Of the first package that provides one of the names: the version of that provide, or where it has none (or is the
 *  package's own name) the package's. */
function releaseVersion(
  packages: readonly PackageFacts[],
  configured: string | undefined,
  manager: Manager,
): string | undefined {
  const names = new Set(configured === undefined ? RELEASE_PACKAGES[manager] : configured.split(/[\s,]+/))
  const found = new Map<string, string>()
  for (const one of packages) {
    for (const { name, flags, version, release } of one.provides ?? []) {
      if (!names.has(name) || found.has(name)) continue
      const isOwn = one.name === name || flags !== 'EQ' || version === undefined
      found.set(name, isOwn ? one.version : `${version}${release === undefined ? '' : `-${release}`}`)
    }
  }
  const first = [...names].find((name) => found.has(name))
  return first === undefined ? undefined : found.get(first)
}

/** From os-release, or where that does not tell from redhat-release. */
export function distributionOf(files: Map<string, string[]>): Inventory['distribution'] {
  const rows = (files.get('/etc/os-release') ?? []).map((line) => /^([A-Z_]+)=(["']?)(.*)\2\s*$/.exec(line))
  const facts = new Map(rows.filter((row) => row !== null).map((row) => [row[1]!, row[3]!]))
  const line = files.get('/etc/redhat-release')?.[0] ?? files.get('/etc/sangoma-release')?.[0] ?? ''
  const [, word = 'unknown', number = ''] = /^(\S+).*? release (\S+)/.exec(line) ?? []
  const id = facts.get('ID') ?? word.toLowerCase()
  const version = facts.get('VERSION_ID') ?? number
  return { id, version, name: facts.get('PRETTY_NAME') ?? (line || [id, version].join(' ').trim()) }
}

function fileName(path: string, ending: string): string {
  return path.slice(path.lastIndexOf('/') + 1, path.length - ending.length)
}
