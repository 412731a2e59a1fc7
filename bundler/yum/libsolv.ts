/** libsolv's own programs (Debian: libsolv-tools), each run bounded in time and output. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { GapferryError } from '../../manifests/errors.ts'
import { systemCode } from '../../storage/durable.ts'
import { parseSolved, type Solved } from './solver-case.ts'

export interface Libsolv {
  /** where the programs are */
  path: string | undefined
  signal: AbortSignal
}

/** The largest filelists take libsolv a minute of a quick processor. */
const TOOL_MS = 1_800_000
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024
const MAX_SAID = 500

/** A folder with `repodata/repomd.xml` → a solv file, with all paths of filelists.
 *  @throws TOOL_MISSING, TOOL_FAILED, the signal's reason */
export async function solvRepository(tools: Libsolv, folder: string, file: string): Promise<void> {
  await runTool(tools, 'repo2solv', ['-F', '-o', file, folder])
}

/** A primary → a solv file. @throws as solvRepository */
export async function solvPrimary(tools: Libsolv, primary: Iterable<string>, file: string): Promise<void> {
  await runTool(tools, 'rpmmd2solv', [], { input: primary, output: file })
}

/** @param file  a testcase; the solv files that it names stand beside it
 *  @throws as solvRepository */
export async function solve(tools: Libsolv, file: string): Promise<Solved> {
  return parseSolved(await runTool(tools, 'testsolv', ['-r', file]))
}

async function runTool(
  { path, signal }: Libsolv,
  name: string,
  args: readonly string[],
  { input = [], output }: { input?: Iterable<string>; output?: string } = {},
): Promise<string> {
  signal.throwIfAborted()
  const late = AbortSignal.timeout(TOOL_MS)
  const fd = output === undefined ? undefined : openSync(output, 'w', 0o600)
  const child = spawn(name, args, {
    env: { PATH: path, LC_ALL: 'C' },
    stdio: ['pipe', fd ?? 'pipe', 'pipe'],
    // spawn's own timeout stays when there is no such program, and the process with it
    signal: AbortSignal.any([signal, late]),
    killSignal: 'SIGKILL',
  })
  if (fd !== undefined) closeSync(fd)
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  const fed = pipeline(Readable.from(input), child.stdin!).catch((error: unknown) => error)
  try {
    const [out, said, [status, killedBy]] = await Promise.all([textOf(child.stdout), textOf(child.stderr), ended])
    await fed
    // it ends with 0 where it could not read a file, and says so
    if (status === 0 && said === '') return out
    throw failed(name, said.trim().slice(0, MAX_SAID) || `ended with ${killedBy ?? `status ${status}`}`)
  } catch (error) {
    child.kill('SIGKILL')
    signal.throwIfAborted()
    if (late.aborted) throw failed(name, `gave no answer for ${TOOL_MS / 1000} seconds`)
    if (systemCode(error) === 'ENOENT') throw missing(name, error)
    throw error
  }
}

function failed(name: string, why: string): GapferryError {
  return new GapferryError('TOOL_FAILED', `${name}: ${why}`, {
    hint: 'gapferry plan without --prove does not need it; please report this',
  })
}

async function textOf(stream: Readable | null): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of (stream ?? []) as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_OUTPUT_BYTES) throw failed('libsolv', 'says more than 64 MB')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function missing(name: string, cause: unknown): GapferryError {
  return new GapferryError('TOOL_MISSING', `${name} is not installed on this laptop; --prove asks libsolv with it`, {
    hint: 'apt install libsolv-tools (Fedora: dnf install libsolv-tools)',
    cause,
  })
}
