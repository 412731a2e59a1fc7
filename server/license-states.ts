/**
 * How it stands with the licenses of the boxes that told the mirror of themselves.
 */
import { isGapferryError, type GapferryError } from '../manifests/errors.ts'
import { parseInventory, type Inventory } from '../manifests/inventory.ts'
import { judgeLicense, licensedBox, needsLicense } from '../manifests/license-state.ts'
import type { KnownLicense, LicenseVerdict } from '../manifests/license-state.ts'
import type { IndexedLicense } from '../manifests/licenses.ts'
import type { BoxInventories } from '../storage/box-inventories.ts'
import { deploymentHmac, ensureIdentity, hasIdentity, type Identity } from './identity.ts'
import { openInventories } from './inventories.ts'
import type { KnownBox } from './known-boxes.ts'
import { Licenses } from './licenses.ts'
import type { MirrorStore } from './store.ts'

export interface LicenseStates {
  /** by box, sorted by name; boxes that need no license are not in it */
  boxes: Map<string, LicenseVerdict>
  /** why the licenses that were brought cannot be read; then each counts as missing */
  failure: GapferryError | undefined
}

const FORMER_KEY =
  'it is sealed for a key that this box had before it enrolled again: take a report of level full to the laptop, and bring the next bundle'

/** Of every box whose inventory is here; none where the mirror has no identity yet. */
export async function licenseStates(
  store: Pick<MirrorStore, 'dir' | 'site' | 'catalog' | 'blobs' | 'releases'>,
  nowMs: number,
): Promise<LicenseStates> {
  const boxes = new Map<string, LicenseVerdict>()
  if (!hasIdentity(store.dir)) return { boxes, failure: undefined }
  const identity = ensureIdentity(store, nowMs)
  const inventories = openInventories(store.dir, store.site, identity)
  const { known, failure } = await knownLicenses(store, identity)
  for (const { box } of inventories.list()) {
    const inventory = readInventory(inventories, box)
    const verdict = inventory && licenseOf(inventory, known, { site: store.site, identity, nowMs })
    if (inventory === undefined || verdict === undefined) continue
    const isLost = await isForFormerKey(store, { box, inventory, known, identity })
    boxes.set(box, isLost ? { ...verdict, state: 'mismatch', why: FORMER_KEY } : verdict)
  }
  return { boxes, failure }
}

/** The same boxes, with what is to be said of their licenses. */
export async function withLicenses(
  store: Parameters<typeof licenseStates>[0],
  boxes: readonly KnownBox[],
  nowMs: number,
): Promise<KnownBox[]> {
  const states = await licenseStates(store, nowMs)
  return boxes.map((box) => ({ ...box, license: (box.name === null ? undefined : states.boxes.get(box.name)) ?? null }))
}

/** Enrolling again makes a new key, which the laptop hears of with the next report. */
async function isForFormerKey(
  { site, catalog, blobs }: Pick<MirrorStore, 'site' | 'catalog' | 'blobs'>,
  about: {
    box: string
    inventory: Inventory
    known: ReadonlyMap<string, IndexedLicense>
    identity: Identity
  },
): Promise<boolean> {
  const { box, inventory, known, identity } = about
  const enrolled = catalog.enrolments.all().find(({ name, revokedAtMs }) => name === box && revokedAtMs === null)
  const { deploymentId } = licensedBox(inventory.freepbx)
  const license = deploymentId === null ? undefined : known.get(deploymentHmac(identity, site, deploymentId))
  if (enrolled === undefined || license?.recipient !== 'box') return false
  try {
    const { isSealedFor, MAX_CMS_BYTES } = await import('../manifests/cms.ts')
    const cms = blobs.read(license.sha256, MAX_CMS_BYTES)
    return !(await isSealedFor(cms, enrolled.certificate, `the license of ${box}`))
  } catch (error) {
    if (isGapferryError(error)) return false // a damaged store is for verify to tell
    throw error
  }
}

/** @param known  by the HMAC of the deployment
 *  @returns undefined where the box needs no license */
function licenseOf(
  { freepbx, machine }: Inventory,
  known: ReadonlyMap<string, KnownLicense>,
  { site, identity, nowMs }: { site: string; identity: Identity; nowMs: number },
): LicenseVerdict | undefined {
  const box = licensedBox(freepbx, machine)
  if (!needsLicense(box)) return undefined
  const { deploymentId } = box
  const license = deploymentId === null ? undefined : known.get(deploymentHmac(identity, site, deploymentId))
  return judgeLicense(license, box, nowMs)
}

async function knownLicenses(
  store: ConstructorParameters<typeof Licenses>[0],
  identity: Identity,
): Promise<{ known: ReadonlyMap<string, IndexedLicense>; failure: GapferryError | undefined }> {
  try {
    return { known: await new Licenses(store, identity).known(), failure: undefined }
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return { known: new Map(), failure: error }
  }
}

/** undefined where a newer gapferry-box wrote what this program cannot read */
function readInventory(inventories: BoxInventories, box: string): Inventory | undefined {
  const bytes = inventories.read(box)
  try {
    return bytes && parseInventory(bytes, box)
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}
