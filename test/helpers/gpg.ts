import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromCache, intoCache, withFolder } from './cache.ts'
import { mustRun, run } from './process.ts'
import type { Outcome } from './process.ts'

/** An OpenPGP key made by GnuPG: RSA-3072, one primary key that signs, no sub-keys, no passphrase, no expiry. It is for
 *  tests alone. */
export interface GpgKey {
  fingerprint: string
  publicArmored: string
  secretArmored: string
}

/** The test key called `name` (letters and digits); made once, then kept in the cache, so it is the same in all tests. */
export async function gpgKey(name = 'vendor'): Promise<GpgKey> {
  const known = fromCache(`key-${name}.json`)
  return JSON.parse(readFileSync(known ?? (await makeKey(name)), 'utf8')) as GpgKey
}

/** Signs `file` as it is on disk and returns the armored detached signature. */
export async function signDetached(key: GpgKey, file: string): Promise<string> {
  return withGpgHome([key], async (gpg) => (await gpg('--armor', '--output', '-', '--detach-sign', file)).stdout)
}

/** GnuPG's own verdict on a detached signature: status 0 only when `key` (armored, public) made it over `bytes`. */
export async function verifyDetached(key: string, bytes: Uint8Array, signature: string): Promise<Outcome> {
  return withFolder(async (dir) => {
    const [keyFile, ring, data, sig] = ['key.asc', 'ring.gpg', 'data', 'data.asc'].map((name) => join(dir, name))
    writeFileSync(keyFile!, key)
    writeFileSync(data!, bytes)
    writeFileSync(sig!, signature)
    await mustRun('gpg', ['--homedir', dir, '--batch', '--quiet', '--dearmor', '--output', ring!, keyFile!])
    return run('gpgv', ['--homedir', dir, '--keyring', ring!, sig!, data!])
  })
}

/** Runs `work` with a private GnuPG home that holds `keys`; its agent is told to end afterwards.
 *  `gpg` runs one gpg command there and rejects when it fails. */
export async function withGpgHome<T>(
  keys: readonly GpgKey[],
  work: (gpg: (...args: string[]) => Promise<Outcome>, home: string) => Promise<T>,
): Promise<T> {
  return withFolder(async (home) => {
    const gpg = (...args: string[]) => mustRun('gpg', ['--homedir', home, '--batch', '--yes', '--quiet', ...args])
    try {
      for (const [i, key] of keys.entries()) {
        const file = join(home, `import-${i}.asc`)
        writeFileSync(file, key.secretArmored, { mode: 0o600 })
        await gpg('--import', file)
      }
      return await work(gpg, home)
    } finally {
      await run('gpgconf', ['--homedir', home, '--kill', 'gpg-agent'])
      await run('gpgconf', ['--homedir', home, '--remove-socketdir']) // where /run/user/UID exists, it is there
    }
  })
}

async function makeKey(name: string): Promise<string> {
  return withGpgHome([], async (gpg, home) => {
    const who = `Gapferry test ${name} <${name}@example.invalid>`
    await gpg(
      '--passphrase',
      '',
      '--pinentry-mode',
      'loopback',
      '--quick-generate-key',
      who,
      'rsa3072',
      'sign',
      'never',
    )
    const listing = (await gpg('--with-colons', '--list-keys')).stdout
    const key: GpgKey = {
      fingerprint: /^fpr:+([0-9A-F]{40}):/m.exec(listing)![1]!,
      publicArmored: (await gpg('--armor', '--export')).stdout,
      secretArmored: (await gpg('--armor', '--export-secret-keys')).stdout,
    }
    const file = join(home, 'key.json')
    writeFileSync(file, JSON.stringify(key))
    return intoCache(file, `key-${name}.json`)
  })
}
