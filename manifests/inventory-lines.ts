/**
 * The outside of an inventory: which lines are there, in which section, and that none is missing. A file that was pasted,
 * cut off or has a banner of the login in front is refused with the line, because a list of packages that is a little short
 * gives a bundle that is a little short. FORMAT.md#inventory.
 */
import { sha256Of } from './digest.ts'
import { GapferryError } from './errors.ts'

export interface Section {
  name: string
  /** what stands after the count; empty where nothing does */
  argument: string
  lines: readonly string[]
  /** number in the file of the first of its lines, from 1 */
  firstLine: number
}

export const MAX_INVENTORY_BYTES = 4 * 1024 * 1024
const MAX_LINE = 64 * 1024
const MAX_SHOWN = 60
const FIRST = 'gapferry-inventory 1'
const SECTION = /^section ([a-z][a-z0-9-]{0,39}) (0|[1-9][0-9]{0,6})(?: ([!-~]{1,1024}))?$/
const END = /^end ([1-9][0-9]{0,6}) ([0-9a-f]{64})$/

/** The sections in their order, each only once (`file` once for each argument).
 *  @param what  names the file in messages
 *  @throws INVENTORY_INVALID naming the line, what was expected there and what was found */
export function readSections(bytes: Buffer, what: string): Section[] {
  if (bytes.length > MAX_INVENTORY_BYTES) {
    throw invalidInventory(what, `expected at most ${MAX_INVENTORY_BYTES} bytes, found ${bytes.length}`)
  }
  const lines = bytes.toString('latin1').split('\n')
  checkFirst(lines[0]!, what)
  lines.forEach((line, i) => checkLine(line, i + 1, what))
  const sections: Section[] = []
  const seen = new Set<string>()
  let at = 1
  for (; SECTION.test(lines[at] ?? ''); at += sections.at(-1)!.lines.length + 1) {
    sections.push(sectionAt(lines, at, seen, what))
  }
  checkEnd(bytes, lines, at, what)
  return sections
}

/** @param line  number of the line, where one is to blame */
export function invalidInventory(what: string, why: string, hint?: string): GapferryError {
  return new GapferryError('INVENTORY_INVALID', `${what}: ${why}`, {
    hint: hint ?? 'on the box, as root: gapferry-box inventory > box.gfi; then copy that file unchanged',
  })
}

/** Text with `%xx` for bytes that are not printable ASCII, as it was; undefined where it is spelled another way.
 *  @param isWord  a space is spelled `%20`, too */
export function unescapeText(text: string, isWord: boolean): string | undefined {
  if (isWord && (text === '' || text.includes(' '))) return undefined
  if (!text.includes('%')) return text
  const bytes: number[] = []
  for (let i = 0; i < text.length; i++) {
    const code = text[i] === '%' ? escaped(text.slice(i + 1, i + 3), isWord) : text.charCodeAt(i)
    if (code === undefined) return undefined
    if (text[i] === '%') i += 2
    bytes.push(code)
  }
  return Buffer.from(bytes).toString('utf8')
}

/** The lines of a section as they were on the box. @throws INVENTORY_INVALID */
export function textLines(section: Section, what: string): string[] {
  return section.lines.map((line, i) => unescapeText(line, false) ?? throwUnexpected(section, i, what))
}

function throwUnexpected(section: Section, i: number, what: string): never {
  throw unexpected(section, i, 'bytes in the spelling of gapferry-box', what)
}

/** @param i  index of the line in its section */
export function unexpected(section: Section, i: number, expected: string, what: string): GapferryError {
  const found = section.lines[i]!.slice(0, 60)
  return invalidInventory(what, `line ${section.firstLine + i}: expected ${expected}, found "${found}"`)
}

function escaped(hex: string, isWord: boolean): number | undefined {
  if (!/^[0-9a-f]{2}$/.test(hex)) return undefined
  const code = Number.parseInt(hex, 16)
  const isPlain = code >= 0x20 && code < 0x7f && code !== 0x25 && !(isWord && code === 0x20)
  return isPlain ? undefined : code
}

function checkFirst(line: string, what: string): void {
  if (line === FIRST || line === `${FIRST}\r`) return // checkLine says what is wrong with the latter
  const version = /^gapferry-inventory (\d{1,9})$/.exec(line)?.[1]
  if (version !== undefined) {
    throw invalidInventory(what, `line 1: expected version 1, found version ${version}`, 'install a newer gapferry')
  }
  throw invalidInventory(what, `line 1: expected "${FIRST}", found ${shown(line)}`)
}

function checkLine(line: string, number: number, what: string): void {
  if (line.length > MAX_LINE) throw invalidInventory(what, `line ${number}: expected at most ${MAX_LINE} characters`)
  if (/^[ -~]*$/.test(line)) return
  const isCrlf = /^[ -~]*\r$/.test(line)
  const why = isCrlf ? 'found a line end of Windows (CRLF)' : `found ${shown(line)}`
  throw invalidInventory(what, `line ${number}: expected printable ASCII, ${why}`)
}

/** @param seen  sections before this one, by their words */
function sectionAt(lines: readonly string[], at: number, seen: Set<string>, what: string): Section {
  const [, name = '', count, argument = ''] = SECTION.exec(lines[at]!)!
  const words = `${name} ${argument}`
  if (seen.has(words)) {
    throw invalidInventory(
      what,
      `line ${at + 1}: the section ${name} ${argument} stands there twice`.replace('  ', ' '),
    )
  }
  seen.add(words)
  const end = at + 1 + Number(count)
  let early = at + 1
  while (early < Math.min(end, lines.length - 1) && !END.test(lines[early]!)) early++
  if (early < end || end >= lines.length) {
    const found = early - at - 1
    throw invalidInventory(what, `line ${at + 1}: the section ${name} says ${count} lines, found ${found}`)
  }
  return { name, argument, lines: lines.slice(at + 1, end), firstLine: at + 2 }
}

/** `at`: where the sections end. */
function checkEnd(bytes: Buffer, lines: readonly string[], at: number, what: string): void {
  const match = END.exec(lines[at] ?? '')
  const isLast = at >= lines.length - 1
  if (match === null) {
    const found = isLast ? 'the end of the file: it was cut off' : shown(lines[at] ?? '')
    throw invalidInventory(what, `line ${at + 1}: expected a section or the last line, found ${found}`)
  }
  if (isLast || lines[at + 1] !== '' || lines.length > at + 2) {
    const found = isLast ? 'no line end' : shown(lines[at + 1] || lines[at + 2]!)
    throw invalidInventory(what, `line ${at + 2}: expected nothing after the last line, found ${found}`)
  }
  if (Number(match[1]) !== at) {
    throw invalidInventory(what, `line ${at + 1}: expected ${match[1]} lines before this one, found ${at}`)
  }
  const digest = sha256Of(bytes.subarray(0, bytes.length - lines[at]!.length - 1))
  if (digest === match[2]) return
  throw invalidInventory(what, `line ${at + 1}: expected SHA-256 ${match[2]}, found ${digest}: something was changed`)
}

function shown(line: string): string {
  return `"${line.slice(0, MAX_SHOWN)}${line.length > MAX_SHOWN ? '…' : ''}"`
}
