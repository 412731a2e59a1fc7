/**
 * The report: what a site's mirror says of itself to the laptop. Canonical JSON, signed by the mirror's identity, then sealed
 * for the laptop (report-seal.ts). FORMAT.md#report.
 */
import { createPublicKey, sign, verify, type KeyObject } from 'node:crypto'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from './digest.ts'
import { describeFault, dictionary, strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import { TREE_ROLES } from './tree.ts'
import { fingerprintWords } from './words.ts'

/** Of a report as it lies on the stick. */
export const MAX_REPORT_BYTES = 16 * 1024 * 1024
/** A mirror with more says what its newest bundles need. */
export const MAX_REPORT_BLOBS = 100_000
export const MAX_REPORT_RESULTS = 100
export const MAX_REPORT_BOXES = 2000
const FORMAT = 1

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
const Schema = strictObject({
  _type: v.literal('gapferry-report'),
  format: v.literal(FORMAT),
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
})
const Signed = strictObject({ identity: PublicKey, signature: v.pipe(Base64, v.maxLength(200)), signed: Schema })

/** As it is written: FORMAT.md#report. */
export type Report = v.InferInput<typeof Schema>
export type ReportBox = Report['boxes'][number]
export type ReportParity = Report['parity'][number]
export type ReportResult = Report['results'][number]

/** A report whose signature fits the key beside it; whether that key is the site's mirror's is another question. */
export interface SignedReport {
  report: Report
  /** base64 of the SubjectPublicKeyInfo */
  identity: string
  /** of that key */
  words: string
}

/** The signed bytes, to be sealed. @throws REPORT_INVALID where parseReport would refuse them */
export function signReport(report: Omit<Report, '_type' | 'format'>, key: KeyObject): Buffer {
  const signed = { _type: 'gapferry-report', format: FORMAT, ...report }
  const signature = sign('sha256', canonicalJson(signed), key).toString('base64')
  const bytes = canonicalJson({ identity: publicKeyOf(key), signature, signed })
  parseReport(bytes, 'report')
  return bytes
}

/** @param what  names it in messages
 *  @throws REPORT_INVALID (also for another spelling); REPORT_SIGNATURE */
export function parseReport(bytes: Buffer, what: string): SignedReport {
  if (bytes.length > MAX_REPORT_BYTES) throw invalid(what, `larger than ${MAX_REPORT_BYTES} bytes`)
  const doc = parseReportJson(bytes, what)
  if (!v.is(Signed, doc)) throw invalid(what, describeFault(Signed, doc))
  if (!canonicalJson(doc).equals(bytes)) throw invalid(what, 'is not in canonical form')
  const { identity, signature, signed } = doc
  const key = parsePublicKey(identity, what)
  if (!verify('sha256', canonicalJson(signed), key, Buffer.from(signature, 'base64'))) {
    throw new GapferryError('REPORT_SIGNATURE', `${what}: its signature is not by the identity that it names`, {
      hint: 'it was changed or forged: write another one at the site: gapferry-mirror report --to DIR',
    })
  }
  heldBlobs(signed, what)
  return { report: signed, identity, words: identityWords(identity) }
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

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPORT_INVALID', `${what}: ${why}`)
}
