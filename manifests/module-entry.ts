/**
 * One module of a module list, checked. What stands in it decides what a box runs as root and which path it asks for, so an
 * entry that a box could not use, or that no tree can hold, is none.
 */
import { redact } from './errors.ts'
import { parseTreePath, type TreePath } from './path.ts'
import { childrenByName, phpText, type PhpElement } from './php-xml.ts'

export type ModuleSection = 'module' | 'edge' | 'beta' | 'previous'

/** A version of a module that an upstream offers. */
export interface ModuleEntry {
  rawname: string
  version: string
  /** where its archive lies below `modules/` */
  location: TreePath
  /** the part of the list that it stands in */
  section: ModuleSection
  name?: string
  repo?: string
  license?: string
  commercial: boolean
  /** of the archive: of the .tgz inside when it is signed, else of the file; lower hex */
  md5?: string
  sha1?: string
  /** of the .tgz.gpg; there is one for an archive that is signed, and only then */
  signedSha1?: string
  depends: ModuleDepends
  breaking: { type?: string; rawname: string; version?: string }[]
  /** its element in the text of its feed, in UTF-16 units */
  start: number
  end: number
}

/** What the entry says it depends on, by kind: the texts as they stand, empty ones too. */
interface ModuleDepends {
  version: string[]
  phpversion: string[]
  phpcomponent: string[]
  module: string[]
  file: string[]
  engine: string[]
  /** `kind: text` of every other kind */
  unknown: string[]
}

const MAX_TEXT = 1000
const MAX_RELATIONS = 500
const RAWNAME = /^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$/
const VERSION = /^[0-9][0-9A-Za-z._+~-]{0,63}$/
/** What a URL and a shell take for nothing else. */
const LOCATION = /^[A-Za-z0-9._+~@=,/-]{1,400}$/

type Fields = Map<string, PhpElement[]>

/** @returns the entry, or why it is none */
export function readModuleEntry(element: PhpElement, section: ModuleSection): ModuleEntry | string {
  const fields = childrenByName(element.children)
  const rawname = required(fields, 'rawname', RAWNAME)
  if ('why' in rawname) return rawname.why
  const version = required(fields, 'version', VERSION)
  if ('why' in version) return version.why
  const location = readLocation(fields)
  if ('why' in location) return location.why
  const sums = readSums(fields)
  if ('why' in sums) return sums.why
  const depends = readDepends(fields)
  const breaking = readBreaking(fields)
  if (depends === undefined || breaking === undefined) return `has more than ${MAX_RELATIONS} depends or breaking`
  return {
    rawname: rawname.text,
    version: version.text,
    location: location.text as TreePath,
    section,
    ...told(fields, 'name', 'repo', 'license'),
    commercial: isCommercial(fields),
    ...sums,
    depends,
    breaking,
    start: element.start,
    end: element.end,
  }
}

/** A foreign text as it may stand in a message. */
export function quoted(text: string): string {
  return `"${redact(text.length > 80 ? `${text.slice(0, 80)}…` : text)}"`
}

/** The text of the only element of this name. Of several, or of one with elements inside, a box makes no text. */
function textOf(fields: Fields, name: string): string | undefined {
  const same = fields.get(name)
  return same?.length === 1 ? phpText(same[0]) : undefined
}

type Read = { text: string } | { why: string }

function required(fields: Fields, name: string, pattern: RegExp): Read {
  const count = fields.get(name)?.length ?? 0
  if (count > 1) return { why: `has ${count} <${name}>` }
  const text = textOf(fields, name)
  if (text === undefined) return { why: `has no <${name}>` }
  return pattern.test(text) ? { text } : { why: `its <${name}> ${quoted(text)} is not one that a box can use` }
}

function readLocation(fields: Fields): Read {
  const text = textOf(fields, 'location') ?? ''
  if (/^https:/i.test(text))
    return { why: `its archive lies elsewhere, ${quoted(text)}, where a box without internet cannot fetch it` }
  const location = required(fields, 'location', LOCATION)
  if ('why' in location) return location
  try {
    return { text: parseTreePath(location.text, 'location') }
  } catch {
    return { why: `its <location> ${quoted(location.text)} is not a path below modules/` }
  }
}

/** A box compares the spelling, so one in capitals never fits. */
function readSums(fields: Fields): Pick<ModuleEntry, 'md5' | 'sha1' | 'signedSha1'> | { why: string } {
  const sums: Pick<ModuleEntry, 'md5' | 'sha1' | 'signedSha1'> = {}
  for (const [key, name, digits] of [
    ['md5', 'md5sum', 32],
    ['sha1', 'sha1sum', 40],
  ] as const) {
    const text = textOf(fields, name)
    if (text === undefined) continue
    if (!isHex(text, digits)) return { why: `its <${name}> ${quoted(text)} is not ${digits} hex digits` }
    sums[key] = text
  }
  const signed = fields.get('signed') ?? []
  if (signed.length > 1) return { why: `has ${signed.length} <signed>` }
  const inside = childrenByName(signed[0]?.children ?? [])
  if (textOf(inside, 'type') !== 'gpg') return sums
  const sha1 = textOf(inside, 'sha1') ?? ''
  return isHex(sha1, 40) ? { ...sums, signedSha1: sha1 } : { why: 'says that it is signed and has no sha1 of that' }
}

function isHex(text: string, digits: number): boolean {
  return text.length === digits && /^[0-9a-f]+$/.test(text)
}

function told<K extends string>(fields: Fields, ...names: K[]): { [name in K]?: string } {
  const texts = names.map((name) => [name, textOf(fields, name)?.slice(0, MAX_TEXT)] as const)
  return Object.fromEntries(texts.filter(([, text]) => text !== undefined)) as { [name in K]?: string }
}

function isCommercial(fields: Fields): boolean {
  const [commercial] = fields.get('commercial') ?? []
  const isNamed = commercial !== undefined && (commercial.children.length > 0 || phpText(commercial) !== undefined)
  return isNamed || textOf(fields, 'repo') === 'commercial'
}

function readDepends(fields: Fields): ModuleDepends | undefined {
  const depends: ModuleDepends = {
    version: [],
    phpversion: [],
    phpcomponent: [],
    module: [],
    file: [],
    engine: [],
    unknown: [],
  }
  // Of several <depends> a box makes a list, and finds nothing in it that it knows.
  const all = fields.get('depends') ?? []
  if (all.length > 1) depends.unknown.push(`depends: ${all.length} of them`)
  const children = all.length === 1 ? all[0]!.children : []
  if (children.length > MAX_RELATIONS) return undefined
  for (const child of children) {
    const text = (phpText(child) ?? '').slice(0, MAX_TEXT)
    const isKnown = child.children.length === 0 && child.name !== 'unknown' && Object.hasOwn(depends, child.name)
    if (isKnown) depends[child.name as keyof ModuleDepends].push(text)
    else depends.unknown.push(`${child.name.slice(0, MAX_TEXT)}: ${text}`)
  }
  return depends
}

function readBreaking(fields: Fields): ModuleEntry['breaking'] | undefined {
  const breaking = fields.get('breaking') ?? []
  const modules = breaking.length === 1 ? breaking[0]!.children.filter((child) => child.name === 'module') : []
  if (modules.length > MAX_RELATIONS) return undefined
  return modules.flatMap((module) => {
    const inside = childrenByName(module.children)
    const rawname = textOf(inside, 'rawname')?.trim()
    return rawname === undefined ? [] : [{ rawname: rawname.slice(0, MAX_TEXT), ...told(inside, 'type', 'version') }]
  })
}
