/** What a person reads of why a module is carried. */
import { redact } from '../../manifests/errors.ts'
import type { ModuleBecause, ModuleReason } from './carried-set.ts'

/** A carried module, as the plan has it. */
export interface ExplainedModule {
  rawname: string
  version: string
  reason: ModuleReason
  because: ModuleBecause
}

/** In one line, why it is carried. */
export function moduleReason({ rawname, reason, because }: Omit<ExplainedModule, 'version'>): string {
  const { from, by, requirement } = because
  const on = onBoxes(because)
  const newer = from === undefined ? '' : `newer than ${from === '' ? 'what is' : from}${on}`
  const texts: Record<ModuleReason, string> = {
    upgrade: requirement === undefined ? newer : `ends ${requirement} in ${from}, which is not running${on}`,
    wanted: 'wanted by policy',
    pinned: newer === '' ? 'pinned by policy' : `pinned by policy; ${newer}`,
    dependency:
      by === rawname
        ? `listed beside its ${requirement} build`
        : `${by ?? 'another'} needs ${requirement ?? 'it'}${on}`,
    always: 'always listed: boxes repair themselves with it',
    kept: `carried before, and still the newest${on === '' ? '' : ` of what is${on}`}`,
  }
  return redact(texts[reason])
}

/** From a module to what it is carried for in the end, a step on each line. */
export function moduleChain({ modules }: { modules: readonly ExplainedModule[] }, item: ExplainedModule): string[] {
  const chain = new Set<ExplainedModule>()
  for (let at: ExplainedModule | undefined = item; at !== undefined && !chain.has(at); at = nextOf(modules, at)) {
    if (chain.size === MAX_CHAIN) break
    chain.add(at)
  }
  return [...chain].map((at) => redact(`${at.rawname} ${at.version}: ${moduleReason(at)}`))
}

const MAX_CHAIN = 50

/** What demands it; of two entries of one module, the one that does not stand there for the other's sake. */
function nextOf(
  modules: readonly ExplainedModule[],
  { reason, because }: ExplainedModule,
): ExplainedModule | undefined {
  if (reason !== 'dependency') return undefined
  return modules.find((one) => one.rawname === because.by && one.because.by !== one.rawname)
}

function onBoxes({ box, boxes }: ModuleBecause): string {
  const more = boxes - 1
  const others = more < 1 ? '' : more === 1 ? ' and one other box' : ` and ${more} other boxes`
  return box === undefined ? '' : ` on ${box}${others}`
}
