/**
 * `state.json` beside the database: the catalogue's state, written durably at every change of it, so that a mirror whose
 * database is damaged can go on serving what was released and still knows which numbers it has seen. Order of a change:
 *   1. inside the transaction, the new file is written and synced under a temporary name (a full disk ends both);
 *   2. the transaction is committed;
 *   3. the file gets its name, and the folder is synced.
 * So the file is never ahead of the database; a crash between 2 and 3 leaves it one generation behind, and the next writer
 * (or the next start of `serve`) writes it anew. A database that is behind the file, or differs at the same generation, has
 * lost or changed something. Format: FORMAT.md#statejson.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import * as v from 'valibot'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { strictObject } from '../manifests/document.ts'
import { GapferryError } from '../manifests/errors.ts'
import { TREE_ROLES } from '../manifests/tree.ts'
import { SIGNED_ROLES, type CatalogState, type SignedFiles } from './catalog-state.ts'
import { syncFolder, systemCode, writeTemp } from './durable.ts'

/** Fifty bundles with the largest metadata stay below this. */
export const MAX_STATE_BYTES = 64 * 1024 * 1024
const STATE_FILE = 'state.json'
const DIGEST_LINE = /^[0-9a-f]{64}\n/
const DIGEST_LINE_BYTES = 65

const Count = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Time = v.pipe(v.number(), v.integer(), v.minValue(-8.64e15), v.maxValue(8.64e15))
const Name = v.pipe(v.string(), v.maxLength(256))
const Bytes64 = v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]*={0,2}$/))
const Files = strictObject({
  timestamp: v.exactOptional(Bytes64),
  snapshot: v.exactOptional(Bytes64),
  targets: v.exactOptional(Bytes64),
})
const Sha = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const StateDocument = strictObject({
  _type: v.literal('gapferry-state'),
  format: v.literal(1),
  generation: Count,
  site: Name,
  pinnedAtMs: Time,
  newest: v.nullable(Count),
  roots: v.pipe(v.array(Bytes64), v.minLength(1)),
  trusted: Files,
  bundles: v.array(
    strictObject({
      number: Count,
      createdAtMs: Time,
      expiresAtMs: Time,
      bundler: Name,
      importedAtMs: Time,
      isRevoked: v.boolean(),
      expiredReason: v.nullable(v.string()),
      roots: Count,
      trees: v.array(strictObject({ target: Name, sha256: Sha, bytes: Count })),
      metadata: Files,
    }),
  ),
  releases: v.array(strictObject({ group: Name, role: v.picklist(TREE_ROLES), number: Count, releasedAtMs: Time })),
  stamps: v.array(strictObject({ group: Name, repository: Name, stamp: Count })),
})

/** A file that is durable under a temporary name. */
export interface StagedState {
  /** Gives it its name, durably. */
  publish(): void
  /** Harmless after `publish`. */
  discard(): void
}

/** The one spelling of a state: the SHA-256 of the rest as the first line, then one JSON document. */
export function serializeState(state: CatalogState): Buffer {
  const { generation, site, pinnedAtMs, newest, roots, trusted, bundles, releases, stamps } = state
  const document: v.InferInput<typeof StateDocument> = {
    _type: 'gapferry-state',
    format: 1,
    generation,
    site,
    pinnedAtMs,
    newest,
    roots: roots.map((bytes) => bytes.toString('base64')),
    trusted: textFiles(trusted),
    bundles: bundles.map((bundle) => ({
      number: bundle.number,
      createdAtMs: bundle.createdAtMs,
      expiresAtMs: bundle.expiresAtMs,
      bundler: bundle.bundler,
      importedAtMs: bundle.importedAtMs,
      isRevoked: bundle.isRevoked,
      expiredReason: bundle.expiredReason,
      roots: bundle.roots,
      trees: bundle.trees.map(({ target, sha256, bytes }) => ({ target, sha256, bytes })),
      metadata: textFiles(bundle.metadata),
    })),
    releases: releases.map(({ group, role, number, releasedAtMs }) => ({ group, role, number, releasedAtMs })),
    stamps: stamps.map(({ group, repository, stamp }) => ({ group, repository, stamp })),
  }
  const body = Buffer.from(`${JSON.stringify(document)}\n`)
  return Buffer.concat([Buffer.from(`${sha256Of(body)}\n`), body])
}

/** @param what  names it in messages
 *  @throws STORE_DAMAGED */
export function parseState(bytes: Buffer, what: string): CatalogState {
  const body = bytes.subarray(DIGEST_LINE_BYTES)
  const first = bytes.subarray(0, DIGEST_LINE_BYTES).toString('latin1')
  if (!DIGEST_LINE.test(first)) throw damaged(what, 'does not begin with its digest')
  if (first.trimEnd() !== sha256Of(body)) throw damaged(what, 'is not what its digest says')
  const document = parseJson(body, what)
  if (!v.is(StateDocument, document)) throw damaged(what, 'is not a state that this version knows')
  const { generation, site, pinnedAtMs, newest, roots, trusted, bundles, releases, stamps } = document
  return {
    generation,
    site,
    pinnedAtMs,
    newest,
    roots: roots.map(fromText),
    trusted: binaryFiles(trusted),
    bundles: bundles.map((bundle) => ({
      ...bundle,
      trees: bundle.trees.map((tree) => ({ ...tree, sha256: tree.sha256 as Sha256 })),
      metadata: binaryFiles(bundle.metadata),
    })),
    releases,
    stamps,
  }
}

export function stateFileOf(storeDir: string): string {
  return join(storeDir, STATE_FILE)
}

/** @returns undefined where there is none
 *  @throws STORE_DAMAGED; what the system says */
export function readStateFile(storeDir: string): CatalogState | undefined {
  const file = stateFileOf(storeDir)
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    const { size } = fstatSync(fd)
    if (size > MAX_STATE_BYTES) throw damaged(file, `is larger than ${MAX_STATE_BYTES} bytes`)
    return parseState(readFileSync(fd), file)
  } finally {
    closeSync(fd)
  }
}

/** @throws SPACE_SHORT; what the system says */
export function stageStateFile(storeDir: string, state: CatalogState): StagedState {
  const file = stateFileOf(storeDir)
  const temp = `${file}.part`
  rmSync(temp, { force: true })
  writeTemp(temp, serializeState(state), { mode: 0o600, file })
  return {
    publish() {
      renameSync(temp, file)
      syncFolder(dirname(file))
    },
    discard: () => rmSync(temp, { force: true }),
  }
}

function textFiles(files: SignedFiles): v.InferInput<typeof Files> {
  const there = SIGNED_ROLES.flatMap((role) => {
    const bytes = files[role]
    return bytes === undefined ? [] : [[role, bytes.toString('base64')] as const]
  })
  return Object.fromEntries(there)
}

function binaryFiles(files: v.InferInput<typeof Files>): SignedFiles {
  return Object.fromEntries(Object.entries(files).map(([role, text]) => [role, fromText(text)]))
}

function fromText(text: string): Buffer {
  return Buffer.from(text, 'base64')
}

function parseJson(body: Buffer, what: string): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch (cause) {
    throw damaged(what, 'is not JSON', cause)
  }
}

function damaged(what: string, why: string, cause?: unknown): GapferryError {
  return new GapferryError('STORE_DAMAGED', `${what} ${why}`, {
    hint: 'put the store back from a backup: gapferry-mirror restore FILE --replace',
    cause,
  })
}
