/**
 * What a mirror knows: the pinned root and the trusted metadata, the bundles that were imported with their trees, and
 * what was released when. One SQLite file in the store; the mirror's SQL is here and in catalog-*.ts. Blobs are durable before a row
 * names them, so a row never promises what a crash could take away.
 */
import { dirname } from 'node:path'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { TreeRole } from '../manifests/tree.ts'
import { AuditTrail } from './audit.ts'
import { CATALOG_MIGRATIONS } from './catalog-schema.ts'
import {
  generationOf,
  raiseGeneration,
  readState,
  refuseOtherTrees,
  SIGNED_ROLES,
  writeState,
  type CatalogState,
} from './catalog-state.ts'
import { Enrolments } from './enrolments.ts'
import { openDatabase, refuseForeignSchema, soundly, writeTransaction, type Database } from './database.ts'
import { stageStateFile, type StagedState } from './state-file.ts'
import type { TrustedState, VerifiedMetadata } from './trust.ts'

const IN_MEMORY = ':memory:'

export interface BundleRow {
  number: number
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  importedAtMs: number
  /** signed with keys that the root has taken away since */
  isRevoked: boolean
  /** why it was taken past its end; null where it was not */
  expiredReason: string | null
  /** all that it requires was here once; what is missing since then was lost */
  wasComplete: boolean
}

/** A document that the metadata of a bundle names: a tree, or the site facts. */
export interface NamedBlob {
  sha256: Sha256
  bytes: number
}

export interface ReleaseRow extends NamedBlob {
  group: string
  role: TreeRole
  number: number
  releasedAtMs: number
  /** null while it is what the group is served */
  replacedAtMs: number | null
}

export class Catalog {
  readonly audit: AuditTrail
  readonly enrolments: Enrolments
  readonly #db: Database
  readonly #sql: Statements
  #isChanged = false

  /** @param file  made when absent; its state lies beside it, see state-file.ts
   *  @throws STORE_VERSION, STORE_DAMAGED, STORE_BUSY, SPACE_SHORT */
  constructor(file: string) {
    this.#db = openDatabase(file, CATALOG_MIGRATIONS)
    try {
      this.#sql = soundly(this.#db, () => prepareStatements(this.#db))
      this.audit = soundly(this.#db, () => new AuditTrail(this.#db, 'gapferry-mirror'))
      this.enrolments = soundly(this.#db, () => new Enrolments(this.#db))
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  /** Opens a catalogue that came from elsewhere. @throws as the constructor; STORE_DAMAGED where its tables are others */
  static foreign(file: string): Catalog {
    refuseForeignSchema(file, CATALOG_MIGRATIONS)
    return new Catalog(file)
  }

  /** A catalogue in memory that knows `state`; nothing that is written to it lasts. */
  static inMemory(state: CatalogState): Catalog {
    const catalog = new Catalog(IN_MEMORY)
    catalog.write(() => catalog.replaceState(state))
    return catalog
  }

  close(): void {
    this.#db.close()
  }

  /** Changes when another process has written; cheap enough to ask on every request. */
  foreignChanges(): number {
    return this.#sql.dataVersion.get() as number
  }

  /** Several writes as one: all of them are kept, or none; where they change the state, the file beside the database
   *  follows. */
  write<T>(work: () => T): T {
    if (this.#db.inTransaction) return writeTransaction(this.#db, work)
    let staged: StagedState | undefined
    this.#isChanged = false
    try {
      const result = writeTransaction(this.#db, () => {
        const made = work()
        if (this.#isChanged) staged = this.#stageState()
        return made
      })
      staged?.publish()
      return result
    } finally {
      staged?.discard()
    }
  }

  #stageState(): StagedState | undefined {
    raiseGeneration(this.#db)
    const state = this.state()
    return this.#db.name === IN_MEMORY || state === undefined
      ? undefined
      : stageStateFile(dirname(this.#db.name), state)
  }

  /** Writes the file beside the database as it should be, for a holder of the store's lock who found it behind. */
  writeStateFile(): void {
    const state = this.state()
    if (state !== undefined) stageStateFile(dirname(this.#db.name), state).publish()
  }

  /** All that must not be forgotten, in one snapshot; undefined before a root is pinned. @throws STORE_DAMAGED */
  state(): CatalogState | undefined {
    return soundly(this.#db, () => this.#db.transaction(() => readState(this.#db))())
  }

  /** Writes a consistent copy of the whole database to a new file. @throws SPACE_SHORT; STORE_DAMAGED */
  copyTo(file: string): void {
    soundly(this.#db, () => this.#db.prepare('VACUUM INTO ?').run(file))
  }

  /** Rises with every change of the state. */
  generation(): number {
    return generationOf(this.#db)
  }

  /** A number above all that were given before: each raises the generation, which a backup and state.json bring back. */
  nextSequence(): number {
    return this.write(() => {
      this.#isChanged = true
      return this.generation() + 1
    })
  }

  /** Puts `state` in the place of what is known; its generation, or a later one, becomes this catalogue's. The history of
   *  replaced releases is forgotten, the audit trail stays. Only inside `write`. */
  replaceState(state: CatalogState): void {
    writeState(this.#db, state)
    this.#isChanged = true
  }

  /** What was seen of the settings, for the audit trail: name → SHA-256. Empty before the first `noteSettings`. */
  notedSettings(): Map<string, string> {
    const rows = this.#sql.settings.all() as { key: string; sha256: string }[]
    return new Map(rows.map(({ key, sha256 }) => [key, sha256]))
  }

  /** Remembers them instead of those before. */
  noteSettings(settings: ReadonlyMap<string, string>): void {
    this.write(() => {
      this.#sql.forgetSettings.run()
      for (const [key, sha256] of settings) this.#sql.putSetting.run(key, sha256)
    })
  }

  /** The site whose root is pinned; undefined before that. */
  site(): string | undefined {
    return (this.#sql.mirror.get() as { site: string } | undefined)?.site
  }

  /** Pins `root` for ever. For this very root again nothing happens.
   *  @returns false when it was pinned before
   *  @throws ROOT_PINNED when another root is */
  pin(args: { site: string; root: Buffer; nowMs: number }): boolean {
    return this.write(() => {
      const site = this.site()
      if (site === undefined) {
        this.#sql.insertMirror.run(args.site, args.nowMs)
        this.#sql.putRoot.run(0, args.root)
        this.#isChanged = true
        return true
      }
      if (this.trusted().roots.some((known) => known.equals(args.root))) return false
      throw new GapferryError('ROOT_PINNED', `this mirror has pinned another root, of site ${site}`, {
        hint: 'a mirror keeps its root; for another site make another mirror: gapferry-mirror init DIR --trust ROOT.json',
      })
    })
  }

  /** What the mirror believes. `roots` is empty before a root is pinned. */
  trusted(): TrustedState {
    const state: TrustedState = { roots: this.#sql.roots.all() as Buffer[] }
    for (const { role, bytes } of this.#sql.roles.all() as { role: RoleKey; bytes: Buffer }[]) state[role] = bytes
    return state
  }

  /** Takes over verified metadata: the trusted state, the bundle and its trees, in one transaction. The trees are durable
   *  blobs before. Adopting the same bundle again changes nothing but may bring newer roots.
   *  @param expiredReason  why it is taken past its end; null where it is not
   *  @throws ROLE_CONFLICT when other trees are known under the same number (keys were changed in between) */
  adopt(metadata: VerifiedMetadata, nowMs: number, expiredReason: string | null = null): void {
    this.write(() => {
      this.#isChanged = true
      const { state, number, createdAtMs, expiresAtMs, bundler, targets } = metadata
      if (metadata.isReset) {
        // Whoever had those keys may have signed anything: no bundle of theirs is released any more, and stamps that they
        // drove up do not bind the site (boxes that saw one need: yum clean metadata).
        this.#sql.revokeBundles.run()
        this.#sql.forgetStamps.run()
      }
      state.roots.forEach((bytes, position) => this.#sql.putRoot.run(position, bytes))
      for (const role of SIGNED_ROLES) {
        if (state[role] !== undefined) this.#sql.putRole.run(role, state[role])
      }
      if (this.bundle(number) === undefined) {
        this.#sql.insertBundle.run(number, createdAtMs, expiresAtMs, bundler, nowMs)
        for (const [target, { sha256, bytes }] of targets) this.#sql.insertTree.run(number, target, sha256, bytes)
      } else {
        refuseOtherTrees(number, this.trees(number), targets)
        this.#sql.trustBundle.run(number)
      }
      for (const role of SIGNED_ROLES) {
        if (state[role] !== undefined) this.#sql.putMetadata.run(number, role, state[role])
      }
      this.#sql.noteBundle.run(state.roots.length, expiredReason, number)
      this.#sql.setNewest.run(number)
    })
  }

  /** What the import of a part of an adopted bundle found: whether all of it is here, and where the rest should be.
   *  @param partHint   part.json: for messages only, nobody signed it
   *  @param readParts  of the parts that it names, those that were read without damage */
  noteParts(number: number, about: { isComplete: boolean; partHint: Buffer; readParts?: readonly number[] }): void {
    this.#sql.noteParts.run(about.isComplete ? 1 : 0, about.partHint, JSON.stringify(about.readParts ?? []), number)
  }

  /** As the import that came last left it. */
  readParts(number: number): number[] {
    return JSON.parse((this.#sql.readParts.get(number) as string | undefined) ?? '[]') as number[]
  }

  /** What the part that came last said of its fellows; undefined where nothing is known. */
  partHint(number: number): Buffer | undefined {
    return (this.#sql.partHint.get(number) as Buffer | null | undefined) ?? undefined
  }

  bundle(number: number): BundleRow | undefined {
    return bundleRow(this.#sql.bundle.get(number))
  }

  /** The bundle that was adopted last. Its number need not be the highest: when keys were changed because a thief had
   *  signed numbers far ahead, numbers start lower again. */
  newestBundle(): BundleRow | undefined {
    return bundleRow(this.#sql.newestBundle.get())
  }

  /** All bundles that were imported, highest number first. */
  bundles(): BundleRow[] {
    return this.#sql.bundles.all().map((row) => bundleRow(row)!)
  }

  /** What a bundle's metadata names: `site` and `<group>/<role>`, sorted. */
  trees(number: number): Map<string, NamedBlob> {
    const rows = this.#sql.trees.all(number) as (NamedBlob & { target: string })[]
    return new Map(rows.map(({ target, sha256, bytes }) => [target, { sha256, bytes }]))
  }

  /** Forgets bundles with their trees and the history of their releases; highest stamps stay. None of them is served, nor
   *  the one that was adopted last. */
  forget(numbers: readonly number[]): void {
    this.write(() => {
      this.#isChanged ||= numbers.length > 0
      for (const number of numbers) {
        for (const forget of this.#sql.forget) forget.run(number)
      }
    })
  }

  /** What every group is served, and what was replaced after `sinceMs`; newest first. */
  releases(sinceMs: number): ReleaseRow[] {
    return this.#sql.releases.all(sinceMs) as ReleaseRow[]
  }

  /** repository id → the highest stamp that was ever released in `group` */
  releasedStamps(group: string): Map<string, number> {
    const rows = this.#sql.stamps.all(group) as { repository: string; stamp: number }[]
    return new Map(rows.map((row) => [row.repository, row.stamp]))
  }

  /** Makes a tree what `group` is served; what it was served before is replaced at `nowMs`. Only inside `write`. */
  putRelease(args: {
    group: string
    role: TreeRole
    number: number
    stamps: Map<string, number>
    nowMs: number
  }): void {
    const { group, role, number, stamps, nowMs } = args
    this.#isChanged = true
    this.#sql.replaceRelease.run(nowMs, group)
    this.#sql.insertRelease.run(group, role, number, `${group}/${role}`, nowMs)
    for (const [repository, stamp] of stamps) this.#sql.putStamp.run(group, repository, stamp)
  }
}

type RoleKey = 'timestamp' | 'snapshot' | 'targets'
type Statements = ReturnType<typeof prepareStatements>

const BUNDLE_COLUMNS = `bundle.number, created_at_ms AS createdAtMs, expires_at_ms AS expiresAtMs, bundler,
  imported_at_ms AS importedAtMs, revoked, expired_reason AS expiredReason,
  was_complete OR EXISTS (SELECT 1 FROM release WHERE release.number = bundle.number) AS wasComplete`

function prepareStatements(db: Database) {
  return {
    dataVersion: db.prepare('PRAGMA data_version').pluck(),
    mirror: db.prepare('SELECT site FROM mirror'),
    insertMirror: db.prepare('INSERT INTO mirror (id, site, pinned_at_ms) VALUES (1, ?, ?)'),
    setNewest: db.prepare('UPDATE mirror SET newest_bundle = ?'),
    roots: db.prepare('SELECT bytes FROM trusted_root ORDER BY position').pluck(),
    putRoot: db.prepare('INSERT OR REPLACE INTO trusted_root (position, bytes) VALUES (?, ?)'),
    roles: db.prepare('SELECT role, bytes FROM trusted_role'),
    putRole: db.prepare('INSERT OR REPLACE INTO trusted_role (role, bytes) VALUES (?, ?)'),
    bundle: db.prepare(`SELECT ${BUNDLE_COLUMNS} FROM bundle WHERE number = ?`),
    newestBundle: db.prepare(`SELECT ${BUNDLE_COLUMNS} FROM bundle JOIN mirror ON number = newest_bundle`),
    revokeBundles: db.prepare('UPDATE bundle SET revoked = 1'),
    trustBundle: db.prepare('UPDATE bundle SET revoked = 0 WHERE number = ?'),
    noteBundle: db.prepare('UPDATE bundle SET roots = ?, expired_reason = ? WHERE number = ?'),
    noteParts: db.prepare(
      'UPDATE bundle SET was_complete = max(was_complete, ?), part_hint = ?, read_parts = ? WHERE number = ?',
    ),
    readParts: db.prepare('SELECT read_parts FROM bundle WHERE number = ?').pluck(),
    partHint: db.prepare('SELECT part_hint FROM bundle WHERE number = ?').pluck(),
    putMetadata: db.prepare('INSERT OR REPLACE INTO bundle_metadata (number, role, bytes) VALUES (?, ?, ?)'),
    settings: db.prepare('SELECT key, sha256 FROM setting'),
    forgetSettings: db.prepare('DELETE FROM setting'),
    putSetting: db.prepare('INSERT INTO setting (key, sha256) VALUES (?, ?)'),
    forgetStamps: db.prepare('DELETE FROM released_stamp'),
    bundles: db.prepare(`SELECT ${BUNDLE_COLUMNS} FROM bundle ORDER BY number DESC`),
    insertBundle: db.prepare(
      'INSERT INTO bundle (number, created_at_ms, expires_at_ms, bundler, imported_at_ms) VALUES (?, ?, ?, ?, ?)',
    ),
    trees: db.prepare('SELECT target, sha256, bytes FROM bundle_tree WHERE number = ? ORDER BY target'),
    insertTree: db.prepare('INSERT INTO bundle_tree (number, target, sha256, bytes) VALUES (?, ?, ?, ?)'),
    forget: ['release', 'bundle_tree', 'bundle_metadata', 'bundle'].map((table) =>
      db.prepare(`DELETE FROM ${table} WHERE number = ?`),
    ),
    releases: db.prepare(
      `SELECT group_name AS "group", role, number, sha256, bytes, released_at_ms AS releasedAtMs,
              replaced_at_ms AS replacedAtMs
       FROM release JOIN bundle_tree USING (number, target)
       WHERE replaced_at_ms IS NULL OR replaced_at_ms > ?
       ORDER BY id DESC`,
    ),
    replaceRelease: db.prepare('UPDATE release SET replaced_at_ms = ? WHERE group_name = ? AND replaced_at_ms IS NULL'),
    insertRelease: db.prepare(
      'INSERT INTO release (group_name, role, number, target, released_at_ms) VALUES (?, ?, ?, ?, ?)',
    ),
    stamps: db.prepare('SELECT repository, stamp FROM released_stamp WHERE group_name = ?'),
    putStamp: db.prepare('INSERT OR REPLACE INTO released_stamp (group_name, repository, stamp) VALUES (?, ?, ?)'),
  }
}

function bundleRow(row: unknown): BundleRow | undefined {
  if (row === undefined) return undefined
  const { revoked, wasComplete, ...bundle } = row as Omit<BundleRow, 'isRevoked' | 'wasComplete'> & {
    revoked: 0 | 1
    wasComplete: 0 | 1
  }
  return { ...bundle, isRevoked: revoked === 1, wasComplete: wasComplete === 1 }
}
