/**
 * The state of a catalogue as one value: all that the mirror must never forget (what it trusts, which numbers and stamps it
 * has seen, what it serves) without the audit trail. It is what lies beside the database in state.json, what a restore
 * merges, and what a lost database is made anew from. Every change of it raises its generation, so that of two of them the
 * later is known. Format: FORMAT.md#statejson.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { TreeRole } from '../manifests/tree.ts'
import type { Database } from './database.ts'

export const STATE_MIGRATION = `CREATE TABLE generation (
     id    INTEGER PRIMARY KEY CHECK (id = 1),
     value INTEGER NOT NULL CHECK (value >= 0)
   ) STRICT;
   INSERT INTO generation (id, value) VALUES (1, 0);
   CREATE TABLE bundle_metadata (
     number INTEGER NOT NULL REFERENCES bundle (number),
     role   TEXT NOT NULL CHECK (role IN ('timestamp', 'snapshot', 'targets')),
     bytes  BLOB NOT NULL,
     PRIMARY KEY (number, role)
   ) STRICT, WITHOUT ROWID;
   INSERT INTO bundle_metadata (number, role, bytes)
     SELECT newest_bundle, role, bytes FROM mirror JOIN trusted_role WHERE newest_bundle IS NOT NULL;
   ALTER TABLE bundle ADD COLUMN roots INTEGER NOT NULL DEFAULT 1 CHECK (roots > 0);
   UPDATE bundle SET roots = max(1, (SELECT count(*) FROM trusted_root));
   ALTER TABLE bundle ADD COLUMN expired_reason TEXT;
   CREATE TABLE setting (
     key    TEXT PRIMARY KEY,
     sha256 TEXT NOT NULL CHECK (length(sha256) = 64)
   ) STRICT, WITHOUT ROWID;`

export const SIGNED_ROLES = ['timestamp', 'snapshot', 'targets'] as const

/** The signed files of a bundle; those that are not known any more are left out. */
export type SignedFiles = Partial<Record<(typeof SIGNED_ROLES)[number], Buffer>>

export interface StateBundle {
  number: number
  createdAtMs: number
  expiresAtMs: number
  bundler: string
  importedAtMs: number
  isRevoked: boolean
  /** why it was taken past its end; null where it was not */
  expiredReason: string | null
  /** by how many of the state's roots, from the pinned one on, it was believed */
  roots: number
  trees: { target: string; sha256: Sha256; bytes: number }[]
  metadata: SignedFiles
}

export interface StateRelease {
  group: string
  role: TreeRole
  number: number
  releasedAtMs: number
}

export interface StateStamp {
  group: string
  repository: string
  stamp: number
}

/** Lists are sorted, so that equal states have equal files. */
export interface CatalogState {
  generation: number
  site: string
  pinnedAtMs: number
  /** the bundle that was adopted last */
  newest: number | null
  /** the pinned one first */
  roots: Buffer[]
  trusted: SignedFiles
  bundles: StateBundle[]
  /** in force */
  releases: StateRelease[]
  stamps: StateStamp[]
}

/** @returns undefined where no root is pinned */
export function readState(db: Database): CatalogState | undefined {
  const mirror = db.prepare('SELECT site, pinned_at_ms AS pinnedAtMs, newest_bundle AS newest FROM mirror').get() as
    Pick<CatalogState, 'site' | 'pinnedAtMs' | 'newest'> | undefined
  if (mirror === undefined) return undefined
  const trees = db.prepare('SELECT target, sha256, bytes FROM bundle_tree WHERE number = ? ORDER BY target')
  const metadata = db.prepare('SELECT role, bytes FROM bundle_metadata WHERE number = ? ORDER BY role')
  const bundles = db
    .prepare(
      `SELECT number, created_at_ms AS createdAtMs, expires_at_ms AS expiresAtMs, bundler,
              imported_at_ms AS importedAtMs, revoked AS isRevoked, expired_reason AS expiredReason, roots
       FROM bundle ORDER BY number`,
    )
    .all() as (Omit<StateBundle, 'isRevoked' | 'trees' | 'metadata'> & { isRevoked: 0 | 1 })[]
  return {
    generation: generationOf(db),
    ...mirror,
    roots: db.prepare('SELECT bytes FROM trusted_root ORDER BY position').pluck().all() as Buffer[],
    trusted: byRole(db.prepare('SELECT role, bytes FROM trusted_role ORDER BY role').all()),
    bundles: bundles.map((row) => ({
      ...row,
      isRevoked: row.isRevoked === 1,
      trees: trees.all(row.number) as StateBundle['trees'],
      metadata: byRole(metadata.all(row.number)),
    })),
    releases: db
      .prepare(
        `SELECT group_name AS "group", role, number, released_at_ms AS releasedAtMs
         FROM release WHERE replaced_at_ms IS NULL ORDER BY group_name`,
      )
      .all() as StateRelease[],
    stamps: db
      .prepare('SELECT group_name AS "group", repository, stamp FROM released_stamp ORDER BY group_name, repository')
      .all() as StateStamp[],
  }
}

export function generationOf(db: Database): number {
  return (db.prepare('SELECT value FROM generation').pluck().get() as number | undefined) ?? 0
}

/** The next generation, for a change that is part of the open transaction. */
export function raiseGeneration(db: Database): void {
  db.prepare('UPDATE generation SET value = value + 1').run()
}

/** Puts `state` in the place of what is there, inside the open transaction; the audit trail and what was replaced when stay
 *  out of it. */
export function writeState(db: Database, state: CatalogState): void {
  for (const table of TABLES) db.exec(`DELETE FROM ${table}`)
  db.prepare('INSERT INTO mirror (id, site, pinned_at_ms) VALUES (1, ?, ?)').run(state.site, state.pinnedAtMs)
  const root = db.prepare('INSERT INTO trusted_root (position, bytes) VALUES (?, ?)')
  for (const [position, bytes] of state.roots.entries()) root.run(position, bytes)
  const role = db.prepare('INSERT INTO trusted_role (role, bytes) VALUES (?, ?)')
  for (const [name, bytes] of Object.entries(state.trusted)) role.run(name, bytes)
  writeBundles(db, state.bundles)
  db.prepare('UPDATE mirror SET newest_bundle = ?').run(state.newest)
  const release = db.prepare(
    'INSERT INTO release (group_name, role, number, target, released_at_ms) VALUES (?, ?, ?, ?, ?)',
  )
  for (const one of state.releases) {
    release.run(one.group, one.role, one.number, `${one.group}/${one.role}`, one.releasedAtMs)
  }
  const stamp = db.prepare('INSERT INTO released_stamp (group_name, repository, stamp) VALUES (?, ?, ?)')
  for (const one of state.stamps) stamp.run(one.group, one.repository, one.stamp)
  db.prepare('UPDATE generation SET value = ?').run(state.generation)
}

/** What references comes before what is referenced. */
const TABLES = [
  'mirror',
  'release',
  'released_stamp',
  'bundle_metadata',
  'bundle_tree',
  'bundle',
  'trusted_role',
  'trusted_root',
]

function writeBundles(db: Database, bundles: StateBundle[]): void {
  const insert = db.prepare(
    `INSERT INTO bundle (number, created_at_ms, expires_at_ms, bundler, imported_at_ms, revoked, expired_reason, roots)
     VALUES (@number, @createdAtMs, @expiresAtMs, @bundler, @importedAtMs, @revoked, @expiredReason, @roots)`,
  )
  const tree = db.prepare('INSERT INTO bundle_tree (number, target, sha256, bytes) VALUES (?, ?, ?, ?)')
  const file = db.prepare('INSERT INTO bundle_metadata (number, role, bytes) VALUES (?, ?, ?)')
  for (const { trees, metadata, isRevoked, ...row } of bundles) {
    insert.run({ ...row, revoked: isRevoked ? 1 : 0 })
    for (const { target, sha256, bytes } of trees) tree.run(row.number, target, sha256, bytes)
    for (const [name, bytes] of Object.entries(metadata)) file.run(row.number, name, bytes)
  }
}

function byRole(rows: unknown[]): SignedFiles {
  return Object.fromEntries((rows as { role: string; bytes: Buffer }[]).map(({ role, bytes }) => [role, bytes]))
}

/** @throws ROLE_CONFLICT where a bundle is offered with other trees than are known under its number */
export function refuseOtherTrees(
  number: number,
  known: Map<string, { sha256: string }>,
  offered: Map<string, { sha256: string }>,
): void {
  const isSame =
    known.size === offered.size && [...offered].every(([target, { sha256 }]) => known.get(target)?.sha256 === sha256)
  if (isSame) return
  throw new GapferryError(
    'ROLE_CONFLICT',
    `bundle ${number}: expected the trees that were imported under this number, found others`,
    { hint: `two laptops signed number ${number}; on the laptop run: gapferry pack --renew --number-above ${number}` },
  )
}
