/**
 * One private key in one file, readable as JSON: its secret encrypted under a passphrase (sealed.ts), or the place of a key
 * that never leaves a token. FORMAT.md#keys.
 */
import * as v from 'valibot'
import { strictObject } from '../../manifests/document.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { base64, CIPHERS, Kdf, parseDigested, seal, serializeDigested, unseal } from '../../manifests/sealed.ts'

const MAX_KEY_FILE_BYTES = 65_536

/** CKA_ID, as pkcs11-tool takes it */
export const TOKEN_KEY_ID = /^(?:[0-9a-f]{2}){1,64}$/
const TokenText = v.pipe(v.string(), v.maxLength(1024), v.regex(/^[\x20-\x7e]+$/))
const Token = v.strictObject({
  name: v.literal('PKCS#11'),
  module: TokenText,
  token: TokenText,
  id: v.pipe(v.string(), v.regex(TOKEN_KEY_ID)),
})
const Schema = strictObject({
  format: v.literal(1),
  kind: v.literal('gapferry-key'),
  role: v.picklist(['root', 'bundle', 'openpgp', 'license']),
  keyid: v.pipe(v.string(), v.regex(/^(?:[0-9a-f]{64}|[0-9a-f]{40})$/)),
  public: v.pipe(v.string(), v.maxLength(16_384)),
  kdf: Kdf,
  cipher: v.variant('name', [...CIPHERS, Token]),
  data: base64(32_768),
  /** SHA-256 of all of the above: tells a damaged file from a wrong passphrase */
  digest: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
})

/** A key file as read: what it says is whole, its secret may still be closed. */
export type KeyFile = v.InferInput<typeof Schema>

/** What a key file says without its passphrase. `public` is PEM (root, bundle) or armored OpenPGP; `keyid` the id that
 *  root.json uses for it, or the OpenPGP fingerprint. */
export type KeyHeader = Pick<KeyFile, 'role' | 'keyid' | 'public'>

/** A key that stays in a token: which PKCS#11 module finds it, in which token, under which id (hexadecimal). */
export interface TokenPlace {
  module: string
  token: string
  id: string
}

/** The bytes of a key file.
 *  @param secret      PKCS#8 DER, or OpenPGP packets
 *  @param passphrase  null: not encrypted */
export async function sealKey(header: KeyHeader, secret: Uint8Array, passphrase: string | null): Promise<Buffer> {
  const { role, keyid, public: publicKey } = header
  const head = { format: 1 as const, kind: 'gapferry-key' as const, role, keyid, public: publicKey }
  const { kdf, cipher, data } = await seal(head, secret, passphrase)
  return serializeDigested({ ...head, kdf, cipher, data })
}

/** The bytes of a key file for a key in a token. @throws KEY_INVALID where the place cannot be written down */
export function tokenKeyFile(header: KeyHeader, { module, token, id }: TokenPlace): Buffer {
  const { role, keyid, public: publicKey } = header
  const head = { format: 1 as const, kind: 'gapferry-key' as const, role, keyid, public: publicKey }
  const bytes = serializeDigested({ ...head, kdf: null, cipher: { name: 'PKCS#11', module, token, id }, data: '' })
  parseKeyFile(bytes, `key ${id} of token "${token}"`)
  return bytes
}

/** @param what  names the file in messages
 *  @throws KEY_INVALID for anything but an undamaged key file */
export function parseKeyFile(bytes: Buffer, what: string): KeyFile {
  const doc = bytes.length > MAX_KEY_FILE_BYTES ? undefined : parseDigested(bytes)
  if (!v.is(Schema, doc)) throw invalid(what, 'is not a key file of this format')
  const { format, kind, role, keyid, public: publicKey, kdf, cipher, data } = doc
  if (!serializeDigested({ format, kind, role, keyid, public: publicKey, kdf, cipher, data }).equals(bytes))
    throw invalid(what, 'is damaged; restore it from a backup')
  if ((kdf === null) === (cipher.name === 'AES-256-GCM')) throw invalid(what, 'names a cipher without its passphrase')
  return doc
}

/** The secret of a key file.
 *  @param passphrase  ignored where the file is not encrypted
 *  @throws KEY_PASSPHRASE_MISSING when it is encrypted and `passphrase` is null; KEY_PASSPHRASE_WRONG; KEY_INVALID for the
 *          key of a token, which has none here */
export async function openKey(file: KeyFile, passphrase: string | null, what: string): Promise<Buffer> {
  const { format, kind, role, keyid, public: publicKey, kdf, cipher, data } = file
  if (cipher.name === 'PKCS#11') throw invalid(what, `its secret is in the token "${cipher.token}"`)
  return unseal({ format, kind, role, keyid, public: publicKey }, { kdf, cipher, data }, passphrase, what)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('KEY_INVALID', `${what}: ${why}`)
}
