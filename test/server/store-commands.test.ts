import t, { type Test } from 'tap'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fingerprintWords } from '../../manifests/words.ts'
import { runMirror } from '../../server/program.ts'
import { openStore } from '../../server/store.ts'
import { inside } from '../helpers/inside.ts'
import { blobOf, makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'
import { flipByte } from '../helpers/tar.ts'

const DAY = 86_400_000

/** A mirror that imported and released bundles 1 … `count`, a day each; bundle n has packages `all` and `own<n>`. */
async function site(t: Test, count: number) {
  const dir = t.testdir({ 'root.json': sampleRoot, mir: {} })
  const mir = join(dir, 'mir')
  const at = (nowMs: number, ...args: string[]) => inside(runMirror, mir, args, { nowMs: () => nowMs })
  const words = fingerprintWords(sampleRoot)
  const init = ['init', '.', '--trust', join(dir, 'root.json'), '--fingerprint', words, '--origin', 'pbx=127.0.0.1:0']
  const outcomes = [await at(NOW, ...init)]
  const sticks: string[] = []
  for (let number = 1; number <= count; number++) {
    const trees = [{ stamp: number, packages: ['all', `own${number}`] }]
    const times = { createdAtMs: NOW - 60_000 + number * 1000 }
    sticks.push(...writeParts(join(dir, `stick${number}`), signContent(makeContent(number, trees), times)))
    outcomes.push(await at(NOW + number * DAY, 'import', '--release', sticks.at(-1)!))
  }
  for (const outcome of outcomes) t.equal(outcome.status, 0, outcome.stderr)
  const store = openStore(join(mir, 'store'))
  t.teardown(() => store.close())
  return { dir, at, sticks, store, fileOf: (name: string) => store.blobs.pathOf(blobOf(`package ${name}`)) }
}

const json = ({ stdout }: Outcome): object => JSON.parse(stdout) as object

t.test('verify finds a flipped bit, import mends it', async (t) => {
  const { at, sticks, fileOf } = await site(t, 1)
  const sound = await at(NOW, 'verify')
  t.equal(sound.status, 0)
  t.match(sound.stdout, /^1 bundle, 6 files, .* checked: all as signed\n$/)
  t.match(sound.stderr, /trees: .*\nfiles: /, 'progress')
  flipByte(fileOf('own1'), 3)
  const found = await at(NOW, 'verify')
  t.equal(found.status, 1)
  t.match(found.stdout, /\n {2}pbx\/yum\/base\/own1\.rpm {2}has other bytes {2}bundle 1 {2}[0-9a-f]{12}\n/)
  t.match(
    found.stderr,
    /1 file in the store is missing or not as signed \[STORE_ROTTEN\]\n {2}next: .*gapferry-mirror import/,
  )
  const asJson = await at(NOW, 'verify', '--json')
  t.equal(asJson.status, 1)
  t.match(json(asJson), { isSound: false, rotten: [{ fault: 'digest' }], error: { code: 'STORE_ROTTEN' } })
  t.equal((await at(NOW, 'import', sticks[0]!)).status, 0)
  t.match(json(await at(NOW, 'verify', '--json')), { isSound: true, rotten: [] })
})

t.test('a long list ends on a terminal, not as JSON', async (t) => {
  const { dir, at, store } = await site(t, 1)
  const trees = [{ stamp: 5, packages: Array.from({ length: 30 }, (_, i) => `p${i}`) }]
  const bundle = signContent(makeContent(2, trees), { createdAtMs: NOW })
  t.equal((await at(NOW, 'import', ...writeParts(join(dir, 'two'), bundle, [[]]))).status, 4)
  t.ok(store.catalog.bundle(2))
  const [rest] = writeParts(join(dir, 'rest'), bundle)
  t.equal((await at(NOW, 'import', rest!)).status, 0)
  for (let i = 0; i < 30; i++) flipByte(store.blobs.pathOf(blobOf(`package p${i}`)), 3)
  t.match(
    (await at(NOW, 'verify')).stdout,
    /has other bytes {2}bundle 2 .*\n {2}… and 10 more \(all of them with --json\)\n$/,
  )
  t.equal((json(await at(NOW, 'verify', '--json')) as { rotten: object[] }).rotten.length, 30)
})

t.test('a bundle that has not come whole is incomplete, not rotten, and its part is named', async (t) => {
  const { dir, at, store } = await site(t, 1)
  const trees = [{ stamp: 5, packages: ['all', 'x', 'y'] }]
  const bundle = signContent(makeContent(2, trees), { createdAtMs: NOW })
  const names = [...bundle.blobs.keys()].sort()
  const parts = writeParts(join(dir, 'two'), bundle, [names.slice(0, 2), names.slice(2)])
  t.equal((await at(NOW, 'import', parts[0]!)).status, 4)
  const found = await at(NOW, 'verify')
  t.equal(found.status, 4)
  t.match(found.stdout, /checked: all as signed\nbundle 2 never came whole: \d paths?, .* lack\n$/)
  t.match(found.stderr, /\[BUNDLE_INCOMPLETE\]\n {2}next: import hq-2-2of2\.tar too\n$/)
  const asJson = await at(NOW, 'verify', '--json')
  t.match(json(asJson), {
    isSound: true,
    rotten: [],
    incomplete: [{ number: 2 }],
    error: { code: 'BUNDLE_INCOMPLETE' },
  })
  flipByte(store.blobs.pathOf(blobOf('package own1')), 3)
  t.equal((await at(NOW, 'verify')).status, 1, 'rot comes first')
  t.equal((await at(NOW, 'import', parts[1]!)).status, 0)
  rmSync(store.blobs.pathOf(blobOf('package x')))
  const lost = json(await at(NOW, 'verify', '--json')) as { rotten: { fault: string }[]; incomplete: object[] }
  t.strictSame([lost.rotten.map(({ fault }) => fault).sort(), lost.incomplete], [['digest', 'missing'], []])
  t.equal((await at(NOW, 'import', ...parts)).status, 0)
})

t.test('a part that was read is not named for what it was packed without', async (t) => {
  const { dir, at } = await site(t, 1)
  const trees = [{ stamp: 5, packages: ['all', 'x', 'y'] }]
  const bundle = signContent(makeContent(2, trees), { createdAtMs: NOW })
  const names = [...bundle.blobs.keys()].sort()
  // A differential without the second and the last but one.
  const [first, second] = writeParts(join(dir, 'two'), bundle, [
    [names[0]!, names[2]!],
    [names[3]!, ...names.slice(5)],
  ])
  const next = async (...args: string[]): Promise<string> => (await at(NOW, ...args)).stderr
  t.match(await next('import', first!), /next: import hq-2-2of2\.tar too/)
  t.match(await next('verify'), /next: import hq-2-2of2\.tar too/)
  const full = /next: no part that came has them: on the laptop: gapferry pack --full/
  t.match(await next('import', second!), full, 'the first was read in another run')
  t.match(await next('verify'), full)
  const [whole] = writeParts(join(dir, 'one'), bundle)
  t.equal((await at(NOW, 'import', whole!)).status, 0)
})

t.test('a bundle that never came whole and was overtaken is said, and is no fault', async (t) => {
  const { dir, at } = await site(t, 1)
  for (const number of [2, 3]) {
    const bundle = signContent(makeContent(number, [{ stamp: number + 3, packages: [`n${number}`] }]), {
      createdAtMs: NOW,
    })
    const parts = number === 2 ? [[]] : undefined
    t.equal(
      (await at(NOW, 'import', ...writeParts(join(dir, `s${number}`), bundle, parts))).status,
      number === 2 ? 4 : 0,
    )
  }
  const found = await at(NOW, 'verify')
  t.equal(found.status, 0)
  t.match(found.stdout, /bundle 2 never came whole: .* lack; a later bundle took its place\n$/)
})

t.test('prune says what it would do, and does it with --yes', async (t) => {
  const { at, store, fileOf } = await site(t, 6)
  const late = NOW + 30 * DAY
  const plan = await at(late, 'prune')
  t.equal(plan.status, 0)
  t.match(plan.stdout, /^bundles that stay {2}6, 5, 4\nbundles to forget {2}3, 2, 1\nfiles to remove {4}15, .*B\n$/)
  t.match(plan.stderr, 'next: gapferry-mirror prune --yes')
  t.equal(store.catalog.bundles().length, 6)
  t.match((await at(late, 'prune', '--keep', '1')).stderr, 'prune --keep 1 --yes')
  t.match(json(await at(NOW + 6 * DAY, 'prune', '--keep', '1', '--json')), { isDone: false, kept: [6, 5, 4] }, 'young')
  const done = await at(late, 'prune', '--yes', '--json')
  t.match(json(done), { isDone: true, kept: [6, 5, 4], forgotten: [3, 2, 1], blobs: 15 })
  t.notOk(store.blobs.has(blobOf('package own3')))
  t.ok(store.blobs.has(blobOf('package own4')) && fileOf('all'))
  t.equal((await at(late, 'verify')).status, 0)
  flipByte(fileOf('own5'), 3)
  t.match((await at(late, 'verify')).stderr, /next: only older bundles name them: .*gapferry-mirror prune\n/)
  t.equal(store.releases.served(0).get('pbx')?.released?.number, 6)
  t.match((await at(late, 'audit', '--json')).stdout, '"prune"', 'a row of the audit trail')
  const again = await at(late, 'prune')
  t.match(again.stdout, /bundles to forget {2}none\nfiles to remove {4}0, 0 B\n/)
  t.equal(again.stderr, '')
})

t.test('--keep is a number of bundles', async (t) => {
  const { at } = await site(t, 0)
  for (const keep of ['0', '-1', '1.5', 'all', '1001']) {
    const outcome = await at(NOW, 'prune', `--keep=${keep}`)
    t.equal(outcome.status, 2)
    t.match(outcome.stderr, 'USAGE_INVALID')
  }
  t.equal((await at(NOW, 'verify')).status, 0)
  t.equal((await at(NOW, 'prune', '--yes')).status, 0)
})
