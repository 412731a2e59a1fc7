/**
 * What the laptop remembers of the way back, in its ledger: for each site the key that reports are sealed for, and the
 * last report. The key is not encrypted: it opens no more than what lies beside it in the clear.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import type { Sha256 } from '../manifests/digest.ts'
import { publicKeyOf } from '../manifests/report.ts'
import { writeTransaction, type Database } from './database.ts'

export const REPORTS_MIGRATION = `CREATE TABLE report_key (
     site   TEXT PRIMARY KEY,
     secret BLOB NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE mirror_identity (
     site       TEXT PRIMARY KEY,
     public_key TEXT NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE report (
     site        TEXT PRIMARY KEY,
     sequence    INTEGER NOT NULL CHECK (sequence >= 0),
     added_at_ms INTEGER NOT NULL,
     document    BLOB,
     state       TEXT CHECK (length(state) = 64),
     CHECK ((document IS NULL) <> (state IS NULL))
   ) STRICT, WITHOUT ROWID;`

/** What is known of a site: its mirror's last report, or the state that was told over the phone since. */
export interface KnownReport {
  site: string
  /** of the last report; 0 before the first */
  sequence: number
  addedAtMs: number
  /** as it was signed; null where `state` is later */
  document: Buffer | null
  /** SHA-256 of the targets.json of the bundle that is whole there */
  state: Sha256 | null
}

export class ReportMemory {
  readonly #db: Database

  /** @param db  with the tables of REPORTS_MIGRATION */
  constructor(db: Database) {
    this.#db = db
  }

  /** What opens reports of the site; made when there is none. */
  key(site: string): KeyObject {
    return writeTransaction(this.#db, () => {
      const there = this.secret(site)
      if (there !== undefined) return createPrivateKey({ key: there, format: 'der', type: 'pkcs8' })
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      this.keepSecret(site, privateKey.export({ format: 'der', type: 'pkcs8' }))
      return privateKey
    })
  }

  /** base64 of the SubjectPublicKeyInfo; made when there is none */
  publicKey(site: string): string {
    return publicKeyOf(this.key(site))
  }

  /** PKCS#8, for a backup; undefined before the first bundle. */
  secret(site: string): Buffer | undefined {
    return this.#db.prepare('SELECT secret FROM report_key WHERE site = ?').pluck().get(site) as Buffer | undefined
  }

  /** Takes over one that was backed up; one that is here stays. */
  keepSecret(site: string, secret: Buffer): void {
    this.#run('INSERT OR IGNORE INTO report_key (site, secret) VALUES (?, ?)', site, secret)
  }

  last(site: string): KnownReport | undefined {
    return this.#db.prepare(`${SELECT} WHERE site = ?`).get(site) as KnownReport | undefined
  }

  keep({ site, sequence, addedAtMs, document, state }: KnownReport): void {
    const sql = 'INSERT OR REPLACE INTO report (site, sequence, added_at_ms, document, state) VALUES (?, ?, ?, ?, ?)'
    this.#run(sql, site, sequence, addedAtMs, document, state)
  }

  #run(sql: string, ...values: (string | number | Buffer | null)[]): void {
    writeTransaction(this.#db, () => this.#db.prepare(sql).run(...values))
  }
}

const SELECT = 'SELECT site, sequence, added_at_ms AS addedAtMs, document, state FROM report'
