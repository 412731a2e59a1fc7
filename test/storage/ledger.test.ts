import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { Ledger, type SignedBundle } from '../../storage/ledger.ts'

const bundle = (site: string, number: number): SignedBundle => ({
  site,
  number,
  createdAtMs: 1000 * number,
  content: sha256Of(`content ${number}`),
  metadata: new Map([
    ['timestamp.json', Buffer.from(`t${number}`)],
    [`${number}.snapshot.json`, Buffer.from('s')],
  ]),
  trees: new Map([['a/current', sha256Of(`tree ${number}`)]]),
})

t.test('remembers across runs what was signed and promised, per site', (t) => {
  const file = join(t.testdir(), 'ledger.db')
  const first = new Ledger(file)
  t.equal(first.lastBundle('hq'), undefined)
  first.rememberBundle(bundle('hq', 1), [
    { group: 'a', stamps: new Map([['r', 5]]), immutable: new Map([['p', sha256Of('p')]]) },
  ])
  first.rememberBundle(bundle('hq', 2), [{ group: 'a', stamps: new Map([['r', 9]]), immutable: new Map() }])
  first.rememberBundle(bundle('other', 7), [])
  first.close()
  const ledger = new Ledger(file)
  t.teardown(() => ledger.close())
  t.strictSame(ledger.lastBundle('hq'), bundle('hq', 2))
  t.equal(ledger.lastBundle('other')?.number, 7)
  t.strictSame(ledger.promises('hq', 'a'), {
    group: 'a',
    stamps: new Map([['r', 9]]),
    immutable: new Map([['p', sha256Of('p')]]),
  })
  t.strictSame(ledger.promises('hq', 'b'), { group: 'b', stamps: new Map(), immutable: new Map() })
  t.end()
})

t.test('a number is given once: a second bundle of that number leaves nothing behind', (t) => {
  const ledger = new Ledger(join(t.testdir(), 'ledger.db'))
  t.teardown(() => ledger.close())
  ledger.rememberBundle(bundle('hq', 1), [])
  t.throws(() =>
    ledger.rememberBundle({ ...bundle('hq', 1), trees: new Map() }, [
      { group: 'a', stamps: new Map([['r', 1]]), immutable: new Map() },
    ]),
  )
  t.strictSame(ledger.lastBundle('hq'), bundle('hq', 1))
  t.equal(ledger.promises('hq', 'a').stamps.size, 0)
  t.end()
})

t.test('remembers what upstream checksums and addresses were', (t) => {
  const ledger = new Ledger(join(t.testdir(), 'ledger.db'))
  t.teardown(() => ledger.close())
  t.equal(ledger.fetched('sha1', 'ab'), undefined)
  ledger.rememberFetched('sha1', 'ab', { sha256: sha256Of('x'), verdict: 'unsigned' })
  t.strictSame(ledger.fetched('sha1', 'ab'), { sha256: sha256Of('x'), verdict: 'unsigned' })
  t.equal(ledger.validator('http://a/'), undefined)
  const validator = { etag: '"1"', lastModified: null, sha256: sha256Of('x'), bytes: 1 }
  ledger.rememberValidator('http://a/', validator)
  t.strictSame(ledger.validator('http://a/'), validator)
  t.end()
})

t.test('what was found out about a module counts for what it was held against', (t) => {
  const file = join(t.testdir(), 'ledger.db')
  const first = new Ledger(file)
  const sha256 = sha256Of('module')
  const module = {
    sha256,
    expected: '{"rawname":"core","version":"16.0.1"}',
    bytes: 7,
    rawname: 'core',
    version: '16.0.1',
    verdict: 'good',
    signer: 'ABCD',
    why: null,
    innerSha256: sha256Of('inner'),
    innerBytes: 5,
  } as const
  t.equal(first.moduleFile(sha256, module.expected), undefined)
  first.rememberModule(module)
  first.rememberModule({ ...module, expected: '{}', verdict: 'bad', signer: null, why: 'a signature of nobody' })
  first.close()
  const ledger = new Ledger(file)
  t.teardown(() => ledger.close())
  t.strictSame(ledger.moduleFile(sha256, module.expected), module)
  t.match(ledger.moduleFile(sha256, '{}'), { verdict: 'bad', signer: null, why: 'a signature of nobody' })
  t.strictSame([ledger.moduleBytes(sha256), ledger.moduleBytes(sha256Of('x'))], [7, undefined])
  t.equal(ledger.moduleFile(sha256, 'other'), undefined, 'of what was not looked at nothing is known')
  ledger.rememberModule({ ...module, signer: 'EF01' })
  t.equal(ledger.moduleFile(sha256, module.expected)?.signer, 'EF01', 'the last word counts')
  t.end()
})
