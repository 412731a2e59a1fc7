/**
 * The shape of the four metadata files, for metadata.ts. What a schema cannot say (digests, signatures, times that are
 * times) is checked there. FORMAT.md#metadata repeats these tables for people.
 */
import * as v from 'valibot'
import { dictionary, distinct, strictObject } from './document.ts'

export const SPEC_VERSION = '1.0.31'
const MAX_SIGNATURES = 32
const MAX_KEYS = 64
const MAX_TARGETS = 700
/** What a newer laptop may say that an older mirror does not know. */
const EXTRA_KEY = /^x-[a-z-]{1,32}$/
const Extra = v.pipe(v.string(), v.maxLength(1024), v.regex(/^[\x20-\x7e]*$/))

const Hex256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const Time = v.pipe(v.string(), v.regex(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/))
const Version = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(2 ** 40))
const Bytes = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 31 - 1))
const Hashes = strictObject({ sha256: Hex256 })
const Named = strictObject({ version: Version, length: Bytes, hashes: Hashes })
const keyval = strictObject({ public: v.pipe(v.string(), v.maxLength(2048)) })
const Key = v.variant('keytype', [
  v.strictObject({ keytype: v.literal('ecdsa'), scheme: v.literal('ecdsa-sha2-nistp256'), keyval }),
  v.strictObject({ keytype: v.literal('rsa'), scheme: v.literal('rsassa-pss-sha256'), keyval }),
])
const Role = strictObject({
  keyids: v.pipe(v.array(Hex256), v.minLength(1), v.maxLength(MAX_SIGNATURES), distinct()),
  threshold: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MAX_SIGNATURES)),
})

/** One file as the file above it names it. */
export type NamedFile = v.InferInput<typeof Named>

/** A public key as root.json carries it. */
export type RoleKey = v.InferInput<typeof Key>

/** The keys of a role and how many of them must sign. */
export type RoleKeys = v.InferInput<typeof Role>

export const SCHEMAS = {
  root: file('root', {
    keys: v.pipe(dictionary(Hex256, Key), v.minEntries(1), v.maxEntries(MAX_KEYS)),
    roles: strictObject({ root: Role, timestamp: Role, snapshot: Role, targets: Role }),
    consistent_snapshot: v.literal(true),
  }),
  timestamp: file('timestamp', {
    meta: strictObject({ 'snapshot.json': Named }),
    'x-created': Time,
    'x-bundler': v.pipe(v.string(), v.regex(/^[\x20-\x7e]{1,128}$/)),
    'x-report-key': v.exactOptional(Extra),
  }),
  snapshot: file('snapshot', { meta: strictObject({ 'targets.json': Named }) }),
  targets: file('targets', {
    targets: v.pipe(
      dictionary(v.string(), strictObject({ length: Bytes, hashes: Hashes })),
      v.minEntries(1),
      v.maxEntries(MAX_TARGETS),
    ),
  }),
}

function file<const T extends string, const E extends v.ObjectEntries>(role: T, entries: E) {
  const signed = {
    _type: v.literal(role),
    spec_version: v.literal(SPEC_VERSION),
    version: Version,
    expires: Time,
    'x-site': v.pipe(v.string(), v.maxLength(64)),
    ...entries,
  }
  const Signature = strictObject({ keyid: Hex256, sig: v.pipe(v.string(), v.regex(/^(?:[0-9a-f]{2}){8,1024}$/)) })
  return strictObject({
    signatures: v.pipe(v.array(Signature), v.maxLength(MAX_SIGNATURES)),
    signed: strictObject(signed, { key: EXTRA_KEY, value: Extra }),
  })
}
