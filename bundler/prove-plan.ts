/** `gapferry plan --prove`: every box of a plan, what libsolv says of it, and what a person reads of that. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { formatTable, plural } from '../manifests/console.ts'
import { GapferryError, redact } from '../manifests/errors.ts'
import type { Laptop } from './carry.ts'
import { boxesOf } from './laptop.ts'
import type { Plan } from './plan.ts'
import { refuseOtherManager } from './yum/box-state.ts'
import { listBytes } from './yum/proof-lists.ts'
import { proveBoxes, type BoxProof } from './yum/prove.ts'

export interface PlanProof extends BoxProof {
  site: string
  group: string
}

const SHOWN = 8
const SAYS = { same: 'same', other: 'same outcome by another choice', differs: 'DIFFERS' } as const

/** @param path  where programs are
 *  @throws TOOL_MISSING, TOOL_FAILED, what reading the lists throws, the signal's reason */
export async function provePlan(laptop: Laptop, plan: Plan, path: string | undefined): Promise<PlanProof[]> {
  const { fleet, store, signal, progress } = laptop
  const proof: PlanProof[] = []
  for (const { name: site, groups } of plan.sites) {
    for (const { name: group, yum, boxes } of groups) {
      if (boxes.length === 0 || yum.length === 0) continue
      const inventories = boxesOf(fleet, site, group).map((box) => {
        refuseOtherManager(group, box)
        return box
      })
      // the store's own folder for what is being made: a run that was cut off is cleared up by the next
      const dir = mkdtempSync(join(fleet.storeDir, 'staging', 'prove-'))
      const step = progress.step(`prove ${site} / ${group}`, listBytes(yum, { store }))
      try {
        const onBytes = (bytes: number): void => step.add(bytes)
        const found = await proveBoxes(yum, inventories, { dir, store, signal, path, onBytes })
        proof.push(...found.map((one) => ({ site, group, ...one })))
      } finally {
        step.end()
        rmSync(dir, { recursive: true, force: true })
      }
    }
  }
  return proof
}

/** What makes the command fail: a box whose update would not come to the same. */
export function proofFailure(proof: readonly PlanProof[]): GapferryError | undefined {
  const names = proof.filter(({ verdict }) => verdict === 'differs').map(({ box }) => box)
  if (names.length === 0) return undefined
  const boxes = names.length === 1 ? '1 box' : `${names.length} boxes`
  return new GapferryError(
    'PROOF_DIFFERS',
    `${boxes} would not update from what is carried as from all that is offered: ${names.join(', ')}`,
    { hint: 'look at exclude in gapferry.yaml; include what is missing; without either, please report it' },
  )
}

export function renderProof(proof: readonly PlanProof[]): string {
  if (proof.length === 0) return 'no inventories: there is nothing to prove'
  const title = 'an update of everything, by libsolv, from all that is offered and from what is carried:'
  const rows = proof.map(({ site, group, box, verdict, coming, problems }) => [
    `${site} / ${group}`,
    box,
    SAYS[verdict],
    problems.carried.length > 0 ? 'fails' : plural(coming, 'package'),
  ])
  return [title, formatTable(rows, { indent: '  ' }), ...proof.flatMap(detailLines)].join('\n')
}

function detailLines({ box, onlyOffered, onlyCarried, problems, doubts }: PlanProof): string[] {
  const lines: [string, readonly string[]][] = [
    ['only from all that is offered', onlyOffered],
    ['only from what is carried', onlyCarried],
    ['fails from all that is offered', problems.offered],
    ['fails from what is carried', problems.carried],
    ['proves little', doubts],
  ]
  return lines.flatMap(([what, list]) => (list.length === 0 ? [] : [redact(`  ${box}: ${what}: ${shown(list)}`)]))
}

function shown(list: readonly string[]): string {
  const more = list.length - SHOWN
  return `${list.slice(0, SHOWN).join(', ')}${more > 0 ? ` and ${more} more (--json has them all)` : ''}`
}
