/**
 * What the budget of a pull goes to first, and how far it goes. Security updates come with what they were planned for to
 * need; then what a broken box repairs itself with. Files are fetched whole or not begun, but for the first that does not
 * fit: that one gets what is left, where a later run can go on with it, and nothing behind it is begun.
 */
import { formatBytes, plural } from '../manifests/console.ts'
import { checksumText } from '../manifests/digest.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Download } from './downloads.ts'
import type { Plan, PlannedGroup, PlannedPackage } from './plan.ts'
import { partialKey } from './transfer.ts'
import { remoteFile } from './upstream-files.ts'
import { MIN_KEPT_BYTES } from '../storage/partials.ts'

/** In the order in which the budget is spent. */
const KINDS = ['security updates', 'framework and core', 'other modules', 'other packages', 'files'] as const
export type SpendingKind = (typeof KINDS)[number]

export interface Sum {
  count: number
  bytes: number
}

/** What has to be fetched of one kind, and how much of that the budget allows. */
export interface KindSum extends Sum {
  kind: SpendingKind
  fits: Sum
}

/** A download, and what it still costs. */
export interface Expense {
  one: Download
  kind: SpendingKind
  /** of the file, as far as a server told */
  bytes: number
  /** what an earlier run left of it, and can be gone on with */
  heldBytes: number
  /** its server gave the whole when it was asked for the rest */
  isWholeOnly?: boolean
}

/** A request and the headers of its answer. */
const HEADERS_BYTES = 800
/** Less of a file is not worth beginning. */
const MIN_BEGUN_BYTES = 4 * MIN_KEPT_BYTES
const REPAIRS = ['framework', 'core']

/** In the order in which they are paid for; within a kind in that of the plan. */
export function expensesOf(plan: Plan, downloads: readonly Download[], store: Pick<BlobStore, 'partials'>): Expense[] {
  const urgent = urgentPackages(plan)
  const held = store.partials.kept()
  const wholeOnly = store.partials.wholeOnly()
  const all = downloads.map((one): Expense => {
    const key = partialKey(one.kind === 'file' ? remoteFile(one.file) : one.remote)
    const about = { one, kind: kindOf(one, urgent), bytes: one.bytes }
    return wholeOnly.has(key)
      ? { ...about, heldBytes: 0, isWholeOnly: true }
      : { ...about, heldBytes: held.get(key) ?? 0 }
  })
  return KINDS.flatMap((kind) => all.filter((expense) => expense.kind === kind))
}

/** What each kind comes to, and how much of it a budget allows; kinds without anything are left out. */
export function sumsOf(expenses: readonly Expense[], budgetBytes: number): KindSum[] {
  const purse = new Purse(() => budgetBytes)
  const isPaid = new Set(expenses.filter((one) => purse.take(one)?.isWhole))
  return KINDS.flatMap((kind) => {
    const own = expenses.filter((one) => one.kind === kind)
    return own.length === 0 ? [] : [{ kind, ...sumOf(own), fits: sumOf(own.filter((one) => isPaid.has(one))) }]
  })
}

/** Bytes that still have to come, headers not counted. */
export function sumOf(expenses: readonly Pick<Expense, 'bytes' | 'heldBytes'>[]): Sum {
  return {
    count: expenses.length,
    bytes: expenses.reduce((total, { bytes, heldBytes }) => total + Math.max(0, bytes - heldBytes), 0),
  }
}

/** `security updates: 3 items, 1.2 MB; files: 1 item` */
export function leftText(left: readonly KindSum[]): string {
  return left
    .map(({ kind, count, bytes }) => `${kind}: ${plural(count, 'item')}${bytes === 0 ? '' : `, ${formatBytes(bytes)}`}`)
    .join('; ')
}

export interface Grant {
  /** false: only a beginning */
  isWhole: boolean
  /** what a file of unknown size may use, and what a beginning may be */
  roomBytes: number
  /** what came of it
   *  @param bytes  not negative */
  came: (bytes: number) => void
  end: () => void
}

/** Hands out what is left, so that files that are fetched at the same time do not spend it twice. */
export class Purse {
  readonly #leftBytes: () => number
  #promisedBytes = 0
  #isEmpty = false

  constructor(leftBytes: () => number) {
    this.#leftBytes = leftBytes
  }

  /** @returns undefined: not any more, or not this one */
  take({ one, bytes, heldBytes, isWholeOnly }: Expense): Grant | undefined {
    if (this.#isEmpty) return undefined
    const roomBytes = this.#leftBytes() - this.#promisedBytes - HEADERS_BYTES
    const needBytes = Math.max(0, bytes - heldBytes)
    if (needBytes <= roomBytes) return this.#promise(needBytes, roomBytes, true)
    // Nobody could tell later whether the rest belongs to it, or the server has no rest to give.
    if (!hasDigest(one) || isWholeOnly === true) return undefined
    this.#isEmpty = true
    return roomBytes < MIN_BEGUN_BYTES ? undefined : this.#promise(roomBytes, roomBytes, false)
  }

  #promise(bytes: number, roomBytes: number, isWhole: boolean): Grant {
    let promised = bytes + HEADERS_BYTES
    this.#promisedBytes += promised
    const take = (some: number): void => {
      const kept = Math.min(some, promised)
      promised -= kept
      this.#promisedBytes -= kept
    }
    return { isWhole, roomBytes, came: take, end: () => take(promised) }
  }
}

function hasDigest(one: Download): boolean {
  return one.kind !== 'file' || one.file.sha256 !== undefined
}

function kindOf(one: Download, urgent: ReadonlySet<string>): SpendingKind {
  if (one.kind === 'file') return 'files'
  if (one.kind === 'module') return REPAIRS.includes(one.module.rawname) ? 'framework and core' : 'other modules'
  return urgent.has(checksumText(one.package.checksum)) ? 'security updates' : 'other packages'
}

/** What a security advisory names, and what that was found to need. */
function urgentPackages(plan: Plan): Set<string> {
  return new Set(
    plan.sites.flatMap(({ groups, isSecurityOnly }) =>
      groups.flatMap((group) => {
        const all = group.yum.flatMap((repo) => repo.packages)
        return (isSecurityOnly ? all : withNeeds(all, fixesOf(group))).map((one) => checksumText(one.checksum))
      }),
    ),
  )
}

function fixesOf({ advisories, yum }: PlannedGroup): PlannedPackage[] {
  const security = new Set(advisories.filter(({ type }) => type === 'security').map(({ id }) => id))
  return yum.flatMap((repo) => repo.packages).filter((one) => one.advisories?.some((id) => security.has(id)))
}

function withNeeds(all: readonly PlannedPackage[], fixes: readonly PlannedPackage[]): PlannedPackage[] {
  const needs = Map.groupBy(
    all.filter(({ because }) => because?.isInstalled === false),
    ({ because }) => because!.by,
  )
  const found = new Set(fixes)
  for (const one of found) for (const need of needs.get(one.nevra) ?? []) found.add(need)
  return [...found]
}
