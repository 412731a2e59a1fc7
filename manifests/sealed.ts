/**
 * A secret under a passphrase, with a readable head bound to it. The ciphers are ones that every FIPS provider has (scrypt
 * and argon2 are not among them); Node's own PKCS#8 encryption is not used because it cannot do more than 2048 rounds.
 */
import { createCipheriv, createDecipheriv, pbkdf2, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import * as v from 'valibot'
import { sha256Of } from './digest.ts'
import { strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'

const ITERATIONS = 600_000
const SALT_BYTES = 16
const IV_BYTES = 12
const TAG_BYTES = 16

const derive = promisify(pbkdf2)

/** Base64 of so many characters at most. */
export function base64(maxLength: number): v.GenericSchema<string> {
  return v.pipe(v.string(), v.maxLength(maxLength), v.regex(/^[A-Za-z0-9+/]*={0,2}$/))
}

/** How the passphrase becomes a key; null without one. */
export const Kdf = v.nullable(
  strictObject({
    name: v.literal('PBKDF2-HMAC-SHA-256'),
    iterations: v.literal(ITERATIONS),
    salt: base64(64),
  }),
)
const None = v.strictObject({ name: v.literal('none') })
const Gcm = v.strictObject({ name: v.literal('AES-256-GCM'), iv: base64(16), tag: base64(24) })
/** How the secret is kept, told apart by `name`. */
export const CIPHERS = [None, Gcm] as const

/** As it stands in a file; `data` is base64. */
export interface Sealed {
  kdf: v.InferInput<typeof Kdf>
  cipher: v.InferInput<typeof None> | v.InferInput<typeof Gcm>
  data: string
}

/** The bytes of a document with the digest of all its fields, which tells a damaged file from a wrong passphrase. */
export function serializeDigested(doc: object): Buffer {
  return Buffer.from(`${JSON.stringify({ ...doc, digest: sha256Of(canonicalJson(doc)) }, null, 1)}\n`)
}

/** What such bytes hold, nothing checked; undefined where they are no JSON. */
export function parseDigested(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}

/** @param head        readable, and bound to the secret
 *  @param passphrase  null: not encrypted */
export async function seal(head: object, secret: Uint8Array, passphrase: string | null): Promise<Sealed> {
  if (passphrase === null) return { kdf: null, cipher: { name: 'none' }, data: Buffer.from(secret).toString('base64') }
  const salt = randomBytes(SALT_BYTES).toString('base64')
  const kdf = { name: 'PBKDF2-HMAC-SHA-256' as const, iterations: ITERATIONS as typeof ITERATIONS, salt }
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', await keyOf(passphrase, kdf), iv)
  cipher.setAAD(canonicalJson({ ...head, kdf }))
  const data = Buffer.concat([cipher.update(secret), cipher.final()]).toString('base64')
  const tag = cipher.getAuthTag().toString('base64')
  return { kdf, cipher: { name: 'AES-256-GCM', iv: iv.toString('base64'), tag }, data }
}

/** @param what  names the file in messages
 *  @throws KEY_PASSPHRASE_MISSING when it is encrypted and `passphrase` is null; KEY_PASSPHRASE_WRONG */
export async function unseal(
  head: object,
  { kdf, cipher, data }: Sealed,
  passphrase: string | null,
  what: string,
): Promise<Buffer> {
  const bytes = Buffer.from(data, 'base64')
  if (kdf === null || cipher.name === 'none') return bytes
  if (passphrase === null) throw new GapferryError('KEY_PASSPHRASE_MISSING', `${what}: needs its passphrase`)
  const key = await keyOf(passphrase, kdf)
  try {
    const iv = Buffer.from(cipher.iv, 'base64')
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    decipher.setAuthTag(Buffer.from(cipher.tag, 'base64'))
    decipher.setAAD(canonicalJson({ ...head, kdf }))
    return Buffer.concat([decipher.update(bytes), decipher.final()])
  } catch (cause) {
    throw new GapferryError('KEY_PASSPHRASE_WRONG', `${what}: the passphrase does not open it`, { cause })
  }
}

function keyOf(passphrase: string, kdf: NonNullable<Sealed['kdf']>): Promise<Buffer> {
  // One passphrase, one spelling: keyboards differ in how they compose accented letters.
  const text = passphrase.normalize('NFC')
  return derive(text, Buffer.from(kdf.salt, 'base64'), kdf.iterations, 32, 'sha256')
}
