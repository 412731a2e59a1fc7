/**
 * Licenses in a pull: they are a few kilobytes and the first that the budget goes to, before anything else is fetched.
 */
import { GapferryError } from '../../manifests/errors.ts'
import type { Surroundings } from '../../manifests/program.ts'
import { auditedOnLaptop } from '../audit.ts'
import type { Laptop } from '../carry.ts'
import { siteSecrets } from '../keys/key-secrets.ts'
import { keepLicense } from './keep.ts'
import { askForLicenses, type Answered } from './license-http.ts'
import { licenseKey } from './license-key.ts'
import { deployedBoxes } from './states.ts'

/** What became of the licenses of one site. */
export interface PulledLicenses {
  site: string
  /** boxes whose license is another one now, or the first */
  taken: string[]
  /** boxes that have the license that they had */
  same: string[]
  /** boxes without an answer, and why */
  failures: { box: string; code: string; message: string }[]
}

/** Asks the sources of these sites, where they have one, for the license of every box whose deployment is known.
 *  @param sites  names
 *  @throws CONFIG_INVALID, BUDGET_EXCEEDED; KEY_* where the site's license key must be made first; the signal's reason */
export async function pullLicenses(
  laptop: Laptop,
  around: Surroundings,
  sites: readonly string[],
): Promise<PulledLicenses[]> {
  const { fleet, ledger } = laptop
  const done: PulledLicenses[] = []
  for (const { name: site, licenses: upstream } of fleet.sites.filter(({ name }) => sites.includes(name))) {
    if (upstream === undefined) continue
    const boxes = deployedBoxes(fleet, ledger, site).map(({ box, deploymentId }) => ({ box: box.name, deploymentId }))
    if (boxes.length === 0) continue
    const step = laptop.progress.step(`licenses ${site}`)
    try {
      const answers = await askForLicenses(laptop, around.environment, upstream, boxes)
      done.push(await keepAll(laptop, around, site, answers))
    } finally {
      step.end()
    }
  }
  return done
}

async function keepAll(
  { fleet, ledger }: Laptop,
  around: Surroundings,
  site: string,
  answers: readonly Answered[],
): Promise<PulledLicenses> {
  const result: PulledLicenses = { site, taken: [], same: [], failures: [] }
  const brought = answers.flatMap(({ box, brought }) => (brought === undefined ? [] : [{ box, brought }]))
  for (const { box, failure } of answers) if (failure !== undefined) note(result, box, failure)
  if (brought.length === 0) return result
  const key = await licenseKey(fleet.keysDir, site, siteSecrets(around, {}, site))
  const keepEach = async (): Promise<void> => {
    for (const { box, brought: one } of brought) {
      try {
        const about = { site, what: `license of ${box}`, key, isForced: false, nowMs: around.nowMs() }
        const { outcome } = keepLicense(ledger, one, about)
        result[outcome === 'unchanged' ? 'same' : 'taken'].push(box)
      } catch (error) {
        if (!(error instanceof GapferryError)) throw error
        note(result, box, error)
      }
    }
  }
  const asked = { command: 'license pull', site, boxes: brought.map(({ box }) => box) }
  await auditedOnLaptop(ledger, around, asked, keepEach, () => ({ ...asked, changed: result.taken }))
  return result
}

function note(result: PulledLicenses, box: string, { code, message }: GapferryError): void {
  result.failures.push({ box, code, message })
}

/** What a person must hear; empty where all is as it was. */
export function pulledText(pulled: readonly PulledLicenses[]): string[] {
  return pulled.flatMap(({ site, taken, same, failures }) => [
    ...(taken.length === 0 ? [] : [`${site}: licenses fetched: ${taken.join(', ')}`]),
    ...(same.length === 0 ? [] : [`${site}: licenses unchanged: ${same.join(', ')}`]),
    ...failures.map(({ message }) => `${site}: ${message}`),
  ])
}
