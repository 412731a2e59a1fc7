import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runGapferry } from '../../bundler/program.ts'
import type { Surroundings } from '../../manifests/program.ts'
import { runMirror } from '../../server/program.ts'
import { inside } from './inside.ts'
import { report, type Outcome, type Teardown } from './process.ts'
import { startUpstream } from './upstream.ts'

/** A site whose only content is a vendor file, with both programs run in this process: what a test of keys needs. */
export interface KeyLab {
  dir: string
  /** keys/hq of the laptop in `lap` */
  keys: string
  /** `gapferry …` in the laptop's folder; unless a test says otherwise with GAPFERRY_PASSPHRASE=lab */
  gapferry(...args: string[]): Promise<Outcome>
  /** the same in another folder, or with other surroundings */
  at(folder: string, around?: Partial<Surroundings>): (...args: string[]) => Promise<Outcome>
  mirror(...args: string[]): Promise<Outcome>
  /** A new bundle on an empty stick, from the laptop in `folder`. @returns its number */
  bundle(folder?: string, ...args: string[]): Promise<number>
  /** `import --release` of the stick */
  deliver(): Promise<Outcome>
  /** numbers that the mirror knows, and what it serves */
  served(): Promise<number>
  /** every folder below `dir` that is made when asked for */
  folder(name: string): string
  stick: string
}

/** @param init  arguments of the laptop's `init`
 *  @param more  environment of the laptop */
export async function makeKeyLab(
  t: Teardown,
  dir: string,
  init: string[] = [],
  more: Record<string, string> = {},
): Promise<KeyLab> {
  const upstream = await startUpstream(t, new Map([['/phone.bin', 'firmware']]))
  const folder = (name: string): string => {
    mkdirSync(join(dir, name), { recursive: true })
    return join(dir, name)
  }
  const [lap, mir, stick] = [folder('lap'), folder('mir'), folder('stick')]
  writeFileSync(join(lap, 'gapferry.yaml'), settings(upstream.url))
  const environment = { GAPFERRY_PASSPHRASE: 'lab', no_proxy: '*', ...more }
  const at: KeyLab['at'] =
    (where, around = {}) =>
    (...args) =>
      inside(runGapferry, where, args, { ...around, environment: { ...environment, ...around.environment } })
  const gapferry = at(lap)
  const mirror = (...args: string[]): Promise<Outcome> => inside(runMirror, mir, args)
  const made = must(await gapferry('init', ...init, '--json'))
  const { rootFile } = (JSON.parse(made.stdout) as { sites: [{ rootFile: string }] }).sites[0]
  must(await mirror('init', '--trust', rootFile, '--yes', '--origin', 'a=127.0.0.1:0'))
  return {
    ...{ dir, keys: join(lap, 'keys/hq'), gapferry, at, mirror, folder, stick },
    bundle: async (where = lap, ...args) => {
      rmSync(join(stick, 'gapferry'), { recursive: true, force: true })
      const { stdout } = must(await at(where)('bundle', '--to', stick, '--renew', '--json', ...args))
      return (JSON.parse(stdout) as { bundles: [{ number: number }] }).bundles[0].number
    },
    deliver: () => mirror('import', '--release', stick),
    served: async () => {
      const { stdout } = must(await mirror('status', '--json'))
      return (JSON.parse(stdout) as { bundle: number }).bundle
    },
  }
}

/** @throws unless it ended with 0 */
export function must(outcome: Outcome): Outcome {
  if (outcome.status !== 0) throw new Error(report(outcome))
  return outcome
}

/** The one file in `dir` whose name matches. */
export function only(dir: string, name: RegExp): string {
  const found = readdirSync(dir).filter((one) => name.test(one))
  if (found.length !== 1) throw new Error(`${dir}: expected one ${String(name)}, found ${found.join(', ') || 'none'}`)
  return join(dir, found[0]!)
}

/** Text of every file below a folder, by its path. */
export function textsBelow(dir: string): Map<string, string> {
  const found = readdirSync(dir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const files = found.map((entry) => join(entry.parentPath, entry.name)).sort()
  return new Map(files.map((file) => [file.slice(dir.length + 1), readFileSync(file, 'latin1')]))
}

function settings(upstream: string): string {
  return `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        files: [{ url: '${upstream}/phone.bin', as: phone.bin }]
`
}
