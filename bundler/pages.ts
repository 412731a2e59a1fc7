/**
 * Small files that were fetched before (indexes, signatures, lists of mirrors), so that an upstream where nothing changed costs
 * a few hundred bytes: their bytes are blobs of the store, their ETag and date are in the ledger.
 */
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { isGapferryError } from '../manifests/errors.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger } from '../storage/ledger.ts'

/** A file as a server sent it, and the marks by which the server knows it again. */
export interface Page {
  etag: string | null
  lastModified: string | null
  bytes: Buffer
}

export interface PageMemory {
  /** @param request  what was asked for: the address, and what else changes the answer */
  recall(request: string): Page | undefined
  keep(request: string, page: Page): Promise<void>
  forget(request: string): void
}

const MAX_AGE_MS = 60 * 24 * 3_600_000
const DAY_MS = 24 * 3_600_000

/** Forgets at once what nobody asked for in 60 days. */
export function openPages(store: BlobStore, ledger: Ledger, nowMs: number): PageMemory {
  ledger.forgetPages(nowMs - MAX_AGE_MS)
  return {
    recall: (request) => {
      const key = keyOf(request)
      const row = ledger.page(key)
      if (row === undefined) return undefined
      if (nowMs - row.askedAtMs > DAY_MS) ledger.rememberPage(key, { ...row, askedAtMs: nowMs })
      const bytes = readIfSound(store, row.sha256, row.bytes)
      return bytes === undefined ? undefined : { etag: row.etag, lastModified: row.lastModified, bytes }
    },
    keep: async (request, { etag, lastModified, bytes }) => {
      const sha256 = await store.put(bytes)
      ledger.rememberPage(keyOf(request), { etag, lastModified, sha256, bytes: bytes.length, askedAtMs: nowMs })
    },
    forget: (request) => ledger.forgetPage(keyOf(request)),
  }
}

/** Addresses may hold credentials, and differ by them. */
function keyOf(request: string): Sha256 {
  return sha256Of(request)
}

function readIfSound(store: BlobStore, sha256: Sha256, bytes: number): Buffer | undefined {
  try {
    return store.read(sha256, bytes)
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return undefined
  }
}
