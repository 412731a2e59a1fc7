/** What an entry demands, read once however many boxes it is held against. */
import {
  BUILTIN,
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
