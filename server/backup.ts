/**
 * Backing a mirror up: a consistent copy of its database, its state, its settings, and of its blobs those that are wanted.
 */
import { closeSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { isTreeTarget, parseTree } from '../manifests/tree.ts'
import type { Actor } from '../storage/audited.ts'
import { writeBackup, type BackupSource } from '../storage/backup.ts'
import { CHECK_BUFFER_BYTES, digestOf } from '../storage/blob-check.ts'
import { readLicenses } from '../storage/completeness.ts'
import { serializeState } from '../storage/state-file.ts'
import { audited } from './audit.ts'
import { KEYS_FILE, sealKeys } from './backup-keys.ts'
import type { MirrorStore } from './store.ts'

export interface BackedUp {
  file: string
  site: string
  bundle: number | null
  /** of its list, which holds all other digests */
  sha256: Sha256
  bytes: number
  blobs: number
  /** all blobs that are here, not only trees and site facts */
  hasBlobs: boolean
  /** with the mirror's keys and the licenses, under a passphrase */
  hasKeys: boolean
}

/** The caller holds the store's lock.
 *  @param args.to          where nothing stands yet
 *  @param args.passphrase  for the keys; null leaves them out, and the licenses
 *  @throws what writeBackup throws; STORE_ROTTEN when a blob is not as it was signed */
export async function backUp(
  store: MirrorStore,
  args: { to: string; configFile: string; withBlobs: boolean; passphrase: string | null; by: Actor },
): Promise<BackedUp> {
  const { to, configFile, withBlobs, passphrase, by } = args
  const copy = join(store.stagingDir, 'backup.db')
  store.blobs.sweep()
  try {
    store.catalog.copyTo(copy)
    const state = store.catalog.state()!
    const config = readFileSync(configFile)
    const blobs = await blobSources(store, { withBlobs, withLicenses: passphrase !== null })
    const files = [memorySource('state.json', serializeState(state)), await fileSource('catalog.db', copy)]
    const keys = passphrase === null ? [] : [memorySource(KEYS_FILE, await sealKeys(store, passphrase))]
    files.push(memorySource('mirror.yaml', config), ...keys, ...blobs)
    const createdAt = new Date(by.nowMs()).toISOString()
    const about = { site: store.site, createdAt, bundle: state.newest, files }
    const asked = { command: 'backup', files: [basename(to)] }
    const sha256 = await writeBackup(to, about, by.signal)
    audited({ catalog: store.catalog, by, asked, done: () => [{ ...asked, sha256 }] }, () => undefined)
    const bytes = statSync(to).size
    const has = { hasBlobs: withBlobs, hasKeys: passphrase !== null }
    return { file: to, site: store.site, bundle: state.newest, sha256, bytes, blobs: blobs.length, ...has }
  } finally {
    rmSync(copy, { force: true })
  }
}

/** Trees and what else the metadata names always; what the trees name where it is wanted and here. The
 *  licenses' blobs where they are wanted. */
async function blobSources(
  { catalog, blobs }: MirrorStore,
  { withBlobs, withLicenses }: { withBlobs: boolean; withLicenses: boolean },
): Promise<BackupSource[]> {
  const sources = new Map<Sha256, BackupSource>()
  const add = (sha256: Sha256, bytes: number): void => {
    if (blobs.sizeOf(sha256) === undefined) return
    sources.set(sha256, { name: `blobs/${sha256}`, bytes, sha256, from: blobs.pathOf(sha256) })
  }
  for (const { number } of catalog.bundles()) {
    const named = catalog.trees(number)
    if (withLicenses) for (const [sha256, bytes] of readLicenses(blobs, named)?.blobs ?? []) add(sha256, bytes)
    for (const [target, { sha256, bytes }] of named) {
      add(sha256, bytes)
      if (!isTreeTarget(target) || !withBlobs || !blobs.has(sha256)) continue
      for (const entry of parseTree(blobs.read(sha256, bytes), target).entries.values()) add(entry.sha256, entry.bytes)
    }
  }
  return [...sources.values()]
}

function memorySource(name: string, from: Buffer): BackupSource {
  return { name, bytes: from.length, sha256: sha256Of(from), from }
}

async function fileSource(name: string, from: string): Promise<BackupSource> {
  const fd = openSync(from, 'r')
  try {
    const bytes = statSync(from).size
    const sha256 = await digestOf(fd, { bytes, buffer: Buffer.allocUnsafeSlow(CHECK_BUFFER_BYTES) })
    return { name, bytes, sha256, from }
  } finally {
    closeSync(fd)
  }
}
