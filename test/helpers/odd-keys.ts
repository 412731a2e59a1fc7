/** Keys such as a vendor of modules may have, messages that gpg signs with them, and what a box's gpg makes of those. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromCache, intoCache, withFolder } from './cache.ts'
import { gpgKey, withGpgHome, type GpgKey } from './gpg.ts'
import { run, type Outcome } from './process.ts'

type Gpg = (...args: string[]) => Promise<Outcome>

/** When keys of old were made … */
const KEYS_MADE = '20200101T000000'
/** … and when they signed. */
export const SIGNED = '20200601T000000'

const ANY = ['--passphrase', '', '--pinentry-mode', 'loopback']

/** How each key is made, beside the plain ones `vendor` and `stranger`. */
const RECIPES = {
  /** signs with a subkey */
  subkey: async (gpg: Gpg) => {
    await gpg(...ANY, '--quick-generate-key', 'Subkey <subkey@example.invalid>', 'rsa2048', 'cert', 'never')
    const [fingerprint] = await fingerprints(gpg)
    await gpg(...ANY, '--quick-add-key', fingerprint, 'rsa2048', 'sign', 'never')
  },
  /** was good for a year from KEYS_MADE on */
  expired: async (gpg: Gpg) => {
    await old(gpg, '--quick-generate-key', 'Expired <expired@example.invalid>', 'rsa2048', 'sign', '1y')
  },
  /** the same, and renewed today */
  renewed: async (gpg: Gpg) => {
    await old(gpg, '--quick-generate-key', 'Renewed <renewed@example.invalid>', 'rsa2048', 'sign', '1y')
    const [fingerprint] = await fingerprints(gpg)
    await gpg(...ANY, '--quick-set-expire', fingerprint, '0')
  },
  /** its signature over itself is over SHA-1, as gpg 2.0 made it */
  sha1: async (gpg: Gpg) => {
    await gpg(
      ...ANY,
      ...[
        '--cert-digest-algo',
        'SHA1',
        '--quick-generate-key',
        'Old <old@example.invalid>',
        'rsa2048',
        'sign',
        'never',
      ],
    )
  },
  revoked: async (gpg: Gpg, home: string) => {
    await gpg(...ANY, '--quick-generate-key', 'Revoked <revoked@example.invalid>', 'rsa2048', 'sign', 'never')
    const [fingerprint] = await fingerprints(gpg)
    const file = join(home, 'openpgp-revocs.d', `${fingerprint}.rev`)
    writeFileSync(file, readFileSync(file, 'utf8').replace(/^:(?=-----BEGIN)/m, ''))
  },
} as const

export type KeyName = 'vendor' | 'stranger' | keyof typeof RECIPES
export const KEY_NAMES: readonly KeyName[] = [
  'vendor',
  'stranger',
  ...(Object.keys(RECIPES) as (keyof typeof RECIPES)[]),
]

/** One of the keys, with its secret part still able to sign. */
export async function moduleTestKey(name: KeyName): Promise<GpgKey> {
  if (name === 'vendor' || name === 'stranger') return gpgKey(name)
  const known = fromCache(`module-key-1-${name}.json`)
  return JSON.parse(readFileSync(known ?? (await makeKey(name)), 'utf8')) as GpgKey
}

/** Signs `file` with one key after the other and gives the message.
 *  @param options  of gpg, in front of `--sign` */
export async function signMessage(
  keys: readonly KeyName[],
  file: string,
  options: readonly string[] = [],
  command: readonly string[] = ['--sign'],
): Promise<Buffer> {
  const found = await Promise.all(keys.map((name) => moduleTestKey(name)))
  return withGpgHome(found, async (gpg, home) => {
    const output = join(home, 'message.gpg')
    const users = found.flatMap(({ fingerprint }) => ['--local-user', fingerprint])
    await gpg(...ANY, ...users, ...options, '--output', output, ...command, file)
    return readFileSync(output)
  })
}

/** What a box does with a message (freepbx.md §1.6): good where gpg verifies all of it by keys that it trusts, and gives what is
 *  inside. */
export async function boxVerdict(keys: readonly KeyName[], message: Uint8Array): Promise<'good' | 'refused'> {
  const found = await Promise.all(keys.map((name) => moduleTestKey(name)))
  return withFolder(async (home) => {
    const file = join(home, 'module.tgz.gpg')
    writeFileSync(file, message)
    const gpg = (...args: string[]) => run('gpg', ['--homedir', home, '--batch', '--yes', '--no-tty', ...args])
    for (const [i, { publicArmored }] of found.entries()) {
      writeFileSync(join(home, `${i}.asc`), publicArmored)
      await gpg('--import', join(home, `${i}.asc`))
    }
    writeFileSync(join(home, 'trust'), found.map(({ fingerprint }) => `${fingerprint}:6:\n`).join(''))
    await gpg('--import-ownertrust', join(home, 'trust'))
    const { stdout } = await gpg('--status-fd', '1', '--verify', file)
    const { status } = await gpg('--output', join(home, 'module.tgz'), '--decrypt', file)
    const isTrusted = /^\[GNUPG:\] TRUST_(?:ULTIMATE|FULLY)/m.test(stdout)
    const isRefused = /^\[GNUPG:\] (?:BADSIG|NO_PUBKEY|ERRSIG)/m.test(stdout)
    return isTrusted && !isRefused && status === 0 ? 'good' : 'refused'
  })
}

async function makeKey(name: keyof typeof RECIPES): Promise<string> {
  return withGpgHome([], async (gpg, home) => {
    await RECIPES[name](gpg, home)
    const [fingerprint] = await fingerprints(gpg)
    const secretArmored = (await gpg(...ANY, '--armor', '--export-secret-keys')).stdout
    if (name === 'revoked') await gpg('--import', join(home, 'openpgp-revocs.d', `${fingerprint}.rev`))
    const publicArmored = (await gpg('--armor', '--export')).stdout
    const file = join(home, 'key.json')
    writeFileSync(file, JSON.stringify({ fingerprint, publicArmored, secretArmored } satisfies GpgKey))
    return intoCache(file, `module-key-1-${name}.json`)
  })
}

function old(gpg: Gpg, ...args: string[]): Promise<Outcome> {
  return gpg('--faked-system-time', `${KEYS_MADE}!`, ...ANY, ...args)
}

async function fingerprints(gpg: Gpg): Promise<[string, ...string[]]> {
  const { stdout } = await gpg('--with-colons', '--list-keys')
  return [...stdout.matchAll(/^fpr:+([0-9A-F]{40}):/gm)].map((match) => match[1]!) as [string, ...string[]]
}
