/**
 * Makes the sample upstream anew: `node_modules/.bin/node test/sample/make.ts`. Needs the packages of
 * test/helpers/packages.mjs. With the same rpm and createrepo_c the bytes come out the same, whenever it is run.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FILE_TIME } from '../helpers/cache.ts'
import { buildRpms, makeRepository } from '../helpers/rpms.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'

/** The vendor's layout: repository → packages. Unsigned, as Sangoma's are. Requirements are met within the two. */
const REPOSITORIES: Record<string, PackageSpec[]> = {
  'sng7/sng7': [
    ...['18.9.0', '18.16.0', '18.20.2'].flatMap(asterisk),
    { name: 'asterisk-sounds-core-en', version: '1.5', release: '4.sng7', payloadBytes: 12_000 },
    { name: 'asterisk-sounds-core-en', version: '1.6.1', release: '1.sng7', payloadBytes: 14_000 },
    ...each(['2.1-3.sng7', '2.2-1.sng7'], { name: 'asterisk-version-switch', requires: ['asterisk18-core'] }),
    ...each(['2302-1.sng7', '2306-1.sng7', '2402-1.sng7'], {
      name: 'sangoma-pbx',
      requires: ['asterisk18', 'freepbx', 'sysadmin', 'asterisk-version-switch'],
    }),
    ...each(['16.0.33-1.sng7', '16.0.40-1.sng7'], { name: 'freepbx', requires: ['php >= 7.4', 'asterisk18'] }),
    ...each(['16.0.19-1.sng7', '16.0.27-2.sng7', '16.0.35-1.sng7'], {
      name: 'sysadmin',
      requires: ['php-cli >= 7.4', 'freepbx'],
      files: { '/etc/incron.d/sysadmin': '/var/spool/asterisk/sysadmin IN_CLOSE_WRITE sysadmin_manager $#\n' },
    }),
    ...each(['1.5-6.sng7'], { name: 'iksemel', arch: 'x86_64', provides: ['libiksemel.so.3()(64bit)'] }),
    ...each(['2.11.1-30.sng7', '3.2.0-2.sng7'], { name: 'dahdi-tools', arch: 'x86_64' }),
  ],
  'os/7/updates/x86_64': [
    ...each(['7.4.30-1.el7', '7.4.33-2.el7'], {
      name: 'php',
      arch: 'x86_64',
      requires: ['php-cli', 'libxml2.so.2()(64bit)'],
      payloadBytes: 6_000,
    }),
    ...each(['7.4.30-1.el7', '7.4.33-2.el7'], {
      name: 'php-cli',
      arch: 'x86_64',
      requires: ['libcrypto.so.10()(64bit)'],
      files: { '/usr/bin/php': '#!/bin/false\n' },
    }),
    ...each(['1.0.2k-21.el7_9', '1.0.2k-25.el7_9', '1.0.2k-26.el7_9'], {
      name: 'openssl-libs',
      epoch: 1,
      arch: 'x86_64',
      provides: ['libcrypto.so.10()(64bit)', 'libssl.so.10()(64bit)'],
    }),
    ...each(['2.9.1-6.el7.5', '2.9.1-6.el7_9.6'], {
      name: 'libxml2',
      arch: 'x86_64',
      provides: ['libxml2.so.2()(64bit)'],
    }),
    ...each(['3.10.0-1160.88.1.el7', '3.10.0-1160.108.1.el7'], {
      name: 'kernel',
      arch: 'x86_64',
      provides: ['installonlypkg(kernel)'],
      payloadBytes: 20_000,
    }),
    ...each(['2023c-1.el7', '2024a-1.el7'], { name: 'tzdata' }),
  ],
}
const FIRMWARE_BYTES = 4096

const SAMPLE = import.meta.dirname
for (const top of ['sng7', 'os', 'firmware']) rmSync(join(SAMPLE, top), { recursive: true, force: true })
for (const [path, specs] of Object.entries(REPOSITORIES)) {
  const href = path.startsWith('os/') ? (name: string) => `Packages/${name}` : (name: string) => name
  await makeRepository(join(SAMPLE, path), await buildRpms(specs), {
    timestamp: FILE_TIME,
    href: (rpm) => href(rpm.fileName),
  })
}
mkdirSync(join(SAMPLE, 'firmware'))
writeFileSync(join(SAMPLE, 'firmware/phone-x.bin'), firmware())

/** One release of Asterisk: packages that require each other at exactly their own version. */
function asterisk(version: string): PackageSpec[] {
  const release = '1.sng7'
  const common = { version, release, arch: 'x86_64' }
  const core = `asterisk18-core = ${version}-${release}`
  return [
    { ...common, name: 'asterisk18', requires: [core, 'asterisk-sounds-core-en'] },
    {
      ...common,
      name: 'asterisk18-core',
      requires: ['libcrypto.so.10()(64bit)', 'libxml2.so.2()(64bit)', 'libiksemel.so.3()(64bit)'],
      files: { '/usr/sbin/asterisk': '#!/bin/false\n', '/etc/asterisk/asterisk.conf': `; Asterisk ${version}\n` },
      payloadBytes: 16_000,
    },
    { ...common, name: 'asterisk18-voicemail', requires: [core] },
  ]
}

/** The same package in each of these `version-release`. */
function each(releases: string[], spec: Omit<PackageSpec, 'version' | 'release'>): PackageSpec[] {
  return releases.map((text) => {
    const [version, release] = text.split('-') as [string, string]
    return { ...spec, version, release }
  })
}

/** Bytes that look like nothing in particular, always the same. */
function firmware(): Buffer {
  const blocks = Array.from({ length: FIRMWARE_BYTES / 32 }, (_, i) =>
    createHash('sha256').update(`phone-x ${i}`).digest(),
  )
  return Buffer.concat(blocks)
}
