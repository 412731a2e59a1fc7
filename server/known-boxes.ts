/**
 * What the mirror knows of its boxes, put together: the inventories that they sent, what they said when they asked for
 * modules, their certificates, and the judgement of all that.
 */
import { automaticJobs, type AutomaticJob } from '../manifests/automatic.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { judgeFeatures, type FeatureRow } from '../manifests/features.ts'
import { parseInventory, type Inventory } from '../manifests/inventory.ts'
import { parityPath } from '../manifests/parity.ts'
import type { TreePath } from '../manifests/path.ts'
import { pendingUpdates, type Pending } from '../manifests/pending.ts'
import type { LicenseVerdict } from '../manifests/license-state.ts'
import { judgeReadiness, type ReadinessRow } from '../manifests/readiness.ts'
import type { BoxInventories, HeldInventory } from '../storage/box-inventories.ts'
import { readContacts, type BoxContact } from '../storage/contacts.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import type { ServedGroup, ServedTree } from '../storage/releases.ts'
import { listenerUrl, type MirrorConfig } from './config.ts'
import { readIdentity } from './identity.ts'
import { openInventories } from './inventories.ts'
import { readFacts } from './status.ts'
import type { MirrorStore } from './store.ts'

export interface KnownBox {
  /** of its inventory or its certificate, in small letters; null: it only asked for modules */
  name: string | null
  group: string | null
  /** one for each origin that it asked at, the latest first */
  contacts: BoxContact[]
  held: HeldInventory | null
  /** null where there is no inventory, or none that can be read */
  judged: JudgedBox | null
  enrolled: EnrolledBox | null
  /** null: it needs none, or nothing tells; withLicenses (license-states.ts) says it */
  license: LicenseVerdict | null
  /** when it was heard of last; null: never */
  lastMs: number | null
}

export interface JudgedBox {
  inventory: Inventory
  readiness: ReadinessRow[]
  features: FeatureRow[]
  /** undefined where the inventory does not tell */
  automatic: AutomaticJob[] | undefined
  /** undefined where nothing is served for it, or that cannot be read */
  pending: Pending | undefined
}

/** Served where a box's packages are checked with it. */
const SITE_KEY = 'keys/site.asc' as TreePath

/** Those with a name first, by name; then the others, the one that asked last first.
 *  @param contacts  the boxes that asked
 *  @throws STORE_DAMAGED where it cannot be read who asked */
export function knownBoxes(
  store: MirrorStore,
  config: Pick<MirrorConfig, 'origins'>,
  nowMs: number,
  contacts: BoxContact[] = contactsIn(store.dir),
): KnownBox[] {
  const inventories = inventoriesIn(store)
  const held = inventories?.list() ?? []
  const enrolled = new Map(
    store.catalog.enrolments
      .all()
      .toReversed()
      .map((one) => [one.name, one]),
  )
  const served = store.releases.served(Number.MAX_SAFE_INTEGER)
  const names = [...new Set([...held.map(({ box }) => box), ...enrolled.keys()])].sort()
  const heldBy = new Map(held.map((one) => [one.box, one]))
  const taken = new Set<BoxContact>()
  const named = names.map((name): KnownBox => {
    const own = heldBy.get(name) ?? null
    const asked = contacts.filter(({ installid }) => own?.installid === installid)
    asked.forEach((one) => taken.add(one))
    const group = groupOf(name, { held: own, asked, served, config })
    const judged = own === null ? null : judge(store, inventories!, { name, group, config, served, nowMs })
    const lastMs = latest([own?.receivedMs, asked[0]?.lastMs])
    const certificate = enrolled.get(name) ?? null
    return { name, group, contacts: asked, held: own, judged, enrolled: certificate, license: null, lastMs }
  })
  return [...named, ...strangers(contacts.filter((one) => !taken.has(one)))]
}

/** The inventories of a store; undefined where nothing was ever sealed there. @throws STORE_DAMAGED */
export function inventoriesIn(store: Pick<MirrorStore, 'dir' | 'site'>): BoxInventories | undefined {
  const identity = readIdentity(store.dir)
  return identity && openInventories(store.dir, store.site, identity)
}

/** @throws what readContacts throws, with a hint that fits: nothing that is served depends on it */
function contactsIn(storeDir: string): BoxContact[] {
  try {
    return readContacts(storeDir)
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED')) throw error
    const hint = 'gapferry-mirror serve begins it anew when it is started; nothing that is served depends on it'
    throw new GapferryError('STORE_DAMAGED', error.message, { hint, cause: error })
  }
}

/** One box may have asked at several origins. */
function strangers(contacts: readonly BoxContact[]): KnownBox[] {
  const nothing = { name: null, held: null, judged: null, enrolled: null, license: null }
  const ids = [...new Set(contacts.map(({ installid }) => installid))]
  return ids.map((id) => {
    const own = contacts.filter(({ installid }) => installid === id)
    return { ...nothing, group: own[0]!.group, contacts: own, lastMs: own[0]!.lastMs }
  })
}

/** The one whose bundle plans for it; else where it came or asked; else the only one. */
function groupOf(
  name: string,
  about: {
    held: HeldInventory | null
    asked: readonly BoxContact[]
    served: Map<string, ServedGroup>
    config: Pick<MirrorConfig, 'origins'>
  },
): string | null {
  const { held, asked, served, config } = about
  const path = parityPath(name)
  const planned = [...served].find(([, { released }]) => released?.tree.entries.has(path) === true)?.[0]
  const only = config.origins.length === 1 ? config.origins[0]!.group : null
  return planned ?? held?.group ?? asked[0]?.group ?? only
}

function judge(
  store: MirrorStore,
  inventories: BoxInventories,
  about: {
    name: string
    group: string | null
    config: Pick<MirrorConfig, 'origins'>
    served: Map<string, ServedGroup>
    nowMs: number
  },
): JudgedBox | null {
  const { name, group, config, served, nowMs } = about
  const inventory = parsed(inventories.read(name), name)
  if (inventory === undefined) return null
  const released = group === null ? undefined : (served.get(group)?.released ?? undefined)
  const pending = released && pendingOf(store, inventory, name, released)
  const origin = group === null ? undefined : originOf(store, group, { released, config })
  const siteKey = released?.tree.entries.get(SITE_KEY)?.sha256
  return {
    inventory,
    readiness: judgeReadiness(inventory, { origin, nowMs, pending, siteKey }),
    features: judgeFeatures(inventory),
    automatic: automaticJobs(inventory, nowMs),
    pending,
  }
}

/** What a newer gapferry-box wrote may not be understood here. */
function parsed(bytes: Buffer | undefined, name: string): Inventory | undefined {
  try {
    return bytes && parseInventory(bytes, name)
  } catch (error) {
    if (isGapferryError(error, 'INVENTORY_INVALID')) return undefined
    throw error
  }
}

function pendingOf(store: MirrorStore, box: Inventory, name: string, released: ServedTree): Pending | undefined {
  const read = (sha256: Parameters<typeof store.blobs.read>[0], maxBytes: number): Buffer =>
    store.blobs.read(sha256, maxBytes)
  try {
    return pendingUpdates(box, name, { number: released.number, entries: released.tree.entries, read })
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}

/** As the boxes were told by the laptop; else as mirror.yaml has it. */
function originOf(
  store: MirrorStore,
  group: string,
  { released, config }: { released: ServedTree | undefined; config: Pick<MirrorConfig, 'origins'> },
): string | undefined {
  const told = released && readFacts(store, released.number)?.groups.get(group)?.origin
  const listener = config.origins.find((one) => one.group === group)
  return told ?? (listener && listenerUrl(listener))
}

function latest(times: (number | undefined)[]): number | null {
  const known = times.filter((ms) => ms !== undefined)
  return known.length === 0 ? null : Math.max(...known)
}
