// The Debian packages that the tests stand on. Plain JavaScript that also runs on Node 20.
//   node test/helpers/packages.mjs
// All there: says nothing, exit 0. Some missing: prints which; as root it installs them with apt-get (exit 0), otherwise
// it prints the command to run (exit 1). A missing tool is never passed over.
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { pathToFileURL } from 'node:url'

/** Debian package → what the tests use of it. apache2-bin is the web server's program without its system service. */
const PACKAGES = {
  'apache2-bin': ['/usr/sbin/apache2', '/usr/lib/apache2/modules/mod_mpm_event.so'],
  busybox: ['/usr/bin/busybox'],
  bzip2: ['/usr/bin/bzip2'],
  'createrepo-c': ['/usr/bin/createrepo_c'],
  dash: ['/usr/bin/dash'],
  e2fsprogs: ['/usr/sbin/mkfs.ext4'],
  dosfstools: ['/usr/sbin/mkfs.vfat'],
  dnf: ['/usr/bin/dnf'],
  'dnf-plugins-core': ['/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py'],
  faketime: ['/usr/bin/faketime'],
  // FAT where the kernel has none
  fusefat: ['/usr/bin/fusefat'],
  gawk: ['/usr/bin/gawk'],
  gnupg: ['/usr/bin/gpg', '/usr/bin/gpgconf', '/usr/bin/gpg-agent'],
  gpgv: ['/usr/bin/gpgv'],
  iproute2: ['/usr/sbin/ip'],
  'libsolv-tools': ['/usr/bin/testsolv'],
  mawk: ['/usr/bin/mawk'],
  opensc: ['/usr/bin/pkcs11-tool'],
  openssl: ['/usr/bin/openssl'],
  'php-cli': ['/usr/bin/php'],
  // what a version of PHP calls its modules' files changes with the version
  'php-curl': ['/var/lib/dpkg/info/php-curl.list'],
  'php-xml': ['/var/lib/dpkg/info/php-xml.list'],
  python3: ['/usr/bin/python3'],
  'python3-dnf': ['/usr/lib/python3/dist-packages/dnf/__init__.py'],
  rpm: ['/usr/bin/rpm', '/usr/bin/rpmbuild', '/usr/bin/rpmsign'],
  shellcheck: ['/usr/bin/shellcheck'],
  softhsm2: ['/usr/bin/softhsm2-util', '/usr/lib/softhsm/libsofthsm2.so'],
  strace: ['/usr/bin/strace'],
  xfsprogs: ['/usr/sbin/mkfs.xfs'],
  'xz-utils': ['/usr/bin/xz'],
  zstd: ['/usr/bin/zstd'],
}
const UPDATE = ['apt-get', 'update', '-q']
const INSTALL = ['apt-get', 'install', '-q', '-y', '--no-install-recommends']

/** The packages that bring something the tests use and that is not there. */
function missingPackages() {
  return Object.keys(PACKAGES).filter((name) => !PACKAGES[name].every(isThere))
}

/** Sees to it that all packages are there. True when they are, at the end. */
export function ensurePackages() {
  const missing = missingPackages()
  if (missing.length === 0) return true
  const command = [...INSTALL, ...missing]
  console.log(`the tests need these Debian packages, which are missing: ${missing.join(' ')}`)
  if (!isThere('/usr/bin/apt-get')) return fail('there is no apt-get here: install what brings these commands', missing)
  if (process.getuid() !== 0) return fail(`run as root: ${UPDATE.join(' ')} && ${command.join(' ')}`, missing)
  for (const line of [UPDATE, command]) {
    console.log(`running: ${line.join(' ')}`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    const { status } = spawnSync(line[0], line.slice(1), { stdio: ['ignore', 'inherit', 'inherit'], env })
    if (status !== 0 && line === command) return fail(`failed: ${line.join(' ')}`, missing)
  }
  const still = missingPackages()
  return still.length === 0 || fail(`still missing after the installation: ${still.join(' ')}`, still)
}

function isThere(file) {
  try {
    accessSync(file, constants.R_OK)
    return true
  } catch {
    return false
  }
}

function fail(message, names) {
  console.error(message)
  for (const name of names) console.error(`  ${name}: ${PACKAGES[name].join(' ')}`)
  return false
}

if (import.meta.url === pathToFileURL(process.argv[1]).href && !ensurePackages()) process.exitCode = 1
