/**
 * Takes a license into the laptop's store, and out of it again. In the store it is sealed for the site's license key.
 */
import type { KeyObject } from 'node:crypto'
import { GapferryError } from '../../manifests/errors.ts'
import { openWithKey, sealForKey } from '../../manifests/key-seal.ts'
import { makeLicense, parseLicense, serializeLicense, type License } from '../../manifests/license.ts'
import type { Ledger } from '../../storage/ledger.ts'
import type { KeptLicense } from '../../storage/licenses.ts'
import type { BroughtLicense } from './license-files.ts'

const PURPOSE = 'gapferry-kept-license 1'

/** `unchanged`: this very license is kept already. */
export type KeepOutcome = 'new' | 'replaced' | 'unchanged'

/** Keeps a license; one of the same deployment that was there goes.
 *  @param args.key       the public half of the site's license key
 *  @param args.isForced  also where the one that is there was captured later
 *  @throws LICENSE_INVALID, LICENSE_OLDER */
export function keepLicense(
  { licenses }: Pick<Ledger, 'licenses'>,
  brought: BroughtLicense,
  args: { site: string; what: string; key: KeyObject; isForced: boolean; nowMs: number },
): { kept: KeptLicense; outcome: KeepOutcome } {
  const { site, what, key, isForced, nowMs } = args
  const { files, capturedAt, deploymentId, machine, source } = brought
  const license = makeLicense({ site, files, capturedAt, deploymentId, what })
  const bytes = serializeLicense(license, what)
  const { product, expires } = license
  const deployment = licenses.hmac('deployment', site, license.deploymentId)
  const content = licenses.hmac('content', site, withoutTime(license))
  const kept = { site, deployment, content, product, expires, machine, capturedAt, addedAtMs: nowMs, source }
  const before = licenses.of(site).find((one) => one.deployment === deployment)
  if (before?.content === content) return { kept: before, outcome: 'unchanged' }
  if (before !== undefined && !isForced) refuseOlder(what, before, kept)
  licenses.keep(kept, sealForKey(bytes, key, PURPOSE))
  return { kept, outcome: before === undefined ? 'new' : 'replaced' }
}

/** A license that is kept, opened. @param key  the site's license key
 *  @returns also the document's bytes
 *  @throws LICENSE_INVALID where the key is another one, or the ledger was changed */
export function openKept(
  { licenses }: Pick<Ledger, 'licenses'>,
  { site, deployment, content }: KeptLicense,
  key: KeyObject,
): { license: License; bytes: Buffer } {
  const what = `license ${deployment.slice(0, 8)} of ${site}`
  const bytes = openWithKey(licenses.sealed(site, deployment) ?? Buffer.alloc(0), key, PURPOSE, what)
  const license = parseLicense(bytes, what)
  if (licenses.hmac('content', site, withoutTime(license)) === content) return { license, bytes }
  throw new GapferryError('LICENSE_INVALID', `${what}: is not the one that the ledger names`)
}

/** The same files taken again are the same license. */
function withoutTime(license: License): Buffer {
  return serializeLicense({ ...license, capturedAt: null })
}

function refuseOlder(what: string, before: KeptLicense, offered: KeptLicense): void {
  if (before.capturedAt === null || offered.capturedAt === null || before.capturedAt <= offered.capturedAt) return
  throw new GapferryError(
    'LICENSE_OLDER',
    `${what}: was captured ${offered.capturedAt}, the one that is kept ${before.capturedAt}`,
    { hint: 'where the older one is the right one: gapferry license add --force' },
  )
}
