/** A question to the person at the terminal. */
import { createInterface } from 'node:readline/promises'
import type { Surroundings } from '../manifests/program.ts'

/** @returns the line that was typed; empty after Ctrl-C and Ctrl-D, which answer nothing */
export async function askLine(around: Pick<Surroundings, 'stdin' | 'stderr'>, question: string): Promise<string> {
  const lines = createInterface({ input: around.stdin, output: around.stderr })
  // They close it, before or instead of an answer.
  const ended = new Promise<string>((done) => lines.once('close', () => done('')))
  try {
    return await Promise.race([lines.question(question), ended])
  } finally {
    lines.close()
    around.stderr.write('\n')
  }
}
