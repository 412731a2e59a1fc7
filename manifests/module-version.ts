/**
 * How FreePBX orders the versions of its modules: PHP's version_compare over small letters, with `rc` as `RC`. Source of
 * the rules: PHP 8.2's behaviour, compared with the real php in the tests.
 */

/** Orders two versions as a box does (`version_compare_freepbx`). Takes any text: what is no version has a place in the
 *  order too.
 *  @returns -1, 0 or 1 */
export function compareModuleVersions(a: string, b: string): -1 | 0 | 1 {
  return PLAIN.test(a) && PLAIN.test(b) ? comparePlain(a, b) : compare(spelled(a), spelled(b))
}

/** What nearly all versions are: numbers with dots between. A group's boxes are compared with its lists a hundred thousand
 *  times. */
const PLAIN = /^[0-9]{1,15}(?:\.[0-9]{1,15})*$/

function comparePlain(a: string, b: string): -1 | 0 | 1 {
  let [i, j] = [0, 0]
  while (i < a.length && j < b.length) {
    let [mine, theirs] = [0, 0]
    for (; i < a.length && a[i] !== '.'; i++) mine = mine * 10 + Number(a[i])
    for (; j < b.length && b[j] !== '.'; j++) theirs = theirs * 10 + Number(b[j])
    if (mine !== theirs) return mine < theirs ? -1 : 1
    i++
    j++
  }
  return i < a.length ? 1 : j < b.length ? -1 : 0
}

/** Words of a version, a beginning is enough, the first that fits counts; any other word is lower than all. */
const WORDS: readonly (readonly [word: string, order: number])[] = [
  ['dev', 0],
  ['alpha', 1],
  ['a', 1],
  ['beta', 2],
  ['b', 2],
  ['RC', 3],
  ['rc', 3],
  ['#', 4],
  ['pl', 5],
  ['p', 5],
]
/** Stands for a number, or for the end, where the other version has a word. */
const NUMBER = '#N#'
const HIGHEST = 2n ** 63n - 1n

/** As bytes, one character each, in small letters: PHP knows no others. */
function spelled(version: string): string {
  const bytes = Buffer.from(version, 'utf8').toString('latin1')
  return bytes.replace(/[A-Z]/g, (letter) => letter.toLowerCase()).replaceAll('rc', 'RC')
}

function compare(a: string, b: string): -1 | 0 | 1 {
  if (a === '' || b === '') return sign(Number(a !== '') - Number(b !== ''))
  let rest: readonly [string | undefined, string | undefined] = [parted(a), parted(b)]
  for (;;) {
    const [mine, theirs] = rest
    if (mine === undefined || theirs === undefined || mine === '' || theirs === '') break
    const first = upToDot(mine)
    const second = upToDot(theirs)
    const order = compareParts(first, second)
    if (order !== 0) return order
    rest = [afterDot(mine, first), afterDot(theirs, second)]
  }
  return compareEnds(...rest)
}

/** What is left of one when the other has ended. */
function compareEnds(mine: string | undefined, theirs: string | undefined): -1 | 0 | 1 {
  if (mine !== undefined) return DIGIT.test(mine) ? 1 : compare(mine, NUMBER)
  if (theirs !== undefined) return DIGIT.test(theirs) ? -1 : compare(NUMBER, theirs)
  return 0
}

const DIGIT = /^[0-9]/

function compareParts(a: string, b: string): -1 | 0 | 1 {
  const numbers = [DIGIT.test(a), DIGIT.test(b)]
  if (numbers[0] && numbers[1]) return sign(valueOf(a) - valueOf(b))
  return sign(orderOf(numbers[0] ? NUMBER : a) - orderOf(numbers[1] ? NUMBER : b))
}

function orderOf(part: string): number {
  return WORDS.find(([word]) => part.startsWith(word))?.[1] ?? -1
}

/** PHP's numbers end at 63 bits. */
function valueOf(part: string): bigint {
  const value = BigInt(/^[0-9]+/.exec(part)![0])
  return value > HIGHEST ? HIGHEST : value
}

/** `version` with a `.` between numbers and words, and in place of everything else. The first character stays. */
function parted(version: string): string {
  if (version.startsWith('#')) return version
  let parts = version[0]!
  for (let i = 1; i < version.length; i++) {
    const before = version[i - 1]!
    const one = version[i]!
    const turns = !isSeparator(one) && (isNumber(one) ? isWord(before) : isNumber(before) && isWord(one))
    const isKept = turns || /[0-9A-Za-z]/.test(one)
    if ((turns || !isKept) && !parts.endsWith('.')) parts += '.'
    if (isKept) parts += one
  }
  return parts
}

function isNumber(character: string): boolean {
  return DIGIT.test(character)
}

function isWord(character: string): boolean {
  return character !== '.' && !isNumber(character)
}

function isSeparator(character: string): boolean {
  return character === '-' || character === '_' || character === '+'
}

function upToDot(text: string): string {
  const dot = text.indexOf('.')
  return dot < 0 ? text : text.slice(0, dot)
}

/** Undefined: there was no dot, so nothing comes. */
function afterDot(text: string, part: string): string | undefined {
  return text.length === part.length ? undefined : text.slice(part.length + 1)
}

function sign(value: number | bigint): -1 | 0 | 1 {
  return value < 0 ? -1 : value > 0 ? 1 : 0
}
