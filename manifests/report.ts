/**
 * The report: what a site's mirror says of itself to the laptop. Canonical JSON, signed by the mirror's identity, then sealed
 * for the laptop (report-seal.ts). FORMAT.md#report.
 */
import { createPublicKey, sign, verify, X509Certificate, type KeyObject } from 'node:crypto'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from './digest.ts'
import { describeFault, dictionary, strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { MAX_INVENTORY_BYTES } from './inventory-lines.ts'
import { canonicalJson } from './json.ts'
import { TREE_ROLES } from './tree.ts'
import { fingerprintWords } from './words.ts'

/** Of a report as it lies on the stick. */
export const MAX_REPORT_BYTES = 16 * 1024 * 1024
/** A mirror with more says what its newest bundles need. */
export const MAX_REPORT_BLOBS = 100_000
export const MAX_REPORT_RESULTS = 100
export const MAX_REPORT_BOXES = 2000
/** Of all that is attached, packed and in base64: sealed, it is a third longer. */
export const MAX_ATTACHED_CHARS = 9 * 1024 * 1024
/** What stands around the signed part, and around the attachments: one digest for each. */
const MAX_FRAME_BYTES = 256 * 1024
const MAX_CERTIFICATE_CHARS = 5500
const FORMAT = 2
/** What mirrors wrote before they knew inventories; still read. */
const FORMAT_BEFORE = 1

const Name = v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/))
const Digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Number40 = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 40))
const Time = v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/))
/** Read by people: nothing that plays tricks with what stands beside it. */
const Text = v.pipe(v.string(), v.maxLength(300), v.regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u))
const MaybeText = v.nullable(Text)
/** In its one spelling. */
export const Base64 = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9+/]*={0,2}$/),
  v.check((text) => Buffer.from(text, 'base64').toString('base64') === text, 'must be base64'),
)
const PublicKey = v.pipe(Base64, v.maxLength(256))

const Bundle = strictObject({ number: Number40, state: Digest, isComplete: v.boolean() })
const Served = strictObject({ group: Name, bundle: Number40, role: v.picklist(TREE_ROLES) })
const Result = strictObject({
  at: Time,
  command: v.pipe(Text, v.maxLength(64)),
  result: v.pipe(Text, v.maxLength(64)),
  bundle: v.exactOptional(Count),
  groups: v.exactOptional(v.pipe(v.array(Text), v.maxLength(100))),
})
/** Without `names` the box is a pseudonym. */
const Box = strictObject({
  box: v.pipe(Text, v.minLength(1)),
  group: Text,
  lastAskedAt: Time,
  names: v.exactOptional(
    strictObject({
      address: Text,
      framework: MaybeText,
      phpver: MaybeText,
      brand: MaybeText,
      deployment: v.nullable(Digest),
      modules: dictionary(Text, Text),
    }),
  ),
})
const Parity = strictObject({
  box: v.pipe(Text, v.minLength(1)),
  checkedAt: Time,
  inventory: v.exactOptional(Digest),
  holds: v.boolean(),
  differences: Count,
  texts: v.exactOptional(v.pipe(v.array(Text), v.maxLength(100))),
})
/** DER; whose it is, and by whom, is for the reader to ask. */
const Certificate = v.pipe(Base64, v.maxLength(MAX_CERTIFICATE_CHARS), v.check(isCertificate, 'must be a certificate'))
/** An inventory that is at the mirror; its bytes are among the attachments, unless there was no room. */
const HeldInventory = strictObject({
  box: Name,
  sha256: Digest,
  bytes: v.pipe(Count, v.minValue(1), v.maxValue(MAX_INVENTORY_BYTES)),
})
/** How many facts are in which state. */
const Readiness = strictObject({
  box: v.pipe(Text, v.minLength(1)),
  takenAt: Time,
  ready: Count,
  not: Count,
  unknown: Count,
})
const Enrolled = strictObject({ box: Name, certificate: Certificate, revoked: v.boolean() })
const License = strictObject({
  box: v.pipe(Text, v.minLength(1)),
  state: v.pipe(v.string(), v.regex(/^[a-z][a-z-]{0,39}$/)),
  expires: v.nullable(v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/))),
})
const SHARED = {
  _type: v.literal('gapferry-report'),
  site: Name,
  /** of the laptop's key that it is sealed for */
  recipient: Digest,
  level: v.picklist(['minimal', 'full']),
  sequence: Number40,
  createdAt: Time,
  bundles: v.pipe(v.array(Bundle), v.maxLength(1000)),
  served: v.pipe(v.array(Served), v.maxLength(1000)),
  /** sorted SHA-256, 32 bytes each, in base64 */
  blobs: v.pipe(Base64, v.maxLength(Math.ceil((MAX_REPORT_BLOBS * 32) / 3) * 4)),
  results: v.pipe(v.array(Result), v.maxLength(MAX_REPORT_RESULTS)),
  boxes: v.pipe(v.array(Box), v.maxLength(MAX_REPORT_BOXES)),
  parity: v.pipe(v.array(Parity), v.maxLength(MAX_REPORT_BOXES)),
  freeBytes: Count,
}
const ADDED = {
  /** newest first; none below `full` */
  inventories: v.pipe(v.array(HeldInventory), v.maxLength(MAX_REPORT_BOXES)),
  readiness: v.pipe(v.array(Readiness), v.maxLength(MAX_REPORT_BOXES)),
  /** boxes with a certificate of the authority; none below `full` */
  enrolled: v.pipe(v.array(Enrolled), v.maxLength(MAX_REPORT_BOXES)),
  /** the mirror's own, for its boxes; null where it has none yet */
  authority: v.nullable(Certificate),
  /** what licenses are sealed for that no box's own certificate is known for */
  delivery: v.nullable(Certificate),
  licenses: v.pipe(v.array(License), v.maxLength(MAX_REPORT_BOXES)),
}
const NOTHING_ADDED = { inventories: [], readiness: [], enrolled: [], authority: null, delivery: null, licenses: [] }
const Schema = strictObject({ ...SHARED, format: v.literal(FORMAT), ...ADDED })
const SchemaBefore = strictObject({ ...SHARED, format: v.literal(FORMAT_BEFORE) })
const SIGNATURE = { identity: PublicKey, signature: v.pipe(Base64, v.maxLength(200)) }
const Signed = strictObject({
  ...SIGNATURE,
  /** sha256 → gzip, base64 */
  attachments: dictionary(Digest, v.pipe(Base64, v.maxLength(MAX_ATTACHED_CHARS))),
  signed: Schema,
})
const SignedBefore = strictObject({ ...SIGNATURE, signed: SchemaBefore })

/** As it is written: FORMAT.md#report. One of format 1 is read as one that says nothing of what came with format 2. */
export type Report = Omit<v.InferInput<typeof Schema>, 'format'> & { format: 1 | 2 }
export type ReportBox = Report['boxes'][number]
export type ReportParity = Report['parity'][number]
export type ReportResult = Report['results'][number]
export type ReportInventory = Report['inventories'][number]
export type ReportReadiness = Report['readiness'][number]
export type ReportLicense = Report['licenses'][number]

/** A report whose signature fits the key beside it; whether that key is the site's mirror's is another question. */
export interface SignedReport {
  report: Report
  /** base64 of the SubjectPublicKeyInfo */
  identity: string
  /** of that key */
  words: string
  /** as they came: readAttachment (storage/attachments.ts) takes one out */
  attachments: Readonly<Record<string, string>>
}

/** The signed bytes, to be sealed.
 *  @param attachments  from packAttachments (storage/attachments.ts)
 *  @throws REPORT_INVALID where parseReport would refuse them */
export function signReport(
  report: Omit<Report, '_type' | 'format'>,
  key: KeyObject,
  attachments: Readonly<Record<string, string>> = {},
): Buffer {
  const signed = { _type: 'gapferry-report', format: FORMAT, ...report }
  const signature = sign('sha256', canonicalJson(signed), key).toString('base64')
  const bytes = canonicalJson({ attachments, identity: publicKeyOf(key), signature, signed })
  parseReport(bytes, 'report')
  return bytes
}

/** How many characters of attachments a report has room for, sealed. */
export function attachmentRoom(report: Omit<Report, '_type' | 'format'>): number {
  const room = Math.floor((MAX_REPORT_BYTES * 3) / 4) - canonicalJson(report).length - MAX_FRAME_BYTES
  return Math.max(0, Math.min(room, MAX_ATTACHED_CHARS))
}

/** @param what  names it in messages
 *  @throws REPORT_INVALID (also for another spelling); REPORT_SIGNATURE */
export function parseReport(bytes: Buffer, what: string): SignedReport {
  if (bytes.length > MAX_REPORT_BYTES) throw invalid(what, `larger than ${MAX_REPORT_BYTES} bytes`)
  const doc = checkReport(parseReportJson(bytes, what), what)
  if (!canonicalJson(doc).equals(bytes)) throw invalid(what, 'is not in canonical form')
  const { identity, signature, signed } = doc
  const key = parsePublicKey(identity, what)
  if (!verify('sha256', canonicalJson(signed), key, Buffer.from(signature, 'base64'))) {
    throw new GapferryError('REPORT_SIGNATURE', `${what}: its signature is not by the identity that it names`, {
      hint: 'it was changed or forged: write another one at the site: gapferry-mirror report --to DIR',
    })
  }
  heldBlobs(signed, what)
  const words = identityWords(identity)
  if (!('attachments' in doc)) return { report: { ...NOTHING_ADDED, ...doc.signed }, identity, words, attachments: {} }
  checkAttachments(doc, what)
  return { report: doc.signed, identity, words, attachments: doc.attachments }
}

function checkReport(doc: unknown, what: string): v.InferInput<typeof Signed> | v.InferInput<typeof SignedBefore> {
  if (v.is(Signed, doc)) return doc
  if (v.is(SignedBefore, doc)) return doc
  throw invalid(what, describeFault(Signed, doc))
}

function checkAttachments({ attachments, signed }: v.InferInput<typeof Signed>, what: string): void {
  const named = new Set(signed.inventories.map(({ sha256 }) => sha256))
  if (Object.keys(attachments).some((sha256) => !named.has(sha256)))
    throw invalid(what, 'something is attached that it does not name')
  const chars = Object.values(attachments).reduce((sum, text) => sum + text.length, 0)
  if (chars > MAX_ATTACHED_CHARS) throw invalid(what, `more than ${MAX_ATTACHED_CHARS} characters are attached`)
}

/** The twelve words of a mirror's identity: of its public key. */
export function identityWords(identity: string): string {
  return fingerprintWords(Buffer.from(identity, 'base64'))
}

/** base64 of the SubjectPublicKeyInfo of a private or public key */
export function publicKeyOf(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  return publicKey.export({ type: 'spki', format: 'der' }).toString('base64')
}

/** An ECDSA P-256 key in its one spelling.
 *  @throws REPORT_INVALID */
export function parsePublicKey(text: string, what: string): KeyObject {
  try {
    const key = createPublicKey({ key: Buffer.from(text, 'base64'), format: 'der', type: 'spki' })
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1' && publicKeyOf(key) === text) return key
  } catch (cause) {
    throw new GapferryError('REPORT_INVALID', `${what}: a key in it is no public key`, { cause })
  }
  throw invalid(what, 'a key in it is no P-256 key')
}

/** SHA-256 of a public key's bytes. */
export function keyDigest(publicKey: string): Sha256 {
  return sha256Of(Buffer.from(publicKey, 'base64'))
}

/** For `blobs` of a report: sorted, in base64. */
export function packBlobs(blobs: Iterable<Sha256>): string {
  return Buffer.from([...new Set(blobs)].sort().join(''), 'hex').toString('base64')
}

/** What a report says is at the mirror. @throws REPORT_INVALID unless they are whole and strictly rising */
export function heldBlobs({ blobs }: Pick<Report, 'blobs'>, what: string): Set<Sha256> {
  const hex = Buffer.from(blobs, 'base64').toString('hex')
  const held = new Set<Sha256>()
  let last = ''
  for (let at = 0; at < hex.length; at += 64) {
    const digest = hex.slice(at, at + 64)
    if (digest.length < 64 || digest <= last) throw invalid(what, 'its digests are not in order')
    held.add(digest as Sha256)
    last = digest
  }
  return held
}

/** The bundle whose state counts: the newest that is whole there. */
export function wholeBundle({ bundles }: Pick<Report, 'bundles'>): Report['bundles'][number] | undefined {
  return bundles.filter(({ isComplete }) => isComplete).sort((a, b) => b.number - a.number)[0]
}

/** @throws REPORT_INVALID */
export function parseReportJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new GapferryError('REPORT_INVALID', `${what}: is no report, or only a piece of one`, { cause })
  }
}

function isCertificate(text: string): boolean {
  const der = Buffer.from(text, 'base64')
  try {
    return new X509Certificate(der).raw.equals(der)
  } catch {
    return false
  }
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPORT_INVALID', `${what}: ${why}`)
}
