import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { loadFleet } from '../../bundler/config.ts'
import { boxesByGroup } from '../../bundler/inventories.ts'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inside } from '../helpers/inside.ts'
import { inventoryText, type InventoryParts } from '../helpers/inventory-text.ts'
import type { Outcome } from '../helpers/process.ts'

const GROUP = (name: string, more = ''): string =>
  `      - { name: ${name}, origin: 'http://m.lan:8416', files: [{ url: 'https://v/x', as: x }]${more} }\n`
const SITE = (name: string, ...groups: string[]): string => `  - name: ${name}\n    groups:\n${groups.join('')}`
const SETTINGS = (...sites: string[]): string => `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n${sites.join('')}`
const ONE = SETTINGS(SITE('hq', GROUP('a')))
const LISTS = 'bash-4.2-35.el7.x86_64\r\nvim-2:7.4-1.el7.x86_64\nsangoma-release-7-9.noarch\ngpg-pubkey-1-2\n'
const MODULES = [
  'No repos specified, using: [commercial,standard] from last GUI settings',
  '+-----------+------------+---------+--------+',
  '| Module    | Version    | Status  | License |',
  '+-----------+------------+---------+--------+',
  '| framework | 16.0.40.11 | Enabled | GPLv2+ |',
  '| gone      |            | Not Installed (Locally available) |  |',
].join('\n')

interface Laptop {
  dir: string
  run: (...args: string[]) => Promise<Outcome>
  put: (name: string, parts: InventoryParts) => string
}

function laptop(t: Test, settings: string): Laptop {
  const dir = t.testdir({ 'gapferry.yaml': settings })
  const put = (name: string, parts: InventoryParts): string => {
    writeFileSync(join(dir, name), inventoryText(parts))
    return name
  }
  return { dir, put, run: (...args) => inside(runGapferry, dir, ['inventory', ...args]) }
}

function status(t: Test, outcome: Outcome, expected: number, code?: string): void {
  t.equal(outcome.status, expected, outcome.stderr)
  if (code !== undefined) t.match(outcome.stderr, `[${code}]`)
}

const FREEPBX = ['framework 16.0.40', 'module framework 16.0.40 enabled GPLv3+']

t.test('help has an example on every level', async (t) => {
  const { run } = laptop(t, ONE)
  for (const args of [[], ['add'], ['list'], ['show'], ['remove']]) {
    const help = await run(...args, '--help')
    status(t, help, 0)
    t.match(help.stdout, /Examples?:\n {2}gapferry inventory /, args.join(' '))
  }
})

t.test('an inventory is kept as it came, listed, shown and removed', async (t) => {
  const { dir, run, put } = laptop(t, ONE)
  t.match((await run('list')).stdout, /no inventories yet/)
  const added = await run(
    'add',
    put('x.gfi', { box: 'PBX1.lan' }),
    put('y.gfi', { box: 'pbx2', sections: { freepbx: FREEPBX } }),
  )
  status(t, added, 0)
  t.match(
    added.stdout,
    /^new: pbx1.lan in hq \/ a: 2 packages, CentOS Linux release 7.9.2009 \(Core\)\nnew: pbx2 .* 2 packages, 1 module, /,
  )
  t.same(readFileSync(join(dir, 'inventories/hq/pbx1.lan.gfi')), readFileSync(join(dir, 'x.gfi')))
  t.match((await run('add', 'x.gfi')).stdout, /^unchanged: pbx1.lan/)
  t.match(
    (await run('list')).stdout,
    /^BOX .*\npbx1.lan +hq +a +centos 7.9.2009 +2 +- +2026-11-22 08:00 UTC\npbx2 .* +16\.0\.40 +2026/,
  )
  const listed = JSON.parse((await run('list', '--json')).stdout) as { boxes: object[] }
  t.match(listed.boxes[0], { box: 'pbx1.lan', group: 'a', isGuess: false, packages: 2, stale: null })
  const shown = await run('show', 'pbx1.lan')
  t.match(shown.stdout, /packages {2}2, by yum\n[^]*not {6}package repositories {2}none is enabled[^]*what to do/)
  const json = JSON.parse((await run('show', 'pbx2', '--json')).stdout) as { readiness: { state: string }[] }
  t.ok(json.readiness.every(({ state }) => ['ready', 'not', 'unknown'].includes(state)))
  t.match((await run('remove', 'pbx1.lan')).stdout, 'removed: pbx1.lan of hq')
  t.strictSame(readdirSync(join(dir, 'inventories/hq')), ['pbx2.gfi', 'pbx2.json'])
  status(t, await run('remove', 'pbx1.lan'), 2, 'BOX_UNKNOWN')
  status(t, await run('show', '../../x'), 2, 'BOX_UNKNOWN')
})

t.test('the same box again replaces; what is older, less or another machine does not, unless forced', async (t) => {
  const { dir, run, put } = laptop(t, ONE)
  const machine = (digit: string): InventoryParts => {
    const facts = ['box pbx1', 'created 2026-11-22T09:00:00Z', 'tool 1', 'arch x86_64', 'kernel 3', 'manager yum']
    return { sections: { box: [...facts, `machine ${digit.repeat(64)}`] } }
  }
  await run('add', put('a.gfi', machine('a')))
  status(t, await run('add', put('old.gfi', { created: '2026-11-22T08:59:59Z' })), 3, 'INVENTORY_OLDER')
  t.match((await run('add', put('new.gfi', { created: '2026-11-22T09:30:00Z' }))).stdout, /^replaced: pbx1/)
  status(t, await run('add', 'a.gfi', '--force'), 0)
  status(t, await run('add', put('b.gfi', machine('b'))), 2, 'BOX_CONFLICT')
  writeFileSync(join(dir, 'qa.txt'), LISTS)
  status(t, await run('add', 'qa.txt', '--name', 'pbx1'), 3, 'INVENTORY_OLDER')
  status(t, await run('add', 'qa.txt', '--name', 'pbx1', '--force'), 0)
  t.strictSame(readdirSync(join(dir, 'inventories/hq')), ['pbx1.json', 'pbx1.rpms'])
  t.match(
    (await run('add', 'a.gfi')).stdout,
    /^replaced: pbx1/,
    'the real one replaces the guess, though it was added later',
  )
})

t.test('a mistake on the line names the help of that very command', async (t) => {
  const { run } = laptop(t, ONE)
  t.match((await run('add', 'x.gfi', '--as', 'y')).stderr, /\n {2}next: gapferry inventory add --help$/m)
})

t.test('two files of one name are refused together, and neither is kept', async (t) => {
  const { run, put } = laptop(t, ONE)
  const files = [put('one.gfi', { box: 'vm' }), put('two.gfi', { box: 'VM' })]
  const refused = await run('add', ...files)
  status(t, refused, 2, 'USAGE_INVALID')
  t.match(refused.stderr, /one\.gfi and two\.gfi are both of a box vm.*\n.*inventory add two\.gfi --name OTHER/)
  t.match((await run('list')).stdout, 'no inventories yet')
  status(t, await run('add', files[0]!), 0)
  status(t, await run('add', files[1]!, '--name', 'other'), 0)
})

t.test('pasted lists and another box’s inventory stand in, marked as a guess', async (t) => {
  const { dir, run, put } = laptop(t, ONE)
  writeFileSync(join(dir, 'qa.txt'), LISTS)
  writeFileSync(join(dir, 'ma.txt'), MODULES)
  status(t, await run('add', 'qa.txt'), 2, 'USAGE_INVALID')
  t.match(
    (await run('add', 'qa.txt', 'ma.txt', '--name', 'PBX9')).stdout,
    /^new: pbx9 in hq \/ a: 3 packages, 2 modules, sangoma 7, a guess/,
  )
  const [box] = boxesByGroup(loadFleet(join(dir, 'gapferry.yaml')), 'hq').get('a')!
  t.match(box!.inventory, {
    isGuess: true,
    manager: 'yum',
    arch: 'x86_64',
    distribution: { id: 'sangoma', version: '7' },
  })
  t.strictSame(box!.inventory.packages[1], {
    name: 'vim',
    epoch: '2',
    version: '7.4',
    release: '1.el7',
    arch: 'x86_64',
  })
  t.strictSame(box!.inventory.freepbx?.modules, [
    { name: 'framework', version: '16.0.40.11', state: 'enabled', license: 'GPLv2+' },
    { name: 'gone', version: '?', state: 'not-installed-(locally-available)', license: '?' },
  ])
  status(t, await run('add', put('other.gfi', {}), '--name', 'pbx8', '--baseline'), 0)
  t.match((await run('list')).stdout, /\npbx8 .* a guess\npbx9 .* a guess$/m)
  t.match((await run('show', 'pbx9')).stdout, /unknown {2}dynamic DNS/)
  for (const [text, line] of [
    ['[root@pbx ~]# rpm -qa\n', 1],
    ['bash-4.2-35.el7.x86_64\nbash\n', 2],
    ['', 0],
    [`Hello\n${inventoryText()}`, 1],
  ] as const) {
    writeFileSync(join(dir, 'bad.txt'), text)
    const bad = await run('add', 'bad.txt', '--name', 'x')
    status(t, bad, 3, 'INVENTORY_INVALID')
    t.match(bad.stderr, line === 0 ? 'expected lines of "rpm -qa"' : `line ${line}:`)
  }
  writeFileSync(join(dir, 'banner.gfi'), `Hello\n${inventoryText()}`)
  t.match((await run('add', 'banner.gfi')).stderr, /line 1: expected "gapferry-inventory 1", found "Hello"/)
  status(t, await run('add', 'qa.txt', 'other.gfi', '--name', 'x'), 2, 'USAGE_INVALID')
  status(t, await run('add', 'other.gfi', put('o2.gfi', {}), '--name', 'x'), 2, 'USAGE_INVALID')
  status(t, await run('add', 'nowhere.gfi'), 2, 'USAGE_INVALID')
  status(t, await run('add', 'other.gfi', '--name', 'a/b'), 2, 'USAGE_INVALID')
  writeFileSync(join(dir, 'big.gfi'), Buffer.alloc(5 << 20))
  status(t, await run('add', 'big.gfi'), 3, 'INVENTORY_INVALID')
  t.notOk(existsSync(join(dir, 'inventories/hq/x.json')))
})

t.test('rules put boxes into groups; by hand comes first; a box that no group takes is an error', async (t) => {
  const { dir, run, put } = laptop(
    t,
    SETTINGS(SITE('hq', GROUP('a', ", boxes: ['pbx-a?', 'x*']"), GROUP('b', ", boxes: ['pbx-[b]', 'x*']"), GROUP('c'))),
  )
  t.match((await run('add', put('1.gfi', { box: 'pbx-a1' }))).stdout, 'hq / a')
  const none = await run('add', put('2.gfi', { box: 'pbx-c' }))
  status(t, none, 2, 'BOX_UNGROUPED')
  t.match(none.stderr, /no group takes it; groups of hq: a \(pbx-a\?, x\*\), b \(pbx-\[b\], x\*\), c \(no boxes\)/)
  status(t, await run('add', put('3.gfi', { box: 'x1' })), 2, 'BOX_UNGROUPED')
  status(t, await run('add', '2.gfi', '--group', 'nope'), 2, 'GROUP_UNKNOWN')
  t.match((await run('add', '2.gfi', '--group', 'c')).stdout, 'hq / c')
  t.match((await run('show', 'pbx-c')).stdout, 'c, by hand')
  const file = join(dir, 'gapferry.yaml')
  t.strictSame([...boxesByGroup(loadFleet(file), 'hq').keys()], ['a', 'c'])
  writeFileSync(file, SETTINGS(SITE('hq', GROUP('a', ", boxes: ['pbx-a?']"), GROUP('b'))))
  t.throws(() => boxesByGroup(loadFleet(file), 'hq'), { code: 'BOX_UNGROUPED' })
  t.match((await run('list')).stdout, /pbx-c +hq +- .*no group takes it/)
  t.throws(() => boxesByGroup(loadFleet(file), 'nope'), { code: 'SITE_UNKNOWN' })
})

t.test('of several sites one is to be named', async (t) => {
  const { run, put } = laptop(t, SETTINGS(SITE('hq', GROUP('a')), SITE('north', GROUP('a'))))
  status(t, await run('add', put('1.gfi', {})), 2, 'USAGE_INVALID')
  t.match((await run('add', '1.gfi', '--site', 'north')).stdout, 'north / a')
  status(t, await run('list', '--site', 'south'), 2, 'SITE_UNKNOWN')
  t.match((await run('list', '--site', 'hq')).stdout, 'no inventories yet')
})

t.test('a bundle that was signed later makes an inventory stale', async (t) => {
  const { dir, run, put } = laptop(t, ONE)
  await run('add', put('1.gfi', {}), put('2.gfi', { box: 'pbx2', created: '2026-11-22T10:00:00Z' }))
  const ledger = new Ledger(join(dir, 'store/ledger.db'))
  const createdAtMs = Date.parse('2026-11-22T09:00:00Z')
  ledger.rememberBundle(
    { site: 'hq', number: 4, createdAtMs, content: sha256Of(''), metadata: new Map(), trees: new Map() },
    [],
  )
  ledger.close()
  const { stdout } = await run('list')
  t.match(stdout, /pbx1 .*stale since bundle 4/)
  t.match(stdout, /pbx2 .*UTC$/m)
  t.match((await run('show', 'pbx1')).stdout, /stale: bundle 4 of 2026-11-22T09:00:00Z is newer; take a new inventory/)
})

t.test('files that were changed in the folder since are refused', async (t) => {
  const { dir, run, put } = laptop(t, ONE)
  await run('add', put('1.gfi', {}))
  writeFileSync(join(dir, 'inventories/hq/pbx1.json'), '{"grp": 1}')
  status(t, await run('list'), 3, 'INVENTORY_INVALID')
  writeFileSync(join(dir, 'inventories/hq/pbx1.json'), '{')
  status(t, await run('list'), 3, 'INVENTORY_INVALID')
  await run('remove', 'pbx1')
  writeFileSync(join(dir, 'inventories/hq/hand.rpms'), 'bash-1-1.noarch\n')
  t.match((await run('list')).stdout, /hand +hq +a +unknown +1 +- +1970-01-01/)
  status(t, await run('add', put('h.gfi', { box: 'hand' })), 0)
})
