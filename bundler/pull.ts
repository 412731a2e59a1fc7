/**
 * Fetches what a plan needs and the store does not have, as far as the budget goes. Every file that arrived whole is kept,
 * whatever becomes of the others, and of a file that was cut its beginning: the next run goes on there.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { formatBytes } from '../manifests/console.ts'
import { checksumText } from '../manifests/digest.ts'
import { GapferryError, isGapferryError, type ErrorCode } from '../manifests/errors.ts'
import type { ProgressStep } from '../manifests/progress.ts'
import { checkRpm, MAX_RPM_HEADER_BYTES } from '../manifests/rpm-package.ts'
import { withCode } from '../manifests/system-error.ts'
import { partDownloads, type Laptop } from './carry.ts'
import { filesOf, isSized, nameOf, type Download } from './downloads.ts'
import type { OnBytes } from './fetch.ts'
import { fetchModule, isTaken } from './modules/fetch-modules.ts'
import { moduleWishes, type ModuleWish } from './modules/module-trust.ts'
import { keepPlan } from './plan-file.ts'
import type { Plan } from './plan.ts'
import { eachSite, type SiteFailure } from './sites.ts'
import { expensesOf, leftText, Purse, sumsOf, type Expense, type Grant, type KindSum, type Sum } from './spending.ts'
import { fetchFile } from './upstream-files.ts'
import { MIN_KEPT_BYTES } from '../storage/partials.ts'

/** Room that stays free on the laptop's disk. */
const RESERVE_BYTES = 100_000_000
const SHOWN_FAILURES = 5
/** What is wrong with one file and may be right with the next. */
const OF_THE_FILE: ErrorCode[] = [
  'FETCH_STATUS',
  'FETCH_TOO_LONG',
  'FETCH_SIZE_MISMATCH',
  'FETCH_DIGEST_MISMATCH',
  'RPM_INVALID',
  'RPM_MISMATCH',
  'MODULE_SIGNATURE',
  'MODULE_DIGEST',
  'MODULE_ARCHIVE',
  'MODULE_MISMATCH',
]
/** What is wrong with a server, or with the way there: the others are asked still. */
const OF_THE_HOST: ErrorCode[] = ['FETCH_FAILED', 'FETCH_TIMEOUT', 'FETCH_CAPTIVE']

export interface PullResult {
  /** files that are here now and were not before; `bytes` of bodies, without what earlier runs left of them */
  fetched: Sum
  here: Sum
  /** over the link in this run, with headers and retries, and the lists of the upstreams */
  wireBytes: number
  /** what is still to be fetched; `fits`: by the same budget again */
  left: KindSum[]
  /** sites of which nothing was fetched */
  failures: SiteFailure[]
  /** why something is left, or was refused */
  failure?: GapferryError
}

/** @returns also where something of the plan did not come
 *  @throws SPACE_SHORT before a byte is spent or when the disk is full; MODULE_KEY_MISSING; the signal's reason */
export async function pull(laptop: Laptop, planned: Plan): Promise<PullResult> {
  const { plan, wishes, failures } = await ready(laptop, planned)
  const { here, toFetch } = partDownloads(laptop, plan)
  const run = new PullRun(laptop, plan, wishes)
  for (const one of here) await run.judgeAgain(one)
  const expenses = expensesOf(plan, toFetch, laptop.store)
  if (expenses.length > 0) await run.fetch(expenses)
  const left = expensesOf(plan, partDownloads(laptop, plan).toFetch, laptop.store)
  const sums = sumsOf(left, laptop.fleet.budgetBytes)
  const failure = run.failure(left, sums)
  return {
    fetched: run.fetched,
    here: { count: here.length, bytes: here.reduce((total, { bytes }) => total + bytes, 0) },
    wireBytes: laptop.fetcher.wire.spentBytes,
    left: sums,
    failures,
    ...(failure === undefined ? {} : { failure }),
  }
}

/** The sites whose modules can be judged when they come. */
async function ready({ fleet, signal }: Laptop, plan: Plan) {
  const byName = new Map(plan.sites.map((site) => [site.name, site]))
  const { done, failures } = await eachSite([...byName.keys()], signal, async (name) => {
    const site = byName.get(name)!
    return { site, wishes: await moduleWishes(fleet, { ...plan, sites: [site] }) }
  })
  const wishes = new Map<string, ModuleWish[]>()
  for (const one of done) {
    for (const [key, list] of one.wishes) wishes.set(key, [...(wishes.get(key) ?? []), ...list])
  }
  return { plan: { ...plan, sites: done.map(({ site }) => site) }, wishes, failures }
}

class PullRun {
  readonly fetched: Sum = { count: 0, bytes: 0 }
  readonly #laptop: Laptop
  readonly #plan: Plan
  readonly #wishes: Map<string, ModuleWish[]>
  readonly #failures: GapferryError[] = []
  readonly #deadHosts = new Set<string>()
  /** under way: name → how much of it came */
  readonly #active = new Map<string, { cameBytes: number; bytes: number }>()

  constructor(laptop: Laptop, plan: Plan, wishes: Map<string, ModuleWish[]>) {
    this.#laptop = laptop
    this.#plan = plan
    this.#wishes = wishes
  }

  /** Keys and settings change: what nobody vouched for when it came may be good now, and the other way round. */
  async judgeAgain(one: Download): Promise<void> {
    if (one.kind !== 'module') return
    const own = this.#wishes.get(checksumText(one.module.checksum))!
    if (!isTaken(this.#laptop, own)) await this.#noteFailure(fetchModule(one.remote, own, this.#laptop), one)
  }

  async fetch(expenses: readonly Expense[]): Promise<void> {
    const { fetcher, fleet, progress, signal } = this.#laptop
    const purse = new Purse(() => fetcher.wire.leftBytes)
    const payable = sumsOf(expenses, fetcher.wire.leftBytes).reduce((total, { fits }) => total + fits.bytes, 0)
    await refuseShortSpace(fleet.storeDir, payable)
    const step = progress.step('pull', payable)
    try {
      await fetcher.all(expenses, (expense, own) => this.#fetchPaid(expense, purse, step, own), signal)
    } catch (error) {
      // What was free is not any more: with figures a person knows how much to make room for.
      if (isGapferryError(withCode(error), 'SPACE_SHORT'))
        await refuseShortSpace(fleet.storeDir, Math.max(0, payable - this.fetched.bytes))
      throw error
    } finally {
      keepPlan(fleet, this.#plan)
      step.end()
    }
  }

  /** @param left  what is still to be fetched; `sums` of that */
  failure(left: readonly Expense[], sums: readonly KindSum[]): GapferryError | undefined {
    const [first, ...others] = this.#failures
    if (first === undefined) return left.length === 0 ? undefined : this.#spent(left, sums)
    const more = others.slice(0, SHOWN_FAILURES).map(({ message }) => `; ${message}`)
    if (others.length > SHOWN_FAILURES) more.push(`; and ${others.length - SHOWN_FAILURES} more`)
    const rest = left.length === 0 ? 'everything else was fetched' : `left: ${leftText(sums)}`
    return new GapferryError(first.code, `${first.message}${more.join('')}; ${rest}`, {
      cause: first,
      ...(first.hint === undefined ? {} : { hint: first.hint }),
    })
  }

  async #fetchPaid(expense: Expense, purse: Purse, step: ProgressStep, signal: AbortSignal): Promise<void> {
    const { one } = expense
    const grant = this.#deadHosts.has(hostsOf(one)) ? undefined : purse.take(expense)
    if (grant === undefined) return
    try {
      const isDone = await this.#noteFailure(
        this.#fetchOne(one, expense.heldBytes + grant.roomBytes, signal, this.#counter(expense, grant, step)),
        one,
      )
      if (isDone) this.fetched.count++
      if (isDone) this.#laptop.tell({ event: 'file', name: nameOf(one), kind: expense.kind, bytes: expense.bytes })
    } finally {
      grant.end()
      this.#active.delete(nameOf(one))
      this.#note(step)
    }
  }

  /** @throws BUDGET_EXCEEDED from what it returns, where only a beginning was granted */
  #counter({ one }: Expense, grant: Grant, step: ProgressStep): OnBytes {
    let cameBytes = 0
    let shownBytes = 0
    const active = { cameBytes: 0, bytes: one.bytes }
    this.#active.set(nameOf(one), active)
    return (bytes, isFromEarlier = false) => {
      const change = isFromEarlier ? 0 : Math.max(bytes, -shownBytes)
      shownBytes += change
      step.add(change)
      active.cameBytes += bytes
      this.#note(step)
      if (isFromEarlier || bytes < 0) return
      cameBytes += bytes
      this.fetched.bytes += bytes
      grant.came(bytes)
      if (!grant.isWhole && cameBytes >= grant.roomBytes)
        throw new GapferryError('BUDGET_EXCEEDED', `${nameOf(one)}: the budget is spent; its beginning is kept`)
    }
  }

  /** The largest file that is under way, and how many others. */
  #note(step: ProgressStep): void {
    const [first, ...others] = [...this.#active].toSorted(([, a], [, b]) => b.bytes - a.bytes)
    if (first === undefined) return step.note('')
    const [name, { cameBytes, bytes }] = first
    const more = others.length === 0 ? '' : `, ${others.length} more`
    if (bytes === 0) step.note(`${name} ${formatBytes(cameBytes)}${more}`)
    else step.note(`${name}${more}`, cameBytes / bytes)
  }

  async #fetchOne(one: Download, maxBytes: number, signal: AbortSignal, onBytes: OnBytes): Promise<void> {
    const { store, ledger, fetcher } = this.#laptop
    if (one.kind === 'package') {
      const { sha256 } = await fetcher.toBlob(one.remote, store, signal, onBytes)
      const { isSigned } = checkRpm(readHead(store.pathOf(sha256)), one.package)
      const { algorithm, hex } = one.package.checksum
      ledger.rememberFetched(algorithm, hex, { sha256, verdict: isSigned ? 'unchecked' : 'unsigned' })
      return
    }
    if (one.kind === 'module') {
      const remote = { ...one.remote, maxBytes: one.module.bytes ?? Math.min(maxBytes, one.remote.maxBytes) }
      const wishes = this.#wishes.get(checksumText(one.module.checksum))!
      return fetchModule(remote, wishes, { ...this.#laptop, signal }, onBytes)
    }
    const { sha256, bytes } = await fetchFile(one.file, { fetcher, store, memory: ledger, signal, maxBytes }, onBytes)
    for (const file of this.#plan.sites.flatMap((site) => site.groups).flatMap(filesOf)) {
      if (file.url === one.file.url && file.sha256 === undefined) Object.assign(file, { sha256, bytes })
    }
  }

  /** @returns false where the file did not come, or was refused */
  async #noteFailure(work: Promise<void>, one: Download): Promise<boolean> {
    try {
      await work
      return true
    } catch (error) {
      // Said of all that is left together.
      if (isGapferryError(error, 'BUDGET_EXCEEDED')) return false
      // A file whose size no server told may use what the budget leaves.
      if (isGapferryError(error, 'FETCH_TOO_LONG') && !isSized(one)) return false
      if (isGapferryError(error, ...OF_THE_HOST)) this.#deadHosts.add(hostsOf(one))
      else if (!isGapferryError(error, ...OF_THE_FILE)) throw error
      this.#failures.push(error)
      this.#laptop.tell({ event: 'failed', name: nameOf(one), code: error.code, message: error.message })
      return false
    }
  }

  #spent(left: readonly Expense[], sums: readonly KindSum[]): GapferryError {
    const spent = formatBytes(this.#laptop.fetcher.wire.spentBytes)
    const isIdle = this.fetched.count === 0 && this.fetched.bytes < MIN_KEPT_BYTES
    const isStuck = isIdle || left.every(({ isWholeOnly }) => isWholeOnly === true)
    return new GapferryError(
      'BUDGET_EXCEEDED',
      `the budget of ${formatBytes(this.#laptop.fleet.budgetBytes)} ends here (${spent} went over the link); left: ${leftText(sums)}`,
      {
        hint: isStuck
          ? `gapferry pull --budget SIZE, with more: ${nextText(left[0]!)}`
          : 'gapferry pull goes on from here, with the same budget again',
      },
    )
  }
}

function nextText({ one, bytes, isWholeOnly }: Expense): string {
  const size = isSized(one) ? formatBytes(bytes) : 'of unknown size'
  const whole = isWholeOnly === true ? ', and its server gives it whole or not at all' : ''
  return `${nameOf(one)} is next, ${size}${whole}`
}

function hostsOf(one: Download): string {
  const urls = one.kind === 'file' ? [one.file.url] : one.remote.urls
  return urls.map((url) => URL.parse(url)?.host ?? '').join(' ')
}

async function refuseShortSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir)
  const free = bavail * bsize
  if (bytes + RESERVE_BYTES <= free) return
  const reserve = formatBytes(RESERVE_BYTES)
  throw new GapferryError(
    'SPACE_SHORT',
    `${dir}: ${formatBytes(bytes)} to fetch and ${reserve} that stay free, ${formatBytes(free)} are free`,
    { hint: 'make room, or put the store elsewhere' },
  )
}

function readHead(file: string): Buffer {
  const fd = openSync(file, 'r')
  try {
    const buffer = Buffer.allocUnsafe(Math.min(fstatSync(fd).size, MAX_RPM_HEADER_BYTES))
    return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, 0))
  } finally {
    closeSync(fd)
  }
}
