/**
 * Seals bytes for one P-256 key so that a change shows: ECIES with HKDF-SHA-256 and AES-256-GCM, all of which every FIPS
 * provider has. A key pair is made each time, so a key is used once and its nonce may be derived with it.
 */
import { createCipheriv, createDecipheriv, createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto'
import { hkdfSync, type KeyObject } from 'node:crypto'
import { GapferryError } from './errors.ts'

const KEY_BYTES = 32
const NONCE_BYTES = 12
export const TAG_BYTES = 16
/** Of the SubjectPublicKeyInfo of a P-256 key. */
const PUBLIC_BYTES = 91

/** @param reader  public or private key
 *  @param info    what it is for: opened for something else, it is refused
 *  @returns the pair's public key, the tag, the sealed bytes */
export function sealForKey(bytes: Uint8Array, reader: KeyObject, info: string): Buffer {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const other = reader.type === 'private' ? createPublicKey(reader) : reader
  const ephemeral = spkiOf(own.publicKey)
  const { key, nonce } = agreeOnSecret({ own: own.privateKey, other, bound: [ephemeral, spkiOf(other)], info })
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  const data = Buffer.concat([cipher.update(bytes), cipher.final()])
  return Buffer.concat([ephemeral, cipher.getAuthTag(), data])
}

/** @param what  names it in messages
 *  @throws LICENSE_INVALID where it was changed, or is for another key or purpose */
export function openWithKey(sealed: Buffer, key: KeyObject, info: string, what: string): Buffer {
  try {
    const ephemeral = sealed.subarray(0, PUBLIC_BYTES)
    const other = createPublicKey({ key: ephemeral, format: 'der', type: 'spki' })
    const bound = [ephemeral, spkiOf(createPublicKey(key))]
    const secret = agreeOnSecret({ own: key, other, bound, info })
    const decipher = createDecipheriv('aes-256-gcm', secret.key, secret.nonce, { authTagLength: TAG_BYTES })
    decipher.setAuthTag(sealed.subarray(PUBLIC_BYTES, PUBLIC_BYTES + TAG_BYTES))
    return Buffer.concat([decipher.update(sealed.subarray(PUBLIC_BYTES + TAG_BYTES)), decipher.final()])
  } catch (cause) {
    throw new GapferryError('LICENSE_INVALID', `${what}: does not open with this key, or was changed`, { cause })
  }
}

/** @param args.bound  both public keys, the ephemeral one first */
export function agreeOnSecret(args: { own: KeyObject; other: KeyObject; bound: readonly Buffer[]; info: string }): {
  key: Buffer
  nonce: Buffer
} {
  const secret = diffieHellman({ privateKey: args.own, publicKey: args.other })
  const bytes = Buffer.from(hkdfSync('sha256', secret, Buffer.concat(args.bound), args.info, KEY_BYTES + NONCE_BYTES))
  return { key: bytes.subarray(0, KEY_BYTES), nonce: bytes.subarray(KEY_BYTES) }
}

function spkiOf(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' })
}
