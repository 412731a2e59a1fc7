/**
 * `gapferry-mirror backup` and `restore` as a person meets them.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { formatBytes, plural } from '../manifests/console.ts'
import { examples, print, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { passphraseFrom, readNewPassphrase, readPassphrase, type PassphraseSources } from '../storage/passphrase.ts'
import { backUp, type BackedUp } from './backup.ts'
import type { Restored } from './restore.ts'
import type { StoreTools } from './store-commands.ts'
import { openStoreForWriting } from './store.ts'

/** @param configFile  the settings that a command is told to use, or would find */
export function addBackupCommands(
  program: Command,
  around: Surroundings,
  tools: StoreTools & { configFile: (around: Surroundings, given: string | undefined) => string },
): void {
  addBackup(program, around, tools)
  addRestore(program, around, tools)
}

function addBackup(program: Command, around: Surroundings, { withStore }: StoreTools): void {
  program
    .command('backup')
    .description('write what this mirror knows, its audit trail and its settings into one file')
    .requiredOption('--to <FILE>', 'where; nothing may stand there yet')
    .option('--with-blobs', 'with all files that are here, so that nothing has to be imported again')
    .option('--passphrase', 'with this mirror’s keys and the licenses, under a passphrase that is asked for')
    .option('--passphrase-fd <N>', 'the same, and read the passphrase from this file descriptor')
    .addHelpText('after', examples(program, 'backup --passphrase --to /media/safe/mirror-2026-11-22.backup'))
    .action(async (options: BackupOptions, command: Command) => {
      const passphrase = await newPassphrase(options, around)
      await withStore(around, command, openStoreForWriting, async (store, config, json) => {
        const to = resolve(around.cwd, options.to)
        const withBlobs = options.withBlobs === true
        const made = await backUp(store, { to, configFile: config.file, withBlobs, passphrase, by: around })
        print(around, json ? JSON.stringify(made) : renderBackup(made))
      })
    })
}

interface BackupOptions {
  to: string
  withBlobs?: boolean
  passphrase?: boolean
  passphraseFd?: string
}

/** @returns null where none is wanted */
async function newPassphrase(options: BackupOptions, around: Surroundings): Promise<string | null> {
  if (options.passphrase !== true && options.passphraseFd === undefined) return null
  return readNewPassphrase(sourcesOf(options, around), 'new passphrase for the keys in the backup')
}

function sourcesOf({ passphraseFd }: { passphraseFd?: string }, around: Surroundings): PassphraseSources {
  return passphraseFrom(around, passphraseFd, 'GAPFERRY_PASSPHRASE', '--passphrase-fd')
}

function addRestore(
  program: Command,
  around: Surroundings,
  { configFile }: { configFile: (around: Surroundings, given: string | undefined) => string },
): void {
  program
    .command('restore')
    .description('put a backup back; which numbers were seen is never forgotten by it')
    .argument('<FILE>', 'as backup wrote it')
    .option('--replace', 'in place of the store that is there; the higher of all numbers is kept')
    .option('--fingerprint <WORDS>', 'the twelve words that its root must have, where no store is there')
    .option('--yes', 'trust its root as it is, where no store is there')
    .option('--passphrase-fd <N>', 'read the passphrase of the keys in it from this file descriptor')
    .option('--without-keys', 'leave the keys in it out: the mirror gets new ones, and its boxes have to enrol again')
    .addHelpText('after', examples(program, 'restore /media/safe/mirror.backup --replace'))
    .action(async (file: string, options: RestoreOptions, command: Command) => {
      const { config, json } = command.optsWithGlobals<GlobalOptions>()
      const { restore } = await import('./restore.ts') // what checks signatures is not loaded to serve
      const made = await restore({
        file: resolve(around.cwd, file),
        configFile: configFile(around, config),
        isReplacing: options.replace === true,
        isConfirmed: options.yes === true,
        fingerprint: options.fingerprint,
        passphrase:
          options.withoutKeys === true
            ? undefined
            : () => readPassphrase(sourcesOf(options, around), 'passphrase of the keys in the backup'),
        by: around,
      })
      print(around, json === true ? JSON.stringify(made) : renderRestored(made))
      if (made.isMemoryLost) {
        talk(
          around,
          'warning: nothing of the store that was there could be read: numbers that only it knew are forgotten',
        )
      }
      if (made.keys === 'none') {
        talk(
          around,
          'warning: no keys came with it: this mirror gets new ones. The laptop will ask for its words, and boxes have to enrol again',
        )
      }
      talk(
        around,
        'where gapferry-mirror serve runs, restart it; then see gapferry-mirror bundles for what has to be imported',
      )
    })
}

interface RestoreOptions {
  replace?: boolean
  fingerprint?: string
  yes?: boolean
  passphraseFd?: string
  withoutKeys?: boolean
}

function renderBackup({ file, site, bundle, sha256, bytes, blobs, hasBlobs, hasKeys }: BackedUp): string {
  const what = hasBlobs
    ? `with ${plural(blobs, 'file')}`
    : 'without packages: they come back by importing the bundle again'
  const newest = bundle === null ? 'no bundle yet' : `bundle ${bundle}`
  return [
    `backup of site ${site}, ${newest}, ${formatBytes(bytes)}, ${what}`,
    `  file    ${file}`,
    `  digest  ${sha256}`,
    hasKeys
      ? '  keys    under the passphrase; without it they are lost'
      : '  keys    none, and no licenses: a mirror that is made of it gets new ones, and its boxes have to enrol again (--passphrase)',
  ].join('\n')
}

function renderRestored({ site, store, config, isConfigRestored, bundle, isMerged }: Restored): string {
  const lines = [`site ${site} is restored${bundle === null ? '' : `; newest bundle: ${bundle}`}`]
  if (isMerged) lines.push('  the store that was there knew more; the newer of both was kept')
  lines.push(
    `  settings  ${config}${isConfigRestored ? ', from the backup' : ', as they were'}`,
    `  store     ${store}`,
  )
  return lines.join('\n')
}
