import * as fc from 'fast-check'
import t from 'tap'
import { splitIntoParts, type PlannedPart } from '../../bundler/split.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import { parsePartHint, partHolding } from '../../manifests/part-hint.ts'
import { sampleBundle } from '../helpers/part.ts'

const sample = sampleBundle()

t.test('one part where nothing else is asked for', (t) => {
  const [part, ...more] = splitIntoParts(sample)
  t.strictSame(more, [])
  t.equal(part!.name, 'hq-1.tar')
  t.strictSame(
    part!.entries.map(({ name }) => name),
    [
      'metadata/timestamp.json',
      'metadata/1.snapshot.json',
      'metadata/1.targets.json',
      'metadata/1.root.json',
      ...[...sample.trees.keys()].sort().map((sha256) => `trees/${sha256}`),
      'part.json',
      ...[...sample.blobs.keys()].sort().map((sha256) => `blobs/${sha256}`),
    ],
  )
  t.end()
})

t.test('roots come in the order of their versions', (t) => {
  const metadata = new Map([...[10, 2, 1, 9].map((n) => [`${n}.root.json`, sample.root] as const), ...sample.metadata])
  const names = splitIntoParts({ ...sample, metadata })[0]!.entries.map(({ name }) => name)
  t.strictSame(
    names.filter((name) => name.includes('root')),
    [1, 2, 9, 10].map((n) => `metadata/${n}.root.json`),
  )
  t.equal(names[0], 'metadata/timestamp.json')
  t.end()
})

t.test('a bundle without blobs is one part', (t) => {
  const [part] = splitIntoParts({ ...sample, wanted: new Map() })
  t.strictSame(hintOf(part!).parts, [null])
  t.end()
})

t.test('no part is larger than asked, each has what every part has, and together they have all', (t) => {
  const sizes = fc.array(fc.integer({ min: 0, max: 40_000 }), { maxLength: 60 })
  fc.assert(
    fc.property(sizes, fc.integer({ min: 60_000, max: 200_000 }), (sizes, partSizeBytes) => {
      const wanted = new Map(sizes.map((bytes, i) => [digest(i * 7919), bytes]))
      const parts = splitIntoParts({ ...sample, wanted }, partSizeBytes)
      const carried = parts.flatMap(blobsOf)
      const isSorted = carried.every((sha256, i) => i === 0 || carried[i - 1]! < sha256)
      const isNamed = parts.every((part) =>
        blobsOf(part).every((sha256) => partHolding(hintOf(part), sha256 as Sha256) === part.name),
      )
      const isHeaded = parts.every((part) => part.entries[0]!.name === 'metadata/timestamp.json')
      const isSmall = parts.every((part) => part.bytes <= partSizeBytes)
      return isSorted && carried.length === wanted.size && isNamed && isHeaded && isSmall
    }),
  )
  t.end()
})

t.test('every part.json names all parts', (t) => {
  const wanted = new Map(Array.from({ length: 30 }, (_, i) => [digest(i), 5000]))
  const parts = splitIntoParts({ ...sample, wanted }, 40_000)
  t.ok(parts.length > 3)
  for (const [i, part] of parts.entries()) {
    t.equal(part.name, `hq-1-${i + 1}of${parts.length}.tar`)
    t.match(hintOf(part), { part: i + 1, parts: hintOf(parts[0]!).parts })
  }
  t.end()
})

t.test('no part has more blobs than a reader takes', (t) => {
  const wanted = new Map(Array.from({ length: 20_001 }, (_, i) => [digest(i), 1]))
  t.strictSame(
    splitIntoParts({ ...sample, wanted }).map((part) => blobsOf(part).length),
    [20_000, 1],
  )
  t.end()
})

t.test('refuses a part size that a blob does not fit, and names the size that would do', (t) => {
  const wanted = new Map([[digest(1), 100_000]])
  const attempt = (bytes: number) => (): unknown => splitIntoParts({ ...sample, wanted }, bytes)
  t.throws(attempt(1000), { code: 'PART_SIZE_SHORT', message: /metadata/ })
  t.throws(attempt(100_000), { code: 'PART_SIZE_SHORT', message: new RegExp(digest(1)) })
  const needed = splitIntoParts({ ...sample, wanted })[0]!.bytes
  t.throws(attempt(needed - 1), { code: 'PART_SIZE_SHORT', hint: new RegExp(String(needed)) })
  t.equal(splitIntoParts({ ...sample, wanted }, needed).length, 1)
  t.end()
})

t.test('refuses more parts than part.json may name', (t) => {
  const wanted = new Map(Array.from({ length: 600 }, (_, i) => [digest(i), 70_000]))
  t.throws(() => splitIntoParts({ ...sample, wanted }, 140_000), { code: 'PART_SIZE_SHORT', message: /256/ })
  t.end()
})

function digest(i: number): Sha256 {
  return i.toString(16).padStart(64, '0') as Sha256
}

function blobsOf(part: PlannedPart): string[] {
  return part.entries.filter(({ name }) => name.startsWith('blobs/')).map(({ name }) => name.slice(6))
}

function hintOf(part: PlannedPart) {
  return parsePartHint(part.entries.find(({ name }) => name === 'part.json')!.from as Buffer)
}
