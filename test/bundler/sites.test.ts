import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { stringify } from 'yaml'
import { runGapferry } from '../../bundler/program.ts'
import { Once } from '../../bundler/once.ts'
import { inside } from '../helpers/inside.ts'
import { makeModuleLaptop } from '../helpers/module-laptop.ts'
import type { Outcome } from '../helpers/process.ts'
import { startUpstream, type Upstream } from '../helpers/upstream.ts'

interface SitesLaptop {
  dir: string
  upstream: Upstream
  gapferry: (...args: string[]) => Promise<Outcome>
}

const SITES = ['east', 'north', 'west']

/** Three sites: each has a file of its own, and one that all have. */
async function sitesLaptop(t: Test, digests: Record<string, string> = {}): Promise<SitesLaptop> {
  const files = new Map([...SITES, 'common'].map((name) => [`/${name}.bin`, `${name} `.repeat(1000)]))
  const upstream = await startUpstream(t, files)
  const file = (name: string) => {
    const sha256 = digests[name]
    return { url: `${upstream.url}/${name}.bin`, as: `${name}.bin`, ...(sha256 === undefined ? {} : { sha256 }) }
  }
  const sites = SITES.map((name) => {
    return { name, groups: [{ name: 'pbx', origin: `http://${name}.lan`, files: [file('common'), file(name)] }] }
  })
  const settings = stringify({ apiVersion: 'gapferry/v1', kind: 'Fleet', sites })
  const dir = t.testdir({ 'gapferry.yaml': settings, stick: {} })
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  t.equal((await gapferry('init', '--no-passphrase')).status, 0)
  return { dir, upstream, gapferry }
}

const onStick = (dir: string): string[] => readdirSync(join(dir, 'stick/gapferry')).sort()

t.test('a dozen sites are fetched once, and a table says what each is due', async (t) => {
  const { dir, upstream, gapferry } = await sitesLaptop(t)
  t.match(
    (await gapferry('plan')).stdout,
    /^site +last bundle +new since +bytes +to fetch\neast +none +2 files +12\.0 kB +12\.0 kB\n/m,
  )
  t.match(await gapferry('bundle', '--to', 'stick'), { status: 0 })
  t.equal(upstream.count('/common.bin', 'GET'), 1)
  t.strictSame(onStick(dir), SITES)
  upstream.set('/north.bin', 'changed')
  const plan = await gapferry('plan')
  t.match(plan.stdout, /^east +1 of \d{4}-\d\d-\d\d \d\d:\d\d UTC +nothing new +0 B +0 B$/m)
  t.match(plan.stdout, /^north +1 of .* UTC +1 file +7 B +7 B$/m)
  const { due } = JSON.parse((await gapferry('plan', '--json')).stdout) as { due: unknown }
  t.match(due, [
    { site: 'east', last: { number: 1 }, files: 0 },
    { site: 'north', files: 1, bytes: 7, toFetchBytes: 7 },
    { site: 'west', files: 0 },
  ])
  t.notMatch((await gapferry('plan', '--site', 'east')).stdout, 'last bundle', 'no table of one')
})

t.test('a site that cannot be planned is named, and the others are bundled', async (t) => {
  const { dir, upstream, gapferry } = await sitesLaptop(t)
  upstream.fault('/north.bin', { kind: 'status', status: 404 })
  const plan = await gapferry('plan')
  t.equal(plan.status, 6)
  t.match(plan.stdout, /^north +failed: FETCH_STATUS$/m)
  t.match(plan.stderr, /1 of 3 sites failed: north: .*404.*; the others are done \[FETCH_STATUS\]/)
  const bundle = await gapferry('bundle', '--to', 'stick', '--json')
  t.equal(bundle.status, 6)
  t.match(JSON.parse(bundle.stdout), {
    bundles: [{ site: 'east' }, { site: 'west' }],
    failures: [{ site: 'north', code: 'FETCH_STATUS' }],
    error: { code: 'FETCH_STATUS' },
  })
  t.strictSame(onStick(dir), ['east', 'west'])
  t.match(await gapferry('plan', '--site', 'north'), { status: 6, stderr: /^gapferry: north\.bin: /m })
})

t.test('a file that does not come keeps only the sites from being packed that want it', async (t) => {
  const { dir, gapferry } = await sitesLaptop(t, { west: '0'.repeat(64) })
  t.equal((await gapferry('pull')).status, 3)
  const pack = await gapferry('pack', '--to', 'stick')
  t.equal(pack.status, 4)
  t.match(pack.stderr, /1 of 3 sites failed: west: site west: 1 of 2 planned items is not fetched: west\.bin/)
  t.strictSame(onStick(dir), ['east', 'north'])
  const bundle = await gapferry('bundle', '--to', 'stick')
  t.match(bundle.stdout, /bundle 1 for east: unchanged/)
  t.match(bundle, {
    status: 3,
    stderr: /^warning: 1 of 3 sites failed: west: .*\n.*: west\.bin: .*\[FETCH_DIGEST_MISMATCH\]$/m,
  })
})

t.test('a site without keys, a stick that is gone', async (t) => {
  const { dir, upstream, gapferry } = await sitesLaptop(t)
  rmSync(join(dir, 'keys/east'), { recursive: true })
  const bundle = await gapferry('bundle', '--to', 'stick')
  t.match(bundle, { status: 4, stderr: /1 of 3 sites failed: east: .*KEY_MISSING/ })
  t.strictSame(onStick(dir), ['north', 'west'])
  t.equal(upstream.count('/east.bin'), 0, 'not a byte for what could not be signed')
  rmSync(join(dir, 'stick/gapferry'), { recursive: true })
  writeFileSync(join(dir, 'stick/gapferry'), '')
  const pack = await gapferry('pack', '--to', 'stick')
  t.match(
    pack.stderr,
    /3 of 3 sites failed: east: .* not planned yet \[PLAN_UNFETCHED\]; north, west: .*\[MEDIUM_UNUSABLE\]/,
  )
})

t.test('groups whose boxes have one profile ask the vendor once', async (t) => {
  const modules = ['framework', 'core', 'voicemail'].map((rawname) => ({ rawname, version: '16.0.9', major: 16 }))
  const { dir, gapferry, vendor } = await makeModuleLaptop(t, { major: 16, modules })
  const group = (name: string) => {
    const own = { feed: vendor.url, major: 16, keys: ['vendor.key'], request: 'form', policy: { voicemail: 'want' } }
    return { name, origin: `http://${name}.lan`, modules: own }
  }
  const sites = ['east', 'north'].map((name) => ({ name, groups: [group('a'), group('b')] }))
  writeFileSync(join(dir, 'gapferry.yaml'), stringify({ apiVersion: 'gapferry/v1', kind: 'Fleet', sites }))
  writeFileSync(join(dir, 'form'), 'modules%5Bcore%5D%5Bversion%5D=16.0.1&phpver=7.4.16')
  t.equal((await gapferry('init', '--no-passphrase')).status, 0)
  vendor.requests.length = 0
  const plan = await gapferry('plan', '--json')
  t.equal(plan.status, 0, plan.stderr)
  const asked = vendor.requests.map(({ method, path }) => `${method} ${path}`)
  t.strictSame(asked, [...new Set(asked)], 'nothing twice')
  t.ok(asked.includes('POST /all-16.0.xml') && asked.some((one) => one.startsWith('HEAD ')))
})

t.test('a failure is shared, but not that of somebody who gave up', async (t) => {
  const once = new Once()
  let count = 0
  const work = async (): Promise<number> => {
    if (++count < 3) throw new Error(`try ${count}`)
    return count
  }
  const stop = new AbortController()
  stop.abort()
  await t.rejects(once.get('a', stop.signal, work), /try 1/)
  const { signal } = new AbortController()
  await t.rejects(once.get('a', signal, work), /try 2/)
  await t.rejects(once.get('a', signal, work), /try 2/)
  t.equal(await once.get('b', signal, work), 3)
})
