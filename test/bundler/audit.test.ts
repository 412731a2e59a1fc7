import { appendFileSync, copyFileSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import type { AuditRow } from '../../storage/audit.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import { makeKeyLab, must, only, textsBelow, type KeyLab } from '../helpers/key-lab.ts'
import type { Outcome } from '../helpers/process.ts'

const WHO = 'anna (1000)'
const SECRET = 'correct horse battery'

interface Lab extends KeyLab {
  /** `gapferry …` by anna; the passphrase is SECRET */
  run: (expected: number, ...args: string[]) => Promise<Outcome>
  /** what was done and how it ended, of the rows since the last call */
  rows: () => { what: AuditRow['what']; result: string }[]
  all: () => AuditRow[]
  sql: (text: string) => void
}

async function laptop(t: Test): Promise<Lab> {
  const lab = await makeKeyLab(t, t.testdir(), [], { GAPFERRY_PASSPHRASE: SECRET })
  const file = join(lab.dir, 'lap/store/ledger.db')
  let seen = 0
  const all = (): AuditRow[] => {
    const ledger = new Ledger(file)
    try {
      return ledger.audit.rows()
    } finally {
      ledger.close()
    }
  }
  return {
    ...lab,
    all,
    run: async (expected, ...args) => {
      const outcome = await lab.at(join(lab.dir, 'lap'), { user: WHO })(...args)
      t.equal(outcome.status, expected, `${args.join(' ')}: ${outcome.stderr}`)
      return outcome
    },
    rows: () => {
      const rows = all().slice(seen)
      seen += rows.length
      return rows.map(({ what, result }) => ({ what, result }))
    },
    sql: (text) => {
      const db = new SqliteDatabase(file)
      db.exec(text)
      db.close()
    },
  }
}

t.test(
  'a row for every change of keys: made, changed, refused, backed up, brought back; none for a look',
  async (t) => {
    const { dir, keys, run, rows, folder, at, all } = await laptop(t)
    const [made] = rows()
    t.match(made, { what: { command: 'init', site: 'hq', roots: [1] }, result: 'ok' })
    t.strictSame(
      made!.what!.added!.map((key) => key.replace(/[0-9a-f]{40,64}$/, 'ID')),
      ['root ID', 'targets ID', 'snapshot ID', 'timestamp ID', 'openpgp ID'],
    )
    await run(0, 'keys', 'list')
    t.strictSame(rows(), [], 'a look')

    const rootKey = only(keys, /^root-/)
    await run(0, 'keys', 'rotate', 'bundle', '--root-key', rootKey)
    const [rotated] = rows()
    t.match(rotated, { what: { command: 'keys rotate bundle', site: 'hq', roots: [2] }, result: 'ok' })
    t.equal(rotated!.what!.added!.length, 3)
    t.equal(rotated!.what!.removed!.length, 3)
    const away = join(folder('safe'), basename(rootKey))
    copyFileSync(rootKey, away)
    rmSync(rootKey)
    await run(4, 'keys', 'rotate')
    await run(0, 'keys', 'sign', '--root-key', away)
    await run(2, 'keys', 'rotate', 'moon')
    t.match(rows(), [
      { what: { command: 'keys rotate', site: 'hq' }, result: 'ROOT_PENDING' },
      { what: { command: 'keys sign', site: 'hq', roots: [3] }, result: 'ok' },
      { what: { command: 'keys rotate moon', site: 'hq' }, result: 'USAGE_INVALID' },
    ])

    const backup = join(folder('safe'), 'hq.backup')
    const { hash, seq } = all().at(-1)!
    await run(0, 'keys', 'backup', '--to', backup)
    const digest = { files: ['hq.backup'], sha256: sha256Of(readFileSync(backup)) }
    t.strictSame(rows(), [{ what: { command: 'keys backup', site: 'hq', ...digest }, result: 'ok' }])
    await run(2, 'keys', 'restore', backup)
    rmSync(keys, { recursive: true })
    await run(0, 'keys', 'restore', backup)
    const restored = { command: 'keys restore', site: 'hq', ...digest }
    t.match(rows(), [
      { what: restored, result: 'KEY_EXISTS' },
      { what: { ...restored, roots: [1, 2, 3], lost: undefined }, result: 'ok' },
    ])
    must(await at(folder('new'))('keys', 'restore', backup))
    const { stdout } = await at(folder('new'))('audit', '--json')
    const [row] = (JSON.parse(stdout) as { rows: AuditRow[] }).rows
    t.match(
      row,
      { seq: 1, who: 'unknown', what: { ...restored, lost: `${seq}:${hash}` } },
      'another trail begins there',
    )
    t.notMatch(JSON.stringify([...all(), row]), SECRET)
    t.ok(readFileSync(join(dir, 'lap/store/ledger.db')).includes('keys restore'))
    t.notOk(readFileSync(join(dir, 'lap/store/ledger.db')).includes(SECRET))
  },
)

t.test('a lost laptop begins a new trail', async (t) => {
  const { keys, bundle, at, folder, stick } = await laptop(t)
  await bundle()
  const rootKey = only(keys, /^root-/)
  must(await at(folder('new'))('init', '--from', stick, '--yes', '--root-key', rootKey))
  const { rows } = JSON.parse((await at(folder('new'))('audit', '--json')).stdout) as { rows: AuditRow[] }
  t.match(rows, [{ what: { command: 'init --from', site: 'hq', bundle: 1, files: ['hq-1.tar'] }, result: 'ok' }])
  t.match(rows[0]!.what!.roots, [1, 2])
})

t.test('a bundle that is signed is one with its row; each writing to a stick has one, too', async (t) => {
  const { run, rows, sql, stick } = await laptop(t)
  rows()
  await run(0, 'plan')
  await run(0, 'pull')
  t.strictSame(rows(), [])
  sql(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no row'); END`)
  await run(1, 'pack', '--to', stick)
  sql('DROP TRIGGER full')
  await run(0, 'pack', '--to', stick)
  const [signed, packed, ...none] = rows()
  t.match(signed, { what: { command: 'sign', site: 'hq', bundle: 1, sha256: /^[0-9a-f]{64}$/ }, result: 'ok' })
  t.match(signed!.what!.keys, [/^bundle [0-9a-f]{64}$/, /^openpgp [0-9a-f]{40}$/])
  t.strictSame(packed, { what: { command: 'pack', site: 'hq', bundle: 1, files: ['hq-1.tar'] }, result: 'ok' })
  t.strictSame(none, [])
  await run(0, 'pack', '--to', stick)
  await run(2, 'pack', '--to', stick, '--part-size', '1kB')
  t.match(rows(), [
    { what: { command: 'pack', bundle: 1 }, result: 'ok' },
    { what: { command: 'pack', bundle: 1 }, result: 'PART_SIZE_SHORT' },
  ])
})

t.test('boxes that come and go, with the digest of what they said', async (t) => {
  const { dir, run, rows } = await laptop(t)
  rows()
  const text = inventoryText({ box: 'pbx1' })
  writeFileSync(join(dir, 'lap/1.gfi'), text)
  await run(0, 'inventory', 'add', '1.gfi')
  await run(2, 'inventory', 'add', '1.gfi', '--group', 'moon')
  await run(0, 'inventory', 'list')
  await run(0, 'inventory', 'remove', 'pbx1')
  await run(2, 'inventory', 'remove', 'pbx1')
  const added = { command: 'inventory add', site: 'hq', boxes: [/^pbx1 [0-9a-f]{64}$/] }
  const removed = { command: 'inventory remove', site: 'hq', boxes: ['pbx1'] }
  t.match(rows(), [
    { what: added, result: 'ok' },
    { what: added, result: 'GROUP_UNKNOWN' },
    { what: removed, result: 'ok' },
    { what: removed, result: 'BOX_UNKNOWN' },
  ])
})

t.test('what went from the store', async (t) => {
  const { dir, run, rows, bundle } = await laptop(t)
  await bundle()
  rows()
  const blobs = join(dir, 'lap/store/blobs')
  const rotten = [...textsBelow(blobs)].find(([, text]) => text === 'firmware')![0]
  await run(0, 'store', 'prune')
  await run(0, 'store', 'verify')
  writeFileSync(join(blobs, rotten), 'firmwarf')
  t.strictSame(rows(), [], 'a look')
  await run(0, 'store', 'verify', '--mend')
  await run(0, 'store', 'prune', '--yes')
  t.match(rows(), [
    { what: { command: 'store verify --mend', removed: [`blob ${sha256Of('firmware')}`] }, result: 'ok' },
    { what: { command: 'store prune' }, result: 'ok' },
  ])
})

t.test('settings that were changed, by name and without what they say; keys that came without a command', async (t) => {
  const { dir, keys, run, rows, at } = await laptop(t)
  rows()
  const file = join(dir, 'lap/gapferry.yaml')
  writeFileSync(file, readFileSync(file, 'utf8').replace('/phone.bin', '/phone.bin?token=hunter2'))
  await run(0, 'plan')
  await run(0, 'plan')
  appendFileSync(file, '# a comment\nbudget: 5MB\n')
  await run(0, 'pull')
  const what = { command: 'settings', files: ['gapferry.yaml'] }
  t.match(rows(), [
    { what: { ...what, changed: ['sites.hq.groups.a.files.phone.bin.url'] }, result: 'ok' },
    { what: { ...what, sha256: sha256Of(readFileSync(file)), changed: ['budget'] }, result: 'ok' },
  ])
  t.notOk(readFileSync(join(dir, 'lap/store/ledger.db')).includes('hunter2'))
  const twin = join(dir, 'twin')
  cpSync(join(dir, 'lap'), twin, { recursive: true })
  must(await at(twin)('keys', 'rotate', 'bundle', '--keep-old'))
  copyFileSync(join(twin, 'keys/hq/2.root.json'), join(keys, '2.root.json'))
  await run(0, 'plan')
  await run(0, 'plan')
  const roles = [/^targets [0-9a-f]{64}$/, /^snapshot /, /^timestamp /]
  t.match(rows(), [{ what: { command: 'keys', site: 'hq', roots: [2], added: roles }, result: 'ok' }])
})

t.test('audit lists, audit verify finds what was tampered with', async (t) => {
  const { dir, run, sql, all } = await laptop(t)
  writeFileSync(join(dir, 'lap/1.gfi'), inventoryText({ box: 'pbx1' }))
  await run(0, 'inventory', 'add', '1.gfi')
  const rows = all()
  const head = `${rows.at(-1)!.seq}:${rows.at(-1)!.hash}`
  t.equal(rows.at(-1)!.who, WHO)
  const listed = await run(0, 'audit')
  t.match(listed.stdout, /^2 {2}\S+Z {2}anna \(1000\) +inventory add +hq +pbx1 +ok$/m)
  t.match(listed.stdout, /^1 .* init +hq +ok +root 1; \+root [0-9a-f]{8}; .*\+openpgp [0-9a-f]{8}$/m)
  t.ok(listed.stdout.endsWith(`head  ${head}\n`))
  const store = join(dir, 'lap/store')
  t.match(JSON.parse((await run(0, 'audit', '--json')).stdout), { store, rows, head: { seq: 2 } })
  const sound = await run(0, 'audit', 'verify')
  t.equal(sound.stdout, `audit trail of store ${store}: 2 rows, unbroken\nhead  ${head}\n`)
  t.match(sound.stderr, 'next time: gapferry audit verify --head SEQ:HASH')
  await run(0, 'audit', 'verify', '--head', head)
  t.match((await run(2, 'audit', 'verify', '--head', 'x')).stderr, /as gapferry audit shows it[^]*USAGE_INVALID/)
  t.match((await run(0, 'audit', '--help')).stdout, 'gapferry audit verify')
  sql(`UPDATE audit SET who = 'eve (0)' WHERE seq = 1`)
  const broken = await run(1, 'audit', 'verify', '--json')
  t.match(JSON.parse(broken.stdout), { error: { code: 'AUDIT_BROKEN', hint: /: gapferry audit --json$/ } })
  t.match(broken.stderr, /audit row 1 was changed/)
  rmSync(store, { recursive: true })
  t.match((await run(1, 'audit', 'verify', '--head', head)).stderr, /it was cut off/, 'a ledger that was thrown away')
  t.match((await run(0, 'audit')).stdout, 'no rows yet')
})
