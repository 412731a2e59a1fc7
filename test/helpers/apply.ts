/** A box without a mirror, for tests of `gapferry-box apply`. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { mustRun } from './process.ts'

/** Options of apply.py: `dir`, `pin` (digest of the root), `site`, `group`, `reason`; `now` in seconds. */
export interface ApplyOptions {
  dir: string
  pin?: string
  site?: string
  group?: string
  reason?: string
  now?: number
}

export interface Applied {
  /** "accepted", a code of FORMAT.md, or "refused" where verify.py refuses */
  code: string
  message: string
  isUnchanged: boolean
  cpuMs: number
}

const BUNDLER = join(import.meta.dirname, '../../bundler')
const read = (name: string): string => readFileSync(join(BUNDLER, name), 'utf8')

/** Runs apply.py, without its shell, over one stick or file after the other in one process.
 *  @param root  a folder that is the box */
export async function applyAll(
  root: string,
  runs: ApplyOptions[],
  { nowMs, python = 'python3' }: { nowMs: number; python?: string },
): Promise<{ results: Applied[]; peakBytes: number }> {
  const input = JSON.stringify({
    verify: read('verify.py'),
    apply: read('box/apply.py'),
    root,
    now: nowMs / 1000,
    runs,
  })
  const { stdout } = await mustRun(python, ['-B', join(import.meta.dirname, 'apply-program.py')], { input })
  return JSON.parse(stdout) as { results: Applied[]; peakBytes: number }
}
