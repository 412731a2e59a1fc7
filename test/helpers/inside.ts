import { Readable, Writable } from 'node:stream'
import type { Surroundings } from '../../manifests/program.ts'
import type { Outcome } from './process.ts'

class Collected extends Writable {
  text = ''
  isTTY = false
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString()
    done()
  }
}

/** Runs one command line in this process, as main.ts would: a tenth of the time that a process of its own takes.
 *  @param around  what differs from a person who stands in `cwd`, today, without a terminal */
export async function inside(
  program: (args: string[], around: Surroundings) => Promise<number>,
  cwd: string,
  args: string[],
  around: Partial<Surroundings> = {},
): Promise<Outcome> {
  const [stdout, stderr] = [new Collected(), new Collected()]
  stderr.isTTY = around.stdin?.isTTY === true
  const status = await program(args, {
    version: '1.2.3',
    cwd,
    environment: {},
    stdin: Readable.from([]),
    stdout,
    stderr,
    nowMs: Date.now,
    signal: new AbortController().signal,
    ...around,
  })
  return { status, stdout: stdout.text, stderr: stderr.text }
}
