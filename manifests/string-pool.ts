/**
 * Texts by number, each once. They stand as UTF-8 in one piece of memory, found through a table with open addressing, so
 * that a reader of bytes needs no string for a text that is there already: a repository has 30,000 packages and a million
 * texts, of which one in ten is new. Numbers are kept as long as the pool is.
 */
import { randomInt } from 'node:crypto'

/** The number of the empty text in every pool; in a relation it stands for what was left out. */
export const EMPTY = 0

const FIRST_BYTES = 1 << 16
const FIRST_TEXTS = 1 << 10
/** Of UTF-8 for each UTF-16 unit. */
const MOST_BYTES = 3

export class StringPool {
  #bytes = Buffer.allocUnsafe(FIRST_BYTES)
  /** text n stands in #bytes from #ends[n - 1] to #ends[n] */
  #ends = new Uint32Array(FIRST_TEXTS)
  #hashes = new Uint32Array(FIRST_TEXTS)
  /** numbers by hash; EMPTY where none stands */
  #slots = new Uint32Array(FIRST_TEXTS * 2)
  #scratch = Buffer.allocUnsafe(FIRST_TEXTS)
  readonly #texts: string[] = ['']
  #size = 1
  /** unknown outside, so that nobody can write texts that fall together */
  readonly #factor = randomInt(2 ** 31) * 2 + 1

  get size(): number {
    return this.#size
  }

  /** The number of a text, which is there from now on. Lone surrogates become U+FFFD. */
  intern(text: string): number {
    return this.internBytes(this.#scratch, 0, this.#encode(text))
  }

  /** The same for UTF-8 in `bytes` from `start` to `end`; the caller knows that it is well-formed. */
  internBytes(bytes: Uint8Array, start: number, end: number): number {
    if (start === end) return EMPTY
    const hash = this.#hash(bytes, start, end)
    const slot = this.#slotOf(bytes, start, end, hash)
    return this.#slots[slot]! || this.#add(bytes, start, end, hash, slot)
  }

  /** The number of a text that is there; undefined for one that never was interned. */
  find(text: string): number | undefined {
    return this.findBytes(this.#scratch, 0, this.#encode(text))
  }

  /** The same for UTF-8. */
  findBytes(bytes: Uint8Array, start: number, end: number): number | undefined {
    if (start === end) return EMPTY
    return this.#slots[this.#slotOf(bytes, start, end, this.#hash(bytes, start, end))]! || undefined
  }

  text(number: number): string {
    return (this.#texts[number] ??= this.#bytes.toString('utf8', this.#ends[number - 1], this.#ends[number]))
  }

  #encode(text: string): number {
    if (this.#scratch.length < text.length * MOST_BYTES)
      this.#scratch = Buffer.allocUnsafe(text.length * MOST_BYTES * 2)
    return this.#scratch.write(text, 'utf8')
  }

  #hash(bytes: Uint8Array, start: number, end: number): number {
    const factor = this.#factor
    let hash = factor
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, factor)
    hash = Math.imul(hash ^ (hash >>> 15), factor)
    return (hash ^ (hash >>> 13)) >>> 0
  }

  /** The slot of the text, or the vacant one where it would stand. */
  #slotOf(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots
    const mask = slots.length - 1
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const number = slots[slot]!
      if (number === EMPTY || (this.#hashes[number] === hash && this.#isAt(number, bytes, start, end))) return slot
    }
  }

  #isAt(number: number, bytes: Uint8Array, start: number, end: number): boolean {
    const mine = this.#bytes
    let at = this.#ends[number - 1]!
    if (this.#ends[number]! - at !== end - start) return false
    for (let i = start; i < end; i++) if (mine[at++] !== bytes[i]) return false
    return true
  }

  #add(bytes: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const number = this.#size++
    if (number === this.#ends.length) this.#growTexts()
    const from = this.#ends[number - 1]!
    const to = from + end - start
    if (to > this.#bytes.length) this.#growBytes(to)
    // a call into the machine's own copy costs more than a short loop
    for (let i = start, at = from; i < end; i++, at++) this.#bytes[at] = bytes[i]!
    this.#ends[number] = to
    this.#hashes[number] = hash
    this.#slots[slot] = number
    // kept at most half full
    if (this.#size * 2 > this.#slots.length) this.#growSlots()
    return number
  }

  #growTexts(): void {
    this.#ends = larger(this.#ends)
    this.#hashes = larger(this.#hashes)
  }

  #growBytes(needed: number): void {
    const bytes = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2))
    this.#bytes.copy(bytes)
    this.#bytes = bytes
  }

  #growSlots(): void {
    const slots = new Uint32Array(this.#slots.length * 2)
    const mask = slots.length - 1
    for (let number = 1; number < this.#size; number++) {
      let slot = this.#hashes[number]! & mask
      while (slots[slot] !== EMPTY) slot = (slot + 1) & mask
      slots[slot] = number
    }
    this.#slots = slots
  }
}

function larger(column: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const twice = new Uint32Array(column.length * 2)
  twice.set(column)
  return twice
}
