/**
 * One private key in one file, readable as JSON, its secret encrypted under a passphrase. The ciphers are ones that every
 * FIPS provider has (scrypt and argon2 are not among them); Node's own PKCS#8 encryption is not used because it cannot do
 * more than 2048 rounds. FORMAT.md#keys.
 */
import { createCipheriv, createDecipheriv, pbkdf2, randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import { Check, Type, type Static } from '../manifests/schema.ts'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { canonicalJson } from '../manifests/json.ts'

const ITERATIONS = 600_000
const SALT_BYTES = 16
const IV_BYTES = 12
const TAG_BYTES = 16
const MAX_KEY_FILE_BYTES = 65_536

const derive = promisify(pbkdf2)

const Base64 = (maxLength: number) => Type.String({ maxLength, pattern: '^[A-Za-z0-9+/]*={0,2}$' })
const Schema = Type.Object(
  {
    format: Type.Literal(1),
    kind: Type.Literal('gapferry-key'),
    role: Type.Union([Type.Literal('root'), Type.Literal('bundle'), Type.Literal('openpgp')]),
    keyid: Type.String({ pattern: '^(?:[0-9a-f]{64}|[0-9a-f]{40})$' }),
    public: Type.String({ maxLength: 16_384 }),
    kdf: Type.Union([
      Type.Null(),
      Type.Object(
        {
          name: Type.Literal('PBKDF2-HMAC-SHA-256'),
          iterations: Type.Literal(ITERATIONS),
          salt: Base64(64),
        },
        { additionalProperties: false },
      ),
    ]),
    cipher: Type.Union([
      Type.Object({ name: Type.Literal('none') }, { additionalProperties: false }),
      Type.Object(
        { name: Type.Literal('AES-256-GCM'), iv: Base64(16), tag: Base64(24) },
        { additionalProperties: false },
      ),
    ]),
    data: Base64(32_768),
    /** SHA-256 of all of the above: tells a damaged file from a wrong passphrase */
    digest: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  },
  { additionalProperties: false },
)

/** A key file as read: what it says is whole, its secret may still be closed. */
export type KeyFile = Static<typeof Schema>

/** What a key file says without its passphrase. `public` is PEM (root, bundle) or armored OpenPGP; `keyid` the id that
 *  root.json uses for it, or the OpenPGP fingerprint. */
export type KeyHeader = Pick<KeyFile, 'role' | 'keyid' | 'public'>

/** The bytes of a key file.
 *  @param secret      PKCS#8 DER, or OpenPGP packets
 *  @param passphrase  null: not encrypted */
export async function sealKey(header: KeyHeader, secret: Uint8Array, passphrase: string | null): Promise<Buffer> {
  const { role, keyid, public: publicKey } = header
  const kdf =
    passphrase === null
      ? null
      : {
          name: 'PBKDF2-HMAC-SHA-256' as const,
          iterations: ITERATIONS as typeof ITERATIONS,
          salt: randomBytes(SALT_BYTES).toString('base64'),
        }
  const head = { format: 1 as const, kind: 'gapferry-key' as const, role, keyid, public: publicKey, kdf }
  if (kdf === null)
    return serialize({ ...head, cipher: { name: 'none' }, data: Buffer.from(secret).toString('base64') })
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', await keyOf(passphrase!, kdf), iv)
  cipher.setAAD(canonicalJson(head))
  const data = Buffer.concat([cipher.update(secret), cipher.final()]).toString('base64')
  const tag = cipher.getAuthTag().toString('base64')
  return serialize({ ...head, cipher: { name: 'AES-256-GCM', iv: iv.toString('base64'), tag }, data })
}

/** @param what  names the file in messages
 *  @throws KEY_INVALID for anything but an undamaged key file */
export function parseKeyFile(bytes: Buffer, what: string): KeyFile {
  const doc = bytes.length > MAX_KEY_FILE_BYTES ? undefined : parseJson(bytes)
  if (!Check(Schema, doc)) throw invalid(what, 'is not a key file of this format')
  const { format, kind, role, keyid, public: publicKey, kdf, cipher, data } = doc
  if (!serialize({ format, kind, role, keyid, public: publicKey, kdf, cipher, data }).equals(bytes))
    throw invalid(what, 'is damaged; restore it from a backup')
  if ((kdf === null) !== (cipher.name === 'none')) throw invalid(what, 'names a cipher without its passphrase')
  return doc
}

/** The secret of a key file.
 *  @param passphrase  ignored where the file is not encrypted
 *  @throws KEY_PASSPHRASE_MISSING when it is encrypted and `passphrase` is null; KEY_PASSPHRASE_WRONG */
export async function openKey(file: KeyFile, passphrase: string | null, what: string): Promise<Buffer> {
  const { format, kind, role, keyid, public: publicKey, kdf, cipher } = file
  const data = Buffer.from(file.data, 'base64')
  if (kdf === null || cipher.name === 'none') return data
  if (passphrase === null) throw new GapferryError('KEY_PASSPHRASE_MISSING', `${what}: needs its passphrase`)
  const key = await keyOf(passphrase, kdf)
  try {
    const iv = Buffer.from(cipher.iv, 'base64')
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    decipher.setAuthTag(Buffer.from(cipher.tag, 'base64'))
    decipher.setAAD(canonicalJson({ format, kind, role, keyid, public: publicKey, kdf }))
    return Buffer.concat([decipher.update(data), decipher.final()])
  } catch (cause) {
    throw new GapferryError('KEY_PASSPHRASE_WRONG', `${what}: the passphrase does not open it`, { cause })
  }
}

function keyOf(passphrase: string, kdf: NonNullable<KeyFile['kdf']>): Promise<Buffer> {
  // One passphrase, one spelling: keyboards differ in how they compose accented letters.
  const text = passphrase.normalize('NFC')
  return derive(text, Buffer.from(kdf.salt, 'base64'), kdf.iterations, 32, 'sha256')
}

function serialize(doc: Omit<KeyFile, 'digest'>): Buffer {
  return Buffer.from(`${JSON.stringify({ ...doc, digest: sha256Of(canonicalJson(doc)) }, null, 1)}\n`)
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('KEY_INVALID', `${what}: ${why}`)
}
