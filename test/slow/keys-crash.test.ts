import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { listKeys } from '../../bundler/keys/key-list.ts'
import { loadRoots } from '../../bundler/keys/key-folder.ts'
import { run, type Outcome } from '../helpers/process.ts'

const MAIN = resolve(import.meta.dirname, '../../bundler/main.ts')
const CALLS = 'fsync,rename'
const MAX_STEPS = 80

/** One command, killed at the `when`-th call that makes something durable. */
function killed(cwd: string, when: number, args: string[]): Promise<Outcome> {
  const inject = [
    '-f',
    '-qq',
    '-o',
    '/dev/null',
    '-e',
    `trace=${CALLS}`,
    '-e',
    `inject=${CALLS}:signal=KILL:when=${when}`,
  ]
  // strace ends itself by the signal that ended its child; the shell says it as a status.
  const command = ['-c', 'strace "$@"; exit $?', 'sh', ...inject, process.execPath, MAIN, ...args]
  return run('sh', command, { cwd, env: { UV_THREADPOOL_SIZE: '1' } })
}

t.test(
  'init with root keys on three media, killed at every step: all keys of the site, or no site',
  { timeout: 900_000 },
  async (t) => {
    const dir = t.testdir()
    const args = [
      'init',
      'lap',
      '--no-passphrase',
      '--root',
      '2/3',
      ...['a', 'b', 'c'].flatMap((name) => ['--root-to', name]),
    ]
    const fresh = (): void => {
      rmSync(dir, { recursive: true, force: true })
      for (const name of ['a', 'b', 'c']) mkdirSync(join(dir, name), { recursive: true })
    }
    let [without, withKeys] = [0, 0]
    for (let when = 1; when <= MAX_STEPS; when++) {
      fresh()
      const { status } = await killed(dir, when, args)
      if (status === 0) break
      if (!existsSync(join(dir, 'lap/keys/hq'))) without++
      else {
        withKeys++
        const { keys, root } = listKeys(join(dir, 'lap/keys'), 'hq', Date.now())
        t.match(root, { version: 1, threshold: 2, keys: 3 })
        const onMedia = ['a', 'b', 'c'].flatMap((name) =>
          readdirSync(join(dir, name)).filter((file) => file.endsWith('.key')),
        )
        for (const { keyid } of keys.filter((key) => key.role === 'root')) {
          t.ok(
            onMedia.some((file) => file.includes(keyid.slice(0, 8))),
            `step ${when}: its medium has root key ${keyid.slice(0, 8)}`,
          )
        }
      }
    }
    t.ok(without > 5 && withKeys > 0, `${without} steps without a site, ${withKeys} with one`)
  },
)

t.test(
  'a rotation, killed at every step: the old root or the new one, and it can be done again',
  { timeout: 900_000 },
  async (t) => {
    const dir = t.testdir()
    const again = async (...args: string[]): Promise<void> => {
      const outcome = await run(process.execPath, [MAIN, ...args], { cwd: dir })
      if (outcome.status !== 0) throw new Error(outcome.stderr)
    }
    await again('init', '.', '--no-passphrase')
    const versions = new Set<number>()
    for (let when = 1; when <= MAX_STEPS; when++) {
      const before = loadRoots(join(dir, 'keys'), 'hq').root.version
      const { status } = await killed(dir, when, ['keys', 'rotate', 'bundle'])
      if (status === 0) break
      const { root } = loadRoots(join(dir, 'keys'), 'hq')
      versions.add(root.version - before)
      const listed = listKeys(join(dir, 'keys'), 'hq', Date.now())
      t.ok(
        listed.keys.some((key) => key.role === 'bundle' && key.state === 'in force' && key.file !== undefined),
        `step ${when}: a bundle key in force is here`,
      )
      t.same(listed.pending, [], `step ${when}`)
    }
    await again('keys', 'rotate', 'bundle')
    t.strictSame(versions, new Set([0, 1]), 'both were seen')
  },
)
