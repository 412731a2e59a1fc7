import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import SqliteDatabase from 'better-sqlite3'
import t, { type Test } from 'tap'
import { request } from 'undici'
import { Catalog } from '../../storage/catalog.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { runMirror } from '../../server/program.ts'
import { openStore, openStoreForWriting, openStoreToServe } from '../../server/store.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import type { TestTree } from '../helpers/mirror.ts'
import { sampleKeys, sampleRoot } from '../helpers/part.ts'
import { inside } from '../helpers/inside.ts'
import { DAY, makeRoot, newKey, NOW } from '../helpers/site.ts'

const TREES: TestTree[] = [
  { stamp: 20, packages: ['a', 'b'] },
  { stamp: 21, role: 'previous' },
]

interface Damaged extends MirrorProgram {
  db: string
  /** puts the store's files back as they were */
  reset: () => void
}

/** A mirror that serves bundle 2 and has imported 3, closed cleanly. */
async function mirror(t: Test, leaveWal = false): Promise<Damaged> {
  const program = await mirrorProgram(t)
  const { run, stick, storeDir } = program
  const db = join(storeDir, 'catalog.db')
  await run(0, 'import', '--release', stick(1))
  // An open reader keeps the log from being folded into the database.
  const reader = leaveWal ? new SqliteDatabase(db) : undefined
  reader?.prepare('SELECT count(*) FROM mirror').get()
  await run(0, 'import', '--release', stick(2, TREES))
  await run(0, 'import', stick(3))
  const files = ['catalog.db', 'catalog.db-wal', 'state.json'].map((name) => join(storeDir, name))
  for (const file of files) if (existsSync(file)) copyFileSync(file, `${file}.kept`)
  reader?.close()
  const reset = (): void => {
    for (const file of [...files, `${db}-shm`]) rmSync(file, { force: true })
    for (const file of files) if (existsSync(`${file}.kept`)) copyFileSync(`${file}.kept`, file)
  }
  reset()
  return { ...program, db, reset }
}

/** What would be served: group, bundle, role and tree. */
async function served(storeDir: string): Promise<{ served: unknown; isReadOnly: boolean }> {
  const store = await openStoreToServe(storeDir)
  try {
    const groups = [...store.releases.served(Number.MAX_SAFE_INTEGER)].map(([group, { released }]) => [
      group,
      released?.number,
      released?.role,
      released?.sha256,
    ])
    return { served: groups, isReadOnly: 'damage' in store }
  } finally {
    store.close()
  }
}

/** @returns whether a writer would get the store */
function canWrite(storeDir: string): boolean {
  try {
    openStoreForWriting(storeDir).close()
    return true
  } catch (error) {
    if (isGapferryError(error, 'STORE_DAMAGED', 'STORE_VERSION', 'STORE_UNREADABLE')) return false
    throw error
  }
}

const flipAt = (file: string, at: number, bit = 0): void => {
  const bytes = readFileSync(file)
  bytes[at] = bytes[at]! ^ (1 << bit)
  writeFileSync(file, bytes)
}

t.test(
  'whatever byte of the database is flipped, what was released is served, and no other number is believed',
  async (t) => {
    const { storeDir, db, reset } = await mirror(t)
    const good = await served(storeDir)
    t.same(good.isReadOnly, false)
    const size = readFileSync(db).length
    const wrong: number[] = []
    let readOnly = 0
    for (let at = 0; at < size; at += at < 100 ? 3 : 1103) {
      reset()
      flipAt(db, at, at % 8)
      const now = await served(storeDir)
      if (JSON.stringify(now.served) !== JSON.stringify(good.served)) wrong.push(at)
      if (!now.isReadOnly) continue
      readOnly++
      if (canWrite(storeDir)) wrong.push(-at)
    }
    t.same(wrong, [])
    t.ok(readOnly > 10, `${readOnly} of them were noticed; the others change nothing that counts`)
  },
)

t.test('a log that is flipped, cut or gone is noticed by the generation', async (t) => {
  const { storeDir, db, reset, run } = await mirror(t, true)
  const good = await served(storeDir)
  const wal = `${db}-wal`
  const size = readFileSync(`${wal}.kept`).length
  t.ok(size > 10_000, 'the log holds changes')
  const harms = [
    () => rmSync(wal),
    () => truncateSync(wal, 0),
    () => truncateSync(wal, Math.floor(size / 2)),
    () => truncateSync(wal, size - 1),
    ...Array.from({ length: 24 }, (_, i) => () => flipAt(wal, Math.floor((size * i) / 24), i % 8)),
  ]
  for (const harm of harms) {
    reset()
    harm()
    const now = await served(storeDir)
    t.same(now.served, good.served)
    if (now.isReadOnly) t.equal(canWrite(storeDir), false)
  }
  reset()
  rmSync(wal)
  t.match(
    (await run('STORE_DAMAGED', 'import', 'sticks/1')).stderr,
    /generation \d+ as in state\.json.*changes are lost/,
  )
})

t.test('a database that is cut, empty, gone or no database', async (t) => {
  const { storeDir, db, reset, run, json } = await mirror(t)
  const good = await served(storeDir)
  const size = readFileSync(db).length
  const harms: [string, () => void][] = [
    ['cut', () => truncateSync(db, Math.floor(size / 2))],
    ['cut by a byte', () => truncateSync(db, size - 1)],
    ['empty', () => truncateSync(db, 0)],
    ['gone', () => rmSync(db)],
    ['another file', () => writeFileSync(db, 'not a database, by no means: not at all'.repeat(200))],
    ['zeros', () => writeFileSync(db, Buffer.alloc(size))],
  ]
  for (const [name, harm] of harms) {
    reset()
    harm()
    t.same(await served(storeDir), { ...good, isReadOnly: true }, name)
    for (const command of ['import sticks/1', 'release', 'rollback', 'prune --yes', 'bundles', 'audit']) {
      const { stderr } = await run('STORE_DAMAGED', ...command.split(' '))
      t.match(stderr, /next: gapferry-mirror restore BACKUP --replace; without a backup move .*catalog\.db\* away/)
    }
    t.match(await json('status'), { bundle: 2, alarms: [{ name: 'DATABASE_DAMAGED' }] })
    t.match((await run(0, 'status')).stdout, /^ALARM DATABASE_DAMAGED: serving read-only/)
  }
})

t.test('serve goes on read-only and says so in status and log', async (t) => {
  const { dir, db } = await mirror(t)
  rmSync(db)
  const end = new AbortController()
  const ready = /^pbx +(http:\S+)\nadmin +(http:\S+)$/m
  const stdout = new PassThrough()
  const around = { nowMs: () => NOW, stdout, signal: end.signal }
  const running = inside(runMirror, dir, ['serve', '--config', 'mir/mirror.yaml'], around)
  let out = ''
  for await (const chunk of stdout) if (ready.test((out += String(chunk)))) break
  const [, origin, admin] = ready.exec(out)!
  const get = async (url: string) => {
    const { statusCode, body } = await request(url)
    return [statusCode, await body.text()] as const
  }
  t.same(await get(`${origin}/yum/base/b.rpm`), [200, 'package b'])
  t.same(await get(`${origin}/yum/base/repodata/repomd.xml`), [200, 'repomd of pbx/current 2 20'])
  t.equal((await get(`${admin}/healthz`))[0], 200)
  t.match(JSON.parse((await get(`${admin}/api/v1/status`))[1]), {
    bundle: 2,
    alarms: [{ name: 'DATABASE_DAMAGED', text: /read-only.*the database is gone/ }],
  })
  end.abort(new Error('ended by the test'))
  const { stderr } = await running
  t.match(stderr, /"alarm":"DATABASE_DAMAGED"/)
})

t.test('way out without a backup: init makes the database anew from state.json, and forgets no number', async (t) => {
  const { storeDir, db, run, stick, rows, dir } = await mirror(t)
  const good = await served(storeDir)
  const [again, older, newer] = [stick(3), stick(2, TREES), stick(4)]
  flipAt(db, 20)
  renameSync(db, join(dir, 'catalog.db.damaged'))
  writeFileSync(join(dir, 'other.json'), makeRoot({ root: [newKey()], bundle: [newKey()] }))
  await run('ROOT_PINNED', 'init', 'mir', '--trust', 'other.json', '--yes')
  const made = await run(0, 'init', 'mir', '--trust', 'root.json')
  t.match(made.stdout, /came back from state\.json/)
  t.same(await served(storeDir), good, 'served as before, from the database')
  await run('ROLE_ROLLBACK', 'import', older)
  await run(0, 'import', again)
  await run('RELEASE_STAMP', 'release', '1')
  await run(0, 'import', '--release', newer)
  t.same(rows()[0]?.what, { command: 'init: from state.json', files: ['root.json'] })
})

t.test('state.json that is damaged or gone is written anew by the next writer', async (t) => {
  const { storeDir, run, db } = await mirror(t)
  const file = join(storeDir, 'state.json')
  const bytes = readFileSync(file)
  for (const harm of [
    () => rmSync(file),
    () => flipAt(file, 300),
    () => truncateSync(file, 100),
    () => writeFileSync(file, ''),
    () => writeFileSync(file, Buffer.concat([bytes, Buffer.from(' ')])),
  ]) {
    harm()
    t.equal((await served(storeDir)).isReadOnly, false)
    await run(0, 'prune')
    t.same(readFileSync(file), bytes)
  }
  flipAt(file, 300)
  rmSync(db)
  await run(2, 'status')
  await run('STORE_DAMAGED', 'init', 'mir', '--trust', 'root.json', '--yes')
  t.notOk(existsSync(db) && new Catalog(db).site() !== undefined, 'what was seen is not forgotten by an accident')
})

t.test('where state.json cannot be written, the change is not made either', async (t) => {
  const { storeDir, run, json, stick } = await mirror(t)
  const before = readFileSync(join(storeDir, 'state.json'))
  mkdirSync(join(storeDir, 'state.json.part'))
  await run(1, 'release')
  await run(1, 'import', stick(4))
  t.match(await json('status'), { bundle: 2, imported: 3 })
  t.same(readFileSync(join(storeDir, 'state.json')), before)
  rmSync(join(storeDir, 'state.json.part'), { recursive: true })
  await run(0, 'release')
  t.match(await json('status'), { bundle: 3 })
})

t.test('a crash between commit and rename leaves state.json one behind; the next writer heals it', async (t) => {
  const { storeDir, run, stick } = await mirror(t)
  const file = join(storeDir, 'state.json')
  const before = readFileSync(file)
  await run(0, 'import', '--release', stick(4))
  const after = readFileSync(file)
  writeFileSync(file, before)
  writeFileSync(`${file}.part`, after.subarray(0, 50))
  const store = openStore(storeDir)
  t.equal(store.isStateBehind, true)
  store.close()
  t.same(readFileSync(file), before, 'a reader writes nothing')
  await run(0, 'prune')
  t.same(readFileSync(file), after)
  t.notOk(existsSync(`${file}.part`))
})

t.test('a state of another shape is none, whatever its digest says', async (t) => {
  const { storeDir } = await mirror(t)
  const { parseState, serializeState } = await import('../../storage/state-file.ts')
  const text = readFileSync(join(storeDir, 'state.json'), 'utf8')
  const good = JSON.parse(text.slice(text.indexOf('\n'))) as Record<string, unknown>
  const made = (doc: unknown): Buffer => {
    const body = Buffer.from(`${JSON.stringify(doc)}\n`)
    return Buffer.concat([Buffer.from(`${sha256Of(body)}\n`), body])
  }
  t.same(serializeState(parseState(made(good), 'state')), made(good))
  const wrong = Object.keys(good).flatMap((key) => [
    { ...good, [key]: undefined },
    { ...good, [key]: true },
    { ...good, [key]: 0.5 },
  ])
  const others = [[], null, { ...good, more: 1 }, { ...good, trusted: [] }, { ...good, trusted: { root: '' } }]
  for (const doc of [...wrong, ...others, { ...good, roots: [] }, { ...good, bundles: [{}] }]) {
    t.throws(() => parseState(made(doc), 'state'), { code: 'STORE_DAMAGED' }, JSON.stringify(doc).slice(0, 200))
  }
})

t.test('what cannot be verified from the pinned root on is not served', async (t) => {
  const { storeDir, db, run } = await mirror(t)
  const { parseState, serializeState } = await import('../../storage/state-file.ts')
  const file = join(storeDir, 'state.json')
  const good = parseState(readFileSync(file), 'state')
  const forge = (change: (bundle: (typeof good.bundles)[number]) => void): void => {
    const copy = structuredClone(good)
    const state = parseState(serializeState({ ...copy, ...good }), 'copy')
    change(state.bundles.find(({ number }) => number === 2)!)
    writeFileSync(file, serializeState(state))
  }
  rmSync(db)
  for (const change of [
    (bundle) =>
      void (bundle.trees.find(({ target }) => target === 'pbx/current')!.sha256 = good.bundles[0]!.trees[0]!.sha256),
    (bundle) => void (bundle.metadata.targets = good.bundles[0]!.metadata.targets!),
    (bundle) => void delete bundle.metadata.timestamp,
    (bundle) => void (bundle.metadata = {}),
    (bundle) => void (bundle.trees = bundle.trees.slice(0, 1)),
  ] as Parameters<typeof forge>[0][]) {
    forge(change)
    t.same((await served(storeDir)).served, [])
    t.match((await run(0, 'status')).stdout, /ALARM GROUP_UNVERIFIED: group pbx is not served: bundle 2/)
  }
})

t.test(
  'a bundle whose keys were taken away, or that is past its end, is served on, from the database or not',
  async (t) => {
    const clock = { nowMs: NOW }
    const { run, stick, storeDir } = await mirrorProgram(t, { nowMs: () => clock.nowMs })
    await run(0, 'import', '--release', stick(1))
    const keys = { root: sampleKeys.root, bundle: [newKey()] }
    const roots = [sampleRoot, makeRoot(keys, { version: 2, signers: sampleKeys.root })]
    await run(0, 'import', stick(2, undefined, { keys, roots }))
    const good = await served(storeDir)
    clock.nowMs = NOW + 900 * DAY
    rmSync(join(storeDir, 'catalog.db'))
    t.same(await served(storeDir), { ...good, isReadOnly: true })
  },
)
