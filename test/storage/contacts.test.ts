import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import t from 'tap'
import type { Sha256 } from '../../manifests/digest.ts'
import {
  contactsFile,
  ContactStore,
  MAX_BOXES_PER_ADDRESS,
  MAX_BOXES_PER_GROUP,
  readContacts,
  type Contact,
} from '../../storage/contacts.ts'

const DAY = 86_400_000
const onDamage = (): void => undefined

function contact(change: Partial<Contact> = {}): Contact {
  return {
    ...{ group: 'pbx', installid: 'a-box', atMs: 1000, address: '192.0.2.1', deployment: null },
    ...{
      framework: '16.0.30',
      phpver: '7.4.33',
      brand: 'pbxact',
      modules: new Map([['core', '16.0.60']]),
      oddities: [],
    },
    ...change,
  }
}

function ids(dir: string): string[] {
  return readContacts(dir).map(({ installid }) => installid)
}

t.test('what a box said last, and what it said before where it says less', (t) => {
  const dir = t.testdir()
  t.same(readContacts(dir), [], 'nothing was noted yet')
  const store = new ContactStore(dir, { onDamage })
  const deployment = 'd'.repeat(64) as Sha256
  store.write([contact({ deployment, oddities: ['slash'] }), contact({ group: 'other' })])
  t.same(store.keys().sort(), ['other a-box', 'pbx a-box'])
  const less = { deployment: null, framework: null, phpver: null, brand: null, modules: null }
  store.write([contact({ atMs: 2000, address: '192.0.2.2', ...less, oddities: ['list'] })])
  const [box, other] = readContacts(dir)
  t.match(box, { group: 'pbx', firstMs: 1000, lastMs: 2000, address: '192.0.2.2', deployment, framework: '16.0.30' })
  t.same(
    [...box!.oddities],
    [
      ['slash', 1000],
      ['list', 2000],
    ],
  )
  t.same([...box!.modules], [['core', '16.0.60']])
  t.match(other, { group: 'other', lastMs: 1000 })
  store.write([contact({ atMs: 3000, modules: new Map() })])
  t.equal(readContacts(dir)[0]!.modules.size, 0)
  store.close()
  t.same(readdirSync(dir), ['contacts.db'])
  t.end()
})

t.test('who came last and was seen for less than a day makes room', (t) => {
  const dir = t.testdir()
  const store = new ContactStore(dir, { onDamage })
  const box = (i: number, atMs: number, address = `192.0.2.${i % 200}`): Contact =>
    contact({ installid: `box-${i}`, atMs, address })
  const settled = [0, 1, 2].map((i) => box(i, i))
  store.write(settled)
  store.write(settled.map((one) => ({ ...one, atMs: DAY + one.atMs })))
  for (let i = 3; i < 1000; i += 100) {
    store.write(Array.from({ length: 100 }, (_, j) => box(i + j, 2 * DAY + i + j, `198.51.${i % 250}.${j}`)))
  }
  const left = ids(dir)
  t.equal(left.length, MAX_BOXES_PER_GROUP)
  for (const { installid } of settled) t.ok(left.includes(installid), `${installid} stays`)
  t.ok(left.includes('box-1002'), 'and the newest')
  t.notOk(left.includes('box-3'))
  store.write(Array.from({ length: 200 }, (_, i) => box(5000 + i, 3 * DAY + i, '203.0.113.1')))
  t.equal(readContacts(dir).filter(({ address }) => address === '203.0.113.1').length, MAX_BOXES_PER_ADDRESS)
  store.close()
  t.end()
})

t.test('a damaged file begins anew, and says so', (t) => {
  const damages: [string, (file: string) => void][] = [
    [
      'no database',
      (file) => writeFileSync(file, 'not a database, but long enough to be read as the header of one '.repeat(20)),
    ],
    ['cut', (file) => writeFileSync(file, readFileSync(file).subarray(0, 5000))],
    ['overwritten in the middle', (file) => writeFileSync(file, readFileSync(file).fill(0xa5, 4200, 9000))],
  ]
  for (const [what, damage] of damages) {
    const dir = t.testdir()
    const first = new ContactStore(dir, { onDamage })
    first.write(Array.from({ length: 50 }, (_, i) => contact({ installid: `box-${i}` })))
    first.close()
    damage(contactsFile(dir))
    const told: unknown[] = []
    const store = new ContactStore(dir, { onDamage: (error) => told.push(error) })
    t.match(told, [{ code: 'STORE_DAMAGED' }], what)
    store.write([contact()])
    t.same(ids(dir), ['a-box'])
    store.close()
  }
  t.end()
})

t.test('a file that is damaged while it is open', (t) => {
  const dir = t.testdir()
  const store = new ContactStore(dir, { onDamage })
  const other = new SqliteDatabase(contactsFile(dir))
  other.exec('DROP TABLE box')
  other.close()
  t.throws(() => store.write([contact()]), { code: 'STORE_DAMAGED' })
  t.throws(() => readContacts(dir), { code: 'STORE_DAMAGED' })
  store.close()
  const anew = new ContactStore(dir, { onDamage, isDamaged: true })
  anew.write([contact()])
  anew.close()
  t.same(ids(dir), ['a-box'])
  t.end()
})

t.test('no room: nothing of the batch is kept, and what was there stays', (t) => {
  const dir = t.testdir()
  const store = new ContactStore(dir, { onDamage, maxBytes: 65_536 })
  store.write([contact()])
  const modules = new Map(Array.from({ length: 400 }, (_, i) => [`module-${i}`, '1'.repeat(32)]))
  const batch = Array.from({ length: 50 }, (_, i) => contact({ installid: `box-${i}`, modules }))
  t.throws(() => store.write(batch), { code: 'SPACE_SHORT' })
  t.same(ids(dir), ['a-box'])
  store.write([contact({ atMs: 5000 })])
  t.equal(readContacts(dir)[0]!.lastMs, 5000)
  store.close()
  t.ok(statSync(contactsFile(dir)).size <= 65_536)
  t.end()
})

t.test('what is no file is not opened', (t) => {
  const dir = t.testdir()
  execFileSync('mkfifo', [contactsFile(dir)])
  t.throws(() => new ContactStore(dir, { onDamage }), { code: 'STORE_UNREADABLE' })
  t.throws(() => readContacts(dir), { code: 'STORE_UNREADABLE' })
  const folder = join(dir, 'other')
  mkdirSync(contactsFile(folder), { recursive: true })
  t.throws(() => new ContactStore(folder, { onDamage }), { code: 'STORE_UNREADABLE' })
  t.end()
})

t.test('a file of a newer program is left alone', (t) => {
  const dir = t.testdir()
  new ContactStore(dir, { onDamage }).close()
  const db = new SqliteDatabase(contactsFile(dir))
  db.pragma('user_version = 99')
  db.close()
  t.throws(() => new ContactStore(dir, { onDamage }), { code: 'STORE_VERSION' })
  t.end()
})

t.test('whoever reads holds nobody up for long', (t) => {
  const dir = t.testdir()
  const store = new ContactStore(dir, { onDamage })
  const other = new SqliteDatabase(contactsFile(dir))
  other.exec('BEGIN IMMEDIATE')
  const startMs = performance.now()
  t.throws(() => store.write([contact()]), { code: 'STORE_BUSY' })
  t.ok(performance.now() - startMs < 1000)
  other.exec('ROLLBACK')
  other.close()
  store.write([contact()])
  store.close()
  t.end()
})
