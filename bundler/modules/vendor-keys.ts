/**
 * Whose signature a module must have. The list of a feed comes over the network, and so may a box's inventory: neither says
 * whom to trust. That is said by the fingerprints below, and by the key files that the settings name.
 */
import { config, type Config, type PublicKey } from 'openpgp'
import { GapferryError } from '../../manifests/errors.ts'
import type { FreepbxFacts } from '../../manifests/inventory.ts'
import { parseKeys, VERIFYING } from '../keys/openpgp.ts'

/** The vendor's module signers, full fingerprints of primary keys. Each was computed from the key that the framework ships. */
export const VENDOR_FINGERPRINTS: readonly string[] = [
  '2016349F5BC6F49340FCCAF99F9169F4B33B4659', // master, 2014
  '0BDE0BFA09946D732091E26E1588A7366BD35B34', // master, 2019
  '1013D73FECAC918A0A25823986CE877469D2EAD9', // mirror, 2014
  '072410D159E9DA63A459AB203DDB2122FE6D84F7', // mirror, 2016
  '456D051E9204C27C37D4811BB53D215A755231A3', // mirror, 2019: what is signed today
]

/** How openpgp.js reads keys and signatures of modules. */
export const MODULE_CONFIG: Config = { ...config, ...VERIFYING }
/** For openpgp.js: whatever the time is. */
const ANY_TIME = null as unknown as undefined

/** A key whose signature makes a module good. */
export interface ModuleKey {
  /** of the primary key: 40 hex digits, upper case */
  fingerprint: string
  key: PublicKey
}

/** The keys that modules are verified with. Where one is there several times, all that is known of it counts: a revocation
 *  in one of them revokes it.
 *  @param args.files        key files that the settings name, armored: every primary key in them is pinned by that
 *  @param args.inventories  what boxes have beside their framework: a key counts only where its fingerprint is pinned
 *  @throws KEY_INVALID naming the file; an unusable key of a box is passed over */
export async function moduleKeys(args: {
  files: readonly { file: string; text: string }[]
  inventories: readonly Pick<FreepbxFacts, 'keyFiles'>[]
}): Promise<ModuleKey[]> {
  const keys = new Map<string, ModuleKey>()
  for (const { file, text } of args.files) {
    for (const key of await keysOfFile(file, text)) await add(keys, key)
  }
  const texts = new Set(args.inventories.flatMap(({ keyFiles }) => [...keyFiles.values()]))
  for (const text of texts) {
    for (const key of await keysOfBox(text)) {
      if (VENDOR_FINGERPRINTS.includes(fingerprintOf(key))) await add(keys, key)
    }
  }
  return [...keys.values()]
}

async function keysOfFile(file: string, text: string): Promise<PublicKey[]> {
  try {
    return await parseKeys(text)
  } catch (cause) {
    throw new GapferryError('KEY_INVALID', `${file}: expected public keys in armor, of which each can be read`, {
      hint: 'write it anew with: gpg --armor --export FINGERPRINT',
      cause,
    })
  }
}

async function keysOfBox(text: string): Promise<PublicKey[]> {
  try {
    return await parseKeys(text)
  } catch {
    return [] // a box may have any file there; a key that is missed is reported where a module needs it
  }
}

async function add(keys: Map<string, ModuleKey>, key: PublicKey): Promise<void> {
  const fingerprint = fingerprintOf(key)
  const known = keys.get(fingerprint)
  const merged = known === undefined ? key : await known.key.update(key, ANY_TIME, MODULE_CONFIG)
  keys.set(fingerprint, { fingerprint, key: merged })
}

function fingerprintOf(key: PublicKey): string {
  return key.getFingerprint().toUpperCase()
}
