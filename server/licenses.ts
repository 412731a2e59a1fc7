/**
 * The licenses that are here: those of the newest bundle that is released, as its index tells, which only the delivery key
 * opens. What was opened stays in memory, by the HMAC of its deployment; nothing of it is written. A rollback changes nothing
 * of it: a license is not taken back with the packages.
 */
import type { KeyObject, X509Certificate } from 'node:crypto'
import { MAX_CMS_BYTES, openCms } from '../manifests/cms.ts'
import { GapferryError } from '../manifests/errors.ts'
import { parseLicenseIndex, type IndexedLicense } from '../manifests/licenses.ts'
import { readLicenses } from '../storage/completeness.ts'
import { deploymentHmac } from './identity.ts'
import type { LicenseSource, SealedLicense } from './license-source.ts'
import type { MirrorStore } from './store.ts'

export interface DeliveryKeys {
  /** of the identity: deployments are known by an HMAC with a key that is derived from it */
  key: KeyObject
  /** opens what was sealed for this mirror */
  delivery: { key: KeyObject; certificate: X509Certificate }
}

type Store = Pick<MirrorStore, 'site' | 'catalog' | 'blobs' | 'releases'>

export class Licenses implements LicenseSource {
  readonly #store: Store
  readonly #keys: DeliveryKeys
  #opened: { version: number; index: Promise<ReadonlyMap<string, IndexedLicense>> } | undefined

  constructor(store: Store, keys: DeliveryKeys) {
    this.#store = store
    this.#keys = keys
  }

  /** @throws CMS_INVALID where they were sealed for another mirror; LICENSE_INVALID, BLOB_* where the store is damaged */
  async licenseFor(deployment: string): Promise<SealedLicense | undefined> {
    const found = (await this.#index()).get(deployment)
    if (found === undefined) return undefined
    const { sha256, recipient, content } = found
    return { cms: this.#store.blobs.read(sha256, MAX_CMS_BYTES), recipient, content }
  }

  /** Products and dates, by the HMAC of the deployment. @throws as licenseFor */
  async known(): Promise<ReadonlyMap<string, IndexedLicense>> {
    return this.#index()
  }

  #index(): Promise<ReadonlyMap<string, IndexedLicense>> {
    const version = this.#store.releases.version()
    if (this.#opened?.version !== version) {
      const opened = { version, index: openIndex(this.#store, this.#keys) }
      this.#opened = opened
      // What could not be read may be mended by now: importing the same bundle again releases nothing.
      opened.index.catch(() => {
        if (this.#opened === opened) this.#opened = undefined
      })
    }
    return this.#opened.index
  }
}

/** By the HMAC of the deployment; empty where nothing is released, or what is released carries no licenses. */
async function openIndex(store: Store, keys: DeliveryKeys): Promise<Map<string, IndexedLicense>> {
  const number = releasedNumber(store)
  if (number === undefined) return new Map()
  const licenses = readLicenses(store.blobs, store.catalog.trees(number))
  if (licenses === undefined || licenses.index === null) return new Map()
  const what = `the licenses of bundle ${number}`
  const { delivery } = keys
  const cms = store.blobs.read(licenses.index, MAX_CMS_BYTES)
  const bytes = await openCms(cms, delivery.key, delivery.certificate.raw, what).catch((cause: unknown) => {
    throw new GapferryError('CMS_INVALID', `${what}: this mirror's delivery key does not open them`, {
      hint: 'take a report of this mirror to the laptop (gapferry report add), then bring a new bundle',
      cause,
    })
  })
  const index = parseLicenseIndex(bytes, what)
  if (index.site !== store.site)
    throw new GapferryError('SITE_MISMATCH', `${what}: expected site ${store.site}, found ${index.site}`)
  const named = [...index.licenses].filter(([, { sha256 }]) => licenses.blobs.has(sha256))
  return new Map(named.map(([id, license]) => [deploymentHmac(keys, store.site, id), license]))
}

function releasedNumber({ catalog }: Store): number | undefined {
  const numbers = catalog.releases(Number.MAX_SAFE_INTEGER).map(({ number }) => number)
  return numbers.length === 0 ? undefined : Math.max(...numbers)
}
