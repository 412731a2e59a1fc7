import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pLimit from 'p-limit'
import type { Plan } from '../../bundler/plan.ts'
import type { PlanProof } from '../../bundler/prove-plan.ts'
import type { PlanFigures } from '../../bundler/render.ts'
import { runOnBox } from './as-box.ts'
import type { DnfClient, TransactionItem } from './dnf.ts'
import { GENERATIONS, makeBox, STATES } from './fleet.ts'
import { makeGap, type Gap } from './gap.ts'
import { makeLab, type Lab } from './lab.ts'
import { must, type Teardown } from './process.ts'

/** The fleet of fleet.ts, its vendor, and a laptop that knows nothing of it yet. */
export interface FleetRun {
  lab: Lab
  gap: Gap
  boxes: Map<string, DnfClient>
}

/** What dnf would do now, or why it would do nothing. */
export interface Answer {
  items: TransactionItem[]
  error: string
}

/** Boxes are worlds of their own, so two at a time are safe; more would not be quicker. */
const PARALLEL = 2

export async function startFleet(t: Teardown): Promise<FleetRun> {
  const lab = await makeLab(t)
  await publish(lab, 'all')
  const gap = await makeGap(t, lab.folder('gap'), settings(lab))
  const boxes = await each(new Map(Object.keys(STATES).map((name) => [name, name])), (name) => makeBox(lab, name))
  return { lab, gap, boxes }
}

export async function publish(lab: Lab, generation: keyof typeof GENERATIONS): Promise<void> {
  await lab.publish('base', GENERATIONS[generation].base)
  await lab.publish('pkgs', GENERATIONS[generation].pkgs)
}

/** Does the same for each, two at a time. */
export async function each<A, R>(all: ReadonlyMap<string, A>, work: (one: A, name: string) => Promise<R>) {
  const limit = pLimit(PARALLEL)
  const done = [...all].map(([name, one]) => limit(async () => [name, await work(one, name)] as const))
  return new Map(await Promise.all(done))
}

export function answers({ boxes }: FleetRun): Promise<Map<string, Answer>> {
  return each(boxes, answer)
}

export async function answer(box: DnfClient): Promise<Answer> {
  try {
    return { items: await box.pending(), error: '' }
  } catch (error) {
    return { items: [], error: String(error) }
  }
}

/** Takes the inventory of every box and brings them to the laptop. */
export async function bringInventories({ lab, gap, boxes }: FleetRun): Promise<void> {
  const dir = lab.folder('inventories')
  mkdirSync(dir, { recursive: true })
  const files = await each(boxes, async (box, name) => {
    const { stdout } = must(await runOnBox(box, name, ['inventory']))
    writeFileSync(join(dir, `${name}.gfi`), stdout)
    return join(dir, `${name}.gfi`)
  })
  must(await gap.gapferry('inventory', 'add', ...files.values()))
}

export type ShownPlan = Plan & PlanFigures & { proof?: PlanProof[] }

export async function plan({ gap }: FleetRun, ...args: string[]): Promise<ShownPlan> {
  return JSON.parse(must(await gap.gapferry('plan', '--json', ...args)).stdout) as ShownPlan
}

/** Bytes of what is carried, and of what these transactions install; NEVRAs of `before` are left out. */
export function carriedAndNeeded(
  shown: ShownPlan,
  transactions: ReadonlyMap<string, Answer>,
  before: ReadonlySet<string> = new Set(),
): { carried: number; needed: number } {
  const coming = new Set([...transactions.values()].flatMap(({ items }) => items.filter(comes).map((one) => one.nevra)))
  const packages = packagesOf(shown).filter(({ nevra }) => !before.has(nevra))
  const sum = (some: typeof packages): number => some.reduce((total, { bytes }) => total + bytes, 0)
  return { carried: sum(packages), needed: sum(packages.filter(({ nevra }) => coming.has(nevra))) }
}

export function nevrasOf(shown: ShownPlan): Set<string> {
  return new Set(packagesOf(shown).map(({ nevra }) => nevra))
}

function packagesOf({ sites }: ShownPlan): { nevra: string; bytes: number }[] {
  return sites[0]!.groups[0]!.yum.flatMap((repo) => repo.packages)
}

function comes({ action }: TransactionItem): boolean {
  return ['Install', 'Upgrade', 'Downgrade', 'Reinstall'].includes(action)
}

function settings(lab: Lab): string {
  const repository = (id: string, path: string): string =>
    `  - { id: ${id}, baseurl: ['${lab.url}/${path}/'], gpgkey: '${lab.keyFile}', repoGpgcheck: true, gpgcheck: true }\n`
  return `yum:\n${repository('sng-base', 'base')}${repository('sng-pkgs', 'pkgs')}`
}
