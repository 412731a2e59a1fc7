/**
 * A box as its inventory describes it, ready to be resolved; and what is odd about it for the repositories of its group.
 */
import type { Sha256 } from '../../manifests/digest.ts'
import type { FreepbxFacts } from '../../manifests/inventory.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { pathsOf, relationsOf } from '../../manifests/package-columns.ts'
import {
  RELATION_KINDS,
  tableOf,
  type PackageFacts,
  type PackageTable,
  type StringPool,
} from '../../manifests/package-table.ts'
import { formatNevra } from '../../manifests/rpm-version.ts'
import type { Available } from './available.ts'
import type { BoxSettings } from './box-settings.ts'

/** What planning takes from an inventory. */
export interface BoxInventory extends Omit<BoxSettings, 'manager'> {
  /** names the box in the plan */
  box: string
  createdAt: string
  digest: Sha256
  stateDigest: Sha256
  distribution: { id: string; version: string; name: string }
  manager: 'yum' | 'dnf' | 'apt'
  packages: readonly PackageFacts[]
  freepbx?: FreepbxFacts | undefined
  /** stands in for an inventory: what installed packages provide and require is not known */
  isGuess: boolean
  /** the site's bundle that was signed since */
  stale?: { number: number; createdAt: string } | null
}

export type YumInventory = BoxInventory & { manager: 'yum' | 'dnf' }

/** @throws INVENTORY_MISMATCH for a box that takes its packages from no yum repository */
export function refuseOtherManager(group: string, box: BoxInventory): asserts box is YumInventory {
  if (box.manager !== 'apt') return
  throw new GapferryError(
    'INVENTORY_MISMATCH',
    `box ${box.box} runs ${box.distribution.name || box.distribution.id} and updates with apt; group ${group} has yum repositories`,
    { hint: `put it into another group: gapferry inventory add --help` },
  )
}

/** The installed packages as a table. Of a stand-in only names are known: a package that a repository describes is what the
 *  repository says.
 *  @param likely  take what other versions of the name say for the rest: good for measuring, not for deciding
 *  @returns how many are not described */
export function installedTable(
  pool: StringPool,
  box: Pick<BoxInventory, 'packages' | 'isGuess'>,
  available: Available,
  likely = false,
): { table: PackageTable; undescribed: number } {
  if (!box.isGuess) return { table: tableOf(pool, box.packages), undescribed: 0 }
  let undescribed = 0
  const facts = box.packages.map((one) => {
    const twins = [...available.index.named(pool.intern(one.name))]
    const twin = twins.find((place) => available.nevraOf(available.table, place) === formatNevra(one))
    if (twin !== undefined) return factsAt(available.table, twin, one)
    undescribed++
    return likely && twins[0] !== undefined ? factsAt(available.table, twins[0], one) : one
  })
  return { table: tableOf(pool, facts), undescribed }
}

/** What a person should know before he trusts the plan for this box. */
export function oddities(box: BoxInventory, available: Available, group: string): string[] {
  const found: string[] = []
  const { table, pool, repositories } = available
  const names = new Set(table.name)
  const known = box.packages.filter(({ name }) => names.has(pool.find(name) ?? -1))
  if (table.count > 0 && known.length === 0) {
    found.push(`none of its ${box.packages.length} packages is on offer in ${group}; is it in the right group?`)
  }
  const [mine, theirs] = [platformOf(box.packages.map(({ release }) => release)), platformOf(releases(table))]
  if (mine !== undefined && theirs !== undefined && mine !== theirs) {
    found.push(
      `has packages for ${mine}, the repositories of ${group} have them for ${theirs}; is it in the right group?`,
    )
  }
  const offered = new Set(repositories.map(({ id }) => id))
  const others = box.repositories.filter(
    ({ id, options }) =>
      id !== 'main' && !offered.has(id) && !/^(?:0|no|false|off)$/i.test(options.get('enabled') ?? '1'),
  )
  if (others.length > 0) {
    found.push(`also takes updates from ${others.map(({ id }) => id).join(', ')}, which ${group} does not carry`)
  }
  return found
}

/** `el7`, `fc40`: what most releases are marked with; undefined where few are. */
function platformOf(all: readonly string[]): string | undefined {
  const marks = new Map<string, number>()
  for (const release of all) {
    const mark = /\.((?:el|fc)\d+)/.exec(release)?.[1]
    if (mark !== undefined) marks.set(mark, (marks.get(mark) ?? 0) + 1)
  }
  const [most] = [...marks].sort((a, b) => b[1] - a[1])
  return most !== undefined && most[1] * 4 >= all.length ? most[0] : undefined
}

function releases({ pool, release }: PackageTable): string[] {
  return Array.from(release, (number) => pool.text(number))
}

/** What row `i` provides, requires, …, under the name of `as`. */
function factsAt(table: PackageTable, i: number, as: PackageFacts): PackageFacts {
  const { name, epoch, version, release, arch } = as
  const relations = RELATION_KINDS.map((kind) => [kind, relationsOf(table, kind, i)] as const)
  return { name, epoch, version, release, arch, ...Object.fromEntries(relations), files: pathsOf(table, i) }
}
