import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import type { TreePath } from '../../manifests/path.ts'
import { serializePartHint } from '../../manifests/part-hint.ts'
import { serializeTree } from '../../manifests/tree.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { readPart, type PartContent, type PartReader } from '../../storage/parts.ts'
import { verifyMetadata, type VerifiedMetadata } from '../../storage/trust.ts'
import { archive, partEntries, sampleBundle, sampleRoot, ustarHeader, type RawEntry } from '../helpers/part.ts'
import { NOW } from '../helpers/site.ts'

const dir = t.testdir({ store: {}, scratch: {}, parts: {} })
const scratchDir = join(dir, 'scratch')
const storeDir = join(dir, 'store')
const store = new BlobStore(storeDir)
const sample = sampleBundle()
const entries = partEntries(sample)
const good = archive(entries)
const A = 'a'.repeat(64)
let count = 0

t.afterEach(() => {
  t.strictSame(readdirSync(join(storeDir, 'staging')), [], 'nothing is left in staging')
  t.strictSame(readdirSync(scratchDir), [], 'nothing is left in the scratch folder')
})

t.test('reads a part: metadata, trees, facts, hint, then the blobs', async (t) => {
  const blobs = new Map<Sha256, Buffer>()
  const seen: string[] = []
  const { bundle, frame, ...counts } = await readPart(put(good), {
    verify: (offered) => {
      seen.push('metadata')
      return verify(offered)
    },
    onVerified: (bundle) => void seen.push(`${bundle.trees.size} tree, ${bundle.wanted.size} wanted`),
    onBlob: (sha256) => {
      seen.push('blob')
      const chunks: Buffer[] = []
      return {
        write: (chunk) => chunks.push(Buffer.from(chunk)),
        finish: () => blobs.set(sha256, Buffer.concat(chunks)),
        abort: () => t.fail('aborted'),
      }
    },
  })
  t.strictSame(seen, ['metadata', '1 tree, 2 wanted', 'blob', 'blob'])
  t.strictSame(blobs, sample.blobs)
  t.strictSame(counts, { blobs: 2, bytes: 3005, isPastCache: false })
  const noBlobs = [...sample.blobs.values()].reduce((rest, blob) => cutOut(rest, blob), good)
  t.equal(frame, sha256Of(noBlobs), 'the frame is all that is no blob')
  t.match(bundle.metadata, { site: 'hq', number: 1 })
  t.strictSame(bundle.treeBytes, sample.trees)
  t.equal(bundle.facts.groups.get('pbx')?.origin, 'http://mirror.hq.lan:8416')
  t.match(bundle.hint, { site: 'hq', number: 1, part: 1 })
  t.strictSame(bundle.wanted.get(sha256Of('alpha')), { bytes: 5, paths: ['a.txt'] })
})

t.test('names each blob once, with all the paths that want it, those of current first', async (t) => {
  const bundle = sampleBundle({
    files: { 'z.txt': 'same', 'only-now.txt': 'now' },
    previous: { 'a.txt': 'same', 'z.txt': 'same', 'only-then.txt': 'then' },
  })
  const { bundle: read } = await take(archive(partEntries(bundle)))
  t.strictSame(read.wanted.get(sha256Of('same')), { bytes: 4, paths: ['z.txt', 'a.txt'] })
  t.strictSame([...read.wanted.values()].flatMap(({ paths }) => paths).sort(), [
    'a.txt',
    'only-now.txt',
    'only-then.txt',
    'z.txt',
  ])
})

t.test('a part may leave out blobs, all of them too', async (t) => {
  const { blobs, bundle } = await take(archive(entries.slice(0, -1)))
  t.equal(blobs, 1)
  t.equal(bundle.wanted.size, 2)
  t.equal((await take(archive(entries.slice(0, -2)))).blobs, 0)
})

t.test('skips the bytes that the caller does not need', async (t) => {
  const { blobs, bytes } = await readPart(put(good), { verify, onBlob: () => undefined })
  t.strictSame({ blobs, bytes }, { blobs: 2, bytes: 3005 })
})

t.test('reads blobs of every size about a block and about the buffer', async (t) => {
  const sizes = [0, 1, 511, 512, 513, 1023, 1024, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 3 * 2 ** 20 + 5]
  const files = Object.fromEntries(sizes.map((size) => [`f${size}`, Buffer.alloc(size, size % 251)]))
  const { blobs } = await take(archive(partEntries(sampleBundle({ files }))))
  t.equal(blobs, sizes.length)
})

t.test('stops when it is told to', async (t) => {
  const files = { big: Buffer.alloc(3 * 2 ** 20, 1) }
  const abort = new AbortController()
  let aborted = 0
  const reader: PartReader = {
    verify,
    onBlob: () => ({ write: () => abort.abort(), finish: () => t.fail('went on'), abort: () => void aborted++ }),
  }
  const file = put(archive(partEntries(sampleBundle({ files }))))
  await t.rejects(readPart(file, reader, { signal: abort.signal }), { name: 'AbortError' })
  t.equal(aborted, 1)
})

t.test('what the caller throws ends the reading, and comes through', async (t) => {
  const stop = new Error('stop')
  const fail = (): never => {
    throw stop
  }
  await t.rejects(readPart(put(good), { verify, onVerified: fail, onBlob: () => undefined }), stop)
  await t.rejects(readPart(put(good), { verify: fail, onBlob: () => undefined }), stop)
})

t.test('refuses what is no regular file', async (t) => {
  const target = put(good)
  symlinkSync(target, join(dir, 'link.tar'))
  mkdirSync(join(dir, 'folder.tar'))
  spawnSync('mkfifo', [join(dir, 'pipe.tar')])
  for (const name of ['link.tar', 'folder.tar', 'pipe.tar']) await refused(t, join(dir, name), 'BUNDLE_NOT_REGULAR')
  await refused(t, '/dev/zero', 'BUNDLE_NOT_REGULAR')
  await refused(t, join(dir, 'none.tar'), 'BUNDLE_NOT_FOUND')
  await refused(t, join(dir, `${'x'.repeat(300)}.tar`), 'BUNDLE_UNREADABLE')
})

t.test('refuses what is no archive of ours', async (t) => {
  await refused(t, gzipSync(Buffer.concat([good, randomish(5000)])), 'BUNDLE_HEADER_INVALID', 'compressed')
  await refused(t, Buffer.from('PK\x03\x04'.padEnd(2000, 'x')), 'BUNDLE_HEADER_INVALID', 'a zip')
  await refused(t, Buffer.alloc(0), 'BUNDLE_TRUNCATED', 'an empty file')
  await refused(t, Buffer.alloc(1024), 'BUNDLE_ENTRY_MISSING', 'an archive without entries')
  await refused(t, Buffer.alloc(1_000_000), 'BUNDLE_TRAILING', 'zeros')
})

t.test('refuses an archive cut short anywhere', async (t) => {
  for (let length = 0; length < good.length; length += 512)
    await refused(t, good.subarray(0, length), 'BUNDLE_TRUNCATED')
  for (const length of [1, 511, 513, good.length - 1, good.length - 513, good.length - 1025]) {
    await refused(t, good.subarray(0, length), 'BUNDLE_TRUNCATED', `${length} bytes`)
  }
})

t.test('refuses a file that becomes shorter while it is read', async (t) => {
  const file = put(archive(partEntries(sampleBundle({ files: { big: Buffer.alloc(3 * 2 ** 20, 1) } }))))
  const reader: PartReader = {
    verify: (offered) => {
      truncateSync(file, 2 ** 20 + 512)
      return verify(offered)
    },
    onBlob: () => undefined,
  }
  await t.rejects(readPart(file, reader), { code: 'BUNDLE_TRUNCATED' })
})

t.test('refuses whatever follows the end', async (t) => {
  await refused(t, Buffer.concat([good, Buffer.from('x')]), 'BUNDLE_TRAILING', 'one byte')
  await refused(t, Buffer.concat([good, Buffer.alloc(512)]), 'BUNDLE_TRAILING', 'a third block of zeros')
  await refused(
    t,
    Buffer.concat([good, Buffer.alloc(8192)]),
    'BUNDLE_TRAILING',
    'blocks of zeros, as GNU tar writes them',
  )
  await refused(t, Buffer.concat([good, good]), 'BUNDLE_TRAILING', 'a second archive')
  const hidden = archive([{ name: `blobs/${A}`, body: Buffer.from('x') }])
  await refused(
    t,
    Buffer.concat([archive(entries, Buffer.alloc(512)), hidden]),
    'BUNDLE_TRAILING',
    'an entry behind one block of zeros',
  )
})

t.test('refuses padding that is not zero', async (t) => {
  for (const [i, { name, body }] of entries.entries()) {
    const padding = Buffer.alloc(512 - (body.length % 512))
    padding[padding.length - 1] = 1
    await refused(t, archive(entries.with(i, { name, body, padding })), 'BUNDLE_PADDING', name)
  }
})

t.test('refuses links, devices, folders and extension headers in every place', async (t) => {
  for (const type of ['1', '2', '3', '4', '5', '6', 'x', 'g', 'L', 'K', 'S']) {
    for (const at of [0, 5, entries.length]) {
      const header = ustarHeader(`blobs/${A}`, 0, { 156: type, 157: '../../etc/passwd' })
      const hostile = entries.toSpliced(at, 0, { name: '', body: Buffer.alloc(0), header })
      await refused(t, archive(hostile), 'BUNDLE_ENTRY_TYPE', `type ${type} at ${at}`)
    }
  }
})

t.test('refuses a path hidden in a PAX header', async (t) => {
  const body = Buffer.from('30 path=../../../../etc/passwd\n')
  const header = ustarHeader('PaxHeader', body.length, { 156: 'x' })
  await refused(t, archive(entries.toSpliced(-1, 0, { name: '', body, header })), 'BUNDLE_ENTRY_TYPE')
})

t.test('refuses names that lead elsewhere or are not known', async (t) => {
  for (const name of [
    '../../evil',
    '/etc/passwd',
    'blobs/../../x',
    'autorun.inf',
    'metadata/2.timestamp.json',
    `Blobs/${A}`,
  ]) {
    await refused(t, archive([...entries, { name, body: Buffer.from('x') }]), 'BUNDLE_ENTRY_UNKNOWN', name)
    await refused(t, archive([{ name, body: Buffer.from('x') }, ...entries]), 'BUNDLE_ENTRY_UNKNOWN', name)
  }
})

t.test('refuses entries that come twice or at the wrong place', async (t) => {
  for (const [i, entry] of entries.entries()) {
    await refused(t, archive([...entries, entry]), 'BUNDLE_ENTRY_DUPLICATE', entry.name)
    if (i === 0) continue
    // Where part.json stands, all trees must have been there: it comes too early, or the last tree is missing.
    const code = entry.name === 'part.json' ? 'BUNDLE_ENTRY_MISSING' : 'BUNDLE_ENTRY_ORDER'
    await refused(t, archive(entries.with(i, entries[i - 1]!).with(i - 1, entry)), code, entry.name)
  }
})

t.test('refuses a part that lacks what every part has', async (t) => {
  await refused(t, without(/timestamp/), 'BUNDLE_ENTRY_ORDER')
  await refused(t, without(/root/), 'BUNDLE_ENTRY_ORDER')
  await refused(t, without(/part\.json/), 'BUNDLE_ENTRY_ORDER')
  await refused(t, without(/part\.json|blobs/), 'BUNDLE_ENTRY_MISSING')
  for (const sha256 of sample.trees.keys())
    await refused(t, without(new RegExp(`trees/${sha256}`)), 'BUNDLE_ENTRY_MISSING')
})

t.test('refuses sizes that lie, without asking for the memory', async (t) => {
  const lie = (at: number, bytes: number): Buffer => {
    const { name, body } = entries[at]!
    return archive(entries.with(at, { name, body, header: ustarHeader(name, bytes) }))
  }
  const before = process.memoryUsage().rss
  await refused(t, lie(entries.length - 1, 2 ** 31 - 1), 'BUNDLE_TRUNCATED', 'a blob of 2 GiB')
  await refused(t, lie(0, 2 ** 33 - 1), 'BUNDLE_TOO_LARGE', 'a timestamp of 8 GiB')
  await refused(t, lie(0, 16_385), 'BUNDLE_TOO_LARGE', 'a timestamp over its limit')
  await refused(t, lie(4, 32 * 2 ** 20), 'BUNDLE_TRUNCATED', 'a tree of 32 MiB')
  await refused(t, lie(entries.length - 1, 0), 'BLOB_SIZE_MISMATCH', 'an empty blob')
  await refused(t, lie(4, 1), 'BLOB_SIZE_MISMATCH', 'a tree of one byte')
  t.ok(process.memoryUsage().rss - before < 100 * 2 ** 20)
})

t.test('refuses a flipped bit in every metadata file, tree and blob', async (t) => {
  const codes: [RegExp, RegExp][] = [
    [/^metadata\/1\.root/, /^accepted$/], // the pinned root's own copy is never read
    [/^metadata/, /^ROLE_/],
    [/^trees|^blobs/, /^BLOB_DIGEST_MISMATCH$/],
    [/^part\.json/, /^BUNDLE_(HINT_INVALID|MIXED)$|^accepted$/], // unsigned, and nothing is decided by it
  ]
  for (const [i, { name, body }] of entries.entries()) {
    const [, wanted] = codes.find(([pattern]) => pattern.test(name))!
    for (let at = 0; at < body.length; at += Math.ceil(body.length / 12)) {
      const flipped = Buffer.from(body)
      flipped[at]! ^= 1
      t.match(await outcome(archive(entries.with(i, { name, body: flipped }))), wanted, `${name} byte ${at}`)
    }
  }
})

t.test('refuses a tree that the metadata does not name, and a blob that no tree names', async (t) => {
  const stranger = Buffer.from('stranger')
  const sha256 = sha256Of(stranger)
  const sorted = (prefix: string): RawEntry[] => {
    const more = [
      ...entries.filter(({ name }) => name.startsWith(prefix)),
      { name: `${prefix}${sha256}`, body: stranger },
    ]
    const first = entries.findIndex(({ name }) => name.startsWith(prefix))
    return entries.toSpliced(first, more.length - 1, ...more.sort((a, b) => (a.name < b.name ? -1 : 1)))
  }
  await refused(t, archive(sorted('trees/')), 'BUNDLE_ENTRY_UNKNOWN')
  await refused(t, archive(sorted('blobs/')), 'BUNDLE_ENTRY_UNKNOWN')
})

t.test('refuses a tree or site facts of another site, number, group or role, though signed', async (t) => {
  const changes: NonNullable<Parameters<typeof sampleBundle>[0]>['change'][] = [
    ({ tree }) => (tree.site = 'other'),
    ({ tree }) => (tree.number = 2),
    ({ tree }) => (tree.group = 'other'),
    ({ tree }) => (tree.role = 'return'),
    ({ facts }) => (facts.site = 'other'),
    ({ facts }) => (facts.number = 2),
    ({ facts }) => facts.groups.set('pby', facts.groups.get('pbx')!).delete('pbx'),
  ]
  for (const change of changes) {
    const code = change === changes.at(-1) ? 'BUNDLE_ENTRY_MISSING' : 'BUNDLE_MIXED'
    await refused(t, archive(partEntries(sampleBundle({ change: change! }))), code, String(change))
  }
  const stray = sampleBundle({
    change: ({ tree, targets }) => targets.set('old/current', serializeTree({ ...tree, group: 'old' })),
  })
  await refused(t, archive(partEntries(stray)), 'BUNDLE_MIXED', 'a group that the facts do not know')
})

t.test('refuses one blob with two sizes', async (t) => {
  const changed = sampleBundle({
    change: ({ tree }) => {
      const entry = tree.entries.get('b/c.bin' as TreePath)!
      tree.entries.set('b/d.bin' as TreePath, { ...entry, bytes: 3001 })
    },
  })
  await refused(t, archive(partEntries(changed)), 'BUNDLE_MIXED')
})

t.test('refuses a tree and site facts that cannot be read, though signed', async (t) => {
  const bad = sampleBundle({ change: ({ targets }) => targets.set('pbx/current', Buffer.from('{}')) })
  await refused(t, archive(partEntries(bad)), 'TREE_INVALID')
  const badFacts = sampleBundle({ change: ({ targets }) => targets.set('site', Buffer.from('{}')) })
  await refused(t, archive(partEntries(badFacts)), 'SITE_FACTS_INVALID')
})

t.test('refuses a part.json of another bundle', async (t) => {
  const at = entries.findIndex(({ name }) => name === 'part.json')
  await refused(t, archive(entries.with(at, hint('other', 1))), 'BUNDLE_MIXED')
  await refused(t, archive(entries.with(at, hint('hq', 2))), 'BUNDLE_MIXED')
})

t.test('refuses metadata whose names in the archive are of another number', async (t) => {
  const renamed = entries.map((entry) => ({ ...entry, name: entry.name.replace(/1\.(snapshot|targets)/, '2.$1') }))
  await refused(t, archive(renamed), 'ROLE_MIXED')
  const lenient: PartReader = { verify: () => verify(sample.metadata), onBlob: () => undefined }
  await t.rejects(readPart(put(archive(renamed)), lenient), { code: 'BUNDLE_MIXED' }, 'whatever the verifier says')
})

t.test('the file is named first in every message', async (t) => {
  const file = put(Buffer.alloc(0))
  await t.rejects(take(file), { message: /^case-\d+\.tar: / })
})

t.test('no change of a good part gets through, but in the two places that nobody reads or signs', async () => {
  const free = [bodyOf('metadata/1.root.json'), bodyOf('part.json')]
  const change = fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
  await fc.assert(
    fc.asyncProperty(change, async ([at, mask]) => {
      const bytes = Buffer.from(good)
      bytes[at]! ^= mask
      return free.some(([from, to]) => from <= at && at < to) || (await outcome(bytes)) !== 'accepted'
    }),
    { numRuns: 200 },
  )
})

t.test('random bytes, and good parts cut, repeated and spliced, throw nothing but our errors', async () => {
  const random = fc.uint8Array({ maxLength: 4000 }).map((bytes) => Buffer.from(bytes))
  const blocks = good.length / 512
  const spliced = fc.tuple(fc.nat(blocks), fc.nat(blocks), fc.nat(blocks)).map(([a, b, c]) => {
    return Buffer.concat([good.subarray(0, a * 512), good.subarray(b * 512, c * 512), good.subarray(a * 512)])
  })
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(random, spliced),
      async (bytes) => (await outcome(bytes)) !== 'accepted' || bytes.equals(good),
    ),
    { numRuns: 200 },
  )
})

/** Where in the good part the body of an entry is. */
function bodyOf(name: string): [from: number, to: number] {
  const before = entries.slice(
    0,
    entries.findIndex((entry) => entry.name === name),
  )
  const from = before.reduce((at, { body }) => at + 512 + Math.ceil(body.length / 512) * 512, 512)
  return [from, from + entries[before.length]!.body.length]
}

function without(name: RegExp): Buffer {
  return archive(entries.filter((entry) => !name.test(entry.name)))
}

function hint(site: string, number: number): RawEntry {
  return { name: 'part.json', body: serializePartHint({ site, number, part: 1, parts: [null] }) }
}

/** Reads a part as a mirror does: blobs into a batch of the store, which is given up when anything is wrong. */
async function take(part: Buffer | string): Promise<PartContent> {
  const batch = store.batch()
  try {
    return await readPart(typeof part === 'string' ? part : put(part), {
      verify,
      onBlob: (sha256, bytes) => batch.begin({ sha256, bytes, maxBytes: bytes }),
    })
  } finally {
    batch.discard()
  }
}

function verify(offered: Map<string, Buffer>): Promise<VerifiedMetadata> {
  return verifyMetadata({ trusted: { roots: [sampleRoot] }, offered, nowMs: NOW, scratchDir })
}

async function refused(t: Test, part: Buffer | string, code: string, what?: string): Promise<void> {
  await t.rejects(take(part), { code }, `${code}: ${what ?? ''}`)
}

/** The code of the refusal, or 'accepted'; any other error goes on. */
async function outcome(part: Buffer): Promise<string> {
  try {
    await take(part)
    return 'accepted'
  } catch (error) {
    if (isGapferryError(error)) return error.code
    throw error
  }
}

function put(bytes: Buffer): string {
  const file = join(dir, 'parts', `case-${count++ % 4}.tar`)
  writeFileSync(file, bytes)
  return file
}

function randomish(length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => (i * i * 31) & 255))
}

function cutOut(bytes: Buffer, piece: Buffer): Buffer {
  const at = bytes.lastIndexOf(piece)
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + piece.length)])
}
