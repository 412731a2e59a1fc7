import t, { type Test } from 'tap'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { Catalog } from '../../storage/catalog.ts'
import { Releases } from '../../storage/releases.ts'
import { adopt, blobOf, makeContent, makeStore, type TestStore } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'

const HOUR = 3_600_000

function open(t: Test): TestStore & { releases: Releases } {
  const store = makeStore(t.testdir())
  t.teardown(() => store.catalog.close())
  store.catalog.pin({ site: 'hq', root: Buffer.from('root 1'), nowMs: NOW })
  return { ...store, releases: new Releases(store.catalog, store.blobs) }
}

t.test('releases all groups of a bundle, and serves them', async (t) => {
  const { releases, ...store } = open(t)
  await adopt(
    store,
    makeContent(1, [
      { stamp: 10, packages: ['a'] },
      { stamp: 20, group: 'lab' },
    ]),
  )
  t.equal(releases.served(0).size, 0)
  t.same(releases.release({ number: 1, nowMs: NOW }), {
    number: 1,
    released: ['lab', 'pbx'],
    already: [],
    untouched: [],
  })
  const served = releases.served(0)
  t.same([...served.keys()].sort(), ['lab', 'pbx'])
  const pbx = served.get('pbx')!
  t.match(pbx.released, { group: 'pbx', number: 1, role: 'current', releasedAtMs: NOW, replacedAtMs: null })
  t.same([...pbx.released!.tree.entries.keys()].length, 3)
  t.same(pbx.replaced, [])
})

t.test('a replaced tree is kept from the moment it was replaced, newest first', async (t) => {
  const { releases, ...store } = open(t)
  for (const number of [1, 2, 3]) {
    await adopt(store, makeContent(number, [{ stamp: number }]))
    releases.release({ number, nowMs: NOW + number * HOUR })
  }
  const { released, replaced } = releases.served(NOW).get('pbx')!
  t.equal(released?.number, 3)
  t.same(
    replaced.map((tree) => tree.number),
    [2, 1],
  )
  t.same(
    replaced.map((tree) => tree.replacedAtMs),
    [NOW + 3 * HOUR, NOW + 2 * HOUR],
  )
  t.same(
    releases
      .served(NOW + 2 * HOUR)
      .get('pbx')!
      .replaced.map((tree) => tree.number),
    [2],
    'bundle 1 is over',
  )
  t.same(releases.served(NOW + 3 * HOUR).get('pbx')!.replaced, [])
})

t.test('releasing what is released is a harmless no-op', async (t) => {
  const { releases, ...store } = open(t)
  await adopt(store, makeContent(1, [{ stamp: 10 }, { stamp: 20, group: 'lab' }]))
  releases.release({ number: 1, groups: ['pbx'], nowMs: NOW })
  t.same(releases.release({ number: 1, groups: ['pbx', 'pbx'], nowMs: NOW + 1 }), {
    number: 1,
    released: [],
    already: ['pbx'],
    untouched: [],
  })
  t.same(releases.release({ number: 1, nowMs: NOW + 2 }), {
    number: 1,
    released: ['lab'],
    already: ['pbx'],
    untouched: [],
  })
  t.equal(releases.served(0).get('pbx')?.released?.releasedAtMs, NOW)
  t.same(releases.served(0).get('pbx')?.replaced, [])
})

t.test('a group that a bundle no longer has stays what it was', async (t) => {
  const { releases, ...store } = open(t)
  await adopt(store, makeContent(1, [{ stamp: 10 }, { stamp: 20, group: 'lab' }]))
  await adopt(store, makeContent(2, [{ stamp: 11 }]))
  releases.release({ number: 1, nowMs: NOW })
  t.same(releases.release({ number: 2, nowMs: NOW }), { number: 2, released: ['pbx'], already: [], untouched: ['lab'] })
  t.equal(releases.served(0).get('lab')?.released?.number, 1)
})

t.test('refuses stamps that are not above everything released in the group, for all groups at once', async (t) => {
  const { releases, ...store } = open(t)
  await adopt(
    store,
    makeContent(1, [
      { stamp: 10, stamps: { extra: 50 } },
      { stamp: 10, group: 'lab' },
    ]),
  )
  await adopt(store, makeContent(2, [{ stamp: 10 }, { stamp: 20, group: 'lab' }]))
  await adopt(store, makeContent(3, [{ stamp: 11 }]))
  await adopt(store, makeContent(4, [{ stamp: 12, stamps: { extra: 50 } }]))
  releases.release({ number: 1, nowMs: NOW })
  t.throws(() => releases.release({ number: 2, nowMs: NOW }), { code: 'RELEASE_STAMP' }, 'an equal stamp')
  t.equal(releases.served(0).get('lab')?.released?.number, 1, 'the good group was not switched either')
  releases.release({ number: 3, nowMs: NOW })
  t.throws(
    () => releases.release({ number: 1, groups: ['pbx'], nowMs: NOW }),
    { code: 'RELEASE_STAMP' },
    'an older bundle',
  )
  t.throws(
    () => releases.release({ number: 4, nowMs: NOW }),
    { code: 'RELEASE_STAMP' },
    'a repository that was away in between',
  )
})

t.test('refuses an incomplete bundle and names the first missing path', async (t) => {
  const { releases, ...store } = open(t)
  const content = makeContent(1, [
    { stamp: 10, packages: ['a', 'b'] },
    { stamp: 11, role: 'previous', packages: ['old'] },
  ])
  await adopt(store, content, { leaveOut: [blobOf('package b')] })
  t.throws(() => releases.release({ number: 1, nowMs: NOW }), {
    code: 'RELEASE_INCOMPLETE',
    message: /pbx yum\/base\/b\.rpm/,
  })
  t.equal(releases.served(0).size, 0)
  await store.blobs.put(Buffer.from('package b'))
  t.same(releases.release({ number: 1, nowMs: NOW }).released, ['pbx'])
})

t.test('the other trees need their pointers and companions, not their packages', async (t) => {
  const { releases, ...store } = open(t)
  const trees = [{ stamp: 10 }, { stamp: 11, role: 'previous' as const, packages: ['old'] }]
  await adopt(store, makeContent(1, trees), { leaveOut: [blobOf('package old')] })
  t.same(releases.release({ number: 1, nowMs: NOW }).released, ['pbx'])

  const next = makeContent(2, [{ stamp: 20 }, { stamp: 21, role: 'previous' }])
  await adopt(store, next, { leaveOut: [blobOf('signature of pbx/previous 2 21')] })
  t.throws(() => releases.release({ number: 2, nowMs: NOW }), {
    code: 'RELEASE_INCOMPLETE',
    message: /repomd\.xml\.asc/,
  })
})

t.test('says what is here when there is no such bundle or group', async (t) => {
  const { releases, ...store } = open(t)
  t.throws(() => releases.release({ number: 1, nowMs: NOW }), { code: 'RELEASE_NOTHING' })
  await adopt(store, makeContent(1, [{ stamp: 10 }]))
  t.throws(() => releases.release({ number: 2, nowMs: NOW }), { code: 'RELEASE_NOTHING', message: /here: 1/ })
  t.throws(() => releases.release({ number: 1, groups: ['pbx', 'lba'], nowMs: NOW }), {
    code: 'GROUP_UNKNOWN',
    hint: /pbx/,
  })
})

t.test("sees another process's release, and its own, by a changed version", async (t) => {
  const { releases, ...store } = open(t)
  await adopt(store, makeContent(1, [{ stamp: 1 }]))
  await adopt(store, makeContent(2, [{ stamp: 2 }]))
  const other = new Catalog(join(store.root, 'catalog.db'))
  t.teardown(() => other.close())
  const seen = new Set([releases.version()])
  t.equal(seen.size, 1)
  new Releases(other, store.blobs).release({ number: 1, nowMs: NOW })
  seen.add(releases.version())
  t.equal(seen.size, 2)
  t.equal(releases.served(0).get('pbx')?.released?.number, 1)
  releases.release({ number: 2, nowMs: NOW })
  seen.add(releases.version())
  t.equal(seen.size, 3)
  t.equal(releases.version(), releases.version())
})

t.test('a tree is read from the store once while it is served', async (t) => {
  const { releases, ...store } = open(t)
  const content = makeContent(1, [{ stamp: 1 }])
  await adopt(store, content)
  releases.release({ number: 1, nowMs: NOW })
  releases.served(0)
  rmSync(store.blobs.pathOf([...content.trees.keys()][0]!))
  t.equal(releases.served(0).get('pbx')?.released?.number, 1)
  const said: string[] = []
  const anew = new Releases(store.catalog, store.blobs).served(0, ({ code }) => said.push(code))
  t.equal(anew.get('pbx')?.released, null)
  t.same(said, ['BLOB_MISSING'])
})

t.test('going back and returning: once each per bundle, all groups or none', async (t) => {
  const { releases, ...store } = open(t)
  await adopt(store, makeContent(1, [{ stamp: 10, packages: ['a'] }]))
  t.throws(() => releases.rollback({ role: 'previous', nowMs: NOW }), { code: 'RELEASE_NOTHING' })
  releases.release({ number: 1, nowMs: NOW })
  t.throws(() => releases.rollback({ role: 'previous', nowMs: NOW }), { code: 'RELEASE_NOTHING', message: /the first/ })
  t.match(releases.rollbackRefusal('pbx'), { code: 'RELEASE_NOTHING' })
  await adopt(
    store,
    makeContent(2, [
      { stamp: 20, packages: ['a', 'b'] },
      { stamp: 21, role: 'previous', packages: ['a'] },
      { stamp: 22, role: 'return', packages: ['a', 'b'] },
    ]),
  )
  releases.release({ number: 2, nowMs: NOW })
  t.equal(releases.rollbackRefusal('pbx'), undefined)
  t.throws(() => releases.rollback({ role: 'return', nowMs: NOW }), { code: 'RELEASE_NOTHING' })
  t.throws(() => releases.rollback({ role: 'previous', groups: ['lab'], nowMs: NOW }), { code: 'GROUP_UNKNOWN' })
  const back = { role: 'previous', groups: [{ group: 'pbx', number: 2, isAlready: false, content: 1 }] }
  t.same(releases.rollback({ role: 'previous', nowMs: NOW }), back)
  t.match(releases.rollback({ role: 'previous', nowMs: NOW }), { groups: [{ isAlready: true }] })
  t.match(releases.served(0).get('pbx')!.released, { number: 2, role: 'previous' })
  t.throws(() => releases.release({ number: 2, nowMs: NOW }), {
    code: 'RELEASE_STAMP',
    hint: 'gapferry-mirror rollback --return',
  })
  releases.rollback({ role: 'return', nowMs: NOW })
  t.match(releases.served(0).get('pbx')!.released, { number: 2, role: 'return' })
  t.throws(() => releases.rollback({ role: 'previous', nowMs: NOW }), { code: 'RELEASE_STAMP' })
  t.match(releases.rollbackRefusal('pbx'), { code: 'RELEASE_STAMP' })
})

t.test('going back says whose content that is: not always that of the bundle before', async (t) => {
  const { releases, ...store } = open(t)
  const bundle = (number: number, packages: string[], before: string[]) =>
    makeContent(number, [
      { stamp: number * 10, packages },
      { stamp: number * 10 + 1, role: 'previous', packages: before },
      { stamp: number * 10 + 2, role: 'return', packages },
    ])
  for (const content of [bundle(1, ['a'], []), bundle(2, ['a', 'b'], ['a']), bundle(3, ['c'], ['a'])]) {
    await adopt(store, content)
    releases.release({ number: content.number, nowMs: NOW })
  }
  t.equal(releases.contentBefore('pbx'), 1, 'the laptop was not told of bundle 2')
  t.match(releases.rollback({ role: 'previous', nowMs: NOW }), { groups: [{ number: 3, content: 1 }] })
  t.equal(releases.contentBefore('lab'), null)
  await adopt(store, bundle(4, ['d'], ['x']))
  releases.release({ number: 4, nowMs: NOW })
  t.equal(releases.contentBefore('pbx'), null, 'no bundle here has that')
})

t.test('going back is refused while blobs of that content never came', async (t) => {
  const { releases, ...store } = open(t)
  const content = makeContent(2, [
    { stamp: 20, packages: ['b'] },
    { stamp: 21, role: 'previous', packages: ['a'] },
    { stamp: 22, role: 'return', packages: ['b'] },
  ])
  await adopt(store, content, { leaveOut: [blobOf('package a')] })
  releases.release({ number: 2, nowMs: NOW })
  t.throws(() => releases.rollback({ role: 'previous', nowMs: NOW }), {
    code: 'RELEASE_INCOMPLETE',
    message: /1 path\(s\)/,
  })
  t.match(releases.rollbackRefusal('pbx'), { code: 'RELEASE_INCOMPLETE' })
  t.match(releases.served(0).get('pbx')!.released, { role: 'current' }, 'served as before')
})
