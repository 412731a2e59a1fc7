/** Somebody with the rights of the mirror's user plays in its store while boxes are served: whatever he puts there, no box
 *  gets a byte that was not signed, no answer waits for ever, and a new import mends it. */
import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, renameSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { importParts } from '../../server/import.ts'
import { blobFault, CHECK_BUFFER_BYTES } from '../../storage/blob-check.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, TestReleases } from '../helpers/content.ts'
import { hostileStore } from '../helpers/hostile.ts'
import { blobOf, makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'

const SMALL = Buffer.from('a small package')
const LARGE = Buffer.alloc(3_000_000, 'a large package ')

async function setUp(t: Test) {
  const dir = t.testdir({ store: {}, evil: {} })
  const blobs = new BlobStore(join(dir, 'store'))
  const tree = await makeTree(blobs, { small: { bytes: SMALL }, large: { bytes: LARGE }, other: { bytes: 'other' } })
  const releases = new TestReleases()
  releases.release(tree, 0)
  const mirror = await startMirror({ releases, blobs })
  t.teardown(() => mirror.close())
  const get = async (path: string): Promise<{ status: number; body: Buffer }> => {
    const { statusCode, body } = await request(`${mirror.origins[0]!.url}/${path}`)
    return { status: statusCode, body: Buffer.from(await body.arrayBuffer()) }
  }
  const fileOf = (name: string): string => blobs.pathOf(tree.entries.get(name as never)!.sha256)
  return { dir, blobs, tree, get, fileOf }
}

const replaced: [string, (file: string, evil: string) => void][] = [
  ['a pipe that nobody writes to', (file) => execFileSync('mkfifo', [file])],
  ['a folder', (file) => mkdirSync(file)],
  ['a link to a file of other bytes', (file, evil) => symlinkSync(evil, file)],
  ['a link to itself', (file) => symlinkSync(file, file)],
  ['a link to an endless device', (file) => symlinkSync('/dev/zero', file)],
  ['a hard link to a file of other bytes', (file, evil) => linkSync(evil, file)],
  ['an empty file', (file) => writeFileSync(file, '')],
  ['nothing', () => undefined],
]

t.test('what stands in the place of a blob is never sent, and holds nobody up', async (t) => {
  for (const [what, put] of replaced) {
    const { dir, blobs, tree, get, fileOf } = await setUp(t)
    for (const [name, bytes] of [
      ['small', SMALL],
      ['large', LARGE],
    ] as const) {
      const evil = join(dir, 'evil', name)
      writeFileSync(evil, Buffer.alloc(bytes.length, 'evil'))
      unlinkSync(fileOf(name))
      put(fileOf(name), evil)
      const { status, body } = await get(name)
      t.equal(status, 503, `${what}: ${name}`)
      t.match(body.toString(), /^BLOB_[A-Z_]+: the file is damaged or missing at the mirror\n$/)
      const { sha256 } = tree.entries.get(name as never)!
      const buffer = Buffer.alloc(CHECK_BUFFER_BYTES)
      t.ok(await blobFault(blobs, { sha256, bytes: bytes.length }, { buffer }), `verify finds ${what}`)
    }
    t.match(await get('other'), { status: 200, body: Buffer.from('other') }, 'the rest is served')
  }
})

t.test('folders that are exchanged while boxes fetch: the right bytes or none', async (t) => {
  const { dir, get, fileOf } = await setUp(t)
  const folder = dirname(fileOf('large'))
  const twin = join(dir, 'evil', 'twin')
  mkdirSync(twin)
  writeFileSync(join(twin, fileOf('large').slice(folder.length + 1)), Buffer.alloc(LARGE.length, 'evil'))
  const swaps = { isOver: false }
  const swap = async (): Promise<void> => {
    for (let i = 0; !swaps.isOver; i++) {
      if (i % 2 === 0) {
        renameSync(folder, `${folder}.away`)
        symlinkSync(twin, folder)
      } else {
        rmSync(folder)
        renameSync(`${folder}.away`, folder)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const swapping = swap()
  const seen = new Set<number>()
  for (let i = 0; i < 60; i++) {
    const { status, body } = await get('large').catch(() => ({ status: 0, body: Buffer.alloc(0) }))
    seen.add(status)
    if (status === 200) t.ok(body.equals(LARGE), 'the right bytes')
    else if (status !== 0) t.equal(status, 503)
  }
  swaps.isOver = true
  await swapping
  t.ok(seen.has(503) || seen.has(200))
})

t.test('an import mends whatever was put in the place of its blobs and trees', async (t) => {
  for (const [what, put] of replaced) {
    const dir = t.testdir({ stick: {} })
    const store = hostileStore(t, dir)
    const content = makeContent(1, [{ stamp: 10, packages: ['a', 'b'] }])
    const inputs = writeParts(join(dir, 'stick'), signContent(content))
    const bring = () => importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs: NOW })
    await bring()
    writeFileSync(join(dir, 'evil'), 'package e')
    for (const sha256 of [blobOf('package a'), [...content.trees.keys()][0]!]) {
      unlinkSync(store.blobs.pathOf(sha256))
      put(store.blobs.pathOf(sha256), join(dir, 'evil'))
    }
    if (what === 'a folder') {
      await t.rejects(bring(), what)
    } else {
      t.match(await bring(), { missing: [] }, what)
      t.equal(store.blobs.read(blobOf('package a'), 100).toString(), 'package a', what)
      store.releases.release({ number: 1, nowMs: NOW })
    }
    store.close()
  }
})

t.test('rubbish among the folders of the store does not stop an import', async (t) => {
  const dir = t.testdir({ stick: {} })
  const store = hostileStore(t, dir)
  const blobs = join(store.dir, 'blobs')
  execFileSync('mkfifo', [join(blobs, 'zz')])
  symlinkSync('/', join(blobs, 'root'))
  symlinkSync('nowhere', join(blobs, 'gone'))
  mkdirSync(join(store.stagingDir, 'deep', 'er'), { recursive: true })
  symlinkSync(join(dir, 'stick'), join(store.stagingDir, 'link'))
  execFileSync('mkfifo', [join(store.stagingDir, 'pipe')])
  const inputs = writeParts(join(dir, 'stick'), signContent(makeContent(1, [{ stamp: 10, packages: ['a'] }])))
  t.match(await importParts(store, { inputs, isDryRun: false, nowMs: NOW, clockMs: NOW }), { missing: [] })
})
