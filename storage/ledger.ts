/**
 * The laptop's memory: which upstream checksum is which blob, what was signed for each site, the stamps and paths that
 * later bundles must respect. One SQLite file in the laptop's store, all its SQL here.
 */
import type { Sha256 } from '../manifests/digest.ts'
import type { Verdict } from '../manifests/tree.ts'
import { AuditTrail } from './audit.ts'
import { openDatabase, writeTransaction, type Database } from './database.ts'
import { IdentityMemory } from './identities.ts'
import { MIGRATIONS } from './ledger-schema.ts'
import { LicenseMemory } from './licenses.ts'
import { ReportMemory } from './reports.ts'

/** A blob that came from an upstream, and what was found out about the signature inside it. */
export interface Fetched {
  sha256: Sha256
  verdict: Verdict
}

/** What a server said of a file without a declared digest, so that the next look needs no bytes. */
export interface Validator {
  etag: string | null
  lastModified: string | null
  sha256: Sha256
  bytes: number
}

/** What was found out about a module's file. */
export interface ModuleFile {
  sha256: Sha256
  /** what the feed said of it and which keys there were, in one spelling: the file was held against that, and nothing else */
  expected: string
  /** of the file when it was looked at */
  bytes: number
  rawname: string
  version: string
  verdict: 'good' | 'unsigned' | 'bad'
  /** full fingerprint of the key that signed it, where that is known */
  signer: string | null
  /** what is wrong with the signature */
  why: string | null
  /** of the archive inside the signed message; of the file itself where it is not signed */
  innerSha256: Sha256
  innerBytes: number
}

/** A small file that can be asked for again by its marks; its bytes are a blob. */
export interface PageRow extends Validator {
  askedAtMs: number
}

export interface SignedBundle {
  site: string
  number: number
  createdAtMs: number
  /** digest over what is carried, stamps left out: equal content needs no new bundle */
  content: Sha256
  /** archive names without folder → bytes as signed, kept for ever: a bundle is signed once */
  metadata: Map<string, Buffer>
  /** target name → digest of the tree, which is a blob of the store */
  trees: Map<string, Sha256>
}

/** What a bundle promises to a group's boxes for all later bundles. */
export interface Promises {
  group: string
  /** repository id → highest stamp used */
  stamps: Map<string, number>
  /** immutable path → its blob */
  immutable: Map<string, Sha256>
}

export class Ledger {
  readonly #db: Database
  /** who did what to this laptop's sites */
  readonly audit: AuditTrail
  /** what came back from the sites */
  readonly reports: ReportMemory
  /** the sites' mirrors, and the boxes that they enrolled */
  readonly identities: IdentityMemory
  /** what licenses are kept, and what they were sealed into */
  readonly licenses: LicenseMemory

  /** @throws STORE_VERSION when a newer program wrote it */
  constructor(file: string) {
    this.#db = openDatabase(file, MIGRATIONS)
    this.audit = new AuditTrail(this.#db, 'gapferry')
    this.reports = new ReportMemory(this.#db)
    this.identities = new IdentityMemory(this.#db)
    this.licenses = new LicenseMemory(this.#db)
  }

  /** Runs `work` in one transaction. */
  write<T>(work: () => T): T {
    return writeTransaction(this.#db, work)
  }

  /** What was seen when a run looked last: name → value. Empty before the first `note`. */
  noted(kind: string): Map<string, string> {
    const rows = this.#db.prepare('SELECT name, value FROM noted WHERE kind = ?').all(kind) as {
      name: string
      value: string
    }[]
    return new Map(rows.map(({ name, value }) => [name, value]))
  }

  /** Remembers it instead of what was seen before. */
  note(kind: string, values: ReadonlyMap<string, string>): void {
    this.write(() => {
      this.#db.prepare('DELETE FROM noted WHERE kind = ?').run(kind)
      const put = this.#db.prepare('INSERT INTO noted (kind, name, value) VALUES (?, ?, ?)')
      for (const [name, value] of values) put.run(kind, name, value)
    })
  }

  close(): void {
    this.#db.close()
  }

  /** The blob that was fetched for an upstream checksum, checked then against everything that the upstream said of it. */
  fetched(algorithm: string, hex: string): Fetched | undefined {
    return this.#db.prepare('SELECT sha256, verdict FROM alias WHERE algorithm = ? AND hex = ?').get(algorithm, hex) as
      Fetched | undefined
  }

  /** @throws SPACE_SHORT, STORE_UNREADABLE, as all that writes here */
  rememberFetched(algorithm: string, hex: string, { sha256, verdict }: Fetched): void {
    const sql = 'INSERT OR REPLACE INTO alias (algorithm, hex, sha256, verdict) VALUES (?, ?, ?, ?)'
    this.#write(sql, algorithm, hex, sha256, verdict)
  }

  validator(url: string): Validator | undefined {
    const row = this.#db
      .prepare('SELECT etag, last_modified AS lastModified, sha256, bytes FROM validator WHERE url = ?')
      .get(url)
    return row as Validator | undefined
  }

  rememberValidator(url: string, v: Validator): void {
    const sql = 'INSERT OR REPLACE INTO validator (url, etag, last_modified, sha256, bytes) VALUES (?, ?, ?, ?, ?)'
    this.#write(sql, url, v.etag, v.lastModified, v.sha256, v.bytes)
  }

  /** @returns undefined where this blob was never held against `expected` */
  moduleFile(sha256: Sha256, expected: string): ModuleFile | undefined {
    const sql = `SELECT sha256, expected, bytes, rawname, version, verdict, signer, why, inner_sha256 AS innerSha256,
                        inner_bytes AS innerBytes FROM module_file WHERE sha256 = ? AND expected = ?`
    return this.#db.prepare(sql).get(sha256, expected) as ModuleFile | undefined
  }

  /** The size of a module's file when it was looked at last, whatever it was held against. */
  moduleBytes(sha256: Sha256): number | undefined {
    const sql = 'SELECT bytes FROM module_file WHERE sha256 = ? LIMIT 1'
    return this.#db.prepare(sql).pluck().get(sha256) as number | undefined
  }

  rememberModule(m: ModuleFile): void {
    const sql = 'INSERT OR REPLACE INTO module_file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
    const facts = [m.sha256, m.expected, m.bytes, m.rawname, m.version, m.verdict, m.signer, m.why]
    this.#write(sql, ...facts, m.innerSha256, m.innerBytes)
  }

  /** @param request  SHA-256 of what was asked for */
  page(request: Sha256): PageRow | undefined {
    const row = this.#db
      .prepare(
        `SELECT etag, last_modified AS lastModified, sha256, bytes, asked_at_ms AS askedAtMs
         FROM page WHERE request = ?`,
      )
      .get(request)
    return row as PageRow | undefined
  }

  rememberPage(request: Sha256, { etag, lastModified, sha256, bytes, askedAtMs }: PageRow): void {
    const sql = `INSERT OR REPLACE INTO page (request, etag, last_modified, sha256, bytes, asked_at_ms)
                 VALUES (?, ?, ?, ?, ?, ?)`
    this.#write(sql, request, etag, lastModified, sha256, bytes, askedAtMs)
  }

  forgetPage(request: Sha256): void {
    this.#write('DELETE FROM page WHERE request = ?', request)
  }

  /** Those that nobody asked for since. */
  forgetPages(beforeMs: number): void {
    const isOld = this.#db.prepare('SELECT 1 FROM page WHERE asked_at_ms < ?').get(beforeMs) !== undefined
    if (isOld) this.#write('DELETE FROM page WHERE asked_at_ms < ?', beforeMs)
  }

  /** The blobs of all pages. */
  pageBlobs(): Sha256[] {
    return this.#db.prepare('SELECT sha256 FROM page').pluck().all() as Sha256[]
  }

  /** The newest bundle signed for `site`. */
  lastBundle(site: string): SignedBundle | undefined {
    const row = this.#db
      .prepare(
        `SELECT site, number, created_at_ms AS createdAtMs, content FROM bundle
         WHERE site = ? ORDER BY number DESC LIMIT 1`,
      )
      .get(site) as Omit<SignedBundle, 'metadata' | 'trees'> | undefined
    if (row === undefined) return undefined
    return { ...row, metadata: this.#metadata(site, row.number), trees: this.#trees(site, row.number) }
  }

  /** All bundles that were signed: sorted by site, newest first. */
  bundles(): SignedBundle[] {
    const rows = this.#db
      .prepare(
        `SELECT site, number, created_at_ms AS createdAtMs, content FROM bundle
         ORDER BY site, number DESC`,
      )
      .all() as Omit<SignedBundle, 'metadata' | 'trees'>[]
    return rows.map((row) => ({
      ...row,
      metadata: this.#metadata(row.site, row.number),
      trees: this.#trees(row.site, row.number),
    }))
  }

  /** The number of the site's next bundle: above all that were signed here, and above what it was told others used. */
  nextNumber(site: string): number {
    const { number } = this.#db
      .prepare(
        `SELECT max(coalesce((SELECT max(number) FROM bundle WHERE site = @site), 0),
                    coalesce((SELECT number FROM number_floor WHERE site = @site), 0)) + 1 AS number`,
      )
      .get({ site }) as { number: number }
    return number
  }

  /** Numbers up to this one are used, or may be, by another laptop. It is never lowered. */
  keepAbove(site: string, number: number): void {
    this.#write(
      `INSERT INTO number_floor (site, number) VALUES (?, ?)
       ON CONFLICT (site) DO UPDATE SET number = max(number, excluded.number)`,
      site,
      number,
    )
  }

  /** What every group of a site was promised. */
  allPromises(site: string): Promises[] {
    const groups = this.#db
      .prepare(
        'SELECT group_name FROM stamp WHERE site = @site UNION SELECT group_name FROM immutable WHERE site = @site',
      )
      .pluck()
      .all({ site }) as string[]
    return groups.map((group) => this.promises(site, group))
  }

  /** Takes over what another laptop, or this one on an earlier day, remembered. What is known here stays: the highest number
   *  and stamps count, a bundle and a path that are here are not replaced. */
  merge(site: string, memory: { bundle?: SignedBundle; promises: Promises[]; usedNumber: number }): void {
    const { bundle, promises, usedNumber } = memory
    writeTransaction(this.#db, () => {
      const isHere = this.#db.prepare('SELECT 1 FROM bundle WHERE site = ? AND number = ?')
      if (bundle !== undefined && isHere.get(site, bundle.number) === undefined) this.#insertBundle(bundle)
      for (const one of promises) this.#insertPromises(site, one)
      if (usedNumber > 0) this.keepAbove(site, usedNumber)
    })
  }

  promises(site: string, group: string): Promises {
    const stamps = this.#db
      .prepare('SELECT repository, stamp FROM stamp WHERE site = ? AND group_name = ?')
      .all(site, group) as { repository: string; stamp: number }[]
    const paths = this.#db
      .prepare('SELECT path, sha256 FROM immutable WHERE site = ? AND group_name = ?')
      .all(site, group) as { path: string; sha256: Sha256 }[]
    return {
      group,
      stamps: new Map(stamps.map((row) => [row.repository, row.stamp])),
      immutable: new Map(paths.map((row) => [row.path, row.sha256])),
    }
  }

  /** Keeps a signed bundle and what it promises, in one transaction. The caller's blobs are durable before. */
  rememberBundle(bundle: SignedBundle, promises: Promises[]): void {
    writeTransaction(this.#db, () => {
      this.#insertBundle(bundle)
      for (const one of promises) this.#insertPromises(bundle.site, one)
    })
  }

  #insertBundle({ site, number, createdAtMs, content, metadata, trees }: SignedBundle): void {
    this.#db
      .prepare('INSERT INTO bundle (site, number, created_at_ms, content) VALUES (?, ?, ?, ?)')
      .run(site, number, createdAtMs, content)
    const addMetadata = this.#db.prepare('INSERT INTO bundle_metadata (site, number, name, bytes) VALUES (?, ?, ?, ?)')
    for (const [name, bytes] of metadata) addMetadata.run(site, number, name, bytes)
    const addTree = this.#db.prepare('INSERT INTO bundle_tree (site, number, target, sha256) VALUES (?, ?, ?, ?)')
    for (const [target, sha256] of trees) addTree.run(site, number, target, sha256)
  }

  #insertPromises(site: string, { group, stamps, immutable }: Promises): void {
    const stamp = this.#db.prepare(
      `INSERT INTO stamp (site, group_name, repository, stamp) VALUES (?, ?, ?, ?)
       ON CONFLICT (site, group_name, repository) DO UPDATE SET stamp = max(stamp, excluded.stamp)`,
    )
    for (const [repository, value] of stamps) stamp.run(site, group, repository, value)
    const path = this.#db.prepare(
      'INSERT OR IGNORE INTO immutable (site, group_name, path, sha256) VALUES (?, ?, ?, ?)',
    )
    for (const [key, sha256] of immutable) path.run(site, group, key, sha256)
  }

  #write(sql: string, ...values: (string | number | null)[]): void {
    writeTransaction(this.#db, () => this.#db.prepare(sql).run(...values))
  }

  #metadata(site: string, number: number): Map<string, Buffer> {
    const rows = this.#db
      .prepare('SELECT name, bytes FROM bundle_metadata WHERE site = ? AND number = ? ORDER BY rowid')
      .all(site, number) as { name: string; bytes: Buffer }[]
    return new Map(rows.map((row) => [row.name, row.bytes]))
  }

  #trees(site: string, number: number): Map<string, Sha256> {
    const rows = this.#db
      .prepare('SELECT target, sha256 FROM bundle_tree WHERE site = ? AND number = ? ORDER BY target')
      .all(site, number) as { target: string; sha256: Sha256 }[]
    return new Map(rows.map((row) => [row.target, row.sha256]))
  }
}
