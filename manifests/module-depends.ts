/**
 * What `depends` and `breaking` of a module demand, read as a box reads them. A box takes each text by a pattern of its
 * kind and passes over what does not fit: such a text demands nothing. The patterns are the box's own, with all that is
 * odd in them (`core 16` without a dot fits none, `>=` neither). Rules: checkdepends and resolveDependencies of FreePBX
 * framework 15 to 17.
 */
import { compareModuleVersions } from './module-version.ts'

/** `never`: an operator in capitals, which no PHP takes. */
export type Operator = 'lt' | 'le' | 'gt' | 'ge' | 'eq' | 'ne' | 'never'

export interface VersionDemand {
  operator: Operator
  version: string
}

/** A module, a PHP component or an engine; any version fulfils it where none is named. */
export interface NamedDemand {
  name: string
  version: VersionDemand | undefined
}

/** Of `depends/version`, `depends/phpversion` and `breaking/module/version`.
 *  @returns undefined for a text that demands nothing */
export function parseVersionDemand(text: string): VersionDemand | undefined {
  const [, operator, version] = fit(VERSION, text)
  return version === undefined ? undefined : { operator: operatorOf(operator), version }
}

/** Of `depends/module`.
 *  @returns undefined for a text that demands nothing */
export function parseModuleDemand(text: string): NamedDemand | undefined {
  return named(fit(MODULE, text))
}

/** Of `depends/phpcomponent`.
 *  @returns the alternatives, of which one is enough; undefined for a text that demands nothing */
export function parseComponentDemand(text: string): NamedDemand[] | undefined {
  const alternatives = text.split('||').map((part) => named(fit(COMPONENT, part)))
  return alternatives.every((one) => one !== undefined) ? alternatives : undefined
}

/** Of one `depends/engine`: a module with any of them demands that one of all its engines is there.
 *  @returns undefined for a text that no engine fulfils */
export function parseEngineDemand(text: string): NamedDemand | undefined {
  const demand = named(fit(ENGINE, text))
  // PHP takes "0" for nothing
  return demand?.version?.version === '0' ? { name: demand.name, version: undefined } : demand
}

/** Whether `version` fulfils `demand`; where none is demanded, any does. */
export function isMet(version: string, demand: VersionDemand | undefined): boolean {
  if (demand === undefined) return true
  const order = compareModuleVersions(version, demand.version)
  if (demand.operator === 'lt') return order < 0
  if (demand.operator === 'le') return order <= 0
  if (demand.operator === 'gt') return order > 0
  if (demand.operator === 'ge') return order >= 0
  if (demand.operator === 'eq') return order === 0
  return demand.operator === 'ne' && order !== 0
}

/** One module that a box has: its version in the box's database and its state as `gapferry-box inventory` writes it. */
export interface InstalledModule {
  version: string
  state: string
}

/** What a box has of a module once it has taken from its list all that it can: nothing goes back.
 *  @param listed  its version in the box's list
 *  @returns undefined for what it then lacks still */
export function versionAfter(installed: InstalledModule | undefined, listed: string | undefined): string | undefined {
  if (installed === undefined || installed.state === 'broken') return listed
  if (listed === undefined || compareModuleVersions(installed.version, listed) >= 0) return installed.version
  return listed
}

/** Whether a box's `showupgrades` names a module: a disabled one, and one of which it has the files alone, is left.
 *  Rule: an update that waits to be installed is taken again, but never an older one.
 *  @param listed  its version in the box's list */
export function isUpgrade({ version, state }: InstalledModule, listed: string): boolean {
  const order = compareModuleVersions(version, listed)
  if (state === 'needs-upgrade') return order <= 0
  return (state === 'enabled' || state === 'unknown') && order < 0
}

export interface MissingModule {
  /** rawname of the listed module that demands it */
  by: string
  /** as the list spells it */
  requirement: string
  rawname: string
  /** the version that the box would have of it; undefined: none at all */
  found: string | undefined
}

/** What a box would not find when it takes from a list all that the list has for it: its upgrades, and every listed
 *  module that it lacks (`installall`).
 *  @param listed  entries of the list, one for each rawname
 *  @param installed  by rawname */
export function missingModules(
  listed: readonly { rawname: string; version: string; depends: { module: readonly string[] } }[],
  installed: ReadonlyMap<string, InstalledModule>,
): MissingModule[] {
  const versions = new Map(listed.map(({ rawname, version }) => [rawname, version]))
  return listed
    .filter(({ rawname, version }) => isTaken(installed.get(rawname), version))
    .flatMap(({ rawname: by, depends }) =>
      depends.module.flatMap((requirement): MissingModule[] => {
        const demand = parseModuleDemand(requirement)
        if (demand === undefined || demand.name === BUILTIN) return []
        const found = versionAfter(installed.get(demand.name), versions.get(demand.name))
        if (found !== undefined && isMet(found, demand.version)) return []
        return [{ by, requirement, rawname: demand.name, found }]
      }),
    )
}

/** Part of the framework, there on every box and in no list. */
export const BUILTIN = 'builtin'

function isTaken(installed: InstalledModule | undefined, listed: string): boolean {
  return installed === undefined || installed.state === 'not-installed' || isUpgrade(installed, listed)
}

/** A longer text would cost more to read than it can mean. */
const MAX_TEXT_LENGTH = 200
const SPACE = '[ \\t\\n\\v\\f\\r]'
const OPERATOR = 'lt|le|gt|ge|==|=|eq|!=|ne'
const LETTERS = '[betalphrc|]'
const DOTTED = `[0-9]+(?:\\.[0-9]*${LETTERS}*[0-9]+)+`
const VERSION = pattern(`(${OPERATOR})?${SPACE}*([0-9]*${LETTERS}?[0-9]+(?:\\.[^.]+)*)`)
const MODULE = pattern(`([a-z0-9_]+)(?:${SPACE}+(${OPERATOR})?${SPACE}*(${DOTTED}))?`)
const COMPONENT = pattern(
  `([a-z0-9_]+|Zend (?:Optimizer|Guard Loader))(?:${SPACE}+(${OPERATOR})?${SPACE}*(${DOTTED}))?`,
)
const ENGINE = pattern(`([a-z0-9_]+)(?:${SPACE}+(${OPERATOR})?${SPACE}*([0-9]+(?:\\.[^.]+)*))?`)

/** PHP's `$` fits before a line end, too. */
function pattern(source: string): RegExp {
  return new RegExp(`^${source}\\n?$`, 'i')
}

function fit(expression: RegExp, text: string): readonly (string | undefined)[] {
  return text.length > MAX_TEXT_LENGTH ? [] : (expression.exec(text) ?? [])
}

function named([, name, operator, version]: readonly (string | undefined)[]): NamedDemand | undefined {
  if (name === undefined) return undefined
  return { name, version: version === undefined ? undefined : { operator: operatorOf(operator), version } }
}

const OPERATORS = new Map<string, Operator>([
  ['lt', 'lt'],
  ['le', 'le'],
  ['gt', 'gt'],
  ['ge', 'ge'],
  ['eq', 'eq'],
  ['==', 'eq'],
  ['=', 'eq'],
  ['ne', 'ne'],
  ['!=', 'ne'],
])

function operatorOf(text: string | undefined): Operator {
  return text === undefined ? 'ge' : (OPERATORS.get(text) ?? 'never')
}
