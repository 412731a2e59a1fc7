/**
 * Steps through XML of the plainest kind: tags and attributes from a given vocabulary, values in double quotes, nothing
 * that begins with `<!` or `<?`. At anything else it throws UNUSUAL, and the caller takes a parser; so what it reads, a
 * parser reads the same. Texts and values are places in the bytes, and strings only where someone asks for them.
 */
import { EMPTY, type StringPool } from './string-pool.ts'

/** Thrown at what is left to a parser; one for all, because making an error costs more than reading a tag. */
export const UNUSUAL = new Error('left to the parser')

/** No further child, or no further attribute. */
export const NONE = -1

/** Sets of bytes. A value that is not PLAIN holds an entity, other than ASCII, or worse. */
export const CLASS = {
  PLAIN: 1,
  NAME: 2,
  ARCH: 4,
  VERSION: 8,
  DIGITS: 16,
  HEX: 32,
  LINES: 64,
  CHARACTERS: 128,
} as const

const LESS = 0x3c
const GREATER = 0x3e
const SLASH = 0x2f
const EQUALS = 0x3d
const QUOTE = 0x22
const HYPHEN = 0x2d
const AMPERSAND = 0x26
const BRACKET = 0x5d
const CLASSES = classesOf({
  [CLASS.PLAIN]: /[ -~]/,
  [CLASS.NAME]: /[A-Za-z0-9_.+-]/,
  [CLASS.ARCH]: /[A-Za-z0-9_+]/,
  [CLASS.VERSION]: /[!-,.-9;-~]/,
  [CLASS.DIGITS]: /[0-9]/,
  [CLASS.HEX]: /[0-9a-f]/,
  [CLASS.LINES]: /[ -~]/,
})
const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
const ENTITY_SPELLINGS = Object.keys(ENTITIES).map((name) => Buffer.from(`&${name};`))
const EVERY_CLASS = 0xff
const MAX_VALUE_BYTES = 65_536

export class QuickXml {
  bytes: Buffer = Buffer.alloc(0)
  /** the value or text that was read last */
  from = 0
  to = 0
  /** the CLASSes that all its bytes belong to; every one when it is empty */
  classes = 0
  /** whether the start tag that was read last is an end tag too */
  isClosed = false
  /** where the tag begins whose name was read last */
  tagStart = 0
  #at = 0
  readonly #words: StringPool
  readonly #spellings: readonly Uint8Array[]
  /** which tag came last after a tag, which attribute after an attribute or a tag */
  readonly #nextTag: Uint8Array
  readonly #nextAttribute: Uint8Array
  #lastTag = 0
  #lastWord = 0

  /** @param words  all names of tags and attributes that may come */
  constructor(words: StringPool) {
    this.#words = words
    this.#spellings = Array.from({ length: words.size }, (_, i) => Buffer.from(words.text(i)))
    this.#nextTag = new Uint8Array(words.size)
    this.#nextAttribute = new Uint8Array(words.size)
  }

  /** how far it has read */
  get at(): number {
    return this.#at
  }

  /** Begins anew, with bytes that must start so. */
  open(bytes: Buffer, start: Buffer): void {
    this.bytes = bytes
    this.#at = start.length
    for (let i = 0; i < start.length; i++) if (bytes[i] !== start[i]) throw UNUSUAL
  }

  /** The name of the next tag, whose attributes come next; NONE where the end tag of the parent stands. */
  child(): number {
    this.#space()
    if (this.bytes[this.#at] !== LESS) throw UNUSUAL
    if (this.bytes[this.#at + 1] === SLASH) return NONE
    this.tagStart = this.#at++
    this.#lastTag = this.#lastWord = this.#word(this.#nextTag, this.#lastTag)
    return this.#lastTag
  }

  /** The name of the next attribute, whose value is in `from` and `to`; NONE at the end of the tag. */
  attribute(): number {
    const { bytes } = this
    const start = this.#at
    this.#space()
    if (bytes[this.#at] === GREATER || bytes[this.#at] === SLASH) return this.#endOfTag()
    if (this.#at === start) throw UNUSUAL
    const name = this.#word(this.#nextAttribute, this.#lastWord)
    this.#lastWord = name
    if (bytes[this.#at] !== EQUALS || bytes[this.#at + 1] !== QUOTE) throw UNUSUAL
    this.#value(this.#at + 2, QUOTE)
    this.#at = this.to + 1
    return name
  }

  /** Reads the text of an element whose start tag was just read, and its end tag. */
  text(tag: number): void {
    if (this.isClosed) {
      this.from = this.to = this.#at
      this.classes = EVERY_CLASS
    } else {
      this.#value(this.#at, LESS)
      this.#at = this.to
    }
    this.close(tag)
  }

  /** Passes over such a text, but only if a parser would. */
  passOver(tag: number): void {
    if (!this.isClosed) this.#at = endOfText(this.bytes, this.#at)
    this.close(tag)
  }

  /** Passes over the end tag, unless the start tag was one. */
  close(tag: number): void {
    if (this.isClosed) {
      this.isClosed = false
      return
    }
    this.#space()
    if (this.bytes[this.#at] !== LESS || this.bytes[this.#at + 1] !== SLASH) throw UNUSUAL
    this.#at += 2
    if (!this.#isNext(tag) || this.bytes[this.#at] !== GREATER) throw UNUSUAL
    this.#at++
  }

  /** @throws UNUSUAL unless nothing but white space follows */
  end(): void {
    this.#space()
    if (this.#at !== this.bytes.length) throw UNUSUAL
  }

  /** The value as a string, entities resolved. */
  string(): string {
    const { bytes, from, to } = this
    if ((this.classes & CLASS.PLAIN) !== 0) return bytes.toString('latin1', from, to)
    // others are spelled anew by a parser, or refused
    if ((this.classes & CLASS.CHARACTERS) === 0) throw UNUSUAL
    const text = decode(bytes.subarray(from, to))
    return text.includes('&') ? text.replace(/&([^;]*)(;?)/g, entity) : text
  }

  /** The value as a word of the vocabulary; NONE where it is none. */
  wordOfValue(): number {
    return this.#words.findBytes(this.bytes, this.from, this.to) ?? NONE
  }

  #space(): void {
    const { bytes } = this
    let at = this.#at
    for (let byte = bytes[at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; byte = bytes[++at]);
    this.#at = at
  }

  /** Most words come after the word that they came after last time: looking there first takes a third less time. */
  #word(next: Uint8Array, last: number): number {
    const guess = next[last]!
    const { bytes } = this
    const start = this.#at
    if (guess !== EMPTY && this.#isNext(guess) && !isWordByte(bytes[this.#at]!)) return guess
    let at = start
    while (isWordByte(bytes[at]!)) at++
    const found = this.#words.findBytes(bytes, start, at)
    if (found === undefined || start === at) throw UNUSUAL
    this.#at = at
    next[last] = found
    return found
  }

  #isNext(word: number): boolean {
    const { bytes } = this
    const spelling = this.#spellings[word]!
    let at = this.#at
    for (let i = 0; i < spelling.length; i++) if (bytes[at++] !== spelling[i]) return false
    this.#at = at
    return true
  }

  #endOfTag(): typeof NONE {
    this.isClosed = this.bytes[this.#at] === SLASH
    if (this.isClosed && this.bytes[this.#at + 1] !== GREATER) throw UNUSUAL
    this.#at += this.isClosed ? 2 : 1
    return NONE
  }

  #value(from: number, end: number): void {
    const { bytes } = this
    const last = Math.min(bytes.length, from + MAX_VALUE_BYTES)
    let classes = EVERY_CLASS
    let at = from
    for (; at < last && bytes[at] !== end; at++) classes &= CLASSES[bytes[at]!]!
    if (at === last) throw UNUSUAL
    this.from = from
    this.to = at
    this.classes = classes
  }
}

/** Letters, digits, `:`, `-` and more; the vocabulary decides. */
function isWordByte(byte: number): boolean {
  return byte > GREATER || (byte > SLASH && byte < LESS) || byte === HYPHEN
}

function classesOf(patterns: Record<number, RegExp>): Uint8Array {
  const classes = new Uint8Array(256)
  for (const [bit, pattern] of Object.entries(patterns)) {
    for (let byte = 0x20; byte < 0x7f; byte++) {
      // `]]>` is no text, and an entity or a tag is another than it looks
      const isPlain = byte !== AMPERSAND && byte !== LESS && byte !== GREATER
      if (isPlain && pattern.test(String.fromCharCode(byte))) classes[byte]! |= Number(bit)
    }
  }
  for (const byte of [0x09, 0x0a, 0x0d]) classes[byte]! |= CLASS.LINES
  for (let byte = 0x20; byte < 256; byte++) if (byte !== LESS) classes[byte]! |= CLASS.CHARACTERS
  return classes
}

const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function decode(bytes: Uint8Array): string {
  let text: string
  try {
    text = DECODER.decode(bytes)
  } catch {
    throw UNUSUAL
  }
  if (/[\ufffe\uffff]|\]\]>/.test(text)) throw UNUSUAL
  return text
}

function entity(_: string, name: string, end: string): string {
  const text = end !== '' && Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : undefined
  if (text === undefined) throw UNUSUAL
  return text
}

/** Where a text ends that nobody asks for. */
function endOfText(bytes: Buffer, from: number): number {
  let isAscii = true
  let at = from
  for (; at < bytes.length && bytes[at] !== LESS; at++) {
    const byte = bytes[at]!
    if ((CLASSES[byte]! & CLASS.LINES) !== 0) continue
    if (byte === AMPERSAND) at = entityEnd(bytes, at)
    else if (byte >= 0x80) isAscii = false
    else if (byte !== GREATER || (bytes[at - 1] === BRACKET && bytes[at - 2] === BRACKET)) throw UNUSUAL
  }
  if (!isAscii) decode(bytes.subarray(from, at))
  return at
}

function entityEnd(bytes: Buffer, at: number): number {
  for (const spelling of ENTITY_SPELLINGS) {
    let i = 0
    while (i < spelling.length && bytes[at + i] === spelling[i]) i++
    if (i === spelling.length) return at + i - 1
  }
  throw UNUSUAL
}
