/**
 * The audit trail: who did what to the store, when, and how it ended, as rows of which each holds the hash of the one
 * before. A row that was changed, taken out, put in or moved breaks the chain. That rows are missing at the end, or that
 * all was written anew, the chain alone cannot show: an auditor notes its head and gives it to the next check.
 * Format: FORMAT.md#audit-trail. The table is part of the store's database, so that a change and its row are one transaction.
 */
import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { strictObject } from '../manifests/document.ts'
import { GapferryError, isGapferryError, redact } from '../manifests/errors.ts'
import { canonicalJson } from '../manifests/json.ts'
import { writeTransaction, type Database } from './database.ts'

export const AUDIT_MIGRATION = `CREATE TABLE audit (
     seq       INTEGER PRIMARY KEY CHECK (seq > 0),
     at        TEXT NOT NULL,
     system_at TEXT,
     who       TEXT NOT NULL,
     what      TEXT NOT NULL,
     result    TEXT NOT NULL,
     previous  TEXT NOT NULL CHECK (length(previous) = 64),
     hash      TEXT NOT NULL CHECK (length(hash) = 64)
   ) STRICT;`

const What = strictObject({
  command: v.string(),
  site: v.exactOptional(v.string()),
  bundle: v.exactOptional(v.pipe(v.number(), v.integer())),
  groups: v.exactOptional(v.array(v.string())),
  files: v.exactOptional(v.array(v.string())),
  reason: v.exactOptional(v.string()),
  expired: v.exactOptional(v.string()),
  roots: v.exactOptional(v.array(v.pipe(v.number(), v.integer()))),
  added: v.exactOptional(v.array(v.string())),
  removed: v.exactOptional(v.array(v.string())),
  keys: v.exactOptional(v.array(v.string())),
  boxes: v.exactOptional(v.array(v.string())),
  changed: v.exactOptional(v.array(v.string())),
  sha256: v.exactOptional(v.string()),
  lost: v.exactOptional(v.string()),
})

/** What was asked for, or done: the command, a bundle's number, groups, file names without folders; further fields are
 *  those of FORMAT.md#audit-trail. */
export type AuditWhat = v.InferInput<typeof What>

export interface AuditEntry {
  /** the time that was judged by, milliseconds since 1970, and what the system clock said */
  atMs: number
  systemAtMs: number
  /** `name (uid)` */
  who: string
  what: AuditWhat
  /** `ok`, a code of errors.ts, or `interrupted` */
  result: string
}

/** A row as it was found; nothing about it is certain before `verify`. Times are RFC 3339. */
export interface AuditRow {
  seq: number
  at: string
  /** null where it is the same */
  systemAt: string | null
  who: string
  /** null where it cannot be read */
  what: AuditWhat | null
  result: string
  previous: string
  hash: string
}

/** The last row; `seq` 0 and the first row's `previous` where there is none. */
export type AuditHead = Pick<AuditRow, 'seq' | 'hash'>

type StoredRow = Omit<AuditRow, 'what'> & { what: string }

/** `previous` of the first row. */
const NO_HASH = '0'.repeat(64)
/** A row stays small whatever was typed or lies on a stick. */
const MAX_NAMES = 64
const MAX_NAME_CHARS = 255

export class AuditTrail {
  readonly #db: Database
  readonly #program: string
  readonly #sql: ReturnType<typeof prepareStatements>

  /** @param db       with the table of AUDIT_MIGRATION
   *  @param program  whose `audit` shows this trail, for hints */
  constructor(db: Database, program: string) {
    this.#db = db
    this.#program = program
    this.#sql = prepareStatements(db)
  }

  /** Adds a row: as part of the transaction that is open, else in one of its own. */
  append({ atMs, systemAtMs, who, what, result }: AuditEntry): void {
    writeTransaction(this.#db, () => {
      const head = this.head()
      const [at, systemAt] = [formatSeconds(atMs), formatSeconds(systemAtMs)]
      const row = {
        seq: head.seq + 1,
        at,
        systemAt: systemAt === at ? null : systemAt,
        who: limited(who),
        what: limitedWhat(what),
        result,
        previous: head.hash,
      }
      const text = canonicalJson(row.what).toString()
      this.#sql.insert.run({ ...row, what: text, hash: hashOf(row) })
    })
  }

  head(): AuditHead {
    return (this.#sql.head.get() as AuditHead | undefined) ?? { seq: 0, hash: NO_HASH }
  }

  /** True where this very row is there; so is the one before the first. */
  has({ seq, hash }: AuditHead): boolean {
    return seq === 0 || this.#sql.one.get(seq, hash) !== undefined
  }

  /** Oldest first.
   *  @param last  only so many, the newest; default: all */
  rows(last = Number.MAX_SAFE_INTEGER): AuditRow[] {
    const rows = this.#sql.newest.all(last) as StoredRow[]
    return rows.reverse().map((row) => ({ ...row, what: parseWhat(row.what) }))
  }

  /** Checks every row, in one snapshot.
   *  @param noted  a head of an earlier day, which must still be there
   *  @returns the head, to be noted
   *  @throws AUDIT_BROKEN naming the first row that is wrong or missing */
  verify(noted?: AuditHead): AuditHead {
    try {
      return this.#check(noted)
    } catch (error) {
      if (!isGapferryError(error, 'AUDIT_BROKEN')) throw error
      const hint = `compare with what was noted elsewhere: ${this.#program} audit --json`
      throw new GapferryError('AUDIT_BROKEN', error.message, { hint, cause: error })
    }
  }

  #check(noted: AuditHead | undefined): AuditHead {
    let head: AuditHead = { seq: 0, hash: NO_HASH }
    for (const row of this.#sql.all.iterate() as IterableIterator<StoredRow>) {
      head = checkRow(row, head)
      if (noted !== undefined) refuseOther(noted, head)
    }
    if (noted === undefined || noted.seq <= head.seq) return head
    throw broken(head.seq + 1, `expected rows up to the noted ${noted.seq}, found the end of the trail: it was cut off`)
  }
}

function prepareStatements(db: Database) {
  const columns = 'seq, at, system_at AS systemAt, who, what, result, previous, hash'
  return {
    head: db.prepare('SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1'),
    one: db.prepare('SELECT 1 FROM audit WHERE seq = ? AND hash = ?'),
    all: db.prepare(`SELECT ${columns} FROM audit ORDER BY seq`),
    newest: db.prepare(`SELECT ${columns} FROM audit ORDER BY seq DESC LIMIT ?`),
    insert: db.prepare(
      `INSERT INTO audit (seq, at, system_at, who, what, result, previous, hash)
       VALUES (@seq, @at, @systemAt, @who, @what, @result, @previous, @hash)`,
    ),
  }
}

function checkRow(row: StoredRow, { seq, hash }: AuditHead): AuditHead {
  if (row.seq !== seq + 1) throw broken(seq + 1, `is missing; the next one there is ${row.seq}`)
  if (row.previous !== hash) {
    throw broken(row.seq, `does not follow the row before: expected previous hash ${hash}, found ${row.previous}`)
  }
  const what = parseWhat(row.what)
  if (what === null) throw broken(row.seq, 'was changed: what was done cannot be read')
  const expected = hashOf({ ...row, what })
  if (row.hash !== expected) throw broken(row.seq, `was changed: expected hash ${expected}, found ${row.hash}`)
  return { seq: row.seq, hash: row.hash }
}

function refuseOther(noted: AuditHead, found: AuditHead): void {
  if (noted.seq !== found.seq || noted.hash === found.hash) return
  throw broken(noted.seq, `is not the one that was noted: expected hash ${noted.hash}, found ${found.hash}`)
}

/** SHA-256 over the canonical JSON of the row without its hash; a time that is null is left out. */
function hashOf({ seq, at, systemAt, who, what, result, previous }: Omit<AuditRow, 'hash'>): string {
  const row = { seq, at, ...(systemAt === null ? {} : { systemAt }), who, what, result, previous }
  return createHash('sha256').update(canonicalJson(row)).digest('hex')
}

/** Only its one spelling is believed: the hash is made of the value, not of the text. */
function parseWhat(text: string): AuditWhat | null {
  let what: unknown
  try {
    what = JSON.parse(text)
  } catch {
    return null
  }
  return v.is(What, what) && canonicalJson(what).toString() === text ? what : null
}

/** Fields that are undefined are left out. */
function limitedWhat(what: AuditWhat): AuditWhat {
  const fields = Object.entries(what).filter(([, value]) => value !== undefined)
  return Object.fromEntries(fields.map(([name, value]) => [name, limitedField(value)])) as AuditWhat
}

function limitedField(value: string | number | string[] | number[]): unknown {
  if (typeof value === 'string') return limited(value)
  if (!Array.isArray(value)) return value
  const names = value.filter((one) => typeof one === 'string')
  return names.length === value.length ? limitedNames(names) : value.slice(0, MAX_NAMES)
}

function limitedNames(names: string[]): string[] {
  const kept = names.slice(0, MAX_NAMES).map(limited)
  return names.length > MAX_NAMES ? [...kept, `and ${names.length - MAX_NAMES} more`] : kept
}

/** Without control characters, which canonical JSON could not hold, and short. */
function limited(text: string): string {
  return redact(text).toWellFormed().slice(0, MAX_NAME_CHARS).toWellFormed()
}

function formatSeconds(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}

function broken(seq: number, why: string): GapferryError {
  return new GapferryError('AUDIT_BROKEN', `audit row ${seq} ${why}`)
}
