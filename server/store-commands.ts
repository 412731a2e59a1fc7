/**
 * `gapferry-mirror verify` and `prune`: what lies in the store, and what need not lie there any more.
 */
import type { Command } from 'commander'
import { errorObject, formatBytes, formatTable, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, PrintedError, print, talk, type Surroundings } from '../manifests/program.ts'
import { makeProgress, type ProgressStep } from '../manifests/progress.ts'
import type { AuditWhat } from '../storage/audit.ts'
import type { BlobFault } from '../storage/blob-check.ts'
import { missingBytes } from '../storage/completeness.ts'
import { carryOutPrune, planPrune, type PrunePlan } from '../storage/prune.ts'
import { checkStore, type RottenBlob, type Soundness } from '../storage/soundness.ts'
import { audited } from './audit.ts'
import { incompleteBundle } from './incomplete.ts'
import type { MirrorConfig } from './config.ts'
import { openStore, openStoreForWriting, type MirrorStore } from './store.ts'

/** How commands get at the store; commands.ts has them. */
export interface StoreTools {
  withStore: (
    around: Surroundings,
    command: Command,
    open: (dir: string) => MirrorStore | Promise<MirrorStore>,
    work: (store: MirrorStore, config: MirrorConfig, json: boolean) => Promise<void>,
  ) => Promise<void>
  clockOf: (store: MirrorStore, around: Surroundings) => number
}

/** Lists on a terminal end here; `--json` has all of it. */
const MAX_ROWS = 20
const MAX_KEEP = 1000
const DEFAULT_KEEP = '3'
const HOUR_MS = 3_600_000
const FAULTS: Record<BlobFault, string> = {
  missing: 'is missing',
  size: 'has another size',
  digest: 'has other bytes',
  unreadable: 'cannot be read',
}

export function addStoreCommands(program: Command, around: Surroundings, tools: StoreTools): void {
  addVerify(program, around, tools)
  addPrune(program, around, tools)
}

function addVerify(program: Command, around: Surroundings, { withStore }: StoreTools): void {
  program
    .command('verify')
    .description('read every file in the store that a bundle names, and say which are not as they were signed')
    .addHelpText('after', examples(program, 'verify', 'verify --json'))
    .action(async (_options: object, command: Command) => {
      await withStore(around, command, openStore, async (store, _config, json) => {
        const found = await check(store, around)
        const failure = failureOf(found, store.catalog.newestBundle()?.number)
        if (!json) print(around, renderSoundness(found))
        else {
          const error = failure === undefined ? {} : errorObject(failure)
          print(around, JSON.stringify({ ...found, isSound: found.rotten.length === 0, ...error }))
        }
        if (failure !== undefined) throw json ? new PrintedError('not sound or not whole', { cause: failure }) : failure
      })
    })
}

async function check(store: MirrorStore, around: Surroundings): Promise<Soundness> {
  const progress = makeProgress(around)
  const steps: ProgressStep[] = []
  let shownTotal = -1
  const onBytes = (bytes: number, totalBytes: number): void => {
    if (totalBytes !== shownTotal) {
      steps.at(-1)?.end()
      steps.push(progress.step(steps.length === 0 ? 'trees' : 'files', totalBytes))
      shownTotal = totalBytes
    }
    steps.at(-1)?.add(bytes)
  }
  try {
    return await checkStore(store, { onBytes, signal: around.signal })
  } finally {
    steps.at(-1)?.end()
  }
}

function addPrune(program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  program
    .command('prune')
    .description(
      'forget old bundles and remove the files that nothing needs any more; without --yes only says what it would do',
    )
    .option('--keep <N>', 'how many of the newest bundles stay, besides what is served', DEFAULT_KEEP)
    .option('--yes', 'do it')
    .addHelpText('after', examples(program, 'prune', 'prune --keep 2 --yes'))
    .action(async (options: { keep: string; yes?: boolean }, command: Command) => {
      const keep = parseKeep(options.keep)
      await withStore(around, command, openStoreForWriting, async (store, { keepPreviousHours }, json) => {
        const nowMs = clockOf(store, around)
        const plan = planPrune(store, { keep, keepPreviousMs: keepPreviousHours * HOUR_MS, nowMs })
        const isDone = options.yes === true
        if (isDone)
          await carryOutPrune(store, plan, { forget: () => auditedForget(store, plan, around), signal: around.signal })
        const { kept, forgotten, blobs, bytes } = plan
        print(
          around,
          json ? JSON.stringify({ isDone, kept, forgotten, blobs: blobs.length, bytes }) : renderPrune(plan),
        )
        if (!json && !isDone && forgotten.length + blobs.length > 0) {
          const words = options.keep === DEFAULT_KEEP ? '' : ` --keep ${keep}`
          talk(around, `nothing was removed; next: gapferry-mirror prune${words} --yes`)
        }
      })
    })
}

/** The rows go with a row for each bundle in the audit trail. */
function auditedForget({ catalog }: MirrorStore, { forgotten }: PrunePlan, around: Surroundings): void {
  const asked = { command: 'prune' }
  const done = (): AuditWhat[] => (forgotten.length === 0 ? [asked] : forgotten.map((bundle) => ({ ...asked, bundle })))
  audited({ catalog, by: around, asked, done }, () => catalog.forget(forgotten))
}

function parseKeep(text: string): number {
  const keep = /^[1-9][0-9]{0,3}$/.test(text) ? Number(text) : Infinity
  if (keep <= MAX_KEEP) return keep
  throw new GapferryError('USAGE_INVALID', `--keep: expected a whole number from 1 to ${MAX_KEEP}, found "${text}"`)
}

/** @param newest  the only bundle that can be imported again, or completed */
function failureOf({ rotten: found, incomplete }: Soundness, newest: number | undefined): GapferryError | undefined {
  if (found.length > 0) return rotten(found, newest)
  const bundle = incomplete.find(({ isNewest }) => isNewest)
  return bundle === undefined ? undefined : incompleteBundle(bundle.number, bundle.missing)
}

/** @param newest  the only bundle that can be imported again */
function rotten(blobs: RottenBlob[], newest: number | undefined): GapferryError {
  const isInNewest = blobs.some(({ uses }) => uses.some(({ bundles }) => bundles.some((number) => number === newest)))
  return new GapferryError(
    'STORE_ROTTEN',
    `${plural(blobs.length, 'file')} in the store ${blobs.length === 1 ? 'is' : 'are'} missing or not as signed`,
    {
      hint: isInNewest
        ? `import bundle ${newest} again, then verify: gapferry-mirror import FILE or DIR`
        : 'only older bundles name them: import and release a newer one, then gapferry-mirror prune',
    },
  )
}

function renderSoundness({ bundles, blobs, bytes, neverCame, rotten: found, incomplete }: Soundness): string {
  const checked = `${plural(bundles, 'bundle')}, ${plural(blobs, 'file')}, ${formatBytes(bytes)} checked`
  const lines = [found.length === 0 ? `${checked}: all as signed` : checked]
  const rows = found.flatMap(({ sha256, fault, uses }) =>
    uses.map(({ name, bundles: numbers }) => [
      name,
      FAULTS[fault],
      `bundle ${numbers.join(', ')}`,
      sha256.slice(0, 12),
    ]),
  )
  if (rows.length > 0) lines.push(formatTable(rows.slice(0, MAX_ROWS), { indent: '  ' }))
  if (rows.length > MAX_ROWS) lines.push(`  … and ${rows.length - MAX_ROWS} more (all of them with --json)`)
  for (const { number, isNewest, missing } of incomplete) {
    const what = `bundle ${number} never came whole: ${plural(missing.length, 'path')}, ${formatBytes(missingBytes(missing))} lack`
    lines.push(isNewest ? what : `${what}; a later bundle took its place`)
  }
  if (neverCame > 0) lines.push(`${plural(neverCame, 'file')} for going back never came; only rollback needs them`)
  return lines.join('\n')
}

function renderPrune({ kept, forgotten, blobs, bytes }: PrunePlan): string {
  return formatTable([
    ['bundles that stay', listNumbers(kept)],
    ['bundles to forget', listNumbers(forgotten)],
    ['files to remove', `${blobs.length}, ${formatBytes(bytes)}`],
  ])
}

function listNumbers(numbers: number[]): string {
  return numbers.length === 0 ? 'none' : numbers.join(', ')
}
