/**
 * A license: the files that a deployment was given while it was online, as they were, with what is read of them. It is never in
 * the clear on a stick or on a disk of ours: whoever keeps or carries one seals it (cms.ts, key-seal.ts). FORMAT.md#licenses.
 */
import * as v from 'valibot'
import { sha256Of, type Sha256 } from './digest.ts'
import { describeFault, strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import { MAX_LICENSE_DATES, readLicenseFacts, type LicenseDate } from './license-facts.ts'

export const MAX_LICENSE_FILES = 32
/** Of all files of one license. */
export const MAX_LICENSE_BYTES = 1024 * 1024
/** Of the document. */
const MAX_LICENSE_DOCUMENT_BYTES = 2 * 1024 * 1024
const FORMAT = 1
/** Where a license may lie on a box, and nowhere else. */
const PATH =
  /^\/etc\/(?:schmooze|sangoma)\/(?:pbxid|[A-Za-z0-9_+,-][A-Za-z0-9._+,-]{0,100}\.zl|license[A-Za-z0-9._+,-]{0,100})$/

/** A number or a word that the vendor gave a box. */
export const DeploymentId = v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/))
const SiteName = v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/))
const Owner = v.pipe(v.string(), v.regex(/^[a-z_][a-z0-9_-]{0,31}$/))
const Digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(120), v.regex(/^[\x20-\x7e]+$/))
const Time = v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/))
const Day = v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/))
const MAX_DATA_CHARS = Math.ceil(MAX_LICENSE_BYTES / 3) * 4

const File = strictObject({
  path: v.pipe(v.string(), v.regex(PATH)),
  /** four octal digits, for everybody's reading at most */
  mode: v.pipe(v.string(), v.regex(/^0[0-7][0-7][0-7]$/)),
  owner: Owner,
  group: Owner,
  sha256: Digest,
  data: v.pipe(v.string(), v.maxLength(MAX_DATA_CHARS), v.regex(/^[A-Za-z0-9+/]*={0,2}$/)),
})
/** When something of it ends. */
export const Expires = v.pipe(
  v.array(strictObject({ name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.-]{1,80}$/)), date: Day })),
  v.maxLength(MAX_LICENSE_DATES),
)
export const Product = v.nullable(Text)
const Schema = strictObject({
  _type: v.literal('gapferry-license'),
  format: v.literal(FORMAT),
  site: SiteName,
  deploymentId: DeploymentId,
  product: Product,
  files: v.pipe(v.array(File), v.minLength(1), v.maxLength(MAX_LICENSE_FILES)),
  expires: Expires,
  host: v.nullable(Text),
  capturedAt: v.nullable(Time),
})

/** One file of a license, as it is on the box. */
export interface LicenseFile {
  path: string
  /** four octal digits */
  mode: string
  owner: string
  group: string
  sha256: Sha256
  data: Buffer
}

export interface License {
  site: string
  deploymentId: string
  product: string | null
  /** sorted by path */
  files: LicenseFile[]
  expires: LicenseDate[]
  /** that it is bound to, as the vendor names it */
  host: string | null
  /** RFC 3339; null where nobody said when it was taken from its box */
  capturedAt: string | null
}

/** Where the files came from, and what came with them. */
export interface LicenseSource {
  site: string
  files: readonly Omit<LicenseFile, 'sha256'>[]
  capturedAt: string | null
  /** that whoever brings the files says it is of; undefined: only the files say */
  deploymentId?: string | undefined
  /** names the source in messages: a file or folder, never a deployment ID */
  what: string
}

/** A license of these files, with what they say of themselves.
 *  @throws LICENSE_INVALID where they name no deployment or several, or break a rule */
export function makeLicense({ site, files, capturedAt, deploymentId, what }: LicenseSource): License {
  const facts = readLicenseFacts(files)
  const ids = new Set([...facts.deploymentIds, ...(deploymentId === undefined ? [] : [deploymentId])])
  const [id, ...others] = ids
  if (id === undefined)
    throw invalid(what, 'no file of it names a deployment', 'add etc/schmooze/pbxid, or the license file that names it')
  if (others.length > 0) throw invalid(what, `it names ${ids.size} deployments`, 'each box has files of its own')
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  const license: License = {
    site,
    deploymentId: id,
    product: facts.product,
    files: sorted.map((file) => ({ ...file, sha256: sha256Of(file.data) })),
    expires: facts.expires,
    host: facts.host,
    capturedAt,
  }
  serializeLicense(license, what)
  return license
}

/** The document's bytes. @throws LICENSE_INVALID where parseLicense would refuse them */
export function serializeLicense(license: License, what = 'license'): Buffer {
  const files = license.files.map((file) => ({ ...file, data: file.data.toString('base64') }))
  const bytes = canonicalJson({ _type: 'gapferry-license', format: FORMAT, ...license, files })
  parseLicense(bytes, what)
  return bytes
}

/** @param what  names it in messages
 *  @throws LICENSE_INVALID, also for another spelling */
export function parseLicense(bytes: Buffer, what: string): License {
  if (bytes.length > MAX_LICENSE_DOCUMENT_BYTES)
    throw invalid(what, `has more than ${MAX_LICENSE_DOCUMENT_BYTES} bytes`)
  const doc = parseJson(bytes, what)
  if (!v.is(Schema, doc)) throw invalid(what, describeFault(Schema, doc))
  if (!canonicalJson(doc).equals(bytes)) throw invalid(what, 'is not in canonical form')
  const { site, deploymentId, product, expires, host, capturedAt } = doc
  const files = doc.files.map((file) => parseFile(file, what))
  checkFiles(files, what)
  return { site, deploymentId, product, files, expires, host, capturedAt }
}

/** @throws LICENSE_INVALID unless a license may lie there */
export function checkLicensePath(path: string, what: string): void {
  if (!PATH.test(path)) throw invalid(what, `"${path.slice(0, 120)}" is no place of a license file`)
}

/** @throws LICENSE_INVALID */
export function checkLicenseSize(files: readonly { data: Buffer }[], what: string): void {
  if (files.length > MAX_LICENSE_FILES) throw invalid(what, `has more than ${MAX_LICENSE_FILES} files`)
  const bytes = files.reduce((total, { data }) => total + data.length, 0)
  if (bytes > MAX_LICENSE_BYTES) throw invalid(what, `its files have more than ${MAX_LICENSE_BYTES} bytes`)
}

function parseFile(file: v.InferInput<typeof File>, what: string): LicenseFile {
  const data = Buffer.from(file.data, 'base64')
  if (data.toString('base64') !== file.data) throw invalid(what, `${file.path}: its data is not base64`)
  if (sha256Of(data) !== file.sha256) throw invalid(what, `${file.path}: its data is not what its digest says`)
  return { ...file, sha256: file.sha256 as Sha256, data }
}

function checkFiles(files: readonly LicenseFile[], what: string): void {
  checkLicenseSize(files, what)
  files.forEach(({ path }, i) => {
    if (i > 0 && files[i - 1]!.path >= path) throw invalid(what, `${path}: comes twice, or out of order`)
  })
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    // The cause would quote what is sealed everywhere else.
    throw invalid(what, 'is not JSON')
  }
}

function invalid(what: string, why: string, hint?: string): GapferryError {
  return new GapferryError('LICENSE_INVALID', `${what}: ${why}`, hint === undefined ? {} : { hint })
}
