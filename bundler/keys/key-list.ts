/**
 * What keys a site has, as a person asks it: which count, where they are, how they are protected, what is missing.
 */
import { join } from 'node:path'
import { formatTable, formatTime, plural } from '../../manifests/console.ts'
import { parseRoot, type RootFile } from '../../manifests/metadata.ts'
import { fingerprintWords, siteKeyWords } from '../../manifests/words.ts'
import type { KeyFile } from './keyfile.ts'
import { BUNDLE_ROLES, listKeyFiles, loadRoots, signsBundles, siteFolder, type NamedKeyFile } from './key-folder.ts'
import { describeLacks, readPending } from './pending-root.ts'
import { keysOf, quorums } from './root-change.ts'
import { publishedKeys, renderPublished, siteKeyText, type PublishedKey } from './site-key.ts'

/** `in force`: the newest root names it, or it is the first in site.asc; `waiting`: a root that lacks signatures does, or
 *  site.asc, for later; `retired`: an older root did; `unused`: none ever */
type KeyState = 'in force' | 'waiting' | 'retired' | 'unused'

export interface ListedKey {
  role: KeyFile['role']
  keyid: string
  state: KeyState
  /** undefined: not on this laptop */
  file: string | undefined
  protection: 'passphrase' | 'clear' | 'token' | 'elsewhere'
  token?: { module: string; token: string; id: string }
}

export interface ListedSite {
  site: string
  root: {
    version: number
    expiresAtMs: number
    fingerprint: string
    threshold: number
    keys: number
    bundleKeys: number
  }
  keys: ListedKey[]
  /** of site.asc, the one that signs first */
  openpgp: Pick<PublishedKey, 'fingerprint' | 'state'>[]
  /** words of site.asc, for a box that is set up; null: the file is not here */
  siteKey: string | null
  /** a root that waits for signatures, in words */
  pending: string[]
  warnings: string[]
}

const SOON_MS = 365 * 86_400_000

/** @throws KEY_MISSING, KEY_INVALID, ROLE_*, SITE_MISMATCH */
export function listKeys(dir: string, site: string, nowMs: number): ListedSite {
  const { roots, root } = loadRoots(dir, site)
  const pending = readPending(dir, root)
  const files = listKeyFiles(dir, site)
  const older = roots.slice(0, -1).map((bytes) => parseRoot(bytes, 'older root'))
  const published = publishedKeys(dir, site)
  const here = files.map((one) => listed(dir, site, one, stateOf(one.file, { root, pending, older, published })))
  const keys = [
    ...here,
    ...elsewhere(root, 'in force', here),
    ...(pending ? elsewhere(pending, 'waiting', here) : []),
    ...publishedElsewhere(published, here),
  ]
  const unique = keys.filter((one, i) => keys.findIndex((other) => other.keyid === one.keyid) === i)
  return {
    site,
    root: {
      version: root.version,
      expiresAtMs: root.expiresAtMs,
      fingerprint: fingerprintWords(roots[0]!),
      threshold: keysOf(root, 'root').threshold,
      keys: keysOf(root, 'root').keyids.length,
      bundleKeys: keysOf(root, 'targets').keyids.length,
    },
    keys: unique,
    siteKey: published.length === 0 ? null : siteKeyWords(siteKeyText(published)),
    openpgp: published.map(({ fingerprint, state }) => ({ fingerprint, state })),
    pending: pending === undefined ? [] : [`root ${pending.version}`, ...describeLacks(quorums(root, pending))],
    warnings: [...warningsOf(root, unique, nowMs, site), ...waitingWarnings(published, site)],
  }
}

/** For a person. */
export function renderKeys({ site, root, keys, openpgp, siteKey, pending, warnings }: ListedSite): string {
  const rows = keys.map((key) => [
    key.role,
    key.keyid.slice(0, 8),
    key.state,
    protectionText(key),
    key.file ?? 'not on this laptop',
  ])
  const [waiting, ...lacking] = pending
  return [
    `site ${site}: root ${root.version}, good until ${formatTime(root.expiresAtMs)}`,
    `  fingerprint  ${root.fingerprint}`,
    `  a new root needs ${root.threshold} of ${plural(root.keys, 'root key')}; bundles are signed by ${plural(root.bundleKeys, 'bundle key')}`,
    formatTable(rows, { indent: '  ' }),
    ...(openpgp.length === 0
      ? []
      : ['  OpenPGP keys that boxes find in keys/site.asc:', renderPublished(openpgp).replace(/^/gm, '  ')]),
    ...(siteKey === null ? [] : ['  site key, for gapferry-box setup:', `    ${siteKey}`]),
    ...(waiting === undefined
      ? []
      : [
          `  ${waiting} waits for signatures: ${lacking.join('; ')}`,
          `  next: gapferry keys sign --site ${site} --root-key FILE`,
        ]),
    ...warnings.map((text) => `  warning: ${text}`),
  ].join('\n')
}

function stateOf(
  file: KeyFile,
  {
    root,
    pending,
    older,
    published,
  }: { root: RootFile; pending: RootFile | undefined; older: RootFile[]; published: PublishedKey[] },
): KeyState {
  // No root names it: it signs nothing.
  if (file.role === 'license') return 'in force'
  if (file.role === 'openpgp') return published.find(({ armored }) => file.public === armored)?.state ?? 'retired'
  const names = (by: RootFile): boolean =>
    file.role === 'root' ? keysOf(by, 'root').keyids.includes(file.keyid) : signsBundles(by, file.keyid)
  if (names(root)) return 'in force'
  if (pending !== undefined && names(pending)) return 'waiting'
  return older.some(names) ? 'retired' : 'unused'
}

function listed(dir: string, site: string, { name, file }: NamedKeyFile, state: KeyState): ListedKey {
  const { role, keyid, cipher } = file
  const base = { role, keyid, state, file: join(siteFolder(dir, site), name) }
  if (cipher.name === 'PKCS#11') {
    const { module, token, id } = cipher
    return { ...base, protection: 'token', token: { module, token, id } }
  }
  return { ...base, protection: cipher.name === 'none' ? 'clear' : 'passphrase' }
}

/** Keys that a root names and the folder has not. */
function elsewhere(root: RootFile, state: KeyState, here: ListedKey[]): ListedKey[] {
  const bundle = new Set(BUNDLE_ROLES.flatMap((role) => keysOf(root, role).keyids))
  const all = [
    ...keysOf(root, 'root').keyids.map((keyid) => ({ role: 'root' as const, keyid })),
    ...[...bundle].map((keyid) => ({ role: 'bundle' as const, keyid })),
  ]
  return all
    .filter(({ keyid }) => !here.some((key) => key.keyid === keyid))
    .map((key) => ({ ...key, state, file: undefined, protection: 'elsewhere' as const }))
}

function publishedElsewhere(published: PublishedKey[], here: ListedKey[]): ListedKey[] {
  return published
    .filter(({ fingerprint }) => !here.some(({ keyid }) => keyid === fingerprint))
    .map(({ fingerprint, state }) => {
      return { role: 'openpgp', keyid: fingerprint, state, file: undefined, protection: 'elsewhere' }
    })
}

function waitingWarnings(published: PublishedKey[], site: string): string[] {
  return published
    .filter(({ state }) => state === 'waiting')
    .map(
      ({ fingerprint }) =>
        `OpenPGP key ${fingerprint.slice(0, 8)} waits until the boxes have it: gapferry keys rotate openpgp --site ${site} --now`,
    )
}

function warningsOf(root: RootFile, keys: ListedKey[], nowMs: number, site: string): string[] {
  const inForce = keys.filter((key) => key.state === 'in force')
  const of = (role: ListedKey['role'], isHere: boolean): ListedKey[] =>
    inForce.filter((key) => key.role === role && (key.file !== undefined) === isHere)
  const rootsHere = of('root', true).filter((key) => key.protection !== 'token')
  const { threshold } = keysOf(root, 'root')
  const warnings: string[] = []
  if (rootsHere.length >= threshold && of('bundle', true).length > 0) {
    warnings.push(
      `${plural(rootsHere.length, 'root key')} beside the bundle key: who steals this laptop can sign for ${site} for ever. ` +
        `Move ${rootsHere.length === 1 ? 'it' : 'them'} to another medium; needed only for gapferry keys`,
    )
  }
  if (of('bundle', true).length === 0)
    warnings.push(`no bundle key in force is here: this laptop cannot sign; gapferry keys rotate bundle --site ${site}`)
  if (of('openpgp', true).length === 0)
    warnings.push(`the OpenPGP key of site.asc is missing: gapferry keys restore FILE`)
  const clear = inForce.filter((key) => key.protection === 'clear')
  if (clear.length > 0)
    warnings.push(`${plural(clear.length, 'key')} without a passphrase: whoever copies the file can sign`)
  if (nowMs >= root.expiresAtMs)
    warnings.push(`root ${root.version} has expired, bundles are refused: gapferry keys rotate --site ${site}`)
  else if (nowMs >= root.expiresAtMs - SOON_MS)
    warnings.push(`root ${root.version} expires within a year: gapferry keys rotate --site ${site}`)
  return warnings
}

function protectionText({ protection, token }: ListedKey): string {
  return token === undefined ? protection : `token "${token.token}" ${token.id}`
}
