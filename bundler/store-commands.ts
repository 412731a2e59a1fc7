/**
 * `gapferry store status|verify|prune`: what lies in the laptop's store, whether it is sound, and what need not lie there.
 */
import type { Command } from 'commander'
import { errorObject, formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, PrintedError, talk, type Surroundings } from '../manifests/program.ts'
import type { ProgressStep } from '../manifests/progress.ts'
import type { AuditWhat } from '../storage/audit.ts'
import { auditedOnLaptop } from './audit.ts'
import type { Laptop } from './carry.ts'
import { withLaptop } from './laptop.ts'
import {
  checkLaptopStore,
  laptopStoreStatus,
  planStorePrune,
  pruneLaptopStore,
  type Amount,
  type LaptopRot,
  type StorePrunePlan,
  type StoreStatus,
  type StoreVerdict,
} from './store.ts'

/** Lists on a terminal end here; `--json` has all of it. */
const MAX_ROWS = 20
const MAX_KEEP = 1000
const DEFAULT_KEEP = '3'
const FAULTS = {
  missing: 'is missing',
  size: 'has another size',
  digest: 'has other bytes',
  unreadable: 'cannot be read',
} as const

export function addStoreCommands(program: Command, around: Surroundings): void {
  const store = program
    .command('store')
    .description('what lies in the local store, whether it is sound, and what nothing needs')
    .addHelpText('after', examples(program, 'store status'))
  addStatus(store, program, around)
  addVerify(store, program, around)
  addPrune(store, program, around)
}

function addStatus(store: Command, program: Command, around: Surroundings): void {
  store
    .command('status')
    .description('what is here, and which plan and bundles need it')
    .addHelpText('after', examples(program, 'store status --json'))
    .action(async (_options: object, command: Command) => {
      await withLaptop(around, command, async (laptop, json) => {
        const status = laptopStoreStatus(laptop)
        print(around, json ? JSON.stringify(status) : renderStatus(status))
      })
    })
}

function addVerify(store: Command, program: Command, around: Surroundings): void {
  store
    .command('verify')
    .description('read every file in the store, and say which are not what they were; removes nothing without --mend')
    .option('--mend', 'remove what is rotten, so that the next pull fetches it again')
    .addHelpText('after', examples(program, 'store verify', 'store verify --mend'))
    .action(async (options: { mend?: boolean }, command: Command) => {
      await withLaptop(around, command, async (laptop, json) => {
        const isMending = options.mend === true
        const verdict = await (isMending ? mend(laptop, around) : check(laptop, false))
        const failure = failureOf(verdict, isMending)
        if (!json) print(around, renderVerdict(verdict))
        else
          print(
            around,
            JSON.stringify({ ...verdict, isSound: verdict.rotten.length === 0, ...(failure && errorObject(failure)) }),
          )
        if (failure !== undefined) throw json ? new PrintedError('rotten', { cause: failure }) : failure
      })
    })
}

/** With its row: which files went. */
function mend(laptop: Laptop, around: Surroundings): Promise<StoreVerdict> {
  const asked = { command: 'store verify --mend' }
  const done = ({ rotten }: StoreVerdict): AuditWhat => ({
    ...asked,
    removed: rotten.filter(({ fault }) => fault !== 'missing').map(({ sha256 }) => `blob ${sha256}`),
  })
  return auditedOnLaptop(laptop.ledger, around, asked, () => check(laptop, true), done)
}

async function check(laptop: Laptop, isMending: boolean): Promise<StoreVerdict> {
  let step: ProgressStep | undefined
  const onBytes = (bytes: number, totalBytes: number): void => {
    step ??= laptop.progress.step('verify', totalBytes)
    step.add(bytes)
  }
  try {
    return await checkLaptopStore(laptop, { isMending, onBytes })
  } finally {
    step?.end()
  }
}

function addPrune(store: Command, program: Command, around: Surroundings): void {
  store
    .command('prune')
    .description('remove the files that nothing needs any more; without --yes only says what it would do')
    .option('--keep <N>', 'how many of the newest bundles of each site keep their files', DEFAULT_KEEP)
    .option('--yes', 'do it')
    .addHelpText('after', examples(program, 'store prune', 'store prune --keep 1 --yes'))
    .action(async (options: { keep: string; yes?: boolean }, command: Command) => {
      const keep = parseKeep(options.keep)
      await withLaptop(around, command, async (laptop, json) => {
        const plan = planStorePrune(laptop, keep)
        const isDone = options.yes === true
        if (isDone) {
          const asked = { command: 'store prune', removed: removedBy(plan) }
          await auditedOnLaptop(laptop.ledger, around, asked, async () => pruneLaptopStore(laptop, plan))
        }
        const { kept, needed, unneeded } = plan
        print(around, json ? JSON.stringify({ isDone, kept, needed, unneeded }) : renderPrune(plan, isDone))
        if (!json && !isDone && unneeded.count > 0) {
          const words = options.keep === DEFAULT_KEEP ? '' : ` --keep ${keep}`
          talk(around, `nothing was removed; next: gapferry store prune${words} --yes`)
        }
      })
    })
}

function removedBy({ blobs, partials }: StorePrunePlan): string[] {
  return [...blobs.map((sha256) => `blob ${sha256}`), ...partials.map((key) => `partial ${key}`)]
}

function parseKeep(text: string): number {
  const keep = /^[1-9][0-9]{0,3}$/.test(text) ? Number(text) : Infinity
  if (keep <= MAX_KEEP) return keep
  throw new GapferryError('USAGE_INVALID', `--keep: expected a whole number from 1 to ${MAX_KEEP}, found "${text}"`)
}

/** What was mended is no failure, but what only a new bundle mends is one: the person has to act. */
function failureOf({ rotten, removed }: StoreVerdict, isMending: boolean): GapferryError | undefined {
  const left = isMending ? rotten.filter(({ fault }) => fault === 'missing') : rotten
  if (left.length === 0) return undefined
  const isGone = left.every(({ fault }) => fault === 'missing')
  return new GapferryError(
    'STORE_ROTTEN',
    `${plural(left.length, 'file')} in the store ${left.length === 1 ? 'is' : 'are'} missing or not what ${left.length === 1 ? 'it was' : 'they were'}`,
    {
      hint: isGone
        ? `${removed > 0 ? 'gapferry pull, then ' : ''}gapferry pack --to DIR: it makes them again in a new bundle`
        : 'gapferry store verify --mend, then gapferry pull',
    },
  )
}

function renderStatus({ path, blobs, plan, bundles, unneeded, partial }: StoreStatus): string {
  const rows = [
    ['store', `${path}: ${amount(blobs)}`],
    ['plan', plan === null ? 'none yet: gapferry plan' : renderPlanRow(plan)],
    ...bundles
      .slice(0, MAX_ROWS)
      .map(({ site, number, createdAtMs, blobs: here }) => [
        `bundle ${number} for ${site}`,
        `signed ${formatTime(createdAtMs)}, ${amount(here)} here`,
      ]),
    ...(partial.count === 0 ? [] : [['came in part', `${amount(partial)}; to go on: gapferry pull`]]),
    ['needed by none', unneeded.count === 0 ? 'nothing' : `${amount(unneeded)}; to remove them: gapferry store prune`],
  ]
  const more = bundles.length - MAX_ROWS
  return [
    formatTable(rows),
    ...(more > 0 ? [`… and ${plural(more, 'older bundle')} (all of them with --json)`] : []),
  ].join('\n')
}

function renderPlanRow({ createdAtMs, sites, here, toFetch }: NonNullable<StoreStatus['plan']>): string {
  const left =
    toFetch.count === 0
      ? 'nothing to fetch'
      : `${plural(toFetch.count, 'item')}, ${formatBytes(toFetch.bytes)} to fetch: gapferry pull`
  return `of ${formatTime(createdAtMs)} for ${sites.join(', ')}: ${plural(here.count, 'item')} here, ${left}`
}

function renderVerdict({ blobs, rotten, removed }: StoreVerdict): string {
  const checked = `${amount(blobs)} checked`
  if (rotten.length === 0) return `${checked}: all are what they were`
  const rows = rotten.slice(0, MAX_ROWS).map((one) => [one.sha256.slice(0, 16), FAULTS[one.fault], neededBy(one)])
  const more = rotten.length - rows.length
  return [
    checked,
    formatTable(rows, { indent: '  ' }),
    ...(more > 0 ? [`  … and ${more} more (all of them with --json)`] : []),
    ...(removed > 0 ? [`${plural(removed, 'file')} removed; next: gapferry pull`] : []),
  ].join('\n')
}

function neededBy({ neededBy: names }: LaptopRot): string {
  return names.length === 0
    ? 'needed by none'
    : `needed by ${names.map((name) => (name === 'plan' ? 'the plan' : `bundle ${name}`)).join(', ')}`
}

function renderPrune({ kept, needed, unneeded }: StorePrunePlan, isDone: boolean): string {
  return formatTable([
    ['bundles that keep their files', kept.length === 0 ? 'none' : kept.join(', ')],
    ['files that stay', amount(needed)],
    [isDone ? 'files removed' : 'files to remove', amount(unneeded)],
  ])
}

function amount({ count, bytes }: Amount): string {
  return `${plural(count, 'file')}, ${formatBytes(bytes)}`
}
