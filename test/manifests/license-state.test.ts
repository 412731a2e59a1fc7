import t from 'tap'
import { parseInventory } from '../../manifests/inventory.ts'
import { judgeLicense, licensedBox, type KnownLicense, type LicensedBox } from '../../manifests/license-state.ts'
import { licensedInventory } from '../helpers/licenses.ts'

const NOW = Date.UTC(2026, 10, 22, 12)
const BOX: LicensedBox = {
  deploymentId: '1',
  licensedFor: '1',
  products: ['PBXact', 'pbxact'],
  machine: 'a'.repeat(64),
  own: { product: 'PBXact', expires: [] },
}
const of = (date: string, more: Partial<KnownLicense> = {}): KnownLicense => {
  return { product: 'PBXact', expires: [{ name: 'sysadmin_exp', date }], ...more }
}

t.test('tells good, soon and expired by the first day on which something ends', (t) => {
  const cases: [string, string][] = [
    ['2026-11-21', 'expired'],
    ['2026-11-22', 'soon'],
    ['2026-12-22', 'soon'],
    ['2026-12-23', 'good'],
  ]
  for (const [date, state] of cases) t.match(judgeLicense(of(date), BOX, NOW), { state, expires: date }, date)
  const two = of('2026-11-01', {
    expires: [
      { name: 'a_exp', date: '2026-11-01' },
      { name: 'b_exp', date: '2028-01-01' },
    ],
  })
  t.match(judgeLicense(two, BOX, NOW), { state: 'expired', expires: '2026-11-01', why: 'a_exp 2026-11-01' })
  t.match(judgeLicense(of('2027-01-01', { expires: [] }), BOX, NOW), { state: 'unknown', expires: null })
  t.end()
})

t.test('tells the next day by which a box has to be activated again', (t) => {
  const license = of('', {
    expires: [
      { name: 'Expires', date: '2026-12-01' },
      { name: 'sysadmin_exp', date: '2028-01-01' },
    ],
  })
  t.match(judgeLicense(license, BOX, NOW), { state: 'soon', reactivation: '2026-12-01', why: /activated again/ })
  t.match(judgeLicense(of('2028-01-01'), BOX, NOW), { reactivation: null })
  t.end()
})

t.test('tells what is missing, and what is not for this box', (t) => {
  const good = of('2028-01-01')
  t.match(judgeLicense(undefined, BOX, NOW), { state: 'unknown', why: /none was brought; the one on the box: no date/ })
  t.match(judgeLicense(undefined, { ...BOX, own: of('2026-12-01') }, NOW), {
    state: 'soon',
    expires: '2026-12-01',
    why: /on the box/,
  })
  t.match(judgeLicense(undefined, { ...BOX, own: null }, NOW), {
    state: 'missing',
    why: /none is on the box, and none was brought/,
  })
  t.match(judgeLicense(undefined, { ...BOX, deploymentId: null, licensedFor: null }, NOW), {
    state: 'missing',
    why: /activated/,
  })
  t.match(judgeLicense(good, undefined, NOW), { state: 'mismatch', why: /no box/ })
  t.match(judgeLicense(good, { ...BOX, licensedFor: '2' }, NOW), { state: 'mismatch', why: /another deployment/ })
  t.match(judgeLicense(of('2028-01-01', { machine: 'b'.repeat(64) }), BOX, NOW), { state: 'mismatch', why: /machine/ })
  t.match(judgeLicense(of('2028-01-01', { machine: 'a'.repeat(64) }), BOX, NOW), { state: 'good' })
  t.match(judgeLicense(of('2028-01-01', { product: 'FreePBX' }), BOX, NOW), { state: 'wrong-product', why: /FreePBX/ })
  t.match(judgeLicense(of('2028-01-01', { product: 'PBXact UC 60' }), BOX, NOW), { state: 'good' })
  t.match(judgeLicense(of('2028-01-01', { product: null }), BOX, NOW), { state: 'good' })
  t.end()
})

t.test('reads from an inventory what a license is compared with', (t) => {
  const text = licensedInventory({ box: 'pbx1', deploymentId: '12345678' }, [
    'license-fact /etc/schmooze/schmooze.zl sysadmin_exp 2027-03-01',
  ])
  const { freepbx } = parseInventory(Buffer.from(text, 'latin1'), 'x')
  t.match(licensedBox(freepbx, 'm'), {
    deploymentId: '12345678',
    licensedFor: '12345678',
    products: ['PBXact', 'pbxact'],
    machine: 'm',
    own: { product: 'PBXact', expires: [{ name: 'sysadmin_exp', date: '2027-03-01' }] },
  })
  t.strictSame(licensedBox(undefined), {
    deploymentId: null,
    licensedFor: null,
    products: [],
    machine: null,
    own: null,
  })
  t.end()
})
