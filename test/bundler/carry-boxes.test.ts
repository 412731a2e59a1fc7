import { join } from 'node:path'
import { readFileSync, writeFileSync } from 'node:fs'
import { Readable, Writable } from 'node:stream'
import t from 'tap'
import { carriedBefore } from '../../bundler/yum/carried-before.ts'
import type { Laptop } from '../../bundler/carry.ts'
import { loadFleet } from '../../bundler/config.ts'
import { openLaptop } from '../../bundler/laptop.ts'
import type { Plan, PlannedGroup } from '../../bundler/plan.ts'
import { runGapferry } from '../../bundler/program.ts'
import { findPaths } from '../../bundler/yum/yum-tables.ts'
import type { Sha256 } from '../../manifests/digest.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import { MAX_TREE_BYTES, parseTree } from '../../manifests/tree.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import { inside } from '../helpers/inside.ts'
import { makeLab } from '../helpers/lab.ts'
import { mustRun } from '../helpers/process.ts'
import { rowsOf } from '../helpers/tables.ts'

t.test('a package that the upstream dropped stays while a box needs it, with its metadata', async (t) => {
  const lab = await makeLab(t)
  const dir = lab.folder('laptop')
  const first = [
    { name: 'app', version: '2', requires: ['/usr/share/app/data'] },
    { name: 'data', version: '1', files: { '/usr/share/app/data': 'x' } },
    { name: 'unneeded', version: '1' },
  ]
  await lab.publish('p', first, { signed: false })
  writeFileSync(join(dir, 'gapferry.yaml'), settings(`${lab.url}/p/`))
  t.equal((await inside(runGapferry, dir, ['init', '--no-passphrase'])).status, 0)
  await addBox(dir, ['app 1'])
  const before = await carry(dir)
  t.same(nevras(before), ['app-2-1.noarch', 'data-1-1.noarch'])
  t.equal(before.boxes[0]!.stale, null, 'no bundle was signed since')
  const again = await inside(runGapferry, dir, ['plan', '--json'])
  const planned = (JSON.parse(again.stdout) as Plan).sites[0]!.groups[0]!
  t.match(planned.boxes[0]!.stale, { number: 1, createdAt: /Z$/ })
  const shown = await inside(runGapferry, dir, ['plan'])
  t.match(shown.stdout, /box pbx1 .*, stale$/m)
  t.match(shown.stdout + shown.stderr, 'pbx1: stale: bundle 1 was signed since the inventory; take a new one')
  await lab.publish('p', [{ name: 'app', version: '3', requires: ['/usr/share/app/data'] }], { signed: false })
  const after = await carry(dir)
  t.same(nevras(after), ['app-2-1.noarch', 'app-3-1.noarch', 'data-1-1.noarch'])
  t.same(nevras(await carry(dir)), nevras(after), 'and on, from bundle to bundle')
  await withLaptop(dir, async ({ store, ledger }) => {
    const last = ledger.lastBundle('hq')!
    t.equal(last.number, 2, 'what did not change is no new bundle')
    const repository = (await carriedBefore(last.trees.get('x/current'), 'x', { store, pool: new StringPool() })).get(
      'p',
    )!
    t.same(
      rowsOf(repository.packages)
        .map(({ nevra }) => nevra)
        .sort(),
      nevras(after),
    )
    const owners = await findPaths(repository, new Set(['/usr/share/app/data']), { store })
    const row = owners.get('/usr/share/app/data')![0]!
    t.equal(rowsOf(repository.packages)[row]!.nevra, 'data-1-1.noarch', 'filelists came along')
  })
  await addBox(dir, ['app 3', 'data 1'])
  const stale = await inside(runGapferry, dir, ['pack', '--to', dir])
  t.match(stale, { status: 4, stderr: /inventories have changed since it was planned/ })
  t.same(nevras(await carry(dir)), [], 'what no box needs any more is not carried on')
})

t.test('what rotted of the last bundle stops no plan: the upstream is asked again', async (t) => {
  const lab = await makeLab(t)
  const dir = lab.folder('laptop')
  await lab.publish('p', [{ name: 'app', version: '2' }], { signed: false })
  writeFileSync(join(dir, 'gapferry.yaml'), settings(`${lab.url}/p/`))
  t.equal((await inside(runGapferry, dir, ['init', '--no-passphrase'])).status, 0)
  await addBox(dir, ['app 1'])
  await carry(dir)
  let number = 1
  const rot = (pathOf: (sha256: Sha256) => string, sha256: Sha256): void => {
    const bytes = readFileSync(pathOf(sha256))
    bytes[bytes.length >> 1]! ^= 1
    writeFileSync(pathOf(sha256), bytes)
  }
  const targets: [string, (path: string) => boolean][] = [
    ['the tree', () => false],
    ['repomd.xml', (path) => path.endsWith('repomd.xml')],
    ['primary', (path) => path.includes('-primary.xml')],
  ]
  for (const [what, isIt] of targets) {
    await withLaptop(dir, async ({ store, ledger }) => {
      const tree = ledger.lastBundle('hq')!.trees.get('x/current')!
      const { entries } = parseTree(store.read(tree, MAX_TREE_BYTES), 'x/current')
      const path = [...entries.keys()].find(isIt)
      rot((sha256) => store.pathOf(sha256), path === undefined ? tree : entries.get(path)!.sha256)
    })
    t.same(nevras(await carry(dir)), ['app-2-1.noarch'], what)
    if (what !== 'primary') number += 1 // lists are made again as they were
    await withLaptop(dir, async ({ ledger }) => t.equal(ledger.lastBundle('hq')!.number, number, what))
  }
})

t.test('reads the advisories of an upstream, and goes on without those that it cannot read', async (t) => {
  const lab = await makeLab(t)
  const dir = lab.folder('laptop')
  const published = await lab.publish(
    'p',
    [
      { name: 'app', version: '2' },
      { name: 'new', version: '1' },
    ],
    { signed: false },
  )
  const addUpdateinfo = async (text: string): Promise<void> => {
    const file = join(lab.dir, 'updateinfo.xml')
    writeFileSync(file, text)
    await mustRun('modifyrepo_c', ['--compress-type', 'gz', file, join(published.dir, 'repodata')])
  }
  const named = '<package name="app" version="2" release="1" epoch="0" arch="noarch"/>'
  const list = `<pkglist><collection>${named}</collection></pkglist>`
  await addUpdateinfo(`<updates><update type="security"><id>A-1</id><severity>Low</severity>${list}</update></updates>`)
  writeFileSync(join(dir, 'gapferry.yaml'), settings(`${lab.url}/p/`))
  const plan = async (...args: string[]): Promise<PlannedGroup> => {
    const { stdout, stderr } = await inside(runGapferry, dir, ['plan', '--json', ...args])
    if (stdout === '') throw new Error(stderr)
    return (JSON.parse(stdout) as Plan).sites[0]!.groups[0]!
  }
  const all = await plan()
  t.same(all.advisories, [{ id: 'A-1', type: 'security', severity: 'low' }])
  t.same(nevras(all), ['app-2-1.noarch', 'new-1-1.noarch'])
  t.same(nevras(await plan('--security')), ['app-2-1.noarch'])
  await addUpdateinfo('<updates><update>')
  t.same((await plan()).advisories, [])
})

function settings(baseurl: string): string {
  const group = `- name: x\n        origin: http://m.lan\n        yum: [{ id: p, baseurl: ['${baseurl}'] }]`
  return `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n      ${group}\n`
}

function nevras(group: PlannedGroup): string[] {
  return group.yum[0]!.packages.map(({ nevra }) => nevra)
}

/** The inventory of pbx1, a yum box that has these packages. */
async function addBox(dir: string, packages: string[]): Promise<void> {
  const relations = packages.map((one) => `${one.replace(' ', ' = ')}-1`)
  const lines = packages.map((one, i) => `${one.replace(' ', ' 0 ')} 1 noarch p=${i + 1}`)
  writeFileSync(join(dir, 'box.gfi'), inventoryText({ sections: { relations, packages: lines } }))
  const { status, stderr } = await inside(runGapferry, dir, ['inventory', 'add', '--force', 'box.gfi'])
  if (status !== 0) throw new Error(stderr)
}

/** Pull and pack. @returns the group as it was planned */
async function carry(dir: string): Promise<PlannedGroup> {
  for (const args of [['pull'], ['pack', '--to', dir]]) {
    const { status, stderr } = await inside(runGapferry, dir, args)
    if (status !== 0) throw new Error(stderr)
  }
  return (JSON.parse(readFileSync(join(dir, 'store/plan.json'), 'utf8')) as Plan).sites[0]!.groups[0]!
}

async function withLaptop<R>(dir: string, work: (laptop: Laptop) => Promise<R>): Promise<R> {
  const nowhere = new Writable({ write: (_bytes, _encoding, done) => done() }) as Writable & { isTTY?: boolean }
  const { laptop, close } = openLaptop(loadFleet(join(dir, 'gapferry.yaml')), {
    version: '1.2.3',
    cwd: dir,
    environment: {},
    stdin: Readable.from([]),
    stdout: nowhere,
    stderr: nowhere,
    nowMs: Date.now,
    signal: new AbortController().signal,
  })
  try {
    return await work(laptop)
  } finally {
    await close()
  }
}
