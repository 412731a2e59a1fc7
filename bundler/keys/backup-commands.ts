/**
 * `gapferry keys backup` and `gapferry keys restore`.
 */
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { plural } from '../../manifests/console.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { examples, print, talk, type GlobalOptions, type Surroundings } from '../../manifests/program.ts'
import { replaceFile, systemCode } from '../../storage/durable.ts'
import { auditedKeys } from '../audit.ts'
import { loadFleet, parseFleet, type Fleet } from '../config.ts'
import { collectBackup, openBackup, refuseOverwrite, restoreBackup, sealBackup, type KeyBackup } from './key-backup.ts'
import { fleetOf, locked, oneSite, parseNumber } from './key-options.ts'
import { passphraseSources, type SecretOptions } from './key-secrets.ts'
import { readNewPassphrase, readPassphrase } from '../../storage/passphrase.ts'

interface BackupOptions extends GlobalOptions, SecretOptions {
  to: string
  site?: string
}
interface RestoreOptions extends GlobalOptions, SecretOptions {
  numberAbove?: string
}

export function addBackupCommands(keys: Command, around: Surroundings, program: Command): void {
  keys
    .command('backup')
    .description('keep all of a site’s keys here, and what the laptop remembers for it, in one sealed file')
    .requiredOption('--to <FILE>', 'a new file, on a medium that is kept elsewhere')
    .option('--site <NAME>', 'which site; needed where there are several')
    .option('--passphrase-fd <N>', 'read the passphrase of the backup from this file descriptor')
    .addHelpText('after', examples(program, 'keys backup --site hq --to /media/safe/hq.backup'))
    .action((_: object, command: Command) => backup(around, command.optsWithGlobals<BackupOptions>()))
  keys
    .command('restore')
    .description('put a backup in place on a laptop that has no keys of that site')
    .argument('<FILE>', 'as gapferry keys backup wrote it')
    .option('--number-above <N>', 'the highest number that the mirror knows (gapferry-mirror bundles)')
    .option('--passphrase-fd <N>', 'read the passphrase of the backup from this file descriptor')
    .addHelpText('after', examples(program, 'keys restore /media/safe/hq.backup --number-above 12'))
    .action((file: string, _: object, command: Command) =>
      restore(around, file, command.optsWithGlobals<RestoreOptions>()),
    )
}

async function backup(around: Surroundings, options: BackupOptions): Promise<void> {
  const fleet = fleetOf(options, around)
  const site = oneSite(fleet, options.site)
  const file = resolve(around.cwd, options.to)
  refuseOverwrite(file)
  const sources = passphraseSources(around, options.passphraseFd)
  await locked(fleet, () =>
    auditedKeys(fleet, around, { command: 'keys backup', site, files: [basename(file)] }, async (ledger) => {
      const settings = readFileSync(fleet.file, 'utf8')
      const kept = collectBackup({ dir: fleet.keysDir, site, ledger, settings, nowMs: around.nowMs() })
      const bytes = await sealBackup(kept, await readNewPassphrase(sources, 'new passphrase for the backup'))
      replaceFile(file, bytes, 0o600)
      sayBackup(around, options, kept, file)
      return { sha256: sha256Of(bytes) }
    }),
  )
}

function sayBackup(around: Surroundings, options: BackupOptions, { site, ...kept }: KeyBackup, file: string): void {
  const text = [
    `backup of ${site}: ${plural(kept.files.size, 'file')} of keys and roots, numbers up to ${kept.usedNumber}`,
    `  ${file}`,
    '  keep it away from this laptop; make a new one after each change of keys',
  ]
  print(
    around,
    options.json === true
      ? JSON.stringify({ site, file, files: [...kept.files.keys()], usedNumber: kept.usedNumber })
      : text.join('\n'),
  )
}

async function restore(around: Surroundings, name: string, options: RestoreOptions): Promise<void> {
  const sources = passphraseSources(around, options.passphraseFd)
  const above = options.numberAbove === undefined ? 0 : parseNumber(options.numberAbove)
  const bytes = readBackup(resolve(around.cwd, name))
  const backupFile = await openBackup(bytes, name, () => readPassphrase(sources, `passphrase of ${name}`))
  const config = resolve(around.cwd, options.config ?? 'gapferry.yaml')
  const isNew = !existsSync(config)
  const fleet = isNew ? fleetOfBackup(backupFile, config) : loadFleet(config)
  if (!fleet.sites.some((site) => site.name === backupFile.site)) {
    talk(around, `warning: ${config} has no site ${backupFile.site} yet; add it`)
  }
  mkdirSync(fleet.storeDir, { recursive: true, mode: 0o700 })
  const { site, createdAt, trail } = backupFile
  const asked = { command: 'keys restore', site, files: [basename(name)], sha256: sha256Of(bytes) }
  let next = 0
  await locked(fleet, () =>
    auditedKeys(fleet, around, asked, async (ledger) => {
      restoreBackup({ ...backupFile, usedNumber: Math.max(backupFile.usedNumber, above) }, fleet.keysDir, ledger)
      next = ledger.nextNumber(site)
      if (isNew) replaceFile(config, Buffer.from(backupFile.settings))
      return trail === undefined || ledger.audit.has(trail) ? {} : { lost: `${trail.seq}:${trail.hash}` }
    }),
  )
  const text = [
    `keys of ${site} are back, as of ${createdAt}`,
    `  settings     ${config}${isNew ? ', from the backup' : ', as they were'}`,
    `  next bundle  ${next}; if the mirror knows a higher one (gapferry-mirror bundles): gapferry pack --renew --number-above N`,
    `  if the other laptop is in use still, or was stolen: gapferry keys rotate bundle --site ${site}`,
  ]
  print(
    around,
    options.json === true
      ? JSON.stringify({ site, createdAt, nextNumber: next, config, isNewConfig: isNew })
      : text.join('\n'),
  )
}

/** Settings name vendors' keys by files that are not here yet. */
function fleetOfBackup({ settings }: KeyBackup, config: string): Fleet {
  return parseFleet(settings, config, false)
}

function readBackup(file: string): Buffer {
  try {
    // A stick may hold a pipe, or a link to a device that never ends.
    if (!statSync(file).isFile()) throw new GapferryError('KEY_INVALID', `${file}: expected a plain file`)
    return readFileSync(file)
  } catch (cause) {
    if (systemCode(cause) === '') throw cause
    throw new GapferryError('KEY_MISSING', `${file}: cannot be read (${systemCode(cause)})`, {
      hint: 'gapferry keys restore --help',
      cause,
    })
  }
}
