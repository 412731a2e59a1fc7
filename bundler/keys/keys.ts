/**
 * The keys of a site at work: what is public of them, and what signs its bundles. Their folder: key-folder.ts.
 */
import { join } from 'node:path'
import { existsSync } from 'node:fs'
import type { RoleSignature } from '../../manifests/author.ts'
import { GapferryError } from '../../manifests/errors.ts'
import type { RootFile } from '../../manifests/metadata.ts'
import { openKey } from './keyfile.ts'
import {
  listKeyFiles,
  loadRoots,
  missing,
  pendingFile,
  readSiteFile,
  signsBundles,
  siteFolder,
  type NamedKeyFile,
} from './key-folder.ts'
import { signDetached } from './openpgp.ts'
import { tokenTool } from './pkcs11.ts'
import { openSigningKey, passphraseFor, type KeySecrets, type SigningKey } from './signing-key.ts'
import { publishedKeys } from './site-key.ts'

/** Signs for one site, with the keys that its newest root names. */
export interface SiteSigner {
  /** @param canonical  canonical form of the `signed` part
   *  @returns one signature for each key at hand that the root in force names for `role` */
  signMetadata(role: 'targets' | 'snapshot' | 'timestamp', canonical: Buffer): RoleSignature[]
  /** An armored OpenPGP signature with that date; equal input, equal text. */
  signDetached(bytes: Uint8Array, dateMs: number): Promise<string>
}

/** What is public of a site's keys; no passphrase needed.
 *  @throws KEY_MISSING; SITE_MISMATCH, ROLE_*, ROOT_INVALID when the roots are not a chain of this site */
export function loadSite(dir: string, site: string): { roots: Buffer[]; siteKeyArmored: string } {
  const { roots } = loadRoots(dir, site)
  return { roots, siteKeyArmored: readSiteFile(join(dir, site, 'site.asc')).toString('latin1') }
}

/** Opens the keys that sign bundles; the root key is not among them and need not be there.
 *  @param secrets  a passphrase, null where the keys have none, or whom to ask
 *  @throws KEY_MISSING, KEY_PASSPHRASE_MISSING, KEY_PASSPHRASE_WRONG, KEY_INVALID (a damaged file), TOKEN_*, and as loadSite */
export async function unlockSite(args: {
  dir: string
  site: string
  passphrase: string | null | KeySecrets
}): Promise<SiteSigner> {
  const { dir, site } = args
  loadSite(dir, site)
  const { root } = loadRoots(dir, site)
  const keys = listKeyFiles(dir, site)
  const bundle = keys.filter(({ file }) => file.role === 'bundle' && signsBundles(root, file.keyid))
  const [signing] = publishedKeys(dir, site)
  const openpgp = keys.find(({ file }) => file.role === 'openpgp' && file.public === signing?.armored)
  if (bundle.length === 0) throw noBundleKey(siteFolder(dir, site), root)
  if (openpgp === undefined)
    throw missing(join(dir, site), 'no OpenPGP key that belongs to site.asc', undefined, RESTORE)
  const secrets =
    typeof args.passphrase === 'object' && args.passphrase !== null ? args.passphrase : fixed(args.passphrase)
  const secret = await openOpenpgp(openpgp, secrets)
  const opened: SigningKey[] = []
  for (const { name, file } of bundle) opened.push(await openSigningKey(file, name, secrets))
  return {
    signMetadata: (role, canonical) => {
      const allowed = opened.filter(({ keyid }) => root.metadata.signed.roles[role]?.keyIDs.includes(keyid))
      return allowed.map((key) => key.sign(canonical))
    },
    signDetached: (bytes, dateMs) => signDetached(secret, bytes, dateMs),
  }
}

const RESTORE = 'gapferry keys restore FILE'

async function openOpenpgp({ name, file }: NamedKeyFile, secrets: KeySecrets): Promise<Buffer> {
  return openKey(file, await passphraseFor(file, name, secrets), name)
}

/** One passphrase for all, and no token. */
function fixed(passphrase: string | null): KeySecrets {
  return {
    passphrase: (what) => (passphrase === null ? none(what) : Promise.resolve(passphrase)),
    pin: none,
    tool: tokenTool({}),
  }
}

function none(what: string): Promise<never> {
  return Promise.reject(new GapferryError('KEY_PASSPHRASE_MISSING', `${what}: none was given`))
}

function noBundleKey(folder: string, root: RootFile): GapferryError {
  const why = `no bundle key that root ${root.version} names`
  if (!existsSync(pendingFile(folder))) return missing(folder, why, undefined, 'gapferry keys list')
  return missing(
    folder,
    `${why}; the next root still lacks signatures`,
    undefined,
    'gapferry keys sign --root-key FILE',
  )
}
