/** Inventories in the mirror's store: whose name it is, who makes room, and that nothing of them can be read there. */
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import {
  BoxInventories,
  MAX_HELD_BOXES,
  MAX_HELD_PER_ADDRESS,
  type HeldInventory,
  type OfferedInventory,
} from '../../storage/box-inventories.ts'
import { freepbxFacts } from '../helpers/freepbx-facts.ts'
import { flip } from '../helpers/site.ts'

const KEY = Buffer.alloc(32, 7)
const NOW = Date.parse('2026-11-22T12:00:00Z')
const HOUR = 3_600_000
const DAY = 24 * HOUR
const at = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z')

type Change = Partial<Omit<OfferedInventory, 'inventory'>> & { machine?: string | undefined; createdMs?: number }

function setUp(t: Test) {
  const dir = t.testdir()
  const inventories = new BoxInventories(dir, { key: KEY })
  const keep = (change: Change = {}, store = inventories): HeldInventory => {
    const { machine, createdMs = change.nowMs ?? NOW, ...rest } = { machine: 'm1', ...change }
    const bytes = rest.bytes ?? Buffer.from(`deployment 12345678 ${createdMs}\n`)
    const inventory = { machine, createdAt: at(createdMs), digest: sha256Of(bytes), freepbx: undefined }
    const offered = { box: 'pbx1', way: 'network', address: '10.0.0.1', group: 'pbx', nowMs: NOW } as const
    return store.keep({ ...offered, ...rest, bytes, inventory })
  }
  return { dir, folder: join(dir, 'inventories'), inventories, keep }
}

t.test('comes out as it came, and lies there sealed', (t) => {
  const { dir, folder, inventories, keep } = setUp(t)
  t.same(inventories.list(), [])
  t.equal(inventories.read('pbx1'), undefined)
  const bytes = Buffer.from('deployment 12345678\n'.repeat(1000))
  const head = keep({ bytes })
  t.match(head, { box: 'pbx1', machine: 'm1', address: '10.0.0.1', group: 'pbx', way: 'network', receivedMs: NOW })
  t.same(inventories.list(), [head])
  t.same(inventories.read('pbx1'), bytes)
  t.same(new BoxInventories(dir, { key: KEY }).list(), [head], 'in another process as well')
  t.same(readdirSync(folder), ['pbx1.gfi.sealed'])
  t.equal(statSync(join(folder, 'pbx1.gfi.sealed')).mode & 0o777, 0o600)
  t.equal(statSync(folder).mode & 0o777, 0o700)
  const file = readFileSync(join(folder, 'pbx1.gfi.sealed'))
  for (const text of ['12345678', '10.0.0.1', 'm1', head.sha256]) t.notOk(file.includes(text), text)
  t.equal(keep({ bytes, nowMs: NOW + HOUR }).firstMs, NOW, 'known since then')
  t.notSame(readFileSync(join(folder, 'pbx1.gfi.sealed')), file)
  t.end()
})

t.test('what cannot be opened is none, and gives way', (t) => {
  const { dir, folder, inventories, keep } = setUp(t)
  keep()
  const file = join(folder, 'pbx1.gfi.sealed')
  const sound = readFileSync(file)
  t.same(new BoxInventories(dir, { key: randomBytes(32) }).list(), [], 'of another mirror')
  for (let i = 0; i < sound.length; i += 11) {
    writeFileSync(file, flip(sound, i))
    t.equal(inventories.read('pbx1'), undefined, `byte ${i}`)
  }
  for (const length of [0, 10, sound.length - 1]) {
    writeFileSync(file, sound.subarray(0, length))
    t.same(inventories.list(), [])
  }
  t.ok(keep({ machine: 'm2', address: '10.0.0.2' }))
  copyFileSync(file, join(folder, 'pbx2.gfi.sealed'))
  t.same(
    inventories.list().map(({ box }) => box),
    ['pbx1'],
    'under another name it is not that box’s',
  )
  symlinkSync('/dev/zero', join(folder, 'pbx3.gfi.sealed'))
  mkdirSync(join(folder, 'pbx4.gfi.sealed'))
  writeFileSync(join(folder, 'x.part'), '')
  t.equal(inventories.list().length, 1)
  t.end()
})

t.test('a name is its machine’s', (t) => {
  const { inventories, keep } = setUp(t)
  keep()
  const stranger = { machine: 'm2', address: '10.0.0.2' }
  t.throws(() => keep(stranger), { code: 'BOX_CONFLICT' })
  t.throws(() => keep({ ...stranger, machine: undefined }), { code: 'BOX_CONFLICT' }, 'none says nothing')
  t.throws(() => keep({ ...stranger, nowMs: NOW + DAY - 1 }), { code: 'BOX_CONFLICT' })
  t.ok(keep({ machine: 'm1', address: '10.0.0.9', nowMs: NOW + 1000 }), 'another address')
  t.ok(keep({ machine: 'm3', address: '10.0.0.9', nowMs: NOW + 2000 }), 'installed anew at the same address')
  t.ok(keep({ ...stranger, nowMs: NOW + 2000 + DAY }), 'after a day without a word')
  t.ok(keep({ machine: 'm4', way: 'hand', address: null, nowMs: NOW + 2 * DAY }), 'a person knows better')
  t.throws(() => keep({ ...stranger, nowMs: NOW + 9 * DAY }), { code: 'BOX_CONFLICT' }, 'for good')
  t.ok(keep({ machine: 'm4', nowMs: NOW + 3 * DAY }), 'but its own machine goes on')
  t.ok(keep({ machine: 'm5', way: 'enrolled', nowMs: NOW + 3 * DAY }), 'a certificate does, too')
  t.throws(() => keep({ machine: 'm5', nowMs: NOW + 9 * DAY }), { code: 'BOX_CONFLICT' })
  t.equal(inventories.list()[0]!.machine, 'm5')
  for (const box of ['', '../x', 'a/b', 'PBX', '.x', 'x'.repeat(65), 'a\0b']) {
    t.throws(() => keep({ box }), { code: 'USAGE_INVALID' }, JSON.stringify(box))
  }
  t.end()
})

t.test('boxes without a machine id are told apart by their installid', (t) => {
  const { inventories } = setUp(t)
  const keep = (installid: string, nowMs: number) => {
    const freepbx = freepbxFacts({ profile: { installid } })
    const bytes = Buffer.from(installid)
    const inventory = { machine: undefined, createdAt: at(nowMs), digest: sha256Of(bytes), freepbx }
    const address = `10.0.${nowMs - NOW}.1`
    return inventories.keep({ box: 'a', bytes, inventory, way: 'network', address, group: null, nowMs })
  }
  keep('AA', NOW)
  t.throws(() => keep('bb', NOW + 1), { code: 'BOX_CONFLICT' })
  t.equal(keep('aa', NOW + 2).installid, 'aa')
  t.end()
})

t.test('an older one is refused, but not for a clock that once was ahead', (t) => {
  const { keep } = setUp(t)
  keep()
  t.throws(() => keep({ createdMs: NOW - 1000, nowMs: NOW + HOUR }), { code: 'INVENTORY_OLDER' })
  t.ok(keep({ createdMs: NOW, nowMs: NOW + HOUR }), 'the same again')
  t.ok(keep({ createdMs: NOW + 900 * DAY, nowMs: NOW + 2 * HOUR }))
  t.ok(keep({ createdMs: NOW + 3 * HOUR, nowMs: NOW + 3 * HOUR }), 'set right')
  t.ok(keep({ createdMs: NOW - 900 * DAY, nowMs: NOW + 4 * HOUR, way: 'hand' }), 'a person may')
  t.end()
})

t.test('who invents boxes takes no place from those that stay', (t) => {
  const { inventories, keep } = setUp(t)
  const name = (prefix: string, i: number): string => `${prefix}${String(i).padStart(3, '0')}`
  keep({ box: 'old', nowMs: NOW - 2 * DAY })
  keep({ box: 'old', nowMs: NOW })
  keep({ box: 'hand', way: 'hand', address: null, nowMs: NOW - 9 * DAY })
  keep({ box: 'enrolled', way: 'enrolled', nowMs: NOW - 9 * DAY })
  for (let i = 0; i < MAX_HELD_PER_ADDRESS + 5; i++) keep({ box: name('n', i), nowMs: NOW + i })
  const here = inventories.list().map(({ box }) => box)
  t.equal(here.length, MAX_HELD_PER_ADDRESS + 2, 'so many from one address; certificates and people do not count')
  t.ok(['old', 'hand', 'enrolled'].every((box) => here.includes(box)))
  t.notOk(here.includes(name('n', 0)), 'the ones longest ago leave')
  for (let i = 0; i < MAX_HELD_BOXES; i++) {
    keep({ box: name('m', i), address: `10.1.${i}.1`, nowMs: NOW + 1000 + i })
  }
  const then = inventories.list().map(({ box }) => box)
  t.equal(then.length, MAX_HELD_BOXES)
  t.ok(['old', 'hand', 'enrolled'].every((box) => then.includes(box)))
  t.end()
})

t.test('where all stay, there is no room', (t) => {
  const { inventories, keep } = setUp(t)
  for (let i = 0; i < MAX_HELD_BOXES; i++) keep({ box: `b${i}`, way: 'hand', address: null })
  t.throws(() => keep({ box: 'new' }), { code: 'INVENTORY_LIMIT' })
  t.throws(() => keep({ box: 'new', way: 'hand' }), { code: 'INVENTORY_LIMIT' })
  inventories.remove('b7')
  t.ok(keep({ box: 'new' }))
  t.end()
})

t.test('who invents boxes for days keeps no certificate and no person out', (t) => {
  const { inventories, keep } = setUp(t)
  keep({ box: 'mine', way: 'hand', address: null })
  for (let i = 1; i < MAX_HELD_BOXES; i++) {
    for (const nowMs of [NOW, NOW + DAY]) keep({ box: `b${i}`, machine: `b${i}`, address: `10.0.${i}.1`, nowMs })
  }
  t.throws(() => keep({ box: 'new', nowMs: NOW + DAY }), { code: 'INVENTORY_LIMIT' })
  t.ok(keep({ box: 'enrolled', way: 'enrolled', nowMs: NOW + DAY }))
  t.ok(keep({ box: 'brought', way: 'hand', address: null, nowMs: NOW + DAY }))
  const here = inventories.list().map(({ box }) => box)
  t.equal(here.length, MAX_HELD_BOXES)
  t.ok(['mine', 'enrolled', 'brought'].every((box) => here.includes(box)))
  t.end()
})

t.test('a box that tells neither machine nor installation is not every other one that does not', (t) => {
  const { inventories, keep } = setUp(t)
  keep({ machine: undefined, way: 'hand', address: null })
  t.throws(() => keep({ machine: undefined, address: '10.0.0.66', nowMs: NOW + HOUR }), { code: 'BOX_CONFLICT' })
  t.match(inventories.list(), [{ box: 'pbx1', way: 'hand' }])
  t.end()
})

t.test('so many bytes in all', (t) => {
  const { dir, keep } = setUp(t)
  const inventories = new BoxInventories(dir, { key: KEY, maxBytes: 100_000 })
  const bytes = randomBytes(9000)
  for (let i = 0; i < 20; i++) keep({ box: `b${i}`, bytes, address: `10.0.0.${i}`, nowMs: NOW + i }, inventories)
  t.same(inventories.list().length, 10)
  t.ok(inventories.read('b19'))
  t.equal(inventories.read('b9'), undefined)
  t.throws(() => keep({ box: 'c', bytes: randomBytes(100_000) }, inventories), { code: 'INVENTORY_LIMIT' })
  t.equal(inventories.list().length, 10, 'and none left for it')
  t.end()
})
