import t from 'tap'
import { selectPackages, type YumWishes } from '../../bundler/select-yum.ts'
import type { RepositoryTable } from '../../manifests/package-columns.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { formatNevra, parseNevra } from '../../manifests/rpm-version.ts'
import { rowsOf, tableOfRows } from '../helpers/tables.ts'

const NEVRAS = [
  'asterisk18-18.9.0-1.x86_64',
  'asterisk18-18.10.0-1.x86_64',
  'asterisk18-18.10.0-2.i686',
  'asterisk18-debug-18.10.0-1.x86_64',
  'bind-32:9.11.4-26.P2.x86_64',
  'bind-33:9.11.3-1.x86_64',
  'sysadmin-6.1-1.noarch',
  'sysadmin-6.2~rc1-1.noarch',
  'sysadmin-6.2-1.src',
]

t.test('carries everything but source packages where nothing is said', async (t) => {
  const { carried, reasons } = selectPackages(upstream(), {})
  t.strictSame(names(carried), NEVRAS.filter((nevra) => !nevra.endsWith('.src')).sort())
  t.equal(reasons.get('sysadmin-6.1-1.noarch'), 'everything')
})

t.test('matches globs against all that yum calls a package', async (t) => {
  for (const [glob, count] of [
    ['asterisk*', 4],
    ['asterisk18', 3],
    ['asterisk18.i686', 1],
    ['asterisk18-18.9.0', 1],
    ['asterisk18-18.10.0-2', 1],
    ['asterisk18-18.9.0-1.x86_64', 1],
    ['32:bind-9.11.4-26.P2.x86_64', 1],
    ['bind-33:9.11.3-1.x86_64', 1],
    ['b[hi]nd', 2],
    ['b[!i]nd', 0],
    ['b[a-i]nd', 2],
    ['bin?', 2],
    ['*.noarch', 2],
    ['bind-9.11.4-26.P2.x86_64', 1],
    ['bin', 0],
    ['b.nd', 0],
    ['[bind', 0],
    ['b[]nd', 0],
    ['*', 8],
  ] as const) {
    t.equal(selectPackages(upstream(), { include: [glob] }).carried.length, count, glob)
  }
  t.throws(() => selectPackages(upstream(), { include: ['b[z-a]'] }), { code: 'CONFIG_INVALID', message: /b\[z-a\]/ })
})

t.test('leaves out what is excluded, also when it is included', async (t) => {
  const wishes = { include: ['asterisk*', 'bind'], exclude: ['*-debug', '*.i686', 'bind-32:*'] }
  t.strictSame(names(selectPackages(upstream(), wishes).carried), [
    'asterisk18-18.10.0-1.x86_64',
    'asterisk18-18.9.0-1.x86_64',
    'bind-33:9.11.3-1.x86_64',
  ])
})

t.test('keeps the newest of each name and architecture, by epoch, version and release', async (t) => {
  t.strictSame(names(selectPackages(upstream(), { newest: 1 }).carried), [
    'asterisk18-18.10.0-1.x86_64',
    'asterisk18-18.10.0-2.i686',
    'asterisk18-debug-18.10.0-1.x86_64',
    'bind-33:9.11.3-1.x86_64',
    'sysadmin-6.2~rc1-1.noarch',
  ])
  t.equal(selectPackages(upstream(), { newest: 2 }).carried.length, 8)
  const excluded = { newest: 1, exclude: ['bind-33:*'] }
  t.ok(names(selectPackages(upstream(), excluded).carried).includes('bind-32:9.11.4-26.P2.x86_64'), 'of what is left')
})

t.test('gives the reason for each package', async (t) => {
  const reason = (wishes: YumWishes): string | undefined =>
    selectPackages(upstream(), wishes).reasons.get('asterisk18-18.10.0-1.x86_64')
  t.equal(reason({ include: ['bind', 'asterisk*', '*'] }), 'include asterisk*')
  t.equal(reason({ include: ['asterisk*'], newest: 1 }), 'include asterisk*, newest 1')
  t.equal(reason({ newest: 2 }), 'newest 2')
})

t.test('says which globs match nothing at all', async (t) => {
  const wishes = { include: ['asterisk*', 'astersik*'], exclude: ['asterisk*', 'nothing'] }
  t.strictSame(selectPackages(upstream(), wishes).unmatched, ['astersik*'])
})

t.test('refuses two different packages of one NEVRA, and takes one listed twice for one', async (t) => {
  const [first] = NEVRAS
  const twice = upstream([first!, first!])
  const [row] = rowsOf(twice.packages)
  const same = tableOfRows([row!, { ...row!, href: 'b/x.rpm' }])
  t.equal(selectPackages({ ...twice, packages: same }, {}).carried.length, 1)
  t.throws(() => selectPackages(twice, {}), {
    code: 'PACKAGE_CONFLICT',
    message: /x: asterisk18-18.9.0-1.x86_64 .*checksums/,
  })
  t.doesNotThrow(() => selectPackages(twice, { exclude: ['asterisk*'] }))
})

t.test('refuses two packages of one file name, which yum keeps by it', async (t) => {
  const { id, packages } = upstream(['a-1-1.noarch', 'b-1-1.noarch'])
  const clash = tableOfRows(rowsOf(packages).map((row, i) => ({ ...row, href: `${i}/same.rpm` })))
  t.throws(() => selectPackages({ id, packages: clash }, {}), { code: 'PACKAGE_CONFLICT', message: /same\.rpm/ })
})

function upstream(nevras = NEVRAS): { id: string; packages: RepositoryTable } {
  const rows = nevras.map((text, i): PackageRow => {
    const nevra = parseNevra(text)!
    const checksum = { algorithm: 'sha256' as const, hex: String(i).padStart(64, '0') }
    return { ...nevra, nevra: formatNevra(nevra), checksum, bytes: 1, href: `p/${text}.rpm`, fileTime: 0 }
  })
  return { id: 'x', packages: tableOfRows(rows) }
}

function names(rows: PackageRow[]): string[] {
  return rows.map((row) => row.nevra)
}
