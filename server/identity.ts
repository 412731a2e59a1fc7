/**
 * The mirror's identity: the key that signs its reports, its own authority for the certificates of its boxes, and the delivery
 * key that opens licenses; nothing that signs content. Secrets are `*.key` in the store; `mirror-identity.json` beside them
 * says what is public. FORMAT.md#report, #certificates.
 */
import {
  createHmac,
  createPrivateKey,
  generateKeyPairSync,
  hkdfSync,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { existsSync, lstatSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isIssuedBy, parseAuthority } from '../manifests/certificate.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { parseMirrorIdentity, signMirrorIdentity } from '../manifests/mirror-identity.ts'
import { identityWords, keyDigest, publicKeyOf } from '../manifests/report.ts'
import { replaceFile } from '../storage/durable.ts'
import { issueCertificate, pemOf, type Issuer } from './issue.ts'

/** What signs reports, and what a person compares. */
export interface ReportIdentity {
  key: KeyObject
  /** base64 of the SubjectPublicKeyInfo */
  publicKey: string
  /** twelve, of the public key: the laptop asks for them once */
  words: string
}

export interface Identity extends ReportIdentity {
  /** issues certificates for boxes and for the listener that they come to */
  authority: Issuer
  /** opens what is sealed for this mirror */
  delivery: Issuer
}

/** The names in the store: secrets first. */
const SECRET_FILES = ['identity.key', 'authority.key', 'delivery.key'] as const
const PUBLIC_FILES = ['authority.pem', 'delivery.pem', 'mirror-identity.json'] as const
export const IDENTITY_FILES = [...SECRET_FILES, ...PUBLIC_FILES] as const
/** Of each of them. */
export const MAX_IDENTITY_BYTES = 16 * 1024
const PSEUDONYM_CHARS = 16
const DAY_MS = 86_400_000
const AUTHORITY_YEARS = 20
const WHICH = { identity: 'that signs reports', authority: 'of the authority', delivery: 'that opens licenses' }
/** so that two authorities of a site can be told apart */
const SHORT_DIGEST = 8

interface Place {
  dir: string
  site: string
}

/** Made where there is none. The caller holds the store's lock.
 *  @throws STORE_DAMAGED for a key or certificate that is none; SPACE_SHORT */
export function ensureIdentity({ dir, site }: Place, nowMs: number): Identity {
  const key = ensureKey(join(dir, 'identity.key'), WHICH.identity)
  const authority = ensureAuthority({ dir, site }, nowMs)
  const delivery = ensureDelivery({ dir, site }, authority)
  const publicKey = publicKeyOf(key)
  const file = join(dir, 'mirror-identity.json')
  if (!tells(file, { key, authority, delivery })) {
    const createdAt = `${new Date(nowMs).toISOString().slice(0, 19)}Z`
    const certificates = { authority: authority.certificate.raw, delivery: delivery.certificate.raw }
    replaceFile(file, signMirrorIdentity({ site, createdAt, ...certificates }, key))
  }
  return { key, publicKey, words: identityWords(publicKey), authority, delivery }
}

/** Whether all of it is there, so that `ensureIdentity` would write nothing. */
export function hasIdentity(dir: string): boolean {
  return IDENTITY_FILES.every((name) => existsSync(join(dir, name)))
}

/** Why its keys are of no use; undefined where they are sound, or still to be made. */
export function identityFault(place: Place, nowMs: number): GapferryError | undefined {
  if (!hasIdentity(place.dir)) return undefined
  try {
    ensureIdentity(place, nowMs)
    return undefined
  } catch (error) {
    if (isGapferryError(error)) return error
    throw error
  }
}

/** As it is in a store; undefined where there is none yet. @throws STORE_DAMAGED */
export function readIdentity(dir: string): ReportIdentity | undefined {
  const key = readKey(join(dir, 'identity.key'), WHICH.identity)
  if (key === undefined) return undefined
  const publicKey = publicKeyOf(key)
  return { key, publicKey, words: identityWords(publicKey) }
}

/** Brings back what a backup has; an identity that is here stays: reports of it were accepted since, and boxes have
 *  certificates of its authority. */
export function putIdentity(dir: string, files: ReadonlyMap<string, Buffer>): void {
  if (lstatSync(join(dir, 'identity.key'), { throwIfNoEntry: false }) !== undefined) return
  // The first of the secrets comes last: a crash before it leaves a store that takes the backup again.
  for (const [name, bytes] of [...files].reverse()) replaceFile(join(dir, name), bytes, modeOf(name))
}

/** Stable for this site, and nothing to whoever does not have the key. */
export function pseudonym({ key }: Pick<Identity, 'key'>, site: string, name: string): string {
  const derived = derivedKey(key, site, 'gapferry-pseudonym 1')
  return `box-${createHmac('sha256', derived).update(name).digest('hex').slice(0, PSEUDONYM_CHARS)}`
}

/** How a deployment is known at the mirror: nothing to whoever does not have the key, however few IDs there may be.
 *  @returns 64 hex digits */
export function deploymentHmac({ key }: Pick<Identity, 'key'>, site: string, deploymentId: string): Sha256 {
  const derived = derivedKey(key, site, 'gapferry-deployment 1')
  return createHmac('sha256', derived).update(deploymentId).digest('hex') as Sha256
}

/** 32 bytes for one purpose. @param info  names it */
export function derivedKey(key: KeyObject, site: string, info: string): Buffer {
  const secret = key.export({ type: 'pkcs8', format: 'der' })
  return Buffer.from(hkdfSync('sha256', secret, site, info, 32))
}

function ensureAuthority({ dir, site }: Place, nowMs: number): Issuer {
  const key = ensureKey(join(dir, 'authority.key'), WHICH.authority)
  const made = new Date(nowMs)
  const certificate = ensureCertificate(join(dir, 'authority.pem'), key, () =>
    issueCertificate({
      kind: 'authority',
      site,
      key,
      name: `Gapferry mirror ${keyDigest(publicKeyOf(key)).slice(0, SHORT_DIGEST)}`,
      // A box whose clock is some hours behind shall not take it for one of the future.
      notBeforeMs: nowMs - DAY_MS,
      notAfterMs: made.setUTCFullYear(made.getUTCFullYear() + AUTHORITY_YEARS),
    }),
  )
  try {
    parseAuthority(certificate.raw, join(dir, 'authority.pem'))
  } catch (error) {
    if (!isGapferryError(error, 'CERTIFICATE_INVALID')) throw error
    throw damaged(join(dir, 'authority.pem'), 'the certificate of the authority', error)
  }
  return { key, certificate }
}

function ensureDelivery({ dir, site }: Place, authority: Issuer): Issuer {
  const key = ensureKey(join(dir, 'delivery.key'), WHICH.delivery)
  const file = join(dir, 'delivery.pem')
  const certificate = ensureCertificate(file, key, () =>
    issueCertificate({ kind: 'delivery', site, key, name: 'delivery', issuer: authority, ...lifeOf(authority) }),
  )
  if (isIssuedBy(certificate, authority.certificate)) return { key, certificate }
  throw damaged(file, 'the delivery certificate', new Error('is not of this mirror’s authority'))
}

/** For what an authority issues: all of its own life. */
export function lifeOf({ certificate }: Issuer): { notBeforeMs: number; notAfterMs: number } {
  return { notBeforeMs: certificate.validFromDate.getTime(), notAfterMs: certificate.validToDate.getTime() }
}

function ensureKey(file: string, which: string): KeyObject {
  const found = readKey(file, which)
  if (found !== undefined) return found
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  replaceFile(file, Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })), modeOf(file))
  return privateKey
}

function ensureCertificate(file: string, key: KeyObject, issue: () => Buffer): X509Certificate {
  if (lstatSync(file, { throwIfNoEntry: false }) === undefined) replaceFile(file, Buffer.from(pemOf(issue())))
  try {
    const certificate = new X509Certificate(readSmall(file))
    if (certificate.checkPrivateKey(key)) return certificate
    throw new Error(`it is not of the key in ${file.replace(/pem$/, 'key')}`)
  } catch (cause) {
    throw damaged(file, 'a certificate of this mirror', cause)
  }
}

function readKey(file: string, which: string): KeyObject | undefined {
  if (lstatSync(file, { throwIfNoEntry: false }) === undefined) return undefined
  try {
    const key = createPrivateKey(readSmall(file))
    if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('expected a P-256 key')
    return key
  } catch (cause) {
    throw damaged(file, `the key ${which}`, cause)
  }
}

function readSmall(file: string): Buffer {
  const found = lstatSync(file)
  if (!found.isFile() || found.size > MAX_IDENTITY_BYTES) throw new Error('expected a small file')
  return readFileSync(file)
}

function damaged(file: string, what: string, cause: unknown): GapferryError {
  const why = cause instanceof Error ? `: ${cause.message}` : ''
  return new GapferryError('STORE_DAMAGED', `${file}: ${what} cannot be read${why}`, {
    hint: `bring it back from a backup; without one move ${IDENTITY_FILES.join(', ')} away: the laptop will ask for the new identity’s words, and boxes have to be enrolled again`,
    cause,
  })
}

/** Whether the file says this very identity. */
function tells(file: string, { key, authority, delivery }: Pick<Identity, 'key' | 'authority' | 'delivery'>): boolean {
  try {
    const told = parseMirrorIdentity(readSmall(file), file)
    return (
      told.identity === publicKeyOf(key) &&
      told.authority?.equals(authority.certificate.raw) === true &&
      told.delivery?.equals(delivery.certificate.raw) === true
    )
  } catch {
    return false // missing, older or damaged: it is written anew from what it is made of
  }
}

function modeOf(file: string): number {
  return file.endsWith('.key') ? 0o600 : 0o644
}
