/**
 * Modules → blobs of the store that are known for what they are. A file is remembered once it was held against all that the
 * feed says of it; one that nobody vouches for stays in the store all the same, so that a key or a word in the settings
 * lets it pass without being fetched twice.
 */
import type { Sha256 } from '../../manifests/digest.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import type { Ledger, ModuleFile } from '../../storage/ledger.ts'
import type { Fetcher, OnBytes, RemoteFile } from '../fetch.ts'
import type { PlannedModule } from './planned-modules.ts'
import { acceptedVerdict, heldAgainst, refuseUntrusted, type ModuleWish } from './module-trust.ts'
import { verifyModule } from './verify-module.ts'

interface ModuleShelf {
  store: Pick<BlobStore, 'sizeOf'>
  ledger: Pick<Ledger, 'fetched' | 'moduleFile' | 'moduleBytes'>
}

/** The blob of a module's file; its verdict is not asked for. One that was cut short is not here. */
export function moduleBlob(
  { store, ledger }: ModuleShelf,
  one: Pick<PlannedModule, 'checksum'>,
): { sha256: Sha256; bytes: number } | undefined {
  const row = ledger.fetched(one.checksum.algorithm, one.checksum.hex)
  const bytes = row === undefined ? undefined : store.sizeOf(row.sha256)
  if (row === undefined || bytes === undefined || bytes !== ledger.moduleBytes(row.sha256)) return undefined
  return { sha256: row.sha256, bytes }
}

interface ModuleFetch {
  store: BlobStore
  ledger: Ledger
  fetcher: Fetcher
  signal: AbortSignal
  nowMs: () => number
}

/** What is known of a module that is here and was held against what the feed says of it now, with the keys of now. */
export function judgedModule(shelf: ModuleShelf, wish: ModuleWish): { file: ModuleFile; bytes: number } | undefined {
  const blob = moduleBlob(shelf, wish.one)
  const file = blob === undefined ? undefined : shelf.ledger.moduleFile(blob.sha256, heldAgainst(wish))
  return blob === undefined || file === undefined ? undefined : { file, bytes: blob.bytes }
}

/** Whether everybody who wants this file takes it, as far as is known. */
export function isTaken(shelf: ModuleShelf, wishes: readonly ModuleWish[]): boolean {
  return wishes.every((wish) => {
    const judged = judgedModule(shelf, wish)
    return judged !== undefined && acceptedVerdict(judged.file, wish) !== undefined
  })
}

/** Fetches a file unless it is here, and judges it for everybody who wants it.
 *  @throws MODULE_SIGNATURE, MODULE_DIGEST, MODULE_ARCHIVE, MODULE_MISMATCH; what the fetcher throws */
export async function fetchModule(
  remote: RemoteFile,
  wishes: readonly ModuleWish[],
  { store, ledger, fetcher, signal, nowMs }: ModuleFetch,
  onBytes?: OnBytes,
): Promise<void> {
  const first = wishes[0]!.one
  const blob = moduleBlob({ store, ledger }, first) ?? (await fetcher.toBlob(remote, store, signal, onBytes))
  const files = new Map<string, ModuleFile>()
  for (const wish of wishes) {
    const expected = heldAgainst(wish)
    if (!files.has(expected)) files.set(expected, await judge(blob, wish, { store, signal, nowMs: nowMs() }))
  }
  ledger.write(() => {
    const { algorithm, hex } = first.checksum
    for (const file of files.values()) {
      ledger.rememberFetched(algorithm, hex, file)
      ledger.rememberModule(file)
    }
  })
  for (const wish of wishes) refuseUntrusted(files.get(heldAgainst(wish))!, wish)
}

async function judge(
  { sha256, bytes }: { sha256: Sha256; bytes: number },
  wish: ModuleWish,
  { store, ...context }: { store: BlobStore; signal: AbortSignal; nowMs: number },
): Promise<ModuleFile> {
  const { one, trust } = wish
  const { verdict, signer, why, inner } = await verifyModule(store.pathOf(sha256), one.expected, trust.keys, context)
  return {
    sha256,
    expected: heldAgainst(wish),
    bytes,
    rawname: one.rawname,
    version: one.version,
    verdict,
    signer: signer ?? null,
    why: why ?? null,
    innerSha256: inner.sha256,
    innerBytes: inner.bytes,
  }
}
