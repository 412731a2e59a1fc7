import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import root, { type Test } from 'tap'
import { stringify } from 'yaml'
import type { Laptop } from '../../bundler/carry.ts'
import { loadFleet } from '../../bundler/config.ts'
import { openLaptop } from '../../bundler/laptop.ts'
import type { Plan, PlannedGroup } from '../../bundler/plan.ts'
import { runGapferry } from '../../bundler/program.ts'
import { MAX_TREE_BYTES, parseTree, type Tree, type TreeRole } from '../../manifests/tree.ts'
import { removeFolder } from './cache.ts'
import { inside } from './inside.ts'
import { inventoryText, type InventoryParts } from './inventory-text.ts'
import { makeModuleUpstream, type Catalogue, type ModuleUpstream } from './module-upstream.ts'
import { must, type Outcome } from './process.ts'

/** A laptop of site `hq` whose group `pbx` has modules of a vendor on loopback, and keys without a passphrase. */
export interface ModuleLaptop {
  dir: string
  vendor: ModuleUpstream
  /** in this process */
  gapferry(...args: string[]): Promise<Outcome>
  /** What `modules` says beside feed, major and the vendor's key, and what the group says beside them. */
  settings(modules?: Record<string, unknown>, group?: Record<string, unknown>): void
  /** Adds the inventory of a box: lines of its section `freepbx`. */
  box(name: string, lines: string[], parts?: InventoryParts): Promise<void>
  /** `plan --json`; fails unless it ends with 0 */
  plan(): Promise<PlannedGroup>
  /** `bundle`; fails unless it ends with 0 */
  bundle(): Promise<{ number: number; isNew: boolean; files: { path: string }[] }>
  /** What the last bundle has for the group. */
  tree(role?: TreeRole): Promise<{ tree: Tree; read: (path: string) => Buffer }>
  open<T>(work: (laptop: Laptop) => T | Promise<T>): Promise<T>
}

export async function makeModuleLaptop(
  t: Test,
  catalogue: Catalogue,
  modules?: Record<string, unknown>,
): Promise<ModuleLaptop> {
  const vendor = await makeModuleUpstream(t, catalogue)
  const dir = t.testdir()
  cpSync(vendor.keyFile, join(dir, 'vendor.key'))
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  const open = async <T>(work: (laptop: Laptop) => T | Promise<T>): Promise<T> => {
    const { laptop, close } = openLaptop(loadFleet(join(dir, 'gapferry.yaml')), surroundings(dir))
    try {
      return await work(laptop)
    } finally {
      await close()
    }
  }
  const laptop: ModuleLaptop = {
    dir,
    vendor,
    gapferry,
    open,
    settings: (more = {}, group = {}) => {
      const own = { feed: vendor.url, major: catalogue.major, keys: ['vendor.key'], ...more }
      const groups = [{ name: 'pbx', origin: 'http://m.lan', modules: own, ...group }]
      const settings = { apiVersion: 'gapferry/v1', kind: 'Fleet', sites: [{ name: 'hq', groups }] }
      writeFileSync(join(dir, 'gapferry.yaml'), stringify(settings))
    },
    box: async (name, lines, parts = {}) => {
      const file = join(dir, `${name}.gfi`)
      const sections = { freepbx: lines, ...parts.sections }
      writeFileSync(file, inventoryText({ box: name, ...parts, sections }))
      must(await gapferry('inventory', 'add', file, '--force'))
    },
    plan: async () => (JSON.parse(must(await gapferry('plan', '--json')).stdout) as Plan).sites[0]!.groups[0]!,
    bundle: async () => {
      const { stdout } = must(await gapferry('bundle', '--to', '.', '--json'))
      return (JSON.parse(stdout) as { bundles: Awaited<ReturnType<ModuleLaptop['bundle']>>[] }).bundles[0]!
    },
    tree: (role = 'current') =>
      open(({ store, ledger }) => {
        const sha256 = ledger.lastBundle('hq')!.trees.get(`pbx/${role}`)!
        const tree = parseTree(store.read(sha256, MAX_TREE_BYTES), role)
        const blobs = new Map(
          [...tree.entries].map(([path, entry]) => [path as string, () => store.read(entry.sha256, entry.bytes)]),
        )
        return { tree, read: (path: string) => blobs.get(path)!() }
      }),
  }
  laptop.settings(modules)
  cpSync(await begun(), dir, { recursive: true })
  return laptop
}

let first: Promise<string> | undefined

/** What `init` makes for the site, once for all tests of a file: keys take their time. */
function begun(): Promise<string> {
  return (first ??= initialised())
}

async function initialised(): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-laptop-'))
  root.teardown(() => removeFolder(dir))
  must(await inside(runGapferry, dir, ['init', '--no-passphrase', '--site', 'hq', '--group', 'pbx']))
  rmSync(join(dir, 'gapferry.yaml'))
  return dir
}

/** Lines of a box's inventory: modules (`core 16.0.1`) that are enabled, and its profile. */
export function freepbxLines(modules: string[], profile: Record<string, string> = { phpver: '7.4.16' }): string[] {
  const framework = modules.find((one) => one.startsWith('framework '))
  return [
    ...(framework === undefined ? [] : [framework]),
    ...modules.map((one) => `module ${one} enabled GPLv3+`),
    ...Object.entries(profile).map(([field, value]) => `profile ${field} ${value}`),
  ]
}

function surroundings(cwd: string): Parameters<typeof openLaptop>[1] {
  const sink = (): Writable => new Writable({ write: (_chunk, _encoding, done) => done() })
  return {
    version: '1.2.3',
    cwd,
    environment: {},
    stdin: Readable.from([]),
    stdout: sink(),
    stderr: sink(),
    nowMs: Date.now,
    signal: new AbortController().signal,
  }
}
