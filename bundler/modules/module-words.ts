/** What a person reads of why a module is carried. */
import { redact } from '../../manifests/errors.ts'
import type { ModuleBecause, ModuleReason } from '../resolve-modules.ts'

/** A carried module, as the plan has it. */
export interface ExplainedModule {
  rawname: string
  version: string
  reason: ModuleReason
  because: ModuleBecause
}

/** One line for a row of the plan, without names and versions that the row has. */
export function reasonText({ rawname, reason, because }: Omit<ExplainedModule, 'version'>): string {
  const { box = '', from = '', by = '', requirement, boxes } = because
  const more = boxes > 1 ? ` and ${boxes - 1} more` : ''
  if (reason === 'always') return 'always carried: what a box repairs first'
  if (reason === 'wanted') return 'wanted by the policy'
  if (reason === 'kept') return redact(`kept from the last bundle: ${box}${more} ${boxes > 1 ? 'have' : 'has'} it`)
  if (reason === 'dependency' && by === rawname) return redact(`listed beside its build ${requirement}`)
  if (reason === 'dependency') return redact(`needed by ${by} on ${box}${more}`)
  if (requirement !== undefined) return redact(`ends ${requirement} in ${named(from)} on ${box}${more}`)
  return redact(`upgrade of ${named(from)} on ${box}${more}${reason === 'pinned' ? ', pinned by the policy' : ''}`)
}

/** From a module to what it is carried for in the end, a step on each line.
 *  @param modules  all of the group's */
export function chainOf(modules: readonly ExplainedModule[], item: ExplainedModule): string[] {
  const chain = new Set<ExplainedModule>()
  for (let at: ExplainedModule | undefined = item; at !== undefined && !chain.has(at); at = nextOf(modules, at)) {
    if (chain.size === MAX_CHAIN) break
    chain.add(at)
  }
  const others = item.because.boxes - 1
  const more = others === 1 ? 'one other box takes it, too' : `${others} other boxes take it, too`
  return [...[...chain].map(stepOf), ...(others > 0 && item.because.box !== undefined ? [more] : [])]
}

const MAX_CHAIN = 50

function stepOf({ rawname, version, reason, because }: ExplainedModule): string {
  const { box = '', from = '', by = '', requirement = '' } = because
  const name = `${rawname} ${version}`
  if (reason === 'always') return redact(`${name} is always carried: what a box repairs first`)
  if (reason === 'wanted') return redact(`${name} is wanted by the policy`)
  if (reason === 'kept') return redact(`${name} was in the last bundle, and ${box} has ${rawname}`)
  if (reason === 'dependency' && by === rawname)
    return redact(`${name} stands in the list beside its build ${requirement}`)
  if (reason === 'dependency') return redact(`${name} is what ${by} needs on ${box}: ${requirement}`)
  const installed = `${box} has ${rawname} ${named(from)}`
  if (requirement !== '') return redact(`${name} ends ${requirement}; ${installed}`)
  return redact(`${name} is ${reason === 'pinned' ? 'what the policy pins' : 'newer'}; ${installed}`)
}

/** What demanded it; of two entries of one module that of the edge build is the reason. */
function nextOf(modules: readonly ExplainedModule[], at: ExplainedModule): ExplainedModule | undefined {
  if (at.reason !== 'dependency') return undefined
  return modules.find(({ rawname, because }) => rawname === at.because.by && because.by !== rawname)
}

function named(version: string): string {
  return version === '' ? 'no version' : version
}
