import { canonicalize } from '@tufjs/canonical-json'

/** Canonical JSON (keys sorted, no spaces) as UTF-8: one value, one spelling, so that equal documents have equal digests.
 *  Only for documents whose strings hold no control characters: canonical JSON leaves those raw. */
export function canonicalJson(value: unknown): Buffer {
  return Buffer.from(canonicalize(value), 'utf8')
}
