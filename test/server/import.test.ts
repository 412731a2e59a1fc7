import t, { type Test } from 'tap'
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { serializeTree } from '../../manifests/tree.ts'
import { importParts, type ImportRequest, type ImportResult } from '../../server/import.ts'
import { openStore, openStoreForWriting, type MirrorStore } from '../../server/store.ts'
import { blobOf, halves, makeContent, makeStore, signContent, traces, writeParts } from '../helpers/mirror.ts'
import { archive, partEntries, sampleBundle, sampleKeys, sampleRoot } from '../helpers/part.ts'
import { DAY, makeRoot, newKey, NOW } from '../helpers/site.ts'
import { entriesOf, flipByte } from '../helpers/tar.ts'

interface Mirror {
  dir: string
  stick: string
  store: MirrorStore
  import(inputs: string | string[], more?: Partial<ImportRequest>): Promise<ImportResult>
}

/** A mirror of site `hq` with an empty stick. */
function open(t: Test): Mirror {
  const dir = t.testdir({ stick: {} })
  const { catalog, root } = makeStore(dir)
  catalog.pin({ site: 'hq', root: sampleRoot, nowMs: NOW })
  catalog.close()
  const store = openStoreForWriting(root)
  t.teardown(() => store.close())
  return {
    dir,
    stick: join(dir, 'stick'),
    store,
    import: (inputs, more) =>
      importParts(store, { inputs: [inputs].flat(), isDryRun: false, nowMs: NOW, clockMs: NOW, ...more }),
  }
}

/** What a refused or dry import must leave as it was: every blob, every row, an empty staging/. */
function kept({ store }: Mirror): unknown {
  const { catalog } = store
  const files = ['blobs', 'staging'].flatMap((name) =>
    readdirSync(join(store.dir, name), { recursive: true, encoding: 'utf8' }),
  )
  const rows = catalog.bundles().map((row) => [row, [...catalog.trees(row.number)]])
  return {
    files: files.toSorted((a, b) => a.localeCompare(b)),
    rows,
    trusted: catalog.trusted(),
    releases: catalog.releases(0),
  }
}

const one = () => makeContent(1, [{ stamp: 10, packages: ['a', 'b', 'c', 'd'] }])
const two = () => makeContent(2, [{ stamp: 20, packages: ['a', 'b', 'c', 'd', 'e'] }])

t.test('stages a complete bundle; nothing served changes until it is released', async (t) => {
  const mirror = open(t)
  const content = one()
  const [file] = writeParts(mirror.stick, signContent(content))
  const result = await mirror.import(file!)
  t.match(result, { site: 'hq', number: 1, createdAtMs: NOW, isNew: true, isDryRun: false, missing: [], ignored: [] })
  t.match(result.parts, [{ file, blobs: 6, newBlobs: 6 }])
  t.equal(mirror.store.catalog.newestBundle()?.number, 1)
  for (const sha256 of [...content.blobs.keys(), ...content.trees.keys()]) t.ok(mirror.store.blobs.has(sha256))
  t.same(readdirSync(mirror.store.stagingDir), [])
  t.equal(mirror.store.releases.served(0).size, 0)
  t.same(mirror.store.releases.release({ number: 1, nowMs: NOW }).released, ['pbx'])
})

t.test('importing again is harmless and writes no blob', async (t) => {
  const mirror = open(t)
  const [file] = writeParts(mirror.stick, signContent(one()))
  await mirror.import(file!)
  const before = traces(join(mirror.store.dir, 'blobs'))
  const result = await mirror.import(file!)
  t.match(result, { number: 1, isNew: false, missing: [], parts: [{ blobs: 6, newBlobs: 0, newBytes: 0 }] })
  t.same(traces(join(mirror.store.dir, 'blobs')), before)
})

t.test('a next bundle brings only what is new', async (t) => {
  const mirror = open(t)
  await mirror.import(writeParts(mirror.stick, signContent(one())))
  const result = await mirror.import(writeParts(mirror.stick, signContent(two())))
  t.match(result, { number: 2, isNew: true, parts: [{ blobs: 7, newBlobs: 3 }] }, 'package e and the two of repomd')
  t.equal(mirror.store.catalog.newestBundle()?.number, 2)
})

t.test('parts come in any order, from any stick, over several imports', async (t) => {
  const mirror = open(t)
  const bundle = signContent(one())
  const [first, second] = writeParts(mirror.stick, bundle, halves(bundle)) as [string, string]
  const half = await mirror.import(second)
  t.same(new Set(half.missing.map(({ sha256 }) => sha256)), new Set(halves(bundle)[0]))
  t.same(new Set(half.missing.map(({ part }) => part)), new Set(['hq-1-1of2.tar']), 'the part that has them is named')
  t.ok(
    half.missing.every(
      ({ group, role, path, bytes }) =>
        group === 'pbx' && role === 'current' && path.startsWith('yum/base/') && bytes > 0,
    ),
  )
  t.equal(mirror.store.catalog.bundles().length, 1, 'what came is kept')
  t.throws(() => mirror.store.releases.release({ number: 1, nowMs: NOW }), { code: 'RELEASE_INCOMPLETE' })
  t.match(await mirror.import(first), { isNew: false, missing: [], parts: [{ newBlobs: 3 }] })
})

t.test('two parts in one import', async (t) => {
  const mirror = open(t)
  const bundle = signContent(one())
  const files = writeParts(mirror.stick, bundle, halves(bundle))
  const seen: [number, number][] = []
  const result = await mirror.import([...files].reverse(), { onProgress: (done, total) => seen.push([done, total]) })
  t.match(result, { isNew: true, missing: [], parts: [{ newBlobs: 3 }, { newBlobs: 3 }] })
  const total = files.reduce((sum, file) => sum + readFileSync(file).length, 0)
  t.same(seen.at(-1), [total, total], 'progress ends at the end')
  t.same(
    seen,
    [...seen].sort(([a], [b]) => a - b),
    'and never goes back',
  )
})

t.test('complete needs the pointers and companions of the other trees, not their packages', async (t) => {
  const mirror = open(t)
  const trees = [
    { stamp: 20, packages: ['a'] },
    { stamp: 30, role: 'previous' as const, packages: ['old'] },
    { stamp: 40, role: 'return' as const, packages: ['a'] },
  ]
  const bundle = signContent(makeContent(1, trees))
  const all = [...bundle.blobs.keys()]
  const pointer = blobOf('repomd of pbx/return 1 40')
  const companion = blobOf('signature of pbx/previous 1 30')
  const result = await mirror.import(
    writeParts(join(mirror.dir, 'one'), bundle, [
      all.filter((name) => ![pointer, companion, blobOf('package old')].includes(name)),
    ]),
  )
  t.same(
    new Set(result.missing.map(({ role, path }) => `${role} ${path}`)),
    new Set(['return yum/base/repodata/repomd.xml', 'previous yum/base/repodata/repomd.xml.asc']),
  )
  t.ok(result.missing.every(({ part }) => part === null || part === 'hq-1.tar'))
  t.match(await mirror.import(writeParts(join(mirror.dir, 'two'), bundle, [[pointer, companion]])), { missing: [] })
})

t.test('the medium is never written', async (t) => {
  const mirror = open(t)
  const folder = join(mirror.stick, 'gapferry', 'hq')
  const bundle = signContent(one())
  writeParts(folder, bundle)
  writeFileSync(join(folder, 'root.json'), bundle.root)
  for (const name of readdirSync(folder)) chmodSync(join(folder, name), 0o444)
  chmodSync(folder, 0o555)
  const before = traces(mirror.stick)
  await mirror.import(mirror.stick)
  await mirror.import(mirror.stick, { isDryRun: true })
  t.same(traces(mirror.stick), before, 'same names, bytes and times')
  chmodSync(folder, 0o755)
})

t.test('refuses what the pinned root did not sign for, before anything is kept', async (t) => {
  const mirror = open(t)
  await mirror.import(writeParts(mirror.stick, signContent(two())))
  const before = kept(mirror)
  const stranger = { root: [newKey()], bundle: [newKey()] }
  const three = makeContent(3, [{ stamp: 30, packages: ['new'] }])
  const cases: [string, string, ReturnType<typeof signContent>][] = [
    ['an older bundle', 'ROLE_ROLLBACK', signContent(one())],
    [
      'another site',
      'SITE_MISMATCH',
      signContent(makeContent(3, [{ stamp: 30 }], 'lab'), {
        site: 'lab',
        keys: stranger,
        roots: [makeRoot(stranger, { site: 'lab' })],
      }),
    ],
    ['a wrong key', 'ROLE_SIGNATURE', signContent(three, { keys: { ...sampleKeys, bundle: stranger.bundle } })],
    ['the same number, signed for other content', 'ROLE_CONFLICT', signContent(makeContent(2, [{ stamp: 99 }]))],
    ['an expired bundle', 'ROLE_EXPIRED', signContent(three, { createdAtMs: NOW - 400 * DAY, expiresAtMs: NOW })],
  ]
  for (const [what, code, bundle] of cases) {
    const dir = join(mirror.dir, code)
    await t.rejects(mirror.import(writeParts(dir, bundle)), { code }, what)
    t.same(kept(mirror), before, `${what} leaves no trace`)
  }
})

t.test('an expired bundle is refused with both dates', async (t) => {
  const mirror = open(t)
  const files = writeParts(mirror.stick, signContent(one(), { expiresAtMs: Date.UTC(2027, 0, 1) }))
  const nowMs = Date.UTC(2027, 2, 5)
  await t.rejects(mirror.import(files, { nowMs, clockMs: nowMs }), {
    code: 'ROLE_EXPIRED',
    message: /hq-1\.tar.*2027-01-01.*2027-03-05/,
  })
})

t.test('a bit flipped anywhere, a cut, an addition: refused, and no trace is left', async (t) => {
  const mirror = open(t)
  await mirror.import(writeParts(mirror.stick, signContent(one())))
  const before = kept(mirror)
  const [whole] = writeParts(
    join(mirror.dir, 'new'),
    signContent(makeContent(2, [{ stamp: 20, packages: ['x', 'y', 'z'] }])),
  )
  const good = readFileSync(whole!)
  const damaged = (name: string, bytes: Buffer) => {
    const file = join(mirror.dir, `${name}.tar`)
    writeFileSync(file, bytes)
    return file
  }
  // Not the root that is pinned already, which is not read, nor part.json, which serves messages only.
  for (const name of ['timestamp.json', '2.snapshot.json', '2.targets.json', 'trees/', 'blobs/']) {
    const entry = entriesOf(good).findLast((one) => one.name.includes(name))!
    const file = damaged('flipped', good)
    flipByte(file, entry.bytesAt + Math.floor(entry.bytes / 2))
    await t.rejects(mirror.import(file), { code: /^(?:ROLE|BLOB|BUNDLE)_/ }, name)
    t.same(kept(mirror), before, `${name} leaves no trace`)
  }
  const last = entriesOf(good).at(-1)!
  for (const at of [100, entriesOf(good)[2]!.bytesAt, last.headerAt, last.bytesAt + 1, good.length - 512]) {
    await t.rejects(mirror.import(damaged('cut', good.subarray(0, at))), { code: 'BUNDLE_TRUNCATED' }, `cut at ${at}`)
  }
  await t.rejects(mirror.import(damaged('more', Buffer.concat([good, good]))), { code: 'BUNDLE_TRAILING' })
  t.same(kept(mirror), before)
  t.match(await mirror.import(whole!), { number: 2, missing: [] }, 'and the good one still goes in')
})

t.test('parts that came before a failing one are kept', async (t) => {
  const mirror = open(t)
  const bundle = signContent(one())
  const [first, second] = writeParts(mirror.stick, bundle, halves(bundle)) as [string, string]
  flipByte(second, entriesOf(second).at(-1)!.bytesAt)
  await t.rejects(mirror.import([first, second]), { code: 'BLOB_DIGEST_MISMATCH', message: /hq-1-2of2\.tar/ })
  t.ok(halves(bundle)[0].every((sha256) => mirror.store.blobs.has(sha256)))
  t.notOk(halves(bundle)[1].some((sha256) => mirror.store.blobs.has(sha256)))
  t.same(readdirSync(mirror.store.stagingDir), [])
})

t.test('a dry run verifies everything and keeps nothing', async (t) => {
  const mirror = open(t)
  const before = kept(mirror)
  const bundle = signContent(one())
  const files = writeParts(mirror.stick, bundle, halves(bundle))
  t.match(await mirror.import(files, { isDryRun: true }), {
    isDryRun: true,
    isNew: true,
    missing: [],
    parts: [{ newBlobs: 3 }, { newBlobs: 3 }],
  })
  t.equal((await mirror.import(files[0]!, { isDryRun: true })).missing.length, 3, 'what is missing is said')
  flipByte(files[1]!, entriesOf(files[1]!).at(-1)!.bytesAt)
  await t.rejects(mirror.import(files, { isDryRun: true }), { code: 'BLOB_DIGEST_MISMATCH' })
  t.same(kept(mirror), before)
})

t.test('an import that is told to end keeps nothing half-done', async (t) => {
  const mirror = open(t)
  const before = kept(mirror)
  const stop = new AbortController()
  const [file] = writeParts(mirror.stick, signContent(one()))
  const onProgress = () => stop.abort(new Error('ended by SIGINT'))
  await t.rejects(mirror.import(file!, { signal: stop.signal, onProgress }), { message: 'ended by SIGINT' })
  t.same(kept(mirror), before)
})

t.test('what a killed import left in staging/ is removed by the next one', async (t) => {
  const mirror = open(t)
  const staging = mirror.store.stagingDir
  mkdirSync(join(staging, 'trust-abc'))
  writeFileSync(join(staging, 'trust-abc', 'root.json'), '{}')
  writeFileSync(join(staging, 'half'), 'half a blob')
  await mirror.import(writeParts(mirror.stick, signContent(one())), { isDryRun: true })
  t.same(readdirSync(staging), [])
})

t.test('one import at a time; readers are not locked out', async (t) => {
  const mirror = open(t)
  t.throws(() => openStoreForWriting(mirror.store.dir), {
    code: 'STORE_BUSY',
    message: new RegExp(String(process.pid)),
  })
  const reader = openStore(mirror.store.dir)
  t.equal(reader.site, 'hq')
  reader.close()
})

t.test('a blob that was cut short in the store is brought again', async (t) => {
  const mirror = open(t)
  const [file] = writeParts(mirror.stick, signContent(one()))
  await mirror.import(file!)
  truncateSync(mirror.store.blobs.pathOf(blobOf('package a')), 3)
  t.match(await mirror.import(file!), { parts: [{ newBlobs: 1 }] })
  t.equal(mirror.store.blobs.read(blobOf('package a'), 100).toString(), 'package a')
})

t.test(
  'what rotted in the store is brought again: bytes of the right length, trees, what cannot be read',
  async (t) => {
    const mirror = open(t)
    const content = one()
    const [file] = writeParts(mirror.stick, signContent(content))
    await mirror.import(file!)
    const { blobs } = mirror.store
    const [tree] = [...content.trees.keys()]
    flipByte(blobs.pathOf(blobOf('package a')), 2)
    flipByte(blobs.pathOf(tree!), 9)
    renameSync(blobs.pathOf(blobOf('package b')), join(mirror.dir, 'b'))
    symlinkSync(join(mirror.dir, 'b'), blobs.pathOf(blobOf('package b')))
    t.match(await mirror.import(file!, { isDryRun: true }), { parts: [{ newBlobs: 2 }] })
    t.throws(() => blobs.read(blobOf('package a'), 100), { code: 'BLOB_DIGEST_MISMATCH' }, 'a dry run mends nothing')
    t.match(await mirror.import(file!), { parts: [{ newBlobs: 2 }] })
    for (const name of [blobOf('package a'), blobOf('package b'), tree!]) t.ok(blobs.read(name, 10_000))
    t.match(await mirror.import(file!), { parts: [{ newBlobs: 0 }] })
  },
)

t.test('a newer root comes with a bundle, and stays', async (t) => {
  const mirror = open(t)
  await mirror.import(writeParts(mirror.stick, signContent(one())))
  const next = { root: sampleKeys.root, bundle: [newKey()] }
  const root2 = makeRoot(next, { version: 2 })
  await mirror.import(writeParts(mirror.stick, signContent(two(), { keys: next, roots: [sampleRoot, root2] })))
  t.same(mirror.store.catalog.trusted().roots, [sampleRoot, root2])
  const three = makeContent(3, [{ stamp: 30 }])
  await t.rejects(
    mirror.import(writeParts(mirror.stick, signContent(three))),
    { code: 'ROLE_SIGNATURE' },
    'the old key is out',
  )
})

t.test('on a stick the newest bundle of our site is found, and the rest is named', async (t) => {
  const mirror = open(t)
  const folder = join(mirror.stick, 'gapferry', 'hq')
  writeParts(folder, signContent(one()))
  const bundle = signContent(makeContent(10, [{ stamp: 20, packages: ['a', 'b'] }]))
  const parts = writeParts(folder, bundle, halves(bundle))
  writeParts(join(mirror.stick, 'gapferry', 'lab'), signContent(two()))
  symlinkSync(parts[0]!, join(folder, 'hq-99.tar'))
  writeFileSync(join(folder, 'hq-11.tar.part'), 'unfinished')
  writeFileSync(join(folder, '._hq-12.tar'), 'what macOS leaves')
  writeFileSync(join(folder, 'holiday.tar'), 'photos')
  writeFileSync(join(folder, 'lab-50.tar'), 'strayed')
  const result = await mirror.import(mirror.stick)
  t.match(result, { number: 10, missing: [] })
  t.same(
    result.parts.map(({ file }) => file),
    parts,
  )
  t.same(
    new Map(result.ignored.map(({ file, reason }) => [basename(file), reason])),
    new Map([
      ['holiday.tar', 'is not named like a part'],
      ['hq-1.tar', 'is older than bundle 10'],
      ['hq-99.tar', 'is not a regular file'],
      ['lab-50.tar', 'is of site lab'],
    ]),
  )
})

t.test('a folder of parts is as good as a stick', async (t) => {
  const mirror = open(t)
  writeParts(join(mirror.dir, 'hq'), signContent(one()))
  t.match(await mirror.import(mirror.dir, { isDryRun: true }), { number: 1 }, 'the folder above')
  t.match(await mirror.import(join(mirror.dir, 'hq')), { number: 1, missing: [] })
})

t.test('says what is there instead of a bundle', async (t) => {
  const mirror = open(t)
  await t.rejects(mirror.import(mirror.stick), { code: 'BUNDLE_NOT_FOUND', hint: /gapferry\/hq/ })
  writeParts(join(mirror.stick, 'gapferry', 'lab'), signContent(one()))
  await t.rejects(mirror.import(mirror.stick), { code: 'BUNDLE_NOT_FOUND', message: /bundles of lab/ })
  await t.rejects(mirror.import(join(mirror.dir, 'nowhere')), { code: 'BUNDLE_NOT_FOUND' })
  await t.rejects(mirror.import([]), { code: 'USAGE_INVALID' })
})

t.test('files of several bundles go in by number, whatever order the shell gave them', async (t) => {
  const mirror = open(t)
  const nine = writeParts(mirror.stick, signContent(makeContent(9, [{ stamp: 9 }])))
  const ten = writeParts(mirror.stick, signContent(makeContent(10, [{ stamp: 10 }])))
  t.match(await mirror.import([...ten, ...nine, ...ten]), { number: 10, missing: [], parts: { length: 2 } })
  t.same(
    mirror.store.catalog.bundles().map((row) => row.number),
    [10, 9],
  )
})

t.test('a renamed part is still a part, a link is not', async (t) => {
  const mirror = open(t)
  const [file] = writeParts(mirror.stick, signContent(one()))
  renameSync(file!, join(mirror.dir, 'update'))
  symlinkSync(join(mirror.dir, 'update'), join(mirror.dir, 'link.tar'))
  await t.rejects(mirror.import(join(mirror.dir, 'link.tar')), { code: 'BUNDLE_NOT_REGULAR' })
  t.match(await mirror.import(join(mirror.dir, 'update')), { number: 1, missing: [] })
})

t.test('says how much room is needed before anything is written', async (t) => {
  const mirror = open(t)
  const before = kept(mirror)
  const bundle = sampleBundle({
    change: ({ tree, targets }) => {
      const entry = tree.entries.values().next().value!
      for (let i = 0; i < 18_000; i++) {
        const path = `big/${i}` as Parameters<typeof tree.entries.set>[0]
        tree.entries.set(path, { ...entry, sha256: sha256Of(path), bytes: 2 ** 31 - 1 })
      }
      tree.entries = new Map([...tree.entries].sort(([a], [b]) => (a < b ? -1 : 1)))
      targets.set('pbx/current', serializeTree(tree))
    },
  })
  const file = join(mirror.stick, 'hq-1.tar')
  writeFileSync(file, archive(partEntries(bundle)))
  const { bavail, bsize } = statfsSync(mirror.store.dir)
  truncateSync(file, bavail * bsize + 2 ** 30)
  await t.rejects(mirror.import(file), {
    code: 'SPACE_SHORT',
    message: /expected .*B of free space for hq-1\.tar, found .*B/,
  })
  t.same(kept(mirror), before)
})

t.test('a dry run judges the medium’s own copy of what is here already', async (t) => {
  const mirror = open(t)
  const [file] = writeParts(mirror.stick, signContent(one()))
  await mirror.import(file!)
  const blob = entriesOf(file!).find(({ name }) => name.startsWith('blobs/'))!
  flipByte(file!, blob.bytesAt)
  await t.rejects(mirror.import(file!, { isDryRun: true }), { code: 'BLOB_DIGEST_MISMATCH' })
})
