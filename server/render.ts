/**
 * What a person reads. Text in, text out; `--json` prints the same objects raw.
 */
import { basename } from 'node:path'
import { redact } from '../manifests/errors.ts'
import { formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import type { ReleaseResult, RollbackResult, ServedGroup } from '../storage/releases.ts'
import type { SeenFolder } from './find-parts.ts'
import type { ImportResult } from './import.ts'
import { loweredPackages, type LoweredPackage } from './lowered.ts'
import type { BundleStatus, SiteStatus } from './status.ts'

/** Lists on a terminal end here; `--json` has all of it. */
const MAX_ROWS = 20

/** A group's current tree, compared with what the group is served now. */
export interface GroupChange {
  group: string
  paths: number
  bytes: number
  /** false before the group's first release */
  isServed: boolean
  /** immutable paths that are not served yet, and those that are served now and would not be any more */
  added: number
  removed: number
  /** packages that would go back to an older version */
  lowered: LoweredPackage[]
}

/** What releasing an imported bundle would change. */
export function changesOf(result: ImportResult, served: Map<string, ServedGroup>): GroupChange[] {
  const current = [...result.trees.values()].filter((tree) => tree.role === 'current')
  return current.map(({ group, entries }) => {
    const released = served.get(group)?.released ?? null
    const now: typeof entries = released?.tree.entries ?? new Map()
    const lowered = loweredPackages(now, entries)
    const count = (of: typeof entries, other: typeof entries): number =>
      [...of].filter(([path, { kind }]) => kind === 'immutable' && !other.has(path)).length
    const bytes = [...entries.values()].reduce((total, entry) => total + entry.bytes, 0)
    const [added, removed] = [count(entries, now), count(now, entries)]
    return { group, paths: entries.size, bytes, isServed: released !== null, added, removed, lowered }
  })
}

/** @param isReleasing  a line about the release follows */
export function renderImport(result: ImportResult, changes: GroupChange[], isReleasing: boolean): string {
  const { site, number, createdAtMs, expiresAtMs, bundler, isDryRun, parts, missing } = result
  const isHere = !result.isNew && parts.every((part) => part.newBlobs === 0)
  const age = result.isExpired ? 'genuine, but past its end and accepted all the same' : 'genuine'
  const times = `made ${formatTime(createdAtMs)} by ${bundler}, good until ${formatTime(expiresAtMs)}`
  const lines = [`bundle ${number} of site ${site}: ${age}, ${times}`]
  const rows = parts.map((part) => [basename(part.file), ...countsOf(part, isDryRun)])
  lines.push(formatTable([...rows, ...changes.map(changeRow), ...licenseRows(result)], { indent: '  ', right: [1, 2] }))
  if (result.damaged.length > 0 && (missing.length > 0 || isDryRun)) {
    lines.push('damaged, and not taken:', ...renderDamaged(result.damaged).map((line) => `  ${line}`))
  }
  if (missing.length > 0) lines.push(renderMissing(missing))
  else if (isDryRun) lines.push('complete; nothing was kept (--dry-run)')
  else if (isHere) lines.push(`complete; bundle ${number} was already here`)
  else lines.push(isReleasing ? 'complete' : 'complete; nothing served has changed yet')
  return lines.join('\n')
}

export function renderIgnored(ignored: ImportResult['ignored']): string[] {
  const shown = ignored.slice(0, MAX_ROWS).map(({ file, reason }) => redact(`ignored: ${basename(file)} ${reason}`))
  if (ignored.length > MAX_ROWS) shown.push(`ignored: ${ignored.length - MAX_ROWS} more`)
  return shown
}

/** One line for each damage. */
export function renderDamaged(damaged: ImportResult['damaged']): string[] {
  const shown = damaged
    .slice(0, MAX_ROWS)
    .map(({ error, path }) => redact(`${error.message}${path === null ? '' : ` (${path})`}`))
  if (damaged.length > MAX_ROWS) shown.push(`${damaged.length - MAX_ROWS} more damages`)
  return shown
}

/** What a folder holds of a bundle. */
export function renderSeen({ dir, number, parts, absent }: SeenFolder): string {
  const rest = absent.length > 0 ? `; not here: ${listed(absent)}` : ''
  return redact(`${dir}: bundle ${number}, ${listed(parts)}${rest}`)
}

function listed(names: string[]): string {
  const more = names.length - MAX_ROWS
  return more > 0 ? `${names.slice(0, MAX_ROWS).join(', ')} and ${more} more` : names.join(', ')
}

export function renderRelease({ number, released, already, untouched }: ReleaseResult): string {
  const lines = []
  if (released.length > 0) lines.push(`bundle ${number} is released for ${released.join(', ')}`)
  if (already.length > 0) lines.push(`bundle ${number} was released already for ${already.join(', ')}`)
  if (untouched.length > 0) lines.push(`not in bundle ${number}, served as before: ${untouched.join(', ')}`)
  return lines.join('\n')
}

export function renderRollback({ role, groups }: RollbackResult): string {
  return groups
    .map(({ group, number, isAlready, content }) => {
      const before = `the content before bundle ${number}${content === null ? '' : `: that of bundle ${content}`}`
      const what = role === 'previous' ? before : `the content of bundle ${number} again`
      return `${group} is ${isAlready ? 'already ' : ''}served ${what}`
    })
    .join('\n')
}

/** @param width  of the terminal, where there is one */
export function renderStatus(status: SiteStatus, nowMs: number, width?: number): string {
  const alarms = status.alarms.map(({ name, text }) => redact(`ALARM ${name}: ${text}`))
  const { site, fingerprint, bundle, ageSeconds, expiresAt, imported, origins, withoutOrigin, boxes, store } = status
  const rows = [
    ['site', site],
    ['fingerprint', fingerprint],
  ]
  if (bundle === null) rows.push(['bundle', 'none is released yet'])
  else {
    const isOver = expiresAt !== null && Date.parse(expiresAt) <= nowMs
    const until = isOver ? `has been out of date since ${day(expiresAt)}` : `good until ${day(expiresAt ?? '')}`
    rows.push(['bundle', `${bundle}, made ${formatAge(ageSeconds ?? 0)} ago, ${until}`])
  }
  if (imported !== null && imported !== bundle) rows.push(['imported', `${imported}, not released yet`])
  const { path, freeBytes, bundles } = store
  rows.push(['store', `${path}, ${plural(bundles, 'bundle')}, ${formatBytes(freeBytes)} free`])
  rows.push(...boxRows(boxes, nowMs), ...enrolmentRows(status))
  const lines = [...alarms, ...(alarms.length > 0 ? [''] : []), formatTable(rows, { width })]
  if (origins.length > 0) lines.push('', formatTable(origins.map(originRow)))
  lines.push(...siteKeyLines(origins))
  for (const group of withoutOrigin)
    lines.push('', `warning: group ${group} has no origin in mirror.yaml, so no box can reach it`)
  return lines.join('\n')
}

export function renderBundles(bundles: BundleStatus[]): string {
  if (bundles.length === 0) return 'no bundle has been imported yet'
  const rows = bundles.map((bundle) => [
    String(bundle.number),
    `made ${day(bundle.createdAt)}`,
    `good until ${day(bundle.expiresAt)}`,
    `imported ${day(bundle.importedAt)}`,
    bundle.isRevoked
      ? 'its keys were taken away: cannot be released'
      : bundle.isComplete
        ? 'complete'
        : `incomplete: ${plural(bundle.missingPaths, 'path')}, ${formatBytes(bundle.missingBytes)}`,
    bundle.expiredReason === null ? '' : 'accepted past its end',
    bundle.released.length === 0 ? '' : `released for ${bundle.released.join(', ')}`,
  ])
  return formatTable(rows, { right: [0] })
}

function countsOf(part: ImportResult['parts'][number], isDryRun: boolean): string[] {
  const all = [plural(part.blobs, 'blob'), formatBytes(part.bytes)]
  if (part.newBlobs === 0) return [...all, 'all here already']
  return [...all, `${part.newBlobs} new, ${formatBytes(part.newBytes)}${isDryRun ? ', not kept' : ''}`]
}

function changeRow({ group, paths, bytes, added, removed, isServed }: GroupChange): string[] {
  const change = !isServed
    ? 'nothing is served yet'
    : added + removed === 0
      ? 'the files that are served now'
      : `${added} new, ${removed} gone against what is served`
  return [group, plural(paths, 'path'), formatBytes(bytes), change]
}

function licenseRows({ licenses }: ImportResult): string[][] {
  if (licenses === null) return []
  return [['licenses', plural(licenses.count, 'license'), formatBytes(licenses.bytes), 'sealed, on no origin']]
}

function renderMissing(missing: ImportResult['missing']): string {
  const rows = missing
    .slice(0, MAX_ROWS)
    .map(({ group, path, bytes, part }) => [
      `${group}/${path}`,
      formatBytes(bytes),
      part === null ? 'in no part of this bundle' : `in ${part}`,
    ])
  const lines = [`missing: ${plural(missing.length, 'path')}`, formatTable(rows, { indent: '  ', right: [1] })]
  if (missing.length > MAX_ROWS) lines.push(`  … and ${missing.length - MAX_ROWS} more (all of them with --json)`)
  return lines.join('\n')
}

/** Behind an origin's address. */
export const AND_NAMES = ', and the vendor’s names'

function originRow(origin: SiteStatus['origins'][number]): string[] {
  const { group, yum, bundle, role, rollback } = origin
  const url = `${origin.url}${origin.vendorNames ? AND_NAMES : ''}`
  const way = rollback.isPossible ? `rollback ${goal(rollback.content)}is possible` : `no rollback: ${rollback.reason}`
  const what = {
    current: `bundle ${bundle}`,
    previous: `rolled back from bundle ${bundle}`,
    return: `bundle ${bundle} again`,
  }
  if (role === null) return [group, url, 'nothing released yet', '']
  return [group, url, what[role], yum.length === 0 ? '' : `yum: ${yum.join(', ')}`, role === 'previous' ? '' : way]
}

/** They are one, but for a rotated key that not every group has released. */
function siteKeyLines(origins: SiteStatus['origins']): string[] {
  const groups = Map.groupBy(origins, ({ siteKey }) => siteKey)
  return [...groups].flatMap(([words, of]) => {
    if (words === null) return []
    const named = groups.size === 1 ? '' : ` of ${of.map(({ group }) => group).join(', ')}`
    return ['', `site key${named}, for gapferry-box setup:`, `  ${words}`]
  })
}

function goal(content: number | null): string {
  return content === null ? '' : `to bundle ${content} `
}

function boxRows(boxes: SiteStatus['boxes'], nowMs: number): string[][] {
  if (boxes === null) return [['boxes', 'which of them asked cannot be read: gapferry-mirror boxes list']]
  const { asked, lastAskedAt, odd } = boxes
  if (lastAskedAt === null) return []
  const age = formatAge(Math.max(0, Math.floor((nowMs - Date.parse(lastAskedAt)) / 1000)))
  const wrong = odd === 0 ? '' : `; ${odd} set up wrongly: gapferry-mirror boxes list`
  return [['boxes', `${asked} asked for modules, the last ${age} ago${wrong}`]]
}

function enrolmentRows({ enrolment, hasLicenses }: SiteStatus): string[][] {
  if (enrolment === null) {
    const why = 'came with the bundle; no box can fetch them: mirror.yaml has no listener for boxes'
    return hasLicenses ? [['licenses', why]] : []
  }
  const { url, boxes, codes } = enrolment
  const waiting = codes === 0 ? '' : `, ${plural(codes, 'code')} not used yet`
  const what = boxes === 1 ? '1 box is enrolled' : `${boxes} boxes are enrolled`
  return [['licenses', `${url}, ${what}${waiting}`]]
}

function formatAge(seconds: number): string {
  const [hours, days] = [Math.floor(seconds / 3600), Math.floor(seconds / 86_400)]
  if (days > 1) return `${days} days`
  if (hours > 1) return `${hours} hours`
  return plural(Math.floor(seconds / 60), 'minute')
}

function day(iso: string): string {
  return iso.slice(0, 10)
}
