import t from 'tap'
import { GapferryError } from '../../manifests/errors.ts'
import { ensureIdentity } from '../../server/identity.ts'
import { Licenses } from '../../server/licenses.ts'
import { openStore } from '../../server/store.ts'
import { makeStore } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'

t.test('what could not be read once is read again', async (t) => {
  const made = makeStore(t.testdir())
  made.catalog.pin({ site: 'hq', root: sampleRoot, nowMs: Date.now() })
  made.catalog.close()
  const store = openStore(made.root)
  t.teardown(() => store.close())
  const identity = ensureIdentity(store, Date.now())
  let isDamaged = true
  const { catalog } = store
  const releases = (): ReturnType<typeof catalog.releases> => {
    if (isDamaged) throw new GapferryError('BLOB_MISSING', 'the index')
    return []
  }
  const licenses = new Licenses({ ...store, catalog: Object.assign(Object.create(catalog), { releases }) }, identity)
  await t.rejects(licenses.licenseFor('x'), { code: 'BLOB_MISSING' })
  isDamaged = false
  t.equal(await licenses.licenseFor('x'), undefined, 'nothing was released since, and it was mended')
})
