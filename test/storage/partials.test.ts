import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
} from 'node:fs'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { MIN_KEPT_BYTES, PartialFiles, type PartialSource } from '../../storage/partials.ts'

const KEY = sha256Of('key')
const source: PartialSource = {
  url: 'http://vendor.invalid/a',
  address: sha256Of('http://vendor.invalid/a'),
  validator: '"1"',
  totalBytes: 5_000_000,
}
const unmarked: PartialSource = { ...source, validator: null }
const bytes = Buffer.from(Array.from({ length: 2_500_000 }, (_, i) => (i * 7 + (i >> 8)) % 251))
const checksum = { algorithm: 'sha1', hex: createHash('sha1').update(bytes).digest('hex') } as const

function open(t: Test): { root: string; folder: string; partials: PartialFiles } {
  const root = t.testdir()
  return { root, folder: join(root, 'partial'), partials: new PartialFiles(root) }
}

/** What a killed process leaves: nothing was closed. */
function leave(partials: PartialFiles, length: number, key = KEY, from = source): void {
  const file = partials.open(key, undefined)
  file.restart(from)
  for (let at = 0; at < length; at += 100_000) file.write(bytes.subarray(at, Math.min(length, at + 100_000)))
}

function keep(partials: PartialFiles, length: number, key = KEY): void {
  const file = partials.open(key, undefined)
  file.restart(source)
  file.write(bytes.subarray(0, length))
  file.keep()
}

t.test('goes on with what was kept, and the digest is over all of it', async (t) => {
  const { root } = open(t)
  const store = new BlobStore(root)
  keep(store.partials, 1_000_000)
  t.equal(statSync(join(root, 'partial', KEY)).mode & 0o777, 0o600)
  t.equal(statSync(join(root, 'partial')).mode & 0o777, 0o700)
  const file = store.partials.open(KEY, checksum)
  t.strictSame([file.bytes, file.source], [1_000_000, source])
  file.write(bytes.subarray(1_000_000))
  t.equal(file.digest('sha1'), checksum.hex)
  const batch = store.batch()
  t.equal(file.adopt(batch), sha256Of(bytes))
  await batch.commit()
  t.strictSame(store.read(sha256Of(bytes), bytes.length), bytes)
  t.strictSame(readdirSync(join(root, 'partial')), [])
})

t.test('after a kill, believes what the last note covers; with a checksum what is behind it, too', (t) => {
  const { root, partials } = open(t)
  leave(partials, 2_350_000)
  t.equal(new PartialFiles(root).open(KEY, checksum).bytes, 2_350_000)
  const file = new PartialFiles(root).open(KEY, undefined)
  t.equal(file.bytes, 2_200_000, 'a note each MiB, between two writes')
  t.equal(statSync(join(root, 'partial', KEY)).size, 2_200_000, 'the rest is cut off')
  file.write(bytes.subarray(2_200_000))
  t.equal(file.digest('sha256'), sha256Of(bytes))
  t.end()
})

t.test('begins anew where file and note do not agree', (t) => {
  const spoil: Record<string, (file: string, note: string) => void> = {
    'a bit that flipped': (file) => {
      const rotten = readFileSync(file)
      rotten[77]! ^= 1
      writeFileSync(file, rotten)
    },
    'a file that was cut': (file) => truncateSync(file, 100_000),
    'a file of zeros, as after a power cut': (file) => writeFileSync(file, Buffer.alloc(1_000_000)),
    'a note without a line': (_, note) => writeFileSync(note, `${JSON.stringify(source)}\n`),
    'an empty note': (_, note) => writeFileSync(note, ''),
    'a note that is no JSON': (_, note) => writeFileSync(note, `{\n1000000 ${KEY}\n`),
    'a note of another kind': (_, note) => writeFileSync(note, `null\n1000000 ${KEY}\n`),
    'a note with a wrong field': (_, note) => writeFileSync(note, `{"url":"a","address":7}\n1000000 ${KEY}\n`),
    'a note beyond measure': (_, note) => appendFileSync(note, Buffer.alloc(5_000_000, 'x')),
  }
  for (const [what, harm] of Object.entries(spoil)) {
    const { root, folder, partials } = open(t)
    keep(partials, 1_000_000)
    harm(join(folder, KEY), join(folder, `${KEY}.note`))
    const file = new PartialFiles(root).open(KEY, undefined)
    t.strictSame([file.bytes, file.source], [0, undefined], what)
    file.restart(source)
    file.write(bytes)
    t.equal(file.digest('sha256'), sha256Of(bytes), what)
  }
  t.end()
})

t.test('a line that a crash cut off does not count', (t) => {
  const { root, folder, partials } = open(t)
  keep(partials, 1_000_000)
  appendFileSync(join(folder, `${KEY}.note`), `2000000 ${KEY.slice(3)}`)
  t.equal(new PartialFiles(root).open(KEY, undefined).bytes, 1_000_000)
  t.end()
})

t.test('keeps only what a later run could go on with', (t) => {
  const { folder, partials } = open(t)
  const cases: [PartialSource | undefined, number, typeof checksum | undefined, boolean][] = [
    [source, MIN_KEPT_BYTES, undefined, true],
    [source, MIN_KEPT_BYTES - 1, undefined, false],
    [unmarked, MIN_KEPT_BYTES, undefined, false],
    [unmarked, MIN_KEPT_BYTES, checksum, true],
    [undefined, MIN_KEPT_BYTES, undefined, false],
  ]
  for (const [from, length, declared, isKept] of cases) {
    const file = partials.open(KEY, declared)
    file.restart(from)
    file.write(bytes.subarray(0, length))
    file.keep()
    file.keep()
    file.drop()
    t.equal(readdirSync(folder).length, isKept ? 2 : 0, `${length} ${from?.validator}`)
  }
  const dropped = partials.open(KEY, undefined)
  dropped.drop()
  t.strictSame(readdirSync(folder), [])
  t.end()
})

t.test('starting over takes the note away', (t) => {
  const { root, folder, partials } = open(t)
  keep(partials, 1_000_000)
  const file = partials.open(KEY, undefined)
  file.restart({ ...source, validator: '"2"' })
  t.strictSame([file.bytes, statSync(join(folder, KEY)).size, existsSync(join(folder, `${KEY}.note`))], [0, 0, false])
  file.write(bytes.subarray(0, 70_000))
  file.keep()
  t.match(new PartialFiles(root).open(KEY, undefined), { bytes: 70_000, source: { validator: '"2"' } })
  t.end()
})

t.test('one file that is open twice is written twice, and only the first is kept', (t) => {
  const { folder, partials } = open(t)
  const [first, second] = [partials.open(KEY, checksum), partials.open(KEY, checksum)]
  for (const file of [first, second]) {
    file.restart(source)
    file.write(bytes)
    t.equal(file.digest('sha1'), checksum.hex)
  }
  second.keep()
  first.keep()
  t.strictSame(readdirSync(folder).sort(), [KEY, `${KEY}.note`])
  t.end()
})

t.test('a sweep removes rubbish, what is too old and the oldest of what is too much', (t) => {
  const { root, folder, partials } = open(t)
  const now = 1_790_000_000_000
  t.equal(partials.sweep(now), 0, 'no folder, nothing to do')
  t.equal(partials.kept().size, 0)
  const keys = ['a', 'b', 'c', 'd'].map(sha256Of)
  for (const [i, key] of keys.entries()) {
    keep(partials, 100_000, key)
    utimesSync(join(folder, key), now / 1000, now / 1000 - i * 3600)
  }
  writeFileSync(join(folder, sha256Of('without note')), 'x')
  writeFileSync(join(folder, `${sha256Of('without file')}.note`), 'x')
  writeFileSync(join(folder, 'something'), 'x')
  mkdirSync(join(folder, 'deep', 'er'), { recursive: true })
  symlinkSync(root, join(folder, sha256Of('link')))
  writeFileSync(join(folder, `${sha256Of('link')}.note`), 'x')
  t.strictSame(partials.kept(), new Map(keys.toSorted().map((key) => [key, 100_000])))
  t.equal(partials.sweep(now), 4)
  t.strictSame(readdirSync(folder).sort(), keys.flatMap((key) => [key, `${key}.note`]).sort())
  t.ok(existsSync(root))
  t.equal(partials.sweep(now, { maxAgeMs: 2.5 * 3_600_000, maxBytes: 1e9 }), 1)
  t.equal(partials.sweep(now, { maxAgeMs: 1e9, maxBytes: 200_000 }), 1)
  t.strictSame(
    readdirSync(folder).sort(),
    keys
      .slice(0, 2)
      .flatMap((key) => [key, `${key}.note`])
      .sort(),
    'newest stay',
  )
  t.equal(partials.sweep(now - 1e12), 0, 'a clock that was set back makes nothing old')
  t.equal(partials.sweep(now + 31 * 24 * 3_600_000), 2, 'thirty days')
  keep(partials, 100_000)
  partials.remove(KEY)
  t.strictSame(readdirSync(folder), [])
  t.end()
})

t.test('a name that somebody put there is not followed', (t) => {
  const { root, folder } = open(t)
  mkdirSync(folder)
  writeFileSync(join(root, 'elsewhere'), 'hello')
  symlinkSync(join(root, 'elsewhere'), join(folder, KEY))
  const file = new PartialFiles(root).open(KEY, undefined)
  file.write(Buffer.from('x'))
  t.equal(readFileSync(join(root, 'elsewhere'), 'utf8'), 'hello')
  file.drop()
  t.end()
})
