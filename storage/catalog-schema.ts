/** The tables of `catalog.db`, as they came one after the other. */
import { AUDIT_MIGRATION } from './audit.ts'
import { STATE_MIGRATION } from './catalog-state.ts'
import { ENROLMENT_MIGRATION } from './enrolments.ts'

/** For openDatabase: append-only. */
export const CATALOG_MIGRATIONS: readonly string[] = [
  `CREATE TABLE mirror (
     id            INTEGER PRIMARY KEY CHECK (id = 1),
     site          TEXT NOT NULL,
     pinned_at_ms  INTEGER NOT NULL,
     newest_bundle INTEGER REFERENCES bundle (number)
   ) STRICT;
   CREATE TABLE trusted_root (
     position INTEGER PRIMARY KEY CHECK (position >= 0),
     bytes    BLOB NOT NULL
   ) STRICT;
   CREATE TABLE trusted_role (
     role  TEXT PRIMARY KEY CHECK (role IN ('timestamp', 'snapshot', 'targets')),
     bytes BLOB NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE bundle (
     number         INTEGER PRIMARY KEY CHECK (number > 0),
     created_at_ms  INTEGER NOT NULL,
     expires_at_ms  INTEGER NOT NULL,
     bundler        TEXT NOT NULL,
     imported_at_ms INTEGER NOT NULL
   ) STRICT;
   CREATE TABLE bundle_tree (
     number INTEGER NOT NULL REFERENCES bundle (number),
     target TEXT NOT NULL,
     sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
     bytes  INTEGER NOT NULL CHECK (bytes > 0),
     PRIMARY KEY (number, target)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE release (
     id             INTEGER PRIMARY KEY,
     group_name     TEXT NOT NULL,
     role           TEXT NOT NULL CHECK (role IN ('current', 'previous', 'return')),
     number         INTEGER NOT NULL,
     target         TEXT NOT NULL CHECK (target = group_name || '/' || role),
     released_at_ms INTEGER NOT NULL,
     replaced_at_ms INTEGER,
     FOREIGN KEY (number, target) REFERENCES bundle_tree (number, target)
   ) STRICT;
   CREATE UNIQUE INDEX release_in_force ON release (group_name) WHERE replaced_at_ms IS NULL;
   CREATE INDEX release_replaced ON release (replaced_at_ms);
   CREATE TABLE released_stamp (
     group_name TEXT NOT NULL,
     repository TEXT NOT NULL,
     stamp      INTEGER NOT NULL CHECK (stamp > 0),
     PRIMARY KEY (group_name, repository)
   ) STRICT, WITHOUT ROWID;`,
  AUDIT_MIGRATION,
  'ALTER TABLE bundle ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0 CHECK (revoked IN (0, 1))',
  STATE_MIGRATION,
  `ALTER TABLE bundle ADD COLUMN was_complete INTEGER NOT NULL DEFAULT 0 CHECK (was_complete IN (0, 1));
   ALTER TABLE bundle ADD COLUMN part_hint BLOB;`,
  ENROLMENT_MIGRATION,
  `ALTER TABLE bundle ADD COLUMN read_parts TEXT NOT NULL DEFAULT '[]';`,
]
