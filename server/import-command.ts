/**
 * `gapferry-mirror import` as a person meets it.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_EXPIRED_MS } from '../manifests/metadata.ts'
import { examples, PrintedError, print, talk, type Surroundings } from '../manifests/program.ts'
import { makeProgress, type ProgressStep } from '../manifests/progress.ts'
import { auditedRelease, importAudit } from './audit.ts'
import type { SeenFolder } from './find-parts.ts'
import type { ImportResult } from './import.ts'
import { damagedParts, incompleteBundle } from './incomplete.ts'
import { loweredWarnings } from './lowered.ts'
import {
  changesOf,
  renderDamaged,
  renderIgnored,
  renderImport,
  renderRelease,
  renderSeen,
  type GroupChange,
} from './render.ts'
import { formatIso, originWarnings } from './status.ts'
import type { StoreTools } from './store-commands.ts'
import { earliestNow, openStoreForWriting, type MirrorStore } from './store.ts'

const MAX_REASON_CHARS = 200
const DAY_MS = 86_400_000

export function addImport(program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  program
    .command('import')
    .description('verify a bundle and stage it; nothing served changes')
    .argument('<FILE or DIR...>', 'parts in any order, or where the stick is mounted')
    .option('--dry-run', 'verify everything, keep nothing')
    .option('--release', 'release the bundle once it is complete')
    .option('--accept-expired', `take it up to ${MAX_EXPIRED_MS / DAY_MS} days past its end; needs --reason`)
    .option('--reason <TEXT>', 'why, for the audit trail')
    .addHelpText('after', examples(program, 'import /media/stick', 'import --release /media/stick'))
    .action(async (inputs: string[], options: ImportOptions, command: Command) => {
      if (options.dryRun === true && options.release === true) {
        throw new GapferryError('USAGE_INVALID', '--dry-run and --release exclude each other', {
          hint: 'gapferry-mirror import --help',
        })
      }
      const expiredReason = parseReason(options)
      await withStore(around, command, openStoreForWriting, async (store, config, json) => {
        const nowMs = clockOf(store, around)
        const result = await stage(
          store,
          inputs,
          { isDryRun: options.dryRun === true, nowMs, clockMs: earliestNow(around.nowMs()), expiredReason },
          around,
        )
        const changes = changesOf(result, store.releases.served(Number.MAX_SAFE_INTEGER))
        for (const line of renderIgnored(result.ignored)) talk(around, line)
        for (const line of originWarnings(config, result.facts)) talk(around, `warning: ${line}`)
        for (const line of loweredWarnings(changes)) talk(around, `warning: ${line}`)
        const failure = failureOf(result)
        if (failure === undefined) for (const line of renderDamaged(result.damaged)) talk(around, `warning: ${line}`)
        const isReleasing = options.release === true && failure === undefined
        if (!json) print(around, renderImport(result, changes, isReleasing))
        const released = isReleasing ? auditedRelease(store, { number: result.number, nowMs }, around) : undefined
        if (json) print(around, JSON.stringify({ ...importObject(result, changes), released, ...errorOf(failure) }))
        else if (released !== undefined) print(around, renderRelease(released))
        else if (failure === undefined && !result.isDryRun && !isServed(store, result)) {
          talk(around, `next: gapferry-mirror release ${result.number}`)
        }
        if (failure !== undefined) throw json ? new PrintedError('incomplete', { cause: failure }) : failure
      })
    })
}

/** What is missing or, where that is why or nothing else was asked for, what is damaged. A bundle that is whole in spite of
 *  a damaged part is no failure. */
function failureOf({ number, missing, damaged, isDryRun }: ImportResult): GapferryError | undefined {
  if (damaged.length > 0 && (isDryRun || missing.length > 0)) return damagedParts(damaged, missing)
  return missing.length > 0 ? incompleteBundle(number, missing) : undefined
}

/** True when every group of the bundle is served from it already. */
function isServed(store: MirrorStore, { number, facts }: ImportResult): boolean {
  const served = store.releases.served(Number.MAX_SAFE_INTEGER)
  return [...facts.groups.keys()].every((group) => served.get(group)?.released?.number === number)
}

interface ImportOptions {
  dryRun?: boolean
  release?: boolean
  acceptExpired?: boolean
  reason?: string
}

/** Why an expired bundle may be taken; undefined where it may not.
 *  @throws USAGE_INVALID when only one of both options is there, or the reason says nothing */
function parseReason({ acceptExpired, reason }: ImportOptions): string | undefined {
  if (acceptExpired !== true && reason === undefined) return undefined
  const hint = { hint: 'gapferry-mirror import --accept-expired --reason TEXT FILE or DIR' }
  if (acceptExpired !== true || reason === undefined) {
    throw new GapferryError('USAGE_INVALID', '--accept-expired and --reason need each other', hint)
  }
  const text = reason.trim()
  // No control or format characters: the reason is read by people, beside dates and names that it must not seem to change.
  if (text.length > 0 && text.length <= MAX_REASON_CHARS && !/[\p{C}\p{Zl}\p{Zp}]/u.test(text)) return text
  throw new GapferryError('USAGE_INVALID', `--reason: expected 1 to ${MAX_REASON_CHARS} printable characters`, hint)
}

async function stage(
  store: MirrorStore,
  inputs: string[],
  options: { isDryRun: boolean; nowMs: number; clockMs: number; expiredReason: string | undefined },
  around: Surroundings,
): Promise<ImportResult> {
  const progress = makeProgress(around)
  let step: ProgressStep | undefined
  let shownBytes = 0
  const onProgress = (doneBytes: number, totalBytes: number): void => {
    step ??= progress.step('import', totalBytes)
    step.add(doneBytes - shownBytes)
    shownBytes = doneBytes
  }
  const { hooks, failed } = importAudit(store.catalog, around, inputs, options.expiredReason)
  try {
    const paths = inputs.map((input) => resolve(around.cwd, input))
    const { importParts } = await import('./import.ts') // what checks signatures is not loaded to serve
    const onSeen = (seen: SeenFolder): void => talk(around, renderSeen(seen))
    const request = { ...options, salvage: true, inputs: paths, onSeen, onProgress, signal: around.signal, hooks }
    return await importParts(store, request)
  } catch (error) {
    if (!options.isDryRun) failed(error)
    throw error
  } finally {
    step?.end()
  }
}

/** Of the trees only what would change is of interest outside. */
function importObject(result: ImportResult, changes: GroupChange[]): object {
  const { trees: _trees, facts: _facts, createdAtMs, expiresAtMs, ...rest } = result
  const isComplete = rest.missing.length === 0
  const damaged = rest.damaged.map(({ error, ...one }) => ({ ...one, code: error.code, message: error.message }))
  return { ...rest, damaged, isComplete, createdAt: formatIso(createdAtMs), expiresAt: formatIso(expiresAtMs), changes }
}

function errorOf(failure: GapferryError | undefined): object {
  return failure === undefined ? {} : errorObject(failure)
}
