/**
 * Serving, beside nginx (one worker, sendfile, open_file_cache) and @fastify/static, on loopback, load by wrk. Every figure
 * is the median of interleaved pairs in one run. What is compared is answers per second of the server's own processor
 * time: it means the same on a busy machine and on one with other cores.
 */
import { execFile, fork, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

export interface Metric {
  metric: string
  ours: number
  peer: number
  ratio: number
  /** as in `>= 0.45`, about the ratio */
  goal: string
}

interface Peer {
  name: string
  url: string
  process: ChildProcess
}

interface Load {
  answers: number
  seconds: number
  cpuSeconds: number
  p99Ms: number
}

const FILES = { '4k': 4096, '100k': 102_400, '20m': 20 * 1024 * 1024 }
const TICKS_PER_SECOND = 100
const run = promisify(execFile)

/** Runs all serving metrics one after the other; a peer that is not installed is named on stderr and left out.
 *  @param options.pairs    interleaved runs of each server
 *  @param options.seconds  of each run */
export async function* serveMetrics({ pairs = 5, seconds = 2 } = {}): AsyncGenerator<Metric> {
  if (!(await isInstalled('wrk', ['-v']))) throw new Error('serving is measured with wrk, which is not installed')
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-serve-'))
  const started: ChildProcess[] = []
  const clear = (): void => {
    for (const child of started) child.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
  process.once('exit', clear)
  try {
    makeFiles(dir)
    const ours = await startOwn('mirror', dir, started)
    if (await isInstalled('nginx', ['-v'])) {
      const nginx = await startNginx(dir, started)
      yield* againstNginx(ours, nginx, { pairs, seconds })
    } else skip('nginx')
    const fastify = await startOwn('static', dir, started)
    const small = await compare(ours, fastify, '4k', { connections: 64, pairs, seconds })
    yield metric('serve-4k-static', small, perCpuSecond, '>= 6')
  } finally {
    await Promise.all(started.map(end))
    process.off('exit', clear)
    clear()
  }
}

async function* againstNginx(
  ours: Peer,
  nginx: Peer,
  options: { pairs: number; seconds: number },
): AsyncGenerator<Metric> {
  const small = await compare(ours, nginx, '4k', { connections: 64, ...options })
  yield metric('serve-4k', small, perCpuSecond, '>= 0.45')
  yield metric('serve-4k-p99', small, (load) => load.p99Ms, '<= 5')
  const middle = await compare(ours, nginx, '100k', { connections: 64, ...options })
  yield metric('serve-100k', middle, perCpuSecond, '>= 0.5')
  const large = await compare(ours, nginx, '20m', { connections: 8, ...options })
  yield metric('serve-20m', large, (load) => (load.answers * FILES['20m']) / 1e6 / load.seconds, '>= 0.8')
  yield metric('serve-20m-cpu', large, (load) => load.cpuSeconds / load.answers, '<= 4')
}

interface Pairs {
  ours: Load[]
  peer: Load[]
}

async function compare(
  ours: Peer,
  peer: Peer,
  file: keyof typeof FILES,
  { connections, pairs, seconds }: { connections: number; pairs: number; seconds: number },
): Promise<Pairs> {
  const loads: Pairs = { ours: [], peer: [] }
  for (const server of [ours, peer]) await load(server, file, connections, 1)
  for (let i = 0; i < pairs; i++) {
    loads.peer.push(await load(peer, file, connections, seconds))
    loads.ours.push(await load(ours, file, connections, seconds))
  }
  return loads
}

async function load(server: Peer, file: string, connections: number, seconds: number): Promise<Load> {
  const before = cpuTicks(server.process.pid!)
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', `${server.url}/${file}`]
  const { stdout } = await run('wrk', args)
  const cpuSeconds = (cpuTicks(server.process.pid!) - before) / TICKS_PER_SECOND
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(`${server.name} did not answer well:\n${stdout}`)
  const [, answers = '', time = ''] = /(\d+) requests in ([\d.]+)s/.exec(stdout)!
  return {
    answers: Number(answers),
    seconds: Number(time),
    cpuSeconds,
    p99Ms: milliseconds(/^ +99% +(\S+)/m.exec(stdout)![1]!),
  }
}

function metric(name: string, { ours, peer }: Pairs, figure: (load: Load) => number, goal: string): Metric {
  const [mine, theirs] = [ours.map(figure), peer.map(figure)]
  const ratio = median(mine.map((value, i) => value / theirs[i]!))
  return { metric: name, ours: round(median(mine)), peer: round(median(theirs)), ratio: round(ratio), goal }
}

function perCpuSecond({ answers, cpuSeconds }: Load): number {
  return answers / cpuSeconds
}

function makeFiles(dir: string): void {
  mkdirSync(join(dir, 'files'))
  for (const [name, bytes] of Object.entries(FILES)) writeFileSync(join(dir, 'files', name), randomBytes(bytes))
}

async function startOwn(program: string, dir: string, started: ChildProcess[]): Promise<Peer> {
  const child = fork(join(import.meta.dirname, 'serve-program.ts'), [program, dir])
  started.push(child)
  const url = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve(String(message)))
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}`)))
  })
  return { name: program, url, process: child }
}

async function startNginx(dir: string, started: ChildProcess[]): Promise<Peer> {
  const port = await freePort()
  const file = join(dir, 'nginx.conf')
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`)
  writeFileSync(
    file,
    `daemon off; master_process off; worker_processes 1; pid ${dir}/pid; error_log stderr crit;
    events { worker_connections 1024; }
    http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; ${temp.join(' ')}
      open_file_cache max=1000; open_file_cache_valid 60s;
      server { listen 127.0.0.1:${port}; root ${dir}/files; } }`,
  )
  const child = spawn('nginx', ['-e', 'stderr', '-c', file], { stdio: ['ignore', 'ignore', 'inherit'] })
  started.push(child)
  const url = `http://127.0.0.1:${port}`
  for (let tries = 0; ; tries++) {
    const up = await fetch(`${url}/4k`).then(
      (response) => response.arrayBuffer(),
      () => undefined,
    )
    if (up !== undefined) return { name: 'nginx', url, process: child }
    if (tries > 100) throw new Error('nginx does not answer')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill()
  await once(child, 'exit')
}

/** user and system time of a process, all its threads */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return Number(fields[11]) + Number(fields[12])
}

async function isInstalled(program: string, args: string[]): Promise<boolean> {
  return run(program, args).then(
    () => true,
    (error: { code?: unknown }) => error.code !== 'ENOENT',
  )
}

function skip(peer: string): void {
  console.error(`${peer} is not installed: its comparison is left out`)
}

function milliseconds(text: string): number {
  const [, value = '', unit = ''] = /^([\d.]+)(us|ms|s|m)$/.exec(text)!
  return Number(value) * { us: 0.001, ms: 1, s: 1000, m: 60_000 }[unit as 'us' | 'ms' | 's' | 'm']
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 2)]!
}

function round(value: number): number {
  return Number(value.toPrecision(3))
}

if (import.meta.main) {
  for await (const line of serveMetrics()) console.log(JSON.stringify(line))
}
