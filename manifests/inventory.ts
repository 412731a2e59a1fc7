/**
 * The inventory: what one box says of itself, as `gapferry-box inventory` writes it. Raw facts; what they mean is decided
 * where they are read. FORMAT.md#inventory.
 */
import { sha256Of, type Sha256 } from './digest.ts'
import { distributionOf, pluginsOf, readConfiguration, variablesOf } from './inventory-config.ts'
import { readFreepbx, type FreepbxFacts } from './inventory-freepbx.ts'
import { invalidInventory, readSections, textLines, unescapeText, unexpected, type Section } from './inventory-lines.ts'
import { readPackages } from './inventory-packages.ts'
import type { PackageFacts } from './package-table.ts'

export type { FreepbxFacts } from './inventory-freepbx.ts'

export interface Inventory {
  /** the box's host name as it says it; names the box unless the person gives another */
  box: string
  /** SHA-256 of its machine id: two boxes may have one name, as installed; undefined where it has none */
  machine: string | undefined
  /** RFC 3339, UTC, whole seconds; of a stand-in: when it was added */
  createdAt: string
  /** of the file's bytes */
  digest: Sha256
  /** over what decides an update: installed packages, and the settings that choose between versions. The box computes the
   *  same (`gapferry-box parity`). Of a stand-in: over its packages alone */
  stateDigest: Sha256
  /** from os-release, or where there is none from redhat-release */
  distribution: { id: string; version: string; name: string }
  /** the kernel's, as `x86_64`; of a stand-in: of most of its packages */
  arch: string
  manager: 'yum' | 'dnf' | 'apt'
  /** of its package; empty where no package tells */
  managerVersion: string
  /** installed rpms without the entries of keys; `files`: only paths that some installed package requires */
  packages: PackageFacts[]
  /** `[main]` of yum.conf or dnf.conf; keys in lower case, lines of one value joined by a line end */
  mainOptions: Map<string, string>
  /** every section of the configuration and of every repository file, in the order in which the manager reads them; where
   *  an id stands twice, the first one counts. A password is replaced by `***` */
  repositories: InventoryRepository[]
  /** the manager's variables with `releasever` and `basearch` as it computes them; one that nothing tells is missing */
  variables: Map<string, string>
  /** entries of versionlock.list (yum's or dnf's), verbatim, without comments and empty lines; `!` leads an exclusion */
  versionLocks: string[]
  /** enabled plugins by name, as `versionlock`, `priorities`, `protectbase`, `fastestmirror`; none where the manager has them off */
  plugins: string[]
  kernelRunning: string
  /** keys that rpm trusts, as `352c64e5-52ae6884` (the last 8 digits of the key's id, its time) */
  rpmKeys: string[]
  freepbx: FreepbxFacts | undefined
  /** facts of a box that is to live without the internet, raw, by name; judged by judgeReadiness */
  readiness: Map<string, string>
  /** true: stands in for an inventory (pasted `rpm -qa`, baseline list): relations of installed packages and settings are
   *  not known */
  isGuess: boolean
}

export interface InventoryRepository {
  id: string
  /** absolute path on the box */
  file: string
  /** as in mainOptions */
  options: Map<string, string>
}

const MANAGERS = ['yum', 'dnf', 'apt'] as const
const BOX_FACTS = ['box', 'created', 'tool', 'arch', 'kernel', 'manager'] as const
/** An old box may have no machine id. */
const MACHINE = 'machine'
const SECTIONS = ['box', 'file', 'settings', 'plugins', 'relations', 'packages', 'rpm-keys', 'freepbx', 'readiness']
const RPM_SECTIONS = ['relations', 'packages', 'rpm-keys']
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/
/** A host name, which also names the box's files. */
const BOX = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/i
const FACT = /^([a-z][a-z0-9-]{0,59}) (.*)$/

/** Reads what `gapferry-box inventory` wrote.
 *  @param what  names the file in messages
 *  @throws INVENTORY_INVALID naming the line: what is not understood is refused, never left out */
export function parseInventory(bytes: Buffer, what: string): Inventory {
  const sections = readSections(bytes, what)
  const box = boxFacts(sectionNamed(sections, 'box', what), what)
  refuseUnknown(sections, box, what)
  const manager = box.manager as Inventory['manager']
  const { packages, keys } = manager === 'apt' ? { packages: [], keys: [] } : readRpm(sections, what)
  const files = fileTexts(sections, what)
  const config = readConfiguration(files, manager, what)
  const settings = textLines(sectionNamed(sections, 'settings', what), what)
  return {
    box: box.box,
    machine: box.machine,
    createdAt: box.created,
    digest: sha256Of(bytes),
    stateDigest: stateOf(sections),
    distribution: distributionOf(files),
    arch: box.arch,
    manager,
    managerVersion: packages.find((one) => one.name === manager)?.version ?? '',
    packages,
    mainOptions: config.main,
    repositories: config.repositories,
    variables: variablesOf({ files, main: config.main, packages, arch: box.arch, manager }),
    versionLocks: settings.filter((line) => line.startsWith('lock ')).map((line) => line.slice(5)),
    plugins: pluginsOf(textLines(sectionNamed(sections, 'plugins', what), what), config, manager),
    kernelRunning: box.kernel,
    rpmKeys: keys,
    freepbx: readFreepbx(
      sections.find((one) => one.name === 'freepbx'),
      what,
    ),
    readiness: readinessOf(sectionNamed(sections, 'readiness', what), what),
    isGuess: false,
  }
}

/** The digest of a box's state: its packages' NEVRAs sorted by bytes, then its settings, each on a line.
 *  @param settings  lines as `gapferry-box` writes them */
export function stateDigestOf(nevras: readonly string[], settings: readonly string[]): Sha256 {
  return sha256Of([...[...nevras].sort(), ...settings].map((line) => `${line}\n`).join(''))
}

/** As the box spells it: over its own bytes, so that odd ones make no difference. */
function stateOf(sections: readonly Section[]): Sha256 {
  const lines = (name: string): readonly string[] => sections.find((one) => one.name === name)?.lines ?? []
  const nevras = lines('packages').map((line) => {
    const [name, epoch, version, release, arch] = line.split(' ')
    return `${name}-${epoch === '0' ? '' : `${epoch}:`}${version}-${release}.${arch}`
  })
  return stateDigestOf(nevras, lines('settings'))
}

type BoxFacts = Record<(typeof BOX_FACTS)[number], string> & { machine?: string }

function boxFacts(section: Section, what: string): BoxFacts {
  const facts = new Map<string, string>()
  section.lines.forEach((line, i) => {
    const [, key = '', value = ''] = FACT.exec(line) ?? []
    const isKnown = [...BOX_FACTS, MACHINE].includes(key) && !facts.has(key) && value !== ''
    if (!isKnown) throw unexpected(section, i, `one of ${BOX_FACTS.join(', ')}, once, with a value`, what)
    facts.set(key, value)
  })
  const missing = BOX_FACTS.find((key) => !facts.has(key))
  if (missing !== undefined)
    throw invalidInventory(what, `line ${section.firstLine - 1}: expected a line "${missing} …"`)
  const box = Object.fromEntries(facts) as BoxFacts
  const check = (key: keyof BoxFacts, isGood: boolean, expected: string): void => {
    if (!isGood) throw invalidInventory(what, `${key}: expected ${expected}, found "${box[key]?.slice(0, 80)}"`)
  }
  check('box', BOX.test(box.box), 'a host name')
  check('created', TIME.test(box.created) && isTime(box.created), 'a time')
  check('manager', (MANAGERS as readonly string[]).includes(box.manager), MANAGERS.join(', '))
  return box
}

function isTime(text: string): boolean {
  const ms = Date.parse(text)
  return !Number.isNaN(ms) && new Date(ms).toISOString().replace('.000Z', 'Z') === text
}

function refuseUnknown(sections: readonly Section[], box: BoxFacts, what: string): void {
  for (const { name, argument, firstLine } of sections) {
    const isKnown = SECTIONS.includes(name) && (name === 'file') === (argument !== '')
    const isFitting = box.manager !== 'apt' || !RPM_SECTIONS.includes(name)
    if (isKnown && isFitting) continue
    throw invalidInventory(
      what,
      `line ${firstLine - 1}: the section ${name} of gapferry-box ${box.tool} is not known`,
      'install the gapferry that this gapferry-box came with, or a newer one',
    )
  }
}

function sectionNamed(sections: readonly Section[], name: string, what: string): Section {
  const found = sections.find((one) => one.name === name)
  if (found === undefined) throw invalidInventory(what, `expected a section ${name}, found none`)
  return found
}

function readRpm(sections: readonly Section[], what: string): { packages: PackageFacts[]; keys: string[] } {
  const [relations, packages, keys] = RPM_SECTIONS.map((name) => sectionNamed(sections, name, what))
  return { packages: readPackages(relations!, packages!, what), keys: textLines(keys!, what) }
}

function fileTexts(sections: readonly Section[], what: string): Map<string, string[]> {
  const files = sections.filter((one) => one.name === 'file')
  return new Map(
    files.map((section) => {
      const path = unescapeText(section.argument, true)
      if (path?.startsWith('/') !== true)
        throw invalidInventory(what, `line ${section.firstLine - 1}: expected a path, found "${section.argument}"`)
      return [path, textLines(section, what)]
    }),
  )
}

function readinessOf(section: Section, what: string): Map<string, string> {
  const facts = new Map<string, string>()
  textLines(section, what).forEach((line, i) => {
    const [, name = '', value] = FACT.exec(line) ?? []
    if (value === undefined || facts.has(name)) throw unexpected(section, i, 'a fact with its value, once', what)
    facts.set(name, value.trim())
  })
  return facts
}
