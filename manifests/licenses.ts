/**
 * What a bundle says of licenses. `licenses`, a target beside the trees, is signed and public: it names blobs by their digests
 * and nothing else. The index, one of these blobs, is sealed for the mirror's delivery key and tells which blob is whose.
 * FORMAT.md#licenses.
 */
import * as v from 'valibot'
import { canonicalJson } from './json.ts'
import type { Sha256 } from './digest.ts'
import { describeFault, dictionary, strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { MAX_CMS_BYTES } from './cms.ts'
import { DeploymentId, Expires, Product } from './license.ts'
import type { LicenseDate } from './license-facts.ts'

/** Of either document. */
const MAX_LICENSES_BYTES = 1024 * 1024
/** As many boxes as a mirror serves. */
const MAX_LICENSES = 1000
const FORMAT = 1

const Digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const SiteName = v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/))
const Schema = strictObject({
  _type: v.literal('gapferry-licenses'),
  format: v.literal(FORMAT),
  site: SiteName,
  number: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 40)),
  index: v.nullable(Digest),
  blobs: dictionary(Digest, v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_CMS_BYTES))),
})
const IndexSchema = strictObject({
  _type: v.literal('gapferry-license-index'),
  format: v.literal(FORMAT),
  site: SiteName,
  licenses: dictionary(
    DeploymentId,
    strictObject({
      sha256: Digest,
      content: Digest,
      recipient: v.picklist(['mirror', 'box']),
      product: Product,
      expires: Expires,
    }),
  ),
})

/** The signed document. */
export interface SealedLicenses {
  site: string
  /** the bundle's */
  number: number
  /** which of the blobs is the index; null where the site has no mirror, so that each is sealed for its own box */
  index: Sha256 | null
  /** CMS, with their sizes: the index, and every license; all of them are required */
  blobs: Map<Sha256, number>
}

/** What a person reads of it: how many licenses, and the bytes of all blobs. */
export interface LicenseCount {
  count: number
  bytes: number
}

/** What the index says of one deployment's license. */
export interface IndexedLicense {
  /** of the blob */
  sha256: Sha256
  /** SHA-256 of the license document in it: the same, whoever it is sealed for */
  content: Sha256
  /** whose key opens the blob */
  recipient: 'mirror' | 'box'
  product: string | null
  expires: LicenseDate[]
}

/** @throws LICENSE_INVALID where parseSealedLicenses would refuse it */
export function serializeSealedLicenses({ site, number, index, blobs }: SealedLicenses): Buffer {
  const doc = { _type: 'gapferry-licenses', format: FORMAT, site, number, index, blobs: Object.fromEntries(blobs) }
  const bytes = canonicalJson(doc)
  parseSealedLicenses(bytes)
  return bytes
}

/** @throws LICENSE_INVALID, also for another spelling */
export function parseSealedLicenses(bytes: Buffer): SealedLicenses {
  const doc = parseJson(bytes, 'licenses')
  if (!v.is(Schema, doc)) throw invalid('licenses', describeFault(Schema, doc))
  checkSpelling(doc, bytes, 'licenses')
  const blobs = new Map(Object.entries(doc.blobs) as [Sha256, number][])
  if (blobs.size > MAX_LICENSES + 1) throw invalid('licenses', `names more than ${MAX_LICENSES + 1} blobs`)
  const index = doc.index as Sha256 | null
  if (blobs.size === 0 || (index !== null && !blobs.has(index)))
    throw invalid('licenses', 'its index is none of its blobs')
  return { site: doc.site, number: doc.number, index, blobs }
}

/** The index is none of the licenses, and counts with the bytes. */
export function countLicenses({ index, blobs }: Pick<SealedLicenses, 'index' | 'blobs'>): LicenseCount {
  const bytes = [...blobs.values()].reduce((sum, size) => sum + size, 0)
  return { count: blobs.size - (index === null ? 0 : 1), bytes }
}

/** The index, to be sealed. @param licenses  by deployment ID
 *  @throws LICENSE_INVALID where parseLicenseIndex would refuse it */
export function serializeLicenseIndex(site: string, licenses: ReadonlyMap<string, IndexedLicense>): Buffer {
  const doc = { _type: 'gapferry-license-index', format: FORMAT, site, licenses: Object.fromEntries(licenses) }
  const bytes = canonicalJson(doc)
  parseLicenseIndex(bytes, 'the index of licenses')
  return bytes
}

/** @returns by deployment ID
 *  @throws LICENSE_INVALID, also for another spelling */
export function parseLicenseIndex(
  bytes: Buffer,
  what: string,
): { site: string; licenses: Map<string, IndexedLicense> } {
  const doc = parseJson(bytes, what)
  // A fault would quote what is sealed everywhere else.
  if (!v.is(IndexSchema, doc)) throw invalid(what, 'breaks a rule')
  checkSpelling(doc, bytes, what)
  const licenses = new Map(Object.entries(doc.licenses) as [string, IndexedLicense][])
  if (licenses.size > MAX_LICENSES) throw invalid(what, `has more than ${MAX_LICENSES} licenses`)
  return { site: doc.site, licenses }
}

function parseJson(bytes: Buffer, what: string): unknown {
  if (bytes.length > MAX_LICENSES_BYTES) throw invalid(what, `larger than ${MAX_LICENSES_BYTES} bytes`)
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw invalid(what, 'is not JSON')
  }
}

function checkSpelling(doc: unknown, bytes: Buffer, what: string): void {
  if (!canonicalJson(doc).equals(bytes)) throw invalid(what, 'is not in canonical form')
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('LICENSE_INVALID', `${what}: ${why}`)
}
