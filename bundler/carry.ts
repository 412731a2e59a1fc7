/**
 * The laptop's work, step by step: plan → pull → pack. Each step is a function of what the step before kept in the store,
 * so that an interrupted run goes on where it was. Nothing here knows of arguments or terminals.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { formatBytes, formatTime } from '../manifests/console.ts'
import { checksumText, sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { withCode } from '../manifests/system-error.ts'
import { MAX_AHEAD_MS } from '../manifests/metadata.ts'
import { checkRpm, MAX_RPM_HEADER_BYTES } from '../manifests/rpm-package.ts'
import { isPointer, MAX_TREE_BYTES, parseTree } from '../manifests/tree.ts'
import { blobFault, CHECK_BUFFER_BYTES } from '../storage/blob-check.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger, SignedBundle } from '../storage/ledger.ts'
import { composeSite, contentDigest, type GroupContent } from './compose.ts'
import type { Fleet } from './config.ts'
import { groupContent } from './content.ts'
import type { Fetcher } from './fetch.ts'
import type { SiteSigner } from './keys/keys.ts'
import { downloadsOf, filesOf, type Download } from './downloads.ts'
import { demand, fetchedBlob, fetchedFile, fetchedPackage, trustedModule, type FetchedBlob } from './fetched.ts'
import { fetchModule, isTaken, refusedLater, throwRefused } from './modules/fetch-modules.ts'
import { moduleTrust, moduleWishes, type ModuleWish } from './modules/module-trust.ts'
import type { PlannedModule } from './modules/planned-modules.ts'
import { makePlan, type Plan, type PlannedPackage } from './plan.ts'
import type { Progress } from '../manifests/progress.ts'
import { keepPlan } from './plan-file.ts'
import { ifSound, MEND } from './rot.ts'
import { bringsKeys, signBundle } from './sign.ts'
import { signedTree } from './signed-tree.ts'
import { fetchedSize, fetchFile, type PlannedFile } from './upstream-files.ts'

export interface Laptop {
  fleet: Fleet
  store: BlobStore
  ledger: Ledger
  fetcher: Fetcher
  progress: Progress
  /** says something to the person that is no result */
  warn: (text: string) => void
  nowMs: () => number
  signal: AbortSignal
}

/** Room that stays free on the laptop's disk. */
const RESERVE_BYTES = 100_000_000

/** Looks at the upstreams and keeps the plan. @param site  only this one */
export async function planFleet(laptop: Laptop, sources: Parameters<typeof makePlan>[2], site?: string): Promise<Plan> {
  const plan = await makePlan(laptop.fleet, site, sources)
  keepPlan(laptop.fleet, plan)
  return plan
}

/** The plan's downloads, parted by what the store has already. */
export function partDownloads(laptop: Laptop, plan: Plan): { here: Download[]; toFetch: Download[] } {
  const here: Download[] = []
  const toFetch: Download[] = []
  for (const one of downloadsOf(plan)) (fetchedBlob(laptop, one) === undefined ? toFetch : here).push(one)
  return { here, toFetch }
}

export interface PullResult {
  fetched: { count: number; bytes: number }
  here: { count: number; bytes: number }
}

/** Fetches what the store does not have. Every file that arrived whole is kept, whatever becomes of the others.
 *  @throws BUDGET_EXCEEDED, SPACE_SHORT before a byte is spent; what the fetcher throws; RPM_MISMATCH */
export async function pull(laptop: Laptop, plan: Plan): Promise<PullResult> {
  const wishes = await moduleWishes(laptop.fleet, plan)
  const { here, toFetch } = partDownloads(laptop, plan)
  const refused: GapferryError[] = []
  for (const one of here) await refusedLater(judgeAgain(laptop, one, wishes), refused)
  if (toFetch.length === 0) {
    throwRefused(refused)
    return { fetched: { count: 0, bytes: 0 }, here: { count: here.length, bytes: sumBytes(here) } }
  }
  const total = sumBytes(toFetch)
  refuseOverBudget(laptop.fleet, total)
  await refuseShortSpace(laptop.fleet.storeDir, total)
  const step = laptop.progress.step('pull', total)
  let spent = 0
  try {
    await laptop.fetcher.all(
      toFetch,
      (one, signal) =>
        refusedLater(
          fetchOne(laptop, plan, one, { wishes, signal, maxBytes: laptop.fleet.budgetBytes - total }, (bytes) => {
            spent += bytes
            step.add(bytes)
          }),
          refused,
        ).catch((error: unknown) => {
          const { what, bytes } = nameOf(one)
          throw bytes === null ? overBudget(laptop.fleet, what, error) : error
        }),
      laptop.signal,
    )
    keepPlan(laptop.fleet, plan)
    throwRefused(refused)
  } catch (error) {
    // What was free is not any more: with figures a person knows how much to make room for.
    if (isGapferryError(withCode(error), 'SPACE_SHORT')) await refuseShortSpace(laptop.fleet.storeDir, total - spent)
    keepPlan(laptop.fleet, plan)
    throw error
  } finally {
    step.end()
  }
  return { fetched: { count: toFetch.length, bytes: spent }, here: { count: here.length, bytes: sumBytes(here) } }
}

async function fetchOne(
  laptop: Laptop,
  plan: Plan,
  one: Download,
  { wishes, signal, maxBytes }: { wishes: Map<string, ModuleWish[]>; signal: AbortSignal; maxBytes: number },
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { store, ledger, fetcher } = laptop
  if (one.kind === 'package') {
    const { sha256 } = await fetcher.toBlob(one.remote, store, signal, onBytes)
    const { isSigned } = checkRpm(readHead(store.pathOf(sha256)), one.package)
    const { algorithm, hex } = one.package.checksum
    ledger.rememberFetched(algorithm, hex, { sha256, verdict: isSigned ? 'unchecked' : 'unsigned' })
    return
  }
  if (one.kind === 'module') {
    const remote = { ...one.remote, maxBytes: one.module.bytes ?? Math.min(maxBytes, one.remote.maxBytes) }
    return fetchModule(remote, wishes.get(checksumText(one.module.checksum))!, { ...laptop, signal }, onBytes)
  }
  const { sha256, bytes } = await fetchFile(one.file, { fetcher, store, memory: ledger, signal, maxBytes }, onBytes)
  for (const file of plan.sites.flatMap((site) => site.groups).flatMap(filesOf)) {
    if (file.url === one.file.url && file.sha256 === undefined) Object.assign(file, { sha256, bytes })
  }
}

/** Keys and settings change: what nobody vouched for when it came may be good now, and the other way round. */
async function judgeAgain(laptop: Laptop, one: Download, wishes: Map<string, ModuleWish[]>): Promise<void> {
  if (one.kind !== 'module') return
  const own = wishes.get(checksumText(one.module.checksum))!
  if (!isTaken(laptop, own)) await fetchModule(one.remote, own, laptop)
}

/** @returns `bytes` null where no server told them */
function nameOf(one: Download): { what: string; bytes: number | null } {
  if (one.kind === 'file') return { what: one.file.as, bytes: one.file.bytes }
  return { what: one.remote.what, bytes: one.kind === 'module' ? one.module.bytes : one.bytes }
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
 *  @param unlock    asks for the keys, and only when something has to be signed
 *  @param onSigned  called in the transaction that keeps the bundle
 *  @throws PLAN_UNFETCHED, PATH_CHANGED, PATH_CONFLICT, KEY_* */
export async function composeBundle(
  laptop: Laptop,
  site: Plan['sites'][number],
  keys: { roots: Buffer[]; siteKeyArmored: string; unlock: () => Promise<SiteSigner> },
  options: { renew: boolean; bundler: string; onSigned: (bundle: SignedBundle) => void },
): Promise<ComposedBundle> {
  const { store, ledger } = laptop
  const nowMs = laptop.nowMs()
  const groups = await contents(laptop, site, { nowMs, siteKey: keys.siteKeyArmored })
  const content = contentDigest(groups)
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
  const context = { site: site.name, number, nowMs, store, signDetached: signer.signDetached.bind(signer) }
  const composed = await composeSite(context, groups, last, (group) => ledger.promises(site.name, group))
  for (const group of composed.withoutWayBack) {
    laptop.warn(
      `${group}: the content of bundle ${last!.number} is not in this store: a mirror cannot roll back from bundle ${number}`,
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
    target === 'site'
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
    if (target === 'site') continue
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

function refuseOverBudget(fleet: Fleet, bytes: number): void {
  if (bytes <= fleet.budgetBytes) return
  throw new GapferryError(
    'BUDGET_EXCEEDED',
    `the plan needs ${formatBytes(bytes)}, the budget is ${formatBytes(fleet.budgetBytes)}; nothing was fetched`,
    {
      hint: `narrow include, newest or policy in ${fleet.file}, or raise its budget (--budget); gapferry plan --items shows every item`,
    },
  )
}

/** A file whose size no server told may use what the budget leaves, and not a byte more. */
function overBudget(fleet: Fleet, item: string, error: unknown): unknown {
  if (!isGapferryError(error, 'FETCH_TOO_LONG')) return error
  const message = `${item}: larger than what is left of the budget of ${formatBytes(fleet.budgetBytes)}`
  return new GapferryError('BUDGET_EXCEEDED', message, {
    hint: `raise the budget in ${fleet.file}, or leave it out`,
    cause: error,
  })
}

async function refuseShortSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir)
  const free = bavail * bsize
  if (bytes + RESERVE_BYTES <= free) return
  const reserve = formatBytes(RESERVE_BYTES)
  throw new GapferryError(
    'SPACE_SHORT',
    `${dir}: ${formatBytes(bytes)} to fetch and ${reserve} that stay free, ${formatBytes(free)} are free`,
    {
      hint: 'make room, or put the store elsewhere',
    },
  )
}

function readHead(file: string): Buffer {
  const fd = openSync(file, 'r')
  try {
    const buffer = Buffer.allocUnsafe(Math.min(fstatSync(fd).size, MAX_RPM_HEADER_BYTES))
    return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0))
  } finally {
    closeSync(fd)
  }
}

function sumBytes(downloads: Download[]): number {
  return downloads.reduce((total, one) => total + one.bytes, 0)
}
