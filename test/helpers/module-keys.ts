import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fromCache, intoCache } from './cache.ts'
import { gpgKey, withGpgHome, type GpgKey } from './gpg.ts'

/** Keys that play the vendor's, made at run time and kept for this checkout's tests. */
export interface ModuleKeys {
  /** what boxes trust: major 15 the first alone, later ones both */
  masters: [GpgKey, GpgKey]
  /** signs modules; its public part carries a certification by each master */
  signer: GpgKey
  /** of nobody: no master certified it */
  foreign: GpgKey
}

const NAME = 'module-signer-1.json'

/** @returns the same keys in all tests of a checkout */
export async function moduleKeys(): Promise<ModuleKeys> {
  const masters: ModuleKeys['masters'] = [await gpgKey('modulemaster15'), await gpgKey('modulemaster17')]
  const foreign = await gpgKey('moduleforeign')
  const known = fromCache(NAME) ?? (await certify(await gpgKey('modulesigner'), masters))
  return { masters, signer: JSON.parse(readFileSync(known, 'utf8')) as GpgKey, foreign }
}

/** What the vendor ships beside the program on a box of this major: file name → armored key. */
export function shippedKeys(keys: ModuleKeys, major: number): Map<string, string> {
  const shipped = [...mastersOf(keys, major), keys.signer]
  return new Map(shipped.map((key) => [`${key.fingerprint.slice(-16)}.key`, key.publicArmored]))
}

/** The masters that a box of this major trusts. */
export function mastersOf(keys: ModuleKeys, major: number): GpgKey[] {
  return major === 15 ? [keys.masters[0]] : [keys.masters[1], keys.masters[0]]
}

async function certify(signer: GpgKey, masters: readonly GpgKey[]): Promise<string> {
  return withGpgHome([signer, ...masters], async (gpg, home) => {
    for (const { fingerprint } of masters) {
      await gpg('--local-user', fingerprint, '--quick-sign-key', signer.fingerprint)
    }
    const publicArmored = (await gpg('--armor', '--export', signer.fingerprint)).stdout
    const file = join(home, 'signer.json')
    writeFileSync(file, JSON.stringify({ ...signer, publicArmored }))
    return intoCache(file, NAME)
  })
}
