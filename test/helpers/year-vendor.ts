import { cpSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from './lab.ts'
import { makeModuleUpstream, type ModuleUpstream } from './module-upstream.ts'
import { mustRun, type Teardown } from './process.ts'
import type { PackageSpec } from './rpm-spec.ts'
import type { BuiltRpm } from './rpms.ts'

/** A vendor over a year: a yum repository and modules, in one state for each month, made beforehand. */
export interface VendorYear {
  /** `baseurl` of the repository */
  url: string
  modules: ModuleUpstream
  /** From now on the vendor's servers have what they had in this month; 0 is what boxes were installed from. */
  turnTo(month: number): Promise<void>
  /** the newest build of each package on offer, by name */
  newest(month: number): ReadonlyMap<string, BuiltRpm>
  /** the newest version of each module */
  moduleVersions(month: number): Record<string, string>
  /** Bytes of what dnf's own `reposync -n` makes of the month: each newest package and the metadata. */
  reposyncBytes(month: number): Promise<number>
}

const KB = 1024

/** KB of each package. Of a real repository most has nothing to do with a box: `office` and `games`. */
const SIZES: Record<string, number> = {
  asterisk: 1500,
  sounds: 900,
  firmware: 1200,
  sysadmin: 700,
  tools: 800,
  endpoints: 1000,
  codecs: 400,
  tzdata: 200,
  office: 1600,
  games: 1400,
}

/** What is new in each month, from 0; `-name`: not offered any more. */
const RISES = [
  'asterisk sounds firmware sysadmin tools endpoints tzdata office games',
  'asterisk sounds tzdata',
  'firmware sysadmin office sounds',
  'tools asterisk endpoints sounds',
  'sounds tzdata -tools asterisk',
  'sysadmin asterisk games endpoints',
  'asterisk firmware codecs',
  'sounds office endpoints',
  'tzdata sysadmin firmware asterisk',
  'asterisk codecs -games endpoints',
  'sounds firmware sysadmin',
  'asterisk office firmware endpoints',
  'tzdata sounds codecs firmware',
]

const MODULE_SIZES: Record<string, number> = { framework: 240, core: 160, voicemail: 60, endpoint: 90 }
const MODULE_RISES = ['framework core voicemail endpoint', 'framework', 'core voicemail', 'endpoint', 'framework core']

/** Of this one the version before stays on offer. */
const KEEPS_TWO = 'tzdata'
/** The month from which asterisk requires a package that no box had. */
export const CODECS_FROM = 6

export async function makeVendorYear(t: Teardown, lab: Lab): Promise<VendorYear> {
  const states: Map<string, BuiltRpm>[] = []
  for (const month of RISES.keys()) {
    const { rpms } = await lab.publish(`months/${month}`, specsOf(month), { timestamp: 1_700_000_000 + month })
    states.push(newestOf(rpms))
  }
  const shown = join(lab.www, 'pkgs')
  const modules = await makeModuleUpstream(t, catalogueOf(0))
  return {
    url: `${lab.url}/pkgs/`,
    modules,
    turnTo: async (month) => {
      rmSync(shown, { force: true })
      symlinkSync(join('months', String(month)), shown)
      await modules.publish(catalogueOf(month))
    },
    newest: (month) => states[month]!,
    moduleVersions: (month) => Object.fromEntries(catalogueOf(month).modules.map((one) => [one.rawname, one.version])),
    reposyncBytes: (month) => reposync(lab, month),
  }
}

/** In which months a name rose, up to this one; empty where it is gone. */
function risesOf(table: readonly string[], name: string, month: number): number[] {
  const words = table.slice(0, month + 1).map((line) => line.split(' '))
  if (words.some((line) => line.includes(`-${name}`))) return []
  return words.flatMap((line, at) => (line.includes(name) ? [at] : []))
}

function specsOf(month: number): PackageSpec[] {
  return Object.entries(SIZES).flatMap(([name, size]) => {
    const versions = risesOf(RISES, name, month).slice(name === KEEPS_TWO ? -2 : -1)
    return versions.map((version) => {
      const spec = { name, version: `1.${version}`, payloadBytes: size * KB }
      return name === 'asterisk' && version >= CODECS_FROM ? { ...spec, requires: ['codecs'] } : spec
    })
  })
}

function catalogueOf(month: number): { major: number; modules: { rawname: string; version: string }[] } {
  const table = RISES.map((_, at) => (at === 0 ? MODULE_RISES[0]! : MODULE_RISES[1 + (at % 4)]!))
  const modules = Object.entries(MODULE_SIZES).map(([rawname, size]) => {
    return { rawname, version: `17.0.${risesOf(table, rawname, month).at(-1)}`, payloadBytes: size * KB }
  })
  return { major: 17, modules }
}

/** The last one of a name is the newest: that is how they were asked for. */
function newestOf(rpms: readonly BuiltRpm[]): Map<string, BuiltRpm> {
  return new Map(rpms.map((rpm) => [rpm.spec.name, rpm]))
}

async function reposync(lab: Lab, month: number): Promise<number> {
  const dir = lab.folder('reposync')
  const config = join(dir, 'dnf.conf')
  const plugins = lab.folder('reposync/plugins')
  cpSync('/usr/lib/python3/dist-packages/dnf-plugins/reposync.py', join(plugins, 'reposync.py'))
  const settings = { plugins: 1, pluginpath: plugins, pluginconfpath: dir, reposdir: dir, cachedir: join(dir, 'cache') }
  const lines = Object.entries({ ...settings, logdir: dir, persistdir: dir }).map(([key, value]) => `${key}=${value}`)
  writeFileSync(config, ['[main]', ...lines, ''].join('\n'))
  const into = join(dir, 'copy')
  mkdirSync(into)
  const from = `--repofrompath=all,${lab.url}/months/${month}/`
  const what = ['reposync', '-n', '--download-metadata', '--repoid=all', '-p', into]
  await mustRun('dnf', ['-q', '-c', config, '--releasever=7', from, ...what], { env: { HOME: dir } })
  const entries = readdirSync(into, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const bytes = entries.reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
  rmSync(dir, { recursive: true })
  return bytes
}
