/** Whatever becomes of a file in the store while it is served: 503 and a named alarm, never wrong bytes; `verify` finds it,
 *  and importing the bundle again mends it under the running mirror. */
import { linkSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import t from 'tap'
import { request } from 'undici'
import { sha256Of } from '../../manifests/digest.ts'
import { importParts } from '../../server/import.ts'
import { openStoreForWriting } from '../../server/store.ts'
import { checkStore } from '../../storage/soundness.ts'
import { startMirror } from '../helpers/content.ts'
import { makeStore, writeParts } from '../helpers/mirror.ts'
import { sampleBundle, sampleRoot } from '../helpers/part.ts'
import { flip, NOW } from '../helpers/site.ts'

const FILES = { 'large.bin': Buffer.alloc(400_000, 7), 'small.bin': Buffer.alloc(40_000, 9) }

const DAMAGES: Record<string, (file: string, elsewhere: string) => void> = {
  'a flipped bit': (file) => writeFileSync(file, flip(readFileSync(file), 1234)),
  'a flipped bit, size and time as before': (file) => {
    const { atime, mtime } = statSync(file)
    writeFileSync(file, flip(readFileSync(file), 1234))
    utimesSync(file, atime, mtime)
  },
  'cut short': (file) => truncateSync(file, 39_000),
  gone: (file) => rmSync(file),
  'a link to another file': (file, elsewhere) => (rmSync(file), symlinkSync(elsewhere, file)),
  'a second name of another file': (file, elsewhere) => (rmSync(file), linkSync(elsewhere, file)),
}

t.test('a file that rots while it is served', async (t) => {
  const dir = t.testdir({ stick: {} })
  const { catalog, root } = makeStore(dir)
  catalog.pin({ site: 'hq', root: sampleRoot, nowMs: NOW })
  catalog.close()
  const store = openStoreForWriting(root)
  t.teardown(() => store.close())
  const inputs = writeParts(join(dir, 'stick'), sampleBundle({ files: FILES }))
  const bring = () => importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs: NOW })
  await bring()
  store.releases.release({ number: 1, nowMs: NOW })
  const log: string[] = []
  const alarms = pino({ base: null }, { write: (line) => void log.push(line) })
  const mirror = await startMirror({ releases: store.releases, blobs: store.blobs, log: alarms })
  t.teardown(() => mirror.close())
  const fetch = async (path: string) => {
    const { statusCode, body } = await request(`${mirror.origins[0]!.url}/${path}`)
    return { statusCode, bytes: Buffer.from(await body.arrayBuffer()) }
  }
  for (const [path, bytes] of Object.entries(FILES)) {
    const file = store.blobs.pathOf(sha256Of(bytes))
    for (const [what, damage] of Object.entries(DAMAGES)) {
      const elsewhere = join(dir, `${path} ${what}`)
      writeFileSync(elsewhere, flip(bytes, 5))
      t.equal((await fetch(path)).statusCode, 200)
      damage(file, elsewhere)
      log.length = 0
      const answer = await fetch(path)
      if (answer.statusCode === 200) t.ok(answer.bytes.equals(bytes), `${path}, ${what}: from memory, as signed`)
      else {
        t.equal(answer.statusCode, 503, `${path}, ${what}`)
        t.match(log.join(''), new RegExp(`"code":"BLOB_[A-Z_]+".*"path":"/${path}"`), 'the alarm names the path')
      }
      t.match((await checkStore(store)).rotten, [{ sha256: sha256Of(bytes) }], `${what}: verify finds it`)
      await bring()
      t.ok((await fetch(path)).bytes.equals(bytes), `${what}: mended`)
      t.same((await checkStore(store)).rotten, [])
      t.ok(readFileSync(elsewhere).equals(flip(bytes, 5)), 'what stood in its place was not written through')
    }
  }
})
