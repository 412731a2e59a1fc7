import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { removeFolder } from './cache.ts'
import { inventoryText } from './inventory-text.ts'
import { moduleXml } from './module-archive.ts'
import { mastersOf, moduleKeys, shippedKeys } from './module-keys.ts'
import type { ModuleSpec } from './module-list.ts'
import { run, type Teardown } from './process.ts'
import { soundOf, type SoundSpec } from './sound-upstream.ts'

/** What a box is made of. */
export interface BoxSpec {
  major: 15 | 16 | 17
  /** default what that major runs on */
  phpver?: string
  /** rawname → version, or more; framework must be one of them */
  modules: Record<string, string | HeldModule>
  /** file names (`0123456789ABCDEF.key`) of shipped keys that this box lacks */
  without?: readonly string[]
  brand?: string
  deployment?: string
  /** active repositories; default standard */
  repos?: readonly string[]
  /** MODULEADMINEDGE */
  edge?: boolean
  /** loaded extensions of PHP → version */
  extensions?: Record<string, string>
  sounds?: readonly SoundSpec[]
  /** files that are there: path on the box */
  files?: readonly string[]
}

/** What a box has of a module: its files are of `version`. */
export interface HeldModule extends Omit<ModuleSpec, 'rawname'> {
  /** default enabled; of a broken one the files are gone */
  state?: 'disabled' | 'not-installed' | 'broken'
  /** the version in the database, where it is another */
  installed?: string
}

/** What one command of a box did. */
export interface BoxRun {
  /** exit status as of fwconsole: 0, 1 stopped by an exception, 2 a module could not be fetched or checked */
  status: number
  /** in the order in which it went */
  upgraded: { rawname: string; from: string; to: string }[]
  /** what came over the network: served bytes and the plain archive (empty where it was refused) */
  fetched: Record<string, { version: string; path: string; bytes: number; sha256: string; inner: string }>
  /** what is left to upgrade by the list it knows */
  pending: Record<string, { from: string; to: string }>
  installed: Record<string, string>
  /** MODULE_REPO afterwards */
  repo: string
  /** `rawname issue` */
  vulnerable: string[]
  /** state bits by rawname: 129 good and trusted, 8 unsigned */
  signatures: Record<string, number>
  /** rawnames of the list it knows */
  listed: string[]
  log: string[]
  requests: { method: string; url: string; status: number; bytes: number }[]
}

export interface PhpBox {
  dir: string
  /** `fwconsole ma COMMAND`, or `sounds [LANGUAGE]`, some time after the last one: the kept list is stale. */
  run(command: string, ...args: string[]): Promise<BoxRun>
  /** MODULE_REPO, value alone: the default stays the vendor's */
  use(repo: string): void
  /** arguments of php that do what `run` does, for who runs it elsewhere */
  command(command: string, ...args: string[]): string[]
  /** `use`, then `upgradeall` */
  upgradeall(repo: string): Promise<BoxRun>
  /** another box that is just the same */
  clone(): PhpBox
  /** every installed file: path below the modules → SHA-256 */
  files(): Record<string, string>
  /** every module by name: version in the database, whether it is switched on, version of its files */
  held(): { rawname: string; db: string | undefined; isOn: boolean; file: string | undefined }[]
  /** what it keeps of the list it fetched, as PHP has it: section → content */
  kept(section: 'modules' | 'edge' | 'beta' | 'previous' | 'security' | 'expired'): unknown
  /** puts a key file beside the program, as an administrator may */
  addKey(name: string, text: string): void
  /** what `gapferry-box inventory` would say; `sections` are added or replaced */
  inventory(name: string, sections?: Record<string, string[]>): string
}

const BOX = join(import.meta.dirname, 'php-box/box.php')
const VENDOR = 'https://mirror.freepbx.org'
const PHP = { 15: '5.6.40', 16: '7.4.33', 17: '8.2.29' }
const SECTION_OF_DISTRO = { 15: '12.7.6-2002-1.sng7', 16: '12.7.8-2204-1.sng7', 17: '12.0.1' }

/** A new box in a folder of its own, removed in `t`'s teardown; it trusts the test vendor's masters. */
export async function makeBox(t: Teardown, spec: BoxSpec): Promise<PhpBox> {
  const keys = await moduleKeys()
  const parent = mkdtempSync(join(tmpdir(), 'gapferry-box-'))
  t.teardown(() => removeFolder(parent))
  const dir = join(parent, 'box-1')
  mkdirSync(join(dir, 'gnupg'), { recursive: true, mode: 0o700 })
  const keyFolder = join(dir, 'html/admin/libraries/BMO')
  mkdirSync(join(keyFolder, 'signatures'), { recursive: true })
  for (const [name, text] of shippedKeys(keys, spec.major)) {
    if (spec.without?.includes(name) !== true) writeFileSync(join(keyFolder, name), text)
  }
  for (const file of spec.files ?? []) write(join(dir, file), '')
  const state = stateOf(
    spec,
    mastersOf(keys, spec.major).map((key) => key.fingerprint),
  )
  for (const module of modulesOf(spec).filter((one) => one.state !== 'broken')) {
    write(join(dir, 'html/admin/modules', module.rawname, 'module.xml'), moduleXml(module))
  }
  write(join(dir, 'box.json'), JSON.stringify(state))
  return boxIn(parent, dir)
}

function boxIn(parent: string, dir: string): PhpBox {
  const box: PhpBox = {
    dir,
    command: (command, ...args) => {
      change(dir, (state) => {
        if (state.module_xml['modules'] !== undefined) state.module_xml['modules'].time = 0
      })
      return [BOX, dir, command, ...args]
    },
    run: async (command, ...args) => {
      const { stdout, stderr } = await run('php', box.command(command, ...args))
      if (stderr !== '' || !stdout.startsWith('{')) throw new Error(`box.php ${command}: ${stdout}\n${stderr}`)
      return JSON.parse(stdout) as BoxRun
    },
    use: (repo) => change(dir, (state) => (state.settings['MODULE_REPO'] = repo)),
    upgradeall: (repo) => {
      box.use(repo)
      return box.run('upgradeall')
    },
    clone: () => {
      const copy = join(parent, `box-${readdirSync(parent).length + 1}`)
      cpSync(dir, copy, { recursive: true })
      return boxIn(parent, copy)
    },
    files: () => digests(join(dir, 'html/admin/modules')),
    held: () => heldIn(dir),
    kept: (section) => (JSON.parse(readFileSync(join(dir, 'box.json'), 'utf8')) as State).module_xml[section]?.data,
    addKey: (name, text) => write(join(dir, 'html/admin/libraries/BMO', name), text),
    inventory: (name, sections = {}) =>
      inventoryText({ box: name, sections: { freepbx: freepbxLines(dir), ...sections } }),
  }
  return box
}

/** The part of box.json that this file changes or tells. */
interface State {
  facts: Record<string, string | number | null>
  settings: Record<string, string | number>
  admin: { version: string }
  modules: Record<string, { version: string; enabled: number }>
  module_xml: Record<string, { time: number; data: unknown } | undefined>
  sound_packages: Record<string, Required<SoundSpec> & { installed: string | null }>
  repos: readonly string[]
}

function stateOf(spec: BoxSpec, masters: string[]): State & Record<string, unknown> {
  const installed = modulesOf(spec).filter((one) => one.state !== 'not-installed')
  const rows = installed.map((one) => [
    one.rawname,
    { version: one.installed ?? one.version, enabled: one.state === 'disabled' ? 0 : 1 },
  ])
  const framework = installed.find((one) => one.rawname === 'framework')
  if (framework === undefined) throw new Error('a box needs framework')
  const sounds = (spec.sounds ?? []).map(soundOf)
  return {
    major: spec.major,
    facts: {
      machine: 'b08dfa6083e7567a1921a715000001fb',
      brand: spec.brand ?? null,
      deployment: spec.deployment ?? null,
      astver: '18.16.0',
      phpver: spec.phpver ?? PHP[spec.major],
      distro: 'freepbxdistro',
      distrover: SECTION_OF_DISTRO[spec.major],
      ucount: 3,
      zend: null,
      ioncube: spec.extensions?.['ionCube Loader'] ?? null,
    },
    masters,
    settings: { MODULE_REPO: VENDOR, MODULEADMINEDGE: spec.edge === true ? 1 : 0, MODULEADMIN_SKIP_CACHE: 0 },
    defaults: { MODULE_REPO: VENDOR },
    repos: spec.repos ?? ['standard'],
    extensions: spec.extensions ?? {},
    formats: ['ulaw', 'g722'],
    admin: { version: framework.installed ?? framework.version },
    modules: Object.fromEntries(rows) as State['modules'],
    module_xml: {},
    sound_packages: Object.fromEntries(
      sounds.map((one) => [
        `${one.type}-${one.module}-${one.language}-${one.format}`,
        { ...one, installed: one.version },
      ]),
    ),
  }
}

function modulesOf(spec: BoxSpec): (HeldModule & { rawname: string })[] {
  return Object.entries(spec.modules).map(([rawname, one]) => ({
    rawname,
    ...(typeof one === 'string' ? { version: one } : one),
  }))
}

function heldIn(dir: string): ReturnType<PhpBox['held']> {
  const { modules } = JSON.parse(readFileSync(join(dir, 'box.json'), 'utf8')) as State
  const folder = join(dir, 'html/admin/modules')
  const files = readdirSync(folder).filter((name) => name !== '_cache')
  return [...new Set([...Object.keys(modules), ...files])].sort().map((rawname) => {
    const file = files.includes(rawname)
      ? /<version>([^<]*)</.exec(readFileSync(join(folder, rawname, 'module.xml'), 'utf8'))![1]
      : undefined
    const row = modules[rawname]
    return { rawname, db: row?.version, isOn: row !== undefined && row.enabled !== 0, file }
  })
}

/** Lines of the section `freepbx`, from what the box is now. */
function freepbxLines(dir: string): string[] {
  const { facts, admin, modules, sound_packages, settings, repos } = JSON.parse(
    readFileSync(join(dir, 'box.json'), 'utf8'),
  ) as State
  const folder = join(dir, 'html/admin/modules')
  const names = readdirSync(folder).filter((name) => name !== '_cache')
  const rows = names.sort().map((name) => {
    const xml = readFileSync(join(folder, name, 'module.xml'), 'utf8')
    const version = /<version>([^<]*)</.exec(xml)![1]!
    const license = /<license>([^<]*)</.exec(xml)![1]!
    const row = modules[name]
    const state =
      row === undefined
        ? 'not-installed'
        : row.enabled === 0
          ? 'disabled'
          : row.version === version
            ? 'enabled'
            : 'needs-upgrade'
    return `module ${name} ${row?.version ?? version} ${state} ${license.replaceAll(' ', '%20')}`
  })
  const profile = {
    brandid: facts['brand'],
    distrover: facts['distrover'],
    distro: facts['distro'],
    deploymentid: facts['deployment'],
    machineid: createHash('sha256').update(String(facts['machine'])).digest('hex'),
    astver: facts['astver'],
    phpver: facts['phpver'],
    ioncube: facts['ioncube'],
    ucount: facts['ucount'],
  }
  const given = Object.entries(profile).filter(([, value]) => value !== null && value !== undefined)
  const keyFolder = join(dir, 'html/admin/libraries/BMO')
  const keys = readdirSync(keyFolder).filter((name) => name.endsWith('.key'))
  const sounds = Object.values(sound_packages).filter((one) => one.installed !== null)
  return [
    `framework ${admin.version}`,
    ...rows,
    ...given.map(([name, value]) => `profile ${name} ${value}`),
    ...keys.sort().flatMap((name) => keyLines(name.slice(0, -4), readFileSync(join(keyFolder, name), 'utf8'))),
    ...sounds.map((one) => `sound ${one.type} ${one.module} ${one.language} ${one.format} ${one.installed}`),
    `setting MODULEADMINEDGE ${settings['MODULEADMINEDGE']}`,
    ...repos.map((name) => `active-repo ${name}`),
  ]
}

function keyLines(name: string, text: string): string[] {
  const lines = text.split('\n').filter((line, i, all) => line !== '' || i < all.length - 1)
  return [`key ${name}`, ...lines.map((line) => `key-line ${name} ${line}`)]
}

function change(dir: string, work: (state: State) => void): void {
  const file = join(dir, 'box.json')
  const state = JSON.parse(readFileSync(file, 'utf8')) as State
  work(state)
  writeFileSync(file, JSON.stringify(state))
}

function digests(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !file.startsWith(join(folder, '_cache/')))
  const rows = files.sort().map((file) => {
    return [file.slice(folder.length + 1), createHash('sha256').update(readFileSync(file)).digest('hex')]
  })
  return Object.fromEntries(rows) as Record<string, string>
}

function write(file: string, text: string): void {
  mkdirSync(join(file, '..'), { recursive: true })
  writeFileSync(file, text)
}
