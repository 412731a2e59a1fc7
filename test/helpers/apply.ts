/** A box without a mirror, for tests of `gapferry-box apply`. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sha256Of } from '../../manifests/digest.ts'
import { parseTree } from '../../manifests/tree.ts'
import { makeContent, type TestContent } from './mirror.ts'
import { must, run } from './process.ts'

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
 *  @param root  a folder that is the box
 *  @param options.tracer  a command in front, as strace's; no results where it ended the run */
export async function applyAll(
  root: string,
  runs: ApplyOptions[],
  {
    nowMs,
    python = 'python3',
    reserveBytes,
    tracer = [],
  }: { nowMs: number; python?: string; reserveBytes?: number; tracer?: readonly string[] },
): Promise<{ results: Applied[]; peakBytes: number }> {
  const input = JSON.stringify({
    ...{ verify: read('verify.py'), apply: read('box/apply.py'), root, now: nowMs / 1000, runs },
    ...(reserveBytes === undefined ? {} : { reserve: reserveBytes }),
  })
  const script = ['-B', join(import.meta.dirname, 'apply-program.py')]
  const outcome = await (tracer.length === 0
    ? run(python, script, { input })
    : run(tracer[0]!, [...tracer.slice(1), python, ...script], { input }))
  if (tracer.length > 0 && outcome.status !== 0) return { results: [], peakBytes: 0 }
  const { stdout } = must(outcome)
  return JSON.parse(stdout) as { results: Applied[]; peakBytes: number }
}

/** Trees of a group that a box can be pointed at: bundle `number` with a yum repository and files of this size.
 *  @param siteKey  armored */
export function boxContent(number: number, siteKey: string, { count = 12, bytes = 20_000 } = {}): TestContent {
  const lines = ['gapferry-setup 1', 'group pbx', 'repository sng-pkgs unchecked']
  const files = Object.fromEntries(
    Array.from({ length: count }, (_, i) => [
      `files/${i % 3}/${i}.bin`,
      `${number * (i % 4)} ${i} `.padEnd(bytes, '.'),
    ]),
  )
  const setup = [...lines, `end ${lines.length}`, ''].join('\n')
  return makeContent(number, [
    {
      stamp: 10 * number,
      packages: ['a', `p${number}`],
      files: { ...files, 'gapferry/setup.txt': setup, 'keys/site.asc': siteKey },
    },
  ])
}

/** What stands in for yum's own python, which is not here: nothing to update. @returns for PYTHONPATH */
export function idleYum(dir: string): string {
  mkdirSync(join(dir, 'yum'), { recursive: true })
  writeFileSync(join(dir, 'yum/__init__.py'), IDLE_YUM)
  writeFileSync(join(dir, 'yum/constants.py'), 'TS_INSTALL_STATES = []\n')
  return dir
}

const IDLE_YUM = `
class Any(object):
    def __getattr__(self, name):
        return Any()
    def listEnabled(self):
        return []
    def getMembersWithState(self, output_states):
        return []

class YumBase(object):
    def __init__(self):
        self.preconf, self.conf, self.repos, self.tsInfo = Any(), Any(), Any(), Any()
    def update(self):
        pass
    def buildTransaction(self):
        return 0, []
`

/** path → digest of what `origin` of a box leads to; undefined where it leads nowhere. */
export function servedBy(root: string): Record<string, string> | undefined {
  const origin = join(root, 'var/lib/gapferry/origin')
  if (!existsSync(origin)) return undefined
  const files = readdirSync(origin, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).sort()
  return Object.fromEntries(paths.map((path) => [path.slice(origin.length + 1), sha256Of(readFileSync(path))]))
}

/** The same as it is signed. */
export function servedFrom({ trees }: Pick<TestContent, 'trees'>): Record<string, string> {
  const [tree] = [...trees.values()]
  return Object.fromEntries(
    [...parseTree(tree!, 'tree').entries].map(([path, { sha256 }]) => [path as string, sha256 as string]),
  )
}
