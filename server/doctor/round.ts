/** The doctor's rounds: which groups are looked at, with what is known of each. */
import { readFileSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { plural } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { MAX_INVENTORY_BYTES } from '../../manifests/inventory-lines.ts'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Surroundings } from '../../manifests/program.ts'
import { makeProgress } from '../../manifests/progress.ts'
import type { ServedTree } from '../../storage/releases.ts'
import { knownContacts } from '../boxes.ts'
import type { MirrorConfig } from '../config.ts'
import { readFacts } from '../status.ts'
import { judgeClock, type MirrorStore } from '../store.ts'
import { examine, type Patient } from './examine.ts'
import { thisNetwork } from './reach.ts'
import type { Examined } from './render.ts'

export interface DoctorOptions {
  group?: string[]
  /** an inventory's file */
  box?: string
  moduleRepo?: string
}

/** @throws GROUP_UNKNOWN; USAGE_INVALID where nothing tells which group a box is of; INVENTORY_INVALID */
export async function examineAll(
  around: Surroundings,
  store: MirrorStore,
  config: MirrorConfig,
  options: DoctorOptions,
): Promise<Examined[]> {
  const doctor = {
    configFile: config.file,
    network: thisNetwork,
    progress: makeProgress(around),
    nowMs: around.nowMs,
    clockFault: judgeClock(store.catalog, around.nowMs()).warning,
    signal: around.signal,
  }
  const examined: Examined[] = []
  for (const patient of patients(around, store, config, options)) {
    examined.push({ group: patient.group, origin: patient.origin, sheet: await examine(patient, doctor) })
    around.signal.throwIfAborted()
  }
  return examined
}

function patients(around: Surroundings, store: MirrorStore, config: MirrorConfig, options: DoctorOptions): Patient[] {
  const served = store.releases.served(Number.MAX_SAFE_INTEGER)
  const all = [...new Set([...config.origins.map(({ group }) => group), ...served.keys()])]
  const box = options.box === undefined ? undefined : readBox(resolve(around.cwd, options.box))
  const released = (group: string): ServedTree | null => served.get(group)?.released ?? null
  const groups = chosenGroups(all, options, box, released)
  const contacts = knownContacts(store.dir) ?? []
  return groups.map((group) => {
    const tree = released(group)
    return {
      group,
      origin: tree === null ? undefined : readFacts(store, tree.number)?.groups.get(group)?.origin,
      listener: config.origins.find((origin) => origin.group === group),
      released: tree,
      expiresAtMs: tree === null ? undefined : store.catalog.bundle(tree.number)?.expiresAtMs,
      box,
      moduleRepos: moduleRepos(options, box),
      contacts: contacts.filter((contact) => contact.group === group),
    }
  })
}

/** @throws GROUP_UNKNOWN; USAGE_INVALID where nothing tells whose box it is */
function chosenGroups(
  all: readonly string[],
  { group: named }: DoctorOptions,
  box: Inventory | undefined,
  released: (group: string) => ServedTree | null,
): readonly string[] {
  const unknown = named?.find((group) => !all.includes(group))
  if (unknown !== undefined) {
    throw new GapferryError('GROUP_UNKNOWN', `there is no group ${unknown} here; there are: ${all.join(', ')}`)
  }
  if (all.length === 0) {
    const hint = 'add an origin to mirror.yaml, then import and release a bundle'
    throw new GapferryError('USAGE_INVALID', 'there is no group to look at', { hint })
  }
  if (named !== undefined || box === undefined || all.length === 1) return named ?? all
  const planned = `gapferry/parity/${box.box.toLowerCase()}.txt` as TreePath
  const own = all.filter((group) => released(group)?.tree.entries.has(planned) === true)
  if (own.length === 1) return own
  throw new GapferryError('USAGE_INVALID', `--box: nothing here says which group ${box.box} belongs to`, {
    hint: `name it: --group ${all.join(' or --group ')}`,
  })
}

function readBox(file: string): Inventory {
  const { size } = statSync(file)
  if (size <= MAX_INVENTORY_BYTES) return parseInventory(readFileSync(file), basename(file))
  throw new GapferryError(
    'INVENTORY_INVALID',
    `${basename(file)}: expected at most ${MAX_INVENTORY_BYTES} bytes, found ${size}`,
  )
}

function moduleRepos({ moduleRepo }: DoctorOptions, box: Inventory | undefined): Patient['moduleRepos'] {
  const [value, standard] = [box?.readiness.get('module-repo'), box?.readiness.get('module-repo-default')]
  const where = `the inventory of ${box?.box}`
  return [
    ...(moduleRepo === undefined ? [] : [{ where: '--module-repo', value: moduleRepo }]),
    ...(value === undefined ? [] : [{ where, value }]),
    ...(standard === undefined ? [] : [{ where, value: standard, isDefault: true }]),
  ]
}

/** What a script reads of it. */
export function toObject(examined: readonly Examined[]): object[] {
  return examined.map(({ group, origin, sheet }) => ({
    group,
    origin: origin ?? null,
    checks: sheet.checks,
    left: Object.fromEntries(sheet.left),
  }))
}

/** @returns DOCTOR_FOUND; undefined where nothing was found */
export function failureOf(examined: readonly Examined[]): GapferryError | undefined {
  const findings = examined.flatMap(({ sheet }) => sheet.findings)
  if (findings.length === 0) return undefined
  const checks = [...new Set(findings.map(({ check }) => check))].join(', ')
  return new GapferryError('DOCTOR_FOUND', `${plural(findings.length, 'finding')}: ${checks}`, {
    hint: 'mend what is marked with !, from the top; then gapferry-mirror doctor',
  })
}
