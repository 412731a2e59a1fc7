import t from 'tap'
import { Available } from '../../../bundler/yum/available.ts'
import { rulesOf, type BoxSettings } from '../../../bundler/yum/box-settings.ts'
import { StringPool, tableOf } from '../../../manifests/package-table.ts'
import { formatNevra, parseNevra } from '../../../manifests/rpm-version.ts'

const base = ['a-1-1.noarch', 'a-2-1.noarch', 'b-1:1-1.x86_64']
const other = ['a-3-1.noarch', 'c-1-1.noarch']

t.test('offers everything to a box without settings', (t) => {
  t.same(offered({}), [...base, ...other])
  t.end()
})

t.test('leaves out repositories that the box has off, keeps those it does not know', (t) => {
  t.same(offered({ repositories: [section('base', { enabled: '0' })] }), other)
  t.same(offered({ repositories: [section('base', { enabled: 'no' }), section('elsewhere', { enabled: '1' })] }), other)
  t.end()
})

t.test('takes excludes of the main section and of repositories, in every spelling of a package', (t) => {
  t.same(offered({ mainOptions: new Map([['exclude', 'b c*']]) }), ['a-1-1.noarch', 'a-2-1.noarch', 'a-3-1.noarch'])
  t.same(offered({ repositories: [section('base', { exclude: 'a-2*, 1:b-1-1.x86_64' })] }), ['a-1-1.noarch', ...other])
  t.same(offered({ manager: 'dnf', mainOptions: new Map([['excludepkgs', '[ab]']]) }), ['c-1-1.noarch'])
  t.end()
})

t.test('an includepkgs leaves only what it names, per repository', (t) => {
  t.same(offered({ repositories: [section('base', { includepkgs: 'b' })] }), ['b-1:1-1.x86_64', ...other])
  const mainOptions = new Map([['includepkgs', 'c']])
  t.same(offered({ manager: 'dnf', mainOptions }), ['c-1-1.noarch'])
  t.same(offered({ manager: 'yum', mainOptions }), [...base, ...other], 'yum knows none in the main section')
  t.end()
})

t.test('priorities count where their plugin is on', (t) => {
  const repositories = [section('base', { priority: '1' })]
  t.same(offered({ repositories, plugins: ['priorities'] }), [...base, 'c-1-1.noarch'])
  t.same(offered({ repositories }), [...base, ...other])
  t.end()
})

t.test('version locks count where their plugin is on, as yum and as dnf write them', (t) => {
  const locked = (...versionLocks: string[]): string[] => offered({ versionLocks, plugins: ['versionlock'] })
  t.same(locked('0:a-2-1.*'), ['a-2-1.noarch', 'b-1:1-1.x86_64', 'c-1-1.noarch'])
  t.same(locked('a-0:2-1.*'), ['a-2-1.noarch', 'b-1:1-1.x86_64', 'c-1-1.noarch'])
  t.same(
    locked('a-0:2-*.*', 'a-0:3-*.*').filter((one) => one.startsWith('a')),
    ['a-2-1.noarch', 'a-3-1.noarch'],
  )
  t.same(locked('!0:a-3-1.*'), [...base, 'c-1-1.noarch'])
  t.same(locked('0:b-1-1.*'), ['a-1-1.noarch', 'a-2-1.noarch', 'a-3-1.noarch', 'c-1-1.noarch'], 'another epoch')
  t.same(offered({ versionLocks: ['0:a-2-1.*'] }), [...base, ...other], 'without the plugin')
  t.end()
})

t.test('architectures of the box alone', (t) => {
  t.same(
    offered({ arch: 'aarch64' }),
    [...base, ...other].filter((one) => one.endsWith('noarch')),
  )
  t.end()
})

t.test('a glob that is none hides nothing', (t) => {
  t.same(offered({ mainOptions: new Map([['exclude', '[z-a] b']]) }), ['a-1-1.noarch', 'a-2-1.noarch', ...other])
  t.end()
})

t.test('knows what is installed side by side', (t) => {
  const rules = (mainOptions: Record<string, string>, manager: 'yum' | 'dnf') =>
    rulesOf(settings({ manager, mainOptions: new Map(Object.entries(mainOptions)) }), world())
  t.equal(
    rules({}, 'yum').isInstallonly('kernel', () => []),
    true,
  )
  t.equal(
    rules({ installonlypkgs: 'mine' }, 'yum').isInstallonly('kernel', () => []),
    false,
  )
  t.equal(
    rules({ installonlypkgs: 'mine' }, 'dnf').isInstallonly('kernel', () => []),
    true,
  )
  t.equal(
    rules({}, 'yum').isInstallonly('kmod-x', () => ['installonlypkg(kernel-module)']),
    true,
  )
  t.equal(
    rules({}, 'yum').isInstallonly('app', () => ['kernel']),
    false,
  )
  t.same([rules({}, 'yum').installonlyLimit, rules({}, 'dnf').installonlyLimit], [0, 3])
  t.equal(rules({ installonly_limit: '5' }, 'yum').installonlyLimit, 5)
  t.end()
})

function section(id: string, options: Record<string, string>): BoxSettings['repositories'][number] {
  return { id, options: new Map(Object.entries(options)) }
}

function settings(more: Partial<BoxSettings>): BoxSettings {
  const none = { mainOptions: new Map<string, string>(), repositories: [], versionLocks: [], plugins: [] }
  return { manager: 'yum', arch: 'x86_64', ...none, ...more }
}

function offered(more: Partial<BoxSettings>): string[] {
  const { isOffered } = rulesOf(settings(more), world())
  return [...base, ...other].filter((_, i) => isOffered[i] === 1)
}

function world(): Available {
  const pool = new StringPool()
  const table = (nevras: string[]) =>
    tableOf(
      pool,
      nevras.map((one) => parseNevra(one)!),
    )
  const repositories = [
    { id: 'base', table: table(base) },
    { id: 'other', table: table(other) },
  ]
  t.same([formatNevra(parseNevra(base[2]!)!)], [base[2]])
  return new Available(pool, repositories, { caret: false })
}
