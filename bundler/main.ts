/**
 * The program `gapferry`, for the laptop. Reads arguments, environment and clock; everything below is told.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { whoRuns } from '../storage/who.ts'
import { runGapferry } from './program.ts'

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }

// Whoever reads may go away (`… | head`, a log collector that restarts): no reason to fall over.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

const stop = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort(new Error(`ended by ${name}`)))

process.exitCode = await runGapferry(process.argv.slice(2), {
  version,
  // npm changes the directory to the project's; INIT_CWD is where the person stands.
  cwd: resolve(process.env['INIT_CWD'] ?? process.cwd()),
  environment: process.env,
  user: whoRuns(process.getuid?.()),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  nowMs: Date.now,
  signal: stop.signal,
})
