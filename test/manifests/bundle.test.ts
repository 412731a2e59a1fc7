import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { pack } from 'tar-stream'
import { EntryOrder, paddingOf, parseHeader, parsePartName, partName } from '../../manifests/bundle.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { ustarHeader } from '../helpers/part.ts'

const A = 'a'.repeat(64)
const B = 'b'.repeat(64)
const NAMES = [
  'metadata/timestamp.json',
  'metadata/7.snapshot.json',
  'metadata/7.targets.json',
  'metadata/1.root.json',
  'metadata/2.root.json',
  'metadata/10.root.json',
  `trees/${A}`,
  `trees/${B}`,
  'part.json',
  `blobs/${A}`,
  `blobs/${B}`,
]

t.test('a part is named by site and number, and by its place where there are several', (t) => {
  t.equal(partName({ site: 'hq', number: 7, part: 1, parts: 1 }), 'hq-7.tar')
  t.equal(partName({ site: 'hq', number: 7, part: 2, parts: 3 }), 'hq-7-2of3.tar')
  t.strictSame(parsePartName('hq-7.tar'), { site: 'hq', number: 7, part: 1, parts: 1 })
  t.strictSame(parsePartName('hq-2-7-2of3.tar'), { site: 'hq-2', number: 7, part: 2, parts: 3 })
  for (const name of [
    'hq.tar',
    'hq-7.tar.part',
    'hq-07.tar',
    'hq-7-4of3.tar',
    'hq-7-1of1.tar',
    'HQ-7.tar',
    '../hq-7.tar',
  ]) {
    t.equal(parsePartName(name), undefined, name)
  }
  t.equal(parsePartName(`${'a'.repeat(300)}-7.tar`), undefined)
  t.end()
})

t.test('what partName gives, parsePartName reads back', (t) => {
  const number = fc.integer({ min: 1, max: 2 ** 31 })
  const site = fc.stringMatching(/^[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?$/)
  fc.assert(
    fc.property(site, number, fc.integer({ min: 1, max: 256 }), fc.nat(255), (site, number, part, more) => {
      const name = { site, number, part, parts: part + more }
      return isDeepStrictEqual(parsePartName(partName(name)), name)
    }),
  )
  t.end()
})

t.test('reads the headers that tar-stream writes', async (t) => {
  for (const bytes of [0, 1, 512, 2 ** 31 - 1]) {
    const archive = pack()
    const header = new Promise<Buffer>((resolve) => archive.once('data', (block) => resolve(block as Buffer)))
    archive.entry({ name: `blobs/${A}`, size: bytes, mode: 0o644, mtime: new Date(0), type: 'file' })
    t.strictSame(parseHeader(await header), { name: `blobs/${A}`, bytes })
    t.strictSame(await header, ustarHeader(`blobs/${A}`, bytes), 'and so does the test helper')
  }
})

t.test('a block of zeros is the end', (t) => {
  t.equal(parseHeader(Buffer.alloc(512)), undefined)
  t.end()
})

t.test('refuses every other type of entry', (t) => {
  for (const type of ['1', '2', '3', '4', '5', '6', '7', 'x', 'g', 'L', 'K', 'S', 'V', 'M', '\0', 'A']) {
    refused(t, ustarHeader(`blobs/${A}`, 0, { 156: type, 157: '/etc/passwd' }), 'BUNDLE_ENTRY_TYPE')
  }
  t.end()
})

t.test('refuses headers that are not spelled as ours', (t) => {
  const spellings: Record<string, Record<number, string>> = {
    'wrong checksum': { 148: '000000 \0' },
    'checksum spelled in another way': { 148: '  7777\0 ' },
    'GNU magic': { 257: 'ustar  \0' },
    'no magic': { 257: '\0'.repeat(8) },
    'set-user-id': { 100: '004755 \0' },
    owner: { 108: '000001 \0' },
    group: { 116: '000001 \0' },
    time: { 136: '00000000001 ' },
    'link name': { 157: 'x' },
    'owner name': { 265: 'root' },
    'device number': { 329: '000001 \0' },
    prefix: { 345: '..' },
    'rubbish in the unused end': { 511: 'x' },
    'rubbish behind the name': { 99: 'x' },
    'size in base 256': { 124: '\x80\0\0\0\0\0\0\0\0\0\x10\0' },
    'negative size': { 124: '-0000000001 ' },
    'size with spaces': { 124: '          5 ' },
    'size ended by zero': { 124: '00000000005\0' },
    'size in decimal': { 124: '00000000008 ' },
  }
  for (const [what, fields] of Object.entries(spellings)) {
    refused(t, ustarHeader(`blobs/${A}`, 5, fields), 'BUNDLE_HEADER_INVALID', what)
  }
  t.end()
})

t.test('refuses an entry of 2 GiB or more', (t) => {
  refused(t, ustarHeader(`blobs/${A}`, 2 ** 31), 'BUNDLE_TOO_LARGE')
  refused(t, ustarHeader(`blobs/${A}`, 0, { 124: '77777777777 ' }), 'BUNDLE_TOO_LARGE')
  t.end()
})

t.test('no flipped bit of a header goes unnoticed, and no block throws anything else', (t) => {
  const good = ustarHeader(`blobs/${A}`, 1234)
  const bits = Array.from({ length: 512 * 8 }, (_, bit) => bit)
  const missed = bits.filter((bit) => {
    const block = Buffer.from(good)
    block[bit >> 3]! ^= 1 << (bit & 7)
    return !isRefused(block)
  })
  t.strictSame(missed, [])
  const anyBlock = fc.uint8Array({ minLength: 512, maxLength: 512 })
  fc.assert(fc.property(anyBlock, (bytes) => isRefused(Buffer.from(bytes)) || bytes.every((byte) => byte === 0)))
  t.end()
})

t.test('padding fills the block', (t) => {
  t.strictSame([0, 1, 511, 512, 513, 2 ** 31 - 1].map(paddingOf), [0, 511, 1, 0, 511, 1])
  t.end()
})

t.test('accepts the sections in their order, and says what each entry is', (t) => {
  const entries = follow(NAMES)
  t.strictSame(entries[0], { section: 'timestamp', name: 'timestamp.json', version: 0, bytes: 10 })
  t.strictSame(entries[1], { section: 'snapshot', name: '7.snapshot.json', version: 7, bytes: 10 })
  t.strictSame(entries[5], { section: 'root', name: '10.root.json', version: 10, bytes: 10 })
  t.strictSame(entries[6], { section: 'tree', name: A, sha256: A, bytes: 10 })
  t.strictSame(entries[8], { section: 'hint', name: 'part.json', bytes: 10 })
  t.strictSame(entries[9], { section: 'blob', name: A, sha256: A, bytes: 10 })
  t.doesNotThrow(() => follow(NAMES.slice(0, 9)), 'no blobs at all')
  t.end()
})

t.test('refuses names outside the scheme', (t) => {
  const names = [
    '../../etc/cron.d/evil',
    '/etc/passwd',
    `blobs/../blobs/${A}`,
    `./blobs/${A}`,
    `blobs//${A}`,
    `blobs/${A}/`,
    `blobs/${A.toUpperCase()}`,
    `BLOBS/${A}`,
    `blobs/${A.slice(1)}`,
    `blobs/${A}a`,
    'blobs/',
    'metadata/',
    'metadata/root.json',
    'metadata/01.root.json',
    'metadata/0.root.json',
    'metadata/7.timestamp.json',
    'metadata/7.mirrors.json',
    `metadata/${'9'.repeat(14)}.root.json`,
    'part.json\n',
    'PART.JSON',
    'autorun.inf',
    '',
    'constructor',
    '__proto__',
  ]
  for (const name of names)
    t.throws(() => new EntryOrder().next({ name, bytes: 1 }), { code: 'BUNDLE_ENTRY_UNKNOWN' }, name)
  t.end()
})

t.test('refuses a name that comes twice, wherever', (t) => {
  for (const [i, name] of NAMES.entries()) {
    t.throws(() => follow(NAMES.toSpliced(i, 0, name)), { code: 'BUNDLE_ENTRY_DUPLICATE' }, `${name}, at once`)
    t.throws(() => follow([...NAMES, name]), { code: 'BUNDLE_ENTRY_DUPLICATE' }, `${name}, at the end`)
  }
  t.end()
})

t.test('refuses any two entries that changed places', (t) => {
  for (let i = 0; i < NAMES.length; i++) {
    for (let j = i + 1; j < NAMES.length; j++) {
      const swapped = NAMES.with(i, NAMES[j]!).with(j, NAMES[i]!)
      t.throws(() => follow(swapped), { code: 'BUNDLE_ENTRY_ORDER' }, `${NAMES[i]} and ${NAMES[j]}`)
    }
  }
  t.end()
})

t.test('refuses snapshot and targets of different numbers', (t) => {
  t.throws(() => follow(NAMES.with(2, 'metadata/8.targets.json')), { code: 'BUNDLE_MIXED' })
  t.throws(() => follow(NAMES.toSpliced(2, 0, 'metadata/8.snapshot.json')), { code: 'BUNDLE_MIXED' })
  t.throws(() => follow(NAMES.toSpliced(3, 0, 'metadata/8.targets.json')), { code: 'BUNDLE_MIXED' })
  t.end()
})

t.test('refuses an archive that ends before part.json, or lacks a section', (t) => {
  for (let length = 0; length < 9; length++) {
    t.throws(() => follow(NAMES.slice(0, length)), { code: 'BUNDLE_ENTRY_MISSING' }, `${length} entries`)
  }
  for (const section of ['timestamp', 'snapshot', 'targets', 'root', 'trees', 'part.json']) {
    const without = NAMES.filter((name) => !name.includes(section))
    t.throws(() => follow(without), { code: 'BUNDLE_ENTRY_ORDER' }, `no ${section}`)
  }
  t.end()
})

t.test('refuses entries over their size, and too many of them', (t) => {
  const caps: [number, number][] = [
    [0, 16_384],
    [1, 16_384],
    [2, 262_144],
    [3, 512_000],
    [6, 32 * 2 ** 20],
    [8, 65_536],
    [9, 2 ** 31 - 1],
  ]
  for (const [index, cap] of caps) {
    t.doesNotThrow(() => follow(NAMES, { [index]: cap }), NAMES[index]!)
    t.throws(() => follow(NAMES, { [index]: cap + 1 }), { code: 'BUNDLE_TOO_LARGE' }, NAMES[index]!)
  }
  const roots = count(257, (i) => `metadata/${i + 1}.root.json`)
  t.throws(() => follow([...NAMES.slice(0, 3), ...roots]), { code: 'BUNDLE_TOO_LARGE' }, '257 roots')
  const trees = count(701, (i) => `trees/${hex(i)}`)
  t.throws(() => follow([...NAMES.slice(0, 4), ...trees]), { code: 'BUNDLE_TOO_LARGE' }, '701 trees')
  const blobs = count(20_001, (i) => `blobs/${hex(i)}`)
  t.doesNotThrow(() => follow([...NAMES.slice(0, 9), ...blobs.slice(1)]), '20 000 blobs')
  t.throws(() => follow([...NAMES.slice(0, 9), ...blobs]), { code: 'BUNDLE_TOO_LARGE' }, '20 001 blobs')
  const large = Object.fromEntries([4, 5, 6].map((i) => [i, 32 * 2 ** 20]))
  t.throws(
    () => follow([...NAMES.slice(0, 4), ...trees.slice(0, 3)], large),
    { code: 'BUNDLE_TOO_LARGE' },
    '96 MiB of trees',
  )
  t.end()
})

function hex(i: number): string {
  return i.toString(16).padStart(64, '0')
}

function count(length: number, name: (i: number) => string): string[] {
  return Array.from({ length }, (_, i) => name(i))
}

function follow(names: string[], sizes: Record<number, number> = {}) {
  const order = new EntryOrder()
  const entries = names.map((name, i) => order.next({ name, bytes: sizes[i] ?? 10 }))
  order.end()
  return entries
}

function refused(t: Test, block: Buffer, code: string, what = code): void {
  t.throws(() => parseHeader(block), { code }, what)
}

function isRefused(block: Buffer): boolean {
  try {
    return parseHeader(block) === null
  } catch (error) {
    if (isGapferryError(error)) return true
    throw error
  }
}
