/** Archives made to harm whoever unpacks them, one for each rule of manifests/FORMAT.md#parts, brought to a mirror that has
 *  a bundle already. What the reader says of each rule in detail: test/storage/parts.test.ts. */
import { join } from 'node:path'
import t from 'tap'
import { importParts } from '../../server/import.ts'
import { goodArchive, hostileArchives } from '../helpers/hostile-archives.ts'
import { hostileStore, refusesAll } from '../helpers/hostile.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'

t.test('every one is refused with its code, soon, in little memory, and leaves nothing behind', async (t) => {
  const dir = t.testdir({ stick: {} })
  const store = hostileStore(t, dir)
  const inputs = writeParts(join(dir, 'stick'), signContent(makeContent(1, [{ stamp: 10, packages: ['a'] }])))
  await importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs: NOW })
  store.close()
  await refusesAll(t, store.dir, hostileArchives)
})

t.test('the archive that all of them were made from is taken', async (t) => {
  const dir = t.testdir({ 'good.tar': goodArchive })
  const store = hostileStore(t, dir)
  const result = await importParts(store, {
    inputs: [join(dir, 'good.tar')],
    isDryRun: false,
    nowMs: NOW,
    clockMs: NOW,
  })
  t.match(result, { number: 2, missing: [] })
})
