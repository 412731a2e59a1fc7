/** Backups that somebody made who knows the format, and has the mirror's database, but no key. */
import { copyFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { writeBackup } from '../../storage/backup.ts'
import { Catalog } from '../../storage/catalog.ts'
import { serializeState } from '../../storage/state-file.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { makeRoot, newKey } from '../helpers/site.ts'

/** A mirror that serves 2 and has 3, and a way to write backups of its database after `sql` was run in it. */
async function forger(
  t: Test,
): Promise<MirrorProgram & { forge: (sql: string, ...values: unknown[]) => Promise<void> }> {
  const program = await mirrorProgram(t)
  await program.run(0, 'import', '--release', program.stick(2))
  await program.run(0, 'import', program.stick(3))
  const forge = async (sql: string, ...values: unknown[]): Promise<void> => {
    const db = join(program.dir, 'forged.db')
    for (const file of [db, join(program.dir, 'bad.backup')]) rmSync(file, { force: true })
    const own = new Catalog(join(program.storeDir, 'catalog.db'))
    own.copyTo(db)
    const honest = own.state()!
    own.close()
    const forged = new SqliteDatabase(db)
    if (values.length > 0) forged.prepare(sql).run(...values)
    else forged.exec(sql)
    forged.close()
    const bytes = readFileSync(db)
    const read = new Catalog(db)
    const state = serializeState(read.state() ?? honest)
    read.close()
    const config = readFileSync(join(program.dir, 'mir', 'mirror.yaml'))
    const files = Object.entries({ 'state.json': state, 'catalog.db': bytes, 'mirror.yaml': config }).map(
      ([name, from]) => ({ name, bytes: from.length, sha256: sha256Of(from), from }),
    )
    await writeBackup(join(program.dir, 'bad.backup'), { site: 'hq', createdAt: 'x', bundle: 3, files })
  }
  return { ...program, forge }
}

const COPY_AS_9 = `CREATE TEMP TABLE copy AS SELECT * FROM bundle WHERE number = 3; UPDATE copy SET number = 9;
  INSERT INTO bundle SELECT * FROM copy; DROP TABLE copy;`
const EVIL = sha256Of('a tree that nobody signed')

t.test('a bundle that nobody signed does not come with a backup, also where it is not served yet', async (t) => {
  const { run, forge, storeDir } = await forger(t)
  const forgeries = [
    `UPDATE bundle_tree SET sha256 = '${EVIL}' WHERE number = 3`,
    `INSERT INTO bundle_tree VALUES (3, 'other/current', '${EVIL}', 25)`,
    `${COPY_AS_9}
     INSERT INTO bundle_tree VALUES (9, 'pbx/current', '${EVIL}', 25); UPDATE mirror SET newest_bundle = 9`,
    `${COPY_AS_9}
     INSERT INTO bundle_tree SELECT 9, target, sha256, bytes FROM bundle_tree WHERE number = 3;
     INSERT INTO bundle_metadata SELECT 9, role, bytes FROM bundle_metadata WHERE number = 3`,
    'UPDATE bundle SET created_at_ms = 7258118400000 WHERE number = 3',
  ]
  const before = readFileSync(join(storeDir, 'state.json'))
  for (const sql of forgeries) {
    await forge(sql)
    await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--replace')
    await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--yes', '--config', 'new/mirror.yaml')
  }
  t.same(readFileSync(join(storeDir, 'state.json')), before)
})

t.test('a chain of roots that the pinned one did not sign is refused', async (t) => {
  const { run, forge } = await forger(t)
  const thief = { root: [newKey()], bundle: [newKey()] }
  await forge('INSERT INTO trusted_root VALUES (1, ?)', makeRoot(thief, { version: 2, signers: thief.root }))
  await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--yes', '--config', 'new/mirror.yaml')
  await forge('UPDATE mirror SET site = ?', 'other')
  await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--yes', '--config', 'new/mirror.yaml')
})

t.test('a database that would do more than keep rows is refused before it is asked anything', async (t) => {
  const { run, forge, storeDir } = await forger(t)
  const schemas = [
    `CREATE TRIGGER later AFTER INSERT ON release BEGIN UPDATE bundle_tree SET sha256 = '${EVIL}'; END`,
    'CREATE VIEW more AS SELECT 1',
    'CREATE TABLE more (x)',
    'CREATE INDEX more ON bundle (bundler)',
    'DROP INDEX release_in_force',
  ]
  for (const sql of schemas) {
    await forge(sql)
    const { stderr } = await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--replace')
    t.match(stderr, /other tables, or triggers or views/, sql)
  }
  t.same(new Catalog(join(storeDir, 'catalog.db')).state()!.newest, 3)
})

t.test('a list that is no JSON, or names a file twice, is refused', async (t) => {
  const { run, dir } = await forger(t)
  const write = (line: string, rest = ''): void =>
    writeFileSync(join(dir, 'bad.backup'), `${sha256Of(line)}\n${line}${rest}`)
  write('{"_type":"gapferry-backup",}\n')
  await run('BACKUP_INVALID', 'restore', 'bad.backup', '--replace')
  const files = ['x', 'y'].map((body) => ({ name: 'state.json', bytes: 1, sha256: sha256Of(body) }))
  const head = { _type: 'gapferry-backup', format: 1, site: 'hq', createdAt: '', bundle: null, files }
  write(`${JSON.stringify(head)}\n`, 'xy')
  const { stderr } = await run('BACKUP_DAMAGED', 'restore', 'bad.backup', '--replace')
  t.match(stderr, /names a file twice/)
})

t.test('a restore that was ended between its renames keeps the database that it moved aside', async (t) => {
  const { run, storeDir } = await forger(t)
  const db = join(storeDir, 'catalog.db')
  await run(0, 'backup', '--to', 'a.backup')
  copyFileSync(db, `${db}.seen`)
  renameSync(db, `${db}.replaced`)
  await run(0, 'restore', 'a.backup', '--replace')
  t.same(readFileSync(`${db}.replaced`), readFileSync(`${db}.seen`))
  t.ok(existsSync(db))
})
