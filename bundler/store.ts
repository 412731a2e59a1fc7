/**
 * The laptop's store: what lies in it and what needs it. Needed are the blobs that the kept plan names (among them the
 * upstreams' lists, so that an unchanged one is not fetched again), those of small files that are asked for by ETag or date
 * (pages.ts) and those of the newest bundles of each site and of the one that is served there. Everything else can be fetched or made again; rows that remember
 * it stay and do no harm, because a blob is looked for before a row is believed. The caller holds the store's lock.
 */
import { lstatSync, rmSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { parseSealedLicenses } from '../manifests/licenses.ts'
import { isTreeTarget, LICENSES_TARGET, MAX_TREE_BYTES, parseTree } from '../manifests/tree.ts'
import { blobFault, CHECK_BUFFER_BYTES, type BlobFault } from '../storage/blob-check.ts'
import type { SignedBundle } from '../storage/ledger.ts'
import { blobFiles } from '../storage/prune.ts'
import { partDownloads, type Laptop } from './carry.ts'
import { moduleBlob } from './modules/fetch-modules.ts'
import { downloadsOf, filesOf as plannedFiles, type Download } from './downloads.ts'
import type { Plan } from './plan.ts'
import { readPlan } from './plan-file.ts'
import type { RemoteFile } from './remote-file.ts'
import { bundlesBefore } from './report-base.ts'
import { isDocument } from './signed-tree.ts'
import { partialKey } from './transfer.ts'
import { remoteFile } from './upstream-files.ts'

export interface Amount {
  count: number
  bytes: number
}

export interface StoreStatus {
  path: string
  blobs: Amount
  /** the last plan, and what of it is still to be fetched; null where there is none */
  plan: { createdAtMs: number; sites: string[]; here: Amount; toFetch: Amount } | null
  /** newest first within a site; `blobs`: what of it is here */
  bundles: { site: string; number: number; createdAtMs: number; blobs: Amount }[]
  /** what neither the plan nor any bundle names */
  unneeded: Amount
  /** files that came in part and that the plan wants: the next pull goes on with them */
  partial: Amount
}

/** A blob that is not what its name says, or not here. */
export interface LaptopRot {
  sha256: Sha256
  fault: BlobFault
  /** `plan`, or a site and the number of its bundle: `hq 7`; empty where nothing needs it */
  neededBy: string[]
}

export interface StoreVerdict {
  /** checked */
  blobs: Amount
  rotten: LaptopRot[]
  /** rotten files that were removed */
  removed: number
}

export interface StorePrunePlan {
  /** bundles whose blobs stay: `hq 7` */
  kept: string[]
  needed: Amount
  unneeded: Amount
  blobs: Sha256[]
  /** of files that came in part and that the plan does not want */
  partials: Sha256[]
}

interface Needed {
  bytes: number | undefined
  by: string[]
  /** its loss is a fault: nobody would fetch or make it again unasked */
  isRequired: boolean
}

/** @throws what reading the ledger throws; a tree that is damaged names nothing here: `checkLaptopStore` tells */
export function laptopStoreStatus(laptop: Laptop): StoreStatus {
  const { fleet, store, ledger } = laptop
  const plan = readPlan(fleet)
  const bundles = ledger.bundles()
  const named = new Set([...ledger.pageBlobs(), ...(plan === undefined ? [] : plannedBlobs(laptop, plan))])
  const rows = bundles.map((bundle) => {
    const blobs = [...(bundleBlobsIfSound(laptop, bundle)?.keys() ?? bundle.trees.values())]
    for (const sha256 of blobs) named.add(sha256)
    const { site, number, createdAtMs } = bundle
    return { site, number, createdAtMs, blobs: amountOf(blobs.flatMap((sha256) => store.sizeOf(sha256) ?? [])) }
  })
  const files = filesOf(laptop)
  const partials = store.partials.kept()
  const unwanted = unwantedPartials(laptop)
  for (const [key] of unwanted) partials.delete(key)
  return {
    path: fleet.storeDir,
    blobs: amountOf([...files.values()]),
    plan: plan === undefined ? null : planStatus(laptop, plan),
    bundles: rows,
    unneeded: amountOf([
      ...[...files].flatMap(([sha256, bytes]) => (named.has(sha256) ? [] : [bytes])),
      ...unwanted.map(([, bytes]) => bytes),
    ]),
    partial: amountOf([...partials.values()]),
  }
}

/** Reads every blob, and looks for those of the newest bundles' documents.
 *  @param options.isMending  removes what is rotten, so that the next pull fetches it again
 *  @throws the signal's reason */
export async function checkLaptopStore(
  laptop: Laptop,
  options: { isMending: boolean; onBytes?: (bytes: number, totalBytes: number) => void },
): Promise<StoreVerdict> {
  const { store, signal } = laptop
  const needed = neededBlobs(laptop, 1)
  const files = filesOf(laptop)
  const buffer = Buffer.allocUnsafeSlow(CHECK_BUFFER_BYTES)
  const total = amountOf([...files.values()])
  const onBytes = (bytes: number): void => options.onBytes?.(bytes, total.bytes)
  const verdict: StoreVerdict = { blobs: total, rotten: [], removed: 0 }
  // Those that are needed too: a link or a folder under a blob's name is no file, and no blob either.
  for (const sha256 of new Set([...files.keys(), ...needed.keys()])) {
    const { bytes = files.get(sha256) ?? 0, by = [], isRequired = false } = needed.get(sha256) ?? {}
    const fault = await blobFault(store, { sha256, bytes }, { buffer, onBytes, signal })
    if (fault === undefined || (fault === 'missing' && !isRequired)) continue
    verdict.rotten.push({ sha256, fault, neededBy: by })
    if (!options.isMending || fault === 'missing') continue
    rmSync(store.pathOf(sha256), { recursive: true, force: true })
    verdict.removed += 1
  }
  return verdict
}

/** Looks only.
 *  @param keep  how many of the newest bundles of each site keep their blobs, 1 or more
 *  @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH where a tree of such a bundle is not sound: then nobody
 *          can tell what it needs */
export function planStorePrune(laptop: Laptop, keep: number): StorePrunePlan {
  const needed = new Set([...laptop.ledger.pageBlobs(), ...readPlanBlobs(laptop)])
  const kept = keptBundles(laptop, keep)
  for (const bundle of kept) for (const sha256 of soundBundleBlobs(laptop, bundle).keys()) needed.add(sha256)
  const files = [...filesOf(laptop)]
  const unneeded = files.filter(([sha256]) => !needed.has(sha256))
  const partials = unwantedPartials(laptop)
  return {
    kept: kept.map(nameOf),
    needed: amountOf(files.flatMap(([sha256, bytes]) => (needed.has(sha256) ? [bytes] : []))),
    unneeded: amountOf([...unneeded, ...partials].map(([, bytes]) => bytes)),
    blobs: unneeded.map(([sha256]) => sha256),
    partials: partials.map(([key]) => key),
  }
}

/** Does what was planned; the lock was held in between.
 *  @throws the signal's reason: what is left then is taken by the next one */
export async function pruneLaptopStore({ store, signal }: Laptop, { blobs, partials }: StorePrunePlan): Promise<void> {
  for (const key of partials) store.partials.remove(key)
  for (const [i, sha256] of blobs.entries()) {
    if (i % FILES_AT_ONCE === 0) await setImmediate() // removing is synchronous: let signals through
    signal.throwIfAborted()
    rmSync(store.pathOf(sha256), { recursive: true, force: true })
  }
}

const FILES_AT_ONCE = 64

function unwantedPartials({ fleet, store }: Laptop): [Sha256, number][] {
  const plan = readPlan(fleet)
  const wanted = new Set(plan === undefined ? [] : downloadsOf(plan).map((one) => partialKey(remoteOf(one))))
  return [...store.partials.kept()].filter(([key]) => !wanted.has(key))
}

function remoteOf(one: Download): RemoteFile {
  return one.kind === 'file' ? remoteFile(one.file) : one.remote
}

/** Every blob that the plan or the kept bundles of each site name; a damaged tree names itself only. */
function neededBlobs(laptop: Laptop, keep: number): Map<Sha256, Needed> {
  const needed = new Map<Sha256, Needed>()
  const add = (sha256: Sha256, bytes: number | undefined, by: string, isRequired: boolean): void => {
    const before = needed.get(sha256)
    needed.set(sha256, {
      bytes: before?.bytes ?? bytes,
      by: [...new Set([...(before?.by ?? []), by])],
      isRequired: isRequired || (before?.isRequired ?? false),
    })
  }
  for (const sha256 of readPlanBlobs(laptop)) add(sha256, undefined, 'plan', false)
  for (const bundle of keptBundles(laptop, keep)) {
    for (const sha256 of bundle.trees.values()) add(sha256, undefined, nameOf(bundle), true)
    const blobs = bundleBlobsIfSound(laptop, bundle) ?? new Map<Sha256, BundleBlob>()
    for (const [sha256, { bytes, isDocument }] of blobs) add(sha256, bytes, nameOf(bundle), isDocument)
  }
  return needed
}

interface BundleBlob {
  bytes: number | undefined
  /** made and signed here: no upstream has it */
  isDocument: boolean
}

function bundleBlobsIfSound(laptop: Laptop, bundle: SignedBundle): Map<Sha256, BundleBlob> | undefined {
  try {
    return soundBundleBlobs(laptop, bundle)
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return undefined
  }
}

function soundBundleBlobs({ store }: Laptop, bundle: SignedBundle): Map<Sha256, BundleBlob> {
  const blobs = new Map<Sha256, BundleBlob>()
  for (const [target, tree] of bundle.trees) {
    blobs.set(tree, { bytes: undefined, isDocument: true })
    if (target === 'site') continue
    const bytes = explained(bundle, () => store.read(tree, MAX_TREE_BYTES))
    if (target === LICENSES_TARGET)
      for (const [sha256, size] of parseSealedLicenses(bytes).blobs)
        blobs.set(sha256, { bytes: size, isDocument: true })
    if (!isTreeTarget(target)) continue
    for (const entry of parseTree(bytes, target).entries.values()) {
      blobs.set(entry.sha256, {
        bytes: entry.bytes,
        isDocument: isDocument(entry) || blobs.get(entry.sha256)?.isDocument === true,
      })
    }
  }
  return blobs
}

function explained<T>(bundle: SignedBundle, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!isGapferryError(cause)) throw cause
    const message = `a tree of bundle ${bundle.number} of ${bundle.site} cannot be read, so nothing is removed: ${cause.message}`
    throw new GapferryError(cause.code, message, { hint: 'gapferry store verify', cause })
  }
}

function readPlanBlobs(laptop: Laptop): Sha256[] {
  const plan = readPlan(laptop.fleet)
  return plan === undefined ? [] : plannedBlobs(laptop, plan)
}

/** The upstreams' lists, and what was fetched of the items. */
function plannedBlobs({ store, ledger }: Laptop, plan: Plan): Sha256[] {
  const groups = plan.sites.flatMap((site) => site.groups)
  const repositories = groups.flatMap((group) => group.yum)
  const packages = repositories.flatMap(({ packages }) => packages)
  const modules = groups.flatMap(({ modules }) => modules ?? [])
  return [
    ...repositories.flatMap(
      ({ data, earlier = {} }) => [...Object.values(data), ...Object.values(earlier)] as Sha256[],
    ),
    ...packages.flatMap(({ checksum: { algorithm, hex } }) => ledger.fetched(algorithm, hex)?.sha256 ?? []),
    ...modules.flatMap(({ lists, sounds: { list } }) => [
      ...lists.map(({ blob }) => blob),
      ...(list === undefined ? [] : [list]),
    ]),
    ...modules.flatMap(({ modules }) => modules.flatMap((one) => moduleBlob({ store, ledger }, one)?.sha256 ?? [])),
    ...groups.flatMap((group) => plannedFiles(group).flatMap(({ sha256 }) => sha256 ?? [])),
  ]
}

function planStatus(laptop: Laptop, plan: Plan): StoreStatus['plan'] {
  const { here, toFetch } = partDownloads(laptop, plan)
  return {
    createdAtMs: plan.createdAtMs,
    sites: plan.sites.map(({ name }) => name),
    here: amountOf(here.map(({ bytes }) => bytes)),
    toFetch: amountOf(toFetch.map(({ bytes }) => bytes)),
  }
}

/** The newest of each site, and what its next bundle goes back to. */
function keptBundles({ ledger }: Laptop, keep: number): SignedBundle[] {
  const before = new Set(bundlesBefore(ledger).map(nameOf))
  const bySite = Map.groupBy(ledger.bundles(), ({ site }) => site)
  return [...bySite.values()].flatMap((ofSite) => ofSite.filter((one, i) => i < keep || before.has(nameOf(one))))
}

function filesOf({ fleet }: Laptop): Map<Sha256, number> {
  return new Map([...blobFiles(fleet.storeDir)].map(({ sha256, file }) => [sha256, lstatSync(file).size]))
}

function nameOf({ site, number }: SignedBundle): string {
  return `${site} ${number}`
}

function amountOf(sizes: number[]): Amount {
  return { count: sizes.length, bytes: sizes.reduce((total, bytes) => total + bytes, 0) }
}
