/**
 * Opens what the mirror's commands work on. Writers hold the store's lock from before they look until after they wrote.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { BlobStore } from '../storage/blobs.ts'
import { Catalog } from '../storage/catalog.ts'
import { lockStore } from '../storage/database.ts'
import { Releases } from '../storage/releases.ts'

export interface MirrorStore {
  dir: string
  site: string
  catalog: Catalog
  blobs: BlobStore
  releases: Releases
  /** the folder for what is being written; emptied by the next writer after a crash */
  stagingDir: string
  /** Also gives the lock back. */
  close(): void
}

/** The release of this program: no clock in the field may be behind it. */
const BUILD_DATE_MS = Date.UTC(2026, 10, 22)
const CLOCK_WARNING_MS = 86_400_000

export function catalogFile(storeDir: string): string {
  return join(storeDir, 'catalog.db')
}

/** @throws STORE_MISSING where no root was pinned yet; what Catalog throws */
export function openStore(storeDir: string): MirrorStore {
  const file = catalogFile(storeDir)
  if (!existsSync(file)) throw missing(storeDir)
  const catalog = new Catalog(file)
  try {
    const site = catalog.site()
    if (site === undefined) throw missing(storeDir)
    const blobs = new BlobStore(storeDir)
    const close = (): void => catalog.close()
    const stagingDir = join(storeDir, 'staging')
    return { dir: storeDir, site, catalog, blobs, releases: new Releases(catalog, blobs), stagingDir, close }
  } catch (error) {
    catalog.close()
    throw error
  }
}

/** The same for a writer.
 *  @throws also STORE_BUSY when another run is writing */
export function openStoreForWriting(storeDir: string): MirrorStore {
  if (!existsSync(catalogFile(storeDir))) throw missing(storeDir)
  const unlock = lockStore(storeDir)
  try {
    const store = openStore(storeDir)
    const close = (): void => {
      store.close()
      unlock()
    }
    return { ...store, close }
  } catch (error) {
    unlock()
    throw error
  }
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
