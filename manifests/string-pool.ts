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
const GROWTH = 4
/** Of UTF-8 for each UTF-16 unit. */
const MOST_BYTES = 3

/** What a slot holds: a text's hash, its number (EMPTY for a vacant slot), where its bytes begin and end. Together in one
 *  place, because most of the time goes into waiting for memory: two waits for a text instead of four. */
const HASH = 0
const NUMBER = 1
const FROM = 2
const TO = 3
const SLOT = 4

export class StringPool {
  #bytes = Buffer.allocUnsafe(FIRST_BYTES)
  #slots = new Int32Array(FIRST_TEXTS * 2 * SLOT)
  #vacant = FIRST_TEXTS
  /** text n stands in #bytes from #ends[n - 1] to #ends[n] */
  #ends = new Uint32Array(FIRST_TEXTS)
  #scratch = Buffer.allocUnsafe(FIRST_TEXTS)
  readonly #texts: string[] = ['']
  #size = 1
  /** odd; unknown outside, so that nobody can write texts that fall together */
  readonly #factor = randomInt(-(2 ** 31), 2 ** 31) | 1

  get size(): number {
    return this.#size
  }

  /** The number of a text, which is there from now on. Lone surrogates become U+FFFD. */
  intern(text: string): number {
    const length = this.#encode(text)
    return this.internBytes(this.#scratch, 0, length)
  }

  /** The same for UTF-8 in `bytes` from `start` to `end`; the caller knows that it is well-formed. */
  internBytes(bytes: Uint8Array, start: number, end: number): number {
    if (start === end) return EMPTY
    const hash = this.#hash(bytes, start, end)
    const slot = this.#slotOf(bytes, start, end, hash)
    return this.#slots[slot + NUMBER]! || this.#add(bytes, start, end, hash, slot)
  }

  /** The number of a text that is there; undefined for one that never was interned. */
  find(text: string): number | undefined {
    const length = this.#encode(text)
    return this.findBytes(this.#scratch, 0, length)
  }

  /** The same for UTF-8. */
  findBytes(bytes: Uint8Array, start: number, end: number): number | undefined {
    if (start === end) return EMPTY
    return this.#slots[this.#slotOf(bytes, start, end, this.#hash(bytes, start, end)) + NUMBER]! || undefined
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
    return hash ^ (hash >>> 13)
  }

  /** Where the slot of the text begins, or the vacant one where it would stand. */
  #slotOf(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots
    const mask = slots.length - 1
    for (let slot = Math.imul(hash, SLOT) & mask; ; slot = (slot + SLOT) & mask) {
      if (slots[slot + NUMBER] === EMPTY) return slot
      if (slots[slot + HASH] === hash && this.#isAt(slot, bytes, start, end)) return slot
    }
  }

  #isAt(slot: number, bytes: Uint8Array, start: number, end: number): boolean {
    const mine = this.#bytes
    let at = this.#slots[slot + FROM]!
    if (this.#slots[slot + TO]! - at !== end - start) return false
    for (let i = start; i < end; i++) if (mine[at++] !== bytes[i]) return false
    return true
  }

  #add(bytes: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    const number = this.#size++
    if (number === this.#ends.length) this.#ends = larger(this.#ends)
    const from = this.#ends[number - 1]!
    const to = from + end - start
    if (to > this.#bytes.length) this.#growBytes(to)
    // a call into the machine's own copy costs more than a short loop
    for (let i = start, at = from; i < end; i++, at++) this.#bytes[at] = bytes[i]!
    this.#ends[number] = to
    this.#slots[slot + HASH] = hash
    this.#slots[slot + NUMBER] = number
    this.#slots[slot + FROM] = from
    this.#slots[slot + TO] = to
    if (--this.#vacant === 0) this.#growSlots()
    return number
  }

  #growBytes(needed: number): void {
    const bytes = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2))
    this.#bytes.copy(bytes)
    this.#bytes = bytes
  }

  /** So many that never more than half are taken. */
  #growSlots(): void {
    const old = this.#slots
    const slots = new Int32Array(old.length * GROWTH)
    const mask = slots.length - 1
    for (let from = 0; from < old.length; from += SLOT) {
      if (old[from + NUMBER] === EMPTY) continue
      let slot = Math.imul(old[from + HASH]!, SLOT) & mask
      while (slots[slot + NUMBER] !== EMPTY) slot = (slot + SLOT) & mask
      for (let i = 0; i < SLOT; i++) slots[slot + i] = old[from + i]!
    }
    this.#slots = slots
    this.#vacant = slots.length / SLOT / 2 - this.#size
  }
}

function larger(column: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const twice = new Uint32Array(column.length * 2)
  twice.set(column)
  return twice
}
