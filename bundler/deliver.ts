/**
 * From the kept plan to parts on a stick, for one site or all: keys, compose, sign, pack.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { countLicenses, parseSealedLicenses, type LicenseCount } from '../manifests/licenses.ts'
import { parseTimestamp } from '../manifests/metadata.ts'
import type { Surroundings } from '../manifests/program.ts'
import { parseSiteFacts } from '../manifests/site.ts'
import { isTreeTarget, LICENSES_TARGET, parseTree } from '../manifests/tree.ts'
import { fingerprintWords, siteKeyWords } from '../manifests/words.ts'
import type { AuditWhat } from '../storage/audit.ts'
import type { SignedBundle } from '../storage/ledger.ts'
import { appendDone, auditedOnLaptop } from './audit.ts'
import { boxTool, boxToolDigests } from './box/tool.ts'
import { composeBundle, type ComposedBundle, type Laptop } from './carry.ts'
import { siteSecrets } from './keys/key-secrets.ts'
import { loadSite, unlockSite, type SiteSigner } from './keys/keys.ts'
import { parseSiteKey } from './keys/site-key.ts'
import { openLicenseKey } from './licenses/license-key.ts'
import { pack, type PackedFile, type PackOptions } from './pack.ts'
import type { Plan } from './plan.ts'
import { keptPlan } from './plan-file.ts'
import type { ProgressStep } from '../manifests/progress.ts'
import type { PackedBundle } from './render.ts'
import { eachSite, type SiteFailure } from './sites.ts'
import { renderSlip, type SlipContent } from './slip.ts'
import { explainMedium } from './stick.ts'
import { leaveOut } from './report-base.ts'
import { verifyPart } from './verify.ts'

export interface DeliverOptions {
  toDir: string
  partSizeBytes?: number
  renew: boolean
  /** mend what is on the stick of the bundle that was signed last; sign nothing */
  isRepair?: boolean
  /** carries also what a report says is there */
  isFull: boolean
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

async function packSite(
  laptop: Laptop,
  around: Surroundings,
  site: Plan['sites'][number],
  options: DeliverOptions,
): Promise<PackedBundle> {
  const keysDir = laptop.fleet.keysDir
  const { roots, siteKeyArmored } = loadSite(keysDir, site.name)
  const secrets = siteSecrets(around, options, site.name)
  const unlessRepair = <T>(open: () => Promise<T>): Promise<T> =>
    options.isRepair === true ? Promise.reject(nothingSigned(site.name)) : open()
  const unlock = (): Promise<SiteSigner> =>
    unlessRepair(() => unlockSite({ dir: keysDir, site: site.name, passphrase: secrets }))
  const unlockLicenses = () => unlessRepair(() => openLicenseKey(keysDir, site.name, secrets))
  if (options.numberAbove !== undefined) laptop.ledger.keepAbove(site.name, options.numberAbove)
  const signed = await composeBundle(
    laptop,
    site,
    { roots, siteKeyArmored, unlock, unlockLicenses },
    {
      renew: options.renew,
      bundler: `gapferry/${around.version}`,
      onSigned: (bundle) => appendDone(laptop.ledger, around, signedRow(bundle, siteKeyArmored)),
    },
  )
  const { wanted, leftOut } = leaveOut(laptop, site.name, signed.wanted, options.isFull)
  const composed = { ...signed, wanted }
  const { bundle } = composed
  const placed = (file: PackedFile) => ({ ...file, path: join(options.toDir, 'gapferry', site.name, file.name) })
  let step: ProgressStep | undefined
  try {
    const command = options.isRepair === true ? 'pack --repair' : 'pack'
    const asked = { command, site: site.name, bundle: bundle.number }
    const done = ({ files }: Awaited<ReturnType<typeof pack>>) => ({ ...asked, files: files.map(({ name }) => name) })
    const onProgress = (bytes: number, totalBytes: number): void =>
      (step ??= laptop.progress.step(`pack ${site.name}`, totalBytes)).add(bytes)
    const how = howToPack(options, leftOut === null ? undefined : signed.wanted)
    const parts = { ...partsToPack(laptop, around, composed, { roots, siteKeyArmored }), ...how, onProgress }
    const packed = await auditedOnLaptop(laptop.ledger, around, asked, () => pack(parts), done)
    const { files, wanted: carried, ...more } = packed
    return {
      ...describePacked(composed, { roots, siteKeyArmored }),
      site: site.name,
      files: files.map(placed),
      carriedBytes: [...carried.values()].reduce((total, bytes) => total + bytes, 0),
      leftOut: carried === signed.wanted ? null : leftOut,
      ...more,
    }
  } catch (error) {
    throw explainMedium(options.toDir, error)
  } finally {
    step?.end()
  }
}

type SiteRoots = Pick<ReturnType<typeof loadSite>, 'roots' | 'siteKeyArmored'>

/** @param all  what the bundle carries where nothing is left out: a stick that was packed with --full is mended as one */
function howToPack(
  options: DeliverOptions,
  all: PackOptions['wanted'] | undefined,
): Pick<PackOptions, 'toDir' | 'isRepair' | 'partSizeBytes' | 'wantedElse'> {
  return {
    toDir: options.toDir,
    ...(options.isRepair === true && { isRepair: true, ...(all === undefined ? {} : { wantedElse: all }) }),
    ...(options.partSizeBytes === undefined ? {} : { partSizeBytes: options.partSizeBytes }),
  }
}

function partsToPack(
  laptop: Laptop,
  around: Surroundings,
  composed: ComposedBundle,
  { roots, siteKeyArmored }: SiteRoots,
): Omit<PackOptions, 'toDir'> {
  const { bundle, documents, wanted } = composed
  const { site, number, metadata } = bundle
  const judge = {
    trusted: { roots: roots.slice(0, 1) },
    site,
    nowMs: Math.max(laptop.nowMs(), bundle.createdAtMs),
    scratchDir: join(laptop.fleet.storeDir, 'staging'), // what a crash leaves there is swept by the next run
    signal: laptop.signal,
    isPastCache: true,
  }
  return {
    site,
    number,
    metadata,
    wanted,
    trees: documents,
    blobs: laptop.store,
    rootFile: roots[0]!,
    boxTool: boxTool(),
    verifyPy: readFileSync(new URL('./verify.py', import.meta.url)),
    signal: laptop.signal,
    // As a mirror will judge it: nobody shall drive for hours with a stick that is refused there.
    verify: (file) => verifyPart(file, judge),
    slip: (files) => renderSlip(slipContent(composed, around, { roots, siteKeyArmored }), files),
  }
}

function nothingSigned(site: string): GapferryError {
  return new GapferryError('USAGE_INVALID', `${site}: what is to be carried is not what was signed last`, {
    hint: 'a repair signs nothing: gapferry pack --to DIR',
  })
}

function slipContent(
  { bundle, documents }: ComposedBundle,
  around: Surroundings,
  { roots, siteKeyArmored }: SiteRoots,
): SlipContent {
  const { site, number, createdAtMs, metadata, trees } = bundle
  const document = (target: string): Buffer => documents.get(trees.get(target)!)!
  const { expiresAtMs } = parseTimestamp(metadata.get('timestamp.json')!, 'timestamp.json')
  return {
    site,
    number,
    createdAtMs,
    expiresAtMs,
    bundler: `gapferry ${around.version}`,
    facts: parseSiteFacts(document('site')),
    trees: [...trees.keys()].filter(isTreeTarget).map((name) => parseTree(document(name), name)),
    licenses: licensesOf({ bundle, documents }),
    fingerprint: fingerprintWords(roots[0]!),
    siteKey: siteKeyWords(siteKeyArmored),
    tool: boxToolDigests(),
  }
}

function licensesOf({ bundle, documents }: Pick<ComposedBundle, 'bundle' | 'documents'>): LicenseCount | null {
  const named = bundle.trees.get(LICENSES_TARGET)
  return named === undefined ? null : countLicenses(parseSealedLicenses(documents.get(named)!))
}

function describePacked(
  { bundle, documents, isNew, paths }: ComposedBundle,
  { roots, siteKeyArmored }: SiteRoots,
): Omit<PackedBundle, 'site' | 'files' | 'carriedBytes' | 'leftOut' | 'isPastCache' | 'absent'> {
  const { number, createdAtMs } = bundle
  const { expiresAtMs } = parseTimestamp(bundle.metadata.get('timestamp.json')!, 'timestamp.json')
  const words = { fingerprint: fingerprintWords(roots[0]!), siteKey: siteKeyWords(siteKeyArmored) }
  const licenses = licensesOf({ bundle, documents })
  return { number, isNew, createdAtMs, expiresAtMs, paths, licenses, ...words, boxTool: boxToolDigests() }
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
