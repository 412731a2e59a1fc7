/**
 * What is served. Releasing changes rows only, for all groups in one transaction, so that a crash leaves the old state or
 * the new one. Per origin the stamps of a repository only ever rise: yum refuses metadata older than what it has.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { plural } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { parseTree, type Tree, type TreeRole } from '../manifests/tree.ts'
import type { BlobStore } from './blobs.ts'
import type { Catalog, ReleaseRow } from './catalog.ts'
import { missingPaths, readTrees } from './completeness.ts'

export interface ServedTree {
  group: string
  number: number
  role: TreeRole
  sha256: Sha256
  tree: Tree
  releasedAtMs: number
  replacedAtMs: number | null
}

export interface ServedGroup {
  released: ServedTree | null
  /** newest first, each tree once */
  replaced: ServedTree[]
}

/** Groups by what happened to them; each list is sorted. */
export interface ReleaseResult {
  number: number
  released: string[]
  /** were served from this bundle before */
  already: string[]
  /** are not in this bundle and stay what they were */
  untouched: string[]
}

export class Releases {
  readonly #catalog: Catalog
  readonly #blobs: Pick<BlobStore, 'has' | 'read'>
  /** trees are immutable: parsed once, kept while they are served */
  #parsed = new Map<Sha256, Tree>()
  #ownChanges = 0

  constructor(catalog: Catalog, blobs: Pick<BlobStore, 'has' | 'read'>) {
    this.#catalog = catalog
    this.#blobs = blobs
  }

  /** Changes when this or another process has released (or imported); cheap enough to ask on every request. */
  version(): number {
    return this.#catalog.foreignChanges() + this.#ownChanges
  }

  /** What every group is served, and what was replaced after `sinceMs` (epoch), by group.
   *  @throws BLOB_MISSING, BLOB_DIGEST_MISMATCH, BLOB_SIZE_MISMATCH when a tree in the store was damaged */
  served(sinceMs: number): Map<string, ServedGroup> {
    const groups = new Map<string, ServedGroup>()
    const inUse = new Map<Sha256, Tree>()
    for (const row of this.#catalog.releases(sinceMs)) {
      const group = groups.get(row.group) ?? { released: null, replaced: [] }
      groups.set(row.group, group)
      if ([group.released, ...group.replaced].some((other) => other?.sha256 === row.sha256)) continue
      const tree = this.#parsed.get(row.sha256) ?? parseTree(this.#blobs.read(row.sha256, row.bytes), targetOf(row))
      inUse.set(row.sha256, tree)
      const served = servedTree(row, tree)
      if (row.replacedAtMs === null) group.released = served
      else group.replaced.push(served)
    }
    this.#parsed = inUse
    return groups
  }

  /** Makes the current trees of bundle `number` what is served. For groups that are served from it already nothing
   *  happens. The caller holds the store's lock.
   *  @param args.groups  default: all groups of the bundle
   *  @throws RELEASE_NOTHING when there is no such bundle; GROUP_UNKNOWN; RELEASE_INCOMPLETE; RELEASE_STAMP when a
   *          repository's stamp is not above everything that was released in that group */
  release(args: { number: number; groups?: string[]; nowMs: number }): ReleaseResult {
    const { number, nowMs } = args
    const trees = currentTrees(this.#completeTrees(number))
    const groups = args.groups === undefined ? [...trees.keys()] : chooseGroups(number, trees, args.groups)
    return this.#catalog.write(() => {
      const inForce = new Map(this.#inForce().map((row) => [row.group, row]))
      const isAlready = (group: string): boolean => {
        const row = inForce.get(group)
        return row?.number === number && row.role === 'current'
      }
      const released = groups.filter((group) => !isAlready(group))
      for (const group of released) {
        const { stamps } = trees.get(group)!
        refuseOldStamps(number, group, stamps, this.#catalog.releasedStamps(group))
        this.#catalog.putRelease({ group, role: 'current', number, stamps, nowMs })
      }
      this.#ownChanges++
      const untouched = [...inForce.keys()].filter((group) => !trees.has(group)).sort()
      return { number, released, already: groups.filter(isAlready), untouched }
    })
  }

  #completeTrees(number: number): Map<string, Tree> {
    if (this.#catalog.bundle(number) === undefined) throw notHere(number, this.#catalog)
    const trees = readTrees(this.#blobs, this.#catalog.trees(number))
    const missing = missingPaths(trees.values(), (sha256) => this.#blobs.has(sha256))
    const [first] = missing
    if (first === undefined) return trees
    throw new GapferryError(
      'RELEASE_INCOMPLETE',
      `bundle ${number} is incomplete: ${plural(missing.length, 'path')} missing, the first is ${first.group} ${first.path}`,
      { hint: 'import the other parts of this bundle: gapferry-mirror import FILE or DIR' },
    )
  }

  #inForce(): ReleaseRow[] {
    return this.#catalog.releases(Number.MAX_SAFE_INTEGER)
  }
}

/** group → its current tree, sorted by group */
function currentTrees(trees: Map<string, Tree>): Map<string, Tree> {
  const current = [...trees.values()].filter((tree) => tree.role === 'current')
  return new Map(current.map((tree) => [tree.group, tree] as const).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function chooseGroups(number: number, trees: Map<string, Tree>, wanted: string[]): string[] {
  const unknown = wanted.find((group) => !trees.has(group))
  if (unknown === undefined) return [...new Set(wanted)].sort()
  throw new GapferryError('GROUP_UNKNOWN', `group ${unknown} is not in bundle ${number}`, {
    hint: `its groups are: ${[...trees.keys()].join(', ')}`,
  })
}

function refuseOldStamps(
  number: number,
  group: string,
  stamps: Map<string, number>,
  highest: Map<string, number>,
): void {
  for (const [repository, stamp] of stamps) {
    const last = highest.get(repository)
    if (last === undefined || stamp > last) continue
    throw new GapferryError(
      'RELEASE_STAMP',
      `bundle ${number}, group ${group}, repository ${repository}: expected a stamp above ${last}, ` +
        `which was released before, found ${stamp}`,
      { hint: 'boxes would refuse it as older than what they have; import a newer bundle and release that' },
    )
  }
}

function servedTree({ group, number, role, sha256, releasedAtMs, replacedAtMs }: ReleaseRow, tree: Tree): ServedTree {
  return { group, number, role, sha256, tree, releasedAtMs, replacedAtMs }
}

function targetOf(row: ReleaseRow): string {
  return `${row.group}/${row.role}`
}

function notHere(number: number, catalog: Catalog): GapferryError {
  const here = catalog.bundles().map((row) => row.number)
  return new GapferryError(
    'RELEASE_NOTHING',
    here.length === 0
      ? `bundle ${number}: nothing has been imported yet`
      : `bundle ${number} is not here; here: ${here.join(', ')}`,
    { hint: 'gapferry-mirror import FILE or DIR' },
  )
}
