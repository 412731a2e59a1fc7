/** Metadata as a thief would bring it, each case brought to a mirror in a whole part: the list of TUF 1.0.31's attacks, and
 *  what JSON can do to its reader. What the verifier says of each role in detail: test/storage/trust.test.ts. */
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import t, { type Test } from 'tap'
import { importParts } from '../../server/import.ts'
import { catalogFile, type MirrorStore } from '../../server/store.ts'
import {
  afterRotation,
  attackedBundle as bundle,
  attackedPart as part,
  attackedRoot,
  expiredBefore,
  metadataAttacks,
} from '../helpers/hostile-metadata.ts'
import { hostileStore, refusesAll, type HostileCase } from '../helpers/hostile.ts'
import { writeParts } from '../helpers/mirror.ts'
import type { SampleBundle } from '../helpers/part.ts'
import { NOW } from '../helpers/site.ts'

const two = bundle(2)
const three = bundle(3)

async function setUp(
  t: Test,
): Promise<{ dir: string; store: MirrorStore; bring: (made: SampleBundle) => Promise<unknown> }> {
  const dir = t.testdir({ stick: {} })
  const store = hostileStore(t, dir, attackedRoot)
  const bring = (made: SampleBundle): Promise<unknown> => {
    const inputs = writeParts(join(dir, 'stick'), made)
    return importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs: NOW })
  }
  await bring(two)
  return { dir, store, bring }
}

t.test('every attack is refused with its code, soon, in little memory, and changes nothing', async (t) => {
  const { store } = await setUp(t)
  store.close()
  const cases: HostileCase[] = metadataAttacks.map(([what, code, bytes]) => ({ what, code, bytes }))
  await refusesAll(t, store.dir, cases)
})

t.test('a clock in 2031 refuses what is good, one in 1970 does not make old things young', async (t) => {
  const { store } = await setUp(t)
  store.close()
  const bytes = part(three)
  await refusesAll(t, store.dir, [{ what: 'a good bundle', code: 'ROLE_EXPIRED', bytes }], Date.UTC(2031, 0, 1))
  await refusesAll(t, store.dir, [{ what: 'an expired one', code: 'ROLE_EXPIRED', bytes: expiredBefore() }], 0)
})

t.test('what is in order is taken: a newer one, the same again, two new roots, a torn state', async (t) => {
  const { store, bring } = await setUp(t)
  t.match(await bring(two), { number: 2, isNew: false })
  t.match(await bring(three), { number: 3, isNew: true })

  const db = new SqliteDatabase(catalogFile(store.dir))
  db.exec("UPDATE trusted_role SET bytes = substr(bytes, 1, 100) WHERE role = 'timestamp'")
  db.close()
  await t.rejects(bring(two), { code: 'ROLE_ROLLBACK' }, 'the others still guard the number')
  t.match(await bring(bundle(4)), { number: 4, isNew: true }, 'a torn timestamp heals')

  // The thief of one bundle key runs the number ahead; the root takes both away.
  await bring(bundle(9999))
  await t.rejects(bring(bundle(5)), { code: 'ROLE_ROLLBACK' })
  t.match(await bring(bundle(5, afterRotation)), { number: 5, isNew: true }, '{A, B} to {A, RSA C}, and one more')
  t.equal(store.catalog.trusted().roots.length, 3)
  await t.rejects(bring(bundle(10_000)), { code: 'ROLE_SIGNATURE' })
})
