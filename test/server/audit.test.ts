import t, { type Test } from 'tap'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import type { Surroundings } from '../../manifests/program.ts'
import type { AuditRow } from '../../storage/audit.ts'
import { Catalog } from '../../storage/catalog.ts'
import { runMirror } from '../../server/program.ts'
import { inside } from '../helpers/inside.ts'
import { halves, makeContent, signContent, writeParts, type TestTree } from '../helpers/mirror.ts'
import { sampleRoot, type SampleBundle } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { makeRoot, newKey, NOW } from '../helpers/site.ts'
import { flipByte } from '../helpers/tar.ts'

const WHO = 'anna (1000)'
const ORIGIN = 'pbx=127.0.0.1:0'

interface Mirror {
  dir: string
  /** runs a command and says its exit status */
  run: (expected: number, ...args: string[]) => Promise<Outcome>
  runWith: (around: Partial<Surroundings>, expected: number, ...args: string[]) => Promise<Outcome>
  /** the rows since the last call, without what all have in common */
  rows: () => { what: unknown; result: string }[]
  all: () => AuditRow[]
  sql: (text: string) => void
}

/** A mirror that anna has just made, one hour after the sample bundles were. */
async function mirror(t: Test): Promise<Mirror> {
  const dir = t.testdir({ 'root.json': sampleRoot })
  const catalogFile = join(dir, 'mir', 'store', 'catalog.db')
  let seen = 0
  const all = (): AuditRow[] => {
    const catalog = new Catalog(catalogFile)
    try {
      catalog.audit.verify()
      return catalog.audit.rows()
    } finally {
      catalog.close()
    }
  }
  const rows = (): { what: unknown; result: string }[] => {
    const found = all().slice(seen)
    seen += found.length
    return found.map(({ what, result }) => ({ what, result }))
  }
  const runWith: Mirror['runWith'] = async (around, expected, ...args) => {
    const config = args[0] === 'init' ? [] : ['--config', 'mir/mirror.yaml']
    const outcome = await inside(runMirror, dir, [...args, ...config], { nowMs: () => NOW, user: WHO, ...around })
    if (!t.equal(outcome.status, expected, args.join(' '))) t.comment(outcome.stderr)
    return outcome
  }
  const sql = (text: string): void => {
    const db = new SqliteDatabase(catalogFile)
    db.exec(text)
    db.close()
  }
  const run: Mirror['run'] = (expected, ...args) => runWith({}, expected, ...args)
  await run(0, 'init', 'mir', '--trust', 'root.json', '--yes', '--origin', ORIGIN)
  return { dir, run, runWith, rows, all, sql }
}

function bundle(number: number, trees: TestTree[]): SampleBundle {
  return signContent(makeContent(number, trees), { createdAtMs: NOW - 3_600_000 })
}

const imported = (files: string[], number?: number) => ({
  command: 'import',
  ...(number === undefined ? {} : { bundle: number, groups: ['pbx'] }),
  files,
})

t.test('init leaves a row: pinned, again, and refused for another root', async (t) => {
  const { dir, run, rows, all } = await mirror(t)
  t.match(all()[0], { seq: 1, at: '2026-11-22T12:00:00Z', systemAt: null, who: WHO })
  t.same(rows(), [{ what: { command: 'init', files: ['root.json'] }, result: 'ok' }])
  writeFileSync(join(dir, 'other.json'), makeRoot({ root: [newKey()], bundle: [newKey()] }))
  await run(0, 'init', 'mir', '--trust', 'root.json')
  await run(2, 'init', 'mir', '--trust', 'other.json', '--yes')
  t.same(rows(), [
    { what: { command: 'init', files: ['root.json'] }, result: 'ok' },
    { what: { command: 'init', files: ['other.json'] }, result: 'ROOT_PINNED' },
  ])
})

t.test('import leaves a row for each part, and for what was refused or not there', async (t) => {
  const { dir, run, rows, runWith } = await mirror(t)
  rows()
  const made = bundle(1, [{ stamp: 10, packages: ['a', 'b', 'c'] }])
  const [first, second] = writeParts(join(dir, 'stick'), made, halves(made)) as [string, string]
  await run(0, 'import', '--dry-run', first, second)
  t.same(rows(), [], 'a dry run leaves none')
  await run(4, 'import', first)
  t.same(rows(), [{ what: imported(['hq-1-1of2.tar'], 1), result: 'BUNDLE_INCOMPLETE' }])
  await run(0, 'import', second, first)
  t.same(
    rows(),
    [
      { what: imported(['hq-1-1of2.tar'], 1), result: 'BUNDLE_INCOMPLETE' },
      { what: imported(['hq-1-2of2.tar'], 1), result: 'ok' },
    ],
    'a row says what was so after its part',
  )
  await run(4, 'import', join(dir, 'mir'))
  t.same(rows(), [{ what: imported(['mir']), result: 'BUNDLE_NOT_FOUND' }])

  const [next] = writeParts(join(dir, 'two'), bundle(2, [{ stamp: 20 }])) as [string]
  const ended = AbortSignal.abort(new Error('ended by SIGINT'))
  await runWith({ signal: ended }, 130, 'import', next)
  t.same(rows(), [{ what: imported(['hq-2.tar']), result: 'interrupted' }])
  flipByte(next, 700)
  await run(3, 'import', '--dry-run', next)
  t.same(rows(), [], 'neither does a refused dry run')
  const refused = await run(3, 'import', next)
  const code = /\[([A-Z_]+)\]/.exec(refused.stderr)?.[1]
  t.same(rows(), [{ what: imported(['hq-2.tar']), result: code }])
})

t.test('release and rollback leave rows, also when they are refused', async (t) => {
  const { dir, run, rows } = await mirror(t)
  rows()
  await run(4, 'release')
  await run(4, 'rollback')
  t.same(rows(), [
    { what: { command: 'release' }, result: 'RELEASE_NOTHING' },
    { what: { command: 'rollback' }, result: 'RELEASE_NOTHING' },
  ])
  const trees: TestTree[] = [{ stamp: 10 }, { stamp: 11, role: 'previous' }, { stamp: 12, role: 'return' }]
  writeParts(join(dir, 'stick', 'gapferry', 'hq'), bundle(3, trees))
  await run(0, 'import', '--release', 'stick')
  await run(0, 'rollback')
  await run(0, 'rollback', '--return', '--group', 'pbx')
  await run(4, 'release', '7')
  await run(2, 'release', '3', '--group', 'lab')
  const on = { bundle: 3, groups: ['pbx'] }
  t.same(rows(), [
    { what: imported(['hq-3.tar'], 3), result: 'ok' },
    { what: { command: 'release', ...on }, result: 'ok' },
    { what: { command: 'rollback', ...on }, result: 'ok' },
    { what: { command: 'rollback --return', ...on }, result: 'ok' },
    { what: { command: 'release', bundle: 7 }, result: 'RELEASE_NOTHING' },
    { what: { command: 'release', bundle: 3, groups: ['lab'] }, result: 'GROUP_UNKNOWN' },
  ])
})

t.test('a row tells the time judged by, and that of a clock that is behind', async (t) => {
  const { dir, runWith, all } = await mirror(t)
  const [part] = writeParts(join(dir, 'stick'), bundle(1, [{ stamp: 10 }])) as [string]
  await runWith({ nowMs: () => 0 }, 0, 'import', part)
  t.match(all()[1], { at: '2026-11-22T11:00:00Z', systemAt: '1970-01-01T00:00:00Z' })
})

t.test('no change without its row', async (t) => {
  const { dir, run, rows, sql } = await mirror(t)
  const [part] = writeParts(join(dir, 'stick'), bundle(1, [{ stamp: 10 }])) as [string]
  const refuse = `CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no row'); END`
  rows()
  sql(refuse)
  await run(1, 'import', part)
  sql('DROP TRIGGER full')
  t.match((await run(0, 'bundles', '--json')).stdout, '"bundles":[]', 'nothing was adopted')
  await run(0, 'import', part)
  sql(refuse)
  await run(1, 'release')
  sql('DROP TRIGGER full')
  t.match((await run(0, 'status', '--json')).stdout, '"bundle":null', 'nothing was released')
  await run(0, 'release')
  t.same(
    rows().map(({ result }) => result),
    ['ok', 'ok'],
  )
})

t.test('audit lists, audit verify checks', async (t) => {
  const { dir, run, runWith, all, sql } = await mirror(t)
  await runWith({ user: '\u001b[2Jeve (0)' }, 4, 'import', dir)
  const rows = all()
  const head = `${rows[1]!.seq}:${rows[1]!.hash}`
  const listed = await run(0, 'audit')
  t.match(listed.stdout, /^1 {2}2026-11-22T12:00:00Z {2}anna \(1000\) +init +root\.json +ok$/m)
  t.match(listed.stdout, /BUNDLE_NOT_FOUND$/m)
  t.notMatch(listed.stdout, '\u001b')
  t.ok(listed.stdout.endsWith(`head  ${head}\n`))
  t.same(JSON.parse((await run(0, 'audit', '--json')).stdout), {
    site: 'hq',
    rows,
    head: { seq: 2, hash: rows[1]!.hash },
  })
  const sound = await run(0, 'audit', 'verify')
  t.equal(sound.stdout, `audit trail of site hq: 2 rows, unbroken\nhead  ${head}\n`)
  t.same(JSON.parse((await run(0, 'audit', 'verify', '--head', head, '--json')).stdout), {
    site: 'hq',
    head: { seq: 2, hash: rows[1]!.hash },
  })
  t.match((await run(2, 'audit', 'verify', '--head', '2')).stderr, /\[USAGE_INVALID\]/)
  t.match((await run(2, 'audit', 'verfy')).stderr, /\[USAGE_INVALID\]/)

  sql(`UPDATE audit SET what = '{"command":5}', who = char(27) || '[2J' WHERE seq = 1`)
  const broken = await run(1, 'audit', 'verify', '--json')
  t.match(broken.stderr, /audit row 1 was changed.*\[AUDIT_BROKEN\]/)
  t.match(JSON.parse(broken.stdout), { error: { code: 'AUDIT_BROKEN' } })
  const still = await run(0, 'audit')
  t.match(still.stdout, /^1 .*\(unreadable\)/m)
  t.notMatch(still.stdout, '\u001b')
  sql('DELETE FROM audit WHERE seq = 2')
  t.match((await run(1, 'audit', 'verify', '--head', head)).stderr, /\[AUDIT_BROKEN\]/)
})

t.test('a long list shows the newest rows', async (t) => {
  const { dir, run, runWith } = await mirror(t)
  for (let i = 0; i < 51; i++) await runWith({}, 4, 'import', dir)
  const listed = await run(0, 'audit')
  t.equal(listed.stdout.split('\n').length, 52)
  t.match(listed.stderr, 'the newest 50 rows; all of them: gapferry-mirror audit --json')
})
