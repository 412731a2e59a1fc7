/**
 * `mirror-identity.json`: what is public of a mirror's identity. The key that signs its reports, the authority that issues the
 * certificates of its boxes, and the certificate that licenses are sealed for. FORMAT.md#mirror-identity.
 */
import { sign, verify, type KeyObject } from 'node:crypto'
import * as v from 'valibot'
import { isIssuedBy, parseAuthority, parseCertificate } from './certificate.ts'
import { describeFault, strictObject } from './document.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import { Base64, identityWords, parsePublicKey, parseReportJson, publicKeyOf } from './report.ts'

/** Of `mirror-identity.json`. */
const MAX_IDENTITY_BYTES = 16 * 1024
const FORMAT = 2
const TYPE = 'gapferry-mirror-identity'

const head = {
  _type: v.literal(TYPE),
  site: v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/)),
  createdAt: v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/)),
  words: v.pipe(v.string(), v.maxLength(200)),
}
const First = strictObject({ ...head, format: v.literal(1) })
const Der = v.pipe(Base64, v.minLength(4), v.maxLength(10_924))
const Second = strictObject({ ...head, format: v.literal(FORMAT), authority: Der, delivery: Der })
const signedOf = <S extends typeof First | typeof Second>(signed: S) =>
  strictObject({ identity: v.pipe(Base64, v.maxLength(256)), signature: v.pipe(Base64, v.maxLength(200)), signed })

/** An identity whose signature fits the key in it; whether that key is the site's mirror's, a person says. */
export interface MirrorIdentity {
  site: string
  /** RFC 3339 */
  createdAt: string
  /** base64 of the SubjectPublicKeyInfo */
  identity: string
  /** twelve, of that key */
  words: string
  /** DER; undefined in format 1, of mirrors that have none yet */
  authority: Buffer | undefined
  /** DER, issued by the authority; for CMS */
  delivery: Buffer | undefined
}

/** @param about.authority  DER, as `about.delivery`
 *  @throws REPORT_INVALID where parseMirrorIdentity would refuse it */
export function signMirrorIdentity(
  about: { site: string; createdAt: string; authority: Buffer; delivery: Buffer },
  key: KeyObject,
): Buffer {
  const identity = publicKeyOf(key)
  const signed = {
    _type: TYPE,
    format: FORMAT,
    site: about.site,
    createdAt: about.createdAt,
    words: identityWords(identity),
    authority: about.authority.toString('base64'),
    delivery: about.delivery.toString('base64'),
  }
  const signature = sign('sha256', canonicalJson(signed), key).toString('base64')
  const bytes = canonicalJson({ identity, signature, signed })
  parseMirrorIdentity(bytes, 'mirror-identity.json')
  return bytes
}

/** @param what  names it in messages
 *  @throws REPORT_INVALID (also for another spelling, words of another key, certificates that do not belong together);
 *          REPORT_SIGNATURE */
export function parseMirrorIdentity(bytes: Buffer, what: string): MirrorIdentity {
  if (bytes.length > MAX_IDENTITY_BYTES) throw invalid(what, `larger than ${MAX_IDENTITY_BYTES} bytes`)
  const { identity, signature, signed } = parseDocument(bytes, what)
  const key = parsePublicKey(identity, what)
  if (!verify('sha256', canonicalJson(signed), key, Buffer.from(signature, 'base64'))) {
    throw new GapferryError('REPORT_SIGNATURE', `${what}: its signature is not by the identity that it names`, {
      hint: 'it was changed or forged: copy mirror-identity.json from the mirror’s store again',
    })
  }
  const words = identityWords(identity)
  if (signed.words !== words) throw invalid(what, 'its words are not those of its key')
  const { site, createdAt } = signed
  const certificates =
    signed.format === FORMAT ? certificatesOf(signed, what) : { authority: undefined, delivery: undefined }
  return { site, createdAt, identity, words, ...certificates }
}

/** Whether a file that was brought is one of these, as far as its beginning tells. */
export function looksLikeMirrorIdentity(bytes: Buffer): boolean {
  return bytes.length <= MAX_IDENTITY_BYTES && bytes.includes(`"_type":"${TYPE}"`)
}

function parseDocument(bytes: Buffer, what: string): v.InferOutput<ReturnType<typeof signedOf>> {
  const doc = parseReportJson(bytes, what)
  if (!canonicalOr(() => canonicalJson(doc).equals(bytes))) throw invalid(what, 'is not in canonical form')
  if (v.is(signedOf(First), doc)) return doc
  const second = signedOf(Second)
  if (v.is(second, doc)) return doc
  throw invalid(what, describeFault(second, doc))
}

/** Canonical JSON throws for what it cannot spell (a fraction). */
function canonicalOr(work: () => boolean): boolean {
  try {
    return work()
  } catch {
    return false
  }
}

/** @throws REPORT_INVALID */
function certificatesOf(
  signed: { authority: string; delivery: string },
  what: string,
): { authority: Buffer; delivery: Buffer } {
  const authority = Buffer.from(signed.authority, 'base64')
  const delivery = Buffer.from(signed.delivery, 'base64')
  try {
    const issuer = parseAuthority(authority, `${what}: the authority`)
    const issued = parseCertificate(delivery, `${what}: the delivery certificate`)
    if (isIssuedBy(issued, issuer) && !issued.ca) return { authority, delivery }
  } catch (error) {
    if (!isGapferryError(error, 'CERTIFICATE_INVALID')) throw error
    throw new GapferryError('REPORT_INVALID', error.message, { cause: error })
  }
  throw invalid(what, 'its delivery certificate is not of its authority')
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('REPORT_INVALID', `${what}: ${why}`)
}
