/** Public keys as root.json carries them. */
import { createPublicKey } from 'node:crypto'
import { sha256Of } from './digest.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'
import type { RoleKey } from './metadata-schema.ts'

const MIN_RSA_BITS = 2048

/** @param pem  SubjectPublicKeyInfo of an ECDSA P-256 or RSA key */
export function roleKey(keytype: RoleKey['keytype'], pem: string): { keyid: string; key: RoleKey } {
  const key: RoleKey =
    keytype === 'ecdsa'
      ? { keytype, scheme: 'ecdsa-sha2-nistp256', keyval: { public: pem } }
      : { keytype, scheme: 'rsassa-pss-sha256', keyval: { public: pem } }
  return { keyid: keyIdOf(key), key }
}

/** The id of a key: the SHA-256 of its canonical JSON (TUF 1.0.31 §4.2). */
export function keyIdOf(key: RoleKey): string {
  return sha256Of(canonicalJson(key))
}

/** The numbers that a key is made of, as text: equal for two spellings of one key.
 *  @throws ROLE_INVALID unless it is the kind of key that its keytype says, in plain PEM */
export function publicNumbers(key: RoleKey, what: string): string {
  const object = parsePem(key.keyval.public, what)
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = object
  const isP256 = key.keytype === 'ecdsa' && type === 'ec' && details?.namedCurve === 'prime256v1'
  const isRsa = key.keytype === 'rsa' && type === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS
  // A private key, or a public one in another spelling, does not come back as the same text.
  if ((isP256 || isRsa) && object.export({ type: 'spki', format: 'pem' }) === key.keyval.public) {
    return JSON.stringify(object.export({ format: 'jwk' }))
  }
  const expected = `expected an ECDSA P-256 or RSA key (${MIN_RSA_BITS} bits or more) in PEM, as its keytype says`
  throw new GapferryError('ROLE_INVALID', `${what}: ${expected}`)
}

function parsePem(pem: string, what: string): ReturnType<typeof createPublicKey> {
  try {
    return createPublicKey(pem)
  } catch (cause) {
    throw new GapferryError('ROLE_INVALID', `${what}: is not a public key`, { cause })
  }
}
