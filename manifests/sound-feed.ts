/**
 * The list of sound packages, `sounds-<major>.0.xml`, and the one that a group's boxes get: the same text without the
 * packages that are not carried. A box reads it with SimpleXML as JSON: names as they are written, no text of CDATA, and a
 * lone `<package>` taken for a list of its fields. FORMAT.md#sound-list.
 */
import { applyEdits, cutOut } from './edits.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import { quoted } from './module-entry.ts'
import { type TreePath } from './path.ts'
import { childrenByName, parsePhpXml, type PhpElement } from './php-xml.ts'

/** A package of sounds, as its fields in the list. */
export interface SoundPackage {
  type: string
  module: string
  language: string
  format: string
  version: string
  license?: string
  author?: string
  authorlink?: string
  /** its element in the text of its feed, in UTF-16 units */
  start: number
  end: number
}

export interface SoundFeed {
  /** the document, without a byte order mark */
  text: string
  packages: SoundPackage[]
  /** for the person who plans: what was left out, and why */
  problems: string[]
  /** what goes whatever is kept */
  rest: { start: number; end: number }[]
}

export const MAX_SOUND_LIST_BYTES = 4 * 1024 * 1024
const MAX_PACKAGES = 10_000
const MAX_ELEMENTS = 200_000
const MAX_PROBLEMS = 50
const MAX_TEXT = 1000
const EXCERPT_BYTES = 60
const NAMING = ['type', 'module', 'language', 'format', 'version'] as const
const TOLD = ['license', 'author', 'authorlink'] as const
/** Each is a piece of file names. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.+~-]{0,63}$/

/** @param what  names the document in messages
 *  @throws MODULE_LIST_INVALID for what is no list: empty, a page, cut off, past a limit, not one `<sounds>` inside. A list
 *          without packages is one. */
export function parseSoundFeed(bytes: Uint8Array, what: string): SoundFeed {
  const { text, root } = parseRoot(bytes, what)
  const sounds = root.children.filter((child) => isSpelled(child, 'sounds', text))
  if (sounds.length !== 1) throw invalid(what, `expected one <sounds>, found ${sounds.length}`)
  if ([root, sounds[0]!].some(hasTextBeside)) throw invalid(what, 'text stands beside its elements')
  const elements = sounds[0]!.children.filter((child) => isSpelled(child, 'package', text))
  if (elements.length > MAX_PACKAGES) throw invalid(what, `more than ${MAX_PACKAGES} packages`)
  const feed: SoundFeed = { text, packages: [], problems: [], rest: [] }
  const seen = new Set<string>()
  for (const element of elements) {
    const one = readPackage(element, text)
    const why = typeof one === 'string' ? one : seen.has(soundFile(one)) ? 'is there already' : undefined
    if (typeof one !== 'string' && why === undefined) {
      seen.add(soundFile(one))
      feed.packages.push(one)
      continue
    }
    feed.rest.push({ start: element.start, end: element.end })
    if (feed.problems.length < MAX_PROBLEMS) feed.problems.push(`a sound package ${why}: left out`)
  }
  return feed
}

/** The list that boxes get: `feed` letter by letter without the packages that are not in `keep`.
 *  @param keep  packages of `feed`: none, or at least two, because a box cannot read a list of one */
export function writeSoundList(feed: SoundFeed, keep: readonly SoundPackage[]): Buffer {
  const kept = new Set(keep.map(soundFile))
  const goes = feed.packages.filter((one) => !kept.has(soundFile(one)))
  if (feed.packages.length - goes.length !== kept.size) throw new Error('a sound package of another list')
  if (kept.size === 1) throw new Error('a list of one sound package')
  return Buffer.from(
    applyEdits(
      feed.text,
      [...goes, ...feed.rest].map((one) => cutOut(feed.text, one)),
    ),
  )
}

/** Where a package lies. Rule: the soundlang module. */
export function soundFile({ type, module, language, format, version }: SoundPackage): TreePath {
  return `sounds/${type}-${module}-${language}-${format}-${version}.tar.gz` as TreePath
}

/** Where the license text lies that a box shows before it installs a package. */
export function soundLicense({ type, module, language }: SoundPackage): TreePath {
  return `sounds/${type}-${module}-${language}-license.txt` as TreePath
}

function parseRoot(bytes: Uint8Array, what: string): { text: string; root: PhpElement } {
  if (bytes.length === 0) throw invalid(what, 'is empty')
  if (bytes.length > MAX_SOUND_LIST_BYTES) throw invalid(what, `larger than ${MAX_SOUND_LIST_BYTES} bytes`)
  try {
    return parsePhpXml(bytes, what, MAX_ELEMENTS)
  } catch (error) {
    if (!isGapferryError(error, 'XML_INVALID')) throw error
    const start = Buffer.from(bytes.subarray(0, EXCERPT_BYTES)).toString('utf8')
    throw invalid(what, `${error.message.slice(what.length + 2)}; it starts with "${start}"`)
  }
}

/** @returns the package, or why it is none */
function readPackage(element: PhpElement, text: string): SoundPackage | string {
  if (hasTextBeside(element)) return 'has text beside its fields'
  const fields = childrenByName(element.children.filter((child) => isSpelled(child, child.name, text)))
  const texts = new Map<string, string>()
  for (const name of [...NAMING, ...TOLD]) {
    const same = fields.get(name) ?? []
    const value = same.length === 1 && isPlain(same[0]!, text) ? plainText(same[0]!) : undefined
    if (value !== undefined) texts.set(name, value.slice(0, MAX_TEXT))
  }
  for (const name of NAMING) {
    const value = texts.get(name)
    if (value === undefined) return `has no <${name}>`
    if (!NAME.test(value)) return `has a <${name}> ${quoted(value)}, which is no part of a file name`
  }
  const { start, end } = element
  return { ...(Object.fromEntries(texts) as Omit<SoundPackage, 'start' | 'end'>), start, end }
}

/** SimpleXML tells capitals from small letters. */
function isSpelled(element: PhpElement, name: string, text: string): boolean {
  return element.name.length === name.length && text.startsWith(name, element.start + 1)
}

/** Where text stands in front of the elements inside, SimpleXML as JSON has that text, and none of the elements. */
function hasTextBeside({ joined, children }: PhpElement): boolean {
  return children.length > 0 && joined.trim() !== ''
}

/** SimpleXML joins what an entity separates. */
function plainText({ joined, children }: PhpElement): string | undefined {
  return children.length > 0 || joined.trim() === '' ? undefined : joined
}

/** As JSON, SimpleXML has no text of CDATA, and none behind a comment. */
function isPlain({ tagEnd, end }: PhpElement, text: string): boolean {
  return !/<[!?]/.test(text.slice(tagEnd, end))
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('MODULE_LIST_INVALID', `${what}: ${why}`, {
    hint: 'look at what the upstream answers; when it was a passing fault, run the command again later',
  })
}
