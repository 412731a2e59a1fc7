/**
 * Changes and their rows in the audit trail. What changes the database is one transaction with its row; what changes files
 * has its row right after. What was refused has a row, too.
 */
import { basename } from 'node:path'
import { isGapferryError } from '../manifests/errors.ts'
import { PrintedError, talk, type Surroundings } from '../manifests/program.ts'
import { withCode } from '../manifests/system-error.ts'
import type { AuditTrail, AuditWhat } from './audit.ts'

/** Who runs the command, by which clock, and where a warning is said. */
export type Actor = Pick<Surroundings, 'user' | 'nowMs' | 'signal' | 'stderr'>

/** The store whose trail it is. */
export interface AuditedStore {
  audit: AuditTrail
  /** Runs `work` in one transaction. */
  write<T>(work: () => T): T
  /** The time that is judged by, of what the system clock says; default: what it says. */
  judgeMs?(systemAtMs: number): number
}

/** The settings as they were when a run looked last: name → SHA-256, `''` for the whole file. Empty before the first look. */
export interface NotedSettings {
  notedSettings(): Map<string, string>
  noteSettings(settings: ReadonlyMap<string, string>): void
}

/** Runs `change` with its rows in one transaction; when it throws, a row says so.
 *  @param asked   what the row says of a change that failed
 *  @param change  writes to the store's database only
 *  @param done    what was done, a row for each; default: what was asked
 *  @throws what `change` throws */
export function audited<T>(
  args: { store: AuditedStore; by: Actor; asked: AuditWhat; done?: (result: T) => AuditWhat[] },
  change: () => T,
): T {
  const { store, by, asked, done } = args
  try {
    return store.write(() => {
      const result = change()
      for (const what of done?.(result) ?? [asked]) appendRow(store, by, what, 'ok')
      return result
    })
  } catch (error) {
    recordFailure(store, by, asked, error)
    throw error
  }
}

/** The same for a change of files, with one row after it. A crash in between leaves the change without it.
 *  @param done  what was done, or what is known of it when it failed
 *  @throws what `change` throws; where the row cannot be written, that */
export async function auditedAfter<T>(
  args: { store: AuditedStore; by: Actor; asked: AuditWhat; done?: (result: T | undefined) => AuditWhat },
  change: () => Promise<T>,
): Promise<T> {
  const { store, by, asked, done = () => asked } = args
  let result: T
  try {
    result = await change()
  } catch (error) {
    recordFailure(store, by, done(undefined), error)
    throw error
  }
  appendRow(store, by, done(result), 'ok')
  return result
}

/** A row where the settings have other content than when a run looked last; the first run only looks. A store that cannot
 *  take the row only adds a warning: `serve` must not fall over for it.
 *  @param now  as NotedSettings has them */
export function noteSettings(
  store: AuditedStore & NotedSettings,
  file: string,
  now: ReadonlyMap<string, string>,
  by: Actor,
): void {
  warnOnly(by, () => {
    const before = store.notedSettings()
    if (before.get('') === now.get('')) return
    const keys = [...new Set([...before.keys(), ...now.keys()])].filter((key) => key !== '')
    const changed = keys.filter((key) => before.get(key) !== now.get(key)).sort()
    store.write(() => {
      store.noteSettings(now)
      const what = { command: 'settings', files: [basename(file)], sha256: now.get('')!, changed }
      if (before.size > 0) appendRow(store, by, what, 'ok')
    })
  })
}

/** As part of the transaction that is open, else in one of its own. */
export function appendRow(store: AuditedStore, by: Actor, what: AuditWhat, result: string): void {
  const systemAtMs = by.nowMs()
  const atMs = store.judgeMs?.(systemAtMs) ?? systemAtMs
  store.audit.append({ atMs, systemAtMs, who: by.user ?? 'unknown', what, result })
}

/** The failure itself is what a person has to hear: a store that cannot take the row either only adds a warning. */
export function recordFailure(store: AuditedStore, by: Actor, what: AuditWhat, failure: unknown): void {
  warnOnly(by, () => appendRow(store, by, what, resultOf(failure, by)))
}

function warnOnly(by: Actor, work: () => void): void {
  try {
    work()
  } catch (error) {
    if (!isGapferryError(error)) throw error
    talk(by, `warning: the audit trail could not be written: ${error.message}`)
  }
}

function resultOf(failure: unknown, by: Actor): string {
  const error = withCode(failure instanceof PrintedError ? failure.cause : failure)
  if (isGapferryError(error)) return error.code
  return by.signal.aborted ? 'interrupted' : 'INTERNAL'
}
