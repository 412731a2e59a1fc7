/**
 * Plans the repositories of a group by the inventories of its boxes: reads what is offered into tables, looks into
 * filelists only for the paths that somebody requires, resolves box after box, and puts the closures together.
 */
import { plural } from '../manifests/console.ts'
import type { Sha256 } from '../manifests/digest.ts'
import type { Nevra } from '../manifests/rpm-version.ts'
import type { Advisory } from '../manifests/updateinfo.ts'
import { PackageIndex } from './package-index.ts'
import { StringPool, tableOf, type PackageTable } from '../manifests/package-table.ts'
import type { PackageRow } from '../manifests/package-xml.ts'
import { Available, wantedPaths, type OfferedRepository } from './available.ts'
import { rulesOf, type BoxRules } from './box-settings.ts'
import { installedTable, oddities, refuseOtherManager, type BoxInventory, type YumInventory } from './box-state.ts'
import type { EarlierRepository } from './carried-before.ts'
import { mergeClosures, reasonText, type Because, type BoxClosure } from './closures.ts'
import type { YumRepo } from './config.ts'
import { compileGlob, namesOf } from './globs.ts'
import { resolveBox, RULES, type Rule } from './resolve-yum.ts'
import { refuseConflicts, selectPackages, type YumSelection } from './select-yum.ts'
import type { YumUpstream } from './upstream-yum.ts'
import type { ListedRepository } from './yum-tables.ts'

/** A box of a plan, and what its update may choose from: what `gapferry-box parity` holds it to. */
export interface PlannedBox {
  name: string
  /** of the inventory that it was planned from */
  inventory: Sha256
  state: Sha256
  createdAt: string
  manager: 'yum' | 'dnf'
  isGuess: boolean
  /** how many packages it has */
  installed: number
  /** NEVRAs, sorted */
  candidates: string[]
  candidateBytes: number
  /** what its update may fail for, at the upstream as well as here */
  unresolved: { requirement: string; by: string; kind: 'missing' | 'leaving' }[]
  warnings: string[]
}

export interface RuleSum {
  rule: Rule
  packages: number
  bytes: number
}

interface CarriedRow {
  row: PackageRow
  reason: string
  because: Because
  /** of the last bundle, not of the upstream */
  isEarlier: boolean
}

/** What a group with inventories carries. */
export interface BoxPlan {
  boxes: PlannedBox[]
  /** of each repository, in the order given */
  repositories: {
    packages: CarriedRow[]
    earlier: EarlierRepository | undefined
    warnings: string[]
  }[]
  /** what each rule brought, for those that brought anything */
  rules: RuleSum[]
  /** of the newest installable version of everything installed: no update is smaller */
  leastBytes: number
  /** of what is carried only because stand-ins do not say what their boxes have */
  guessBytes: number
}

export interface BoxSources {
  readTable: (pool: StringPool, repository: ListedRepository) => Promise<PackageTable>
  /** undefined: the repository has none */
  lookAdvisories: (upstream: YumUpstream) => Promise<readonly Advisory[] | undefined>
  findPaths: (repository: ListedRepository, wanted: ReadonlySet<string>) => Promise<Map<string, number[]>>
}

interface Offer {
  repo: YumRepo
  upstream: YumUpstream
  earlier: EarlierRepository | undefined
}

/** @param before  the site's last bundle, by repository
 *  @param fixes  packages that security advisories name, where only these and what they need are carried
 *  @throws INVENTORY_MISMATCH, PACKAGE_CONFLICT, and what reading the lists throws */
export async function planBoxes(
  group: string,
  inventories: readonly BoxInventory[],
  upstreams: readonly { repo: YumRepo; upstream: YumUpstream }[],
  { before, fixes }: { before: ReadonlyMap<string, EarlierRepository>; fixes?: readonly Nevra[] | undefined },
  sources: BoxSources,
): Promise<BoxPlan> {
  const boxes = inventories.map((one) => {
    refuseOtherManager(group, one)
    return one
  })
  const offers = upstreams.map((one): Offer => ({ ...one, earlier: before.get(one.repo.id) }))
  const read = await readOffers(offers, boxes, sources)
  const wishes = offers.map(({ repo, upstream }) =>
    repo.include === undefined ? undefined : selectPackages(upstream, repo),
  )
  const wanted = wantedPlaces(wishes, read)
  const resolver = new GroupResolver(group, read, wanted, fixes)
  const resolved = boxes.map((box) => resolver.resolve(box))
  const merged = mergeClosures(resolved.map(({ closure }) => closure))
  const sizeOf = (places: Iterable<number>): number =>
    [...new Set(places)].reduce((sum, place) => sum + read.rows[place]!.bytes, 0)
  const repositories = offers.map((offer, i) => carriedOf(offer, read.ranges[i]!, read, merged, wishes[i]))
  return {
    boxes: resolved.map(({ planned }) => planned),
    repositories,
    rules: sumRules(repositories.flatMap(({ packages }) => packages)),
    leastBytes: sizeOf(resolved.flatMap(({ closure }) => closure.closure.least)),
    guessBytes: guessBytes(resolver, boxes, merged.keys(), sizeOf),
  }
}

/** Everything that is offered, in one order: each repository, then what is left of it in the last bundle. */
interface ReadOffers {
  tables: OfferedRepository[]
  pool: StringPool
  rows: PackageRow[]
  /** places of each repository: from `start` on the upstream's, from `middle` on the last bundle's */
  ranges: { start: number; middle: number; end: number }[]
  /** places of the last bundle that the upstream has as well, or the store no more */
  hidden: number[]
  /** required paths that no filelists name */
  open: string[]
}

async function readOffers(
  offers: readonly Offer[],
  boxes: readonly BoxInventory[],
  sources: BoxSources,
): Promise<ReadOffers> {
  const read: ReadOffers = { tables: [], pool: new StringPool(), rows: [], ranges: [], hidden: [], open: [] }
  const offered = new Set(offers.flatMap(({ upstream }) => upstream.packages.map(({ nevra }) => nevra)))
  const lists: ListedRepository[] = []
  for (const { upstream, earlier } of offers) {
    const start = read.rows.length
    const middle = start + upstream.packages.length
    for (const list of earlier === undefined ? [upstream] : [upstream, earlier]) {
      lists.push(list)
      read.tables.push({ id: upstream.id, table: await sources.readTable(read.pool, list) })
      for (const row of list.packages) read.rows.push(row)
    }
    read.ranges.push({ start, middle, end: read.rows.length })
    for (let place = middle; place < read.rows.length; place++) {
      const { nevra } = read.rows[place]!
      if (offered.has(nevra) || earlier!.gone.has(nevra)) read.hidden.push(place)
    }
  }
  const installed = boxes.map(({ packages }) => tableOf(read.pool, packages))
  const paths = wantedPaths([...read.tables.map(({ table }) => table), ...installed])
  for (const [i, list] of lists.entries()) read.tables[i]!.paths = await sources.findPaths(list, paths)
  read.open.push(...[...paths].filter((path) => !read.tables.some((one) => one.paths!.has(path))))
  return read
}

function wantedPlaces(wishes: readonly (YumSelection | undefined)[], { rows, ranges }: ReadOffers): number[] {
  return wishes.flatMap((wish, i) => {
    const carried = new Set(wish?.carried)
    const { start, middle } = ranges[i]!
    return carried.size === 0
      ? []
      : rows.flatMap((row, place) => (place >= start && place < middle && carried.has(row) ? [place] : []))
  })
}

class GroupResolver {
  readonly #group: string
  readonly #read: ReadOffers
  readonly #wanted: readonly number[]
  readonly #fixes: PackageTable | undefined
  readonly #available = new Map<boolean, Available>()
  readonly #rules = new Map<string, BoxRules>()

  constructor(group: string, read: ReadOffers, wanted: readonly number[], fixes: readonly Nevra[] | undefined) {
    this.#group = group
    this.#read = read
    this.#wanted = wanted
    this.#fixes = fixes === undefined ? undefined : tableOf(read.pool, fixes)
  }

  resolve(box: YumInventory): { planned: PlannedBox; closure: BoxClosure } {
    const available = this.#availableFor(box)
    const closure = this.closureOf(box)
    const { packages, candidates, unresolved } = closure.closure
    const taken = packages.slice(0, candidates)
    const planned: PlannedBox = {
      name: box.box,
      inventory: box.digest,
      state: box.stateDigest,
      createdAt: box.createdAt,
      manager: box.manager,
      isGuess: box.isGuess,
      installed: box.packages.length,
      candidates: taken.map((place) => this.#read.rows[place]!.nevra).sort(),
      candidateBytes: taken.reduce((sum, place) => sum + this.#read.rows[place]!.bytes, 0),
      unresolved: unresolved.map(({ requirement, by, kind }) => ({
        requirement: available.requirementText(requirement),
        by: available.nevraOf(by.isInstalled ? closure.installed : available.table, by.index),
        kind,
      })),
      warnings: oddities(box, available, this.#group),
    }
    return { planned, closure }
  }

  /** @param likely  as in installedTable */
  closureOf(box: YumInventory, likely = false): BoxClosure {
    const available = this.#availableFor(box)
    const { table } = installedTable(this.#read.pool, box, available, likely)
    const closure = resolveBox(available, { installed: table, rules: this.#rulesFor(box, available) }, this.#wanted)
    return { box: box.box, available, installed: table, closure }
  }

  #availableFor({ manager }: YumInventory): Available {
    // rpm 4.11, which yum stands on, has no caret
    const caret = manager === 'dnf'
    const known = this.#available.get(caret) ?? new Available(this.#read.pool, this.#read.tables, { caret })
    this.#available.set(caret, known)
    return known
  }

  /** Most boxes of a group have the same settings. */
  #rulesFor(box: YumInventory, available: Available): BoxRules {
    const { manager, arch, mainOptions, repositories, versionLocks, plugins } = box
    const options = repositories.map(({ id, options }) => [id, [...options]])
    const key = JSON.stringify([manager, arch, [...mainOptions], options, versionLocks, plugins])
    const known = this.#rules.get(key) ?? rulesOf(box, available)
    for (const place of this.#read.hidden) known.isOffered[place] = 0
    if (this.#fixes !== undefined) known.fixes ??= new PackageIndex(this.#fixes, available.order)
    this.#rules.set(key, known)
    return known
  }
}

/** What is carried of one repository: what boxes need and the settings want, less what the settings exclude. */
function carriedOf(
  { repo, upstream, earlier }: Offer,
  { start, middle, end }: { start: number; middle: number; end: number },
  { rows, open }: ReadOffers,
  merged: ReadonlyMap<number, Because>,
  wish: YumSelection | undefined,
): BoxPlan['repositories'][number] {
  const globs = (repo.exclude ?? []).map(compileGlob)
  const packages = new Map<PackageRow, CarriedRow>()
  const leftOut: { row: PackageRow; because: Because }[] = []
  for (const [place, because] of merged) {
    if (place < start || place >= end) continue
    const row = rows[place]!
    const names = globs.length === 0 ? [] : namesOf(row)
    if (globs.some(({ pattern }) => names.some((name) => pattern.test(name)))) leftOut.push({ row, because })
    else {
      const reason = because.rule === 'wanted' ? wish!.reasons.get(row.nevra)! : reasonText(because)
      packages.set(row, { row, reason, because, isEarlier: place >= middle })
    }
  }
  const sorted = refuseConflicts([...packages.keys()], upstream.id).map((row) => packages.get(row)!)
  return {
    packages: sorted,
    earlier: sorted.some(({ isEarlier }) => isEarlier) ? earlier : undefined,
    warnings: [
      ...(wish?.unmatched ?? []).map((glob) => `nothing there matches include ${glob}`),
      ...(leftOut.length === 0 ? [] : [leftOutWarning(leftOut)]),
      ...(upstream.data.filelists !== undefined || open.length === 0 ? [] : [openWarning(open)]),
    ],
  }
}

function sumRules(packages: readonly { row: PackageRow; because: Because }[]): RuleSum[] {
  return RULES.flatMap((rule) => {
    const some = packages.filter(({ because }) => because.rule === rule)
    const bytes = some.reduce((sum, { row }) => sum + row.bytes, 0)
    return some.length === 0 ? [] : [{ rule, packages: some.length, bytes }]
  })
}

const SHOWN = 3

function leftOutWarning(leftOut: readonly { row: PackageRow; because: Because }[]): string {
  const shown = leftOut.slice(0, SHOWN).map(({ row, because }) => `${row.nevra} (for ${because.box})`)
  const more = leftOut.length > SHOWN ? ` and ${leftOut.length - SHOWN} more` : ''
  return `exclude leaves out what boxes may need for their update: ${shown.join(', ')}${more}`
}

function openWarning(open: readonly string[]): string {
  const shown = open.slice(0, SHOWN).join(', ')
  const more = open.length > SHOWN ? `, …` : ''
  return `no filelists: who has ${plural(open.length, 'required path')} is not known (${shown}${more})`
}

/** What would not be carried if the stand-ins' boxes had what other versions of their packages say. */
function guessBytes(
  resolver: GroupResolver,
  boxes: readonly YumInventory[],
  carried: Iterable<number>,
  sizeOf: (places: Iterable<number>) => number,
): number {
  if (!boxes.some(({ isGuess }) => isGuess)) return 0
  const likely = new Set(boxes.flatMap((box) => resolver.closureOf(box, box.isGuess).closure.packages))
  return sizeOf([...carried].filter((place) => !likely.has(place)))
}
