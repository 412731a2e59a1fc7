/**
 * Looks at a yum repository: finds its metadata, checks everything that is declared about it, and says which packages it
 * has. Metadata is taken from one base URL as a whole, because a mirror in the middle of an update holds one half of the
 * old and one half of the new; the next base URL is tried only with everything anew.
 */
import { GapferryError, isGapferryError, type ErrorCode } from '../manifests/errors.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { matchMetalink } from '../manifests/mirrorlist.ts'
import type { RepositoryTable } from '../manifests/package-columns.ts'
import type { PackageListType } from '../manifests/package-scan.ts'
import {
  dataOfType,
  MAX_REPOMD_BYTES,
  newestTimestamp,
  parseRepomd,
  type Repomd,
  type RepomdData,
} from '../manifests/repomd.ts'
import type { StringPool } from '../manifests/string-pool.ts'
import type { Verdict } from '../manifests/tree.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Fetched } from '../storage/ledger.ts'
import { publicUrl, type Fetcher } from './fetch.ts'
import { checkSecondary, readPrimary, type ListBlobs, type PackageList } from './yum/yum-lists.ts'
import { findPlaces, type YumPlace, type YumPlaces } from './yum/yum-places.ts'

export type { PackageRow } from '../manifests/package-xml.ts'

/** What the settings say about one repository. */
export interface YumRepoConfig extends YumPlace {
  /** the vendor's OpenPGP key, armored */
  gpgkey?: string
  /** refuse the repository when its repomd.xml is not signed by `gpgkey` */
  repoGpgcheck: boolean
}

export interface YumContext {
  fetcher: Pick<Fetcher, 'get' | 'toBlob'> & Partial<Pick<Fetcher, 'forget'>>
  store: BlobStore
  signal: AbortSignal
  /** which blob came for an upstream checksum other than SHA-256, so that nothing is fetched twice */
  aliases: {
    fetched: (algorithm: string, hex: string) => Fetched | undefined
    rememberFetched: (algorithm: string, hex: string, fetched: Fetched) => void
  }
  verifySignature: (args: {
    keys: string
    bytes: Uint8Array
    signature: Uint8Array
    nowMs: number
  }) => Promise<'good' | 'bad'>
  nowMs: number
  /** for the texts of all upstreams that are looked at, so that their tables can be compared number by number */
  pool?: StringPool
}

export interface YumUpstream {
  id: string
  /** the one that the metadata came from first; packages may come from any */
  baseurls: string[]
  /** the newest timestamp in repomd.xml; a box that has seen it takes nothing older */
  repomdMaxTimestamp: number
  repomd: Repomd
  /** of the signature of repomd.xml */
  verdict: Verdict
  /** the metadata as sent: blobs of the store */
  data: ListBlobs
  /** all packages */
  packages: RepositoryTable
  /** for the person who plans */
  warnings: string[]
}

const MAX_SIGNATURE_BYTES = 100 * 1024
const MAX_LIST_BYTES = 512 * 1024 * 1024
/** What may be wrong with one base URL and not with the next. */
const OF_THE_PLACE: ErrorCode[] = [
  'FETCH_FAILED',
  'FETCH_STATUS',
  'FETCH_TIMEOUT',
  'FETCH_CAPTIVE',
  'FETCH_TOO_LONG',
  'FETCH_SIZE_MISMATCH',
  'FETCH_DIGEST_MISMATCH',
  'METALINK_MISMATCH',
  'XML_INVALID',
  'DECOMPRESS_INVALID',
  'DECOMPRESS_TOO_LONG',
  'REPOMD_INVALID',
  'REPOMD_SIGNATURE',
  'REPODATA_INVALID',
  'REPODATA_MIXED',
]

/** @throws what was wrong with the last base URL, naming all; MIRRORLIST_EMPTY, METALINK_INVALID, SPACE_SHORT, KEY_INVALID,
 *          the signal's reason */
export async function lookYum(repo: YumRepoConfig, context: YumContext): Promise<YumUpstream> {
  const places = await findPlaces(repo, context.fetcher, context.signal)
  const failures: GapferryError[] = []
  for (const base of places.baseurls) {
    try {
      const found = await lookAt(base, places, repo, context)
      return { ...found, baseurls: [base, ...places.baseurls.filter((other) => other !== base)] }
    } catch (error) {
      context.signal.throwIfAborted()
      if (!isGapferryError(error, ...OF_THE_PLACE)) throw error
      // Should a server take an old index for unchanged, the next look would fail like this one.
      const index = new URL('repodata/repomd.xml', base).href
      context.fetcher.forget?.({ urls: [index, `${index}.asc`] })
      failures.push(error)
    }
  }
  throw allFailed(repo.id, failures)
}

async function lookAt(
  base: string,
  { metalink }: YumPlaces,
  repo: YumRepoConfig,
  context: YumContext,
): Promise<Omit<YumUpstream, 'baseurls'>> {
  const url = new URL('repodata/repomd.xml', base).href
  const file = { urls: [url], maxBytes: MAX_REPOMD_BYTES, what: `repomd.xml of ${repo.id}` }
  const { bytes } = await context.fetcher.get(file, context.signal)
  const repomd = parseRepomd(bytes, publicUrl(url))
  if (metalink !== undefined) matchMetalink(metalink, bytes, repomd, publicUrl(url))
  const verdict = await checkSignature(bytes, url, repo, context)
  const { data, packages } = await fetchLists(base, repomd, repo.id, context)
  return {
    id: repo.id,
    repomdMaxTimestamp: newestTimestamp(repomd),
    repomd,
    verdict,
    data,
    packages,
    warnings: warningsOf(data, verdict),
  }
}

async function checkSignature(
  bytes: Uint8Array,
  url: string,
  { id, gpgkey, repoGpgcheck }: YumRepoConfig,
  { fetcher, signal, verifySignature, nowMs }: YumContext,
): Promise<Verdict> {
  if (gpgkey === undefined) return 'unchecked'
  const signature = await fetcher
    .get({ urls: [`${url}.asc`], maxBytes: MAX_SIGNATURE_BYTES, what: `repomd.xml.asc of ${id}` }, signal)
    .catch((error: unknown) => {
      if (isGapferryError(error, 'FETCH_STATUS')) return undefined
      throw error
    })
  const verdict =
    signature === undefined
      ? 'unsigned'
      : await verifySignature({ keys: gpgkey, bytes, signature: signature.bytes, nowMs })
  if (verdict === 'good' || !repoGpgcheck) return verdict
  throw new GapferryError(
    'REPOMD_SIGNATURE',
    `${publicUrl(url)}: expected a signature of the key for ${id}, found ${verdict === 'bad' ? 'one that is not good' : 'none'}`,
    { hint: 'check gpgkey in gapferry.yaml; repoGpgcheck: false carries the repository all the same' },
  )
}

async function fetchLists(
  base: string,
  repomd: Repomd,
  id: string,
  context: YumContext,
): Promise<{ data: ListBlobs; packages: RepositoryTable }> {
  const primary = await fetchList(base, repomd, 'primary', id, context)
  if (primary === undefined)
    throw new GapferryError('REPOMD_INVALID', `${publicUrl(base)}: repomd.xml names no primary`)
  const packages = await readPrimary(primary.list, primary.data, context, context.pool)
  const data: ListBlobs = { primary: primary.list.blob }
  for (const type of ['filelists', 'other'] as const) {
    const secondary = await fetchList(base, repomd, type, id, context)
    if (secondary === undefined) continue
    await checkSecondary(secondary.list, secondary.data, packages, context)
    data[type] = secondary.list.blob
  }
  return { data, packages }
}

async function fetchList(
  base: string,
  repomd: Repomd,
  type: PackageListType,
  id: string,
  context: YumContext,
): Promise<{ list: PackageList; data: RepomdData } | undefined> {
  const data = dataOfType(repomd, type)
  if (data === undefined) return undefined
  const url = new URL(data.href, base).href
  const blob = knownBlob(data, context) ?? (await fetchBlob(url, data, `${type} of ${id}`, context))
  return { list: { type, blob, what: publicUrl(url) }, data }
}

/** The blob of a list that the store has already. */
export function knownBlob({ checksum, bytes }: RepomdData, { store, aliases }: YumContext): Sha256 | undefined {
  const { algorithm, hex } = checksum
  const sha256 = algorithm === 'sha256' ? (hex as Sha256) : aliases.fetched(algorithm, hex)?.sha256
  if (sha256 === undefined) return undefined
  const size = store.sizeOf(sha256)
  return size !== undefined && (bytes === undefined || bytes === size) ? sha256 : undefined
}

/** Fetches a list. @throws what the fetcher throws */
export async function fetchBlob(
  url: string,
  { checksum, bytes }: RepomdData,
  what: string,
  { fetcher, store, signal, aliases }: YumContext,
): Promise<Sha256> {
  const file = { urls: [url], checksum, maxBytes: MAX_LIST_BYTES, what, ...(bytes === undefined ? {} : { bytes }) }
  const { sha256 } = await fetcher.toBlob(file, store, signal)
  aliases.rememberFetched(checksum.algorithm, checksum.hex, { sha256, verdict: 'unchecked' })
  return sha256
}

function warningsOf(data: ListBlobs, verdict: Verdict): string[] {
  const warnings: string[] = []
  if (data.filelists === undefined) {
    warnings.push('the upstream has no filelists: boxes will not find packages by the files that they need')
  }
  if (data.other === undefined) warnings.push('the upstream has no changelogs (other)')
  if (verdict === 'bad') warnings.push('the signature of repomd.xml is not good')
  if (verdict === 'unsigned') warnings.push('repomd.xml is not signed, although a key is given')
  return warnings
}

function allFailed(id: string, failures: GapferryError[]): GapferryError {
  const last = failures.at(-1)!
  if (failures.length === 1) return last
  const all = failures.map((failure) => failure.message).join('; ')
  const hint = last.hint === undefined ? {} : { hint: last.hint }
  return new GapferryError(last.code, `yum ${id}: none of ${failures.length} base URLs is usable: ${all}`, {
    cause: last,
    ...hint,
  })
}
