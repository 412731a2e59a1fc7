/** One box and no server: from a FAT stick to updated packages and modules, with the box's own dnf, apache2 and php. */

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { parseInventory } from '../../manifests/inventory.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { makeFolderBox } from '../helpers/folder-box/box.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { makeFatStick, startBox } from '../helpers/live-box.ts'
import { catalogue, moduleSettings, oldBox } from '../helpers/module-site.ts'
import { traces } from '../helpers/mirror.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox, type BoxRun } from '../helpers/php-box.ts'
import { must, report } from '../helpers/process.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'

const OLD: PackageSpec[] = [
  { name: 'asterisk', version: '18.9', arch: 'x86_64', requires: ['libpbx.so.1()(64bit)'] },
  { name: 'libpbx', version: '1.0', arch: 'x86_64', provides: ['libpbx.so.1()(64bit)'] },
  { name: 'sounds', version: '1.0' },
]
const NEW: PackageSpec[] = [
  { name: 'asterisk', version: '18.20', arch: 'x86_64', requires: ['libpbx.so.2()(64bit)', '/usr/libexec/pbx/helper'] },
  { name: 'libpbx', version: '2.0', arch: 'x86_64', provides: ['libpbx.so.2()(64bit)'] },
  { name: 'helper', version: '1.0', files: { '/usr/libexec/pbx/helper': 'x' } },
]
const RELEASE: PackageSpec = { name: 'sangoma-release', version: '7', provides: ['system-release(releasever) = 7'] }

const HELD = oldBox(16).modules as Record<string, string | { version: string }>
/** As the box's database has them. */
const MODULES = Object.fromEntries(
  Object.entries(HELD).map(([name, held]) => [name, typeof held === 'string' ? held : held.version]),
)
const SETTINGS = ['MODULE_REPO', 'RSSFEEDS', 'BROWSER_STATS'] as const

t.test('a FAT stick updates packages and modules of a box without mirror and Node', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('sng7', [RELEASE, ...OLD, ...NEW])
  const vendor = await makeModuleUpstream(t, catalogue(16))
  const yum = `yum:\n  - { id: sng-pkgs, baseurl: ['${lab.url}/sng7/'], gpgkey: '${lab.keyFile}', repoGpgcheck: true, gpgcheck: true }\n`
  const gap = await makeGap(t, lab.folder('gap'), `${yum}${moduleSettings(vendor, 16)}`)
  const words = fingerprintWords(readFileSync(gap.rootFile))
  const php = await makeBox(t, oldBox(16))
  const stick = await makeFatStick(t, lab.folder('fat'))
  const folder = await makeFolderBox(lab.folder('box'), {
    major: 16,
    packages: [],
    modules: MODULES,
    settings: { AMPWEBROOT: [join(php.dir, 'html'), ''] },
    files: { '/etc/pki/rpm-gpg/RPM-GPG-KEY-Sangoma-7': lab.key.publicArmored },
  })
  const box = await startBox(t, folder, 'pbx16-1', lab.folder('box'))
  t.not((await box.run('sh', ['-c', 'command -v node'])).status, 0, 'no Node')
  const old = [RELEASE, ...OLD].map(({ name, version }) => `${name}-${version}`)
  const vendors = [
    `--repofrompath=old,file://${lab.www}/sng7`,
    '--repo=old',
    '--nogpgcheck',
    '--setopt=old.repo_gpgcheck=0',
  ]
  must(await box.dnf(...vendors, 'install', ...old))
  const everything = (): unknown => {
    const kept = Object.entries(folder.everything()).filter(([path]) => /^etc\/(?!gapferry)/.test(path))
    return [kept, SETTINGS.map((key) => folder.setting(key))]
  }
  const before = everything()

  const inventory = join(lab.dir, 'pbx16-1.gfi')
  writeFileSync(inventory, must(await box.tool('inventory')).stdout)
  must(await gap.gapferry('inventory', 'add', inventory))
  await gap.bundle('--to', stick.dir)

  await t.test('without the words nothing is believed', async (t) => {
    t.match(await box.tool('apply', stick.dir), { status: 2, stderr: /believes nobody yet.*ROOT_NOT_CONFIRMED/ })
    const other = words.split(' ').reverse().join(' ')
    t.match(await box.tool('apply', stick.dir, '--fingerprint', other), { status: 3, stderr: /ROOT_FINGERPRINT/ })
    t.match(await box.tool('apply', stick.dir, '--fingerprint', 'abandon'), { status: 3, stderr: /expected 12 words/ })
    t.strictSame(everything(), before)
    t.notOk(existsSync(join(folder.root, 'etc/gapferry/root.json')))
  })

  await t.test('--once: shown, and every setting as before', async (t) => {
    const once = await box.tool('apply', stick.dir, '--once', '--fingerprint', words)
    t.equal(once.status, 0, report(once))
    t.match(once.stdout, /written \/etc\/httpd\/conf\.d\/gapferry\.conf[^]*every setting is as before/)
    t.strictSame(everything(), before)
    t.not((await box.run('curl', ['-s', 'http://127.0.0.1:8482/all-16.0.xml'])).status, 0, 'nobody listens there')
  })

  await t.test('what the updates will bring is shown, then it is what they bring', async (t) => {
    const applied = await box.tool('apply', stick.dir)
    t.equal(applied.status, 0, report(applied))
    t.comment(applied.stdout)
    const shown = (after: string): string[] =>
      [...(applied.stdout.split(`"${after}" will bring:\n`)[1] ?? '').matchAll(/ {2}(.*)\n/gy)].map(([, line]) => line!)
    t.strictSame(shown('dnf upgrade'), ['asterisk-18.20-1.x86_64', 'helper-1.0-1.noarch', 'libpbx-2.0-1.x86_64'])
    must(await box.dnf('upgrade'))
    const installed = must(await box.run('rpm', ['-qa', '--qf', '%{NEVRA} ']))
      .stdout.split(' ')
      .sort()
    t.match(installed.join(' '), /asterisk-18\.20-1\.x86_64.*helper-1\.0-1\.noarch libpbx-2\.0-1\.x86_64/)
    const [repo] = folder.setting('MODULE_REPO')!
    t.equal(repo, 'http://127.0.0.1:8482')
    php.use(repo)
    const upgraded = JSON.parse(must(await box.run('php', php.command('upgradeall'))).stdout) as BoxRun
    t.strictSame([upgraded.status, upgraded.pending], [0, {}], upgraded.log.join('\n'))
    t.strictSame(
      shown('fwconsole ma upgradeall').sort(),
      upgraded.upgraded
        .filter(({ rawname }) => rawname in MODULES)
        .map(({ rawname, from, to }) => `${rawname} ${from} -> ${to}`)
        .sort(),
    )
    const sounds = JSON.parse(must(await box.run('php', php.command('sounds', 'fr'))).stdout) as BoxRun
    t.equal(sounds.repo, repo, 'nor is it reset for sounds that were not carried')
  })

  await t.test('again: nothing to do; the stick has what the laptop has to know', async (t) => {
    const again = await box.tool('apply', stick.dir)
    t.equal(again.status, 0, report(again))
    t.match(again.stdout, /packages: nothing to update/)
    const folderOf = join(stick.dir, 'gapferry/hq/report')
    t.strictSame(readdirSync(folderOf).sort(), ['pbx16-1-1.applied', 'pbx16-1.gfi'])
    const gfi = readFileSync(join(folderOf, 'pbx16-1.gfi'))
    t.ok(parseInventory(gfi, 'gfi').packages.some(({ name, version }) => name === 'asterisk' && version === '18.20'))
    const doc = JSON.parse(readFileSync(join(folderOf, 'pbx16-1-1.applied'), 'utf8')) as Record<string, unknown>
    t.match(doc, { applied: { site: 'hq', number: 1, box: 'pbx16-1', isOnce: false, inventory: sha256Of(gfi) } })
    must(await gap.gapferry('inventory', 'add', join(folderOf, 'pbx16-1.gfi')))
  })

  await t.test('a stick that cannot be written is no failure, and is said', async (t) => {
    const stickFiles = (): string[] => traces(stick.dir)
    const before = stickFiles()
    must(await box.run('mount', ['-o', 'remount,bind,ro', stick.dir]))
    const applied = await box.tool('apply', stick.dir, '--box', 'other')
    t.equal(applied.status, 0, report(applied))
    t.match(applied.stderr, /the stick cannot be written: .*Read-only[^]*the files are in \/var\/lib\/gapferry\/report/)
    t.ok(existsSync(join(folder.root, 'var/lib/gapferry/report/other.gfi')))
    t.strictSame(stickFiles(), before)
  })

  await t.test('uninstall gives every byte back, and the newest number stays known', async (t) => {
    must(await box.tool('uninstall'))
    t.strictSame(everything(), before)
    t.ok(existsSync(join(folder.root, 'etc/gapferry/state.json')))
  })
})
