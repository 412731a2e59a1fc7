/**
 * The kept plan: `plan.json` in the store. Each site is planned by itself, so planning one does not forget another; and a
 * plan counts only for the settings that it was made from.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { replaceFile, systemCode } from '../storage/durable.ts'
import type { Fleet } from './config.ts'
import { boxesByGroup } from './inventories.ts'
import { PLAN_FORMAT, settingsDigest, type Plan } from './plan.ts'

const PLAN_FILE = 'plan.json'

/** Keeps the plan's sites beside those that were planned before. */
export function keepPlan(fleet: Fleet, plan: Plan): void {
  const others = readPlan(fleet)?.sites.filter(({ name }) => !isIn(plan.sites, name) && isIn(fleet.sites, name)) ?? []
  const merged: Plan = { ...plan, sites: [...others, ...plan.sites] }
  // Base URLs may hold credentials.
  replaceFile(join(fleet.storeDir, PLAN_FILE), Buffer.from(JSON.stringify(merged)), 0o600)
}

/** The kept plan of every site of the settings, in their order.
 *  @param site  only this one
 *  @throws SITE_UNKNOWN; PLAN_UNFETCHED when one was not planned, or its settings or inventories have changed since;
 *          BOX_UNGROUPED, INVENTORY_INVALID */
export function keptPlan(fleet: Fleet, site: string | undefined): Plan {
  const kept = readPlan(fleet)
  const wanted = fleet.sites.filter((one) => site === undefined || one.name === site)
  if (wanted.length === 0) {
    const known = fleet.sites.map((one) => one.name).join(', ')
    throw new GapferryError('SITE_UNKNOWN', `${fleet.file} has no site "${site}"`, { hint: `its sites: ${known}` })
  }
  const sites = wanted.map((settings) => {
    const planned = kept?.sites.find((one) => one.name === settings.name)
    if (planned === undefined) throw unplanned(`site ${settings.name} is not planned yet`)
    if (planned.settings !== settingsDigest(settings)) {
      throw unplanned(`site ${settings.name}: ${fleet.file} has changed since it was planned`)
    }
    if (boxesOfPlan(planned) !== boxesNow(fleet, settings.name)) {
      throw unplanned(`site ${settings.name}: its inventories have changed since it was planned`)
    }
    return planned
  })
  return { format: PLAN_FORMAT, createdAtMs: kept?.createdAtMs ?? 0, sites }
}

function boxesOfPlan({ groups }: Plan['sites'][number]): string {
  return boxesText(groups.flatMap(({ name, boxes }) => boxes.map((box) => [name, box.name, box.inventory])))
}

function boxesNow(fleet: Fleet, site: string): string {
  const groups = [...boxesByGroup(fleet, site)]
  return boxesText(
    groups.flatMap(([group, boxes]) => boxes.map(({ name, inventory }) => [group, name, inventory.digest])),
  )
}

function boxesText(boxes: string[][]): string {
  return boxes
    .map((box) => box.join(' '))
    .sort()
    .join('\n')
}

/** Whatever was kept, whether the settings have changed since or not; undefined where there is none. */
export function readPlan(fleet: Fleet): Plan | undefined {
  try {
    const plan = JSON.parse(readFileSync(join(fleet.storeDir, PLAN_FILE), 'utf8')) as Plan
    // what another version of this program wrote
    return plan.format === PLAN_FORMAT ? plan : undefined
  } catch (error) {
    // A plan that cannot be read is made anew: it holds nothing that cannot be found again.
    if (systemCode(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}

function unplanned(why: string): GapferryError {
  return new GapferryError('PLAN_UNFETCHED', why, { hint: 'gapferry pull' })
}

function isIn(sites: { name: string }[], name: string): boolean {
  return sites.some((site) => site.name === name)
}
