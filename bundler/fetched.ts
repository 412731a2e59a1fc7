/** What of a plan lies in the laptop's store already. */
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { Verdict } from '../manifests/tree.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Download } from './downloads.ts'
import { judgedModule, moduleBlob } from './modules/fetch-modules.ts'
import { acceptedVerdict, type ModuleWish } from './modules/module-trust.ts'
import type { PlannedPackage } from './plan.ts'
import { fetchedSize, type PlannedFile } from './upstream-files.ts'

export interface FetchedBlob {
  sha256: Sha256
  bytes: number
  /** of the payload's own signature: an RPM's header, for instance */
  verdict: Verdict
}

interface Shelf {
  store: BlobStore
  ledger: Ledger
}

/** The blob of something to be fetched; undefined where it has to come first. */
export function fetchedBlob(shelf: Shelf, one: Download): FetchedBlob | undefined {
  if (one.kind === 'file') return fetchedFile(shelf, one.file)
  if (one.kind === 'package') return fetchedPackage(shelf, one.package)
  const blob = moduleBlob(shelf, one.module)
  return blob === undefined ? undefined : { ...blob, verdict: 'unchecked' }
}

/** The blob of a module that may be in a bundle now. */
export function trustedModule(shelf: Shelf, wish: ModuleWish): FetchedBlob | undefined {
  const judged = judgedModule(shelf, wish)
  const verdict = judged === undefined ? undefined : acceptedVerdict(judged.file, wish)
  if (judged === undefined || verdict === undefined) return undefined
  return { sha256: judged.file.sha256, bytes: judged.bytes, verdict }
}

/** The blob of a package. One that was cut short is not here: the next pull brings it again. */
export function fetchedPackage({ ledger, store }: Shelf, { checksum, bytes }: PlannedPackage): FetchedBlob | undefined {
  const row = ledger.fetched(checksum.algorithm, checksum.hex)
  return row !== undefined && store.sizeOf(row.sha256) === bytes ? { ...row, bytes } : undefined
}

/** The blob of a vendor file. It is here when what the plan found it to be is: declared, unchanged since the last time, or just fetched. */
export function fetchedFile({ store, ledger }: Shelf, file: PlannedFile): FetchedBlob | undefined {
  const sha256 = file.sha256
  const bytes = sha256 === undefined ? undefined : store.sizeOf(sha256)
  if (sha256 === undefined || bytes === undefined || bytes !== (fetchedSize(file, ledger) ?? bytes)) return undefined
  return { sha256, bytes, verdict: 'unchecked' }
}

/** @throws PLAN_UNFETCHED */
export function demand(blob: FetchedBlob | undefined, item: string): FetchedBlob {
  if (blob === undefined)
    throw new GapferryError('PLAN_UNFETCHED', `${item} is planned and not fetched`, { hint: 'gapferry pull' })
  return blob
}
