/**
 * `gapferry-mirror report`: what this site sends back, shown before it is written.
 */
import { mkdirSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { plural, shortList } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { sealReport } from '../manifests/report-seal.ts'
import { attachmentRoom, heldBlobs, keyDigest, signReport, wholeBundle, type Report } from '../manifests/report.ts'
import { packAttachments } from '../storage/attachments.ts'
import { stateWords } from '../manifests/words.ts'
import { askLine } from '../storage/ask.ts'
import { auditedAfter } from '../storage/audited.ts'
import { replaceFile } from '../storage/durable.ts'
import { storeOf } from './audit.ts'
import type { MirrorConfig } from './config.ts'
import { ensureIdentity } from './identity.ts'
import { inventoriesIn } from './known-boxes.ts'
import { storedResults } from './parity-command.ts'
import { describeBundles, makeReport, readerOf } from './report.ts'
import type { StoreTools } from './store-commands.ts'
import { openStore, openStoreForWriting, type MirrorStore } from './store.ts'

const LEVELS = ['none', 'words', 'minimal', 'full'] as const
type Level = (typeof LEVELS)[number]
const MAX_NAMED = 5

interface ReportOptions {
  to?: string
  level: string
  yes?: boolean
}

export function addReport(program: Command, around: Surroundings, { withStore, clockOf }: StoreTools): void {
  program
    .command('report')
    .description('write what this site has for the laptop; shows first what will leave')
    .option('--to <DIR>', 'the stick; the report goes to DIR/gapferry/<site>/report/')
    .option(
      '--level <LEVEL>',
      'none: nothing; words: six words to read over the phone; minimal: boxes under pseudonyms; full: with names',
      'minimal',
    )
    .option('--yes', 'it may leave; nothing is asked')
    .addHelpText('after', examples(program, 'report --to /media/stick', 'report --level words'))
    .action(async (options: ReportOptions, command: Command) => {
      const level = parseLevel(options.level)
      const { json } = command.optsWithGlobals<GlobalOptions>()
      if (level === 'none') return print(around, json === true ? JSON.stringify({ level }) : 'nothing is reported')
      if (level === 'words') {
        return withStore(around, command, openStore, async (store) => print(around, tellWords(store, json === true)))
      }
      const dir = stickOf(options, around)
      await withStore(around, command, openStoreForWriting, (store, config, isJson) =>
        writeReport(
          store,
          { level, dir, isConfirmed: options.yes === true, isJson, config, nowMs: clockOf(store, around) },
          around,
        ),
      )
    })
}

/** The state of the newest bundle that is whole here, in words. */
function tellWords(store: MirrorStore, isJson: boolean): string {
  const whole = wholeBundle(describeBundles(store))
  if (whole === undefined) {
    throw new GapferryError('RELEASE_NOTHING', 'no bundle is whole here, so there is no state to tell', {
      hint: 'gapferry-mirror import FILE or DIR',
    })
  }
  const words = stateWords(whole.state as Parameters<typeof stateWords>[0])
  if (isJson) return JSON.stringify({ level: 'words', site: store.site, bundle: whole.number, words })
  return `bundle ${whole.number} of site ${store.site} is whole here\n  words  ${words}\non the laptop: gapferry report add --site ${store.site} --words "${words}"`
}

async function writeReport(
  store: MirrorStore,
  options: {
    level: 'minimal' | 'full'
    dir: string
    isConfirmed: boolean
    isJson: boolean
    config: MirrorConfig
    nowMs: number
  },
  around: Surroundings,
): Promise<void> {
  const { level, dir, nowMs, isJson, config } = options
  const identity = ensureIdentity(store, nowMs)
  const reader = readerOf(store.catalog.state()!)
  const parity = storedResults(store)
  const sequence = store.catalog.nextSequence()
  const report = await makeReport(store, {
    level,
    identity,
    recipient: keyDigest(reader),
    sequence,
    nowMs,
    parity,
    config,
  })
  const attachments = attachmentsOf(store, report)
  const signed = signReport(report, identity.key, attachments)
  const bytes = sealReport(signed, reader, store.site)
  if (!isJson) print(around, renderReport(report))
  const left = report.inventories.filter(({ sha256 }) => !(sha256 in attachments))
  if (left.length > 0) talk(around, `warning: ${roomText(left.map(({ box }) => box))}`)
  if (!options.isConfirmed) await confirm(around)
  const name = `${store.site}-${sequence}.report`
  const folder = join(dir, 'gapferry', store.site, 'report')
  const file = join(folder, name)
  await auditedAfter(
    { store: storeOf(store.catalog), by: around, asked: { command: `report --level ${level}`, files: [name] } },
    async () => {
      mkdirSync(folder, { recursive: true })
      replaceFile(file, bytes)
    },
  )
  if (isJson) {
    print(
      around,
      JSON.stringify({ level, site: store.site, file, bytes: bytes.length, identity: identity.words, report }),
    )
    return
  }
  print(
    around,
    `\nwritten, sealed for the laptop: ${file}\n  identity of this mirror, which the laptop asks for once:\n  ${identity.words}`,
  )
  talk(around, `on the laptop: gapferry report add ${dir}`)
}

/** The bytes of the inventories, as many as there is room for. */
function attachmentsOf(store: MirrorStore, report: Awaited<ReturnType<typeof makeReport>>): Record<string, string> {
  const held = inventoriesIn(store)
  return packAttachments(report.inventories, ({ box }) => held?.read(box), attachmentRoom(report))
}

function roomText(boxes: readonly string[]): string {
  const names = shortList(boxes, MAX_NAMED)
  return `the inventories of ${plural(boxes.length, 'box')} have no room in the report: ${names}; bring them as files`
}

/** All of it; only of the digests no more than their number, and of inventories their names. */
function renderReport(report: Omit<Report, '_type' | 'format'>): string {
  const blobs = `digests of ${plural(heldBlobs(report, 'report').size, 'file')}`
  const inventories =
    report.inventories.length === 0
      ? ''
      : `\nand ${report.inventories.length === 1 ? 'that inventory' : `those ${report.inventories.length} inventories`}, whole, with packages, settings and deployment IDs; to read one: gapferry-mirror boxes show BOX --raw`
  return `this will leave site ${report.site}:\n${JSON.stringify({ ...report, blobs }, null, 2)}${inventories}`
}

async function confirm(around: Surroundings): Promise<void> {
  const isTerminal = around.stdin.isTTY === true && around.stderr.isTTY === true
  const answer = isTerminal ? await askLine(around, 'Shall this leave the site? [yes/no] ') : ''
  if (['yes', 'y'].includes(answer.trim().toLowerCase())) return
  throw new GapferryError(
    'REPORT_NOT_CONFIRMED',
    `${isTerminal ? 'it was not confirmed' : 'nobody is at a terminal to confirm it'}; nothing was written`,
    { hint: 'add --yes, or tell less: --level minimal, words or none' },
  )
}

function parseLevel(text: string): Level {
  const level = LEVELS.find((one) => one === text)
  if (level !== undefined) return level
  throw new GapferryError('USAGE_INVALID', `--level: expected ${LEVELS.join(', ')}, found "${text}"`)
}

/** Made by nobody but the person: a folder that springs up where no stick is mounted would look like one. */
function stickOf({ to }: ReportOptions, around: Surroundings): string {
  const hint = { hint: 'mount the stick, or make the folder: gapferry-mirror report --to DIR' }
  if (to === undefined) throw new GapferryError('USAGE_INVALID', 'expected --to DIR', hint)
  const dir = resolve(around.cwd, to)
  if (statSync(dir, { throwIfNoEntry: false })?.isDirectory() === true) return dir
  throw new GapferryError('MEDIUM_UNUSABLE', `${dir}: expected the folder of a mounted stick, found none`, hint)
}
