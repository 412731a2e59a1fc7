/**
 * Where the keystore's passphrase comes from: a file descriptor, the environment, or a prompt that shows nothing.
 */
import { readSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { ReadStream } from 'node:tty'
import { GapferryError } from '../manifests/errors.ts'
import type { Surroundings } from '../manifests/program.ts'

export interface PassphraseSources {
  /** a file descriptor that was given: `--passphrase-fd N` */
  fd: number | undefined
  /** `GAPFERRY_PASSPHRASE`, or another of our variables */
  environment: string | undefined
  /** the terminal, where there is one */
  terminal: { input: ReadStream; output: NodeJS.WritableStream } | undefined
}

const MAX_PASSPHRASE_BYTES = 1024
/** Until the signal has come round. */
const SIGNAL_MS = 100

/** @param fd        as it was typed
 *  @param variable  of the environment
 *  @param option    that `fd` was given with
 *  @throws USAGE_INVALID where `fd` is no number */
export function passphraseFrom(
  around: Pick<Surroundings, 'environment' | 'stdin' | 'stderr'>,
  fd: string | undefined,
  variable: string,
  option: string,
): PassphraseSources {
  const isTerminal = around.stdin.isTTY === true && around.stderr.isTTY === true
  return {
    fd: fd === undefined ? undefined : parseFd(fd, option),
    environment: around.environment[variable],
    terminal: isTerminal ? { input: around.stdin as ReadStream, output: around.stderr } : undefined,
  }
}

/** @param question  shown on the terminal, without the colon
 *  @throws KEY_PASSPHRASE_MISSING when there is no source at all or it is empty */
export async function readPassphrase(sources: PassphraseSources, question: string): Promise<string> {
  if (sources.fd !== undefined) return notEmpty(readLine(sources.fd))
  if (sources.environment !== undefined) return notEmpty(sources.environment)
  if (sources.terminal !== undefined) return notEmpty(await ask(sources.terminal, question))
  throw missing('no passphrase given and no terminal to ask on')
}

/** Asks twice where a person types, so that a slip does not lock the keys for ever. */
export async function readNewPassphrase(
  sources: PassphraseSources,
  question = 'new passphrase for the keys',
): Promise<string> {
  const first = await readPassphrase(sources, question)
  const isTyped = sources.fd === undefined && sources.environment === undefined
  if (isTyped && (await readPassphrase(sources, 'the same again')) !== first) {
    throw new GapferryError('KEY_PASSPHRASE_WRONG', 'the two passphrases differ', {
      hint: 'run the same command again',
    })
  }
  return first
}

function parseFd(text: string, option: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text)
  throw new GapferryError('USAGE_INVALID', `${option} "${text}": expected the number of an open file descriptor`)
}

function readLine(fd: number): string {
  const buffer = Buffer.alloc(MAX_PASSPHRASE_BYTES + 1)
  let length = 0
  while (length < buffer.length) {
    const count = readSome(fd, buffer, length)
    if (count === 0) break
    length += count
    if (buffer.subarray(0, length).includes(0x0a)) break
  }
  if (length > MAX_PASSPHRASE_BYTES) throw missing(`the passphrase is longer than ${MAX_PASSPHRASE_BYTES} bytes`)
  return buffer.toString('utf8', 0, length).replace(/\r?\n.*$/s, '')
}

function readSome(fd: number, buffer: Buffer, at: number): number {
  try {
    return readSync(fd, buffer, at, buffer.length - at, null)
  } catch (cause) {
    throw new GapferryError('KEY_PASSPHRASE_MISSING', `file descriptor ${fd} cannot be read`, {
      hint: 'gapferry pack --passphrase-fd 3 3< FILE',
      cause,
    })
  }
}

/** Raw mode, because a terminal in line mode would show what is typed. */
async function ask(terminal: { input: ReadStream; output: NodeJS.WritableStream }, question: string): Promise<string> {
  const { input, output } = terminal
  // Before the question: whoever types at once must not see it either.
  input.setRawMode(true)
  output.write(`${question}: `)
  input.setEncoding('utf8')
  let typed = ''
  try {
    for await (const chunk of input.iterator({ destroyOnReturn: false }) as AsyncIterable<string>) {
      for (const key of chunk) {
        if (key === '\r' || key === '\n') return typed
        if (key === '\u0004') throw missing('nothing was typed')
        if (key === '\u0003') return await interrupt()
        typed = key === '\u007f' || key === '\b' ? typed.slice(0, -1) : typed + key
      }
    }
    return typed
  } finally {
    input.setRawMode(false)
    input.pause()
    output.write('\n')
  }
}

/** Ctrl-C in raw mode is a key like any other: made the signal that it is elsewhere. */
async function interrupt(): Promise<never> {
  process.kill(process.pid, 'SIGINT')
  await delay(SIGNAL_MS)
  throw missing('interrupted')
}

function notEmpty(passphrase: string): string {
  if (passphrase === '') throw missing('the passphrase is empty')
  return passphrase
}

function missing(why: string): GapferryError {
  return new GapferryError('KEY_PASSPHRASE_MISSING', why, {
    hint: 'give --passphrase-fd N, set GAPFERRY_PASSPHRASE, or run on a terminal',
  })
}
