import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { inspectFiles, verifyFiles, type JudgeOptions } from '../../bundler/verify.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { serializePartHint, type PartRange } from '../../manifests/part-hint.ts'
import { archive, partEntries, sampleBundle, sampleRoot } from '../helpers/part.ts'
import { DAY, makeRoot, newKey, NOW } from '../helpers/site.ts'

const dir = t.testdir({ scratch: {}, parts: {} })
const options: JudgeOptions = { trusted: { roots: [sampleRoot] }, nowMs: NOW, scratchDir: join(dir, 'scratch') }
const sample = sampleBundle({
  files: { 'a.txt': 'alpha', 'b.txt': 'beta', 'repodata/repomd.xml': 'now' },
  previous: { 'c.txt': 'gamma', 'repodata/repomd.xml': 'then' },
})
const entries = partEntries(sample)

t.afterEach(() => t.strictSame(readdirSync(options.scratchDir), [], 'nothing is left in the scratch folder'))

t.test('a whole bundle is complete', async (t) => {
  const file = put('whole.tar', archive(entries))
  let bytes = 0
  const found = await verifyFiles([file], { ...options, onProgress: (more) => (bytes += more) })
  const total = [...sample.blobs.values()].reduce((sum, blob) => sum + blob.length, 0)
  t.strictSame(found, [
    {
      site: 'hq',
      number: 1,
      createdAtMs: NOW,
      expiresAtMs: NOW + 400 * DAY,
      bundler: 'gapferry 0.1.0',
      parts: [{ file, blobs: 5, bytes: total, isPastCache: false }],
      blobs: 5,
      bytes: total,
      missing: [],
      isDifferential: false,
    },
  ])
  t.equal(bytes, total)
})

t.test('names what is required and missing, and the part that should hold it', async (t) => {
  const other = { first: '0'.repeat(64), last: 'f'.repeat(64) } as PartRange
  const body = serializePartHint({ site: 'hq', number: 1, part: 1, parts: [null, other] })
  const some = without('alpha', 'then', 'gamma').map((entry) =>
    entry.name === 'part.json' ? { ...entry, body } : entry,
  )
  const found = await verifyFiles([put('some.tar', archive(some))], options)
  t.match(found, [
    {
      blobs: 2,
      isDifferential: false,
      missing: [{ path: 'a.txt' }, { path: 'repodata/repomd.xml', role: 'previous' }],
    },
  ])
  t.match(found[0]!.missing[0], {
    group: 'pbx',
    role: 'current',
    sha256: sha256Of('alpha'),
    bytes: 5,
    part: 'hq-1-2of2.tar',
  })
})

t.test('where all parts are given, what is missing was left out: no part is named for it', async (t) => {
  const [found] = await verifyFiles([put('differential.tar', archive(without('alpha')))], options)
  t.match(found, { isDifferential: true, missing: [{ path: 'a.txt' }] })
  t.notOk('part' in found!.missing[0]!)
})

t.test('a part that part.json does not know of is not named', async (t) => {
  const body = serializePartHint({ site: 'hq', number: 1, part: 1, parts: [null] })
  const unhelpful = without('alpha').map((entry) => (entry.name === 'part.json' ? { ...entry, body } : entry))
  const [found] = await verifyFiles([put('unhelpful.tar', archive(unhelpful))], options)
  t.match(found!.missing, [{ path: 'a.txt' }])
  t.notOk('part' in found!.missing[0]!)
})

t.test('parts of a bundle count together, blobs that come twice once', async (t) => {
  const one = put('one.tar', archive(without('alpha', 'beta')))
  const two = put('two.tar', archive(without('now', 'then')))
  const [found, ...others] = await verifyFiles([two, one], options)
  t.strictSame(others, [])
  t.match(found, {
    blobs: 5,
    missing: [],
    parts: [
      { file: two, blobs: 3 },
      { file: one, blobs: 3 },
    ],
  })
})

t.test('several bundles are judged one by one', async (t) => {
  const second = sampleBundle({ number: 2 })
  const files = [put('b2.tar', archive(partEntries(second))), put('b1.tar', archive(entries))]
  t.match(await verifyFiles(files, options), [{ number: 2 }, { number: 1 }])
})

t.test('parts that were signed apart under one number are refused', async (t) => {
  const other = sampleBundle({ files: { 'a.txt': 'other' } })
  const files = [put('first.tar', archive(entries)), put('second.tar', archive(partEntries(other)))]
  await t.rejects(verifyFiles(files, options), { code: 'BUNDLE_MIXED', message: /second\.tar.*first\.tar/ })
})

t.test('a flipped bit in a blob is found by verify; inspect does not read blobs', async (t) => {
  const flipped = Buffer.from('alphb')
  const at = entries.findIndex(({ body }) => body.equals(Buffer.from('alpha')))
  const file = put('flipped.tar', archive(entries.with(at, { ...entries[at]!, body: flipped })))
  await t.rejects(verifyFiles([file], options), {
    code: 'BLOB_DIGEST_MISMATCH',
    message: new RegExp(sha256Of('alpha')),
  })
  t.match(await inspectFiles([file], options), [{ number: 1 }])
})

t.test('the wrong root, another site, and age are refused', async (t) => {
  const file = put('whole.tar', archive(entries))
  const stranger = makeRoot({ root: [newKey()], bundle: [newKey()] })
  for (const judge of [verifyFiles, inspectFiles]) {
    await t.rejects(judge([file], { ...options, trusted: { roots: [stranger] } }), {
      code: 'ROLE_SIGNATURE',
      message: /^whole\.tar/,
    })
    await t.rejects(judge([file], { ...options, site: 'other' }), { code: 'SITE_MISMATCH' })
    await t.rejects(judge([file], { ...options, nowMs: NOW + 401 * DAY }), { code: 'ROLE_EXPIRED' })
    await t.rejects(judge([join(dir, 'none.tar')], options), { code: 'BUNDLE_NOT_FOUND' })
  }
})

t.test('inspect lists groups, trees and paths, and which blobs are here', async (t) => {
  const [found] = await inspectFiles([put('some.tar', archive(without('beta')))], options)
  t.match(found, { site: 'hq', number: 1, blobs: 4, missing: [{ path: 'b.txt' }] })
  t.equal(found!.groups.length, 1)
  const { entries: listed, ...group } = found!.groups[0]!
  t.strictSame(group, {
    group: 'pbx',
    origin: 'http://mirror.hq.lan:8416',
    yum: ['base'],
    trees: [
      { role: 'current', paths: 3, bytes: 12, stamps: { base: 1_700_000_000 } },
      { role: 'previous', paths: 2, bytes: 9, stamps: { base: 1_700_000_000 } },
    ],
  })
  t.match(listed, [
    { path: 'a.txt', bytes: 5, kind: 'immutable', sha256: sha256Of('alpha'), isHere: true },
    { path: 'b.txt', isHere: false },
    { path: 'repodata/repomd.xml', kind: 'pointer', isHere: true },
  ])
  t.doesNotThrow(() => JSON.stringify(found))
})

t.test('stops when it is told to', async (t) => {
  const large = sampleBundle({ files: { big: Buffer.alloc(3 * 2 ** 20, 1) } })
  const abort = new AbortController()
  const file = put('large.tar', archive(partEntries(large)))
  const judged = verifyFiles([file], { ...options, signal: abort.signal, onProgress: () => abort.abort() })
  await t.rejects(judged, { name: 'AbortError' })
})

function without(...contents: string[]) {
  return entries.filter(({ body }) => !contents.some((content) => body.equals(Buffer.from(content))))
}

function put(name: string, bytes: Buffer): string {
  const file = join(dir, 'parts', name)
  writeFileSync(file, bytes)
  return file
}
