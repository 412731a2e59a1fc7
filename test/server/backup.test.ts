import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import t from 'tap'
import { fingerprintWords } from '../../manifests/words.ts'
import { runMirror } from '../../server/program.ts'
import { openStore } from '../../server/store.ts'
import { inside } from '../helpers/inside.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { sampleKeys, sampleRoot } from '../helpers/part.ts'
import { makeRoot, newKey, NOW } from '../helpers/site.ts'

const WORDS = fingerprintWords(sampleRoot)
const THERE = ['--config', 'new/mirror.yaml']

const stateOf = (dir: string) => {
  const store = openStore(dir)
  try {
    return store.catalog.state()!
  } finally {
    store.close()
  }
}

/** Serves 2, has 3; backed up to `a.backup`. */
async function backedUp(t: Parameters<typeof mirrorProgram>[0], ...args: string[]): Promise<MirrorProgram> {
  const program = await mirrorProgram(t)
  await program.run(0, 'import', '--release', program.stick(2))
  await program.run(0, 'import', program.stick(3))
  await program.run(0, 'backup', '--to', 'a.backup', ...args)
  return program
}

t.test(
  'into an empty store: settings, trust, releases and the audit trail are back; the root is confirmed first',
  async (t) => {
    const { run, dir, storeDir, stick, rows } = await backedUp(t)
    const refused = await run('ROOT_NOT_CONFIRMED', 'restore', 'a.backup', ...THERE)
    t.match(refused.stderr, WORDS)
    await run('ROOT_FINGERPRINT', 'restore', 'a.backup', '--fingerprint', fingerprintWords(Buffer.from('x')), ...THERE)
    t.notOk(existsSync(join(dir, 'new', 'store', 'catalog.db')))
    const shown = await run(0, 'restore', 'a.backup', '--fingerprint', WORDS, ...THERE)
    t.match(shown.stdout, /site hq is restored; newest bundle: 3/)
    t.match(shown.stdout, /mirror\.yaml, from the backup/)
    const there = join(dir, 'new', 'store')
    const [old, now] = [stateOf(storeDir), stateOf(there)]
    t.same({ ...now, generation: 0 }, { ...old, generation: 0 })
    t.ok(now.generation > old.generation)
    await run('ROLE_ROLLBACK', 'import', stick(1), ...THERE)
    await run('ROLE_ROLLBACK', 'import', stick(2), ...THERE)
    t.match((await run(0, 'bundles', ...THERE)).stdout, /3 .*incomplete: 3 paths/, 'packages come by importing again')
    await run(0, 'import', '--release', stick(3), ...THERE)
    const store = openStore(there)
    store.catalog.audit.verify()
    const trail = store.catalog.audit.rows().map(({ what, result }) => [what?.command, result])
    store.close()
    t.same(
      trail.slice(0, 6).map(([command]) => command),
      ['init', 'import', 'release', 'import', 'restore', 'import'],
    )
    t.match(rows().at(-1), { what: { command: 'backup', files: ['a.backup'], sha256: /^[0-9a-f]{64}$/ } })
  },
)

t.test('a folder that is no store is not swept because a backup names it', async (t) => {
  const { run, dir } = await backedUp(t)
  const other = join(dir, 'new', 'store', 'staging')
  mkdirSync(other, { recursive: true })
  for (const file of [join(other, 'kept'), join(dir, 'new', 'store', 'letter.txt')]) writeFileSync(file, 'x')
  await run('STORE_EXISTS', 'restore', 'a.backup', '--yes', ...THERE)
  t.ok(existsSync(join(other, 'kept')))
})

t.test('with blobs nothing has to be imported again', async (t) => {
  const { run, json } = await backedUp(t, '--with-blobs')
  await run(0, 'restore', 'a.backup', '--yes', ...THERE)
  t.match(await json('verify', ...THERE), { isSound: true })
  t.match((await run(0, 'release', ...THERE)).stdout, /bundle 3 is released/)
})

t.test('an older backup over a newer store never lowers a number', async (t) => {
  const { run, stick, storeDir, rows } = await backedUp(t)
  await run(0, 'import', '--release', stick(5))
  const newer = stateOf(storeDir)
  await run('STORE_EXISTS', 'restore', 'a.backup')
  const shown = await run(0, 'restore', 'a.backup', '--replace')
  t.match(shown.stdout, /the store that was there knew more; the newer of both was kept/)
  const now = stateOf(storeDir)
  t.same({ ...now, generation: 0 }, { ...newer, generation: 0 })
  t.ok(now.generation > newer.generation)
  for (const number of [2, 3, 4]) await run('ROLE_ROLLBACK', 'import', stick(number))
  const row = rows().find(({ what }) => what?.command === 'restore')
  t.match(row, { what: { bundle: 5, lost: /^\d+:[0-9a-f]{64}$/ } }, 'names the trail that it took the place of')
  t.ok(existsSync(join(storeDir, 'catalog.db.replaced')))
})

t.test('the same where the database is damaged: what state.json knows counts', async (t) => {
  const { run, stick, storeDir } = await backedUp(t)
  await run(0, 'import', '--release', stick(5))
  const newer = stateOf(storeDir)
  const db = join(storeDir, 'catalog.db')
  for (const harm of [() => rmSync(db), () => truncateSync(db, 5000), () => writeFileSync(db, 'x'.repeat(9000))]) {
    harm()
    await run('STORE_DAMAGED', 'import', stick(6))
    await run(0, 'restore', 'a.backup', '--replace')
    t.same({ ...stateOf(storeDir), generation: 0 }, { ...newer, generation: 0 })
    await run('ROLE_ROLLBACK', 'import', stick(4))
    await run(0, 'audit', 'verify')
  }
  writeFileSync(db, 'x')
  rmSync(join(storeDir, 'state.json'))
  const lost = await run(0, 'restore', 'a.backup', '--replace', '--yes')
  t.match(lost.stderr, /nothing of the store that was there could be read: numbers that only it knew are forgotten/)
  await run('ROLE_ROLLBACK', 'import', stick(2))
})

t.test('a database that says less than state.json is no witness of the numbers', async (t) => {
  const { run, stick, storeDir } = await backedUp(t)
  await run(0, 'import', '--release', stick(5))
  const newer = stateOf(storeDir)
  const harms = [
    'UPDATE released_stamp SET stamp = 1',
    'UPDATE generation SET value = value - 1',
    `UPDATE trusted_role SET bytes = x'00'`,
    'DELETE FROM trusted_role',
  ]
  for (const sql of harms) {
    const db = new SqliteDatabase(join(storeDir, 'catalog.db'))
    db.exec(sql)
    db.close()
    await run('STORE_DAMAGED', 'release')
    await run(0, 'restore', 'a.backup', '--replace')
    t.same({ ...stateOf(storeDir), generation: 0 }, { ...newer, generation: 0 }, sql)
  }
})

t.test('a newer backup brings its numbers; a group keeps what had the higher stamps', async (t) => {
  const { run, stick, storeDir, dir } = await backedUp(t)
  await run(0, 'import', stick(7, [{ stamp: 200 }]))
  await run(0, 'backup', '--to', 'b.backup')
  // The standby: released what the other only imported, and nothing later.
  await run(0, 'restore', 'a.backup', '--yes', ...THERE)
  await run(0, 'import', '--release', stick(3), ...THERE)
  await run(0, 'restore', 'b.backup', '--replace', ...THERE)
  const now = stateOf(join(dir, 'new', 'store'))
  t.equal(now.newest, 7)
  t.match(now.releases, [{ group: 'pbx', number: 3 }], 'boxes have seen 3: 2 would be older to them')
  t.same(now.stamps, [{ group: 'pbx', repository: 'base', stamp: 30 }])
  await run('ROLE_ROLLBACK', 'import', stick(6), ...THERE)
  t.match(stateOf(storeDir).releases, [{ number: 2 }])
})

t.test('after keys were taken away their high numbers do not come back with a backup', async (t) => {
  const { run, stick, storeDir } = await mirrorProgram(t)
  await run(0, 'import', '--release', stick(9999))
  await run(0, 'backup', '--to', 'thief.backup')
  const keys = { root: sampleKeys.root, bundle: [newKey()] }
  const roots = [sampleRoot, makeRoot(keys, { version: 2, signers: sampleKeys.root })]
  await run(0, 'import', '--release', stick(2, undefined, { keys, roots }))
  await run(0, 'restore', 'thief.backup', '--replace')
  const now = stateOf(storeDir)
  t.equal(now.newest, 2)
  t.equal(now.roots.length, 2)
  t.same(now.stamps, [{ group: 'pbx', repository: 'base', stamp: 20 }])
  await run(0, 'import', stick(3, undefined, { keys, roots }))
})

t.test('damaged and foreign files are refused, and nothing is touched', async (t) => {
  const { run, dir, storeDir } = await backedUp(t, '--with-blobs')
  const good = readFileSync(join(dir, 'a.backup'))
  const bad = join(dir, 'bad.backup')
  const before = readFileSync(join(storeDir, 'state.json'))
  const end = good.indexOf(10, 70)
  for (const at of [80, 300, end - 5, end + 10, end + 2000, Math.floor(good.length / 2), good.length - 1]) {
    const copy = Buffer.from(good)
    copy[at] = copy[at]! ^ 4
    writeFileSync(bad, copy)
    const { stderr, status } = await inside(runMirror, dir, [
      'restore',
      'bad.backup',
      '--replace',
      '--config',
      'mir/mirror.yaml',
    ])
    t.match(stderr, /\[(?:BACKUP_DAMAGED|BACKUP_INVALID)\]/, `byte ${at}`)
    t.equal(status, 3)
  }
  for (const bytes of [
    good.subarray(0, good.length - 1),
    good.subarray(0, end + 1),
    Buffer.concat([good, Buffer.from('x')]),
  ]) {
    writeFileSync(bad, bytes)
    await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--replace')
  }
  for (const bytes of ['', 'hello', good.subarray(0, 40), 'a'.repeat(1000), Buffer.alloc(5000)]) {
    writeFileSync(bad, bytes)
    await run('BACKUP_INVALID', 'restore', 'bad.backup', '--replace')
  }
  await run('BACKUP_INVALID', 'restore', 'mir', '--replace')
  await run('USAGE_INVALID', 'restore', 'nothing', '--replace')
  await run('USAGE_INVALID', 'backup', '--to', 'a.backup')
  t.same(readFileSync(join(storeDir, 'state.json')), before)
  const other = await mirrorProgramElsewhere(dir)
  await run('ROOT_PINNED', 'restore', 'a.backup', '--replace', '--config', other)
  await run(0, 'restore', 'a.backup', '--replace')
})

t.test('a reader that has the replaced database open does not harm the new one', async (t) => {
  const { run, stick, storeDir } = await backedUp(t)
  const db = join(storeDir, 'catalog.db')
  const reader = new SqliteDatabase(db)
  reader.prepare('SELECT count(*) FROM audit').get()
  await run(0, 'import', stick(4))
  await run(0, 'restore', 'a.backup', '--replace')
  const writer = openStore(storeDir)
  await run(0, 'import', '--release', stick(5))
  reader.close()
  copyFileSync(db, `${db}.seen`)
  writer.close()
  t.equal(stateOf(storeDir).newest, 5)
  await run(0, 'audit', 'verify')
})

/** A mirror of the same name with another root. @returns its settings */
async function mirrorProgramElsewhere(dir: string): Promise<string> {
  writeFileSync(join(dir, 'other.json'), makeRoot({ root: [newKey()], bundle: [newKey()] }))
  await inside(runMirror, dir, ['init', 'other', '--trust', 'other.json', '--yes'], { nowMs: () => NOW })
  return 'other/mirror.yaml'
}
