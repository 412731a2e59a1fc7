/**
 * How both programs speak to a person: figures, tables, errors. Pure: text in, text out.
 */
import { GapferryError, redact } from './errors.ts'

/** However narrow the terminal is. */
const MIN_WRAPPED = 30
const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** `1234567` → `1.2 MB`; decimal units, as sticks and tariffs count. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`
}

/** `1 package`, `3 packages`, `2 boxes`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : noun.endsWith('x') ? 'es' : 's'}`
}

/** `a, b and 3 more`: the first `most` of many. */
export function shortList(names: readonly string[], most: number): string {
  const more = names.length - most
  return `${names.slice(0, most).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

/** Milliseconds since 1970 → `2026-11-22 05:28 UTC`. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

/** Rows as aligned columns, two spaces apart; the columns in `right` are aligned to the right. Control characters are shown, not sent.
 *  @param options.width  of the terminal: the last column is wrapped to fit */
export function formatTable(
  rows: string[][],
  options: { indent?: string; right?: number[]; width?: number | undefined } = {},
): string {
  const safe = rows.map((row) => row.map(redact))
  const widths: number[] = []
  for (const row of safe) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)))
  const pad = (cell: string, i: number): string =>
    options.right?.includes(i) === true ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)
  const { indent = '', width } = options
  const before = indent.length + widths.slice(0, -1).reduce((sum, one) => sum + one + 2, 0)
  const room = width === undefined ? Infinity : Math.max(width - before, MIN_WRAPPED)
  const format = (row: string[]): string => {
    const [first, ...more] = row.length === widths.length ? wrapped(row.at(-1)!, room) : []
    const cells = first === undefined ? row : [...row.slice(0, -1), first]
    const lines = more.map((text) => `${' '.repeat(before)}${text}`)
    return [`${indent}${cells.map(pad).join('  ')}`.trimEnd(), ...lines].join('\n')
  }
  return safe.map(format).join('\n')
}

/** At spaces; a word that is longer stays whole, so that it can be copied. */
function wrapped(text: string, room: number): string[] {
  if (text.length <= room) return [text]
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || last.length + 1 + word.length > room) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines
}

/** What a person reads when a command fails: what happened, and the next command to run.
 *  @returns lines without a final newline; for an unexpected error its stack, so that it can be reported */
export function formatError(program: string, error: unknown): string {
  if (!(error instanceof GapferryError)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    return `${program}: INTERNAL: this should not happen; please report it with these lines\n${text}`
  }
  const lines = [`${program}: ${error.message} [${error.code}]`]
  if (error.hint !== undefined) lines.push(`  next: ${error.hint}`)
  return lines.join('\n')
}

/** The same for `--json`: one object on standard output, `{"error": {code, message, hint?}}`. */
export function errorObject(error: unknown): { error: { code: string; message: string; hint?: string } } {
  if (!(error instanceof GapferryError)) {
    return { error: { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) } }
  }
  return {
    error: { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) },
  }
}
