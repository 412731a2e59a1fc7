/** What primary says of 30,000 packages, as columns that grow while it is read. */
import type { Checksum } from './digest.ts'
import { GapferryError } from './errors.ts'
import { RELATION_KINDS, SENSE, type PackageTable, type RelationKind, type Relations } from './package-table.ts'
import type { PackageRow, StrictPackage } from './package-xml.ts'
import { formatNevra, type Relation } from './rpm-version.ts'
import type { StringPool } from './string-pool.ts'

/** The packages of a primary, row i being the i-th of the document; texts are numbers of `pool`. */
export interface RepositoryTable extends PackageTable {
  /** of the RPM file: a place in CHECKSUM_ALGORITHMS … */
  algorithm: Uint8Array
  /** … and its digits, which are the package's id in filelists and other */
  checksum: Texts
  /** size of the RPM file */
  bytes: Uint32Array
  /** where the RPM file is: relative to the repository's base URL, or absolute where the element has an `xml:base` */
  href: Texts
  /** of the RPM file at the upstream, seconds since 1970 */
  fileTime: Float64Array
}

export const CHECKSUM_ALGORITHMS = [
  'md5',
  'sha1',
  'sha256',
  'sha384',
  'sha512',
] as const satisfies Checksum['algorithm'][]

/** Texts of which hardly one stands there twice, so that a pool would only cost. */
export interface Texts {
  text: (i: number) => string
}

/** A package without its relations, texts as numbers. The texts of `checksum` and `href` are added apart. */
export interface TableRow {
  name: number
  epoch: number
  version: number
  release: number
  arch: number
  algorithm: number
  bytes: number
  fileTime: number
}

/** Of all kinds and packages; the largest distribution has 2 million. */
const MAX_RELATIONS = 8_000_000
const MAX_FILES = 8_000_000
const FIRST_ROWS = 1 << 10
/** name, sense, epoch, version, release */
const RELATION_NUMBERS = 5

/** Row `i` as an object, for what is selected. */
export function packageRow(table: RepositoryTable, i: number): PackageRow {
  const { pool, checksum, href, fileTime } = table
  return rowOf(pool, (name) => table[name][i]!, { hex: checksum.text(i), href: href.text(i), fileTime: fileTime[i]! })
}

/** The relations of one kind of row `i` as objects. */
export function relationsOf({ pool, ...table }: PackageTable, kind: RelationKind, i: number): Relation[] {
  const { start, name, sense, epoch, version, release } = table[kind]
  const found: Relation[] = []
  for (let at = start[i]!; at < start[i + 1]!; at++) {
    const relation: Relation = { name: pool.text(name[at]!) }
    const flags = FLAGS[sense[at]!]
    found.push(relation)
    if (flags === undefined) continue
    relation.flags = flags
    relation.epoch = pool.text(epoch[at]!)
    relation.version = pool.text(version[at]!)
    relation.release = pool.text(release[at]!)
  }
  return found
}

/** The files of row `i` that primary lists. */
export function pathsOf({ pool, files }: PackageTable, i: number): string[] {
  return Array.from(files.path.subarray(files.start[i], files.start[i + 1]), (path) => pool.text(path))
}

const FLAGS = Object.fromEntries(Object.entries(SENSE).map(([flags, sense]) => [sense, flags])) as Record<
  number,
  Relation['flags'] & string
>

function rowOf(
  pool: StringPool,
  valueOf: (name: RowColumn) => number,
  { hex, href, fileTime }: { hex: string; href: string; fileTime: number },
): PackageRow {
  const nevra = {
    name: pool.text(valueOf('name')),
    epoch: pool.text(valueOf('epoch')),
    version: pool.text(valueOf('version')),
    release: pool.text(valueOf('release')),
    arch: pool.text(valueOf('arch')),
  }
  return {
    ...nevra,
    nevra: formatNevra(nevra),
    checksum: { algorithm: CHECKSUM_ALGORITHMS[valueOf('algorithm')]!, hex },
    bytes: valueOf('bytes'),
    href,
    fileTime,
  }
}

/** Takes a package's relations and files, then its row. */
export class TableBuilder {
  readonly pool: StringPool
  readonly #what: string
  readonly #limits: { relations: number; files: number }
  readonly #relations: Record<RelationKind, RelationColumns>
  readonly #kinds: readonly RelationColumns[]
  readonly #paths = new Column()
  readonly #pathStarts = new Column()
  readonly #columns = Object.fromEntries(ROW_COLUMNS.map((name) => [name, new Column()])) as Record<RowColumn, Column>
  /** of the next row too, once they are known */
  readonly checksums = new TextColumn()
  readonly hrefs = new TextColumn()
  /** a Column holds 32 bits */
  readonly #fileTimes: number[] = []

  /** @param what  names the document in messages
   *  @param limits  of relations and of files, for all packages together */
  constructor(pool: StringPool, what: string, limits = { relations: MAX_RELATIONS, files: MAX_FILES }) {
    this.pool = pool
    this.#what = what
    this.#limits = limits
    const kinds = RELATION_KINDS.map((kind) => [kind, new RelationColumns()] as const)
    this.#relations = Object.fromEntries(kinds) as Record<RelationKind, RelationColumns>
    this.#kinds = Object.values(this.#relations)
    this.#pathStarts.push(0)
  }

  get count(): number {
    return this.#fileTimes.length
  }

  /** Texts as numbers of the pool; a name alone has sense 0 and else EMPTY. */
  addRelation(kind: RelationKind, name: number, sense: number, epoch: number, version: number, release: number): void {
    this.#relations[kind].push(name, sense, epoch, version, release)
  }

  addFile(path: number): void {
    this.#paths.push(path)
  }

  /** Drops the relations and files that no row was added for. */
  undo(): void {
    for (const relations of this.#kinds) relations.undo()
    this.#paths.length = this.#pathStarts.last()
    this.checksums.undo(this.count)
    this.hrefs.undo(this.count)
  }

  /** The package that the relations and files so far belong to. @throws REPODATA_INVALID past a limit */
  addRow(row: TableRow): void {
    const columns = this.#columns
    columns.name.push(row.name)
    columns.epoch.push(row.epoch)
    columns.version.push(row.version)
    columns.release.push(row.release)
    columns.arch.push(row.arch)
    columns.algorithm.push(row.algorithm)
    columns.bytes.push(row.bytes)
    this.#fileTimes.push(row.fileTime)
    let total = 0
    for (const relations of this.#kinds) total += relations.close()
    if (total > this.#limits.relations) throw this.#tooMany(this.#limits.relations, 'relations')
    this.#pathStarts.push(this.#paths.length)
    if (this.#paths.length > this.#limits.files) throw this.#tooMany(this.#limits.files, 'files')
  }

  /** The row that was added last. */
  lastRow(): PackageRow {
    const last = this.count - 1
    const texts = { hex: this.checksums.text(last), href: this.hrefs.text(last), fileTime: this.#fileTimes[last]! }
    return rowOf(this.pool, (name) => this.#columns[name].last(), texts)
  }

  /** As addRow, for a package that a parser has read. */
  addStrict(strict: StrictPackage): void {
    const { row } = strict
    for (const kind of RELATION_KINDS) for (const relation of strict[kind]) this.#addStrictRelation(kind, relation)
    for (const path of strict.files) this.addFile(this.pool.intern(path))
    this.checksums.addText(row.checksum.hex)
    this.hrefs.addText(row.href)
    this.addRow({
      name: this.pool.intern(row.name),
      epoch: this.pool.intern(row.epoch),
      version: this.pool.intern(row.version),
      release: this.pool.intern(row.release),
      arch: this.pool.intern(row.arch),
      algorithm: CHECKSUM_ALGORITHMS.indexOf(row.checksum.algorithm),
      bytes: row.bytes,
      fileTime: row.fileTime,
    })
  }

  finish(): RepositoryTable {
    const { algorithm, ...columns } = mapValues(this.#columns, (column) => column.data())
    return {
      pool: this.pool,
      count: this.count,
      ...columns,
      algorithm: new Uint8Array(algorithm),
      checksum: this.checksums,
      href: this.hrefs,
      fileTime: Float64Array.from(this.#fileTimes),
      ...mapValues(this.#relations, (relations) => relations.data()),
      files: { start: this.#pathStarts.data(), path: this.#paths.data() },
    }
  }

  #addStrictRelation(kind: RelationKind, { name, flags, epoch = '', version = '', release = '' }: Relation): void {
    const { pool } = this
    const sense = flags === undefined ? 0 : SENSE[flags]
    this.addRelation(kind, pool.intern(name), sense, pool.intern(epoch), pool.intern(version), pool.intern(release))
  }

  #tooMany(limit: number, things: string): GapferryError {
    return new GapferryError('REPODATA_INVALID', `${this.#what}: more than ${limit} ${things}`)
  }
}

const ROW_COLUMNS = [
  'name',
  'epoch',
  'version',
  'release',
  'arch',
  'algorithm',
  'bytes',
] as const satisfies (keyof TableRow)[]
type RowColumn = (typeof ROW_COLUMNS)[number]

/** Numbers of 32 bits. */
class Column {
  #data = new Uint32Array(FIRST_ROWS)
  length = 0

  push(value: number): void {
    if (this.length === this.#data.length) this.#data = larger(this.#data)
    this.#data[this.length++] = value
  }

  at(i: number): number {
    return this.#data[i]!
  }

  last(): number {
    return this.#data[this.length - 1]!
  }

  data(): Uint32Array<ArrayBuffer> {
    return this.#data.slice(0, this.length)
  }
}

class TextColumn implements Texts {
  #bytes = Buffer.allocUnsafe(FIRST_ROWS * 64)
  readonly #starts = new Column()

  constructor() {
    this.#starts.push(0)
  }

  /** Adds the UTF-8 in `bytes` from `start` to `end`. */
  add(bytes: Uint8Array, start = 0, end = bytes.length): void {
    const from = this.#starts.last()
    const to = from + end - start
    if (to > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes], to * 2)
    for (let i = start, at = from; i < end; i++, at++) this.#bytes[at] = bytes[i]!
    this.#starts.push(to)
  }

  addText(text: string): void {
    this.add(Buffer.from(text))
  }

  /** Drops all but the first `count`. */
  undo(count: number): void {
    this.#starts.length = Math.min(this.#starts.length, count + 1)
  }

  text(i: number): string {
    return this.#bytes.toString('utf8', this.#starts.at(i), this.#starts.at(i + 1))
  }
}

/** Relations side by side while they come: growing and counting one piece of memory takes half the time of five. */
class RelationColumns {
  readonly #starts = new Column()
  #data = new Uint32Array(FIRST_ROWS * RELATION_NUMBERS)
  #length = 0

  constructor() {
    this.#starts.push(0)
  }

  push(name: number, sense: number, epoch: number, version: number, release: number): void {
    const at = this.#length * RELATION_NUMBERS
    if (at === this.#data.length) this.#data = larger(this.#data)
    const data = this.#data
    data[at] = name
    data[at + 1] = sense
    data[at + 2] = epoch
    data[at + 3] = version
    data[at + 4] = release
    this.#length++
  }

  undo(): void {
    this.#length = this.#starts.last()
  }

  /** Ends a package. @returns how many there are of all packages */
  close(): number {
    this.#starts.push(this.#length)
    return this.#length
  }

  data(): Relations {
    const column = (which: number): Uint32Array => {
      const numbers = new Uint32Array(this.#length)
      for (let i = 0; i < numbers.length; i++) numbers[i] = this.#data[i * RELATION_NUMBERS + which]!
      return numbers
    }
    return {
      start: this.#starts.data(),
      name: column(0),
      sense: new Uint8Array(column(1)),
      epoch: column(2),
      version: column(3),
      release: column(4),
    }
  }
}

function larger(column: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const twice = new Uint32Array(column.length * 2)
  twice.set(column)
  return twice
}

function mapValues<K extends string, A, B>(from: Record<K, A>, change: (value: A) => B): Record<K, B> {
  return Object.fromEntries(Object.entries<A>(from).map(([key, value]) => [key, change(value)])) as Record<K, B>
}
