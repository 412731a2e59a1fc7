/**
 * Reads `<package>` elements of primary that are as repository tools write them, straight from the bytes into columns: no
 * object, and a string only where a text is new. Whatever is out of the ordinary (an unknown tag or attribute, anything
 * twice, markup, a value that no field may have) is left to the parser, so both agree (property test). Texts that no field
 * takes, such as descriptions, are passed over; there only the parser notices what is not well-formed.
 */
import { CHECKSUM_ALGORITHMS, type TableBuilder, type TableRow } from './package-columns.ts'
import { RELATION_KINDS, SENSE, type RelationKind } from './package-table.ts'
import { FIELD_LIMITS, placeOf, type TagPlace } from './package-xml.ts'
import { CLASS, NONE, QuickXml, UNUSUAL } from './quick-xml.ts'
import { HEX_DIGITS } from './repomd.ts'
import { EMPTY, StringPool } from './string-pool.ts'

const WORDS = new StringPool()
const word = (text: string): number => WORDS.intern(text)

const T = {
  name: word('name'),
  arch: word('arch'),
  version: word('version'),
  checksum: word('checksum'),
  time: word('time'),
  size: word('size'),
  location: word('location'),
  format: word('format'),
  headerRange: word('rpm:header-range'),
  entry: word('rpm:entry'),
  file: word('file'),
} as const
const A = {
  type: word('type'),
  epoch: word('epoch'),
  version: word('ver'),
  release: word('rel'),
  package: word('package'),
  href: word('href'),
  base: word('xml:base'),
  flags: word('flags'),
} as const
for (const unused of ['pkgid', 'build', 'installed', 'archive', 'start', 'end', 'pre']) word(unused)
const PASSED_OVER = new Set(
  'summary description packager url rpm:license rpm:vendor rpm:group rpm:buildhost rpm:sourcerpm'.split(' ').map(word),
)
/** By the word of the tag; undefined for a kind that no table has. */
const LISTS = new Map<number, RelationKind | undefined>(RELATION_KINDS.map((kind) => [word(`rpm:${kind}`), kind]))
for (const kind of ['suggests', 'enhances']) LISTS.set(word(`rpm:${kind}`), undefined)
const SENSES = new Map(Object.entries(SENSE).map(([flags, sense]) => [Buffer.from(flags).readUInt16LE(), sense]))
const ALGORITHMS = new Map(CHECKSUM_ALGORITHMS.map((name, i) => [word(name), i]))
ALGORITHMS.set(word('sha'), CHECKSUM_ALGORITHMS.indexOf('sha1'))
const DIGITS = CHECKSUM_ALGORITHMS.map((name) => HEX_DIGITS[name])
const NEEDED = [T.name, T.arch, T.version, T.checksum, T.size, T.location]
const WORD_COUNT = WORDS.size
const START = Buffer.from('<package type="rpm">')
const MAX_DIGITS = 13

export class QuickReader {
  /** where the `<location>` tag of the last element stands in its bytes */
  readonly location: TagPlace = { start: 0, end: 0 }
  readonly #builder: TableBuilder
  readonly #xml = new QuickXml(WORDS)
  readonly #zero: number
  /** the element in which a tag, or the tag in which an attribute, came last */
  readonly #seen = new Uint32Array(WORD_COUNT)
  readonly #seenAttributes = new Uint32Array(WORD_COUNT)
  /** numbers of the texts of one byte: every second value is the epoch 0 */
  readonly #single = new Uint32Array(256)
  #elements = 0
  #tags = 0
  readonly #row: TableRow

  constructor(builder: TableBuilder) {
    this.#builder = builder
    this.#zero = builder.pool.intern('0')
    const zero = this.#zero
    this.#row = {
      name: EMPTY,
      epoch: zero,
      version: EMPTY,
      release: EMPTY,
      arch: EMPTY,
      algorithm: 0,
      bytes: 0,
      fileTime: 0,
    }
  }

  /** Adds the element's row. @returns false for what is left to the parser; then nothing was added */
  read(element: Buffer): boolean {
    try {
      this.#xml.open(element, START)
      this.#readPackage()
    } catch (error) {
      if (error !== UNUSUAL) throw error
      this.#builder.undo()
      return false
    }
    this.#builder.addRow(this.#row)
    return true
  }

  #readPackage(): void {
    const xml = this.#xml
    this.#elements++
    this.#row.epoch = this.#zero
    this.#row.fileTime = 0
    for (let tag = xml.child(); tag !== NONE; tag = xml.child()) {
      this.#once(tag)
      this.#readChild(tag)
    }
    xml.close(A.package)
    xml.end()
    for (const tag of NEEDED) if (this.#seen[tag] !== this.#elements) throw UNUSUAL
  }

  #readChild(tag: number): void {
    const row = this.#row
    if (tag === T.name) row.name = this.#readWord(tag, CLASS.NAME)
    else if (tag === T.arch) row.arch = this.#readWord(tag, CLASS.ARCH)
    else if (tag === T.version) this.#readVersion()
    else if (tag === T.checksum) this.#readChecksum()
    else if (tag === T.time) row.fileTime = this.#readNumber(tag, T.file, FIELD_LIMITS.time, 0)
    else if (tag === T.size) row.bytes = this.#readNumber(tag, A.package, FIELD_LIMITS.packageBytes)
    else if (tag === T.location) this.#readLocation()
    else if (tag === T.format) this.#readFormat()
    else this.#passOver(tag)
  }

  #passOver(tag: number): void {
    if (!PASSED_OVER.has(tag)) throw UNUSUAL
    this.#noAttributes()
    this.#xml.passOver(tag)
  }

  #readVersion(): void {
    const row = this.#row
    row.version = row.release = EMPTY
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name === A.epoch) row.epoch = this.#epoch()
      else if (name === A.version) row.version = this.#wordOf(CLASS.VERSION)
      else if (name === A.release) row.release = this.#wordOf(CLASS.VERSION)
      else throw UNUSUAL
    }
    if (row.version === EMPTY || row.release === EMPTY) throw UNUSUAL
    this.#xml.close(T.version)
  }

  #readChecksum(): void {
    const xml = this.#xml
    let algorithm: number | undefined
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name === A.type) algorithm = ALGORITHMS.get(xml.wordOfValue())
    }
    xml.text(T.checksum)
    if (algorithm === undefined || (xml.classes & CLASS.HEX) === 0) throw UNUSUAL
    if (xml.to - xml.from !== DIGITS[algorithm]) throw UNUSUAL
    this.#row.algorithm = algorithm
    this.#builder.checksums.add(xml.bytes, xml.from, xml.to)
  }

  #readLocation(): void {
    const xml = this.#xml
    let href: string | undefined
    let base: string | undefined
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name === A.base) base = xml.string()
      else if (name === A.href) href = xml.string()
      else throw UNUSUAL
    }
    this.location.start = xml.tagStart
    this.location.end = xml.at
    xml.close(T.location)
    const isUsable = href !== undefined && href !== '' && href.length <= FIELD_LIMITS.hrefLength
    const place = isUsable ? placeOf(href!, base) : undefined
    if (place === undefined) throw UNUSUAL
    this.#builder.hrefs.addText(place)
  }

  #readFormat(): void {
    const xml = this.#xml
    this.#noAttributes()
    if (xml.isClosed) return xml.close(T.format)
    for (let tag = xml.child(); tag !== NONE; tag = xml.child()) {
      if (tag === T.file) {
        this.#readFile()
        continue
      }
      this.#once(tag)
      if (LISTS.has(tag)) this.#readList(tag, LISTS.get(tag))
      else if (tag === T.headerRange) this.#skipAttributes(tag)
      else this.#passOver(tag)
    }
    xml.close(T.format)
  }

  #readFile(): void {
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name !== A.type) throw UNUSUAL
    }
    this.#xml.text(T.file)
    this.#builder.addFile(this.#number())
  }

  #readList(tag: number, kind: RelationKind | undefined): void {
    const xml = this.#xml
    this.#noAttributes()
    if (xml.isClosed) return xml.close(tag)
    for (let entry = xml.child(); entry !== NONE; entry = xml.child()) {
      if (entry !== T.entry) throw UNUSUAL
      this.#readEntry(kind)
    }
    xml.close(tag)
  }

  #readEntry(kind: RelationKind | undefined): void {
    let relation = EMPTY
    let sense = 0
    let epoch = this.#zero
    let version = EMPTY
    let release = EMPTY
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name === T.name) relation = this.#number()
      else if (name === A.flags) sense = this.#sense()
      else if (name === A.epoch) epoch = this.#number()
      else if (name === A.version) version = this.#number()
      else if (name === A.release) release = this.#number()
    }
    this.#xml.close(T.entry)
    if (kind === undefined) return
    if (relation === EMPTY) throw UNUSUAL
    if (sense === 0) this.#builder.addRelation(kind, relation, 0, EMPTY, EMPTY, EMPTY)
    else this.#builder.addRelation(kind, relation, sense, epoch, version, release)
  }

  /** The number that one of the attributes of a tag holds. */
  #readNumber(tag: number, wanted: number, max: number, otherwise = NONE): number {
    const xml = this.#xml
    let value = otherwise
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute()) {
      if (name === wanted) value = this.#digits(max)
    }
    if (value === NONE) throw UNUSUAL
    xml.close(tag)
    return value
  }

  #readWord(tag: number, wanted: number): number {
    this.#noAttributes()
    this.#xml.text(tag)
    return this.#wordOf(wanted)
  }

  /** The next attribute. @param isFirst  of its tag */
  #attribute(isFirst = false): number {
    if (isFirst) this.#tags++
    const name = this.#xml.attribute()
    if (name === NONE) return NONE
    if (this.#seenAttributes[name] === this.#tags) throw UNUSUAL
    this.#seenAttributes[name] = this.#tags
    return name
  }

  #skipAttributes(tag: number): void {
    for (let name = this.#attribute(true); name !== NONE; name = this.#attribute());
    this.#xml.close(tag)
  }

  #noAttributes(): void {
    if (this.#xml.attribute() !== NONE) throw UNUSUAL
  }

  #once(tag: number): void {
    if (this.#seen[tag] === this.#elements) throw UNUSUAL
    this.#seen[tag] = this.#elements
  }

  /** The value as a number of the pool. */
  #number(): number {
    const { bytes, from, to, classes } = this.#xml
    const { pool } = this.#builder
    if ((classes & CLASS.PLAIN) === 0) return pool.intern(this.#xml.string())
    if (to - from !== 1) return pool.internBytes(bytes, from, to)
    return (this.#single[bytes[from]!] ||= pool.internBytes(bytes, from, to))
  }

  #sense(): number {
    const { bytes, from, to } = this.#xml
    return (to - from === 2 ? SENSES.get(bytes[from]! | (bytes[from + 1]! << 8)) : undefined) ?? 0
  }

  /** The same for a value that may only have some characters, and must have one. */
  #wordOf(wanted: number): number {
    const { from, to, classes } = this.#xml
    if ((classes & wanted) === 0 || from === to || to - from > FIELD_LIMITS.nameLength) throw UNUSUAL
    return this.#number()
  }

  #epoch(): number {
    const { bytes, from, to } = this.#xml
    // a parser's reading takes leading zeros away
    if (bytes[from] === 0x30 && to - from > 1) throw UNUSUAL
    this.#digits(FIELD_LIMITS.epoch)
    return this.#number()
  }

  #digits(max: number): number {
    const { bytes, from, to, classes } = this.#xml
    if ((classes & CLASS.DIGITS) === 0 || from === to || to - from > MAX_DIGITS) throw UNUSUAL
    let value = 0
    for (let i = from; i < to; i++) value = value * 10 + bytes[i]! - 0x30
    if (value > max) throw UNUSUAL
    return value
  }
}
