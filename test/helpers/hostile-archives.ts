/** Archives made to harm whoever unpacks them, one for each rule of manifests/FORMAT.md#parts: bundle 2 of the sample site. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { deflateRawSync, gzipSync } from 'node:zlib'
import { sha256Of } from '../../manifests/digest.ts'
import type { ErrorCode } from '../../manifests/errors.ts'
import type { HostileCase } from './hostile.ts'
import { makeContent, signContent } from './mirror.ts'
import { archive, partEntries, ustarHeader, type RawEntry } from './part.ts'

const entries = partEntries(signContent(makeContent(2, [{ stamp: 20, packages: ['a', 'b', 'c'] }])))
/** What all of them were made from. */
export const goodArchive = archive(entries)
const good = goodArchive
const blobAt = entries.findIndex(({ name }) => name.startsWith('blobs/'))
const treeAt = entries.findIndex(({ name }) => name.startsWith('trees/'))
const hintAt = entries.findIndex(({ name }) => name === 'part.json')
const { name: blobName, body: blobBody } = entries[blobAt]!
const HEX = blobName.slice('blobs/'.length)
const UNKNOWN = 'BUNDLE_ENTRY_UNKNOWN'
const HEADER = 'BUNDLE_HEADER_INVALID'
const ZEROS = Buffer.alloc(512)

const put = (at: number, ...more: RawEntry[]): Buffer => archive(entries.toSpliced(at, 0, ...more))
const file = (name: string, body = Buffer.from('evil')): RawEntry => ({ name, body })
const special = (
  type: string,
  name: string,
  body: Buffer = Buffer.alloc(0),
  fields: Record<number, string> = {},
): RawEntry => ({
  name,
  body,
  header: ustarHeader(name, body.length, { 156: type, ...fields }),
})
const blobHeader = (fields: Record<number, string>): Buffer =>
  archive(entries.with(blobAt, { ...entries[blobAt]!, header: ustarHeader(blobName, blobBody.length, fields) }))
const pax = (text: string): Buffer<ArrayBuffer> => Buffer.from(`${text.length + 4} ${text}\n`)

/** Names that mean another place than they say, on one system or another. */
const TRAVERSAL = [
  '../../../../etc/cron.d/evil',
  '/etc/passwd',
  'blobs/../../evil',
  `blobs/../blobs/${HEX}`,
  `./${blobName}`,
  `blobs//${HEX}`,
  `${blobName}/`,
  `/${blobName}`,
  `blobs\\${HEX}`,
  '..\\..\\evil',
  'C:\\evil.exe',
  `//server/share/${HEX}`,
  'blobs/.',
  '~root/.ssh/authorized_keys',
  `blobs/${HEX.toUpperCase()}A`.slice(0, 70),
  `BLOBS/${HEX}`,
  `blobs/${HEX.replace(/^./, '\xd0\xb0')}`, // a Cyrillic letter in UTF-8
  `${blobName}.`,
  `${blobName}:stream`,
  `blobs/${HEX.slice(1)}`,
  'autorun.inf',
  'blobs/\u001b]0;owned\u0007\u001b[2J',
  'blobs/__proto__',
  'constructor',
  '',
  `${'a/'.repeat(49)}..`,
]

const LINK = { 157: '../../../../etc/passwd' }
/** Type flag → what a careless reader would make of it. */
const TYPES: [string, string, (Buffer<ArrayBuffer> | undefined)?, Record<number, string>?][] = [
  ['1', 'a hard link out of the folder', undefined, LINK],
  ['2', 'a symbolic link out of the folder', undefined, LINK],
  ['3', 'a character device', undefined, { 329: '0000001 0000003 ' }],
  ['4', 'a block device', undefined, { 329: '0000010 0000000 ' }],
  ['5', 'a folder'],
  ['5', 'a folder that has bytes', Buffer.alloc(700, 1)],
  ['6', 'a pipe'],
  ['7', 'a contiguous file', Buffer.from('evil')],
  ['\0', 'a file of the oldest format', Buffer.from('evil')],
  ['x', 'PAX: another path', pax('path=../../../../etc/cron.d/evil')],
  ['x', 'PAX: a path with NUL', pax('path=blobs/\0../evil')],
  ['x', 'PAX: a size of 10^20', pax(`size=1${'0'.repeat(20)}`)],
  ['x', 'PAX: a length that lies', Buffer.from('99999999999 path=x\n')],
  ['x', 'PAX: a sparse map', pax('GNU.sparse.size=1099511627776')],
  ['g', 'PAX: for all that follows', pax('linkpath=/etc/passwd')],
  ['L', 'GNU: a long name', Buffer.from('../../../../etc/cron.d/evil\0')],
  ['K', 'GNU: a long link', Buffer.from('/etc/passwd\0')],
  ['S', 'GNU: a sparse file of 1 TiB', Buffer.from('x'), { 483: '1'.padStart(11, '7') }],
  ['D', 'GNU: a folder list', Buffer.from('Yevil\0\0')],
  ['M', 'GNU: the rest of another volume', Buffer.from('x')],
  ['V', 'GNU: a volume label'],
  ['A', 'Solaris: an access list', Buffer.from('x')],
  ['Z', 'a type that nobody has'],
]

const HEADERS: [string, Record<number, string>, ErrorCode?][] = [
  ['a size in base 256', { 124: '\x80\0\0\0\0\0\0\0\0\0\0\x04' }],
  ['a size below zero', { 124: '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc' }],
  ['a size with a sign', { 124: '-0000000001 ' }],
  ['a size that is no number', { 124: '0x000000010 ' }],
  ['a size in spaces', { 124: '          4 ' }],
  ['a size that ends in NUL', { 124: `${blobBody.length.toString(8).padStart(11, '0')}\0` }],
  ['8 GiB', { 124: '77777777777 ' }, 'BUNDLE_TOO_LARGE'],
  ['2 GiB that are not there', { 124: '17777777777 ' }, 'BUNDLE_TRUNCATED'],
  ['one byte less', { 124: `${(blobBody.length - 1).toString(8).padStart(11, '0')} ` }, 'BLOB_SIZE_MISMATCH'],
  ['one byte more', { 124: `${(blobBody.length + 1).toString(8).padStart(11, '0')} ` }, 'BLOB_SIZE_MISMATCH'],
  ['set user id', { 100: '0104755 ' }],
  ['an owner', { 108: '0000000 0000000 ' }],
  ['a time', { 136: '77777777777 ' }],
  ['a link name on a plain file', { 157: '/etc/passwd' }],
  ['an owner’s name', { 265: 'root' }],
  ['a prefix to the name', { 345: '../../../..' }],
  ['a byte at the very end', { 511: 'x' }],
  ['bytes behind the name’s end', { 90: '/../evil' }],
  ['GNU’s magic', { 257: 'ustar  \0' }],
  ['no magic', { 257: '\0\0\0\0\0\0\0\0' }],
  ['another version', { 263: '11' }],
  ['a wrong checksum', { 148: '000000\0 ' }],
  ['a checksum in another spelling', { 148: '        ' }],
]

/** Each with the code that a mirror refuses it with. */
export const hostileArchives: HostileCase[] = [
  ...TRAVERSAL.flatMap((name) => [
    { what: `first: ${JSON.stringify(name)}`, code: UNKNOWN, bytes: put(0, file(name)) } as const,
    { what: `last: ${JSON.stringify(name)}`, code: UNKNOWN, bytes: put(entries.length, file(name)) } as const,
  ]),
  ...TYPES.flatMap(([type, what, body, fields]) =>
    [0, treeAt, blobAt, entries.length].map((at) => ({
      what: `${what}, at ${at}`,
      code: 'BUNDLE_ENTRY_TYPE' as const,
      bytes: put(at, special(type, blobName, body, fields)),
    })),
  ),
  ...HEADERS.map(([what, fields, code = HEADER]) => ({ what, code, bytes: blobHeader(fields) })),

  { what: 'a blob twice', code: 'BUNDLE_ENTRY_DUPLICATE', bytes: put(blobAt, entries[blobAt]!) },
  { what: 'other bytes under a name again', code: 'BUNDLE_ENTRY_DUPLICATE', bytes: put(blobAt + 1, file(blobName)) },
  { what: 'two timestamps', code: 'BUNDLE_ENTRY_DUPLICATE', bytes: put(1, entries[0]!) },
  { what: 'two part.json', code: 'BUNDLE_ENTRY_DUPLICATE', bytes: put(blobAt, entries[hintAt]!) },
  { what: 'a blob in front', code: 'BUNDLE_ENTRY_ORDER', bytes: archive([entries[blobAt]!, ...entries]) },
  {
    what: 'blobs that fall',
    code: 'BUNDLE_ENTRY_ORDER',
    bytes: archive(entries.with(blobAt, entries[blobAt + 1]!).with(blobAt + 1, entries[blobAt]!)),
  },
  { what: 'metadata behind the blobs', code: UNKNOWN, bytes: put(entries.length, file('metadata/0.root.json')) },
  { what: 'no metadata', code: 'BUNDLE_ENTRY_ORDER', bytes: archive(entries.slice(treeAt)) },
  { what: 'no trees', code: 'BUNDLE_ENTRY_ORDER', bytes: archive(entries.toSpliced(treeAt, hintAt - treeAt)) },
  { what: 'no part.json', code: 'BUNDLE_ENTRY_ORDER', bytes: archive(entries.toSpliced(hintAt, 1)) },
  { what: 'a tree is missing', code: 'BUNDLE_ENTRY_MISSING', bytes: archive(entries.toSpliced(treeAt, 1)) },
  {
    what: 'a blob that no tree names',
    code: UNKNOWN,
    bytes: put(entries.length, file(`blobs/${'f'.repeat(64)}`)),
  },
  {
    what: 'a tree that the metadata does not name',
    code: UNKNOWN,
    bytes: put(hintAt, file(`trees/${'f'.repeat(64)}`)),
  },
  {
    what: 'other bytes under a blob’s name',
    code: 'BLOB_DIGEST_MISMATCH',
    bytes: archive(entries.with(blobAt, file(blobName, Buffer.alloc(blobBody.length, 1)))),
  },
  {
    what: 'the bytes of two blobs exchanged',
    code: 'BLOB_DIGEST_MISMATCH',
    bytes: exchanged(),
  },
  { what: 'padding with a message', code: 'BUNDLE_PADDING', bytes: padded() },

  { what: 'nothing at all', code: 'BUNDLE_TRUNCATED', bytes: Buffer.alloc(0) },
  { what: 'one byte', code: 'BUNDLE_TRUNCATED', bytes: Buffer.from('x') },
  { what: 'an end and nothing before it', code: 'BUNDLE_ENTRY_MISSING', bytes: Buffer.alloc(1024) },
  { what: 'no end', code: 'BUNDLE_TRUNCATED', bytes: good.subarray(0, -1024) },
  { what: 'half an end', code: 'BUNDLE_TRUNCATED', bytes: good.subarray(0, -512) },
  { what: 'a byte less', code: 'BUNDLE_TRUNCATED', bytes: good.subarray(0, -1) },
  { what: 'a byte more', code: 'BUNDLE_TRAILING', bytes: Buffer.concat([good, Buffer.from([0])]) },
  { what: 'a block of zeros more', code: 'BUNDLE_TRAILING', bytes: Buffer.concat([good, ZEROS]) },
  { what: 'a second archive behind', code: 'BUNDLE_TRAILING', bytes: Buffer.concat([good, good]) },
  {
    what: 'an entry hidden behind one block of zeros',
    code: 'BUNDLE_TRAILING',
    bytes: Buffer.concat([good.subarray(0, -1024), ZEROS, archive([file('blobs/evil')])]),
  },
  { what: 'a script in front', code: HEADER, bytes: Buffer.concat([Buffer.from('#!/bin/sh\nevil\n'), good]) },

  { what: 'gzip', code: HEADER, bytes: gzipSync(good) },
  { what: 'a bomb of gzip', code: HEADER, bytes: gzipSync(Buffer.alloc(64 << 20)) },
  { what: 'raw deflate', code: HEADER, bytes: deflateRawSync(good) },
  ...['xz', 'bzip2', 'zstd'].map((tool) => ({
    what: tool,
    code: HEADER as ErrorCode,
    bytes: execFileSync(tool, ['-c'], { input: good }),
  })),
  { what: 'a zip', code: HEADER, bytes: Buffer.concat([Buffer.from('PK\x03\x04'), randomBytes(2000)]) },
  { what: 'a program', code: HEADER, bytes: Buffer.concat([Buffer.from('\x7fELF'), Buffer.alloc(4096, 1)]) },
  { what: 'noise', code: HEADER, bytes: randomBytes(1 << 20) },
]

/** Every cut at a block, and around it. */
for (let at = 512; at < good.length; at += 512) {
  for (const cut of [at, at + 1])
    hostileArchives.push({ what: `cut at ${cut}`, code: 'BUNDLE_TRUNCATED', bytes: good.subarray(0, cut) })
}

/** All that is held in memory before anything is verified, at its limits and one above. */
for (const [what, count, bytes, code] of [
  ['roots, as many and as large as they may be', 16, 500_000, 'ROLE_INVALID'],
  ['one root more than there may be', 256, 100, 'BUNDLE_TOO_LARGE'],
  ['more than 8 MiB of roots', 17, 512_000, 'BUNDLE_TOO_LARGE'],
] as const) {
  const roots = Array.from({ length: count }, (_, i) => file(`metadata/${i + 2}.root.json`, Buffer.alloc(bytes, '[')))
  hostileArchives.push({ what, code, bytes: put(treeAt, ...roots) })
}
for (const [at, bytes] of [
  [0, 16_385],
  [1, 16_385],
  [2, 262_145],
  [hintAt, 65_537],
] as const) {
  const { name } = entries[at]!
  hostileArchives.push({
    what: `${name} one byte above its limit`,
    code: 'BUNDLE_TOO_LARGE',
    bytes: archive(entries.with(at, file(name, Buffer.alloc(bytes, ' ')))),
  })
}

function exchanged(): Buffer {
  const pair = entries.flatMap(({ name, body }, at) =>
    entries
      .slice(at + 1)
      .flatMap((other) =>
        name.startsWith('blobs/') && other.name.startsWith('blobs/') && other.body.length === body.length
          ? [[at, entries.indexOf(other)] as const]
          : [],
      ),
  )[0]!
  const [a, b] = pair
  const swapped = entries
    .with(a, { ...entries[a]!, body: entries[b]!.body })
    .with(b, { ...entries[b]!, body: entries[a]!.body })
  if (sha256Of(entries[a]!.body) === sha256Of(entries[b]!.body)) throw new Error('these are the same')
  return archive(swapped)
}

function padded(): Buffer {
  const padding = Buffer.alloc(512 - (blobBody.length % 512))
  padding.write('psst')
  return archive(entries.with(blobAt, { ...entries[blobAt]!, padding }))
}
