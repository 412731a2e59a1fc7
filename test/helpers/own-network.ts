import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { removeFolder } from './cache.ts'
import { NO_PROXY } from './process.ts'

const INSIDE = 'GAPFERRY_TEST_HOSTS'
/** Loopback alone, and an /etc/hosts of its own. $1: the file that stands for it */
const SCRIPT = `set -e
ip link set lo up
mount --make-rprivate /
mount --bind "$1" /etc/hosts
shift
exec "$@"
`
const OWN_NAMES = '127.0.0.1 localhost\n::1 localhost\n'

/** Where names lead, for every program that this test starts. */
export interface OwnNetwork {
  /** From now on each name leads to the address; all others lead nowhere. */
  lead(names: readonly string[], address: string): void
}

/** Runs the test file that calls it a second time, in a network namespace of its own (only loopback, every port free,
 *  nothing else of the machine can be reached) with an /etc/hosts of its own. It needs root, or user namespaces.
 *  @param work  called in there
 *  @returns once `work` was done, on both sides */
export async function inOwnNetwork(t: Test, file: string, work: (network: OwnNetwork) => Promise<void>): Promise<void> {
  const hosts = process.env[INSIDE]
  if (hosts !== undefined) {
    // written in place: another file would not be the one that is mounted
    const lead: OwnNetwork['lead'] = (names, address) =>
      writeFileSync(hosts, `${OWN_NAMES}${names.map((name) => `${address} ${name}\n`).join('')}`)
    return work({ lead })
  }
  const folder = mkdtempSync(join(tmpdir(), 'gapferry-hosts-'))
  t.teardown(() => removeFolder(folder))
  const own = join(folder, 'hosts')
  writeFileSync(own, OWN_NAMES)
  const rights = process.getuid?.() === 0 ? [] : ['--map-root-user']
  const program = [process.execPath, ...process.execArgv, file]
  const args = [...rights, '--net', '--mount', 'sh', '-c', SCRIPT, 'sh', own, ...program]
  await t.spawn('unshare', args, { env: { ...process.env, [INSIDE]: own, [NO_PROXY]: '*' } }, 'in a network of its own')
}
