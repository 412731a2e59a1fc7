/**
 * Opens what the mirror's commands work on. Writers hold the store's lock from before they look until after they wrote.
 */
import { accessSync, constants, existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { BlobStore } from '../storage/blobs.ts'
import type { CatalogState } from '../storage/catalog-state.ts'
import { Catalog } from '../storage/catalog.ts'
import { lockStore } from '../storage/database.ts'
import { Releases } from '../storage/releases.ts'
import { isBehind, verifyState, type StateFault } from '../storage/state-check.ts'
import { readStateFile, stateFileOf } from '../storage/state-file.ts'

export interface MirrorStore {
  dir: string
  site: string
  catalog: Catalog
  blobs: BlobStore
  releases: Releases
  /** the folder for what is being written; emptied by the next writer after a crash */
  stagingDir: string
  /** the file beside the database has to be written anew */
  isStateBehind: boolean
  /** Also gives the lock back. */
  close(): void
}

/** What is served while the database is damaged: what was released, verified again from the pinned root on. */
export interface ReadOnlyStore extends MirrorStore {
  damage: GapferryError
  /** groups that are not served: their bundle could not be verified */
  faults: StateFault[]
}

/** The release of this program: no clock in the field may be behind it. */
const BUILD_DATE_MS = Date.UTC(2026, 10, 22)
const CLOCK_WARNING_MS = 86_400_000
export const STAGING = 'staging'

export function catalogFile(storeDir: string): string {
  return join(storeDir, 'catalog.db')
}

/** @throws STORE_MISSING where no root was pinned yet; STORE_DAMAGED, with the way out as its hint; what Catalog throws */
export function openStore(storeDir: string): MirrorStore {
  const file = catalogFile(storeDir)
  // Read first: what another process changes meanwhile then makes it look old, which is harmless.
  const beside = stateBeside(storeDir)
  if (!existsSync(file)) {
    if (beside === undefined) throw missing(storeDir)
    throw withWayOut(
      new GapferryError('STORE_DAMAGED', `${file}: the database is gone, state.json is still there`),
      file,
    )
  }
  try {
    return openFound(storeDir, new Catalog(file), beside)
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED')) throw error
    throw withWayOut(error, file)
  }
}

/** The same for a writer. What lies beside the database is brought up to date.
 *  @throws also STORE_BUSY when another run is writing */
export function openStoreForWriting(storeDir: string): MirrorStore {
  if (![catalogFile(storeDir), stateFileOf(storeDir)].some((file) => existsSync(file))) throw missing(storeDir)
  const unlock = lockStore(storeDir)
  try {
    const store = openStore(storeDir)
    if (store.isStateBehind) store.catalog.writeStateFile()
    const close = (): void => {
      store.close()
      unlock()
    }
    return { ...store, isStateBehind: false, close }
  } catch (error) {
    unlock()
    throw error
  }
}

/** The same for `serve` and `status`: where the database cannot be used, what was released is served from state.json.
 *  @throws what openStore throws, where state.json does not help either */
export async function openStoreToServe(storeDir: string): Promise<MirrorStore | ReadOnlyStore> {
  try {
    return openStore(storeDir)
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED', 'STORE_UNREADABLE', 'STORE_VERSION')) throw error
    const state = stateBeside(storeDir)
    if (state === undefined) throw error
    const blobs = new BlobStore(storeDir)
    const faults = await verifyState(state, scratchOf(storeDir))
    const releases = state.releases.filter(({ group }) => !faults.some((fault) => fault.group === group))
    const catalog = Catalog.inMemory({ ...state, releases })
    return { ...assembled(storeDir, { catalog, blobs, site: state.site }), damage: error, faults }
  }
}

/** A store on a disk that is mounted read-only is served, too. */
function scratchOf(storeDir: string): string {
  const staging = join(storeDir, STAGING)
  try {
    accessSync(staging, constants.W_OK)
    return staging
  } catch {
    return tmpdir()
  }
}

/** Writes state.json anew where nobody else is about to. @returns false when another run is writing */
export function healState(store: MirrorStore): boolean {
  if (!store.isStateBehind) return true
  try {
    const unlock = lockStore(store.dir)
    try {
      store.catalog.writeStateFile()
    } finally {
      unlock()
    }
    return true
  } catch (error) {
    if (isGapferryError(error, 'STORE_BUSY')) return false
    throw error
  }
}

function openFound(storeDir: string, catalog: Catalog, beside: CatalogState | undefined): MirrorStore {
  try {
    const state = catalog.state()
    const isStateBehind = isBehind(beside, state, catalogFile(storeDir))
    if (state === undefined) throw missing(storeDir)
    const blobs = new BlobStore(storeDir)
    return { ...assembled(storeDir, { catalog, blobs, site: state.site }), isStateBehind }
  } catch (error) {
    catalog.close()
    throw error
  }
}

function assembled(
  dir: string,
  { catalog, blobs, site }: Pick<MirrorStore, 'catalog' | 'blobs' | 'site'>,
): MirrorStore {
  const releases = new Releases(catalog, blobs)
  const close = (): void => catalog.close()
  return { dir, site, catalog, blobs, releases, stagingDir: join(dir, STAGING), isStateBehind: false, close }
}

/** What lies beside the database. A file that is damaged itself is no witness against the database: it is written anew. */
export function stateBeside(storeDir: string): CatalogState | undefined {
  try {
    return readStateFile(storeDir)
  } catch (error) {
    if (isGapferryError(error, 'STORE_DAMAGED')) return undefined
    throw error
  }
}

/** A damaged mirror's database and the next command. */
function withWayOut(error: GapferryError, file: string): GapferryError {
  return new GapferryError('STORE_DAMAGED', error.message, {
    cause: error,
    hint: `gapferry-mirror restore BACKUP --replace; without a backup move ${file}* away (not state.json), then gapferry-mirror init --trust ROOT.json`,
  })
}

/** No time before this can be right: an isolated machine's clock may be anywhere, but not before this program was made, nor
 *  before the newest adopted bundle was. The system clock never raises this floor: a clock set too far ahead must not
 *  lock the mirror for good. */
export function clockFloor(catalog: Catalog): number {
  return Math.max(BUILD_DATE_MS, catalog.newestBundle()?.createdAtMs ?? 0)
}

/** The system clock, but not before this program was made: what metadata is judged by, before any floor. */
export function earliestNow(systemMs: number): number {
  return Math.max(systemMs, BUILD_DATE_MS)
}

/** The time to judge by: the system clock's, or the floor where it is behind.
 *  @returns nowMs, and a warning where the system clock is more than a day behind */
export function judgeClock(catalog: Catalog, systemMs: number): { nowMs: number; warning: string | undefined } {
  const floorMs = clockFloor(catalog)
  if (systemMs >= floorMs - CLOCK_WARNING_MS) return { nowMs: Math.max(systemMs, floorMs), warning: undefined }
  const [system, floor] = [systemMs, floorMs].map((ms) => new Date(ms).toISOString().slice(0, 10))
  return {
    nowMs: floorMs,
    warning: `this machine's clock says ${system}, but it must be at least ${floor}: that date is used; set the clock`,
  }
}

function missing(storeDir: string): GapferryError {
  return new GapferryError('STORE_MISSING', `${storeDir}: there is no mirror's store here`, {
    hint: 'gapferry-mirror init --trust ROOT.json',
  })
}
