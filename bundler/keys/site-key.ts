/**
 * `site.asc`: the OpenPGP keys that a site publishes, one armored block after the other, as rpm, yum, dnf and gpg read them
 * from one file. The first one signs. A later one that is younger waits for its turn: boxes get to know it beforehand; one
 * that is older has had its turn. So each change is one file that is replaced.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { formatTable } from '../../manifests/console.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { readSiteFile, siteFolder } from './key-folder.ts'

/** One public key of `site.asc`. */
export interface PublishedKey {
  /** 40 lower-case hex digits */
  fingerprint: string
  armored: string
  /** seconds since 1970 */
  createdAt: number
  state: 'in force' | 'waiting' | 'retired'
}

const BLOCK = /-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n[^]*?-----END PGP PUBLIC KEY BLOCK-----\r?\n?/g
/** Boxes read all of them at each update. */
export const MAX_PUBLISHED = 8

/** The keys of `site.asc`; none where there is no such file.
 *  @throws KEY_INVALID for what is not one to eight version 4 keys */
export function publishedKeys(dir: string, site: string): PublishedKey[] {
  const file = join(siteFolder(dir, site), 'site.asc')
  return existsSync(file) ? parseSiteKey(readSiteFile(file).toString('latin1'), file) : []
}

/** @param what  names the text in messages */
export function parseSiteKey(text: string, what: string): PublishedKey[] {
  const blocks = text.match(BLOCK) ?? []
  if (blocks.length === 0 || blocks.length > MAX_PUBLISHED || blocks.join('').length !== text.length)
    throw invalid(what, `expected 1 to ${MAX_PUBLISHED} armored public keys and nothing else`)
  const keys = blocks.map((armored) => ({ armored, ...readBlock(armored, what) }))
  if (new Set(keys.map(({ fingerprint }) => fingerprint)).size < keys.length) throw invalid(what, 'has a key twice')
  const [first] = keys
  return keys.map((key, i) => {
    const state = key.createdAt > first!.createdAt ? 'waiting' : 'retired'
    return { ...key, state: i === 0 ? 'in force' : state }
  })
}

/** The text of `site.asc`. @param keys  the one that signs first */
export function siteKeyText(keys: readonly Pick<PublishedKey, 'armored'>[]): string {
  return keys.map(({ armored }) => (armored.endsWith('\n') ? armored : `${armored}\n`)).join('')
}

/** For a person, two spaces in. */
export function renderPublished(keys: readonly Pick<PublishedKey, 'fingerprint' | 'state'>[]): string {
  return formatTable(
    keys.map(({ fingerprint, state }) => [state, spacedFingerprint(fingerprint)]),
    { indent: '  ' },
  )
}

/** As gpg shows it, for a person who compares: ten groups of four. */
function spacedFingerprint(fingerprint: string): string {
  const groups = fingerprint.toUpperCase().match(/.{4}/g)!
  return `${groups.slice(0, 5).join(' ')}  ${groups.slice(5).join(' ')}`
}

/** Of the first packet, the primary key: RFC 4880 §4.2, §5.5.2 and §12.2. */
function readBlock(armored: string, what: string): Pick<PublishedKey, 'fingerprint' | 'createdAt'> {
  const body = armored.split(/\r?\n\r?\n/, 2)[1] ?? ''
  const base64 = body
    .split(/\r?\n/)
    .filter((line) => /^[A-Za-z0-9+/]+={0,2}$/.test(line))
    .join('')
  const key = firstPacket(Buffer.from(base64, 'base64'))
  if (key === undefined || key.length < 6 || key[0] !== 4) throw invalid(what, 'holds no public key of version 4')
  const head = Buffer.from([0x99, key.length >> 8, key.length & 0xff])
  return { fingerprint: createHash('sha1').update(head).update(key).digest('hex'), createdAt: key.readUInt32BE(1) }
}

/** The body of a public key packet (tag 6) at the start; lengths that our keys do not have are not read. */
function firstPacket(bytes: Buffer): Buffer | undefined {
  const [tag, first, second, third] = bytes
  if (tag === 0xc6 && first! < 192) return slice(bytes, 2, first!)
  if (tag === 0xc6 && first! < 224 && second !== undefined) return slice(bytes, 3, ((first! - 192) << 8) + second + 192)
  if (tag === 0x98 && first !== undefined) return slice(bytes, 2, first)
  if (tag === 0x99 && second !== undefined && third !== undefined) return slice(bytes, 3, (first! << 8) + second)
  return undefined
}

function slice(bytes: Buffer, from: number, length: number): Buffer | undefined {
  return from + length <= bytes.length ? bytes.subarray(from, from + length) : undefined
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('KEY_INVALID', `${what}: ${why}`, { hint: 'gapferry keys restore FILE' })
}
