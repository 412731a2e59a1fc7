/**
 * `gapferry license`: licenses that were given to boxes while they were online, kept for their sites.
 */
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { plural } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { examples, print, type GlobalOptions, type Surroundings } from '../../manifests/program.ts'
import type { Ledger } from '../../storage/ledger.ts'
import type { KeptLicense } from '../../storage/licenses.ts'
import { auditedOnLaptop, withLedger } from '../audit.ts'
import { loadFleet, type Fleet } from '../config.ts'
import { siteSecrets } from '../keys/key-secrets.ts'
import { keepLicense, type KeepOutcome } from './keep.ts'
import { readBrought } from './license-files.ts'
import { licenseKey } from './license-key.ts'
import { licenseRows, renderLicenses, whyNotCarried, type LicenseRow } from './states.ts'

interface AddOptions {
  site?: string
  force?: boolean
  passphraseFd?: string
}

export function addLicenseCommands(program: Command, around: Surroundings): void {
  const license = program
    .command('license')
    .description('licenses of boxes, taken while they were online; none can be made here')
    .addHelpText('after', examples(program, 'license add pbx1.license.tar', 'license list'))
  addAdd(license, program, around)
  addList(license, program, around)
  addRemove(license, program, around)
}

function addAdd(license: Command, program: Command, around: Surroundings): void {
  license
    .command('add')
    .description('keep what gapferry-box capture wrote, or a folder with the license files of one box')
    .argument('<FILE or DIR...>', 'archives, or folders with etc/schmooze/ or etc/sangoma/ in them')
    .option('--site <NAME>', 'their site, where there are several')
    .option('--force', 'also where it was captured before the one that is kept')
    .option(
      '--passphrase-fd <N>',
      'read the passphrase from this file descriptor; asked for with the first license of a site',
    )
    .addHelpText('after', examples(program, 'license add pbx1.license.tar', 'license add --site hq licenses/pbx2'))
    .action(async (inputs: string[], options: AddOptions, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const site = oneSite(fleet, options.site)
      const files = inputs.map((input) => resolve(around.cwd, input))
      // Without the names of the files: a person may have called them after the deployment.
      const asked = { command: 'license add', site }
      await withLedger(fleet, around, async (ledger) => {
        const add = () => addAll(fleet, ledger, around, { site, files, options })
        const rowsNow = () => licenseRows(fleet, ledger, site, around.nowMs())
        const whose = (all: Added[]) => ({ ...asked, boxes: all.map((one) => boxOf(rowOf(one, rowsNow()))) })
        const done = await auditedOnLaptop(ledger, around, asked, add, whose)
        const rows = rowsNow()
        print(
          around,
          json ? JSON.stringify({ site, licenses: done.map((one) => summary(one, rows)) }) : sentences(done, rows),
        )
      })
    })
}

/** All of them are read before the first is kept. */
async function addAll(
  fleet: Fleet,
  ledger: Ledger,
  around: Surroundings,
  { site, files, options }: { site: string; files: string[]; options: AddOptions },
): Promise<Added[]> {
  const read = files.map((file) => ({ what: basename(file), brought: readBrought(file) }))
  const key = await licenseKey(fleet.keysDir, site, siteSecrets(around, options, site))
  const about = { site, key, isForced: options.force === true, nowMs: around.nowMs() }
  return ledger.write(() => read.map(({ what, brought }) => keepLicense(ledger, brought, { ...about, what })))
}

interface Added {
  kept: KeptLicense
  outcome: KeepOutcome
}

function addList(license: Command, program: Command, around: Surroundings): void {
  license
    .command('list')
    .description('the boxes that need a license, what is kept for them, and what to look after')
    .option('--site <NAME>', 'only this site')
    .addHelpText('after', examples(program, 'license list', 'license list --site hq --json'))
    .action(async (options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const sites = options.site === undefined ? fleet.sites.map(({ name }) => name) : [oneSite(fleet, options.site)]
      await withLedger(fleet, around, (ledger) => {
        const rows = sites.flatMap((site) => licenseRows(fleet, ledger, site, around.nowMs()))
        const notes = sites.flatMap(
          (site) =>
            whyNotCarried(
              rows.filter((row) => row.site === site),
              site,
            ) ?? [],
        )
        if (json) return print(around, JSON.stringify({ licenses: rows, notes }))
        const none = 'no license is kept, and no inventory is of a box that needs one'
        print(around, [rows.length === 0 ? none : renderLicenses(rows), ...notes].join('\n'))
      })
    })
}

function addRemove(license: Command, program: Command, around: Surroundings): void {
  license
    .command('remove')
    .description('forget the license of a box; later bundles carry it no more')
    .argument('<BOX...>', 'names in the list, or the digits that stand there for an unknown box')
    .option('--site <NAME>', 'their site, where there are several')
    .addHelpText('after', examples(program, 'license remove pbx1'))
    .action(async (names: string[], options: { site?: string }, command: Command) => {
      const { fleet, json } = openFleet(command, around)
      const site = oneSite(fleet, options.site)
      await withLedger(fleet, around, async (ledger) => {
        const rows = licenseRows(fleet, ledger, site, around.nowMs())
        const gone = names.map((name) => keptOf(name, rows, site))
        const asked = { command: 'license remove', site, boxes: gone.map(boxOf) }
        await auditedOnLaptop(ledger, around, asked, async () => forgetAll(ledger, site, gone))
        print(
          around,
          json ? JSON.stringify({ site, removed: asked.boxes }) : `removed: ${asked.boxes.join(', ')} of ${site}`,
        )
      })
    })
}

function forgetAll(ledger: Ledger, site: string, gone: readonly LicenseRow[]): void {
  const names = new Set(gone.map(({ license }) => license))
  ledger.write(() => {
    for (const { deployment } of ledger.licenses.of(site)) {
      if (names.has(deployment.slice(0, 8))) ledger.licenses.forget(site, deployment)
    }
  })
}

function keptOf(name: string, rows: readonly LicenseRow[], site: string): LicenseRow {
  const found = rows.find((row) => row.license !== null && [row.box, row.license].includes(name.toLowerCase()))
  if (found !== undefined) return found
  throw usage(`no license of ${name} is kept for ${site}`, 'gapferry license list')
}

function rowOf({ kept }: Added, rows: readonly LicenseRow[]): LicenseRow {
  return rows.find(({ license }) => license === kept.deployment.slice(0, 8))!
}

function boxOf({ box, license }: LicenseRow): string {
  return box ?? license!
}

function summary(added: Added, rows: readonly LicenseRow[]): object {
  return { outcome: added.outcome, ...rowOf(added, rows) }
}

const OUTCOMES: Record<KeepOutcome, string> = { new: 'added', replaced: 'replaced', unchanged: 'is here already' }

function sentences(done: readonly Added[], rows: readonly LicenseRow[]): string {
  const lines = done.map((one) => {
    const row = rowOf(one, rows)
    const whose =
      row.box === null ? `license ${row.license} (no inventory has its deployment)` : `license of ${row.box}`
    return `${row.site}: ${whose} ${OUTCOMES[one.outcome]}${row.product === null ? '' : `, ${row.product}`}: ${row.state}: ${row.why}`
  })
  const note = whyNotCarried(rows, done[0]!.kept.site)
  return [...lines, ...(note === undefined ? [] : [note])].join('\n')
}

function openFleet(command: Command, around: Surroundings): { fleet: Fleet; json: boolean } {
  const { config, json } = command.optsWithGlobals<GlobalOptions>()
  return { fleet: loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml')), json: json === true }
}

function oneSite({ file, sites }: Fleet, name: string | undefined): string {
  const names = sites.map((site) => site.name)
  if (name === undefined && names.length > 1)
    throw usage(`there are ${plural(names.length, 'site')}`, `give --site: ${names.join(', ')}`)
  const site = name ?? names[0]!
  if (names.includes(site)) return site
  throw new GapferryError('SITE_UNKNOWN', `${file} has no site "${site}"`, { hint: `its sites: ${names.join(', ')}` })
}

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
