/**
 * What the store knows, for the command line: plain objects, made from the catalogue and the settings, the fields of
 * `/api/v1/status` among them. Times are RFC 3339.
 */
import { statfsSync } from 'node:fs'
import { isIP } from 'node:net'
import { parseSiteFacts, type SiteFacts } from '../manifests/site.ts'
import { fingerprintWords, siteKeyWords } from '../manifests/words.ts'
import type { BundleRow, Catalog } from '../storage/catalog.ts'
import { missingBytes, missingPaths, readLicenses, readTrees } from '../storage/completeness.ts'
import type { Releases, ServedGroup, ServedTree } from '../storage/releases.ts'
import { isGapferryError, type GapferryError } from '../manifests/errors.ts'
import type { TreePath } from '../manifests/path.ts'
import { LICENSES_TARGET, type Tree, type TreeRole } from '../manifests/tree.ts'
import { boxSummary } from './boxes.ts'
import { listenerUrl, type Listener, type MirrorConfig, type OriginListener } from './config.ts'
import { identityFault } from './identity.ts'
import type { MirrorStore, ReadOnlyStore } from './store.ts'

const MAX_SITE_KEY_BYTES = 65_536

/** What an operator must hear; its name is stable. DATABASE_DAMAGED: the mirror is read-only. GROUP_UNVERIFIED: a group is not
 *  served. ACCEPTED_EXPIRED: what is served was past its end when it was imported. BUNDLE_OLD: none came for long. BOXES_CLOSED: the listener that boxes enrol at and
 *  fetch licenses from is not open, though mirror.yaml has it. */
export interface Alarm {
  name: 'DATABASE_DAMAGED' | 'GROUP_UNVERIFIED' | 'ACCEPTED_EXPIRED' | 'BUNDLE_OLD' | 'BOXES_CLOSED'
  text: string
}

const DAY_MS = 86_400_000

export interface SiteStatus {
  site: string
  /** of the root that was pinned, in words: whoever sets up a lost laptop compares them */
  fingerprint: string
  alarms: Alarm[]
  /** the highest number that any group is served from; null before the first release */
  bundle: number | null
  /** since that bundle was made */
  ageSeconds: number | null
  /** from then on it cannot be imported again; it is served on */
  expiresAt: string | null
  /** the bundle that was imported last, released or not */
  imported: number | null
  origins: OriginStatus[]
  /** groups of the bundle that mirror.yaml gives no origin */
  withoutOrigin: string[]
  /** those that asked for modules; `odd` of them are set up wrongly. null: that cannot be read */
  boxes: { asked: number; lastAskedAt: string | null; odd: number } | null
  /** who may fetch licenses; `codes` were given out and can still be used. null: boxes have no listener of their own */
  enrolment: { url: string; boxes: number; codes: number } | null
  /** the bundle that is served brought licenses */
  hasLicenses: boolean
  store: { path: string; freeBytes: number; bundles: number }
}

export interface OriginStatus {
  group: string
  /** where boxes reach it */
  url: string
  /** words of keys/site.asc as it is served, which a box asks for that is set up; null: none is there */
  siteKey: string | null
  /** it answers under the vendor's names, too */
  vendorNames: boolean
  /** ids of the yum repositories below `yum/` */
  yum: string[]
  /** null: nothing is released for this group yet */
  bundle: number | null
  /** which of that bundle's trees is served */
  role: TreeRole | null
  releasedAt: string | null
  /** whether the content before can be served again, of which bundle that is where it is known, and why not */
  rollback: { isPossible: true; content: number | null } | { isPossible: false; reason: string }
}

export interface BundleStatus {
  number: number
  createdAt: string
  expiresAt: string
  importedAt: string
  bundler: string
  /** groups that are served from it */
  released: string[]
  isComplete: boolean
  /** its keys were taken away: it cannot be released */
  isRevoked: boolean
  /** why it was taken past its end; null where it was not */
  expiredReason: string | null
  missingPaths: number
  missingBytes: number
}

export function siteStatus(args: {
  store: Pick<MirrorStore | ReadOnlyStore, 'dir' | 'site' | 'catalog' | 'releases' | 'blobs'>
  config: MirrorConfig
  nowMs: number
}): SiteStatus {
  const { store, config, nowMs } = args
  const served = store.releases.served(Number.MAX_SAFE_INTEGER)
  const newest = newestReleased(store.catalog, served)
  const configured = new Set(config.origins.map((origin) => origin.group))
  const { bavail, bsize } = statfsSync(store.dir)
  return {
    site: store.site,
    fingerprint: fingerprintWords(store.catalog.trusted().roots[0]!),
    alarms: alarmsOf(store, {
      nowMs,
      warnAfterDays: config.warnAfterDays,
      boxesFault: config.boxes === undefined ? undefined : boxesFaultOf(store, nowMs),
    }),
    bundle: newest?.number ?? null,
    ageSeconds: newest === undefined ? null : Math.max(0, Math.floor((nowMs - newest.createdAtMs) / 1000)),
    expiresAt: newest === undefined ? null : formatIso(newest.expiresAtMs),
    imported: store.catalog.newestBundle()?.number ?? null,
    origins: config.origins.map((origin) => {
      const released = served.get(origin.group)?.released ?? null
      return {
        group: origin.group,
        url: listenerUrl(origin),
        siteKey: released === null ? null : siteKeyOf(store.blobs, released.tree),
        vendorNames: origin.vendorNames === true,
        yum: [...(released?.tree.stamps.keys() ?? [])].sort(),
        bundle: released?.number ?? null,
        role: released?.role ?? null,
        releasedAt: released === null ? null : formatIso(released.releasedAtMs),
        rollback: rollbackOf(store.releases, released),
      }
    }),
    withoutOrigin: [...served.keys()].filter((group) => !configured.has(group)).sort(),
    boxes: boxesOf(store.dir),
    enrolment: config.boxes === undefined ? null : enrolmentOf(store.catalog, config.boxes, nowMs),
    hasLicenses: newest !== undefined && store.catalog.trees(newest.number).has(LICENSES_TARGET),
    store: { path: store.dir, freeBytes: bavail * bsize, bundles: store.catalog.bundles().length },
  }
}

function siteKeyOf(blobs: MirrorStore['blobs'], tree: Tree): string | null {
  const entry = tree.entries.get('keys/site.asc' as TreePath)
  if (entry === undefined) return null
  try {
    return siteKeyWords(blobs.read(entry.sha256, MAX_SITE_KEY_BYTES).toString('latin1'))
  } catch (error) {
    if (isGapferryError(error, 'BLOB_MISSING', 'BLOB_SIZE_MISMATCH', 'BLOB_DIGEST_MISMATCH', 'KEY_INVALID')) return null
    throw error
  }
}

function enrolmentOf(
  { enrolments }: Pick<Catalog, 'enrolments'>,
  listener: Listener,
  nowMs: number,
): SiteStatus['enrolment'] {
  return {
    url: listenerUrl(listener).replace('http:', 'https:'),
    boxes: enrolments.all().filter(({ revokedAtMs }) => revokedAtMs === null).length,
    codes: enrolments.codes().filter(({ endsAtMs }) => endsAtMs > nowMs).length,
  }
}

function boxesOf(storeDir: string): SiteStatus['boxes'] {
  const summary = boxSummary(storeDir)
  if (summary === null) return null
  const { asked, lastMs, odd } = summary
  return { asked, lastAskedAt: lastMs === null ? null : formatIso(lastMs), odd }
}

/** What keeps `serve` from opening the listener of the boxes, as far as the store tells. */
function boxesFaultOf(
  store: Pick<MirrorStore, 'dir' | 'site'> & Partial<ReadOnlyStore>,
  nowMs: number,
): GapferryError | undefined {
  return store.damage ?? identityFault(store, nowMs)
}

/** What is wrong with what is served, or with the store.
 *  @param about.boxesFault  why the listener of the boxes is not open */
export function alarmsOf(
  store: Pick<MirrorStore, 'catalog'> & Partial<ReadOnlyStore>,
  about: { nowMs: number; warnAfterDays: number; boxesFault?: GapferryError | undefined },
): Alarm[] {
  const { nowMs, warnAfterDays, boxesFault } = about
  const alarms: Alarm[] = []
  if (store.damage !== undefined) {
    const text = `serving read-only what was released; nothing can be imported or released: ${store.damage.message}`
    alarms.push({ name: 'DATABASE_DAMAGED', text })
  }
  if (boxesFault !== undefined) {
    const way = boxesFault.hint === undefined ? '' : ` (${boxesFault.hint})`
    alarms.push({ name: 'BOXES_CLOSED', text: `no box can enrol or fetch its license: ${boxesFault.message}${way}` })
  }
  for (const { group, number, error } of store.faults ?? []) {
    alarms.push({ name: 'GROUP_UNVERIFIED', text: `group ${group} is not served: bundle ${number}: ${error.message}` })
  }
  for (const number of new Set(store.catalog.releases(Number.MAX_SAFE_INTEGER).map((release) => release.number))) {
    const bundle = store.catalog.bundle(number)
    if (bundle === undefined || bundle.expiredReason === null) continue
    const text = `bundle ${number} was good until ${formatIso(bundle.expiresAtMs)} and was accepted later: ${bundle.expiredReason}`
    alarms.push({ name: 'ACCEPTED_EXPIRED', text })
  }
  const newest = store.catalog.newestBundle()
  const days = newest === undefined ? 0 : Math.floor((nowMs - newest.createdAtMs) / DAY_MS)
  if (newest !== undefined && warnAfterDays > 0 && days >= warnAfterDays) {
    const text = `the newest bundle, ${newest.number}, is ${days} days old (warnAfterDays: ${warnAfterDays}): bring the next one`
    alarms.push({ name: 'BUNDLE_OLD', text })
  }
  return alarms
}

function rollbackOf(releases: Releases, released: ServedTree | null): OriginStatus['rollback'] {
  if (released === null) return { isPossible: false, reason: 'nothing is released yet' }
  if (released.role === 'previous') return { isPossible: false, reason: 'it is rolled back already' }
  const refusal = releases.rollbackRefusal(released.group)
  return refusal === undefined
    ? { isPossible: true, content: releases.contentBefore(released.group) }
    : { isPossible: false, reason: refusal.message }
}

/** The bundles that were imported, highest number first. */
export function bundleStatuses(store: Pick<MirrorStore, 'catalog' | 'blobs'>): BundleStatus[] {
  const inForce = store.catalog.releases(Number.MAX_SAFE_INTEGER)
  return store.catalog.bundles().map((row) => {
    const named = store.catalog.trees(row.number)
    const trees = readTrees(store.blobs, named)
    const licenses = readLicenses(store.blobs, named)
    const missing = missingPaths(trees.values(), (sha256) => store.blobs.has(sha256), licenses)
    return {
      number: row.number,
      createdAt: formatIso(row.createdAtMs),
      expiresAt: formatIso(row.expiresAtMs),
      importedAt: formatIso(row.importedAtMs),
      bundler: row.bundler,
      released: inForce
        .filter((release) => release.number === row.number)
        .map(({ group }) => group)
        .sort(),
      isComplete: missing.length === 0,
      isRevoked: row.isRevoked,
      expiredReason: row.expiredReason,
      missingPaths: missing.length,
      missingBytes: missingBytes(missing),
    }
  })
}

/** What a bundle says of its site. */
export function readFacts(store: Pick<MirrorStore, 'catalog' | 'blobs'>, number: number): SiteFacts | undefined {
  const named = store.catalog.trees(number).get('site')
  return named === undefined ? undefined : parseSiteFacts(store.blobs.read(named.sha256, named.bytes))
}

/** Where the settings and what the laptop told the boxes do not fit together; one sentence each. */
export function originWarnings(config: MirrorConfig, facts: SiteFacts): string[] {
  return [...facts.groups].flatMap(([group, { origin }]) => {
    const url = new URL(origin)
    const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80))
    const listener = config.origins.find((one) => one.group === group)
    if (listener === undefined) {
      return [
        `group ${group} has no origin; add under origins in ${config.file}: { group: ${group}, listen: 0.0.0.0:${port} }`,
      ]
    }
    const portWarnings = vendorPortWarnings(listener, config.file)
    const names = [...listener.hosts, listener.host]
    const isKnown = names.includes(url.hostname) || names.includes(url.host) || isIP(url.hostname) !== 0
    if (isKnown || (url.hostname === 'localhost' && listener.host.startsWith('127.'))) return portWarnings
    return [
      ...portWarnings,
      `boxes of group ${group} are told ${origin}, but ${url.hostname} is not among its hosts in ${config.file}: ` +
        `requests for that name would be refused; add hosts: [${url.hostname}]`,
    ]
  })
}

/** Nobody can tell a box another port: the vendor's files name none. */
function vendorPortWarnings({ group, port, vendorNames }: OriginListener, file: string): string[] {
  if (vendorNames !== true || port === 80) return []
  return [
    `group ${group} answers under the vendor's names, which boxes ask at port 80, but listens at port ${port}: ` +
      `in ${file} let it listen at port 80, or let the firewall pass port 80 on to ${port}`,
  ]
}

function newestReleased(catalog: Catalog, served: Map<string, ServedGroup>): BundleRow | undefined {
  const numbers = [...served.values()].flatMap(({ released }) => (released === null ? [] : [released.number]))
  return numbers.length === 0 ? undefined : catalog.bundle(Math.max(...numbers))
}

/** RFC 3339, UTC, whole seconds. */
export function formatIso(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}
