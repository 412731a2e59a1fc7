/**
 * Cuts the `<package>` elements out of primary, filelists and other, which are too large for a parser (up to 300 MB).
 *
 * Fast way: in well-formed XML a `<` of text or attributes is always escaped, so `<package` and `</package>` are tags
 * unless they stand in a comment, a CDATA section or a processing instruction, and all of these begin with `<!` or `<?`.
 * As long as neither occurs and nothing but white space stands between the elements, the bytes can be cut at the tags.
 * Otherwise the rest of the document goes through a real parser. Both ways cut the same (property test).
 */
import { GapferryError } from './errors.ts'
import { parseXml, strictParser, feed, endOf, type XmlParser } from './xml.ts'

/** The three documents of a repository; their values are the names of the root elements. */
export const PACKAGE_LISTS = { primary: 'metadata', filelists: 'filelists', other: 'otherdata' } as const
export type PackageListType = keyof typeof PACKAGE_LISTS

export interface ScannedList {
  /** the root's start tag as it came, with its namespaces */
  rootTag: string
  count: number
}

const OPEN = Buffer.from('<package')
const CLOSE = Buffer.from('</package>')
const MAX_HEAD_BYTES = 65_536
const MAX_ELEMENT_BYTES = 64 * 1024 * 1024
/** Before a tag name is complete its `<` may lie this far back. */
const KEPT_BYTES = 16
const HEAD =
  /^(?:\xef\xbb\xbf)?(?:<\?xml version=["']1\.0["'](?: encoding=["']utf-8["'])? ?\?>)?\s*(<([A-Za-z_][\w.:-]*)(?:\s+[\w.:-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*\s*>)\s*$/i

/** Feed it with `write`, any cut of the bytes will do, then call `end`. */
export class PackageScanner {
  readonly #type: PackageListType
  readonly #what: string
  readonly #onPackage: (element: Buffer) => void
  readonly #window = new Window()
  readonly #maxElementBytes: number
  #head: { rootTag: string; name: string } | undefined
  /** of the open element, or of the document's head */
  #start = 0
  #searched = 0
  #strict: StrictScanner | undefined
  #count = 0

  /** @param type  which root is expected
   *  @param what  names the document in messages
   *  @param onPackage  gets each element's bytes, which are only valid during the call
   *  @param maxElementBytes  refuse larger elements and larger gaps between them */
  constructor(
    type: PackageListType,
    what: string,
    onPackage: (element: Buffer) => void,
    maxElementBytes: number = MAX_ELEMENT_BYTES,
  ) {
    this.#type = type
    this.#maxElementBytes = maxElementBytes
    this.#what = what
    this.#onPackage = (element) => {
      this.#count++
      onPackage(element)
    }
  }

  /** @throws XML_INVALID, REPODATA_INVALID, and what `onPackage` throws */
  write(chunk: Uint8Array): void {
    if (this.#strict !== undefined) return this.#strict.write(chunk)
    const from = this.#window.length
    this.#window.append(chunk)
    if (this.#head === undefined) this.#findHead()
    if (this.#strict !== undefined || this.#head === undefined) return
    if (hasMarkup(this.#window.bytes(), Math.max(from, this.#start))) this.#goStrict()
    else this.#cut()
  }

  /** @throws XML_INVALID when the document is not complete; REPODATA_INVALID when it is of another kind or its number of
   *          packages is not what it says */
  end(): ScannedList {
    if (this.#strict === undefined && !this.#cutLast()) this.#goStrict()
    const rootTag = (this.#strict === undefined ? this.#head!.rootTag : this.#strict.end()).replace(/\/>$/, '>')
    const name = /^<([^\s>]+)/.exec(rootTag)?.[1]
    if (name === undefined) throw this.#invalid('the name of its root is too long')
    const root = parseXml(`${rootTag}</${name}>`, this.#what)
    this.#checkRoot(root.name)
    const declared = root.attributes.get('packages')
    if (declared !== String(this.#count)) {
      throw this.#invalid(`says packages="${declared ?? ''}" and holds ${this.#count}`)
    }
    return { rootTag, count: this.#count }
  }

  #findHead(): void {
    const bytes = this.#window.bytes()
    const first = nextOpen(bytes, 0)
    if (first === undefined && bytes.length <= MAX_HEAD_BYTES) return
    const match = first === undefined ? null : HEAD.exec(bytes.toString('latin1', 0, Math.min(first, MAX_HEAD_BYTES)))
    if (match === null) return this.#goStrict()
    this.#checkRoot(match[2]!)
    this.#head = {
      rootTag: bytes.toString('utf8', bytes.indexOf(match[1]!, 0, 'latin1'), first).trimEnd(),
      name: match[2]!,
    }
    this.#start = first!
    this.#searched = first! + OPEN.length
  }

  #cut(): void {
    const bytes = this.#window.bytes()
    for (;;) {
      const next = nextOpen(bytes, this.#searched)
      if (next === undefined) break
      const end = closedBefore(bytes, next)
      if (end === undefined) return this.#goStrict()
      this.#onPackage(bytes.subarray(this.#start, end))
      this.#start = next
      this.#searched = next + OPEN.length
    }
    this.#searched = Math.max(this.#searched, bytes.length - OPEN.length)
    this.#window.drop(this.#start)
    this.#searched -= this.#start
    this.#start = 0
    if (this.#window.length > this.#maxElementBytes) throw this.#invalid('an element is too large')
  }

  /** The last element ends where only the root's end tag follows. */
  #cutLast(): boolean {
    if (this.#head === undefined) return false
    const bytes = this.#window.bytes()
    const close = bytes.lastIndexOf(CLOSE)
    if (close < this.#start) return false
    const end = close + CLOSE.length
    if (bytes.length - end > MAX_HEAD_BYTES) return false
    if (/^\s*<\/([\w.:-]+)\s*>\s*$/.exec(bytes.toString('latin1', end))?.[1] !== this.#head.name) return false
    this.#onPackage(bytes.subarray(this.#start, end))
    return true
  }

  /** Hands over everything from the last element that was cut. */
  #goStrict(): void {
    this.#strict = new StrictScanner(this.#what, this.#head?.rootTag, this.#onPackage, this.#maxElementBytes)
    this.#strict.write(this.#window.bytes().subarray(this.#start))
    this.#window.clear()
  }

  #checkRoot(name: string): void {
    const want = PACKAGE_LISTS[this.#type]
    if (name.slice(name.indexOf(':') + 1) !== want) throw this.#invalid(`expected <${want}>, found <${name}>`)
  }

  #invalid(why: string): GapferryError {
    return new GapferryError('REPODATA_INVALID', `${this.#what}: ${why}`)
  }
}

/** The slow way: bytes as latin1 text, so that the parser's positions count bytes. */
class StrictScanner {
  readonly #what: string
  readonly #parser: XmlParser
  readonly #window = new Window()
  /** the parser's position at the window's first byte */
  #base = 0
  /** of the root's tag or of an element, while it is open */
  #start = -1
  #lastEnd = 0
  #rootTag: string | undefined
  readonly #onPackage: (element: Buffer) => void
  readonly #maxElementBytes: number

  constructor(
    what: string,
    rootTag: string | undefined,
    onPackage: (element: Buffer) => void,
    maxElementBytes: number,
  ) {
    this.#what = what
    this.#maxElementBytes = maxElementBytes
    this.#onPackage = onPackage
    this.#parser = strictParser(what, {
      onOpen: (name, depth) => this.#opened(name, depth),
      onClose: (name, depth) => this.#closed(name, depth),
    })
    this.#parser.on('opentag', () => this.#rootOpened())
    if (rootTag !== undefined) this.write(Buffer.from(rootTag))
  }

  write(chunk: Uint8Array): void {
    const isFirst = this.#base === 0 && this.#window.length === 0
    const sent = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    const bytes = isFirst ? withoutMark(sent) : sent
    this.#window.append(bytes)
    feed(this.#parser, bytes.toString('latin1'), this.#what)
    const done = this.#start >= 0 ? this.#start : this.#base + this.#window.length - KEPT_BYTES
    if (done > this.#base) {
      this.#window.drop(done - this.#base)
      this.#base = done
    }
    if (this.#parser.position - this.#lastEnd > this.#maxElementBytes) {
      throw new GapferryError('REPODATA_INVALID', `${this.#what}: an element is too large`)
    }
  }

  end(): string {
    endOf(this.#parser, this.#what)
    return this.#rootTag!
  }

  #opened(name: string, depth: number): void {
    if (depth !== 1 && (depth !== 2 || name !== 'package')) return
    this.#start = this.#base + this.#window.bytes().lastIndexOf('<', this.#parser.position - this.#base - 2)
  }

  #rootOpened(): void {
    if (this.#rootTag !== undefined) return
    this.#rootTag = this.#slice().toString('utf8')
    this.#start = -1
  }

  #closed(name: string, depth: number): void {
    if (depth !== 2 || name !== 'package') return
    this.#onPackage(this.#slice())
    this.#start = -1
    this.#lastEnd = this.#parser.position
  }

  #slice(): Buffer {
    return this.#window.bytes().subarray(this.#start - this.#base, this.#parser.position - this.#base)
  }
}

/** Bytes that are still needed, in one piece. */
class Window {
  #buffer = Buffer.allocUnsafe(1 << 16)
  length = 0

  append(chunk: Uint8Array): void {
    const needed = this.length + chunk.length
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2))
      this.#buffer.copy(larger, 0, 0, this.length)
      this.#buffer = larger
    }
    this.#buffer.set(chunk, this.length)
    this.length = needed
  }

  bytes(): Buffer {
    return this.#buffer.subarray(0, this.length)
  }

  drop(count: number): void {
    this.#buffer.copyWithin(0, count, this.length)
    this.length -= count
  }

  clear(): void {
    this.length = 0
  }
}

/** Where the next start tag `<package` begins; `<packager` is none. Undefined also when the bytes end too early to tell. */
function nextOpen(bytes: Buffer, from: number): number | undefined {
  for (let at = bytes.indexOf(OPEN, from); at >= 0; at = bytes.indexOf(OPEN, at + OPEN.length)) {
    const after = bytes[at + OPEN.length]
    if (after === undefined) return undefined
    if (isSpace(after) || after === 0x3e || after === 0x2f) return at
  }
  return undefined
}

/** The end of `</package>` when only white space stands between it and `at`. */
function closedBefore(bytes: Buffer, at: number): number | undefined {
  let end = at
  while (end > 0 && isSpace(bytes[end - 1]!)) end--
  const begin = end - CLOSE.length
  return begin >= 0 && CLOSE.compare(bytes, begin, end) === 0 ? end : undefined
}

/** True when `<!` or `<?` stands at or after `from` (its `<` may be the byte before). */
function hasMarkup(bytes: Buffer, from: number): boolean {
  return follows(bytes, from, 0x21) || follows(bytes, from, 0x3f)
}

function follows(bytes: Buffer, from: number, mark: number): boolean {
  for (let at = bytes.indexOf(mark, from); at >= 0; at = bytes.indexOf(mark, at + 1)) {
    if (bytes[at - 1] === 0x3c) return true
  }
  return false
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function withoutMark(bytes: Buffer): Buffer {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes
}
