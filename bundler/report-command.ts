/**
 * `gapferry report`: what came back from the sites.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { formatBytes, formatTable, formatTime } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { examples, print, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { heldBlobs } from '../manifests/report.ts'
import { auditedOnLaptop, withLedger } from './audit.ts'
import { loadFleet, type Fleet } from './config.ts'
import { findReports } from './find-reports.ts'
import { siteOf } from './inventories.ts'
import { addFound, type AddOptions } from './report-add.ts'
import { knownSite, takeWords, type KnownSite } from './report.ts'

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
    .argument(
      '[FILE or DIR]',
      'a report, or the mirror-identity.json of a mirror; or the stick, with one for each site',
    )
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
      await withLedger(fleet, around, (ledger) => addFound({ ledger, fleet }, found, options, json, around))
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

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
