/**
 * The keys of a site, in a folder of its own: `<keys>/<site>/`
 *   1.root.json, 2.root.json …   the chain of roots; the first is what mirrors pin, the last is in force
 *   pending.root.json            the next root while signatures are missing
 *   root-<8 hex>.key             signs roots; needed only to change keys, so better kept elsewhere
 *   bundle-<8 hex>.key           signs bundles
 *   openpgp-<8 hex>.key          signs repository metadata for yum and apt; site.asc is its public half
 *   license-<8 hex>.key          opens the licenses that are kept in the store; made with the first of them
 * Key files are named by the first digits of their key id. Which of them count is what the root in force says.
 */
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { renameSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { GapferryError } from '../../manifests/errors.ts'
import { checkSite, rootChain, type RoleName, type RootFile } from '../../manifests/metadata.ts'
import { parseName } from '../../manifests/tree.ts'
import { makeScratch, noticeShortSpace, syncFolder, systemCode, writeAll } from '../../storage/durable.ts'
import { parseKeyFile, type KeyFile } from './keyfile.ts'

const MAX_ROOTS = 256
const MAX_FILE_BYTES = 1024 * 1024
const KEY_NAME = /^(?:root|bundle|openpgp|license)-[0-9a-f]{8}\.key$/

/** The roles that bundles are signed for; one key has all three unless a site wants two people. */
export const BUNDLE_ROLES = ['targets', 'snapshot', 'timestamp'] as const satisfies RoleName[]

export interface NamedKeyFile {
  /** without folder */
  name: string
  file: KeyFile
}

/** @throws TREE_INVALID unless `site` is a name */
export function siteFolder(dir: string, site: string): string {
  return join(dir, parseName(site, 'site'))
}

/** The chain of a site's roots, and the one in force.
 *  @throws KEY_MISSING; SITE_MISMATCH, ROLE_*, ROOT_INVALID when the files are not a chain of this site */
export function loadRoots(dir: string, site: string): { roots: Buffer[]; root: RootFile } {
  const folder = siteFolder(dir, site)
  const roots: Buffer[] = []
  while (roots.length < MAX_ROOTS && (roots.length === 0 || existsSync(rootFile(folder, roots.length + 1)))) {
    roots.push(readSiteFile(rootFile(folder, roots.length + 1)))
  }
  const root = rootChain(roots, '1.root.json')
  checkSite(root, site)
  return { roots, root }
}

/** Every key file in the folder. @throws KEY_INVALID for a damaged one */
export function listKeyFiles(dir: string, site: string): NamedKeyFile[] {
  const folder = siteFolder(dir, site)
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => KEY_NAME.test(name)) : []
  return names.sort().map((name) => ({ name, file: parseKeyFile(readSiteFile(join(folder, name)), name) }))
}

/** True when `root` lets this key sign for one of the roles of a bundle. */
export function signsBundles(root: RootFile, keyid: string): boolean {
  return BUNDLE_ROLES.some((role) => root.metadata.signed.roles[role]?.keyIDs.includes(keyid))
}

export function rootFile(folder: string, version: number): string {
  return join(folder, `${version}.root.json`)
}

export function pendingFile(folder: string): string {
  return join(folder, 'pending.root.json')
}

export function keyFileName(role: KeyFile['role'], keyid: string): string {
  return `${role}-${keyid.slice(0, 8)}.key`
}

/** @throws KEY_MISSING */
export function readSiteFile(file: string): Buffer {
  try {
    if (!statSync(file).isFile()) throw missing(file, 'is no plain file')
    if (statSync(file).size > MAX_FILE_BYTES) throw missing(file, `is larger than ${MAX_FILE_BYTES} bytes`)
    return readFileSync(file)
  } catch (cause) {
    if (!['ENOENT', 'ENOTDIR'].includes(systemCode(cause))) throw cause
    throw missing(file, 'is not there', cause)
  }
}

export function missing(where: string, why: string, cause?: unknown, hint = 'run: gapferry init'): GapferryError {
  return new GapferryError('KEY_MISSING', `${where}: ${why}`, { hint, cause })
}

/** @throws KEY_EXISTS */
export function refuseExisting(folder: string): void {
  if (existsSync(folder)) throw alreadyThere(folder)
}

/** A folder with these files, durably and in one step; the folder must not be there.
 *  @throws KEY_EXISTS */
export function writeNewFolder(folder: string, files: Record<string, Uint8Array>): void {
  const parent = dirname(folder)
  mkdirSync(parent, { recursive: true, mode: 0o700 })
  const temp = makeScratch(parent, '.new-')
  try {
    for (const [name, bytes] of Object.entries(files)) writeNewFile(join(temp, name), bytes)
    syncFolder(temp)
    renameSync(temp, folder)
  } catch (error) {
    throw ['ENOTEMPTY', 'EEXIST'].includes(systemCode(error)) ? alreadyThere(folder) : error
  } finally {
    rmSync(temp, { recursive: true, force: true })
  }
  syncFolder(parent)
}

/** For its owner only; durable once its folder is synced. @throws SPACE_SHORT; EEXIST as the system says it */
export function writeNewFile(file: string, bytes: Uint8Array): void {
  const fd = noticeShortSpace(file, () => openSync(file, 'wx', 0o600))
  try {
    writeAll(fd, bytes, file)
    noticeShortSpace(file, () => fsyncSync(fd))
  } finally {
    closeSync(fd)
  }
}

function alreadyThere(folder: string): GapferryError {
  return new GapferryError('KEY_EXISTS', `${folder}: this site has keys already; they are never overwritten`, {
    hint: 'gapferry keys list',
  })
}
