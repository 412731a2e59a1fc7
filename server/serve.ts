/**
 * `gapferry-mirror serve`: the mirror, until it is told to end.
 */
import { once } from 'node:events'
import type { DestinationStream, Logger } from 'pino'
import { pino } from 'pino'
import { isGapferryError, redact, type GapferryError } from '../manifests/errors.ts'
import type { Actor } from '../storage/audited.ts'
import type { BoxInventories } from '../storage/box-inventories.ts'
import { ContactStore } from '../storage/contacts.ts'
import { lockStore } from '../storage/database.ts'
import { buildMirror, type OriginUrl } from './app.ts'
import { BoxAccess } from './box-access.ts'
import { boxListener, type BoxListener } from './box-listener.ts'
import type { Listener, MirrorConfig } from './config.ts'
import { Contacts } from './contacts.ts'
import {
  deploymentHmac,
  ensureIdentity,
  hasIdentity,
  readIdentity,
  type Identity,
  type ReportIdentity,
} from './identity.ts'
import { keepInventory, openInventories, takeInventories, type InventoryTaker } from './inventories.ts'
import { Licenses } from './licenses.ts'
import { errorFields } from './send.ts'
import { alarmsOf, type Alarm } from './status.ts'
import { clockFloor, healState, judgeClock, type MirrorStore, type ReadOnlyStore } from './store.ts'

export interface ServedUrls {
  admin: string
  origins: readonly OriginUrl[]
  /** null where boxes have no listener of their own */
  boxes: string | null
}

/** @param args.around  logs go to `stderr`; ends when `signal` is aborted
 *  @param args.onUp    told once every listener is open
 *  @throws LISTEN_FAILED; nothing is left open then */
export async function serve(args: {
  store: MirrorStore | ReadOnlyStore
  config: MirrorConfig
  around: Actor & { stderr: DestinationStream & { isTTY?: boolean } }
  onUp: (urls: ServedUrls) => void
}): Promise<void> {
  const { store, config, around, onUp } = args
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, logTo(around.stderr))
  const floorMs = clockFloor(store.catalog)
  const clock = (): number => Math.max(around.nowMs(), floorMs)
  const { listener: boxes, fault: boxesFault } = listenerOfBoxes({ store, config, around, log })
  const about = (): Parameters<typeof alarmsOf>[1] => ({
    nowMs: clock(),
    warnAfterDays: config.warnAfterDays,
    boxesFault,
  })
  for (const { name, text } of alarmsOf(store, about())) log.error({ alarm: name }, text)
  if (!healState(store)) log.info('another run is writing: it will bring state.json up to date')
  const contacts = openContacts(store, clock, log)
  const mirror = buildMirror({
    config,
    releases: store.releases,
    blobs: store.blobs,
    status: (number) => ({
      site: store.site,
      store: { path: store.dir },
      ...known(store, number, about()),
    }),
    clock,
    log,
    contacts,
    ...(config.takesInventories ? { inventories: inventoriesOf(store, { clock, log, nowMs: around.nowMs }) } : {}),
  })
  try {
    await mirror.listen()
    await boxes?.listen()
    onUp({ admin: mirror.adminUrl, origins: mirror.origins, boxes: boxes?.url ?? null })
    if (!around.signal.aborted) await once(around.signal, 'abort')
  } finally {
    await Promise.all([mirror.close(), boxes?.close()])
    contacts.close()
  }
  log.info('ended')
}

/** What boxes fetch without a certificate does not depend on it: where it cannot be, the log says so and the mirror serves.
 *  Nothing is delivered from a store whose database is damaged: who was revoked is not known then. */
function listenerOfBoxes(args: {
  store: MirrorStore | ReadOnlyStore
  config: MirrorConfig
  around: Actor
  log: Logger
}): { listener?: BoxListener; fault?: GapferryError } {
  const { store, config } = args
  if (config.boxes === undefined) return {}
  try {
    if ('damage' in store) throw store.damage
    return { listener: listenerFor({ ...args, store, listener: config.boxes }) }
  } catch (error) {
    if (!isGapferryError(error)) throw error
    return { fault: error }
  }
}

/** @throws STORE_DAMAGED, STORE_BUSY */
function listenerFor(args: { store: MirrorStore; listener: Listener; around: Actor; log: Logger }): BoxListener {
  const { store, listener, around, log } = args
  const { nowMs } = judgeClock(store.catalog, around.nowMs())
  const identity = hasIdentity(store.dir) ? ensureIdentity(store, nowMs) : madeIdentity(store, nowMs)
  const inventories = openInventories(store.dir, store.site, identity)
  const access = new BoxAccess({
    store,
    identity,
    around,
    log,
    licenses: new Licenses(store, identity),
    keepInventory: (inventory) => void keepInventory(inventories, inventory),
  })
  return boxListener({ listener, site: store.site, authority: identity.authority, access, log })
}

/** Whatever state `contacts.db` is in, boxes are served. */
function openContacts({ dir, site }: Pick<MirrorStore, 'dir' | 'site'>, clock: () => number, log: Logger): Contacts {
  const onDamage = (error: unknown): void =>
    log.warn(errorFields(error), 'contacts.db was damaged: what it knew of boxes that asked is gone, it begins anew')
  const identity = soundIdentity(dir)
  return new Contacts({
    open: (isDamaged) => new ContactStore(dir, { onDamage, isDamaged }),
    clock,
    log,
    deploymentOf: (id) => (identity === undefined ? null : deploymentHmac(identity, site, id)),
  })
}

function soundIdentity(dir: string): ReportIdentity | undefined {
  try {
    return readIdentity(dir)
  } catch (error) {
    if (isGapferryError(error)) return undefined
    throw error
  }
}

/** A store that is older than identities gets one with its first inventory; a damaged one takes none. */
function inventoriesOf(
  store: MirrorStore | ReadOnlyStore,
  { clock, log, nowMs }: { clock: () => number; log: Logger; nowMs: () => number },
): InventoryTaker {
  const open = (): BoxInventories => {
    const identity = readIdentity(store.dir) ?? madeIdentity(store, nowMs())
    return openInventories(store.dir, store.site, identity)
  }
  return takeInventories({ open, clock, log })
}

function madeIdentity(store: MirrorStore, nowMs: number): Identity {
  const unlock = lockStore(store.dir)
  try {
    return ensureIdentity(store, nowMs)
  } finally {
    unlock()
  }
}

/** What the catalogue says of the newest bundle that is served; where it cannot be read any more, that. */
function known(
  store: MirrorStore | ReadOnlyStore,
  number: number | null,
  age: Parameters<typeof alarmsOf>[1],
): { createdAtMs: number | null; alarms: Alarm[] } {
  try {
    const createdAtMs = number === null ? null : (store.catalog.bundle(number)?.createdAtMs ?? null)
    return { createdAtMs, alarms: alarmsOf(store, age) }
  } catch (error) {
    const text = `the database cannot be read any more; serving what was released before: ${String(error)}`
    return { createdAtMs: null, alarms: [{ name: 'DATABASE_DAMAGED', text }] }
  }
}

/** JSON lines for a log collector; on a terminal the same as a person reads it: time, what, about what. */
function logTo(stderr: DestinationStream & { isTTY?: boolean }): DestinationStream {
  if (stderr.isTTY !== true) return stderr
  return {
    write: (line) => {
      const { level, time, msg, ...about } = JSON.parse(line) as { level: number; time: string; msg: string }
      const facts = Object.entries(about).map(
        ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
      )
      const weight =
        level >= pino.levels.values['error']! ? 'ERROR ' : level >= pino.levels.values['warn']! ? 'warning: ' : ''
      stderr.write(`${redact([time.slice(11, 19), `${weight}${msg}`, ...facts].join('  '))}\n`)
    },
  }
}
