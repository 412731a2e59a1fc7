/**
 * `npm run bench [-- NAME…]`: what design goals say in figures, measured beside the tools that people use otherwise.
 * One JSON line per metric on standard output, a table on standard error at the end. Names are those of the groups below
 * or of metrics. Data is generated once and kept in node_modules/.cache/gapferry-bench. A peer that is not installed is
 * named, and what needs it left out. Exit status 1 when something could not be measured, 2 for a name that is not known;
 * a goal that is missed is no failure.
 */
import { cpus, loadavg } from 'node:os'
import { formatTable } from '../../manifests/console.ts'
import { bytesMetrics } from './bytes.ts'
import { importMetrics, packMetrics, verifyMetrics } from './carry.ts'
import { workFolder } from './folders.ts'
import { linkMetrics } from './link.ts'
import { cutFilelistsMetrics, cutPrimaryMetrics, parseMetrics } from './lists.ts'
import { isMet, notInstalled, type Metric } from './measure.ts'
import { memoryMetrics, startMetrics } from './mirror.ts'
import { planMetrics } from './plan.ts'
import { releaseMetrics } from './release.ts'
import { scaleMetrics } from './scale.ts'
import { serveMetrics } from './serve.ts'

interface Group {
  metrics: (work: string) => AsyncGenerator<Metric>
  /** names of what it measures */
  names: readonly string[]
  /** programs without which there is nothing to measure */
  needs: readonly string[]
}

const LINK_ENDS = ['aria2c', 'carried', 'carried-aria2c', 'cpu', 'memory']

const GROUPS: Record<string, Group> = {
  pack: { metrics: packMetrics, names: ['pack', 'pack-memory', 'pack-durable'], needs: ['python3', 'tar', 'openssl'] },
  verify: { metrics: verifyMetrics, names: ['verify', 'verify-memory'], needs: ['python3', 'openssl'] },
  import: { metrics: importMetrics, names: ['import', 'import-memory'], needs: ['python3', 'tar', 'openssl'] },
  serve: {
    metrics: serving,
    names: ['serve-4k', 'serve-4k-p99', 'serve-100k', 'serve-20m', 'serve-20m-cpu', 'serve-4k-static'],
    needs: ['wrk'],
  },
  parse: { metrics: parseMetrics, names: ['parse', 'parse-memory'], needs: ['python3', 'rpmmd2solv'] },
  'cut-primary': {
    metrics: cutPrimaryMetrics,
    names: ['cut-primary', 'cut-primary-memory'],
    needs: ['python3', 'createrepo_c'],
  },
  'cut-filelists': {
    metrics: cutFilelistsMetrics,
    names: ['cut-filelists', 'cut-filelists-memory'],
    needs: ['python3', 'grep'],
  },
  plan: { metrics: planMetrics, names: ['plan', 'plan-memory'], needs: ['python3', 'dnf', 'rpm'] },
  bytes: {
    metrics: bytesMetrics,
    names: ['bytes', 'bytes-monthly'],
    needs: ['python3', 'dnf', 'rpmbuild', 'rpmsign', 'createrepo_c', 'gpg'],
  },
  release: {
    metrics: releaseMetrics,
    names: ['release', 'release-50-bundles', 'release-20000-paths', 'release-64-clients'],
    needs: [],
  },
  scale: {
    metrics: scaleMetrics,
    names: ['pack-4gb-memory', 'verify-4gb-memory', 'import-4gb-memory'],
    needs: ['python3'],
  },
  link: {
    metrics: linkMetrics,
    names: ['link', 'link-resets'].flatMap((name) => [name, ...LINK_ENDS.map((end) => `${name}-${end}`)]),
    needs: ['python3', 'ip', 'nsenter', 'setpriv', 'nginx', 'aria2c'],
  },
  memory: { metrics: memoryMetrics, names: ['memory-idle', 'memory-load'], needs: [] },
  start: { metrics: startMetrics, names: ['start', 'start-gapferry'], needs: [] },
}

const PER_CPU_SECOND = 'answers per cpu s'
const SERVE_UNITS: Record<string, string> = { 'serve-4k-p99': 'ms', 'serve-20m': 'MB/s', 'serve-20m-cpu': 'cpu s' }

async function* serving(): AsyncGenerator<Metric> {
  for await (const metric of serveMetrics()) {
    const against = metric.metric === 'serve-4k-static' ? '@fastify/static' : 'nginx'
    yield { ...metric, unit: SERVE_UNITS[metric.metric] ?? PER_CPU_SECOND, against }
  }
}

async function main(names: readonly string[]): Promise<number> {
  const known = Object.entries(GROUPS).flatMap(([name, group]) => [name, ...group.names])
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    console.error(`bench: there is no "${unknown}"; there are ${Object.keys(GROUPS).join(', ')}`)
    return 2
  }
  console.error(`${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, node ${process.versions.node}, load ${load()}`)
  const { folder, removeIt } = workFolder()
  process.once('exit', removeIt)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const measured: Metric[] = []
  let failures = 0
  for (const [name, group] of Object.entries(GROUPS)) {
    const wanted = wantedOf(name, group, names)
    if (wanted.size > 0) failures += await measureGroup(name, group, wanted, folder, measured)
  }
  console.error(`\n${renderTable(measured)}\n\nload ${load()}`)
  return failures === 0 ? 0 : 1
}

function wantedOf(name: string, group: Group, names: readonly string[]): Set<string> {
  const isWhole = names.length === 0 || names.includes(name)
  return new Set(isWhole ? group.names : group.names.filter((metric) => names.includes(metric)))
}

/** @returns how many failures there were: 0 or 1 */
async function measureGroup(
  name: string,
  { metrics, needs }: Group,
  wanted: Set<string>,
  work: string,
  measured: Metric[],
): Promise<number> {
  const missing = await notInstalled(needs)
  if (missing.length > 0) {
    console.error(`${name}: ${missing.join(', ')} not installed: left out`)
    return 0
  }
  try {
    for await (const metric of metrics(work)) {
      if (!wanted.delete(metric.metric)) continue
      measured.push(metric)
      console.log(JSON.stringify({ ...metric, isMet: isMet(metric), load: loadavg()[0] }))
      if (wanted.size === 0) return 0
    }
    return 0
  } catch (error) {
    console.error(`${name}: ${error instanceof Error ? error.message : String(error)}`)
    return 1
  }
}

function renderTable(metrics: readonly Metric[]): string {
  const head = ['metric', 'ours', 'peer', '', 'ratio', 'wall', 'cpu', 'goal', '', 'pairs', 'beside']
  const rows = metrics.map((one) => [
    one.metric,
    String(one.ours),
    String(one.peer ?? ''),
    one.unit ?? '',
    String(one.ratio ?? ''),
    String(one.wallRatio ?? ''),
    String(one.cpuRatio ?? ''),
    one.goal,
    { true: 'met', false: 'missed', undefined: '' }[String(isMet(one)) as 'true' | 'false' | 'undefined'],
    String(one.pairs ?? ''),
    one.against ?? '',
  ])
  return formatTable([head, ...rows], { right: [1, 2, 4, 5, 6, 9] })
}

function load(): string {
  return loadavg()
    .map((value) => value.toFixed(1))
    .join(' ')
}

process.exitCode = await main(process.argv.slice(2))
