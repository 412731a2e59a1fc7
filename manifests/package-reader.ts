/**
 * Primary into columns: one pass over the unpacked bytes, quick for what repository tools write, by a parser for every
 * element that is out of the ordinary.
 */
import { TableBuilder, type RepositoryTable } from './package-columns.ts'
import { QuickReader } from './package-quick.ts'
import { PackageScanner } from './package-scan.ts'
import { readPackageStrictly } from './package-xml.ts'
import type { StringPool } from './string-pool.ts'

/** Feed it with `write`, any cut of the bytes will do, then call `end`. */
export class PrimaryReader {
  readonly #builder: TableBuilder
  readonly #quick: QuickReader
  readonly #scanner: PackageScanner
  readonly #what: string
  #strict = 0

  /** @param pool  for the texts; tables of one pool can be compared number by number
   *  @param what  names the document in messages */
  constructor(pool: StringPool, what: string) {
    this.#what = what
    this.#builder = new TableBuilder(pool, what)
    this.#quick = new QuickReader(this.#builder)
    this.#scanner = new PackageScanner('primary', what, (element) => this.add(element))
  }

  /** How many elements a parser had to read. */
  get strictCount(): number {
    return this.#strict
  }

  /** @throws XML_INVALID, REPODATA_INVALID */
  write(chunk: Uint8Array): void {
    this.#scanner.write(chunk)
  }

  /** One element, as cut by PackageScanner. @throws XML_INVALID, REPODATA_INVALID */
  add(element: Buffer): void {
    if (this.#quick.read(element)) return
    this.#strict++
    this.#builder.addStrict(readPackageStrictly(element, this.#what))
  }

  /** @throws XML_INVALID, REPODATA_INVALID when the document is not complete */
  end(): RepositoryTable {
    this.#scanner.end()
    return this.#builder.finish()
  }
}
