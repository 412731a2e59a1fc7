/**
 * What is served right now. A request resolves in one snapshot of the released trees, never partly in the next one.
 * Order: the released tree; for immutable paths then the trees that were replaced less than `keepPreviousMs` ago, newest
 * first; changing files never from an old tree. One exception keeps a box from reading a mixed pair (it fetches
 * repomd.xml and repomd.xml.asc on two connections): a companion comes from the tree in which the same client address got
 * its pointer during the last minute.
 */
import type { Logger } from 'pino'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import type { TreePath } from '../manifests/path.ts'
import type { EntryKind, TreeEntry } from '../manifests/tree.ts'
import type { ServedGroup, ServedTree } from '../storage/releases.ts'
import { acceptsGzip, type Validators } from './conditions.ts'
import { isModuleList, moduleRole, type ModuleRole } from './module-answers.ts'
import { carriedBy, type Carried } from './vendor-answers.ts'

/** The part of storage/releases.ts that serving needs. */
export interface ReleaseSource {
  version(): number
  served(sinceMs: number, onDamage: (error: GapferryError) => void): Map<string, ServedGroup>
}

/** One path of one tree, with the parts of an answer that never change. */
export interface Resource extends Validators {
  sha256: Sha256
  /** name, value, name, value …: of a whole answer, without Date */
  headers: string[]
  /** of a pointer: what belongs to it in the same tree */
  companions: readonly { path: TreePath; resource: Resource }[]
  /** the same content compressed, for who asks for that */
  gzip?: Resource
  /** what a box takes it for */
  role?: ModuleRole | undefined
}

/** How long a client may take between a pointer and its companion. */
const PAIR_MS = 60_000
const MAX_PAIRS = 10_000
/** After the catalogue could not be read: serve on, and look again after this. */
const RETRY_MS = 5_000

export class Served {
  readonly #releases: ReleaseSource
  readonly #clock: () => number
  readonly #keepPreviousMs: number
  readonly #log: Logger
  readonly #pairs = new Pairs()
  #groups: Map<string, PreparedGroup> | undefined
  #version: number | undefined
  /** the first of the replaced trees is then too old */
  #expiresAtMs = Infinity
  #retryAtMs = 0
  #nowMs = 0
  #isFresh = false
  readonly #expire = (): void => {
    this.#isFresh = false
  }

  /** @param args.clock  milliseconds since 1970 */
  constructor(args: { releases: ReleaseSource; keepPreviousMs: number; clock: () => number; log: Logger }) {
    this.#releases = args.releases
    this.#clock = args.clock
    this.#keepPreviousMs = args.keepPreviousMs
    this.#log = args.log
  }

  /** @param client          address; part of the pair rule's memory
   *  @param acceptEncoding  the header field
   *  @throws PATH_UNKNOWN; RELEASE_NOTHING when nothing was released for `group` yet */
  find(group: string, path: TreePath, client: string, acceptEncoding?: string): Resource {
    const resource = this.#find(group, path, client)
    return resource.gzip !== undefined && acceptsGzip(acceptEncoding) ? resource.gzip : resource
  }

  /** Whether the boxes of `group` may look for modules here: true until a release without any says no. Never throws. */
  mayHaveModules(group: string): boolean {
    return this.#groups?.get(group)?.released.hasModules ?? true
  }

  /** What the released tree of `group` has for yum. @throws RELEASE_NOTHING */
  carried(group: string): Carried {
    return this.#treesOf(group).released.carried()
  }

  #treesOf(group: string): PreparedGroup {
    const trees = this.#snapshot().get(group)
    if (trees !== undefined) return trees
    throw new GapferryError('RELEASE_NOTHING', `group ${group}: nothing is released yet`)
  }

  #find(group: string, path: TreePath, client: string): Resource {
    const trees = this.#treesOf(group)
    const kind = trees.released.kindOf(path)
    if (kind === 'immutable') return trees.released.resource(path)
    if (kind === 'pointer') return this.#rememberPair(group, client, trees.released.resource(path))
    const paired = this.#pairs.find(`${group} ${client} ${path}`, this.#nowMs)
    if (paired !== undefined) return paired
    if (kind === 'companion') return trees.released.resource(path)
    const old = trees.replaced.find((tree) => tree.kindOf(path) === 'immutable')
    if (old !== undefined) return old.resource(path)
    throw new GapferryError('PATH_UNKNOWN', 'request: nothing is served at this path')
  }

  /** The released tree of each group that has one. */
  released(): Map<string, ServedTree> {
    return new Map([...this.#snapshot()].map(([group, { served }]) => [group, served]))
  }

  #rememberPair(group: string, client: string, pointer: Resource): Resource {
    for (const { path, resource } of pointer.companions) {
      this.#pairs.remember(`${group} ${client} ${path}`, resource, this.#nowMs)
    }
    return pointer
  }

  /** Asks for changes once per turn of the event loop, not per request: a request that arrives after a release is read in
   *  a later turn, and the question costs a tenth of a small answer. */
  #snapshot(): Map<string, PreparedGroup> {
    if (this.#isFresh && this.#groups !== undefined) return this.#groups
    this.#isFresh = true
    setImmediate(this.#expire)
    this.#nowMs = this.#clock()
    if (this.#groups !== undefined && this.#nowMs < this.#retryAtMs) return this.#groups
    try {
      return this.#look()
    } catch (error) {
      if (this.#groups === undefined) throw error
      this.#log.error({ err: error }, 'the catalogue cannot be read: serving what was released before')
      this.#retryAtMs = this.#nowMs + RETRY_MS
      return this.#groups
    }
  }

  #look(): Map<string, PreparedGroup> {
    // The version is read first: a release in between makes it look old, so the next turn looks again.
    const version = this.#releases.version()
    if (this.#groups !== undefined && version === this.#version && this.#nowMs < this.#expiresAtMs) return this.#groups
    const known = new Map(
      [...(this.#groups?.values() ?? [])].flatMap((group) => group.all.map((tree) => [tree.key, tree])),
    )
    const groups = new Map<string, PreparedGroup>()
    this.#expiresAtMs = Infinity
    const onDamage = (error: GapferryError): void =>
      this.#log.error({ code: error.code, err: error }, 'a released tree is damaged')
    for (const [name, { released, replaced }] of this.#releases.served(this.#nowMs - this.#keepPreviousMs, onDamage)) {
      if (released === null) continue
      const young = replaced.filter((tree) => this.#isYoung(tree))
      const all = [released, ...young].map((tree) => known.get(keyOf(tree)) ?? new PreparedTree(tree))
      groups.set(name, { served: released, released: all[0]!, replaced: all.slice(1), all })
    }
    this.#groups = groups
    this.#version = version
    return groups
  }

  #isYoung(tree: ServedTree): boolean {
    const untilMs = (tree.replacedAtMs ?? Infinity) + this.#keepPreviousMs
    if (untilMs <= this.#nowMs) return false
    this.#expiresAtMs = Math.min(this.#expiresAtMs, untilMs)
    return true
  }
}

interface PreparedGroup {
  served: ServedTree
  released: PreparedTree
  /** newest first */
  replaced: PreparedTree[]
  all: PreparedTree[]
}

/** A tree, and the answers of its paths as they are asked for. */
class PreparedTree {
  readonly key: string
  readonly hasModules: boolean
  readonly #tree: ServedTree['tree']
  readonly #entries: ReadonlyMap<TreePath, TreeEntry>
  #carried: Carried | undefined
  readonly #resources = new Map<TreePath, Resource>()
  readonly #companionsOf = new Map<TreePath, TreePath[]>()

  constructor(served: ServedTree) {
    this.key = keyOf(served)
    this.#tree = served.tree
    this.#entries = served.tree.entries
    let hasModules = false
    for (const [path, entry] of this.#entries) {
      hasModules ||= isModuleList(path)
      if (entry.of !== undefined) this.#companionsOf.set(entry.of, [...(this.#companionsOf.get(entry.of) ?? []), path])
    }
    this.hasModules = hasModules
  }

  carried(): Carried {
    return (this.#carried ??= carriedBy(this.#tree))
  }

  kindOf(path: TreePath): EntryKind | undefined {
    return this.#entries.get(path)?.kind
  }

  /** @throws PATH_UNKNOWN */
  resource(path: TreePath): Resource {
    const ready = this.#resources.get(path)
    if (ready !== undefined) return ready
    const entry = this.#entries.get(path)
    if (entry === undefined) throw new GapferryError('PATH_UNKNOWN', 'request: nothing is served at this path')
    const companions = (this.#companionsOf.get(path) ?? []).map((other) => ({
      path: other,
      resource: this.resource(other),
    }))
    const resource = this.hasModules ? prepareForBoxes(path, entry, companions) : prepare(entry, companions)
    this.#resources.set(path, resource)
    return resource
  }
}

/** Which client got which pointer's companions, the latest 10,000. It holds single answers, so it keeps no old tree alive. */
class Pairs {
  readonly #memory = new Map<string, { resource: Resource; atMs: number }>()

  remember(key: string, resource: Resource, atMs: number): void {
    this.#memory.delete(key)
    this.#memory.set(key, { resource, atMs })
    if (this.#memory.size <= MAX_PAIRS) return
    const [oldest] = this.#memory.keys()
    this.#memory.delete(oldest!)
  }

  find(key: string, nowMs: number): Resource | undefined {
    const pair = this.#memory.get(key)
    return pair !== undefined && nowMs - pair.atMs <= PAIR_MS ? pair.resource : undefined
  }
}

/** A tree with modules: what a box asks for has a role, and a companion that is named like gzip is gzip. */
function prepareForBoxes(path: TreePath, entry: TreeEntry, companions: Resource['companions']): Resource {
  const resource = { ...prepare(entry, companions), role: moduleRole(path) }
  const packed = companions.find((companion) => companion.path === `${path}.gz`)?.resource
  if (packed === undefined) return resource
  const vary = ['Vary', 'Accept-Encoding']
  const headers = packed.headers.map((value, i) => (packed.headers[i - 1] === 'Content-Type' ? entry.type : value))
  const gzip = {
    ...packed,
    companions,
    role: resource.role,
    headers: [...headers, ...vary, 'Content-Encoding', 'gzip'],
  }
  return { ...resource, headers: [...resource.headers, ...vary], gzip }
}

function prepare(entry: TreeEntry, companions: Resource['companions']): Resource {
  const etag = `"${entry.sha256.slice(0, 32)}"`
  const isImmutable = entry.kind === 'immutable'
  const headers = [
    'Content-Type',
    entry.type,
    'Content-Length',
    String(entry.bytes),
    'ETag',
    etag,
    'Last-Modified',
    new Date(entry.modified * 1000).toUTCString(),
    'Cache-Control',
    isImmutable ? 'public, max-age=31536000, immutable' : 'no-cache',
    'Accept-Ranges',
    'bytes',
    'X-Content-Type-Options',
    'nosniff',
  ]
  return { sha256: entry.sha256, bytes: entry.bytes, modified: entry.modified, etag, isImmutable, headers, companions }
}

function keyOf(tree: ServedTree): string {
  return `${tree.group} ${tree.sha256}`
}
