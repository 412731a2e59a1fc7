import { spawnSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { pack, type PackOptions } from '../../bundler/pack.ts'
import { verifyFiles } from '../../bundler/verify.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { archive, partEntries, sampleBundle, sampleRoot, type SampleBundle } from '../helpers/part.ts'
import { preparePack, type Packing } from '../helpers/packing.ts'
import { NOW } from '../helpers/site.ts'

const files = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`f${i}`, Buffer.alloc(i * 1000, i)] as const))
const sample = sampleBundle({ files })
/** The bytes that the one part must have, made by code of its own. */
const expected = archive(partEntries(sample))

t.test('writes the part, its checksum, the root and the checker, and nothing else', async (t) => {
  const { options, folder } = await prepare(t)
  const progress: number[] = []
  const { files } = await pack({ ...options, onProgress: (bytes) => progress.push(bytes) })
  const sha256 = sha256Of(expected)
  t.strictSame(files, [{ name: 'hq-1.tar', bytes: expected.length, sha256, isKept: false }])
  t.ok(readFileSync(join(folder, 'hq-1.tar')).equals(expected))
  t.equal(readFileSync(join(folder, 'hq-1.tar.sha256'), 'utf8'), `${sha256}  hq-1.tar\n`)
  t.ok(readFileSync(join(folder, 'root.json')).equals(sampleRoot))
  t.equal(readFileSync(join(folder, 'verify.py'), 'utf8'), 'print()')
  t.strictSame(readdirSync(folder).sort(), ['gapferry-box', 'hq-1.tar', 'hq-1.tar.sha256', 'root.json', 'verify.py'])
  t.equal(sum(progress), expected.length)
})

t.test('stock tools read the part and its checksum', async (t) => {
  const { options, folder } = await prepare(t)
  await pack(options)
  const run = (command: string, ...args: string[]) => spawnSync(command, args, { cwd: folder, encoding: 'utf8' })
  t.match(run('sha256sum', '-c', 'hq-1.tar.sha256'), { status: 0, stdout: 'hq-1.tar: OK\n' })
  const listed = run('tar', 'tf', 'hq-1.tar')
  t.equal(listed.status, 0, listed.stderr)
  t.strictSame(
    listed.stdout.trim().split('\n'),
    partEntries(sample).map(({ name }) => name),
  )
})

t.test('the same bundle gives the same bytes', async (t) => {
  const { options, dir } = await prepare(t)
  const first = await pack({ ...options, toDir: join(dir, 'one'), partSizeBytes: 30_000 })
  const second = await pack({ ...options, toDir: join(dir, 'two'), partSizeBytes: 30_000 })
  t.ok(first.files.length > 2)
  t.strictSame(first.files, second.files)
})

t.test('cuts a bundle into parts that each verify alone and are complete together', async (t) => {
  const { options, folder, dir } = await prepare(t)
  const { files } = await pack({ ...options, partSizeBytes: 30_000 })
  const judge = (names: string[]) =>
    verifyFiles(
      names.map((name) => join(folder, name)),
      { trusted: { roots: [sampleRoot] }, nowMs: NOW, scratchDir: dir },
    )
  for (const { name, bytes } of files) {
    t.ok(bytes <= 30_000)
    t.equal(statSync(join(folder, name)).size, bytes)
    const [alone] = await judge([name])
    t.ok(alone!.missing.length > 0)
  }
  const [whole] = await judge(files.map(({ name }) => name).reverse())
  t.strictSame(whole!.missing, [])
  t.equal(whole!.blobs, sample.blobs.size)
})

t.test('what a crash left on the stick goes, whatever bundle it was of; what is not ours stays', async (t) => {
  const { options, folder } = await prepare(t)
  mkdirSync(folder, { recursive: true })
  const left = ['hq-1.tar.part', 'hq-7.tar.part', 'hq-8.tar.sha256.part', 'root.json.part', 'verify.py.part']
  const others = ['holiday.jpg.part', 'lab-7.tar.part', 'x.part', 'hq-7.tar']
  for (const name of [...left, ...others]) writeFileSync(join(folder, name), 'half of it')
  await pack(options)
  const own = ['gapferry-box', 'hq-1.tar', 'hq-1.tar.sha256', 'root.json', 'verify.py']
  t.strictSame(readdirSync(folder).sort(), [...own, ...others].sort())
})

t.test('a part that is there already stays as it is', async (t) => {
  const { options, folder } = await prepare(t)
  await pack(options)
  const before = statSync(join(folder, 'hq-1.tar')).ino
  writeFileSync(join(folder, 'hq-1.tar.sha256'), 'spoiled')
  const progress: number[] = []
  const { files } = await pack({ ...options, onProgress: (bytes) => progress.push(bytes) })
  t.match(files, [{ name: 'hq-1.tar', isKept: true, sha256: sha256Of(expected) }])
  t.equal(statSync(join(folder, 'hq-1.tar')).ino, before)
  t.match(readFileSync(join(folder, 'hq-1.tar.sha256'), 'utf8'), sha256Of(expected))
  t.equal(sum(progress), expected.length, 'progress ends at the whole')
})

t.test('a part of the same name with other bytes is replaced', async (t) => {
  const { options, folder } = await prepare(t)
  mkdirSync(folder, { recursive: true })
  const spoiled = Buffer.from(expected)
  spoiled[spoiled.length - 2000]! ^= 1
  for (const other of [spoiled, expected.subarray(0, 5000)]) {
    writeFileSync(join(folder, 'hq-1.tar'), other)
    t.match(await pack(options), { files: [{ isKept: false }] })
    t.ok(readFileSync(join(folder, 'hq-1.tar')).equals(expected))
  }
})

t.test('links in the way are replaced, never written through', async (t) => {
  const { options, folder, dir } = await prepare(t)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(dir, 'victim'), expected)
  for (const name of ['hq-1.tar', 'hq-1.tar.part']) symlinkSync(join(dir, 'victim'), join(folder, name))
  t.match(await pack(options), { files: [{ isKept: false }] })
  t.ok(readFileSync(join(dir, 'victim')).equals(expected))
  t.equal(existsSync(join(folder, 'hq-1.tar.part')), false)
})

t.test('a rotten blob gets into no bundle, and is named', async (t) => {
  const { options, folder } = await prepare(t)
  const rotten = sha256Of(files['f7']!)
  writeFileSync(options.blobs.pathOf(rotten), Buffer.alloc(7000, 8))
  await t.rejects(pack(options), { code: 'BLOB_DIGEST_MISMATCH', message: new RegExp(rotten) })
  t.strictSame(readdirSync(folder), [])
})

t.test('a blob that is not in the store, or not whole, is named before anything is written', async (t) => {
  const { options, dir } = await prepare(t)
  const short = sha256Of(files['f7']!)
  truncateSync(options.blobs.pathOf(short), 10)
  await t.rejects(pack(options), { code: 'BLOB_SIZE_MISMATCH', message: new RegExp(short) })
  const absent = sha256Of('absent')
  await t.rejects(pack({ ...options, wanted: new Map([[absent, 5]]) }), {
    code: 'BLOB_MISSING',
    message: new RegExp(absent),
  })
  t.equal(existsSync(join(dir, 'stick')), false)
})

t.test('a stick without room is refused with both figures before anything is written', async (t) => {
  const { options, folder } = await prepare(t)
  const blobs = new BlobStore(join(t.testdir({ sparse: {} }), 'sparse'))
  // A store that says it holds 40 TB, more than any test machine has free.
  const wanted = new Map<ReturnType<typeof sha256Of>, number>()
  for (let i = 0; i < 20_000; i++) wanted.set(sha256Of(`large ${i}`), 2_000_000_000)
  blobs.sizeOf = (sha256) => wanted.get(sha256)
  await t.rejects(pack({ ...options, blobs, wanted }), { code: 'SPACE_SHORT', message: /40\.0 TB to write, .* free/ })
  t.strictSame(readdirSync(folder), [])
})

t.test('bytes that come back from the medium in another way are noticed, wherever they are', async (t) => {
  const { options, folder } = await prepare(t)
  const places = {
    'a header': 3,
    metadata: 1000,
    'part.json': expected.indexOf('"gapferry-part"'),
    'the header of a blob': expected.indexOf('blobs/') + 10,
    'a blob': expected.indexOf(files['f7']!) + 500,
    'the end': expected.length - 1,
  }
  for (const [what, at] of Object.entries(places)) {
    const onProgress = spoilOnce(join(folder, 'hq-1.tar.part'), at)
    await t.rejects(pack({ ...options, onProgress }), { code: 'PACK_READ_BACK' }, what)
    t.strictSame(readdirSync(folder), [])
  }
  const lost: PackOptions['verify'] = async () => ({ frame: sha256Of('another frame'), isPastCache: false })
  await t.rejects(pack({ ...options, verify: lost }), { code: 'PACK_READ_BACK' }, 'the frame counts, whatever the rest')
})

t.test('a part gets its name only when its judge agrees', async (t) => {
  const { options, folder } = await prepare(t)
  const verify = async (file: string): Promise<never> => {
    t.equal(file, join(folder, 'hq-1.tar.part'))
    t.strictSame(readdirSync(folder), ['hq-1.tar.part'])
    throw new Error('no')
  }
  await t.rejects(pack({ ...options, verify }), { message: 'no' })
  t.strictSame(readdirSync(folder), [])
})

t.test('a stop leaves whole parts and nothing else; the next run goes on from there', async (t) => {
  const large = sampleBundle({ files: { a: Buffer.alloc(3 * 2 ** 20, 1), b: Buffer.alloc(3 * 2 ** 20, 2) } })
  const { options, folder } = await prepare(t, large)
  const partSizeBytes = 3 * 2 ** 20 + 30_000
  const abort = new AbortController()
  let written = 0
  const onProgress = (bytes: number): void => {
    written += bytes
    if (written > partSizeBytes + 2 ** 20) abort.abort()
  }
  await t.rejects(pack({ ...options, partSizeBytes, signal: abort.signal, onProgress }), { name: 'AbortError' })
  t.strictSame(readdirSync(folder).sort(), ['hq-1-1of2.tar', 'hq-1-1of2.tar.sha256'])
  const { files } = await pack({ ...options, partSizeBytes })
  t.match(files, [{ isKept: true }, { isKept: false }])
})

t.test('pipes and links under the names of what is written are replaced, and not waited for', async (t) => {
  const { options, folder, dir } = await prepare(t)
  mkdirSync(folder, { recursive: true })
  const names = ['gapferry-box', 'hq-1.tar', 'hq-1.tar.sha256', 'root.json', 'verify.py', 'hq-1.txt']
  for (const name of names) spawnSync('mkfifo', [join(folder, name)])
  const slip = (): Buffer => Buffer.from('slip')
  await pack({ ...options, slip })
  for (const name of names) t.ok(lstatSync(join(folder, name)).isFile(), name)
  writeFileSync(join(dir, 'victim'), 'slip')
  for (const name of names) {
    rmSync(join(folder, name))
    symlinkSync(join(dir, 'victim'), join(folder, name))
  }
  await pack({ ...options, slip })
  for (const name of names) t.ok(lstatSync(join(folder, name)).isFile(), name)
  t.equal(readFileSync(join(dir, 'victim'), 'utf8'), 'slip')
})

t.test('a folder of the stick that leads elsewhere is refused', async (t) => {
  const { options, dir } = await prepare(t)
  mkdirSync(join(dir, 'elsewhere'))
  for (const link of ['stick/gapferry', 'stick/gapferry/hq']) {
    mkdirSync(join(dir, link, '..'), { recursive: true })
    symlinkSync(join(dir, 'elsewhere'), join(dir, link))
    await t.rejects(pack(options), { code: 'MEDIUM_UNUSABLE', message: new RegExp(link) })
    rmSync(join(dir, link))
  }
  t.strictSame(readdirSync(join(dir, 'elsewhere')), [])
})

t.test('a stick that writes later parts over earlier ones is found out, and the part named', async (t) => {
  const { options, folder } = await prepare(t)
  const spoilFirst: PackOptions['verify'] = async (file) => {
    const found = await options.verify(file)
    if (!file.includes('1of'))
      spoil(
        join(
          folder,
          readdirSync(folder).find((name) => /-1of\d+\.tar$/.test(name))!,
        ),
      )
    return found
  }
  const packing = pack({ ...options, partSizeBytes: 40_000, verify: spoilFirst })
  await t.rejects(packing, { code: 'PACK_READ_BACK', message: /hq-1-1of4\.tar/ })
  t.notOk(readdirSync(folder).includes('hq-1-1of4.tar'), 'it has its name no more')
  t.match(await pack({ ...options, partSizeBytes: 40_000 }), { files: [{ isKept: false }] })
})

t.test('reading back says whether it was the medium that was read', async (t) => {
  const { options } = await prepare(t)
  // Where the system has no way past the cache, this test cannot say more than that it says so.
  const isDirect = spawnSync('dd', [`if=${import.meta.filename}`, 'of=/dev/null', 'iflag=direct']).status === 0
  t.equal((await pack(options)).isPastCache, isDirect)
  const inCache: PackOptions['verify'] = async (file) => ({ ...(await options.verify(file)), isPastCache: false })
  t.equal((await pack({ ...options, verify: inCache })).isPastCache, false, 'also of a part that was there')
})

t.test('a folder that cannot be made is an error of the system', async (t) => {
  const { options, dir } = await prepare(t)
  writeFileSync(join(dir, 'file'), '')
  await t.rejects(pack({ ...options, toDir: join(dir, 'file') }), { code: 'ENOTDIR' })
})

t.test('a part is on the medium before it has its name, and its name before pack ends', async (t) => {
  const dir = t.testdir({ store: {} })
  const script = `
    import { pack } from ${source('bundler/pack.ts')}
    import { BlobStore } from ${source('storage/blobs.ts')}
    import { verifyPart } from ${source('bundler/verify.ts')}
    import { sampleBundle } from ${source('test/helpers/part.ts')}
    const sample = sampleBundle({ files: {} })
    const blobs = new BlobStore(${JSON.stringify(join(dir, 'store'))})
    const options = { toDir: ${JSON.stringify(join(dir, 'stick'))}, rootFile: sample.root, verifyPy: Buffer.from(''), boxTool: Buffer.from('') }
    const judge = { trusted: { roots: [sample.root] }, nowMs: ${NOW}, scratchDir: ${JSON.stringify(dir)} }
    await pack({ ...sample, ...options, blobs, verify: (file) => verifyPart(file, judge) })`
  const trace = join(dir, 'trace')
  const strace = ['-f', '-y', '-e', 'trace=fsync,rename', '-o', trace]
  const node = [process.execPath, '--input-type=module-typescript', '-e', script]
  const { status, stderr } = spawnSync('strace', [...strace, ...node], { encoding: 'utf8' })
  t.equal(status, 0, stderr)
  const calls = readFileSync(trace, 'utf8').matchAll(/(fsync|rename)\((?:\d+<)?"?([^">]+)/g)
  const place = join(dir, 'stick/gapferry/hq')
  const steps = [...calls].filter(([, , path]) => path!.startsWith(place))
  t.strictSame(
    steps.map(([, call, path]) => `${call} ${path!.slice(place.length)}`),
    ['hq-1.tar', 'hq-1.tar.sha256', 'root.json', 'verify.py', 'gapferry-box'].flatMap(replacing),
  )
})

function prepare(t: Test, bundle: SampleBundle = sample): Promise<Packing> {
  return preparePack(t, bundle)
}

/** Plays a faulty medium: after the last byte was written, one of them is another. */
function spoilOnce(file: string, at: number): (bytes: number) => void {
  return () => {
    process.nextTick(() => {
      const bytes = readFileSync(file)
      bytes[at]! ^= 1
      writeFileSync(file, bytes)
    })
  }
}

/** The steps that put a file in its place for good. */
function replacing(name: string): string[] {
  return [`fsync /${name}.part`, `rename /${name}.part`, 'fsync ']
}

/** Another byte in the middle. */
function spoil(file: string): void {
  const bytes = readFileSync(file)
  bytes[bytes.length >> 1]! ^= 1
  writeFileSync(file, bytes)
}

function source(path: string): string {
  return JSON.stringify(join(import.meta.dirname, '../..', path))
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, one) => total + one, 0)
}
