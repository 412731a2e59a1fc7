/** A box that is a system of its own, as far as one can be made of folders: namespaces of mounts, network and host name in which
 *  /etc and /var/lib are the box's, httpd is Debian's apache2 and reads the box's conf.d, and loopback is nobody else's. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { GAPFERRY_BOX } from './box-root.ts'
import type { FolderBox } from './folder-box/box.ts'
import { mustRun, run, type Outcome, type Teardown } from './process.ts'

export interface LiveBox {
  /** a program in the box */
  run(command: string, args?: readonly string[], options?: { input?: string }): Promise<Outcome>
  /** `gapferry-box …` */
  tool(...args: string[]): Promise<Outcome>
  /** dnf on the box's packages, with its own repository files */
  dnf(...args: string[]): Promise<Outcome>
}

/** What of the machine a program needs to run at all. */
const FROM_MACHINE = ['passwd', 'group', 'nsswitch.conf', 'ld.so.cache', 'ld.so.conf.d', 'alternatives', 'php', 'ssl']
const MODULES = ['mpm_event', 'authz_core', 'authz_host', 'alias', 'autoindex', 'deflate', 'dir', 'env', 'filter']
const SETUP = `set -e
mount --make-rprivate /
mount --bind "$1/etc" /etc
mount --bind "$1/var/lib" /var/lib
mount --bind "$1/usr/local/sbin" /usr/local/sbin
hostname "$2"
while node=$(command -v node); do mount --bind /dev/null "$node"; done
/usr/bin/python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x49))'
/usr/sbin/apache2 -f /etc/httpd/conf/httpd.conf
echo ready
exec cat
`

/** @param name  the box's host name
 *  @param dir  a folder for what is not the box's own */
export async function startBox(t: Teardown, box: FolderBox, name: string, dir: string): Promise<LiveBox> {
  mkdirSync(join(dir, 'home'), { recursive: true })
  writeFileSync(join(dir, 'home/.rpmmacros'), '%_dbpath /var/lib/rpm\n')
  for (const one of FROM_MACHINE) {
    if (!existsSync(join('/etc', one)) || existsSync(join(box.root, 'etc', one))) continue
    cpSync(join('/etc', one), join(box.root, 'etc', one), { recursive: true, verbatimSymlinks: true })
  }
  box.write('/etc/httpd/conf/httpd.conf', apacheConfiguration())
  box.write('/etc/dnf/dnf.conf', dnfConfiguration())
  for (const folder of ['cache', 'log', 'persist', 'httpd']) mkdirSync(join(box.root, 'var/lib', folder))
  chmodSync(join(box.root, 'var/lib'), 0o755)
  rmSync(join(box.root, 'var/lib/dpkg'), { recursive: true, force: true })
  writeFileSync(join(box.path, 'systemctl'), SYSTEMCTL, { mode: 0o755 })
  const holder = spawn('unshare', ['--mount', '--net', '--uts', 'sh', '-c', SETUP, 'sh', box.root, name])
  let said = ''
  holder.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  t.teardown(async () => {
    await enter(['/usr/sbin/apache2', '-f', '/etc/httpd/conf/httpd.conf', '-k', 'stop'])
    holder.stdin.end()
    if (holder.exitCode === null) await once(holder, 'exit')
  })
  const started = await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')])
  if (!String(started[0]).startsWith('ready')) throw new Error(`the box does not start: ${said}`)
  const env = { HOME: join(dir, 'home'), PATH: `${box.path}:/usr/sbin:/usr/bin:/sbin:/bin` }
  const enter = (command: readonly string[], options: { input?: string } = {}): Promise<Outcome> =>
    run('nsenter', ['--mount', '--net', '--uts', '--target', String(holder.pid), '--', ...command], { env, ...options })
  return {
    run: (command, args = [], options = {}) => enter([command, ...args], options),
    tool: (...args) => enter(['dash', GAPFERRY_BOX, ...args]),
    dnf: (...args) => enter(['dnf', '-y', `--installroot=${box.root}`, '-c', '/etc/dnf/dnf.conf', ...args]),
  }
}

/** Nothing is left to a stub: the server is told as a box's is. */
const SYSTEMCTL = `#!/bin/sh
[ "$*" = 'reload httpd' ] || exit 0
exec /usr/sbin/apache2 -f /etc/httpd/conf/httpd.conf -k graceful
`

function apacheConfiguration(): string {
  return [
    ...MODULES.concat('mime', 'negotiation').map(
      (name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`,
    ),
    'User www-data',
    'Group www-data',
    'Listen 127.0.0.1:80',
    'ServerName box',
    'PidFile /var/lib/httpd/pid',
    'DefaultRuntimeDir /var/lib/httpd',
    'ErrorLog /var/lib/httpd/error.log',
    'TypesConfig /dev/null',
    'AddType application/xml .xml',
    'AddEncoding x-gzip .gz .tgz',
    'AddOutputFilterByType DEFLATE text/html text/plain text/xml application/xml',
    'StartServers 1',
    'ServerLimit 2',
    'ThreadsPerChild 4',
    'MaxRequestWorkers 8',
    '<Directory />',
    '  Require all denied',
    '</Directory>',
    'IncludeOptional /etc/httpd/conf.d/*.conf',
    '',
  ].join('\n')
}

function dnfConfiguration(): string {
  const options = {
    ...{ gpgcheck: 1, repo_gpgcheck: 1, best: 0, skip_if_unavailable: 0, plugins: 0, zchunk: 0 },
    ...{ module_platform_id: 'platform:el7', reposdir: '/etc/yum.repos.d', varsdir: '/etc/yum/vars' },
    ...{ cachedir: '/var/lib/cache', persistdir: '/var/lib/persist', logdir: '/var/lib/log' },
  }
  return ['[main]', ...Object.entries(options).map(([name, value]) => `${name}=${value}`), ''].join('\n')
}

/** A FAT stick: a mounted image, by the kernel's driver or by one in user space; unmounted when the test ends. */
export async function makeFatStick(
  t: Teardown,
  dir: string,
  options: { isReadOnly?: boolean } = {},
): Promise<FatStick> {
  const [image, at] = [join(dir, 'stick.img'), join(dir, 'stick')]
  mkdirSync(at, { recursive: true })
  await mustRun('truncate', ['-s', '300M', image])
  await mustRun('mkfs.vfat', ['-F', '32', image])
  const hasDriver = (await run('grep', ['-qw', 'vfat', '/proc/filesystems'])).status === 0
  const mount = (isReadOnly: boolean): Promise<Outcome> =>
    hasDriver
      ? mustRun('mount', ['-t', 'vfat', '-o', `loop,${isReadOnly ? 'ro' : 'rw'}`, image, at])
      : mustRun('fusefat', ['-o', isReadOnly ? 'ro' : 'rw+', image, at])
  await mount(options.isReadOnly === true)
  t.teardown(() => run('umount', ['-l', at]))
  return {
    dir: at,
    remount: async (isReadOnly) => {
      await mustRun('umount', [at])
      await mount(isReadOnly)
    },
  }
}

export interface FatStick {
  dir: string
  remount(isReadOnly: boolean): Promise<void>
}
