/**
 * The boxes that have a certificate of this mirror, and the codes by which others may get one. A box has one certificate
 * that counts; older ones of its name stay as revoked, so that whoever kept one is known. Deployments are HMACs, codes are
 * sealed: nothing here tells either to whoever has the database alone.
 */
import type { Sha256 } from '../manifests/digest.ts'
import type { Database } from './database.ts'

export const ENROLMENT_MIGRATION = `CREATE TABLE box_code (
     name       TEXT PRIMARY KEY,
     code       BLOB NOT NULL,
     deployment TEXT CHECK (length(deployment) = 64),
     made_at_ms INTEGER NOT NULL,
     ends_at_ms INTEGER NOT NULL,
     wrong      INTEGER NOT NULL DEFAULT 0 CHECK (wrong >= 0)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE enrolled_box (
     sha256          TEXT PRIMARY KEY CHECK (length(sha256) = 64),
     name            TEXT NOT NULL,
     certificate     BLOB NOT NULL,
     enrolled_at_ms  INTEGER NOT NULL,
     revoked_at_ms   INTEGER,
     deployment      TEXT CHECK (length(deployment) = 64),
     delivered       TEXT CHECK (length(delivered) = 64),
     delivered_at_ms INTEGER,
     result          TEXT,
     result_at_ms    INTEGER
   ) STRICT, WITHOUT ROWID;
   CREATE UNIQUE INDEX enrolled_name ON enrolled_box (name) WHERE revoked_at_ms IS NULL;
   CREATE UNIQUE INDEX enrolled_deployment ON enrolled_box (deployment)
     WHERE revoked_at_ms IS NULL AND deployment IS NOT NULL;`

/** A code that was given out and not used yet. */
export interface BoxCode {
  /** lower case */
  name: string
  /** sealed */
  code: Buffer
  /** HMAC of the deployment that the box will be bound to; null: its first one */
  deployment: string | null
  endsAtMs: number
  /** proofs that were not made with it */
  wrong: number
}

export interface EnrolledBox {
  /** of the certificate */
  sha256: Sha256
  /** lower case */
  name: string
  /** DER */
  certificate: Buffer
  enrolledAtMs: number
  /** null while it counts */
  revokedAtMs: number | null
  /** HMAC; null before the first delivery, unless it was fixed */
  deployment: string | null
  /** digest of the license that it was given last */
  delivered: string | null
  deliveredAtMs: number | null
  /** what it said of installing it */
  result: string | null
  resultAtMs: number | null
}

/** Its writes are part of the transaction that is open, which `Catalog.write` opens. */
export class Enrolments {
  readonly #sql: ReturnType<typeof prepareStatements>

  /** @param db  with the tables of ENROLMENT_MIGRATION */
  constructor(db: Database) {
    this.#sql = prepareStatements(db)
  }

  /** Lowers nobody: a box of this name keeps its certificate until the code is used. An older code ends. */
  putCode(code: Omit<BoxCode, 'wrong'> & { nowMs: number }): void {
    this.#sql.putCode.run(code)
  }

  code(name: string): BoxCode | undefined {
    return this.#sql.code.get(name) as BoxCode | undefined
  }

  codes(): BoxCode[] {
    return this.#sql.codes.all() as BoxCode[]
  }

  /** @returns how many wrong proofs there were, with this one */
  countWrong(name: string): number {
    return (this.#sql.countWrong.get(name) as number | undefined) ?? 0
  }

  /** @returns false where there was none */
  dropCode(name: string): boolean {
    return this.#sql.dropCode.run(name).changes > 0
  }

  /** Gives `name` this certificate instead of the one before, whose deployment it takes over where none is fixed, and uses
   *  up its code. A box of another name that has the deployment loses it: an operator fixed it.
   *  @returns the digest of the certificate before */
  enrol(
    box: Pick<EnrolledBox, 'sha256' | 'name' | 'certificate' | 'deployment'> & { nowMs: number },
  ): Sha256 | undefined {
    const before = this.active(box.name)
    this.#sql.revoke.run(box.nowMs, box.name)
    const deployment = box.deployment ?? before?.deployment ?? null
    if (deployment !== null) this.#sql.unbind.run(deployment)
    this.#sql.enrol.run({ ...box, deployment })
    this.dropCode(box.name)
    return before?.sha256
  }

  /** Whatever became of it. */
  byCertificate(sha256: string): EnrolledBox | undefined {
    return this.#sql.byCertificate.get(sha256) as EnrolledBox | undefined
  }

  active(name: string): EnrolledBox | undefined {
    return this.#sql.active.get(name) as EnrolledBox | undefined
  }

  /** By name; of each the one that counts first, then those that were revoked, newest first. */
  all(): EnrolledBox[] {
    return this.#sql.all.all() as EnrolledBox[]
  }

  /** @returns false where there was none */
  revoke(name: string, nowMs: number): boolean {
    return this.#sql.revoke.run(nowMs, name).changes > 0
  }

  /** Binds a box that has no deployment yet. @returns false where another one has this one */
  bind(sha256: string, deployment: string): boolean {
    if (this.#sql.owner.get(deployment) !== undefined) return false
    return this.#sql.bind.run(deployment, sha256).changes > 0
  }

  noteDelivery(sha256: string, content: string, nowMs: number): void {
    this.#sql.noteDelivery.run(content, nowMs, sha256)
  }

  noteResult(sha256: string, result: string, nowMs: number): void {
    this.#sql.noteResult.run(result, nowMs, sha256)
  }

  /** Takes over what another database of this mirror knew: what it revoked is revoked, what it enrolled or bound counts.
   *  All codes end: one of an older day may have been used since. */
  merge(known: readonly EnrolledBox[]): void {
    this.#sql.dropCodes.run()
    for (const box of known) {
      const here = this.byCertificate(box.sha256)
      if (here === undefined) this.#adopt(box)
      else if (here.revokedAtMs === null && box.revokedAtMs !== null) this.#sql.revoke.run(box.revokedAtMs, box.name)
    }
    // After all were revoked that are: a deployment is bound to one box at a time.
    for (const { sha256, deployment, revokedAtMs } of known) {
      if (deployment === null || revokedAtMs !== null) continue
      this.#sql.unbind.run(deployment)
      this.#sql.rebind.run(deployment, sha256)
    }
  }

  #adopt(box: EnrolledBox): void {
    if (box.revokedAtMs === null) {
      this.#sql.revoke.run(box.enrolledAtMs, box.name)
      if (box.deployment !== null) this.#sql.unbind.run(box.deployment)
    }
    this.#sql.adopt.run(box)
  }
}

const BOX_COLUMNS = `sha256, name, certificate, enrolled_at_ms AS enrolledAtMs, revoked_at_ms AS revokedAtMs, deployment,
  delivered, delivered_at_ms AS deliveredAtMs, result, result_at_ms AS resultAtMs`
const CODE_COLUMNS = 'name, code, deployment, ends_at_ms AS endsAtMs, wrong'

function prepareStatements(db: Database) {
  return {
    putCode: db.prepare(
      `INSERT OR REPLACE INTO box_code (name, code, deployment, made_at_ms, ends_at_ms)
       VALUES (@name, @code, @deployment, @nowMs, @endsAtMs)`,
    ),
    code: db.prepare(`SELECT ${CODE_COLUMNS} FROM box_code WHERE name = ?`),
    codes: db.prepare(`SELECT ${CODE_COLUMNS} FROM box_code ORDER BY name`),
    countWrong: db.prepare('UPDATE box_code SET wrong = wrong + 1 WHERE name = ? RETURNING wrong').pluck(),
    dropCode: db.prepare('DELETE FROM box_code WHERE name = ?'),
    dropCodes: db.prepare('DELETE FROM box_code'),
    enrol: db.prepare(
      `INSERT INTO enrolled_box (sha256, name, certificate, enrolled_at_ms, deployment)
       VALUES (@sha256, @name, @certificate, @nowMs, @deployment)`,
    ),
    adopt: db.prepare(
      `INSERT INTO enrolled_box (sha256, name, certificate, enrolled_at_ms, revoked_at_ms, deployment, delivered,
         delivered_at_ms, result, result_at_ms)
       VALUES (@sha256, @name, @certificate, @enrolledAtMs, @revokedAtMs, @deployment, @delivered, @deliveredAtMs, @result,
         @resultAtMs)`,
    ),
    byCertificate: db.prepare(`SELECT ${BOX_COLUMNS} FROM enrolled_box WHERE sha256 = ?`),
    active: db.prepare(`SELECT ${BOX_COLUMNS} FROM enrolled_box WHERE name = ? AND revoked_at_ms IS NULL`),
    all: db.prepare(
      `SELECT ${BOX_COLUMNS} FROM enrolled_box ORDER BY name, revoked_at_ms IS NOT NULL, enrolled_at_ms DESC, sha256`,
    ),
    revoke: db.prepare('UPDATE enrolled_box SET revoked_at_ms = ? WHERE name = ? AND revoked_at_ms IS NULL'),
    owner: db.prepare('SELECT 1 FROM enrolled_box WHERE deployment = ? AND revoked_at_ms IS NULL'),
    bind: db.prepare(
      'UPDATE enrolled_box SET deployment = ? WHERE sha256 = ? AND revoked_at_ms IS NULL AND deployment IS NULL',
    ),
    rebind: db.prepare('UPDATE enrolled_box SET deployment = ? WHERE sha256 = ? AND revoked_at_ms IS NULL'),
    unbind: db.prepare('UPDATE enrolled_box SET deployment = NULL WHERE deployment = ? AND revoked_at_ms IS NULL'),
    noteDelivery: db.prepare('UPDATE enrolled_box SET delivered = ?, delivered_at_ms = ? WHERE sha256 = ?'),
    noteResult: db.prepare('UPDATE enrolled_box SET result = ?, result_at_ms = ? WHERE sha256 = ?'),
  }
}
