/** What an inventory says of FreePBX: raw facts of its section, line by line. FORMAT.md#inventory. */
import { textLines, unescapeText, unexpected, type Section } from './inventory-lines.ts'

/** What the module feed asks a box for, and what its licenses are. Nothing of a license but its name and its dates. */
export interface FreepbxFacts {
  /** of the framework, as `16.0.40.11`; undefined where neither database nor module.xml tells */
  framework: string | undefined
  modules: { name: string; version: string; state: string; license: string }[]
  /** fields of a module list request by their names there: `astver`, `phpver`, `brandid`, `deploymentid`, … */
  profile: Map<string, string>
  licenses: { file: string; facts: Map<string, string> }[]
  /** 16 hex digits, upper case, of the signing keys that lie beside the framework */
  keys: string[]
  /** of those, what is in the file: name → armored public keys, lines ended by line feeds. Anybody may have put them there */
  keyFiles: Map<string, string>
  /** sound packages that are installed; empty where an older gapferry-box wrote this */
  sounds: { type: string; module: string; language: string; format: string; version: string }[]
  /** advanced settings that decide what updates by itself: `MODULEADMINEDGE`, `AUTOMODULEUPDATES`, … */
  settings: Map<string, string>
  /** the parts of a module list that the box looks at: `standard`, `commercial`, …; empty where nothing tells */
  activeRepos: string[]
}

/** A box may have anything there: larger or more files than these, gapferry-box leaves out. */
const MAX_KEY_FILES = 20
const MAX_KEY_FILE_LENGTH = 64 * 1024
const KEY_FILE = /^[0-9A-F]{16}$/

/** @param section  undefined where the box has no FreePBX
 *  @throws INVENTORY_INVALID naming the line */
export function readFreepbx(section: Section | undefined, what: string): FreepbxFacts | undefined {
  if (section === undefined) return undefined
  const facts = noFreepbxFacts()
  textLines(section, what).forEach((line, i) => {
    const [, kind = '', text = ''] = /^([a-z-]+) (.*)$/s.exec(line) ?? []
    const isTaken = takeText(facts, kind, text) || takeWords(facts, kind, text)
    if (!isTaken) throw unexpected(section, i, 'a fact of FreePBX', what)
  })
  return facts
}

/** A box of which nothing is known. */
export function noFreepbxFacts(): FreepbxFacts {
  return {
    framework: undefined,
    modules: [],
    profile: new Map(),
    licenses: [],
    keys: [],
    keyFiles: new Map(),
    sounds: [],
    settings: new Map(),
    activeRepos: [],
  }
}

/** Lines whose last field is all that follows. @returns false where the line is none of them */
function takeText(facts: FreepbxFacts, kind: string, text: string): boolean {
  const [first, second] = text.split(' ', 2).map((word) => unescapeText(word, true))
  const after = (count: number): string => text.split(' ').slice(count).join(' ')
  if (first === undefined) return false
  if (kind === 'key-line') return takeKeyLine(facts, first, after(1))
  if (kind === 'setting') return takeOnce(facts.settings, first, after(1).trim())
  if (kind === 'profile' && after(1).trim() !== '') return facts.profile.set(first, after(1).trim()) !== undefined
  const license = facts.licenses.at(-1)
  if (kind !== 'license-fact' || license?.file !== first || second === undefined || after(2).trim() === '') return false
  license.facts.set(second, after(2).trim())
  return true
}

function takeOnce(map: Map<string, string>, key: string, value: string): boolean {
  if (map.has(key)) return false
  map.set(key, value)
  return true
}

function takeKeyLine({ keyFiles }: FreepbxFacts, name: string, line: string): boolean {
  const text = `${keyFiles.get(name) ?? ''}${line}\n`
  if (!KEY_FILE.test(name) || text.length > MAX_KEY_FILE_LENGTH) return false
  keyFiles.set(name, text)
  return keyFiles.size <= MAX_KEY_FILES
}

/** Lines of words. @returns false where the line is none of them */
function takeWords(facts: FreepbxFacts, kind: string, text: string): boolean {
  const words = text.split(' ').map((word) => unescapeText(word, true))
  if (!words.every((word) => word !== undefined)) return false
  const [first = '', second = '', third = '', fourth = '', fifth = ''] = words
  const isOf = (name: string, count: number): boolean => kind === name && words.length === count
  if (isOf('module', 4)) facts.modules.push({ name: first, version: second, state: third, license: fourth })
  else if (isOf('sound', 5))
    facts.sounds.push({ type: first, module: second, language: third, format: fourth, version: fifth })
  else if (isOf('framework', 1) && facts.framework === undefined) facts.framework = first
  else if (isOf('license', 1)) facts.licenses.push({ file: first, facts: new Map() })
  else if (isOf('key', 1)) facts.keys.push(first)
  else if (isOf('active-repo', 1)) facts.activeRepos.push(first)
  else return false
  return true
}
