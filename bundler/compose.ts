/**
 * Contents → trees. Per group: `current`, and, once the site was served one, `previous` (the content before, with newer
 * stamps) and `return` (current, newer still), so that a mirror can roll back one step and take that back without a key.
 *
 * Invariants: the stamps of a repository rise strictly over everything ever signed for its group and stand above the
 * upstream's own (yum keeps what it has when a repomd.xml looks older); an immutable path names the same blob for ever.
 */
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { canonicalJson } from '../manifests/json.ts'
import { parseTreePath, type TreePath } from '../manifests/path.ts'
import { MAX_REPOMD_BYTES, parseRepomd, writeRepomd, type Repomd } from '../manifests/repomd.ts'
import { serializeSiteFacts } from '../manifests/site.ts'
import { serializeSealedLicenses, type SealedLicenses } from '../manifests/licenses.ts'
import {
  isPointer,
  LICENSES_TARGET,
  serializeTree,
  type Tree,
  type TreeEntry,
  type TreeRole,
} from '../manifests/tree.ts'
import type { BlobBatch, BlobStore } from '../storage/blobs.ts'
import type { Promises, SignedBundle } from '../storage/ledger.ts'
import type { TreeBefore } from './report-base.ts'
import { signedTree } from './signed-tree.ts'

/** One repository of a group: the metadata of what is carried. Its timestamps do not count, compose sets them. */
export interface RepositoryContent {
  repomd: Repomd
  /** the newest timestamp of the upstream's own repomd.xml, seconds since 1970 */
  upstreamStamp: number
}

/** What a group's boxes shall find: everything but repomd.xml and its signature. All blobs are in the store. */
export interface GroupContent {
  group: string
  origin: string
  entries: Map<TreePath, TreeEntry>
  /** by repository id */
  repositories: Map<string, RepositoryContent>
}

export interface ComposeContext {
  site: string
  number: number
  nowMs: number
  store: BlobStore
  /** detached, armored OpenPGP signature of the site's key */
  signDetached: (bytes: Uint8Array, dateMs: number) => Promise<string>
  /** sealed, their blobs in the store; undefined where none are carried */
  licenses?: CarriedLicenses | undefined
}

/** What a bundle carries of licenses. */
export type CarriedLicenses = Pick<SealedLicenses, 'index' | 'blobs'>

/** A site's documents, ready to be signed: target name → bytes (trees and the site facts). */
export interface ComposedSite {
  targets: Map<string, Buffer>
  promises: Promises[]
  /** groups whose content before, that of `bundle`, is not in the store any more: they get no `previous` */
  withoutWayBack: { group: string; bundle: number }[]
}

/** Equal digests mean that a new bundle would bring a site nothing that the last one did not. Stamps are left out. */
export function contentDigest(groups: GroupContent[], licenses?: CarriedLicenses): Sha256 {
  const contents = groups.map(({ group, origin, entries }) => {
    const digests = [...entries].map(([path, entry]) => [path, entry.sha256] as const)
    return [group, { origin, entries: Object.fromEntries(digests) }] as const
  })
  const all = Object.fromEntries(contents)
  return sha256Of(
    canonicalJson(licenses === undefined ? all : [all, licenses.index, [...licenses.blobs.keys()].sort()]),
  )
}

/** @param from.last    the bundle that was signed before; undefined for a site's first
 *  @param from.before  what a group is served at the site, which becomes `previous`; undefined: nothing
 *  @throws PATH_CHANGED when an immutable path would get another blob */
export async function composeSite(
  context: ComposeContext,
  groups: GroupContent[],
  from: { last: SignedBundle | undefined; before: (group: string) => TreeBefore | undefined },
  promisesOf: (group: string) => Promises,
): Promise<ComposedSite> {
  const targets = new Map<string, Buffer>()
  const promises: Promises[] = []
  const withoutWayBack: ComposedSite['withoutWayBack'] = []
  const batch = context.store.batch()
  try {
    for (const content of groups) {
      const named = from.before(content.group)
      const served = named && servedTree(context.store, named, content.group)
      if (named !== undefined && served === undefined)
        withoutWayBack.push({ group: content.group, bundle: named.number })
      const kept = carryModified(content, lastTree(context.store, from.last, content.group))
      const composed = await composeGroup(context, batch, kept, served, promisesOf(content.group))
      for (const tree of composed.trees) targets.set(`${content.group}/${tree.role}`, serializeTree(tree))
      promises.push(composed.promises)
    }
    targets.set('site', siteFacts(context, groups))
    const { site, number, licenses } = context
    if (licenses !== undefined) targets.set(LICENSES_TARGET, serializeSealedLicenses({ site, number, ...licenses }))
    for (const bytes of targets.values()) batch.put(bytes)
    await batch.commit()
  } catch (error) {
    batch.discard()
    throw error
  }
  return { targets, promises, withoutWayBack }
}

function siteFacts({ site, number, nowMs }: ComposeContext, groups: GroupContent[]): Buffer {
  return serializeSiteFacts({
    site,
    number,
    createdAt: new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z'),
    groups: new Map(
      groups.map((content) => [
        content.group,
        {
          origin: content.origin,
          yum: [...content.repositories.keys()],
          files: [...content.entries].filter(([, entry]) => entry.kind === 'pointer').map(([path]) => path),
        },
      ]),
    ),
  })
}

async function composeGroup(
  context: ComposeContext,
  batch: BlobBatch,
  content: GroupContent,
  before: Tree | undefined,
  promises: Promises,
): Promise<{ trees: Tree[]; promises: Promises }> {
  const repomds = new Map([...content.repositories].map(([id, repository]) => [id, repository.repomd]))
  const now = { entries: content.entries, repomds }
  const then = before === undefined ? undefined : contentOfTree(context.store, before)
  const kept = keepPromises(content, promises)
  const firstStamps = nextStamps(context.nowMs, content, then?.repomds.keys() ?? [], promises.stamps)
  const build = (role: TreeRole, what: StampedContent, later: number): Promise<Tree> =>
    buildTree(context, batch, content.group, role, { ...what, stamps: raise(firstStamps, what.repomds.keys(), later) })
  const trees = [await build('current', now, 0)]
  if (then !== undefined) trees.push(await build('previous', then, 1), await build('return', now, 2))
  const highest = raise(firstStamps, firstStamps.keys(), trees.length - 1)
  return { trees, promises: { group: content.group, stamps: highest, immutable: kept } }
}

interface StampedContent {
  entries: Map<TreePath, TreeEntry>
  repomds: Map<string, Repomd>
}

/** Adds the signed repository metadata to a content. */
async function buildTree(
  context: ComposeContext,
  batch: BlobBatch,
  group: string,
  role: TreeRole,
  content: StampedContent & { stamps: Map<string, number> },
): Promise<Tree> {
  const entries = new Map(content.entries)
  for (const [id, repomd] of content.repomds) {
    const stamp = content.stamps.get(id)!
    const bytes = writeRepomd({
      ...repomd,
      revision: String(stamp),
      data: repomd.data.map((data) => ({ ...data, timestamp: stamp })),
    })
    const signature = Buffer.from(await context.signDetached(bytes, context.nowMs))
    const path = repomdPath(id)
    entries.set(path, ownEntry(batch, bytes, { modified: stamp, type: 'text/xml', kind: 'pointer' }))
    entries.set(
      parseTreePath(`${path}.asc`, 'signature'),
      ownEntry(batch, signature, { modified: stamp, type: 'application/pgp-signature', kind: 'companion', of: path }),
    )
  }
  return { site: context.site, group, role, number: context.number, stamps: content.stamps, entries }
}

/** An entry for bytes that the laptop made; they are staged in `batch`. */
export function ownEntry(
  batch: BlobBatch,
  bytes: Buffer,
  about: Pick<TreeEntry, 'modified' | 'type' | 'kind' | 'of'>,
): TreeEntry {
  return { sha256: batch.put(bytes), bytes: bytes.length, ...about }
}

/** Each repository's stamp for `current`: above the clock, the upstream's own and everything signed before. */
function nextStamps(
  nowMs: number,
  content: GroupContent,
  idsBefore: Iterable<string>,
  used: Map<string, number>,
): Map<string, number> {
  const ids = new Set([...content.repositories.keys(), ...idsBefore])
  return new Map(
    [...ids].sort().map((id) => {
      const upstream = content.repositories.get(id)?.upstreamStamp ?? 0
      return [id, Math.max(Math.floor(nowMs / 1000), upstream + 1, (used.get(id) ?? 0) + 1)]
    }),
  )
}

function raise(stamps: Map<string, number>, ids: Iterable<string>, by: number): Map<string, number> {
  return new Map([...ids].sort().map((id) => [id, stamps.get(id)! + by]))
}

function keepPromises(content: GroupContent, promises: Promises): Map<string, Sha256> {
  const kept = new Map<string, Sha256>()
  for (const [path, entry] of content.entries) {
    if (entry.kind !== 'immutable') continue
    const promised = promises.immutable.get(path)
    if (promised !== undefined && promised !== entry.sha256) {
      throw new GapferryError(
        'PATH_CHANGED',
        `${content.group}: ${path} was carried before with other bytes (${promised.slice(0, 16)}…, now ${entry.sha256.slice(0, 16)}…)`,
        { hint: changedHint(path) },
      )
    }
    kept.set(path, entry.sha256)
  }
  return kept
}

function changedHint(path: TreePath): string {
  const rawname = /^modules\/(?:.*\/)?([^/]+?)-\d[^/]*$/.exec(path)?.[1]
  return path.startsWith('modules/')
    ? `the vendor changed a module without a new version; keep it off the list until it has one: ` +
        `modules: { policy: { ${rawname ?? 'RAWNAME'}: block } }`
    : 'the upstream changed a package without a new version; exclude it until it has one'
}

/** Last-Modified stays what it was where the bytes stayed what they were. What was signed last counts, though it may not have
 *  come: a date that went back behind one that a box was told would be taken for no change. */
function carryModified(content: GroupContent, last: Tree | undefined): GroupContent {
  const entries = new Map<TreePath, TreeEntry>()
  for (const [path, entry] of content.entries) {
    const old = last?.entries.get(path)
    entries.set(path, old?.sha256 === entry.sha256 ? { ...entry, modified: old.modified } : entry)
  }
  return { ...content, entries }
}

function lastTree(store: BlobStore, last: SignedBundle | undefined, group: string): Tree | undefined {
  const sha256 = last?.trees.get(`${group}/current`)
  return sha256 === undefined ? undefined : signedTree(store, sha256, `${group}/current`)
}

/** @returns undefined where the store no longer has, sound, what a mirror would need of it (a laptop that was set up anew) */
function servedTree(store: BlobStore, { role, sha256 }: TreeBefore, group: string): Tree | undefined {
  const tree = signedTree(store, sha256, `${group}/${role}`)
  const isHere = ({ sha256, bytes }: TreeEntry): boolean => store.sizeOf(sha256) === bytes
  const isWhole = tree !== undefined && [...tree.entries.values()].every((entry) => !isPointer(entry) || isHere(entry))
  return isWhole ? tree : undefined
}

function contentOfTree(store: BlobStore, tree: Tree): StampedContent {
  const repomds = new Map<string, Repomd>()
  for (const id of tree.stamps.keys()) {
    const entry = tree.entries.get(repomdPath(id))
    if (entry === undefined)
      throw new GapferryError('TREE_INVALID', `${tree.group}: ${id} has a stamp and no repomd.xml`)
    repomds.set(id, parseRepomd(store.read(entry.sha256, MAX_REPOMD_BYTES), repomdPath(id)))
  }
  return stripRepomd(tree.entries, repomds)
}

function stripRepomd(entries: Map<TreePath, TreeEntry>, repomds: Map<string, Repomd>): StampedContent {
  const own = new Set<string>([...repomds.keys()].flatMap((id) => [repomdPath(id), `${repomdPath(id)}.asc`]))
  return { entries: new Map([...entries].filter(([path]) => !own.has(path))), repomds }
}

function repomdPath(id: string): TreePath {
  return parseTreePath(`yum/${id}/repodata/repomd.xml`, `yum ${id}`)
}
