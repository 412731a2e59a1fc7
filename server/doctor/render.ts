/** What a person reads of the doctor's round: a line for each thing that was checked; with a finding what a box would do, and
 *  the remedy. */
import { redact } from '../../manifests/errors.ts'
import type { AnyCheck, Finding, Sheet } from './sheet.ts'

export interface Examined {
  group: string
  origin: string | undefined
  sheet: Sheet
}

/** Lines are broken between words before this column; a longer word stays whole. */
const WIDTH = 100
const MARKS = { passed: 'ok', found: '!', skipped: '-' } as const

export function renderExamined(groups: readonly Examined[]): string {
  const width = Math.max(...groups.flatMap(({ sheet }) => sheet.checks.map(({ check }) => check.length)))
  const sheets = groups.map(({ group, origin, sheet }) => {
    const rows = sheet.checks.flatMap((one, i) => rowsOf(one, sheet.checks[i + 1], width))
    const left = [...sheet.left].map(([check, count]) => hang(lead('found', check, width), `and ${count} more`))
    return [`${group}  ${origin ?? ''}`.trimEnd(), ...rows, ...left].join('\n')
  })
  return sheets.join('\n\n')
}

/** @param next  where it would say the same, it says it for both */
function rowsOf(one: AnyCheck, next: AnyCheck | undefined, width: number): string[] {
  const first = lead(one.state, one.check, width)
  if (!isFinding(one)) return [hang(first, one.text)]
  const rows = [hang(first, `${one.asked}: ${one.text}`)]
  const isSaidNext = next !== undefined && isFinding(next) && next.effect === one.effect && next.remedy === one.remedy
  if (isSaidNext) return rows
  // A command is copied: it stays on one line.
  return [...rows, hang(label('a box'), one.effect), label('remedy') + redact(one.remedy)]
}

function isFinding(one: AnyCheck): one is Finding {
  return one.state === 'found'
}

function lead(state: AnyCheck['state'], check: string, width: number): string {
  return `  ${MARKS[state].padEnd(4)}${check.padEnd(width)}  `
}

function label(name: string): string {
  return `        ${name.padEnd(8)}`
}

/** `text` after `before`, its further lines under its first. Names from the network are in it. */
function hang(before: string, text: string): string {
  const lines = ['']
  for (const word of redact(text).split(' ')) {
    const last = lines.at(-1)!
    const isFull = before.length + last.length + 1 + word.length > WIDTH
    if (last !== '' && isFull) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines.map((line, i) => (i === 0 ? before : ' '.repeat(before.length)) + line).join('\n')
}
