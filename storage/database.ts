/**
 * Opening a SQLite file so that a committed transaction survives a power cut, and the lock that lets one run at a time
 * write to a store. The lock is the kernel's, held through SQLite on a file of its own that is never written: it ends
 * with the process, however that ends, and has no content that could be torn.
 */
import { mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import SqliteDatabase, { SqliteError, type Database } from 'better-sqlite3'
import { formatBytes } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { NO_ROOM } from '../manifests/system-error.ts'
import { foundRoom, systemCode } from './durable.ts'

export type { Database } from 'better-sqlite3'

const BUSY_TIMEOUT_MS = 5000
const UNREADABLE = ['SQLITE_CANTOPEN', 'SQLITE_READONLY', 'SQLITE_PERM', 'SQLITE_IOERR']
/** What a statement that always ran says where the schema or a row is not what it was. */
const UNSOUND = [
  'SQLITE_ERROR',
  'SQLITE_CONSTRAINT',
  'SQLITE_MISMATCH',
  'SQLITE_SCHEMA',
  'SQLITE_FORMAT',
  'SQLITE_RANGE',
]
/** What a transaction may take, generously: the log grows before the database does. */
const ROOM_BYTES = 4_000_000
/** The index of a log, which every open database needs; SQLite calls it an I/O error when there is no room for it. */
const INDEX_BYTES = 65_536
const LOCK_FILE = 'writing.lock'
/** A lock that nobody refers to would be collected, and given back, while its run still works. */
const held = new Set<Database>()
const HOLDER_FILE = 'writing.pid'

/** Opens `file`, made when absent, and brings it to the newest version.
 *  @param migrations  append-only: the SQL at index n leads from version n to n+1; each runs once, in a transaction
 *  @param options.isSpare  nothing is lost with it: it is never synced, a power cut may damage it, and readers, who need no
 *                          right to write then, hold up the writer
 *  @throws STORE_VERSION when a newer program wrote it; STORE_DAMAGED when it is no sound database; STORE_UNREADABLE;
 *          STORE_BUSY; SPACE_SHORT */
export function openDatabase(
  file: string,
  migrations: readonly string[],
  { isSpare = false }: { isSpare?: boolean } = {},
): Database {
  return explained(file, () => {
    const db = new SqliteDatabase(file, { timeout: BUSY_TIMEOUT_MS })
    try {
      soundly(db, () => {
        db.pragma(`journal_mode = ${isSpare ? 'DELETE' : 'WAL'}`)
        db.pragma(`synchronous = ${isSpare ? 'OFF' : 'FULL'}`)
        prepare(db, file, migrations)
      })
      return db
    } catch (error) {
      db.close()
      throw error
    }
  })
}

/** For a file that came from elsewhere, before anything else is asked of it: its tables and indexes are those that the
 *  migrations make, and it has no trigger and no view, which would go on working for whoever put them there.
 *  @throws STORE_DAMAGED; STORE_VERSION; STORE_UNREADABLE */
export function refuseForeignSchema(file: string, migrations: readonly string[]): void {
  explained(file, () => {
    const [db, own] = [new SqliteDatabase(file, { readonly: true }), new SqliteDatabase(':memory:')]
    try {
      const version = versionOf(db)
      if (version > migrations.length) throw newerVersion(file, version, migrations)
      for (const sql of migrations.slice(0, Math.max(0, version))) own.exec(sql)
      if (schemaOf(db) !== schemaOf(own)) throw damaged(file, 'other tables, or triggers or views')
    } finally {
      db.close()
      own.close()
    }
  })
}

function schemaOf(db: Database): string {
  return JSON.stringify(
    db.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name').raw().all(),
  )
}

/** Opens `file` for `work` alone, which changes nothing in it.
 *  @throws STORE_DAMAGED; STORE_UNREADABLE; STORE_BUSY; what else `work` throws */
export function readDatabase<T>(file: string, work: (db: Database) => T): T {
  return explained(file, () => {
    const db = new SqliteDatabase(file, { readonly: true, timeout: BUSY_TIMEOUT_MS })
    try {
      return soundly(db, () => work(db))
    } finally {
      db.close()
    }
  })
}

/** Runs `work`, which only a damaged database can make fail.
 *  @throws STORE_DAMAGED; what SQLite says of the disk, the lock or the room; what else `work` throws */
export function soundly<T>(db: Database, work: () => T): T {
  return explained(db.name, () => {
    try {
      return work()
    } catch (error) {
      throw UNSOUND.some((code) => isSqlite(error, code)) ? damaged(db.name, error) : error
    }
  })
}

/** Runs `work` as one write transaction that sees no other writer; everything or nothing of it is kept.
 *  @throws what `work` throws; SPACE_SHORT, STORE_BUSY, STORE_DAMAGED where SQLite says so */
export function writeTransaction<T>(db: Database, work: () => T): T {
  return explained(db.name, () => db.transaction(work).immediate())
}

/** Takes the store's lock for this run; a crash gives it back.
 *  @param root  the store's folder, made when absent
 *  @returns gives the lock back; calling it again does nothing
 *  @throws STORE_BUSY naming the process that holds it; STORE_UNREADABLE */
export function lockStore(root: string): () => void {
  makeFolder(root)
  const lockFile = join(root, LOCK_FILE)
  const holderFile = join(root, HOLDER_FILE)
  const lock = explained(lockFile, () => new SqliteDatabase(lockFile, { timeout: 0 }))
  try {
    explained(lockFile, () => {
      lock.pragma('journal_mode = MEMORY') // a journal would take room, which a full disk does not have, and outlive a kill
      lock.exec('BEGIN EXCLUSIVE')
    })
  } catch (cause) {
    lock.close()
    if (!isGapferryError(cause, 'STORE_BUSY')) throw cause
    throw new GapferryError('STORE_BUSY', `${root}: another run${holderOf(holderFile)} is writing to this store`, {
      hint: 'wait until it has ended, then run the command again',
      cause,
    })
  }
  held.add(lock)
  nameHolder(holderFile)
  return () => {
    if (!lock.open) return
    rmSync(holderFile, { force: true })
    held.delete(lock)
    lock.close()
  }
}

/** For the message to the second run only: a full disk is no reason to refuse the command that makes room. */
function nameHolder(file: string): void {
  try {
    writeFileSync(file, `${process.pid}\n`)
  } catch (error) {
    if (!NO_ROOM.includes(systemCode(error))) throw error
  }
}

function makeFolder(root: string): void {
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new GapferryError('STORE_UNREADABLE', `${root}: the folder cannot be made: ${(cause as Error).message}`, {
      hint: 'name another place, or make the folder and give it to the user who runs this',
      cause,
    })
  }
}

function prepare(db: Database, file: string, migrations: readonly string[]): void {
  db.pragma('foreign_keys = ON')
  const verdict = String(db.pragma('quick_check(1)', { simple: true }))
  if (verdict !== 'ok') throw damaged(file, verdict)
  if (versionOf(db) === migrations.length) return
  db.transaction(() => migrate(db, file, migrations)).immediate()
}

/** The version is read again inside the transaction: another process may have migrated in between. */
function migrate(db: Database, file: string, migrations: readonly string[]): void {
  const version = versionOf(db)
  if (version > migrations.length) {
    throw newerVersion(file, version, migrations)
  }
  for (const sql of migrations.slice(version)) db.exec(sql)
  db.pragma(`user_version = ${migrations.length}`)
}

function newerVersion(file: string, version: number, migrations: readonly string[]): GapferryError {
  return new GapferryError(
    'STORE_VERSION',
    `${file}: expected version ${migrations.length} or older, found version ${version}`,
    { hint: 'a newer gapferry wrote this store; install that version or a later one' },
  )
}

function versionOf(db: Database): number {
  return Number(db.pragma('user_version', { simple: true }))
}

/** SQLite's own words for what a person can act on. */
function explained<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (isSqlite(error, 'SQLITE_NOTADB') || isSqlite(error, 'SQLITE_CORRUPT')) throw damaged(file, error)
    if (isSqlite(error, 'SQLITE_FULL') || (isSqlite(error, 'SQLITE_IOERR') && freeBytes(file) < INDEX_BYTES)) {
      throw new GapferryError(
        'SPACE_SHORT',
        `${file}: expected ${formatBytes(ROOM_BYTES)} of free space, ${foundRoom(file, ROOM_BYTES)}`,
        {
          hint: 'make room on this disk, then run the same command again',
          cause: error,
        },
      )
    }
    if (UNREADABLE.some((code) => isSqlite(error, code))) {
      const message = `${file}: expected a file that this user may read and write, found: ${(error as Error).message}`
      throw new GapferryError('STORE_UNREADABLE', message, {
        hint: 'run it as the user who owns the store, and see that the disk is mounted for writing',
        cause: error,
      })
    }
    if (isSqlite(error, 'SQLITE_BUSY')) {
      throw new GapferryError('STORE_BUSY', `${file}: another run is writing to this store`, {
        hint: 'wait until it has ended, then run the command again',
        cause: error,
      })
    }
    throw error
  }
}

function freeBytes(file: string): number {
  const { bavail, bsize } = statfsSync(dirname(file))
  return bavail * bsize
}

function damaged(file: string, cause: unknown): GapferryError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new GapferryError('STORE_DAMAGED', `${file}: expected a sound database, found: ${why}`, {
    hint: 'put this file back from a backup; blobs are not affected',
    cause,
  })
}

/** SQLite's extended codes start with the plain one: SQLITE_BUSY_SNAPSHOT, SQLITE_CORRUPT_INDEX. */
function isSqlite(error: unknown, code: string): boolean {
  return error instanceof SqliteError && (error.code === code || error.code.startsWith(`${code}_`))
}

/** The holder writes its number after taking the lock, so for a moment there may be none. */
function holderOf(file: string): string {
  try {
    const pid = readFileSync(file, 'utf8').trim()
    return /^\d{1,10}$/.test(pid) ? ` (process ${pid})` : ''
  } catch {
    return ''
  }
}
