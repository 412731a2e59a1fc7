/**
 * The mirror's identity: the key that signs its reports, and nothing that a box believes. `identity.key` in the store is the
 * secret, `mirror-identity.json` beside it says what is public. FORMAT.md#report.
 */
import { createHmac, createPrivateKey, generateKeyPairSync, hkdfSync, sign, type KeyObject } from 'node:crypto'
import { lstatSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { canonicalJson } from '../manifests/json.ts'
import { identityWords, publicKeyOf } from '../manifests/report.ts'
import { replaceFile } from '../storage/durable.ts'

export interface Identity {
  key: KeyObject
  /** base64 of the SubjectPublicKeyInfo */
  publicKey: string
  /** twelve, of the public key: the laptop asks for them once */
  words: string
}

/** The names in the store; a backup has both. */
export const IDENTITY_FILES = ['identity.key', 'mirror-identity.json'] as const
/** Of each of them. */
export const MAX_IDENTITY_BYTES = 4096
const PSEUDONYM_CHARS = 16

/** Made where there is none. The caller holds the store's lock.
 *  @throws STORE_DAMAGED for a key that is none; SPACE_SHORT */
export function ensureIdentity({ dir, site }: { dir: string; site: string }, nowMs: number): Identity {
  const [secretFile, publicFile] = IDENTITY_FILES.map((name) => join(dir, name)) as [string, string]
  const found = readKey(secretFile)
  const key = found ?? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const publicKey = publicKeyOf(key)
  const identity = { key, publicKey, words: identityWords(publicKey) }
  if (found === undefined) {
    replaceFile(secretFile, Buffer.from(key.export({ type: 'pkcs8', format: 'pem' })), 0o600)
  }
  if (!isOf(publicFile, publicKey)) replaceFile(publicFile, publicDocument(identity, site, nowMs))
  return identity
}

/** As it is in a store; undefined where there is none yet. @throws STORE_DAMAGED */
export function readIdentity(dir: string): Identity | undefined {
  const key = readKey(join(dir, IDENTITY_FILES[0]))
  if (key === undefined) return undefined
  const publicKey = publicKeyOf(key)
  return { key, publicKey, words: identityWords(publicKey) }
}

/** Brings back what a backup has; an identity that is here stays: reports of it were accepted since. */
export function putIdentity(dir: string, files: ReadonlyMap<string, { bytes(): Buffer }>): void {
  const [secretFile] = IDENTITY_FILES
  if (lstatSync(join(dir, secretFile), { throwIfNoEntry: false }) !== undefined) return
  for (const [name, file] of files) replaceFile(join(dir, name), file.bytes(), name === secretFile ? 0o600 : 0o644)
}

/** Stable for this site, and nothing to whoever does not have the key. */
export function pseudonym({ key }: Pick<Identity, 'key'>, site: string, name: string): string {
  const derived = derivedKey(key, site, 'gapferry-pseudonym 1')
  return `box-${createHmac('sha256', derived).update(name).digest('hex').slice(0, PSEUDONYM_CHARS)}`
}

/** How a deployment is known at the mirror: nothing to whoever does not have the key, however few IDs there may be.
 *  @returns 64 hex digits */
export function deploymentHmac({ key }: Pick<Identity, 'key'>, site: string, deploymentId: string): string {
  return createHmac('sha256', derivedKey(key, site, 'gapferry-deployment 1'))
    .update(deploymentId)
    .digest('hex')
}

/** 32 bytes for one purpose. @param info  names it */
export function derivedKey(key: KeyObject, site: string, info: string): Buffer {
  const secret = key.export({ type: 'pkcs8', format: 'der' })
  return Buffer.from(hkdfSync('sha256', secret, site, info, 32))
}

function readKey(file: string): KeyObject | undefined {
  const found = lstatSync(file, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  try {
    if (!found.isFile() || found.size > MAX_IDENTITY_BYTES) throw new Error('expected a small file')
    const key = createPrivateKey(readFileSync(file))
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('expected a P-256 key')
    return key
  } catch (cause) {
    throw new GapferryError('STORE_DAMAGED', `${file}: the key that signs reports cannot be read`, {
      hint: `bring it back from a backup; without one move ${file} away: the laptop will ask for the new identity’s words`,
      cause,
    })
  }
}

function isOf(file: string, publicKey: string): boolean {
  if (lstatSync(file, { throwIfNoEntry: false })?.isFile() !== true) return false
  return readFileSync(file, 'utf8').includes(`"identity":"${publicKey}"`)
}

function publicDocument({ key, publicKey, words }: Identity, site: string, nowMs: number): Buffer {
  const createdAt = `${new Date(nowMs).toISOString().slice(0, 19)}Z`
  const signed = { _type: 'gapferry-mirror-identity', format: 1, site, createdAt, words }
  const signature = sign('sha256', canonicalJson(signed), key).toString('base64')
  return canonicalJson({ identity: publicKey, signature, signed })
}
