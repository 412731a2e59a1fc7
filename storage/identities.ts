/**
 * Whom the laptop knows at a site: the mirror's identity that a person accepted, and what that mirror said of the keys that
 * licenses are sealed for. All of it is public.
 */
import { writeTransaction, type Database } from './database.ts'

export const IDENTITIES_MIGRATION = `ALTER TABLE mirror_identity ADD COLUMN authority BLOB;
   ALTER TABLE mirror_identity ADD COLUMN delivery BLOB;
   CREATE TABLE enrolled_box (
     site        TEXT NOT NULL REFERENCES mirror_identity (site) ON DELETE CASCADE,
     box         TEXT NOT NULL,
     certificate BLOB NOT NULL,
     is_revoked  INTEGER NOT NULL CHECK (is_revoked IN (0, 1)),
     PRIMARY KEY (site, box, certificate)
   ) STRICT, WITHOUT ROWID;`

/** A mirror as it was accepted for a site. */
export interface KnownIdentity {
  /** base64 of the SubjectPublicKeyInfo of the key that signs its reports */
  identity: string
  /** DER: the certificate of the key that it opens licenses with; null before it told of one */
  delivery: Buffer | null
  /** DER: its own authority, which issues `delivery` and the boxes' certificates */
  authority: Buffer | null
}

/** A box that has, or had, a certificate of the site's authority. */
export interface EnrolledBox {
  box: string
  /** DER */
  certificate: Buffer
  isRevoked: boolean
}

export class IdentityMemory {
  readonly #db: Database

  /** @param db  with the tables of REPORTS_MIGRATION and IDENTITIES_MIGRATION */
  constructor(db: Database) {
    this.#db = db
  }

  /** @returns undefined before an identity was accepted */
  of(site: string): KnownIdentity | undefined {
    const sql = 'SELECT public_key AS identity, delivery, authority FROM mirror_identity WHERE site = ?'
    return this.#db.prepare(sql).get(site) as KnownIdentity | undefined
  }

  /** Sorted by box and certificate; empty before the mirror told of any. */
  enrolled(site: string): EnrolledBox[] {
    const sql = 'SELECT box, certificate, is_revoked FROM enrolled_box WHERE site = ? ORDER BY box, certificate'
    const rows = this.#db.prepare(sql).all(site) as { box: string; certificate: Buffer; is_revoked: number }[]
    return rows.map(({ box, certificate, is_revoked }) => ({ box, certificate, isRevoked: is_revoked === 1 }))
  }

  /** From now on this one is the site's mirror; what another one told of keys and boxes is forgotten. */
  accept(site: string, identity: string): void {
    writeTransaction(this.#db, () => {
      if (this.of(site)?.identity === identity) return
      this.#db.prepare('DELETE FROM mirror_identity WHERE site = ?').run(site)
      this.#db.prepare('INSERT INTO mirror_identity (site, public_key) VALUES (?, ?)').run(site, identity)
    })
  }

  /** What the accepted mirror says of its keys, instead of what it said before.
   *  @param told.enrolled  undefined where it said nothing of boxes: those that are known stay */
  keep(
    site: string,
    told: Pick<KnownIdentity, 'delivery' | 'authority'> & { enrolled?: readonly EnrolledBox[] | undefined },
  ): void {
    const { delivery, authority, enrolled } = told
    writeTransaction(this.#db, () => {
      const sql = 'UPDATE mirror_identity SET delivery = ?, authority = ? WHERE site = ?'
      this.#db.prepare(sql).run(delivery, authority, site)
      if (enrolled === undefined) return
      this.#db.prepare('DELETE FROM enrolled_box WHERE site = ?').run(site)
      const put = this.#db.prepare('INSERT INTO enrolled_box (site, box, certificate, is_revoked) VALUES (?, ?, ?, ?)')
      for (const { box, certificate, isRevoked } of enrolled) put.run(site, box, certificate, Number(isRevoked))
    })
  }
}
