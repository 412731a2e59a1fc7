/**
 * Bytes sealed for the holders of certificates: CMS EnvelopedData (RFC 5652, RFC 5753, RFC 3560), as `openssl cms` of 1.0.2
 * and later opens it. One choice of algorithms, and no other is read: AES-256-CBC for the content; for P-256 keys one-pass
 * ECDH with SHA-256 and AES-256 key wrap; for RSA keys OAEP with SHA-256. CBC does not tell a changed content, so whoever
 * opens one MUST have its digest, or that of its content, from a signed document. FORMAT.md#sealed-licenses.
 */
import { createDecipheriv, createPublicKey, diffieHellman, hash, privateDecrypt } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type * as Pki from 'pkijs'
import { parseCertificate } from './certificate.ts'
import { checkDer } from './der-check.ts'
import { GapferryError } from './errors.ts'

/** The most that is sealed, and the most that is read of something sealed. */
export const MAX_CMS_BYTES = 4 * 1024 * 1024
const MAX_RECIPIENTS = 16

const ENVELOPED = '1.2.840.113549.1.7.3'
const AES_256_CBC = '2.16.840.1.101.3.4.1.42'
const AES_256_WRAP = '2.16.840.1.101.3.4.1.45'
const ECDH_SHA256 = '1.3.132.1.11.1'
const RSA_OAEP = '1.2.840.113549.1.1.7'
const SHA_256 = '2.16.840.1.101.3.4.2.1'
/** A SubjectPublicKeyInfo of P-256 up to the point. */
const P256_HEAD = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex')
const WRAP_INFO = Buffer.from('300b060960864801650304012d', 'hex')
const KEY_LENGTH_INFO = Buffer.from('a206040400000100', 'hex')
const COUNTER = Buffer.from('00000001', 'hex')
const WRAP_IV = Buffer.from('a6a6a6a6a6a6a6a6', 'hex')
const MAX_UKM_BYTES = 64
const CONTENT = { name: 'AES-CBC', length: 256 }
const RECIPIENT = { oaepHashAlgorithm: 'SHA-256', kdfAlgorithm: 'SHA-256', kekEncryptionLength: 256 } as const

/** @param certificates  DER, 1 to 16, of P-256 keys or RSA keys of 2048 bits or more; each of them alone opens it. Whether
 *                       they are believed, or still valid, is for the caller to know
 *  @returns DER, another each time
 *  @throws CMS_INVALID where content or certificates are not as above, or the result would be longer than `MAX_CMS_BYTES` */
export async function sealCms(content: Uint8Array, certificates: readonly Buffer[]): Promise<Buffer> {
  if (content.length === 0) throw new GapferryError('CMS_INVALID', 'there is nothing to seal')
  if (certificates.length === 0 || certificates.length > MAX_RECIPIENTS)
    throw new GapferryError(
      'CMS_INVALID',
      `cannot seal for ${certificates.length} certificates: 1 to ${MAX_RECIPIENTS}`,
    )
  const pki = await import('pkijs')
  const envelope = new pki.EnvelopedData({ disableSplit: true })
  for (const bytes of certificates) envelope.addRecipientByCertificate(parseRecipient(pki, bytes), RECIPIENT)
  // A copy: a Buffer may be a view of a larger pool.
  await envelope.encrypt(CONTENT, new Uint8Array(content).buffer)
  const info = new pki.ContentInfo({ contentType: ENVELOPED, content: envelope.toSchema() })
  const sealed = Buffer.from(info.toSchema().toBER())
  if (sealed.length <= MAX_CMS_BYTES) return sealed
  throw new GapferryError('CMS_INVALID', `sealed, it would have ${sealed.length} bytes, more than ${MAX_CMS_BYTES}`)
}

/** @param key          the private key of `certificate`
 *  @param certificate  DER: whose recipient of `cms` is taken
 *  @param what         names `cms` in messages
 *  @throws CMS_INVALID where it is no such document, was changed so that it shows, or is sealed for others only */
export async function openCms(cms: Buffer, key: KeyObject, certificate: Buffer, what: string): Promise<Buffer> {
  if (cms.length > MAX_CMS_BYTES)
    throw new GapferryError('CMS_INVALID', `${what}: has ${cms.length} bytes, more than ${MAX_CMS_BYTES}`)
  checkDer(cms, 'CMS_INVALID', what)
  const pki = await import('pkijs')
  const own = parseRecipient(pki, certificate)
  const envelope = parseEnvelope(pki, cms, what)
  const index = envelope.recipientInfos.findIndex((info) => isFor(own, info))
  if (index === -1) throw new GapferryError('CMS_INVALID', `${what}: is sealed for another key`)
  const unwrap = unwrapperOf(pki, envelope.recipientInfos[index]!, what)
  const { contentEncryptionAlgorithm, encryptedContent } = envelope.encryptedContentInfo
  try {
    const iv = bytesOf(contentEncryptionAlgorithm.algorithmParams)
    const decipher = createDecipheriv('aes-256-cbc', unwrap(key), iv)
    return Buffer.concat([decipher.update(bytesOf(encryptedContent)), decipher.final()])
  } catch (cause) {
    throw new GapferryError('CMS_INVALID', `${what}: does not open with this key, or was changed`, { cause })
  }
}

/** Whether the certificate is one of those that it is sealed for. @param certificate  DER
 *  @throws CMS_INVALID as openCms */
export async function isSealedFor(cms: Buffer, certificate: Buffer, what: string): Promise<boolean> {
  checkDer(cms, 'CMS_INVALID', what)
  const pki = await import('pkijs')
  const own = parseRecipient(pki, certificate)
  return parseEnvelope(pki, cms, what).recipientInfos.some((info) => isFor(own, info))
}

/** @throws CMS_INVALID */
function parseRecipient(pki: typeof Pki, bytes: Buffer): Pki.Certificate {
  const what = 'a certificate to seal for'
  checkDer(bytes, 'CMS_INVALID', what)
  try {
    return pki.Certificate.fromBER(parseCertificate(bytes, what).raw)
  } catch (cause) {
    throw new GapferryError('CMS_INVALID', `${what}: is none of a P-256 key, or of an RSA key of 2048 bits`, { cause })
  }
}

/** Of content that is encrypted in the one way. */
function parseEnvelope(pki: typeof Pki, cms: Buffer, what: string): Pki.EnvelopedData {
  const envelope = readEnvelope(pki, cms, what)
  const { contentEncryptionAlgorithm, encryptedContent } = envelope.encryptedContentInfo
  if (contentEncryptionAlgorithm.algorithmId !== AES_256_CBC || encryptedContent === undefined)
    throw new GapferryError('CMS_INVALID', `${what}: is not encrypted with AES-256-CBC`)
  if (envelope.recipientInfos.length <= MAX_RECIPIENTS) return envelope
  throw new GapferryError('CMS_INVALID', `${what}: is sealed for more than ${MAX_RECIPIENTS} keys`)
}

function readEnvelope(pki: typeof Pki, cms: Buffer, what: string): Pki.EnvelopedData {
  try {
    const info = pki.ContentInfo.fromBER(cms)
    if (info.contentType !== ENVELOPED) throw new Error(`content of type ${info.contentType}`)
    return new pki.EnvelopedData({ schema: info.content })
  } catch (cause) {
    throw new GapferryError('CMS_INVALID', `${what}: is no CMS EnvelopedData`, { cause })
  }
}

/** Whether issuer and serial number are those of the certificate. */
function isFor(own: Pki.Certificate, { value }: Pki.RecipientInfo): boolean {
  const id = value === undefined ? undefined : recipientOf(value)
  return id !== undefined && id.issuer.isEqual(own.issuer) && id.serialNumber.isEqual(own.serialNumber)
}

/** Recipients that are named in another way are others. */
function recipientOf(info: NonNullable<Pki.RecipientInfo['value']>): Pki.IssuerAndSerialNumber | undefined {
  if ('recipientEncryptedKeys' in info) {
    const [first] = info.recipientEncryptedKeys.encryptedKeys
    return first?.rid.variant === 1 ? (first.rid.value as Pki.IssuerAndSerialNumber) : undefined
  }
  if (!('rid' in info)) return undefined
  return 'issuer' in info.rid ? info.rid : undefined
}

/** How the content's key is got with the recipient's. No algorithm is taken from input: the one way, or none. */
function unwrapperOf(pki: typeof Pki, { value }: Pki.RecipientInfo, what: string): (key: KeyObject) => Buffer {
  const info = value as Pki.KeyAgreeRecipientInfo | Pki.KeyTransRecipientInfo
  const { algorithmId, algorithmParams } = info.keyEncryptionAlgorithm
  if ('recipientEncryptedKeys' in info && algorithmId === ECDH_SHA256 && wrapOf(pki, algorithmParams) === AES_256_WRAP)
    return (key) => agreeOnKey(info, key)
  if ('encryptedKey' in info && algorithmId === RSA_OAEP && oaepDigestOf(pki, algorithmParams) === SHA_256)
    return (key) => privateDecrypt({ key, oaepHash: 'sha256' }, bytesOf(info.encryptedKey))
  throw new GapferryError(
    'CMS_INVALID',
    `${what}: is sealed in another way than ECDH with SHA-256 or OAEP with SHA-256`,
  )
}

/** RFC 5753 §3.1.1 and §7.2; X9.63's key derivation with one round, since the digest is as long as the key. */
function agreeOnKey(info: Pki.KeyAgreeRecipientInfo, privateKey: KeyObject): Buffer {
  const originator = info.originator.value as Pki.OriginatorPublicKey
  const point = bytesOf(originator.publicKey)
  const publicKey = createPublicKey({ key: Buffer.concat([P256_HEAD, point]), format: 'der', type: 'spki' })
  const secret = diffieHellman({ privateKey, publicKey })
  const kek = hash('sha256', Buffer.concat([secret, COUNTER, sharedInfo(info.ukm)]), 'buffer')
  const [wrapped] = info.recipientEncryptedKeys.encryptedKeys
  const decipher = createDecipheriv('id-aes256-wrap', kek, WRAP_IV)
  return Buffer.concat([decipher.update(bytesOf(wrapped!.encryptedKey)), decipher.final()])
}

/** ECC-CMS-SharedInfo, in DER, for a key of 256 bits.
 *  @param ukm  with a length that one byte tells */
function sharedInfo(ukm: unknown): Buffer {
  const user = ukm === undefined ? Buffer.alloc(0) : bytesOf(ukm)
  if (user.length > MAX_UKM_BYTES) throw new Error('user keying material is too long')
  const entity = ukm === undefined ? [] : [Buffer.from([0xa0, user.length + 2, 0x04, user.length]), user]
  const body = Buffer.concat([WRAP_INFO, ...entity, KEY_LENGTH_INFO])
  return Buffer.concat([Buffer.from([0x30, body.length]), body])
}

/** What a primitive of pkijs holds, without the count of unused bits of a bit string. */
function bytesOf(primitive: unknown): Buffer {
  const { valueBlock } = primitive as { valueBlock: { valueHexView: Uint8Array } }
  return Buffer.from(valueBlock.valueHexView)
}

function wrapOf(pki: typeof Pki, schema: unknown): string | undefined {
  try {
    return new pki.AlgorithmIdentifier({ schema: schema as Pki.SchemaType }).algorithmId
  } catch {
    return undefined
  }
}

function oaepDigestOf(pki: typeof Pki, schema: unknown): string | undefined {
  try {
    return new pki.RSAESOAEPParams({ schema: schema as Pki.SchemaType }).hashAlgorithm.algorithmId
  } catch {
    return undefined
  }
}
