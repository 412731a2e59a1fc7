/**
 * A plan says what has to be carried, per site, group and kind, with bytes and the reason for each item, before a byte of
 * it is spent. It is kept in the store as `plan.json`, so that `pull` and `pack` do what `plan` showed.
 */
import { sha256Of, type Sha256, type Checksum } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { TreePath } from '../manifests/path.ts'
import type { Verdict } from '../manifests/tree.ts'
import type { Fleet, GroupPlan, VendorFile, YumRepo } from './config.ts'
import type { RemoteFile } from './fetch.ts'
import { selectPackages } from './select-yum.ts'
import type { CarriedPart, UnprovidedRequirement } from './unprovided.ts'
import type { PackageRow, YumUpstream } from './upstream-yum.ts'

export interface PlannedPackage {
  nevra: string
  /** as in the upstream's metadata, relative to its base URL */
  href: string
  bytes: number
  checksum: Checksum
  /** seconds since 1970 */
  modified: number
  reason: string
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
  data: { primary: Sha256; filelists?: Sha256; other?: Sha256 }
  packages: PlannedPackage[]
  /** how many packages the upstream offers */
  offered: number
  unprovided: UnprovidedRequirement[]
  warnings: string[]
}

/** A vendor file as its server describes it now. */
export interface PlannedFile {
  url: string
  as: TreePath
  /** null when the server does not say */
  bytes: number | null
  /** declared, known from the last fetch and unchanged since, or fetched for this plan */
  sha256?: Sha256
  reason: string
}

export interface PlannedGroup {
  name: string
  origin: string
  yum: PlannedRepository[]
  files: PlannedFile[]
}

export interface Plan {
  format: 1
  createdAtMs: number
  /** `settings`: digest of the settings that the site was planned from */
  sites: { name: string; settings: string; groups: PlannedGroup[] }[]
}

/** One thing to fetch, however many groups want it. */
export type Download =
  | { kind: 'package'; remote: RemoteFile; package: PlannedPackage; bytes: number }
  | { kind: 'file'; file: PlannedFile; bytes: number }

export interface PlanSources {
  lookYum: (repo: YumRepo) => Promise<YumUpstream>
  lookFile: (file: VendorFile) => Promise<PlannedFile>
  findUnprovided: (parts: readonly CarriedPart[]) => Promise<UnprovidedRequirement[][]>
  nowMs: number
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
  const lookYum = once(sources.lookYum, upstreamKey)
  const lookFile = once(sources.lookFile, (file) => JSON.stringify(file))
  const plan: Plan = { format: 1, createdAtMs: sources.nowMs, sites: [] }
  for (const one of sites) {
    const groups: PlannedGroup[] = []
    for (const group of one.groups) groups.push(await planGroup(group, { ...sources, lookYum, lookFile }))
    plan.sites.push({ name: one.name, settings: settingsDigest(one), groups })
  }
  return plan
}

/** Equal for equal settings of a site. */
export function settingsDigest(site: Fleet['sites'][number]): string {
  return sha256Of(JSON.stringify(site))
}

/** Everything the plan carries, each upstream file once. */
export function downloadsOf(plan: Plan): Download[] {
  const downloads = new Map<string, Download>()
  for (const group of plan.sites.flatMap((site) => site.groups)) {
    for (const repo of group.yum) {
      for (const one of repo.packages) {
        const key = `${one.checksum.algorithm}:${one.checksum.hex}`
        if (!downloads.has(key)) downloads.set(key, packageDownload(repo, one))
      }
    }
    for (const file of group.files) {
      // With its digest: one address may be wanted as it is and as it is declared to be.
      const key = `${file.url} ${file.sha256 ?? ''}`
      if (!downloads.has(key)) downloads.set(key, { kind: 'file', file, bytes: file.bytes ?? 0 })
    }
  }
  return [...downloads.values()]
}

async function planGroup(group: GroupPlan, sources: PlanSources): Promise<PlannedGroup> {
  const yum: PlannedRepository[] = []
  for (const repo of group.yum) yum.push(planRepository(repo, await sources.lookYum(repo)))
  const files: PlannedFile[] = []
  for (const file of group.files) files.push(await sources.lookFile(file))
  refuseClash(group.name, yum)
  const unprovided = await sources.findUnprovided(yum)
  yum.forEach((repo, i) => (repo.unprovided = unprovided[i] ?? []))
  if (files.length === 0 && yum.every((repo) => repo.packages.length === 0)) {
    throw new GapferryError('PLAN_EMPTY', `group ${group.name}: nothing in its upstreams matches what it includes`, {
      hint: 'look at include, exclude and newest in gapferry.yaml',
    })
  }
  return { name: group.name, origin: group.origin, yum, files }
}

function planRepository(repo: YumRepo, upstream: YumUpstream): PlannedRepository {
  const selection = selectPackages(upstream, repo)
  return {
    id: repo.id,
    gpgcheck: repo.gpgcheck,
    ...(repo.gpgkey === undefined ? {} : { gpgkey: repo.gpgkey }),
    baseurls: upstream.baseurls,
    upstreamStamp: upstream.repomdMaxTimestamp,
    verdict: upstream.verdict,
    data: upstream.data,
    packages: selection.carried.map((row) => plannedPackage(row, selection.reasons.get(row.nevra) ?? '')),
    offered: upstream.packages.count,
    unprovided: [],
    warnings: [...upstream.warnings, ...selection.unmatched.map((glob) => `nothing there matches include ${glob}`)],
  }
}

function plannedPackage(row: PackageRow, reason: string): PlannedPackage {
  return { nevra: row.nevra, href: row.href, bytes: row.bytes, checksum: row.checksum, modified: row.fileTime, reason }
}

/** The same NEVRA with other bytes from two repositories: a box would take either, so nobody could say what it has. */
function refuseClash(group: string, repos: PlannedRepository[]): void {
  const seen = new Map<string, { repo: string; hex: string; algorithm: string }>()
  for (const repo of repos) {
    for (const { nevra, checksum } of repo.packages) {
      const other = seen.get(nevra)
      if (other !== undefined && other.algorithm === checksum.algorithm && other.hex !== checksum.hex) {
        throw new GapferryError(
          'PACKAGE_CONFLICT',
          `group ${group}: ${nevra} differs between ${other.repo} and ${repo.id} (${other.hex.slice(0, 12)}…, ${checksum.hex.slice(0, 12)}…)`,
          { hint: `exclude it in one of the two: exclude: ["${nevra}"]` },
        )
      }
      seen.set(nevra, { repo: repo.id, ...checksum })
    }
  }
}

function packageDownload(repo: PlannedRepository, one: PlannedPackage): Download {
  const remote = {
    urls: repo.baseurls.map((base) => new URL(one.href, base.endsWith('/') ? base : `${base}/`).href),
    bytes: one.bytes,
    checksum: one.checksum,
    maxBytes: one.bytes,
    what: one.nevra,
  }
  return { kind: 'package', remote, package: one, bytes: one.bytes }
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
