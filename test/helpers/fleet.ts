import type { DnfClient } from './dnf.ts'
import type { Lab } from './lab.ts'
import { must } from './process.ts'
import type { PackageSpec } from './rpm-spec.ts'

/** Two repositories of a vendor as a PBX uses them, in several generations, and boxes in the states that boxes are really
 *  in. Sizes are those of real packages divided by about 20, so that bytes carried can be compared with bytes needed. */

const KB = 1024
const X86 = { arch: 'x86_64' } as const

/** What every box was installed from. */
const OLD_BASE: PackageSpec[] = [
  { ...X86, name: 'glibc', version: '2.17', release: '317', provides: ['libc.so.6()(64bit)'], payloadBytes: 190 * KB },
  { name: 'glibc', arch: 'i686', version: '2.17', release: '317', provides: ['libc.so.6'], payloadBytes: 210 * KB },
  {
    ...X86,
    name: 'openssl-libs',
    epoch: 1,
    version: '1.0.2k',
    release: '19',
    provides: ['libssl.so.10()(64bit)'],
    payloadBytes: 60 * KB,
  },
  { ...X86, name: 'bash', version: '4.2.46', release: '34', requires: ['libc.so.6()(64bit)'], payloadBytes: 50 * KB },
  {
    ...X86,
    name: 'httpd',
    version: '2.4.6',
    release: '93',
    requires: ['libssl.so.10()(64bit)', 'mailcap'],
    payloadBytes: 135 * KB,
  },
  { name: 'mailcap', version: '2.1.41', release: '2' },
  { name: 'tzdata', version: '2020a', release: '1', payloadBytes: 25 * KB },
  {
    ...X86,
    name: 'mariadb-libs',
    epoch: 1,
    version: '5.5.65',
    release: '1',
    provides: ['libmysqlclient.so.18()(64bit)'],
    payloadBytes: 38 * KB,
  },
  { ...X86, name: 'sysvinit-tools', version: '2.88', release: '14' },
  kernel('1127'),
  {
    ...X86,
    name: 'net-tools',
    version: '2.0',
    release: '0.25',
    files: { '/usr/sbin/ifconfig': 'ifconfig', '/etc/ethers': '' },
  },
]

const NEW_BASE: PackageSpec[] = [
  { ...X86, name: 'glibc', version: '2.17', release: '326', provides: ['libc.so.6()(64bit)'], payloadBytes: 190 * KB },
  { name: 'glibc', arch: 'i686', version: '2.17', release: '326', provides: ['libc.so.6'], payloadBytes: 210 * KB },
  {
    ...X86,
    name: 'openssl-libs',
    epoch: 1,
    version: '1.0.2k',
    release: '26',
    provides: ['libssl.so.10()(64bit)'],
    payloadBytes: 60 * KB,
  },
  { ...X86, name: 'bash', version: '4.2.46', release: '35', requires: ['libc.so.6()(64bit)'], payloadBytes: 50 * KB },
  {
    ...X86,
    name: 'httpd',
    version: '2.4.6',
    release: '99',
    requires: ['libssl.so.10()(64bit)', 'mailcap', '/usr/libexec/httpd/rotate'],
    payloadBytes: 135 * KB,
  },
  // provides a file that stands in filelists only
  { ...X86, name: 'httpd-rotate', version: '2.4.6', release: '99', files: { '/usr/libexec/httpd/rotate': 'rotate' } },
  { name: 'tzdata', version: '2024a', release: '1', payloadBytes: 25 * KB },
  // another version in between, as update repositories keep them
  { name: 'tzdata', version: '2022c', release: '1', payloadBytes: 25 * KB },
  // its library changes name, and who needs the old one finds it in a new package
  {
    ...X86,
    name: 'mariadb-libs',
    epoch: 1,
    version: '10.3.1',
    release: '1',
    provides: ['libmariadb.so.3()(64bit)'],
    payloadBytes: 42 * KB,
  },
  {
    ...X86,
    name: 'mariadb-compat',
    epoch: 1,
    version: '5.5.68',
    release: '1',
    provides: ['libmysqlclient.so.18()(64bit)'],
    payloadBytes: 35 * KB,
  },
  // obsoletes what boxes have, split in two
  {
    ...X86,
    name: 'initscripts-tools',
    version: '3.0',
    obsoletes: ['sysvinit-tools < 3'],
    provides: ['sysvinit-tools = 3.0'],
    requires: ['initscripts-data = 3.0-1'],
  },
  { name: 'initscripts-data', version: '3.0' },
  kernel('1160'),
  {
    ...X86,
    name: 'net-tools',
    version: '2.0',
    release: '0.26',
    files: { '/usr/sbin/ifconfig': 'ifconfig 2', '/etc/ethers': '' },
  },
]

const OLD_PKGS: PackageSpec[] = [
  {
    ...X86,
    name: 'asterisk16',
    version: '16.9.0',
    requires: ['libssl.so.10()(64bit)', 'asterisk-sounds >= 1.5', 'libmysqlclient.so.18()(64bit)'],
    payloadBytes: 330 * KB,
  },
  { name: 'asterisk-sounds', version: '1.5.0', payloadBytes: 140 * KB },
  { ...X86, name: 'dahdi-linux', version: '2.11.1', release: '1', payloadBytes: 20 * KB },
  kmod('1127'),
  { ...X86, name: 'sangoma-sysadmin', version: '16.0~rc1', requires: ['/usr/sbin/ifconfig'], payloadBytes: 15 * KB },
  { name: 'sangoma-endpoints', version: '3.2', requires: ['sangoma-sysadmin'], payloadBytes: 90 * KB },
  { name: 'sangoma-backup', version: '1.0' },
  { name: 'sangoma-firmware', version: '1.80', payloadBytes: 260 * KB },
]

const NEW_PKGS: PackageSpec[] = [
  {
    ...X86,
    name: 'asterisk16',
    version: '16.30.1',
    requires: [
      'libssl.so.10()(64bit)',
      'asterisk-sounds >= 1.6',
      'libpbxcodec.so.2()(64bit)',
      'libmysqlclient.so.18()(64bit)',
    ],
    payloadBytes: 330 * KB,
  },
  { name: 'asterisk-sounds', version: '1.6.1', payloadBytes: 140 * KB },
  { ...X86, name: 'pbx-codecs', version: '2.1', provides: ['libpbxcodec.so.2()(64bit)'], payloadBytes: 30 * KB },
  { ...X86, name: 'dahdi-linux', version: '2.11.1', release: '4', payloadBytes: 20 * KB },
  kmod('1160'),
  {
    ...X86,
    name: 'sangoma-sysadmin',
    version: '16.0',
    requires: ['/usr/sbin/ifconfig'],
    recommends: ['sangoma-tips'],
    payloadBytes: 15 * KB,
  },
  { name: 'sangoma-tips', version: '1.0' },
  {
    name: 'sangoma-endpoints',
    epoch: 1,
    version: '0.5',
    requires: ['sangoma-sysadmin >= 16.0'],
    payloadBytes: 90 * KB,
  },
  // its newest version cannot be installed anywhere
  { name: 'sangoma-backup', version: '2.0', requires: ['python36-cloud-store'] },
  { name: 'sangoma-firmware', version: '1.82', payloadBytes: 260 * KB },
]

/** What the vendor offers and no box has: most of a real repository. */
const UNRELATED: PackageSpec[] = Array.from({ length: 24 }, (_, i) => ({
  name: `other${i}`,
  version: `${1 + (i % 3)}.0`,
  ...(i % 4 === 0 ? {} : { requires: [`other${i - 1}`] }),
  payloadBytes: (20 + 11 * i) * KB,
}))

/** What comes in the month after. */
const NEXT_BASE: PackageSpec[] = [
  {
    ...X86,
    name: 'openssl-libs',
    epoch: 1,
    version: '1.0.2k',
    release: '27',
    provides: ['libssl.so.10()(64bit)'],
    payloadBytes: 60 * KB,
  },
  { name: 'tzdata', version: '2024b', release: '1', payloadBytes: 25 * KB },
  kernel('1166'),
]

const NEXT_PKGS: PackageSpec[] = [
  {
    ...X86,
    name: 'asterisk16',
    version: '16.30.2',
    requires: [
      'libssl.so.10()(64bit)',
      'asterisk-sounds >= 1.6',
      'libpbxcodec.so.2()(64bit)',
      'libmysqlclient.so.18()(64bit)',
    ],
    payloadBytes: 330 * KB,
  },
  kmod('1166'),
  {
    name: 'sangoma-endpoints',
    epoch: 1,
    version: '0.6',
    requires: ['sangoma-sysadmin >= 16.0'],
    payloadBytes: 90 * KB,
  },
]

export const GENERATIONS = {
  old: { base: OLD_BASE, pkgs: OLD_PKGS },
  all: { base: [...OLD_BASE, ...NEW_BASE, ...UNRELATED], pkgs: [...OLD_PKGS, ...NEW_PKGS] },
  next: {
    base: [...OLD_BASE, ...NEW_BASE, ...UNRELATED, ...NEXT_BASE],
    pkgs: [...OLD_PKGS, ...NEW_PKGS, ...NEXT_PKGS],
  },
}

/** What a box in each state has, by names that dnf can install. */
export const STATES: Record<string, BoxState> = {
  fresh: { has: [...plain(OLD_BASE), ...plain(OLD_PKGS)] },
  half: {
    has: [
      ...without(
        [...plain(OLD_BASE), ...plain(OLD_PKGS)],
        'asterisk16',
        'asterisk-sounds',
        'tzdata',
        'dahdi-linux',
        'openssl-libs',
      ),
      ...named([...NEW_BASE, ...NEW_PKGS], 'asterisk-sounds', 'openssl-libs', 'dahdi-linux'),
      'asterisk16-16.9.0-1.x86_64',
      'tzdata-2022c-1.noarch',
    ],
  },
  twins: { has: [...plain(OLD_BASE), 'glibc-2.17-317.i686', ...without(plain(OLD_PKGS), 'sangoma-firmware')] },
  kernels: {
    has: [...plain(OLD_BASE), ...plain(OLD_PKGS), 'kernel-3.10.0-1127.x86_64', 'kmod-dahdi-2.11.1-1127.x86_64'],
  },
  obsoleted: { has: [...plain(OLD_BASE), 'sysvinit-tools-2.88-14.x86_64', ...without(plain(OLD_PKGS), 'asterisk16')] },
  held: {
    has: [...plain(OLD_BASE), ...plain(OLD_PKGS)],
    exclude: ['sangoma-firmware*'],
    versionLocks: ['asterisk16-0:16.9.0-*', 'mariadb-libs-1:5.5.65-*'],
  },
  /** insists on the newest, which cannot be installed */
  broken: { has: [...plain(OLD_BASE), ...plain(OLD_PKGS), 'sangoma-backup-1.0-1.noarch'], best: true },
}

interface BoxState {
  has: string[]
  /** of the vendor's repository pkgs */
  exclude?: string[]
  versionLocks?: string[]
  best?: boolean
}

/** A box in that state, updating from the vendor's repositories `base` and `pkgs`, which must be published. */
export async function makeBox(lab: Lab, name: string): Promise<DnfClient> {
  const { has, exclude, versionLocks, best } = STATES[name]!
  const box = lab.box({
    repositories: { 'sng-base': 'base', 'sng-pkgs': 'pkgs' },
    ...(best === true ? { best } : {}),
    ...(versionLocks === undefined ? {} : { versionLocks }),
  })
  must(await box.makecache())
  must(await box.dnf(['-y', 'install', '--setopt=install_weak_deps=0', ...has]))
  const installed = await box.installed()
  if (installed.length !== new Set(has).size) throw new Error(`${name}: ${installed.join(' ')}`)
  if (exclude !== undefined) box.option('sng-pkgs', 'exclude', exclude.join(' '))
  return box
}

function kernel(release: string): PackageSpec {
  return {
    ...X86,
    name: 'kernel',
    version: '3.10.0',
    release,
    provides: ['installonlypkg(kernel)', `kernel-uname-r = 3.10.0-${release}`],
    payloadBytes: 400 * KB,
  }
}

function kmod(release: string): PackageSpec {
  return {
    ...X86,
    name: 'kmod-dahdi',
    version: '2.11.1',
    release,
    requires: [`kernel-uname-r = 3.10.0-${release}`],
    payloadBytes: 12 * KB,
  }
}

/** NEVRAs of all but what only some boxes have. */
function plain(specs: PackageSpec[]): string[] {
  const special = ['kernel', 'kmod-dahdi', 'sysvinit-tools', 'sangoma-backup']
  return specs.filter((spec) => !special.includes(spec.name) && spec.arch !== 'i686').map(nevraOf)
}

function named(specs: PackageSpec[], ...names: string[]): string[] {
  return specs.filter((spec) => names.includes(spec.name)).map(nevraOf)
}

function without(nevras: string[], ...names: string[]): string[] {
  return nevras.filter((nevra) => !names.some((name) => new RegExp(`^${name}-\\d`).test(nevra)))
}

function nevraOf(spec: PackageSpec): string {
  const epoch = spec.epoch === undefined ? '' : `${spec.epoch}:`
  return `${spec.name}-${epoch}${spec.version}-${spec.release ?? '1'}.${spec.arch ?? 'noarch'}`
}
