import t from 'tap'
import { join } from 'node:path'
import type { TreePath } from '../../manifests/path.ts'
import type { TreeEntry } from '../../manifests/tree.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { loweredPackages, loweredWarnings } from '../../server/lowered.ts'
import { runMirror } from '../../server/program.ts'
import { inside } from '../helpers/inside.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import { NOW } from '../helpers/site.ts'

function tree(...paths: string[]): Map<TreePath, TreeEntry> {
  const entry = { kind: 'immutable' } as TreeEntry
  return new Map(paths.map((path) => [path as TreePath, entry]))
}

t.test('a package goes down when its newest version does, as rpm orders them', async (t) => {
  const table: [string[], string[], string[]][] = [
    [['asterisk-16.9-1.x86_64'], ['asterisk-16.10-1.x86_64'], []],
    [['asterisk-16.10-1.x86_64'], ['asterisk-16.9-1.x86_64'], ['asterisk.x86_64 16.10-1 16.9-1']],
    [['a-1-2.noarch'], ['a-1-1.noarch'], ['a.noarch 1-2 1-1']],
    [['a-1-1.noarch'], ['a-1~rc1-1.noarch'], ['a.noarch 1-1 1~rc1-1']],
    [['a-1-1.noarch', 'a-3-1.noarch'], ['a-2-1.noarch', 'a-1-1.noarch'], ['a.noarch 3-1 2-1']],
    [['a-1-1.noarch'], ['a-3-1.noarch', 'a-0-1.noarch'], []],
    [['a-2-1.x86_64'], ['a-1-1.i686'], []],
    [['a-2-1.noarch'], ['b-1-1.noarch'], []],
    [['a-2-1.noarch'], [], []],
    [[], ['a-1-1.noarch'], []],
    [['odd'], ['odd'], []],
  ]
  for (const [served, bundle, want] of table) {
    const [before, after] = [served, bundle].map((names) => tree(...names.map((name) => `yum/base/x/${name}.rpm`)))
    const found = loweredPackages(before!, after!).map((one) => [one.package, one.served, one.bundle].join(' '))
    t.same(found, want, `${served.join()} → ${bundle.join()}`)
  }
})

t.test('repositories are compared each for itself, and only packages', async (t) => {
  t.same(loweredPackages(tree('yum/a/p-2-1.noarch.rpm'), tree('yum/b/p-1-1.noarch.rpm')), [])
  t.same(loweredPackages(tree('files/p-2-1.noarch.rpm'), tree('files/p-1-1.noarch.rpm')), [])
  t.same(loweredPackages(tree('yum/a/p-2-1.noarch.rpm'), tree('yum/a/p-1-1.noarch.rpm')), [
    { repository: 'a', package: 'p.noarch', served: '2-1', bundle: '1-1' },
  ])
})

t.test('a long list ends', async (t) => {
  const lowered = Array.from({ length: 30 }, (_, i) => {
    return { repository: 'a', package: `p${i}.noarch`, served: '2-1', bundle: '1-1' }
  })
  const lines = loweredWarnings([{ group: 'pbx', lowered }])
  t.equal(lines.length, 21)
  t.equal(lines[0], 'pbx, a: p0.noarch goes down from 2-1 to 1-1')
  t.match(lines.at(-1), /^10 more/)
})

t.test('names that are made to keep the comparison busy do not', async (t) => {
  const names = ['-', '-1', '.', '-.', 'a-', '1.', '~', '0'].map((piece) => piece.repeat(240 / piece.length))
  const paths = Array.from({ length: 20_000 }, (_, i) => `yum/a/${i}/${names[i % names.length]}.rpm`)
  const cpu = process.cpuUsage()
  loweredPackages(tree(...paths), tree(...paths))
  t.ok(process.cpuUsage(cpu).user < 3e6)
})

t.test('import says which packages would go down, before and after they are kept', async (t) => {
  const dir = t.testdir({ 'root.json': sampleRoot, mir: {} })
  const mirror = (...args: string[]) => inside(runMirror, join(dir, 'mir'), args, { nowMs: () => NOW })
  const pin = ['--trust', '../root.json', '--fingerprint', fingerprintWords(sampleRoot), '--origin', 'pbx=127.0.0.1:0']
  t.equal((await mirror('init', '.', ...pin)).status, 0)
  const bring = (number: number, packages: string[], ...more: string[]) => {
    const files = writeParts(join(dir, 'stick'), signContent(makeContent(number, [{ stamp: number, packages }])))
    return mirror('import', ...more, ...files)
  }
  const first = await bring(1, ['pbx-2-1.noarch', 'up-1-1.noarch'], '--release')
  t.notMatch(first.stderr, 'goes down')
  const warning = /^warning: pbx, base: pbx\.noarch goes down from 2-1 to 1-9$/m
  const next = ['pbx-1-9.noarch', 'up-1-2.noarch']
  t.match((await bring(2, next, '--dry-run')).stderr, warning)
  const json = JSON.parse((await bring(2, next, '--json')).stdout)
  t.same(json.changes[0].lowered, [{ repository: 'base', package: 'pbx.noarch', served: '2-1', bundle: '1-9' }])
  t.match((await bring(2, next)).stderr, warning)
})
