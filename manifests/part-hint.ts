/**
 * part.json: which part of a bundle holds which blobs. Nobody signs it: it serves messages only ("insert the stick with
 * …"), and nothing is decided by it. It is in every part, the same but for its own number. FORMAT.md#part-json.
 */
import * as v from 'valibot'
import { MAX_HINT_BYTES, partName } from './bundle.ts'
import type { Sha256 } from './digest.ts'
import { strictObject } from './document.ts'
import { GapferryError } from './errors.ts'
import { canonicalJson } from './json.ts'

export interface PartHint {
  site: string
  number: number
  /** from 1: the part that this is */
  part: number
  /** one per part: the first and the last digest of its blobs, null where it has none; a blob between them may still have been left out */
  parts: (PartRange | null)[]
}

export interface PartRange {
  first: Sha256
  last: Sha256
}

export const MAX_PARTS = 256
const FORMAT = 1

const Digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Schema = strictObject({
  _type: v.literal('gapferry-part'),
  format: v.literal(FORMAT),
  site: v.pipe(v.string(), v.regex(/^[a-z0-9._-]{1,64}$/)),
  number: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 40)),
  part: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_PARTS)),
  parts: v.pipe(
    v.array(v.nullable(strictObject({ first: Digest, last: Digest }))),
    v.minLength(1),
    v.maxLength(MAX_PARTS),
  ),
})

/** The bytes of part.json: canonical JSON. */
export function serializePartHint(hint: PartHint): Buffer {
  return canonicalJson({ _type: 'gapferry-part', format: FORMAT, ...hint } satisfies v.InferInput<typeof Schema>)
}

/** @throws BUNDLE_HINT_INVALID, also when the bytes are not the canonical spelling */
export function parsePartHint(bytes: Buffer): PartHint {
  if (bytes.length > MAX_HINT_BYTES) throw invalid(`larger than ${MAX_HINT_BYTES} bytes`)
  const doc = parseJson(bytes)
  if (!v.is(Schema, doc)) throw invalid('its fields are not those of a part.json')
  if (!canonicalJson(doc).equals(bytes)) throw invalid('is not in canonical form')
  const { site, number, part, parts } = doc
  if (part > parts.length) throw invalid(`is part ${part} of ${parts.length}`)
  return { site, number, part, parts: parts as (PartRange | null)[] }
}

/** The file that should hold a blob, by its name on the stick; undefined when no part's range holds it. */
export function partHolding({ site, number, parts }: PartHint, sha256: Sha256): string | undefined {
  const index = parts.findIndex((range) => range !== null && range.first <= sha256 && sha256 <= range.last)
  return index < 0 ? undefined : partName({ site, number, part: index + 1, parts: parts.length })
}

/** The files of some parts, by their numbers. */
export function partNames({ site, number, parts }: PartHint, numbers: readonly number[]): string[] {
  return numbers.map((part) => partName({ site, number, part, parts: parts.length }))
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new GapferryError('BUNDLE_HINT_INVALID', 'part.json: is not JSON', { cause })
  }
}

function invalid(why: string): GapferryError {
  return new GapferryError('BUNDLE_HINT_INVALID', `part.json: ${why}`)
}
