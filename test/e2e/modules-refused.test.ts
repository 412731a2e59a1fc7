import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { inside } from '../helpers/inside.ts'
import { makeTgz, moduleXml } from '../helpers/module-archive.ts'
import type { ModuleSpec } from '../helpers/module-list.ts'
import { bringInventories, moduleSettings } from '../helpers/module-site.ts'
import { makeModuleUpstream, type ModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox } from '../helpers/php-box.ts'
import type { Outcome } from '../helpers/process.ts'
import { makeTar } from '../helpers/tar.ts'

const LIST = '/all-16.0.xml'
const GOOD: ModuleSpec[] = [
  { rawname: 'framework', version: '16.0.9' },
  { rawname: 'core', version: '16.0.9' },
  { rawname: 'ivr', version: '16.0.9' },
  { rawname: 'queues', version: '16.0.9' },
]

type Run = (...args: string[]) => Promise<Outcome>

/** One laptop, and a vendor that changes. */
interface Case {
  gap: Gap
  /** the laptop's program in this process */
  run: Run
  vendor: ModuleUpstream
  /** the vendor has this `core` now, beside what else there is */
  core(spec: Partial<ModuleSpec>): Promise<void>
}

t.test('what the vendor gives wrong', async (t) => {
  const vendor = await makeModuleUpstream(t, { major: 16, modules: GOOD })
  const gap = await makeGap(t, t.testdir(), moduleSettings(vendor, 16))
  const box = await makeBox(t, {
    major: 16,
    modules: { framework: '16.0.1', core: '16.0.1', ivr: '16.0.1', queues: '16.0.1' },
  })
  await bringInventories(gap, { pbx1: box })
  const site: Case = {
    gap,
    run: (...args) => inside(runGapferry, gap.laptopDir, args),
    vendor,
    core: async (spec) => {
      const changed = { rawname: 'core', version: '16.0.9', ...spec }
      await vendor.publish({ major: 16, modules: GOOD.map((one) => (one.rawname === 'core' ? changed : one)) })
    },
  }

  await t.test('lists that are none stop the plan', (t) => lists(t, site))
  await t.test('modules that are not what the vendor says stop pull, and nothing fetched is lost', (t) =>
    modules(t, site),
  )
  await t.test('what is odd about a list is said', (t) => odd(t, site))
  await t.test('settings that cannot be met', (t) => settings(t, site))
  await t.test('boxes that differ, and none at all', (t) => boxes(t, site))
})

async function lists(t: Test, { run, vendor }: Case): Promise<void> {
  const whole = Buffer.from(vendor.list(16))
  const cases = [
    ['a page', { kind: 'portal' }, 'FETCH_CAPTIVE', 6],
    ['a 404', { kind: 'status', status: 404, body: '<html><hr></html>' }, 'FETCH_STATUS', 6],
    ['nothing', { kind: 'replace', body: '' }, 'MODULE_LIST_INVALID', 3],
    ['a text', { kind: 'replace', body: 'Sorry, back soon' }, 'MODULE_LIST_INVALID', 3],
    [
      'a list that ends early',
      { kind: 'replace', body: whole.subarray(0, whole.length / 2) },
      'MODULE_LIST_INVALID',
      3,
    ],
    ['a list without modules', { kind: 'replace', body: '<xml></xml>' }, 'MODULE_LIST_INVALID', 3],
  ] as const
  for (const [what, fault, code, status] of cases) {
    vendor.fault(LIST, fault)
    await refused(t, run, ['plan'], { what, code, status, says: [vendor.url] })
  }
  vendor.fault(LIST, { kind: 'truncate', after: 100 })
  await refused(t, run, ['plan'], { what: 'a connection that ends', code: /^FETCH_/, status: 6, says: [vendor.url] })
  vendor.fault(LIST)
}

async function modules(t: Test, { gap, run, vendor, core }: Case): Promise<void> {
  const pull = async (what: string, spec: Partial<ModuleSpec>, code: string, says: RegExp): Promise<void> => {
    await core(spec)
    await refused(t, run, ['bundle', '--to', gap.stickDir], { what, code, status: 3, says: ['core', says] })
    const ivr = sha256Of(vendor.bytes('ivr', '16.0.9'))
    t.ok(existsSync(join(gap.laptopDir, 'store/blobs', ivr.slice(0, 2), ivr)), `${what}: what was good stays`)
  }
  await pull('a foreign signature', { signed: 'foreign' }, 'MODULE_SIGNATURE', /sign/)
  await refused(t, gap.gapferry, ['bundle', '--to', gap.stickDir], {
    what: 'a foreign signature, as a program of its own',
    code: 'MODULE_SIGNATURE',
    status: 3,
    says: ['core'],
  })
  await pull('no signature', { signed: 'no' }, 'MODULE_SIGNATURE', /sign/)
  await pull('another inner archive', { entry: { sha1sum: 'f'.repeat(40) } }, 'MODULE_DIGEST', /f{8}/)
  await pull('another MD5', { entry: { md5sum: 'e'.repeat(32) } }, 'MODULE_DIGEST', /e{8}/)
  await pull('another module inside', { inside: { rawname: 'ivr' } }, 'MODULE_MISMATCH', /ivr/)
  await pull('another version inside', { inside: { version: '16.0.8' } }, 'MODULE_MISMATCH', /16\.0\.8/)
  for (const [what, archive] of Object.entries(hostile())) await pull(what, { archive }, 'MODULE_ARCHIVE', /./)
  await pull(
    'a file that is never what the list says',
    { entry: { signed: 'd'.repeat(40) } },
    'FETCH_DIGEST_MISMATCH',
    /d{8}/,
  )
  await core({ absent: true })
  await refused(t, run, ['bundle', '--to', gap.stickDir], {
    what: 'no file',
    code: 'FETCH_STATUS',
    status: 6,
    says: ['core'],
  })

  await core({ version: '16.0.10' })
  vendor.fault(vendor.path('core', '16.0.10'), { kind: 'flip', at: 200, times: 1 })
  const healed = await run('bundle', '--to', gap.stickDir)
  t.equal(healed.status, 0, `one wrong answer heals: ${healed.stderr}`)

  await core({ signed: 'no', version: '16.0.11' })
  await refused(t, run, ['bundle', '--to', gap.stickDir], {
    what: 'unsigned',
    code: 'MODULE_SIGNATURE',
    status: 3,
    says: ['core'],
  })
  gap.settings(moduleSettings(vendor, 16, { allowUnsigned: ['core'] }))
  t.equal((await run('bundle', '--to', gap.stickDir)).status, 0, 'unless it is allowed by name')
  gap.settings(moduleSettings(vendor, 16))
}

/** Archives of `core` 16.0.9 that no module has. */
function hostile(): Record<string, Buffer> {
  const xml = { 'core/module.xml': moduleXml({ rawname: 'core', version: '16.0.9' }) }
  const link = {
    name: 'core/etc',
    bytes: Buffer.alloc(0),
    header: (block: Buffer) => void block.write('2', 156).toString(),
  }
  const tar = [{ name: 'core/module.xml', bytes: Buffer.from(xml['core/module.xml']) }]
  return {
    'a path that leaves the folder': makeTgz({ ...xml, 'core/../../etc/passwd': 'x' }),
    'an absolute path': makeTgz({ ...xml, '/etc/cron.d/x': 'x' }),
    'two top folders': makeTgz({ ...xml, 'ivr/module.xml': 'x' }),
    'no module.xml': makeTgz({ 'core/readme': 'x' }),
    'a symbolic link': gzipSync(makeTar([...tar, link])),
    'a bomb': gzipSync(makeTar([...tar, { name: 'core/zeros', bytes: Buffer.alloc(64 << 20) }]), { level: 9 }),
    'no archive': Buffer.from('<html>not found</html>'),
    'half an archive': makeTgz({ ...xml, 'core/x': 'x'.repeat(5000) }).subarray(0, 120),
  }
}

async function odd(t: Test, { run, vendor, core }: Case): Promise<void> {
  await core({ depends: { module: 'nowhere ge 16.0.4' } })
  const missing = await run('plan')
  t.equal(missing.status, 0, missing.stderr)
  t.match(
    missing.stdout + missing.stderr,
    /nowhere ge 16\.0\.4/,
    'a dependency that nobody offers is named in the plan',
  )

  const few = GOOD.filter((one) => one.rawname === 'framework' || one.rawname === 'core')
  await vendor.publish({ major: 16, modules: few })
  const gone = await run('plan')
  t.equal(gone.status, 0)
  t.match(gone.stdout + gone.stderr, /warning: .*\b2 of the 4 modules\b/, 'half of the modules gone')

  await core({ version: '16.0.8' })
  const older = await run('plan')
  t.equal(older.status, 0)
  t.match(older.stdout + older.stderr, /warning: .*\bcore\b.*16\.0\.8/, 'a lower version than last time')
  await core({})
}

async function settings(t: Test, { gap, run, vendor, core }: Case): Promise<void> {
  await core({})
  const plan = async (more: Record<string, unknown>, code: string, status: number, says: string): Promise<void> => {
    gap.settings(moduleSettings(vendor, 16, more))
    await refused(t, run, ['plan'], { what: code, code, status, says: [says] })
  }
  await plan({ policy: { nosuch: 'want' } }, 'MODULE_UNKNOWN', 2, 'nosuch')
  await plan({ policy: { core: 'pin 16.0.3' } }, 'MODULE_UNKNOWN', 2, '16.0.3')
  const all = Object.fromEntries(GOOD.map(({ rawname }) => [rawname, 'block']))
  await plan({ policy: { ...all, framework: 'latest' } }, 'MODULE_LIST_SHORT', 2, 'want')
}

async function boxes(t: Test, { gap, run, vendor }: Case): Promise<void> {
  const paid: ModuleSpec = { rawname: 'paid', version: '16.0.9', php: ['7.4', '8.2'] }
  await vendor.publish({ major: 16, modules: [...GOOD, paid] })
  const modules = { framework: '16.0.1', core: '16.0.1', paid: '1.0' }
  const old = await makeBox(t, { major: 16, modules })
  await bringInventories(gap, { pbx1: old, pbx2: await makeBox(t, { major: 16, phpver: '8.2.1', modules }) })
  const plan = async (code: string, status: number, says: string[], more: Record<string, unknown> = {}) => {
    gap.settings(moduleSettings(vendor, 16, more))
    await refused(t, run, ['plan'], { what: code, code, status, says })
  }
  await plan('MODULE_CONFLICT', 2, ['pbx1', 'pbx2', 'packages/paid/7.4/', 'packages/paid/8.2/'])
  t.equal((await run('inventory', 'remove', 'pbx2')).status, 0)

  gap.settings(moduleSettings(vendor, 16, { keys: [] }))
  await refused(t, run, ['bundle', '--to', gap.stickDir], {
    what: 'no key',
    code: 'MODULE_KEY_MISSING',
    status: 4,
    says: ['keys'],
  })

  t.equal((await run('inventory', 'remove', 'pbx1')).status, 0)
  await plan('MODULE_REQUEST_MISSING', 2, ['core'], { policy: { core: 'want' } })
  await plan('PLAN_EMPTY', 2, ['no inventory', 'gapferry inventory add'])
  await old.upgradeall(vendor.url)
  const form = vendor.requests.find(({ body }) => body.startsWith('firstinstall='))!.body
  writeFileSync(join(gap.laptopDir, 'box.form'), form)
  gap.settings(moduleSettings(vendor, 16, { request: 'box.form' }))
  const captured = await run('plan', '--items')
  t.equal(captured.status, 0, captured.stderr)
  t.match(captured.stdout, /\bpaid\b/, 'what a box sent stands in for an inventory')
}

/** @param expected.says  what a person has to find in the message */
async function refused(
  t: Test,
  run: Run,
  args: string[],
  expected: { what: string; code: string | RegExp; status: number; says: (string | RegExp)[] },
): Promise<void> {
  const { what, code, status, says } = expected
  const outcome = await run(...args, '--json')
  const { error } = JSON.parse(outcome.stdout) as { error: { code: string } }
  t.match([outcome.status, error.code], [status, code], `${what}: ${error.code}, exit status ${outcome.status}`)
  for (const text of says) t.match(outcome.stderr, text, `${what}: the message names it`)
  t.match(outcome.stderr, /next: |hint|gapferry /, `${what}: and what to do`)
}
