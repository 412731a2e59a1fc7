import * as fc from 'fast-check'
import t from 'tap'
import { isGapferryError } from '../../manifests/errors.ts'
import { canonicalJson } from '../../manifests/json.ts'
import type { TreePath } from '../../manifests/path.ts'
import { parseSiteFacts, serializeSiteFacts, type SiteFacts } from '../../manifests/site.ts'

const facts: SiteFacts = {
  site: 'hq',
  number: 7,
  createdAt: '2026-11-22T12:00:00Z',
  groups: new Map([
    ['pbx', { origin: 'http://mirror.hq.lan:8416', yum: ['sng-pkgs', 'base'], files: ['firmware/x.bin' as TreePath] }],
    ['old', { origin: 'https://10.0.0.1', yum: [], files: [] }],
  ]),
}

t.test('reads back what it writes', (t) => {
  const found = parseSiteFacts(serializeSiteFacts(facts))
  t.strictSame(Object.fromEntries(found.groups), Object.fromEntries(facts.groups))
  t.strictSame({ ...found, groups: 0 }, { ...facts, groups: 0 })
  t.end()
})

t.test('a group may be called like what every object has', (t) => {
  const group = { origin: 'http://a', yum: [], files: [] }
  const groups = new Map(['constructor', 'prototype'].map((name) => [name, group]))
  t.strictSame([...parseSiteFacts(serializeSiteFacts({ ...facts, groups })).groups], [...groups])
  t.end()
})

t.test('writes the document of FORMAT.md', (t) => {
  t.strictSame(JSON.parse(serializeSiteFacts(facts).toString()), {
    _type: 'gapferry-site',
    format: 1,
    site: 'hq',
    number: 7,
    createdAt: '2026-11-22T12:00:00Z',
    groups: {
      old: { files: [], origin: 'https://10.0.0.1', yum: [] },
      pbx: {
        files: ['firmware/x.bin'],
        origin: 'http://mirror.hq.lan:8416',
        yum: [{ id: 'sng-pkgs' }, { id: 'base' }],
      },
    },
  })
  t.end()
})

t.test('refuses to write what it would not read', (t) => {
  t.throws(() => serializeSiteFacts({ ...facts, site: 'no site' }), { code: 'SITE_FACTS_INVALID' })
  t.throws(() => serializeSiteFacts({ ...facts, createdAt: 'today' }), { code: 'SITE_FACTS_INVALID' })
  t.end()
})

t.test('refuses what is not exactly so', (t) => {
  const good = JSON.parse(serializeSiteFacts(facts).toString()) as { groups: Record<string, object> }
  const group = (change: object): object => ({ ...good, groups: { pbx: { ...good.groups['pbx'], ...change } } })
  const docs: unknown[] = [
    null,
    [],
    { ...good, extra: 1 },
    { ...good, _type: 'gapferry-tree' },
    { ...good, format: 2 },
    { ...good, site: '' },
    { ...good, site: 'a/b' },
    { ...good, number: 0 },
    { ...good, number: '7' },
    { ...good, createdAt: '2026-11-22' },
    { ...good, createdAt: '2026-02-30T12:00:00Z' },
    { ...good, createdAt: '2026-11-22T12:00:00.5Z' },
    { ...good, groups: [] },
    { ...good, groups: { '../x': good.groups['pbx'] } },
    { ...good, groups: { constructor: 1 } },
    group({ origin: 'http://mirror.hq.lan:8416/' }),
    group({ origin: 'http://mirror.hq.lan:80' }),
    group({ origin: 'http://user@mirror.hq.lan' }),
    group({ origin: 'http://mirror.hq.lan/path' }),
    group({ origin: 'HTTP://mirror.hq.lan' }),
    group({ origin: 'ftp://mirror.hq.lan' }),
    group({ origin: 'http://' }),
    group({ origin: 'http://[::1' }),
    group({ origin: 5 }),
    group({ yum: ['base'] }),
    group({ yum: [{ id: '../base' }] }),
    group({ yum: [{ id: 'base', more: 1 }] }),
    group({ yum: [{ id: 'base' }, { id: 'base' }] }),
    group({ files: ['../x'] }),
    group({ files: ['/x'] }),
    group({ more: 1 }),
  ]
  for (const doc of docs)
    t.throws(
      () => parseSiteFacts(canonicalJson(doc)),
      { code: 'SITE_FACTS_INVALID' },
      JSON.stringify(doc).slice(0, 200),
    )
  for (const text of ['', '{', JSON.stringify(good, null, 1), `${canonicalJson(good).toString()}\n`]) {
    t.throws(() => parseSiteFacts(Buffer.from(text)), { code: 'SITE_FACTS_INVALID' })
  }
  t.throws(() => parseSiteFacts(Buffer.from([0xff])), { code: 'SITE_FACTS_INVALID' })
  t.throws(() => parseSiteFacts(Buffer.alloc(2 ** 20 + 1, ' ')), { code: 'SITE_FACTS_INVALID' })
  t.end()
})

t.test('a key that is given twice hides nothing', (t) => {
  const text = serializeSiteFacts(facts).toString().replace('"number":7', '"number":8,"number":7')
  t.throws(() => parseSiteFacts(Buffer.from(text)), { code: 'SITE_FACTS_INVALID' })
  t.end()
})

t.test('never throws anything else, and has one spelling', (t) => {
  const good = serializeSiteFacts(facts)
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json().map((text) => Buffer.from(text)),
        fc.nat(good.length * 8 - 1),
      ),
      (input) => {
        const bytes = typeof input === 'number' ? Buffer.from(good) : input
        if (typeof input === 'number') bytes[input >> 3]! ^= 1 << (input & 7)
        try {
          return serializeSiteFacts(parseSiteFacts(bytes)).equals(bytes)
        } catch (error) {
          return isGapferryError(error)
        }
      },
    ),
    { numRuns: 500 },
  )
  t.end()
})
