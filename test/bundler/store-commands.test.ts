import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { partialKey } from '../../bundler/transfer.ts'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { inside } from '../helpers/inside.ts'
import type { Outcome } from '../helpers/process.ts'
import { serveSample } from '../helpers/sample-upstream.ts'

interface Lap {
  dir: string
  run(...args: string[]): Promise<Outcome>
  /** ends with `status`, and its JSON */
  json(status: number, ...args: string[]): Promise<any> // eslint-disable-line typescript/no-explicit-any -- foreign to the types
  blobs(): string[]
  /** the file of the blob with these bytes' digest */
  file(sha256: string): string
  settings(include: string): void
}

const FIRMWARE = readFileSync(join(import.meta.dirname, '../sample/firmware/phone-x.bin'))

/** A laptop that has packed a first bundle. */
async function laptop(t: Test): Promise<Lap> {
  const upstream = await serveSample()
  t.teardown(() => upstream.close())
  const dir = t.testdir({ stick: {} })
  const settings = (include: string): void =>
    writeFileSync(
      join(dir, 'gapferry.yaml'),
      `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        yum: [{ id: sng-pkgs, baseurl: ['${upstream.url}/sng7/sng7/'], include: [${include}], newest: 1 }]
        files: [{ url: '${upstream.url}/firmware/phone-x.bin', as: firmware/phone-x.bin, sha256: ${sha256Of(FIRMWARE)} }]
`,
    )
  const run = (...args: string[]) => inside(runGapferry, dir, args)
  const blobsDir = join(dir, 'store/blobs')
  const lap: Lap = {
    dir,
    run,
    json: async (status, ...args) => {
      const outcome = await run(...args, '--json')
      t.equal(outcome.status, status, `${args.join(' ')}: ${outcome.stderr}`)
      return JSON.parse(outcome.stdout)
    },
    blobs: () =>
      readdirSync(blobsDir, { recursive: true, withFileTypes: true })
        .filter((entry) => !entry.isDirectory())
        .map(({ name }) => name)
        .sort(),
    file: (sha256) => join(blobsDir, sha256.slice(0, 2), sha256),
    settings,
  }
  settings(`'asterisk18*'`)
  await lap.json(0, 'init', '--no-passphrase')
  await lap.json(0, 'bundle', '--to', 'stick')
  return lap
}

/** Signs bundles with other content, so that older ones can be forgotten. */
async function moreBundles(lap: Lap): Promise<void> {
  for (const include of [`'asterisk18*', 'freepbx*'`, `'freepbx*'`, `'freepbx*', 'sysadmin*'`]) {
    lap.settings(include)
    await lap.json(0, 'bundle', '--to', 'stick')
  }
}

/** @returns number of the site's newest bundle */
async function newest(lap: Lap): Promise<number> {
  return (await lap.json(0, 'store', 'status')).bundles[0].number
}

function parts(lap: Lap): string[] {
  return readdirSync(join(lap.dir, 'stick/gapferry/hq')).filter((name) => name.endsWith('.tar'))
}

t.test('status says what is here, and what needs it', async (t) => {
  const lap = await laptop(t)
  await moreBundles(lap)
  const before = await lap.json(0, 'store', 'status')
  t.equal(before.blobs.count, lap.blobs().length)
  t.match(before.plan, { sites: ['hq'], toFetch: { count: 0, bytes: 0 } })
  t.same(
    before.bundles.map(({ site, number }: { site: string; number: number }) => `${site} ${number}`),
    ['hq 4', 'hq 3', 'hq 2', 'hq 1'],
  )
  t.same(before.unneeded, { count: 0, bytes: 0 })
  mkdirSync(join(lap.dir, 'store/blobs/00'), { recursive: true })
  writeFileSync(lap.file('0'.repeat(64)), 'nobody’s')
  t.match(await lap.json(0, 'store', 'status'), { unneeded: { count: 1, bytes: 10 } })
  const { stdout } = await lap.run('store', 'status')
  t.match(stdout, /^store +.*files, /m)
  t.match(stdout, /^plan +of .* for hq: \d+ items here, nothing to fetch$/m)
  t.match(stdout, /^bundle 4 for hq +signed .*, \d+ files, .* here$/m)
  t.match(stdout, /^needed by none +1 file, 10 B; to remove them: gapferry store prune$/m)
})

t.test('status and prune know files that came in part', async (t) => {
  const lap = await laptop(t)
  const { partials } = new BlobStore(join(lap.dir, 'store'))
  const source = { url: 'http://vendor.invalid/a', address: sha256Of('a'), validator: '"1"', totalBytes: null }
  const kept: [Parameters<typeof partialKey>[0], number][] = [
    [{ checksum: { algorithm: 'sha256', hex: sha256Of(FIRMWARE) }, urls: [] }, 70_000],
    [{ urls: ['http://vendor.invalid/gone'] }, 80_000],
  ]
  for (const [one, bytes] of kept) {
    const file = partials.open(partialKey(one), undefined)
    file.restart(source)
    file.write(Buffer.alloc(bytes))
    file.keep()
  }
  const before = { partial: { count: 1, bytes: 70_000 }, unneeded: { count: 1, bytes: 80_000 } }
  t.match(await lap.json(0, 'store', 'status'), before)
  t.match((await lap.run('store', 'status')).stdout, /^came in part +1 file, 70(\.0)? kB; to go on: gapferry pull$/m)
  t.match(await lap.json(0, 'store', 'prune', '--yes'), { unneeded: { count: 1, bytes: 80_000 } })
  t.match(await lap.json(0, 'store', 'status'), { ...before, unneeded: { count: 0 } })
  t.match(await lap.json(0, 'store', 'verify'), { isSound: true })
})

t.test('a store before its first plan', async (t) => {
  const lap = await laptop(t)
  rmSync(join(lap.dir, 'store'), { recursive: true })
  t.match(await lap.json(0, 'store', 'status'), { blobs: { count: 0 }, plan: null, bundles: [] })
  t.match((await lap.run('store', 'status')).stdout, /none yet: gapferry plan/)
  t.match(await lap.json(0, 'store', 'verify'), { isSound: true })
  t.match(await lap.json(0, 'store', 'prune', '--yes'), { unneeded: { count: 0 } })
})

t.test(
  'verify names what is rotten and removes nothing; --mend removes it, and the next pull brings it again',
  async (t) => {
    const lap = await laptop(t)
    t.match(await lap.json(0, 'store', 'verify'), { isSound: true, rotten: [] })
    const target = lap.file(sha256Of(FIRMWARE))
    const damages: [string, string, () => void][] = [
      ['a flipped bit', 'digest', () => writeFileSync(target, Buffer.from(FIRMWARE).fill(1, 3, 4))],
      ['cut short', 'size', () => truncateSync(target, 5)],
      ['a link', 'unreadable', () => (rmSync(target), symlinkSync('/etc/hostname', target))],
      ['a folder', 'unreadable', () => (rmSync(target), mkdirSync(target))],
    ]
    for (const [what, fault, damage] of damages) {
      const number = await newest(lap)
      damage()
      const found = await lap.json(1, 'store', 'verify')
      t.match(found.error, { code: 'STORE_ROTTEN', hint: 'gapferry store verify --mend, then gapferry pull' }, what)
      t.same(found.rotten, [{ sha256: sha256Of(FIRMWARE), fault, neededBy: ['plan', `hq ${number}`] }], what)
      t.ok(existsSync(target), 'still there')
      const packed = await lap.run('pack', '--to', 'stick', '--renew')
      t.not(packed.status, 0, 'what is rotten gets on no stick')
      t.match(await lap.json(0, 'store', 'verify', '--mend'), { removed: 1 })
      t.notOk(existsSync(target))
      t.match(await lap.json(0, 'pull'), { fetched: { count: 1 } })
      t.ok(readFileSync(target).equals(FIRMWARE), what)
      t.match(await lap.json(0, 'store', 'verify'), { isSound: true })
    }
  },
)

t.test('a bundle whose file rotted after its digest was checked is written again once that is mended', async (t) => {
  const lap = await laptop(t)
  const target = lap.file(sha256Of(FIRMWARE))
  writeFileSync(target, Buffer.from(FIRMWARE).fill(1, 3, 4))
  const { error } = await lap.json(3, 'pack', '--to', 'stick', '--renew')
  const hint = 'gapferry store verify --mend, then gapferry pull'
  t.match(error, { code: 'BLOB_DIGEST_MISMATCH', message: new RegExp(sha256Of(FIRMWARE)), hint })
  t.strictSame(parts(lap), ['hq-1.tar'], 'it gets on no stick')
  t.equal(await newest(lap), 2, 'what was signed is true, and stays')
  await lap.json(0, 'store', 'verify', '--mend')
  await lap.json(0, 'pull')
  t.match(await lap.json(0, 'pack', '--to', 'stick'), { bundles: [{ number: 2, isNew: false }] })
  t.match(await lap.json(0, 'verify', 'stick/gapferry/hq/hq-2.tar'), { bundles: [{ number: 2, missing: [] }] })
})

t.test('what was cut short, is no file or is gone is never signed; pull brings it again', async (t) => {
  const lap = await laptop(t)
  const rpm = lap.blobs().find((name) => readFileSync(lap.file(name)).readUInt32BE() === 0xedabeedb)!
  for (const name of [rpm, sha256Of(FIRMWARE)]) {
    const [target, whole] = [lap.file(name), readFileSync(lap.file(name))]
    const damages: Record<string, () => void> = {
      'cut short': () => truncateSync(target, 100),
      empty: () => truncateSync(target, 0),
      'a link': () => (rmSync(target), symlinkSync('/etc/hostname', target)),
      gone: () => rmSync(target),
    }
    for (const [what, damage] of Object.entries(damages)) {
      damage()
      const { error } = await lap.json(4, 'pack', '--to', 'stick', '--renew')
      t.match(error, { code: 'PLAN_UNFETCHED', hint: 'gapferry pull' }, what)
      t.equal(await newest(lap), 1, 'nothing was signed')
      t.match(await lap.json(0, 'pull'), { fetched: { count: 1, bytes: whole.length } })
      t.ok(readFileSync(target).equals(whole), what)
    }
  }
  t.match(await lap.json(0, 'pack', '--to', 'stick'), { bundles: [{ number: 1, isNew: false }] })
})

t.test('a list of an upstream that rotted in the store is not the upstream’s fault', async (t) => {
  const lap = await laptop(t)
  const { data } = JSON.parse(readFileSync(join(lap.dir, 'store/plan.json'), 'utf8')).sites[0].groups[0].yum[0]
  for (const type of ['primary', 'filelists', 'other']) {
    const bytes = readFileSync(lap.file(data[type]))
    bytes[bytes.length >> 1]! ^= 1
    writeFileSync(lap.file(data[type]), bytes)
    for (const words of [['pull'], ['pack', '--to', 'stick', '--renew']]) {
      const { error } = await lap.json(3, ...words)
      const hint = 'gapferry store verify --mend, then gapferry pull'
      t.match(error, { code: 'BLOB_DIGEST_MISMATCH', message: new RegExp(`${type}.*in the store is damaged`), hint })
    }
    t.match(await lap.json(0, 'store', 'verify', '--mend'), { removed: 1 })
    await lap.json(0, 'pull')
  }
  t.match(await lap.json(0, 'pack', '--to', 'stick'), { bundles: [{ number: 1, isNew: false }] })
})

t.test('a file whose size nobody remembers is read before it is signed', async (t) => {
  const lap = await laptop(t)
  const settings = join(lap.dir, 'gapferry.yaml')
  writeFileSync(
    settings,
    readFileSync(settings, 'utf8').replace('/firmware/phone-x.bin', '/firmware/phone-x.bin?moved'),
  )
  await lap.json(0, 'pull')
  truncateSync(lap.file(sha256Of(FIRMWARE)), 9)
  const { error } = await lap.json(3, 'pack', '--to', 'stick', '--renew')
  t.match(error, { code: 'BLOB_DIGEST_MISMATCH', message: /phone-x\.bin.*nothing was signed/ })
  t.equal(await newest(lap), 1)
})

t.test('a file cut short that only the way back needs is left out, and stops no bundle', async (t) => {
  const lap = await laptop(t)
  lap.settings(`'freepbx*'`)
  await lap.json(0, 'bundle', '--to', 'stick')
  const { groups } = (await lap.json(0, 'inspect', 'stick/gapferry/hq/hq-1.tar')).bundles[0]
  const { sha256 } = groups[0].entries.find(({ path }: { path: string }) => path.includes('asterisk18'))
  truncateSync(lap.file(sha256), 9)
  t.match(await lap.json(0, 'pack', '--to', 'stick', '--renew'), { bundles: [{ number: 3 }] })
  t.match(await lap.json(0, 'verify', 'stick/gapferry/hq/hq-3.tar'), { bundles: [{ number: 3, missing: [] }] })
})

t.test('everything rotten at once: mend, pull and pack lead back to a good stick', async (t) => {
  const lap = await laptop(t)
  await moreBundles(lap)
  for (const name of lap.blobs()) writeFileSync(lap.file(name), 'rotten')
  const found = await lap.json(1, 'store', 'verify')
  t.equal(found.rotten.length, lap.blobs().length)
  t.match(await lap.json(0, 'store', 'verify', '--mend'), { removed: found.rotten.length })
  t.same(lap.blobs(), [])
  const gone = await lap.json(1, 'store', 'verify')
  t.match(gone.error, { code: 'STORE_ROTTEN', hint: /gapferry pack --to DIR/ }, 'what was signed here is gone')
  await lap.json(0, 'pull')
  mkdirSync(join(lap.dir, 'other'))
  const { bundles } = await lap.json(0, 'pack', '--to', 'other')
  t.match(bundles, [{ number: 5, isNew: true }])
  const parts = bundles[0].files.map(({ path }: { path: string }) => path)
  t.match(await lap.json(0, 'verify', ...parts), { bundles: [{ number: 5, missing: [] }] })
  t.match(await lap.json(0, 'store', 'verify'), { isSound: true })
  t.match((await lap.json(0, 'pack', '--to', 'other')).bundles, [{ number: 5, isNew: false }], 'as good as ever')
})

t.test('prune says what it would do, does it with --yes, and takes nothing that is needed', async (t) => {
  const lap = await laptop(t)
  await moreBundles(lap)
  const before = lap.blobs()
  const plan = await lap.json(0, 'store', 'prune', '--keep', '1')
  t.match(plan, { isDone: false, kept: ['hq 4'] })
  t.ok(plan.unneeded.count > 5)
  t.same(lap.blobs(), before, 'nothing was removed')
  t.match((await lap.run('store', 'prune', '--keep', '1')).stderr, /gapferry store prune --keep 1 --yes/)
  t.match(await lap.json(0, 'store', 'prune', '--keep', '1', '--yes'), { isDone: true, unneeded: plan.unneeded })
  t.equal(lap.blobs().length, before.length - plan.unneeded.count)
  t.match(await lap.json(0, 'store', 'verify'), { isSound: true })
  t.match(await lap.json(0, 'store', 'prune', '--keep', '1'), { unneeded: { count: 0 } })
  mkdirSync(join(lap.dir, 'other'))
  const { bundles } = await lap.json(0, 'pack', '--to', 'other')
  t.match(bundles, [{ number: 4, isNew: false }])
  t.match(await lap.json(0, 'pull'), { fetched: { count: 0 } }, 'the plan and the lists of the upstreams are here')
  lap.settings(`'asterisk18*'`)
  t.match(await lap.json(0, 'bundle', '--to', 'other'), { bundles: [{ number: 5 }] }, 'what was taken is fetched again')
})

t.test('prune removes nothing where a tree that stays is damaged', async (t) => {
  const lap = await laptop(t)
  await moreBundles(lap)
  const before = lap.blobs()
  const tree = before.find((name) => readFileSync(lap.file(name), 'latin1').includes('"role":"previous"'))!
  truncateSync(lap.file(tree), 9)
  const { error } = await lap.json(3, 'store', 'prune', '--yes')
  t.match(error, { code: 'BLOB_DIGEST_MISMATCH', hint: 'gapferry store verify' })
  t.same(lap.blobs(), before)
})

t.test('--keep is a number of bundles; help has an example', async (t) => {
  const lap = await laptop(t)
  for (const keep of ['0', '-1', '1001', 'all']) {
    t.match((await lap.json(2, 'store', 'prune', `--keep=${keep}`)).error, { code: 'USAGE_INVALID' })
  }
  for (const words of [['store'], ['store', 'status'], ['store', 'verify'], ['store', 'prune']]) {
    const { status, stdout } = await lap.run(...words, '--help')
    t.equal(status, 0)
    t.match(stdout, /Examples?:\n {2}gapferry store /)
  }
})
