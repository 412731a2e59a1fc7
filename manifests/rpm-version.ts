/**
 * How rpm orders versions and matches requirements with provides. Source of the rules: rpm 4.18's behaviour, recorded in
 * test/vectors and compared with the real rpm in the tests; `caret: false` is rpm 4.11 (EL7).
 */

/** Epoch, version, release. A missing epoch is 0; an empty release compares as "any". */
export type Evr = readonly [epoch: string | null, version: string, release: string]

/** One provide, require, conflict or obsolete as repository metadata writes it. Without `flags`: any version. */
export interface Relation {
  name: string
  flags?: 'EQ' | 'LT' | 'LE' | 'GT' | 'GE'
  epoch?: string
  version?: string
  release?: string
}

/** The four names of a package build. */
export interface Nevra {
  name: string
  epoch: string
  version: string
  release: string
  arch: string
}

/** Orders two version or release strings as rpm does.
 *  @param caret  false: `^` is a separator like any other, as in rpm before 4.15
 *  @returns -1, 0 or 1 */
export function rpmvercmp(a: string, b: string, { caret = true }: { caret?: boolean } = {}): -1 | 0 | 1 {
  if (a === b) return 0
  const separators = caret ? /[^0-9A-Za-z~^]*/y : /[^0-9A-Za-z~]*/y
  for (let i = 0, j = 0; ;) {
    i += runLength(separators, a, i)
    j += runLength(separators, b, j)
    if (a[i] === '~' || b[j] === '~') {
      if (a[i] !== b[j]) return a[i] === '~' ? -1 : 1
    } else if (caret && (a[i] === '^' || b[j] === '^')) {
      if (a[i] !== b[j]) return compareCaret(a[i], b[j])
    } else {
      if (i >= a.length || j >= b.length) return sign(Number(i < a.length) - Number(j < b.length))
      const isDigits = DIGIT.test(a[i]!)
      const first = segment(a, i, isDigits)
      const second = segment(b, j, isDigits)
      if (second === '') return isDigits ? 1 : -1
      const order = isDigits ? compareDigits(first, second) : compareText(first, second)
      if (order !== 0) return order
      i += first.length - 1
      j += second.length - 1
    }
    i++
    j++
  }
}

/** Orders two builds of one name. @returns -1, 0 or 1 */
export function compareEvr(a: Evr, b: Evr, options: { caret?: boolean } = {}): -1 | 0 | 1 {
  return compareDigits(a[0] ?? '0', b[0] ?? '0') || rpmvercmp(a[1], b[1], options) || rpmvercmp(a[2], b[2], options)
}

/** True when some version satisfies both ranges; the names are for the caller to compare. A range without version always
 *  does. Where one side has no release and versions are equal, that side matches every release if it includes equality. */
export function rangesOverlap(provide: Relation, require: Relation): boolean {
  if (!provide.flags || !require.flags || !provide.version || !require.version) return true
  const [mine, theirs] = [sensesOf(provide.flags), sensesOf(require.flags)]
  const order = compareDigits(provide.epoch || '0', require.epoch || '0') || rpmvercmp(provide.version, require.version)
  if (order < 0) return mine.greater || theirs.less
  if (order > 0) return mine.less || theirs.greater
  const byRelease = provide.release && require.release ? rpmvercmp(provide.release, require.release) : 0
  if (byRelease < 0) return mine.greater || theirs.less
  if (byRelease > 0) return mine.less || theirs.greater
  if (provide.release && !require.release && theirs.equal) return true
  if (require.release && !provide.release && mine.equal) return true
  return (mine.equal && theirs.equal) || (mine.less && theirs.less) || (mine.greater && theirs.greater)
}

/** `name-[epoch:]version-release.arch`, the epoch left out when 0: as yum, dnf and the people who read it write it. */
export function formatNevra({ name, epoch, version, release, arch }: Nevra): string {
  return `${name}-${epoch === '0' ? '' : `${epoch}:`}${version}-${release}.${arch}`
}

/** The parts of what formatNevra made; undefined for anything else. Names may hold `-`, versions and releases cannot. */
export function parseNevra(text: string): Nevra | undefined {
  const match = /^(.+)-(?:(\d+):)?([^-:]+)-([^-]+)\.([^.-]+)$/.exec(text)
  if (match === null) return undefined
  return { name: match[1]!, epoch: match[2] ?? '0', version: match[3]!, release: match[4]!, arch: match[5]! }
}

/** `name`, or `name >= [epoch:]version[-release]`: as rpm writes it. */
export function formatRelation({ name, flags, epoch, version, release }: Relation): string {
  if (flags === undefined) return name
  const before = epoch === undefined || epoch === '0' ? '' : `${epoch}:`
  return `${name} ${SIGNS[flags]} ${before}${version ?? ''}${release ? `-${release}` : ''}`
}

const SIGNS = { EQ: '=', LT: '<', LE: '<=', GT: '>', GE: '>=' } as const
const DIGIT = /[0-9]/
const DIGITS = /[0-9]*/y
const LETTERS = /[A-Za-z]*/y

function runLength(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0].length ?? 0
}

function segment(text: string, at: number, isDigits: boolean): string {
  const pattern = isDigits ? DIGITS : LETTERS
  return text.slice(at, at + runLength(pattern, text, at))
}

/** `^` sorts after the end and before everything else. */
function compareCaret(a: string | undefined, b: string | undefined): -1 | 1 {
  if (a === undefined) return -1
  if (b === undefined) return 1
  return a === '^' ? -1 : 1
}

function compareDigits(a: string, b: string): -1 | 0 | 1 {
  const [x, y] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')]
  return x.length === y.length ? compareText(x, y) : sign(x.length - y.length)
}

function compareText(a: string, b: string): -1 | 0 | 1 {
  return a === b ? 0 : a < b ? -1 : 1
}

function sign(value: number): -1 | 0 | 1 {
  return value === 0 ? 0 : value < 0 ? -1 : 1
}

function sensesOf(flags: NonNullable<Relation['flags']>): { less: boolean; equal: boolean; greater: boolean } {
  return { less: flags[0] === 'L', equal: flags.endsWith('E') || flags === 'EQ', greater: flags[0] === 'G' }
}
