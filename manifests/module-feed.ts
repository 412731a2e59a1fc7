/**
 * A list of modules, `all-<major>.0.xml`, as FreePBX's own servers answer it, and the list that a group's boxes get: the
 * same text with everything cut out that is not carried. FORMAT.md#module-list.
 *
 * Of two `<module>` with one rawname a box compares the last and downloads the first; here the first counts, and only that
 * one is ever served. Of two `<edge>`, `<beta>`, `<previous>` or `<security>` a box finds nothing in either.
 */
import { GapferryError, isGapferryError } from './errors.ts'
import { applyEdits, cutOut, insideEnd, type Edit, type Place } from './edits.ts'
import { quoted, readModuleEntry, type ModuleEntry, type ModuleSection } from './module-entry.ts'
import { childrenByName, parsePhpXml, phpText, phpValue, type PhpElement } from './php-xml.ts'

export type { ModuleEntry, ModuleSection } from './module-entry.ts'

export interface ModuleFeed {
  /** the document, without a byte order mark */
  text: string
  /** in the order of the document; of one rawname at most one in `module` and one in `edge` */
  entries: ModuleEntry[]
  issues: SecurityIssue[]
  /** for the person who plans: what was left out, and why */
  problems: string[]
  layout: Layout
}

/** A known weakness, and the versions that are free of it. */
export interface SecurityIssue {
  id: string
  /** undefined where it says nothing of this major */
  vulnerable: boolean | undefined
  /** rawname → lowest version without it */
  fixes: Map<string, string>
}

/** Where things stand that are cut, or put in. */
interface Layout {
  root: Place
  pieces: Piece[]
  sections: Partial<Record<'edge' | 'beta' | 'security', Place>>
  /** where the last `<module>` ends */
  modulesEnd: number
  issueCount: number
}

/** What stays or goes as a whole: one with neither `entry` nor `inside` goes. */
interface Piece {
  start: number
  end: number
  entry?: ModuleEntry
  /** goes when nothing inside stays */
  inside?: Piece[]
}

/** Real lists have 1 to 3 MB. */
export const MAX_MODULE_LIST_BYTES = 16 * 1024 * 1024
const MAX_ELEMENTS = 300_000
const MAX_ENTRIES = 10_000
const MAX_PROBLEMS = 50
const MAX_MINOR_PROBLEMS = 3
const MAX_ISSUES = 5000
const MIN_MODULES = 2
const MIN_ISSUES = 2
const MAJORS = [15, 16, 17]
const EXCERPT_BYTES = 60

/** @param what  names the document in messages
 *  @param major  whose `issues` are wanted; without it those of every major are thrown together
 *  @throws MODULE_LIST_INVALID for what is no list: empty, a page, cut off, past a limit, without one usable `<module>` */
export function parseModuleFeed(bytes: Uint8Array, what: string, major?: number): ModuleFeed {
  const { text, root } = parseRoot(bytes, what)
  const children = childrenByName(root.children)
  const reader = new SectionReader(what)
  const modules = children.get('module') ?? []
  if (modules.length === 0) throw invalid(what, 'holds no <module>')
  for (const element of modules) reader.takeModule(element)
  const only = (name: string): PhpElement | undefined => {
    const [first, ...more] = children.get(name) ?? []
    for (const element of more) reader.leaveOut(element, `a second <${name}>`)
    return first
  }
  const sections = { edge: only('edge'), beta: only('beta'), previous: only('previous'), security: only('security') }
  reader.takeSection(sections.edge, 'edge')
  reader.takeSection(sections.beta, 'beta')
  reader.takePrevious(sections.previous)
  if (!reader.entries.some((entry) => entry.section === 'module'))
    throw invalid(what, `holds no usable <module>: ${reader.problems[0]}`)
  const issues = sections.security?.children.filter((child) => child.name === 'issue') ?? []
  if (issues.length > MAX_ISSUES) throw invalid(what, `more than ${MAX_ISSUES} security issues`)
  return {
    text,
    entries: reader.entries,
    issues: issues.flatMap((issue) => readIssue(issue, major)),
    problems: reader.told(),
    layout: {
      root: placeOf(root),
      pieces: reader.pieces,
      sections: {
        ...(sections.edge && { edge: placeOf(sections.edge) }),
        ...(sections.beta && { beta: placeOf(sections.beta) }),
        ...(sections.security && { security: placeOf(sections.security) }),
      },
      modulesEnd: modules.at(-1)!.end,
      issueCount: issues.length,
    },
  }
}

/** The list that boxes get: `base` letter by letter, without every `<module>`, `<edge>`, `<beta>` and `<previous>` entry that
 *  is not in `listed`; at least two security issues, so that a box of any major can read it.
 *  @param listed  of every rawname the entry that counts, out of `module`, else `previous` (a pinned version), else another;
 *                 it becomes the `<module>` of that name. Further ones of the same rawname stay in their section. An entry of
 *                 another feed takes the place of the one in `base`.
 *  @throws MODULE_LIST_SHORT for fewer than two modules: a box cannot read that */
export function writeModuleList(base: ModuleFeed, listed: readonly ListedModule[]): Buffer {
  const mains = mainEntries(listed)
  if (mains.size < MIN_MODULES) throw short(mains.size)
  const further = listed.filter((one) => mains.get(one.entry.rawname) !== one)
  const edits = [
    ...cuts(base, listed, mains),
    ...placed(base, [...mains.values()]),
    ...further.filter(({ feed }) => feed.text !== base.text).map((one) => inserted(base, one)),
    ...issuesAdded(base),
  ]
  return Buffer.from(applyEdits(base.text, edits))
}

/** An entry and the feed whose text it is a piece of. */
export interface ListedModule {
  entry: ModuleEntry
  feed: ModuleFeed
}

/** What a box gets for `--tag`: the entry as JSON, as its own reader would make it of the list. */
export function tagAnswer(entry: ModuleEntry, feed: ModuleFeed): Buffer {
  const { root } = parsePhpXml(feed.text.slice(entry.start, entry.end), entry.rawname, MAX_ELEMENTS)
  return Buffer.from(JSON.stringify(phpValue(root)))
}

function parseRoot(bytes: Uint8Array, what: string): { text: string; root: PhpElement } {
  if (bytes.length === 0) throw invalid(what, 'is empty')
  if (bytes.length > MAX_MODULE_LIST_BYTES) throw invalid(what, `larger than ${MAX_MODULE_LIST_BYTES} bytes`)
  try {
    const found = parsePhpXml(bytes, what, MAX_ELEMENTS)
    if (found.root.name === 'xml') return found
    throw invalid(what, `expected <xml>, found <${found.root.name.slice(0, 80)}>`)
  } catch (error) {
    if (!isGapferryError(error, 'XML_INVALID')) throw error
    const start = Buffer.from(bytes.subarray(0, EXCERPT_BYTES)).toString('utf8')
    throw new GapferryError('MODULE_LIST_INVALID', `${error.message}; it starts with "${start}"`, { hint: LATER })
  }
}

/** The tree of a whole list is large and not kept. */
function placeOf({ start, tagEnd, end }: PhpElement): Place {
  return { start, tagEnd, end }
}

/** Goes through the sections, and collects what is usable and what is not. */
class SectionReader {
  readonly entries: ModuleEntry[] = []
  readonly pieces: Piece[] = []
  readonly problems: string[] = []
  /** of what boxes rarely look at, and vendors rarely mend */
  readonly #minor: string[] = []
  readonly #what: string
  readonly #seen = new Set<string>()

  constructor(what: string) {
    this.#what = what
  }

  takeModule(element: PhpElement): void {
    this.pieces.push(this.#piece(element, 'module', undefined))
  }

  /** `<edge>` and `<beta>`: the children are named by their modules. */
  takeSection(section: PhpElement | undefined, name: 'edge' | 'beta'): void {
    const sameNames = childrenByName(section?.children ?? [])
    for (const child of section?.children ?? []) {
      const isRepeated = name === 'edge' && sameNames.get(child.name)!.length > 1
      if (isRepeated) this.leaveOut(child, `${name} ${quoted(child.name)}: stands there more than once`, this.#minor)
      else this.pieces.push(this.#piece(child, name, child.name))
    }
  }

  takePrevious(section: PhpElement | undefined): void {
    const sameNames = childrenByName(section?.children ?? [])
    for (const child of section?.children ?? []) {
      const releases = child.children.filter((one) => one.name === 'releases')
      if (releases.length !== 1 || sameNames.get(child.name)!.length > 1) {
        this.leaveOut(child, `previous ${quoted(child.name)}: expected it once, with one <releases>`, this.#minor)
        continue
      }
      const modules = releases[0]!.children.filter((one) => one.name === 'module')
      const inside = modules.map((module) => this.#piece(module, 'previous', child.name))
      this.pieces.push({ start: child.start, end: child.end, inside })
    }
  }

  leaveOut({ start, end }: PhpElement, problem: string, problems: string[] = this.problems): void {
    problems.push(`${problem}: left out`)
    this.pieces.push({ start, end })
  }

  told(): string[] {
    return [
      ...firstOf(this.problems, MAX_PROBLEMS, 'entries'),
      ...firstOf(this.#minor, MAX_MINOR_PROBLEMS, 'entries of edge, beta and previous'),
    ]
  }

  #piece(element: PhpElement, section: ModuleSection, of: string | undefined): Piece {
    const { start, end } = element
    const entry = this.#entry(element, section, of)
    if (typeof entry === 'string') {
      const problems = section === 'module' ? this.problems : this.#minor
      problems.push(`${section} ${nameOf(element, of)}: ${entry}: left out`)
      return { start, end }
    }
    this.entries.push(entry)
    if (this.entries.length > MAX_ENTRIES) throw invalid(this.#what, `more than ${MAX_ENTRIES} modules`)
    return { start, end, entry }
  }

  /** @returns why it is none, for an entry that a box could not use or that is there already */
  #entry(element: PhpElement, section: ModuleSection, of: string | undefined): ModuleEntry | string {
    const entry = readModuleEntry(element, section)
    if (typeof entry === 'string') return entry
    if (of !== undefined && entry.rawname !== of) return `stands under the name of ${quoted(of)}`
    const key = JSON.stringify([
      section,
      entry.rawname,
      section === 'module' || section === 'edge' ? '' : entry.version,
    ])
    if (this.#seen.has(key)) return `${entry.version} is there beside another one`
    this.#seen.add(key)
    return entry
  }
}

function firstOf(problems: readonly string[], count: number, what: string): string[] {
  const more = problems.length - count
  return more > 0 ? [...problems.slice(0, count), `${more} more ${what} are left out`] : [...problems]
}

function nameOf(element: PhpElement, of: string | undefined): string {
  const rawname = element.children.find((child) => child.name === 'rawname')
  return quoted(of ?? phpText(rawname) ?? '?')
}

function readIssue(issue: PhpElement, major: number | undefined): SecurityIssue[] {
  const fields = childrenByName(issue.children)
  const id = phpText(fields.get('id')?.[0])?.trim().slice(0, 200)
  if (id === undefined) return []
  const versions = fields.get('versions')?.[0]?.children ?? []
  const wanted = major === undefined ? versions : versions.filter((one) => one.name === `v${major}.0`)
  let vulnerable: boolean | undefined
  const fixes = new Map<string, string>()
  for (const version of wanted) {
    const inside = childrenByName(version.children)
    const says = phpText(inside.get('vulnerable')?.[0])
    if (says !== undefined) vulnerable = vulnerable === true || says.toLowerCase() === 'yes'
    for (const fix of inside.get('fixes')?.[0]?.children ?? []) fixes.set(fix.name, (phpText(fix) ?? '').trim())
  }
  return [{ id, vulnerable, fixes }]
}

/** rawname → what becomes its `<module>`. */
function mainEntries(listed: readonly ListedModule[]): Map<string, ListedModule> {
  const rank: readonly ModuleSection[] = ['module', 'previous', 'edge', 'beta']
  const mains = new Map<string, ListedModule>()
  for (const one of listed) {
    const best = mains.get(one.entry.rawname)
    const isBetter = best === undefined || rank.indexOf(one.entry.section) < rank.indexOf(best.entry.section)
    if (isBetter) mains.set(one.entry.rawname, one)
  }
  return mains
}

/** Takes out what does not stay where it stands. */
function cuts(base: ModuleFeed, listed: readonly ListedModule[], mains: Map<string, ListedModule>): Edit[] {
  const stays = new Set<number>()
  for (const one of listed) {
    const isMoved = mains.get(one.entry.rawname) === one && one.entry.section !== 'module'
    if (one.feed.text === base.text && !isMoved) stays.add(one.entry.start)
  }
  const hasPlace = new Set(mains.keys())
  const cut = (piece: Piece): Edit[] => {
    if (piece.inside?.some((inner) => inner.entry !== undefined && stays.has(inner.entry.start)))
      return piece.inside.flatMap(cut)
    const { entry } = piece
    // placed() writes something else there
    const isReplaced = entry?.section === 'module' && hasPlace.has(entry.rawname)
    return isReplaced || (entry !== undefined && stays.has(entry.start)) ? [] : [cutOut(base.text, piece)]
  }
  return base.layout.pieces.flatMap(cut)
}

/** The `<module>` of each rawname: where the base has one, else after its last one, sorted. */
function placed(base: ModuleFeed, mains: readonly ListedModule[]): Edit[] {
  const places = new Map(
    base.entries.filter((entry) => entry.section === 'module').map((entry) => [entry.rawname, entry]),
  )
  const sorted = [...mains].sort((a, b) => (a.entry.rawname < b.entry.rawname ? -1 : 1))
  return sorted.flatMap((one) => {
    const place = places.get(one.entry.rawname)
    if (place === undefined) {
      const at = base.layout.modulesEnd
      return [{ start: at, end: at, text: `\n${elementOf(one, 'module')}` }]
    }
    if (one.feed.text === base.text && one.entry.start === place.start) return []
    return [{ start: place.start, end: place.end, text: elementOf(one, 'module') }]
  })
}

/** An entry of another feed in the section of its own. */
function inserted(base: ModuleFeed, one: ListedModule): Edit {
  const { section, rawname } = one.entry
  if (section !== 'edge' && section !== 'beta') throw new Error(`a second ${section} ${rawname} of another list`)
  const text = `\n${elementOf(one, rawname)}`
  const place = base.layout.sections[section]
  return place === undefined
    ? insideEnd(base.text, base.layout.root, `<${section}>${text}</${section}>\n`)
    : insideEnd(base.text, place, text)
}

/** The element of an entry, verbatim but for its own name. */
function elementOf({ entry, feed }: ListedModule, name: string): string {
  const element = feed.text.slice(entry.start, entry.end)
  return element.replace(/^<[^\s/>]+/, `<${name}`).replace(/<\/[^\s>]+(\s*>)$/, `</${name}$1`)
}

/** A box that finds one issue, or none, takes the parts of it for issues. */
function issuesAdded({ text, layout }: ModuleFeed): Edit[] {
  const count = MIN_ISSUES - layout.issueCount
  if (count <= 0) return []
  const said = MAJORS.map((major) => `<v${major}.0><vulnerable>no</vulnerable></v${major}.0>`).join('')
  const issues = Array.from(
    { length: count },
    (_, i) => `<issue><id>GAPFERRY-${i + 1}</id><versions>${said}</versions></issue>\n`,
  ).join('')
  const { security } = layout.sections
  return security === undefined
    ? [insideEnd(text, layout.root, `<security>\n${issues}</security>\n`)]
    : [insideEnd(text, security, issues)]
}

const LATER = 'look at what the upstream answers; when it was a passing fault, run the command again later'

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('MODULE_LIST_INVALID', `${what}: ${why}`, { hint: LATER })
}

function short(count: number): GapferryError {
  return new GapferryError(
    'MODULE_LIST_SHORT',
    `a box cannot read a list of ${count === 0 ? 'no modules' : 'one module'}: expected at least ${MIN_MODULES}`,
    { hint: 'let the policy want another module, for instance core: want, or do not block framework and core' },
  )
}
