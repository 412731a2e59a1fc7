import { readFileSync } from 'node:fs'
import { Available } from '../../bundler/yum/available.ts'
import { rulesOf, type BoxSettings } from '../../bundler/yum/box-settings.ts'
import { resolveBox, type Reason } from '../../bundler/resolve-yum.ts'
import { StringPool, tableOf, type PackageFacts } from '../../manifests/package-table.ts'
import { formatNevra, parseNevra, type Relation } from '../../manifests/rpm-version.ts'

/** A small world: what is installed on a box, what one repository offers. */
export interface Universe {
  id: string
  installed: UniversePackage[]
  available: UniversePackage[]
  /** yum's own answer, and what it put on the box */
  result: 'ok' | 'err' | 'empty'
  install: UniverseNevra[]
  libsolv: { install: string[]; remove: string[]; problems: number }
  libsolv_best: { install: string[]; remove: string[]; problems: number }
}

export type UniverseNevra = [name: string, epoch: string, version: string, release: string, arch: string]
export type UniverseRelation = [name: string, sense: Relation['flags'] | null, evr: (string | null)[] | null]

/** A package, written short: `app-1:2-1.noarch`, and what the second argument adds. */
export function universePackage(nevra: string, more: Record<string, string[]> = {}): UniversePackage {
  const { name, epoch, version, release, arch } = parseNevra(nevra)!
  const relations = Object.entries(more).filter(([kind]) => kind !== 'files')
  return {
    nevra: [name, epoch, version, release, arch],
    ...Object.fromEntries(relations.map(([kind, texts]) => [kind, texts.map(universeRelation)])),
    files: more['files'] ?? [],
  }
}

const SENSES: Record<string, Relation['flags']> = { '=': 'EQ', '<': 'LT', '<=': 'LE', '>': 'GT', '>=': 'GE' }

/** `libx`, `libx >= 1:2-3`, `(a if b)`. */
function universeRelation(text: string): UniverseRelation {
  const match = /^(\S+) (\S+) (?:(\d+):)?([^-]+)(?:-(.+))?$/.exec(text)
  if (match === null || text.startsWith('(')) return [text, null, null]
  const [, name, sign, epoch, version, release] = match
  return [name!, SENSES[sign!], [epoch ?? '0', version!, release ?? null]]
}

/** A provide of its own name and version is understood. */
export interface UniversePackage {
  nevra: UniverseNevra
  provides?: UniverseRelation[]
  requires?: UniverseRelation[]
  obsoletes?: UniverseRelation[]
  conflicts?: UniverseRelation[]
  recommends?: UniverseRelation[]
  supplements?: UniverseRelation[]
  files?: string[]
}

/** The recorded cases of yum 3.4.3 and libsolv. */
export function recordedUniverses(): Universe[] {
  return JSON.parse(readFileSync(new URL('../vectors/solver-universes.json', import.meta.url), 'utf8')) as Universe[]
}

/** What the resolver carries for the box of a universe: sorted, `name-[epoch:]version-release.arch`. */
export function carriedFor(universe: Pick<Universe, 'installed' | 'available'>): string[] {
  return resolveUniverse(universe).carried
}

/** Settings of the box, a yum one on x86_64 that has none. */
export type UniverseSettings = Partial<BoxSettings> & {
  /** what filelists say: path → NEVRAs */
  paths?: Record<string, string[]>
  wanted?: string[]
}

/** The resolver's whole answer, as text. */
export interface ResolvedUniverse {
  carried: string[]
  candidates: string[]
  /** `name-…: provider libx by app-…` */
  reasons: Record<string, string>
  /** `libx (missing, by app-…)` */
  unresolved: string[]
}

export function resolveUniverse(
  { installed, available: offered }: Pick<Universe, 'installed' | 'available'>,
  { paths = {}, wanted = [], ...settings }: UniverseSettings = {},
): ResolvedUniverse {
  const pool = new StringPool()
  const table = tableOf(pool, offered.map(factsOf))
  const nevras = offered.map((one) => formatNevra(factsOf(one)))
  const rows = Object.entries(paths).map(([path, owners]) => [path, owners.map((one) => nevras.indexOf(one))] as const)
  const box = { ...PLAIN_BOX, ...settings }
  const available = new Available(pool, [{ id: 'repository', table, paths: new Map(rows) }], {
    caret: box.manager === 'dnf',
  })
  const present = tableOf(pool, installed.map(factsOf))
  const closure = resolveBox(
    available,
    { installed: present, rules: rulesOf(box, available) },
    wanted.map((one) => nevras.indexOf(one)),
  )
  const source = (by: Reason['by']): string =>
    by === null ? 'settings' : available.nevraOf(by.isInstalled ? present : available.table, by.index)
  const why = ({ rule, by, requirement }: Reason): string =>
    [rule, ...(requirement === null ? [] : [available.requirementText(requirement)]), 'by', source(by)].join(' ')
  return {
    carried: closure.packages.map((place) => nevras[place]!).sort(),
    candidates: closure.packages
      .slice(0, closure.candidates)
      .map((place) => nevras[place]!)
      .sort(),
    reasons: Object.fromEntries(closure.packages.map((place) => [nevras[place]!, why(closure.reasonOf(place))])),
    unresolved: closure.unresolved.map(
      ({ requirement, by, kind }) => `${available.requirementText(requirement)} (${kind}, by ${source(by)})`,
    ),
  }
}

const PLAIN_BOX: BoxSettings = {
  manager: 'yum',
  arch: 'x86_64',
  mainOptions: new Map(),
  repositories: [],
  versionLocks: [],
  plugins: [],
}

export function factsOf({
  nevra,
  provides = [],
  requires = [],
  obsoletes = [],
  conflicts = [],
  recommends = [],
  supplements = [],
  files = [],
}: UniversePackage): PackageFacts {
  const [name, epoch, version, release, arch] = nevra
  return {
    name,
    epoch,
    version,
    release,
    arch,
    provides: provides.map(relationOf),
    requires: requires.map(relationOf),
    obsoletes: obsoletes.map(relationOf),
    conflicts: conflicts.map(relationOf),
    recommends: recommends.map(relationOf),
    supplements: supplements.map(relationOf),
    files,
  }
}

function relationOf([name, sense, evr]: UniverseRelation): Relation {
  if (sense === null || sense === undefined) return { name }
  const [epoch, version, release] = evr ?? []
  return { name, flags: sense, epoch: epoch ?? '0', version: version ?? '', release: release ?? '' }
}
