import { canonicalize } from '@tufjs/canonical-json'

/** Canonical JSON (keys sorted, no spaces) as UTF-8: one value, one spelling, so that equal documents have equal digests.
 *  Only for documents whose strings hold no control characters: canonical JSON leaves those raw. */
export function canonicalJson(value: unknown): Buffer {
  return Buffer.from(canonicalize(value), 'utf8')
}

/** Whether `bytes` are the canonical spelling of the value that was parsed from them. */
export function isCanonicalJson(value: unknown, bytes: Buffer): boolean {
  // Where nothing is escaped and keys are in order, JSON.stringify spells alike and takes a fifth of the time. Keys that
  // look like numbers come in an order of their own, and take the long way.
  const isSame = !bytes.includes('\\') && isPlain(value) && Buffer.from(JSON.stringify(value)).equals(bytes)
  return isSame || canonicalJson(value).equals(bytes)
}

/** Keys in order, numbers whole: nothing that canonical JSON would refuse or spell in another way. */
function isPlain(value: unknown): boolean {
  if (typeof value === 'number') return Number.isInteger(value)
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(isPlain)
  let last: string | undefined
  for (const key of Object.keys(value)) {
    if ((last !== undefined && key <= last) || !isPlain((value as Record<string, unknown>)[key])) return false
    last = key
  }
  return true
}
