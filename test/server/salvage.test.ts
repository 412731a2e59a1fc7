/** Damaged parts at the mirror: what is sound is kept, what is not is named, and nothing else is ever taken. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { importParts, type ImportResult } from '../../server/import.ts'
import { runMirror } from '../../server/program.ts'
import { openStoreForWriting, type MirrorStore } from '../../server/store.ts'
import { randomOf } from '../helpers/crash.ts'
import { inside } from '../helpers/inside.ts'
import { halves, makeContent, makeStore, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot, type SampleBundle } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'
import { entriesOf, flipByte, type TarEntry } from '../helpers/tar.ts'

const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)
const packages = Array.from({ length: 12 }, (_, i) => `p${i}`)
const bundle: SampleBundle = signContent(makeContent(1, [{ stamp: 10, packages }]))
const CODES = /^(?:BLOB_DIGEST_MISMATCH|BUNDLE_(?:HEADER_INVALID|PADDING|TRAILING|TRUNCATED))$/

interface Mirror {
  dir: string
  store: MirrorStore
  import: (...inputs: string[]) => Promise<ImportResult>
}

function open(t: Test, name: string): Mirror {
  const dir = t.testdir({ [name]: { stick: {} } })
  const { catalog, root } = makeStore(join(dir, name))
  catalog.pin({ site: 'hq', root: sampleRoot, nowMs: NOW })
  catalog.close()
  const store = openStoreForWriting(root)
  t.teardown(() => store.close())
  const request = { isDryRun: false, salvage: true, nowMs: NOW, clockMs: NOW }
  return { dir: join(dir, name), store, import: (...inputs) => importParts(store, { inputs, ...request }) }
}

const blobsIn = (file: string): TarEntry[] => entriesOf(file).filter(({ name }) => name.startsWith('blobs/'))
const digestOf = ({ name }: TarEntry): Sha256 => name.slice('blobs/'.length) as Sha256

/** Every blob that the store has is what its name says. */
function soundBlobs({ store }: Mirror): Sha256[] {
  return [...bundle.blobs.keys()].filter((sha256) => {
    if (!store.blobs.has(sha256)) return false
    if (sha256Of(readFileSync(store.blobs.pathOf(sha256))) !== sha256) throw new Error(`${sha256} is rotten`)
    return true
  })
}

t.test('damage costs the blob that it hit, wherever it is, and the next copy brings that one', async (t) => {
  const places: [string, (blob: TarEntry) => number][] = [
    ['its bytes', ({ bytesAt }) => bytesAt],
    ['its header', ({ headerAt }) => headerAt + 130],
    ['its type', ({ headerAt }) => headerAt + 156],
    ['its padding', ({ bytesAt, bytes }) => bytesAt + bytes],
  ]
  for (const [what, placeIn] of places) {
    const mirror = open(t, what.replace(' ', '-'))
    const [file] = writeParts(mirror.dir, bundle) as [string]
    const blob = blobsIn(file)[4]!
    flipByte(file, placeIn(blob))
    const { damaged, missing, parts } = await mirror.import(file)
    const sha256 = what === 'its header' || what === 'its type' ? null : digestOf(blob)
    t.match(damaged, [{ file, sha256, error: { code: CODES, message: /^hq-1\.tar: / } }], what)
    t.strictSame([...new Set(missing.map((one) => one.sha256))], [digestOf(blob)], `${what}: only that one`)
    t.equal(soundBlobs(mirror).length, bundle.blobs.size - 1)
    t.equal(parts[0]!.newBlobs, bundle.blobs.size - 1)
    writeParts(mirror.dir, bundle)
    t.match(await mirror.import(file), { damaged: [], missing: [], parts: [{ newBlobs: 1 }] })
  }
})

t.test('a part that was cut gives what came before', async (t) => {
  const mirror = open(t, 'cut')
  const [file] = writeParts(mirror.dir, bundle) as [string]
  truncateSync(file, blobsIn(file)[5]!.bytesAt)
  const { damaged, missing } = await mirror.import(file)
  t.match(damaged[0], { error: { code: 'BUNDLE_TRUNCATED' } })
  t.equal(soundBlobs(mirror).length, 5)
  t.equal(missing.length, bundle.blobs.size - 5)
})

t.test('a lost write in the middle, all zeros, costs what was there', async (t) => {
  const mirror = open(t, 'zeros')
  const [file] = writeParts(mirror.dir, bundle) as [string]
  const bytes = readFileSync(file)
  const [from, to] = [blobsIn(file)[3]!, blobsIn(file)[6]!]
  writeFileSync(file, bytes.fill(0, from.headerAt, to.headerAt))
  const { missing } = await mirror.import(file)
  t.equal(missing.length, 3)
  t.equal(soundBlobs(mirror).length, bundle.blobs.size - 3)
})

t.test('a part whose head is damaged is refused as a whole, and the others are taken', async (t) => {
  const mirror = open(t, 'head')
  const [first, second] = writeParts(mirror.dir, bundle, halves(bundle)) as [string, string]
  flipByte(first, entriesOf(first)[1]!.bytesAt + 40)
  const refused: string[] = []
  const hooks = {
    onPart: () => undefined,
    onAdopted: () => undefined,
    onRefused: (file: string): void => void refused.push(basename(file)),
  }
  const request = { inputs: [first, second], isDryRun: false, salvage: true, nowMs: NOW, clockMs: NOW, hooks }
  const { damaged, missing, parts } = await importParts(mirror.store, request)
  t.match(damaged, [{ file: first, sha256: null, path: null }])
  t.strictSame(refused, ['hq-1-1of2.tar'], 'it leaves a row')
  t.match(parts, [{ file: second }])
  t.same(new Set(missing.map(({ part }) => part)), new Set(['hq-1-1of2.tar']))
  await t.rejects(mirror.import(first), { code: damaged[0]!.error.code }, 'alone there is nothing to go on with')
})

t.test('what no damage explains is refused as ever', async (t) => {
  const mirror = open(t, 'forged')
  const [file] = writeParts(mirror.dir, bundle) as [string]
  const bytes = readFileSync(file)
  writeFileSync(file, Buffer.concat([bytes, bytes]))
  await t.rejects(mirror.import(file), { code: 'BUNDLE_TRAILING' })
  t.strictSame(soundBlobs(mirror), [])
})

t.test(`random damage: all that is kept is sound, and what is lost is named (GAPFERRY_SEED=${SEED})`, async (t) => {
  const random = randomOf(SEED)
  for (let round = 0; round < 25; round++) {
    const mirror = open(t, `round-${round}`)
    const [file] = writeParts(mirror.dir, bundle) as [string]
    const bytes = readFileSync(file)
    const start = blobsIn(file)[0]!.headerAt
    for (let hits = 1 + Math.floor(random() * 4); hits > 0; hits--) {
      const at = start + Math.floor(random() * (bytes.length - start))
      bytes.fill(Math.floor(random() * 256), at, Math.min(bytes.length, at + Math.floor(random() * 700)))
    }
    writeFileSync(file, bytes)
    const result = await mirror.import(file).catch((error: unknown) => error as Error)
    const sound = soundBlobs(mirror)
    if (result instanceof Error) t.match(result, { code: /^(?:BUNDLE|BLOB)_/ }, 'nobody can know that it was damage')
    else {
      t.equal(sound.length + new Set(result.missing.map(({ sha256 }) => sha256)).size, bundle.blobs.size)
      t.ok(result.missing.length === 0 || result.damaged.length > 0)
    }
  }
})

t.test('a person is told what a folder holds, what is damaged and how to go on', async (t) => {
  const dir = t.testdir({ 'root.json': sampleRoot, mir: {} })
  const mirror = (...args: string[]): Promise<Outcome> =>
    inside(runMirror, join(dir, 'mir'), args, { nowMs: () => NOW + 3_600_000 })
  const pinned = ['--trust', '../root.json', '--fingerprint', fingerprintWords(sampleRoot)]
  await mirror('init', '.', ...pinned, '--origin', 'pbx=127.0.0.1:0')
  const folder = join(dir, 'stick/gapferry/hq')
  const [first, second] = writeParts(folder, bundle, halves(bundle)) as [string, string]
  const aside = readFileSync(second)
  spawnSync('mv', [second, dir])
  for (const name of ['System Volume Information', '.Trash-0', 'FOUND.000'])
    mkdirSync(join(dir, 'stick/gapferry', name))
  for (const name of ['._hq-1-1of2.tar', 'Thumbs.db', 'autorun.inf']) writeFileSync(join(folder, name), 'x')
  writeFileSync(join(folder, 'hq-1.txt'), 'slip')
  writeFileSync(join(folder, 'HQ-1-2OF2.TAR'), aside)
  const half = await mirror('import', '../stick')
  t.equal(half.status, 4)
  t.match(half.stderr, /gapferry\/hq: bundle 1, hq-1-1of2\.tar; not here: hq-1-2of2\.tar/)
  t.match(half.stderr, 'ignored: HQ-1-2OF2.TAR is not named like a part')
  t.notMatch(half.stderr, /Thumbs|autorun|\._|Trash|FOUND|Volume/)

  writeFileSync(second, aside)
  const blob = blobsIn(second)[1]!
  flipByte(second, blob.bytesAt)
  const bad = await mirror('import', '../stick')
  t.equal(bad.status, 3, 'refused: digest')
  t.match(bad.stdout, /damaged, and not taken:\n.*hq-1-2of2\.tar.*yum\/base/)
  t.match(bad.stderr, /\[BLOB_DIGEST_MISMATCH\][^]*gapferry pack --repair --to STICK/)
  const json = JSON.parse((await mirror('--json', 'import', '--dry-run', '../stick')).stdout) as object
  t.match(json, { damaged: [{ sha256: digestOf(blob), code: 'BLOB_DIGEST_MISMATCH' }], isComplete: false })
  t.match((await mirror('audit')).stdout, /hq-1-2of2\.tar +BUNDLE_INCOMPLETE/)

  writeFileSync(join(dir, 'hq-1-2of2.tar'), aside)
  const whole = await mirror('import', join(dir, 'hq-1-2of2.tar'), second)
  t.equal(whole.status, 0, 'another copy had it')
  t.match(
    await mirror('import', '--dry-run', '../stick'),
    { status: 3 },
    'asked about the stick, it is bad all the same',
  )
  t.ok(first)
})
