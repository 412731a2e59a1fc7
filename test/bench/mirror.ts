/** The mirror as a process: how soon it answers, and what memory it keeps. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { mustRun } from '../helpers/process.ts'
import { gapferry, gapferryMirror, makeMirror, mustRunOwn, sampleBundle } from './bundle.ts'
import { remove } from './folders.ts'
import { median, notInstalled, round, type Metric } from './measure.ts'

const STARTS = 9
const LOADS = 5
const LOAD_SECONDS = 3
const CONNECTIONS = 64
const SETTLE_MS = 1000
const LOG_CHARACTERS = 10_000

interface RunningMirror {
  child: ChildProcess
  origin: string
  admin: string
}

/** From the start of the process to the first answer of /healthz; for `gapferry`, to its end. */
export async function* startMetrics(work: string): AsyncGenerator<Metric> {
  const { config, dir } = await servingMirror(work)
  const mirror = await startPairs(() => timeToAnswer(config))
  yield startMetric('start', mirror)
  yield startMetric('start-gapferry', await startPairs(() => timeToEnd(gapferry('--version'))))
  remove(dir)
}

/** Serving 600 MB in 1500 files: at rest, and the most while 64 connections ask for all of them. */
export async function* memoryMetrics(work: string): AsyncGenerator<Metric> {
  const { config, dir, paths } = await servingMirror(work)
  const script = join(work, 'paths.lua')
  writeFileSync(script, loadScript(paths))
  const hasLoad = (await notInstalled(['wrk'])).length === 0
  if (!hasLoad) console.error('memory-load: wrk is not installed: left out')
  const [idle, loaded]: [number[], number[]] = [[], []]
  for (let i = 0; i < LOADS; i++) {
    const mirror = await startMirror(config)
    try {
      await wait(SETTLE_MS)
      idle.push(memoryMb(mirror, 'VmRSS'))
      if (hasLoad) loaded.push(await memoryUnderLoad(mirror, script))
    } finally {
      await stopMirror(mirror)
    }
  }
  yield memory('memory-idle', idle, '<= 90 MB')
  if (hasLoad) yield memory('memory-load', loaded, '<= 130 MB')
  remove(dir)
}

/** A mirror that has imported and released the sample bundle. */
async function servingMirror(work: string): Promise<{ config: string; dir: string; paths: string[] }> {
  const bundle = await sampleBundle(work)
  const dir = join(work, 'serving')
  remove(dir)
  const { config } = await makeMirror(dir, bundle)
  await mustRunOwn(gapferryMirror('import', '--release', '--config', config, bundle.part))
  return { config, dir, paths: bundle.paths }
}

interface StartPair {
  ours: number
  empty: number
}

async function startPairs(ours: () => Promise<number>): Promise<StartPair[]> {
  await ours()
  const pairs: StartPair[] = []
  for (let i = 0; i < STARTS; i++)
    pairs.push({ ours: await ours(), empty: await timeToEnd([process.execPath, '-e', '']) })
  return pairs
}

async function timeToAnswer(config: string): Promise<number> {
  const start = performance.now()
  const mirror = await startMirror(config)
  try {
    const answer = await fetch(`${mirror.admin}/healthz`)
    if (answer.status !== 200) throw new Error(`/healthz answered ${answer.status}`)
    return performance.now() - start
  } finally {
    await stopMirror(mirror)
  }
}

async function timeToEnd([program, ...args]: string[]): Promise<number> {
  const start = performance.now()
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const [status] = (await once(child, 'exit')) as [number | null]
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: exit status ${status}`)
  return performance.now() - start
}

function startMetric(metric: string, pairs: readonly StartPair[]): Metric {
  return {
    metric,
    ours: round(median(pairs.map(({ ours }) => ours))),
    peer: round(median(pairs.map(({ empty }) => empty))),
    ratio: round(median(pairs.map(({ ours, empty }) => ours / empty))),
    goal: '<= 3.5',
    unit: 'ms',
    against: 'node -e ""',
    pairs: pairs.length,
  }
}

/** Resolves when every listener is open. Its log is only shown when it ends before that. */
export async function startMirror(config: string): Promise<RunningMirror> {
  const [program, ...args] = gapferryMirror('serve', '--json', '--config', config)
  const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const kill = (): boolean => child.kill('SIGKILL')
  process.once('exit', kill)
  child.once('exit', () => process.off('exit', kill))
  let log = ''
  child.stderr.on('data', (bytes: Buffer) => (log = `${log}${bytes}`.slice(-LOG_CHARACTERS)))
  const line = await Promise.race([
    once(child.stdout, 'data').then(([bytes]) => String(bytes)),
    once(child, 'exit').then(([status]): string => {
      throw new Error(`gapferry-mirror serve ended with ${status}\n${log}`)
    }),
  ])
  const { admin, origins } = JSON.parse(line) as { admin: string; origins: { url: string }[] }
  return { child, admin, origin: origins[0]!.url }
}

export async function stopMirror({ child }: RunningMirror): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

/** The most since now: the kernel's own mark, put back first. */
async function memoryUnderLoad(mirror: RunningMirror, script: string): Promise<number> {
  writeFileSync(`/proc/${mirror.child.pid}/clear_refs`, '5')
  const args = ['-t1', `-c${CONNECTIONS}`, `-d${LOAD_SECONDS}s`, '-s', script, mirror.origin]
  const { stdout } = await mustRun('wrk', args)
  if (/Non-2xx/.test(stdout)) throw new Error(`the mirror did not answer well:\n${stdout}`)
  return memoryMb(mirror, 'VmHWM')
}

function memoryMb({ child }: RunningMirror, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
  return (Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)![1]) * 1024) / 1e6
}

function memory(metric: string, values: readonly number[], goal: string): Metric {
  return { metric, ours: round(median(values)), peer: null, ratio: null, goal, unit: 'MB', pairs: values.length }
}

function loadScript(paths: readonly string[]): string {
  const list = paths.map((path) => `"/${path}"`).join(', ')
  return `local paths = {${list}}
local at = 0
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
`
}
