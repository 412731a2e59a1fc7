import t, { type Test } from 'tap'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { planPrune, carryOutPrune, type PrunePlan } from '../../storage/prune.ts'
import { Releases } from '../../storage/releases.ts'
import { adopt, blobOf, makeContent, makeStore, type TestContent, type TestStore } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'
import { flipByte } from '../helpers/tar.ts'

const HOUR = 3_600_000
const LATER = NOW + 1000 * HOUR

interface PruneTest extends TestStore {
  dir: string
  releases: Releases
  contents: TestContent[]
  plan(args?: { keep?: number; nowMs?: number }): PrunePlan
}

/** A store with bundles 1 … `count`; each has a package of its own, one that all have, and the tree before. */
async function open(t: Test, count: number): Promise<PruneTest> {
  const store = makeStore(t.testdir())
  t.teardown(() => store.catalog.close())
  store.catalog.pin({ site: 'hq', root: Buffer.from('root 1'), nowMs: NOW })
  const contents = Array.from({ length: count }, (_, i) => makeBundle(i + 1))
  for (const content of contents) await adopt(store, content)
  const all = { ...store, dir: store.root }
  return {
    ...all,
    releases: new Releases(store.catalog, store.blobs),
    contents,
    plan: ({ keep = 1, nowMs = LATER } = {}) => planPrune(all, { keep, keepPreviousMs: 48 * HOUR, nowMs }),
  }
}

function makeBundle(number: number): TestContent {
  const packages = ['all', `own${number}`]
  return makeContent(number, [
    { stamp: number * 10, packages },
    { stamp: number * 10 + 1, role: 'previous', packages: ['all', `own${number - 1}`] },
    { stamp: number * 10 + 2, role: 'return', packages },
  ])
}

const numbersOf = ({ catalog }: TestStore): number[] => catalog.bundles().map(({ number }) => number)

t.test('keeps the newest, and everything that they name; forgets the others', async (t) => {
  const store = await open(t, 5)
  const plan = store.plan({ keep: 2 })
  t.match(plan, { kept: [5, 4], forgotten: [3, 2, 1] })
  t.same(numbersOf(store), [5, 4, 3, 2, 1], 'planning changes nothing')
  t.ok(store.blobs.has(blobOf('package own1')))
  await carryOutPrune(store, plan)
  t.same(numbersOf(store), [5, 4])
  for (const { blobs, trees } of store.contents.slice(3)) {
    for (const name of [...blobs.keys(), ...trees.keys()]) t.ok(store.blobs.has(name), 'also to go back')
  }
  for (const name of ['own1', 'own2']) t.notOk(store.blobs.has(blobOf(`package ${name}`)))
  t.notOk([...store.contents[0]!.trees.keys()].some((name) => store.blobs.has(name)))
  t.match(store.plan({ keep: 2 }), { forgotten: [], blobs: [], bytes: 0 }, 'nothing is left to do')
})

t.test('what is served or was replaced lately stays, and stamps stay for ever', async (t) => {
  const store = await open(t, 4)
  for (const number of [1, 2, 3]) store.releases.release({ number, nowMs: NOW + number * HOUR })
  store.releases.rollback({ role: 'previous', nowMs: NOW + 4 * HOUR })
  t.match(store.plan({ nowMs: NOW + 49 * HOUR }), { kept: [4, 3, 2, 1], forgotten: [] })
  t.match(store.plan({ nowMs: NOW + 51 * HOUR }), { kept: [4, 3, 2], forgotten: [1] }, 'replaced 49 hours ago')
  await carryOutPrune(store, store.plan())
  t.same(numbersOf(store), [4, 3], 'the rolled back bundle is served')
  const served = store.releases.served(0).get('pbx')!
  t.match(served.released, { number: 3, role: 'previous' })
  for (const { sha256 } of served.released!.tree.entries.values()) t.ok(store.blobs.has(sha256))
  t.match(store.releases.rollback({ role: 'return', nowMs: LATER }), { groups: [{ number: 3, isAlready: false }] })
  t.equal(store.catalog.releasedStamps('pbx').get('base'), 32)
})

t.test('the bundle that was adopted last stays, whatever its number', async (t) => {
  const store = await open(t, 3)
  await adopt(store, store.contents[0]!)
  t.match(store.plan(), { kept: [1], forgotten: [3, 2] })
  await carryOutPrune(store, store.plan())
  t.equal(store.catalog.newestBundle()?.number, 1)
})

t.test('ended between rows and files: nothing that stays is harmed, the next one takes the rest', async (t) => {
  const store = await open(t, 3)
  store.catalog.forget(store.plan().forgotten)
  t.same(numbersOf(store), [3])
  t.ok(store.blobs.has(blobOf('package own1')))
  const rest = store.plan()
  t.ok(rest.blobs.includes(blobOf('package own1')))
  await carryOutPrune(store, rest)
  t.notOk(store.blobs.has(blobOf('package own1')))
  for (const name of store.contents[2]!.blobs.keys()) t.ok(store.blobs.has(name))
})

t.test('a prune that is told to end changes nothing, or leaves the rest to the next', async (t) => {
  const store = await open(t, 2)
  const stop = AbortSignal.abort(new Error('ended by SIGINT'))
  await t.rejects(carryOutPrune(store, store.plan(), { signal: stop }), { message: 'ended by SIGINT' })
  t.same(numbersOf(store), [2, 1])
})

t.test('takes blobs that no row names, and leaves what is no blob', async (t) => {
  const store = await open(t, 1)
  const orphan = await store.blobs.put(Buffer.from('left by a crash'))
  const others = ['note.txt', 'ab/note.txt', `ab/${orphan}`].map((name) => join(store.root, 'blobs', name))
  mkdirSync(join(store.root, 'blobs', 'ab'), { recursive: true })
  for (const file of others) writeFileSync(file, 'somebody')
  const plan = store.plan()
  t.strictSame(plan, { kept: [1], forgotten: [], blobs: [orphan], unnamed: new Set([orphan]), bytes: 15 })
  await carryOutPrune(store, plan)
  t.notOk(store.blobs.has(orphan))
  for (const file of others) t.ok(existsSync(file))
})

t.test('what no bundle names goes before the rows, because on a full disk rows cannot be written', async (t) => {
  const store = await open(t, 2)
  const orphan = await store.blobs.put(Buffer.from('left by a crash'))
  const plan = store.plan()
  t.strictSame(plan.unnamed, new Set([orphan]))
  t.ok(plan.blobs.length > 1)
  const forget = (): void => {
    t.notOk(store.blobs.has(orphan))
    throw new Error('full')
  }
  await t.rejects(carryOutPrune(store, plan, { forget }), { message: 'full' })
  for (const sha256 of plan.blobs) t.equal(store.blobs.has(sha256), sha256 !== orphan, 'what rows name is still there')
})

t.test('removes nothing where a tree that stays is not sound', async (t) => {
  const store = await open(t, 3)
  const file = store.blobs.pathOf(store.contents[2]!.targets.get('pbx/previous')!.sha256)
  flipByte(file, 5)
  t.throws(() => store.plan(), { code: 'BLOB_DIGEST_MISMATCH', message: /bundle 3/, hint: 'gapferry-mirror verify' })
  rmSync(file)
  t.throws(() => store.plan(), { code: 'BLOB_MISSING' })
  const old = store.contents[0]!.targets.get('pbx/current')!.sha256
  await store.blobs.put(store.contents[2]!.trees.get(store.contents[2]!.targets.get('pbx/previous')!.sha256)!)
  flipByte(store.blobs.pathOf(old), 5)
  t.match(store.plan(), { forgotten: [2, 1] }, 'one that is forgotten anyway is no matter')
})

t.test('an empty store', async (t) => {
  const store = await open(t, 0)
  t.strictSame(store.plan(), { kept: [], forgotten: [], blobs: [], unnamed: new Set(), bytes: 0 })
})
