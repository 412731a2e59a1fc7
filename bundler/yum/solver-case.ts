/**
 * What libsolv is asked, in the text form of its `testsolv`, what that answers, and whether two answers come to the same.
 * Pure. Rule: the testcases that dnf 4 writes with --debugsolver, and libsolv 0.7.
 */
import { pathsOf, relationsOf } from '../../manifests/package-columns.ts'
import { EMPTY, type PackageTable } from '../../manifests/package-table.ts'
import type { Relation } from '../../manifests/rpm-version.ts'
import { escapeXml } from '../../manifests/xml.ts'

/** A repository as a box sees it. */
export interface SolverRepository {
  /** a-z and digits */
  name: string
  /** the higher, the better */
  priority: number
  /** a solv file, relative to the case */
  file: string
  /** NEVRAs that the box's settings hide */
  hidden: readonly string[]
}

export interface SolverCase {
  arch: string
  /** the solv file of what is installed */
  installed: string
  repositories: readonly SolverRepository[]
  /** names of which several versions may be installed beside each other */
  installonly: readonly string[]
  takesWeak: boolean
  followsObsoletes: boolean
  /** an update that cannot be the newest is a failure */
  insistsOnNewest: boolean
}

/** A transaction. */
export interface Solved {
  /** sorted: `install b-1-1.noarch`, `upgrade a-1-1.noarch a-2-1.noarch`, without the names of repositories */
  steps: string[]
  /** NEVRAs that go */
  removed: string[]
  /** those of them in whose place nothing comes */
  erased: string[]
  /** NEVRAs that come */
  added: string[]
  /** why it fails; empty where it does not */
  problems: string[]
}

/** `same`: step by step; `other`: another choice after which nothing more is to be updated than after the first one. */
export type Verdict = 'same' | 'other' | 'differs'

/** As libsolv calls the architecture. */
const ARCHES: Record<string, string> = { amd64: 'x86_64', ia32e: 'x86_64' }
const POOL_FLAGS = 'implicitobsoleteusescolors whatprovideswithdisabled'
const SOLVER_FLAGS = 'allowvendorchange keepexplicitobsoletes bestobeypolicy keeporphans'

/** An update of everything, as dnf asks for it. */
export function caseText(one: SolverCase): string {
  const { repositories, installonly } = one
  const flags = [
    SOLVER_FLAGS,
    ...(one.followsObsoletes ? ['yumobsoletes'] : []),
    ...(one.takesWeak ? [] : ['ignorerecommended']),
  ]
  return [
    `repo system 0 solv ${one.installed}`,
    ...repositories.map(({ name, priority, file }) => `repo ${name} ${priority} solv ${file}`),
    `system ${ARCHES[one.arch] ?? one.arch} rpm system`,
    `poolflags ${POOL_FLAGS}`,
    ...repositories.flatMap(({ name, hidden }) => hidden.map((nevra) => `disable pkg ${nevra}@${name}`)),
    `solverflags ${flags.join(' ')}`,
    ...installonly.map((name) => `job multiversion name ${name}`),
    `job update all packages${one.insistsOnNewest ? ' [forcebest]' : ''}`,
    '',
  ].join('\n')
}

/** @param text  what `testsolv -r` wrote */
export function parseSolved(text: string): Solved {
  const solved: Solved = { steps: [], removed: [], erased: [], added: [], problems: [] }
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [action = '', ...rest] = line.split(' ')
    if (action === 'problem') {
      solved.problems.push(line)
      continue
    }
    for (const word of rest) {
      const at = word.lastIndexOf('@')
      const list = word.slice(at) === '@system' ? solved.removed : solved.added
      // what replaces two packages comes once
      if (!list.includes(word.slice(0, at))) list.push(word.slice(0, at))
      if (action === 'erase') solved.erased.push(word.slice(0, at))
    }
    solved.steps.push([action, ...rest.map((word) => word.slice(0, word.lastIndexOf('@')))].join(' '))
  }
  solved.steps.sort()
  solved.problems.sort()
  return solved
}

/** Compares what happens on everything with what happens on a part of it.
 *  @param thenOf  what happens on everything, after a transaction */
export async function judge(
  whole: Solved,
  part: Solved,
  thenOf: (transaction: Solved) => Promise<Solved>,
): Promise<Verdict> {
  if (isEqual(whole.steps, part.steps) && isEqual(whole.problems, part.problems)) return 'same'
  if (whole.problems.length > 0 !== part.problems.length > 0) return 'differs'
  if (!isEqual(whole.erased.toSorted(), part.erased.toSorted())) return 'differs'
  const [left, leftByPart] = [await thenOf(whole), await thenOf(part)]
  return isEqual(left.steps, leftByPart.steps) ? 'other' : 'differs'
}

/** The packages of a box as primary would have them.
 *  @param rows  of each table the rows that are meant */
export function* primaryOf(parts: readonly { table: PackageTable; rows: Iterable<number> }[]): Generator<string> {
  yield '<?xml version="1.0" encoding="UTF-8"?>\n'
  yield '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm">\n'
  for (const { table, rows } of parts) for (const row of rows) yield packageElement(table, row)
  yield '</metadata>\n'
}

function packageElement(table: PackageTable, row: number): string {
  const text = (column: Uint32Array): string => escapeXml(table.pool.text(column[row]!))
  const release = table.release[row] === EMPTY ? '' : ` rel="${text(table.release)}"`
  const lists = KINDS.map((kind) => entries(kind, relationsOf(table, kind, row)))
  const files = pathsOf(table, row).map((path) => `<file>${escapeXml(path)}</file>`)
  return (
    `<package type="rpm"><name>${text(table.name)}</name><arch>${text(table.arch)}</arch>` +
    `<version epoch="${text(table.epoch)}" ver="${text(table.version)}"${release}/>` +
    `<format>${lists.join('')}${files.join('')}</format></package>\n`
  )
}

const KINDS = ['provides', 'requires', 'obsoletes', 'conflicts', 'recommends', 'supplements'] as const

/** What rpm provides itself is left out, as the repositories do. */
function entries(kind: string, relations: readonly Relation[]): string {
  const lines = relations.filter(({ name }) => !name.startsWith('rpmlib(')).map(entry)
  return lines.length === 0 ? '' : `<rpm:${kind}>${lines.join('')}</rpm:${kind}>`
}

function entry({ name, flags, epoch = '', version = '', release = '' }: Relation): string {
  if (flags === undefined) return `<rpm:entry name="${escapeXml(name)}"/>`
  const rel = release === '' ? '' : ` rel="${escapeXml(release)}"`
  const evr = `epoch="${escapeXml(epoch || '0')}" ver="${escapeXml(version)}"${rel}`
  return `<rpm:entry name="${escapeXml(name)}" flags="${flags}" ${evr}/>`
}

function isEqual(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i])
}
