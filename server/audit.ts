/**
 * Writing the audit trail: a change and its row are one transaction; what was refused leaves its row after the refusal.
 */
import { basename } from 'node:path'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { withCode } from '../manifests/system-error.ts'
import { talk, type Surroundings } from '../manifests/program.ts'
import type { AuditWhat } from '../storage/audit.ts'
import type { Catalog } from '../storage/catalog.ts'
import type { ReleaseResult, Releases, RollbackResult } from '../storage/releases.ts'
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

/** The rows of one import: one for each part that is kept, and one for what ended it early.
 *  @returns hooks for importParts, and what to call with what it threw */
export function importAudit(
  catalog: Catalog,
  by: Actor,
  inputs: string[],
): { hooks: ImportHooks; failed: (error: unknown) => void } {
  let files = inputs.map((input) => basename(input))
  const what = (more: Omit<AuditWhat, 'command' | 'files'> = {}): AuditWhat => ({ command: 'import', ...more, files })
  return {
    hooks: {
      onPart: (file) => void (files = [basename(file)]),
      onAdopted: ({ metadata, facts }, isComplete) => {
        const bundle = { bundle: metadata.number, groups: [...facts.groups.keys()].sort() }
        append(catalog, by, what(bundle), isComplete ? 'ok' : 'BUNDLE_INCOMPLETE')
      },
    },
    failed: (error) => recordFailure(catalog, by, what(), error),
  }
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
