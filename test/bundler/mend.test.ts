import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { pack, type PackOptions, type PackResult } from '../../bundler/pack.ts'
import { verifyFiles } from '../../bundler/verify.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { randomOf } from '../helpers/crash.ts'
import { sampleBundle, sampleRoot } from '../helpers/part.ts'
import { preparePack } from '../helpers/packing.ts'
import { NOW } from '../helpers/site.ts'
import { entriesOf, flipByte } from '../helpers/tar.ts'

const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)
const MB = 2 ** 20
const noise = (seed: number, bytes: number): Buffer => {
  const random = randomOf(seed)
  return Buffer.from(Array.from({ length: bytes }, () => random() * 256))
}
const sample = sampleBundle({
  files: Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`f${i}`, noise(i, 300_000 + i * 1000)] as const)),
})
const partSizeBytes = 1_300_000

interface Packed {
  folder: string
  names: string[]
  dir: string
  /** name → bytes as they must be */
  good: Map<string, Buffer>
  verify: PackOptions['verify']
  repair: (more?: Partial<PackOptions>) => Promise<PackResult>
}

async function packed(t: Test): Promise<Packed> {
  const { options, folder, dir } = await preparePack(t, sample)
  const { files } = await pack({ ...options, partSizeBytes })
  const names = files.map(({ name }) => name)
  const good = new Map(names.map((name) => [name, readFileSync(join(folder, name))]))
  const { verify } = options
  return { folder, names, dir, good, verify, repair: (more) => pack({ ...options, isRepair: true, ...more }) }
}

t.test(`bits that flip anywhere in every part are found, named and mended (GAPFERRY_SEED=${SEED})`, async (t) => {
  const { folder, names, dir, good, repair } = await packed(t)
  t.equal(names.length, 3)
  const random = randomOf(SEED)
  const verify = (): ReturnType<typeof verifyFiles> =>
    verifyFiles(
      names.map((name) => join(folder, name)),
      { trusted: { roots: [sampleRoot] }, nowMs: NOW, scratchDir: dir },
    )
  for (let round = 0; round < 8; round++) {
    const spoiled = names.filter((_, index) => index === round % 3 || random() < 0.3)
    for (const name of spoiled) flipByte(join(folder, name), randomPlace(name, good, random))
    await t.rejects(verify(), { message: new RegExp(spoiled.map((name) => `${name}:`).join('[^]*')) })
    const { files, absent } = await repair()
    t.strictSame(
      files.filter(({ isKept }) => !isKept).map(({ name }) => name),
      spoiled,
    )
    for (const { name, mendedBytes = 0 } of files) t.ok(mendedBytes <= MB, `${name}: no more than what was bad`)
    t.strictSame(absent, [])
    for (const [name, bytes] of good) t.ok(readFileSync(join(folder, name)).equals(bytes), name)
    await verify()
  }
})

/** Not in part.json and the roots, where the verifier alone does not look at every bit. */
function randomPlace(name: string, good: Map<string, Buffer>, random: () => number): number {
  const bytes = good.get(name)!
  const blind = entriesOf(bytes).filter((entry) => entry.name === 'part.json' || entry.name.endsWith('root.json'))
  for (;;) {
    const at = Math.floor(random() * bytes.length)
    if (!blind.some(({ bytesAt, bytes: length }) => at >= bytesAt && at < bytesAt + length + 512)) return at
  }
}

t.test('also the bits that no reader looks at', async (t) => {
  const { folder, names, good, repair } = await packed(t)
  for (const wanted of ['part.json', '1.root.json']) {
    const file = join(folder, names[0]!)
    flipByte(file, entriesOf(file).find(({ name }) => name.endsWith(wanted))!.bytesAt + 20)
    t.match(await repair(), { files: [{ isKept: false, mendedBytes: MB }, { isKept: true }, { isKept: true }] })
    t.ok(readFileSync(file).equals(good.get(names[0]!)!), wanted)
  }
})

t.test('what was cut, made longer, or stands for something else becomes the part again', async (t) => {
  const { folder, names, dir, good, repair } = await packed(t)
  const file = join(folder, names[1]!)
  const replaced = (make: () => void) => () => {
    rmSync(file)
    make()
  }
  writeFileSync(join(dir, 'victim'), 'mine')
  const faults: Record<string, () => void> = {
    'cut within a block': () => truncateSync(file, 400_001),
    'nothing left': () => truncateSync(file, 0),
    longer: () => appendFileSync(file, 'more'),
    'a run was stopped': () => renameSync(file, `${file}.part`),
    'a link': replaced(() => symlinkSync(join(dir, 'victim'), file)),
    'a pipe': replaced(() => execFileSync('mkfifo', [file])),
  }
  for (const [what, spoil] of Object.entries(faults)) {
    spoil()
    t.match(await repair(), { files: [{ isKept: true }, { isKept: false }, { isKept: true }] }, what)
    t.ok(readFileSync(file).equals(good.get(names[1]!)!), what)
    t.strictSame(
      readdirSync(folder).filter((name) => name.endsWith('.part')),
      [],
      what,
    )
  }
  t.equal(readFileSync(join(dir, 'victim'), 'utf8'), 'mine')
})

t.test('of a stick with some of the parts only those are mended, and the others named', async (t) => {
  const { folder, names, good, repair } = await packed(t)
  rmSync(join(folder, names[1]!))
  flipByte(join(folder, names[2]!), 900_000)
  const { files, absent } = await repair()
  t.strictSame(absent, [names[1]])
  t.match(files, [{ isKept: true }, { isKept: false }])
  t.ok(readFileSync(join(folder, names[2]!)).equals(good.get(names[2]!)!))
  t.notOk(readdirSync(folder).includes(names[1]!))
})

t.test('where no part tells any more how it was cut, --part-size does', async (t) => {
  const { folder, names, good, repair } = await packed(t)
  for (const name of names) flipByte(join(folder, name), 3)
  await t.rejects(repair(), { code: 'BUNDLE_NOT_FOUND' })
  t.match(await repair({ partSizeBytes }), { files: names.map(() => ({ isKept: false, mendedBytes: Number })) })
  for (const [name, bytes] of good) t.ok(readFileSync(join(folder, name)).equals(bytes), name)
})

t.test('a part.json that lies about the cut is not believed', async (t) => {
  const { folder, names, repair } = await packed(t)
  const file = join(folder, names[0]!)
  const { bytesAt } = entriesOf(file).find(({ name }) => name === 'part.json')!
  const bytes = readFileSync(file)
  // another digest of the same length, and still canonical
  bytes.write('0'.repeat(8), bytes.indexOf('"first":"', bytesAt) + 9)
  writeFileSync(file, bytes)
  const { files } = await repair()
  t.equal(files.length, 3)
  t.notSame(sha256Of(bytes), files[0]!.sha256)
})

t.test('nothing to mend: nothing is written; nothing there: nothing is made', async (t) => {
  const { folder, names, dir, repair } = await packed(t)
  const before = names.map((name) => statSync(join(folder, name)).mtimeMs)
  t.match(await repair(), { files: names.map(() => ({ isKept: true })) })
  t.strictSame(
    names.map((name) => statSync(join(folder, name)).mtimeMs),
    before,
  )
  mkdirSync(join(dir, 'other'))
  await t.rejects(repair({ toDir: join(dir, 'other') }), { code: 'BUNDLE_NOT_FOUND' })
  t.strictSame(readdirSync(join(dir, 'other')), [])
})

t.test('a stick that stays bad keeps no part of that name', async (t) => {
  const { folder, names, repair, verify: honest } = await packed(t)
  flipByte(join(folder, names[0]!), 900_000)
  const verify: PackOptions['verify'] = async (file) => {
    if (file.endsWith('.part')) flipByte(file, 900_000)
    return honest(file)
  }
  await t.rejects(repair({ verify }), { code: 'PACK_READ_BACK', message: new RegExp(names[0]!) })
  t.notOk(readdirSync(folder).includes(names[0]!))
})
