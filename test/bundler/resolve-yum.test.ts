import { join } from 'node:path'
import pLimit from 'p-limit'
import t from 'tap'
import { formatNevra } from '../../manifests/rpm-version.ts'
import { testsolv } from '../helpers/testsolv.ts'
import {
  carriedFor,
  universePackage as one,
  resolveUniverse,
  recordedUniverses,
  type UniverseNevra,
  type UniversePackage,
} from '../helpers/universe.ts'

const universes = recordedUniverses()

t.test('carries everything that yum and libsolv install, and little more', (t) => {
  t.equal(universes.length, 120)
  let [carried, needed] = [0, 0]
  for (const universe of universes) {
    const set = new Set(carriedFor(universe))
    const byYum = universe.install.map(nevraOf)
    const { libsolv, libsolv_best: best } = universe
    const missing = [...byYum, ...libsolv.install, ...best.install].filter((one) => !set.has(one))
    t.same(missing, [], universe.id)
    carried += set.size
    // of a transaction that yum gave up nothing is needed
    needed += new Set([...(universe.result === 'ok' ? byYum : []), ...libsolv.install]).size
  }
  t.comment(`${carried} carried, ${needed} needed: ${(carried / needed).toFixed(2)}`)
  t.ok(carried <= 3.1 * needed, `${carried} carried, ${needed} needed`)
  t.end()
})

t.test('libsolv comes to the same outcome on what is carried as on everything', async (t) => {
  const dir = t.testdir()
  const limit = pLimit(4)
  const pairs = await Promise.all(
    universes.map((universe) =>
      limit(async () => {
        const carried = new Set(carriedFor(universe))
        const { id, installed, available } = universe
        const some = available.filter((one) => carried.has(nevraOf(one.nevra)))
        const full = await testsolv(join(dir, id, 'full'), { installed, available })
        return { id, full, cut: await testsolv(join(dir, id, 'cut'), { installed, available: some }) }
      }),
    ),
  )
  for (const { id, full, cut } of pairs) t.equal(cut.problems.length > 0, full.problems.length > 0, id)
  const other = pairs.filter(({ full, cut }) => JSON.stringify(full.steps) !== JSON.stringify(cut.steps))
  t.comment(`${other.length} other, equally valid choices: ${other.map(({ id }) => id).join(' ')}`)
  t.ok(other.length <= 2, 'where both choices are valid it is nearly always the same one')
})

t.test('carries all newer versions of what is installed, none that is older', (t) => {
  const { carried, reasons } = resolveUniverse({
    installed: [one('app-2-1.noarch')],
    available: ['app-1-1.noarch', 'app-2-1.noarch', 'app-3-1.noarch', 'app-1:1-1.noarch', 'other-1-1.noarch'].map(
      (nevra) => one(nevra),
    ),
  })
  t.same(carried, ['app-1:1-1.noarch', 'app-3-1.noarch'])
  t.equal(reasons['app-3-1.noarch'], 'newer by app-2-1.noarch')
  t.end()
})

t.test('carries a provider for what an installed package loses when another one is updated', (t) => {
  const installed = [
    one('libx-1-1.x86_64', { provides: ['libx.so.1'] }),
    one('app-1-1.x86_64', { requires: ['libx.so.1'] }),
  ]
  const libx = one('libx-2-1.x86_64', { provides: ['libx.so.2'] })
  const { carried, reasons } = resolveUniverse({
    installed,
    available: [
      libx,
      one('compat-1-1.x86_64', { provides: ['libx.so.1'] }),
      one('unused-1-1.x86_64', { provides: ['libz'] }),
    ],
  })
  t.same(carried, ['compat-1-1.x86_64', 'libx-2-1.x86_64'])
  t.equal(reasons['compat-1-1.x86_64'], 'provider libx.so.1 by app-1-1.x86_64')
  const { unresolved } = resolveUniverse({ installed, available: [libx] })
  t.same(unresolved, ['libx.so.1 (leaving, by app-1-1.x86_64)'])
  t.end()
})

t.test('takes an older version than the installed one only for what the installed one does not fulfil', (t) => {
  const lib = (version: number): UniversePackage =>
    one(`lib-${version}-1.x86_64`, { provides: ['lib.so', `cap${version}`] })
  const app = one('app-1-1.x86_64', { requires: ['lib.so'] })
  const universe = { installed: [lib(3), app], available: [lib(1), lib(2), lib(3), lib(4)] }
  t.same(carriedFor(universe), ['lib-4-1.x86_64'])
  const update = one('app-2-1.x86_64', { requires: ['cap2', 'lib.so'] })
  t.same(carriedFor({ ...universe, available: [...universe.available, update] }), [
    'app-2-1.x86_64',
    'lib-2-1.x86_64',
    'lib-4-1.x86_64',
  ])
  t.end()
})

t.test('follows chains of obsoletes, and leaves them where the box does not', (t) => {
  const universe = {
    installed: [one('old-1-1.noarch')],
    available: [
      one('middle-2-1.noarch', { obsoletes: ['old < 2'] }),
      one('new-3-1.noarch', { obsoletes: ['middle'], provides: ['old = 3'] }),
      one('virtual-1-1.noarch', { obsoletes: ['provided'] }),
    ],
  }
  const { carried, reasons } = resolveUniverse(universe)
  t.same(carried, ['middle-2-1.noarch', 'new-3-1.noarch'])
  t.equal(reasons['new-3-1.noarch'], 'obsoleter by middle-2-1.noarch')
  const mainOptions = new Map([['obsoletes', '0']])
  t.same(resolveUniverse(universe, { mainOptions }).carried, [])
  t.end()
})

t.test('finds who has a required path in primary and in what filelists say', (t) => {
  const { carried, unresolved } = resolveUniverse(
    {
      installed: [
        one('app-1-1.noarch', { requires: ['/usr/bin/have'] }),
        one('have-1-1.noarch', { files: ['/usr/bin/have'] }),
      ],
      available: [
        one('app-2-1.noarch', { requires: ['/usr/bin/tool', '/usr/share/data', '/usr/share/none', '/usr/bin/have'] }),
        one('tool-1-1.noarch', { files: ['/usr/bin/tool'] }),
        one('data-1-1.noarch'),
      ],
    },
    { paths: { '/usr/share/data': ['data-1-1.noarch'] } },
  )
  t.same(carried, ['app-2-1.noarch', 'data-1-1.noarch', 'tool-1-1.noarch'])
  t.same(unresolved, ['/usr/share/none (missing, by app-2-1.noarch)'])
  t.end()
})

t.test('takes each part of a rich requirement, and weak ones for dnf alone', (t) => {
  const universe = {
    installed: [one('app-1-1.noarch'), one('lang-1-1.noarch')],
    available: [
      one('app-2-1.noarch', { requires: ['(pack if lang >= 1)', 'rpmlib(X) <= 1'], recommends: ['tip'] }),
      one('pack-1-1.noarch'),
      one('tip-1-1.noarch'),
      one('app-de-1-1.noarch', { supplements: ['(app and lang)'] }),
      one('app-fr-1-1.noarch', { supplements: ['(app and langfr)'] }),
      one('lang-doc-1-1.noarch', { supplements: ['lang'] }),
    ],
  }
  t.same(resolveUniverse(universe).carried, ['app-2-1.noarch', 'pack-1-1.noarch'])
  const { carried, unresolved } = resolveUniverse(universe, { manager: 'dnf' })
  t.same(carried, ['app-2-1.noarch', 'app-de-1-1.noarch', 'pack-1-1.noarch', 'tip-1-1.noarch'])
  t.same(unresolved, [])
  t.end()
})

t.test('kernels stand beside each other: only what is newer than the newest, and its modules', (t) => {
  const kernel = (version: number): UniversePackage =>
    one(`kernel-${version}-1.x86_64`, { provides: [`kernel-uname-r = ${version}-1`, 'ksym(a)'] })
  const kmod = (version: number): UniversePackage =>
    one(`kmod-${version}-1.x86_64`, { requires: [`kernel-uname-r = ${version}-1`, 'ksym(a)'] })
  const universe = {
    installed: [kernel(1), kernel(4), kmod(4)],
    available: [kernel(1), kernel(2), kernel(3), kernel(4), kernel(5), kmod(5)],
  }
  t.same(resolveUniverse(universe).carried, ['kernel-5-1.x86_64', 'kmod-5-1.x86_64'])
  // a limit of 2 lets the older one go when one comes, and nothing brings it back for what leans on it
  const mainOptions = new Map([['installonly_limit', '2']])
  const leaning = { ...universe, installed: [...universe.installed, kmod(1)] }
  const { carried, unresolved } = resolveUniverse(leaning, { mainOptions })
  t.same(carried, ['kernel-5-1.x86_64', 'kmod-5-1.x86_64'])
  t.same(unresolved, [], 'kmod-1 goes itself')
  t.end()
})

t.test('what the settings want comes with its requirements and is no candidate', (t) => {
  const { carried, candidates, reasons } = resolveUniverse(
    {
      installed: [one('app-1-1.noarch')],
      available: [one('app-2-1.noarch'), one('extra-1-1.noarch', { requires: ['lib', 'app'] }), one('lib-1-1.noarch')],
    },
    { wanted: ['extra-1-1.noarch'] },
  )
  t.same(candidates, ['app-2-1.noarch'])
  t.same(carried, ['app-2-1.noarch', 'extra-1-1.noarch', 'lib-1-1.noarch'])
  t.equal(reasons['extra-1-1.noarch'], 'wanted by settings')
  t.end()
})

t.test('an installed name is updated in any compatible architecture, never in another', (t) => {
  const { carried } = resolveUniverse({
    installed: [one('lib-1-1.x86_64'), one('lib-1-1.i686')],
    available: ['lib-2-1.x86_64', 'lib-2-1.i686', 'lib-2-1.aarch64', 'lib-2-1.src'].map((nevra) => one(nevra)),
  })
  t.same(carried, ['lib-2-1.i686', 'lib-2-1.x86_64'])
  t.end()
})

t.test(
  'the native build at the installed version comes along where only that of another architecture is there',
  (t) => {
    const available = ['lib-1-1.x86_64', 'lib-1-1.i686', 'lib-2-1.x86_64', 'lib-2-1.i686'].map((nevra) => one(nevra))
    const { reasons } = resolveUniverse({ installed: [one('lib-1-1.i686')], available })
    t.equal(reasons['lib-1-1.x86_64'], 'native by lib-1-1.i686')
    t.same(carriedFor({ installed: [one('lib-1-1.i686')], available }), [
      'lib-1-1.x86_64',
      'lib-2-1.i686',
      'lib-2-1.x86_64',
    ])
    t.same(carriedFor({ installed: [one('lib-1-1.x86_64')], available }), ['lib-2-1.i686', 'lib-2-1.x86_64'])
    t.end()
  },
)

t.test('a caret counts as rpm 4.11 has it on yum boxes, and as later ones have it on dnf boxes', (t) => {
  const universe = { installed: [one('app-1-1.noarch')], available: [one('app-1^git-1.noarch')] }
  t.same(resolveUniverse(universe, { manager: 'dnf' }).carried, ['app-1^git-1.noarch'])
  const between = { installed: [one('app-1.1-1.noarch')], available: [one('app-1^2-1.noarch')] }
  t.same(resolveUniverse(between, { manager: 'yum' }).carried, ['app-1^2-1.noarch'], '1.1 < 1.2 where ^ is a separator')
  t.same(resolveUniverse(between, { manager: 'dnf' }).carried, [])
  t.end()
})

t.test('ends soon on loops and crowds', (t) => {
  const many = 3000
  const numbers = Array.from({ length: many }, (_, i) => i)
  const loop = numbers.map((i) =>
    one(`loop${i}-2-1.noarch`, { requires: [`loop${(i + 1) % many}`], obsoletes: [`loop${(i + 7) % many}`] }),
  )
  const start = process.cpuUsage().user
  t.equal(resolveUniverse({ installed: [one('loop0-1-1.noarch')], available: loop }).carried.length, many)
  const crowd = numbers
    .slice(0, 1000)
    .map((i) => one(`crowd${i}-1-1.noarch`, { provides: [`x = ${i}`], requires: [`x > ${i}`] }))
  t.equal(
    resolveUniverse({ installed: [one('a-1-1.noarch', { requires: ['x'] })], available: crowd }).carried.length,
    1000,
  )
  const fat = one('fat-2-1.noarch', { provides: numbers.slice(0, 1000).map((i) => `x = ${i}`) })
  const asking = numbers.slice(0, 1000).map((i) => one(`ask${i}-1-1.noarch`, { requires: [`x = ${i}`] }))
  t.equal(resolveUniverse({ installed: [one('fat-1-1.noarch')], available: [fat, ...asking] }).carried.length, 1)
  const self = one('self-2-1.noarch', { obsoletes: ['self < 3', 'self'] })
  t.same(resolveUniverse({ installed: [one('self-1-1.noarch')], available: [self] }).carried, ['self-2-1.noarch'])
  const seconds = (process.cpuUsage().user - start) / 1e6
  t.ok(seconds < 10, `${seconds} s of user time`)
  t.end()
})

function nevraOf([name, epoch, version, release, arch]: UniverseNevra): string {
  return formatNevra({ name, epoch, version, release, arch })
}

t.test('lists and boxes that were made to keep a plan busy are refused', (t) => {
  const many = Array.from({ length: 1200 }, (_, i) => i)
  const hostile: Record<string, Parameters<typeof resolveUniverse>> = {
    'an installed name with thousands of versions': [
      {
        installed: [...many, ...many.map((i) => i + 1200)].map((i) => one(`a-${i}-1.noarch`)),
        available: [...many, ...many.map((i) => i + 1200)].map((i) => one(`a-${i + 2400}-1.noarch`)),
      },
    ],
    'supplements in a row': [
      {
        installed: [one('a-1-1.noarch')],
        available: [
          one('a-2-1.noarch'),
          ...many.map((i) => one(`x${i}-1-1.noarch`, { supplements: [`(x${i + 1} and a)`] })),
          one('x1200-1-1.noarch', { supplements: ['a'] }),
        ],
      },
      { manager: 'dnf' },
    ],
    'versions without end': [
      {
        installed: [one('a-1-1.noarch')],
        available: ['1', '2'].map((end) => one(`a-${'1.'.repeat(9000)}${end}-1.noarch`)),
      },
    ],
  }
  for (const [what, args] of Object.entries(hostile)) {
    t.throws(() => resolveUniverse(...args), { code: 'REPODATA_INVALID' }, what)
  }
  const options = new Map([['exclude', Array.from({ length: 5000 }, (_, i) => `a${i}`).join(' ')]])
  const plain = { installed: [one('a-1-1.noarch')], available: [one('a-2-1.noarch')] }
  t.throws(() => resolveUniverse(plain, { mainOptions: options }), { code: 'INVENTORY_INVALID' })
  t.end()
})
