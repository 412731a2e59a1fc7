/**
 * The certificate request of a box (PKCS #10, RFC 2986): only whose key it is, and that whoever sends it has that key. Names
 * and attributes in it are not looked at: the box is named by the code that it has.
 */
import { createHash, createPublicKey, verify, type KeyObject } from 'node:crypto'
import { GapferryError } from '../manifests/errors.ts'
import { oid, readAll, readDer, sequence, TAG, type Der } from '../manifests/der.ts'

/** A request for an RSA key of 4096 bits has some 1700. */
const MAX_REQUEST_BYTES = 8192
const PEM = /^-----BEGIN CERTIFICATE REQUEST-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE REQUEST-----\s*$/
const ECDSA_SHA256 = sequence(oid('1.2.840.10045.4.3.2'))
const RSA_SHA256 = [
  sequence(oid('1.2.840.113549.1.1.11'), Buffer.of(5, 0)),
  sequence(oid('1.2.840.113549.1.1.11')),
] as const
const RSA_BITS = { min: 2048, max: 4096 }

/** @returns the DER; undefined for what is no PEM of a request */
export function requestBytes(pem: string): Buffer | undefined {
  const text = pem.length > 2 * MAX_REQUEST_BYTES ? undefined : PEM.exec(pem)?.[1]
  if (text === undefined) return undefined
  const bytes = Buffer.from(text, 'base64')
  return bytes.length === 0 || bytes.length > MAX_REQUEST_BYTES ? undefined : bytes
}

/** The public key that a request is about, P-256 or RSA of 2048 to 4096 bits, after its signature was checked.
 *  @throws CERTIFICATE_INVALID */
export function requestedKey(request: Buffer): KeyObject {
  const whole = readDer(request)
  const [info, algorithm, signature, ...more] = partsOf(whole)
  if (info === undefined || algorithm === undefined || signature === undefined || more.length > 0) throw invalid()
  const [, , spki] = partsOf(info)
  const key = publicKey(spki)
  if (signature.tag !== TAG.bitString || signature.content[0] !== 0) throw invalid()
  if (!isFor(key, algorithm.whole)) throw invalid('is not signed with SHA-256 and the key that it is about')
  if (verify('sha256', info.whole, key, signature.content.subarray(1))) return key
  throw invalid('is not signed by the key that it is about')
}

/** Hex SHA-256, as proofs name requests and certificates. */
export function hexDigest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function partsOf(value: Der | undefined): Der[] {
  return (value?.tag === TAG.sequence ? readAll(value.content) : undefined) ?? []
}

function publicKey(spki: Der | undefined): KeyObject {
  if (spki?.tag !== TAG.sequence) throw invalid()
  let key: KeyObject
  try {
    key = createPublicKey({ key: spki.whole, format: 'der', type: 'spki' })
  } catch (cause) {
    throw new GapferryError('CERTIFICATE_INVALID', 'request: its key is no public key', { cause })
  }
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return key
  if (key.asymmetricKeyType === 'rsa' && modulusLength >= RSA_BITS.min && modulusLength <= RSA_BITS.max) return key
  throw invalid('is for a key that is neither P-256 nor RSA of 2048 to 4096 bits')
}

function isFor(key: KeyObject, algorithm: Buffer): boolean {
  const allowed = key.asymmetricKeyType === 'ec' ? [ECDSA_SHA256] : RSA_SHA256
  return allowed.some((one) => one.equals(algorithm))
}

function invalid(why = 'is no certificate request'): GapferryError {
  return new GapferryError('CERTIFICATE_INVALID', `request: ${why}`)
}
