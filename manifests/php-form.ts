/**
 * Reads a form body as PHP does (`parse_str`, PHP 8.2): brackets in keys make fields of fields. A box's request for its
 * module list is such a body. Whatever comes is read as far as it makes sense; nothing is an error.
 */

/** Fields by name, in order; a value is text or further fields. Each character stands for one byte. */
export type PhpForm = Map<string, string | PhpForm>

/** A box sends 1 to 10 kB; the mirror takes as much as a body may have. */
const MAX_FORM_BYTES = 1024 * 1024
/** PHP stops at 1000; a box with 300 modules sends 1200. */
const MAX_FIELDS = 10_000
const MAX_KEY_BYTES = 1024
/** PHP stops at 64; a box needs 2. */
const MAX_DEPTH = 8
const BLANK = /[ \t\n\v\f\r]/
/** PHP counts on from the largest number in brackets; larger ones than these are names here. */
const INDEX = /^(?:0|-?[1-9][0-9]{0,14})$/

/** @param body  application/x-www-form-urlencoded, or anything else
 *  @returns what could be read. What is beyond 1 MiB, 10,000 fields, 8 brackets or 1 KiB of key is left out. Never throws */
export function parsePhpForm(body: Buffer): PhpForm {
  const text = body.toString('latin1', 0, MAX_FORM_BYTES)
  const form: PhpForm = new Map()
  const nextIndexes: NextIndexes = new WeakMap()
  let fields = 0
  for (let at = 0; at < text.length && fields < MAX_FIELDS;) {
    const found = text.indexOf('&', at)
    const end = found < 0 ? text.length : found
    if (end > at) {
      fields++
      addPair(form, text.slice(at, end), nextIndexes)
    }
    at = end + 1
  }
  return form
}

/** The text at `path`; undefined where there is none, or further fields. */
export function formText(form: PhpForm, ...path: string[]): string | undefined {
  let value: string | PhpForm | undefined = form
  for (const key of path) {
    if (typeof value !== 'object') return undefined
    value = value.get(key)
  }
  return typeof value === 'string' ? value : undefined
}

/** fields → the number that `[]` stands for next */
type NextIndexes = WeakMap<PhpForm, number>

function addPair(form: PhpForm, pair: string, nextIndexes: NextIndexes): void {
  const equals = pair.indexOf('=')
  const raw = equals < 0 ? pair : pair.slice(0, equals)
  if (raw.length > MAX_KEY_BYTES) return
  const path = keyPath(decode(raw))
  if (path === undefined || path.length > MAX_DEPTH + 1) return
  const value = equals < 0 ? '' : decode(pair.slice(equals + 1))
  let fields = form
  for (const step of path.slice(0, -1)) fields = innerFields(fields, step, nextIndexes)
  put(fields, path.at(-1)!, value, nextIndexes)
}

/** `a[b][]` → a, b, ''. An empty step is the next number. @returns undefined for a key that names nothing */
function keyPath(decoded: string): string[] | undefined {
  const zero = decoded.indexOf('\0')
  const key = (zero < 0 ? decoded : decoded.slice(0, zero)).replace(/^ +/, '')
  const open = key.indexOf('[')
  const name = open < 0 ? key : key.slice(0, open)
  if (name === '') return undefined
  const path = [plainName(name)]
  for (let at = open; at >= 0 && key[at] === '[' && path.length <= MAX_DEPTH + 1;) {
    const isBlank = BLANK.test(key[at + 1] ?? '')
    const close = key.indexOf(']', isBlank ? at + 2 : at + 1)
    if (close < 0) return path.length === 1 ? [plainName(key)] : path
    const step = key.slice(at + 1, close)
    path.push(isBlank && step.length === 1 ? '' : step)
    at = close + 1
  }
  return path
}

/** What PHP cannot have in the name of a variable. */
function plainName(name: string): string {
  return name.replace(/[ .[]/g, '_')
}

function innerFields(fields: PhpForm, step: string, nextIndexes: NextIndexes): PhpForm {
  const known = step === '' ? undefined : fields.get(step)
  if (typeof known === 'object') return known
  const inner: PhpForm = new Map()
  put(fields, step, inner, nextIndexes)
  return inner
}

function put(fields: PhpForm, step: string, value: string | PhpForm, nextIndexes: NextIndexes): void {
  const key = step === '' ? String(nextIndexes.get(fields) ?? 0) : step
  fields.set(key, value)
  if (INDEX.test(key)) nextIndexes.set(fields, Math.max(nextIndexes.get(fields) ?? -Infinity, Number(key) + 1))
}

/** A `%` that no two hexadecimal digits follow stands for itself. By hand: `replace` with a function takes four times as long,
 *  and a box's form has a thousand escapes. */
function decode(text: string): string {
  const spaced = text.includes('+') ? text.replaceAll('+', ' ') : text
  let decoded = ''
  let from = 0
  for (let at = spaced.indexOf('%'); at >= 0; at = spaced.indexOf('%', Math.max(at + 1, from))) {
    const code = digitAt(spaced, at + 1) * 16 + digitAt(spaced, at + 2)
    if (Number.isNaN(code)) continue
    decoded += spaced.slice(from, at) + String.fromCharCode(code)
    from = at + 3
  }
  return from === 0 ? spaced : decoded + spaced.slice(from)
}

/** NaN for what is no hexadecimal digit, and behind the end. */
function digitAt(text: string, at: number): number {
  const code = text.charCodeAt(at)
  if (code >= 48 && code <= 57) return code - 48
  const letter = code | 32
  return letter >= 97 && letter <= 102 ? letter - 87 : NaN
}
