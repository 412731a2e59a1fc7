/**
 * Root keys away from the laptop: written to the media of those who keep them, read from there when they are needed.
 */
import { readFileSync, realpathSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { GapferryError } from '../../manifests/errors.ts'
import { syncFolder, systemCode } from '../../storage/durable.ts'
import { parseKeyFile } from './keyfile.ts'
import { keyFileName, listKeyFiles, readSiteFile, writeNewFile } from './key-folder.ts'
import { createSigningKey, openSigningKey, type KeySecrets, type NewKey, type SigningKey } from './signing-key.ts'

/** How many root keys, how many of them must sign, and where they go. */
export interface RootOrder {
  threshold: number
  number: number
  /** a folder for each, on media of their own; empty: the one key stays with the others */
  to: string[]
  /** @param where  the folder of key `i` (from 1); null: unencrypted */
  passphrase: (i: number, where: string | undefined) => Promise<string | null>
}

export interface PlacedKey {
  key: NewKey
  /** undefined: in the site's own folder, under its usual name */
  file: string | undefined
}

const MAX_ROOT_KEYS = 16

/** `2/3` → two of three. @throws USAGE_INVALID */
export function parseThreshold(text: string): { threshold: number; number: number } {
  const match = /^(\d{1,2})\/(\d{1,2})$/.exec(text)
  const [threshold, number] = [Number(match?.[1]), Number(match?.[2])]
  if (match !== null && threshold >= 1 && threshold <= number && number <= MAX_ROOT_KEYS) return { threshold, number }
  throw new GapferryError(
    'USAGE_INVALID',
    `--root "${text}": expected THRESHOLD/NUMBER up to ${MAX_ROOT_KEYS}, as in 2/3`,
  )
}

/** Several root keys on one laptop are worth one: each goes to a medium of its own.
 *  @throws USAGE_INVALID, MEDIUM_UNUSABLE before anything is made */
export function checkRootOrder({ number, to }: Pick<RootOrder, 'number' | 'to'>, keysDir: string): void {
  const expected = number === 1 ? Math.min(to.length, 1) : number
  if (to.length !== expected) {
    throw new GapferryError(
      'USAGE_INVALID',
      `${number} root key(s): expected --root-to DIR ${expected} times, each another medium; found it ${to.length} times`,
      { hint: `gapferry init --root 2/${number}${' --root-to DIR'.repeat(number)}` },
    )
  }
  const places = to.map(checkMedium)
  const twice = places.find((place, i) => places.indexOf(place) !== i)
  if (twice !== undefined)
    throw new GapferryError('USAGE_INVALID', `--root-to ${twice}: given twice; each key needs its own`)
  const inside = places.find((place) => !relative(resolve(keysDir), place).startsWith('..'))
  if (inside !== undefined) {
    throw new GapferryError(
      'USAGE_INVALID',
      `--root-to ${inside}: is in the folder of the keys that they are kept from`,
    )
  }
}

/** Makes the keys and puts each at its place. When one cannot be written, those that were are taken away again.
 *  @returns the keys; `undo` takes the files away, for a caller that fails later */
export async function makeRootKeys(site: string, order: RootOrder): Promise<{ placed: PlacedKey[]; undo: () => void }> {
  const placed: PlacedKey[] = []
  const undo = (): void => placed.forEach(({ file }) => file !== undefined && rmSync(file, { force: true }))
  try {
    for (let i = 1; i <= order.number; i++) {
      const where = order.to[i - 1]
      const key = await createSigningKey('root', await order.passphrase(i, where))
      const file = where === undefined ? undefined : join(where, `gapferry-${site}-${keyFileName('root', key.keyid)}`)
      placed.push({ key, file })
      if (file !== undefined) writeToMedium(file, key.fileBytes)
    }
  } catch (error) {
    undo()
    throw error
  }
  return { placed, undo }
}

/** Those of the files that lie on the same disk as the folder of the other keys. */
export function onSameDisk(files: string[], folder: string): string[] {
  const { dev } = statSync(folder)
  return files.filter((file) => statSync(file, { throwIfNoEntry: false })?.dev === dev)
}

/** Opens root keys: the given files, which hold their secrets themselves, and those in the site's own folder, which may
 *  name a token.
 *  @param wanted  key ids that count; others in the folder stay closed, others among the files are refused
 *  @throws KEY_MISSING, KEY_INVALID, KEY_PASSPHRASE_*, TOKEN_* */
export async function openRootKeys(args: {
  files: string[]
  own?: { dir: string; site: string }
  wanted: ReadonlySet<string>
  secrets: KeySecrets
}): Promise<SigningKey[]> {
  const { files, own, wanted, secrets } = args
  const given = files.map((path) => ({ name: basename(path), file: readRootKey(path, wanted) }))
  const here = own === undefined ? [] : listKeyFiles(own.dir, own.site).filter(({ file }) => file.role === 'root')
  const found = new Map(
    [...here.filter(({ file }) => wanted.has(file.keyid)), ...given].map((one) => [one.file.keyid, one]),
  )
  const opened: SigningKey[] = []
  for (const { name, file } of found.values()) opened.push(await openSigningKey(file, name, secrets))
  return opened
}

function readRootKey(path: string, wanted: ReadonlySet<string>): ReturnType<typeof parseKeyFile> {
  const file = parseKeyFile(readSiteFile(path), path)
  // A module is code that would run here, and whoever held the medium could have written its name.
  if (file.cipher.name === 'PKCS#11') {
    throw new GapferryError('KEY_INVALID', `${path}: names ${file.cipher.module}, which would be run`, {
      hint: 'a key in a token is used through its file in the folder of the site’s keys; copy it there if it is yours',
    })
  }
  const names = [...wanted].map((keyid) => keyid.slice(0, 8)).join(', ')
  if (file.role === 'root' && wanted.has(file.keyid)) return file
  throw new GapferryError(
    'KEY_INVALID',
    `${path}: is ${file.role} key ${file.keyid.slice(0, 8)}; expected a root key that this root knows: ${names}`,
    { hint: 'gapferry keys list' },
  )
}

function checkMedium(dir: string): string {
  if (statSync(dir, { throwIfNoEntry: false })?.isDirectory() === true) return realpathSync(dir)
  throw new GapferryError('MEDIUM_UNUSABLE', `${dir}: expected the folder of a mounted medium, found none`, {
    hint: 'mount it, or make the folder: mkdir',
  })
}

function writeToMedium(file: string, bytes: Buffer): void {
  try {
    writeNewFile(file, bytes)
    syncFolder(dirname(file))
    if (readFileSync(file).equals(bytes)) return
  } catch (cause) {
    if (systemCode(cause) === '') throw cause
    throw new GapferryError('MEDIUM_UNUSABLE', `${file}: cannot be written (${systemCode(cause)})`, {
      hint: 'is it mounted, and not write-protected?',
      cause,
    })
  }
  throw new GapferryError('PACK_READ_BACK', `${file}: the medium gives back other bytes than it was given`)
}
