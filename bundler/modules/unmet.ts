/** What of an entry's `depends` a box would not fulfil once it has taken all that its list has for it. */
import type { ModuleDepends } from '../../manifests/module-feed.ts'
import {
  BUILTIN,
  isMet,
  parseComponentDemand,
  parseEngineDemand,
  parseModuleDemand,
  parseVersionDemand,
  type NamedDemand,
} from '../../manifests/module-depends.ts'

export interface BoxAfter {
  phpver: string | undefined
  astver: string | undefined
  components: ReadonlyMap<string, string | null>
  /** FreePBX's version once the framework is upgraded */
  framework: string | undefined
  /** version of a demanded module then; undefined: not there, or too old to begin with */
  versionFor: (demand: NamedDemand) => string | undefined
  /** whether the box has files of it that wait to be installed, and the list has nothing in their place */
  isStuck: (rawname: string) => boolean
  /** why a module that is lacking, or not fit, does not come */
  whyNot: (rawname: string) => string
}

export interface Unmet {
  /** with its kind where it is none of a module: `phpversion 8.2`, `sysadmin ge 16.0.20` */
  requirement: string
  why: string
  /** the fact is not known, so neither is whether it is fulfilled */
  isUnknown: boolean
}

/** @returns in the order of `depends`, modules first */
export function unmetOf(depends: ModuleDepends, box: BoxAfter): Unmet[] {
  return [
    ...depends.module.flatMap((text) => unmetModule(text, box)),
    ...depends.version.flatMap((text) => unmetVersion('version', text, 'FreePBX', box.framework)),
    ...depends.phpversion.flatMap((text) => unmetVersion('phpversion', text, 'PHP', box.phpver)),
    ...depends.phpcomponent.flatMap((text) => unmetComponent(text, box.components)),
    ...unmetEngine(depends.engine, box.astver),
    ...depends.file.map((path) => unknown(`file ${path}`, 'an inventory does not tell of this file')),
  ]
}

function unmetModule(text: string, box: BoxAfter): Unmet[] {
  const demand = parseModuleDemand(text)
  if (demand === undefined || demand.name === BUILTIN) return []
  const version = box.versionFor(demand)
  if (box.isStuck(demand.name))
    return [unknown(text, 'it waits on the box to be installed, in a version that is not told')]
  return version !== undefined && isMet(version, demand.version) ? [] : [unmet(text, box.whyNot(demand.name))]
}

function unmetVersion(kind: string, text: string, what: string, version: string | undefined): Unmet[] {
  const demand = parseVersionDemand(text)
  if (demand === undefined) return []
  if (version === undefined) return [unknown(`${kind} ${text}`, `the inventory does not tell the version of ${what}`)]
  return isMet(version, demand)
    ? []
    : [unmet(`${kind} ${text}`, `the box ${kind === 'version' ? 'will have' : 'has'} ${what} ${version}`)]
}

function unmetComponent(text: string, components: BoxAfter['components']): Unmet[] {
  const alternatives = parseComponentDemand(text)
  if (alternatives === undefined) return []
  const found = alternatives.map((one) => hasComponent(one, components.get(one.name.toLowerCase())))
  if (found.includes(true)) return []
  const requirement = `phpcomponent ${text}`
  if (found.includes(undefined)) return [unknown(requirement, 'the inventory does not tell of this PHP component')]
  return [unmet(requirement, 'the PHP of the box does not have it')]
}

/** @returns undefined where it is not known */
function hasComponent(demand: NamedDemand, version: string | null | undefined): boolean | undefined {
  if (version === undefined) return undefined
  if (version === null) return false
  if (demand.version === undefined) return true
  return version === '' ? undefined : isMet(version, demand.version)
}

/** One of all is enough. */
function unmetEngine(texts: readonly string[], astver: string | undefined): Unmet[] {
  if (texts.length === 0) return []
  const requirement = `engine ${texts.join(' or ')}`
  const demands = texts.flatMap((text) => parseEngineDemand(text) ?? []).filter(({ name }) => name === ENGINE)
  if (demands.some(({ version }) => version === undefined)) return []
  if (demands.length === 0) return [unmet(requirement, `the engine of the box is ${ENGINE}`)]
  if (astver === undefined) return [unknown(requirement, 'the inventory does not tell the version of Asterisk')]
  return demands.some(({ version }) => isMet(astver, version))
    ? []
    : [unmet(requirement, `the box has Asterisk ${astver}`)]
}

const ENGINE = 'asterisk'

function unmet(requirement: string, why: string): Unmet {
  return { requirement, why, isUnknown: false }
}

function unknown(requirement: string, why: string): Unmet {
  return { requirement, why, isUnknown: true }
}
