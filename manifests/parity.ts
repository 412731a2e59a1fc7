/**
 * The check on the box: what the laptop planned for it (a file of the origin), and what the box found (a file that goes
 * home). Lines that a shell can read. FORMAT.md#parity.
 */
import { sha256Of, type Sha256 } from './digest.ts'
import { GapferryError } from './errors.ts'
import { parseTreePath, type TreePath } from './path.ts'

/** What an update of one box may choose from. */
export interface ParityPlan {
  box: string
  /** of the inventory that it was planned from */
  inventory: Sha256
  /** of that inventory; compared with the box's own, unless it is a guess */
  state: Sha256
  /** RFC 3339: when that inventory was taken */
  createdAt: string
  manager: 'yum' | 'dnf'
  isGuess: boolean
  /** NEVRAs */
  candidates: readonly string[]
  /** for what the update may fail, at the upstream as well */
  unresolved: readonly { requirement: string; by: string }[]
}

export interface ParityResult {
  box: string
  /** RFC 3339 */
  checkedAt: string
  manager: string
  /** that the plan was made from */
  inventory: Sha256
  state: Sha256
  holds: boolean
  /** each names its kind first: `state`, `unplanned`, `failure`, `manager` */
  differences: string[]
  /** the update fails, as the plan says; undefined where it does not */
  expectedFailure: string | undefined
  /** NEVRAs */
  chosen: string[]
}

/** Of a plan, and of a result. */
export const MAX_PARITY_BYTES = 4 * 1024 * 1024
const MAX_SHOWN = 60
const FIRST = 'gapferry-parity-result 1'
const BOX = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/
const NEVRA = /^[!-~]{1,1024}$/
const DIGEST = /^[0-9a-f]{64}$/
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/
/** Fields of a result in their order, each once, before its lists. */
const FIELDS: [name: string, pattern: RegExp][] = [
  ['box', BOX],
  ['checked', TIME],
  ['tool', /^[0-9.]{1,40}$/],
  ['manager', /^(?:yum|dnf)$/],
  ['inventory', DIGEST],
  ['state', DIGEST],
  ['result', /^(?:holds|differs)$/],
]
const KINDS = /^(?:state|unplanned|failure|manager) ./

/** Where a box's plan lies in the tree of its group. @throws PATH_INVALID */
export function parityPath(box: string): TreePath {
  return parseTreePath(`gapferry/parity/${box}.txt`, 'parity')
}

/** The plan's file. Sorted, so that equal plans are equal files.
 *  @throws PARITY_INVALID for a name or requirement that is not printable ASCII */
export function serializeParity(plan: ParityPlan): Buffer {
  const lines = [
    'gapferry-parity 1',
    `box ${plan.box}`,
    `inventory ${plan.inventory}`,
    `taken ${plan.createdAt}`,
    `state ${plan.state}`,
    `manager ${plan.manager}`,
    ...(plan.isGuess ? ['guess yes'] : []),
    ...[...new Set(plan.unresolved.map(({ requirement, by }) => `unresolved ${requirement} (by ${by})`))].sort(),
    ...[...new Set(plan.candidates)].sort().map((nevra) => `candidate ${nevra}`),
  ]
  const odd = lines.find((line) => !/^[ -~]{1,4096}$/.test(line))
  if (odd !== undefined || !BOX.test(plan.box)) {
    throw invalid(`plan of ${plan.box}`, `expected printable ASCII, found "${(odd ?? plan.box).slice(0, MAX_SHOWN)}"`)
  }
  return Buffer.from([...lines, `end ${lines.length}`, ''].join('\n'), 'latin1')
}

/** Reads what `gapferry-box parity` wrote.
 *  @throws PARITY_INVALID naming the line */
export function parseParityResult(bytes: Buffer, what: string): ParityResult {
  if (bytes.length > MAX_PARITY_BYTES) throw invalid(what, `expected at most ${MAX_PARITY_BYTES} bytes`)
  const lines = unsealed(bytes, what)
  const fields = new Map<string, string>()
  for (const [i, [name, pattern]] of FIELDS.entries()) {
    const line = lines[i + 1] ?? ''
    const value = line.slice(name.length + 1)
    if (!line.startsWith(`${name} `) || !pattern.test(value)) throw unexpected(i + 2, `"${name} …"`, line, what)
    fields.set(name, value)
  }
  const lists = readLists(lines, FIELDS.length + 1, what)
  const holds = fields.get('result') === 'holds'
  if (holds !== (lists.difference.length === 0)) {
    throw unexpected(FIELDS.length + 1, 'a result that fits its differences', lines[FIELDS.length]!, what)
  }
  return {
    box: fields.get('box')!,
    checkedAt: fields.get('checked')!,
    manager: fields.get('manager')!,
    inventory: fields.get('inventory') as Sha256,
    state: fields.get('state') as Sha256,
    holds,
    differences: lists.difference,
    expectedFailure: lists['expected-failure'][0],
    chosen: lists.chosen,
  }
}

/** The inventory that a plan was made from; undefined for what is no plan. */
export function plannedInventory(plan: Buffer): Sha256 | undefined {
  return /^gapferry-parity 1\nbox [^\n]+\ninventory ([0-9a-f]{64})\n/.exec(plan.toString('latin1'))?.[1] as
    Sha256 | undefined
}

type Lists = Record<'difference' | 'expected-failure' | 'chosen', string[]>

function readLists(lines: readonly string[], from: number, what: string): Lists {
  const lists: Lists = { difference: [], 'expected-failure': [], chosen: [] }
  for (const [i, line] of lines.entries()) {
    if (i < from) continue
    const [, name = '', value = ''] = /^(difference|expected-failure|chosen) (.+)$/.exec(line) ?? []
    const isGood = name === 'difference' ? KINDS.test(value) : name !== 'chosen' || NEVRA.test(value)
    if (name === '' || !isGood) throw unexpected(i + 1, 'a difference or a chosen package', line, what)
    lists[name as keyof Lists].push(value)
  }
  return lists
}

/** The lines before the last one, which says how many they are and what their digest is. */
function unsealed(bytes: Buffer, what: string): string[] {
  const lines = bytes.toString('latin1').split('\n')
  if (lines[0] !== FIRST) throw unexpected(1, `"${FIRST}"`, lines[0]!, what)
  lines.forEach((line, i) => {
    if (!/^[ -~]{0,4096}$/.test(line)) throw unexpected(i + 1, 'printable ASCII', line, what)
  })
  const last = lines.length - 2
  const [, count, digest] = /^end (\d{1,7}) ([0-9a-f]{64})$/.exec(lines[last] ?? '') ?? []
  if (count === undefined || lines[last + 1] !== '')
    throw unexpected(lines.length, 'the last line', lines.at(-1)!, what)
  const body = bytes.subarray(0, bytes.length - lines[last]!.length - 1)
  if (Number(count) === last && sha256Of(body) === digest) return lines.slice(0, last)
  throw unexpected(last + 1, `the last line of ${last} lines with their digest`, lines[last]!, what)
}

function unexpected(line: number, expected: string, found: string, what: string): GapferryError {
  return invalid(what, `line ${line}: expected ${expected}, found "${found.slice(0, MAX_SHOWN)}"`)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('PARITY_INVALID', `${what}: ${why}`, {
    hint: 'on the box, as root: gapferry-box parity > box.parity; then copy that file unchanged',
  })
}
