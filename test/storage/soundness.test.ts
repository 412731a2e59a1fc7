import t, { type Test } from 'tap'
import { mkdirSync, rmSync, truncateSync } from 'node:fs'
import { Releases } from '../../storage/releases.ts'
import { checkStore } from '../../storage/soundness.ts'
import { adopt, blobOf, makeContent, makeStore, type TestStore } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'
import { flipByte } from '../helpers/tar.ts'

const one = () => makeContent(1, [{ stamp: 10, packages: ['a', 'b', 'c', 'd'] }])
const two = () =>
  makeContent(2, [
    { stamp: 20, packages: ['a', 'new'] },
    { stamp: 21, role: 'previous', packages: ['a', 'b', 'skipped'] },
  ])

function open(t: Test): TestStore {
  const store = makeStore(t.testdir())
  t.teardown(() => store.catalog.close())
  store.catalog.pin({ site: 'hq', root: Buffer.from('root 1'), nowMs: NOW })
  return store
}

t.test('a sound store, every file once', async (t) => {
  const store = open(t)
  await adopt(store, one())
  await adopt(store, two())
  const seen: [number, number][] = []
  const found = await checkStore(store, { onBytes: (...step) => seen.push(step) })
  t.match(found, { bundles: 2, blobs: 3 + 6 + 6, neverCame: 0, rotten: [] })
  t.equal(
    seen.reduce((total, [bytes]) => total + bytes, 0),
    found.bytes,
  )
})

t.test('names what is flipped, cut, gone or unreadable, with what it answers', async (t) => {
  const store = open(t)
  await adopt(store, one())
  await adopt(store, two())
  const fileOf = (name: string) => store.blobs.pathOf(blobOf(`package ${name}`))
  flipByte(fileOf('a'), 3)
  truncateSync(fileOf('b'), 3)
  rmSync(fileOf('c'))
  rmSync(fileOf('d'))
  mkdirSync(fileOf('d'))
  const { rotten } = await checkStore(store)
  const faults = new Map(rotten.map(({ sha256, ...rest }) => [sha256, rest]))
  const use = (name: string, ...bundles: number[]) => ({
    bytes: 9,
    uses: [{ name: `pbx/yum/base/${name}.rpm`, bundles }],
  })
  t.strictSame(
    faults,
    new Map([
      [blobOf('package a'), { ...use('a', 2, 1), fault: 'digest' }],
      [blobOf('package b'), { ...use('b', 2, 1), fault: 'size' }],
      [blobOf('package c'), { ...use('c', 1), fault: 'missing' }],
      [blobOf('package d'), { ...use('d', 1), fault: 'unreadable' }],
    ]),
  )
})

t.test('a rotten tree is named, and the others are checked on', async (t) => {
  const store = open(t)
  const content = two()
  await adopt(store, content)
  flipByte(store.blobs.pathOf(content.targets.get('pbx/previous')!.sha256), 3)
  flipByte(store.blobs.pathOf(blobOf('package new')), 3)
  const { rotten } = await checkStore(store)
  t.match(rotten, [
    { fault: 'digest', uses: [{ name: 'tree pbx/previous', bundles: [2] }] },
    { fault: 'digest', uses: [{ name: 'pbx/yum/base/new.rpm', bundles: [2] }] },
  ])
})

t.test('what only going back needs and never came is counted, until it is served', async (t) => {
  const store = open(t)
  await adopt(store, two(), { leaveOut: [blobOf('package skipped')] })
  t.match(await checkStore(store), { neverCame: 1, rotten: [] })
  await store.blobs.put(Buffer.from('package skipped'))
  const releases = new Releases(store.catalog, store.blobs)
  releases.release({ number: 2, nowMs: NOW })
  releases.rollback({ role: 'previous', nowMs: NOW + 1 })
  rmSync(store.blobs.pathOf(blobOf('package skipped')))
  t.match(await checkStore(store), { neverCame: 0, rotten: [{ fault: 'missing' }] })
})

t.test('what never came is not rotten; what was lost of a bundle that was whole is', async (t) => {
  const store = open(t)
  await adopt(store, one())
  await adopt(store, two(), { leaveOut: [blobOf('package new'), blobOf('package skipped')] })
  const missing = [{ path: 'yum/base/new.rpm', role: 'current', part: null }]
  t.match(await checkStore(store), { neverCame: 1, rotten: [], incomplete: [{ number: 2, isNewest: true, missing }] })
  rmSync(store.blobs.pathOf(blobOf('package a')))
  const found = await checkStore(store)
  t.match(found.rotten, [{ fault: 'missing', uses: [{ name: 'pbx/yum/base/a.rpm', bundles: [2, 1] }] }])
  t.strictSame(
    found.incomplete.flatMap(({ missing }) => missing.map(({ path }) => path)),
    ['yum/base/new.rpm'],
    'and it is said once',
  )
})

t.test('a part.json that nobody can read names no part', async (t) => {
  const store = open(t)
  await adopt(store, two(), { leaveOut: [blobOf('package new')] })
  store.catalog.noteParts(2, { isComplete: false, partHint: Buffer.from('{}') })
  t.match(await checkStore(store), { incomplete: [{ missing: [{ part: null }] }] })
})

t.test('what a prune takes away meanwhile is no fault', async (t) => {
  const store = open(t)
  await adopt(store, one())
  await adopt(store, two())
  const totals = new Set<number>()
  let isPruned = false
  const onBytes = (_: number, totalBytes: number) => {
    if (totals.add(totalBytes).size < 2 || isPruned) return // the first is that of the trees
    isPruned = true
    store.catalog.forget([1])
    rmSync(store.blobs.pathOf(blobOf('package d')))
  }
  t.match(await checkStore(store, { onBytes }), { rotten: [] })
  t.ok(isPruned)
})

t.test('ends when it is told to', async (t) => {
  const store = open(t)
  await adopt(store, one())
  await t.rejects(checkStore(store, { signal: AbortSignal.abort(new Error('ended by SIGINT')) }), {
    message: 'ended by SIGINT',
  })
})
