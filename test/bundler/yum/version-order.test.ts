import * as fc from 'fast-check'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { VersionOrder } from '../../../bundler/yum/version-order.ts'
import { StringPool, tableOf } from '../../../manifests/package-table.ts'
import { compareEvr, rangesOverlap, type Relation } from '../../../manifests/rpm-version.ts'

const vectors = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), 'utf8'))

t.test('orders builds in a table as rpm orders them', (t) => {
  for (const [a, b] of vectors('evr') as [string[], string[]][])
    t.equal(compared(a, b), compareEvr(evr(a), evr(b)), `${a} ${b}`)
  t.end()
})

t.test('matches relations in a table as rpm matches them', (t) => {
  const relation = fc.record({
    name: fc.constant('x'),
    flags: fc.constantFrom('EQ', 'LT', 'LE', 'GT', 'GE', undefined),
    epoch: fc.constantFrom('', '0', '1'),
    version: fc.constantFrom('', '1', '1.0', '2', '01'),
    release: fc.constantFrom('', '1', '2'),
  })
  fc.assert(
    fc.property(relation, relation, (a, b) => overlap(clean(a), clean(b)) === rangesOverlap(clean(a), clean(b))),
    { numRuns: 3000 },
  )
  t.end()
})

function compared(a: string[], b: string[]): number {
  const pool = new StringPool()
  const table = tableOf(
    pool,
    [a, b].map((one) => ({ name: 'x', epoch: one[0] ?? '', version: one[1]!, release: one[2] ?? '', arch: 'noarch' })),
  )
  return new VersionOrder(pool, true).compare(table, 0, table, 1)
}

function overlap(a: Relation, b: Relation): boolean {
  const pool = new StringPool()
  const base = { name: 'x', epoch: '0', version: '1', release: '1', arch: 'noarch' }
  const { provides } = tableOf(pool, [{ ...base, provides: [a, b] }])
  return new VersionOrder(pool, true).overlap(provides.sense[0]!, provides, 0, provides.sense[1]!, provides, 1)
}

function clean({ flags, ...rest }: { [K in keyof Relation]: Relation[K] | undefined }): Relation {
  return (flags === undefined ? { name: 'x' } : { ...rest, flags, name: 'x' }) as Relation
}

function evr(one: string[]): [string | null, string, string] {
  return [one[0] ?? null, one[1]!, one[2]!]
}
