import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import type { TreeRole } from '../../manifests/tree.ts'
import { runOnBox } from './as-box.ts'
import type { DnfClient } from './dnf.ts'
import type { Lab } from './lab.ts'
import { makeBox, type PhpBox } from './php-box.ts'
import { must, type Running } from './process.ts'
import type { Trees, YearMirror, YearPair } from './year-site.ts'
import { CODECS_FROM, type VendorYear } from './year-vendor.ts'

/** hq: from a box's inventory. */
const INSTALLED = ['asterisk', 'sounds', 'firmware', 'sysadmin', 'tools', 'tzdata']
/** branch: by name, without an inventory; its modules are those of a box. */
export const INCLUDED = ['asterisk', 'sounds', 'endpoints', 'codecs']
const KEYS = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

export type Site = 'hq' | 'branch'

/** A month's stick for a site, with its bundle. */
export interface Stick {
  number: number
  trees: Trees
  /** newest packages of the month that the site's boxes shall find, name → NEVRA */
  packages: Map<string, string>
  modules: Record<string, string>
  /** what was there when the report on it was written */
  reported?: Known
}

/** What a site has, and what its boxes do not need any more. */
export interface Known {
  /** in the mirror's store */
  held: ReadonlySet<Sha256>
  /** packages on a box with an inventory, as NEVRA */
  installed: readonly string[]
  /** what boxes find, name → NEVRA */
  offered: Map<string, string>
  /** versions of modules on a box */
  modules: ReadonlyMap<string, string | undefined>
}

interface Row {
  month: number
  site: Site
  number: number
  bytes: number
  /** as the site really was, and as the laptop was told */
  needed: number
  neededAsTold: number
}

/** A site, and what the test knows of it by itself. */
export interface Stand {
  site: Site
  mirror: YearMirror
  serving: Running | undefined
  box: DnfClient
  phpBox: PhpBox | undefined
  sticks: Map<number, Stick>
  /** what lies in the mirror's store, as every import so far should have it */
  held: Set<Sha256>
  /** what the laptop was told */
  told: Known | undefined
  /** paths that were ever served: `group path` */
  ever: Set<string>
  newest: number
  served: Stick | undefined
  head: string | undefined
  wasRestored: boolean
  /** what boxes find as far as the laptop was told, name → NEVRA: what one of them may still need stays on offer */
  promised: Map<string, string>
}

/** All of it, in one month. */
export interface World {
  t: Test
  lab: Lab
  vendor: VendorYear
  pair: YearPair
  month: number
  rows: Row[]
  bytesOf: Map<string, { sha256: Sha256; bytes: number }>
}

/** What the mirror answers is what the laptop signed, all of it and nothing else; and nobody has meddled with its trail.
 *  @param role  of other trees than `current` the stamped lists are others */
export async function serves({ t }: World, stand: Stand, role: TreeRole = 'current'): Promise<void> {
  const { site, mirror, served, ever, head } = stand
  const what = `${site} serves bundle ${served!.number}, ${role}`
  t.equal(await mirror.servedNumber(), served!.number, what)
  const wrong: string[] = []
  let count = 0
  for (const [group, paths] of served!.trees) {
    for (const [path, sha256] of paths) {
      const answer = await mirror.fetch(group, path)
      const isStamped = role !== 'current' && /\/repomd\.xml(\.asc)?$/.test(path)
      if (answer.status !== 200 || (answer.sha256 === sha256) === isStamped)
        wrong.push(`${answer.status} ${group} ${path}`)
      ever.add(`${group} ${path}`)
      count++
    }
  }
  for (const one of ever) {
    const [group, path] = one.split(' ') as [string, string]
    if (served!.trees.get(group)!.has(path) || path.startsWith('sounds')) continue
    const { status, text } = await mirror.fetch(group, path)
    if (status === 200 && text !== '') wrong.push(`still there: ${one}`)
  }
  t.strictSame(wrong, [], `${what}: ${count} paths`)
  t.ok(served!.number >= stand.newest, 'numbers rise')
  await isSound(t, stand)
  const trail = must(await mirror.run('audit', 'verify', '--json', ...(head === undefined ? [] : ['--head', head])))
  const { seq, hash } = (JSON.parse(trail.stdout) as { head: { seq: number; hash: string } }).head
  stand.head = `${seq}:${hash}`
}

/** After the disaster older bundles stay incomplete, and say so, until they are pruned. */
async function isSound(t: Test, { mirror, served, wasRestored }: Stand): Promise<void> {
  const { stdout } = await mirror.run('verify', '--json')
  const found = JSON.parse(stdout) as { isSound: boolean; rotten: { uses: { bundles: number[] }[] }[] }
  if (!wasRestored) return void t.equal(found.isSound, true, 'every file in the store is sound')
  const used = found.rotten.flatMap(({ uses }) => uses.flatMap(({ bundles }) => bundles))
  t.notOk(used.includes(served!.number), 'nothing that is served is missing')
}

/** The boxes find what they should, and then have it. */
export async function updates({ t }: World, stand: Stand): Promise<void> {
  const { site, box, mirror, served, phpBox } = stand
  stand.newest = served!.number
  await pointAt(box, mirror)
  must(await box.makecache())
  const before = await box.installed()
  const has = new Set(before.map((nevra) => nevra.replace(/-[^-]+-[^-]+$/, '')))
  const coming = [...served!.packages].filter(([name, nevra]) => has.has(name) && !before.includes(nevra))
  const { status, stdout } = await box.dnf(['-q', 'check-update'])
  const found = stdout.matchAll(/^(\S+)\.(noarch) +(\S+) +pkgs$/gm)
  t.equal(status, coming.length > 0 ? 100 : 0, `${site}: whether there are updates`)
  t.strictSame(
    [...found].map(([, name, arch, version]) => `${name}-${version}.${arch}`).sort(),
    coming.map(([, nevra]) => nevra).sort(),
    `${site}: check-update finds what was to come`,
  )
  must(await box.upgrade())
  const now = await box.installed()
  const shall = before.filter((nevra) => !served!.packages.has(nevra.replace(/-[^-]+-[^-]+$/, '')))
  const isThere = ([name]: [string, string]): boolean =>
    has.has(name) || (name === 'codecs' && served!.packages.has('codecs'))
  shall.push(...[...served!.packages].filter(isThere).map(([, nevra]) => nevra))
  t.strictSame(now, shall.sort(), `${site}: and has it`)
  if (phpBox === undefined) return
  const { pending, installed } = await phpBox.upgradeall(mirror.origins['mods']!)
  t.strictSame(pending, {}, `${site}: no module is behind`)
  t.match(installed, served!.modules, `${site}: modules, too`)
}

/** By what the vendor has, and not by what our programs say. What is gone there and a box still lacks stays, where it was in
 *  the bundle before and an inventory tells. */
export function offered({ vendor, month }: World, { site, promised }: Stand): Map<string, string> {
  const newest = vendor.newest(month)
  const names = site === 'hq' ? [...INSTALLED, ...(month >= CODECS_FROM ? ['codecs'] : [])] : INCLUDED
  return new Map(
    names.flatMap((name): [string, string][] => {
      const nevra = newest.get(name)?.nevra ?? (site === 'hq' ? promised.get(name) : undefined)
      return nevra === undefined ? [] : [[name, nevra]]
    }),
  )
}

/** What is at the site now. */
export async function known({ site, box, phpBox, held, served }: Stand): Promise<Known> {
  return {
    held: new Set(held),
    offered: served?.packages ?? new Map(),
    installed: site === 'hq' ? await box.installed() : [],
    modules: new Map(phpBox?.held().map(({ rawname, db }) => [rawname, db])),
  }
}

/** What boxes at the site shall have, the tool for them among it, and neither they nor their mirror has yet. */
export function neededBytes({ vendor, bytesOf }: World, { packages, modules }: Stick, has: Known): number {
  const nevras = [...packages.values()].filter((nevra) => !has.installed.includes(nevra))
  const rpms = nevras.map((nevra) => bytesOf.get(nevra)!)
  const behind = Object.entries(modules).filter(([rawname, version]) => has.modules.get(rawname) !== version)
  const archives = behind.map(([rawname, version]) => {
    const bytes = vendor.modules.bytes(rawname, version)
    return { sha256: sha256Of(bytes), bytes: bytes.length }
  })
  const tool = { sha256: sha256Of(boxTool()), bytes: boxTool().length }
  return [...rpms, ...archives, tool].reduce((sum, one) => sum + (has.held.has(one.sha256) ? 0 : one.bytes), 0)
}

/** A site before its first bundle; the inventory of its box is on the laptop. */
export async function stand(world: World, site: Site): Promise<Stand> {
  const { t, lab, vendor, pair } = world
  const box = lab.box({ repositories: { pkgs: 'pkgs' } })
  must(await box.makecache())
  must(await box.install(...(site === 'hq' ? INSTALLED : INCLUDED.slice(0, 3))))
  const phpBox = site === 'hq' ? undefined : await makeBox(t, { major: 17, modules: vendor.moduleVersions(0) })
  const known = { held: new Set<Sha256>(), ever: new Set<string>(), promised: new Map<string, string>() }
  const made: Stand = {
    ...{ site, mirror: pair.mirrors[site]!, box, phpBox, sticks: new Map(), ...known, newest: 0 },
    ...{ serving: undefined, told: undefined, served: undefined, head: undefined, wasRestored: false },
  }
  const dir = lab.folder(`first-${site}`)
  await takeInventories(made, dir)
  must(await pair.gapferry('inventory', 'add', inventoryIn(dir), '--site', site))
  return made
}

/** What boxes at the site tell, into `dir`. */
export async function takeInventories({ site, box, phpBox }: Stand, dir: string): Promise<void> {
  const name = `${site}-box`
  const text = phpBox?.inventory(name) ?? must(await runOnBox(box, name, ['inventory'])).stdout
  writeFileSync(inventoryIn(dir), text)
}

/** where `takeInventories` puts it */
export function inventoryIn(dir: string): string {
  return join(dir, 'box.gfi')
}

async function pointAt(box: DnfClient, mirror: YearMirror): Promise<void> {
  box.keyFile(KEYS, (await mirror.fetch('pbx', 'keys/site.asc')).text)
  box.keyFile(`${KEYS}-pkgs`, (await mirror.fetch('pbx', 'keys/pkgs.asc')).text)
  box.repoFile('pkgs.repo', undefined)
  box.repoFile('gapferry.repo', (await mirror.fetch('pbx', 'gapferry-pbx.repo')).text)
}
