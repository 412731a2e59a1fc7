import { spawn } from 'node:child_process'
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { once } from 'node:events'

/** What a finished command left. `status` is its exit status, or 128 + signal number where a signal ended it. */
export interface Outcome {
  status: number
  stdout: string
  stderr: string
}

/** How a command is run. `env` is the whole environment apart from what {@link systemEnv} always gives. */
export interface RunOptions {
  cwd?: string
  env?: Record<string, string>
  input?: string | Uint8Array
  /** The command is ended and the promise rejects after this long. */
  timeoutMs?: number
}

/** A process that stays. `stop` ends it by its pid and waits for its end; calling it twice is harmless. */
export interface Running {
  pid: number
  /** Everything written so far. */
  output(): { stdout: string; stderr: string }
  /** Its end, whoever caused it. */
  ended: Promise<Outcome>
  stop(signal?: NodeJS.Signals): Promise<Outcome>
}

/** Where teardown goes: any tap test. */
export interface Teardown {
  teardown(handler: () => unknown): void
}

const TIMEOUT_MS = 120_000
const READY_MS = 20_000
const STOP_MS = 5_000
const OUTPUT_BYTES = 64 << 20
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Nothing listens there: a tool that tries to leave loopback through it fails at once. */
const NO_PROXY_HERE = 'http://127.0.0.1:9'
/** The variable that says which names are on loopback, where the test has a network of its own. */
export const NO_PROXY = 'GAPFERRY_TEST_NO_PROXY'

/** The environment of every system tool a test starts: system folders only in PATH (a development machine may have
 *  another python3 in front), no language, no user's settings, and no network but loopback for tools that read the
 *  proxy variables (curl, dnf). */
function systemEnv(extra: Record<string, string> = {}): Record<string, string> {
  const loopback = process.env[NO_PROXY] ?? '127.0.0.1,localhost,::1'
  const proxies = { http_proxy: NO_PROXY_HERE, https_proxy: NO_PROXY_HERE, no_proxy: loopback }
  return { PATH: SYSTEM_PATH, LC_ALL: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent', ...proxies, ...extra }
}

/** Runs a command to its end, whatever its status. No shell, stdin empty unless `input` is given.
 *  Rejects when the command cannot be started or takes longer than `timeoutMs` (default two minutes). */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const child = spawn(command, args, spawnOptions(options))
  const collected = collect(child)
  child.stdin?.on('error', () => {}) // a command may end without reading all of its input
  child.stdin?.end(options.input)
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? TIMEOUT_MS)
  try {
    const outcome = await collected.ended
    if (child.signalCode === 'SIGKILL') throw new Error(`${command} ${args.join(' ')}: killed\n${report(outcome)}`)
    return outcome
  } finally {
    clearTimeout(timer)
  }
}

/** As {@link run}; rejects with all of the command's output when its status is not 0. */
export async function mustRun(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const outcome = await run(command, args, options)
  if (outcome.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${report(outcome)}`)
  return outcome
}

/** A finished command that must have done what it was asked; throws with all of its output otherwise. */
export function must(outcome: Outcome): Outcome {
  if (outcome.status !== 0) throw new Error(report(outcome))
  return outcome
}

/** Starts a process that stays, and resolves once its output (either stream) matches `ready`, or `ready()` gives true.
 *  It is ended in `t`'s teardown. Rejects with its output when it ends or `readyMs` (20 seconds) pass before that.
 *  SIGTERM, and SIGKILL where that had no effect for five seconds; only ever its own pid. */
export async function start(
  t: Teardown,
  command: string,
  args: readonly string[],
  options: RunOptions & { ready: RegExp | (() => Promise<boolean>); readyMs?: number },
): Promise<Running> {
  const child = spawn(command, args, spawnOptions(options))
  const collected = collect(child)
  child.stdin?.end(options.input)
  const running: Running = {
    pid: child.pid ?? -1,
    output: () => collected.output(),
    ended: collected.ended,
    stop: (signal = 'SIGTERM') => stop(child, collected.ended, signal),
  }
  t.teardown(() => running.stop())
  await untilReady(running, child, options)
  return running
}

/** `outcome` as text for a message. */
export function report(outcome: Outcome): string {
  return `status ${outcome.status}\n${outcome.stdout}\n${outcome.stderr}`.trimEnd()
}

function spawnOptions(options: RunOptions): SpawnOptions {
  return { cwd: options.cwd, env: systemEnv(options.env), stdio: ['pipe', 'pipe', 'pipe'] }
}

function collect(child: ChildProcess): { output(): { stdout: string; stderr: string }; ended: Promise<Outcome> } {
  const kept = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
  let bytes = 0
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= OUTPUT_BYTES) kept[name].push(chunk)
    })
  }
  const output = () => ({
    stdout: Buffer.concat(kept.stdout).toString(),
    stderr: Buffer.concat(kept.stderr).toString(),
  })
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (status, signal) => resolve({ status: status ?? signalStatus(signal), ...output() }))
  })
  ended.catch(() => {}) // who waits for it sees the rejection; nobody has to
  return { output, ended }
}

function signalStatus(signal: NodeJS.Signals | null): number {
  const numbers: Record<string, number> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGSEGV: 11, SIGPIPE: 13, SIGTERM: 15 }
  return 128 + (numbers[signal ?? ''] ?? 0)
}

async function stop(child: ChildProcess, ended: Promise<Outcome>, signal: NodeJS.Signals): Promise<Outcome> {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
  try {
    return await ended
  } finally {
    clearTimeout(timer)
  }
}

async function untilReady(
  running: Running,
  child: ChildProcess,
  { ready, readyMs = READY_MS }: { ready: RegExp | (() => Promise<boolean>); readyMs?: number },
) {
  const deadline = Date.now() + readyMs
  for (;;) {
    const { stdout, stderr } = running.output()
    if (typeof ready === 'function' ? await ready() : ready.test(stdout) || ready.test(stderr)) return
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`${child.spawnfile}: ended before it was ready: ${report(await running.ended)}`)
    }
    if (Date.now() > deadline) throw new Error(`${child.spawnfile}: not ready in ${readyMs} ms\n${stdout}\n${stderr}`)
    await nextSign(child)
  }
}

/** Resolves at the process's next output or end, or after 50 ms: a readiness probe may need no output at all. */
async function nextSign(child: ChildProcess): Promise<void> {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(), 50)
  const signs = [once(child.stdout!, 'data', controller), once(child.stderr!, 'data', controller)]
  await Promise.race([...signs, once(child, 'exit', controller)]).catch(() => {})
  clearTimeout(timer)
  controller.abort()
  await Promise.allSettled(signs)
}
