import { join } from 'node:path'
import t from 'tap'
import { Ledger } from '../../storage/ledger.ts'

const box = (name: string, isRevoked = false) => ({ box: name, certificate: Buffer.from(`${name} DER`), isRevoked })
const KEYS = { delivery: Buffer.from('delivery'), authority: Buffer.from('authority') }

t.test('remembers a mirror as it was accepted, and what it told of keys and boxes', (t) => {
  const file = join(t.testdir(), 'ledger.db')
  const first = new Ledger(file)
  t.equal(first.identities.of('hq'), undefined)
  t.strictSame(first.identities.enrolled('hq'), [])
  first.identities.accept('hq', 'AAAA')
  t.strictSame(first.identities.of('hq'), { identity: 'AAAA', delivery: null, authority: null })
  first.identities.keep('hq', { ...KEYS, enrolled: [box('pbx2', true), box('pbx1')] })
  first.identities.accept('branch', 'BBBB')
  first.close()
  const ledger = new Ledger(file)
  t.teardown(() => ledger.close())
  t.strictSame(ledger.identities.of('hq'), { identity: 'AAAA', ...KEYS })
  t.strictSame(ledger.identities.enrolled('hq'), [box('pbx1'), box('pbx2', true)])
  t.strictSame(ledger.identities.enrolled('branch'), [])
  ledger.identities.accept('hq', 'AAAA')
  ledger.identities.keep('hq', { ...KEYS, delivery: null })
  t.strictSame(ledger.identities.of('hq'), { identity: 'AAAA', ...KEYS, delivery: null }, 'the last word counts')
  t.equal(ledger.identities.enrolled('hq').length, 2, 'of boxes it said nothing')
  t.end()
})

t.test('another mirror of the site begins without keys and boxes', (t) => {
  const ledger = new Ledger(join(t.testdir(), 'ledger.db'))
  t.teardown(() => ledger.close())
  ledger.identities.accept('hq', 'AAAA')
  ledger.identities.keep('hq', { ...KEYS, enrolled: [box('pbx1')] })
  ledger.identities.accept('hq', 'CCCC')
  t.strictSame(ledger.identities.of('hq'), { identity: 'CCCC', delivery: null, authority: null })
  t.strictSame(ledger.identities.enrolled('hq'), [])
  t.end()
})
