import t from 'tap'
import { join } from 'node:path'
import { Catalog } from '../../storage/catalog.ts'
import { adopt, makeContent, makeStore, pretendVerified } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'

const root = (text: string) => Buffer.from(text)

t.test('a new catalogue trusts nothing and knows nothing', async (t) => {
  const { catalog } = makeStore(t.testdir())
  t.equal(catalog.site(), undefined)
  t.same(catalog.trusted(), { roots: [] })
  t.same(catalog.bundles(), [])
  t.equal(catalog.newestBundle(), undefined)
  t.same(catalog.releases(0), [])
  catalog.close()
})

t.test('pins one root for ever', async (t) => {
  const { catalog } = makeStore(t.testdir())
  t.equal(catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW }), true)
  t.equal(catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW }), false, 'the same root is harmless')
  t.throws(() => catalog.pin({ site: 'hq', root: root('other'), nowMs: NOW }), { code: 'ROOT_PINNED' })
  t.equal(catalog.site(), 'hq')
  t.same(catalog.trusted().roots, [root('root 1')])
  catalog.adopt(pretendVerified(makeContent(1, [{ stamp: 1 }]), ['root 1', 'root 2']), NOW)
  t.equal(catalog.pin({ site: 'hq', root: root('root 2'), nowMs: NOW }), false, 'so is one that it led to')
  catalog.close()
})

t.test('adopts trust, bundle and trees together, and gives them back after a restart', async (t) => {
  const { catalog, root: dir } = makeStore(t.testdir())
  catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  const content = makeContent(3, [{ stamp: 1 }, { stamp: 2, role: 'previous' }, { stamp: 1, group: 'lab' }])
  catalog.adopt(pretendVerified(content), NOW)
  catalog.close()

  const again = new Catalog(join(dir, 'catalog.db'))
  t.same(again.trusted(), pretendVerified(content).state)
  t.same([...again.trees(3).keys()], ['lab/current', 'pbx/current', 'pbx/previous'])
  t.same(again.trees(3).get('pbx/previous'), content.targets.get('pbx/previous'))
  const row = {
    number: 3,
    createdAtMs: NOW + 3,
    expiresAtMs: pretendVerified(content).expiresAtMs,
    bundler: 'gapferry 0.1.0',
    importedAtMs: NOW,
    isRevoked: false,
    expiredReason: null,
    wasComplete: false,
  }
  t.same(again.bundle(3), row)
  t.same(again.newestBundle(), row)
  t.same(again.bundles(), [row])
  t.equal(again.bundle(4), undefined)
  again.close()
})

t.test('adopting a bundle again changes nothing but brings newer roots', async (t) => {
  const { catalog } = makeStore(t.testdir())
  catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  const content = makeContent(3, [{ stamp: 1 }])
  catalog.adopt(pretendVerified(content), NOW)
  catalog.adopt(pretendVerified(content, ['root 1', 'root 2']), NOW + 5)
  t.equal(catalog.bundle(3)?.importedAtMs, NOW)
  t.same(catalog.trusted().roots, [root('root 1'), root('root 2')])
  catalog.close()
})

t.test('refuses other trees under a known number and then keeps everything as it was', async (t) => {
  const { catalog } = makeStore(t.testdir())
  catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  const content = makeContent(3, [{ stamp: 1 }])
  catalog.adopt(pretendVerified(content), NOW)
  for (const other of [
    makeContent(3, [{ stamp: 2 }]),
    makeContent(3, [{ stamp: 1 }, { stamp: 2, role: 'previous' }]),
  ]) {
    t.throws(() => catalog.adopt(pretendVerified(other, ['root 1', 'root 2']), NOW), { code: 'ROLE_CONFLICT' })
  }
  t.same(catalog.trusted(), pretendVerified(content).state)
  t.equal(catalog.trees(3).size, 1)
  catalog.close()
})

t.test('the newest bundle is the one adopted last, even when a thief had signed a higher number', async (t) => {
  const { catalog } = makeStore(t.testdir())
  catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  for (const number of [7, 9999, 8]) catalog.adopt(pretendVerified(makeContent(number, [{ stamp: 1 }])), NOW)
  t.equal(catalog.newestBundle()?.number, 8)
  t.same(
    catalog.bundles().map((row) => row.number),
    [9999, 8, 7],
  )
  catalog.close()
})

t.test('a write that fails half way leaves no release behind', async (t) => {
  const store = makeStore(t.testdir())
  const { catalog } = store
  catalog.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  await adopt(store, makeContent(1, [{ stamp: 5 }]))
  const release = { group: 'pbx', role: 'current' as const, number: 1, stamps: new Map([['base', 5]]), nowMs: NOW }
  t.throws(() =>
    catalog.write(() => {
      catalog.putRelease(release)
      catalog.putRelease({ ...release, group: 'nobody' })
    }),
  )
  t.same(catalog.releases(0), [])
  t.equal(catalog.releasedStamps('pbx').size, 0)
  catalog.close()
})

t.test('sees that another process has written', async (t) => {
  const { catalog, root: dir } = makeStore(t.testdir())
  const other = new Catalog(join(dir, 'catalog.db'))
  const before = catalog.foreignChanges()
  t.equal(catalog.foreignChanges(), before)
  other.pin({ site: 'hq', root: root('root 1'), nowMs: NOW })
  t.not(catalog.foreignChanges(), before)
  t.equal(catalog.site(), 'hq')
  catalog.close()
  other.close()
})
