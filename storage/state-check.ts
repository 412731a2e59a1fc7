/**
 * Whether a state may be believed: what it serves is verified from its pinned root on, by the verification that import
 * uses, at the time at which each bundle was made (what was released is served on after its end, too).
 */
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { checkSite, parseRoot, rootChain } from '../manifests/metadata.ts'
import type { CatalogState, StateBundle } from './catalog-state.ts'
import { serializeState } from './state-file.ts'

/** A served group whose bundle cannot be believed. */
export interface StateFault {
  group: string
  number: number
  error: GapferryError
}

/** @param scratchDir  where a temporary folder may be made
 *  @returns groups that must not be served; empty when all that is served was signed */
export async function verifyState(state: CatalogState, scratchDir: string): Promise<StateFault[]> {
  const faults: StateFault[] = []
  const verdicts = new Map<number, GapferryError | undefined>()
  for (const { group, role, number } of state.releases) {
    if (!verdicts.has(number)) verdicts.set(number, await verdictOn(state, number, scratchDir))
    const error = verdicts.get(number) ?? treeFault(state, number, `${group}/${role}`)
    if (error !== undefined) faults.push({ group, number, error })
  }
  return faults
}

/** The same for a state that came from elsewhere, and all of it that could be released: nobody else will ask who signed it.
 *  @returns the first fault */
export async function verifyForeignState(state: CatalogState, scratchDir: string): Promise<GapferryError | undefined> {
  try {
    checkSite(rootChain(state.roots, 'its root'), state.site)
  } catch (error) {
    if (isGapferryError(error)) return error
    throw error
  }
  for (const { number, isRevoked } of state.bundles) {
    const isServed = state.releases.some((release) => release.number === number)
    const error = isRevoked && !isServed ? undefined : await verdictOn(state, number, scratchDir)
    if (error !== undefined) return error
  }
  const [fault] = await verifyState(state, scratchDir)
  return fault?.error
}

/** Compares what lies beside a database with the state that is in it.
 *  @param beside  read before the database was: a change that is made meanwhile makes it look old, never too new
 *  @param file    the database, for messages
 *  @returns true when the file beside is behind and has to be written anew
 *  @throws STORE_DAMAGED when the database has lost or changed something */
export function isBehind(beside: CatalogState | undefined, state: CatalogState | undefined, file: string): boolean {
  if (beside === undefined) return true
  if (state === undefined) throw damaged(file, 'expected what is known of a site, found nothing')
  if (beside.generation > state.generation) {
    throw damaged(
      file,
      `expected generation ${beside.generation} as in state.json, found ${state.generation}: changes are lost`,
    )
  }
  if (beside.generation < state.generation) return true
  if (serializeState(beside).equals(serializeState(state))) return false
  throw damaged(file, `expected what state.json says of generation ${state.generation}, found something else`)
}

async function verdictOn(
  { site, roots, bundles }: CatalogState,
  number: number,
  scratchDir: string,
): Promise<GapferryError | undefined> {
  const bundle = bundles.find((one) => one.number === number)
  if (bundle === undefined) return damaged(`bundle ${number}`, 'nothing is known of it')
  try {
    await verifyBundle(bundle, roots.slice(0, bundle.roots), { site, scratchDir })
    return undefined
  } catch (error) {
    if (isGapferryError(error)) return error
    throw error
  }
}

async function verifyBundle(
  { number, createdAtMs, metadata, trees }: StateBundle,
  roots: Buffer[],
  { site, scratchDir }: { site: string; scratchDir: string },
): Promise<void> {
  const { timestamp, snapshot, targets } = metadata
  const offered = new Map<string, Buffer>()
  if (timestamp !== undefined) offered.set('timestamp.json', timestamp)
  if (snapshot !== undefined) offered.set(`${number}.snapshot.json`, snapshot)
  if (targets !== undefined) offered.set(`${number}.targets.json`, targets)
  for (const root of roots.slice(1)) offered.set(`${parseRoot(root, 'root').version}.root.json`, root)
  const trusted = { roots: roots.slice(0, 1) }
  const { verifyMetadata } = await import('./trust.ts') // hardly ever needed where a mirror only serves
  const found = await verifyMetadata({ trusted, offered, nowMs: createdAtMs, site, scratchDir })
  if (found.createdAtMs !== createdAtMs) throw damaged(`bundle ${number}`, 'expected the date that is signed')
  const isSame =
    found.number === number &&
    found.targets.size === trees.length &&
    trees.every(({ target, sha256, bytes }) => {
      const signed = found.targets.get(target)
      return signed?.sha256 === sha256 && signed.bytes === bytes
    })
  if (!isSame) throw damaged(`bundle ${number}`, 'expected the trees that are signed, found others')
}

function treeFault({ bundles }: CatalogState, number: number, target: string): GapferryError | undefined {
  const bundle = bundles.find((one) => one.number === number)
  if (bundle?.trees.some((tree) => tree.target === target) === true) return undefined
  return damaged(`bundle ${number}`, `${target} is not in it`)
}

function damaged(what: string, why: string): GapferryError {
  return new GapferryError('STORE_DAMAGED', `${what}: ${why}`)
}
