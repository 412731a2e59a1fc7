/**
 * The keys of a new site. They are made in memory, root keys are written to their media, and then the site's folder
 * appears in one step: it is what makes them count. A crash before leaves at most key files on those media that no root names.
 */
import { fingerprintWords } from '../../manifests/words.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { parseName } from '../../manifests/tree.ts'
import { keyFileName, refuseExisting, rootFile, siteFolder, writeNewFolder } from './key-folder.ts'
import { sealKey } from './keyfile.ts'
import { createOpenpgpKey } from './openpgp.ts'
import { firstRoot } from './root-change.ts'
import { checkRootOrder, makeRootKeys, type RootOrder } from './root-keys.ts'
import { createSigningKey, type NewKey } from './signing-key.ts'
import { siteKeyText, type PublishedKey } from './site-key.ts'

export interface CreatedKeys {
  rootFile: string
  fingerprint: string
  /** where each root key is */
  rootKeys: { keyid: string; file: string }[]
}

/** @param dir         the folder of all sites' keys; made when absent
 *  @param passphrase  null: the keys are kept unencrypted (the caller warns)
 *  @param root        default: one key, beside the others, under the same passphrase
 *  @param bundleKey   default: a new one under the passphrase; else one that is in a token
 *  @throws KEY_EXISTS when the site has keys: they are never overwritten; KEY_PASSPHRASE_MISSING for an empty one;
 *          USAGE_INVALID, MEDIUM_UNUSABLE for places of root keys */
export async function createSiteKeys(args: {
  dir: string
  site: string
  passphrase: string | null
  nowMs: number
  root?: RootOrder
  bundleKey?: () => Promise<NewKey>
}): Promise<CreatedKeys> {
  const { dir, passphrase, nowMs } = args
  const site = parseName(args.site, 'site')
  const folder = siteFolder(dir, site)
  const order = args.root ?? { threshold: 1, number: 1, to: [], passphrase: () => Promise.resolve(passphrase) }
  refuseExisting(folder)
  if (passphrase === '') throw new GapferryError('KEY_PASSPHRASE_MISSING', 'an empty passphrase protects nothing')
  checkRootOrder(order, dir)
  const bundleKey = await (args.bundleKey ?? (() => createSigningKey('bundle', passphrase)))()
  const openpgp = await newOpenpgpFiles(site, passphrase, nowMs)
  const { placed, undo } = await makeRootKeys(site, order)
  const rootKeys = placed.map(({ key }) => key)
  const root = firstRoot({ site, nowMs, rootKeys, threshold: order.threshold, bundleKey })
  const here = placed.filter(({ file }) => file === undefined).map(({ key }) => key)
  try {
    writeNewFolder(folder, {
      '1.root.json': root,
      ...Object.fromEntries(here.map((key) => [keyFileName('root', key.keyid), key.fileBytes])),
      [keyFileName('bundle', bundleKey.keyid)]: bundleKey.fileBytes,
      ...openpgp,
    })
  } catch (error) {
    undo()
    throw error
  }
  return {
    rootFile: rootFile(folder, 1),
    fingerprint: fingerprintWords(root),
    rootKeys: placed.map(({ key, file }) => ({
      keyid: key.keyid,
      file: file ?? `${folder}/${keyFileName('root', key.keyid)}`,
    })),
  }
}

/** The files of a new OpenPGP key: the key's and `site.asc`.
 *  @param others  keys that stay published beside it */
export async function newOpenpgpFiles(
  site: string,
  passphrase: string | null,
  nowMs: number,
  others: readonly Pick<PublishedKey, 'armored'>[] = [],
): Promise<Record<string, Uint8Array>> {
  const [name, bytes, armored] = await newOpenpgpFile(site, passphrase, nowMs)
  return { [name]: bytes, 'site.asc': Buffer.from(siteKeyText([{ armored }, ...others])) }
}

/** @returns name and bytes of the key's file, and the public key, armored */
export async function newOpenpgpFile(
  site: string,
  passphrase: string | null,
  nowMs: number,
): Promise<[name: string, bytes: Buffer, armored: string]> {
  const { fingerprint, armored, secret } = await createOpenpgpKey(site, nowMs)
  const header = { role: 'openpgp' as const, keyid: fingerprint, public: armored }
  return [keyFileName('openpgp', fingerprint), await sealKey(header, secret, passphrase), armored]
}
