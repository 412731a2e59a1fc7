/** The repositories of a planned group as libsolv reads them: once all that is offered, once what a bundle carries. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { RepositoryTable } from '../../manifests/package-columns.ts'
import { TableReader } from '../../manifests/package-reader.ts'
import { seemsWanted } from '../../manifests/package-xml.ts'
import { writeRepomd, type RepomdData } from '../../manifests/repomd.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import type { PlannedPackage, PlannedRepository } from '../plan.ts'
import { examine, type Packing } from './decompress.ts'
import { solvRepository, type Libsolv } from './libsolv.ts'
import { composeRepodata } from './repodata.ts'
import { readList, type ListBlobs, type ListReader } from './yum-lists.ts'

export interface ProofSources extends ListReader, Libsolv {
  /** an empty folder for what libsolv reads and writes */
  dir: string
  signal: AbortSignal
  /** gets the size of each list that was read */
  onBytes: (bytes: number) => void
}

/** One repository, twice. */
export interface ProvedRepository {
  id: string
  /** of all that is offered */
  table: RepositoryTable
  /** names of solv files: of all that is offered, of what is carried */
  offered: string
  carried: string
  /** NEVRAs */
  isCarried: ReadonlySet<string>
}

const EXTENSIONS: Record<Packing, string> = { gzip: '.gz', xz: '.xz', bzip2: '.bz2', zstd: '.zst', plain: '' }

/** What the last bundle carried and the upstream dropped is a repository of its own, alike on both sides.
 *  @throws TOOL_MISSING, TOOL_FAILED, what reading the lists throws, the signal's reason */
export async function provedRepositories(
  yum: readonly PlannedRepository[],
  pool: StringPool,
  sources: ProofSources,
): Promise<ProvedRepository[]> {
  const found: ProvedRepository[] = []
  for (const [i, { id, data, earlier, packages }] of yum.entries()) {
    const kept = packages.filter(({ isEarlier }) => isEarlier === true)
    const current = packages.filter(({ isEarlier }) => isEarlier !== true)
    found.push({
      id,
      table: await readTable(id, data, pool, sources),
      offered: await solvFolder(`offered${i}`, linkLists(data, sources), sources),
      carried: await solvFolder(`carried${i}`, await cutLists(id, data, current, sources), sources),
      isCarried: nevrasOf(current),
    })
    if (earlier === undefined || kept.length === 0) continue
    const solv = await solvFolder(`earlier${i}`, await cutLists(id, earlier, kept, sources), sources)
    const table = await readTable(id, earlier, pool, sources, kept)
    found.push({ id, table, offered: solv, carried: solv, isCarried: nevrasOf(kept) })
  }
  return found
}

/** What its lists weigh as sent. */
export function listBytes(yum: readonly PlannedRepository[], { store }: Pick<ListReader, 'store'>): number {
  const blobs = yum.flatMap(({ data }) => [data.primary, ...(data.filelists === undefined ? [] : [data.filelists])])
  return blobs.reduce((sum, blob) => sum + examine(store.pathOf(blob)).bytes, 0)
}

/** @param only  these packages */
async function readTable(
  id: string,
  { primary: blob }: ListBlobs,
  pool: StringPool,
  { store, signal }: ProofSources,
  only?: readonly PlannedPackage[],
): Promise<RepositoryTable> {
  const list = { type: 'primary', blob, what: `primary of ${id}` } as const
  const ids = new StringPool()
  for (const { checksum } of only ?? []) ids.intern(checksum.hex)
  const reader = new TableReader(pool, list.what)
  await readList(list, { store, signal }, (element) => {
    if (only === undefined || seemsWanted(element, ids)) reader.add(element)
  })
  return reader.table()
}

/** Puts a list into a folder. */
type Placed = { type: 'primary' | 'filelists'; name: string; place: (file: string) => void; bytes: number }

/** @returns the name of the solv file */
async function solvFolder(name: string, lists: readonly Placed[], sources: ProofSources): Promise<string> {
  const folder = join(sources.dir, name)
  mkdirSync(join(folder, 'repodata'), { recursive: true })
  const data: RepomdData[] = []
  for (const { type, name: file, place, bytes } of lists) {
    place(join(folder, 'repodata', file))
    // libsolv checks none
    const checksum = { algorithm: 'sha256', hex: '0'.repeat(64) } as const
    data.push({ type, href: `repodata/${file}`, checksum, bytes, timestamp: 0 })
  }
  writeFileSync(join(folder, 'repodata/repomd.xml'), writeRepomd({ revision: '', data }))
  await solvRepository(sources, folder, join(sources.dir, `${name}.solv`))
  sources.onBytes(lists.reduce((sum, { bytes }) => sum + bytes, 0))
  return `${name}.solv`
}

/** As the upstream sent them. */
function linkLists(lists: ListBlobs, { store }: ProofSources): Placed[] {
  return (['primary', 'filelists'] as const).flatMap((type): Placed[] => {
    const blob = lists[type]
    if (blob === undefined) return []
    const { packing, bytes } = examine(store.pathOf(blob))
    // libsolv goes by the name
    const name = `${type}.xml${EXTENSIONS[packing]}`
    return [{ type, name, bytes, place: (file) => symlinkSync(store.pathOf(blob), file) }]
  })
}

/** As a bundle has them. */
async function cutLists(
  id: string,
  { primary, filelists }: ListBlobs,
  packages: readonly PlannedPackage[],
  { store, signal }: ProofSources,
): Promise<Placed[]> {
  const data = { primary, ...(filelists === undefined ? {} : { filelists }) }
  const plain = packages.map(({ nevra, href, bytes, checksum }) => ({ nevra, href, bytes, checksum }))
  const { files } = await composeRepodata({ id, data, packages: plain, store, signal })
  return (['primary', 'filelists'] as const).map((type) => {
    const { bytes } = files.find(({ path }) => basename(path).endsWith(`-${type}.xml.gz`))!
    return { type, name: `${type}.xml.gz`, bytes: 0, place: (file) => writeFileSync(file, bytes) }
  })
}

function nevrasOf(packages: readonly PlannedPackage[]): Set<string> {
  return new Set(packages.map(({ nevra }) => nevra))
}
