/** The demo's talk: titles, commands as a person would type them, and what these print. */
import { spawn, type ChildProcess } from 'node:child_process'

/** A command, and how it is shown. */
export interface Shown {
  /** whose prompt: `laptop$` */
  prompt: string
  /** as typed there */
  typed: readonly string[]
  /** where its output goes, as typed: `> FILE` */
  into?: string
  file: string
  args: readonly string[]
  cwd: string
  env: NodeJS.ProcessEnv
}

const RULE = 76
const MAX_WIDTH = 100
const children = new Set<ChildProcess>()
let isEnding = false

export function title(text: string): void {
  process.stdout.write(`\n── ${text} ${'─'.repeat(Math.max(0, RULE - text.length))}\n`)
}

export function say(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(18)} ${text}\n`)
}

export function remark(text: string): void {
  process.stdout.write(`\n# ${text}\n`)
}

/** Runs a command, its output on this terminal.
 *  @throws where it does not end with 0 */
export async function step(command: Shown): Promise<void> {
  const status = await ended(start(command))
  if (status !== 0) throw new Error(`${command.typed.slice(0, 2).join(' ')} ended with status ${status}`)
}

/** As {@link step}. @returns what it printed, too */
export async function heard(command: Shown): Promise<string> {
  const child = start(command, 'pipe')
  const pieces: Buffer[] = []
  child.stdout!.on('data', (piece: Buffer) => {
    pieces.push(piece)
    process.stdout.write(piece)
  })
  const status = await ended(child)
  if (status !== 0) throw new Error(`${command.typed.slice(0, 2).join(' ')} ended with status ${status}`)
  return Buffer.concat(pieces).toString()
}

type Output = 'inherit' | 'pipe' | number

/** Shows a command, and starts it. Outputs are this terminal, a pipe, or a file's descriptor. */
export function start(command: Shown, stdout: Output = 'inherit', stderr: Output = 'inherit'): ChildProcess {
  if (isEnding) throw new Error('stopped')
  show(command.prompt, command.typed, command.into)
  const { file, args, cwd, env } = command
  const child = spawn(file, args, { cwd, env, stdio: ['ignore', stdout, stderr] })
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}

/** A long command goes on in further lines, as a person would break it. */
export function show(prompt: string, typed: readonly string[], into?: string): void {
  const width = Math.min(process.stdout.columns || MAX_WIDTH, MAX_WIDTH) - ' \\'.length
  const lines = [prompt]
  for (const piece of [...pieces(typed), ...(into === undefined ? [] : [into])]) {
    const line = lines.at(-1)!
    if (line.length + piece.length < width || line === prompt) lines[lines.length - 1] = `${line} ${piece}`
    else lines.push(`    ${piece}`)
  }
  process.stdout.write(`\n${lines.join(' \\\n')}\n`)
}

/** An option stays with its value. */
function pieces(typed: readonly string[]): string[] {
  const found: string[] = []
  for (const word of typed.map((one) => (/[ '"|;]/.test(one) ? `'${one}'` : one))) {
    if (/^--[a-z-]+$/.test(found.at(-1) ?? '') && !word.startsWith('--')) found.push(`${found.pop()} ${word}`)
    else found.push(word)
  }
  return found
}

export function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  return new Promise((done, fail) => {
    child.once('error', fail)
    child.once('close', (code) => done(code))
  })
}

export function isStopping(): boolean {
  return isEnding
}

/** Ends every command that runs, and lets no other begin. */
export async function stopAll(): Promise<void> {
  isEnding = true
  const ends = [...children].map(ended)
  for (const child of children) child.kill('SIGTERM')
  await Promise.allSettled(ends)
}
