/**
 * Putting a backup of a mirror back, in this order, holding the store's lock:
 *   1. the backup is read whole: its database is put together under staging/, blobs are staged, all digests are checked;
 *   2. its state is verified from its pinned root on, and merged with what the present store knows, so that no number falls;
 *   3. blobs become durable, then the present database is moved aside, then the new one gets its name, then state.json.
 * A crash in 3 leaves the present state.json, from which serving goes on; restoring again ends it.
 */
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { fingerprintWords, parseFingerprint } from '../manifests/words.ts'
import type { Actor } from '../storage/audited.ts'
import type { AuditHead } from '../storage/audit.ts'
import { readBackup, type BackupConsumer } from '../storage/backup.ts'
import { BlobStore, type BlobBatch } from '../storage/blobs.ts'
import type { CatalogState } from '../storage/catalog-state.ts'
import { Catalog } from '../storage/catalog.ts'
import { lockStore } from '../storage/database.ts'
import { syncFolder, writeAll } from '../storage/durable.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import { verifyForeignState } from '../storage/state-check.ts'
import { MAX_STATE_BYTES, parseState, serializeState } from '../storage/state-file.ts'
import { mergeStates } from '../storage/state-merge.ts'
import { audited } from './audit.ts'
import { presentState } from './restore-present.ts'
import { KEYS_FILE, keysToPut, MAX_KEYS_BYTES } from './backup-keys.ts'
import { IDENTITY_FILES, putIdentity } from './identity.ts'
import { MAX_CONFIG_BYTES, parseMirrorConfig } from './config.ts'
import { catalogFile, STAGING } from './store.ts'

export interface Restored {
  site: string
  store: string
  /** where the settings are, and whether they came from the backup */
  config: string
  isConfigRestored: boolean
  /** the bundle that was adopted last; null where there was none */
  bundle: number | null
  blobs: number
  /** the present store knew something newer, which was kept */
  isMerged: boolean
  /** what was there could not be read: numbers that only it knew are forgotten */
  isMemoryLost: boolean
  /** where the mirror's keys are from; none: it gets new ones */
  keys: 'store' | 'backup' | 'none'
}

/** @param args.passphrase    asked for where keys are taken from the backup; undefined leaves them out
 *  @param args.isConfirmed   the backup's root is trusted as it is
 *  @param args.fingerprint  words that its root must have; either is needed where the store knows no root yet
 *  @throws BACKUP_INVALID, BACKUP_DAMAGED; STORE_EXISTS without `isReplacing`; ROOT_NOT_CONFIRMED, ROOT_FINGERPRINT; SITE_MISMATCH,
 *          KEY_PASSPHRASE_MISSING, KEY_PASSPHRASE_WRONG; ROOT_PINNED, ROLE_CONFLICT when it is not of this mirror's past; STORE_BUSY, SPACE_SHORT */
export async function restore(args: {
  file: string
  configFile: string
  isReplacing: boolean
  isConfirmed: boolean
  fingerprint: string | undefined
  passphrase: (() => Promise<string>) | undefined
  by: Actor
}): Promise<Restored> {
  const { file, configFile } = args
  const isConfigured = existsSync(configFile)
  const config = isConfigured ? readFileSync(configFile) : await configOf(file)
  const { storeDir } = parseMirrorConfig(config.toString('utf8'), configFile)
  if (!isConfigured) refuseOtherFolder(storeDir, configFile)
  const unlock = lockStore(storeDir)
  try {
    const blobs = new BlobStore(storeDir)
    blobs.sweep()
    const present = presentState(storeDir, args.isReplacing)
    const batch = blobs.batch()
    try {
      const found = await unpack(file, { storeDir, batch, signal: args.by.signal })
      if (present.state === undefined) confirm(found.state, args)
      const keys = await keysToPut(found.identity, { ...args, storeDir })
      const state = await merged(found.state, present.state, { file, storeDir })
      addRestoreRow(storeDir, state, { ...args, lost: present.head, boxes: present.boxes })
      await batch.commit()
      swapDatabase(storeDir)
      if (typeof keys !== 'string') putIdentity(storeDir, keys)
      const isConfigRestored = putConfig(configFile, config)
      return {
        site: state.site,
        store: storeDir,
        config: configFile,
        isConfigRestored,
        bundle: state.newest,
        blobs: found.blobs,
        isMerged: !serializeState({ ...state, generation: 0 }).equals(
          serializeState({ ...found.state, generation: 0 }),
        ),
        isMemoryLost: present.isThere && present.state === undefined,
        keys: typeof keys === 'string' ? keys : 'backup',
      }
    } finally {
      batch.discard()
      blobs.sweep()
    }
  } finally {
    unlock()
  }
}

const OF_A_STORE =
  /^(?:blobs|(?:identity|authority|delivery)\.(?:key|pem).*|mirror-identity\.json.*|staging|parity|writing\..*|catalog\.db.*|state\.json.*)$/

/** The backup names the store, and nobody has looked at the backup yet: it shall not sweep and fill just any folder. */
function refuseOtherFolder(storeDir: string, configFile: string): void {
  if (!existsSync(storeDir) || readdirSync(storeDir).every((name) => OF_A_STORE.test(name))) return
  throw new GapferryError(
    'STORE_EXISTS',
    `${storeDir}: the backup names this folder, and it holds no store of a mirror`,
    {
      hint: `write ${configFile} with another store: first`,
    },
  )
}

const RESTORED_DB = 'catalog.db'

/** Stages what the backup holds. @returns its state, which is that of its database */
async function unpack(
  file: string,
  { storeDir, batch, signal }: { storeDir: string; batch: BlobBatch; signal: AbortSignal },
): Promise<{ state: CatalogState; blobs: number; identity: Map<string, Collected> }> {
  const db = join(storeDir, STAGING, RESTORED_DB)
  const stateBytes = new Collected(MAX_STATE_BYTES, file)
  const fd = openSync(db, 'wx', 0o600)
  const finishing: (() => void)[] = []
  const identity = new Map<string, Collected>()
  let blobs = 0
  try {
    await readBackup(
      file,
      {
        onFile: ({ name, bytes, sha256 }) => {
          for (const finish of finishing.splice(0)) finish()
          if (name === 'state.json') return stateBytes
          if (name === 'catalog.db') return { write: (chunk) => writeAll(fd, chunk, db) }
          if (name === 'mirror.yaml') return undefined
          if (name === KEYS_FILE || IDENTITY_FILES.some((one) => one === name)) {
            const collected = new Collected(MAX_KEYS_BYTES, file)
            identity.set(name, collected)
            return collected
          }
          if (name !== `blobs/${sha256}`) throw damaged(file, `${name} has another digest`)
          const writer = batch.begin({ sha256: sha256 as Sha256, bytes, maxBytes: bytes })
          blobs += 1
          finishing.push(() => void writer.finish())
          return writer
        },
      },
      signal,
    )
    for (const finish of finishing.splice(0)) finish()
    fsyncSync(fd)
    return { state: checkedState(file, stateBytes.bytes(), db), blobs, identity }
  } finally {
    closeSync(fd)
  }
}

/** The state file and the database of a backup tell the same. */
function checkedState(file: string, bytes: Buffer, db: string): CatalogState {
  const state = explained(file, () => parseState(bytes, 'state.json'))
  const catalog = explained(file, () => Catalog.foreign(db))
  try {
    const own = explained(file, () => catalog.state())
    if (own !== undefined && serializeState(own).equals(bytes)) return state
    throw damaged(file, 'its database is not what its state says')
  } finally {
    catalog.close()
  }
}

async function merged(
  found: CatalogState,
  present: CatalogState | undefined,
  { file, storeDir }: { file: string; storeDir: string },
): Promise<CatalogState> {
  const fault = await verifyForeignState(found, join(storeDir, STAGING))
  if (fault !== undefined) throw damaged(file, fault.message, fault)
  return present === undefined ? found : mergeStates(found, present)
}

/** With nothing here that says which root is ours, a person has to, as at init. */
function confirm(
  { roots, site }: CatalogState,
  { isConfirmed, fingerprint }: { isConfirmed: boolean; fingerprint: string | undefined },
): void {
  const words = fingerprintWords(roots[0]!)
  if (fingerprint !== undefined && parseFingerprint(fingerprint) !== words) {
    throw new GapferryError('ROOT_FINGERPRINT', `backup of site ${site}: expected ${fingerprint}; found ${words}`, {
      hint: 'this backup is not of the site those words belong to',
    })
  }
  if (isConfirmed || fingerprint !== undefined) return
  throw new GapferryError('ROOT_NOT_CONFIRMED', `the backup would pin the root of site ${site}: ${words}`, {
    hint: 'compare it with what gapferry init showed on the laptop, then add --fingerprint "WORDS"',
  })
}

/** The merged state and the row go into the staged database. */
function addRestoreRow(
  storeDir: string,
  state: CatalogState,
  { file, by, lost, boxes }: { file: string; by: Actor; lost: AuditHead | undefined; boxes: readonly EnrolledBox[] },
): void {
  const catalog = new Catalog(join(storeDir, STAGING, RESTORED_DB))
  try {
    const isLost = lost !== undefined && lost.seq > 0 && !holds(catalog, lost)
    const asked = {
      command: 'restore',
      files: [basename(file)],
      ...(state.newest === null ? {} : { bundle: state.newest }),
      ...(isLost ? { lost: `${lost.seq}:${lost.hash}` } : {}),
    }
    audited({ catalog, by, asked }, () => {
      catalog.replaceState(state)
      catalog.enrolments.merge(boxes)
    })
  } finally {
    catalog.close()
  }
}

function holds(catalog: Catalog, head: AuditHead): boolean {
  try {
    catalog.audit.verify(head)
    return true
  } catch (error) {
    if (isGapferryError(error, 'AUDIT_BROKEN')) return false
    throw error
  }
}

/** The old database stays as catalog.db.replaced, with its log, which must never be taken for the new one's. */
function swapDatabase(storeDir: string): void {
  const file = catalogFile(storeDir)
  const old = `${file}.replaced`
  // Without a database a restore was ended here before: what it moved aside is the only copy.
  if (existsSync(file)) for (const end of ['', '-wal', '-shm']) rmSync(`${old}${end}`, { force: true })
  for (const end of ['', '-wal']) if (existsSync(`${file}${end}`)) renameSync(`${file}${end}`, `${old}${end}`)
  rmSync(`${file}-shm`, { force: true })
  syncFolder(storeDir)
  renameSync(join(storeDir, STAGING, RESTORED_DB), file)
  syncFolder(storeDir)
  const catalog = new Catalog(file)
  try {
    catalog.writeStateFile()
  } finally {
    catalog.close()
  }
}

function putConfig(configFile: string, bytes: Buffer): boolean {
  if (existsSync(configFile)) return false
  const fd = openSync(configFile, 'wx', 0o644)
  try {
    writeAll(fd, bytes, configFile)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  syncFolder(dirname(configFile))
  return true
}

async function configOf(file: string): Promise<Buffer> {
  const config = new Collected(MAX_CONFIG_BYTES, file)
  await readBackup(file, { onFile: ({ name }) => (name === 'mirror.yaml' ? config : undefined) })
  return config.bytes()
}

class Collected implements BackupConsumer {
  readonly #pieces: Buffer[] = []
  readonly #maxBytes: number
  readonly #file: string
  #bytes = 0

  constructor(maxBytes: number, file: string) {
    this.#maxBytes = maxBytes
    this.#file = file
  }

  write(chunk: Uint8Array): void {
    this.#bytes += chunk.length
    if (this.#bytes > this.#maxBytes) throw damaged(this.#file, `expected at most ${this.#maxBytes} bytes of one file`)
    this.#pieces.push(Buffer.from(chunk))
  }

  bytes(): Buffer {
    return Buffer.concat(this.#pieces)
  }
}

function explained<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED')) throw error
    throw damaged(file, error.message, error)
  }
}

function damaged(file: string, why: string, cause?: unknown): GapferryError {
  return new GapferryError('BACKUP_DAMAGED', `${file}: ${why}`, { hint: 'use another backup', cause })
}
