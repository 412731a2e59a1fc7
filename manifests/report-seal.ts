/**
 * Seals a report for one reader: ECIES with P-256, HKDF-SHA-256 and AES-256-GCM, all of which every FIPS provider has. A key
 * pair is made for each report, so a key is used once and its nonce may be derived with it. FORMAT.md#report.
 */
import { createCipheriv, createDecipheriv, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import * as v from 'valibot'
import { describeFault, strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import { agreeOnSecret, TAG_BYTES } from './key-seal.ts'
import { Base64, keyDigest, MAX_REPORT_BYTES, parsePublicKey, parseReportJson, publicKeyOf } from './report.ts'

const FORMAT = 1
const INFO = 'gapferry-sealed-report 1'

const Schema = strictObject({
  _type: v.literal('gapferry-sealed-report'),
  format: v.literal(FORMAT),
  site: v.pipe(v.string(), v.regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/)),
  recipient: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  ephemeral: v.pipe(Base64, v.maxLength(256)),
  tag: v.pipe(Base64, v.length(24)),
  data: v.pipe(Base64, v.maxLength(MAX_REPORT_BYTES)),
})

/** What can be read of a sealed report without its key. */
export type SealedReport = v.InferInput<typeof Schema>

/** @param reader  public key, base64 of the SubjectPublicKeyInfo
 *  @throws REPORT_INVALID where it would be too large, or `reader` is no P-256 key */
export function sealReport(signed: Buffer, reader: string, site: string): Buffer {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const head = {
    _type: 'gapferry-sealed-report' as const,
    format: FORMAT as typeof FORMAT,
    site,
    recipient: keyDigest(reader),
    ephemeral: publicKeyOf(own.publicKey),
  }
  const { key, nonce } = derive(own.privateKey, parsePublicKey(reader, 'the laptop’s key'), head.ephemeral, reader)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(canonicalJson(head))
  const data = Buffer.concat([cipher.update(signed), cipher.final()]).toString('base64')
  const bytes = canonicalJson({ ...head, data, tag: cipher.getAuthTag().toString('base64') })
  if (bytes.length <= MAX_REPORT_BYTES) return bytes
  throw new GapferryError('REPORT_INVALID', `the report would have ${bytes.length} bytes, more than are read`, {
    hint: 'gapferry-mirror report --level minimal',
  })
}

/** @throws REPORT_INVALID */
export function parseSealedReport(bytes: Buffer, what: string): SealedReport {
  const doc = parseReportJson(bytes, what)
  if (!v.is(Schema, doc)) throw new GapferryError('REPORT_INVALID', `${what}: ${describeFault(Schema, doc)}`)
  if (canonicalJson(doc).equals(bytes)) return doc
  throw new GapferryError('REPORT_INVALID', `${what}: is not in canonical form`)
}

/** @param key  the reader's private key
 *  @throws REPORT_INVALID where it was changed, or is for another key */
export function openReport(sealed: SealedReport, key: KeyObject, what: string): Buffer {
  const { data, tag, ...head } = sealed
  const ephemeral = parsePublicKey(sealed.ephemeral, what)
  const derived = derive(key, ephemeral, sealed.ephemeral, publicKeyOf(createPublicKey(key)))
  try {
    const decipher = createDecipheriv('aes-256-gcm', derived.key, derived.nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(canonicalJson(head))
    decipher.setAuthTag(Buffer.from(tag, 'base64'))
    return Buffer.concat([decipher.update(Buffer.from(data, 'base64')), decipher.final()])
  } catch (cause) {
    throw new GapferryError('REPORT_INVALID', `${what}: was changed since it was sealed`, {
      hint: 'copy it again, or write another one at the site: gapferry-mirror report --to DIR',
      cause,
    })
  }
}

function derive(own: KeyObject, other: KeyObject, ephemeral: string, reader: string) {
  return agreeOnSecret({
    own,
    other,
    bound: [ephemeral, reader].map((text) => Buffer.from(text, 'base64')),
    info: INFO,
  })
}
