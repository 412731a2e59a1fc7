/**
 * Makes room: forgets old bundles and removes the blobs that nothing names any more. Invariants:
 *   - a bundle stays whole, with its trees for going back, while it is among the newest, is served, or was replaced so
 *     short a time ago that a box may still be reading it; the bundle that was adopted last always stays;
 *   - a blob that a staying bundle names is never removed; where one of its trees cannot be read, nothing is removed;
 *   - rows go first, in one transaction, then files: a crash in between leaves blobs that no row names, and the next prune
 *     takes them. Such blobs go before the rows, because on a full disk rows cannot be written. The highest stamps and the
 *     trusted metadata stay for ever.
 * The caller holds the store's lock, so nobody stages blobs meanwhile. A mirror that serves reads only what stays.
 */
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import type { BlobStore } from './blobs.ts'
import type { Catalog } from './catalog.ts'
import { readLicenses, readTrees } from './completeness.ts'

export interface PrunePlan {
  /** highest number first */
  kept: number[]
  forgotten: number[]
  /** that no kept bundle names; of forgotten bundles, or left by a crash */
  blobs: Sha256[]
  /** those of them that no bundle names, as far as their trees can be read */
  unnamed: Set<Sha256>
  bytes: number
}

interface PruneStore {
  dir: string
  catalog: Catalog
  blobs: BlobStore
}

/** A serving mirror counts by its own clock and pairs answers for a minute: replaced trees stay this much longer. */
const MARGIN_MS = 3_600_000
/** Removing is synchronous: signals get through after this many files. */
const FILES_AT_ONCE = 64
const BLOB_NAME = /^[0-9a-f]{64}$/

/** Looks only.
 *  @param args.keep           how many of the newest bundles stay, 1 or more
 *  @param args.keepPreviousMs  how long files of a replaced tree stay fetchable
 *  @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH when a tree of a bundle that stays is not sound */
export function planPrune(store: PruneStore, args: { keep: number; keepPreviousMs: number; nowMs: number }): PrunePlan {
  const numbers = store.catalog.bundles().map(({ number }) => number)
  const stay = stayingBundles(store.catalog, args)
  const kept = numbers.filter((number) => stay.has(number))
  const named = namedBlobs(store, kept)
  const forgotten = numbers.filter((number) => !stay.has(number))
  const before = namedIfReadable(store, forgotten)
  const plan: PrunePlan = { kept, forgotten, blobs: [], unnamed: new Set(), bytes: 0 }
  for (const { sha256, file } of blobFiles(store.dir)) {
    if (named.has(sha256)) continue
    plan.blobs.push(sha256)
    if (before?.has(sha256) === false) plan.unnamed.add(sha256)
    plan.bytes += statSync(file).size
  }
  return plan
}

/** Does what was planned; the lock was held in between.
 *  @param args.forget  forgets the bundles, in one transaction with what else belongs to that; default: only that
 *  @throws the signal's reason: what is left then is taken by the next prune */
export async function carryOutPrune(
  store: PruneStore,
  plan: PrunePlan,
  args: { forget?: () => void; signal?: AbortSignal } = {},
): Promise<void> {
  const { forget = () => store.catalog.forget(plan.forgotten), signal } = args
  signal?.throwIfAborted()
  await removeBlobs(store, [...plan.unnamed], signal)
  forget()
  await removeBlobs(
    store,
    plan.blobs.filter((sha256) => !plan.unnamed.has(sha256)),
    signal,
  )
}

async function removeBlobs({ blobs }: PruneStore, names: Sha256[], signal?: AbortSignal): Promise<void> {
  for (const [i, sha256] of names.entries()) {
    if (i % FILES_AT_ONCE === 0) await setImmediate()
    signal?.throwIfAborted()
    rmSync(blobs.pathOf(sha256), { force: true })
  }
}

/** Newest by the time of import: after keys were changed, numbers may start lower again. */
function stayingBundles(
  catalog: Catalog,
  { keep, keepPreviousMs, nowMs }: { keep: number; keepPreviousMs: number; nowMs: number },
): Set<number> {
  const newest = catalog.newestBundle()?.number
  const byAge = catalog.bundles().sort((a, b) => b.importedAtMs - a.importedAtMs || b.number - a.number)
  const inUse = catalog.releases(nowMs - keepPreviousMs - MARGIN_MS).map(({ number }) => number)
  const others = byAge.map(({ number }) => number).filter((number) => number !== newest)
  return new Set([...(newest === undefined ? [] : [newest]), ...others.slice(0, keep - 1), ...inUse])
}

function namedBlobs({ catalog, blobs }: PruneStore, numbers: number[]): Set<Sha256> {
  const named = new Set<Sha256>()
  for (const number of numbers) {
    const documents = catalog.trees(number)
    for (const { sha256 } of documents.values()) named.add(sha256)
    for (const sha256 of explained(number, () => readLicenses(blobs, documents))?.blobs.keys() ?? []) named.add(sha256)
    for (const [target, document] of documents) {
      for (const tree of explained(number, () => readTrees(blobs, new Map([[target, document]]))).values()) {
        for (const { sha256 } of tree.entries.values()) named.add(sha256)
      }
    }
  }
  return named
}

/** undefined where a tree is damaged: then nobody can tell what a bundle names. */
function namedIfReadable(store: PruneStore, numbers: number[]): Set<Sha256> | undefined {
  try {
    return namedBlobs(store, numbers)
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return undefined
  }
}

function explained<T>(number: number, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!isGapferryError(cause)) throw cause
    throw new GapferryError(
      cause.code,
      `a document of bundle ${number}, which stays, cannot be read, so nothing is removed: ${cause.message}`,
      { hint: 'gapferry-mirror verify', cause },
    )
  }
}

/** Only what is named and placed like a blob; anything else in the folder is somebody's.
 *  @param dir  the store's folder */
export function* blobFiles(dir: string): Generator<{ sha256: Sha256; file: string }> {
  const blobs = join(dir, 'blobs')
  for (const folder of readdirSync(blobs)) {
    if (!/^[0-9a-f]{2}$/.test(folder)) continue
    for (const entry of readdirSync(join(blobs, folder), { withFileTypes: true })) {
      if (!entry.isFile() || !BLOB_NAME.test(entry.name) || !entry.name.startsWith(folder)) continue
      yield { sha256: entry.name as Sha256, file: join(blobs, folder, entry.name) }
    }
  }
}
