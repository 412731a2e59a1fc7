import { hash } from 'node:crypto'
import { GapferryError } from './errors.ts'

/** 64 lower-case hexadecimal digits. */
export type Sha256 = string & { readonly __brand: 'Sha256' }

/** A checksum as upstream metadata declares it; `sha` there is sha1. */
export interface Checksum {
  algorithm: 'md5' | 'sha1' | 'sha256' | 'sha384' | 'sha512'
  /** lower case */
  hex: string
}

/** One text for equal checksums. */
export function checksumText({ algorithm, hex }: Checksum): string {
  return `${algorithm}:${hex}`
}

const SHA256_PATTERN = /^[0-9a-f]{64}$/

/** @throws DIGEST_INVALID unless `text` is 64 lower-case hex digits; `what` names it in the message */
export function parseSha256(text: unknown, what: string): Sha256 {
  if (typeof text !== 'string' || !SHA256_PATTERN.test(text)) {
    throw new GapferryError('DIGEST_INVALID', `${what}: expected 64 lower-case hex digits, found ${show(text)}`)
  }
  return text as Sha256
}

/** SHA-256 of bytes that are already in memory (streams hash while they are written: storage/blobs.ts). */
export function sha256Of(bytes: Uint8Array | string): Sha256 {
  return hash('sha256', bytes, 'hex') as Sha256
}

function show(value: unknown): string {
  return typeof value === 'string' ? `"${value.slice(0, 80)}"` : typeof value
}
