import { mkdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Sha256 } from '../../manifests/digest.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import { must, report as said } from '../helpers/process.ts'
import { makeYearPair } from '../helpers/year-site.ts'
import {
  INCLUDED,
  inventoryIn,
  known,
  neededBytes,
  offered,
  serves,
  stand,
  takeInventories,
  updates,
  type Site,
  type Stand,
  type Stick,
  type World,
} from '../helpers/year-stand.ts'
import { makeVendorYear, type VendorYear } from '../helpers/year-vendor.ts'

/**
 * What happens at each site, month by month, in this order; an empty month is one in which nobody travels. Each month has its
 * own stick; a bundle that is not imported was lost on the way, a report that does not come home was lost on the way back.
 *
 *   bundle      the laptop writes this month's bundle to this month's stick
 *   deliver     import and release; then all that the mirror serves is looked at, and the boxes update
 *   deliver:N   the same with the stick of month N, which was late
 *   back:N      the mirror is rolled back, which is to the content of month N, and takes that back
 *   refused:N   the stick of month N turns up, though a newer bundle was imported: refused, nothing changes
 *   report      the mirror writes a report to this month's stick, and the inventory of the box goes with it
 *   home        the stick comes back: report and inventory are added; home:N that of month N
 *   older:N     the report of month N turns up after a newer one: refused
 *   forced      the stick comes back with a report of a restored mirror: refused as older, then added by force
 *   backup      the mirror is backed up, with its identity
 *   disaster    its disk is lost; the backup, without blobs, is restored on a new one
 *   rot         the mirror loses a file that a report said it has
 *   unfit       this month's bundle is imported, and leaves out what is not there: each missing path is named
 *   full        the laptop does what the mirror named: pack --full
 *   again       the other way that it named: report add, then pack
 */
const YEAR: Record<Site, string>[] = [
  { hq: 'bundle deliver report home', branch: 'bundle deliver report home' },
  { hq: 'bundle deliver backup report home', branch: 'bundle' },
  { hq: 'bundle', branch: 'bundle deliver report home' },
  { hq: 'bundle deliver back:2 report', branch: '' },
  { hq: 'bundle deliver report home older:4', branch: 'bundle' },
  { hq: 'bundle deliver refused:3 report home', branch: 'deliver:5 bundle deliver refused:2 report home' },
  { hq: '', branch: 'bundle deliver report home' },
  {
    hq: 'bundle disaster unfit full deliver report forced',
    branch: 'bundle rot unfit report again deliver report home',
  },
  { hq: 'bundle deliver report', branch: 'bundle deliver report' },
  { hq: 'bundle deliver report home', branch: 'bundle' },
  { hq: 'bundle deliver back:10 report home', branch: '' },
  { hq: 'bundle deliver', branch: 'bundle deliver report home' },
]

/** bytes of a bundle for bytes that are new at the mirror and that its boxes need, as far as the laptop was told */
const MOST = 1.1

t.test('twelve months, two sites, and what goes wrong in a year', async (t) => {
  const lab = await makeLab(t)
  const vendor = await makeVendorYear(t, lab)
  await vendor.turnTo(0)
  const pair = await makeYearPair(t, lab.folder('pair'), settings(lab, vendor))
  const world: World = { t, lab, vendor, pair, month: 0, rows: [], bytesOf: new Map() }
  const stands = { hq: await stand(world, 'hq'), branch: await stand(world, 'branch') }
  const reposync = new Map<number, number>()
  for (const [at, events] of YEAR.entries()) {
    world.month = at + 1
    await vendor.turnTo(world.month)
    for (const rpm of vendor.newest(world.month).values()) {
      world.bytesOf.set(rpm.nevra, { sha256: rpm.sha256 as Sha256, bytes: rpm.bytes })
    }
    reposync.set(world.month, await vendor.reposyncBytes(world.month))
    for (const site of ['hq', 'branch'] as const) {
      for (const event of events[site].split(' ').filter((word) => word !== '')) {
        const [verb, month] = event.split(':') as [string, string | undefined]
        await VERBS[verb]!(world, stands[site], month === undefined ? world.month : Number(month))
      }
    }
  }
  for (const one of Object.values(stands)) await serves(world, one)
  tell(world, reposync)
})

const VERBS: Record<string, (world: World, stand: Stand, month: number) => Promise<void>> = {
  bundle,
  deliver,
  back,
  refused,
  report,
  home,
  older,
  forced,
  backup,
  disaster,
  rot,
  unfit,
  full,
  again,
}

async function bundle(world: World, stand: Stand): Promise<void> {
  const { t, pair, vendor, month } = world
  mkdirSync(stickOf(world, stand, month), { recursive: true })
  const { number, bytes, leftOut } = await packed(world, stand, 'bundle')
  const before = Math.max(0, ...[...stand.sticks.values()].map((stick) => stick.number))
  t.ok(number > before, `${label(world, stand)}: number ${number} is above ${before}`)
  const stick: Stick = {
    number,
    trees: pair.treesOf(stand.site),
    packages: offered(world, stand),
    modules: stand.phpBox === undefined ? {} : vendor.moduleVersions(month),
  }
  stand.sticks.set(month, stick)
  if (stand.told === undefined) stand.promised = stick.packages
  t.equal(leftOut !== null, stand.told !== undefined, `${label(world, stand)}: left out by a report`)
  const now = await known(stand)
  const needed = neededBytes(world, stick, now)
  const neededAsTold = neededBytes(world, stick, stand.told ?? { ...now, held: new Set() })
  world.rows.push({ month, site: stand.site, number, bytes, needed, neededAsTold })
  const about = { bytes, needed, neededAsTold }
  t.ok(bytes <= MOST * neededAsTold, `${label(world, stand)}: no more than what is new and needed`, about)
}

async function deliver(world: World, stand: Stand, month: number): Promise<void> {
  must(await stand.mirror.run('import', '--release', stickOf(world, stand, month)))
  stand.served = stand.sticks.get(month)!
  for (const paths of stand.served.trees.values()) for (const sha256 of paths.values()) stand.held.add(sha256)
  stand.serving ??= await stand.mirror.serve()
  await serves(world, stand)
  await updates(world, stand)
}

async function back(world: World, stand: Stand, month: number): Promise<void> {
  const { number, trees } = stand.sticks.get(month)!
  const { stdout } = must(await stand.mirror.run('rollback', '--json'))
  for (const { content } of (JSON.parse(stdout) as { groups: { content: number }[] }).groups) {
    world.t.equal(content, number, `${label(world, stand)}: rolled back to the content of month ${month}`)
  }
  await serves(world, { ...stand, served: { ...stand.served!, trees } }, 'previous')
  must(await stand.mirror.run('rollback', '--return'))
  await serves(world, stand, 'return')
}

async function refused(world: World, stand: Stand, month: number): Promise<void> {
  const outcome = await stand.mirror.run('import', '--release', stickOf(world, stand, month))
  world.t.equal(outcome.status, 3, `${label(world, stand)}: the bundle of month ${month} is refused`)
  world.t.match(outcome.stderr, /ROLE_ROLLBACK/, 'because it is older')
  await serves(world, stand)
}

async function report(world: World, stand: Stand): Promise<void> {
  const dir = stickOf(world, stand, world.month)
  mkdirSync(dir, { recursive: true })
  must(await stand.mirror.run('report', '--to', dir, '--yes'))
  await takeInventories(stand, dir)
  stand.sticks.get(world.month)!.reported = await known(stand)
}

async function home(world: World, stand: Stand, month: number, ...args: string[]): Promise<void> {
  const dir = stickOf(world, stand, month)
  must(await world.pair.gapferry('report', 'add', dir, '--site', stand.site, '--yes', ...args))
  must(await world.pair.gapferry('inventory', 'add', inventoryIn(dir), '--site', stand.site, '--force'))
  stand.told = stand.sticks.get(month)!.reported!
  stand.promised = stand.told.offered
}

async function older(world: World, stand: Stand, month: number): Promise<void> {
  const outcome = await world.pair.gapferry(
    'report',
    'add',
    stickOf(world, stand, month),
    '--site',
    stand.site,
    '--yes',
  )
  world.t.equal(outcome.status, 3, `${label(world, stand)}: the report of month ${month} is refused`)
  world.t.match(outcome.stderr, /REPORT_OLDER/, 'because it is older')
}

async function forced(world: World, stand: Stand, month: number): Promise<void> {
  await older(world, stand, month)
  await home(world, stand, month, '--force')
}

async function backup(_world: World, stand: Stand): Promise<void> {
  must(await stand.mirror.run('backup', '--passphrase', '--to', '../safe.backup'))
}

async function disaster(_world: World, stand: Stand): Promise<void> {
  await stand.serving?.stop()
  stand.serving = undefined
  rmSync(join(stand.mirror.dir, 'store'), { recursive: true })
  must(await stand.mirror.run('restore', '../safe.backup', '--yes'))
  stand.held.clear()
  stand.head = undefined
  stand.wasRestored = true
}

async function rot(world: World, stand: Stand): Promise<void> {
  const nevra = offered(world, stand).get('sounds')!
  const { sha256 } = world.bytesOf.get(nevra)!
  world.t.ok(stand.told!.held.has(sha256), `${label(world, stand)}: ${nevra} is there, as the laptop knows`)
  rmSync(join(stand.mirror.dir, 'store/blobs', sha256.slice(0, 2), sha256))
  stand.held.delete(sha256)
}

/** Nothing of the release before is touched by it; what came is kept. */
async function unfit(world: World, stand: Stand, month: number): Promise<void> {
  const { t } = world
  const dir = stickOf(world, stand, month)
  const outcome = await stand.mirror.run('import', '--release', dir)
  t.equal(outcome.status, 4, `${label(world, stand)}: the bundle does not fit`, { said: said(outcome) })
  t.match(
    outcome.stderr,
    /BUNDLE_INCOMPLETE[^]*gapferry pack --full --to DIR; or gapferry report add .*, then gapferry pack --to DIR/,
    'and both ways out are named',
  )
  const { missing } = JSON.parse((await stand.mirror.run('import', dir, '--json')).stdout) as {
    missing: { group: string; role: string; path: string; part: string | null }[]
  }
  const named = missing.filter(({ role }) => role === 'current').map(({ group, path }) => `${group} ${path}`)
  const lost = [...stand.sticks.get(month)!.trees].flatMap(([group, paths]) =>
    [...paths].flatMap(([path, sha256]) =>
      stand.told!.held.has(sha256) && !stand.held.has(sha256) ? [`${group} ${path}`] : [],
    ),
  )
  t.ok(lost.length > 0, 'something is missing')
  t.strictSame(named.sort(), lost.sort(), 'what is missing is named')
  t.ok(
    missing.every(({ part }) => part === null),
    'in no part',
  )
  t.not((await stand.mirror.run('release')).status, 0, 'and nothing of it can be released')
}

async function full(world: World, stand: Stand): Promise<void> {
  const { number, leftOut } = await packed(world, stand, 'pack', '--full')
  world.t.equal(number, stand.sticks.get(world.month)!.number, 'the same bundle')
  world.t.equal(leftOut, null, 'with all that it needs')
}

async function again(world: World, stand: Stand): Promise<void> {
  await home(world, stand, world.month)
  const { number } = await packed(world, stand, 'pack')
  world.t.equal(number, stand.sticks.get(world.month)!.number, 'the same bundle')
}

async function packed(
  world: World,
  stand: Stand,
  ...command: string[]
): Promise<{ number: number; bytes: number; leftOut: object | null }> {
  const to = stickOf(world, stand, world.month)
  const { stdout } = must(await world.pair.gapferry(...command, '--to', to, '--site', stand.site, '--json'))
  const [one] = (
    JSON.parse(stdout) as { bundles: { number: number; leftOut: object | null; files: { path: string }[] }[] }
  ).bundles
  const bytes = one!.files.reduce((sum, { path }) => sum + statSync(path).size, 0)
  return { number: one!.number, bytes, leftOut: one!.leftOut }
}

function settings(lab: Lab, vendor: VendorYear): Record<Site, Record<string, string>> {
  const yum = (more: string): string =>
    `yum: [{ id: pkgs, baseurl: ['${vendor.url}'], gpgkey: '${lab.keyFile}', gpgcheck: true, repoGpgcheck: false${more} }]`
  const modules = `modules: { feed: '${vendor.modules.url}', major: 17, keys: ['${vendor.modules.keyFile}'] }`
  return {
    hq: { pbx: `boxes: ['hq-*'], ${yum('')}` },
    branch: { pbx: yum(`, newest: 1, include: [${INCLUDED.join(', ')}]`), mods: `boxes: ['branch-*'], ${modules}` },
  }
}

function tell({ t, rows }: World, reposync: ReadonlyMap<number, number>): void {
  const kb = (bytes: number): string => `${Math.round(bytes / 1000)} kB`.padStart(9)
  t.comment('month site    bundle       needed    ratio  reposync -n   of it')
  for (const { month, site, number, bytes, needed, neededAsTold } of rows) {
    const all = reposync.get(month)!
    const ratio = (bytes / neededAsTold).toFixed(3).padStart(8)
    const of = `${Math.round((100 * bytes) / all)} %`.padStart(6)
    t.comment(
      `${month}`.padStart(5),
      site.padEnd(6),
      `${number}`.padStart(2),
      kb(bytes),
      kb(neededAsTold),
      ratio,
      kb(all),
      of,
      ...(needed === neededAsTold ? [] : [`  (${kb(needed).trim()}, had the laptop been told)`]),
    )
  }
  t.ok(rows.length >= 20, 'every bundle is measured')
}

function stickOf({ lab }: World, { site }: Stand, month: number): string {
  return join(lab.dir, 'sticks', `${site}-${month}`)
}

function label({ month }: World, { site }: Stand): string {
  return `month ${month}, ${site}`
}
