/**
 * A lost laptop: what a bundle tells is enough to go on, with the root key. The bundle is judged up from its own first
 * root, whose fingerprint a person compares; then its trees and blobs are kept, its number, stamps and paths remembered, and
 * a new bundle key takes the place of the lost one. The keys' folder comes last, in one step: without it nothing signs.
 */
import { join } from 'node:path'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { parseTimestamp, pinRoot, type PinnedRoot, type RootFile, rootChain } from '../../manifests/metadata.ts'
import type { Tree } from '../../manifests/tree.ts'
import type { BlobBatch, BlobStore } from '../../storage/blobs.ts'
import type { Ledger, Promises, SignedBundle } from '../../storage/ledger.ts'
import { readPart, type PartBundle } from '../../storage/parts.ts'
import { verifyMetadata } from '../../storage/trust.ts'
import { newOpenpgpFiles } from './create-keys.ts'
import { keyFileName, siteFolder, writeNewFolder } from './key-folder.ts'
import { youngerThan } from './openpgp-rotate.ts'
import type { RootProgress } from './pending-root.ts'
import { draftRoot, isMet, keysOf, quorums, signRoot } from './root-change.ts'
import { openRootKeys } from './root-keys.ts'
import { MAX_PUBLISHED, parseSiteKey } from './site-key.ts'
import { createSigningKey, type KeySecrets, type NewKey } from './signing-key.ts'

/** A bundle as its given parts tell it. */
export interface FoundBundle {
  site: string
  roots: Buffer[]
  /** by archive names without folder */
  metadata: Map<string, Buffer>
  bundle: PartBundle
}

/** Looks at one part, and believes it if `confirm` does.
 *  @param confirm  throws unless a person knows the root by its fingerprint; called before anything else of the part counts
 *  @throws ROOT_*, ROLE_*, BUNDLE_*, TREE_* */
export async function lookAtBundle(
  file: string,
  scratchDir: string,
  confirm: (root: PinnedRoot) => Promise<void>,
): Promise<FoundBundle> {
  let metadata = new Map<string, Buffer>()
  const { bundle } = await readPart(file, {
    verify: async (offered) => {
      metadata = offered
      return judge(offered, scratchDir, confirm)
    },
    onBlob: () => undefined,
  })
  return { site: bundle.metadata.site, roots: bundle.metadata.state.roots, metadata, bundle }
}

/** Keeps the trees and every blob that the parts have.
 *  @returns how many blobs
 *  @throws BUNDLE_MIXED for a part of another bundle; what lookAtBundle throws; BLOB_*; SPACE_SHORT */
export async function keepContent(
  found: FoundBundle,
  files: string[],
  store: BlobStore,
  scratchDir: string,
  signal: AbortSignal,
): Promise<number> {
  const timestamp = found.metadata.get('timestamp.json')!
  let blobs = 0
  for (const file of files) {
    const batch: BlobBatch = store.batch()
    try {
      await readPart(
        file,
        {
          verify: async (offered) => {
            if (offered.get('timestamp.json')?.equals(timestamp) !== true) throw otherBundle(file, found)
            return judge(offered, scratchDir, () => Promise.resolve())
          },
          onBlob: (sha256, bytes) => {
            blobs += 1
            return store.sizeOf(sha256) === bytes ? undefined : batch.begin({ sha256, bytes, maxBytes: bytes })
          },
        },
        { signal },
      )
      for (const bytes of found.bundle.treeBytes.values()) batch.put(bytes)
      await batch.commit()
    } finally {
      batch.discard()
    }
  }
  return blobs
}

/** Remembers what the bundle used and promised. @param usedNumber  at least the bundle's own counts */
export function rememberBundle({ site, metadata, bundle }: FoundBundle, ledger: Ledger, usedNumber: number): void {
  const { number, createdAtMs, targets } = bundle.metadata
  const signed: SignedBundle = {
    site,
    number,
    createdAtMs,
    // No content has this digest: whatever comes next is signed anew, with the new keys.
    content: sha256Of(metadata.get('timestamp.json')!),
    metadata,
    trees: new Map([...targets].map(([name, { sha256 }]) => [name, sha256])),
  }
  const promises = [...bundle.facts.groups.keys()].map((group) => promisesOf(group, [...bundle.trees.values()]))
  ledger.merge(site, { bundle: signed, promises, usedNumber: Math.max(usedNumber, number) })
}

/** Makes the keys' folder: the chain of roots, the next one with a new bundle key, a new OpenPGP key.
 *  @throws KEY_EXISTS, KEY_*, TOKEN_* */
export async function recoverKeys(args: {
  dir: string
  found: FoundBundle
  rootKeyFiles: string[]
  rootSecrets: KeySecrets
  /** for the new keys; null: unencrypted */
  passphrase: string | null
  bundleKey?: () => Promise<NewKey>
  /** the lost laptop is not lost: its bundle key stays in force */
  keepOld: boolean
  /** of the bundle, where its parts had it: its keys stay published beside the new one */
  siteKey: string | undefined
  nowMs: number
}): Promise<RootProgress> {
  const { dir, found, rootKeyFiles, rootSecrets, passphrase, keepOld, nowMs } = args
  const current: RootFile = rootChain(found.roots, '1.root.json')
  const wanted = new Set(keysOf(current, 'root').keyids)
  const rootKeys = await openRootKeys({ files: rootKeyFiles, wanted, secrets: rootSecrets })
  const key = await (args.bundleKey ?? (() => createSigningKey('bundle', passphrase)))()
  const root = signRoot(draftRoot(current, { bundle: { key, keepOld } }, nowMs), current, rootKeys)
  const sides = quorums(current, root)
  const isInForce = sides.every(isMet)
  const name = isInForce ? `${root.version}.root.json` : 'pending.root.json'
  const folder = siteFolder(dir, found.site)
  const others =
    args.siteKey === undefined ? [] : parseSiteKey(args.siteKey, 'keys/site.asc').slice(0, MAX_PUBLISHED - 1)
  writeNewFolder(folder, {
    ...Object.fromEntries(found.roots.map((bytes, i) => [`${i + 1}.root.json`, bytes])),
    [name]: root.bytes,
    [keyFileName('bundle', key.keyid)]: key.fileBytes,
    ...(await newOpenpgpFiles(found.site, passphrase, youngerThan(others, nowMs), others)),
  })
  const { site, version, expiresAtMs } = root
  return { site, version, expiresAtMs, isInForce, quorums: sides, file: join(folder, name) }
}

/** Judged on the day it was made: an old bundle is as good as any to recover from, and its age is said elsewhere. */
async function judge(offered: Map<string, Buffer>, scratchDir: string, confirm: (root: PinnedRoot) => Promise<void>) {
  const first = offered.get('1.root.json')
  const timestamp = offered.get('timestamp.json')
  if (first === undefined || timestamp === undefined) {
    throw new GapferryError('ROOT_INVALID', 'expected the site’s first root in the bundle, found none')
  }
  await confirm(pinRoot(first))
  const nowMs = parseTimestamp(timestamp, 'timestamp.json').createdAtMs
  return verifyMetadata({ trusted: { roots: [first] }, offered, nowMs, scratchDir })
}

function promisesOf(group: string, trees: Tree[]): Promises {
  const stamps = new Map<string, number>()
  const immutable = new Map<string, Sha256>()
  for (const tree of trees.filter((one) => one.group === group)) {
    for (const [id, stamp] of tree.stamps) stamps.set(id, Math.max(stamp, stamps.get(id) ?? 0))
    for (const [path, entry] of tree.entries) if (entry.kind === 'immutable') immutable.set(path, entry.sha256)
  }
  return { group, stamps, immutable }
}

function otherBundle(file: string, { bundle }: FoundBundle): GapferryError {
  return new GapferryError(
    'BUNDLE_MIXED',
    `${file}: expected a part of bundle ${bundle.metadata.number}, found one of another`,
    {
      hint: 'give all parts of one bundle, or its folder on the stick',
    },
  )
}
