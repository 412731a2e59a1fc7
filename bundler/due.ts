/** What each site is due: what its plan has that its last bundle has not. */
import { formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import { parseTreePath } from '../manifests/path.ts'
import type { Tree } from '../manifests/tree.ts'
import { partDownloads, type Laptop } from './carry.ts'
import { filesOf } from './downloads.ts'
import { PLAN_FORMAT, type Plan, type PlannedGroup } from './plan.ts'
import { signedTree } from './signed-tree.ts'
import type { SiteFailure } from './sites.ts'
import { expensesOf, sumOf } from './spending.ts'
import { packagePath } from './yum/repodata.ts'

export interface SiteDue {
  site: string
  /** null: it never had one */
  last: { number: number; createdAtMs: number } | null
  /** in the plan and not in the last bundle */
  packages: number
  modules: number
  files: number
  /** of these, as far as servers told */
  bytes: number
  /** of them what the store does not have */
  toFetchBytes: number
}

/** In the order of the plan. */
export function dueOf(laptop: Laptop, plan: Plan): SiteDue[] {
  return plan.sites.map((site) => {
    const last = laptop.ledger.lastBundle(site.name)
    const news = site.groups.map((group) => {
      const sha256 = last?.trees.get(`${group.name}/current`)
      return newsOf(group, sha256 && signedTree(laptop.store, sha256, `${group.name}/current`))
    })
    const { toFetch } = partDownloads(laptop, { format: PLAN_FORMAT, createdAtMs: 0, sites: [site] })
    const total = (key: keyof News): number => news.reduce((sum, one) => sum + one[key], 0)
    return {
      site: site.name,
      last: last === undefined ? null : { number: last.number, createdAtMs: last.createdAtMs },
      packages: total('packages'),
      modules: total('modules'),
      files: total('files'),
      bytes: total('bytes'),
      toFetchBytes: sumOf(expensesOf(plan, toFetch, laptop.store)).bytes,
    }
  })
}

/** One line for each site, those that failed, too. */
export function renderDue(due: readonly SiteDue[], failures: readonly SiteFailure[]): string {
  const rows = due.map(({ site, last, bytes, toFetchBytes, ...counts }) => {
    const nouns = (['package', 'module', 'file'] as const).map((noun) => [counts[`${noun}s`], noun] as const)
    const news = nouns.flatMap(([count, noun]) => (count === 0 ? [] : [plural(count, noun)])).join(', ')
    const before = last === null ? 'none' : `${last.number} of ${formatTime(last.createdAtMs)}`
    return [site, before, news === '' ? 'nothing new' : news, formatBytes(bytes), formatBytes(toFetchBytes)]
  })
  const failed = failures.map(({ site, error }) => [site, '', `failed: ${error.code}`, '', ''])
  const head = ['site', 'last bundle', 'new since', 'bytes', 'to fetch']
  return formatTable([head, ...rows, ...failed], { right: [3, 4] })
}

type News = Pick<SiteDue, 'packages' | 'modules' | 'files' | 'bytes'>

function newsOf(group: PlannedGroup, before: Tree | undefined): News {
  const news: News = { packages: 0, modules: 0, files: 0, bytes: 0 }
  const add = (kind: 'packages' | 'modules' | 'files', bytes: number | null): void => {
    news[kind]++
    news.bytes += bytes ?? 0
  }
  // a path of a package or a module means the same bytes for ever
  for (const repo of group.yum) {
    for (const one of repo.packages)
      if (before?.entries.has(packagePath(repo.id, one.href)) !== true) add('packages', one.bytes)
  }
  for (const one of group.modules?.modules ?? []) {
    if (before?.entries.has(parseTreePath(`modules/${one.location}`, one.rawname)) !== true) add('modules', one.bytes)
  }
  for (const file of filesOf(group)) {
    const entry = before?.entries.get(file.as)
    if (entry === undefined || entry.sha256 !== file.sha256) add('files', file.bytes)
  }
  return news
}
