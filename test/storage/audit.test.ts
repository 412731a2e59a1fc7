import t, { type Test } from 'tap'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import SqliteDatabase, { type Database } from 'better-sqlite3'
import { canonicalJson } from '../../manifests/json.ts'
import type { AuditEntry, AuditTrail } from '../../storage/audit.ts'
import { Catalog } from '../../storage/catalog.ts'
import { makeContent, makeStore, pretendVerified } from '../helpers/mirror.ts'
import { NOW } from '../helpers/site.ts'

const ZEROS = '0'.repeat(64)

function entry(more: Partial<AuditEntry> = {}): AuditEntry {
  const what = { command: 'import', bundle: 1, groups: ['pbx'], files: ['hq-1.tar'] }
  return { atMs: NOW, systemAtMs: NOW, who: 'anna (1000)', what, result: 'ok', ...more }
}

/** A trail of `count` rows, and the database as a person with sqlite3 meets it. */
function trail(t: Test, count: number): { audit: AuditTrail; catalog: Catalog; db: Database } {
  const { catalog, root } = makeStore(t.testdir())
  const db = new SqliteDatabase(join(root, 'catalog.db'))
  t.teardown(() => {
    catalog.close()
    db.close()
  })
  for (let i = 1; i <= count; i++) catalog.audit.append(entry({ what: { command: 'release', bundle: i } }))
  return { audit: catalog.audit, catalog, db }
}

/** The hash as FORMAT.md tells an auditor to make it. */
function hashByHand({ hash: _hash, systemAt, ...row }: ReturnType<AuditTrail['rows']>[number]): string {
  const text = canonicalJson(systemAt === null ? row : { ...row, systemAt })
  return createHash('sha256').update(text).digest('hex')
}

t.test('each row holds the hash of the one before', async (t) => {
  const { audit } = trail(t, 0)
  t.same(audit.verify(), { seq: 0, hash: ZEROS })
  audit.append(entry())
  audit.append(entry({ systemAtMs: 0, result: 'ROLE_EXPIRED' }))
  const [first, second] = audit.rows()
  t.match(first, { seq: 1, at: '2026-11-22T12:00:00Z', systemAt: null, ...{ who: 'anna (1000)', result: 'ok' } })
  t.same(first?.what, entry().what)
  t.equal(first?.previous, ZEROS)
  t.match(second, { seq: 2, systemAt: '1970-01-01T00:00:00Z', result: 'ROLE_EXPIRED', previous: first?.hash })
  for (const row of audit.rows()) t.equal(row.hash, hashByHand(row))
  t.same(audit.verify(), { seq: 2, hash: second?.hash })
  t.same(audit.head(), audit.verify())
  t.same(audit.rows(1), [second], 'the newest')
})

const TAMPERINGS: [name: string, sql: string, message: RegExp][] = [
  ['who is changed', `UPDATE audit SET who = 'eve (0)' WHERE seq = 3`, /^audit row 3 was changed/],
  ['when is changed', `UPDATE audit SET at = '2026-11-22T12:00:01Z' WHERE seq = 3`, /^audit row 3 was changed/],
  ['the clock is changed', `UPDATE audit SET system_at = at WHERE seq = 3`, /^audit row 3 was changed/],
  ['what is changed', `UPDATE audit SET what = replace(what, '3', '4') WHERE seq = 3`, /^audit row 3 was changed/],
  ['what is spelled otherwise', `UPDATE audit SET what = what || ' ' WHERE seq = 3`, /^audit row 3 was changed/],
  ['what is no JSON', `UPDATE audit SET what = '{' WHERE seq = 3`, /^audit row 3 was changed/],
  ['the result is changed', `UPDATE audit SET result = 'INTERNAL' WHERE seq = 3`, /^audit row 3 was changed/],
  ['a hash is changed', `UPDATE audit SET hash = '${ZEROS}' WHERE seq = 5`, /^audit row 5 was changed/],
  [
    'a previous hash is changed',
    `UPDATE audit SET previous = '${ZEROS}' WHERE seq = 3`,
    /^audit row 3 does not follow/,
  ],
  ['the first is deleted', 'DELETE FROM audit WHERE seq = 1', /^audit row 1 is missing; the next one there is 2/],
  ['one is deleted', 'DELETE FROM audit WHERE seq = 3', /^audit row 3 is missing; the next one there is 4/],
  [
    'one is deleted and the gap closed',
    'DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5',
    /^audit row 3 does not follow/,
  ],
  [
    'two are swapped',
    'UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 99',
    /^audit row 2 does not follow/,
  ],
  [
    'one is put in at the end',
    `INSERT INTO audit SELECT 6, at, system_at, who, what, result, hash, hash FROM audit WHERE seq = 5`,
    /^audit row 6 was changed/,
  ],
  [
    'one is put in between',
    `UPDATE audit SET seq = 6 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 4;
     INSERT INTO audit SELECT 4, at, system_at, who, what, result, hash, hash FROM audit WHERE seq = 3`,
    /^audit row 4 was changed/,
  ],
]

for (const [name, sql, message] of TAMPERINGS) {
  t.test(`verify finds it when ${name}`, async (t) => {
    const { audit, db } = trail(t, 5)
    t.equal(audit.verify().seq, 5)
    db.exec(sql)
    t.throws(() => audit.verify(), { code: 'AUDIT_BROKEN', message })
    t.doesNotThrow(() => audit.rows(), 'it can be listed nevertheless')
  })
}

t.test('a row put in with a hash of its own breaks the next one', async (t) => {
  const { audit, db } = trail(t, 5)
  const third = audit.rows().find((row) => row.seq === 3)!
  db.prepare('UPDATE audit SET who = ?, hash = ? WHERE seq = 3').run('eve', hashByHand({ ...third, who: 'eve' }))
  t.throws(() => audit.verify(), { code: 'AUDIT_BROKEN', message: /^audit row 4 does not follow/ })
})

t.test('a cut tail and a trail made anew are found with a head that was noted only', async (t) => {
  const { audit, db } = trail(t, 3)
  const [, second, third] = audit.rows()
  audit.append(entry())
  t.equal(audit.verify(third).seq, 4, 'an older head is still there')
  db.exec('DELETE FROM audit WHERE seq > 2')
  t.equal(audit.verify().seq, 2, 'the chain alone does not show it')
  t.equal(audit.verify(second).seq, 2)
  t.throws(() => audit.verify(third), { code: 'AUDIT_BROKEN', message: /^audit row 3 expected rows up to the noted 3/ })
  for (let i = 0; i < 3; i++) audit.append(entry({ who: 'eve (0)' }))
  t.equal(audit.verify().seq, 5)
  t.throws(() => audit.verify(third), { code: 'AUDIT_BROKEN', message: /^audit row 3 is not the one that was noted/ })
})

t.test('a row is part of the transaction that is open', async (t) => {
  const { audit, catalog } = trail(t, 1)
  t.throws(() =>
    catalog.write(() => {
      audit.append(entry())
      throw new Error('the change failed')
    }),
  )
  t.equal(audit.head().seq, 1)
  catalog.write(() => [audit.append(entry()), audit.append(entry())])
  t.equal(audit.verify().seq, 3)
})

t.test('a row stays small and holds no control characters, whatever it is told', async (t) => {
  const { audit } = trail(t, 0)
  const files = ['\u001b[2J\n', 'x'.repeat(10_000), '\ud800', ...Array.from({ length: 1000 }, (_, i) => `f${i}`)]
  audit.append(entry({ who: `\u0007${'w'.repeat(1000)}`, what: { command: 'import', files } }))
  const [row] = audit.rows()
  t.equal(audit.verify().seq, 1)
  t.ok(JSON.stringify(row).length < 20_000)
  t.equal(row?.what?.files?.[0], String.raw`\x1b[2J\x0a`)
  t.equal(row?.what?.files?.at(-1), 'and 939 more')
  t.equal(row?.who.length, 255)
})

t.test('a catalogue of before gets the table, and what came after it', async (t) => {
  const { catalog, root } = makeStore(t.testdir())
  catalog.pin({ site: 'hq', root: Buffer.from('root 1'), nowMs: NOW })
  catalog.adopt(pretendVerified(makeContent(1, [{ stamp: 1 }])), NOW)
  const state = catalog.state()!
  catalog.close()
  const db = new SqliteDatabase(join(root, 'catalog.db'))
  const tables = ['audit', 'generation', 'bundle_metadata', 'setting', 'box_code', 'enrolled_box']
  for (const table of tables) db.exec(`DROP TABLE ${table}`)
  const columns = ['revoked', 'roots', 'expired_reason', 'was_complete', 'part_hint', 'read_parts']
  for (const column of columns) db.exec(`ALTER TABLE bundle DROP COLUMN ${column}`)
  db.pragma('user_version = 1')
  db.close()
  const again = new Catalog(join(root, 'catalog.db'))
  again.audit.append(entry())
  t.equal(again.audit.verify().seq, 1)
  t.same({ ...again.state(), generation: state.generation }, state, 'the newest bundle can be verified again')
  again.close()
})
