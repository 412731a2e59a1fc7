/**
 * The metadata of what is carried: the `<package>` elements of the upstream's own primary, filelists and other, cut out
 * and otherwise untouched, because boxes check packages against them and regenerating from RPM headers would lose things.
 * Only the place of the RPM file is written anew. Equal input gives equal bytes.
 */
import { sha256Of, type Checksum } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { PACKAGE_LISTS, type PackageListType } from '../../manifests/package-scan.ts'
import { TableReader } from '../../manifests/package-reader.ts'
import { findPackageId, seemsWanted, withHref, type PackageRow } from '../../manifests/package-xml.ts'
import { parseTreePath, type TreePath } from '../../manifests/path.ts'
import type { Repomd, RepomdData } from '../../manifests/repomd.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import { escapeXml } from '../../manifests/xml.ts'
import { packGzip } from '../gzip.ts'
import { readList, type ListBlobs, type ListReader, type PackageList } from './yum-lists.ts'

/** What a plan knows of a package that is carried. */
export interface CarriedPackage {
  nevra: string
  /** as in PackageRow */
  href: string
  bytes: number
  checksum: Checksum
  /** described by the last bundle's metadata, because the upstream has it no more */
  isEarlier?: boolean
}

export interface RepodataSources extends ListReader {
  /** of the repository */
  id: string
  /** the upstream's metadata */
  data: ListBlobs
  /** the last bundle's, where a package is described by it */
  earlier?: ListBlobs
  packages: readonly CarriedPackage[]
}

export interface ComposedRepodata {
  /** names the files below; revision and timestamps are the caller's to set */
  repomd: Repomd
  /** hash-named, so never another content at the same path */
  files: { path: TreePath; bytes: Buffer }[]
}

/** The elements of one list that are carried, by the package's id. */
interface CutList {
  rootTag: string
  elements: Map<string, Buffer>
}

const NAMESPACE = 'http://linux.duke.edu/metadata'

/** @throws REPODATA_MIXED when the metadata does not hold what is carried, or says another thing about it than the plan;
 *          PATH_INVALID for a package whose place no tree can have; what reading the lists throws */
export async function composeRepodata(sources: RepodataSources): Promise<ComposedRepodata> {
  const carried = [...sources.packages].sort((a, b) => (a.nevra < b.nevra ? -1 : 1))
  const earlier = await cutEarlier(sources, carried)
  const ids = carried.map((one) => one.checksum.hex)
  const { primary, rows } = await cutPrimary(
    sources,
    carried.filter((one) => one.isEarlier !== true),
  )
  // packed in other threads while the next list is read
  const lists = [packList('primary', withEarlier(primary, earlier.primary), ids)]
  for (const type of ['filelists', 'other'] as const) {
    lists.push(packList(type, withEarlier(await cutSecondary(type, sources, rows), earlier[type]), ids))
  }
  const data: RepomdData[] = []
  const files: ComposedRepodata['files'] = []
  for (const { type, open, packed } of lists) {
    const bytes = await packed
    const sha256 = sha256Of(bytes)
    const href = `repodata/${sha256}-${type}.xml.gz`
    files.push({ path: parseTreePath(`yum/${sources.id}/${href}`, `yum ${sources.id}`), bytes })
    data.push({
      type,
      checksum: { algorithm: 'sha256', hex: sha256 },
      openChecksum: { algorithm: 'sha256', hex: sha256Of(open) },
      href,
      timestamp: 0,
      bytes: bytes.length,
      openBytes: open.length,
    })
  }
  return { repomd: { revision: '', data }, files }
}

/** Where a package stands in an origin.
 *  @param href  as in PackageRow
 *  @throws PATH_INVALID where no tree can have that path, or where the repository's own metadata stands */
export function packagePath(id: string, href: string): TreePath {
  const what = `yum ${id}: package ${href}`
  const segments = relativeHref(href, what).split('/')
  const decoded = segments.map((segment) => decodeSegment(segment, what))
  if (decoded[0] === 'repodata') throw new GapferryError('PATH_INVALID', `${what}: stands among the metadata`)
  return parseTreePath(`yum/${id}/${decoded.join('/')}`, what)
}

/** What the last bundle's metadata says of packages that the upstream has no more. */
async function cutEarlier(
  { earlier, ...sources }: RepodataSources,
  carried: readonly CarriedPackage[],
): Promise<Partial<Record<PackageListType, CutList>>> {
  const some = carried.filter((one) => one.isEarlier)
  if (earlier === undefined || some.length === 0) return {}
  const from = { ...sources, data: earlier }
  const { primary, rows } = await cutPrimary(from, some)
  const filelists = await cutSecondary('filelists', from, rows)
  return { primary, filelists, other: await cutSecondary('other', from, rows) }
}

function withEarlier(list: CutList, earlier: CutList | undefined): CutList {
  return { ...list, elements: new Map([...list.elements, ...(earlier?.elements ?? [])]) }
}

async function cutPrimary(
  { id, data, ...reader }: RepodataSources,
  carried: readonly CarriedPackage[],
): Promise<{ primary: CutList; rows: Map<string, PackageRow> }> {
  const wanted = new Map(carried.map((one) => [one.checksum.hex, one]))
  const ids = idsOf(wanted.keys())
  const elements = new Map<string, Buffer>()
  const rows = new Map<string, PackageRow>()
  const list: PackageList = { type: 'primary', blob: data.primary, what: `primary of ${id}` }
  const packages = new TableReader(new StringPool(), list.what)
  const { rootTag } = await readList(list, reader, (element) => {
    if (!seemsWanted(element, ids)) return
    packages.add(element)
    const { row, location } = packages.last()
    const want = wanted.get(row.checksum.hex)
    // the same package may be listed at several places; one of them was planned
    if (row.href !== want?.href || elements.has(row.checksum.hex)) return
    refuseOther(row, want, list.what)
    packagePath(id, row.href)
    elements.set(row.checksum.hex, withHref(element, location, relativeHref(row.href, list.what)))
    rows.set(row.checksum.hex, row)
  })
  refuseMissing(carried, elements, list.what)
  return { primary: { rootTag, elements }, rows }
}

async function cutSecondary(
  type: 'filelists' | 'other',
  { id, data, ...reader }: RepodataSources,
  rows: Map<string, PackageRow>,
): Promise<CutList> {
  const blob = data[type]
  if (blob === undefined) return emptyList(type, rows)
  const ids = idsOf(rows.keys())
  const elements = new Map<string, Buffer>()
  const list: PackageList = { type, blob, what: `${type} of ${id}` }
  const { rootTag } = await readList(list, reader, (element) => {
    const number = findPackageId(element, ids, list.what)
    if (number !== undefined) elements.set(ids.text(number), Buffer.from(element))
  })
  return { rootTag, elements }
}

function idsOf(hexes: Iterable<string>): StringPool {
  const ids = new StringPool()
  for (const hex of hexes) ids.intern(hex)
  return ids
}

/** For an upstream without this list: yum wants one, so each package gets an entry that says nothing. */
function emptyList(type: 'filelists' | 'other', rows: Map<string, PackageRow>): CutList {
  const elements = new Map<string, Buffer>()
  for (const [id, { name, arch, epoch, version, release }] of rows) {
    const evr = `<version epoch="${epoch}" ver="${escapeXml(version)}" rel="${escapeXml(release)}"/>`
    const tag = `<package pkgid="${id}" name="${escapeXml(name)}" arch="${escapeXml(arch)}">`
    elements.set(id, Buffer.from(`${tag}\n  ${evr}\n</package>`))
  }
  return { rootTag: `<${PACKAGE_LISTS[type]} xmlns="${NAMESPACE}/${type}" packages="0">`, elements }
}

/** The document: the upstream's root with the new count, then the elements in the order of `ids`. */
function assemble(type: PackageListType, { rootTag, elements }: CutList, ids: readonly string[]): Buffer {
  const name = /^<([^\s>]+)/.exec(rootTag)![1]!
  const tag = rootTag.replace(/\spackages\s*=\s*(?:"[^"]*"|'[^']*')/, ` packages="${ids.length}"`)
  const pieces: Buffer[] = [Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${tag}\n`)]
  for (const id of ids) {
    const element = elements.get(id)
    if (element === undefined) throw new GapferryError('REPODATA_MIXED', `${type} has nothing about package ${id}`)
    pieces.push(element, NEWLINE)
  }
  return Buffer.concat([...pieces, Buffer.from(`</${name}>\n`)])
}

const NEWLINE = Buffer.from('\n')

interface PackedList {
  type: PackageListType
  open: Buffer
  packed: Promise<Buffer>
}

function packList(type: PackageListType, list: CutList, ids: readonly string[]): PackedList {
  const open = assemble(type, list, ids)
  const packed = packGzip(open)
  // whoever waits for it meets the error; nobody does when a later list is refused
  packed.catch(() => {})
  return { type, open, packed }
}

/** The plan was made from a quick reading; a box must read the same from the element. */
function refuseOther(row: PackageRow, want: CarriedPackage, what: string): void {
  if (row.nevra === want.nevra && row.bytes === want.bytes && row.checksum.algorithm === want.checksum.algorithm) return
  throw new GapferryError(
    'REPODATA_MIXED',
    `${what}: expected ${want.nevra} with ${want.bytes} bytes, found ${row.nevra} with ${row.bytes} bytes`,
  )
}

function refuseMissing(carried: readonly CarriedPackage[], elements: Map<string, Buffer>, what: string): void {
  const missing = carried.find((one) => !elements.has(one.checksum.hex))
  if (missing === undefined) return
  throw new GapferryError('REPODATA_MIXED', `${what}: has no ${missing.nevra} at ${missing.href}`, {
    hint: 'gapferry plan',
  })
}

/** `href` below the repository: without host, dot segments and doubled slashes, its spelling otherwise kept. Ways up from
 *  the repository end there: `../Packages/a.rpm` becomes `Packages/a.rpm`. */
function relativeHref(href: string, what: string): string {
  const segments: string[] = []
  for (const segment of (URL.canParse(href) ? new URL(href).pathname : href).split('/')) {
    if (segment === '..') segments.pop()
    else if (segment !== '' && segment !== '.') segments.push(segment)
  }
  if (segments.length === 0) throw new GapferryError('PATH_INVALID', `${what}: "${href}" is no place of a package`)
  return segments.join('/')
}

function decodeSegment(segment: string, what: string): string {
  try {
    const decoded = decodeURIComponent(segment)
    if (!decoded.includes('/')) return decoded
  } catch {
    // said below
  }
  throw new GapferryError('PATH_INVALID', `${what}: "${segment}" is no name of a file`)
}
