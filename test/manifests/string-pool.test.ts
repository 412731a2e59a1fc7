import * as fc from 'fast-check'
import t from 'tap'
import { EMPTY, StringPool } from '../../manifests/string-pool.ts'

t.test('numbers each text once, in the order they come', async () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '\u{1f600}', '\0', ' '), maxLength: 3 })
  fc.assert(
    fc.property(fc.array(text, { maxLength: 60 }), (texts) => {
      const pool = new StringPool()
      const numbers = new Map<string, number>([['', EMPTY]])
      for (const one of texts) {
        const isNew = pool.find(one) === undefined
        if (isNew === numbers.has(one)) throw new Error(`"${one}" is ${isNew ? 'not there' : 'there'}`)
        if (isNew) numbers.set(one, numbers.size)
        const bytes = Buffer.from(`<${one}>`)
        const number = pool.internBytes(bytes, 1, bytes.length - 1)
        if (number !== numbers.get(one) || pool.intern(one) !== number || pool.text(number) !== one) {
          throw new Error(`"${one}" is number ${number}, "${pool.text(number)}"`)
        }
      }
      return pool.size === numbers.size
    }),
  )
})

t.test('keeps numbers and texts while it grows', async (t) => {
  const pool = new StringPool()
  const count = 20_000
  for (let i = 1; i <= count; i++) pool.intern(`text ${i}`)
  t.equal(pool.size, count + 1)
  const isKept = Array.from({ length: count }, (_, i) => i + 1).every(
    (i) => pool.text(i) === `text ${i}` && pool.find(`text ${i}`) === i,
  )
  t.ok(isKept)
  const long = 'é'.repeat(100_000)
  t.equal(pool.text(pool.intern(long)), long)
  t.equal(pool.find('text 0'), undefined)
  t.equal(pool.find('toString'), undefined)
  t.equal(pool.intern(''), EMPTY)
})
