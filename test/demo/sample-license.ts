/** Licenses of the sample vendor: made up, good for nothing, and saying so. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** The deployment ID of the demo's box. */
export const DEPLOYMENT = '10000001'
const DAY_MS = 86_400_000
const RENEWED_DAYS = 730

/** What the license file of the box says, with this many days left. */
export function sampleLicense(nowMs: number, days: number): string {
  const until = new Date(nowMs + days * DAY_MS).toISOString().slice(0, 10)
  return [
    'Product-Name = PBXact SAMPLE',
    `deploymentid = ${DEPLOYMENT}`,
    `sysadmin_exp = ${until}`,
    `endpoint_exp = ${until}`,
    'Signature = SAMPLE, made up for a demo: it is nobody’s license and activates nothing',
    '',
  ].join('\n')
}

/** A folder with the license as the vendor renewed it, as it would lie on the box; made once.
 *  @param dir  where */
export function renewedLicense(dir: string, nowMs: number): string {
  const file = join(dir, 'etc/schmooze/schmooze.zl')
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, sampleLicense(nowMs, RENEWED_DAYS))
  }
  return dir
}
