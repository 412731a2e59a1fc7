/**
 * From the kept plan to parts on a stick, for one site or all: keys, compose, sign, pack.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { parseTimestamp } from '../manifests/metadata.ts'
import type { Surroundings } from '../manifests/program.ts'
import { fingerprintWords } from '../manifests/words.ts'
import type { AuditWhat } from '../storage/audit.ts'
import { systemCode } from '../storage/durable.ts'
import type { SignedBundle } from '../storage/ledger.ts'
import { appendDone, auditedOnLaptop } from './audit.ts'
import { composeBundle, type ComposedBundle, type Laptop } from './carry.ts'
import { siteSecrets } from './keys/key-secrets.ts'
import { loadSite, unlockSite, type SiteSigner } from './keys/keys.ts'
import { parseSiteKey } from './keys/site-key.ts'
import { pack, type PackedFile, type PackOptions } from './pack.ts'
import type { Plan } from './plan.ts'
import { keptPlan } from './plan-file.ts'
import type { ProgressStep } from '../manifests/progress.ts'
import type { PackedBundle } from './render.ts'
import { eachSite, type SiteFailure } from './sites.ts'
import { verifyPart } from './verify.ts'

export interface DeliverOptions {
  toDir: string
  partSizeBytes?: number
  renew: boolean
  passphraseFd?: string
  pinFd?: string
  /** this number, and those below it, another laptop may have used */
  numberAbove?: number
}

/** @param sites  names
 *  @throws as eachSite; KEY_*, USAGE_INVALID for a file descriptor that is none, and what keptPlan, composing and packing throw */
export async function packSites(
  laptop: Laptop,
  around: Surroundings,
  sites: readonly string[],
  options: DeliverOptions,
): Promise<{ bundles: PackedBundle[]; failures: SiteFailure[] }> {
  const { done, failures } = await eachSite(sites, laptop.signal, (name) =>
    packSite(laptop, around, keptPlan(laptop.fleet, name).sites[0]!, options),
  )
  return { bundles: done, failures }
}

/** What the system says of a stick that is write-protected, pulled or broken. */
function explainMedium(dir: string, cause: unknown): unknown {
  const code = systemCode(cause)
  if (!['EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EEXIST', 'EIO', 'ENODEV', 'ENXIO', 'ENOENT'].includes(code))
    return cause
  return new GapferryError('MEDIUM_UNUSABLE', `${dir}: cannot be written (${code})`, {
    hint: 'is it mounted, and not write-protected? Then run the same command again, or use another stick',
    cause,
  })
}

async function packSite(
  laptop: Laptop,
  around: Surroundings,
  site: Plan['sites'][number],
  options: DeliverOptions,
): Promise<PackedBundle> {
  const keysDir = laptop.fleet.keysDir
  const { roots, siteKeyArmored } = loadSite(keysDir, site.name)
  const unlock = (): Promise<SiteSigner> =>
    unlockSite({ dir: keysDir, site: site.name, passphrase: siteSecrets(around, options, site.name) })
  if (options.numberAbove !== undefined) laptop.ledger.keepAbove(site.name, options.numberAbove)
  const composed = await composeBundle(
    laptop,
    site,
    { roots, siteKeyArmored, unlock },
    {
      renew: options.renew,
      bundler: `gapferry/${around.version}`,
      onSigned: (bundle) => appendDone(laptop.ledger, around, signedRow(bundle, siteKeyArmored)),
    },
  )
  const { bundle, documents, wanted } = composed
  const judge = {
    trusted: { roots: roots.slice(0, 1) },
    site: site.name,
    nowMs: Math.max(laptop.nowMs(), bundle.createdAtMs),
    scratchDir: join(laptop.fleet.storeDir, 'staging'), // what a crash leaves there is swept by the next run
    signal: laptop.signal,
  }
  const carriedBytes = [...wanted.values()].reduce((total, bytes) => total + bytes, 0)
  const placed = (file: PackedFile) => ({ ...file, path: join(options.toDir, 'gapferry', site.name, file.name) })
  let step: ProgressStep | undefined
  try {
    const asked = { command: 'pack', site: site.name, bundle: bundle.number }
    const done = ({ files }: Awaited<ReturnType<typeof pack>>) => ({ ...asked, files: files.map(({ name }) => name) })
    const parts: PackOptions = {
      site: site.name,
      number: bundle.number,
      metadata: bundle.metadata,
      trees: documents,
      wanted,
      blobs: laptop.store,
      toDir: options.toDir,
      rootFile: roots[0]!,
      verifyPy: readFileSync(new URL('./verify.py', import.meta.url)),
      signal: laptop.signal,
      // As a mirror will judge it: nobody shall drive for hours with a stick that is refused there.
      verify: (file) => verifyPart(file, judge),
      onProgress: (bytes, totalBytes) => (step ??= laptop.progress.step(`pack ${site.name}`, totalBytes)).add(bytes),
      ...(options.partSizeBytes === undefined ? {} : { partSizeBytes: options.partSizeBytes }),
    }
    const { files } = await auditedOnLaptop(laptop.ledger, around, asked, () => pack(parts), done)
    return { ...describePacked(composed, roots), site: site.name, files: files.map(placed), carriedBytes }
  } catch (error) {
    throw explainMedium(options.toDir, error)
  } finally {
    step?.end()
  }
}

function describePacked(
  { bundle, isNew, paths }: ComposedBundle,
  roots: Buffer[],
): Omit<PackedBundle, 'site' | 'files' | 'carriedBytes'> {
  const { number, createdAtMs } = bundle
  const { expiresAtMs } = parseTimestamp(bundle.metadata.get('timestamp.json')!, 'timestamp.json')
  return { number, isNew, createdAtMs, expiresAtMs, paths, fingerprint: fingerprintWords(roots[0]!) }
}

/** Which bundle, by the digest that tells its state, and which keys signed it. */
function signedRow({ site, number, metadata }: SignedBundle, siteKeyArmored: string): AuditWhat {
  const { signatures } = JSON.parse(metadata.get('timestamp.json')!.toString('utf8')) as {
    signatures: { keyid: string }[]
  }
  const keys = signatures.map(({ keyid }) => `bundle ${keyid}`)
  const [openpgp] = parseSiteKey(siteKeyArmored, 'site.asc')
  const sha256 = sha256Of(metadata.get(`${number}.targets.json`)!)
  return { command: 'sign', site, bundle: number, sha256, keys: [...keys, `openpgp ${openpgp!.fingerprint}`] }
}
