/**
 * The rows that the mirror's changes leave; how they are written: storage/audited.ts.
 */
import { basename } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { formatTime, parseRoot, type RootFile } from '../manifests/metadata.ts'
import type { AuditWhat } from '../storage/audit.ts'
import {
  appendRow,
  audited as auditedIn,
  noteSettings as noteSettingsIn,
  recordFailure,
  type Actor,
  type AuditedStore,
  type NotedSettings,
} from '../storage/audited.ts'
import type { Catalog } from '../storage/catalog.ts'
import type { ReleaseResult, Releases, RollbackResult } from '../storage/releases.ts'
import { settingsDigests, type MirrorConfig } from './config.ts'
import type { ImportHooks } from './import.ts'
import { judgeClock, type MirrorStore } from './store.ts'

/** `Releases.release`, with its row.
 *  @param args.number  default: the bundle that was imported last
 *  @throws also RELEASE_NOTHING when nothing was imported */
export function auditedRelease(
  { catalog, releases }: MirrorStore,
  args: Partial<Parameters<Releases['release']>[0]> & { nowMs: number },
  by: Actor,
): ReleaseResult {
  const number = args.number ?? catalog.newestBundle()?.number
  const bundle = number === undefined ? {} : { bundle: number }
  const asked = { command: 'release', ...bundle, ...groupsOf(args) }
  const done = ({ released, already }: ReleaseResult): AuditWhat[] => [
    { ...asked, groups: [...released, ...already].sort() },
  ]
  return audited({ catalog, by, asked, done }, () => {
    if (number !== undefined) return releases.release({ ...args, number })
    throw new GapferryError('RELEASE_NOTHING', 'nothing has been imported yet', {
      hint: 'gapferry-mirror import FILE or DIR',
    })
  })
}

/** `Releases.rollback`, with a row for each bundle that groups were served from. */
export function auditedRollback(
  { catalog, releases }: MirrorStore,
  args: Parameters<Releases['rollback']>[0],
  by: Actor,
): RollbackResult {
  const command = args.role === 'return' ? 'rollback --return' : 'rollback'
  const done = ({ groups }: RollbackResult): AuditWhat[] =>
    [...Map.groupBy(groups, ({ number }) => number)].map(([bundle, rows]) => ({
      command,
      bundle,
      groups: rows.map(({ group }) => group),
    }))
  return audited({ catalog, by, asked: { command, ...groupsOf(args) }, done }, () => releases.rollback(args))
}

/** `audited` of storage/audited.ts. @param args.catalog  `change` writes through it only */
export function audited<T>(
  { catalog, ...args }: { catalog: Catalog } & Omit<Parameters<typeof auditedIn<T>>[0], 'store'>,
  change: () => T,
): T {
  return auditedIn({ store: storeOf(catalog), ...args }, change)
}

/** A row where mirror.yaml has other content than when a run looked last: `noteSettings` of storage/audited.ts. */
export function noteSettings(catalog: Catalog, { file }: Pick<MirrorConfig, 'file'>, by: Actor): void {
  noteSettingsIn(storeOf(catalog), file, settingsDigests(file), by)
}

/** The rows of one import: one for each part that is kept, and one for what ended it early.
 *  @returns hooks for importParts, and what to call with what it threw */
export function importAudit(
  catalog: Catalog,
  by: Actor,
  inputs: string[],
  expiredReason: string | undefined,
): { hooks: ImportHooks; failed: (error: unknown) => void } {
  const store = storeOf(catalog)
  let files = inputs.map((input) => basename(input))
  const reason = expiredReason === undefined ? {} : { reason: expiredReason }
  const what = (more: Omit<AuditWhat, 'command' | 'files'> = {}): AuditWhat => ({
    command: 'import',
    ...more,
    files,
    ...reason,
  })
  return {
    hooks: {
      onPart: (file) => void (files = [basename(file)]),
      onRefused: (file, error) => {
        files = [basename(file)]
        recordFailure(store, by, what(), error)
      },
      onAdopted: ({ metadata, facts }, { isComplete, rootsBefore }) => {
        const { number, isExpired, expiresAtMs, state } = metadata
        const expired = isExpired ? { expired: formatTime(expiresAtMs) } : {}
        const bundle = { bundle: number, groups: [...facts.groups.keys()].sort(), ...expired }
        appendRow(store, by, what(bundle), isComplete ? 'ok' : 'BUNDLE_INCOMPLETE')
        if (state.roots.length > rootsBefore) appendRow(store, by, keyChange(state.roots, rootsBefore), 'ok')
      },
    },
    failed: (error) => recordFailure(store, by, what(), error),
  }
}

/** Which roots came, and what they changed: `<role> <key id>`. */
function keyChange(roots: readonly Buffer[], before: number): AuditWhat {
  const [old, ...fresh] = roots.slice(before - 1).map((bytes) => parseRoot(bytes, 'root'))
  const [had, has] = [keysOf(old!), keysOf(fresh.at(-1)!)]
  return {
    command: 'keys',
    roots: fresh.map(({ version }) => version),
    added: has.filter((key) => !had.includes(key)),
    removed: had.filter((key) => !has.includes(key)),
  }
}

function keysOf({ metadata }: RootFile): string[] {
  return Object.entries(metadata.signed.roles).flatMap(([role, { keyIDs }]) => keyIDs.map((id) => `${role} ${id}`))
}

function groupsOf({ groups }: { groups?: string[] }): { groups?: string[] } {
  return groups === undefined ? {} : { groups }
}

/** Rows have the time that the mirror judges by. */
export function storeOf(catalog: Catalog): AuditedStore & NotedSettings {
  return {
    audit: catalog.audit,
    write: (work) => catalog.write(work),
    judgeMs: (systemAtMs) => judgeClock(catalog, systemAtMs).nowMs,
    notedSettings: () => catalog.notedSettings(),
    noteSettings: (settings) => catalog.noteSettings(settings),
  }
}
