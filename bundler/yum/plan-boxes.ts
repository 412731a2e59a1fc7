/**
 * Plans the repositories of a group by the inventories of its boxes: reads what is offered into tables, looks into
 * filelists only for the paths that somebody requires, resolves box after box, and puts the closures together.
 */
import { plural, shortList } from '../../manifests/console.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import type { Nevra } from '../../manifests/rpm-version.ts'
import type { Advisory } from '../../manifests/updateinfo.ts'
import { PackageIndex } from './package-index.ts'
import { tableOf, type PackageTable } from '../../manifests/package-table.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { Available } from './available.ts'
import { rulesOf, type BoxRules } from './box-settings.ts'
import { installedTable, oddities, refuseOtherManager, type BoxInventory, type YumInventory } from './box-state.ts'
import type { EarlierRepository } from './carried-before.ts'
import { mergeClosures, reasonText, type Because, type BoxClosure } from './closures.ts'
import type { YumRepo } from '../config.ts'
import { compileGlob, namesOf } from './globs.ts'
import { Offers, type Offer } from './offers.ts'
import { resolveBox, RULES, type Rule } from '../resolve-yum.ts'
import { refuseConflicts, selectPackages, type YumSelection } from '../select-yum.ts'
import type { YumUpstream } from '../upstream-yum.ts'
import type { ListedRepository } from './yum-tables.ts'

/** A box of a plan, and what its update may choose from: what `gapferry-box parity` holds it to. */
export interface PlannedBox {
  name: string
  /** of the inventory that it was planned from */
  inventory: Sha256
  state: Sha256
  createdAt: string
  /** the site's bundle that was signed since, if one was: the box may have been updated; null where none was */
  stale: { number: number; createdAt: string } | null
  /** apt only in a group without yum repositories */
  manager: 'yum' | 'dnf' | 'apt'
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
  /** undefined: the repository has none */
  lookAdvisories: (upstream: YumUpstream) => Promise<readonly Advisory[] | undefined>
  findPaths: (repository: ListedRepository, wanted: ReadonlySet<string>) => Promise<Map<string, number[]>>
}

interface LookedOffer extends Offer {
  repo: YumRepo
  upstream: YumUpstream
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
  const looked = upstreams.map((one): LookedOffer => ({ ...one, earlier: before.get(one.repo.id) }))
  const offers = new Offers(looked)
  await offers.findPaths(
    boxes.map(({ packages }) => packages),
    sources.findPaths,
    looked,
  )
  const wishes = looked.map(({ repo, upstream }) =>
    repo.include === undefined ? undefined : selectPackages(upstream, repo),
  )
  const wanted = wishes.flatMap((wish, i) => offers.placesOf(i, wish?.carried ?? []))
  const resolver = new GroupResolver(group, offers, wanted, fixes)
  const resolved = boxes.map((box) => resolver.resolve(box))
  const merged = mergeClosures(resolved.map(({ closure }) => closure))
  const sizeOf = (places: Iterable<number>): number =>
    [...new Set(places)].reduce((sum, place) => sum + offers.bytesAt(place), 0)
  const repositories = looked.map((one, i) => carriedOf(one, i, offers, merged, wishes[i]))
  return {
    boxes: resolved.map(({ planned }) => planned),
    repositories,
    rules: sumRules(repositories.flatMap(({ packages }) => packages)),
    leastBytes: sizeOf(resolved.flatMap(({ closure }) => closure.closure.least)),
    guessBytes: guessBytes(resolver, boxes, merged.keys(), sizeOf),
  }
}

/** A box of a group that has no repositories: nothing is planned for its packages. */
export function boxWithoutYum(box: BoxInventory): PlannedBox {
  return {
    ...boxFacts(box),
    candidates: [],
    candidateBytes: 0,
    unresolved: [],
    warnings: [],
  }
}

function boxFacts(box: BoxInventory): Omit<PlannedBox, 'candidates' | 'candidateBytes' | 'unresolved' | 'warnings'> {
  return {
    name: box.box,
    inventory: box.digest,
    state: box.stateDigest,
    createdAt: box.createdAt,
    stale: box.stale ?? null,
    manager: box.manager,
    isGuess: box.isGuess,
    installed: box.packages.length,
  }
}

class GroupResolver {
  readonly #group: string
  readonly #offers: Offers
  readonly #wanted: readonly number[]
  readonly #fixes: PackageTable | undefined
  readonly #available = new Map<boolean, Available>()
  readonly #rules = new Map<string, BoxRules>()

  constructor(group: string, offers: Offers, wanted: readonly number[], fixes: readonly Nevra[] | undefined) {
    this.#group = group
    this.#offers = offers
    this.#wanted = wanted
    this.#fixes = fixes === undefined ? undefined : tableOf(offers.pool, fixes)
  }

  resolve(box: YumInventory): { planned: PlannedBox; closure: BoxClosure } {
    const available = this.#availableFor(box)
    const closure = this.closureOf(box)
    const { packages, candidates, unresolved } = closure.closure
    const taken = packages.slice(0, candidates)
    const planned: PlannedBox = {
      ...boxFacts(box),
      candidates: taken.map((place) => available.nevraOf(available.table, place)).sort(),
      candidateBytes: taken.reduce((sum, place) => sum + this.#offers.bytesAt(place), 0),
      // of a stand-in nobody knows what it has
      unresolved: (box.isGuess ? [] : unresolved).map(({ requirement, by, kind }) => ({
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
    const { table } = installedTable(this.#offers.pool, box, available, likely)
    const closure = resolveBox(available, { installed: table, rules: this.#rulesFor(box, available) }, this.#wanted)
    return { box: box.box, available, installed: table, closure }
  }

  #availableFor({ manager }: YumInventory): Available {
    // rpm 4.11, which yum stands on, has no caret
    const caret = manager === 'dnf'
    const known = this.#available.get(caret) ?? new Available(this.#offers.pool, this.#offers.lists, { caret })
    this.#available.set(caret, known)
    return known
  }

  /** Most boxes of a group have the same settings. */
  #rulesFor(box: YumInventory, available: Available): BoxRules {
    const { manager, arch, mainOptions, repositories, versionLocks, plugins } = box
    const options = repositories.map(({ id, options }) => [id, [...options]])
    const key = JSON.stringify([manager, arch, [...mainOptions], options, versionLocks, plugins])
    const known = this.#rules.get(key) ?? rulesOf(box, available)
    for (const place of this.#offers.hidden) known.isOffered[place] = 0
    if (this.#fixes !== undefined) known.fixes ??= new PackageIndex(this.#fixes, available.order)
    this.#rules.set(key, known)
    return known
  }
}

/** What is carried of one repository: what boxes need and the settings want, less what the settings exclude. */
function carriedOf(
  { repo, upstream, earlier }: LookedOffer,
  offer: number,
  offers: Offers,
  merged: ReadonlyMap<number, Because>,
  wish: YumSelection | undefined,
): BoxPlan['repositories'][number] {
  const globs = (repo.exclude ?? []).map(compileGlob)
  const packages = new Map<PackageRow, CarriedRow>()
  const leftOut: { row: PackageRow; because: Because }[] = []
  for (const [place, because] of merged) {
    const list = offers.listAt(place)
    if (list.offer !== offer) continue
    const row = offers.rowAt(place)
    const names = globs.length === 0 ? [] : namesOf(row)
    if (globs.some(({ pattern }) => names.some((name) => pattern.test(name)))) leftOut.push({ row, because })
    else {
      const reason = because.rule === 'wanted' ? wish!.reasons.get(row.nevra)! : reasonText(because)
      packages.set(row, { row, reason, because, isEarlier: list.isEarlier })
    }
  }
  const sorted = refuseConflicts([...packages.keys()], upstream.id).map((row) => packages.get(row)!)
  return {
    packages: sorted,
    earlier: sorted.some(({ isEarlier }) => isEarlier) ? earlier : undefined,
    warnings: [
      ...(wish?.unmatched ?? []).map((glob) => `nothing there matches include ${glob}`),
      ...(leftOut.length === 0 ? [] : [leftOutWarning(leftOut)]),
      ...crowdWarnings(sorted),
      ...(upstream.data.filelists !== undefined || offers.openPaths.length === 0
        ? []
        : [openWarning(offers.openPaths)]),
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
/** So many packages for one requirement are worth a word. */
const CROWD = 20

function leftOutWarning(leftOut: readonly { row: PackageRow; because: Because }[]): string {
  const named = leftOut.map(({ row, because }) => `${row.nevra} (for ${because.box})`)
  return `exclude leaves out what boxes may need for their update: ${shortList(named, SHOWN)}`
}

/** What a box's solver may choose is carried, however many that are: a person should know for what. */
function crowdWarnings(packages: readonly CarriedRow[]): string[] {
  const providing = packages.filter(({ because }) => because.requirement !== undefined)
  const crowds = Map.groupBy(providing, ({ because }) => because.requirement!)
  return [...crowds].flatMap(([requirement, all]) => {
    const { by = '', box } = all[0]!.because
    const why = `any of them may be chosen, so all are carried; exclude those that no box shall have`
    return all.length < CROWD ? [] : [`${all.length} packages provide ${requirement} (for ${by}, ${box}): ${why}`]
  })
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
