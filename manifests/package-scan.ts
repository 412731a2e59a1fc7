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
/** What is searched for: up to here Node looks for the first byte with the machine's memchr, beyond it skips by itself,
 *  which takes three times as long. */
const OPEN_START = OPEN.subarray(0, 5)
const CLOSE = Buffer.from('</package>')
const MARKS = [0x21, 0x3f]
const LESS = 0x3c
const GREATER = 0x3e
const SLASH = 0x2f
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
  /** the open element so far, or the document's head */
  readonly #pending = new Window()
  readonly #maxElementBytes: number
  #head: { rootTag: string; name: string } | undefined
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
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
    if (this.#head === undefined) return this.#findHead(bytes)
    this.#scan(bytes)
  }

  /** @throws XML_INVALID when the document is not complete; REPODATA_INVALID when it is of another kind or its number of
   *          packages is not what it says */
  end(): ScannedList {
    if (this.#strict === undefined && !this.#cutLast()) this.#goStrict()
    const rootTag = (this.#strict === undefined ? this.#head!.rootTag : this.#strict.end()).replace(/\/>$/, '>')
    const root = parseXml(`${rootTag}</${/^<([^\s>]+)/.exec(rootTag)![1]!}>`, this.#what)
    this.#checkRoot(root.name)
    const declared = root.attributes.get('packages')
    if (declared !== String(this.#count)) {
      throw this.#invalid(`says packages="${declared ?? ''}" and holds ${this.#count}`)
    }
    return { rootTag, count: this.#count }
  }

  #findHead(chunk: Buffer): void {
    this.#pending.append(chunk)
    const bytes = this.#pending.bytes()
    const first = nextOpen(bytes, 0)
    if (first === undefined && bytes.length <= MAX_HEAD_BYTES) return
    const match = first === undefined ? null : HEAD.exec(bytes.toString('latin1', 0, Math.min(first, MAX_HEAD_BYTES)))
    if (match === null) return this.#goStrict()
    this.#checkRoot(match[2]!)
    this.#head = {
      rootTag: bytes.toString('utf8', bytes.indexOf(match[1]!, 0, 'latin1'), first).trimEnd(),
      name: match[2]!,
    }
    const rest = Buffer.from(bytes.subarray(first))
    this.#pending.clear()
    this.#scan(rest)
  }

  #scan(chunk: Buffer): void {
    const isOpen = this.#pending.length > 0
    if (hasMarkup(chunk) || (isOpen && isMarkup(this.#pending.last(), chunk[0]))) return this.#goStrict(chunk)
    if (isOpen && !this.#cutAtSeam(chunk)) return this.#goStrict(chunk)
    let start = 0
    let next = nextOpen(chunk, isOpen ? 0 : OPEN.length)
    if (isOpen && next !== undefined) {
      this.#pending.append(chunk.subarray(0, next))
      const end = closedBefore(this.#pending.bytes(), this.#pending.length)
      if (end === undefined) return this.#goStrict(chunk.subarray(next))
      this.#onPackage(this.#pending.bytes().subarray(0, end))
      this.#pending.clear()
      start = next
      next = nextOpen(chunk, start + OPEN.length)
    }
    for (; next !== undefined; next = nextOpen(chunk, start + OPEN.length)) {
      const end = closedBefore(chunk, next)
      if (end === undefined) return this.#goStrict(chunk.subarray(start))
      this.#onPackage(chunk.subarray(start, end))
      start = next
    }
    this.#pending.append(chunk.subarray(start))
    if (this.#pending.length > this.#maxElementBytes) throw this.#invalid('an element is too large')
  }

  /** Cuts where a tag begins in what is pending and ends in `chunk`. @returns false when that needs the parser */
  #cutAtSeam(chunk: Buffer): boolean {
    const { length } = this.#pending
    const from = Math.max(0, length - OPEN.length)
    const seam = Buffer.concat([this.#pending.bytes().subarray(from), chunk.subarray(0, OPEN.length)])
    const found = nextOpen(seam, 0)
    // one that begins in the chunk is found there
    if (found === undefined || from + found >= length) return true
    const next = from + found
    const end = closedBefore(this.#pending.bytes(), next)
    if (end === undefined) return false
    this.#onPackage(this.#pending.bytes().subarray(0, end))
    this.#pending.drop(next)
    return true
  }

  /** The last element ends where only the root's end tag follows. */
  #cutLast(): boolean {
    if (this.#head === undefined) return false
    const bytes = this.#pending.bytes()
    const close = bytes.lastIndexOf(CLOSE)
    if (close < 0) return false
    const end = close + CLOSE.length
    if (bytes.length - end > MAX_HEAD_BYTES) return false
    if (/^\s*<\/([\w.:-]+)\s*>\s*$/.exec(bytes.toString('latin1', end))?.[1] !== this.#head.name) return false
    this.#onPackage(bytes.subarray(0, end))
    return true
  }

  /** Hands over everything from the last element that was cut. @param rest  what comes after what is pending */
  #goStrict(rest?: Buffer): void {
    this.#strict = new StrictScanner(this.#what, this.#head?.rootTag, this.#onPackage, this.#maxElementBytes)
    this.#strict.write(this.#pending.bytes())
    if (rest !== undefined) this.#strict.write(rest)
    this.#pending.clear()
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

  last(): number | undefined {
    return this.length === 0 ? undefined : this.#buffer[this.length - 1]
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
  for (let at = bytes.indexOf(OPEN_START, from); at >= 0; at = bytes.indexOf(OPEN_START, at + OPEN_START.length)) {
    const after = bytes[at + OPEN.length]
    if (after === undefined) return undefined
    if ((isSpace(after) || after === GREATER || after === SLASH) && isOpenAt(bytes, at)) return at
  }
  return undefined
}

function isOpenAt(bytes: Buffer, at: number): boolean {
  for (let i = OPEN_START.length; i < OPEN.length; i++) if (bytes[at + i] !== OPEN[i]) return false
  return true
}

/** The end of `</package>` when only white space stands between it and `at`. */
function closedBefore(bytes: Buffer, at: number): number | undefined {
  let end = at
  while (end > 0 && isSpace(bytes[end - 1]!)) end--
  const begin = end - CLOSE.length
  return begin >= 0 && CLOSE.compare(bytes, begin, end) === 0 ? end : undefined
}

/** Looks for the second byte, which is rare; `<` begins every tag. */
function hasMarkup(bytes: Buffer): boolean {
  for (const mark of MARKS) {
    for (let at = bytes.indexOf(mark); at >= 0; at = bytes.indexOf(mark, at + 1)) {
      if (isMarkup(bytes[at - 1], mark)) return true
    }
  }
  return false
}

/** Whether two bytes are `<!` or `<?`. */
function isMarkup(first: number | undefined, second: number | undefined): boolean {
  return first === LESS && MARKS.some((mark) => mark === second)
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function withoutMark(bytes: Buffer): Buffer {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes
}
