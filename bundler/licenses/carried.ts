/**
 * The licenses of a bundle: each sealed for the certificate of its own box where the site's authority vouches for one, else for
 * the mirror's delivery key, and the index that tells the mirror whose they are. What was sealed once is used again while
 * neither content nor certificate changes, so that nothing new is signed and nothing asks for the passphrase.
 */
import type { KeyObject } from 'node:crypto'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { LICENSES_TARGET } from '../../manifests/tree.ts'
import { serializeLicenseIndex, type IndexedLicense } from '../../manifests/licenses.ts'
import type { License } from '../../manifests/license.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import type { Ledger } from '../../storage/ledger.ts'
import type { KeptLicense, SealedBlob } from '../../storage/licenses.ts'
import type { CarriedLicenses } from '../compose.ts'
import { openKept } from './keep.ts'

/** By the HMAC of their deployment: certificates (DER) of boxes that are believed. */
export type BoxCertificates = ReadonlyMap<string, Buffer>

interface Place {
  store: BlobStore
  ledger: Ledger
}

/** A license, and whom it is sealed for. */
interface Addressed {
  kept: KeptLicense
  recipient: 'mirror' | 'box'
  certificate: Buffer
}

/** @param openKey  asks for the site's license key, and only where something has to be sealed
 *  @returns undefined where nothing is carried: no license is kept, or nobody is known to seal for
 *  @throws KEY_*, LICENSE_INVALID, CMS_INVALID */
export async function carriedLicenses(
  place: Place,
  site: string,
  boxes: BoxCertificates,
  openKey: () => Promise<KeyObject>,
): Promise<CarriedLicenses | undefined> {
  const { ledger } = place
  const delivery = ledger.identities.of(site)?.delivery ?? undefined
  const addressed = ledger.licenses.of(site).flatMap((kept) => addressOf(kept, boxes, delivery))
  if (addressed.length === 0) return undefined
  const opener = new Opener(place, openKey)
  const blobs = new Map<Sha256, number>()
  const sealed: (Addressed & { blob: SealedBlob })[] = []
  for (const one of addressed) {
    const blob = await sealedBlob(
      place,
      site,
      one.kept.content,
      one.certificate,
      async () => (await opener.open(one.kept)).bytes,
    )
    sealed.push({ ...one, blob })
    blobs.set(blob.sha256, blob.bytes)
  }
  if (delivery === undefined) return { index: null, blobs }
  const index = await sealedBlob(place, site, indexKey(ledger, site, sealed), delivery, () =>
    makeIndex(site, sealed, opener),
  )
  blobs.set(index.sha256, index.bytes)
  return { index: index.sha256, blobs }
}

function addressOf(kept: KeptLicense, boxes: BoxCertificates, delivery: Buffer | undefined): Addressed[] {
  const own = boxes.get(kept.deployment)
  if (own !== undefined) return [{ kept, recipient: 'box', certificate: own }]
  return delivery === undefined ? [] : [{ kept, recipient: 'mirror', certificate: delivery }]
}

/** The blob of the same content for the same certificate, or a new one. */
async function sealedBlob(
  { store, ledger }: Place,
  site: string,
  content: string,
  certificate: Buffer,
  read: () => Promise<Buffer>,
): Promise<SealedBlob> {
  const recipient = sha256Of(certificate)
  const known = ledger.licenses.blob(site, content, recipient)
  if (known !== undefined && store.sizeOf(known.sha256) === known.bytes) return known
  const cms = await sealCms(await read(), [certificate])
  const batch = store.batch()
  try {
    const blob = { sha256: batch.put(cms), bytes: cms.length }
    await batch.commit()
    ledger.licenses.keepBlob(site, content, recipient, blob)
    return blob
  } finally {
    batch.discard()
  }
}

/** Equal for equal indexes, and told without opening a license. */
function indexKey({ licenses }: Ledger, site: string, sealed: readonly (Addressed & { blob: SealedBlob })[]): string {
  const rows = sealed.map(({ kept, recipient, blob }) => [kept.deployment, kept.content, recipient, blob.sha256])
  return licenses.hmac('content', site, JSON.stringify([LICENSES_TARGET, ...rows]))
}

async function makeIndex(
  site: string,
  sealed: readonly (Addressed & { blob: SealedBlob })[],
  opener: Opener,
): Promise<Buffer> {
  const entries = new Map<string, IndexedLicense>()
  for (const { kept, recipient, blob } of sealed) {
    const { license, bytes } = await opener.open(kept)
    const { product, expires } = license
    entries.set(license.deploymentId, { sha256: blob.sha256, content: sha256Of(bytes), recipient, product, expires })
  }
  return serializeLicenseIndex(site, entries)
}

/** Opens licenses with a key that is asked for once. */
class Opener {
  readonly #ledger: Ledger
  readonly #openKey: () => Promise<KeyObject>
  #key: Promise<KeyObject> | undefined

  constructor({ ledger }: Place, openKey: () => Promise<KeyObject>) {
    this.#ledger = ledger
    this.#openKey = openKey
  }

  async open(kept: KeptLicense): Promise<{ license: License; bytes: Buffer }> {
    this.#key ??= this.#openKey()
    return openKept(this.#ledger, kept, await this.#key)
  }
}
