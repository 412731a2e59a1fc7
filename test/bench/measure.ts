/**
 * Two commands beside each other: ours and a peer's, in turn, so that whatever else the machine does hits both alike.
 * Figures are medians; a ratio is the median of the ratios of the pairs, which is steadier than the ratio of the medians.
 */
import { join } from 'node:path'
import { mustRun, run } from '../helpers/process.ts'

/** One line of the result. */
export interface Metric {
  metric: string
  ours: number
  /** null where the goal is an amount and nobody stands beside it */
  peer: number | null
  ratio: number | null
  /** as in `<= 1.5`, about the ratio; as in `<= 100 MB`, about ours */
  goal: string
  unit?: string
  /** what stands beside it */
  against?: string
  pairs?: number
  /** processor milliseconds of ours: on a busy machine the steadier witness */
  cpuMs?: number
  /** both ratios, whichever the goal is about */
  wallRatio?: number
  cpuRatio?: number
}

/** What one run of a command used. */
export interface Usage {
  wallSeconds: number
  /** user and system */
  cpuSeconds: number
  userSeconds: number
  /** of the largest process, in 10⁶ bytes */
  peakMb: number
}

/** One of the two that are compared. */
export interface Side {
  /** for people */
  name: string
  command: readonly string[]
  /** puts back what a run changes; not measured */
  reset?: () => void | Promise<void>
}

export interface Comparison {
  pairs: { ours: Usage; peer: Usage }[]
  against: string
}

const PAIRS = 5
const RUN_MS = 300_000
/** A busy machine gets fewer pairs, and the line says how many. */
const METRIC_MS = 75_000
const LEAST_PAIRS = 3
const MEASURE = join(import.meta.dirname, 'measure.py')

/** Runs each side once to warm up, then in turn. @throws with the command's own output when it fails */
export async function compare(ours: Side, peer: Side, pairs = PAIRS): Promise<Comparison> {
  const [comparison] = await compareAll(ours, [peer], pairs)
  return comparison!
}

/** The same with several peers, one comparison for each. */
export async function compareAll(ours: Side, peers: readonly Side[], pairs = PAIRS): Promise<Comparison[]> {
  const start = performance.now()
  const comparisons = peers.map(({ name }): Comparison => ({ pairs: [], against: name }))
  for (const side of [ours, ...peers]) await measure(side)
  for (let i = 0; i < pairs && (i < LEAST_PAIRS || performance.now() - start < METRIC_MS); i++) {
    const first = await measure(ours)
    for (const [at, peer] of peers.entries()) comparisons[at]!.pairs.push({ ours: first, peer: await measure(peer) })
  }
  return comparisons
}

/** A time that a command takes, beside the peer's. */
export function timeMetric(
  metric: string,
  figure: 'wallSeconds' | 'cpuSeconds',
  comparison: Comparison,
  goal: string,
): Metric {
  const { pairs, against } = comparison
  const ratioOf = (one: keyof Usage): number => round(median(pairs.map(({ ours, peer }) => ours[one] / peer[one])))
  return {
    metric,
    ours: round(median(pairs.map(({ ours }) => ours[figure]))),
    peer: round(median(pairs.map(({ peer }) => peer[figure]))),
    ratio: ratioOf(figure),
    goal,
    unit: figure === 'wallSeconds' ? 's' : 'cpu s',
    against,
    pairs: pairs.length,
    wallRatio: ratioOf('wallSeconds'),
    cpuRatio: ratioOf('cpuSeconds'),
  }
}

/** The largest memory that a command had, against an amount. */
export function memoryMetric(metric: string, { pairs, against }: Comparison, goal: string): Metric {
  const ours = median(pairs.map((pair) => pair.ours.peakMb))
  const peer = median(pairs.map((pair) => pair.peer.peakMb))
  return {
    metric,
    ours: round(ours),
    peer: round(peer),
    ratio: round(ours / peer),
    goal,
    unit: 'MB',
    against,
    pairs: pairs.length,
  }
}

/** Whether a metric reaches its goal; undefined where it has none. */
export function isMet({ ours, ratio, goal }: Metric): boolean | undefined {
  const match = /^(<=|>=) ([\d.]+)( \S+)?$/.exec(goal)
  if (match === null) return undefined
  const [, sign, limit, unit] = match
  const value = unit === undefined ? ratio : ours
  if (value === null) return undefined
  return sign === '<=' ? value <= Number(limit) : value >= Number(limit)
}

/** The programs among `names` that are not installed. */
export async function notInstalled(names: readonly string[]): Promise<string[]> {
  const missing: string[] = []
  for (const name of names) {
    const { status } = await run('sh', ['-c', 'command -v "$0" >/dev/null', name])
    if (status !== 0) missing.push(name)
  }
  return missing
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2
}

export function round(value: number): number {
  return Number(value.toPrecision(3))
}

/** One run alone. */
export async function measure({ command, reset }: Side): Promise<Usage> {
  await reset?.()
  const { stdout } = await mustRun('python3', [MEASURE, ...command], { timeoutMs: RUN_MS, env: { no_proxy: '*' } })
  return JSON.parse(stdout) as Usage
}
