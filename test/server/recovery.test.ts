import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { importParts } from '../../server/import.ts'
import { openStoreForWriting, type MirrorStore } from '../../server/store.ts'
import { Releases } from '../../storage/releases.ts'
import { makeContent, makeStore, signContent, writeParts, type TestTree } from '../helpers/mirror.ts'
import { sampleKeys, sampleRoot } from '../helpers/part.ts'
import { DAY, makeRoot, newKey, NOW } from '../helpers/site.ts'

type Signing = NonNullable<Parameters<typeof signContent>[1]>

/** A mirror of site `hq`, and what a laptop (or a thief) brings to it. */
function open(t: Test): {
  store: MirrorStore
  bring(number: number, trees: TestTree[], how?: Signing, clockMs?: number): Promise<unknown>
} {
  const dir = t.testdir({ stick: {} })
  const { catalog, root } = makeStore(dir)
  catalog.pin({ site: 'hq', root: sampleRoot, nowMs: NOW })
  catalog.close()
  const store = openStoreForWriting(root)
  t.teardown(() => store.close())
  let sticks = 0
  return {
    store,
    bring: (number, trees, how = {}, clockMs = NOW) => {
      const inputs = writeParts(join(dir, 'stick', String(++sticks)), signContent(makeContent(number, trees), how))
      return importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs })
    },
  }
}

const stolen = (): { fresh: Signing } => {
  const keys = { root: sampleKeys.root, bundle: [newKey()] }
  return { fresh: { keys, roots: [sampleRoot, makeRoot(keys, { version: 2, signers: sampleKeys.root })] } }
}
const tree = (stamp: number, ...packages: string[]): TestTree[] => [{ stamp, packages }]

t.test('a bundle dated far ahead is refused: it would become the floor of the clock', async (t) => {
  const { store, bring } = open(t)
  await bring(1, tree(10, 'a'))
  for (const days of [181, 5 * 365, 27_000]) {
    const createdAtMs = NOW + days * DAY
    await t.rejects(bring(2, tree(11, 'a'), { createdAtMs, expiresAtMs: createdAtMs + 400 * DAY }), {
      code: 'ROLE_FUTURE',
    })
  }
  t.equal(store.catalog.newestBundle()!.number, 1)
  await bring(2, tree(11, 'a'), { createdAtMs: NOW + 179 * DAY, expiresAtMs: NOW + 579 * DAY })
  await bring(3, tree(12, 'a'), { createdAtMs: NOW, expiresAtMs: NOW + 400 * DAY })
  t.equal(store.catalog.newestBundle()!.number, 3, 'what was made today is still good')
})

t.test('a clock that stands still is led on by the bundles that come', async (t) => {
  const { store, bring } = open(t)
  for (let number = 1; number <= 5; number++) {
    const createdAtMs = NOW + number * 150 * DAY
    await bring(number, tree(10 + number, 'a'), { createdAtMs, expiresAtMs: createdAtMs + 400 * DAY })
  }
  t.equal(store.catalog.newestBundle()!.number, 5)
  await t.rejects(
    bring(6, tree(20, 'a'), { createdAtMs: NOW, expiresAtMs: NOW + 400 * DAY }),
    { code: 'ROLE_EXPIRED' },
    'the floor holds',
  )
})

t.test('when the root takes a stolen key away, what it signed binds nothing any more', async (t) => {
  const { store, bring } = open(t)
  const { fresh } = stolen()
  await bring(1, tree(10, 'a'))
  store.releases.release({ number: 1, nowMs: NOW })
  // The thief: a number, a stamp and a date as high as they get.
  const thief = { createdAtMs: NOW + 170 * DAY, expiresAtMs: NOW + 900 * DAY }
  await bring(2 ** 40, tree(2 ** 40, 'evil'), thief)
  store.releases.release({ number: 2 ** 40, nowMs: NOW })
  await bring(2 ** 40, tree(2 ** 40, 'evil'), thief)
  await t.rejects(bring(2, tree(20, 'a', 'b')), { code: 'ROLE_ROLLBACK' })

  await bring(2, tree(20, 'a', 'b'), fresh)
  t.equal(store.catalog.newestBundle()!.number, 2)
  t.same(
    store.releases.release({ number: 2, nowMs: NOW }).released,
    ['pbx'],
    'the thief’s stamp does not stand in the way',
  )
  t.throws(() => store.releases.release({ number: 2 ** 40, nowMs: NOW }), { code: 'RELEASE_REVOKED' })
  t.throws(() => store.releases.release({ number: 1, nowMs: NOW }), { code: 'RELEASE_REVOKED' })
  t.strictSame(
    store.catalog.bundles().map((row) => [row.number, row.isRevoked]),
    [
      [2 ** 40, true],
      [2, false],
      [1, true],
    ],
  )
  await t.rejects(bring(3, tree(30, 'evil')), { code: 'ROLE_SIGNATURE' })
  await bring(3, tree(30, 'a'), fresh)
  store.releases.release({ number: 3, nowMs: NOW })
})

t.test(
  'a damaged tree that was replaced leaves the others served; a damaged released one stops its group alone',
  async (t) => {
    const { store, bring } = open(t)
    await bring(1, [...tree(10, 'a'), { stamp: 10, group: 'lab', packages: ['x'] }])
    store.releases.release({ number: 1, nowMs: NOW })
    await bring(2, [...tree(11, 'b'), { stamp: 11, group: 'lab', packages: ['y'] }])
    store.releases.release({ number: 2, nowMs: NOW })
    const damage = (number: number, target: string): void => {
      writeFileSync(store.blobs.pathOf(store.catalog.trees(number).get(target)!.sha256), 'rotten')
    }
    const fresh = (): Releases => new Releases(store.catalog, store.blobs)
    damage(1, 'pbx/current')
    const said: string[] = []
    const served = fresh().served(0, (error) => said.push(`${error.code} ${error.message}`))
    t.match(served.get('pbx'), { released: { number: 2 }, replaced: [] })
    t.match(served.get('lab'), { released: { number: 2 }, replaced: [{ number: 1 }] })
    t.match(said, [/^BLOB_\w+ bundle 1, pbx\/current: /])
    damage(2, 'pbx/current')
    const after = fresh().served(0)
    t.equal(after.get('pbx')!.released, null)
    t.match(after.get('lab'), { released: { number: 2 } })
  },
)
