/**
 * The one-time code by which a box and the mirror know each other before either has a certificate, and the proofs that are made
 * with it. Nobody between the two can use a proof: it is over the certificate that the box saw. FORMAT.md#enrolment.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes, randomInt, type KeyObject } from 'node:crypto'
import { timingSafeEqual } from 'node:crypto'
import { derivedKey } from './identity.ts'

/** Crockford's: no letter that could be read as a digit. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
/** 120 bits, in groups that can be read over the phone */
const GROUPS = 6
const GROUP_CHARS = 4
const IV_BYTES = 12
const TAG_BYTES = 16

/** What a code is sealed with: of the identity, for one site. */
export interface CodeKey {
  key: KeyObject
  site: string
}

/** @returns as a person types it, with dashes */
export function newCode(): string {
  return Array.from({ length: GROUPS }, newGroup).join('-')
}

function newGroup(): string {
  return Array.from({ length: GROUP_CHARS }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')
}

/** Proofs are made with the code itself, so it is kept; the database alone does not tell it. */
export function sealCode(code: string, name: string, { key, site }: CodeKey): Buffer {
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', derivedKey(key, site, 'gapferry-code 1'), iv).setAAD(Buffer.from(name))
  return Buffer.concat([iv, cipher.update(plainCode(code)), cipher.final(), cipher.getAuthTag()])
}

/** @returns without dashes; undefined where it was sealed by another identity */
export function openCode(sealed: Buffer, name: string, { key, site }: CodeKey): string | undefined {
  try {
    const derived = derivedKey(key, site, 'gapferry-code 1')
    const decipher = createDecipheriv('aes-256-gcm', derived, sealed.subarray(0, IV_BYTES), {
      authTagLength: TAG_BYTES,
    })
    decipher.setAAD(Buffer.from(name)).setAuthTag(sealed.subarray(-TAG_BYTES))
    return Buffer.concat([decipher.update(sealed.subarray(IV_BYTES, -TAG_BYTES)), decipher.final()]).toString()
  } catch {
    return undefined
  }
}

/** @param code   with or without dashes
 *  @param lines  what is proved; each but the last ends with a line feed
 *  @returns hex HMAC-SHA-256 */
export function proofOf(code: string, ...lines: readonly string[]): string {
  return createHmac('sha256', plainCode(code)).update(lines.join('\n')).digest('hex')
}

export function isSameProof(expected: string, given: string): boolean {
  const [one, other] = [Buffer.from(expected), Buffer.from(given)]
  return one.length === other.length && timingSafeEqual(one, other)
}

function plainCode(code: string): string {
  return code.replaceAll('-', '').toUpperCase()
}
