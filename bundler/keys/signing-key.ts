/**
 * Keys that sign metadata, as things that sign: made new, opened from a key file, or sitting in a token.
 */
import { createPrivateKey, createPublicKey, generateKeyPair, sign, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import type { RoleSignature } from '../../manifests/author.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { roleKey } from '../../manifests/role-key.ts'
import { openKey, sealKey, tokenKeyFile, type KeyFile, type TokenPlace } from './keyfile.ts'
import { readTokenKey, signWithToken, type TokenTool } from './pkcs11.ts'

/** What opens keys; asked only when it is needed. */
export interface KeySecrets {
  /** @param question  names the key, for a person
   *  @throws KEY_PASSPHRASE_MISSING where there is nobody to ask */
  passphrase(question: string): Promise<string>
  /** of a token. @throws KEY_PASSPHRASE_MISSING */
  pin(question: string): Promise<string>
  tool: TokenTool
}

/** A key that can sign. */
export interface SigningKey {
  keyid: string
  /** PEM */
  publicPem: string
  sign(bytes: Buffer): RoleSignature
}

/** A key that was just made, or just found in a token, with the bytes of its file. */
export interface NewKey extends SigningKey {
  fileBytes: Buffer
}

/** @param passphrase  null: kept unencrypted */
export async function createSigningKey(role: 'root' | 'bundle', passphrase: string | null): Promise<NewKey> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  const key = softwareKey(privateKey)
  const secret = privateKey.export({ type: 'pkcs8', format: 'der' })
  const header = { role, keyid: key.keyid, public: key.publicPem }
  return { ...key, fileBytes: await sealKey(header, secret, passphrase) }
}

/** Takes a key that was made in a token into use.
 *  @throws TOKEN_*, KEY_INVALID; it has signed once before this resolves */
export async function adoptTokenKey(role: 'root' | 'bundle', place: TokenPlace, secrets: KeySecrets): Promise<NewKey> {
  const publicPem = readTokenKey(secrets.tool, place)
  const { keyid } = roleKey('ecdsa', publicPem)
  const key = tokenKey(keyid, publicPem, place, await secrets.pin(pinQuestion(place)), secrets.tool)
  key.sign(Buffer.from('gapferry: may this key sign?'))
  return { ...key, fileBytes: tokenKeyFile({ role, keyid, public: publicPem }, place) }
}

/** @param name  of the file, for messages
 *  @throws KEY_PASSPHRASE_*, KEY_INVALID (a damaged file) */
export async function openSigningKey(file: KeyFile, name: string, secrets: KeySecrets): Promise<SigningKey> {
  const { cipher, keyid, public: publicPem } = file
  if (cipher.name === 'PKCS#11') {
    return tokenKey(keyid, publicPem, cipher, await secrets.pin(pinQuestion(cipher)), secrets.tool)
  }
  const secret = await openKey(file, await passphraseFor(file, name, secrets), name)
  try {
    const key = softwareKey(createPrivateKey({ key: secret, format: 'der', type: 'pkcs8' }))
    if (key.publicPem === publicPem && key.keyid === keyid) return key
  } catch (cause) {
    throw new GapferryError('KEY_INVALID', `${name}: its secret is not a private key`, { cause })
  }
  throw new GapferryError('KEY_INVALID', `${name}: its secret belongs to another public key`)
}

/** null for a file that needs none */
export async function passphraseFor(file: KeyFile, name: string, secrets: KeySecrets): Promise<string | null> {
  return file.cipher.name === 'AES-256-GCM' ? secrets.passphrase(`passphrase of ${name}`) : null
}

function softwareKey(privateKey: KeyObject): SigningKey {
  const publicPem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString()
  const { keyid } = roleKey('ecdsa', publicPem)
  return { keyid, publicPem, sign: (bytes) => ({ keyid, sig: sign('sha256', bytes, privateKey).toString('hex') }) }
}

function tokenKey(keyid: string, publicPem: string, place: TokenPlace, pin: string, tool: TokenTool): SigningKey {
  const at = { ...place, publicPem, pin }
  return { keyid, publicPem, sign: (bytes) => ({ keyid, sig: signWithToken(tool, at, bytes).toString('hex') }) }
}

function pinQuestion({ token }: TokenPlace): string {
  return `PIN of token "${token}"`
}
