/** Which bundles are taken, one after the other, by a mirror's import and by `gapferry-box apply`: the same files brought to both
 *  must be taken by both or by none, for the same reason. */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { importParts } from '../../server/import.ts'
import { applyAll, type Applied, type ApplyOptions } from '../helpers/apply.ts'
import { afterRotation, attackedBundle, attackedRoot } from '../helpers/hostile-metadata.ts'
import { hostileStore } from '../helpers/hostile.ts'
import { halves, makeContent, signContent, writeParts, type TestTree } from '../helpers/mirror.ts'
import { sampleKeys, sampleRoot, type SampleBundle } from '../helpers/part.ts'
import { pythons } from '../helpers/pythons.ts'
import { DAY, makeRoot, newKey, NOW, type SiteKeys } from '../helpers/site.ts'
import { entriesOf, flipByte } from '../helpers/tar.ts'

const PYTHONS = await pythons()

interface Step {
  what: string
  /** files of one stick */
  files: string[]
  /** 'accepted' or the code of both */
  expected: string
  reason?: string
  nowMs?: number
}

/** Brings each to a mirror and to a box, both new, that have pinned `root`. */
async function both(t: Test, root: Buffer, steps: Step[]): Promise<string> {
  const store = hostileStore(t, t.testdirName, root)
  const box = join(t.testdirName, 'box')
  for (const [i] of PYTHONS.entries()) mkdirSync(i === 0 ? box : `${box}-${i}`)
  const runs: ApplyOptions[] = []
  for (const { what, files, expected, reason, nowMs = NOW } of steps) {
    const request = { isDryRun: false, nowMs, clockMs: Math.max(nowMs, Date.UTC(2026, 10, 22)), expiredReason: reason }
    const verdict = await importParts(store, { inputs: files, ...request }).then(
      ({ missing }) => (missing.length === 0 ? 'accepted' : 'BUNDLE_INCOMPLETE'),
      (error: unknown) => (isGapferryError(error) ? error.code : String(error)),
    )
    t.equal(verdict, expected, `mirror: ${what}`)
    const stick = join(t.testdirName, `stick-${runs.length}`, 'gapferry/hq')
    mkdirSync(stick, { recursive: true })
    for (const file of files) cpSync(file, join(stick, file.split('/').at(-1)!))
    const dir = files.length === 1 ? files[0]! : join(stick, '../..')
    runs.push({ dir, pin: sha256Of(root), now: nowMs / 1000, ...(reason === undefined ? {} : { reason }) })
  }
  const [first, ...others] = await Promise.all(
    PYTHONS.map((python, i) => applyAll(i === 0 ? box : `${box}-${i}`, runs, { nowMs: NOW, python })),
  )
  const { results } = first!
  for (const other of others) {
    t.strictSame(
      other.results.map(({ code }) => code),
      results.map(({ code }) => code),
      'python 2.7 says the same',
    )
  }
  for (const [i, { what, expected }] of steps.entries()) {
    const { code, message } = results[i]!
    const isSame = code === expected || (code === 'refused' && !['accepted', 'BUNDLE_INCOMPLETE'].includes(expected))
    t.ok(isSame, `box: ${what}: ${code} ${message}`)
  }
  return box
}

let count = 0
function filesOf(t: Test, bundle: SampleBundle, parts?: Parameters<typeof writeParts>[2]): string[] {
  return writeParts(join(t.testdirName, `files-${++count}`), bundle, parts)
}

const simple = (number: number, how: Parameters<typeof signContent>[1] = {}, packages = ['a', `p${number}`]) =>
  signContent(makeContent(number, [{ stamp: 10 * number, packages }]), how)

t.test('numbers, sites, keys, ends', async (t) => {
  t.testdir()
  const one = (what: string, bundle: SampleBundle, expected: string, more: Partial<Step> = {}): Step => {
    return { what, files: filesOf(t, bundle), expected, ...more }
  }
  const stranger: SiteKeys = { root: [newKey()], bundle: [newKey()] }
  const old = { createdAtMs: NOW - 430 * DAY, expiresAtMs: NOW - 30 * DAY }
  const late = { reason: 'phones are down' }
  await both(t, sampleRoot, [
    one('past its end', simple(1, old), 'ROLE_EXPIRED'),
    one('past its end, accepted', simple(1, old), 'accepted', late),
    one(
      'too far past its end',
      simple(2, { createdAtMs: NOW - 800 * DAY, expiresAtMs: NOW - 400 * DAY }),
      'ROLE_EXPIRED',
      late,
    ),
    one(
      'just not too far',
      simple(2, { createdAtMs: NOW - 800 * DAY, expiresAtMs: NOW - 400 * DAY + 1000 }),
      'accepted',
      late,
    ),
    one('the next', simple(3), 'accepted'),
    one('the same again', simple(3), 'accepted'),
    one('older', simple(2), 'ROLE_ROLLBACK'),
    one('older, with a reason', simple(2), 'ROLE_ROLLBACK', late),
    one('a number twice', simple(3, { createdAtMs: NOW - DAY }), 'ROLE_CONFLICT'),
    one('other content, same number', simple(3, {}, ['x']), 'ROLE_CONFLICT'),
    one('another key', simple(4, { keys: { ...sampleKeys, bundle: stranger.bundle } }), 'ROLE_SIGNATURE'),
    one(
      'another site',
      signContent(makeContent(4, [{ stamp: 4 }], 'lab'), {
        site: 'lab',
        keys: stranger,
        roots: [makeRoot(stranger, { site: 'lab' })],
      }),
      'SITE_MISMATCH',
    ),
    one('dated far ahead', simple(4, { createdAtMs: NOW + 181 * DAY }), 'ROLE_FUTURE'),
    one('dated ahead', simple(4, { createdAtMs: NOW + 179 * DAY }), 'accepted'),
    one(
      'past its end by the date of the one before',
      simple(5, { createdAtMs: NOW - DAY, expiresAtMs: NOW + 100 * DAY }),
      'ROLE_EXPIRED',
    ),
    one('in 1970', simple(5), 'accepted', { nowMs: 86_400_000 }),
    one('in 2031', simple(6), 'ROLE_EXPIRED', { nowMs: Date.UTC(2031, 0, 1) }),
    one('and now', simple(6), 'accepted'),
  ])
})

t.test('roots: rotation, gaps, a thief who ran the number ahead', async (t) => {
  t.testdir()
  const one = (what: string, bundle: SampleBundle, expected: string): Step => ({
    what,
    files: filesOf(t, bundle),
    expected,
  })
  const skipped = attackedBundle(10, afterRotation)
  skipped.metadata.delete('2.root.json')
  await both(t, attackedRoot, [
    one('the first', attackedBundle(2), 'accepted'),
    one('far ahead', attackedBundle(9999), 'accepted'),
    one('too low now', attackedBundle(5), 'ROLE_ROLLBACK'),
    one('a root left out', skipped, 'ROLE_INVALID'),
    one('two new roots take the number away', attackedBundle(5, afterRotation), 'accepted'),
    one('the thief again', attackedBundle(10_000), 'ROLE_SIGNATURE'),
    one('and on from there', attackedBundle(6, afterRotation), 'accepted'),
    one('older', attackedBundle(5, afterRotation), 'ROLE_ROLLBACK'),
  ])
})

t.test('two of three root keys, over two rotations; one is not enough', async (t) => {
  t.testdir()
  const [a, b, c] = [newKey(), newKey(), newKey()]
  const bundleKeys = [newKey(), newKey(), newKey()]
  const keys = (version: number): SiteKeys => ({
    root: [a, b, c],
    bundle: [bundleKeys[version - 1]!],
    thresholds: { root: 2 },
  })
  const root = (version: number, signers = [a, b]) => makeRoot(keys(version), { version, signers })
  const first = root(1)
  const step = (what: string, roots: Buffer[], version: number, expected: string): Step => {
    return { what, files: filesOf(t, simple(1, { keys: keys(version), roots })), expected }
  }
  const dying = makeRoot(keys(2), { version: 2, signers: [a, b], expiresAtMs: NOW - 1000 })
  await both(t, first, [
    ...[[a], [a, newKey()], []].map((signers) => step('too few', [first, root(2, signers)], 2, 'ROLE_SIGNATURE')),
    step('the old bundle key', [first, root(2)], 1, 'ROLE_SIGNATURE'),
    step('a root past its end', [first, dying], 2, 'ROLE_EXPIRED'),
    step('two rotations', [first, root(2, [b, c]), root(3, [a, c])], 3, 'accepted'),
  ])
})

t.test('parts on several sticks, a part missing, damage, a differential without its base', async (t) => {
  t.testdir()
  const two = simple(2, {}, ['a', 'b', 'c', 'd'])
  const [first, second] = filesOf(t, two, halves(two)) as [string, string]
  const damaged = join(t.testdirName, 'damaged', 'hq-2-2of2.tar')
  mkdirSync(join(t.testdirName, 'damaged'))
  cpSync(second, damaged)
  flipByte(damaged, entriesOf(damaged).at(-1)!.bytesAt)
  const cut = join(t.testdirName, 'damaged', 'hq-2-1of2.tar')
  writeFileSync(cut, readFileSync(first).subarray(0, -600))
  const three = simple(3, {}, ['a', 'b', 'c', 'd', 'e'])
  const shared = new Set(two.blobs.keys())
  const differential = filesOf(t, three, [[...three.blobs.keys()].filter((name) => !shared.has(name))])
  const four = simple(4, {}, ['a', 'e', 'f', 'g'])
  const known = new Set([...two.blobs.keys(), ...three.blobs.keys()])
  const next = filesOf(t, four, [[...four.blobs.keys()].filter((name) => !known.has(name))])
  const box = await both(t, sampleRoot, [
    { what: 'a damaged part', files: [damaged], expected: 'BLOB_DIGEST_MISMATCH' },
    { what: 'a cut part', files: [cut], expected: 'BUNDLE_TRUNCATED' },
    { what: 'the second part alone', files: [second], expected: 'BUNDLE_INCOMPLETE' },
    { what: 'the first part from another stick', files: [first], expected: 'accepted' },
    { what: 'what builds on it', files: differential, expected: 'accepted' },
    { what: 'and on that', files: next, expected: 'accepted' },
  ])
  t.strictSame(
    readdirSync(join(box, 'var/lib/gapferry/trees')).sort(),
    ['3-pbx', '4-pbx'],
    'one generation back is kept',
  )
  rmSync(join(box, 'var/lib/gapferry'), { recursive: true })
  const { results } = await applyAll(box, [{ dir: next[0]! }, { dir: differential[0]! }], { nowMs: NOW })
  t.match(
    results,
    [
      { code: 'BUNDLE_INCOMPLETE', message: /bundle 4 is incomplete: 2 paths, 18 bytes/ },
      { code: 'ROLE_ROLLBACK' },
    ] satisfies Partial<Record<keyof Applied, unknown>>[],
    'without the base: named, and older ones are no way out',
  )
})

t.test('both parts on one stick in one run', async (t) => {
  t.testdir()
  const two = simple(2, {}, ['a', 'b', 'c', 'd'])
  await both(t, sampleRoot, [{ what: 'both', files: filesOf(t, two, halves(two)), expected: 'accepted' }])
})

t.test('of several groups only what this box needs', async (t) => {
  t.testdir()
  const trees: TestTree[] = [
    { stamp: 1, packages: ['a', 'b'] },
    { group: 'other', stamp: 2, packages: ['c', 'd'] },
  ]
  const bundle = signContent(makeContent(1, trees))
  const [file] = filesOf(t, bundle)
  const box = join(t.testdirName, 'box')
  mkdirSync(box)
  const pin = sha256Of(sampleRoot)
  const { results } = await applyAll(
    box,
    [
      { dir: file!, pin },
      { dir: file!, pin, group: 'x' },
      { dir: file!, pin, group: 'other' },
    ],
    { nowMs: NOW },
  )
  t.match(results, [{ code: 'GROUP_UNKNOWN' }, { code: 'GROUP_UNKNOWN' }, { code: 'accepted' }])
  t.strictSame(readdirSync(join(box, 'var/lib/gapferry/blobs')).length, 4)
  t.strictSame(readdirSync(join(box, 'var/lib/gapferry/origin/yum/base')).sort(), ['c.rpm', 'd.rpm', 'repodata'])
})
