/**
 * `gapferry pull` over a bad link, beside aria2c, in the same run and in turn: 20 Mbit/s, 60 ms there and back, 1 % loss each
 * way, BBR; once as it is, and once with connections that are reset about every 400 KB. Our program and aria2c stand in one
 * network namespace, nginx with the files in another, and link.py between them; nothing of it touches the machine's own
 * network, and all is gone with this process. Needs root.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { run } from '../helpers/process.ts'
import { gapferry } from './bundle.ts'
import { generated, remove } from './folders.ts'
import { measure, median, round, type Metric, type Side, type Usage } from './measure.ts'
import { randomFrom } from './random.ts'

/** Raise it with every change of what is made. */
const VERSION = 1
const FILES = 40
const LEAST_BYTES = 4096
const MOST_BYTES = 8_000_000
/** One that takes most of a link's time by itself. */
const LARGE_BYTES = 20_000_000
const LINK = {
  bitsPerSecond: 20_000_000,
  delayMs: 30,
  loss: 0.01,
  /** a tenth of a second */
  queueBytes: 250_000,
  // With cubic, 1 % loss holds one connection to 2 Mbit/s: the largest file alone decides, whoever fetches it.
  congestion: 'bbr',
  near: '10.99.0.1',
  far: '10.99.0.2',
}
const RESET_BYTES = 400_000
const CONNECTIONS = 8
const PAIRS = 3
const URL = `http://${LINK.far}`

export async function* linkMetrics(work: string): AsyncGenerator<Metric> {
  if (process.getuid?.() !== 0) throw new Error('network namespaces are made by root only: run it as root')
  const www = await generated('link', VERSION, makeFiles)
  const files = JSON.parse(readFileSync(join(www, 'files.json'), 'utf8')) as SampleFile[]
  const dir = join(work, 'link')
  mkdirSync(dir)
  const link = await openLink()
  try {
    await startUpstream(link, www, dir)
    const sides = [ourSide(link, files, dir), peerSide(link, files, dir)] as const
    yield* metricsOf('link', await runsOf(link, sides, null), files, { wall: '<= 1.20', carried: '' })
    const withResets = await runsOf(link, sides, RESET_BYTES)
    yield* metricsOf('link-resets', withResets, files, { wall: '<= 1.30', carried: '<= 1.05' })
  } finally {
    await link.close()
    remove(dir)
  }
}

interface SampleFile {
  name: string
  bytes: number
  sha256: Sha256
}

/** 40 files of 4 KB to 20 MB that nothing can compress, 64 MB, in no order. */
function makeFiles(folder: string): void {
  const step = (MOST_BYTES / LEAST_BYTES) ** (1 / (FILES - 2))
  const sizes = Array.from({ length: FILES - 1 }, (_, i) => Math.round(LEAST_BYTES * step ** i))
  const random = randomFrom(1)
  const order = new Map([...sizes, LARGE_BYTES].map((size) => [size, random()]))
  const files = [...order.keys()]
    .sort((a, b) => order.get(a)! - order.get(b)!)
    .map((bytes, i) => {
      const content = randomBytes(bytes)
      const name = `${i}.bin`
      writeFileSync(join(folder, name), content)
      return { name, bytes, sha256: sha256Of(content) }
    })
  writeFileSync(join(folder, 'files.json'), JSON.stringify(files))
}

/** What went over the link. */
interface Traffic {
  /** packets with their headers, lost ones included */
  downBytes: number
  upBytes: number
  /** of TCP, as far as it arrived: HTTP, and bytes that came more than once */
  payloadBytes: number
  /** of those what came in order, so that the program got it; the rest was lost behind a gap when a connection was reset */
  usableBytes: number
  packets: number
  lost: number
  overflowed: number
  connections: number
  resets: number
  /** how long a packet waited for the emulator at most */
  latestMs: number
}

interface Link {
  /** a command line that runs there, and not longer than who runs it */
  near(command: readonly string[]): string[]
  far(command: readonly string[]): string[]
  /** @returns what went over it since the last call */
  begin(seed: number, resetBytes: number | null): Promise<Traffic>
  children: ChildProcess[]
  close(): Promise<void>
}

async function openLink(): Promise<Link> {
  const emulator = spawn('python3', [join(import.meta.dirname, 'link.py'), JSON.stringify(LINK)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(emulator.stdout)[Symbol.asyncIterator]()
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next()
    if (done === true) throw new Error('the emulated link ended')
    return value
  }
  const ends = JSON.parse(await next()) as { near: number; far: number }
  const children: ChildProcess[] = [emulator]
  const kill = (): void => children.forEach((child) => child.kill('SIGKILL'))
  process.once('exit', kill)
  return {
    near: (command) => inside(ends.near, command),
    far: (command) => inside(ends.far, command),
    begin: async (seed, resetBytes) => {
      emulator.stdin.write(`${JSON.stringify({ seed, resetBytes })}\n`)
      return JSON.parse(await next()) as Traffic
    },
    children,
    close: async () => {
      process.off('exit', kill)
      for (const child of children.reverse()) await end(child)
    },
  }
}

function inside(pid: number, command: readonly string[]): string[] {
  return ['setpriv', '--pdeathsig', 'KILL', 'nsenter', '--net', '--target', String(pid), ...command]
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

async function startUpstream(link: Link, www: string, dir: string): Promise<void> {
  const file = join(dir, 'nginx.conf')
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${dir}/${name};`)
  writeFileSync(
    file,
    `daemon off; master_process off; user root; pid ${dir}/pid; error_log stderr crit; events {}
    http { access_log off; sendfile on; ${temp.join(' ')} server { listen 80; root ${www}; } }`,
  )
  const [program, ...args] = link.far(['nginx', '-e', 'stderr', '-c', file])
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  link.children.push(child)
  const [probe, ...probing] = link.far([
    'python3',
    '-c',
    `import socket; socket.create_connection(("${LINK.far}", 80))`,
  ])
  for (let tries = 0; (await run(probe!, probing)).status !== 0; tries++) {
    if (tries > 100 || child.exitCode !== null) throw new Error('nginx does not answer')
    await wait(50)
  }
}

function ourSide(link: Link, files: readonly SampleFile[], dir: string): Side {
  const home = join(dir, 'laptop')
  const config = join(home, 'gapferry.yaml')
  const entries = files.map(({ name, sha256 }) => `{ url: '${URL}/${name}', as: ${name}, sha256: ${sha256} }`)
  return {
    name: 'gapferry pull',
    command: link.near(gapferry('pull', '--config', config)),
    reset: () => {
      remove(home)
      mkdirSync(home)
      writeFileSync(
        config,
        `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        files:
          - ${entries.join('\n          - ')}
`,
      )
    },
  }
}

/** With as many connections, checked digests and no end of tries; one connection for each file, which is its default. */
function peerSide(link: Link, files: readonly SampleFile[], dir: string): Side {
  const home = join(dir, 'aria2c')
  const list = join(dir, 'aria2c.list')
  const entries = files.map(({ name, sha256 }) => `${URL}/${name}\n  out=${name}\n  checksum=sha-256=${sha256}\n`)
  writeFileSync(list, entries.join(''))
  const options = [
    '--no-conf',
    '--quiet',
    `--max-concurrent-downloads=${CONNECTIONS}`,
    '--max-tries=0',
    `--no-proxy=${LINK.far}`,
  ]
  return {
    name: 'aria2c',
    command: link.near(['aria2c', ...options, '--file-allocation=none', `--dir=${home}`, `--input-file=${list}`]),
    reset: () => remove(home),
  }
}

interface Run extends Usage, Traffic {}

interface Pair {
  ours: Run
  peer: Run
}

async function runsOf(link: Link, [ours, peer]: readonly [Side, Side], resetBytes: number | null): Promise<Pair[]> {
  const pairs: Pair[] = []
  for (let seed = 1; seed <= PAIRS; seed++) {
    pairs.push({
      ours: await overLink(link, ours, seed, resetBytes),
      peer: await overLink(link, peer, seed, resetBytes),
    })
  }
  return pairs
}

async function overLink(link: Link, side: Side, seed: number, resetBytes: number | null): Promise<Run> {
  await link.begin(seed, resetBytes)
  const usage = await measure(side)
  const traffic = await link.begin(seed, null)
  const said = Object.entries({ ...usage, ...traffic }).map(([name, value]) => `${name} ${round(value)}`)
  console.error(`${side.name}: ${said.join(', ')}`)
  return { ...usage, ...traffic }
}

function* metricsOf(
  name: string,
  pairs: readonly Pair[],
  files: readonly SampleFile[],
  goals: { wall: string; carried: string },
): Generator<Metric> {
  const bytes = files.reduce((sum, one) => sum + one.bytes, 0)
  const seconds = (bytes * 8) / LINK.bitsPerSecond
  const inMb = (one: Run): number => one.usableBytes / 1e6
  yield { metric: name, ...against(pairs, ({ wallSeconds }) => wallSeconds, seconds, 'bytes ÷ rate', 's', goals.wall) }
  yield { metric: `${name}-aria2c`, ...besidePeer(pairs, ({ wallSeconds }) => wallSeconds, 's', '<= 1.10') }
  yield { metric: `${name}-carried`, ...against(pairs, inMb, bytes / 1e6, 'the files', 'MB', goals.carried) }
  yield { metric: `${name}-carried-aria2c`, ...besidePeer(pairs, inMb, 'MB', '') }
  yield { metric: `${name}-cpu`, ...besidePeer(pairs, ({ userSeconds }) => userSeconds, 'user cpu s', '') }
  yield { metric: `${name}-memory`, ...besidePeer(pairs, ({ peakMb }) => peakMb, 'MB', '<= 150 MB') }
}

function against(
  pairs: readonly Pair[],
  figure: (one: Run) => number,
  limit: number,
  name: string,
  unit: string,
  goal: string,
): Omit<Metric, 'metric'> {
  const value = median(pairs.map(({ ours }) => figure(ours)))
  const [ours, peer, ratio] = [round(value), round(limit), round(value / limit)]
  return { ours, peer, ratio, goal, unit, against: name, pairs: pairs.length }
}

function besidePeer(
  pairs: readonly Pair[],
  figure: (one: Run) => number,
  unit: string,
  goal: string,
): Omit<Metric, 'metric'> {
  const ours = round(median(pairs.map((pair) => figure(pair.ours))))
  const peer = round(median(pairs.map((pair) => figure(pair.peer))))
  const ratio = round(median(pairs.map((pair) => figure(pair.ours) / figure(pair.peer))))
  return { ours, peer, ratio, goal, unit, against: 'aria2c', pairs: pairs.length }
}
