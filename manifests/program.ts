/**
 * How both programs are run: one form of help, of output and of errors. Results go to standard output, everything else to
 * standard error; a script finds errors as JSON on standard output, too. Reads nothing of the process: main.ts tells.
 */
import { Command, CommanderError } from 'commander'
import { errorObject, formatError } from './console.ts'
import { exitStatus, GapferryError, redact, TRICKS } from './errors.ts'
import { withCode } from './system-error.ts'

/** What only a main.ts may look up. */
export interface Surroundings {
  version: string
  /** where the person stands */
  cwd: string
  environment: Record<string, string | undefined>
  /** who runs this, as `name (uid)`, for the audit trail */
  user?: string
  stdin: NodeJS.ReadableStream & { isTTY?: boolean }
  /** `columns`: of a terminal */
  stdout: NodeJS.WritableStream & { columns?: number }
  stderr: NodeJS.WritableStream & { isTTY?: boolean }
  /** the system clock, milliseconds since 1970 */
  nowMs: () => number
  /** aborted, with an Error that says why, when the program is told to end */
  signal: AbortSignal
}

/** What differs between the programs. */
export interface ProgramShape {
  name: string
  description: string
  /** help of `--config` */
  config: string
  /** a command line without the program's name */
  example: string
  /** A file of commands is loaded only when one of its names is on the command line, or none of any (for the help). */
  commands: readonly CommandFile[]
  /** completes "ended by SIGINT; …" */
  whatRemains: string
  /** the next command for an error that names none; default: the command's help */
  hint?: (error: GapferryError, command: string | undefined) => string | undefined
}

/** One file of commands, and their names. */
interface CommandFile {
  names: readonly string[]
  load: () => Promise<(program: Command, around: Surroundings) => void>
}

/** Options that every command has. */
export interface GlobalOptions {
  config?: string
  json?: boolean
}

/** Thrown after the failure is already part of what was printed as JSON; the failure is its `cause`. */
export class PrintedError extends Error {}

/** The exit status of a run that was told to end. */
export const ENDED_BY_SIGNAL = 130

/** Runs one command line to its end. Never throws: what failed is said on standard error, with `--json` on standard output
 *  too.
 *  @param args  without the program's name
 *  @returns the exit status */
export async function runProgram(shape: ProgramShape, args: string[], around: Surroundings): Promise<number> {
  const program = newProgram(shape, around)
  const command = args.find((arg) => shape.commands.some(({ names }) => names.includes(arg)))
  const report = (error: unknown, isJson: boolean): number =>
    sayFailure(shape, error, { command, part: partOf(program, command, args) }, isJson, around)
  try {
    for (const addCommands of await loadCommands(shape, args)) addCommands(program, around)
    await program.parseAsync(args, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof PrintedError) return report(error.cause, false)
    if (around.signal.aborted) {
      talk(around, `${shape.name}: ${(around.signal.reason as Error).message}; ${shape.whatRemains}`)
      return ENDED_BY_SIGNAL
    }
    const isJson = args.includes('--json')
    if (!(error instanceof CommanderError)) return report(error, isJson)
    // Help that was asked for, or the help that is shown when no command was given.
    if (error.exitCode === 0) return 0
    if (error.code === 'commander.help') return 2
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    return report(new GapferryError('USAGE_INVALID', message, { cause: error }), isJson)
  }
}

/** The last lines of a command's help.
 *  @param lines  command lines without the program's name */
export function examples(program: Command, ...lines: string[]): string {
  const title = lines.length > 1 ? 'Examples:' : 'Example:'
  return ['', title, ...lines.map((line) => `  ${program.name()} ${line}`), ''].join('\n')
}

/** Collects an option that may be repeated. */
export function append(value: string, before: string[] = []): string[] {
  return [...before, value]
}

/** A result: lines, made harmless. Names from sticks and upstreams are in them, and could move the cursor or forge a line. */
export function print(around: Pick<Surroundings, 'stdout'>, text: string): void {
  around.stdout.write(`${harmless(text)}\n`)
}

/** Everything else, made harmless too. One line that holds a foreign name with a line end in it goes through `redact` first. */
export function talk(around: Pick<Surroundings, 'stderr'>, text: string): void {
  around.stderr.write(`${harmless(text)}\n`)
}

/** Tricks in a spelling that JSON reads back, too; lines stay lines, credentials go. */
function harmless(text: string): string {
  const lines = text.split('\n').map((line) => {
    return redact(line.replace(TRICKS, jsonEscape))
  })
  return lines.join('\n')
}

/** Each UTF-16 unit for itself, as JSON wants it. */
function jsonEscape(character: string): string {
  return character.replace(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

function loadCommands({ commands }: ProgramShape, args: string[]) {
  const named = commands.filter(({ names }) => args.some((arg) => names.includes(arg)))
  const isVersion = args.length === 1 && ['--version', '-V'].includes(args[0]!)
  const wanted = named.length > 0 || isVersion ? named : commands
  return Promise.all(wanted.map(({ load }) => load()))
}

/** Settings before commands: commander hands them on to each command when it is added. */
function newProgram({ name, description, config, example }: ProgramShape, around: Surroundings): Command {
  const program = new Command(name)
    .description(description)
    .version(around.version)
    .option('--config <FILE>', config)
    .option('--json', 'results as JSON on standard output')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => void around.stdout.write(text),
      writeErr: (text) => void around.stderr.write(text),
      outputError: () => undefined, // sayFailure says it, in the form of all errors
    })
    .exitOverride()
  program.addHelpText('after', examples(program, example))
  return program
}

/** `add` of `inventory add`: undefined where the command has no parts, or none was named. */
function partOf(program: Command, command: string | undefined, args: readonly string[]): string | undefined {
  const parts = program.commands.find((one) => one.name() === command)?.commands.map((one) => one.name())
  return args.slice(args.indexOf(command ?? '') + 1).find((arg) => parts?.includes(arg))
}

/** What was asked for: `inventory`, and `add` of it. */
interface Asked {
  command: string | undefined
  part: string | undefined
}

function sayFailure(shape: ProgramShape, thrown: unknown, asked: Asked, isJson: boolean, around: Surroundings): number {
  const coded = withCode(thrown)
  const error = coded instanceof GapferryError ? withHint(shape, coded, asked) : coded
  talk(around, formatError(shape.name, error))
  if (isJson) print(around, JSON.stringify(errorObject(error)))
  return exitStatus(error)
}

/** Every error names a next command, also where it was thrown by code that knows of no command. */
function withHint({ name, hint }: ProgramShape, error: GapferryError, { command, part }: Asked): GapferryError {
  if (error.hint !== undefined) return error
  const help = [name, command, part, '--help'].filter((word) => word !== undefined).join(' ')
  return new GapferryError(error.code, error.message, { hint: hint?.(error, command) ?? help, cause: error })
}
