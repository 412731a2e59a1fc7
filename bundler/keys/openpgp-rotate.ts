/**
 * A new OpenPGP key for a site, in two steps, because boxes must know a key before it signs: first it is published beside
 * the old one, later it signs. The old one's public half stays until it is taken out. Each step is one new `site.asc`; the
 * key file is there before.
 */
import { join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { MAX_TREE_BYTES, parseTree } from '../../manifests/tree.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import { replaceFile, syncFolder } from '../../storage/durable.ts'
import type { SignedBundle } from '../../storage/ledger.ts'
import { newOpenpgpFile } from './create-keys.ts'
import { listKeyFiles, missing, siteFolder, writeNewFile } from './key-folder.ts'
import { openKey } from './keyfile.ts'
import { BACKDATE_MS } from './openpgp.ts'
import { passphraseFor, type KeySecrets } from './signing-key.ts'
import { MAX_PUBLISHED, publishedKeys, siteKeyText, type PublishedKey } from './site-key.ts'

interface Place {
  dir: string
  site: string
}

/** Makes a key and publishes it; the old one goes on signing.
 *  @returns the path of the new key's file
 *  @throws KEY_EXISTS where one waits already; KEY_*, USAGE_INVALID where too many are published */
export async function announceOpenpgp({
  dir,
  site,
  secrets,
  nowMs,
}: Place & { secrets: KeySecrets; nowMs: number }): Promise<string> {
  const keys = published(dir, site)
  const waiting = keys.find(({ state }) => state === 'waiting')
  if (waiting !== undefined) throw alreadyWaits(site, waiting)
  if (keys.length === MAX_PUBLISHED) {
    throw new GapferryError('USAGE_INVALID', `${site}: ${keys.length} OpenPGP keys are published, no more can be`, {
      hint: `take out one that is retired: gapferry keys rotate openpgp --site ${site} --remove ID`,
    })
  }
  const [name, bytes, armored] = await newOpenpgpFile(
    site,
    await passphraseOf(dir, site, keys[0]!, secrets),
    youngerThan(keys, nowMs),
  )
  const file = join(siteFolder(dir, site), name)
  writeNewFile(file, bytes)
  syncFolder(siteFolder(dir, site))
  publish(dir, site, [...keys, { armored }])
  return file
}

/** The key that waits signs from now on. @throws KEY_MISSING where none waits, or its file is not here */
export function useOpenpgp({ dir, site }: Place): void {
  const keys = published(dir, site)
  const waiting = keys.find(({ state }) => state === 'waiting')
  if (waiting === undefined) {
    throw missing(
      siteFolder(dir, site),
      'no OpenPGP key waits',
      undefined,
      `gapferry keys rotate openpgp --site ${site}`,
    )
  }
  keyFileOf(dir, site, waiting)
  publish(dir, site, [waiting, ...keys.filter((key) => key !== waiting)])
}

/** Takes a key out of what is published. @param id  its first digits. @throws USAGE_INVALID */
export function removeOpenpgp({ dir, site }: Place, id: string): void {
  const keys = published(dir, site)
  const found = keys.filter(({ fingerprint }) => fingerprint.startsWith(id.replaceAll(' ', '').toLowerCase()))
  const [key] = found
  if (id.length < 4 || found.length !== 1 || key!.state === 'in force') {
    const names = keys.filter(({ state }) => state !== 'in force').map(({ fingerprint }) => fingerprint.slice(0, 8))
    const expected = names.length === 0 ? 'there is none but the one that signs' : `expected one of ${names.join(', ')}`
    throw new GapferryError('USAGE_INVALID', `--remove "${id}": ${expected}`, { hint: 'gapferry keys list' })
  }
  publish(
    dir,
    site,
    keys.filter((one) => one !== key),
  )
}

/** Whether the site's last bundle brings `site.asc` as it is now. */
export function isCarried({ dir, site }: Place, last: SignedBundle | undefined, store: BlobStore): boolean {
  const sha256 = sha256Of(siteKeyText(published(dir, site)))
  const current = [...(last?.trees ?? [])].filter(([target, tree]) => target.endsWith('/current') && store.has(tree))
  return current.some(([target, tree]) => {
    const { entries } = parseTree(store.read(tree, MAX_TREE_BYTES), target)
    return [...entries].some(([path, entry]) => path === 'keys/site.asc' && entry.sha256 === sha256)
  })
}

/** A time to make a key at, from which it counts as younger than all of `keys`, whatever the clock says. */
export function youngerThan(keys: readonly PublishedKey[], nowMs: number): number {
  return Math.max(nowMs, ...keys.map(({ createdAt }) => (createdAt + 1) * 1000 + BACKDATE_MS))
}

function published(dir: string, site: string): PublishedKey[] {
  const keys = publishedKeys(dir, site)
  if (keys.length > 0) return keys
  throw missing(join(siteFolder(dir, site), 'site.asc'), 'is not there', undefined, 'gapferry keys restore FILE')
}

function publish(dir: string, site: string, keys: readonly Pick<PublishedKey, 'armored'>[]): void {
  replaceFile(join(siteFolder(dir, site), 'site.asc'), Buffer.from(siteKeyText(keys)), 0o600)
}

/** Of the key that signs, which it opens first: a slip would lock the new key for ever. */
async function passphraseOf(dir: string, site: string, key: PublishedKey, secrets: KeySecrets): Promise<string | null> {
  const { name, file } = keyFileOf(dir, site, key)
  const passphrase = await passphraseFor(file, name, secrets)
  await openKey(file, passphrase, name)
  return passphrase
}

function keyFileOf(dir: string, site: string, { fingerprint }: PublishedKey): ReturnType<typeof listKeyFiles>[number] {
  const found = listKeyFiles(dir, site).find(({ file }) => file.role === 'openpgp' && file.keyid === fingerprint)
  if (found !== undefined) return found
  const why = `no key file of OpenPGP key ${fingerprint.slice(0, 8)}`
  throw missing(siteFolder(dir, site), why, undefined, 'gapferry keys restore FILE')
}

function alreadyWaits(site: string, { fingerprint }: PublishedKey): GapferryError {
  return new GapferryError('KEY_EXISTS', `OpenPGP key ${fingerprint.slice(0, 8)} of ${site} waits already`, {
    hint: `once the boxes have it: gapferry keys rotate openpgp --site ${site} --now; or take it out: --remove ${fingerprint.slice(0, 8)}`,
  })
}
