import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { GAPFERRY_BOX } from './box-root.ts'
import type { DnfClient } from './dnf.ts'
import { run, type Outcome } from './process.ts'

/** Puts a box's files where a system has them, in a mount namespace of its own, and names the system: what runs there runs
 *  as on the box. dpkg's folder goes, because a box is no Debian. */
const SCRIPT = `set -e
mount --make-rprivate /
mount -t tmpfs none /var/lib/dpkg
mount -t tmpfs none /etc/dnf
cp "$1/as-box.conf" /etc/dnf/dnf.conf
[ ! -d "$1/etc/dnf/plugins" ] || cp -r "$1/etc/dnf/plugins" /etc/dnf/plugins
mount --bind "$1/root/var/lib/rpm" /var/lib/rpm
hostname "$2"
shift 2
exec "$@"
`

/** Runs `gapferry-box` on the system that `box` is.
 *  @param name  the host name there */
export async function runOnBox(box: DnfClient, name: string, args: readonly string[]): Promise<Outcome> {
  const config = readFileSync(join(box.dir, 'etc/dnf.conf'), 'utf8')
    .replace(/^(cachedir|persistdir|logdir)=/gm, `$1=${box.root}`)
    .replace(/^plugin(conf)?path=.*\n/gm, '')
  writeFileSync(join(box.dir, 'as-box.conf'), config)
  const command = ['sh', '-c', SCRIPT, 'sh', box.dir, name, 'sh', GAPFERRY_BOX, ...args]
  const userNamespace = process.getuid?.() === 0 ? [] : ['--map-root-user']
  return run('unshare', [...userNamespace, '--mount', '--uts', ...command], { env: { HOME: join(box.dir, 'home') } })
}
