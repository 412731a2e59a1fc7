/**
 * Decides whether the metadata of a part may be believed, starting from a pinned root. Two judges, both must agree: our
 * own checks (they give the reason codes, and close what tuf-js leaves open), then tuf-js with the client workflow of TUF
 * 1.0.31 §5 in a folder of its own: it writes while it still checks, and a torn write of its state could not be read
 * again. The caller adopts the returned state in the transaction that stages the bundle; nothing else is written.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Updater } from 'tuf-js'
import { DownloadHTTPError, DownloadLengthMismatchError, PersistError } from 'tuf-js/dist/error.js'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import {
  checkExpiry,
  checkNamed,
  checkSite,
  formatTime,
  MAX_AHEAD_MS,
  MAX_EXPIRED_MS,
  MAX_METADATA_BYTES,
  nextRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  rootChain,
  verifySignatures,
  type AnyRoleFile,
  type RootFile,
  type TimestampFile,
} from '../manifests/metadata.ts'

/** What a store believes: kept as bytes, exactly as they were signed. */
export interface TrustedState {
  /** the pinned root first, each next one signed by the one before; the last is in force */
  roots: Buffer[]
  timestamp?: Buffer
  snapshot?: Buffer
  targets?: Buffer
}

export interface VerifiedMetadata {
  /** to be adopted in the caller's transaction */
  state: TrustedState
  site: string
  number: number
  createdAtMs: number
  /** from here on this bundle is refused: the earliest expiry of its files and its root */
  expiresAtMs: number
  bundler: string
  /** 'site' and '<group>/<role>' → the tree */
  targets: Map<string, { sha256: Sha256; bytes: number }>
  /** false when this very bundle is already adopted in `trusted` (`state.roots` may have grown all the same) */
  isNew: boolean
  /** the root took away keys that the trusted bundle was signed with: what those keys signed counts no more */
  isReset: boolean
  /** taken past its end, as the caller allowed; its root never is */
  isExpired: boolean
}

/** @param args.offered  by the names in the archive, without folder: 'timestamp.json', '7.snapshot.json',
 *                       '7.targets.json', '1.root.json' … Roots up to the one in force are never read.
 *  @param args.nowMs    the system clock, or the program's build date where that is later. It is raised here to the
 *                       creation of the newest bundle that is still believed; never to one whose keys were taken away.
 *  @param args.site     the site this must be for; default: the pinned root's
 *  @param args.scratchDir  where a temporary folder may be made
 *  @param args.acceptExpired  takes timestamp, snapshot and targets up to MAX_EXPIRED_MS past their ends. Never the root: it
 *                       says whose signatures count, and its end is the only sign that a newer one, which takes a stolen key
 *                       away, was kept back; whoever holds the root keys can sign the next one without any network.
 *  @throws SITE_MISMATCH, ROLE_SIGNATURE, ROLE_ROLLBACK (older than what is trusted), ROLE_CONFLICT (the number of what is
 *          trusted, other bytes), ROLE_EXPIRED, ROLE_MIXED (files of several bundles, or one missing), ROLE_DELEGATED,
 *          ROLE_KEYID, ROLE_FUTURE, ROLE_INVALID */
export async function verifyMetadata(args: {
  trusted: TrustedState
  offered: Map<string, Buffer>
  nowMs: number
  site?: string
  scratchDir: string
  acceptExpired?: boolean
}): Promise<VerifiedMetadata> {
  const { trusted, offered } = args
  const { roots, root } = followRoots(trusted.roots, offered, args.site)
  const { kept, isReset } = believedBundle(trusted, root)
  const nowMs = Math.max(args.nowMs, ...kept.map((file) => ('createdAtMs' in file ? file.createdAtMs : 0)))
  checkExpiry(root, nowMs)
  const timestamp = check(parseTimestamp(take(offered, 'timestamp.json'), 'timestamp.json'), root)
  refuseOlder(timestamp, kept)
  refuseFuture(timestamp, nowMs)
  const checkEnd = args.acceptExpired === true ? checkLate : checkExpiry
  checkEnd(timestamp, nowMs)
  refuseStrangers(offered, timestamp.version)
  const snapshotName = `${timestamp.version}.snapshot.json`
  const snapshot = check(parseSnapshot(take(offered, snapshotName), snapshotName), root)
  checkNamed(snapshot, timestamp.snapshot)
  const targetsName = `${timestamp.version}.targets.json`
  const targets = check(parseTargets(take(offered, targetsName), targetsName), root)
  checkNamed(targets, snapshot.targets)
  const files = [timestamp, snapshot, targets]
  for (const file of files) checkEnd(file, nowMs)
  refuseConflict(files, kept)
  const state = { roots, timestamp: timestamp.bytes, snapshot: snapshot.bytes, targets: targets.bytes }
  const endMs = Math.min(...files.map((file) => file.expiresAtMs))
  // tuf-js knows no exception: it judges by the last moment at which these files were good.
  const judgedAtMs = Math.min(nowMs, endMs - 1)
  const { scratchDir } = args
  await askTufJs({ inForce: trusted.roots.at(-1)!, kept, offered, state, nowMs: judgedAtMs, scratchDir })
  return {
    state,
    site: root.site,
    number: timestamp.version,
    createdAtMs: timestamp.createdAtMs,
    expiresAtMs: Math.min(...[root, ...files].map((file) => file.expiresAtMs)),
    bundler: timestamp.bundler,
    targets: targets.targets,
    isNew: !files.every((file) => trusted[file.role]?.equals(file.bytes)),
    isReset,
    isExpired: nowMs >= endMs,
  }
}

/** @throws ROLE_EXPIRED with both dates */
function checkLate(file: AnyRoleFile, nowMs: number): void {
  if (nowMs < file.expiresAtMs + MAX_EXPIRED_MS) return
  const dates = `expired ${formatTime(file.expiresAtMs)}, now it is ${formatTime(nowMs)}`
  const most = `accepted at most ${MAX_EXPIRED_MS / 86_400_000} days after`
  throw new GapferryError('ROLE_EXPIRED', `${file.what}: ${dates}; ${most}`, {
    hint: 'bring a newer bundle, or set the clock if it is wrong',
  })
}

/** The chain from the pinned root through every newer root that is offered (TUF 1.0.31 §5.3). */
function followRoots(
  trusted: readonly Buffer[],
  offered: Map<string, Buffer>,
  site: string | undefined,
): { roots: Buffer[]; root: RootFile } {
  let root = rootChain(trusted, 'trusted root')
  if (site !== undefined) checkSite(root, site)
  const roots = [...trusted]
  for (;;) {
    const next = offered.get(`${root.version + 1}.root.json`)
    if (next === undefined) break
    root = nextRoot(root, next)
    roots.push(next)
  }
  const beyond = [...offered.keys()].find((name) => Number(/^(\d+)\.root\.json$/.exec(name)?.[1]) > root.version)
  if (beyond === undefined) return { roots, root }
  throw new GapferryError('ROLE_INVALID', `${beyond}: expected ${root.version + 1}.root.json before it, found none`)
}

/** The intact files of the trusted bundle. A torn file is left out and heals with what is adopted next. All are left
 *  out when the root in force no longer vouches for one of them: that is how a site recovers when a stolen key had
 *  signed numbers far ahead (TUF 1.0.31 §5.3.11: delete trusted timestamp and snapshot when keys were rotated). */
function believedBundle(trusted: TrustedState, root: RootFile): { kept: AnyRoleFile[]; isReset: boolean } {
  const files = [
    intact(parseTimestamp, trusted.timestamp, 'trusted timestamp'),
    intact(parseSnapshot, trusted.snapshot, 'trusted snapshot'),
    intact(parseTargets, trusted.targets, 'trusted targets'),
  ].filter((file) => file !== undefined)
  const isReset = !files.every((file) => isVouchedFor(file, root))
  return { kept: isReset ? [] : files, isReset }
}

/** The number that a store believes in when `root` is in force; 0 where it believes nothing, or `root` took away the keys of
 *  what it believed. */
export function believedNumber(trusted: TrustedState, root: RootFile): number {
  return Math.max(0, ...believedBundle(trusted, root).kept.map(({ version }) => version))
}

function intact<F>(parse: (bytes: Buffer, what: string) => F, bytes: Buffer | undefined, what: string): F | undefined {
  if (bytes === undefined) return undefined
  try {
    return parse(bytes, what)
  } catch (error) {
    if (isGapferryError(error, 'ROLE_INVALID')) return undefined
    throw error
  }
}

function isVouchedFor(file: AnyRoleFile, root: RootFile): boolean {
  try {
    verifySignatures(root, file)
    return true
  } catch (error) {
    if (isGapferryError(error, 'ROLE_SIGNATURE')) return false
    throw error
  }
}

/** The site comes first: a bundle of another site is also signed by other keys, but that is not what a person must hear. */
function check<F extends AnyRoleFile>(file: F, root: RootFile): F {
  checkSite(file, root.site)
  verifySignatures(root, file)
  return file
}

/** A date far ahead would become the floor of this mirror's clock, and every later bundle would look expired: a thief's
 *  easiest way to silence a mirror, and a laptop with a wrong clock does it by mistake. */
function refuseFuture(timestamp: TimestampFile, nowMs: number): void {
  if (timestamp.createdAtMs <= nowMs + MAX_AHEAD_MS) return
  const [made, now] = [timestamp.createdAtMs, nowMs].map((ms) => new Date(ms).toISOString().slice(0, 10))
  throw new GapferryError(
    'ROLE_FUTURE',
    `${timestamp.what}: expected a bundle made by ${now} or soon after, found one made ${made}`,
    {
      hint: `set this machine's clock if it is not ${now}; else set the laptop's and pack again: gapferry pack --renew`,
    },
  )
}

function refuseOlder(timestamp: AnyRoleFile, kept: AnyRoleFile[]): void {
  const newest = Math.max(0, ...kept.map((file) => file.version))
  if (timestamp.version >= newest) return
  throw new GapferryError(
    'ROLE_ROLLBACK',
    `${timestamp.what}: expected bundle ${newest} or newer, found bundle ${timestamp.version}`,
    {
      hint: 'an older bundle is never taken; bring the newest one of this site, or pack a new one: gapferry pack --renew',
    },
  )
}

/** A number is used once; other bytes under a number that is already believed are a copy of the keys at work. */
function refuseConflict(files: AnyRoleFile[], kept: AnyRoleFile[]): void {
  for (const file of files) {
    const old = kept.find((other) => other.role === file.role)
    if (old === undefined || old.version !== file.version || old.bytes.equals(file.bytes)) continue
    throw new GapferryError(
      'ROLE_CONFLICT',
      `${file.what}: expected the bytes that were adopted as bundle ${old.version} (${originOf(old)}), ` +
        `found others under that number (${originOf(file)})`,
      {
        hint:
          `two laptops, or a restored one, signed number ${old.version}: on the one whose bundle is not here, run: ` +
          `gapferry pack --renew --number-above ${old.version}`,
      },
    )
  }
}

/** Tells one laptop from another: each has a bundle key of its own. */
function originOf(file: AnyRoleFile): string {
  const keys = Object.keys(file.metadata.signatures).map((keyid) => keyid.slice(0, 8))
  const made = 'createdAtMs' in file ? `${formatTime(file.createdAtMs)} by ${file.bundler} with ` : ''
  return `signed ${made}key ${keys.join(', ')}`
}

function refuseStrangers(offered: Map<string, Buffer>, number: number): void {
  const known = new Set(['timestamp.json', `${number}.snapshot.json`, `${number}.targets.json`])
  const stranger = [...offered.keys()].find((name) => !known.has(name) && !/^[1-9][0-9]*\.root\.json$/.test(name))
  if (stranger === undefined) return
  throw new GapferryError('ROLE_MIXED', `${stranger}: expected only the metadata of bundle ${number}`)
}

function take(offered: Map<string, Buffer>, name: string): Buffer {
  const bytes = offered.get(name)
  if (bytes !== undefined) return bytes
  const found = [...offered.keys()].join(', ') || 'nothing'
  throw new GapferryError('ROLE_MIXED', `${name}: expected it in the bundle, found ${found}`)
}

/** The second judge. @throws ROLE_INVALID when it refuses what passed the first, or ends up believing anything else */
async function askTufJs(args: {
  inForce: Buffer
  kept: AnyRoleFile[]
  offered: Map<string, Buffer>
  state: Required<TrustedState>
  nowMs: number
  scratchDir: string
}): Promise<void> {
  const dir = mkdtempSync(join(args.scratchDir, 'trust-'))
  const believed = { ...args.state, root: args.state.roots.at(-1)! }
  try {
    writeFileSync(join(dir, 'root.json'), args.inForce)
    for (const { role, bytes } of args.kept) writeFileSync(join(dir, `${role}.json`), bytes)
    await refresh(updater(dir, args.offered, args.nowMs))
    for (const role of ['root', 'timestamp', 'snapshot', 'targets'] as const) {
      if (readFileSync(join(dir, `${role}.json`)).equals(believed[role])) continue
      throw new GapferryError('ROLE_INVALID', `${role}.json: tuf-js believes another one than this bundle's`)
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

async function refresh(updater: Updater): Promise<void> {
  try {
    await updater.refresh()
  } catch (cause) {
    if (cause instanceof PersistError) throw cause // the disk's fault, not the bundle's
    throw new GapferryError('ROLE_INVALID', `tuf-js refuses the metadata: ${String(cause)}`, { cause })
  }
}

function updater(metadataDir: string, offered: Map<string, Buffer>, nowMs: number): Updater {
  const made = new Updater({
    metadataDir,
    metadataBaseUrl: 'http://bundle.invalid/',
    fetcher: {
      downloadBytes: async (url, maxBytes) => answer(offered, new URL(url).pathname.slice(1), maxBytes),
      downloadFile: () => Promise.reject(new Error('targets are read from the part, never by tuf-js')),
    },
    config: {
      rootMaxLength: MAX_METADATA_BYTES.root,
      timestampMaxLength: MAX_METADATA_BYTES.timestamp,
      snapshotMaxLength: MAX_METADATA_BYTES.snapshot,
      targetsMaxLength: MAX_METADATA_BYTES.targets,
    },
  })
  // tuf-js has no option for the time it judges by; its private field is pinned by a test.
  const { trustedSet } = made as unknown as { trustedSet: { referenceTime: Date } }
  if (!(trustedSet.referenceTime instanceof Date)) throw new Error('this tuf-js keeps its clock elsewhere')
  trustedSet.referenceTime = new Date(nowMs)
  return made
}

/** "There is no newer root" has to be this error with 404: tuf-js asks until it gets it. */
function answer(offered: Map<string, Buffer>, name: string, maxBytes: number): Buffer {
  const bytes = offered.get(name)
  if (bytes === undefined) throw new DownloadHTTPError(`${name} is not in the bundle`, 404)
  if (bytes.length > maxBytes) throw new DownloadLengthMismatchError(`${name} is larger than ${maxBytes} bytes`)
  return bytes
}
