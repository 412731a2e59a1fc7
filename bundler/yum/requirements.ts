/**
 * Rich requirements of rpm 4.13 and later, `(a if b >= 1)`: their plain parts, and whether what could be installed may
 * fulfil one. Rule: rpm's "Boolean Dependencies".
 */
import type { Relation } from '../../manifests/rpm-version.ts'

const OPERATORS = new Set(['and', 'or', 'if', 'else', 'unless', 'with', 'without'])
const SIGNS = { '=': 'EQ', '<': 'LT', '<=': 'LE', '>': 'GT', '>=': 'GE' } as const
/** Both sides are needed; every other operator may hold with its first side alone. */
const BOTH = new Set(['and', 'with'])

/** The plain requirements in a rich one: each counts as needed. */
export function atomsOf(relation: Relation): Relation[] {
  if (!relation.name.startsWith('(')) return [relation]
  const atoms: Relation[] = []
  const words = relation.name.split(/\s+/).map(withoutOuterBrackets)
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (word === '' || OPERATORS.has(word)) continue
    const { atom, used } = atomAt(words, i)
    atoms.push(atom)
    i += used - 1
  }
  return atoms
}

/** Whether a requirement may be fulfilled where its parts are or are not.
 *  @param holds  may this plain part be there?
 *  @returns true in doubt: an `if` or `unless` whose condition may be absent, brackets that do not match */
export function mayHold(relation: Relation, holds: (atom: Relation) => boolean): boolean {
  if (!relation.name.startsWith('(')) return holds(relation)
  const words = relation.name.replace(/\s+/g, ' ').split(' ').flatMap(splitBrackets)
  const at = { words, i: 0 }
  const result = evaluate(at, holds, 0)
  return at.i < words.length || result
}

const MAX_DEPTH = 100

/** From behind a bracket up to its end. */
function evaluate(at: { words: string[]; i: number }, holds: (atom: Relation) => boolean, depth: number): boolean {
  let result: boolean | undefined
  let operator = ''
  while (at.i < at.words.length) {
    const word = at.words[at.i]!
    if (word === ')') {
      at.i++
      break
    }
    if (OPERATORS.has(word)) {
      operator = word
      at.i++
      continue
    }
    const side = sideAt(at, holds, depth)
    result = result === undefined ? side : join(result, operator, side)
  }
  return result ?? true
}

/** An `if` or `unless` may hold because its condition does not. */
function join(left: boolean, operator: string, right: boolean): boolean {
  if (BOTH.has(operator)) return left && right
  return left || right || operator !== 'or'
}

function sideAt(at: { words: string[]; i: number }, holds: (atom: Relation) => boolean, depth: number): boolean {
  if (at.words[at.i] === '(') {
    at.i++
    return depth >= MAX_DEPTH || evaluate(at, holds, depth + 1)
  }
  const { atom, used } = atomAt(at.words, at.i)
  at.i += used
  return holds(atom)
}

function atomAt(words: string[], i: number): { atom: Relation; used: number } {
  const name = words[i]!
  const flags = SIGNS[words[i + 1] as keyof typeof SIGNS]
  const evr = /^(?:(\d+):)?([^-]+)(?:-(.+))?$/.exec(words[i + 2] ?? '')
  if (flags === undefined || evr === null) return { atom: { name }, used: 1 }
  return { atom: { name, flags, epoch: evr[1] ?? '0', version: evr[2]!, release: evr[3] ?? '' }, used: 3 }
}

/** `((a(b)` → `(`, `(`, `a(b)`. */
function splitBrackets(word: string): string[] {
  const name = withoutOuterBrackets(word)
  const opening = /^\(*/.exec(word)![0].length
  const closing = word.length - opening - name.length
  return [...Array<string>(opening).fill('('), ...(name === '' ? [] : [name]), ...Array<string>(closing).fill(')')]
}

/** `((a(b)` → `a(b)`: brackets of the expression, not of the name. Counted once: a name may be 64 KB of them. */
function withoutOuterBrackets(word: string): string {
  const name = word.replace(/^\(+/, '')
  let surplus = name.split(')').length - name.split('(').length
  let end = name.length
  for (; surplus > 0 && name[end - 1] === ')'; surplus--) end--
  return name.slice(0, end)
}
