/**
 * The TUF metadata of one site (TUF 1.0.31), as this project allows it: read here, written by author.ts.
 * tuf-js verifies the client workflow (storage/trust.ts); what it leaves open is closed here, before it sees a byte:
 *   - one spelling: sizes are bounded, the JSON is exactly as author.ts writes it, unknown fields are refused
 *     (`x-…` texts pass: a newer laptop may sign further facts that an older mirror does not know);
 *   - a key id is the SHA-256 of its key and no public key has two ids, or one key could meet a threshold of two;
 *   - ECDSA P-256 and RSA-PSS only, no delegations, `x-site` in every role, one number for all roles of a bundle.
 * Fields and limits: FORMAT.md#metadata.
 */
import { Metadata, MetadataKind, type Root, type Snapshot, type Targets, type Timestamp } from '@tufjs/models'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from './digest.ts'
import { describeFault } from './document.ts'
import { GapferryError, isGapferryError } from './errors.ts'
import { SCHEMAS, type NamedFile } from './metadata-schema.ts'
import { keyIdOf, publicNumbers } from './role-key.ts'
import { LICENSES_TARGET, parseName, TREE_ROLES } from './tree.ts'
import { fingerprintWords } from './words.ts'

export type RoleName = 'root' | 'timestamp' | 'snapshot' | 'targets'

/** The largest file of each role, in bytes. */
export const MAX_METADATA_BYTES: Readonly<Record<RoleName, number>> = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 16_384,
  targets: 262_144, // @tufjs/models takes time with the square of the targets: 700 of them at most
}

/** How far ahead of now a bundle may be dated: half a year bridges a mirror whose clock stands still between two visits, and
 *  leaves a bundle that was made today good (400 days) after the clock was led so far astray. */
export const MAX_AHEAD_MS = 180 * 86_400_000
/** How long past its end a bundle may still be taken where a person answers for it: as long again as bundles are good. */
export const MAX_EXPIRED_MS = 400 * 86_400_000

/** What every metadata file says of itself. */
interface RoleFile<R extends RoleName, S extends Root | Timestamp | Snapshot | Targets> {
  role: R
  /** the name used in messages */
  what: string
  bytes: Buffer
  version: number
  site: string
  expiresAtMs: number
  metadata: Metadata<S>
}

export type RootFile = RoleFile<'root', Root>
export type SnapshotFile = RoleFile<'snapshot', Snapshot> & { targets: NamedFile }
export type TargetsFile = RoleFile<'targets', Targets> & { targets: Map<string, { sha256: Sha256; bytes: number }> }
export type TimestampFile = RoleFile<'timestamp', Timestamp> & {
  snapshot: NamedFile
  createdAtMs: number
  bundler: string
  /** what reports of this site are sealed for (report-seal.ts); an older laptop has none */
  reportKey: string | undefined
}
export type AnyRoleFile = RootFile | TimestampFile | SnapshotFile | TargetsFile

/** What a person has to know about a root before trusting it. */
export interface PinnedRoot {
  site: string
  version: number
  sha256: Sha256
  /** twelve words, see words.ts */
  fingerprint: string
  expiresAtMs: number
}

/** Checks a root file alone: well-formed, and signed by the threshold of its own root keys. This is no reason to trust
 *  it; a person comparing the fingerprint is.
 *  @throws ROOT_INVALID */
export function pinRoot(bytes: Buffer): PinnedRoot {
  try {
    const { site, version, expiresAtMs } = rootChain([bytes], 'root')
    return { site, version, expiresAtMs, sha256: sha256Of(bytes), fingerprint: fingerprintWords(bytes) }
  } catch (cause) {
    if (!isGapferryError(cause)) throw cause
    throw new GapferryError('ROOT_INVALID', cause.message, { cause })
  }
}

/** The root that is in force after a chain of them, each signed by the threshold of the one before and by its own.
 *  @param roots  at least one; the first is trusted, in the sense of TUF 1.0.31 §5.2
 *  @throws what nextRoot throws */
export function rootChain(roots: readonly Buffer[], what: string): RootFile {
  const [first, ...rest] = roots
  if (first === undefined) throw new GapferryError('ROOT_INVALID', `${what}: expected a root, found none`)
  const root = parseRoot(first, what)
  verifySignatures(root, root)
  return rest.reduce((current, bytes) => nextRoot(current, bytes), root)
}

/** One step of the chain (TUF 1.0.31 §5.3.3–5.3.8).
 *  @throws ROLE_INVALID, ROLE_KEYID, SITE_MISMATCH, ROLE_SIGNATURE */
export function nextRoot(current: RootFile, bytes: Buffer): RootFile {
  const what = `${current.version + 1}.root.json`
  const root = parseRoot(bytes, what)
  checkSite(root, current.site)
  if (root.version !== current.version + 1) {
    throw invalid(what, `expected version ${current.version + 1}, found ${root.version}`)
  }
  verifySignatures(current, root)
  verifySignatures(root, root)
  return root
}

/** @throws ROLE_SIGNATURE unless `file` is signed by the threshold of the keys that `root` names for its role */
export function verifySignatures(root: RootFile, file: AnyRoleFile): void {
  try {
    root.metadata.verifyDelegate(file.role, file.metadata)
  } catch (cause) {
    const role = root.metadata.signed.roles[file.role]
    const wanted = role?.keyIDs.map(shortId).join(', ')
    const found = Object.keys(file.metadata.signatures).map(shortId).join(', ') || 'none'
    throw new GapferryError(
      'ROLE_SIGNATURE',
      `${file.what}: expected ${role?.threshold} good signature(s) by the ${file.role} keys of root ${root.version} ` +
        `(${wanted}); signatures found: ${found}`,
      { cause, hint: `made with other keys, or altered; compare the fingerprint of the root it came with` },
    )
  }
}

/** @throws SITE_MISMATCH */
export function checkSite(file: AnyRoleFile, site: string): void {
  if (file.site === site) return
  throw new GapferryError('SITE_MISMATCH', `${file.what}: expected site ${site}, found site ${file.site}`)
}

/** @param nowMs  max(system clock, floor)
 *  @throws ROLE_EXPIRED with both dates */
export function checkExpiry(file: AnyRoleFile, nowMs: number): void {
  if (nowMs < file.expiresAtMs) return
  const dates = `expired ${formatTime(file.expiresAtMs)}, now it is ${formatTime(nowMs)}`
  throw new GapferryError('ROLE_EXPIRED', `${file.what}: ${dates}`, {
    hint: 'bring a newer bundle, or set the clock if it is wrong',
  })
}

/** @throws ROLE_MIXED unless `file` is the very one that the file above it names */
export function checkNamed(file: SnapshotFile | TargetsFile, named: NamedFile): void {
  const sha256 = sha256Of(file.bytes)
  if (file.version === named.version && file.bytes.length === named.length && sha256 === named.hashes.sha256) return
  const expected = `version ${named.version}, ${named.length} bytes, sha256 ${named.hashes.sha256}`
  const found = `version ${file.version}, ${file.bytes.length} bytes, sha256 ${sha256}`
  throw new GapferryError('ROLE_MIXED', `${file.what}: expected ${expected}; found ${found}`)
}

/** @throws ROLE_INVALID, ROLE_KEYID */
export function parseRoot(bytes: Buffer, what: string): RootFile {
  const doc = parseFile('root', bytes, what)
  const { keys, roles } = doc.signed
  const owners = new Map<string, string>()
  for (const [keyid, key] of Object.entries(keys)) {
    if (keyid !== keyIdOf(key)) throw keyIdWrong(what, `key ${keyid}: its SHA-256 is ${keyIdOf(key)}`)
    const identity = publicNumbers(key, `${what}: key ${shortId(keyid)}`)
    const owner = owners.get(identity)
    if (owner !== undefined) throw keyIdWrong(what, `one public key under two ids, ${owner} and ${keyid}`)
    owners.set(identity, keyid)
  }
  for (const [name, { keyids, threshold }] of Object.entries(roles)) {
    const unknown = keyids.find((keyid) => keys[keyid] === undefined)
    if (unknown !== undefined) throw invalid(what, `role ${name}: key ${unknown} is not among the keys`)
    if (threshold > keyids.length) throw invalid(what, `role ${name}: ${threshold} of ${keyids.length} cannot be met`)
  }
  return { ...common('root', doc.signed, bytes, what), metadata: Metadata.fromJSON(MetadataKind.Root, doc) }
}

/** @throws ROLE_INVALID */
export function parseTimestamp(bytes: Buffer, what: string): TimestampFile {
  const doc = parseFile('timestamp', bytes, what)
  const { version, meta } = doc.signed
  checkNumber(version, meta['snapshot.json'], what)
  const createdAtMs = parseTime(doc.signed['x-created'], what)
  const base = common('timestamp', doc.signed, bytes, what)
  if (createdAtMs >= base.expiresAtMs) throw invalid(what, 'expires before it was made')
  return {
    ...base,
    metadata: Metadata.fromJSON(MetadataKind.Timestamp, doc),
    snapshot: meta['snapshot.json'],
    createdAtMs,
    bundler: doc.signed['x-bundler'],
    reportKey: doc.signed['x-report-key'],
  }
}

/** @throws ROLE_INVALID */
export function parseSnapshot(bytes: Buffer, what: string): SnapshotFile {
  const doc = parseFile('snapshot', bytes, what)
  const { version, meta } = doc.signed
  checkNumber(version, meta['targets.json'], what)
  const metadata = Metadata.fromJSON(MetadataKind.Snapshot, doc)
  return { ...common('snapshot', doc.signed, bytes, what), metadata, targets: meta['targets.json'] }
}

/** @throws ROLE_INVALID, ROLE_DELEGATED */
export function parseTargets(bytes: Buffer, what: string): TargetsFile {
  const doc = parseFile('targets', bytes, what)
  const targets = new Map<string, { sha256: Sha256; bytes: number }>()
  for (const [name, { hashes, length }] of Object.entries(doc.signed.targets)) {
    if (!isTargetName(name)) throw invalid(what, `"${name}" is neither site nor GROUP/current, previous or return`)
    targets.set(name, { sha256: hashes.sha256 as Sha256, bytes: length })
  }
  const metadata = Metadata.fromJSON(MetadataKind.Targets, doc)
  return { ...common('targets', doc.signed, bytes, what), metadata, targets }
}

/** The one spelling of metadata: JSON as a person can read it; signatures are made over the canonical form. */
export function serializeMetadata(doc: object): Buffer {
  return Buffer.from(`${JSON.stringify(doc, null, 1)}\n`, 'utf8')
}

/** RFC 3339, UTC, whole seconds (rounded down). */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

type Doc<R extends RoleName> = v.InferInput<(typeof SCHEMAS)[R]>

function parseFile<R extends RoleName>(role: R, bytes: Buffer, what: string): Doc<R> {
  const max = MAX_METADATA_BYTES[role]
  if (bytes.length > max) throw invalid(what, `expected at most ${max} bytes, found ${bytes.length}`)
  const doc = parseJson(bytes, what)
  if (role === 'targets' && hasDelegations(doc)) {
    throw new GapferryError('ROLE_DELEGATED', `${what}: expected no delegations, found some`)
  }
  const schema = SCHEMAS[role]
  if (!v.is(schema, doc)) throw invalid(what, describeFault(schema, doc))
  if (!serializeMetadata(doc).equals(bytes)) throw invalid(what, 'is not spelled as gapferry spells it')
  // What @tufjs/models would refuse with an error of its own:
  parseTime(doc.signed.expires, what)
  const signers = doc.signatures.map(({ keyid }) => keyid)
  if (new Set(signers).size !== signers.length) throw invalid(what, 'one key signed twice')
  return doc
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new GapferryError('ROLE_INVALID', `${what}: is not JSON`, { cause })
  }
}

function hasDelegations(doc: unknown): boolean {
  const signed = typeof doc === 'object' && doc !== null && 'signed' in doc ? doc.signed : undefined
  return typeof signed === 'object' && signed !== null && Object.hasOwn(signed, 'delegations')
}

function common<R extends RoleName>(role: R, signed: Doc<RoleName>['signed'], bytes: Buffer, what: string) {
  const site = signed['x-site']
  if (!isName(site)) throw invalid(what, `x-site "${site}" is not a name`)
  return { role, what, bytes, version: signed.version, site, expiresAtMs: parseTime(signed.expires, what) }
}

/** All roles of a bundle carry its number; a file that names another number is no work of ours. */
function checkNumber(version: number, named: NamedFile, what: string): void {
  if (named.version === version) return
  throw invalid(what, `version ${version} names version ${named.version}; all files of a bundle carry one number`)
}

function isTargetName(name: string): boolean {
  if (name === 'site' || name === LICENSES_TARGET) return true
  const [group, role, ...more] = name.split('/')
  return more.length === 0 && isName(group ?? '') && TREE_ROLES.some((known) => known === role)
}

function isName(text: string): boolean {
  try {
    return parseName(text, 'name') === text
  } catch (error) {
    if (isGapferryError(error, 'TREE_INVALID')) return false
    throw error
  }
}

function parseTime(text: string, what: string): number {
  const ms = Date.parse(text)
  if (Number.isNaN(ms) || formatTime(ms) !== text) throw invalid(what, `"${text}" is not a time`)
  return ms
}

function shortId(keyid: string): string {
  return keyid.slice(0, 8)
}

function keyIdWrong(what: string, why: string): GapferryError {
  return new GapferryError('ROLE_KEYID', `${what}: ${why}`)
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('ROLE_INVALID', `${what}: ${why}`)
}
