import fc from 'fast-check'
import t from 'tap'
import { canonicalJson, isCanonicalJson } from '../../manifests/json.ts'

t.test('says of each spelling whether it is the canonical one', (t) => {
  const good = ['{"a":1,"b":["x",null,true]}', '{"10":1,"9":2}', '{"a\\\\b":"\\""}', '[]', '"\u007f\u2028é"', '{"":{}}']
  for (const text of good) t.ok(isCanonicalJson(JSON.parse(text), Buffer.from(text)), encodeURI(text))
  const bad = [
    '{"b":1,"a":2}',
    '{"9":2,"10":1}',
    '{"a": 1}',
    '{"a":1,"a":1}',
    '"\\u0041"',
    '"a\\n"',
    '1e3',
    '-0',
    '[1 ]',
  ]
  for (const text of bad) t.notOk(isCanonicalJson(JSON.parse(text), Buffer.from(text)), encodeURI(text))
  t.notOk(isCanonicalJson({ a: 1 }, Buffer.from('\ufeff{"a":1}')), 'a byte order mark')
  t.throws(() => isCanonicalJson(1.5, Buffer.from('1.5')), 'canonical JSON has no fractions')
  t.end()
})

t.test('agrees with the long way, whatever the document', (t) => {
  const whole = (_: string, value: unknown): unknown => (typeof value === 'number' ? Math.trunc(value) % 1000 : value)
  const json = fc.json().map((text) => JSON.stringify(JSON.parse(text, whole)))
  fc.assert(
    fc.property(json, (text) => {
      const value: unknown = JSON.parse(text)
      const canonical = canonicalJson(value)
      if (!isCanonicalJson(value, canonical)) throw new Error('its own spelling is refused')
      const given = Buffer.from(text)
      if (isCanonicalJson(value, given) !== canonical.equals(given)) throw new Error('the ways differ')
    }),
    { numRuns: 2000 },
  )
  t.end()
})
