/**
 * A thousand random boxes: what libsolv does with what is carried for one comes to the same as what it does with all that
 * is offered. Half of them over the lab's repository, half in worlds that nobody planned. Seeded: a number below is a box.
 */
import { join } from 'node:path'
import pLimit from 'p-limit'
import t from 'tap'
import { judge, type Solved, type Verdict } from '../../bundler/yum/solver-case.ts'
import { formatNevra } from '../../manifests/rpm-version.ts'
import { labWorld, wildWorld, type RandomWorld, type SizedPackage } from '../helpers/random-world.ts'
import { testsolv } from '../helpers/testsolv.ts'
import { factsOf, resolveUniverse, type UniversePackage } from '../helpers/universe.ts'

const BOXES = 500
const PARALLEL = 3
/** Three thousand runs of testsolv, on a busy machine. */
t.setTimeout(900_000)

for (const [what, worldOf] of Object.entries({ 'the lab repository': labWorld, 'wild worlds': wildWorld })) {
  t.test(`${BOXES} random boxes over ${what}`, async (t) => {
    const dir = t.testdir()
    const limit = pLimit(PARALLEL)
    const seeds = Array.from({ length: BOXES }, (_, seed) => seed)
    const all = await Promise.all(
      seeds.map((seed) => limit(async () => ({ seed, ...(await compare(join(dir, String(seed)), worldOf(seed))) }))),
    )
    const count = (verdict: Verdict): number => all.filter((one) => one.verdict === verdict).length
    const sum = (figure: 'carried' | 'needed' | 'carriedBytes' | 'neededBytes' | 'failing'): number =>
      all.reduce((total, one) => total + one[figure], 0)
    t.comment(`${count('same')} the same transaction, ${count('other')} another choice of the same outcome`)
    t.comment(`others: ${all.flatMap(({ seed, verdict }) => (verdict === 'other' ? [seed] : [])).join(' ')}`)
    t.comment(`${sum('carried')} packages carried, ${sum('needed')} needed: ${ratio(sum('carried'), sum('needed'))}`)
    t.comment(
      `${sum('carriedBytes')} bytes carried, ${sum('neededBytes')} needed: ${ratio(sum('carriedBytes'), sum('neededBytes'))}`,
    )
    t.ok(sum('needed') > BOXES, 'most boxes have something to update')
    t.same(
      all.filter(({ verdict }) => verdict === 'differs').map(({ seed }) => seed),
      [],
      'boxes whose update has another outcome',
    )
  })
}

interface Compared {
  verdict: Verdict
  carried: number
  needed: number
  carriedBytes: number
  neededBytes: number
  failing: number
}

async function compare(dir: string, { installed, available }: RandomWorld): Promise<Compared> {
  const kept = new Set(resolveUniverse({ installed, available }, { manager: 'dnf' }).carried)
  const carried = available.filter((one) => kept.has(nevraOf(one)))
  const whole = await testsolv(join(dir, 'whole'), { installed, available })
  const part = await testsolv(join(dir, 'part'), { installed, available: carried })
  const verdict = await judge(whole, part, (done) =>
    testsolv(join(dir, 'then'), { installed: after(installed, available, done), available }),
  )
  const added = new Set(whole.added)
  const needed = available.filter((one) => added.has(nevraOf(one)))
  const bytes = (some: SizedPackage[]): number => some.reduce((total, one) => total + one.bytes, 0)
  return {
    verdict,
    carried: carried.length,
    needed: needed.length,
    carriedBytes: bytes(carried),
    neededBytes: bytes(needed),
    failing: whole.problems.length > 0 ? 1 : 0,
  }
}

function after(
  installed: readonly UniversePackage[],
  available: readonly UniversePackage[],
  { removed, added }: Solved,
): UniversePackage[] {
  const [gone, come] = [new Set(removed), new Set(added)]
  return [...installed.filter((one) => !gone.has(nevraOf(one))), ...available.filter((one) => come.has(nevraOf(one)))]
}

function nevraOf(one: UniversePackage): string {
  return formatNevra(factsOf(one))
}

function ratio(a: number, b: number): string {
  return (a / b).toFixed(3)
}
