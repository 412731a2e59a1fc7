/**
 * The rows that the laptop's changes leave in its trail, which is part of the store's `ledger.db`; how they are written:
 * storage/audited.ts. Keys and settings are files that a person may change by hand: each run that changes something looks
 * first whether they are what they were, so that such a change has its row, too.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { isGapferryError } from '../manifests/errors.ts'
import type { AuditWhat } from '../storage/audit.ts'
import {
  appendRow,
  auditedAfter,
  noteSettings,
  recordFailure,
  type Actor,
  type AuditedStore,
  type NotedSettings,
} from '../storage/audited.ts'
import { Ledger } from '../storage/ledger.ts'
import { settingsDigests, type Fleet } from './config.ts'
import { BUNDLE_ROLES, loadRoots, siteFolder } from './keys/key-folder.ts'
import { keysOf } from './keys/root-change.ts'
import { publishedKeys } from './keys/site-key.ts'

type Place = Pick<Fleet, 'file' | 'storeDir' | 'keysDir'> & { sites: readonly { name: string }[] }

/** Opens the ledger, looks at settings and keys, and closes it whatever happens.
 *  @throws what `work` throws; STORE_* */
export async function withLedger<T>(fleet: Place, by: Actor, work: (ledger: Ledger) => Promise<T> | T): Promise<T> {
  mkdirSync(fleet.storeDir, { recursive: true, mode: 0o700 })
  const ledger = new Ledger(join(fleet.storeDir, 'ledger.db'))
  try {
    noteLaptop(fleet, ledger, by)
    return await work(ledger)
  } finally {
    ledger.close()
  }
}

/** Rows where settings or keys are not what they were when a run looked last. */
export function noteLaptop(fleet: Place, ledger: Ledger, by: Actor): void {
  const store = storeOf(ledger)
  if (existsSync(fleet.file)) noteSettings(store, fleet.file, settingsDigests(fleet.file), by)
  for (const { name } of fleet.sites) noteKeys(fleet, ledger, by, name)
}

/** A change of files on the laptop, with its row.
 *  @param done  what was done; default: what was asked
 *  @throws what `change` throws; where the row cannot be written, that */
export function auditedOnLaptop<T>(
  ledger: Ledger,
  by: Actor,
  asked: AuditWhat,
  change: () => Promise<T>,
  done: (result: T) => AuditWhat = () => asked,
): Promise<T> {
  const what = (result: T | undefined): AuditWhat => (result === undefined ? asked : done(result))
  return auditedAfter({ store: storeOf(ledger), by, asked, done: what }, change)
}

/** A row for what was done in the transaction that is open. */
export function appendDone(ledger: Ledger, by: Actor, what: AuditWhat): void {
  appendRow(storeOf(ledger), by, what, 'ok')
}

/** A change of a site's keys, with its row: which roots, and which keys came and went. A root that still lacks signatures
 *  has the result ROOT_PENDING.
 *  @param change  @returns further fields of the row
 *  @throws what `change` throws */
export async function auditedKeys(
  fleet: Place,
  by: Actor,
  asked: AuditWhat & { site: string },
  change: (ledger: Ledger) => Promise<Partial<AuditWhat> | void>,
): Promise<void> {
  await withLedger(fleet, by, async (ledger) => {
    const store = storeOf(ledger)
    const before = keysNow(fleet.keysDir, asked.site)
    const what = (more: Partial<AuditWhat> = {}): AuditWhat => {
      const now = keysNow(fleet.keysDir, asked.site)
      ledger.note(kindOf(asked.site), now)
      return { ...asked, ...keyChange(before, now), ...more }
    }
    try {
      const more = await change(ledger)
      ledger.write(() => appendRow(store, by, what(more ?? {}), 'ok'))
    } catch (error) {
      recordFailure(store, by, what(), error)
      throw error
    }
  })
}

/** What was changed without a command of this laptop, as by a root that another laptop wrote; the first run only looks. */
function noteKeys(fleet: Place, ledger: Ledger, by: Actor, site: string): void {
  const before = ledger.noted(kindOf(site))
  const now = keysNow(fleet.keysDir, site)
  const change = keyChange(before, now)
  if (now.size === 0 || Object.keys(change).length === 0) return
  ledger.write(() => {
    ledger.note(kindOf(site), now)
    if (before.size > 0) appendRow(storeOf(ledger), by, { command: 'keys', site, ...change }, 'ok')
  })
}

/** `<role> <key id>` of every key that counts → its state. Empty where there are none, or none that can be read: the
 *  command at hand says why. */
function keysNow(dir: string, site: string): Map<string, string> {
  if (!existsSync(siteFolder(dir, site))) return new Map()
  try {
    const { root } = loadRoots(dir, site)
    const roles = [...new Set(['root' as const, ...BUNDLE_ROLES])]
    const named = roles.flatMap((role) => keysOf(root, role).keyids.map((id) => `${role} ${id}`))
    const openpgp = publishedKeys(dir, site).map((key) => [`openpgp ${key.fingerprint}`, key.state] as const)
    return new Map([['version', String(root.version)], ...named.map((key) => [key, ''] as const), ...openpgp])
  } catch (error) {
    if (isGapferryError(error)) return new Map()
    throw error
  }
}

function keyChange(
  before: ReadonlyMap<string, string>,
  now: ReadonlyMap<string, string>,
): Pick<AuditWhat, 'roots' | 'added' | 'removed' | 'changed'> {
  const [old, own] = [before, now].map((keys) => Number(keys.get('version') ?? 0)) as [number, number]
  const withState = (key: string): string => (now.get(key) === 'waiting' ? `${key} waiting` : key)
  const lists = {
    roots: Array.from({ length: Math.max(0, own - old) }, (_, i) => old + 1 + i),
    added: keysIn(now)
      .filter((key) => !before.has(key))
      .map(withState),
    removed: keysIn(before).filter((key) => !now.has(key)),
    changed: keysIn(now)
      .filter((key) => before.has(key) && before.get(key) !== now.get(key))
      .map((key) => `${key} ${now.get(key)}`),
  }
  return Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0))
}

function keysIn(keys: ReadonlyMap<string, string>): string[] {
  return [...keys.keys()].filter((key) => key !== 'version')
}

function kindOf(site: string): string {
  return `keys ${site}`
}

function storeOf(ledger: Ledger): AuditedStore & NotedSettings {
  return {
    audit: ledger.audit,
    write: (work) => ledger.write(work),
    notedSettings: () => ledger.noted('settings'),
    noteSettings: (settings) => ledger.note('settings', settings),
  }
}
