/** A site's keys, roots and bundles for tests, made without a keystore; and ways to make them wrong. */
import { constants, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { authorBundle, authorRoot, type RoleSignature, type SignRole } from '../../manifests/author.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { serializeMetadata, type RoleName } from '../../manifests/metadata.ts'
import type { RoleKey } from '../../manifests/metadata-schema.ts'
import { roleKey } from '../../manifests/role-key.ts'

/** The time of tests: 2026-11-22 12:00 UTC. */
export const NOW = Date.UTC(2026, 10, 22, 12)
export const DAY = 86_400_000

export interface TestKey {
  keyid: string
  key: RoleKey
  sign(bytes: Buffer): RoleSignature
}

/** A key whose signature over the same bytes is the same every time, though ECDSA and RSA-PSS are randomised. */
export function newKey(keytype: RoleKey['keytype'] = 'ecdsa'): TestKey {
  const pair =
    keytype === 'ecdsa'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: 2048 })
  const named = roleKey(keytype, pair.publicKey.export({ type: 'spki', format: 'pem' }).toString())
  const made = new Map<Sha256, string>()
  return {
    ...named,
    sign(bytes) {
      const digest = sha256Of(bytes)
      const sig = made.get(digest) ?? rawSignature(pair.privateKey, bytes)
      made.set(digest, sig)
      return { keyid: named.keyid, sig }
    },
  }
}

/** Keys by role; `bundle` stands for timestamp, snapshot and targets where these are not given. */
export interface SiteKeys {
  root: TestKey[]
  bundle: TestKey[]
  targets?: TestKey[]
  thresholds?: Partial<Record<RoleName, number>>
}

/** `<version>.root.json`, signed by `signers` (default: its own root keys). */
export function makeRoot(
  keys: SiteKeys,
  args: { site?: string; version?: number; signers?: TestKey[]; expiresAtMs?: number } = {},
): Buffer {
  const lists: Record<RoleName, TestKey[]> = {
    root: keys.root,
    timestamp: keys.bundle,
    snapshot: keys.bundle,
    targets: keys.targets ?? keys.bundle,
  }
  const role = (name: RoleName) => ({
    keyids: lists[name].map((key) => key.keyid),
    threshold: keys.thresholds?.[name] ?? 1,
  })
  return authorRoot({
    site: args.site ?? 'hq',
    version: args.version ?? 1,
    expiresAtMs: args.expiresAtMs ?? NOW + 1826 * DAY,
    keys: new Map(Object.values(lists).flatMap((list) => list.map(({ keyid, key }) => [keyid, key] as const))),
    roles: { root: role('root'), timestamp: role('timestamp'), snapshot: role('snapshot'), targets: role('targets') },
    sign: signWith(args.signers ?? keys.root),
  })
}

/** The files of bundle `number` and the roots, by their names in the archive. */
export function makeBundle(
  keys: SiteKeys,
  args: {
    site?: string
    number?: number
    roots?: Buffer[]
    targets?: Map<string, { sha256: Sha256; bytes: number }>
    createdAtMs?: number
    expiresAtMs?: number
    reportKey?: string
  } = {},
): Map<string, Buffer> {
  const number = args.number ?? 1
  const createdAtMs = args.createdAtMs ?? NOW
  const tree = { sha256: sha256Of(`tree ${number}`), bytes: 100 }
  const files = authorBundle({
    site: args.site ?? 'hq',
    number,
    targets:
      args.targets ??
      new Map([
        ['pbx/current', tree],
        ['site', tree],
      ]),
    createdAtMs,
    expiresAtMs: args.expiresAtMs ?? createdAtMs + 400 * DAY,
    bundler: 'gapferry 0.1.0',
    ...(args.reportKey === undefined ? {} : { reportKey: args.reportKey }),
    sign: (role, bytes) => signWith(role === 'targets' ? (keys.targets ?? keys.bundle) : keys.bundle)(role, bytes),
  })
  for (const [i, root] of (args.roots ?? []).entries()) files.set(`${i + 1}.root.json`, root)
  return files
}

export function signWith(keys: TestKey[]): SignRole {
  return (_role, bytes) => keys.map((key) => key.sign(bytes))
}

/** A JSON document that a test may change as it likes. */
// eslint-disable-next-line typescript/no-explicit-any -- forging means to leave the types
export type Loose = any

/** `bytes` with `change` done to its signed part (in place), then signed again by `keys` as if it were in order. */
export function forge(bytes: Buffer, keys: TestKey[], change: (signed: Loose) => void): Buffer {
  const doc = JSON.parse(bytes.toString())
  change(doc.signed)
  const canonical = canonicalJson(doc.signed)
  return serializeMetadata({ signatures: keys.map((key) => key.sign(canonical)), signed: doc.signed })
}

/** A copy of `bytes` with one bit of the byte at `at` flipped. */
export function flip(bytes: Buffer, at: number, bit = 0): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = copy[at]! ^ (1 << bit)
  return copy
}

function rawSignature(key: KeyObject, bytes: Buffer): string {
  if (key.asymmetricKeyType === 'ec') return sign('sha256', bytes, key).toString('hex')
  return sign('sha256', bytes, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }).toString('hex')
}
