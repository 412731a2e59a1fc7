/**
 * The packages of an inventory: relations stand in a list of their own, each once, and packages name them by number.
 * FORMAT.md#inventory.
 */
import { invalidInventory, unescapeText, type Section } from './inventory-lines.ts'
import type { PackageFacts, RelationKind } from './package-table.ts'
import type { Relation } from './rpm-version.ts'

const MAX_PACKAGES = 20_000
const MAX_RELATIONS = 400_000
/** Of all packages together; 1500 packages of CentOS 7 have some 60,000. */
const MAX_REFERENCES = 2_000_000
const MAX_EPOCH = 2 ** 32 - 1
const FLAGS: Record<string, NonNullable<Relation['flags']>> = {
  '<': 'LT',
  '<=': 'LE',
  '=': 'EQ',
  '>=': 'GE',
  '>': 'GT',
}
const KINDS = new Map<string, RelationKind | 'files'>([
  ['p', 'provides'],
  ['r', 'requires'],
  ['o', 'obsoletes'],
  ['c', 'conflicts'],
  ['m', 'recommends'],
  ['s', 'supplements'],
  ['f', 'files'],
])
const NAMES = 5
const ORDER = [...KINDS.keys()].join('')

/** @throws INVENTORY_INVALID naming the line */
export function readPackages(relations: Section, packages: Section, what: string): PackageFacts[] {
  if (packages.lines.length > MAX_PACKAGES) throw tooMany(packages, MAX_PACKAGES, what)
  if (relations.lines.length > MAX_RELATIONS) throw tooMany(relations, MAX_RELATIONS, what)
  const known = relations.lines.map((line, i) => {
    return parseRelation(line) ?? refuse(relations, i, 'a relation, as "glibc >= 2.17"', what)
  })
  const budget = { left: MAX_REFERENCES }
  return packages.lines.map((line, i) => {
    return readPackage(line, known, budget) ?? refuse(packages, i, 'a package with numbers of relations', what)
  })
}

/** `name`, or `name >= [epoch:]version[-release]`, words as gapferry-box spells them; undefined for anything else. */
function parseRelation(line: string): Relation | undefined {
  const [word = '', sign, evr, ...more] = line.split(' ')
  const name = unescapeText(word, true)
  if (name === undefined || more.length > 0) return undefined
  if (sign === undefined) return { name }
  const flags = FLAGS[sign]
  const text = unescapeText(evr ?? '', true)
  return flags === undefined || text === undefined ? undefined : { name, flags, ...parseEvr(text) }
}

/** As rpm cuts it: digits before a colon, and what follows the last hyphen. */
function parseEvr(text: string): Pick<Relation, 'epoch' | 'version' | 'release'> {
  const [, epoch, version = '', release] = /^(?:(\d*):)?(.*?)(?:-([^-]*))?$/s.exec(text)!
  return {
    ...(epoch === undefined ? {} : { epoch: epoch || '0' }),
    version,
    ...(release === undefined ? {} : { release }),
  }
}

function readPackage(line: string, known: readonly Relation[], budget: { left: number }): PackageFacts | undefined {
  const words = line.split(' ')
  const [name, epoch, version, release, arch] = words.slice(0, NAMES).map((word) => unescapeText(word, true))
  if (name === undefined || version === undefined || release === undefined || arch === undefined) return undefined
  if (!/^(?:0|[1-9]\d{0,9})$/.test(epoch ?? '') || Number(epoch) > MAX_EPOCH) return undefined
  const facts: PackageFacts = { name, epoch: epoch!, version, release, arch }
  let last = -1
  for (const list of words.slice(NAMES)) {
    const [, letter = '', text = ''] = /^([a-z])=([0-9,-]+)$/.exec(list) ?? []
    const numbers = readNumbers(text, known.length, budget)
    const at = ORDER.indexOf(letter)
    const isList = letter !== '' && at > last && numbers !== undefined
    if (!isList || !take(facts, KINDS.get(letter)!, numbers, known)) return undefined
    last = at
  }
  return facts
}

function take(
  facts: PackageFacts,
  kind: RelationKind | 'files',
  numbers: number[],
  known: readonly Relation[],
): boolean {
  const relations = numbers.map((number) => known[number - 1]!)
  if (kind !== 'files') facts[kind] = relations
  else facts.files = relations.map((one) => one.name)
  return kind !== 'files' || relations.every((one) => one.name.startsWith('/'))
}

/** `1-3,7`: numbers from 1 to `max`. */
function readNumbers(text: string, max: number, budget: { left: number }): number[] | undefined {
  const numbers: number[] = []
  for (const part of text.split(',')) {
    const [, first, last] = /^([1-9]\d{0,6})(?:-([1-9]\d{0,6}))?$/.exec(part) ?? []
    const from = Number(first)
    const to = Number(last ?? first)
    if (first === undefined || to > max || (last !== undefined && to <= from)) return undefined
    budget.left -= to - from + 1
    if (budget.left < 0) return undefined
    for (let number = from; number <= to; number++) numbers.push(number)
  }
  return numbers
}

function tooMany(section: Section, max: number, what: string): Error {
  const found = section.lines.length
  return invalidInventory(
    what,
    `line ${section.firstLine - 1}: expected at most ${max} ${section.name}, found ${found}`,
  )
}

function refuse(section: Section, i: number, expected: string, what: string): never {
  const found = section.lines[i]!.slice(0, 60)
  throw invalidInventory(what, `line ${section.firstLine + i}: expected ${expected}, found "${found}"`)
}
