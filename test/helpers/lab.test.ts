import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeApache } from './apache.ts'
import { signDetached, gpgKey, verifyDetached } from './gpg.ts'
import { makeLab } from './lab.ts'
import { repoFileText } from './dnf.ts'
import { signRepository } from './rpms.ts'
import type { PackageSpec } from './rpm-spec.ts'

const OLD: PackageSpec[] = [
  { name: 'libx', version: '1.0', arch: 'x86_64', provides: ['libx.so.1()(64bit)'] },
  { name: 'app', version: '1.0', arch: 'x86_64', requires: ['libx.so.1()(64bit)'] },
  { name: 'epochy', version: '9.0' },
  { name: 'tildy', version: '1.0~rc1' },
  { name: 'unmoved', version: '1.0' },
]
const NEW: PackageSpec[] = [
  { name: 'libx', version: '2.0', arch: 'x86_64', provides: ['libx.so.2()(64bit)'], payloadBytes: 20_000 },
  { name: 'app', version: '2.0', arch: 'x86_64', requires: ['libx.so.2()(64bit)', 'newdep >= 1.0'] },
  {
    name: 'newdep',
    version: '1.0',
    files: { '/etc/newdep.conf': 'a = 1\n', '/usr/bin/newdep': Buffer.from([0, 255]) },
  },
  { name: 'epochy', epoch: 1, version: '1.0' },
  { name: 'tildy', version: '1.0' },
]
const OLD_NEVRAS = [
  'app-1.0-1.x86_64',
  'epochy-9.0-1.noarch',
  'libx-1.0-1.x86_64',
  'tildy-1.0~rc1-1.noarch',
  'unmoved-1.0-1.noarch',
]
const NEW_NEVRAS = [
  'app-2.0-1.x86_64',
  'epochy-1:1.0-1.noarch',
  'libx-2.0-1.x86_64',
  'newdep-1.0-1.noarch',
  'tildy-1.0-1.noarch',
  'unmoved-1.0-1.noarch',
]

t.test('a box made with the old generation upgrades to the new one, and nothing is pending after', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('pkgs', OLD)
  const box = lab.box({ repositories: { lab: 'pkgs' } })
  t.match(await box.makecache(), { status: 0 })
  t.match(await box.install(...OLD_NEVRAS), { status: 0 })
  t.same(await box.installed(), OLD_NEVRAS)
  t.same(await box.pending(), [])
  await lab.publish('pkgs', [...OLD, ...NEW])
  const pending = await box.pending()
  t.same(
    pending.filter((item) => ['Install', 'Upgrade'].includes(item.action)).map((item) => item.nevra),
    ['newdep-1.0-1.noarch', 'app-2.0-1.x86_64', 'epochy-1:1.0-1.noarch', 'libx-2.0-1.x86_64', 'tildy-1.0-1.noarch'],
  )
  t.match(await box.upgrade(), { status: 0 })
  t.same(await box.installed(), NEW_NEVRAS)
  t.same(await box.pending(), [])
  t.equal(readFileSync(join(box.root, 'etc/newdep.conf'), 'utf8'), 'a = 1\n')
  t.ok(lab.requests.some((request) => request.url.endsWith('/repodata/repomd.xml.asc')))
})

for (const compression of ['gz', 'xz', 'bz2', 'zstd'] as const) {
  t.test(`dnf reads repository metadata made as ${compression}, from apache2`, async (t) => {
    const lab = await makeLab(t)
    const { dir } = await lab.publish('pkgs', OLD, {
      compression,
      databases: compression === 'gz',
      href: (rpm) => `Packages/${rpm.spec.name[0]}/${rpm.fileName}`,
    })
    const apache = await makeApache(t, dir)
    const box = lab.box({ repoFiles: { 'a.repo': repoFileText({ id: 'a', url: apache.url, gpgkey: lab.keyUrl }) } })
    t.match(await box.makecache(), { status: 0 })
    t.match(await box.install('app'), { status: 0 })
    t.same(await box.installed(), ['app-1.0-1.x86_64', 'libx-1.0-1.x86_64'])
    t.match(
      apache.log(),
      new RegExp(
        `GET /repodata/[0-9a-f]{64}-primary.xml.${compression === 'zstd' ? 'zst' : compression} HTTP/1.1" 200`,
      ),
    )
  })
}

t.test('dnf refuses what a wrong key signed, what nobody signed, and packages without a signature', async (t) => {
  const lab = await makeLab(t)
  const { dir } = await lab.publish('pkgs', OLD, { signed: 'metadata' })
  const box = lab.box({ repositories: { lab: 'pkgs' } })
  t.match(await box.makecache(), { status: 0 })
  const unsigned = await box.install('unmoved')
  t.match(unsigned, { status: 1, stderr: /is not signed/ })
  await signRepository(dir, await gpgKey('stranger'))
  t.match(await box.makecache(), { status: 1, stderr: /Bad GPG signature|GPG/ })
  writeFileSync(join(dir, 'repodata/repomd.xml.asc'), 'nothing of use')
  t.not((await box.makecache()).status, 0)
  t.same(await box.installed(), [])
})

t.test('gpgv agrees with what gpg signed and with nothing else', async (t) => {
  const lab = await makeLab(t)
  writeFileSync(join(lab.dir, 'data'), 'some bytes')
  const signature = await signDetached(lab.key, join(lab.dir, 'data'))
  t.equal((await verifyDetached(lab.key.publicArmored, Buffer.from('some bytes'), signature)).status, 0)
  t.not((await verifyDetached(lab.key.publicArmored, Buffer.from('some byteS'), signature)).status, 0)
  t.not(
    (await verifyDetached((await gpgKey('stranger')).publicArmored, Buffer.from('some bytes'), signature)).status,
    0,
  )
})
