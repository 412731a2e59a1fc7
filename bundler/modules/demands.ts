/** What an entry demands of a box, and what of that a box would not fulfil once it has taken all that its list has for it. */
import {
  BUILTIN,
  isMet,
  parseComponentDemand,
  parseEngineDemand,
  parseModuleDemand,
  parseVersionDemand,
  type NamedDemand,
  type VersionDemand,
} from '../../manifests/module-depends.ts'
import type { ModuleEntry } from '../../manifests/module-feed.ts'

/** `text` is the demand as the list spells it. */
export interface ModuleDemand extends NamedDemand {
  text: string
}

export interface Demands {
  /** without what every box has */
  modules: readonly ModuleDemand[]
  framework: readonly { text: string; demand: VersionDemand }[]
  php: readonly { text: string; demand: VersionDemand }[]
  components: readonly { text: string; alternatives: readonly NamedDemand[] }[]
  /** one of all is enough; undefined: any engine will do */
  engines: { text: string; alternatives: readonly NamedDemand[] } | undefined
  files: readonly string[]
}

const known = new WeakMap<ModuleEntry, Demands>()

/** Read once, however many boxes the entry is held against. */
export function demandsOf(entry: ModuleEntry): Demands {
  const found = known.get(entry)
  if (found !== undefined) return found
  const demands = read(entry)
  known.set(entry, demands)
  return demands
}

function read({ depends }: ModuleEntry): Demands {
  const engines = depends.engine.flatMap((text) => parseEngineDemand(text) ?? [])
  return {
    modules: depends.module.flatMap((text) => {
      const demand = parseModuleDemand(text)
      return demand === undefined || demand.name === BUILTIN ? [] : [{ ...demand, text }]
    }),
    framework: versionsOf(depends.version),
    php: versionsOf(depends.phpversion),
    components: depends.phpcomponent.flatMap((text) => {
      const alternatives = parseComponentDemand(text)
      return alternatives === undefined ? [] : [{ text, alternatives }]
    }),
    engines: depends.engine.length === 0 ? undefined : { text: depends.engine.join(' or '), alternatives: engines },
    files: depends.file,
  }
}

function versionsOf(texts: readonly string[]): { text: string; demand: VersionDemand }[] {
  return texts.flatMap((text) => {
    const demand = parseVersionDemand(text)
    return demand === undefined ? [] : [{ text, demand }]
  })
}

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

/** @returns modules first */
export function unmetOf(demands: Demands, box: BoxAfter): Unmet[] {
  const { framework, phpver } = box
  const unmet: Unmet[] = []
  for (const demand of demands.modules) addModule(unmet, demand, box)
  for (const { text, demand } of demands.framework) {
    if (framework === undefined)
      unmet.push(unknown(`version ${text}`, 'the inventory does not tell the version of FreePBX'))
    else if (!isMet(framework, demand)) unmet.push(lacking(`version ${text}`, `the box will have FreePBX ${framework}`))
  }
  for (const { text, demand } of demands.php) {
    if (phpver === undefined)
      unmet.push(unknown(`phpversion ${text}`, 'the inventory does not tell the version of PHP'))
    else if (!isMet(phpver, demand)) unmet.push(lacking(`phpversion ${text}`, `the box has PHP ${phpver}`))
  }
  for (const one of demands.components) addComponent(unmet, one, box.components)
  if (demands.engines !== undefined) addEngine(unmet, demands.engines, box.astver)
  for (const path of demands.files) unmet.push(unknown(`file ${path}`, 'an inventory does not tell of this file'))
  return unmet
}

function addModule(unmet: Unmet[], demand: ModuleDemand, box: BoxAfter): void {
  if (box.isStuck(demand.name)) {
    unmet.push(unknown(demand.text, 'it waits on the box to be installed, in a version that is not told'))
    return
  }
  const version = box.versionFor(demand)
  if (version !== undefined && isMet(version, demand.version)) return
  unmet.push(lacking(demand.text, box.whyNot(demand.name)))
}

function addComponent(
  unmet: Unmet[],
  { text, alternatives }: Demands['components'][number],
  components: BoxAfter['components'],
): void {
  const found = alternatives.map((one) => hasComponent(one, components.get(one.name.toLowerCase())))
  if (found.includes(true)) return
  const requirement = `phpcomponent ${text}`
  const isUnknown = found.includes(undefined)
  if (isUnknown) unmet.push(unknown(requirement, 'the inventory does not tell of this PHP component'))
  else unmet.push(lacking(requirement, 'the PHP of the box does not have it'))
}

/** @returns undefined where it is not known */
function hasComponent(demand: NamedDemand, version: string | null | undefined): boolean | undefined {
  if (version === undefined) return undefined
  if (version === null) return false
  if (demand.version === undefined) return true
  return version === '' ? undefined : isMet(version, demand.version)
}

function addEngine(unmet: Unmet[], { text, alternatives }: Demands['engines'] & {}, astver: string | undefined): void {
  const requirement = `engine ${text}`
  const fit = alternatives.filter(({ name }) => name === ENGINE)
  if (fit.some(({ version }) => version === undefined)) return
  if (fit.length === 0) unmet.push(lacking(requirement, `the engine of the box is ${ENGINE}`))
  else if (astver === undefined) unmet.push(unknown(requirement, 'the inventory does not tell the version of Asterisk'))
  else if (!fit.some(({ version }) => isMet(astver, version))) {
    unmet.push(lacking(requirement, `the box has Asterisk ${astver}`))
  }
}

const ENGINE = 'asterisk'

function lacking(requirement: string, why: string): Unmet {
  return { requirement, why, isUnknown: false }
}

function unknown(requirement: string, why: string): Unmet {
  return { requirement, why, isUnknown: true }
}
