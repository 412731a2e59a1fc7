import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Download } from '../../bundler/downloads.ts'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import type { Plan, PlannedGroup, PlannedPackage } from '../../bundler/plan.ts'
import { downloadsOf } from '../../bundler/downloads.ts'
import { runGapferry } from '../../bundler/program.ts'
import { expensesOf, Purse, sumsOf, type Expense } from '../../bundler/spending.ts'
import { Wire } from '../../bundler/wire.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { inside } from '../helpers/inside.ts'
import type { Outcome } from '../helpers/process.ts'
import { startUpstream, type Upstream } from '../helpers/upstream.ts'

const KB = 1000

/** Noise that no gzip makes smaller; equal for equal names. */
function noise(name: string, bytes: number): Buffer {
  const pieces = Array.from({ length: Math.ceil(bytes / 64) }, (_, i) => sha256Of(`${name} ${i}`))
  return Buffer.from(pieces.join('')).subarray(0, bytes)
}

interface Run {
  status: number | null
  stderr: string
  fetched: { count: number; bytes: number }
  here: { count: number; bytes: number }
  wireBytes: number
  left: { kind: string; count: number; bytes: number }[]
  error?: { code: string; message: string; hint: string }
}

interface FileLaptop {
  gapferry: (...args: string[]) => Promise<Outcome>
  pull: (...args: string[]) => Promise<Run>
  upstream: Upstream
}

/** A laptop whose only group carries vendor files, with digests unless `isBare`. */
async function fileLaptop(t: Test, files: Record<string, Buffer>, isBare = false): Promise<FileLaptop> {
  const upstream = await startUpstream(t, new Map(Object.entries(files).map(([name, bytes]) => [`/${name}`, bytes])))
  const rows = Object.entries(files).map(([name, bytes]) => {
    const digest = isBare ? '' : `, sha256: '${sha256Of(bytes)}'`
    return `          - { url: '${upstream.url}/${name}', as: ${name}${digest} }\n`
  })
  const group = `      - name: a\n        origin: http://m.lan\n        files:\n${rows.join('')}`
  const dir = t.testdir()
  writeFileSync(
    join(dir, 'gapferry.yaml'),
    `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n${group}`,
  )
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  t.equal((await gapferry('init', '--no-passphrase')).status, 0)
  const pull = async (...args: string[]): Promise<Run> => {
    const { status, stdout, stderr } = await gapferry('pull', '--json', ...args)
    return { ...(JSON.parse(stdout) as Run), status, stderr }
  }
  return { gapferry, pull, upstream }
}

t.test(
  'each run spends its budget in order and goes on where the last one ended, the file that was cut, too',
  async (t) => {
    const files = {
      'a.bin': noise('a', 300 * KB),
      'b.bin': noise('b', 2500 * KB),
      'c.bin': noise('c', 400 * KB),
      'd.bin': noise('d', 200 * KB),
    }
    const { gapferry, pull, upstream } = await fileLaptop(t, files)
    const shown = (await gapferry('plan', '--budget', '1MB')).stdout
    t.match(shown, /OVER BUDGET/)
    t.match(shown, /^ +files +4 items +3\.4 MB +1 item, 300 kB, fit$/m)
    const runs: Run[] = []
    do runs.push(await pull('--budget', '1MB'))
    while (runs.at(-1)!.status !== 0 && runs.length < 9)
    t.strictSame(
      runs.map(({ status }) => status),
      [5, 5, 5, 0],
      'no run too many',
    )
    for (const run of runs)
      t.ok(run.wireBytes < 1000 * KB + 70 * KB, 'at most the budget, and a piece that was under way', run)
    t.match(runs[0], { fetched: { count: 1 }, left: [{ kind: 'files', count: 3 }], error: { code: 'BUDGET_EXCEEDED' } })
    t.match(
      runs[0]!.error!.message,
      /^the budget of 1\.0 MB ends here \(\S+ [kM]B went over the link\); left: files: 3 items, 2\.4 MB$/,
    )
    t.match(runs[0]!.error!.hint, 'gapferry pull goes on')
    t.strictSame(runs.at(-1)!.left, [])
    const all = Object.values(files).reduce((sum, bytes) => sum + bytes.length, 0)
    const came = runs.reduce((sum, { fetched }) => sum + fetched.bytes, 0)
    t.equal(came, all, 'no byte came twice, and what was here was not counted again')
    t.equal(upstream.count('/a.bin', 'GET'), 1)
    t.ok(upstream.requests.filter(({ path, headers }) => path === '/b.bin' && headers.range !== undefined).length >= 2)
  },
)

t.test('nothing is packed of a part of a plan; the error says what is left and what to do', async (t) => {
  const { gapferry, pull } = await fileLaptop(t, { 'a.bin': noise('a', 100 * KB), 'b.bin': noise('b', 900 * KB) })
  t.match(await pull('--budget', '300kB'), { status: 5, fetched: { count: 1 } })
  const pack = await gapferry('pack', '--to', '.')
  t.equal(pack.status, 4)
  t.match(
    pack.stderr,
    /site hq: 1 of 2 planned items is not fetched: b\.bin \(files: 1 item, \d+ kB\) \[PLAN_UNFETCHED\]/,
  )
  t.match(pack.stderr, 'gapferry pull')
  t.match(await gapferry('bundle', '--to', '.', '--budget', '300kB'), { status: 5, stderr: /BUDGET_EXCEEDED/ })
  t.match(await gapferry('bundle', '--to', '.'), { status: 0 })
})

t.test('a file that nobody could go on with is not begun, and stands in the way of nothing', async (t) => {
  const { pull, upstream } = await fileLaptop(
    t,
    { 'a.bin': noise('a', 2000 * KB), 'b.bin': noise('b', 200 * KB) },
    true,
  )
  const run = await pull('--budget', '1MB')
  t.match(run, { status: 5, fetched: { count: 1 }, left: [{ count: 1, bytes: 2000 * KB }] })
  t.equal(upstream.count('/a.bin', 'GET'), 0)
  const stuck = await pull('--budget', '1MB')
  t.match(stuck, { status: 5, fetched: { count: 0 } })
  t.match(stuck.error!.hint, /--budget SIZE, with more: a\.bin is next, 2\.0 MB/)
})

t.test('a file above the budget whose server gives no rest is paid for once, then said and left', async (t) => {
  const files = { 'a.bin': noise('a', 900 * KB), 'b.bin': noise('b', 300 * KB) }
  const { pull, upstream } = await fileLaptop(t, files)
  upstream.fault('/a.bin', { kind: 'unranged' })
  const runs: Run[] = []
  for (let i = 0; i < 4; i++) runs.push(await pull('--budget', '600kB'))
  t.strictSame(
    runs.map(({ status }) => status),
    [5, 5, 5, 5],
  )
  t.equal(upstream.count('/a.bin', 'GET'), 2, 'begun, and asked for the rest once')
  t.ok(upstream.count('/b.bin', 'GET') <= 2, 'cut at most once')
  t.match(runs[2]!.left, [{ count: 1 }], 'it stands in the way of nothing')
  t.ok(runs[3]!.wireBytes < 10 * KB, `and costs nothing any more: ${runs[3]!.wireBytes}`)
  t.match(runs[3]!.left, [{ kind: 'files', count: 1, bytes: 900 * KB }])
  t.match(
    runs[3]!.error!.hint,
    /--budget SIZE, with more: a\.bin is next, 900 kB, and its server gives it whole or not at all/,
  )
  t.match(await pull('--budget', '1MB'), { status: 0, left: [] })
})

t.test('one broken server, and one broken file, keep nobody else waiting', async (t) => {
  const good = await fileLaptop(t, {
    'a.bin': noise('a', 10 * KB),
    'b.bin': noise('b', 10 * KB),
    'c.bin': noise('c', 10 * KB),
  })
  good.upstream.fault('/a.bin', { kind: 'flip', at: 100 })
  const run = await good.pull()
  t.match(run, { status: 3, fetched: { count: 2 }, left: [{ count: 1 }], error: { code: 'FETCH_DIGEST_MISMATCH' } })
  t.match(run.error!.message, /a\.bin.*; left: files: 1 item/s)
})

t.test('what is counted is what the server saw on its connections', async (t) => {
  const bytes = noise('a', 300 * KB)
  const upstream = await startUpstream(t, new Map([['/a', bytes]]))
  const dispatcher = makeDispatcher()
  t.teardown(() => dispatcher.destroy())
  const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', wait: async () => {} })
  const { signal } = new AbortController()
  const file = { urls: [`${upstream.url}/a`], maxBytes: 400 * KB, what: 'a' }
  await fetcher.head({ ...file, urls: [`${upstream.url}/a?head`] }, signal)
  upstream.fault('/a', { kind: 'truncate', after: 100 * KB, times: 1 }, { kind: 'status', status: 503, times: 1 })
  await fetcher.get(file, signal)
  const { got, sent } = upstream.wire()
  const { spentBytes } = fetcher.wire
  t.ok(spentBytes > 390 * KB, 'retries and what they brought are in it', { spentBytes })
  t.ok(Math.abs(spentBytes - got - sent) < 0.01 * (got + sent), 'within a hundredth', { spentBytes, got, sent })
  fetcher.wire.limitBytes = spentBytes
  await t.rejects(fetcher.get(file, signal), { code: 'BUDGET_EXCEEDED' })
  t.equal(fetcher.wire.spentBytes, spentBytes, 'not a byte for a request that may not be sent')
})

t.test('TLS is estimated: each connection that was ever needed at a time, and a share of what goes through', (t) => {
  const wire = new Wire()
  const request = { method: 'GET', headers: {}, form: null }
  const spentBy = (work: () => void): number => {
    const before = wire.spentBytes
    work()
    return wire.spentBytes - before
  }
  const url = new URL('https://vendor.example/a')
  const first = spentBy(() => wire.begin(url, request).end(false))
  const next = spentBy(() => wire.begin(url, request).end(true))
  t.ok(first - next >= 4000, 'the second goes through the same connection')
  t.equal(
    spentBy(() => wire.begin(url, request).end(false)),
    first,
    'after one that broke there is another',
  )
  const plain = wire.begin(new URL('http://vendor.example/a'), request)
  const sealed = wire.begin(url, request)
  const [open, closed] = [plain, sealed].map((call) => spentBy(() => call.add(1_000_000)))
  t.equal(open, 1_000_000)
  t.ok(closed! > open! && closed! < 1.02 * open!)
  t.end()
})

const digest = (name: string): PlannedPackage['checksum'] => ({ algorithm: 'sha256', hex: sha256Of(name) })

function planned(nevra: string, more: Partial<PlannedPackage> = {}): PlannedPackage {
  return { nevra, href: `${nevra}.rpm`, bytes: 1000, checksum: digest(nevra), modified: 0, reason: '', ...more }
}

function planOf(group: Partial<PlannedGroup>): Plan {
  const groups = [{ name: 'a', origin: '', boxes: [], yum: [], files: [], warnings: [], advisories: [], ...group }]
  return { format: 3, createdAtMs: 0, sites: [{ name: 'hq', settings: '', isSecurityOnly: false, groups }] }
}

const named = ({ one }: Expense): string =>
  one.kind === 'package' ? one.package.nevra : one.kind === 'module' ? one.module.rawname : one.file.as

t.test('the order: security updates with what they need, framework and core, modules, packages, files', (t) => {
  const repository = {
    id: 'r',
    baseurls: ['http://r/'],
    packages: [] as PlannedPackage[],
  } as unknown as PlannedGroup['yum'][number]
  const because = (by: string) => ({ rule: 'provider' as const, box: 'pbx1', boxes: 1, by, isInstalled: false })
  repository.packages.push(
    planned('plain'),
    planned('deep', { because: because('need') }),
    planned('need', { because: because('fix') }),
    planned('bug', { advisories: ['B-1'] }),
    planned('fix', { advisories: ['S-1', 'B-1'] }),
  )
  const module = (rawname: string) => ({
    rawname,
    version: '1',
    location: rawname,
    bytes: 1000,
    checksum: digest(rawname),
  })
  const modules = { feed: 'http://m/', modules: ['blacklist', 'framework', 'core'].map(module), sounds: { files: [] } }
  const plan = planOf({
    yum: [repository],
    modules: modules as unknown as NonNullable<PlannedGroup['modules']>,
    files: [{ url: 'http://f/x', as: 'x' as never, bytes: 1000, reason: '' }],
    advisories: [
      { id: 'S-1', type: 'security', severity: '' },
      { id: 'B-1', type: 'bugfix', severity: '' },
    ],
  })
  const expenses = expensesOf(plan, downloadsOf(plan), new BlobStore(t.testdir()))
  const order = ['deep', 'need', 'fix', 'framework', 'core', 'blacklist', 'plain', 'bug', 'x']
  t.strictSame(expenses.map(named), order)
  t.match(sumsOf(expenses, 10_000), [
    { kind: 'security updates', count: 3, bytes: 3000, fits: { count: 3 } },
    { kind: 'framework and core', count: 2, fits: { count: 2 } },
    { kind: 'other modules', count: 1, fits: { count: 0 } },
    { kind: 'other packages', count: 2, fits: { count: 0 } },
    { kind: 'files', count: 1, fits: { count: 0 } },
  ])
  t.end()
})

t.test('what is promised to files under way is not promised again', (t) => {
  const one = {
    kind: 'file',
    file: { url: '', as: 'x', bytes: 0, sha256: sha256Of('') },
    bytes: 0,
  } as unknown as Download
  const expense = (bytes: number, heldBytes = 0): Expense => ({ one, kind: 'files', bytes, heldBytes })
  let leftBytes = 1_000_000
  const purse = new Purse(() => leftBytes)
  const first = purse.take(expense(600_000))!
  t.match(first, { isWhole: true })
  first.came(500_000)
  leftBytes -= 500_000
  t.match(purse.take(expense(900_000, 550_000)), { isWhole: true }, 'what is here of a file costs nothing')
  first.end()
  t.equal(purse.take(expense(300_000)), undefined, 'too little is left to begin it')
  t.equal(purse.take(expense(1)), undefined, 'and nothing goes before it')
  t.end()
})
