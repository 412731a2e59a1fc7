/**
 * The licenses that the laptop keeps, in its ledger, each sealed for the site's license key. Beside them stands what a person
 * may see without that key: product, dates, and the deployment as an HMAC. Neither a deployment ID nor anything of a license's
 * text is in any row.
 */
import { createHmac, randomBytes } from 'node:crypto'
import type { Sha256 } from '../manifests/digest.ts'
import type { LicenseDate } from '../manifests/license-facts.ts'
import { writeTransaction, type Database } from './database.ts'

export const LICENSES_MIGRATION = `CREATE TABLE license_secret (
     id     INTEGER PRIMARY KEY CHECK (id = 1),
     secret BLOB NOT NULL CHECK (length(secret) = 32)
   ) STRICT;
   CREATE TABLE license (
     site        TEXT NOT NULL,
     deployment  TEXT NOT NULL CHECK (length(deployment) = 64),
     content     TEXT NOT NULL CHECK (length(content) = 64),
     product     TEXT,
     expires     TEXT NOT NULL,
     machine     TEXT,
     captured_at TEXT,
     added_at_ms INTEGER NOT NULL,
     source      TEXT NOT NULL CHECK (source IN ('folder', 'capture', 'http')),
     sealed      BLOB NOT NULL,
     PRIMARY KEY (site, deployment)
   ) STRICT;
   CREATE TABLE sealed_license (
     site      TEXT NOT NULL,
     content   TEXT NOT NULL CHECK (length(content) = 64),
     recipient TEXT NOT NULL CHECK (length(recipient) = 64),
     sha256    TEXT NOT NULL CHECK (length(sha256) = 64),
     bytes     INTEGER NOT NULL CHECK (bytes > 0),
     PRIMARY KEY (site, content, recipient)
   ) STRICT, WITHOUT ROWID;`

/** A license as the laptop knows it without its key. */
export interface KeptLicense {
  site: string
  /** HMAC of the deployment ID */
  deployment: string
  /** HMAC of the license document, but for the time of its capture */
  content: string
  product: string | null
  expires: LicenseDate[]
  /** SHA-256 of the machine id of the box that it was captured on */
  machine: string | null
  /** RFC 3339 */
  capturedAt: string | null
  addedAtMs: number
  source: 'folder' | 'capture' | 'http'
}

/** A blob that a license, or the index of a site's licenses, was sealed into. */
export interface SealedBlob {
  sha256: Sha256
  bytes: number
}

export class LicenseMemory {
  readonly #db: Database

  /** @param db  with the tables of LICENSES_MIGRATION */
  constructor(db: Database) {
    this.#db = db
  }

  /** How a text is known in the ledger: nothing to whoever has not got the ledger. 64 hex digits. */
  hmac(purpose: 'deployment' | 'content', site: string, text: string | Uint8Array): string {
    return createHmac('sha256', this.#secret()).update(`${purpose} ${site}\n`).update(text).digest('hex')
  }

  /** Those of a site, sorted by deployment. */
  of(site: string): KeptLicense[] {
    const sql = `SELECT site, deployment, content, product, expires, machine, captured_at AS capturedAt,
      added_at_ms AS addedAtMs, source FROM license WHERE site = ? ORDER BY deployment`
    const rows = this.#db.prepare(sql).all(site) as (Omit<KeptLicense, 'expires'> & { expires: string })[]
    return rows.map((row) => ({ ...row, expires: JSON.parse(row.expires) as LicenseDate[] }))
  }

  /** As it was sealed for the site's license key; undefined where there is none. */
  sealed(site: string, deployment: string): Buffer | undefined {
    const sql = 'SELECT sealed FROM license WHERE site = ? AND deployment = ?'
    return this.#db.prepare(sql).pluck().get(site, deployment) as Buffer | undefined
  }

  /** Keeps it instead of the one of the same deployment. */
  keep(license: KeptLicense, sealed: Buffer): void {
    const { site, deployment, content, product, expires, machine, capturedAt, addedAtMs, source } = license
    const values = [content, product, JSON.stringify(expires), machine, capturedAt, addedAtMs, source, sealed]
    this.#db
      .prepare(
        `INSERT OR REPLACE INTO license (site, deployment, content, product, expires, machine, captured_at, added_at_ms,
           source, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(site, deployment, ...values)
  }

  /** @returns false where there was none */
  forget(site: string, deployment: string): boolean {
    return this.#db.prepare('DELETE FROM license WHERE site = ? AND deployment = ?').run(site, deployment).changes > 0
  }

  /** The blob that `content` was sealed into for the certificate with that SHA-256: sealed again, it would be another one. */
  blob(site: string, content: string, recipient: Sha256): SealedBlob | undefined {
    const sql = 'SELECT sha256, bytes FROM sealed_license WHERE site = ? AND content = ? AND recipient = ?'
    return this.#db.prepare(sql).get(site, content, recipient) as SealedBlob | undefined
  }

  keepBlob(site: string, content: string, recipient: Sha256, { sha256, bytes }: SealedBlob): void {
    const sql = 'INSERT OR REPLACE INTO sealed_license (site, content, recipient, sha256, bytes) VALUES (?, ?, ?, ?, ?)'
    this.#db.prepare(sql).run(site, content, recipient, sha256, bytes)
  }

  #secret(): Buffer {
    const get = this.#db.prepare('SELECT secret FROM license_secret').pluck()
    const known = get.get() as Buffer | undefined
    if (known !== undefined) return known
    return writeTransaction(this.#db, () => {
      this.#db.prepare('INSERT OR IGNORE INTO license_secret (id, secret) VALUES (1, ?)').run(randomBytes(32))
      return get.get() as Buffer
    })
  }
}
