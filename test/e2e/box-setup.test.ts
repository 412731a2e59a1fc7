/** A box is set up at a real mirror; its own dnf and module client update from there; then it is as before. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { GAPFERRY_BOX, runBox } from '../helpers/box-root.ts'
import { makeFolderBox, type FolderBox } from '../helpers/folder-box/box.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { bringInventories, catalogue, moduleSettings, oldBox } from '../helpers/module-site.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox } from '../helpers/php-box.ts'
import { must, report } from '../helpers/process.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'

const OLD: PackageSpec[] = [
  { name: 'asterisk', version: '18.9', arch: 'x86_64', requires: ['libpbx.so.1()(64bit)'] },
  { name: 'libpbx', version: '1.0', arch: 'x86_64', provides: ['libpbx.so.1()(64bit)'] },
  { name: 'sangoma-release', version: '7', provides: ['system-release(releasever) = 7'] },
]
const NEW: PackageSpec[] = [
  { name: 'asterisk', version: '18.20', arch: 'x86_64', requires: ['libpbx.so.2()(64bit)'] },
  { name: 'libpbx', version: '2.0', arch: 'x86_64', provides: ['libpbx.so.2()(64bit)'] },
]
const KEY = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

t.test('boxes of 16 and 17 are set up at a mirror and update from it', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('old', OLD)
  await lab.publish('sng7', [...OLD, ...NEW])
  const vendor = await makeModuleUpstream(t, catalogue(16))
  await vendor.publish(catalogue(17))
  const yum = `yum:\n  - { id: sng-pkgs, baseurl: ['${lab.url}/sng7/'], gpgkey: '${lab.keyFile}', gpgcheck: false }\n`
  const gap = await makeGap(t, lab.folder('gap'), `boxes: ['pbx16-*']\n${yum}${moduleSettings(vendor, 16)}`, {
    more: { pbxact17: `boxes: ['pbx17-*']\n${moduleSettings(vendor, 17)}` },
  })
  const php = {
    'pbx16-1': await makeBox(t, { ...oldBox(16), without: [`${vendor.keys.signer.fingerprint.slice(-16)}.key`] }),
    'pbx17-1': await makeBox(t, oldBox(17)),
  }
  const key = `${vendor.keys.signer.fingerprint.slice(-16)}.key`
  const boxes = {
    'pbx16-1': await makeFolderBox(lab.folder('16'), { major: 16, packages: OLD, without: [key] }),
    'pbx17-1': await makeFolderBox(lab.folder('17'), { major: 17 }),
  }
  await bringInventories(gap, php)
  const inventory = await runBox(['inventory', '--root', boxes['pbx16-1'].root], { path: boxes['pbx16-1'].path })
  writeFileSync(join(lab.dir, 'pbx16-2.gfi'), inventory.stdout)
  must(await gap.gapferry('inventory', 'add', '--group', 'pbxact16', join(lab.dir, 'pbx16-2.gfi')))
  await gap.bundle()
  await gap.deliver()
  await gap.serve()

  const [site] = (
    JSON.parse(must(await gap.gapferry('keys', 'list', '--json')).stdout) as { sites: { siteKey: string }[] }
  ).sites
  const words = site!.siteKey
  const status = JSON.parse(must(await gap.mirror('status', '--json')).stdout) as { origins: { siteKey: string }[] }
  t.strictSame(
    status.origins.map(({ siteKey }) => siteKey),
    [words, words],
    'the mirror shows the same words',
  )
  t.match(must(await gap.mirror('status')).stdout, `site key, for gapferry-box setup:\n  ${words}`)

  const box = JSON.parse(must(await gap.gapferry('box', '--to', 'out', '--json')).stdout) as Record<string, string>
  const bytes = readFileSync(box['file']!)
  t.match(box, { sha256: sha256Of(bytes), words: fingerprintWords(bytes) })
  t.match(must(await gap.gapferry('box', '--to', 'out')).stdout, box['words']!)
  t.match(await gap.gapferry('box'), { status: 2 })
  t.strictSame(bytes, readFileSync(GAPFERRY_BOX))
  t.strictSame(bytes, await gap.fetch('gapferry/gapferry-box'), 'the same in the tree')
  const stick = join(gap.stickDir, 'gapferry/hq')
  t.strictSame(bytes, readFileSync(join(stick, 'gapferry-box')), 'and on the stick')
  const slip = readFileSync(join(stick, 'hq-1.txt'), 'latin1')
  for (const word of [...words.split(' '), ...box['words']!.split(' ')]) t.match(slip, new RegExp(`\\d ${word}\\b`))

  const tool = (box: FolderBox, ...args: string[]) =>
    runBox([args[0]!, '--root', box.root, ...args.slice(1)], {
      path: box.path,
      env: { no_proxy: '*', TMPDIR: lab.folder('tmp') },
    })
  for (const [name, group] of [['pbx16-1', 'pbxact16'] as const, ['pbx17-1', 'pbxact17'] as const]) {
    const [box, origin] = [boxes[name], gap.origins[group]!]
    const before = box.everything()
    const done = await tool(box, 'setup', origin, '--fingerprint', words, '--box', name)
    t.equal(done.status, 0, report(done))
    t.match(await tool(box, 'setup', origin, '--fingerprint', words, '--box', name), { stdout: /^nothing to change/m })
    const kept = await tool(box, 'keep')
    t.match(kept, { status: 0, stdout: `has the inventory of ${name}` }, report(kept))

    php[name].use(box.setting('MODULE_REPO')![0])
    if (name === 'pbx16-1') php[name].addKey(key, box.read(`/var/www/html/admin/libraries/BMO/${key}`))
    const run = await php[name].run('upgradeall')
    t.match(run, { status: 0, pending: {}, repo: origin }, run.log.join('\n'))
    t.equal(Object.keys(run.fetched).length, 7)

    if (group === 'pbxact16') {
      const client = lab.box({ repositories: { lab: 'old' } })
      must(await client.makecache())
      must(await client.install('asterisk-18.9'))
      client.repoFile('lab.repo', undefined)
      client.keyFile(KEY, box.read(KEY))
      for (const file of readdirSync(join(box.root, 'etc/yum.repos.d')))
        client.repoFile(file, box.read(`/etc/yum.repos.d/${file}`))
      const upgraded = await client.upgrade()
      t.equal(upgraded.status, 0, report(upgraded))
      t.strictSame(await client.installed(), ['asterisk-18.20-1.x86_64', 'libpbx-2.0-1.x86_64'])
      t.strictSame(await client.pending(), [])
    }
    t.match(await tool(box, 'uninstall'), { status: 0, stdout: /^this box is as it was before$/m })
    t.strictSame(box.everything(), before)
  }
})
