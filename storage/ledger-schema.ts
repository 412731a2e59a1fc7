import { AUDIT_MIGRATION } from './audit.ts'
import { IDENTITIES_MIGRATION } from './identities.ts'
import { LICENSES_MIGRATION } from './licenses.ts'
import { REPORTS_MIGRATION } from './reports.ts'

/** The laptop's tables, each step once and in this order; what was released is not changed. */
export const MIGRATIONS = [
  `CREATE TABLE alias (
     algorithm TEXT NOT NULL,
     hex       TEXT NOT NULL,
     sha256    TEXT NOT NULL CHECK (length(sha256) = 64),
     verdict   TEXT NOT NULL,
     PRIMARY KEY (algorithm, hex)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE validator (
     url           TEXT PRIMARY KEY,
     etag          TEXT,
     last_modified TEXT,
     sha256        TEXT NOT NULL CHECK (length(sha256) = 64),
     bytes         INTEGER NOT NULL CHECK (bytes >= 0)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE bundle (
     site          TEXT NOT NULL,
     number        INTEGER NOT NULL CHECK (number > 0),
     created_at_ms INTEGER NOT NULL,
     content       TEXT NOT NULL,
     PRIMARY KEY (site, number)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE bundle_metadata (
     site   TEXT NOT NULL,
     number INTEGER NOT NULL,
     name   TEXT NOT NULL,
     bytes  BLOB NOT NULL,
     PRIMARY KEY (site, number, name),
     FOREIGN KEY (site, number) REFERENCES bundle (site, number)
   ) STRICT;
   CREATE TABLE bundle_tree (
     site   TEXT NOT NULL,
     number INTEGER NOT NULL,
     target TEXT NOT NULL,
     sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
     PRIMARY KEY (site, number, target),
     FOREIGN KEY (site, number) REFERENCES bundle (site, number)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE stamp (
     site       TEXT NOT NULL,
     group_name TEXT NOT NULL,
     repository TEXT NOT NULL,
     stamp      INTEGER NOT NULL,
     PRIMARY KEY (site, group_name, repository)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE immutable (
     site       TEXT NOT NULL,
     group_name TEXT NOT NULL,
     path       TEXT NOT NULL,
     sha256     TEXT NOT NULL CHECK (length(sha256) = 64),
     PRIMARY KEY (site, group_name, path)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE number_floor (
     site   TEXT PRIMARY KEY,
     number INTEGER NOT NULL CHECK (number > 0)
   ) STRICT, WITHOUT ROWID;`,
  AUDIT_MIGRATION,
  `CREATE TABLE noted (
     kind  TEXT NOT NULL,
     name  TEXT NOT NULL,
     value TEXT NOT NULL,
     PRIMARY KEY (kind, name)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE module_file (
     sha256       TEXT NOT NULL CHECK (length(sha256) = 64),
     expected     TEXT NOT NULL,
     bytes        INTEGER NOT NULL CHECK (bytes >= 0),
     rawname      TEXT NOT NULL,
     version      TEXT NOT NULL,
     verdict      TEXT NOT NULL CHECK (verdict IN ('good', 'unsigned', 'bad')),
     signer       TEXT,
     why          TEXT,
     inner_sha256 TEXT NOT NULL CHECK (length(inner_sha256) = 64),
     inner_bytes  INTEGER NOT NULL CHECK (inner_bytes >= 0),
     PRIMARY KEY (sha256, expected)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE page (
     request       TEXT PRIMARY KEY CHECK (length(request) = 64),
     etag          TEXT,
     last_modified TEXT,
     sha256        TEXT NOT NULL CHECK (length(sha256) = 64),
     bytes         INTEGER NOT NULL CHECK (bytes >= 0),
     asked_at_ms   INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`,
  REPORTS_MIGRATION,
  IDENTITIES_MIGRATION,
  LICENSES_MIGRATION,
]
