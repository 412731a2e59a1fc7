import { join } from 'node:path'
import t, { type Test } from 'tap'
import { makeApache } from '../helpers/apache.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import type { DnfClient } from '../helpers/dnf.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'
import { alter, unpackOrigin } from '../helpers/unpack.ts'

const KEYS = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

/** A small PBX in two generations: plain updates, an obsoleted package, a new requirement, a file requirement. */
const OLD: PackageSpec[] = [
  { name: 'asterisk', version: '18.9', arch: 'x86_64', requires: ['libpbx.so.1()(64bit)'] },
  { name: 'libpbx', version: '1.0', arch: 'x86_64', provides: ['libpbx.so.1()(64bit)'] },
  { name: 'sounds', version: '1.0' },
  { name: 'oldname', version: '3.0' },
  { name: 'sysadmin', version: '16.0~rc1' },
]
const NEW: PackageSpec[] = [
  { name: 'asterisk', version: '18.20', arch: 'x86_64', requires: ['libpbx.so.2()(64bit)', '/usr/libexec/pbx/helper'] },
  { name: 'libpbx', version: '2.0', arch: 'x86_64', provides: ['libpbx.so.2()(64bit)'] },
  { name: 'helper', version: '1.0', files: { '/usr/libexec/pbx/helper': 'x' } },
  { name: 'sounds', epoch: 1, version: '0.5' },
  { name: 'newname', version: '4.0', obsoletes: ['oldname < 4'], provides: ['oldname = 4.0-1'] },
  { name: 'sysadmin', version: '16.0' },
]
const NEWER: PackageSpec[] = [{ ...NEW[0]!, version: '18.21' }]
const INSTALLED = [
  'asterisk-18.9-1.x86_64',
  'libpbx-1.0-1.x86_64',
  'sounds-1.0-1.noarch',
  'oldname-3.0-1.noarch',
  'sysadmin-16.0~rc1-1.noarch',
]

/** What the vendor's repository is in gapferry.yaml: signed, and boxes check packages. */
function yum(lab: Lab, url: string): string {
  return `yum:
  - { id: sng-pkgs, baseurl: ['${url}'], gpgkey: '${lab.keyFile}', repoGpgcheck: true, gpgcheck: true }`
}

/** A box with the old generation from the vendor, then pointed at `origin` by the .repo file that the origin hands out. */
async function oldBox(t: Test, lab: Lab): Promise<DnfClient> {
  const box = lab.box({
    repositories: { 'sng-pkgs': 'sng7' },
    keyFiles: { [KEYS]: '', [`${KEYS}-sng-pkgs`]: '' },
  })
  t.equal((await box.makecache()).status, 0)
  const installed = await box.install(...INSTALLED)
  t.equal(installed.status, 0, installed.stderr)
  return box
}

async function pointAt(box: DnfClient, gap: Gap, fetch: (path: string) => Promise<Buffer>): Promise<void> {
  box.keyFile(KEYS, (await fetch('keys/site.asc')).toString())
  box.keyFile(`${KEYS}-sng-pkgs`, (await fetch('keys/sng-pkgs.asc')).toString())
  box.repoFile('sng-pkgs.repo', (await fetch(`gapferry-${gap.group}.repo`)).toString())
}

t.test('a box updated from the mirror ends where the vendor would have brought it', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('sng7', [...OLD, ...NEW])
  const url = `${lab.url}/sng7/`
  const gap = await makeGap(t, lab.folder('gap'), yum(lab, url))
  const [box, twin] = [await oldBox(t, lab), await oldBox(t, lab)]
  const expected = await twin.pending()
  t.ok(expected.length >= 6)
  t.equal((await twin.upgrade()).status, 0)

  t.equal((await gap.bundle()).number, 1)
  await gap.deliver()
  await gap.serve()
  await pointAt(box, gap, gap.fetch)
  const made = await box.makecache()
  t.equal(made.status, 0, made.stderr)
  t.strictSame(await box.pending(), expected, 'the same transaction')
  const upgraded = await box.upgrade()
  t.equal(upgraded.status, 0, upgraded.stderr)
  t.strictSame(await box.installed(), await twin.installed(), 'the same packages')
  t.strictSame(await box.pending(), [], 'nothing pending')

  t.test('a second bundle is accepted without clean, by a mirror that runs on', async (t) => {
    await lab.publish('sng7', [...OLD, ...NEW, ...NEWER])
    t.equal((await gap.bundle()).number, 2)
    await gap.deliver()
    t.match(await box.pending(), [{ action: 'Upgrade', nevra: 'asterisk-18.21-1.x86_64' }])
    t.equal((await box.upgrade()).status, 0)
    t.strictSame(await box.pending(), [])
    t.ok((await box.installed()).includes('asterisk-18.21-1.x86_64'))
  })

  t.test('a stock web server with the unpacked tree gives the same result', async (t) => {
    const plain = await oldBox(t, lab)
    const apache = await makeApache(t, unpackOrigin(gap, lab.folder('unpacked')))
    const fetch = async (path: string): Promise<Buffer> =>
      Buffer.from(await (await globalThis.fetch(`${apache.url}/${path}`)).arrayBuffer())
    await pointAt(plain, gap, fetch)
    plain.repoFile(
      'sng-pkgs.repo',
      (await fetch(`gapferry-${gap.group}.repo`)).toString().replaceAll(gap.origin, apache.url),
    )
    t.equal((await plain.makecache()).status, 0)
    const done = await plain.upgrade()
    t.equal(done.status, 0, done.stderr)
    t.strictSame(await plain.installed(), await box.installed())
    t.strictSame(await plain.pending(), [])
  })
})

t.test('dnf refuses what was altered on the way', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('sng7', [...OLD, ...NEW])
  const gap = await makeGap(t, lab.folder('gap'), yum(lab, `${lab.url}/sng7/`))
  await gap.bundle()
  await gap.deliver()
  const folder = unpackOrigin(gap, lab.folder('unpacked'))
  const apache = await makeApache(t, folder)
  const repodata = join(folder, 'yum/sng-pkgs/repodata')

  const attempt = async (): Promise<{ status: number; text: string }> => {
    const box = lab.box({ keyFiles: { [KEYS]: '', [`${KEYS}-sng-pkgs`]: '' } })
    const fetch = async (path: string): Promise<Buffer> =>
      Buffer.from(await (await globalThis.fetch(`${apache.url}/${path}`)).arrayBuffer())
    await pointAt(box, gap, fetch)
    box.repoFile(
      'sng-pkgs.repo',
      (await fetch(`gapferry-${gap.group}.repo`)).toString().replaceAll(gap.origin, apache.url),
    )
    const made = await box.makecache()
    const installed = made.status === 0 ? await box.install('asterisk') : made
    return { status: installed.status, text: made.stdout + made.stderr + installed.stdout + installed.stderr }
  }

  t.equal((await attempt()).status, 0, 'unaltered it installs')
  const cases: [string, () => () => void, RegExp][] = [
    ['primary', () => alter(repodata, /-primary\.xml\.gz$/), /checksum/i],
    ['repomd.xml', () => alter(repodata, /^repomd\.xml$/), /signature|GPG/i],
    ['no repomd.xml.asc', () => alter(repodata, /^repomd\.xml\.asc$/, 'remove'), /404|repomd\.xml\.asc/i],
    ['a package', () => alter(join(folder, 'yum/sng-pkgs'), /^asterisk-18\.20.*\.rpm$/), /checksum|failed/i],
  ]
  for (const [what, change, said] of cases) {
    const undo = change()
    apache.publish(folder)
    const { status, text } = await attempt()
    t.not(status, 0, `${what}: refused`)
    t.match(text, said, `${what}: says why`)
    undo()
  }
})

t.test('dnf refuses an unsigned package where the upstream’s policy is gpgcheck=1', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('sng7', [...OLD, ...NEW], { signed: 'metadata' })
  const gap = await makeGap(t, lab.folder('gap'), yum(lab, `${lab.url}/sng7/`))
  await gap.bundle()
  await gap.deliver()
  await gap.serve()
  const box = lab.box({ keyFiles: { [KEYS]: '', [`${KEYS}-sng-pkgs`]: '' } })
  await pointAt(box, gap, gap.fetch)
  t.equal((await box.makecache()).status, 0)
  const { status, stdout, stderr } = await box.install('asterisk')
  t.not(status, 0)
  t.match(stdout + stderr, /not signed/)
})
