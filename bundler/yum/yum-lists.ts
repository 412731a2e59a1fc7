/**
 * Primary, filelists and other as blobs of the store: unpacked piece by piece, checked against what repomd.xml declares,
 * handed on package by package. The largest is 300 MB unpacked and never stands in memory.
 */
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import type { Sha256 } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { RepositoryTable } from '../../manifests/package-columns.ts'
import { FileFinder } from '../../manifests/package-files.ts'
import { PackageScanner, type PackageListType, type ScannedList } from '../../manifests/package-scan.ts'
import { TableReader } from '../../manifests/package-reader.ts'
import { findPackageId, readPackageId } from '../../manifests/package-xml.ts'
import type { RepomdData } from '../../manifests/repomd.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import { MEND } from '../rot.ts'
import { decompress } from './decompress.ts'

/** The blobs of a repository's metadata, as the upstream sent them. */
export interface ListBlobs {
  primary: Sha256
  filelists?: Sha256
  other?: Sha256
}

/** One list, where it lies and what it is called in messages. */
export interface PackageList {
  type: PackageListType
  blob: Sha256
  what: string
}

/** All that is needed to read lists. */
export interface ListReader {
  store: Pick<BlobStore, 'pathOf'>
  signal?: AbortSignal
}

const MAX_PACKAGES = 500_000

/** Calls `onPackage` with each element, whose bytes are only valid during the call.
 *  @param onBytes  gets the unpacked bytes
 *  @throws BLOB_MISSING, DECOMPRESS_*, XML_INVALID, REPODATA_INVALID, the signal's reason, what `onPackage` throws;
 *          BLOB_DIGEST_MISMATCH instead of any of them where the store's file is not what it was */
export async function readList(
  { type, blob, what }: PackageList,
  { store, signal }: ListReader,
  onPackage: (element: Buffer) => void,
  onBytes: (bytes: Uint8Array) => void = () => {},
): Promise<ScannedList> {
  const file = store.pathOf(blob)
  if (!existsSync(file)) {
    throw new GapferryError('BLOB_MISSING', `${what}: blob ${blob} is not in the store`, { hint: 'gapferry plan' })
  }
  let count = 0
  const scanner = new PackageScanner(type, what, (element) => {
    if (++count > MAX_PACKAGES) throw invalid(what, `more than ${MAX_PACKAGES} packages`)
    onPackage(element)
  })
  return explained({ blob, what }, store, async () => {
    for await (const chunk of decompress(file, what)) {
      signal?.throwIfAborted()
      onBytes(chunk)
      scanner.write(chunk)
    }
    return scanner.end()
  })
}

type Located = Pick<PackageList, 'blob' | 'what'>

/** Says whose fault it is that a list cannot be read, the upstream's or this disk's. */
async function explained<T>({ blob, what }: Located, store: ListReader['store'], work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (!isGapferryError(cause) || cause.code === 'BLOB_DIGEST_MISMATCH') throw cause
    const hash = createHash('sha256')
    for await (const chunk of createReadStream(store.pathOf(blob))) hash.update(chunk as Buffer)
    const found = hash.digest('hex')
    if (found === blob) throw cause
    const message = `${what}: its copy in the store is damaged: expected sha256 ${blob}, found ${found}`
    throw new GapferryError('BLOB_DIGEST_MISMATCH', message, { ...MEND, cause })
  }
}

/** The packages of a primary that is what repomd.xml declares.
 *  @param pool  for the texts; tables of one pool can be compared number by number
 *  @throws REPODATA_MIXED, REPODATA_INVALID, XML_INVALID, DECOMPRESS_* */
export async function readPrimary(
  list: PackageList,
  data: RepomdData,
  reader: ListReader,
  pool: StringPool = new StringPool(),
): Promise<RepositoryTable> {
  const packages = new TableReader(pool, list.what)
  await readDeclared(list, data, reader, (element) => packages.add(element))
  return packages.table()
}

/** Which packages have the files.
 *  @param list  filelists
 *  @param paths  exact
 *  @returns by path, the ids of the packages that list it; nothing for a path that none does
 *  @throws BLOB_MISSING, DECOMPRESS_*, XML_INVALID, REPODATA_INVALID, the signal's reason */
export async function findFiles(
  list: PackageList,
  paths: Iterable<string>,
  reader: ListReader,
): Promise<Map<string, Set<string>>> {
  const finder = new FileFinder(paths, list.what)
  await readList(list, reader, (element) => finder.add(element))
  return finder.found
}

/** Checks filelists or other: it is what repomd.xml declares, and it is about the packages of primary, all and no others.
 *  @throws REPODATA_MIXED, REPODATA_INVALID, XML_INVALID, DECOMPRESS_* */
export async function checkSecondary(
  list: PackageList,
  data: RepomdData,
  { count, checksum }: RepositoryTable,
  reader: ListReader,
): Promise<void> {
  const ids = new StringPool()
  for (let i = 0; i < count; i++) ids.intern(checksum.text(i))
  const isListed = new Uint8Array(ids.size)
  await readDeclared(list, data, reader, (element) => {
    const number = findPackageId(element, ids, list.what)
    if (number === undefined) {
      throw mixed(list.what, `lists package ${readPackageId(element, list.what)}, which primary does not`)
    }
    isListed[number] = 1
  })
  const missing = isListed.indexOf(0, 1)
  if (missing < 0) return
  const others = isListed.subarray(missing).filter((one) => one === 0).length
  throw mixed(list.what, `lists ${others} packages of primary not, such as ${ids.text(missing)}`)
}

async function readDeclared(
  list: PackageList,
  { openChecksum, openBytes }: RepomdData,
  reader: ListReader,
  onPackage: (element: Buffer) => void,
): Promise<void> {
  const hash = createHash(openChecksum?.algorithm ?? 'sha256')
  let length = 0
  await explained(list, reader.store, async () => {
    await readList(list, reader, onPackage, (bytes) => {
      hash.update(bytes)
      length += bytes.length
    })
    if (openBytes !== undefined && length !== openBytes) {
      throw mixed(list.what, `expected ${openBytes} bytes when unpacked, found ${length}`)
    }
    const hex = hash.digest('hex')
    if (openChecksum !== undefined && hex !== openChecksum.hex) {
      throw mixed(list.what, `expected ${openChecksum.algorithm} ${openChecksum.hex} when unpacked, found ${hex}`)
    }
  })
}

function mixed(what: string, why: string): GapferryError {
  return new GapferryError('REPODATA_MIXED', `${what}: ${why}`)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPODATA_INVALID', `${what}: ${why}`)
}
