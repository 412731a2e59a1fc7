import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { findUnprovided, type CarriedPart, type UnprovidedRequirement } from '../../../bundler/yum/unprovided.ts'
import { buildRpms, makeRepository } from '../../helpers/rpms.ts'
import type { PackageSpec } from '../../helpers/rpm-spec.ts'
import { storeRepository } from '../../helpers/yum-store.ts'

const root = t.testdir()

t.test('lists each requirement that nothing carried provides, with a package that needs it', async (t) => {
  const found = await unprovided([
    { name: 'app', version: '1', requires: ['lib >= 2', 'lib >= 1', 'gone', 'virtual = 3', 'rpmlib(X) = 1'] },
    { name: 'second', version: '1', requires: ['gone', 'app'] },
    { name: 'lib', epoch: 0, version: '1.5', provides: ['virtual = 3-1'] },
  ])
  t.strictSame(found, [
    { requirement: 'gone', by: 'app-1-1.noarch' },
    { requirement: 'lib >= 2', by: 'app-1-1.noarch' },
  ])
})

t.test('finds files in primary and in filelists', async (t) => {
  const specs = [
    { name: 'app', version: '1', requires: ['/usr/bin/tool', '/usr/share/a&b', '/usr/share/none'] },
    { name: 'tool', version: '1', files: { '/usr/bin/tool': 'x', '/usr/share/a&b': 'y' } },
  ]
  t.strictSame(await unprovided(specs), [{ requirement: '/usr/share/none', by: 'app-1-1.noarch' }])
  const bare = await unprovided(specs, { withFilelists: false })
  t.same(
    bare.map((row) => row.requirement),
    ['/usr/share/a&b', '/usr/share/none'],
  )
})

t.test('counts only what is carried, wherever in the group it comes from', async (t) => {
  const specs = [
    { name: 'app', version: '1', requires: ['lib'] },
    { name: 'lib', version: '1', requires: ['/usr/share/far'] },
  ]
  const first = await part(specs)
  const second = await part([{ name: 'far', version: '1', files: { '/usr/share/far': 'x' } }])
  const reader = { store: first.store }
  const onlyApp = { ...first.part, packages: first.part.packages.slice(0, 1) }
  t.strictSame(await findUnprovided([onlyApp], reader), [[{ requirement: 'lib', by: 'app-1-1.noarch' }]])
  t.strictSame(await findUnprovided([first.part], reader), [[{ requirement: '/usr/share/far', by: 'lib-1-1.noarch' }]])
  t.strictSame(await findUnprovided([first.part, second.part], reader), [[], []])
  t.strictSame(await findUnprovided([{ ...first.part, packages: [] }], reader), [[]])
})

t.test('takes a rich requirement apart', async (t) => {
  const rich = ['(langpack if base >= 2)', '((perl(Carp) or other) with x)']
  const found = await unprovided([{ name: 'app', version: '1', requires: rich, provides: ['perl(Carp)', 'base = 2'] }])
  t.same(
    found.map((row) => row.requirement),
    ['langpack', 'other', 'x'],
  )
})

t.test('lists that are made to keep this busy are done with at once', async (t) => {
  const brackets = (text: string): string => text.replace('name="gone"', `name="(a${')'.repeat(60_000)}"`)
  const files = (text: string): string => text.replace('</package>', `${'<file '.repeat(100_000)}</package>`)
  const cpu = process.cpuUsage()
  const { part: one, store } = await busy('primary', brackets)
  const [found] = await findUnprovided([one], { store })
  t.match(found, [{ requirement: '/no/such/file' }, { requirement: /^a$/ }])
  const other = await busy('filelists', files)
  await t.rejects(findUnprovided([other.part], other), { code: 'XML_INVALID' })
  t.ok(process.cpuUsage(cpu).user < 5e6)
})

async function busy(list: string, change: (text: string) => string) {
  const rpms = await buildRpms([{ name: 'app', version: '1', requires: ['gone', '/no/such/file'] }])
  const dir = join(root, randomUUID())
  await makeRepository(dir, rpms)
  const stored = await storeRepository(dir, join(root, 'store'), (type, bytes) => {
    const text = gunzipSync(bytes).toString()
    return Buffer.from(type === list ? change(text) : text)
  })
  return { part: { id: 'x', data: stored.data, packages: stored.packages }, store: stored.store }
}

async function unprovided(specs: PackageSpec[], { withFilelists = true } = {}): Promise<UnprovidedRequirement[]> {
  const { part: one, store } = await part(specs, withFilelists)
  const [found] = await findUnprovided([one], { store })
  return found!
}

async function part(specs: PackageSpec[], withFilelists = true) {
  const dir = join(root, randomUUID())
  const rpms = await buildRpms(specs)
  await makeRepository(join(dir, 'repo'), rpms)
  const stored = await storeRepository(join(dir, 'repo'), join(root, 'store'), (type, bytes) =>
    type === 'filelists' && !withFilelists ? undefined : gunzipSync(bytes),
  )
  const carried: CarriedPart = { id: 'x', data: stored.data, packages: stored.packages }
  return { part: carried, store: stored.store }
}
