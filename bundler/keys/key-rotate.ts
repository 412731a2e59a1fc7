/**
 * Changing the keys of a site: the next root is written, signed with the root keys at hand, and takes force once enough
 * have signed. New key files are there before the root that names them, so that a crash leaves a key too many, never one
 * too few.
 */
import { join } from 'node:path'
import { GapferryError } from '../../manifests/errors.ts'
import type { RootFile } from '../../manifests/metadata.ts'
import { syncFolder } from '../../storage/durable.ts'
import { keyFileName, listKeyFiles, loadRoots, siteFolder, writeNewFile } from './key-folder.ts'
import { openKey } from './keyfile.ts'
import { advanceRoot, parsePending, readPending, type RootProgress } from './pending-root.ts'
import { draftRoot, keysOf, quorums, signRoot, type RootChange } from './root-change.ts'
import { checkRootOrder, makeRootKeys, openRootKeys, type PlacedKey, type RootOrder } from './root-keys.ts'
import { createSigningKey, passphraseFor, type KeySecrets, type NewKey, type SigningKey } from './signing-key.ts'

/** What shall be otherwise. `renew`: nothing but the expiry. */
export type Rotation =
  | { what: 'renew' }
  | { what: 'bundle'; keepOld: boolean; newKey?: () => Promise<NewKey> }
  | {
      what: 'root'
      /** key ids that go, their first digits are enough; empty: all */
      replace: string[]
      /** undefined: threshold and number stay */
      size: { threshold: number; number: number } | undefined
      order: Pick<RootOrder, 'to' | 'passphrase'>
      newKey?: () => Promise<NewKey>
    }

export interface RotateRequest {
  dir: string
  site: string
  rotation: Rotation
  rootKeyFiles: string[]
  /** of the site's own keys */
  secrets: KeySecrets
  rootSecrets: KeySecrets
  nowMs: number
}

export interface Rotated extends RootProgress {
  /** where new keys are */
  newKeys: { role: 'root' | 'bundle'; keyid: string; file: string }[]
}

/** @throws ROOT_PENDING when a root waits already; KEY_*, TOKEN_*, USAGE_INVALID */
export async function rotateKeys(request: RotateRequest): Promise<Rotated> {
  const { dir, site, nowMs } = request
  const { root: current } = loadRoots(dir, site)
  refuseSecond(dir, current)
  const known = await openRootKeys({
    files: request.rootKeyFiles,
    own: { dir, site },
    wanted: new Set(keysOf(current, 'root').keyids),
    secrets: request.rootSecrets,
  })
  const made = await makeNewKeys(request, current)
  try {
    const draft = draftRoot(current, made.change, nowMs)
    writeKeys(siteFolder(dir, site), made.inFolder)
    const progress = advanceRoot(dir, current, signRoot(draft, current, [...known, ...made.signers]))
    return { ...progress, newKeys: made.newKeys }
  } catch (error) {
    made.undo()
    throw error
  }
}

/** Adds signatures to the root that waits, in the site's folder.
 *  @throws KEY_MISSING where none waits; KEY_*, TOKEN_* */
export async function signPendingRoot(args: {
  dir: string
  site: string
  rootKeyFiles: string[]
  rootSecrets: KeySecrets
}): Promise<RootProgress> {
  const { dir, site } = args
  const { root: current } = loadRoots(dir, site)
  const pending = readPending(dir, current)
  if (pending === undefined) {
    throw new GapferryError('KEY_MISSING', `${siteFolder(dir, site)}: no root waits for signatures`, {
      hint: `gapferry keys rotate --site ${site}`,
    })
  }
  const keys = await openRootKeys({
    files: args.rootKeyFiles,
    own: { dir, site },
    wanted: new Set(quorums(current, pending).flatMap(({ signed, open }) => [...signed, ...open])),
    secrets: args.rootSecrets,
  })
  return advanceRoot(dir, current, signRoot(pending, current, keys))
}

/** Adds signatures to a copy of a waiting root, wherever its keys are kept.
 *  @param bytes   `pending.root.json`
 *  @param before  the root in force, where a key signs that only that one knows
 *  @returns the file with the signatures, and how many it has */
export async function signRootCopy(args: {
  bytes: Buffer
  before?: RootFile
  rootKeyFiles: string[]
  rootSecrets: KeySecrets
}): Promise<{ root: RootFile; signedNow: string[] }> {
  const root = parsePending(args.bytes)
  const before = args.before ?? root
  const wanted = new Set([...keysOf(before, 'root').keyids, ...keysOf(root, 'root').keyids])
  const keys = await openRootKeys({ files: args.rootKeyFiles, wanted, secrets: args.rootSecrets })
  return { root: signRoot(root, before, keys), signedNow: keys.map(({ keyid }) => keyid) }
}

/** Takes over signatures that were made elsewhere on a copy of the waiting root.
 *  @throws ROLE_MIXED when the copy is of another root */
export function mergeSignatures(pending: RootFile, copy: RootFile): RootFile {
  const [own, other] = [pending, copy].map(({ bytes }) => JSON.parse(bytes.toString('utf8')) as RootDocument)
  if (JSON.stringify(own!.signed) !== JSON.stringify(other!.signed)) {
    throw new GapferryError('ROLE_MIXED', `${copy.what}: is a copy of another root than the one that waits here`, {
      hint: 'gapferry keys list',
    })
  }
  const there = new Set(own!.signatures.map(({ keyid }) => keyid))
  const signatures = [...own!.signatures, ...other!.signatures.filter(({ keyid }) => !there.has(keyid))]
  return parsePending(Buffer.from(`${JSON.stringify({ signatures, signed: own!.signed }, null, 1)}\n`))
}

interface RootDocument {
  signatures: { keyid: string; sig: string }[]
  signed: object
}

interface MadeKeys {
  change: RootChange
  /** sign the root that names them */
  signers: SigningKey[]
  inFolder: { role: 'root' | 'bundle'; key: NewKey }[]
  newKeys: Rotated['newKeys']
  undo: () => void
}

async function makeNewKeys(request: RotateRequest, current: RootFile): Promise<MadeKeys> {
  const { rotation } = request
  if (rotation.what === 'renew') return { change: {}, signers: [], inFolder: [], newKeys: [], undo: () => undefined }
  if (rotation.what === 'root') return makeNewRoots(request, current, rotation)
  const key = await (rotation.newKey ?? (() => newBundleKey(request.dir, request.site, request.secrets)))()
  return {
    change: { bundle: { key, keepOld: rotation.keepOld } },
    signers: [],
    inFolder: [{ role: 'bundle', key }],
    newKeys: [{ role: 'bundle', keyid: key.keyid, file: keyPath(request, 'bundle', key) }],
    undo: () => undefined,
  }
}

async function makeNewRoots(
  request: RotateRequest,
  current: RootFile,
  rotation: Extract<Rotation, { what: 'root' }>,
): Promise<MadeKeys> {
  const old = keysOf(current, 'root')
  const keep = keptRoots(old.keyids, rotation.replace)
  const size = rotation.size ?? { threshold: old.threshold, number: old.keyids.length }
  const number = size.number - keep.length
  if (number < 1) {
    throw new GapferryError(
      'USAGE_INVALID',
      `${keep.length} root keys stay, so a root of ${size.number} has no new one`,
      {
        hint: 'give --replace KEYID for each key that goes, or a larger --root',
      },
    )
  }
  const { placed, undo } =
    rotation.newKey === undefined
      ? await newRoots(request, { ...rotation.order, threshold: size.threshold, number })
      : { placed: [{ key: await rotation.newKey(), file: undefined }], undo: () => undefined }
  const keys = placed.map(({ key }) => key)
  return {
    change: { root: { keys, keep, threshold: size.threshold } },
    signers: keys,
    inFolder: placed.filter(({ file }) => file === undefined).map(({ key }) => ({ role: 'root', key })),
    newKeys: placed.map(({ key, file }) => ({
      role: 'root',
      keyid: key.keyid,
      file: file ?? keyPath(request, 'root', key),
    })),
    undo,
  }
}

function newRoots(request: RotateRequest, order: RootOrder): Promise<{ placed: PlacedKey[]; undo: () => void }> {
  checkRootOrder(order, request.dir)
  return makeRootKeys(request.site, order)
}

/** Under the passphrase of the site's other keys, which opens one of them first: a slip would lock the new key for ever. */
async function newBundleKey(dir: string, site: string, secrets: KeySecrets): Promise<NewKey> {
  const other = listKeyFiles(dir, site).find(({ file }) => file.role === 'openpgp')
  if (other === undefined) {
    throw new GapferryError('KEY_MISSING', `${siteFolder(dir, site)}: no OpenPGP key`, {
      hint: 'gapferry keys restore FILE',
    })
  }
  const passphrase = await passphraseFor(other.file, other.name, secrets)
  await openKey(other.file, passphrase, other.name)
  return createSigningKey('bundle', passphrase)
}

function keptRoots(keyids: string[], replace: string[]): string[] {
  if (replace.length === 0) return []
  const gone = replace.map((prefix) => {
    const found = keyids.filter((keyid) => keyid.startsWith(prefix.toLowerCase()))
    if (prefix.length >= 4 && found.length === 1) return found[0]!
    const names = keyids.map((keyid) => keyid.slice(0, 8)).join(', ')
    throw new GapferryError('USAGE_INVALID', `--replace "${prefix}": expected the first digits of one of ${names}`)
  })
  return keyids.filter((keyid) => !gone.includes(keyid))
}

function refuseSecond(dir: string, current: RootFile): void {
  const pending = readPending(dir, current)
  if (pending === undefined) return
  throw new GapferryError('ROOT_PENDING', `root ${pending.version} of ${current.site} waits for signatures already`, {
    hint: `gapferry keys sign --site ${current.site} --root-key FILE, or forget it: gapferry keys rotate --discard`,
  })
}

function writeKeys(folder: string, keys: MadeKeys['inFolder']): void {
  for (const { role, key } of keys) writeNewFile(join(folder, keyFileName(role, key.keyid)), key.fileBytes)
  syncFolder(folder)
}

function keyPath({ dir, site }: RotateRequest, role: 'root' | 'bundle', key: NewKey): string {
  return join(siteFolder(dir, site), keyFileName(role, key.keyid))
}
