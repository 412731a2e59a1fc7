/**
 * What a person reads of a plan, a pull and a bundle. Text in, text out; `--json` prints the same objects raw.
 */
import { dirname } from 'node:path'
import { formatBytes, formatTable, formatTime, plural, shortList } from '../manifests/console.ts'
import type { LicenseCount } from '../manifests/licenses.ts'
import { redact } from '../manifests/errors.ts'
import { parseNevra } from '../manifests/rpm-version.ts'
import { filesOf } from './downloads.ts'
import type { ToolDigests } from './box/tool.ts'
import type { PullResult } from './pull.ts'
import type { KindSum } from './spending.ts'
import type { Plan, PlannedGroup, PlannedPackage, PlannedRepository } from './plan.ts'
import {
  moduleBoxLines,
  moduleChain,
  moduleItemRows,
  moduleReason,
  moduleRows,
  moduleWarnings,
} from './modules/render-modules.ts'
import type { LeftOut } from './report-base.ts'
import { advisoryLines, boxLines, boxWarnings, chainOf } from './render-boxes.ts'

export interface PlanFigures {
  /** bytes that have to be fetched, without what is here of files that were cut, and how many things */
  toFetch: { count: number; bytes: number }
  /** what the store has already */
  here: { count: number; bytes: number }
  budgetBytes: number
  /** what is to be fetched, in the order in which the budget is spent */
  kinds: KindSum[]
}

/** @param items  list every item with its reason, not only the sums */
export function renderPlan(plan: Plan, figures: PlanFigures, items: boolean): string {
  const lines: string[] = []
  for (const site of plan.sites) {
    for (const group of site.groups) {
      const only = site.isSecurityOnly ? '  security updates alone' : ''
      lines.push(`${site.name} / ${group.name}  (${group.origin})${only}`)
      lines.push(
        formatTable(groupRows(group), { indent: '  ', right: [1, 2] }),
        ...boxLines(group),
        ...advisoryLines(group),
        ...moduleBoxLines(group, items),
      )
      if (items) lines.push(formatTable(itemRows(group), { indent: '    ', right: [1] }))
      for (const warning of warningsOf(group)) lines.push(`  warning: ${warning}`)
      lines.push('')
    }
  }
  lines.push(renderFigures(figures))
  return lines.join('\n')
}

export interface ExplainedItem {
  item: string
  bytes: number | null
  /** site / group / repository */
  place: string
  reason: string
  /** down to a box, where boxes are what it is carried for */
  chain: string[]
}

/** Why an item is carried, wherever it is; empty when the plan does not carry it. */
export function explainItem(plan: Plan, item: string): ExplainedItem[] {
  const all = plan.sites.flatMap((site) => site.groups.flatMap((group) => group.yum.flatMap((repo) => repo.packages)))
  const isNamed = ({ nevra }: PlannedPackage): boolean => nevra === item || parseNevra(nevra)?.name === item
  // part of a name will do where there is nobody of the whole name
  const isWhole = all.some(isNamed) || explainModules(plan, item).length > 0
  const isMeant = isWhole ? isNamed : ({ nevra }: PlannedPackage): boolean => nevra.startsWith(`${item}-`)
  const rows = plan.sites.flatMap((site) =>
    site.groups.flatMap((group) => {
      const place = `${site.name} / ${group.name}`
      const packages = group.yum.flatMap((repo) =>
        repo.packages.filter(isMeant).map((one) => ({
          item: one.nevra,
          bytes: one.bytes,
          place: `${place} / ${repo.id}`,
          reason: one.reason,
          chain: chainOf(group, one),
        })),
      )
      const files = filesOf(group)
        .filter((file) => file.as === item)
        .map((file) => ({
          item: file.as as string,
          bytes: file.bytes,
          place,
          reason: `${file.reason} (${file.url})`,
          chain: [],
        }))
      return [...packages, ...files]
    }),
  )
  return [...rows, ...explainModules(plan, item)]
}

/** By rawname, alone or with the version. */
function explainModules(plan: Plan, item: string): ExplainedItem[] {
  return plan.sites.flatMap((site) =>
    site.groups.flatMap(({ name, modules: planned }) =>
      (planned?.modules ?? [])
        .filter(({ rawname, version }) => [rawname, `${rawname} ${version}`, `${rawname}-${version}`].includes(item))
        .map((one) => ({
          item: `${one.rawname} ${one.version}`,
          bytes: one.bytes,
          place: `${site.name} / ${name} / modules ${planned!.major}`,
          reason: moduleReason(one),
          chain: moduleChain(planned!, one),
        })),
    ),
  )
}

export function renderExplained(rows: ExplainedItem[]): string {
  return rows
    .flatMap(({ item, bytes, place, reason, chain }) => [
      formatTable([[item, sizeOf(bytes), chain.length === 0 ? `${place}: ${reason}` : place]]),
      ...chain.map((line) => `  ${redact(line)}`),
    ])
    .join('\n')
}

function groupRows(group: PlannedGroup): string[][] {
  const rows = group.yum.map((repo) => [
    `yum ${repo.id}`,
    plural(repo.packages.length, 'package'),
    formatBytes(sum(repo.packages)),
    `of ${repo.offered} offered; upstream signature: ${repo.verdict}`,
  ])
  rows.push(...moduleRows(group))
  if (group.files.length > 0) {
    rows.push(['files', plural(group.files.length, 'file'), formatBytes(sum(group.files)), sizeNote(group)])
  }
  return rows
}

function sizeNote(group: PlannedGroup): string {
  const unknown = group.files.filter((file) => file.bytes === null).length
  return unknown === 0 ? '' : `${unknown} of unknown size`
}

function itemRows(group: PlannedGroup): string[][] {
  const packages = group.yum.flatMap((repo) =>
    repo.packages.map((one) => [one.nevra, formatBytes(one.bytes), `${repo.id}: ${one.reason}${advisoryNote(one)}`]),
  )
  const files = group.files.map((file) => [file.as, sizeOf(file.bytes), file.reason])
  return [...packages, ...moduleItemRows(group), ...files]
}

function advisoryNote({ advisories = [] }: PlannedPackage): string {
  const more = advisories.length > 1 ? ` and ${advisories.length - 1} more` : ''
  return advisories.length === 0 ? '' : `; ${advisories[0]}${more}`
}

const SHOWN_REQUIREMENTS = 5

function warningsOf(group: PlannedGroup): string[] {
  const ofRepositories = group.yum.flatMap((repo) => [
    ...repo.warnings.map((text) => `${repo.id}: ${text}`),
    ...unprovided(group, repo),
  ])
  return [...group.warnings, ...ofRepositories, ...boxWarnings(group), ...moduleWarnings(group)]
}

function unprovided(group: PlannedGroup, repo: PlannedRepository): string[] {
  const rows = repo.unprovided
  if (rows.length === 0) return []
  const named = rows.map((row) => `${row.requirement} (by ${row.by})`)
  return [
    `${repo.id}: nothing carried for ${group.name} provides ${shortList(named, SHOWN_REQUIREMENTS)}; the boxes must have it already`,
  ]
}

function renderFigures({ toFetch, here, budgetBytes, kinds }: PlanFigures): string {
  const isOver = kinds.some((kind) => kind.fits.count < kind.count)
  const sums = formatTable(
    [
      ['to fetch', formatBytes(toFetch.bytes), `${toFetch.count} of ${toFetch.count + here.count} items`],
      ['in the store', formatBytes(here.bytes), ''],
      ['budget', formatBytes(budgetBytes), isOver ? 'OVER BUDGET: one pull fetches what fits, in this order' : ''],
    ],
    { right: [1] },
  )
  return isOver ? `${sums}\n${formatTable(kinds.map(kindRow), { indent: '  ', right: [1, 2] })}` : sums
}

function kindRow({ kind, count, bytes, fits }: KindSum): string[] {
  const some = fits.count === 0 ? 'for another pull' : `${plural(fits.count, 'item')}, ${formatBytes(fits.bytes)}, fit`
  return [kind, plural(count, 'item'), formatBytes(bytes), fits.count === count ? 'fits' : some]
}

export function renderPull({ fetched, here, wireBytes, left }: Omit<PullResult, 'failure'>): string {
  const link = `${formatBytes(wireBytes)} went over the link`
  const lines = [
    `fetched ${plural(fetched.count, 'item')}, ${formatBytes(fetched.bytes)}; ${here.count} were in the store; ${link}`,
  ]
  if (left.length > 0) {
    const rows = left.map(({ kind, count, bytes }) => [kind, plural(count, 'item'), formatBytes(bytes)])
    lines.push('left for another pull:', formatTable(rows, { indent: '  ', right: [1, 2] }))
  }
  return lines.join('\n')
}

export interface PackedBundle {
  site: string
  number: number
  /** false: nothing changed since it was signed, so the same bundle was written again */
  isNew: boolean
  createdAtMs: number
  expiresAtMs: number
  files: { path: string; bytes: number; sha256: string; isKept: boolean; mendedBytes?: number }[]
  /** false: what was read back may have come from the system's cache */
  isPastCache: boolean
  /** of a repair: parts that are not on this stick */
  absent: string[]
  /** bytes of everything the bundle carries */
  carriedBytes: number
  /** what the site has, by its last report; null: there is none, or everything was to be carried */
  leftOut: LeftOut | null
  paths: number
  /** null where none is carried */
  licenses: LicenseCount | null
  fingerprint: string
  /** words of site.asc */
  siteKey: string
  boxTool: ToolDigests
}

export function renderPacked(bundle: PackedBundle): string {
  const isKept = bundle.files.every((file) => file.isKept)
  const state = bundle.isNew
    ? 'signed'
    : `unchanged since ${formatTime(bundle.createdAtMs)}, ${isKept ? 'and on the stick already' : 'written again'}`
  const rows = bundle.files.map((file) => [
    file.path,
    formatBytes(file.bytes),
    `sha256 ${file.sha256.slice(0, 16)}…`,
    file.mendedBytes === undefined ? '' : `mended: ${formatBytes(file.mendedBytes)} of it written again`,
  ])
  return [
    `bundle ${bundle.number} for ${bundle.site}: ${state}, good until ${formatTime(bundle.expiresAtMs)}`,
    `${plural(bundle.paths, 'path')}${licensesText(bundle)}, ${formatBytes(bundle.carriedBytes)}`,
    ...(bundle.leftOut === null ? [] : [leftOutText(bundle.leftOut)]),
    formatTable(rows, { indent: '  ', right: [1] }),
    `root fingerprint: ${bundle.fingerprint}`,
    `site key, for gapferry-box setup: ${bundle.siteKey}`,
    `gapferry-box: sha256 ${bundle.boxTool.sha256}`,
    `  ${bundle.boxTool.words}`,
    ...(bundle.absent.length === 0 ? [] : [`not on this stick, so not mended: ${bundle.absent.join(', ')}`]),
    readBackNote(bundle),
  ].join('\n')
}

function licensesText({ licenses }: PackedBundle): string {
  return licenses === null ? '' : ` and ${plural(licenses.count, 'license')}`
}

function readBackNote({ isPastCache, files }: PackedBundle): string {
  if (isPastCache) return 'written, read back and compared: the stick can be pulled once it is unmounted'
  const folder = dirname(files[0]?.path ?? '')
  return [
    'written and compared; but this file system lets nobody read past the system’s cache, so the bytes may have come from',
    `memory and not from the stick: unmount it, plug it in again, and run: gapferry verify ${folder}/*.tar`,
  ].join('\n')
}

function leftOutText({ count, bytes, source }: LeftOut): string {
  return `left out: ${plural(count, 'file')}, ${formatBytes(bytes)}, which are there by ${source} (all of them: --full)`
}

function sum(items: { bytes: number | null }[]): number {
  return items.reduce((total, item) => total + (item.bytes ?? 0), 0)
}

function sizeOf(bytes: number | null): string {
  return bytes === null ? '?' : formatBytes(bytes)
}
