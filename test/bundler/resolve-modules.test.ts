import t from 'tap'
import { parseModuleFeed } from '../../manifests/module-feed.ts'
import { boxOf, carriedIn, feedOf, listed, needing, resolve } from '../helpers/module-world.ts'

const BASE = ['framework 16.0.40', 'core 16.0.70']
const ALWAYS = ['core 16.0.70 always', 'framework 16.0.40 always']

t.test('carries upgrades of what a box has enabled, and nothing that it has as new or newer', (t) => {
  const list = feedOf([...BASE, 'a 2.0', 'b 2.0', 'c 2.0', 'd 2.0'])
  const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0', 'b 2.0', 'c 3.0'])] })
  t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', ...ALWAYS])
  t.strictSame(resolved.boxes[0]!.upgrades, [{ rawname: 'a', from: '1.0', to: '2.0' }])
  t.strictSame(resolved.boxes[0]!.additions, [])
  t.end()
})

t.test('the states of which a box takes upgrades are enabled and needs-upgrade', (t) => {
  const list = feedOf([...BASE, 'a 2.0'])
  const cases: [string, string[]][] = [
    ['a 1.0 enabled', ['a 2.0 upgrade']],
    ['a 1.0 needs-upgrade', ['a 2.0 upgrade']],
    ['a 2.0 needs-upgrade', ['a 2.0 upgrade']],
    ['a 3.0 needs-upgrade', []],
    ['a 1.0 disabled', []],
    ['a 1.0 broken', []],
    ['a 1.0 not-installed', []],
    ['a 1.0 unknown', ['a 2.0 upgrade']],
  ]
  for (const [module, expected] of cases) {
    const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, module])] })
    t.strictSame(carriedIn(resolved), [...expected, ...ALWAYS], module)
  }
  t.end()
})

t.test('upgrades stand in the order in which a box takes them', (t) => {
  const list = feedOf(['sipsettings 2.0', 'framework 2.0', 'a 2.0', 'core 2.0', 'z 2.0'])
  const resolved = resolve({
    list,
    boxes: [boxOf('one', ['a 1.0', 'core 1.0', 'framework 1.0', 'sipsettings 1.0', 'z 1.0'])],
  })
  t.strictSame(
    resolved.boxes[0]!.upgrades.map(({ rawname }) => rawname),
    ['framework', 'core', 'sipsettings', 'a', 'z'],
  )
  t.end()
})

t.test('what an upgrade demands that the box lacks comes too, and what that demands', (t) => {
  const list = feedOf([
    ...BASE,
    needing('a 2.0', 'b', 'c ge 1.5'),
    needing('b 1.0', 'd ge 1.0'),
    'c 1.9',
    'd 1.1',
    'e 1.0',
  ])
  const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0', 'c 1.0 disabled'])] })
  t.strictSame(carriedIn(resolved), [
    'a 2.0 upgrade',
    'b 1.0 dependency',
    'c 1.9 dependency',
    ALWAYS[0],
    'd 1.1 dependency',
    ALWAYS[1],
  ])
  t.strictSame(resolved.boxes[0]!.unresolved, [])
  t.strictSame(resolved.boxes[0]!.installs, [
    { rawname: 'b', version: '1.0', by: 'a' },
    { rawname: 'c', version: '1.9', by: 'a' },
    { rawname: 'd', version: '1.1', by: 'b' },
  ])
  t.end()
})

t.test('an upgrade that demands more of what the box has finds that too', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b ge 1.5'), 'b 1.6', needing('c 1.1', 'b ge 1.7')])
  const boxes = [boxOf('one', [...BASE, 'a 1.0', 'b 1.0', 'c 1.0'])]
  const resolved = resolve({ list, boxes })
  t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', 'b 1.6 upgrade', 'c 1.1 upgrade', ...ALWAYS])
  t.strictSame(resolved.boxes[0]!.unresolved, [
    { requirement: 'b ge 1.7', by: 'c', why: "the vendor's list has b 1.6; the box has 1.0", isWeekly: false },
  ])
  t.end()
})

t.test('a demand that stays unfulfilled is told with its cause', (t) => {
  const list = feedOf([
    ...BASE,
    needing('a 2.0', 'nowhere', 'blocked ge 1.0', 'pinned ge 2.0', 'old ge 3.0', 'new lt 2.0', 'odd GE 1.0'),
    'blocked 1.0',
    'pinned 2.5',
    listed('pinned 1.5', { section: 'previous' }),
    'old 2.0',
    'new 3.0',
    'odd 2.0',
  ])
  const boxes = [boxOf('one', [...BASE, 'a 1.0', 'new 3.0', 'odd 2.0'])]
  const resolved = resolve({ list, boxes, policy: { blocked: 'block', pinned: 'pin 1.5' } })
  t.strictSame(
    resolved.boxes[0]!.unresolved.map(({ requirement, why }) => [requirement, why]),
    [
      ['nowhere', "the vendor's list has no nowhere"],
      ['blocked ge 1.0', 'the policy blocks blocked'],
      ['pinned ge 2.0', 'the policy pins pinned to 1.5'],
      ['old ge 3.0', "the vendor's list has old 2.0"],
      ['new lt 2.0', "the vendor's list has new 3.0; the box has 3.0"],
      ['odd GE 1.0', "the vendor's list has odd 2.0; the box has 2.0"],
    ],
  )
  t.strictSame(resolved.blocked, ['blocked'])
  t.strictSame(carriedIn(resolved).slice(0, 1), ['a 2.0 upgrade'])
  t.end()
})

t.test('facts of the box are held against what modules demand, and what is not known is said to be', (t) => {
  const depends = {
    version: ['17.0', '16.0.40'],
    phpversion: ['8.2', 'lt 8'],
    phpcomponent: ['Zend Guard Loader', 'ldap', 'Zend Guard Loader||imap'],
    engine: ['asterisk lt 11', 'asterisk ge 18'],
    file: ['/usr/sbin/incrond'],
  }
  const list = feedOf([...BASE, listed('a 2.0', { depends })])
  const has = [...BASE, 'a 1.0']
  const known = boxOf('known', has, {
    framework: '16.0.40',
    phpver: '7.4.33',
    astver: '16.30.0',
    components: new Map([['zend guard loader', null]]),
  })
  const dark = boxOf('dark', ['a 1.0', 'core 16.0.70'])
  const resolved = resolve({ list, boxes: [known, dark], policy: { framework: 'block' } })
  const [ofDark, ofKnown] = resolved.boxes
  t.strictSame(
    ofKnown!.unresolved.map(({ requirement, why }) => [requirement, why]),
    [
      ['version 17.0', 'the box will have FreePBX 16.0.40'],
      ['phpversion 8.2', 'the box has PHP 7.4.33'],
      ['phpcomponent Zend Guard Loader', 'the PHP of the box does not have it'],
      ['engine asterisk lt 11 or asterisk ge 18', 'the box has Asterisk 16.30.0'],
    ],
  )
  t.strictSame(
    ofKnown!.unknown.map(({ requirement }) => requirement),
    ['phpcomponent ldap', 'phpcomponent Zend Guard Loader||imap', 'file /usr/sbin/incrond'],
  )
  t.strictSame(ofDark!.unresolved, [])
  t.equal(ofDark!.unknown.length, 9)
  t.end()
})

t.test('the framework counts as it is after its upgrade, which comes first', (t) => {
  const list = feedOf(['framework 16.0.50', 'core 16.0.70', listed('a 2.0', { depends: { version: ['16.0.50'] } })])
  const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0'], { framework: '16.0.40' })] })
  t.strictSame(resolved.boxes[0]!.unresolved, [])
  t.end()
})

t.test('texts that a box passes over demand nothing', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b >= 1.0', 'c ge 2', ' d', 'e 1.0 or newer', '', 'builtin')])
  const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0'])] })
  t.strictSame(resolved.boxes[0]!.unresolved, [])
  t.end()
})

t.test('loops of demands end', (t) => {
  const list = feedOf([
    ...BASE,
    needing('a 2.0', 'b', 'a ge 2.0'),
    needing('b 1.0', 'c'),
    needing('c 1.0', 'b', 'a ge 2.0'),
  ])
  const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0'])] })
  t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', 'b 1.0 dependency', 'c 1.0 dependency', ...ALWAYS])
  t.strictSame(resolved.boxes[0]!.unresolved, [])
  t.end()
})

t.test('what is carried for one box brings its demands for every box that lacks it: its weekly installall', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b'), 'b 1.0'])
  const boxes = [boxOf('two', BASE), boxOf('one', [...BASE, 'a 1.0', 'b 1.0'])]
  const resolved = resolve({ list, boxes })
  t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', 'b 1.0 dependency', ...ALWAYS])
  t.strictSame(
    resolved.boxes.map(({ name, additions, upgrades }) => [name, additions, upgrades.length]),
    [
      ['one', [], 1],
      ['two', ['a', 'b'], 0],
    ],
  )
  t.end()
})

t.test('what only installall would come to is told apart', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b'), needing('c 2.0', 'd')])
  const boxes = [boxOf('one', [...BASE, 'a 1.0', 'b 1.0']), boxOf('two', [...BASE, 'c 1.0'])]
  const [one, two] = resolve({ list, boxes }).boxes
  const told = (box: typeof one): [string, boolean][] =>
    box!.unresolved.map(({ requirement, isWeekly }) => [requirement, isWeekly])
  t.strictSame(told(one), [['d', true]])
  t.strictSame(told(two), [
    ['b', true],
    ['d', false],
  ])
  t.end()
})

t.test('a demand switches a module on, in the version that the box has or the newer one of the list', (t) => {
  const list = feedOf([
    ...BASE,
    needing('a 2.0', 'off', 'files', 'fresh', 'broken'),
    'off 2.0',
    'files 2.0',
    needing('fresh 1.0', 'more'),
    'more 1.0',
    'broken 1.0',
  ])
  const has = [
    ...BASE,
    'a 1.0',
    'off 1.0 disabled',
    'files 1.0 not-installed',
    'fresh 1.0 disabled',
    'broken 1.0 broken',
  ]
  const resolved = resolve({ list, boxes: [boxOf('one', has)] })
  t.strictSame(
    carriedIn(resolved).filter((one) => one.endsWith('dependency')),
    ['broken 1.0 dependency', 'files 2.0 dependency', 'more 1.0 dependency', 'off 2.0 dependency'],
  )
  t.strictSame(
    resolved.boxes[0]!.installs.map(({ rawname, version, by }) => `${rawname} ${version} ${by}`),
    ['broken 1.0 a', 'files 2.0 a', 'fresh 1.0 a', 'more 1.0 fresh', 'off 2.0 a'],
  )
  t.end()
})

t.test(
  'what the box has idle and lower than the version beside a demand is fetched, even if the list has no newer one',
  (t) => {
    const list = feedOf([...BASE, needing('a 2.0', 'b lt 2.0'), needing('b 1.0', 'c'), 'c 1.0'])
    for (const state of ['not-installed', 'disabled']) {
      const resolved = resolve({ list, boxes: [boxOf('one', [...BASE, 'a 1.0', `b 1.0 ${state}`])] })
      t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', 'b 1.0 dependency', 'c 1.0 dependency', ...ALWAYS], state)
      t.strictSame(
        resolved.boxes[0]!.installs.map(({ rawname, by }) => [rawname, by]),
        [
          ['b', 'a'],
          ['c', 'b'],
        ],
      )
    }
    t.end()
  },
)

t.test('what is wanted is carried whatever the boxes have, with what it demands where it is not', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b'), 'b 1.0', needing('c 1.0', 'd'), 'd 1.0'])
  const boxes = [boxOf('one', [...BASE, 'c 1.0'])]
  const resolved = resolve({ list, boxes, policy: { a: 'want', c: 'want' } })
  t.strictSame(carriedIn(resolved), ['a 2.0 wanted', 'b 1.0 dependency', 'c 1.0 wanted', ...ALWAYS])
  t.strictSame(resolved.boxes[0]!.additions, ['a'])
  t.end()
})

t.test('a group without boxes carries what is wanted, and what every box has to have', (t) => {
  const resolved = resolve({ lists: [{ boxes: [], feed: feedOf([...BASE, 'a 1.0', 'b 1.0']) }], policy: { a: 'want' } })
  t.strictSame(carriedIn(resolved), ['a 1.0 wanted', ...ALWAYS])
  t.end()
})

t.test('a pinned version is carried for boxes that have it lower, and its demands; a higher one stays', (t) => {
  const list = feedOf([
    ...BASE,
    'a 3.0',
    listed('a 3.1', { section: 'edge' }),
    listed('a 2.0', { section: 'previous', depends: { module: ['b'] } }),
    listed('a 1.0', { section: 'previous' }),
    'b 1.0',
  ])
  const cases: [string, string[]][] = [
    ['a 1.0', ['a 2.0 pinned (previous)', 'b 1.0 dependency']],
    ['a 1.0 disabled', ['a 2.0 pinned (previous)']],
    ['a 1.0 not-installed', []],
    ['a 2.0', []],
    ['a 2.5', []],
    ['b 1.0', []],
  ]
  for (const [module, expected] of cases) {
    const boxes = [boxOf('one', [...BASE, module], { edge: true })]
    t.strictSame(carriedIn(resolve({ list, boxes, policy: { a: 'pin 2.0' } })), [...expected, ...ALWAYS], module)
  }
  t.end()
})

t.test('a blocked module is not carried, whoever needs it', (t) => {
  const list = feedOf([...BASE, 'a 2.0', needing('b 2.0', 'a ge 2.0')])
  const boxes = [boxOf('one', [...BASE, 'a 1.0', 'b 1.0'])]
  const resolved = resolve({ list, boxes, policy: { a: 'block', core: 'block', gone: 'block' } })
  t.strictSame(carriedIn(resolved), ['b 2.0 upgrade', 'framework 16.0.40 always'])
  t.strictSame(resolved.blocked, ['a', 'core'])
  t.strictSame(resolved.warnings, ['the policy names gone, which no list and no box has; did you mean "core"?'])
  t.end()
})

t.test('what the last bundle carried is kept while it is the version of the list and a box has the module', (t) => {
  const list = feedOf([...BASE, 'a 2.0', 'b 2.0', 'c 2.0', 'd 2.0', 'e 2.0'])
  const boxes = [boxOf('one', [...BASE, 'a 2.0', 'b 2.0', 'd 2.0 not-installed', 'e 2.0'])]
  const before = { a: '2.0', b: '1.9', c: '2.0', d: '2.0', core: '16.0.70', e: '2.0' }
  const resolved = resolve({ list, boxes, before, policy: { e: 'block' } })
  t.strictSame(carriedIn(resolved), ['a 2.0 kept', ...ALWAYS])
  t.end()
})

t.test('a box that takes edge builds finds the newer one, beside the entry for all others', (t) => {
  const list = feedOf([
    ...BASE,
    'a 2.0',
    listed('a 2.1', { section: 'edge', depends: { module: ['b ge 1.1'] } }),
    'b 1.0',
    listed('b 1.1', { section: 'edge' }),
    'c 2.0',
    listed('c 1.9', { section: 'edge' }),
    listed('d 9.0', { section: 'edge' }),
  ])
  const has = [...BASE, 'a 1.0', 'c 1.0', 'd 1.0']
  const stable = boxOf('stable', has)
  const edge = boxOf('edge', has, { edge: true })
  t.strictSame(carriedIn(resolve({ list, boxes: [stable] })), ['a 2.0 upgrade', 'c 2.0 upgrade', ...ALWAYS])
  t.strictSame(
    carriedIn(resolve({ list, boxes: [edge] })),
    ['a 2.1 upgrade (edge)', 'b 1.1 dependency (edge)', 'c 2.0 upgrade', ...ALWAYS],
    'with none but such boxes it stands in the list itself',
  )
  const both = resolve({ list, boxes: [stable, edge] })
  t.strictSame(carriedIn(both), [
    'a 2.0 upgrade',
    'a 2.1 upgrade (edge)',
    'b 1.0 dependency',
    'b 1.1 dependency (edge)',
    'c 2.0 upgrade',
    ...ALWAYS,
  ])
  t.strictSame(
    both.boxes.map(({ name, upgrades }) => [name, upgrades.find(({ rawname }) => rawname === 'a')!.to]),
    [
      ['edge', '2.1'],
      ['stable', '2.0'],
    ],
  )
  t.strictSame(
    both.boxes.flatMap(({ unresolved }) => unresolved.map(({ by }) => by)),
    [],
  )
  t.end()
})

t.test('the end of an announced weakness comes for what a box has switched off, as the box fetches it', (t) => {
  const issues = { 'SEC-1': { a: '1.5', b: '1.5', c: '1.5' } }
  const list = feedOf([...BASE, 'a 2.0', 'b 2.0', 'c 2.0'], issues)
  const has = [...BASE, 'a 1.0 disabled', 'b 1.6 disabled', 'c 1.0 not-installed']
  const resolved = resolve({ list, boxes: [boxOf('one', has)] })
  t.strictSame(carriedIn(resolved), ['a 2.0 upgrade', ...ALWAYS])
  t.strictSame(resolved.carried[0]!.because, { box: 'one', from: '1.0', requirement: 'SEC-1', boxes: 1 })
  t.strictSame(resolved.boxes[0]!.upgrades, [], 'it is downloaded, not installed')
  t.end()
})

t.test('modules that a listed one breaks are told', (t) => {
  const breaking = [
    { type: 'conflict', rawname: 'b' },
    { type: 'deprecated', rawname: 'c', version: 'lt 2.0' },
    { type: 'conflict', rawname: 'd', version: 'lt 2.0' },
    { type: 'conflict', rawname: 'e', version: 'lt 1.0' },
    { type: 'conflict', rawname: 'f' },
    { type: 'conflict', rawname: 'nobody' },
  ]
  const list = feedOf([...BASE, listed('a 2.0', { breaking }), 'd 2.0'])
  const has = [...BASE, 'a 1.0', 'b 1.0', 'c 1.0', 'd 1.0', 'e 1.0', 'f 1.0 disabled']
  const refused = '; it is refused without --skipbreakingcheck'
  t.strictSame(resolve({ list, boxes: [boxOf('one', has)] }).boxes[0]!.conflicts, [
    `a 2.0 conflicts with b 1.0${refused}`,
    `a 2.0 replaces c 1.0${refused}`,
    `a 2.0 conflicts with d 1.0 until that is upgraded to 2.0${refused}`,
  ])
  t.end()
})

t.test('lists that differ in what is carried are refused, with boxes and files', (t) => {
  const list = (build: string, more: string[] = []): ReturnType<typeof feedOf> =>
    feedOf([
      ...BASE,
      listed('endpoint 16.0.5', { location: `packages/endpoint/${build}/endpoint-16.0.5.tgz` }),
      ...more,
    ])
  const asked = (module: string, ...lists: ReturnType<typeof feedOf>[]): (() => unknown) => {
    const boxes = lists.map((_, i) => boxOf(`box-${i}`, [...BASE, module]))
    return () => resolve({ lists: lists.map((feed, i) => ({ boxes: [`box-${i}`], feed })), boxes })
  }
  t.throws(asked('endpoint 16.0.4', list('7.4'), list('8.2')), {
    code: 'MODULE_CONFLICT',
    message: /box-0: 16\.0\.5 at packages\/endpoint\/7\.4\/.*box-1: 16\.0\.5 at packages\/endpoint\/8\.2\//,
    hint: /two groups/,
  })
  t.throws(asked('a 1.0', list('7.4', ['a 1.1']), list('7.4', ['a 1.2'])), { code: 'MODULE_CONFLICT' })
  t.doesNotThrow(asked('endpoint 16.0.5', list('7.4'), list('8.2')), 'what is not carried may differ')
  const build = (sha1: string): ReturnType<typeof feedOf> =>
    feedOf([...BASE, listed('a 2.0', { sha1: sha1.repeat(40) })])
  t.throws(asked('a 1.0', build('a'), build('b')), { code: 'MODULE_CONFLICT' }, 'one path, two builds')
  t.doesNotThrow(asked('a 1.0', build('a'), build('a')))
  t.end()
})

t.test('of lists that agree, the entry of the first box by name counts', (t) => {
  const feeds = [feedOf([...BASE, 'a 2.0']), feedOf([...BASE, 'a 2.0', 'b 1.0'])]
  const lists = [
    { boxes: ['z', 'c'], feed: feeds[0]! },
    { boxes: ['y', 'b'], feed: feeds[1]! },
  ]
  const boxes = ['z', 'y', 'c', 'b'].map((name) => boxOf(name, [...BASE, 'a 1.0']))
  const resolved = resolve({ lists, boxes })
  t.ok(resolved.carried.every(({ feed }) => feed === feeds[1]))
  t.strictSame(resolved.carried[0]!.because, { box: 'b', from: '1.0', boxes: 4 })
  t.end()
})

t.test('a box that is offered what its own list does not have is named', (t) => {
  const lists = [
    { boxes: ['one'], feed: feedOf([...BASE, needing('a 2.0', 'b'), 'b 1.0']) },
    { boxes: ['two'], feed: feedOf(BASE) },
  ]
  const boxes = [boxOf('one', [...BASE, 'a 1.0', 'b 1.0']), boxOf('two', [...BASE, 'a 1.0'])]
  const resolved = resolve({ lists, boxes })
  t.strictSame(resolved.warnings, ["a is not in the vendor's list for two, and will be offered there too"])
  t.strictSame(resolved.boxes[1]!.upgrades, [{ rawname: 'a', from: '1.0', to: '2.0' }])
  t.strictSame(
    resolved.boxes[1]!.unresolved.map(({ why }) => why),
    ["the vendor's list has no b"],
  )
  t.end()
})

t.test('a policy for what is nowhere is refused with the nearest name', (t) => {
  const list = feedOf([
    ...BASE,
    'endpoint 2.0',
    listed('endpoint 1.0', { section: 'previous' }),
    listed('odd 1.0', { section: 'beta' }),
  ])
  const boxes = [boxOf('one', [...BASE, 'own 1.0'])]
  const cases: [Record<string, string>, RegExp, RegExp?][] = [
    [{ endpiont: 'want' }, /endpiont is wanted, but no list has it; did you mean "endpoint"/],
    [{ endpiont: 'pin 1.0' }, /endpiont is pinned to 1\.0, but no list has it; did you mean "endpoint"/],
    [{ endpoint: 'pin 1.5' }, /endpoint is pinned to 1\.5, which no list has/, /listed: 2\.0, 1\.0/],
    [{ odd: 'want' }, /odd is wanted, but listed as beta alone/, /pin 1\.0/],
    [{ own: 'want' }, /own is wanted, but no list has it/],
    [{ own: 'pin 2.0' }, /own is pinned to 2\.0, but no list has it/],
  ]
  for (const [policy, message, hint] of cases) {
    t.throws(() => resolve({ list, boxes, policy }), { code: 'MODULE_UNKNOWN', message, ...(hint && { hint }) })
  }
  t.doesNotThrow(() => resolve({ list, boxes, policy: { own: 'pin 1.0' } }), 'a pin may keep what the boxes have')
  t.doesNotThrow(() => resolve({ list, boxes, policy: { own: 'pin 0.9' } }))
  t.doesNotThrow(() => resolve({ list, boxes, policy: { odd: 'pin 1.0' } }))
  t.end()
})

t.test('a box of which the states are not known is taken to have all enabled, and is named', (t) => {
  const list = feedOf([...BASE, 'a 2.0'])
  const { warnings } = resolve({ list, boxes: [boxOf('one', ['a 1.0 unknown'])] })
  t.match(warnings, [/^one: its database could not be read/])
  t.end()
})

t.test('of an entry that cannot be carried it is said why', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b'), listed('b 1.0', { location: '' })])
  const boxes = [boxOf('one', [...BASE, 'a 1.0'])]
  t.match(resolve({ list, boxes }).boxes[0]!.unresolved[0]!.why, /^the vendor's entry of b has no <location>/)
  for (const policy of [{ b: 'want' }, { b: 'pin 1.0' }]) {
    t.throws(() => resolve({ list, boxes, policy }), {
      code: 'MODULE_UNKNOWN',
      message: /its entry in the list has no <loc/,
    })
  }
  t.end()
})

t.test('boxes in another order give the same', (t) => {
  const list = feedOf([...BASE, needing('a 2.0', 'b', 'c'), needing('b 1.0', 'c'), 'c 1.0', needing('d 2.0', 'c')])
  const boxes = [
    boxOf('x', [...BASE, 'a 1.0']),
    boxOf('y', [...BASE, 'd 1.0']),
    boxOf('z', [...BASE, 'a 1.5', 'd 1.0']),
  ]
  t.strictSame(resolve({ list, boxes: [...boxes].reverse() }), resolve({ list, boxes }))
  t.end()
})

t.test('a chain of demands as long as a list may be ends, whether its modules are absent or switched off', (t) => {
  const names = Array.from({ length: 9000 }, (_, i) => `m${i}`)
  const list = feedOf([...BASE, ...names.map((name, i) => needing(`${name} 2.0`, ...names.slice(i + 1, i + 2)))])
  const absent = resolve({ list, boxes: [boxOf('one', [...BASE, 'm0 1.0'])] })
  t.equal(absent.carried.length, names.length + 2)
  const off = names.slice(1).map((name) => `${name} 2.0 disabled`)
  const idle = resolve({ list, boxes: [boxOf('one', [...BASE, 'm0 1.0', ...off])] })
  t.equal(idle.carried.length, 3, 'what the box has is enough')
  t.equal(idle.boxes[0]!.installs.length, off.length)
  t.end()
})

t.test('of demands and conflicts that nobody could read or hold no more is told than somebody may', (t) => {
  const count = 300
  const names = Array.from({ length: count }, (_, i) => `m${i}`)
  const breaking = Array.from({ length: 10 }, () => '<module><rawname>core</rawname></module>').join('')
  const list = feedOf([
    ...BASE,
    ...names.map((name) => needing(`${name} 2.0`, ...names.slice(0, 20).map((other) => `${other} ge 3.0`))),
  ])
  const conflicting = parseModuleFeed(
    Buffer.from(list.text.replaceAll('<rawname>m', `<breaking>${breaking}</breaking><rawname>m`)),
    'a list',
  )
  const [box] = resolve({
    list: conflicting,
    boxes: [boxOf('one', [...BASE, ...names.map((name) => `${name} 1.0`)])],
  }).boxes
  t.ok(box!.unresolved.length > 1000 && box!.unresolved.length < 1100, String(box!.unresolved.length))
  t.match(box!.unresolved.at(-1), { requirement: 'more than that', why: /the first 1000 are told/ })
  t.equal(box!.conflicts.length, 1001)
  t.equal(box!.conflicts.at(-1), 'there are more conflicts than that')
  t.end()
})
