import t from 'tap'
import { moduleChain, moduleReason, type ExplainedModule } from '../../../bundler/modules/render-modules.ts'
import { boxOf, feedOf, listed, needing, resolve, type Asked } from '../../helpers/module-world.ts'

const BASE = ['framework 16.0.40', 'core 16.0.70']

function explained(asked: Asked): ExplainedModule[] {
  return resolve(asked).carried.map(({ entry, reason, because }) => {
    return { rawname: entry.rawname, version: entry.version, reason, because }
  })
}

function reasons(modules: readonly ExplainedModule[]): Record<string, string> {
  return Object.fromEntries(modules.map((one) => [`${one.rawname} ${one.version}`, moduleReason(one)]))
}

t.test('each reason has its words', (t) => {
  const list = feedOf(
    [
      ...BASE,
      needing('a 2.0', 'b ge 1.0'),
      'b 1.0',
      'c 1.0',
      listed('d 1.5', { section: 'previous' }),
      'e 1.0',
      'f 2.0',
      'g 2.0',
      listed('g 2.1', { section: 'edge' }),
    ],
    { 'SEC-1': { f: '1.5' } },
  )
  const has = [...BASE, 'd 1.0', 'e 1.0', 'f 1.0 disabled', 'g 1.9']
  const modules = explained({
    list,
    boxes: [
      boxOf('one', [...has, 'a 1.0']),
      boxOf('two', [...has, 'a 1.1']),
      boxOf('three', [...BASE, 'a 1.2', 'g 2.0'], { edge: true }),
    ],
    policy: { c: 'want', d: 'pin 1.5' },
    before: { e: '1.0' },
  })
  t.strictSame(reasons(modules), {
    'a 2.0': 'newer than 1.0 on one and 2 other boxes',
    'b 1.0': 'a needs b ge 1.0 on one and 2 other boxes',
    'c 1.0': 'wanted by policy',
    'core 16.0.70': 'always listed: boxes repair themselves with it',
    'd 1.5': 'pinned by policy; newer than 1.0 on one and one other box',
    'e 1.0': 'carried before, and still the newest of what is on one and one other box',
    'f 2.0': 'ends SEC-1 in 1.0, which is not running on one and one other box',
    'framework 16.0.40': 'always listed: boxes repair themselves with it',
    'g 2.0': 'newer than 1.9 on one and one other box',
    'g 2.1': 'newer than 2.0 on three',
  })
  t.end()
})

t.test('an entry that stands beside an edge build alone says so', (t) => {
  const list = feedOf([...BASE, 'g 2.0', listed('g 2.1', { section: 'edge' })])
  const boxes = [boxOf('one', [...BASE, 'g 1.0'], { edge: true }), boxOf('two', [...BASE, 'g 2.0'])]
  const modules = explained({ list, boxes })
  t.equal(reasons(modules)['g 2.0'], 'listed beside its edge 2.1 build')
  t.strictSame(
    moduleChain(
      { modules },
      modules.find(({ version }) => version === '2.0')!,
    ),
    ['g 2.0: listed beside its edge 2.1 build', 'g 2.1: newer than 1.0 on one'],
  )
  t.end()
})

t.test('a chain leads to what is carried for itself, also where demands run in circles', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b'), needing('b 1.0', 'c'), needing('c 1.0', 'b', 'a ge 2.0')])
  const modules = explained({ list, boxes: [boxOf('one', [...BASE, 'a 1.0'])] })
  t.strictSame(
    moduleChain(
      { modules },
      modules.find(({ rawname }) => rawname === 'c')!,
    ),
    ['c 1.0: b needs c on one', 'b 1.0: a needs b on one', 'a 2.0: newer than 1.0 on one'],
  )
  const loop: ExplainedModule[] = ['x', 'y'].map((rawname, i) => {
    return { rawname, version: '1', reason: 'dependency', because: { by: i === 0 ? 'y' : 'x', boxes: 1 } }
  })
  t.equal(moduleChain({ modules: loop }, loop[0]!).length, 2)
  t.end()
})

t.test('a text of the list plays no tricks on the terminal', (t) => {
  const because = { by: 'a', requirement: 'b\u001b[2K', box: 'one', boxes: 1 }
  t.equal(moduleReason({ rawname: 'b', reason: 'dependency', because }), 'a needs b\\x1b[2K on one')
  t.end()
})
