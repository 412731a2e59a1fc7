/**
 * The shape of the four metadata files, for metadata.ts. What a schema cannot say (digests, signatures, times that are
 * times) is checked there. FORMAT.md#metadata repeats these tables for people.
 */
import { Type, type Properties, type Static } from './schema.ts'

export const SPEC_VERSION = '1.0.31'
const MAX_SIGNATURES = 32
const MAX_KEYS = 64
const MAX_TARGETS = 700
const EXTRA = { '^x-[a-z-]{1,32}$': Type.String({ maxLength: 1024, pattern: '^[\\x20-\\x7e]*$' }) }

const Hex256 = Type.String({ pattern: '^[0-9a-f]{64}$' })
const Time = Type.String({ pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$' })
const Version = Type.Integer({ minimum: 1, maximum: 2 ** 40 })
const Bytes = Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 })
const Hashes = strict({ sha256: Hex256 })
const Named = strict({ version: Version, length: Bytes, hashes: Hashes })
const Keyval = strict({ public: Type.String({ maxLength: 2048 }) })
const Key = Type.Union([
  strict({ keytype: Type.Literal('ecdsa'), scheme: Type.Literal('ecdsa-sha2-nistp256'), keyval: Keyval }),
  strict({ keytype: Type.Literal('rsa'), scheme: Type.Literal('rsassa-pss-sha256'), keyval: Keyval }),
])
const Role = strict({
  keyids: Type.Array(Hex256, { minItems: 1, maxItems: MAX_SIGNATURES, uniqueItems: true }),
  threshold: Type.Integer({ minimum: 1, maximum: MAX_SIGNATURES }),
})

/** One file as the file above it names it. */
export type NamedFile = Static<typeof Named>

/** A public key as root.json carries it. */
export type RoleKey = Static<typeof Key>

/** The keys of a role and how many of them must sign. */
export type RoleKeys = Static<typeof Role>

export const SCHEMAS = {
  root: file('root', {
    keys: Type.Record(Hex256, Key, { minProperties: 1, maxProperties: MAX_KEYS }),
    roles: strict({ root: Role, timestamp: Role, snapshot: Role, targets: Role }),
    consistent_snapshot: Type.Literal(true),
  }),
  timestamp: file('timestamp', {
    meta: strict({ 'snapshot.json': Named }),
    'x-created': Time,
    'x-bundler': Type.String({ pattern: '^[\\x20-\\x7e]{1,128}$' }),
  }),
  snapshot: file('snapshot', { meta: strict({ 'targets.json': Named }) }),
  targets: file('targets', {
    targets: Type.Record(Type.String(), strict({ length: Bytes, hashes: Hashes }), {
      minProperties: 1,
      maxProperties: MAX_TARGETS,
    }),
  }),
}

function strict<P extends Properties>(properties: P) {
  return Type.Object(properties, { additionalProperties: false })
}

function file<T extends string, P extends Properties>(role: T, properties: P) {
  const signed = {
    _type: Type.Literal(role),
    spec_version: Type.Literal(SPEC_VERSION),
    version: Version,
    expires: Time,
    'x-site': Type.String({ maxLength: 64 }),
    ...properties,
  }
  return strict({
    signatures: Type.Array(strict({ keyid: Hex256, sig: Type.String({ pattern: '^(?:[0-9a-f]{2}){8,1024}$' }) }), {
      maxItems: MAX_SIGNATURES,
    }),
    signed: Type.Object(signed, { additionalProperties: false, patternProperties: EXTRA }),
  })
}
