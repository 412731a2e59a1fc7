import * as fc from 'fast-check'
import t from 'tap'
import type { Sha256 } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { parsePartHint, partHolding, serializePartHint, type PartHint } from '../../manifests/part-hint.ts'

const digest = (digit: string): Sha256 => digit.repeat(64) as Sha256
const hint: PartHint = {
  site: 'hq',
  number: 7,
  part: 2,
  parts: [{ first: digest('0'), last: digest('4') }, null, { first: digest('6'), last: digest('9') }],
}

t.test('reads back what it writes', (t) => {
  t.strictSame(parsePartHint(serializePartHint(hint)), hint)
  t.end()
})

t.test('says which file should hold a blob', (t) => {
  t.equal(partHolding(hint, digest('0')), 'hq-7-1of3.tar')
  t.equal(partHolding(hint, digest('4')), 'hq-7-1of3.tar')
  t.equal(partHolding(hint, digest('7')), 'hq-7-3of3.tar')
  t.equal(partHolding(hint, digest('5')), undefined)
  t.equal(partHolding(hint, digest('f')), undefined)
  t.equal(partHolding({ ...hint, part: 1, parts: [hint.parts[0]!] }, digest('1')), 'hq-7.tar')
  t.end()
})

t.test('the largest hint fits its limit', (t) => {
  const range = { first: digest('f'), last: digest('f') }
  const parts = Array.from({ length: 256 }, () => range)
  const largest = { site: 'x'.repeat(64), number: 2 ** 40, part: 256, parts }
  t.strictSame(parsePartHint(serializePartHint(largest)), largest)
  t.end()
})

t.test('refuses what it would not write', (t) => {
  const good = JSON.parse(serializePartHint(hint).toString()) as Record<string, unknown>
  const { site: _, ...withoutSite } = good
  const docs: unknown[] = [
    null,
    [],
    'text',
    withoutSite,
    { ...good, extra: 1 },
    { ...good, _type: 'gapferry-tree' },
    { ...good, format: 2 },
    { ...good, site: '../x' },
    { ...good, number: 0 },
    { ...good, number: '7' },
    { ...good, part: 4 },
    { ...good, part: 0 },
    { ...good, parts: [] },
    { ...good, parts: [{ first: digest('a') }] },
    { ...good, parts: [{ first: 'A'.repeat(64), last: digest('a') }] },
    { ...good, parts: Array.from({ length: 257 }, () => null) },
  ]
  for (const doc of docs)
    t.throws(() => parsePartHint(canonicalJson(doc)), { code: 'BUNDLE_HINT_INVALID' }, JSON.stringify(doc).slice(0, 80))
  const texts = ['', '{', `${canonicalJson(good).toString()} `, JSON.stringify(good, null, 1), '\ufeff{}']
  for (const text of texts)
    t.throws(() => parsePartHint(Buffer.from(text)), { code: 'BUNDLE_HINT_INVALID' }, text.slice(0, 80))
  t.throws(() => parsePartHint(Buffer.from([0xff, 0xfe])), { code: 'BUNDLE_HINT_INVALID' })
  t.throws(() => parsePartHint(Buffer.alloc(65_537, ' ')), { code: 'BUNDLE_HINT_INVALID' })
  t.end()
})

t.test('never throws anything else, and has one spelling', (t) => {
  const anyJson = fc.json().map((text) => Buffer.from(text))
  const mutated = fc.nat(serializePartHint(hint).length - 1).chain((at) =>
    fc.nat(7).map((bit) => {
      const bytes = serializePartHint(hint)
      bytes[at]! ^= 1 << bit
      return bytes
    }),
  )
  fc.assert(
    fc.property(fc.oneof(anyJson, mutated), (bytes) => {
      try {
        return serializePartHint(parsePartHint(bytes)).equals(bytes)
      } catch (error) {
        return isGapferryError(error)
      }
    }),
  )
  t.end()
})
