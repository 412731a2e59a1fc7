/**
 * What the mirror reports of itself, made from the catalogue, the boxes that asked and the results of parity checks. Below
 * level `full` boxes have pseudonyms, and of them only when they asked and how their checks ended is told.
 */
import { statfsSync } from 'node:fs'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError, redact } from '../manifests/errors.ts'
import { parseTimestamp } from '../manifests/metadata.ts'
import type { ParityResult } from '../manifests/parity.ts'
import {
  MAX_REPORT_BLOBS,
  MAX_REPORT_BOXES,
  MAX_REPORT_RESULTS,
  packBlobs,
  parsePublicKey,
  type Report,
  type ReportBox,
  type ReportInventory,
  type ReportLicense,
  type ReportParity,
  type ReportReadiness,
  type ReportResult,
} from '../manifests/report.ts'
import type { SealedLicenses } from '../manifests/licenses.ts'
import { countReadiness } from '../manifests/readiness.ts'
import type { Tree } from '../manifests/tree.ts'
import type { CatalogState, StateBundle } from '../storage/catalog-state.ts'
import { missingPaths, readLicenses, readTrees } from '../storage/completeness.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import type { BoxContact } from '../storage/contacts.ts'
import { knownContacts } from './boxes.ts'
import type { MirrorConfig } from './config.ts'
import { pseudonym, type Identity } from './identity.ts'
import { knownBoxes, type KnownBox } from './known-boxes.ts'
import { withLicenses } from './license-states.ts'
import { formatIso } from './status.ts'
import type { MirrorStore } from './store.ts'

type Level = Report['level']
type Bundles = Report['bundles']

const REPORTED = /^(?:import|release|rollback(?: --return)?|prune|restore)$/
const MAX_ROWS = 1000
const MAX_TEXT = 300
const MAX_TEXTS = 100

/** The laptop's key, as the bundle that was adopted last has it: base64 of the SubjectPublicKeyInfo.
 *  @throws REPORT_KEY_MISSING where none came yet */
export function readerOf(state: CatalogState): string {
  const { timestamp } = state.trusted
  const key = timestamp === undefined ? undefined : parseTimestamp(timestamp, 'timestamp.json').reportKey
  if (key === undefined) {
    const why = timestamp === undefined ? 'nothing was imported yet' : 'the bundle that was imported last has none'
    throw new GapferryError('REPORT_KEY_MISSING', `a report is sealed with a key that bundles bring: ${why}`, {
      hint: 'import a bundle of a current gapferry first; meanwhile: gapferry-mirror report --level words',
    })
  }
  parsePublicKey(key, 'the laptop’s key')
  return key
}

/** @param parity  results that were brought to the mirror */
export async function makeReport(
  store: MirrorStore,
  args: {
    level: Level
    identity: Identity
    recipient: Sha256
    sequence: number
    nowMs: number
    parity: readonly ParityResult[]
    config: Pick<MirrorConfig, 'origins'>
  },
): Promise<Omit<Report, '_type' | 'format'>> {
  const { level, identity, recipient, sequence, nowMs } = args
  const { bundles, blobs } = describeBundles(store)
  const name = (text: string): string => (level === 'full' ? clean(text) : pseudonym(identity, store.site, text))
  const { bavail, bsize } = statfsSync(store.dir)
  const contacts = knownContacts(store.dir) ?? []
  const known = knownBoxes(store, args.config, nowMs, contacts).slice(0, MAX_REPORT_BOXES)
  const boxes = await withLicenses(store, known, nowMs)
  return {
    site: store.site,
    recipient,
    level,
    sequence,
    createdAt: formatIso(nowMs),
    bundles,
    served: store.catalog.state()!.releases.map(({ group, number, role }) => ({ group, bundle: number, role })),
    blobs: packBlobs(blobs),
    results: resultsOf(store),
    boxes: contacts.slice(0, MAX_REPORT_BOXES).map((box) => describeBox(box, name, level)),
    parity: args.parity.slice(0, MAX_REPORT_BOXES).map((result) => describeParity(result, name, level)),
    freeBytes: bavail * bsize,
    inventories: level === 'full' ? describeInventories(boxes) : [],
    readiness: boxes.flatMap((box) => describeReadiness(box, name)),
    enrolled: level === 'full' ? describeEnrolled(store.catalog.enrolments.all()) : [],
    authority: identity.authority.certificate.raw.toString('base64'),
    delivery: identity.delivery.certificate.raw.toString('base64'),
    licenses: boxes.flatMap((box) => describeLicense(box, name)),
  }
}

/** The bundles that are known, newest first, and the blobs that are here of what they name.
 *  @returns in `blobs` no more than a report may hold */
export function describeBundles(store: Pick<MirrorStore, 'catalog' | 'blobs'>): {
  bundles: Bundles
  blobs: Set<Sha256>
} {
  const held = new Set<Sha256>()
  const bundles: Bundles = []
  for (const row of (store.catalog.state()?.bundles ?? []).toReversed()) {
    const { targets } = row.metadata
    if (targets === undefined) continue
    const documents = documentsOf(store, row)
    const { trees, licenses } = documents ?? { trees: new Map<string, Tree>() }
    const missing = missingPaths(trees.values(), (sha256) => store.blobs.has(sha256), licenses)
    bundles.push({
      number: row.number,
      state: sha256Of(targets),
      isComplete: documents !== undefined && missing.length === 0 && !row.isRevoked,
    })
    const hold = (sha256: Sha256, bytes: number): void => {
      if (held.size < MAX_REPORT_BLOBS && !held.has(sha256) && store.blobs.sizeOf(sha256) === bytes) held.add(sha256)
    }
    for (const [sha256, bytes] of licenses?.blobs ?? []) hold(sha256, bytes)
    for (const tree of trees.values()) for (const { sha256, bytes } of tree.entries.values()) hold(sha256, bytes)
  }
  return { bundles, blobs: held }
}

/** undefined where one is damaged: of that bundle nothing is claimed */
function documentsOf(
  store: Pick<MirrorStore, 'catalog' | 'blobs'>,
  { number }: StateBundle,
): { trees: Map<string, Tree>; licenses?: SealedLicenses } | undefined {
  try {
    const named = store.catalog.trees(number)
    const licenses = readLicenses(store.blobs, named)
    return { trees: readTrees(store.blobs, named), ...(licenses === undefined ? {} : { licenses }) }
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}

/** Who did it, and from which files, stays here. */
function resultsOf({ catalog }: MirrorStore): ReportResult[] {
  const rows = catalog.audit.rows(MAX_ROWS).filter(({ what }) => what !== null && REPORTED.test(what.command))
  return rows.slice(-MAX_REPORT_RESULTS).map(({ at, what, result }) => ({
    at,
    command: what!.command,
    result,
    ...(what!.bundle === undefined ? {} : { bundle: what!.bundle }),
    ...(what!.groups === undefined ? {} : { groups: what!.groups.map(clean) }),
  }))
}

function describeBox(box: BoxContact, name: (text: string) => string, level: Level): ReportBox {
  const known = { box: name(box.installid), group: clean(box.group), lastAskedAt: formatIso(box.lastMs) }
  if (level === 'minimal') return known
  const { address, framework, phpver, brand, deployment, modules } = box
  return {
    ...known,
    names: {
      address: clean(address),
      framework: maybeClean(framework),
      phpver: maybeClean(phpver),
      brand: maybeClean(brand),
      deployment,
      modules: Object.fromEntries([...modules].map(([rawname, version]) => [clean(rawname), clean(version)])),
    },
  }
}

function describeEnrolled(boxes: readonly EnrolledBox[]): Report['enrolled'] {
  return boxes.slice(0, MAX_REPORT_BOXES).map(({ name, certificate, revokedAtMs }) => ({
    box: name,
    certificate: certificate.toString('base64'),
    revoked: revokedAtMs !== null,
  }))
}

/** The newest first: they have the better chance of room in the report. */
function describeInventories(boxes: readonly KnownBox[]): ReportInventory[] {
  const held = boxes.flatMap((box) => box.held ?? [])
  return held.sort((a, b) => b.receivedMs - a.receivedMs).map(({ box, sha256, bytes }) => ({ box, sha256, bytes }))
}

function describeReadiness({ held, judged }: KnownBox, name: (text: string) => string): ReportReadiness[] {
  if (held === null || judged === null) return []
  return [{ box: name(held.box), takenAt: held.createdAt, ...countReadiness(judged.readiness) }]
}

function describeLicense({ held, license }: KnownBox, name: (text: string) => string): ReportLicense[] {
  if (held === null || license === null) return []
  return [{ box: name(held.box), state: license.state, expires: license.expires }]
}

function describeParity(result: ParityResult, name: (text: string) => string, level: Level): ReportParity {
  const { box, checkedAt, holds, differences, inventory } = result
  return {
    box: name(box),
    checkedAt,
    holds,
    differences: differences.length,
    ...(level === 'full' ? { inventory, texts: differences.slice(0, MAX_TEXTS).map(clean) } : {}),
  }
}

function maybeClean(text: string | null): string | null {
  return text === null ? null : clean(text)
}

function clean(text: string): string {
  return redact(text).toWellFormed().slice(0, MAX_TEXT).toWellFormed()
}
