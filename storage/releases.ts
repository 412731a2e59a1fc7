/**
 * What is served. Releasing changes rows only, for all groups in one transaction, so that a crash leaves the old state or
 * the new one. Per origin the stamps of a repository only ever rise: yum refuses metadata older than what it has.
 */
import type { Sha256 } from '../manifests/digest.ts'
import { plural } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { parseTree, type Tree, type TreeRole } from '../manifests/tree.ts'
import type { BlobStore } from './blobs.ts'
import type { Catalog, ReleaseRow } from './catalog.ts'
import { missingPaths, readLicenses, readTrees } from './completeness.ts'
import { isSameContent } from './same-content.ts'

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

/** What going back, or taking that back, did. */
export interface RollbackResult {
  role: 'previous' | 'return'
  /** sorted by group; `isAlready`: it was served that tree before; `content`: of `previous`, the bundle whose content that is,
   *  null where that is none of those that are here */
  groups: { group: string; number: number; isAlready: boolean; content: number | null }[]
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
   *  @param onDamage  told of each tree that the store cannot give as it was signed: that one is left out, so that the
   *                   others are served on; a group whose released tree is damaged has none */
  served(sinceMs: number, onDamage: (error: GapferryError) => void = () => undefined): Map<string, ServedGroup> {
    const groups = new Map<string, ServedGroup>()
    const inUse = new Map<Sha256, Tree>()
    for (const row of this.#catalog.releases(sinceMs)) {
      const group = groups.get(row.group) ?? { released: null, replaced: [] }
      groups.set(row.group, group)
      if ([group.released, ...group.replaced].some((other) => other?.sha256 === row.sha256)) continue
      const tree = this.#parsed.get(row.sha256) ?? this.#readTree(row, onDamage)
      if (tree === undefined) continue
      inUse.set(row.sha256, tree)
      const served = servedTree(row, tree)
      if (row.replacedAtMs === null) group.released = served
      else group.replaced.push(served)
    }
    this.#parsed = inUse
    return groups
  }

  #readTree(row: ReleaseRow, onDamage: (error: GapferryError) => void): Tree | undefined {
    const what = `bundle ${row.number}, ${row.group}/${row.role}`
    try {
      return parseTree(this.#blobs.read(row.sha256, row.bytes), what)
    } catch (error) {
      if (!isGapferryError(error)) throw error
      onDamage(
        new GapferryError(error.code, `${what}: ${error.message}`, { hint: 'gapferry-mirror verify', cause: error }),
      )
      return undefined
    }
  }

  /** Makes the current trees of bundle `number` what is served. For groups that are served from it already nothing
   *  happens. The caller holds the store's lock.
   *  @param args.groups  default: all groups of the bundle
   *  @throws RELEASE_NOTHING when there is no such bundle; RELEASE_REVOKED; GROUP_UNKNOWN; RELEASE_INCOMPLETE; RELEASE_STAMP when a
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
        const tree = trees.get(group)!
        refuseOldStamps(tree, this.#catalog.releasedStamps(group), hintFor(inForce.get(group), number))
        this.#catalog.putRelease({ group, role: 'current', number, stamps: tree.stamps, nowMs })
      }
      this.#ownChanges++
      const untouched = [...inForce.keys()].filter((group) => !trees.has(group)).sort()
      return { number, released, already: groups.filter(isAlready), untouched }
    })
  }

  /** Serves the content before the bundle that is served, with newer stamps (`previous`), or takes that back (`return`):
   *  once each per bundle, all groups or none. The caller holds the store's lock.
   *  @param args.groups  default: all that are served
   *  @throws RELEASE_NOTHING when there is nothing to go back to, or nothing to take back; GROUP_UNKNOWN;
   *          RELEASE_INCOMPLETE when blobs of that tree never came; RELEASE_STAMP when it was done before */
  rollback(args: { role: RollbackResult['role']; groups?: string[]; nowMs: number }): RollbackResult {
    const { role, nowMs } = args
    return this.#catalog.write(() => {
      const inForce = new Map(this.#inForce().map((row) => [row.group, row]))
      const groups = args.groups ?? [...inForce.keys()].sort()
      if (groups.length === 0)
        throw new GapferryError('RELEASE_NOTHING', 'nothing is released yet', { hint: RELEASE_HINT })
      const done = groups.map((group) => {
        const row = inForce.get(group)
        if (row === undefined) throw unknownGroup(group, 'served', inForce.keys())
        const { number } = row
        const content = role === 'return' ? number : this.contentBefore(group)
        if (row.role === role) return { group, number, isAlready: true, content }
        const { stamps } = this.#wayTo(row, role)
        this.#catalog.putRelease({ group, role, number, stamps, nowMs })
        return { group, number, isAlready: false, content }
      })
      this.#ownChanges++
      return { role, groups: done }
    })
  }

  /** Why `rollback` to the content before would be refused for a group that is served; undefined when it would not be. */
  rollbackRefusal(group: string): GapferryError | undefined {
    const row = this.#inForce().find((one) => one.group === group)
    if (row === undefined || row.role === 'previous') return undefined
    try {
      this.#wayTo(row, 'previous')
      return undefined
    } catch (error) {
      if (isGapferryError(error, 'RELEASE_NOTHING', 'RELEASE_INCOMPLETE', 'RELEASE_STAMP')) return error
      throw error
    }
  }

  /** The newest bundle here whose content a group is served after a rollback: the laptop goes by what it was told of this site,
   *  so that may be older than the bundle before. null where no such bundle is here, or nothing is to go back to. */
  contentBefore(group: string): number | null {
    const number = this.#inForce().find((one) => one.group === group)?.number
    const before = number === undefined ? undefined : this.#treeOf(number, group, 'previous')
    if (before === undefined) return null
    const older = this.#catalog.bundles().flatMap((row) => (row.number < number! ? [row.number] : []))
    const found = older
      .sort((a, b) => b - a)
      .find((one) => {
        const tree = this.#treeOf(one, group, 'current')
        return tree !== undefined && isSameContent(tree, before)
      })
    return found ?? null
  }

  /** undefined where the bundle has none, or the store cannot give it as it was signed */
  #treeOf(number: number, group: string, role: TreeRole): Tree | undefined {
    const named = this.#catalog.trees(number).get(`${group}/${role}`)
    if (named === undefined) return undefined
    try {
      return parseTree(this.#blobs.read(named.sha256, named.bytes), `${group}/${role}`)
    } catch (error) {
      if (isGapferryError(error)) return undefined
      throw error
    }
  }

  /** The tree of the bundle in force for going back or returning, complete and newer than all that was served. */
  #wayTo(row: ReleaseRow, role: RollbackResult['role']): Tree {
    const { group, number } = row
    if (role === 'return' && row.role === 'current') throw notRolledBack(group, number)
    const named = this.#catalog.trees(number).get(`${group}/${role}`)
    if (named === undefined) throw nothingBefore(group, number)
    const tree = parseTree(this.#blobs.read(named.sha256, named.bytes), `${group}/${role}`)
    const missing = [...tree.entries].filter(([, { sha256 }]) => !this.#blobs.has(sha256))
    if (missing.length > 0) throw incompleteWay(tree, missing.length)
    refuseOldStamps(
      tree,
      this.#catalog.releasedStamps(group),
      'it was rolled back and returned once already: release a newer bundle',
    )
    return tree
  }

  #completeTrees(number: number): Map<string, Tree> {
    const row = this.#catalog.bundle(number)
    if (row === undefined) throw notHere(number, this.#catalog)
    if (row.isRevoked) throw revoked(number)
    const named = this.#catalog.trees(number)
    const trees = readTrees(this.#blobs, named)
    const licenses = readLicenses(this.#blobs, named)
    const missing = missingPaths(trees.values(), (sha256) => this.#blobs.has(sha256), licenses)
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
  throw unknownGroup(unknown, `in bundle ${number}`, trees.keys())
}

function unknownGroup(group: string, where: string, known: Iterable<string>): GapferryError {
  return new GapferryError('GROUP_UNKNOWN', `group ${group} is not ${where}`, {
    hint: `its groups are: ${[...known].join(', ')}`,
  })
}

function refuseOldStamps({ number, group, stamps }: Tree, highest: Map<string, number>, hint: string): void {
  for (const [repository, stamp] of stamps) {
    const last = highest.get(repository)
    if (last === undefined || stamp > last) continue
    throw new GapferryError(
      'RELEASE_STAMP',
      `bundle ${number}, group ${group}, repository ${repository}: expected a stamp above ${last}, ` +
        `which was released before, found ${stamp}; boxes would take it for older than what they have`,
      { hint },
    )
  }
}

function hintFor(inForce: ReleaseRow | undefined, number: number): string {
  return inForce?.number === number && inForce.role === 'previous'
    ? 'gapferry-mirror rollback --return'
    : 'import a newer bundle and release that'
}

const RELEASE_HINT = 'gapferry-mirror release'

function nothingBefore(group: string, number: number): GapferryError {
  return new GapferryError(
    'RELEASE_NOTHING',
    `bundle ${number} carries nothing to go back to for group ${group}: it is the first, or was packed when nothing was known to be served here`,
    {
      hint: 'going back is possible from a bundle that was packed after the site was served one',
    },
  )
}

function revoked(number: number): GapferryError {
  return new GapferryError(
    'RELEASE_REVOKED',
    `bundle ${number} was signed with keys that the root has taken away since`,
    {
      hint: 'import a newer bundle of this site and release that',
    },
  )
}

function notRolledBack(group: string, number: number): GapferryError {
  return new GapferryError('RELEASE_NOTHING', `group ${group} is served bundle ${number} and was not rolled back`, {
    hint: 'gapferry-mirror status',
  })
}

function incompleteWay({ group, number, role }: Tree, missing: number): GapferryError {
  return new GapferryError(
    'RELEASE_INCOMPLETE',
    `bundle ${number}, group ${group}: ${missing} path(s) of its ${role} tree are not here`,
    { hint: 'import the bundle before this one, or a newer one' },
  )
}

function servedTree({ group, number, role, sha256, releasedAtMs, replacedAtMs }: ReleaseRow, tree: Tree): ServedTree {
  return { group, number, role, sha256, tree, releasedAtMs, replacedAtMs }
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
