import { GapferryError, type ErrorCode } from './errors.ts'

const MAX_DEPTH = 24
const MAX_ELEMENTS = 4096
const CONSTRUCTED = 0x20
const LONG_FORM = 0x80
const LONG_TAG = 0x1f
const MAX_LENGTH_BYTES = 4

/** That `bytes` are one element of DER and nothing after it, as far as a reader's work depends on it: definite and shortest
 *  lengths, every element inside its parent, small tags, at most 24 levels and 4096 elements. What the elements mean is not
 *  looked at.
 *  @throws `code`, with `what` */
export function checkDer(bytes: Buffer, code: ErrorCode, what: string): void {
  const refuse = (why: string) => new GapferryError(code, `${what}: ${why}`)
  let elements = 0
  const walk = (from: number, to: number, depth: number): void => {
    for (let at = from; at < to;) {
      if (++elements > MAX_ELEMENTS || depth > MAX_DEPTH)
        throw refuse('is nested deeper, or of more elements, than allowed')
      const body = bodyOf(bytes, at, to)
      if (body === undefined) throw refuse('is not DER, or was cut')
      if ((bytes[at]! & CONSTRUCTED) !== 0) walk(body.start, body.end, depth + 1)
      at = body.end
    }
  }
  if (bodyOf(bytes, 0, bytes.length)?.end !== bytes.length) throw refuse('is not DER, or was cut')
  walk(0, bytes.length, 1)
}

/** Where the content of the element at `at` is; undefined where it leaves its parent or is spelled in another way. */
function bodyOf(bytes: Buffer, at: number, to: number): { start: number; end: number } | undefined {
  if (at + 2 > to || (bytes[at]! & LONG_TAG) === LONG_TAG) return undefined
  const first = bytes[at + 1]!
  if (first < LONG_FORM) return at + 2 + first <= to ? { start: at + 2, end: at + 2 + first } : undefined
  const count = first - LONG_FORM
  const start = at + 2 + count
  if (count < 1 || count > MAX_LENGTH_BYTES || start > to) return undefined
  const length = bytes.readUIntBE(at + 2, count)
  const isShortest = length >= LONG_FORM && bytes[at + 2] !== 0
  return isShortest && start + length <= to ? { start, end: start + length } : undefined
}
