/**
 * `gapferry keys …`: what keys a site has, changing them, keeping a copy.
 */
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { errorObject, formatTime } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { parseRoot } from '../../manifests/metadata.ts'
import {
  append,
  examples,
  print,
  PrintedError,
  talk,
  type GlobalOptions,
  type Surroundings,
} from '../../manifests/program.ts'
import { replaceFile } from '../../storage/durable.ts'
import { auditedKeys } from '../audit.ts'
import { addBackupCommands } from './backup-commands.ts'
import type { Fleet } from '../config.ts'
import { listKeys, renderKeys } from './key-list.ts'
import {
  mergeSignatures,
  rotateKeys,
  signPendingRoot,
  signRootCopy,
  type Rotated,
  type Rotation,
} from './key-rotate.ts'
import { newRootPassphrases, rootSecrets, siteSecrets, type SecretOptions } from './key-secrets.ts'
import { loadRoots, readSiteFile } from './key-folder.ts'
import {
  fleetOf,
  locked,
  oneSite,
  pathsOf,
  sameDisk,
  secretOptions,
  siteNames,
  tokenKeyOf,
  tokenOptions,
  type TokenOptions,
} from './key-options.ts'
import {
  advanceRoot,
  discardPending,
  parsePending,
  readPending,
  pendingError,
  type RootProgress,
} from './pending-root.ts'
import { rotateOpenpgp, type OpenpgpOptions } from './openpgp-command.ts'
import { onSameDisk, parseThreshold } from './root-keys.ts'
import type { KeySecrets } from './signing-key.ts'

interface SiteOptions extends GlobalOptions {
  site?: string
}
interface RotateOptions extends SiteOptions, SecretOptions, TokenOptions, OpenpgpOptions {
  rootKey?: string[]
  root?: string
  rootTo?: string[]
  replace?: string[]
  keepOld?: boolean
  discard?: boolean
  passphrase: boolean
}
interface SignOptions extends SiteOptions, SecretOptions {
  rootKey?: string[]
  copy?: string[]
  pending?: string
  after?: string
}

export function addKeyCommands(program: Command, around: Surroundings): void {
  const keys = program
    .command('keys')
    .description('list, change, back up and restore the keys of a site')
    .addHelpText('after', examples(program, 'keys list', 'keys rotate bundle --root-key /media/safe/root.key'))
  addList(keys, around, program)
  addRotate(keys, around, program)
  addSign(keys, around, program)
  addBackupCommands(keys, around, program)
}

function addList(keys: Command, around: Surroundings, program: Command): void {
  keys
    .command('list')
    .description('every key: what for, where, in force or not, how protected; and what is wrong')
    .option('--site <NAME>', 'only this site')
    .addHelpText('after', examples(program, 'keys list --site hq'))
    .action((_options: object, command: Command) => {
      const options = command.optsWithGlobals<SiteOptions>()
      const fleet = fleetOf(options, around)
      const sites = siteNames(fleet, options.site).map((site) => listKeys(fleet.keysDir, site, around.nowMs()))
      print(around, options.json === true ? JSON.stringify({ sites }) : sites.map(renderKeys).join('\n\n'))
    })
}

function addRotate(keys: Command, around: Surroundings, program: Command): void {
  const command = keys
    .command('rotate')
    .description('change keys: the next root, with a new bundle key, new root keys or a new expiry; or the OpenPGP key')
    .argument('[WHAT]', 'bundle, root or openpgp; default: none, only the root’s expiry is renewed')
    .option('--site <NAME>', 'which site; needed where there are several')
    .option('--root-key <FILE>', 'a root key that signs (repeat)', append)
    .option('--keep-old', 'bundle: the old bundle keys stay in force (a second laptop)')
    .option('--root <T/N>', 'root: how many keys, and how many of them must sign')
    .option('--root-to <DIR>', 'root: where a new root key goes (repeat)', append)
    .option('--replace <KEYID>', 'root: only this key goes (repeat)', append)
    .option('--no-passphrase', 'root: keep new root keys unencrypted (a lab only)')
    .option('--now', 'openpgp: the key that was published beforehand signs from now on')
    .option('--remove <ID>', 'openpgp: this key is no longer published')
    .option('--discard', 'forget a root that waits for signatures')
  secretOptions(tokenOptions(command))
    .addHelpText(
      'after',
      examples(
        program,
        'keys rotate bundle --root-key /media/safe/gapferry-hq-root-1a2b3c4d.key',
        'keys rotate root --root 2/3 --root-to /media/a --root-to /media/b --root-to /media/c',
        'keys rotate openpgp --now',
      ),
    )
    .action(async (what: string | undefined, _options: object, self: Command) => {
      const options = self.optsWithGlobals<RotateOptions>()
      const fleet = fleetOf(options, around)
      const site = oneSite(fleet, options.site)
      const step = options.now === true ? '--now' : options.remove === undefined ? undefined : '--remove'
      if (step !== undefined && what !== 'openpgp')
        throw new GapferryError('USAGE_INVALID', `${step} is for: gapferry keys rotate openpgp`)
      const words = ['keys rotate', what, step, options.discard === true ? '--discard' : undefined]
      const asked = { command: words.filter((word) => word !== undefined).join(' '), site }
      await locked(fleet, () =>
        auditedKeys(fleet, around, asked, async (ledger) => {
          if (what === 'openpgp') return rotateOpenpgp(around, fleet, site, ledger, options)
          if (options.discard === true) return sayDiscarded(around, options, discardPending(fleet.keysDir, site), site)
          await rotate(around, fleet, site, what, options)
        }),
      )
    })
}

async function rotate(
  around: Surroundings,
  fleet: Fleet,
  site: string,
  what: string | undefined,
  options: RotateOptions,
): Promise<void> {
  const secrets = siteSecrets(around, options, site)
  const rotated = await rotateKeys({
    dir: fleet.keysDir,
    site,
    rotation: rotationOf(around, what, options, secrets),
    rootKeyFiles: pathsOf(around, options.rootKey),
    secrets,
    rootSecrets: rootSecrets(around, options, secrets),
    nowMs: around.nowMs(),
  })
  for (const { role, file } of rotated.newKeys) {
    if (role === 'root' && onSameDisk([file], fleet.keysDir).length > 0) talk(around, `warning: ${sameDisk(file)}`)
  }
  say(around, options, rotated)
}

function addSign(keys: Command, around: Surroundings, program: Command): void {
  const command = keys
    .command('sign')
    .description('add signatures to a root that waits for them, here or on a copy of it')
    .option('--site <NAME>', 'which site; needed where there are several')
    .option('--root-key <FILE>', 'a root key that signs (repeat)', append)
    .option('--copy <FILE>', 'take over the signatures of a copy that was signed elsewhere (repeat)', append)
    .option('--pending <FILE>', 'sign this copy, on a machine without the site’s settings')
    .option('--after <ROOT.json>', 'with --pending: the root in force, where the key is no key of the new one')
  secretOptions(command)
    .addHelpText(
      'after',
      examples(
        program,
        'keys sign --site hq --root-key /media/b/root.key',
        'keys sign --pending pending.root.json --root-key root.key',
      ),
    )
    .action(async (_options: object, self: Command) => {
      const options = self.optsWithGlobals<SignOptions>()
      if (options.pending !== undefined) return signCopy(around, options, options.pending)
      const fleet = fleetOf(options, around)
      const site = oneSite(fleet, options.site)
      await locked(fleet, () =>
        auditedKeys(fleet, around, { command: 'keys sign', site }, () => sign(around, fleet, site, options)),
      )
    })
}

async function sign(around: Surroundings, fleet: Fleet, site: string, options: SignOptions): Promise<void> {
  const progress = takeOver(fleet, site, pathsOf(around, options.copy))
  if (progress?.isInForce === true) return say(around, options, progress)
  const secrets = rootSecrets(around, options, siteSecrets(around, options, site))
  const rootKeyFiles = pathsOf(around, options.rootKey)
  say(around, options, await signPendingRoot({ dir: fleet.keysDir, site, rootKeyFiles, rootSecrets: secrets }))
}

async function signCopy(around: Surroundings, options: SignOptions, pending: string): Promise<void> {
  const file = resolve(around.cwd, pending)
  const after =
    options.after === undefined
      ? undefined
      : parseRoot(readSiteFile(resolve(around.cwd, options.after)), basename(options.after))
  if (options.rootKey === undefined) throw new GapferryError('USAGE_INVALID', 'expected --root-key FILE, found none')
  const copy = readSiteFile(file)
  const { site, version } = parsePending(copy)
  const { root, signedNow } = await signRootCopy({
    bytes: copy,
    rootKeyFiles: pathsOf(around, options.rootKey),
    rootSecrets: rootSecrets(around, options, siteSecrets(around, options, site)),
    ...(after === undefined ? {} : { before: after }),
  })
  replaceFile(file, root.bytes, 0o600)
  const names = signedNow.map((keyid) => keyid.slice(0, 8))
  const text = `root ${version} of ${site}: signed by ${names.join(', ')}\n  next: carry ${pending} back, then on the laptop: gapferry keys sign --site ${site} --copy FILE`
  print(around, options.json === true ? JSON.stringify({ site, version, file, signedBy: signedNow }) : text)
}

/** @returns what became of the root that waits; undefined without copies */
function takeOver(fleet: Fleet, site: string, copies: string[]): RootProgress | undefined {
  const { root: current } = loadRoots(fleet.keysDir, site)
  let progress: RootProgress | undefined
  for (const file of copies) {
    const pending = readPending(fleet.keysDir, current)
    if (pending === undefined) break
    progress = advanceRoot(fleet.keysDir, current, mergeSignatures(pending, parsePending(readSiteFile(file))))
  }
  return progress
}

function rotationOf(
  around: Surroundings,
  what: string | undefined,
  options: RotateOptions,
  secrets: KeySecrets,
): Rotation {
  const newKey = what === 'root' || what === 'bundle' ? tokenKeyOf(what, options, secrets) : undefined
  if (what === 'bundle') return { what, keepOld: options.keepOld === true, ...(newKey === undefined ? {} : { newKey }) }
  if (what === undefined) return { what: 'renew' }
  if (what !== 'root') {
    throw new GapferryError('USAGE_INVALID', `"${what}": expected bundle, root or openpgp`, {
      hint: 'gapferry keys rotate --help',
    })
  }
  const to = pathsOf(around, options.rootTo)
  const ask = newRootPassphrases(around, options, () => secrets.passphrase('passphrase of the keys'))
  return {
    what,
    replace: options.replace ?? [],
    size: options.root === undefined ? undefined : parseThreshold(options.root),
    order: { to, passphrase: options.passphrase ? ask : () => Promise.resolve(null) },
    ...(newKey === undefined ? {} : { newKey }),
  }
}

function say(
  around: Surroundings,
  { json }: GlobalOptions,
  result: RootProgress & Partial<Pick<Rotated, 'newKeys'>>,
): void {
  const { site, version, expiresAtMs, isInForce, file, newKeys = [] } = result
  const made = newKeys.map((key) => `  new ${key.role} key  ${key.file}`)
  const state = isInForce ? `in force, good until ${formatTime(expiresAtMs)}` : 'waits for signatures'
  const next = isInForce
    ? [`  next: gapferry bundle --site ${site} --to DIR; the bundle brings the root to the mirror`]
    : []
  const text = [`root ${version} of ${site}: ${state}`, `  ${file}`, ...made, ...next].join('\n')
  const shown = {
    site,
    version,
    expiresAt: new Date(expiresAtMs).toISOString(),
    isInForce,
    file,
    newKeys,
    quorums: result.quorums,
  }
  if (isInForce) return print(around, json === true ? JSON.stringify(shown) : text)
  const failure = pendingError(result)
  print(around, json === true ? JSON.stringify({ ...shown, ...errorObject(failure) }) : text)
  throw json === true ? new PrintedError('pending', { cause: failure }) : failure
}

function sayDiscarded(around: Surroundings, { json }: GlobalOptions, isDone: boolean, site: string): void {
  const text = isDone
    ? `the waiting root of ${site} is forgotten; key files that only it named stay`
    : `no root of ${site} waits`
  print(around, json === true ? JSON.stringify({ site, discarded: isDone }) : text)
}
