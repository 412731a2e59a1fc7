/**
 * The keys of a site, in a folder of its own: `<keys>/<site>/`
 *   1.root.json, 2.root.json …   the chain of roots; the first is what mirrors pin
 *   root-<8 hex>.key             signs roots; needed only to rotate, so it can be kept elsewhere
 *   bundle-<8 hex>.key           signs bundles
 *   openpgp-<8 hex>.key          signs repository metadata for yum and apt; site.asc is its public half
 * Key files are named by the first digits of their key id. Which bundle keys count is what the newest root says.
 */
import { createPrivateKey, createPublicKey, generateKeyPair, sign, type KeyObject } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { authorRoot, type RoleSignature, type SignRole } from '../manifests/author.ts'
import { GapferryError } from '../manifests/errors.ts'
import { checkSite, rootChain, type RoleName, type RootFile } from '../manifests/metadata.ts'
import { roleKey } from '../manifests/role-key.ts'
import { parseName } from '../manifests/tree.ts'
import { fingerprintWords } from '../manifests/words.ts'
import { makeScratch, syncFolder, systemCode, writeAll } from '../storage/durable.ts'
import { openKey, parseKeyFile, sealKey, type KeyFile } from './keyfile.ts'
import { createOpenpgpKey, signDetached } from './openpgp.ts'

const ROOT_YEARS = 5
const MAX_ROOTS = 256

/** Signs for one site, with the keys that its newest root names. */
export interface SiteSigner {
  /** @param canonical  canonical form of the `signed` part
   *  @returns one signature for each key at hand that the root in force names for `role` */
  signMetadata(role: 'targets' | 'snapshot' | 'timestamp', canonical: Buffer): RoleSignature[]
  /** An armored OpenPGP signature with that date; equal input, equal text. */
  signDetached(bytes: Uint8Array, dateMs: number): Promise<string>
}

/** Makes all keys of a new site and its first root, in one step: after a crash there is everything or nothing.
 *  @param dir         the folder of all sites' keys; made when absent
 *  @param passphrase  null: the keys are kept unencrypted (the caller warns)
 *  @returns the root file and its fingerprint in words
 *  @throws KEY_EXISTS when the site has keys: they are never overwritten; KEY_PASSPHRASE_MISSING for an empty one */
export async function createSiteKeys(args: {
  dir: string
  site: string
  passphrase: string | null
  nowMs: number
}): Promise<{ rootFile: string; fingerprint: string }> {
  const { dir, passphrase, nowMs } = args
  const site = parseName(args.site, 'site')
  const folder = join(dir, site)
  if (existsSync(folder)) throw alreadyThere(folder)
  if (passphrase === '') throw new GapferryError('KEY_PASSPHRASE_MISSING', 'an empty passphrase protects nothing')
  const root = await createRoleKey()
  const bundle = await createRoleKey()
  const openpgp = await createOpenpgpKey(site, nowMs)
  const rootBytes = firstRoot(site, nowMs, root, bundle)
  writeFolder(folder, {
    '1.root.json': rootBytes,
    [fileName('root', root.keyid)]: await sealRoleKey('root', root, passphrase),
    [fileName('bundle', bundle.keyid)]: await sealRoleKey('bundle', bundle, passphrase),
    [fileName('openpgp', openpgp.fingerprint)]: await sealKey(
      { role: 'openpgp', keyid: openpgp.fingerprint, public: openpgp.armored },
      openpgp.secret,
      passphrase,
    ),
    'site.asc': Buffer.from(openpgp.armored),
  })
  return { rootFile: join(folder, '1.root.json'), fingerprint: fingerprintWords(rootBytes) }
}

/** What is public of a site's keys; no passphrase needed.
 *  @throws KEY_MISSING; SITE_MISMATCH, ROLE_*, ROOT_INVALID when the roots are not a chain of this site */
export function loadSite(dir: string, site: string): { roots: Buffer[]; siteKeyArmored: string } {
  const { roots } = loadRoots(dir, site)
  return { roots, siteKeyArmored: readKeyFile(join(dir, site, 'site.asc')).toString('latin1') }
}

/** Opens the keys that sign bundles; the root key is not among them and need not be there.
 *  @param passphrase  null where the keys are not encrypted
 *  @throws KEY_MISSING, KEY_PASSPHRASE_MISSING, KEY_PASSPHRASE_WRONG, KEY_INVALID (a damaged file), and as loadSite */
export async function unlockSite(args: { dir: string; site: string; passphrase: string | null }): Promise<SiteSigner> {
  const { dir, site, passphrase } = args
  const { siteKeyArmored } = loadSite(dir, site)
  const { root } = loadRoots(dir, site)
  const files = readdirSync(join(dir, site)).filter((name) => /^(?:bundle|openpgp)-[0-9a-f]{8}\.key$/.test(name))
  const keys = files.map((name) => ({ name, file: parseKeyFile(readKeyFile(join(dir, site, name)), name) }))
  const bundle = keys.filter(({ file }) => file.role === 'bundle' && isNamed(root, file.keyid))
  const openpgp = keys.find(({ file }) => file.role === 'openpgp' && file.public === siteKeyArmored)
  if (bundle.length === 0) {
    throw missing(join(dir, site), `no bundle key that root ${root.version} names`)
  }
  if (openpgp === undefined) throw missing(join(dir, site), 'no OpenPGP key that belongs to site.asc')
  const secret = await openKey(openpgp.file, passphrase, openpgp.name)
  const opened = await Promise.all(bundle.map(({ name, file }) => openRoleKey(file, passphrase, name)))
  return {
    signMetadata: (role, canonical) => {
      const allowed = opened.filter(({ keyid }) => root.metadata.signed.roles[role]?.keyIDs.includes(keyid))
      return allowed.map((key) => signOnce(key, canonical))
    },
    signDetached: (bytes, dateMs) => signDetached(secret, bytes, dateMs),
  }
}

interface RoleKeyPair {
  keyid: string
  privateKey: KeyObject
}

async function createRoleKey(): Promise<RoleKeyPair> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  return { keyid: roleKey('ecdsa', publicPem(privateKey)).keyid, privateKey }
}

function firstRoot(site: string, nowMs: number, root: RoleKeyPair, bundle: RoleKeyPair): Buffer {
  const expires = new Date(nowMs)
  expires.setUTCFullYear(expires.getUTCFullYear() + ROOT_YEARS)
  const ofRoot = { keyids: [root.keyid], threshold: 1 }
  const ofBundle = { keyids: [bundle.keyid], threshold: 1 }
  const keys = [root, bundle].map(
    ({ keyid, privateKey }) => [keyid, roleKey('ecdsa', publicPem(privateKey)).key] as const,
  )
  const sign: SignRole = (_role, canonical) => [signOnce(root, canonical)]
  return authorRoot({
    site,
    version: 1,
    expiresAtMs: expires.getTime(),
    keys: new Map(keys),
    roles: { root: ofRoot, timestamp: ofBundle, snapshot: ofBundle, targets: ofBundle },
    sign,
  })
}

function signOnce({ keyid, privateKey }: RoleKeyPair, bytes: Buffer): RoleSignature {
  return { keyid, sig: sign('sha256', bytes, privateKey).toString('hex') }
}

function sealRoleKey(role: 'root' | 'bundle', key: RoleKeyPair, passphrase: string | null): Promise<Buffer> {
  const secret = key.privateKey.export({ type: 'pkcs8', format: 'der' })
  return sealKey({ role, keyid: key.keyid, public: publicPem(key.privateKey) }, secret, passphrase)
}

async function openRoleKey(file: KeyFile, passphrase: string | null, name: string): Promise<RoleKeyPair> {
  const secret = await openKey(file, passphrase, name)
  try {
    const privateKey = createPrivateKey({ key: secret, format: 'der', type: 'pkcs8' })
    if (publicPem(privateKey) === file.public) return { keyid: file.keyid, privateKey }
  } catch (cause) {
    throw new GapferryError('KEY_INVALID', `${name}: its secret is not a private key`, { cause })
  }
  throw new GapferryError('KEY_INVALID', `${name}: its secret belongs to another public key`)
}

function publicPem(key: KeyObject): string {
  return createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString()
}

function isNamed(root: RootFile, keyid: string): boolean {
  const roles: RoleName[] = ['targets', 'snapshot', 'timestamp']
  return roles.some((role) => root.metadata.signed.roles[role]?.keyIDs.includes(keyid))
}

function loadRoots(dir: string, site: string): { roots: Buffer[]; root: RootFile } {
  const folder = join(dir, parseName(site, 'site'))
  const roots: Buffer[] = []
  while (
    roots.length < MAX_ROOTS &&
    (roots.length === 0 || existsSync(join(folder, `${roots.length + 1}.root.json`)))
  ) {
    roots.push(readKeyFile(join(folder, `${roots.length + 1}.root.json`)))
  }
  const root = rootChain(roots, '1.root.json')
  checkSite(root, site)
  return { roots, root }
}

function readKeyFile(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw cause
    throw missing(file, 'is not there', cause)
  }
}

function missing(where: string, why: string, cause?: unknown): GapferryError {
  return new GapferryError('KEY_MISSING', `${where}: ${why}`, { hint: 'run: gapferry init', cause })
}

function alreadyThere(folder: string): GapferryError {
  return new GapferryError('KEY_EXISTS', `${folder}: this site has keys already; they are never overwritten`)
}

function fileName(role: KeyFile['role'], keyid: string): string {
  return `${role}-${keyid.slice(0, 8)}.key`
}

/** A folder with these files, durably and in one step; the folder must not be there. */
function writeFolder(folder: string, files: Record<string, Uint8Array>): void {
  const parent = join(folder, '..')
  mkdirSync(parent, { recursive: true, mode: 0o700 })
  const temp = makeScratch(parent, '.new-')
  try {
    for (const [name, bytes] of Object.entries(files)) writeNew(join(temp, name), bytes)
    syncFolder(temp)
    renameSync(temp, folder)
  } catch (error) {
    throw ['ENOTEMPTY', 'EEXIST'].includes(systemCode(error)) ? alreadyThere(folder) : error
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
  syncFolder(parent)
}

function writeNew(file: string, bytes: Uint8Array): void {
  const fd = openSync(file, 'wx', 0o600)
  try {
    writeAll(fd, bytes, file)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
