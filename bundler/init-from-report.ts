/**
 * `gapferry init --from REPORT`: what a mirror knows, for a laptop that was set up again. A report is sealed for the laptop that
 * packed the mirror's last bundle, so it opens where that laptop's key came back with `keys restore`, and nowhere else.
 */
import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { print, talk, type Surroundings } from '../manifests/program.ts'
import { parseSealedReport } from '../manifests/report-seal.ts'
import type { Ledger } from '../storage/ledger.ts'
import { withLedger } from './audit.ts'
import { loadFleet } from './config.ts'
import { isReport, readReport, type Found } from './find-reports.ts'
import { siteOf } from './inventories.ts'
import { addFound } from './report-add.ts'

/** @returns those of the given paths that are reports, and the others */
export function partReports(paths: readonly string[]): { reports: string[]; others: string[] } {
  const reports = paths.filter((path) => isReport(path))
  return { reports, others: paths.filter((path) => !reports.includes(path)) }
}

/** Takes reports as `report add` does: the base of the next bundle, numbers that are used, inventories.
 *  @param dir  where the laptop's settings are
 *  @throws REPORT_KEY_MISSING, with the ways out, where the laptop cannot open one; what addFound throws */
export async function initFromReports(
  dir: string,
  files: readonly string[],
  options: { yes?: boolean; json: boolean },
  around: Surroundings,
): Promise<void> {
  const config = join(dir, 'gapferry.yaml')
  if (!existsSync(config)) throw withoutKey(`${basename(files[0]!)}: there is no ${config} yet`)
  const fleet = loadFleet(config)
  const found = files.map((file): Found => {
    const bytes = readReport(file)
    return { file, site: siteOf(fleet, parseSealedReport(bytes, basename(file)).site).name, bytes }
  })
  await withLedger(fleet, around, async (ledger) => {
    for (const { site, file } of found) refuseWithoutKey(ledger, site, file)
    await addFound({ ledger, fleet }, found, options.yes === true ? { yes: true } : {}, options.json, around)
    if (options.json) return
    for (const site of new Set(found.map((one) => one.site))) {
      print(around, `${site}: the next bundle is ${ledger.nextNumber(site)}`)
    }
  })
}

/** Beside a bundle that a laptop is set up from, a report says nothing: its key was lost with the other laptop. */
export function warnOfReports(files: readonly string[], around: Surroundings): void {
  for (const file of files) {
    talk(
      around,
      `warning: ${basename(file)} is sealed for the laptop that was lost: what it says cannot be read; --number-above N tells the rest`,
    )
  }
}

function refuseWithoutKey(ledger: Ledger, site: string, file: string): void {
  if (ledger.reports.secret(site) === undefined) throw withoutKey(`${basename(file)}: no key of ${site} is here`)
}

function withoutKey(why: string): GapferryError {
  return new GapferryError(
    'REPORT_KEY_MISSING',
    `${why}; a report opens for the laptop that packed the mirror’s last bundle`,
    {
      hint: 'bring its keys back: gapferry keys restore FILE, then this again; without a backup: gapferry init --from BUNDLE --root-key FILE',
    },
  )
}
