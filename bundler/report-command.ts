/**
 * `gapferry report`: what came back from the sites.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject, formatBytes, formatTable, formatTime, plural } from '../manifests/console.ts'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { examples, print, PrintedError, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { parseSealedReport } from '../manifests/report-seal.ts'
import { heldBlobs, MAX_REPORT_BYTES } from '../manifests/report.ts'
import { askLine } from '../storage/ask.ts'
import { systemCode } from '../storage/durable.ts'
import type { Ledger } from '../storage/ledger.ts'
import { auditedOnLaptop, withLedger } from './audit.ts'
import { loadFleet, type Fleet } from './config.ts'
import { siteOf } from './inventories.ts'
import { knownSite, takeReport, takeWords, type Acceptance, type KnownSite, type TakenReport } from './report.ts'

interface AddOptions {
  site?: string
  words?: string
  identity?: string
  yes?: boolean
  force?: boolean
}

/** Where a report is read from, and what it says its site is. */
interface Found {
  file: string
  site: string
  bytes: Buffer
}

const MAX_NAMES = 10_000
const REPORT_NAME = /^([a-z0-9._-]{1,64})-([1-9][0-9]{0,12})\.report$/

export function addReportCommands(program: Command, around: Surroundings): void {
  const report = program
    .command('report')
    .description('what sites say that they have: the base of their next bundles')
    .addHelpText('after', examples(program, 'report add /media/stick', 'report list'))
  addAdd(report, program, around)
  addList(report, program, around)
}

function addAdd(report: Command, program: Command, around: Surroundings): void {
  report
    .command('add')
    .description('take a report, or the words of a state; the next bundle leaves out what is at the site')
    .argument('[FILE or DIR]', 'a report; or the stick, with one for each site')
    .option('--site <NAME>', 'only of this site; needed with --words where there are several')
    .option('--words <WORDS>', 'six words that gapferry-mirror report --level words shows, instead of a report')
    .option('--identity <WORDS>', 'the twelve words that the mirror’s identity must have')
    .option('--yes', 'accept the identity of a site’s first report as it is')
    .option('--force', 'also where it is older than the last: its mirror was restored from a backup')
    .addHelpText(
      'after',
      examples(program, 'report add /media/stick', 'report add --site hq --words "six words as they were read"'),
    )
    .action(async (input: string | undefined, options: AddOptions, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      if ((input === undefined) === (options.words === undefined)) {
        throw usage('expected a FILE or DIR, or --words', 'gapferry report add --help')
      }
      if (options.words !== undefined) return addWords(fleet, options.words, options.site, json, around)
      const found = findReports(resolve(around.cwd, input!), fleet, options.site)
      await withLedger(fleet, around, (ledger) => addFound(ledger, found, options, json, around))
    })
}

async function addWords(
  fleet: Fleet,
  words: string,
  named: string | undefined,
  json: boolean,
  around: Surroundings,
): Promise<void> {
  const site = oneSite(fleet, named)
  const asked = { command: 'report add --words', site }
  const number = await withLedger(fleet, around, (ledger) =>
    auditedOnLaptop(
      ledger,
      around,
      asked,
      async () => takeWords(ledger, { site, words, nowMs: around.nowMs() }),
      (bundle) => ({ ...asked, bundle }),
    ),
  )
  const text = `${site} has bundle ${number} whole: the next bundle leaves out what that one brought`
  print(around, json ? JSON.stringify({ site, bundle: number }) : text)
}

/** Each site's is taken for itself: one that is refused does not keep the others back. */
async function addFound(
  ledger: Ledger,
  found: readonly Found[],
  options: AddOptions,
  json: boolean,
  around: Surroundings,
): Promise<void> {
  const rows: object[] = []
  const failures: GapferryError[] = []
  for (const one of found) {
    try {
      const taken = await addOne(ledger, one, options, around)
      rows.push({ site: one.site, file: one.file, outcome: taken.outcome, identity: taken.words, report: taken.report })
      if (!json) print(around, sentence(taken))
    } catch (error) {
      if (!isGapferryError(error) || found.length === 1) throw error
      failures.push(error)
      rows.push({ site: one.site, file: one.file, ...errorObject(error) })
      if (failures.length > 1) talk(around, error.message)
    }
  }
  if (json) print(around, JSON.stringify({ reports: rows }))
  if (failures.length > 0) throw json ? new PrintedError('report', { cause: failures[0] }) : failures[0]!
}

function addOne(
  ledger: Ledger,
  { file, site, bytes }: Found,
  options: AddOptions,
  around: Surroundings,
): Promise<TakenReport> {
  const asked = { command: 'report add', site, files: [basename(file)], sha256: sha256Of(bytes) }
  const take = () =>
    takeReport(ledger, {
      site,
      bytes,
      what: basename(file),
      acceptance: acceptance(options, around),
      isForced: options.force === true,
      nowMs: around.nowMs(),
    })
  const done = ({ outcome, words }: TakenReport) =>
    outcome === 'accepted' ? { ...asked, added: [`identity ${words}`] } : asked
  return auditedOnLaptop(ledger, around, asked, take, done)
}

function acceptance({ identity, yes }: AddOptions, around: Surroundings): Acceptance {
  const isTerminal = around.stdin.isTTY === true && around.stderr.isTTY === true
  const ask = async (site: string, words: string): Promise<boolean> => {
    talk(around, `the first report of ${site}; the identity of its mirror:\n\n    ${words}\n`)
    talk(around, 'Compare these words with those that gapferry-mirror report shows there, by phone or from paper.')
    const answer = await askLine(around, 'Are they the same? [yes/no] ')
    return ['yes', 'y'].includes(answer.trim().toLowerCase())
  }
  return { words: identity, isConfirmed: yes === true, ask: isTerminal ? ask : undefined }
}

/** A file as it is; of a folder the newest report of each site, by its name.
 *  @throws USAGE_INVALID where there is none; SITE_UNKNOWN, SITE_MISMATCH, REPORT_INVALID */
function findReports(input: string, fleet: Fleet, named: string | undefined): Found[] {
  const sites = named === undefined ? fleet.sites : [siteOf(fleet, named)]
  if (statSync(input, { throwIfNoEntry: false })?.isDirectory() !== true) {
    const bytes = readReport(input)
    const { site } = parseSealedReport(bytes, basename(input))
    return [{ file: input, site: siteOf(fleet, named ?? site).name, bytes }]
  }
  const found = sites.flatMap(({ name }) => newestIn(join(input, 'gapferry', name, 'report'), name))
  if (found.length > 0) return found
  throw usage(
    `${input}: no report of ${sites.map(({ name }) => name).join(', ')} in gapferry/SITE/report/`,
    'at the site: gapferry-mirror report --to DIR',
  )
}

function newestIn(folder: string, site: string): Found[] {
  let names: string[]
  try {
    names = readdirSync(folder).slice(0, MAX_NAMES)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error))) return []
    throw error
  }
  const numbered = names.flatMap((name) => {
    const [, named, number] = REPORT_NAME.exec(name) ?? []
    return named === site ? [{ name, number: Number(number) }] : []
  })
  const [newest] = numbered.sort((a, b) => b.number - a.number)
  if (newest === undefined) return []
  const file = join(folder, newest.name)
  return [{ file, site, bytes: readReport(file) }]
}

/** @throws USAGE_INVALID where there is none; REPORT_INVALID for what is no file, or too large a one */
function readReport(file: string): Buffer {
  let fd: number
  try {
    // A stick may hold a link, or a pipe that would be waited for.
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    if (systemCode(cause) === 'ELOOP') throw noFile(file, 'is a link')
    throw usage(`${file}: ${(cause as Error).message}`, 'gapferry report add FILE or DIR')
  }
  try {
    const stats = fstatSync(fd)
    if (!stats.isFile()) throw noFile(file, 'is no plain file')
    if (stats.size > MAX_REPORT_BYTES) throw noFile(file, `has more than ${MAX_REPORT_BYTES} bytes`)
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

function addList(report: Command, program: Command, around: Surroundings): void {
  report
    .command('list')
    .description('the last report of each site')
    .option('--site <NAME>', 'only this site')
    .addHelpText('after', examples(program, 'report list', 'report list --site hq --json'))
    .action(async (options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const sites = options.site === undefined ? fleet.sites : [siteOf(fleet, options.site)]
      await withLedger(fleet, around, (ledger) => {
        const known = sites.map(({ name }) => ({ name, known: knownSite(ledger, name) }))
        if (!json) return print(around, formatTable([HEADINGS, ...known.map(({ name, known }) => row(name, known))]))
        print(around, JSON.stringify({ sites: known.map(({ name, known }) => known ?? { site: name, report: null }) }))
      })
    })
}

const HEADINGS = ['SITE', 'REPORTED', 'WHOLE', 'SERVED', 'FILES', 'BOXES', 'FREE']

function row(site: string, known: KnownSite | undefined): string[] {
  if (known === undefined) return [site, 'never: bundles carry everything']
  const { report, bundle, addedAtMs } = known
  const whole = bundle === null ? 'none' : `bundle ${bundle}`
  if (report === null) return [site, `in words, ${formatTime(addedAtMs)}`, whole]
  const served = report.served.map(({ group, bundle: number, role }) => {
    return `${group}: ${number}${role === 'current' ? '' : ` ${role}`}`
  })
  return [
    site,
    formatTime(Date.parse(report.createdAt)),
    whole,
    served.join(', ') || 'nothing',
    String(heldBlobs(report, site).size),
    boxesOf(report),
    formatBytes(report.freeBytes),
  ]
}

function boxesOf({ boxes, parity }: NonNullable<KnownSite['report']>): string {
  const differing = parity.filter(({ holds }) => !holds).length
  return [`${boxes.length} asked`, ...(differing > 0 ? [`${differing} differ`] : [])].join(', ')
}

function sentence({ report, outcome }: TakenReport): string {
  const { site, createdAt } = report
  const files = plural(heldBlobs(report, site).size, 'file')
  if (outcome === 'known') return `${site}: this report is here already`
  const accepted = outcome === 'accepted' ? '; the identity of its mirror is accepted' : ''
  return `${site}: report of ${formatTime(Date.parse(createdAt))} added, ${files} are there${accepted}`
}

function openFleet(command: Command, around: Surroundings): { fleet: Fleet; json: boolean } {
  const { config, json } = command.optsWithGlobals<GlobalOptions>()
  return { fleet: loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml')), json: json === true }
}

function oneSite(fleet: Fleet, site: string | undefined): string {
  if (site !== undefined) return siteOf(fleet, site).name
  const [only, ...others] = fleet.sites
  if (others.length === 0) return only!.name
  throw usage('there are several sites', `give --site: ${fleet.sites.map((one) => one.name).join(', ')}`)
}

function noFile(file: string, why: string): GapferryError {
  return new GapferryError('REPORT_INVALID', `${basename(file)}: ${why}`)
}

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
