/**
 * `gapferry init`: a new laptop, or one in the place of a lost one.
 */
import { relative, resolve } from 'node:path'
import { Option, type Command } from 'commander'
import { append, examples, print, talk, type GlobalOptions, type Surroundings } from '../manifests/program.ts'
import { PRESETS } from './config.ts'
import { initialize, type InitArguments } from './init.ts'
import { initFromReports, partReports, warnOfReports } from './init-from-report.ts'
import { parseNumber, pathsOf, secretOptions, tokenOptions } from './keys/key-options.ts'
import { recoverLaptop } from './keys/recover-command.ts'

interface InitOptions extends Omit<InitArguments, 'isAsked' | 'rootTo'> {
  rootTo?: string[]
  from?: string[]
  rootKey?: string[]
  fingerprint?: string
  yes?: boolean
  numberAbove?: string
  keepOld?: boolean
}

export function addInit(program: Command, around: Surroundings): void {
  const command = program
    .command('init')
    .description('write gapferry.yaml where there is none, and make the store and the keys of each site')
    .argument('[DIR]', 'where', '.')
    .addOption(new Option('--preset <NAME>', 'what the group’s boxes are').choices([...PRESETS]).default('pbxact-16'))
    .option('--site <NAME>', 'name of the isolated network', 'hq')
    .option('--group <NAME>', 'name of the group of boxes', 'pbxact16')
    .option('--origin <URL>', 'where the boxes will reach the mirror', 'http://mirror.hq.lan:8416')
    .option('--no-passphrase', 'keep the keys unencrypted (a lab only)')
    .option('--root <T/N>', 'how many root keys, and how many of them must sign a new root (default: 1/1)')
    .option('--root-to <DIR>', 'where a root key goes: a medium that is kept elsewhere (repeat, one for each)', append)
    .option(
      '--from <PATH>',
      'set up a lost laptop again from a bundle: its parts, or the stick; after keys restore also from a report (repeat)',
      append,
    )
    .option('--root-key <FILE>', 'with --from: a root key that signs for the new bundle key (repeat)', append)
    .option('--fingerprint <WORDS>', 'with --from: the root’s fingerprint, as it was noted')
    .option('--yes', 'with --from: believe the bundle’s root (a lab only)')
    .option('--number-above <N>', 'with --from: the highest number that the mirror knows')
    .option('--keep-old', 'with --from: the other laptop is in use, its bundle key stays in force')
  secretOptions(tokenOptions(command))
    .addHelpText(
      'after',
      examples(
        program,
        'init lap --site hq --preset pbxact-16 --origin http://mirror.hq.lan:8416',
        'init lap --root 2/3 --root-to /media/a --root-to /media/b --root-to /media/c',
        'init lap --from /media/stick --root-key /media/a/gapferry-hq-root-1a2b3c4d.key --number-above 12',
      ),
    )
    .action(async (dir: string, options: InitOptions, self: Command) => {
      const { json } = self.optsWithGlobals<GlobalOptions>()
      const isGiven = (name: string): boolean => self.getOptionValueSource(name) === 'cli'
      if (options.from !== undefined) {
        return recover(around, dir, options, isGiven('site') ? options.site : undefined, json === true)
      }
      const isAsked = ['preset', 'site', 'group', 'origin'].some(isGiven)
      await make(around, dir, { ...options, rootTo: pathsOf(around, options.rootTo), isAsked }, json === true)
    })
}

async function make(around: Surroundings, dir: string, given: InitArguments, json: boolean): Promise<void> {
  const made = await initialize(resolve(around.cwd, dir), given, around)
  if (json) return print(around, JSON.stringify(made))
  for (const site of made.sites) {
    print(around, `site ${site.name}: ${site.isNew ? 'keys made' : 'keys are there'}`)
    print(around, `  root         ${site.rootFile}`)
    print(around, `  fingerprint  ${site.fingerprint}`)
    for (const file of site.rootKeys) print(around, `  root key     ${file}`)
  }
  print(around, `settings: ${made.config}`)
  talk(around, `next: look through the settings, then: gapferry plan --config ${relative(around.cwd, made.config)}`)
}

async function recover(
  around: Surroundings,
  dir: string,
  options: InitOptions,
  site: string | undefined,
  json: boolean,
): Promise<void> {
  const { reports, others } = partReports(pathsOf(around, options.from))
  const place = resolve(around.cwd, dir)
  if (others.length === 0) {
    return initFromReports(place, reports, { json, ...(options.yes === true && { yes: true }) }, around)
  }
  warnOfReports(reports, around)
  const { numberAbove, rootKey, passphrase, fingerprint, yes, keepOld, pkcs11, token, keyId } = options
  const { passphraseFd, rootPassphraseFd, pinFd } = options
  const given = { fingerprint, yes, keepOld, pkcs11, token, keyId, passphraseFd, rootPassphraseFd, pinFd, site }
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return recoverLaptop(
    place,
    {
      ...set,
      from: others,
      rootKeys: pathsOf(around, rootKey),
      numberAbove: numberAbove === undefined ? 0 : parseNumber(numberAbove),
      passphrase,
      json,
    },
    around,
  )
}
