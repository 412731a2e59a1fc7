import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import t from 'tap'
import { composeRepodata, packagePath, type ComposedRepodata } from '../../../bundler/yum/repodata.ts'
import type { PackageRow } from '../../../manifests/package-xml.ts'
import { parseRepomd, writeRepomd } from '../../../manifests/repomd.ts'
import { parseXml } from '../../../manifests/xml.ts'
import { sha256Of } from '../../../manifests/digest.ts'
import { DnfClient, repoFileText } from '../../helpers/dnf.ts'
import { buildRpms, makeRepository } from '../../helpers/rpms.ts'
import { storeRepository, type StoredRepository } from '../../helpers/yum-store.ts'

const rpms = await buildRpms([
  {
    name: 'tool',
    version: '1.0',
    arch: 'x86_64',
    requires: ['helper'],
    files: { '/usr/libexec/tool': 'x', '/usr/bin/tool': 'y' },
  },
  { name: 'tool', version: '1.1', arch: 'x86_64', summary: 'A < B & "C"', files: { '/usr/libexec/tool': 'z' } },
  { name: 'helper', epoch: 2, version: '0.9~rc1+git' },
  { name: 'left-out', version: '1' },
])
const root = t.testdir()
const upstreamDir = join(root, 'upstream')
await makeRepository(upstreamDir, rpms, { href: (rpm) => `Packages/${rpm.fileName[0]}/${rpm.fileName}` })
const stored = await storeRepository(upstreamDir, join(root, 'store'))
const emptyFilelists = Buffer.from('<filelists packages="0"></filelists>')
const carried = stored.packages.filter((row) => row.name !== 'left-out')

t.test('cuts the elements out and leaves them as they came', async (t) => {
  const { files, repomd } = await compose(stored, carried)
  for (const type of ['primary', 'filelists', 'other'] as const) {
    const before = unpacked(stored, type)
    const after = textOf(files, type)
    const kept = elementsOf(before).filter((element) => !element.includes('left-out'))
    t.strictSame(elementsOf(after).sort(), kept.sort(), type)
    const head = (text: string): string => /<(?:metadata|filelists|otherdata)[^>]*>/.exec(text)![0]
    t.equal(head(after), head(before).replace('packages="4"', 'packages="3"'), type)
    parseXml(after, type)
  }
  t.strictSame(
    elementsOf(textOf(files, 'primary')).map((element) => /<name>(.*)<\/name>/.exec(element)![1]),
    ['helper', 'tool', 'tool'],
    'sorted by NEVRA',
  )
  t.strictSame(
    repomd.data.map((data) => data.type),
    ['primary', 'filelists', 'other'],
  )
})

t.test('declares what it wrote, under names that are its digests', async (t) => {
  const { files, repomd } = await compose(stored, carried)
  t.strictSame(parseRepomd(writeRepomd(repomd), 'x'), repomd)
  for (const [i, { path, bytes }] of files.entries()) {
    const data = repomd.data[i]!
    const open = gunzipSync(bytes)
    t.equal(path, `yum/sng-pkgs/repodata/${sha256Of(bytes)}-${data.type}.xml.gz`)
    t.equal(`yum/sng-pkgs/${data.href}`, path)
    t.match(data, { checksum: { algorithm: 'sha256', hex: sha256Of(bytes) }, bytes: bytes.length })
    t.match(data, { openChecksum: { algorithm: 'sha256', hex: sha256Of(open) }, openBytes: open.length })
  }
})

t.test('gives equal bytes for equal content, in whatever order and packing it came', async (t) => {
  const first = await compose(stored, carried)
  const again = await compose(stored, [...carried].reverse())
  t.strictSame(again, first)
  const plain = await storeRepository(upstreamDir, join(root, 'store'), (_, bytes) => gunzipSync(bytes))
  t.strictSame(await compose(plain, carried), first)
  for (const { bytes } of first.files) {
    t.strictSame(
      [...bytes.subarray(0, 10)],
      [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3],
      'no time, no system, best compression',
    )
  }
})

t.test('real dnf reads the composed repository and installs from it', async (t) => {
  const dir = join(root, 'composed')
  await writeRepository(dir, carried)
  const client = new DnfClient(join(root, 'client'), {
    repoFiles: { 'x.repo': repoFileText({ id: 'sng-pkgs', url: `file://${dir}` }) },
  })
  const made = await client.makecache()
  t.equal(made.status, 0, made.stderr)
  const query = await client.dnf(['repoquery', '--quiet', '--qf', '%{name}-%{evr}.%{arch} %{location} %{size}'])
  t.strictSame(query.stdout.trim().split('\n').sort(), [
    `helper-2:0.9~rc1+git-1.noarch Packages/h/${rpms[2]!.fileName} ${rpms[2]!.bytes}`,
    `tool-1.0-1.x86_64 Packages/t/${rpms[0]!.fileName} ${rpms[0]!.bytes}`,
    `tool-1.1-1.x86_64 Packages/t/${rpms[1]!.fileName} ${rpms[1]!.bytes}`,
  ])
  const owner = await client.dnf(['repoquery', '--quiet', '--file', '/usr/libexec/tool', '--qf', '%{version}'])
  t.strictSame(owner.stdout.trim().split('\n').sort(), ['1.0', '1.1'], 'files stand in filelists')
  const changes = await client.dnf(['repoquery', '--quiet', '--changelogs', 'helper'])
  t.match(changes.stdout, /version 0\.9~rc1\+git-1/, 'changelogs stand in other')
  const installed = await client.install('tool-1.0')
  t.equal(installed.status, 0, installed.stderr)
  t.strictSame(await client.installed(), ['helper-2:0.9~rc1+git-1.noarch', 'tool-1.0-1.x86_64'])
})

t.test('puts empty entries where the upstream has no filelists or changelogs, and dnf takes them', async (t) => {
  const bare = await storeRepository(upstreamDir, join(root, 'store'), (type, bytes) =>
    type === 'primary' ? bytes : undefined,
  )
  const { files } = await compose(bare, carried)
  const [tag, ...more] = elementsOf(textOf(files, 'filelists'))
  t.equal(more.length, 2)
  const { hex } = carried.find((row) => row.name === 'helper')!.checksum
  t.equal(
    tag,
    `<package pkgid="${hex}" name="helper" arch="noarch">\n  <version epoch="2" ver="0.9~rc1+git" rel="1"/>\n</package>`,
  )
  const dir = join(root, 'bare')
  await writeRepository(dir, carried, bare)
  const client = new DnfClient(join(root, 'bare-client'), {
    repoFiles: { 'x.repo': repoFileText({ id: 'x', url: `file://${dir}` }) },
  })
  t.equal((await client.makecache()).status, 0)
  const query = await client.dnf(['repoquery', '--quiet', '--qf', '%{name}'])
  t.strictSame(query.stdout.trim().split('\n').sort(), ['helper', 'tool'])
})

t.test('takes away xml:base and ways out of the repository', async (t) => {
  const moved = await storeRepository(upstreamDir, join(root, 'store'), (type, bytes) => {
    if (type !== 'primary') return bytes
    const text = gunzipSync(bytes).toString()
    return gzipSync(
      text
        .replace('href="Packages/h/', 'xml:base="http://user:secret@vendor.example/os/" href="Packages/h/')
        .replace('href="Packages/t/tool-1.0', 'href="../..//./Packages/t/tool-1.0')
        .replace('href="Packages/t/tool-1.1', 'href="Packages/t%74/x/../tool-1.1'),
    )
  })
  const rows = moved.packages.filter((row) => row.name !== 'left-out')
  const { files } = await compose(moved, rows)
  const text = textOf(files, 'primary')
  t.notMatch(text, /vendor\.example|xml:base|\.\./)
  t.strictSame(text.match(/<location [^>]*>/g), [
    `<location href="os/Packages/h/${rpms[2]!.fileName}"/>`,
    `<location href="Packages/t/${rpms[0]!.fileName}"/>`,
    `<location href="Packages/t%74/${rpms[1]!.fileName}"/>`,
  ])
  t.strictSame(rows.map((row) => packagePath('r', row.href)).sort(), [
    `yum/r/Packages/t/${rpms[0]!.fileName}`,
    `yum/r/Packages/tt/${rpms[1]!.fileName}`,
    `yum/r/os/Packages/h/${rpms[2]!.fileName}`,
  ])
})

t.test('gives a package a path that every tree can have, or none', async (t) => {
  for (const [href, path] of [
    ['a.rpm', 'yum/x/a.rpm'],
    ['./P/a%2Bb~1.rpm', 'yum/x/P/a+b~1.rpm'],
    ['http://u:p@h/os/a.rpm?x=1', 'yum/x/os/a.rpm'],
    ['../../a.rpm', 'yum/x/a.rpm'],
    ['./bind-32:9.rpm', 'yum/x/bind-32:9.rpm'],
  ] as const) {
    t.equal(packagePath('x', href), path, href)
  }
  const bad = [
    '',
    '..',
    'a%2fb.rpm',
    'a%00.rpm',
    'a%zz.rpm',
    '%2e%2e/a.rpm',
    'a b.rpm',
    'a?x',
    'ä.rpm',
    'a\\b.rpm',
    'repodata/repomd.xml',
    './x/../repodata/a.rpm',
    `${'x'.repeat(300)}.rpm`,
  ]
  for (const href of bad) t.throws(() => packagePath('x', href), { code: 'PATH_INVALID' }, href)
})

t.test('refuses metadata that is not what the plan was made from', async (t) => {
  const [first, ...others] = carried
  const other = (fields: Partial<PackageRow>): PackageRow[] => [{ ...first!, ...fields }, ...others]
  for (const [name, rows, message] of [
    ['size', other({ bytes: 1 }), /expected .* with 1 bytes/],
    ['nevra', other({ nevra: 'x-1-1.noarch' }), /expected x-1-1\.noarch/],
    ['place', other({ href: 'elsewhere.rpm' }), /has no .* at elsewhere\.rpm/],
    ['checksum', other({ checksum: { algorithm: 'sha256', hex: '0'.repeat(64) } }), /has no/],
  ] as const) {
    await t.rejects(compose(stored, rows), { code: 'REPODATA_MIXED', message }, name)
  }
  const { filelists: _, ...withoutFilelists } = stored.data
  const foreign = { ...stored, data: { ...withoutFilelists, filelists: await stored.store.put(emptyFilelists) } }
  await t.rejects(compose(foreign, carried), { code: 'REPODATA_MIXED', message: /filelists has nothing about/ })
  const lost = { ...stored, data: { primary: sha256Of('never fetched') } }
  await t.rejects(compose(lost, carried), { code: 'BLOB_MISSING' })
})

t.test('composes a repository without packages', async (t) => {
  const { files } = await compose(stored, [])
  for (const { bytes } of files) t.match(gunzipSync(bytes).toString(), / packages="0">\n<\//)
})

async function compose(from: StoredRepository, packages: readonly PackageRow[]): Promise<ComposedRepodata> {
  return composeRepodata({ id: 'sng-pkgs', data: from.data, packages, store: from.store })
}

async function writeRepository(dir: string, packages: PackageRow[], from = stored): Promise<void> {
  const { files, repomd } = await compose(from, packages)
  const put = (path: string, bytes: Buffer): void => {
    const file = join(dir, path.replace('yum/sng-pkgs/', ''))
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, bytes)
  }
  for (const { path, bytes } of files) put(path, bytes)
  put('repodata/repomd.xml', writeRepomd({ ...repomd, revision: '1' }))
  for (const row of packages) {
    const file = join(dir, row.href)
    mkdirSync(dirname(file), { recursive: true })
    copyFileSync(join(upstreamDir, row.href), file)
  }
}

function unpacked({ store, data }: StoredRepository, type: 'primary' | 'filelists' | 'other'): string {
  return gunzipSync(store.read(data[type]!, 1e9)).toString()
}

function textOf(files: ComposedRepodata['files'], type: string): string {
  return gunzipSync(files.find((file) => file.path.includes(`-${type}.`))!.bytes).toString()
}

function elementsOf(text: string): string[] {
  return text.match(/<package .*?<\/package>/gs) ?? []
}
