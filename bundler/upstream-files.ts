/**
 * Vendor files (phone firmware, installers): `files: [{url, as, sha256?}]` of a group. With a digest a file is fetched once
 * in its life. Without one the server's ETag and Last-Modified are remembered, so that an unchanged file is not fetched
 * twice; where a server gives neither, nobody can tell, and the file is fetched each time.
 */
import { parseSha256, type Sha256 } from '../manifests/digest.ts'
import { isGapferryError } from '../manifests/errors.ts'
import type { TreePath } from '../manifests/path.ts'
import { MAX_BLOB_BYTES } from '../manifests/tree.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger, Validator } from '../storage/ledger.ts'
import type { VendorFile } from './config.ts'
import { isSoundArchive, verifySounds } from './modules/sound-archive.ts'
import { type FetchedBlob, type Fetcher, type FileHead, type OnBytes, publicUrl, type RemoteFile } from './fetch.ts'
import { parseFilePath } from './file-path.ts'

/** A server that does not do HEAD is no reason to fail: the size stays unknown until the file comes. */
const NO_HEAD = /found (?:403|405|501)\b/

export interface FileSources {
  fetcher: Fetcher
  store: BlobStore
  /** what servers said before; keys are URLs as publicUrl() gives them */
  memory: Pick<Ledger, 'validator' | 'rememberValidator'>
  signal: AbortSignal
  /** the most that a file of unknown size may be; default: what a blob may be */
  maxBytes?: number
}

/** A vendor file as its server describes it now. */
export interface PlannedFile {
  url: string
  as: TreePath
  /** null when the server does not say */
  bytes: number | null
  /** declared, known from the last fetch and unchanged since, or fetched for this plan */
  sha256?: Sha256
  reason: string
}

/** What is known of one file before a byte of it is spent: from the store, else from a HEAD.
 *  @returns `bytes` null where the server does not tell; `sha256` where it is declared, or known and unchanged
 *  @throws what Fetcher.head throws; PATH_INVALID, PATH_CONFLICT, DIGEST_INVALID for the entry itself */
export async function lookFile(entry: VendorFile, sources: FileSources): Promise<PlannedFile> {
  const as = parseFilePath(entry.as, `files ${publicUrl(entry.url)}`)
  const named = { url: entry.url, as }
  return entry.sha256 === undefined
    ? lookFileAt(named, sources)
    : lookByDigest({ ...named, sha256: parseSha256(entry.sha256, `files ${as}`) }, sources)
}

/** The blob of a file that was looked at: out of the store, else fetched, and remembered with what the server said.
 *  @throws what Fetcher.toBlob throws; MODULE_ARCHIVE for sounds that no box should unpack */
export async function fetchFile(file: PlannedFile, sources: FileSources, onBytes?: OnBytes): Promise<FetchedBlob> {
  const { fetcher, store, memory, signal } = sources
  const bytes = fetchedSize(file, memory)
  const remote = { ...bounded(file, sources), ...(bytes === undefined ? {} : { bytes }) }
  const blob = await fetcher.toBlob(remote, store, signal, onBytes)
  if (!blob.isFetched) return blob
  if (isSoundArchive(file.as)) await verifySounds(store.pathOf(blob.sha256), file.as, signal)
  memory.rememberValidator(blob.source, {
    etag: blob.headers['etag'] ?? null,
    lastModified: blob.headers['last-modified'] ?? null,
    sha256: blob.sha256,
    bytes: blob.bytes,
  })
  return blob
}

async function lookByDigest(file: NamedFile & { sha256: Sha256 }, sources: FileSources): Promise<PlannedFile> {
  const stored = sources.store.sizeOf(file.sha256)
  if (stored !== undefined && stored === (fetchedSize(file, sources.memory) ?? stored))
    return { ...file, bytes: stored, reason: 'named in files' }
  const head = await headOf(remoteFile(file), sources)
  return { ...file, bytes: head?.bytes ?? null, reason: 'named in files' }
}

/** The same for a file without a digest, at any place of the origin. @throws what Fetcher.head throws */
export async function lookFileAt(file: NamedFile, sources: FileSources): Promise<PlannedFile> {
  const head = await headOf(remoteFile(file), sources)
  const bytes = head?.bytes ?? null
  const known = sources.memory.validator(publicUrl(file.url))
  if (known === undefined) return { ...file, bytes, reason: 'named in files' }
  if (head !== undefined && isSame(known, head)) {
    if (sources.store.sizeOf(known.sha256) !== known.bytes) return { ...file, bytes, reason: 'named in files' }
    return {
      ...file,
      bytes: known.bytes,
      sha256: known.sha256,
      reason: 'named in files, unchanged since it was fetched',
    }
  }
  const canTell = head?.headers['etag'] !== undefined || head?.headers['last-modified'] !== undefined
  const why = canTell ? 'changed at the upstream' : 'the upstream does not tell whether it changed'
  return { ...file, bytes, reason: `named in files; ${why}` }
}

/** The size of a file when it was fetched; undefined where nobody remembers. */
export function fetchedSize(
  { url, sha256 }: Pick<PlannedFile, 'url' | 'sha256'>,
  memory: Pick<Ledger, 'validator'>,
): number | undefined {
  const known = memory.validator(publicUrl(url))
  return known !== undefined && known.sha256 === sha256 ? known.bytes : undefined
}

interface NamedFile {
  url: string
  as: TreePath
  sha256?: Sha256
}

function bounded(file: PlannedFile, { maxBytes = MAX_BLOB_BYTES }: FileSources): RemoteFile {
  return { ...remoteFile(file), maxBytes: file.bytes === null ? Math.min(maxBytes, MAX_BLOB_BYTES) : MAX_BLOB_BYTES }
}

/** What the fetcher is asked for. */
export function remoteFile(file: NamedFile): RemoteFile {
  return {
    urls: [file.url],
    maxBytes: MAX_BLOB_BYTES,
    what: file.as,
    isPage: /\.x?html?$/i.test(file.as),
    ...(file.sha256 === undefined ? {} : { checksum: { algorithm: 'sha256', hex: file.sha256 } }),
  }
}

/** @returns undefined where the server does not do HEAD, or gives a page for it
 *  @throws what Fetcher.head throws */
export async function headOf(
  remote: RemoteFile,
  { fetcher, signal }: Pick<FileSources, 'fetcher' | 'signal'>,
): Promise<FileHead | undefined> {
  try {
    const head = await fetcher.head(remote, signal)
    // A login page has a size too, but not the file's.
    const isPage = remote.isPage !== true && /^text\/html\b/i.test(head.headers['content-type'] ?? '')
    return isPage ? undefined : head
  } catch (error) {
    if (isGapferryError(error, 'FETCH_STATUS') && NO_HEAD.test(error.message)) return undefined
    throw error
  }
}

/** The ETag decides where there was one, else Last-Modified together with the size. */
function isSame(known: Validator, { headers, bytes }: FileHead): boolean {
  if (bytes !== undefined && bytes !== known.bytes) return false
  if (known.etag !== null) return headers['etag'] === known.etag
  return known.lastModified !== null && headers['last-modified'] === known.lastModified && bytes !== undefined
}
