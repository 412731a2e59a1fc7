/**
 * The key that a site's licenses are sealed for in the laptop's store, `license-<8 hex>.key` in the folder of the site's keys: its
 * public half is in the clear, so that keeping a license asks for no passphrase; packing opens it with the keys that sign.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { GapferryError } from '../../manifests/errors.ts'
import { roleKey } from '../../manifests/role-key.ts'
import { syncFolder } from '../../storage/durable.ts'
import { keyFileName, listKeyFiles, loadRoots, missing, siteFolder, writeNewFile } from '../keys/key-folder.ts'
import { openKey, sealKey } from '../keys/keyfile.ts'
import { passphraseFor, type KeySecrets } from '../keys/signing-key.ts'

/** The public half; the key is made where there is none, under the passphrase of the site's other keys.
 *  @throws KEY_MISSING where the site has no keys; KEY_PASSPHRASE_*, KEY_INVALID */
export async function licenseKey(dir: string, site: string, secrets: KeySecrets): Promise<KeyObject> {
  loadRoots(dir, site)
  const found = findKey(dir, site)
  if (found !== undefined) return createPublicKey(found.file.public)
  const passphrase = await sitePassphrase(dir, site, secrets)
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const { keyid } = roleKey('ecdsa', pem)
  const secret = privateKey.export({ type: 'pkcs8', format: 'der' })
  const folder = siteFolder(dir, site)
  const bytes = await sealKey({ role: 'license', keyid, public: pem }, secret, passphrase)
  writeNewFile(join(folder, keyFileName('license', keyid)), bytes)
  syncFolder(folder)
  return publicKey
}

/** @throws KEY_MISSING; KEY_PASSPHRASE_*, KEY_INVALID */
export async function openLicenseKey(dir: string, site: string, secrets: KeySecrets): Promise<KeyObject> {
  const found = findKey(dir, site)
  if (found === undefined) {
    const why = 'the key that opens the licenses of this store is not there'
    throw missing(siteFolder(dir, site), why, undefined, 'gapferry keys restore FILE; or add the licenses again')
  }
  const { name, file } = found
  const secret = await openKey(file, await passphraseFor(file, name, secrets), name)
  const key = createPrivateKey({ key: secret, format: 'der', type: 'pkcs8' })
  if (createPublicKey(key).equals(createPublicKey(file.public))) return key
  throw new GapferryError('KEY_INVALID', `${name}: its secret belongs to another public key`)
}

function findKey(dir: string, site: string) {
  return listKeyFiles(dir, site).find(({ file }) => file.role === 'license')
}

/** One that opens the OpenPGP key: a slip of the hand here would show when a bundle is packed, and not before. */
async function sitePassphrase(dir: string, site: string, secrets: KeySecrets): Promise<string | null> {
  const key = listKeyFiles(dir, site).find(({ file }) => file.role === 'openpgp')
  if (key === undefined) throw missing(siteFolder(dir, site), 'it has no OpenPGP key', undefined, 'gapferry keys list')
  const passphrase = await passphraseFor(key.file, key.name, secrets)
  await openKey(key.file, passphrase, key.name)
  return passphrase
}
