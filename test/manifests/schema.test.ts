import fc from 'fast-check'
import t from 'tap'
import * as typebox from 'typebox'
import { Check as typeboxCheck } from 'typebox/value'
import { Check, Default, Errors, Type, type Schema } from '../../manifests/schema.ts'

/** The same schema, made by this project and by the library that stands beside it. */
interface Twin {
  ours: Schema
  theirs: typebox.TSchema
}

/** Names that every object inherits stand in documents only: as optional properties the library takes them for given. */
const name = fc.constantFrom('a', 'b', 'ab', '')
const key = fc.oneof(name, fc.constantFrom('__proto__', 'toString'))
/** ASCII: the library counts other characters by its own rules. */
const text = fc.oneof(key, fc.string({ unit: 'binary-ascii', maxLength: 4 }))

const leaf: fc.Arbitrary<Twin> = fc.oneof(
  fc
    .record(
      { minLength: fc.nat(2), maxLength: fc.nat(4), pattern: fc.constantFrom('^[a-z]*$', '^[ab]{1,2}$', '^\\S') },
      { requiredKeys: [] },
    )
    .map((o) => ({ ours: Type.String(o), theirs: typebox.Type.String(o) })),
  fc
    .record({ minimum: fc.nat(3), maximum: fc.nat(5) }, { requiredKeys: [] })
    .chain((o) =>
      fc.constantFrom<Twin>(
        { ours: Type.Integer(o), theirs: typebox.Type.Integer(o) },
        { ours: Type.Number(o), theirs: typebox.Type.Number(o) },
      ),
    ),
  fc.constantFrom<Twin>(
    { ours: Type.Boolean(), theirs: typebox.Type.Boolean() },
    { ours: Type.Null(), theirs: typebox.Type.Null() },
  ),
  fc.constantFrom('a', 1, true).map((value) => ({ ours: Type.Literal(value), theirs: typebox.Type.Literal(value) })),
)

const { twin } = fc.letrec<{ twin: Twin }>((tie) => ({
  twin: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc.array(tie('twin'), { minLength: 1, maxLength: 3 }).map((many) => ({
      ours: Type.Union(many.map(({ ours }) => ours)),
      theirs: typebox.Type.Union(many.map(({ theirs }) => theirs)),
    })),
    fc
      .tuple(
        tie('twin'),
        fc.record({ minItems: fc.nat(2), maxItems: fc.nat(3), uniqueItems: fc.boolean() }, { requiredKeys: [] }),
      )
      .map(([{ ours, theirs }, o]) => ({ ours: Type.Array(ours, o), theirs: typebox.Type.Array(theirs, o) })),
    fc
      .tuple(fc.dictionary(name, fc.tuple(tie('twin'), fc.boolean())), fc.boolean())
      .map(([parts, isStrict]) => objects(parts, isStrict)),
    fc
      .tuple(
        tie('twin'),
        fc.constantFrom(undefined, '^a'),
        fc.record({ minProperties: fc.nat(2), maxProperties: fc.nat(3) }, { requiredKeys: [] }),
      )
      .map(([value, pattern, o]) => records(value, pattern, o)),
  ),
}))

function objects(parts: Record<string, [Twin, boolean]>, isStrict: boolean): Twin {
  const options = isStrict ? { additionalProperties: false as const } : {}
  const ours = Object.entries(parts).map(([name, [one, isOptional]]) => [
    name,
    isOptional ? Type.Optional(one.ours) : one.ours,
  ])
  const theirs = Object.entries(parts).map(([name, [one, isOptional]]) => [
    name,
    isOptional ? typebox.Type.Optional(one.theirs) : one.theirs,
  ])
  return {
    ours: Type.Object(Object.fromEntries(ours) as Record<string, Schema>, options),
    theirs: typebox.Type.Object(Object.fromEntries(theirs) as typebox.TProperties, options),
  }
}

function records(value: Twin, pattern: string | undefined, options: object): Twin {
  const shape = pattern === undefined ? {} : { pattern }
  return {
    ours: Type.Record(Type.String(shape), value.ours, options),
    theirs: typebox.Type.Record(typebox.Type.String({ pattern: pattern ?? '^[^]*$' }), value.theirs, {
      ...options,
      additionalProperties: false,
    }),
  }
}

const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.oneof(text, fc.integer({ min: -1, max: 6 }), fc.constantFrom(null, true, false, 0.5)),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(key, tie('value'), { maxKeys: 4 }),
  ),
}))

t.test('admits what the library admits that it stands in for, and nothing else', (t) => {
  let admitted = 0
  fc.assert(
    fc.property(twin, value, ({ ours, theirs }, given) => {
      // As it comes from a parser: `__proto__` is a key like others.
      const document: unknown = JSON.parse(JSON.stringify(given))
      const isValid = typeboxCheck(theirs, document)
      if (isValid) admitted++
      if (Check(ours, document) !== isValid) throw new Error(`the library says ${isValid}`)
      if ((Errors(ours, document).length === 0) !== isValid) throw new Error('Errors and Check differ')
    }),
    { numRuns: 20_000 },
  )
  t.ok(admitted > 100, `both answers were given: ${admitted}`)
  t.end()
})

t.test('says what is wrong and where', (t) => {
  const schema = Type.Object(
    {
      name: Type.String({ pattern: '^[a-z]+$' }),
      sites: Type.Array(Type.Object({ n: Type.Integer() })),
      e: Type.Union([Type.Literal('x'), Type.Null()]),
    },
    { additionalProperties: false },
  )
  t.strictSame(Errors(schema, { name: 'A', sites: [{ n: 1 }, { n: '1' }], e: 'y', more: 1 }), [
    { keyword: 'pattern', instancePath: '/name', message: 'must match "^[a-z]+$"' },
    { keyword: 'type', instancePath: '/sites/1/n', message: 'must be integer' },
    { keyword: 'anyOf', instancePath: '/e', message: 'must be one of "x", "null"' },
    {
      keyword: 'additionalProperties',
      instancePath: '',
      message: 'must not have additional properties',
      additionalProperties: ['more'],
    },
  ])
  t.match(Errors(schema, {}), [{ keyword: 'required', message: 'must have name, sites, e' }])
  t.equal(Errors(Type.Array(Type.Null()), Array(5000).fill(1)).length, 1000, 'a hostile document makes no endless list')
  t.end()
})

t.test('fills in defaults, inside of what is there and of what was filled in', (t) => {
  const inner = Type.Object({ n: Type.Integer({ default: 1 }), o: Type.Optional(Type.String()) }, { default: {} })
  const schema = Type.Object({ inner, list: Type.Array(inner, { default: [] }) })
  t.strictSame(Default(schema, {}), { inner: { n: 1 }, list: [] })
  t.strictSame(Default(schema, { inner: { n: 2, o: 'x' }, list: [{}, 'other'] }), {
    inner: { n: 2, o: 'x' },
    list: [{ n: 1 }, 'other'],
  })
  t.equal(Default(schema, 'text'), 'text')
  t.not(Default(inner, undefined), inner.default, 'a default is not handed out to be changed')
  t.end()
})
