import { between, pick, type Random } from '../bench/random.ts'
import type { ModuleBox } from '../../bundler/resolve-modules.ts'
import { listed, type ModuleSpec } from './module-world.ts'
import type { Held } from './module-walk.ts'

/** A vendor's list, boxes that have some of it, and a policy; nobody planned them. */
export interface ModuleWorld {
  list: ModuleSpec[]
  /** the same as the policy leaves it */
  restricted: ModuleSpec[]
  boxes: { box: ModuleBox; held: Map<string, Held> }[]
  policy: Record<string, string>
  before: Record<string, string>
}

const FIXED = ['framework', 'core', 'sipsettings']
const OPERATORS = ['ge', 'gt', 'le', 'lt', 'eq', 'ne']

/** @param isLooped  whether demands may run in circles */
export function moduleWorld(random: Random, isLooped: boolean): ModuleWorld {
  const names = [...FIXED, ...Array.from({ length: between(random, 2, 10) }, (_, i) => `m${i}`)]
  const list = names.flatMap((name, i) => versionsOf(random, name, isLooped ? names : names.slice(0, i)))
  const policy = policyFor(random, list)
  const boxes = Array.from({ length: between(random, 1, 4) }, (_, i) => boxFor(random, `box${i}`, list))
  return {
    list,
    restricted: restrict(list, policy),
    boxes,
    policy,
    before: Object.fromEntries(list.filter(() => random() < 0.2).map(({ rawname, version }) => [rawname, version])),
  }
}

/** Older ones, the one of the list, and an edge build; some modules are not listed at all. */
function versionsOf(random: Random, name: string, others: readonly string[]): ModuleSpec[] {
  const count = FIXED.includes(name) ? 4 : between(random, 1, 4)
  const hasEdge = random() < 0.25
  const isListed = FIXED.includes(name) || random() < 0.9
  return Array.from({ length: count }, (_, i) => {
    const isLast = i === count - 1
    const section = isLast && isListed ? 'module' : isLast && hasEdge && isListed ? 'edge' : 'previous'
    return listed(`${name} ${i + 1}.0`, { section, depends: { module: demandsOf(random, name, others) } })
  }).concat(
    hasEdge && isListed
      ? [listed(`${name} ${count}.5`, { section: 'edge', depends: { module: demandsOf(random, name, others) } })]
      : [],
  )
}

/** Most are easy to fulfil: where one is not, little can be said of the rest of the box. */
function demandsOf(random: Random, name: string, others: readonly string[]): string[] {
  return others
    .filter((other) => other !== name && random() < 1.6 / others.length)
    .map((other) => {
      const dice = random()
      if (dice < 0.4) return other
      if (dice < 0.9) return `${other} ge ${between(random, 1, 2)}.0`
      return `${other} ${pick(random, OPERATORS)} ${between(random, 1, 4)}.0`
    })
}

function policyFor(random: Random, list: readonly ModuleSpec[]): Record<string, string> {
  const free = list.filter(({ rawname }) => !FIXED.includes(rawname))
  const policy: Record<string, string> = {}
  for (const { rawname, version, section } of free) {
    const dice = random()
    if (dice < 0.02) policy[rawname] = 'block'
    else if (dice < 0.05) policy[rawname] = `pin ${version}`
    else if (dice < 0.12 && section === 'module') policy[rawname] = 'want'
  }
  return policy
}

function restrict(list: readonly ModuleSpec[], policy: Record<string, string>): ModuleSpec[] {
  return list.flatMap((one) => {
    const rule = policy[one.rawname] ?? 'latest'
    if (rule === 'block') return []
    if (!rule.startsWith('pin ')) return [one]
    return rule === `pin ${one.version}` ? [{ ...one, section: 'module' as const }] : []
  })
}

function boxFor(
  random: Random,
  name: string,
  list: readonly ModuleSpec[],
): { box: ModuleBox; held: Map<string, Held> } {
  const held = new Map<string, Held>()
  for (const [rawname, versions] of Map.groupBy(list, (one) => one.rawname)) {
    const one = pick(random, versions)
    const share = random()
    const files = { file: one.version, depends: one.depends['module'] ?? [] }
    if (FIXED.includes(rawname) || share < 0.45) held.set(rawname, { ...files, db: one.version, isOn: true })
    else if (share < 0.52) held.set(rawname, { ...files, db: one.version, isOn: false })
    else if (share < 0.58) held.set(rawname, { ...files, isOn: false })
    else if (share < 0.62) held.set(rawname, { db: one.version, isOn: true, depends: [] })
    else if (share < 0.68) held.set(rawname, { ...files, db: '0.5', isOn: true })
  }
  return { held, box: { name, edge: random() < 0.3, modules: [...held].map(([rawname, one]) => told(rawname, one)) } }
}

function told(name: string, { db, file, isOn }: Held): ModuleBox['modules'][number] {
  if (file === undefined) return { name, version: db!, state: 'broken' }
  if (db === undefined) return { name, version: file, state: 'not-installed' }
  return { name, version: db, state: !isOn ? 'disabled' : db === file ? 'enabled' : 'needs-upgrade' }
}
