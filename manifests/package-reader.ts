/**
 * Elements of primary into columns: quickly where they are as repository tools write them, by a parser where anything is
 * out of the ordinary.
 */
import { TableBuilder, type RepositoryTable } from './package-columns.ts'
import { QuickReader } from './package-quick.ts'
import { readPackageStrictly, type PackageRow, type TagPlace } from './package-xml.ts'
import type { StringPool } from './string-pool.ts'

/** An element that was read. */
export interface ReadElement {
  row: PackageRow
  /** its `<location>` tag */
  location: TagPlace
}

export class TableReader {
  readonly #builder: TableBuilder
  readonly #quick: QuickReader
  readonly #what: string
  #location: TagPlace = { start: 0, end: 0 }
  #strictCount = 0

  /** @param pool  for the texts; tables of one pool can be compared number by number
   *  @param what  names the document in messages */
  constructor(pool: StringPool, what: string) {
    this.#what = what
    this.#builder = new TableBuilder(pool, what)
    this.#quick = new QuickReader(this.#builder)
  }

  /** How many elements a parser had to read. */
  get strictCount(): number {
    return this.#strictCount
  }

  /** Adds one element. @param element  as cut by PackageScanner @throws XML_INVALID, REPODATA_INVALID */
  add(element: Buffer): void {
    if (this.#quick.read(element)) {
      this.#location = this.#quick.location
      return
    }
    this.#strictCount++
    const strict = readPackageStrictly(element, this.#what)
    this.#builder.addStrict(strict)
    this.#location = strict.location
  }

  /** What was added last. */
  last(): ReadElement {
    return { row: this.#builder.lastRow(), location: this.#location }
  }

  /** All that was added, in its order. */
  table(): RepositoryTable {
    return this.#builder.finish()
  }
}
