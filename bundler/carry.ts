/**
 * The laptop's work, step by step: plan → pull (pull.ts) → pack. Each step is a function of what the step before kept in the store,
 * so that an interrupted run goes on where it was. Nothing here knows of arguments or terminals.
 */
import type { KeyObject } from 'node:crypto'
import { formatTime, plural } from '../manifests/console.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_AHEAD_MS } from '../manifests/metadata.ts'
import { parseSealedLicenses } from '../manifests/licenses.ts'
import { isPointer, isTreeTarget, LICENSES_TARGET, MAX_TREE_BYTES, parseTree } from '../manifests/tree.ts'
import { blobFault, CHECK_BUFFER_BYTES } from '../storage/blob-check.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger, SignedBundle } from '../storage/ledger.ts'
import { composeSite, contentDigest, type GroupContent } from './compose.ts'
import type { Fleet } from './config.ts'
import { groupContent } from './content.ts'
import type { Fetcher } from './fetch.ts'
import type { SiteSigner } from './keys/keys.ts'
import { downloadsOf, filesOf, nameOf, type Download } from './downloads.ts'
import { demand, fetchedBlob, fetchedFile, fetchedPackage, trustedModule, type FetchedBlob } from './fetched.ts'
import { carriedLicenses } from './licenses/carried.ts'
import { boxCertificates } from './licenses/states.ts'
import { moduleTrust } from './modules/module-trust.ts'
import type { PlannedModule } from './modules/planned-modules.ts'
import { makePlan, PLAN_FORMAT, sharedSources } from './plan.ts'
import type { Plan, PlannedPackage, PlanSources } from './plan.ts'
import type { Progress } from '../manifests/progress.ts'
import { keepPlan } from './plan-file.ts'
import { treesBefore } from './report-base.ts'
import { ifSound, MEND } from './rot.ts'
import type { Tell } from './run-log.ts'
import { bringsKeys, signBundle } from './sign.ts'
import { eachSite, type SiteFailure } from './sites.ts'
import { expensesOf, leftText, sumsOf } from './spending.ts'
import { signedTree } from './signed-tree.ts'
import { fetchedSize, type PlannedFile } from './upstream-files.ts'

export interface Laptop {
  fleet: Fleet
  store: BlobStore
  ledger: Ledger
  fetcher: Fetcher
  progress: Progress
  /** keeps what happened in the run's log */
  tell: Tell
  /** says something to the person that is no result */
  warn: (text: string) => void
  nowMs: () => number
  signal: AbortSignal
}

/** Looks at the upstreams and keeps the plan of each site that could be planned. @param sites  their names
 *  @throws as eachSite and makePlan */
export async function planFleet(
  { fleet, signal, fetcher, progress, tell }: Laptop,
  sources: PlanSources,
  sites: readonly string[],
): Promise<{ plan: Plan; failures: SiteFailure[] }> {
  const shared = sharedSources(sources)
  const step = progress.step('plan')
  fetcher.wire.onBytes = (bytes) => step.add(bytes)
  const planned = eachSite(sites, signal, (name) => {
    step.note(name)
    return makePlan(fleet, name, shared)
  })
  const { done, failures } = await planned.finally(() => {
    fetcher.wire.onBytes = undefined
    step.end()
  })
  for (const { site, error } of failures) tell({ event: 'failed', site, code: error.code, message: error.message })
  const plan: Plan = { format: PLAN_FORMAT, createdAtMs: sources.nowMs, sites: done.flatMap(({ sites }) => sites) }
  keepPlan(fleet, plan)
  return { plan, failures }
}

/** The plan's downloads, parted by what the store has already. */
export function partDownloads(laptop: Laptop, plan: Plan): { here: Download[]; toFetch: Download[] } {
  const here: Download[] = []
  const toFetch: Download[] = []
  for (const one of downloadsOf(plan)) (fetchedBlob(laptop, one) === undefined ? toFetch : here).push(one)
  return { here, toFetch }
}

export interface ComposedBundle {
  bundle: SignedBundle
  /** false: nothing changed since `bundle` was signed */
  isNew: boolean
  /** digest → bytes of every document that the metadata names */
  documents: Map<Sha256, Buffer>
  /** every blob that any tree names, with its size */
  wanted: Map<Sha256, number>
  paths: number
}

/** Composes and signs a site's bundle from the kept plan and the store; no network. The bundle that is the site's newest is
 *  returned again where nothing changed, because a bundle is signed once.
 *  @param unlock    asks for the keys, and only when something has to be signed; `unlockLicenses` when a license has to be sealed
 *  @param onSigned  called in the transaction that keeps the bundle
 *  @throws PLAN_UNFETCHED, PATH_CHANGED, PATH_CONFLICT, KEY_*, LICENSE_INVALID, CMS_INVALID */
export async function composeBundle(
  laptop: Laptop,
  site: Plan['sites'][number],
  keys: {
    roots: Buffer[]
    siteKeyArmored: string
    unlock: () => Promise<SiteSigner>
    unlockLicenses: () => Promise<KeyObject>
  },
  options: { renew: boolean; bundler: string; onSigned: (bundle: SignedBundle) => void },
): Promise<ComposedBundle> {
  const { store, ledger } = laptop
  const nowMs = laptop.nowMs()
  refuseUnfetched(laptop, site)
  const groups = await contents(laptop, site, { nowMs, siteKey: keys.siteKeyArmored })
  const boxes = boxCertificates(laptop.fleet, ledger, site.name)
  const licenses = await carriedLicenses(laptop, site.name, boxes, keys.unlockLicenses)
  const content = contentDigest(groups, licenses)
  const last = ledger.lastBundle(site.name)
  const reportKey = ledger.reports.publicKey(site.name)
  if (last?.content === content && !options.renew && bringsKeys(last, keys.roots, reportKey)) {
    if (hasDocuments(store, last)) return describe(store, last, false)
    laptop.warn(
      `bundle ${last.number} of ${site.name}: its trees or signed lists are damaged or gone from the store; a new one is signed`,
    )
  }
  await refuseRotten(laptop, site)
  const number = ledger.nextNumber(site.name)
  const createdAtMs = createdAfter(last, nowMs, laptop.warn)
  const signer = await keys.unlock()
  const context = { site: site.name, number, nowMs, store, signDetached: signer.signDetached.bind(signer), licenses }
  const from = { last, before: treesBefore(ledger, site.name, last) }
  const composed = await composeSite(context, groups, from, (group) => ledger.promises(site.name, group))
  for (const { group, bundle } of composed.withoutWayBack) {
    laptop.warn(
      `${group}: the content of bundle ${bundle} is not in this store: a mirror cannot roll back from bundle ${number}`,
    )
  }
  const targets = new Map(
    [...composed.targets].map(([name, bytes]) => [name, { sha256: sha256Of(bytes), bytes: bytes.length }]),
  )
  const metadata = signBundle({
    site: site.name,
    number,
    roots: keys.roots,
    targets,
    signer,
    nowMs: createdAtMs,
    bundler: options.bundler,
    reportKey,
  })
  const trees = new Map([...targets].map(([name, { sha256 }]) => [name, sha256]))
  const bundle: SignedBundle = { site: site.name, number, createdAtMs, content, metadata, trees }
  ledger.write(() => {
    ledger.rememberBundle(bundle, composed.promises)
    options.onSigned(bundle)
  })
  return describe(store, bundle, true)
}

/** All of a plan or nothing of it: what a part of it needs only its resolver could say, and a box that finds a package without
 *  what that needs would stop. */
function refuseUnfetched(laptop: Laptop, site: Plan['sites'][number]): void {
  const plan: Plan = { format: PLAN_FORMAT, createdAtMs: 0, sites: [site] }
  const { here, toFetch } = partDownloads(laptop, plan)
  const [next, ...others] = expensesOf(plan, toFetch, laptop.store)
  if (next === undefined) return
  const all = here.length + toFetch.length
  const left = leftText(sumsOf([next, ...others], 0))
  const verb = toFetch.length === 1 ? 'is' : 'are'
  const named = `${nameOf(next.one)}${others.length === 0 ? '' : ` and ${others.length} more`}`
  const hasFixes = site.groups.some(({ advisories }) => advisories.some(({ type }) => type === 'security'))
  const security = hasFixes && !site.isSecurityOnly ? '; security updates alone: gapferry bundle --security' : ''
  throw new GapferryError(
    'PLAN_UNFETCHED',
    `site ${site.name}: ${toFetch.length} of ${plural(all, 'planned item')} ${verb} not fetched: ${named} (${left})`,
    { hint: `gapferry pull${security}` },
  )
}

/** What each group's boxes shall find. @throws PLAN_UNFETCHED */
async function contents(
  laptop: Laptop,
  site: Plan['sites'][number],
  about: { nowMs: number; siteKey: string },
): Promise<GroupContent[]> {
  const { store, fleet } = laptop
  const sources = {
    store,
    ...about,
    fetchedPackage: (one: PlannedPackage) => demand(fetchedPackage(laptop, one), one.nevra),
    fetchedFile: (file: PlannedFile) => demand(fetchedFile(laptop, file), file.as),
  }
  const groups: GroupContent[] = []
  for (const group of site.groups) {
    const trust = await moduleTrust(fleet, site.name, group.name)
    const fetchedModule = (one: PlannedModule): FetchedBlob =>
      demand(trustedModule(laptop, { one, trust }), `${one.rawname} ${one.version}`)
    groups.push(await groupContent(group, { ...sources, fetchedModule, keys: trust.keys }))
  }
  return groups
}

/** A mirror takes the creation of its newest bundle for the earliest that it can be now, and would find a later bundle with
 *  an earlier date expired: so dates never go back, even where this laptop's clock did. */
function createdAfter(last: SignedBundle | undefined, nowMs: number, warn: (text: string) => void): number {
  if (last === undefined || last.createdAtMs <= nowMs) return nowMs
  const [before, now] = [formatTime(last.createdAtMs), formatTime(nowMs)]
  // What was dated that far ahead no mirror with a right clock has taken.
  const isTaken = last.createdAtMs <= nowMs + MAX_AHEAD_MS
  const dated = isTaken ? 'the new one is dated like that' : 'mirrors refuse that one; the new one is dated today'
  warn(`bundle ${last.number} was signed at ${before}, this laptop's clock says ${now}: ${dated}; check the clock`)
  return isTaken ? last.createdAtMs : nowMs
}

/** A bundle is signed once, so what it says of a blob must be true before. Digests were checked when the blobs came and are
 *  when the stick is read back; sizes are compared with what was fetched then. Where nobody remembers it, a file is read. */
async function refuseRotten({ store, ledger, signal }: Laptop, { groups }: Plan['sites'][number]): Promise<void> {
  for (const file of groups.flatMap(filesOf)) {
    const blob = fetchedFile({ store, ledger }, file)
    if (blob === undefined || fetchedSize(file, ledger) !== undefined) continue
    const buffer = Buffer.allocUnsafeSlow(CHECK_BUFFER_BYTES)
    if ((await blobFault(store, blob, { buffer, signal })) === undefined) continue
    throw new GapferryError(
      'BLOB_DIGEST_MISMATCH',
      `${file.as}: its file in the store is damaged, so nothing was signed`,
      MEND,
    )
  }
}

/** Whether what was made and signed for a bundle is here and sound; nobody could fetch it again. */
function hasDocuments(store: BlobStore, { trees }: SignedBundle): boolean {
  return [...trees].every(([target, sha256]) =>
    !isTreeTarget(target)
      ? ifSound(() => store.read(sha256, MAX_TREE_BYTES)) !== undefined
      : signedTree(store, sha256, target) !== undefined,
  )
}

function describe(store: BlobStore, bundle: SignedBundle, isNew: boolean): ComposedBundle {
  const documents = new Map<Sha256, Buffer>()
  const wanted = new Map<Sha256, number>()
  let paths = 0
  for (const [target, sha256] of bundle.trees) {
    const bytes = store.read(sha256, MAX_TREE_BYTES)
    documents.set(sha256, bytes)
    if (target === LICENSES_TARGET) for (const [blob, size] of parseSealedLicenses(bytes).blobs) wanted.set(blob, size)
    if (!isTreeTarget(target)) continue
    const tree = parseTree(bytes, target)
    if (tree.role === 'current') paths += tree.entries.size
    for (const entry of tree.entries.values()) {
      // Other blobs of previous and return are wanted, not required (FORMAT.md#parts).
      const isRequired = tree.role === 'current' || isPointer(entry)
      if (isRequired || store.sizeOf(entry.sha256) === entry.bytes) wanted.set(entry.sha256, entry.bytes)
    }
  }
  return { bundle, isNew, documents, wanted, paths }
}
