/**
 * What commands that touch keys have in common: options, the site that is meant, the store's lock.
 */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { plural } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { append, type GlobalOptions, type Surroundings } from '../../manifests/program.ts'
import { lockStore } from '../../storage/database.ts'
import { loadFleet, type Fleet } from '../config.ts'
import { parseTokenPlace } from './pkcs11.ts'
import { adoptTokenKey, type KeySecrets, type NewKey } from './signing-key.ts'

export interface TokenOptions {
  pkcs11?: string
  token?: string
  keyId?: string
}

/** Options that say where a passphrase or PIN comes from. */
export function secretOptions(command: Command): Command {
  return command
    .option('--passphrase-fd <N>', 'read the passphrase of the site’s keys from this file descriptor')
    .option('--root-passphrase-fd <N>', 'the same for a root key (repeat, in order)', append)
    .option('--pin-fd <N>', 'the same for the PIN of a token')
}

/** Options that name a key in a token. */
export function tokenOptions(command: Command): Command {
  return command
    .option('--pkcs11 <MODULE>', 'the new key is in a token: its PKCS#11 library')
    .option('--token <LABEL>', 'label of that token')
    .option('--key-id <ID>', 'id of the key in it, hexadecimal')
}

/** @returns undefined where no token is named
 *  @throws USAGE_INVALID where it is named by half */
export function tokenKeyOf(
  role: 'root' | 'bundle',
  { pkcs11, token, keyId }: TokenOptions,
  secrets: KeySecrets,
): (() => Promise<NewKey>) | undefined {
  if (pkcs11 === undefined && token === undefined && keyId === undefined) return undefined
  if (pkcs11 !== undefined && token !== undefined && keyId !== undefined) {
    const place = parseTokenPlace(pkcs11, token, keyId)
    return () => adoptTokenKey(role, place, secrets)
  }
  throw new GapferryError(
    'USAGE_INVALID',
    'a key in a token needs all of --pkcs11 MODULE, --token LABEL and --key-id ID',
  )
}

/** For a warning. */
export function sameDisk(file: string): string {
  return `${file} lies on the same disk as the bundle key; move it to another medium, and keep no copy here`
}

/** The settings that a command line names. */
export function fleetOf({ config }: GlobalOptions, around: Surroundings): Fleet {
  return loadFleet(resolve(around.cwd, config ?? 'gapferry.yaml'))
}

/** @throws SITE_UNKNOWN */
export function siteNames(fleet: Fleet, site: string | undefined): string[] {
  const names = fleet.sites.map(({ name }) => name)
  if (site === undefined) return names
  if (names.includes(site)) return [site]
  throw new GapferryError('SITE_UNKNOWN', `${fleet.file} has no site "${site}"`, {
    hint: `its sites: ${names.join(', ')}`,
  })
}

/** @throws USAGE_INVALID where several sites could be meant */
export function oneSite(fleet: Fleet, site: string | undefined): string {
  const [first, ...others] = siteNames(fleet, site)
  if (others.length === 0) return first!
  throw new GapferryError(
    'USAGE_INVALID',
    `${fleet.file} has ${plural(others.length + 1, 'site')}: expected --site NAME`,
    {
      hint: `its sites: ${[first, ...others].join(', ')}`,
    },
  )
}

/** Of `--number-above`. @throws USAGE_INVALID */
export function parseNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new GapferryError('USAGE_INVALID', `--number-above "${text}": expected the number of a bundle`)
}

/** As a person in `cwd` means them. */
export function pathsOf(around: Surroundings, files: string[] = []): string[] {
  return files.map((file) => resolve(around.cwd, file))
}

/** No bundle is signed while keys change. */
export async function locked<T>(fleet: Fleet, work: () => Promise<T>): Promise<T> {
  const unlock = lockStore(fleet.storeDir)
  try {
    return await work()
  } finally {
    unlock()
  }
}
