/**
 * A plan says what has to be carried, per site, group and kind, with bytes and the reason for each item, before a byte of
 * it is spent. It is kept in the store as `plan.json`, so that `pull` and `pack` do what `plan` showed.
 */
import { sha256Of, type Checksum } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { formatNevra, type Nevra } from '../manifests/rpm-version.ts'
import type { Verdict } from '../manifests/tree.ts'
import { advisoriesByNevra, type Advisory } from '../manifests/updateinfo.ts'
import type { BoxInventory } from './yum/box-state.ts'
import type { EarlierRepository } from './yum/carried-before.ts'
import type { Because } from './yum/closures.ts'
import type { Fleet, GroupPlan, VendorFile, YumRepo } from './config.ts'
import type { GroupModules } from './modules/module-settings.ts'
import type { PlannedModules } from './modules/planned-modules.ts'
import { boxWithoutYum, planBoxes, type BoxSources, type PlannedBox, type RuleSum } from './yum/plan-boxes.ts'
import { selectPackages } from './select-yum.ts'
import type { CarriedPart, UnprovidedRequirement } from './yum/unprovided.ts'
import type { PlannedFile } from './upstream-files.ts'
import type { PackageRow, YumUpstream } from './upstream-yum.ts'
import type { ListBlobs } from './yum/yum-lists.ts'

export interface PlannedPackage {
  nevra: string
  /** as in the upstream's metadata, relative to its base URL */
  href: string
  bytes: number
  checksum: Checksum
  /** seconds since 1970 */
  modified: number
  reason: string
  /** described by the last bundle's metadata, because the upstream has it no more */
  isEarlier?: boolean
  /** in a group with inventories: what it follows from */
  because?: Because
  /** ids of advisories that name it */
  advisories?: string[]
}

export interface PlannedRepository {
  id: string
  gpgcheck: boolean
  gpgkey?: string
  baseurls: string[]
  /** the newest timestamp in the upstream's repomd.xml */
  upstreamStamp: number
  verdict: Verdict
  /** the upstream's metadata as it came, blobs of the store */
  data: ListBlobs
  /** the metadata of the last bundle, where something is carried that the upstream dropped since */
  earlier?: ListBlobs
  packages: PlannedPackage[]
  /** how many packages the upstream offers */
  offered: number
  unprovided: UnprovidedRequirement[]
  warnings: string[]
}

export interface PlannedGroup {
  name: string
  origin: string
  /** the boxes whose inventories say what is carried; none: the settings say it */
  boxes: PlannedBox[]
  /** with boxes: what each rule of the resolver brought */
  rules?: RuleSum[]
  /** with boxes: bytes of the newest installable version of everything they have; no update is smaller */
  leastBytes?: number
  /** with stand-ins for inventories: bytes that are carried only because of what they do not say */
  guessBytes?: number
  yum: PlannedRepository[]
  /** where the group has modules, and somebody who can ask for them */
  modules?: PlannedModules
  files: PlannedFile[]
  /** of the group as a whole */
  warnings: string[]
  /** of what is carried, where the upstreams have them */
  advisories: Omit<Advisory, 'packages'>[]
}

export const PLAN_FORMAT = 3

export interface Plan {
  format: typeof PLAN_FORMAT
  createdAtMs: number
  /** `settings`: digest of the settings that the site was planned from */
  sites: { name: string; settings: string; isSecurityOnly: boolean; groups: PlannedGroup[] }[]
}

export interface PlanSources extends BoxSources {
  /** inventories of the group's boxes */
  boxesOf: (site: string, group: string) => readonly BoxInventory[]
  /** the group's repositories as the site's last bundle has them */
  carriedBefore: (site: string, group: string) => Promise<ReadonlyMap<string, EarlierRepository>>
  lookYum: (repo: YumRepo) => Promise<YumUpstream>
  /** in the order of the files */
  lookFiles: (files: readonly VendorFile[]) => Promise<PlannedFile[]>
  /** what a group with modules carries of them; a text says why nothing, `files` what comes beside them */
  planModules: (
    site: string,
    group: GroupPlan & { modules: GroupModules },
    boxes: readonly BoxInventory[],
  ) => Promise<{ modules: PlannedModules | string; files: PlannedFile[] }>
  findUnprovided: (parts: readonly CarriedPart[]) => Promise<UnprovidedRequirement[][]>
  nowMs: number
  /** carry only what security advisories name, and what that needs */
  isSecurityOnly?: boolean
}

/** Looks at every upstream (each repository once, however many groups name it) and selects what is carried.
 *  @param site  only this one; all when undefined
 *  @throws SITE_UNKNOWN, PLAN_EMPTY when a group would carry nothing at all, and what the upstreams throw */
export async function makePlan(fleet: Fleet, site: string | undefined, sources: PlanSources): Promise<Plan> {
  const sites = fleet.sites.filter((one) => site === undefined || one.name === site)
  if (sites.length === 0) {
    throw new GapferryError('SITE_UNKNOWN', `${fleet.file} has no site "${site}"`, {
      hint: `its sites: ${fleet.sites.map((one) => one.name).join(', ')}`,
    })
  }
  const shared = sharedSources(sources)
  const plan: Plan = { format: PLAN_FORMAT, createdAtMs: sources.nowMs, sites: [] }
  for (const one of sites) {
    const groups: PlannedGroup[] = []
    for (const group of one.groups) groups.push(await planGroup(one.name, group, shared))
    const isSecurityOnly = sources.isSecurityOnly === true
    plan.sites.push({ name: one.name, settings: settingsDigest(one), isSecurityOnly, groups })
  }
  return plan
}

/** The same sources, which look at each upstream once, however many sites are planned. */
export function sharedSources(sources: PlanSources): PlanSources {
  return {
    ...sources,
    lookYum: once(sources.lookYum, upstreamKey),
    lookAdvisories: once(sources.lookAdvisories, ({ id, data }) => `${id} ${data.primary}`),
    // Of equal lists the failure is shared, too.
    lookFiles: once(onceEach(sources.lookFiles, JSON.stringify), JSON.stringify),
  }
}

/** Equal for equal settings of a site. */
export function settingsDigest(site: Fleet['sites'][number]): string {
  return sha256Of(JSON.stringify(site))
}

async function planGroup(site: string, group: GroupPlan, sources: PlanSources): Promise<PlannedGroup> {
  const upstreams: Looked[] = []
  for (const repo of group.yum) {
    const upstream = await sources.lookYum(repo)
    upstreams.push({ repo, upstream, advisories: await sources.lookAdvisories(upstream) })
  }
  const inventories = sources.boxesOf(site, group.name)
  const planned =
    inventories.length === 0 || upstreams.length === 0
      ? await planBySettings(upstreams, inventories, sources)
      : await planByBoxes(site, group, inventories, upstreams, sources)
  const { modules, files, warnings } = await planOthers(site, group, inventories, sources)
  refuseClash(group.name, planned.yum)
  const isEmpty = files.length === 0 && modules === undefined
  if (isEmpty && planned.boxes.length === 0 && planned.yum.every((repo) => repo.packages.length === 0)) {
    refuseEmpty(group, warnings)
  }
  const advisories = nameAdvisories(planned.yum, upstreams)
  if (sources.isSecurityOnly === true) warnWithoutAdvisories(planned.yum, upstreams)
  const { name, origin } = group
  return { name, origin, ...planned, ...(modules === undefined ? {} : { modules }), files, warnings, advisories }
}

/** Modules and files. */
async function planOthers(
  site: string,
  group: GroupPlan,
  boxes: readonly BoxInventory[],
  sources: PlanSources,
): Promise<Pick<PlannedGroup, 'modules' | 'files' | 'warnings'>> {
  const files = await sources.lookFiles(group.files)
  if (group.modules === undefined) return { files, warnings: [] }
  const found = await sources.planModules(site, { ...group, modules: group.modules }, boxes)
  files.push(...found.files)
  if (typeof found.modules === 'string') return { files, warnings: [found.modules] }
  const warnings = sources.isSecurityOnly === true ? [`modules: --security does not narrow them`] : []
  return { modules: found.modules, files, warnings }
}

function refuseEmpty({ name, yum }: GroupPlan, warnings: readonly string[]): never {
  if (yum.length === 0) {
    const why = warnings.length === 0 ? `group ${name}: carries nothing` : warnings.join('; ')
    throw new GapferryError('PLAN_EMPTY', why, { hint: 'gapferry inventory add FILE' })
  }
  throw new GapferryError('PLAN_EMPTY', `group ${name}: nothing in its upstreams matches what it includes`, {
    hint: 'look at include, exclude and newest in gapferry.yaml',
  })
}

/** A repository, what was found there, and its advisories where it has any. */
interface Looked {
  repo: YumRepo
  upstream: YumUpstream
  advisories: readonly Advisory[] | undefined
}

/** Puts their ids beside the packages. @returns those of what is carried */
function nameAdvisories(yum: PlannedRepository[], upstreams: readonly Looked[]): PlannedGroup['advisories'] {
  const byNevra = advisoriesByNevra(upstreams.flatMap(({ advisories }) => advisories ?? []))
  const named = new Map<string, PlannedGroup['advisories'][number]>()
  for (const one of yum.flatMap((repo) => repo.packages)) {
    const about = byNevra.get(one.nevra)
    if (about === undefined) continue
    one.advisories = about.map(({ id }) => id)
    for (const { id, type, severity } of about) named.set(id, { id, type, severity })
  }
  return [...named.values()]
}

function securityFixes(upstreams: readonly Looked[]): Nevra[] {
  const all = upstreams.flatMap(({ advisories }) => advisories ?? [])
  return all.filter(({ type }) => type === 'security').flatMap(({ packages }) => packages)
}

function warnWithoutAdvisories(yum: PlannedRepository[], upstreams: readonly Looked[]): void {
  yum.forEach((repo, i) => {
    if (upstreams[i]!.advisories === undefined)
      repo.warnings.push('has no advisories: --security finds no update in it')
  })
}

type PlannedYum = Pick<PlannedGroup, 'boxes' | 'rules' | 'leastBytes' | 'guessBytes' | 'yum'>

/** By include, exclude and newest, and nothing that follows from them.
 *  @param inventories  of boxes of a group without repositories */
async function planBySettings(
  upstreams: readonly Looked[],
  inventories: readonly BoxInventory[],
  sources: PlanSources,
): Promise<PlannedYum> {
  const fixes = sources.isSecurityOnly === true ? new Set(securityFixes(upstreams).map(formatNevra)) : undefined
  const yum = upstreams.map(({ repo, upstream }) => {
    const { carried, reasons, unmatched } = selectPackages(upstream, repo)
    const wanted = fixes === undefined ? carried : carried.filter(({ nevra }) => fixes.has(nevra))
    const packages = wanted.map((row) => plannedPackage(row, reasons.get(row.nevra)!))
    const warnings = unmatched.map((glob) => `nothing there matches include ${glob}`)
    return plannedRepository(repo, upstream, packages, warnings)
  })
  const unprovided = await sources.findUnprovided(yum)
  yum.forEach((repo, i) => (repo.unprovided = unprovided[i] ?? []))
  return { boxes: inventories.map(boxWithoutYum), yum }
}

/** By what the boxes need for their updates. */
async function planByBoxes(
  site: string,
  group: GroupPlan,
  inventories: readonly BoxInventory[],
  upstreams: readonly Looked[],
  sources: PlanSources,
): Promise<PlannedYum> {
  const before = await sources.carriedBefore(site, group.name)
  const fixes = sources.isSecurityOnly === true ? securityFixes(upstreams) : undefined
  const { boxes, repositories, rules, leastBytes, guessBytes } = await planBoxes(
    group.name,
    inventories,
    upstreams,
    { before, fixes },
    sources,
  )
  const yum = upstreams.map(({ repo, upstream }, i) => {
    const { packages, earlier, warnings } = repositories[i]!
    const planned = packages.map(({ row, reason, because, isEarlier }) => {
      return { ...plannedPackage(row, reason), because, ...(isEarlier ? { isEarlier } : {}) }
    })
    const repository = plannedRepository(repo, upstream, planned, warnings)
    return earlier === undefined ? repository : { ...repository, earlier: earlier.data }
  })
  const hasGuess = boxes.some(({ isGuess }) => isGuess)
  return { boxes, rules, leastBytes, ...(hasGuess ? { guessBytes } : {}), yum }
}

function plannedRepository(
  repo: YumRepo,
  upstream: YumUpstream,
  packages: PlannedPackage[],
  warnings: string[],
): PlannedRepository {
  return {
    id: repo.id,
    gpgcheck: repo.gpgcheck,
    ...(repo.gpgkey === undefined ? {} : { gpgkey: repo.gpgkey }),
    baseurls: upstream.baseurls,
    upstreamStamp: upstream.repomdMaxTimestamp,
    verdict: upstream.verdict,
    data: upstream.data,
    packages,
    offered: upstream.packages.count,
    unprovided: [],
    warnings: [...upstream.warnings, ...warnings],
  }
}

function plannedPackage(row: PackageRow, reason: string): PlannedPackage {
  return { nevra: row.nevra, href: row.href, bytes: row.bytes, checksum: row.checksum, modified: row.fileTime, reason }
}

/** The same NEVRA with other bytes from two repositories: a box would take either, so nobody could say what it has. */
function refuseClash(group: string, repos: PlannedRepository[]): void {
  const seen = new Map<string, { repo: string; bytes: number; hex: string; algorithm: string }>()
  for (const repo of repos) {
    for (const { nevra, checksum, bytes } of repo.packages) {
      const other = seen.get(nevra)
      const isOther = other?.algorithm === checksum.algorithm ? other.hex !== checksum.hex : other?.bytes !== bytes
      if (other !== undefined && isOther) {
        throw new GapferryError(
          'PACKAGE_CONFLICT',
          `group ${group}: ${nevra} differs between ${other.repo} and ${repo.id} (${other.hex.slice(0, 12)}…, ${checksum.hex.slice(0, 12)}…)`,
          { hint: `exclude it in one of the two: exclude: ["${nevra}"]` },
        )
      }
      seen.set(nevra, { repo: repo.id, bytes, ...checksum })
    }
  }
}

function upstreamKey(repo: YumRepo): string {
  const { id, baseurl, mirrorlist, metalink, vars, gpgkey, repoGpgcheck } = repo
  return JSON.stringify([id, baseurl, mirrorlist, metalink, Object.entries(vars), gpgkey, repoGpgcheck])
}

function once<A, R>(look: (argument: A) => Promise<R>, keyOf: (argument: A) => string): (argument: A) => Promise<R> {
  const seen = new Map<string, Promise<R>>()
  return (argument) => {
    const key = keyOf(argument)
    const known = seen.get(key) ?? look(argument)
    seen.set(key, known)
    return known
  }
}

function onceEach<A, R>(
  look: (all: readonly A[]) => Promise<R[]>,
  keyOf: (argument: A) => string,
): (all: readonly A[]) => Promise<R[]> {
  const seen = new Map<string, R>()
  return async (all) => {
    const fresh = new Map(all.map((one) => [keyOf(one), one] as const).filter(([key]) => !seen.has(key)))
    const found = await look([...fresh.values()])
    for (const [i, key] of [...fresh.keys()].entries()) seen.set(key, found[i]!)
    return all.map((one) => seen.get(keyOf(one))!)
  }
}
