/** One box and no server: from a FAT stick to updated packages and modules, with the box's own dnf, apache2 and php. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fingerprintWords } from '../../manifests/words.ts'
import { makeFolderBox } from '../helpers/folder-box/box.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { makeFatStick, startBox } from '../helpers/live-box.ts'
import { bringInventories, catalogue, moduleSettings, oldBox } from '../helpers/module-site.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox } from '../helpers/php-box.ts'
import { report } from '../helpers/process.ts'
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

t.test('a FAT stick updates packages and modules of a box without mirror and Node', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('sng7', [...OLD, ...NEW])
  const vendor = await makeModuleUpstream(t, catalogue(16))
  const yum = `yum:\n  - { id: sng-pkgs, baseurl: ['${lab.url}/sng7/'], gpgkey: '${lab.keyFile}', repoGpgcheck: true, gpgcheck: true }\n`
  const gap = await makeGap(t, lab.folder('gap'), `${yum}${moduleSettings(vendor, 16)}`)
  const php = await makeBox(t, oldBox(16))
  await bringInventories(gap, { 'pbx16-1': php }, {})
  const stick = await makeFatStick(t, lab.folder('fat'))
  await gap.bundle('--to', stick.dir)

  const folder = await makeFolderBox(lab.folder('box'), {
    major: 16,
    packages: [RELEASE, ...OLD],
    settings: { AMPWEBROOT: [join(php.dir, 'html'), ''] },
  })
  const box = await startBox(t, folder, 'pbx16-1', lab.folder('box'))
  const words = fingerprintWords(readFileSync(gap.rootFile))

  const without = await box.tool('apply', stick.dir)
  t.equal(without.status, 2)
  t.match(without.stderr, /ROOT_NOT_CONFIRMED/)
  const applied = await box.tool('apply', stick.dir, '--fingerprint', words)
  t.comment(report(applied))
})
