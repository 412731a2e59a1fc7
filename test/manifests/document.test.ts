import fc from 'fast-check'
import t from 'tap'
import * as v from 'valibot'
import { describeFault, dictionary, distinct, faultOf, strictObject } from '../../manifests/document.ts'

const Schema = strictObject({
  name: v.pipe(v.string(), v.minLength(2), v.maxLength(8), v.regex(/^[a-z]+$/)),
  sites: v.exactOptional(
    v.pipe(v.array(strictObject({ n: v.pipe(v.number(), v.integer(), v.maxValue(9)) })), v.maxLength(2), distinct()),
  ),
  is: v.exactOptional(v.boolean()),
  files: v.exactOptional(
    dictionary(v.pipe(v.string(), v.regex(/^[a-z]+$/)), v.nullable(strictObject({ o: v.exactOptional(v.string()) }))),
  ),
  key: v.exactOptional(
    v.variant('type', [
      v.strictObject({ type: v.literal('a'), x: v.number() }),
      v.strictObject({ type: v.literal('b') }),
    ]),
  ),
  role: v.exactOptional(v.picklist(['one', 'two'])),
  format: v.exactOptional(v.literal(1)),
})

t.test('says what is wrong first, and where', (t) => {
  const said: [unknown, string][] = [
    [[], '/ must be an object'],
    [null, '/ must be an object'],
    [{}, '/ must have "name"'],
    [{ nmae: 'ab' }, '/ must not have the key "nmae"'],
    [{ name: 1 }, '/name must be a string'],
    [{ name: 'a' }, '/name must not have fewer than 2 characters'],
    [{ name: 'a'.repeat(9) }, '/name must not have more than 8 characters'],
    [{ name: 'AB' }, '/name must match /^[a-z]+$/'],
    [{ name: 'ab', sites: {} }, '/sites must be a list'],
    [{ name: 'ab', sites: [{ n: 1 }, { n: '1' }] }, '/sites/1/n must be a number'],
    [{ name: 'ab', sites: [{ n: 1.5 }] }, '/sites/0/n must be an integer'],
    [{ name: 'ab', sites: [{ n: 10 }] }, '/sites/0/n must be at most 9'],
    [{ name: 'ab', sites: [{ n: 1 }, { n: 2, m: 1 }] }, '/sites/1 must not have the key "m"'],
    [{ name: 'ab', sites: [{ n: 1 }, { n: 2 }, { n: 3 }] }, '/sites must not have more than 2 items'],
    [{ name: 'ab', sites: [{ n: 1 }, { n: 1 }] }, '/sites must not have an item twice'],
    [{ name: 'ab', is: 0 }, '/is must be true or false'],
    [{ name: 'ab', files: [] }, '/files must be an object'],
    [{ name: 'ab', files: { a: [] } }, '/files/a must be an object'],
    [{ name: 'ab', files: { a: { o: 1 } } }, '/files/a/o must be a string'],
    [{ name: 'ab', files: { A: null } }, '/files must not have the key "A": a key must match /^[a-z]+$/'],
    [{ name: 'ab', key: 1 }, '/key must be an object'],
    [{ name: 'ab', key: [] }, '/key/type must be one of "a", "b"'],
    [{ name: 'ab', key: { type: 'c' } }, '/key/type must be one of "a", "b"'],
    [{ name: 'ab', key: { type: 'a' } }, '/key must have "x"'],
    [{ name: 'ab', key: { type: 'b', y: 1 } }, '/key must not have the key "y"'],
    [{ name: 'ab', role: 'three' }, '/role must be one of "one", "two"'],
    [{ name: 'ab', format: 2 }, '/format must be 1'],
    [{ name: 'ab', ['x'.repeat(5000)]: 1 }, `/ must not have the key "${'x'.repeat(200)}"`],
  ]
  for (const [document, text] of said) {
    t.notOk(v.is(Schema, document), text)
    t.equal(describeFault(Schema, document), text)
  }
  t.throws(() => describeFault(Schema, { name: 'ab' }))
  t.end()
})

t.test('names what is known where a key is not', (t) => {
  const result = v.safeParse(Schema, { name: 'ab', sites: [{ m: 1 }] }, { abortEarly: true })
  t.strictSame(faultOf(result.issues![0]), {
    path: ['sites', 0],
    message: 'must not have the key "m"',
    unknown: { key: 'm', known: ['n'] },
  })
  t.end()
})

t.test('further keys are those of the pattern, with values that are checked', (t) => {
  const schema = strictObject({ name: v.string() }, { key: /^x-[a-z]+$/, value: v.string() })
  t.ok(v.is(schema, { name: 'a', 'x-b': 'c' }))
  t.equal(describeFault(schema, { name: 'a', 'x-b': 1 }), '/x-b must be a string')
  t.equal(describeFault(schema, { name: 'a', b: '1' }), '/ must not have the key "b"')
  t.end()
})

t.test('no key is passed over, whatever it is called', (t) => {
  const Counts = dictionary(v.string(), v.number())
  for (const key of ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'length', '0']) {
    const document: unknown = JSON.parse(`{"name":"ab",${JSON.stringify(key)}:1}`)
    t.equal(describeFault(Schema, document), `/ must not have the key "${key}"`)
    t.equal(describeFault(Counts, JSON.parse(`{${JSON.stringify(key)}:"1"}`)), `/${key} must be a number`)
    const counts: unknown = JSON.parse(`{${JSON.stringify(key)}:1}`)
    t.strictSame(Object.keys(v.parse(Counts, counts)), [key])
  }
  t.end()
})

t.test('a dictionary admits an object of admitted keys and values, and nothing else', (t) => {
  const schema = dictionary(v.pipe(v.string(), v.regex(/^[a-z_]*$/)), v.number())
  const key = fc.oneof(fc.constantFrom('__proto__', 'constructor', 'A', ''), fc.string({ maxLength: 2 }))
  fc.assert(
    fc.property(fc.array(fc.tuple(key, fc.oneof(fc.nat(), fc.string()))), (entries) => {
      const given = Object.fromEntries(entries)
      const isValid = Object.entries(given).every(([name, one]) => /^[a-z_]*$/.test(name) && typeof one === 'number')
      return v.is(schema, given) === isValid && v.safeParse(schema, given).success === isValid
    }),
  )
  t.end()
})

t.test('a hostile document costs no more than its bytes', (t) => {
  const wrong = Array.from({ length: 100_000 }, () => ({ n: 'x' }))
  const result = v.safeParse(Schema, { name: 'ab', sites: wrong }, { abortEarly: true })
  t.equal(result.issues?.length, 1)
  const keys = Object.fromEntries(wrong.map((one, i) => [`k${i}`, one]))
  t.equal(v.safeParse(Schema, { name: 'ab', files: keys }, { abortEarly: true }).issues?.length, 1)
  t.end()
})
