/**
 * Writes the TUF metadata that metadata.ts reads. Nothing here holds a key: signatures come from `sign`, which the
 * laptop's keystore, a token or a test provides.
 */
import { sha256Of, type Sha256 } from './digest.ts'
import { canonicalJson } from './json.ts'
import {
  formatTime,
  parseRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  serializeMetadata,
  type AnyRoleFile,
  type RoleName,
  type RootFile,
} from './metadata.ts'
import { SPEC_VERSION, type NamedFile, type RoleKey, type RoleKeys } from './metadata-schema.ts'

/** One signature as metadata files carry it: `sig` is hexadecimal (ECDSA: DER; RSA-PSS: as is). */
export interface RoleSignature {
  keyid: string
  sig: string
}

/** Signs the canonical form of a role's `signed` part, once for each key it has for that role. */
export type SignRole = (role: RoleName, canonical: Buffer) => RoleSignature[]

/** The bytes of `<version>.root.json`.
 *  @param sign  must cover the threshold of this root and, where there is one, of the root before
 *  @throws ROLE_INVALID, ROLE_KEYID where the arguments break a rule of metadata.ts (signatures are not checked here) */
export function authorRoot(args: {
  site: string
  version: number
  expiresAtMs: number
  keys: Map<string, RoleKey>
  roles: Record<RoleName, RoleKeys>
  sign: SignRole
}): Buffer {
  const signed = {
    _type: 'root',
    ...facts(args.site, args.version, args.expiresAtMs),
    keys: Object.fromEntries(args.keys),
    roles: args.roles,
    consistent_snapshot: true,
  }
  return signFile('root', signed, args.sign, parseRoot)
}

/** The bytes of a root with more signatures; one that its key made before is replaced.
 *  @param sign  the keys that sign now */
export function addSignatures(root: RootFile, sign: SignRole): Buffer {
  // As it was parsed: one spelling, no unknown fields.
  const { signatures, signed } = JSON.parse(root.bytes.toString('utf8')) as {
    signatures: RoleSignature[]
    signed: object
  }
  const added = sign('root', canonicalJson(signed))
  const kept = signatures.filter(({ keyid }) => !added.some((one) => one.keyid === keyid))
  return serializeMetadata({ signatures: [...kept, ...added], signed })
}

/** The three files of a bundle by their names in the archive, `timestamp.json` first.
 *  @param targets  'site' and '<group>/<role>' → digest and size of a tree
 *  @param bundler  name and version of the program, printable ASCII
 *  @param reportKey  what reports of the site are sealed for: base64 of a SubjectPublicKeyInfo
 *  @throws ROLE_INVALID where the arguments break a rule of metadata.ts (signatures are not checked here) */
export function authorBundle(args: {
  site: string
  number: number
  targets: Map<string, { sha256: Sha256; bytes: number }>
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  reportKey?: string
  sign: SignRole
}): Map<string, Buffer> {
  const { number, sign } = args
  const base = facts(args.site, number, args.expiresAtMs)
  const trees = [...args.targets].sort(([a], [b]) => (a < b ? -1 : 1))
  const listed = trees.map(([name, { sha256, bytes }]) => [name, { length: bytes, hashes: { sha256 } }])
  const targets = signFile(
    'targets',
    { _type: 'targets', ...base, targets: Object.fromEntries(listed) },
    sign,
    parseTargets,
  )
  const snapshotMeta = { 'targets.json': named(number, targets) }
  const snapshot = signFile('snapshot', { _type: 'snapshot', ...base, meta: snapshotMeta }, sign, parseSnapshot)
  const timestampMeta = { 'snapshot.json': named(number, snapshot) }
  const made = {
    'x-created': formatTime(args.createdAtMs),
    'x-bundler': args.bundler,
    ...(args.reportKey === undefined ? {} : { 'x-report-key': args.reportKey }),
  }
  const timestamp = signFile(
    'timestamp',
    { _type: 'timestamp', ...base, ...made, meta: timestampMeta },
    sign,
    parseTimestamp,
  )
  return new Map([
    ['timestamp.json', timestamp],
    [`${number}.snapshot.json`, snapshot],
    [`${number}.targets.json`, targets],
  ])
}

function facts(site: string, version: number, expiresAtMs: number): object {
  return { spec_version: SPEC_VERSION, version, expires: formatTime(expiresAtMs), 'x-site': site }
}

function named(version: number, bytes: Buffer): NamedFile {
  return { version, length: bytes.length, hashes: { sha256: sha256Of(bytes) } }
}

/** What the reader would refuse is refused before it is signed. */
function signFile(
  role: RoleName,
  signed: object,
  sign: SignRole,
  parse: (bytes: Buffer, what: string) => AnyRoleFile,
): Buffer {
  parse(serializeMetadata({ signatures: [], signed }), `${role}.json`)
  const signatures = sign(role, canonicalJson(signed))
  return serializeMetadata({ signatures, signed })
}
