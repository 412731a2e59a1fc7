import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import type { Surroundings } from '../../manifests/program.ts'
import { identityWords, MAX_REPORT_BYTES, publicKeyOf, signReport, type Report } from '../../manifests/report.ts'
import { sealReport } from '../../manifests/report-seal.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inside } from '../helpers/inside.ts'
import type { Outcome } from '../helpers/process.ts'
import { newReportKey, sampleReport, sealedReport } from '../helpers/report.ts'
import { flip } from '../helpers/site.ts'

const MIRROR = newReportKey()
const WORDS = identityWords(publicKeyOf(MIRROR))
const GROUP = "{ name: pbx, origin: 'http://m.lan:8416', files: [{ url: 'https://v/x', as: x }] }"
const SITES = ['hq', 'branch'].map((name) => `  - { name: ${name}, groups: [${GROUP}] }\n`)
const SETTINGS = `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n${SITES.join('')}`

/** A laptop with two sites, and the keys that its bundles brought to their mirrors. */
function laptop(t: Test) {
  const dir = t.testdir({ 'gapferry.yaml': SETTINGS, store: {}, stick: {} })
  const withLedger = <T>(work: (ledger: Ledger) => T): T => {
    const ledger = new Ledger(join(dir, 'store/ledger.db'))
    try {
      return work(ledger)
    } finally {
      ledger.close()
    }
  }
  const reader = (site = 'hq'): string => withLedger((ledger) => ledger.reports.publicKey(site))
  /** as `gapferry-mirror report` names it on the stick */
  const put = (bytes: Buffer, site = 'hq', sequence = 7): string => {
    const file = join(dir, 'stick/gapferry', site, 'report', `${site}-${sequence}.report`)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, bytes)
    return file
  }
  const report = (change: Partial<Report> = {}, mirror = MIRROR): string => {
    const site = change.site ?? 'hq'
    return put(sealedReport(reader(site), mirror, change), site, change.sequence)
  }
  const run = async (
    expected: number | string,
    args: string[],
    around: Partial<Surroundings> = {},
  ): Promise<Outcome> => {
    const outcome = await inside(runGapferry, dir, ['report', ...args], around)
    const found = typeof expected === 'number' ? outcome.status : /\[([A-Z_]+)\]/.exec(outcome.stderr)?.[1]
    if (!t.equal(found, expected, args.join(' '))) t.comment(outcome.stderr)
    return outcome
  }
  const last = (site = 'hq') => withLedger((ledger) => ledger.reports.last(site)?.sequence)
  return { dir, put, report, reader, run, last, withLedger }
}

t.test('the words of an identity are compared once; then it alone counts', async (t) => {
  const { report, run, last, withLedger } = laptop(t)
  const first = report()
  t.match((await run('REPORT_NOT_CONFIRMED', ['add', first])).stderr, WORDS)
  await run('REPORT_IDENTITY', ['add', first, '--identity', identityWords(publicKeyOf(newReportKey()))])
  await run('ROOT_FINGERPRINT', ['add', first, '--identity', 'zoo zoo'])
  t.equal(last(), undefined)
  for (const [typed, expected] of [
    ['no\n', 'REPORT_NOT_CONFIRMED'],
    ['yes\n', 0],
  ] as const) {
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    stdin.write(typed)
    t.match((await run(expected, ['add', first], { stdin })).stderr, WORDS)
  }
  t.equal(last(), 7)
  t.match((await run(0, ['add', first])).stdout, /^hq: this report is here already$/m)
  t.match(
    (await run(0, ['add', report({ sequence: 8 })])).stdout,
    /^hq: report of 2026-11-22 12:00 UTC added, 2 files are there$/m,
  )

  const other = newReportKey()
  const forged = report({ sequence: 9 }, other)
  await run('REPORT_IDENTITY', ['add', forged])
  await run('REPORT_IDENTITY', ['add', forged, '--yes', '--force'])
  t.equal(last(), 8)
  const made = report({ sequence: 2 }, other)
  await run(0, ['add', made, '--identity', identityWords(publicKeyOf(other))])
  t.equal(last(), 2, 'a mirror that was made anew counts from the beginning')
  await run('REPORT_IDENTITY', ['add', report({ sequence: 10 })])
  const rows = withLedger((ledger) =>
    ledger.audit.rows().map(({ what, result }) => [what?.command, result, what?.added]),
  )
  t.match(
    rows.filter(([, result]) => result === 'ok'),
    [
      ['report add', 'ok', [`identity ${WORDS}`]],
      ['report add', 'ok', undefined],
      ['report add', 'ok', undefined],
      ['report add', 'ok', [/^identity /]],
    ],
  )
  t.match(rows.filter(([, result]) => result === 'REPORT_IDENTITY').length, 4)
})

t.test('an older report is refused, and so is another one of the same number', async (t) => {
  const { report, run, last } = laptop(t)
  const older = report({ sequence: 6 })
  await run(0, ['add', report(), '--yes'])
  await run('REPORT_OLDER', ['add', older])
  await run('REPORT_OLDER', ['add', report({ freeBytes: 1 })])
  t.equal(last(), 7)
  await run(0, ['add', older, '--force'])
  t.equal(last(), 6, 'unless a person says that the mirror came back from a backup')
})

t.test('what is changed, cut, foreign or no report is refused', async (t) => {
  const { dir, report, reader, put, run, last } = laptop(t)
  await run(0, ['add', report(), '--yes'])
  const good = sealedReport(reader(), MIRROR, { sequence: 8 })
  const add = (expected: string, bytes: Buffer, ...args: string[]) =>
    run(expected, ['add', put(bytes, 'hq', 8), ...args])
  for (const at of [0, 40, 300, good.length - 20]) await add('REPORT_INVALID', flip(good, at))
  for (const size of [0, 1, 200, good.length - 1]) await add('REPORT_INVALID', good.subarray(0, size))
  const stranger = publicKeyOf(newReportKey())
  t.match(
    (await add('REPORT_KEY_MISSING', sealedReport(stranger, MIRROR, { sequence: 8 }))).stderr,
    /another laptop packed/,
  )
  await add('SITE_UNKNOWN', sealedReport(reader(), MIRROR, { sequence: 8, site: 'elsewhere' }))
  await add('SITE_MISMATCH', sealedReport(reader(), MIRROR, { sequence: 8 }), '--site', 'branch')
  const inner = (change: Partial<Report>): Buffer =>
    signReport(sampleReport(reader(), { sequence: 8, ...change }), MIRROR)
  await add('SITE_MISMATCH', sealReport(inner({ site: 'branch' }), reader(), 'hq'))
  await add('SITE_MISMATCH', sealReport(inner({ recipient: 'a'.repeat(64) }), reader(), 'hq'))
  const unsigned = inner({}).toString().replace('"freeBytes":1000000', '"freeBytes":1000001')
  await add('REPORT_SIGNATURE', sealReport(Buffer.from(unsigned), reader(), 'hq'))
  await add('REPORT_INVALID', sealReport(Buffer.from('['.repeat(100_000)), reader(), 'hq'))

  const bomb = put(Buffer.alloc(0), 'hq', 9)
  truncateSync(bomb, MAX_REPORT_BYTES + 1)
  t.match((await run('REPORT_INVALID', ['add', bomb])).stderr, /more than/)
  const pipe = join(dir, 'pipe')
  execFileSync('mkfifo', [pipe])
  await run('REPORT_INVALID', ['add', pipe])
  symlinkSync('/dev/zero', join(dir, 'link'))
  await run('REPORT_INVALID', ['add', join(dir, 'link')])
  await run('USAGE_INVALID', ['add', join(dir, 'nothing')])
  await run('USAGE_INVALID', ['add', dir])
  t.equal(last(), 7, 'none of them counts')
})

t.test('one stick brings several sites’ reports; one that is refused keeps no other back', async (t) => {
  const { dir, put, report, run, last } = laptop(t)
  report({ sequence: 3 })
  report({ sequence: 12 })
  report({ site: 'branch', sequence: 5 }, newReportKey())
  writeFileSync(join(dir, 'stick/gapferry/hq/report/._hq-99.report'), 'x')
  mkdirSync(join(dir, 'stick/gapferry/hq/report/notes'))
  await run(0, ['add', 'stick', '--yes'])
  t.equal(last(), 12, 'the newest of each')
  t.equal(last('branch'), 5)
  put(Buffer.from('{}'), 'hq', 13)
  report({ site: 'branch', sequence: 6 }, newReportKey())
  await run('REPORT_INVALID', ['add', 'stick'])
  const listed = await run(3, ['add', 'stick', '--json'])
  t.match(JSON.parse(listed.stdout), {
    reports: [
      { site: 'hq', error: { code: 'REPORT_INVALID' } },
      { site: 'branch', error: { code: 'REPORT_IDENTITY' } },
    ],
  })
  put(Buffer.from('{}'), 'branch', 7)
  report({ sequence: 14 })
  await run(3, ['add', 'stick'])
  t.equal(last(), 14)
})

t.test('report list, words and what cannot be meant', async (t) => {
  const { report, run } = laptop(t)
  t.match((await run(0, ['list'])).stdout, /^SITE .*\nhq +never: bundles carry everything\nbranch +never/)
  const parity = [{ box: 'box-1', checkedAt: '2026-11-22T12:00:00Z', holds: false, differences: 2 }]
  await run(0, ['add', report({ parity }), '--yes'])
  t.match(
    (await run(0, ['list'])).stdout,
    /^hq +2026-11-22 12:00 UTC +bundle 3 +pbx: 3 +2 +1 asked, 1 differ +1\.0 MB$/m,
  )
  const { sites } = JSON.parse((await run(0, ['list', '--site', 'hq', '--json'])).stdout) as { sites: object[] }
  t.match(sites, [{ site: 'hq', identity: WORDS, bundle: 3, report: { sequence: 7 } }])
  const six = 'zoo zoo zoo zoo zoo zoo'
  await run('USAGE_INVALID', ['add', '--words', six])
  t.match(
    (await run('REPORT_WORDS', ['add', '--words', six, '--site', 'hq'])).stderr,
    /no bundle that this laptop signed for hq/,
  )
  await run('REPORT_WORDS', ['add', '--words', 'zoo zoo', '--site', 'hq'])
  await run('SITE_UNKNOWN', ['add', '--words', six, '--site', 'x'])
  await run('USAGE_INVALID', ['add'])
  await run('USAGE_INVALID', ['add', 'stick', '--words', six])
  for (const args of [[], ['add'], ['list']]) {
    t.match((await run(0, [...args, '--help'])).stdout, /Examples?:\n {2}gapferry report /, args.join(' '))
  }
})
