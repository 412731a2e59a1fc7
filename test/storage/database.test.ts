import t from 'tap'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { lockStore, openDatabase, writeTransaction } from '../../storage/database.ts'

const ONE = 'CREATE TABLE one (a INTEGER NOT NULL) STRICT; INSERT INTO one VALUES (1);'
const TWO = 'ALTER TABLE one ADD COLUMN b TEXT;'

t.test('opens durable, with foreign keys, and brings an old file to the newest version once', async (t) => {
  const file = join(t.testdir(), 'x.db')
  const first = openDatabase(file, [ONE])
  t.equal(first.pragma('user_version', { simple: true }), 1)
  first.close()
  for (let time = 0; time < 2; time++) {
    const db = openDatabase(file, [ONE, TWO])
    t.equal(db.pragma('user_version', { simple: true }), 2)
    t.same(db.prepare('SELECT * FROM one').all(), [{ a: 1, b: null }])
    t.equal(db.pragma('journal_mode', { simple: true }), 'wal')
    t.equal(db.pragma('synchronous', { simple: true }), 2, 'FULL')
    t.equal(db.pragma('foreign_keys', { simple: true }), 1)
    db.close()
  }
})

t.test('a migration that fails leaves the version before', async (t) => {
  const file = join(t.testdir(), 'x.db')
  openDatabase(file, [ONE]).close()
  t.throws(() => openDatabase(file, [ONE, `${TWO} SELECT nonsense;`]), /nonsense/)
  const db = openDatabase(file, [ONE])
  t.same(db.prepare('SELECT * FROM one').all(), [{ a: 1 }])
  db.close()
})

t.test('refuses a file that a newer program wrote', async (t) => {
  const file = join(t.testdir(), 'x.db')
  openDatabase(file, [ONE, TWO]).close()
  t.throws(() => openDatabase(file, [ONE]), { code: 'STORE_VERSION' })
})

t.test('refuses a file that is no sound database', async (t) => {
  const dir = t.testdir({ 'text.db': 'this is no database, but longer than a header '.repeat(5) })
  t.throws(() => openDatabase(join(dir, 'text.db'), [ONE]), { code: 'STORE_DAMAGED' })

  const file = join(dir, 'torn.db')
  const db = openDatabase(file, [ONE, 'CREATE INDEX i ON one (a);'])
  db.exec(
    'WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO one SELECT x FROM n',
  )
  db.close()
  const whole = readFileSync(file)
  whole.fill(0x5a, 10 * 4096, 11 * 4096)
  writeFileSync(file, whole)
  t.throws(() => openDatabase(file, [ONE, 'CREATE INDEX i ON one (a);']), { code: 'STORE_DAMAGED' })
})

t.test('a write transaction keeps everything or nothing', async (t) => {
  const db = openDatabase(join(t.testdir(), 'x.db'), [ONE])
  t.equal(
    writeTransaction(db, () => db.prepare('INSERT INTO one VALUES (2)').run().changes),
    1,
  )
  t.throws(
    () =>
      writeTransaction(db, () => {
        db.exec('DELETE FROM one')
        throw new Error('stop here')
      }),
    /stop here/,
  )
  t.same(db.prepare('SELECT a FROM one ORDER BY a').pluck().all(), [1, 2])
  db.close()
})

t.test('says SPACE_SHORT when the database cannot grow', async (t) => {
  const db = openDatabase(join(t.testdir(), 'x.db'), [ONE])
  db.pragma('max_page_count = 3')
  const grow = () =>
    db.prepare('INSERT INTO one SELECT value FROM json_each(?)').run(JSON.stringify(Array(9000).fill(7)))
  t.throws(() => writeTransaction(db, grow), { code: 'SPACE_SHORT' })
  t.equal(db.prepare('SELECT count(*) FROM one').pluck().get(), 1)
  db.close()
})

t.test('says STORE_BUSY when another connection keeps the write lock', async (t) => {
  const file = join(t.testdir(), 'x.db')
  const [one, other] = [openDatabase(file, [ONE]), openDatabase(file, [ONE])]
  one.exec('BEGIN IMMEDIATE')
  other.pragma('busy_timeout = 0')
  t.throws(() => writeTransaction(other, () => undefined), { code: 'STORE_BUSY' })
  one.close()
  other.close()
})

t.test('one run at a time holds the lock, and the second is told which process', async (t) => {
  const root = join(t.testdir(), 'store')
  const unlock = lockStore(root)
  t.throws(() => lockStore(root), { code: 'STORE_BUSY', message: new RegExp(`process ${process.pid}`) })
  t.throws(() => lockStore(root), { code: 'STORE_BUSY' }, 'asking does not take the lock away from its holder')
  unlock()
  unlock()
  lockStore(root)()
  t.same(readdirSync(root), ['writing.lock'])
})

t.test('a killed run leaves no stuck lock', async (t) => {
  const root = join(t.testdir(), 'store')
  const script = `
    import { lockStore } from ${JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../storage/database.ts')).href)}
    lockStore(${JSON.stringify(root)})
    gc() // nothing refers to what lockStore gave
    await new Promise((done) => setImmediate(done))
    process.stdout.write('held')
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, ['--expose-gc', '--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  t.throws(() => lockStore(root), { code: 'STORE_BUSY', message: new RegExp(`process ${child.pid}`) })
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
  t.ok(existsSync(join(root, 'writing.pid')), 'it had no time to tidy up')
  lockStore(root)()
})

t.test('says STORE_UNREADABLE where no file can be made', async (t) => {
  const dir = t.testdir({ folder: { 'x.db': {}, 'writing.lock': {} }, file: '' })
  t.throws(() => openDatabase(join(dir, 'folder', 'x.db'), [ONE]), { code: 'STORE_UNREADABLE' })
  t.throws(() => lockStore(join(dir, 'folder')), { code: 'STORE_UNREADABLE' })
  t.throws(() => lockStore(join(dir, 'file', 'store')), { code: 'STORE_UNREADABLE' })
})
