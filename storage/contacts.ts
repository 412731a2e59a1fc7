/**
 * `contacts.db`: which FreePBX boxes asked for modules, when, and what they said they have. It is free inventory and no
 * state: nothing that is served depends on it, a backup leaves it out, and where it is damaged it begins anew. So it is never
 * synced, and it is bounded whatever clients send: by boxes, by modules of a box, by bytes of each text, and as a whole.
 */
import { existsSync, lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { openDatabase, readDatabase, soundly, writeTransaction, type Database } from './database.ts'

/** What a box trips over, or will: `slash` at the end of its MODULE_REPO, a path (`prefix`) in it, a `list` that its origin
 *  does not have. */
export type Oddity = 'slash' | 'prefix' | 'list'

/** What one request of a box says; null: nothing. Its texts are checked and short already. */
export interface Contact {
  group: string
  installid: string
  atMs: number
  /** address that it asked from */
  address: string
  /** HMAC of the deployment ID, which itself is kept nowhere */
  deployment: Sha256 | null
  framework: string | null
  phpver: string | null
  brand: string | null
  /** rawname → version; null: the request did not say */
  modules: ReadonlyMap<string, string> | null
  oddities: readonly Oddity[]
}

export interface BoxContact extends Omit<Contact, 'atMs' | 'modules' | 'oddities'> {
  firstMs: number
  lastMs: number
  modules: Map<string, string>
  /** when each was seen last */
  oddities: Map<Oddity, number>
}

export const MAX_BOXES_PER_GROUP = 300
/** Boxes behind one router share an address. */
export const MAX_BOXES_PER_ADDRESS = 64
export const MAX_MODULES = 400
const MAX_FILE_BYTES = 64 * 1024 * 1024
/** Whoever has the file reads or writes a few rows: longer than that no request waits. */
const BUSY_TIMEOUT_MS = 50
/** Who was seen over a day or more is no passer-by: it leaves last. */
const SETTLED_MS = 86_400_000

const MIGRATIONS = [
  `CREATE TABLE box (
     group_name TEXT NOT NULL,
     installid  TEXT NOT NULL,
     deployment TEXT CHECK (length(deployment) = 64),
     first_ms   INTEGER NOT NULL,
     last_ms    INTEGER NOT NULL,
     address    TEXT NOT NULL,
     framework  TEXT,
     phpver     TEXT,
     brand      TEXT,
     modules    TEXT NOT NULL,
     oddities   TEXT NOT NULL,
     PRIMARY KEY (group_name, installid)
   ) STRICT;
   CREATE INDEX box_address ON box (group_name, address);`,
  // They were plain digests: of IDs with so few digits, whoever has the file would find them.
  'UPDATE box SET deployment = NULL',
]

interface Row {
  group_name: string
  installid: string
  deployment: Sha256 | null
  first_ms: number
  last_ms: number
  address: string
  framework: string | null
  phpver: string | null
  brand: string | null
  modules: string
  oddities: string
}

export function contactsFile(storeDir: string): string {
  return join(storeDir, 'contacts.db')
}

/** The boxes that asked, the latest first; none where nothing was noted yet.
 *  @throws STORE_DAMAGED, STORE_UNREADABLE, STORE_BUSY */
export function readContacts(storeDir: string): BoxContact[] {
  const file = contactsFile(storeDir)
  if (!existsSync(file)) return []
  refuseOddFile(file)
  return readDatabase(file, (db) => {
    const rows = db.prepare('SELECT * FROM box ORDER BY last_ms DESC, group_name, installid').all() as Row[]
    return rows.map(toContact)
  })
}

/** For `serve`, which alone writes it. */
export class ContactStore {
  readonly #db: Database
  readonly #find
  readonly #put
  readonly #trimAddress
  readonly #trimGroup

  /** @param options.onDamage   told where a damaged file gave way to a new one
   *  @param options.isDamaged  a write said so
   *  @param options.maxBytes   of the file; for tests
   *  @throws STORE_VERSION, STORE_UNREADABLE, STORE_BUSY, SPACE_SHORT */
  constructor(
    storeDir: string,
    options: { onDamage: (error: unknown) => void; isDamaged?: boolean; maxBytes?: number },
  ) {
    const { onDamage, isDamaged = false, maxBytes = MAX_FILE_BYTES } = options
    this.#db = isDamaged ? beginAnew(storeDir) : openOrBeginAnew(storeDir, onDamage)
    this.#db.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`)
    const pageBytes = Number(this.#db.pragma('page_size', { simple: true }))
    this.#db.pragma(`max_page_count = ${Math.floor(maxBytes / pageBytes)}`)
    this.#find = this.#db.prepare<[string, string], Row>('SELECT * FROM box WHERE group_name = ? AND installid = ?')
    this.#put = this.#db.prepare<[Row]>(PUT)
    this.#trimAddress = this.#db.prepare<[string, string, number]>(trim('group_name = ? AND address = ?'))
    this.#trimGroup = this.#db.prepare<[string, number]>(trim('group_name = ?'))
  }

  /** Which boxes are known: `<group> <installid>`. @throws as `write` */
  keys(): string[] {
    const select = `SELECT group_name || ' ' || installid FROM box`
    return soundly(this.#db, () => this.#db.prepare<[], string>(select).pluck().all())
  }

  /** Keeps all of `contacts` or none; who was seen for less than a day and longest ago makes room.
   *  @throws STORE_DAMAGED: open it again with `isDamaged`; SPACE_SHORT, STORE_BUSY, STORE_UNREADABLE */
  write(contacts: readonly Contact[]): void {
    const places = new Map(contacts.map(({ group, address }) => [`${group} ${address}`, { group, address }]))
    soundly(this.#db, () =>
      writeTransaction(this.#db, () => {
        for (const contact of contacts) {
          this.#put.run(joined(this.#find.get(contact.group, contact.installid), contact))
        }
        for (const { group, address } of places.values()) {
          this.#trimAddress.run(group, address, MAX_BOXES_PER_ADDRESS)
          this.#trimGroup.run(group, MAX_BOXES_PER_GROUP)
        }
      }),
    )
  }

  close(): void {
    this.#db.close()
  }
}

const PUT = `INSERT OR REPLACE INTO box VALUES (@group_name, @installid, @deployment, @first_ms, @last_ms, @address,
  @framework, @phpver, @brand, @modules, @oddities)`

/** What is left of the boxes `where` says after so many. */
function trim(where: string): string {
  const order = `(last_ms - first_ms >= ${SETTLED_MS}) DESC, last_ms DESC`
  return `DELETE FROM box WHERE rowid IN (SELECT rowid FROM box WHERE ${where} ORDER BY ${order} LIMIT -1 OFFSET ?)`
}

/** A pipe in its place would be waited for. */
function refuseOddFile(file: string): void {
  if (lstatSync(file, { throwIfNoEntry: false })?.isFile() === false) {
    throw new GapferryError('STORE_UNREADABLE', `${file}: expected a file`, { hint: 'move it away' })
  }
}

function openOrBeginAnew(storeDir: string, onDamage: (error: unknown) => void): Database {
  refuseOddFile(contactsFile(storeDir))
  try {
    return openDatabase(contactsFile(storeDir), MIGRATIONS, { isSpare: true })
  } catch (error) {
    if (!isGapferryError(error, 'STORE_DAMAGED')) throw error
    const db = beginAnew(storeDir)
    onDamage(error)
    return db
  }
}

function beginAnew(storeDir: string): Database {
  const file = contactsFile(storeDir)
  for (const ending of ['', '-journal', '-wal', '-shm']) rmSync(`${file}${ending}`, { force: true, recursive: true })
  return openDatabase(file, MIGRATIONS, { isSpare: true })
}

/** What was known of a box, and what it says now. */
function joined(before: Row | undefined, contact: Contact): Row {
  const oddities = contact.oddities.map((oddity) => [oddity, contact.atMs])
  return {
    group_name: contact.group,
    installid: contact.installid,
    deployment: contact.deployment ?? before?.deployment ?? null,
    first_ms: before?.first_ms ?? contact.atMs,
    last_ms: contact.atMs,
    address: contact.address,
    framework: contact.framework ?? before?.framework ?? null,
    phpver: contact.phpver ?? before?.phpver ?? null,
    brand: contact.brand ?? before?.brand ?? null,
    modules: contact.modules === null ? (before?.modules ?? '{}') : JSON.stringify(Object.fromEntries(contact.modules)),
    oddities: JSON.stringify({ ...parseJson(before?.oddities ?? '{}'), ...Object.fromEntries(oddities) }),
  }
}

function toContact(row: Row): BoxContact {
  const { installid, deployment, address, framework, phpver, brand } = row
  return {
    group: row.group_name,
    installid,
    deployment,
    address,
    framework,
    phpver,
    brand,
    firstMs: row.first_ms,
    lastMs: row.last_ms,
    modules: new Map(Object.entries(parseJson(row.modules)).map(([rawname, version]) => [rawname, String(version)])),
    oddities: new Map(
      Object.entries(parseJson(row.oddities)).map(([oddity, atMs]) => [oddity as Oddity, Number(atMs)]),
    ),
  }
}

/** What this program wrote; a file that says something else is read as if it said nothing. */
function parseJson(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
