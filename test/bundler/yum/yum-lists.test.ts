import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { findFiles } from '../../../bundler/yum/yum-lists.ts'
import { packageRow, pathsOf, relationsOf } from '../../../manifests/package-columns.ts'
import { TableReader } from '../../../manifests/package-reader.ts'
import { PackageScanner } from '../../../manifests/package-scan.ts'
import { RELATION_KINDS, StringPool } from '../../../manifests/package-table.ts'
import { readPackageStrictly } from '../../../manifests/package-xml.ts'
import { buildRpms, makeRepository } from '../../helpers/rpms.ts'
import { storeRepository } from '../../helpers/yum-store.ts'

const root = t.testdir()
const dir = join(root, 'repo')
await makeRepository(
  dir,
  await buildRpms([
    {
      name: 'app',
      epoch: 3,
      version: '1.0~rc1',
      requires: ['lib >= 2:1-3', 'old < 4', '/usr/share/a&b', '(langpack if base >= 2)', 'perl(Carp)'],
      provides: ['virtual = 3-1', 'app(x86-64)'],
      obsoletes: ['former <= 1.5'],
      conflicts: ['rival'],
      recommends: ['helper'],
      supplements: ['base'],
      files: { '/usr/bin/app': 'x', '/etc/app <é>.conf': 'y' },
    },
    { name: 'lib', epoch: 2, version: '1', release: '3', files: { '/usr/share/a&b': 'x', '/usr/share/plain': 'y' } },
  ]),
)

t.test('reads what createrepo_c writes quickly, and the same as a parser', async (t) => {
  const name = readdirSync(join(dir, 'repodata')).find((one) => one.includes('-primary.xml'))!
  const reader = new TableReader(new StringPool(), 'primary')
  const strict: unknown[] = []
  const scanner = new PackageScanner('primary', 'primary', (element) => {
    reader.add(element)
    const { location, ...facts } = readPackageStrictly(element, 'primary')
    strict.push(facts)
    t.same(reader.last().location, location)
  })
  scanner.write(gunzipSync(readFileSync(join(dir, 'repodata', name))))
  scanner.end()
  const table = reader.table()
  const quick = Array.from({ length: table.count }, (_, i) => ({
    row: packageRow(table, i),
    ...Object.fromEntries(RELATION_KINDS.map((kind) => [kind, relationsOf(table, kind, i)])),
    files: pathsOf(table, i),
  }))
  t.equal(reader.strictCount, 0)
  t.same(quick, strict)
  t.match(quick.find(({ row }) => row.name === 'app')!.files, ['/etc/app <é>.conf', '/usr/bin/app'])
})

t.test('finds packages by their files in what createrepo_c writes', async (t) => {
  const { store, data, packages } = await storeRepository(dir, join(root, 'store'))
  const list = { type: 'filelists' as const, blob: data.filelists!, what: 'filelists' }
  const found = await findFiles(list, ['/usr/share/a&b', '/usr/bin/app', '/usr/share', '/usr/share/plain'], { store })
  const names = [...found].map(([path, ids]) => [
    path,
    [...ids].map((id) => packages.find((row) => row.checksum.hex === id)!.name),
  ])
  t.same(Object.fromEntries(names), { '/usr/share/a&b': ['lib'], '/usr/bin/app': ['app'], '/usr/share/plain': ['lib'] })
})
