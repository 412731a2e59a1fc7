/**
 * One state out of two of the same mirror, so that putting an old backup back never lowers a number: the longer chain of
 * roots, the newer trusted bundle, for each repository the highest stamp; each group is served what had the higher stamps.
 * What keys signed that the longer chain has taken away binds nothing, as in Catalog.adopt.
 */
import { GapferryError } from '../manifests/errors.ts'
import { rootChain, type RootFile } from '../manifests/metadata.ts'
import type { CatalogState, StateBundle, StateRelease, StateStamp } from './catalog-state.ts'
import { believedNumber } from './trust.ts'

/** @param restored  wins where neither is newer
 *  @returns with the higher of both generations
 *  @throws SITE_MISMATCH; ROOT_PINNED when another root was pinned; ROLE_CONFLICT when both know other roots under one version,
 *          or other bundles under one number */
export function mergeStates(restored: CatalogState, present: CatalogState): CatalogState {
  const roots = longerChain(restored, present)
  const root = rootChain(roots, 'trusted root')
  const [base, other] = inOrder(judged(restored, roots, root), judged(present, roots, root))
  const releases = base.releases.map((release) => newerRelease(release, base, other))
  const added = other.releases.filter(({ group }) => !base.releases.some((release) => release.group === group))
  const served = [...releases, ...added].sort((a, b) => (a.group < b.group ? -1 : 1))
  return {
    ...base,
    roots,
    generation: Math.max(restored.generation, present.generation),
    pinnedAtMs: Math.min(restored.pinnedAtMs, present.pinnedAtMs),
    bundles: withServed(base.bundles, other.bundles, served),
    releases: served,
    stamps: highestStamps([...base.stamps, ...other.stamps]),
  }
}

type Judged = CatalogState & { believed: number }

function longerChain(restored: CatalogState, present: CatalogState): Buffer[] {
  if (restored.site !== present.site) {
    throw new GapferryError('SITE_MISMATCH', `backup: expected site ${present.site}, found site ${restored.site}`)
  }
  const [a, b] = [restored.roots, present.roots]
  if (!a[0]!.equals(b[0]!)) {
    throw new GapferryError(
      'ROOT_PINNED',
      `the backup is of another mirror of site ${restored.site}: it pinned another root`,
    )
  }
  const differs = a.slice(0, b.length).findIndex((bytes, i) => !bytes.equals(b[i]!))
  if (differs === -1) return a.length >= b.length ? a : b
  throw conflict(`root ${differs + 1} of the chain is another one in the backup than in this store`)
}

/** A state as it looks under the newest root. */
function judged(state: CatalogState, roots: Buffer[], root: RootFile): Judged {
  const believed = believedNumber({ roots, ...state.trusted }, root)
  if (believed > 0 || state.newest === null || state.roots.length === roots.length) return { ...state, believed }
  return { ...state, believed, stamps: [], bundles: state.bundles.map((bundle) => ({ ...bundle, isRevoked: true })) }
}

/** @returns the one with the newer bundle first */
function inOrder(restored: Judged, present: Judged): [Judged, Judged] {
  if (restored.believed !== present.believed) {
    return restored.believed > present.believed ? [restored, present] : [present, restored]
  }
  for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
    const [a, b] = [restored.trusted[role], present.trusted[role]]
    if (restored.believed === 0 || a === undefined || b === undefined || a.equals(b)) continue
    throw conflict(`bundle ${restored.believed} is another one in the backup than in this store`)
  }
  return restored.generation >= present.generation ? [restored, present] : [present, restored]
}

function newerRelease(release: StateRelease, base: Judged, other: Judged): StateRelease {
  const { group } = release
  const theirs = other.releases.find((one) => one.group === group)
  const mine = new Map(base.stamps.filter((one) => one.group === group).map((one) => [one.repository, one.stamp]))
  const isOlder = other.stamps.some((one) => one.group === group && one.stamp > (mine.get(one.repository) ?? 0))
  return isOlder && theirs !== undefined ? theirs : release
}

/** The base's bundles, and of the other's those that are served. */
function withServed(base: StateBundle[], other: StateBundle[], served: StateRelease[]): StateBundle[] {
  const bundles = new Map(base.map((bundle) => [bundle.number, bundle]))
  for (const { number } of served) {
    const theirs = other.find((bundle) => bundle.number === number)
    const mine = bundles.get(number)
    if (theirs === undefined) continue
    if (mine === undefined) bundles.set(number, theirs)
    else if (JSON.stringify(mine.trees) !== JSON.stringify(theirs.trees)) {
      throw conflict(`bundle ${number} has other trees in the backup than in this store`)
    }
  }
  return [...bundles.values()].sort((a, b) => a.number - b.number)
}

function highestStamps(stamps: StateStamp[]): StateStamp[] {
  const highest = new Map<string, StateStamp>()
  for (const one of stamps) {
    const key = `${one.group} ${one.repository}`
    if (one.stamp > (highest.get(key)?.stamp ?? 0)) highest.set(key, one)
  }
  return [...highest.values()]
}

function conflict(why: string): GapferryError {
  return new GapferryError('ROLE_CONFLICT', why, {
    hint: 'two laptops, or a restored one, signed the same number: pack a bundle with a new one, import that, back up again',
  })
}
