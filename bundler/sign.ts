/** Signs a bundle. A bundle is signed once and its bytes are kept: ECDSA is randomised, so a second time would differ. */
import { authorBundle } from '../manifests/author.ts'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import {
  checkExpiry,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  rootChain,
  verifySignatures,
} from '../manifests/metadata.ts'
import type { SignedBundle } from '../storage/ledger.ts'
import type { SiteSigner } from './keys/keys.ts'

const DAY_MS = 86_400_000
/** A spare stick in a safe must survive a half-year cycle and a late second one. */
const DEFAULT_EXPIRY_DAYS = 400

/** The metadata of bundle `number`, by its names in the archive: `timestamp.json`, `<n>.snapshot.json`, `<n>.targets.json`,
 *  then every root, oldest first.
 *  @param args.roots       from 1 to the one in force
 *  @param args.targets     'site' and '<group>/<role>' → digest and size of a tree
 *  @param args.expiryDays  at least 1
 *  @param args.bundler     name and version of the program
 *  @param args.reportKey   what mirrors seal their reports for
 *  @throws SITE_MISMATCH; ROLE_INVALID; ROLE_EXPIRED for the root in force; ROLE_SIGNATURE when the signer's keys do not meet the thresholds of the root in
 *          force: a bundle that a mirror would refuse is not made */
export function signBundle(args: {
  site: string
  number: number
  roots: Buffer[]
  targets: Map<string, { sha256: Sha256; bytes: number }>
  signer: Pick<SiteSigner, 'signMetadata'>
  nowMs: number
  expiryDays?: number
  bundler: string
  reportKey?: string
}): Map<string, Buffer> {
  const { site, number, roots, targets, signer, nowMs, expiryDays = DEFAULT_EXPIRY_DAYS, bundler } = args
  const root = rootChain(roots, '1.root.json')
  if (root.site !== site) {
    throw new GapferryError('SITE_MISMATCH', `bundle ${number}: expected a root of site ${site}, found ${root.site}`)
  }
  checkExpiry(root, nowMs)
  const files = authorBundle({
    site,
    number,
    targets,
    createdAtMs: nowMs,
    expiresAtMs: nowMs + expiryDays * DAY_MS,
    bundler,
    ...(args.reportKey === undefined ? {} : { reportKey: args.reportKey }),
    sign: (role, canonical) => (role === 'root' ? [] : signer.signMetadata(role, canonical)),
  })
  verifySignatures(root, parseTargets(files.get(`${number}.targets.json`)!, 'targets.json'))
  verifySignatures(root, parseSnapshot(files.get(`${number}.snapshot.json`)!, 'snapshot.json'))
  verifySignatures(root, parseTimestamp(files.get('timestamp.json')!, 'timestamp.json'))
  for (const [i, bytes] of roots.entries()) files.set(`${i + 1}.root.json`, bytes)
  return files
}

/** A bundle is written again only while the root in force and the key for reports are in it, or the mirrors would never hear of
 *  changed ones. */
export function bringsKeys({ metadata }: Pick<SignedBundle, 'metadata'>, roots: Buffer[], reportKey: string): boolean {
  const timestamp = parseTimestamp(metadata.get('timestamp.json')!, 'timestamp.json')
  return metadata.get(`${roots.length}.root.json`)?.equals(roots.at(-1)!) === true && timestamp.reportKey === reportKey
}
