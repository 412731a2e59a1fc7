/**
 * Writing the audit trail: a change and its row are one transaction; what was refused leaves its row after the refusal.
 */
import { basename } from 'node:path'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { formatTime, parseRoot, type RootFile } from '../manifests/metadata.ts'
import { withCode } from '../manifests/system-error.ts'
import { talk, type Surroundings } from '../manifests/program.ts'
import type { AuditWhat } from '../storage/audit.ts'
import type { Catalog } from '../storage/catalog.ts'
import type { ReleaseResult, Releases, RollbackResult } from '../storage/releases.ts'
import { settingsDigests, type MirrorConfig } from './config.ts'
import type { ImportHooks } from './import.ts'
import { judgeClock, type MirrorStore } from './store.ts'

/** Who runs the command, by which clock, and where a warning is said. */
export type Actor = Pick<Surroundings, 'user' | 'nowMs' | 'signal' | 'stderr'>

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

/** Runs `change` with its rows in one transaction; when it throws, a row says so.
 *  @param asked   what the row says of a change that failed
 *  @param change  writes through `catalog` only
 *  @param done    what was done, a row for each; default: what was asked
 *  @throws what `change` throws */
export function audited<T>(
  args: { catalog: Catalog; by: Actor; asked: AuditWhat; done?: (result: T) => AuditWhat[] },
  change: () => T,
): T {
  const { catalog, by, asked, done } = args
  try {
    return catalog.write(() => {
      const result = change()
      for (const what of done?.(result) ?? [asked]) append(catalog, by, what, 'ok')
      return result
    })
  } catch (error) {
    recordFailure(catalog, by, asked, error)
    throw error
  }
}

/** A row where mirror.yaml has other content than when a run looked last; the first run only looks. A store that cannot take
 *  the row only adds a warning: `serve` must not fall over for it. */
export function noteSettings(catalog: Catalog, { file }: Pick<MirrorConfig, 'file'>, by: Actor): void {
  const now = settingsDigests(file)
  try {
    const before = catalog.notedSettings()
    if (before.get('') === now.get('')) return
    const keys = [...new Set([...before.keys(), ...now.keys()])].filter((key) => key !== '')
    const changed = keys.filter((key) => before.get(key) !== now.get(key)).sort()
    catalog.write(() => {
      catalog.noteSettings(now)
      const what = { command: 'settings', files: [basename(file)], sha256: now.get('')!, changed }
      if (before.size > 0) append(catalog, by, what, 'ok')
    })
  } catch (error) {
    if (!isGapferryError(error)) throw error
    talk(by, `warning: the audit trail could not be written: ${error.message}`)
  }
}

/** The rows of one import: one for each part that is kept, and one for what ended it early.
 *  @returns hooks for importParts, and what to call with what it threw */
export function importAudit(
  catalog: Catalog,
  by: Actor,
  inputs: string[],
  expiredReason: string | undefined,
): { hooks: ImportHooks; failed: (error: unknown) => void } {
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
      onAdopted: ({ metadata, facts }, { isComplete, rootsBefore }) => {
        const { number, isExpired, expiresAtMs, state } = metadata
        const expired = isExpired ? { expired: formatTime(expiresAtMs) } : {}
        const bundle = { bundle: number, groups: [...facts.groups.keys()].sort(), ...expired }
        append(catalog, by, what(bundle), isComplete ? 'ok' : 'BUNDLE_INCOMPLETE')
        if (state.roots.length > rootsBefore) append(catalog, by, keyChange(state.roots, rootsBefore), 'ok')
      },
    },
    failed: (error) => recordFailure(catalog, by, what(), error),
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

function append(catalog: Catalog, by: Actor, what: AuditWhat, result: string): void {
  const systemAtMs = by.nowMs()
  const { nowMs: atMs } = judgeClock(catalog, systemAtMs)
  catalog.audit.append({ atMs, systemAtMs, who: by.user ?? 'unknown', what, result })
}

/** The failure itself is what a person has to hear: a store that cannot take the row either only adds a warning. */
function recordFailure(catalog: Catalog, by: Actor, what: AuditWhat, failure: unknown): void {
  try {
    append(catalog, by, what, resultOf(failure, by))
  } catch (error) {
    if (!isGapferryError(error)) throw error
    talk(by, `warning: the audit trail could not be written: ${error.message}`)
  }
}

function resultOf(failure: unknown, by: Actor): string {
  const coded = withCode(failure)
  if (isGapferryError(coded)) return coded.code
  return by.signal.aborted ? 'interrupted' : 'INTERNAL'
}
