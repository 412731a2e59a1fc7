import t from 'tap'
import type { PlannedGroup } from '../../../bundler/plan.ts'
import { explainItem, renderExplained, renderPlan } from '../../../bundler/render.ts'
import { parseNevra } from '../../../manifests/rpm-version.ts'
import { boxInventory, offered, planWorld, type BoxPlanWorld } from '../../helpers/box-plan.ts'
import { universePackage as one } from '../../helpers/universe.ts'

const planned = async (world: BoxPlanWorld): Promise<PlannedGroup> => (await planWorld(world)).sites[0]!.groups[0]!
const carried = (group: PlannedGroup): string[] => group.yum.flatMap((repo) => repo.packages.map(({ nevra }) => nevra))
const warnings = (group: PlannedGroup): string[] => [
  ...group.yum.flatMap((repo) => repo.warnings),
  ...group.boxes.flatMap((box) => box.warnings),
]

t.test('carries for all boxes together what each of them needs, with the reason and the first box', async (t) => {
  const world = {
    repositories: {
      base: [offered('app-2-1.noarch', { requires: ['lib'] }, 100), offered('other-2-1.noarch', {}, 1000)],
      more: [
        offered('lib-1-1.noarch', {}, 20),
        offered('app-3-1.noarch', { requires: ['none'] }, 5),
        offered('solo-2-1.noarch'),
      ],
    },
    boxes: [
      boxInventory('pbx1', [one('app-1-1.noarch')]),
      boxInventory('pbx2', [one('app-1-1.noarch'), one('solo-1-1.noarch')]),
    ],
  }
  const group = await planned(world)
  t.same(carried(group), ['app-2-1.noarch', 'app-3-1.noarch', 'lib-1-1.noarch', 'solo-2-1.noarch'])
  t.match(group.yum[0]!.packages[0], {
    reason: 'newer than app-1-1.noarch on pbx1',
    because: { rule: 'newer', box: 'pbx1', boxes: 2, by: 'app-1-1.noarch', isInstalled: true },
  })
  t.match(group.yum[1]!.packages[1], {
    reason: 'provides lib for app-2-1.noarch',
    because: { rule: 'provider', requirement: 'lib', isInstalled: false },
  })
  t.same(group.rules, [
    { rule: 'newer', packages: 3, bytes: 115 },
    { rule: 'provider', packages: 1, bytes: 20 },
  ])
  t.equal(group.leastBytes, 110, 'app-3 cannot be installed')
  t.match(group.boxes, [
    {
      name: 'pbx1',
      candidates: ['app-2-1.noarch', 'app-3-1.noarch', 'lib-1-1.noarch'],
      candidateBytes: 125,
      unresolved: [{ requirement: 'none', by: 'app-3-1.noarch', kind: 'missing' }],
    },
    { name: 'pbx2', candidates: ['app-2-1.noarch', 'app-3-1.noarch', 'lib-1-1.noarch', 'solo-2-1.noarch'] },
  ])
  t.same(group.boxes[0]!.inventory, world.boxes[0]!.digest)
})

t.test('include adds to what boxes need, with its requirements; exclude takes away and says from whom', async (t) => {
  const repositories = {
    base: [
      offered('app-2-1.noarch'),
      offered('tool-1-1.noarch', { requires: ['toollib'] }),
      offered('tool-2-1.noarch', { requires: ['toollib'] }),
      offered('toollib-1-1.noarch'),
      offered('rest-1-1.noarch'),
    ],
  }
  const boxes = [boxInventory('pbx1', [one('app-1-1.noarch')])]
  const group = await planned({ repositories, boxes, settings: { base: { include: ['tool', 'zzz'], newest: 1 } } })
  t.same(carried(group), ['app-2-1.noarch', 'tool-2-1.noarch', 'toollib-1-1.noarch'])
  t.equal(group.yum[0]!.packages[1]!.reason, 'include tool, newest 1')
  t.same(group.boxes[0]!.candidates, ['app-2-1.noarch'], 'what is wanted is no candidate')
  t.same(warnings(group), ['nothing there matches include zzz'])
  const less = await planned({ repositories, boxes, settings: { base: { exclude: ['app'] } } })
  t.same(carried(less), [])
  t.match(warnings(less), [/exclude leaves out .* app-2-1\.noarch \(for pbx1\)/])
  t.same(less.boxes[0]!.candidates, ['app-2-1.noarch'], 'the box would choose it all the same')
})

t.test('keeps what an earlier bundle carried and a box still needs, though the upstream dropped it', async (t) => {
  const world = {
    repositories: { base: [offered('app-3-1.noarch', { requires: ['lib'] })] },
    earlier: {
      base: [
        offered('app-2-1.noarch'),
        offered('app-3-1.noarch'),
        offered('lib-1-1.noarch'),
        offered('unneeded-9-1.noarch'),
      ],
    },
    boxes: [boxInventory('pbx1', [one('app-1-1.noarch')])],
  }
  const group = await planned(world)
  t.same(carried(group), ['app-2-1.noarch', 'app-3-1.noarch', 'lib-1-1.noarch'])
  t.ok(group.yum[0]!.earlier?.primary, 'its metadata is the earlier one')
  const lost = await planned({ ...world, gone: ['app-2-1.noarch', 'lib-1-1.noarch'] })
  t.same(carried(lost), ['app-3-1.noarch'], 'what the store has lost cannot be kept')
  t.equal(lost.yum[0]!.earlier, undefined)
  t.match(lost.boxes[0]!.unresolved, [{ requirement: 'lib' }])
})

t.test('the same package with other bytes in two repositories is refused, with both', async (t) => {
  const world = {
    repositories: { a: [offered('app-2-1.noarch')], b: [offered('app-2-1.noarch', {}, 10, 'other bytes')] },
    boxes: [boxInventory('pbx1', [one('app-1-1.noarch')])],
  }
  await t.rejects(planned(world), { code: 'PACKAGE_CONFLICT', message: /app-2-1\.noarch differs between a and b/ })
  const same = await planned({
    ...world,
    repositories: { a: [offered('app-2-1.noarch')], b: [offered('app-2-1.noarch')] },
  })
  t.same(carried(same), ['app-2-1.noarch', 'app-2-1.noarch'], 'in both repositories, one blob')
})

t.test('looks for required paths in filelists, and says where there are none', async (t) => {
  const world = {
    repositories: { base: [offered('app-2-1.noarch', { requires: ['/usr/share/data'] }), offered('data-1-1.noarch')] },
    paths: { '/usr/share/data': ['data-1-1.noarch'] },
    boxes: [boxInventory('pbx1', [one('app-1-1.noarch')])],
  }
  t.same(carried(await planned(world)), ['app-2-1.noarch', 'data-1-1.noarch'])
  const bare = await planned({ ...world, bare: ['base'] })
  t.same(carried(bare), ['app-2-1.noarch'])
  t.match(warnings(bare), [/no filelists: who has 1 required path .*\/usr\/share\/data/])
})

t.test('names a box that is in the wrong group', async (t) => {
  const repositories = { base: [offered('app-2-1.el7.noarch'), offered('lib-1-1.el7.noarch')] }
  const apt = boxInventory('deb1', [], {
    manager: 'apt',
    distribution: { id: 'debian', version: '12', name: 'Debian 12' },
  })
  await t.rejects(planned({ repositories, boxes: [apt] }), { code: 'INVENTORY_MISMATCH', message: /deb1.*Debian 12/ })
  const el8 = boxInventory('pbx8', [one('app-1-1.el8.noarch'), one('x-1-1.el8.noarch')])
  t.match(warnings(await planned({ repositories, boxes: [el8] })), [/has packages for el8, .* for el7/])
  const strange = boxInventory('pbx9', [one('x-1-1.noarch')])
  t.match(warnings(await planned({ repositories, boxes: [strange] })), [/none of its 1 packages is on offer/])
  const more = boxInventory('pbx7', [one('app-1-1.el7.noarch')], {
    repositories: [
      { id: 'main', options: new Map() },
      { id: 'epel', options: new Map([['enabled', '1']]) },
      { id: 'off', options: new Map([['enabled', '0']]) },
    ],
  })
  t.same(warnings(await planned({ repositories, boxes: [more] })), [
    'also takes updates from epel, which x does not carry',
  ])
})

t.test('a stand-in is resolved by names, and what that costs is said', async (t) => {
  const repositories = {
    base: [
      offered('app-1-1.noarch', { requires: ['lib'] }),
      offered('app-2-1.noarch', { requires: ['lib', 'tool', 'gone'] }),
      offered('lib-1-1.noarch', {}, 300),
      offered('tool-5-1.noarch', {}, 70),
    ],
  }
  const names = [one('app-1-1.noarch'), one('lib-1-1.noarch'), one('tool-4-9.noarch')]
  const group = await planned({ repositories, boxes: [boxInventory('pbx1', names, { isGuess: true })] })
  t.same(
    carried(group),
    ['app-2-1.noarch', 'tool-5-1.noarch'],
    'what it has as the repository describes it is not carried',
  )
  t.equal(group.guessBytes, 0)
  const virtual = {
    base: [
      offered('app-2-1.noarch', { requires: ['cap'] }),
      offered('has-1-2.noarch', { provides: ['cap'] }, 0),
      offered('also-1-1.noarch', { provides: ['cap'] }, 50),
    ],
  }
  const unknown = [one('app-1-1.noarch'), one('has-1-3.noarch')]
  const guess = await planned({ repositories: virtual, boxes: [boxInventory('pbx1', unknown, { isGuess: true })] })
  t.same(carried(guess), ['also-1-1.noarch', 'app-2-1.noarch', 'has-1-2.noarch'])
  t.equal(guess.guessBytes, 50)
  t.same(guess.boxes[0]!.unresolved, [], 'nobody knows what it has')
})

t.test('a person reads boxes, rules, warnings and the chain down to a box', async (t) => {
  const plan = await planWorld({
    repositories: {
      base: [
        offered('app-2-1.noarch', { requires: ['lib >= 2', 'gone'] }, 2_000_000),
        offered('solo-2-1.noarch', {}, 5000),
        offered('lib-2-1.noarch', { requires: ['deep'] }, 300_000),
        offered('deep-1-1.noarch', {}, 40_000),
      ],
    },
    boxes: [
      boxInventory('pbx1', [one('app-1-1.noarch'), one('solo-1-1.noarch')]),
      boxInventory('pbx2', [one('app-1-1.noarch')], { isGuess: true }),
    ],
  })
  const text = renderPlan(
    plan,
    { toFetch: { count: 3, bytes: 3 }, here: { count: 0, bytes: 0 }, budgetBytes: 9, kinds: [] },
    false,
  )
  t.comment(text)
  for (const said of [
    /box pbx1 +4 candidates +2\.3 MB +for 2 packages +inventory of 2026-11-20/,
    /box pbx2 .* a stand-in/,
    /2 packages +2\.0 MB +newer than what is installed/,
    /2 packages +340 kB +provide what others require/,
    /no update is smaller than 5\.0 kB/,
    /warning: nothing on offer provides gone \(for app-2-1\.noarch\) on pbx1\./,
    /warning: pbx2: no inventory, only names of packages: whether/,
  ]) {
    t.match(text, said)
  }
  t.match(explainItem(plan, 'deep'), [
    {
      chain: [
        'deep-1-1.noarch provides deep, which lib-2-1.noarch requires',
        'lib-2-1.noarch provides lib >= 2, which app-2-1.noarch requires',
        'app-2-1.noarch is newer than app-1-1.noarch',
        'app-1-1.noarch is installed on pbx1',
        'one other box needs it, too',
      ],
    },
  ])
  t.comment(renderExplained(explainItem(plan, 'deep')))
})

t.test('names advisories, and cuts to those about security where that is asked for', async (t) => {
  const fix = (id: string, type: string, ...nevras: string[]) => ({
    ...{ id, type, severity: type === 'security' ? 'critical' : '' },
    packages: nevras.map((nevra) => parseNevra(nevra)!),
  })
  const world = {
    repositories: {
      base: [
        offered('app-2-1.noarch', { requires: ['lib'] }),
        offered('app-3-1.noarch', { requires: ['lib'] }),
        offered('lib-1-1.noarch'),
        offered('late-2-1.noarch'),
        offered('fixed-5-1.noarch'),
      ],
    },
    advisories: {
      base: [
        fix('A-1', 'security', 'app-2-1.noarch', 'gone-1-1.noarch'),
        fix('A-2', 'bugfix', 'late-2-1.noarch'),
        fix('A-3', 'security', 'fixed-4-1.noarch'),
      ],
    },
    boxes: [boxInventory('pbx1', [one('app-1-1.noarch'), one('late-1-1.noarch'), one('fixed-4-1.noarch')])],
  }
  const all = await planWorld(world)
  const group = all.sites[0]!.groups[0]!
  t.same(carried(group).length, 5)
  t.same(
    group.yum[0]!.packages.map(({ advisories }) => advisories),
    [['A-1'], undefined, undefined, ['A-2'], undefined],
  )
  const figures = { toFetch: { count: 0, bytes: 0 }, here: { count: 0, bytes: 0 }, budgetBytes: 9, kinds: [] }
  const text = renderPlan(all, figures, true)
  t.match(text, /2 packages in 2 advisories: 1 critical security, 1 bugfix/)
  t.match(text, /app-2-1\.noarch .*; A-1/)
  const less = await planWorld({ ...world, isSecurityOnly: true })
  t.same(carried(less.sites[0]!.groups[0]!), ['app-2-1.noarch', 'app-3-1.noarch', 'lib-1-1.noarch'])
  t.match(renderPlan(less, figures, false), /security updates alone/)
  const without = await planned({ ...world, advisories: {}, isSecurityOnly: true })
  t.same(carried(without), [])
  t.match(warnings(without), [/has no advisories/])
})
