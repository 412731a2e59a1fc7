/**
 * The little of DER (X.690) that certificates need. The writer takes values in their one spelling; the reader accepts nothing
 * but that: definite lengths in their shortest form, tags of one byte.
 */

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  time: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** One value: its tag, its content, and both with the length between them. */
export interface Der {
  tag: number
  content: Buffer
  whole: Buffer
}

const LONGEST_LENGTH_BYTES = 3

/** A value with this tag; its content is `parts`, one after the other. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([tag]), lengthBytes(content.length), content])
}

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return der(TAG.sequence, ...parts)
}

/** @param text  as in 1.2.840.10045.4.3.2 */
export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...arcs] = text.split('.').map(Number)
  return der(TAG.oid, Buffer.from([first * 40 + second, ...arcs.flatMap(base128)]))
}

/** A number from 0 on, most significant byte first, as it should be read. */
export function integer(bytes: Uint8Array): Buffer {
  const from = bytes.findIndex((byte) => byte !== 0)
  const plain = from < 0 ? Buffer.of(0) : Buffer.from(bytes.subarray(from))
  return der(TAG.integer, plain[0]! > 0x7f ? Buffer.concat([Buffer.of(0), plain]) : plain)
}

/** @param unused  bits at the end that do not count */
export function bitString(bytes: Uint8Array, unused = 0): Buffer {
  return der(TAG.bitString, Buffer.of(unused), bytes)
}

/** Whole seconds, in the form that RFC 5280 §4.1.2.5 wants: two digits of the year before 2050, four from then on. */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return digits < '2050' ? der(TAG.utcTime, Buffer.from(digits.slice(2))) : der(TAG.time, Buffer.from(digits))
}

/** The one value that `bytes` are; undefined where they are none, or have more behind it. */
export function readDer(bytes: Buffer): Der | undefined {
  const [only, ...more] = readAll(bytes) ?? []
  return more.length === 0 ? only : undefined
}

/** The values in `bytes`, one after the other; undefined where they end within one. */
export function readAll(bytes: Buffer): Der[] | undefined {
  const values: Der[] = []
  for (let at = 0; at < bytes.length;) {
    const value = readFirst(bytes.subarray(at))
    if (value === undefined) return undefined
    values.push(value)
    at += value.whole.length
  }
  return values
}

function readFirst(bytes: Buffer): Der | undefined {
  const tag = bytes[0]
  const short = bytes[1]
  if (tag === undefined || short === undefined || (tag & 0x1f) === 0x1f) return undefined
  const more = short < 0x80 ? 0 : short - 0x80
  if ((more === 0 && short === 0x80) || more > LONGEST_LENGTH_BYTES || bytes.length < 2 + more) return undefined
  const length = more === 0 ? short : bytes.readUIntBE(2, more)
  const from = 2 + more
  if (1 + lengthBytes(length).length !== from || bytes.length < from + length) return undefined
  return { tag, content: bytes.subarray(from, from + length), whole: bytes.subarray(0, from + length) }
}

function lengthBytes(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length)
  const bytes: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256)
  return Buffer.of(0x80 + bytes.length, ...bytes)
}

function base128(arc: number): number[] {
  const bytes = [arc % 128]
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) bytes.unshift((rest % 128) + 128)
  return bytes
}
