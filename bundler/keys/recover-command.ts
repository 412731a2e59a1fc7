/**
 * `gapferry init --from BUNDLE`: a new laptop in the place of a lost one.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { askLine } from '../../storage/ask.ts'
import { errorObject, formatTime } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { parseTimestamp, type PinnedRoot } from '../../manifests/metadata.ts'
import { print, PrintedError, talk, type Surroundings } from '../../manifests/program.ts'
import { MAX_BLOB_BYTES } from '../../manifests/tree.ts'
import { parseFingerprint } from '../../manifests/words.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { replaceFile } from '../../storage/durable.ts'
import { auditedKeys } from '../audit.ts'
import { bundleFiles } from './bundle-files.ts'
import { loadFleet, parseFleet, type Fleet } from '../config.ts'
import { refuseExisting, siteFolder } from './key-folder.ts'
import { locked, tokenKeyOf, type TokenOptions } from './key-options.ts'
import { passphraseSources, rootSecrets, siteSecrets, type SecretOptions } from './key-secrets.ts'
import { readNewPassphrase } from '../../storage/passphrase.ts'
import { pendingError, type RootProgress } from './pending-root.ts'
import { keepContent, lookAtBundle, recoverKeys, rememberBundle, type FoundBundle } from './recover.ts'
import { withScratch } from '../scratch.ts'
import { settingsSkeleton, type Skeleton } from './settings-skeleton.ts'

export interface RecoverOptions extends SecretOptions, TokenOptions {
  /** absolute paths: parts, or the folder of a stick */
  from: string[]
  site?: string
  rootKeys: string[]
  fingerprint?: string
  yes?: boolean
  numberAbove: number
  keepOld?: boolean
  /** false: `--no-passphrase` */
  passphrase: boolean
  json?: boolean
}

/** @param dir  where the laptop's settings shall be, or are
 *  @throws KEY_EXISTS before anything is read; ROOT_NOT_CONFIRMED, ROOT_FINGERPRINT; ROOT_PENDING where more root keys must sign */
export async function recoverLaptop(dir: string, options: RecoverOptions, around: Surroundings): Promise<void> {
  const files = bundleFiles(options.from, options.site)
  const found = await withScratch((dir) => lookAtBundle(files[0]!, dir, (root) => confirm(root, options, around)))
  const config = join(dir, 'gapferry.yaml')
  const isNew = !existsSync(config)
  const skeleton = settingsSkeleton(found.bundle)
  const fleet = isNew ? planned(skeleton, config) : loadFleet(config)
  refuseExisting(siteFolder(fleet.keysDir, found.site))
  const passphrase = await choosePassphrase(options, around)
  mkdirSync(fleet.storeDir, { recursive: true, mode: 0o700 })
  const { number } = found.bundle.metadata
  const names = files.map((file) => basename(file))
  const asked = { command: 'init --from', site: found.site, bundle: number, files: names }
  await locked(fleet, () =>
    auditedKeys(fleet, around, asked, async (ledger) => {
      const store = new BlobStore(fleet.storeDir)
      store.sweep()
      await keepContent(found, files, store, join(fleet.storeDir, 'staging'), around.signal)
      rememberBundle(found, ledger, options.numberAbove)
      if (isNew) writeSkeleton(dir, skeleton, config, store)
      const progress = await makeKeys(
        fleet,
        found,
        { ...options, siteKey: siteKeyOf(found, store) },
        passphrase,
        around,
      )
      sayRecovered(found, { config, isNew, fleet, progress, options }, around)
    }),
  )
}

async function makeKeys(
  fleet: Fleet,
  found: FoundBundle,
  options: RecoverOptions & { siteKey: string | undefined },
  passphrase: string | null,
  around: Surroundings,
): Promise<RootProgress> {
  const secrets = siteSecrets(around, options, found.site)
  // The new keys' passphrase was read already, and a file descriptor gives it once.
  const main = {
    ...secrets,
    passphrase: (question: string) =>
      passphrase === null ? secrets.passphrase(question) : Promise.resolve(passphrase),
  }
  const bundleKey = tokenKeyOf('bundle', options, secrets)
  return recoverKeys({
    dir: fleet.keysDir,
    found,
    rootKeyFiles: options.rootKeys,
    rootSecrets: rootSecrets(around, options, main),
    passphrase,
    keepOld: options.keepOld === true,
    siteKey: options.siteKey,
    nowMs: around.nowMs(),
    ...(bundleKey === undefined ? {} : { bundleKey }),
  })
}

/** What boxes know the site's metadata by; absent where the parts at hand do not have it. */
function siteKeyOf({ bundle }: FoundBundle, store: BlobStore): string | undefined {
  for (const [target, tree] of bundle.trees) {
    const entry = [...tree.entries].find(([path]) => path === 'keys/site.asc')?.[1]
    if (target.endsWith('/current') && entry !== undefined && store.has(entry.sha256))
      return store.read(entry.sha256, MAX_BLOB_BYTES).toString('latin1')
  }
  return undefined
}

async function confirm(root: PinnedRoot, { fingerprint, yes }: RecoverOptions, around: Surroundings): Promise<void> {
  if (fingerprint !== undefined) {
    const given = parseFingerprint(fingerprint)
    if (given === root.fingerprint) return
    throw new GapferryError(
      'ROOT_FINGERPRINT',
      `the bundle's first root: expected ${given}; found ${root.fingerprint}`,
      {
        hint: 'this bundle is not of the site those words belong to: take another stick',
      },
    )
  }
  if (yes === true) return
  if (around.stdin.isTTY !== true || around.stderr.isTTY !== true) {
    const message = `nobody is at a terminal to compare the fingerprint of site ${root.site}: ${root.fingerprint}`
    throw new GapferryError('ROOT_NOT_CONFIRMED', message, {
      hint: 'compare it with your note of what gapferry init showed; then add --fingerprint "WORDS"',
    })
  }
  talk(around, `site ${root.site}, root fingerprint:\n  ${root.fingerprint}`)
  const answer = await askLine(around, 'the same words as in your notes? (yes/no) ')
  if (answer.trim().toLowerCase() === 'yes') return
  throw new GapferryError('ROOT_NOT_CONFIRMED', 'the fingerprint was not confirmed; nothing was set up', {
    hint: 'where the words differ, do not use this bundle',
  })
}

async function choosePassphrase(options: RecoverOptions, around: Surroundings): Promise<string | null> {
  if (options.passphrase) return readNewPassphrase(passphraseSources(around, options.passphraseFd))
  talk(around, 'warning: the keys are kept unencrypted; whoever gets at them can sign for this site')
  return null
}

/** The settings as they will be; a vendor's key that is not written yet cannot be read. */
function planned({ text }: Skeleton, config: string): Fleet {
  return parseFleet(text, config, false)
}

function writeSkeleton(dir: string, { text, vendorKeys }: Skeleton, config: string, store: BlobStore): void {
  for (const [name, sha256] of vendorKeys) {
    if (store.has(sha256)) replaceFile(join(dir, name), store.read(sha256, MAX_BLOB_BYTES))
  }
  replaceFile(config, Buffer.from(text))
}

function sayRecovered(
  found: FoundBundle,
  about: { config: string; isNew: boolean; fleet: Fleet; progress: RootProgress; options: RecoverOptions },
  around: Surroundings,
): void {
  const { config, isNew, fleet, progress, options } = about
  const { site } = found
  const { number, createdAtMs } = found.bundle.metadata
  const next = Math.max(number, options.numberAbove) + 1
  const { expiresAtMs } = parseTimestamp(found.metadata.get('timestamp.json')!, 'timestamp.json')
  const text = [
    `site ${site} is set up again from bundle ${number}, signed ${formatTime(createdAtMs)}`,
    `  settings     ${config}${isNew ? ': fill in what no bundle tells (include, newest), see its head' : ', as they were'}`,
    `  root ${progress.version}       ${progress.isInForce ? 'in force' : 'waits for signatures'}: ${options.keepOld === true ? 'the other laptop’s bundle key stays in force' : 'it takes the lost bundle key away'}`,
    `  next bundle  ${next}; if the mirror knows a higher one (gapferry-mirror bundles): gapferry pack --renew --number-above N`,
    '  boxes        the OpenPGP key is new. Before they update from the next bundle, each must import it:',
    `               curl -o /etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry ORIGIN/keys/site.asc; compare it with ${siteFolder(fleet.keysDir, site)}/site.asc`,
    '               (with a backup of the old keys they need nothing: gapferry keys restore FILE, instead of this)',
    ...(around.nowMs() >= expiresAtMs ? ['  this bundle has expired; mirrors take only the next one'] : []),
  ].join('\n')
  const shown = {
    site,
    number,
    nextNumber: next,
    config,
    isNewConfig: isNew,
    root: { version: progress.version, isInForce: progress.isInForce, file: progress.file },
  }
  if (progress.isInForce) return print(around, options.json === true ? JSON.stringify(shown) : text)
  const failure = pendingError(progress)
  print(around, options.json === true ? JSON.stringify({ ...shown, ...errorObject(failure) }) : text)
  throw options.json === true ? new PrintedError('pending', { cause: failure }) : failure
}
