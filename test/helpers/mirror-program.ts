/** `gapferry-mirror` in this process, in a folder of its own, at the time of the samples. */
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Surroundings } from '../../manifests/program.ts'
import { runMirror } from '../../server/program.ts'
import type { AuditRow } from '../../storage/audit.ts'
import { Catalog } from '../../storage/catalog.ts'
import { inside } from './inside.ts'
import { makeContent, signContent, writeParts, type TestTree } from './mirror.ts'
import { sampleRoot } from './part.ts'
import type { Outcome } from './process.ts'
import { NOW } from './site.ts'

export interface MirrorProgram {
  /** holds root.json, sticks, and the mirror in `mir` */
  dir: string
  storeDir: string
  /** runs a command and says its exit status, and its code where one is given */
  run: (expected: number | string, ...args: string[]) => Promise<Outcome>
  runWith: (around: Partial<Surroundings>, expected: number | string, ...args: string[]) => Promise<Outcome>
  /** runs it with --json */
  json: (...args: string[]) => Promise<Record<string, unknown>>
  /** writes a signed bundle to a stick of its own. @returns its first part */
  stick: (number: number, trees?: TestTree[], how?: Parameters<typeof signContent>[1]) => string
  /** the audit trail, after it was verified */
  rows: () => AuditRow[]
}

/** @param options.site  'mir' or another folder, so that a test can have two of them */
export async function mirrorProgram(t: Test, options: { nowMs?: () => number } = {}): Promise<MirrorProgram> {
  const dir = t.testdir({ 'root.json': sampleRoot })
  const storeDir = join(dir, 'mir', 'store')
  let sticks = 0
  const runWith: MirrorProgram['runWith'] = async (around, expected, ...args) => {
    const config = args[0] === 'init' || args.includes('--config') ? [] : ['--config', 'mir/mirror.yaml']
    const nowMs = options.nowMs ?? ((): number => NOW)
    const outcome = await inside(runMirror, dir, [...args, ...config], { nowMs, user: 'anna (1000)', ...around })
    const found = typeof expected === 'number' ? outcome.status : /\[([A-Z_]+)\]/.exec(outcome.stderr)?.[1]
    if (!t.equal(found, expected, args.join(' ').replace(/[^ -~]/g, '?'))) t.comment(outcome.stderr)
    return outcome
  }
  const program: MirrorProgram = {
    ...{ dir, storeDir, runWith },
    run: (expected, ...args) => runWith({}, expected, ...args),
    json: async (...args) => JSON.parse((await runWith({}, 0, ...args, '--json')).stdout) as Record<string, unknown>,
    stick: (number, trees = [{ stamp: number * 10, packages: ['a'] }], how = {}) => {
      const bundle = signContent(makeContent(number, trees), { createdAtMs: NOW - 3_600_000, ...how })
      return writeParts(join(dir, 'sticks', String(++sticks)), bundle)[0]!
    },
    rows: () => {
      const catalog = new Catalog(join(storeDir, 'catalog.db'))
      try {
        catalog.audit.verify()
        return catalog.audit.rows()
      } finally {
        catalog.close()
      }
    },
  }
  const origin = ['--origin', 'pbx=127.0.0.1:0', '--admin', '127.0.0.1:0']
  await program.run(0, 'init', 'mir', '--trust', 'root.json', '--yes', ...origin)
  return program
}
