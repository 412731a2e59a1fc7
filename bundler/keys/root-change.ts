/**
 * Roots as documents: the first one, the next one, and who has signed it. The next root counts when the thresholds of the
 * root before and its own are met (TUF 1.0.31 §5.3.4); until then signatures are gathered one by one. No disk here.
 */
import { addSignatures, authorRoot } from '../../manifests/author.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { parseRoot, type RoleName, type RootFile } from '../../manifests/metadata.ts'
import type { RoleKey, RoleKeys } from '../../manifests/metadata-schema.ts'
import { roleKey } from '../../manifests/role-key.ts'
import { BUNDLE_ROLES } from './key-folder.ts'
import type { SigningKey } from './signing-key.ts'

const ROOT_YEARS = 5

/** The public half is enough to name a key. */
export type PublicKey = Pick<SigningKey, 'keyid' | 'publicPem'>

/** What the next root says otherwise; nothing: only a new expiry. */
export interface RootChange {
  bundle?: { key: PublicKey; keepOld: boolean }
  root?: { keys: PublicKey[]; keep: string[]; threshold: number }
}

/** Signatures of one side: the root before, or the new one. */
export interface RootQuorum {
  /** version of the root that asks for them */
  by: number
  threshold: number
  /** key ids with a good signature */
  signed: string[]
  /** key ids that may still sign */
  open: string[]
}

/** The first root of a site, signed by its root keys. */
export function firstRoot(args: {
  site: string
  nowMs: number
  rootKeys: SigningKey[]
  threshold: number
  bundleKey: PublicKey
}): Buffer {
  const { site, nowMs, rootKeys, threshold, bundleKey } = args
  const ofBundle = { keyids: [bundleKey.keyid], threshold: 1 }
  return authorRoot({
    site,
    version: 1,
    expiresAtMs: yearsLater(nowMs),
    keys: new Map([...rootKeys, bundleKey].map(document)),
    roles: {
      root: { keyids: rootKeys.map(({ keyid }) => keyid), threshold },
      timestamp: ofBundle,
      snapshot: ofBundle,
      targets: ofBundle,
    },
    sign: (_role, canonical) => rootKeys.map((key) => key.sign(canonical)),
  })
}

/** The root after `current`, not signed yet.
 *  @throws USAGE_INVALID where a threshold could not be met */
export function draftRoot(current: RootFile, change: RootChange, nowMs: number): RootFile {
  const roles = Object.fromEntries(
    (['root', ...BUNDLE_ROLES] as const).map((role) => [role, changedRole(role, keysOf(current, role), change)]),
  ) as Record<RoleName, RoleKeys>
  const known = new Map(
    Object.entries(current.metadata.signed.keys).map(([id, key]) => [id, key.toJSON() as unknown as RoleKey]),
  )
  for (const key of [...(change.root?.keys ?? []), ...(change.bundle ? [change.bundle.key] : [])])
    known.set(...document(key))
  const used = new Set(Object.values(roles).flatMap(({ keyids }) => keyids))
  const bytes = authorRoot({
    site: current.site,
    version: current.version + 1,
    expiresAtMs: yearsLater(nowMs),
    keys: new Map([...known].filter(([keyid]) => used.has(keyid))),
    roles,
    sign: () => [],
  })
  return parseRoot(bytes, `${current.version + 1}.root.json`)
}

/** `root` with the signatures of those of `keys` that `before` or `root` itself names for roots. */
export function signRoot(root: RootFile, before: RootFile, keys: readonly SigningKey[]): RootFile {
  const named = new Set([...keysOf(before, 'root').keyids, ...keysOf(root, 'root').keyids])
  const allowed = keys.filter(({ keyid }) => named.has(keyid))
  if (allowed.length === 0) return root
  return parseRoot(
    addSignatures(root, (_role, canonical) => allowed.map((key) => key.sign(canonical))),
    root.what,
  )
}

/** Who has signed `root` and who may still, for the root before and for itself. */
export function quorums(before: RootFile, root: RootFile): [RootQuorum, RootQuorum] {
  return [quorum(before, root), quorum(root, root)]
}

export function isMet({ signed, threshold }: RootQuorum): boolean {
  return signed.length >= threshold
}

/** The keys of a role and how many of them must sign. */
export function keysOf(root: RootFile, role: RoleName): RoleKeys {
  const { keyIDs, threshold } = root.metadata.signed.roles[role]!
  return { keyids: [...keyIDs], threshold }
}

function changedRole(role: RoleName, old: RoleKeys, { root, bundle }: RootChange): RoleKeys {
  if (role === 'root') {
    if (root === undefined) return old
    const keyids = [...old.keyids.filter((keyid) => root.keep.includes(keyid)), ...root.keys.map(({ keyid }) => keyid)]
    return checkThreshold({ keyids, threshold: root.threshold })
  }
  if (bundle === undefined) return old
  const keyids = [...(bundle.keepOld ? old.keyids : []), bundle.key.keyid]
  return checkThreshold({ keyids, threshold: old.threshold })
}

function checkThreshold(keys: RoleKeys): RoleKeys {
  if (keys.threshold >= 1 && keys.threshold <= keys.keyids.length) return keys
  throw new GapferryError(
    'USAGE_INVALID',
    `${keys.threshold} of ${keys.keyids.length} keys could never sign: expected a threshold from 1 to their number`,
    { hint: 'gapferry keys rotate --help' },
  )
}

function quorum(by: RootFile, root: RootFile): RootQuorum {
  const { keyids, threshold } = keysOf(by, 'root')
  const signed = keyids.filter((keyid) => isSignedBy(by, root, keyid))
  return { by: by.version, threshold, signed, open: keyids.filter((keyid) => !signed.includes(keyid)) }
}

function isSignedBy(by: RootFile, root: RootFile, keyid: string): boolean {
  try {
    by.metadata.signed.keys[keyid]!.verifySignature(root.metadata)
    return true
  } catch {
    return false // no signature of that key, or a bad one
  }
}

function document({ keyid, publicPem }: PublicKey): [string, RoleKey] {
  return [keyid, roleKey('ecdsa', publicPem).key]
}

function yearsLater(nowMs: number): number {
  const expires = new Date(nowMs)
  expires.setUTCFullYear(expires.getUTCFullYear() + ROOT_YEARS)
  return expires.getTime()
}
