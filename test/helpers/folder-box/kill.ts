import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Outcome } from '../process.ts'
import type { FolderBox } from './box.ts'

/** Commands that change something on a disk, or that a change waits for. */
const COMMANDS = ['cp', 'mv', 'rm', 'mkdir', 'rmdir', 'ln', 'cat', 'chmod', 'chown', 'python3', 'fwconsole', 'mysql']

/** Runs gapferry-box on a box and ends it and all its children (SIGKILL) when it starts the `at`th command that changes
 *  something; Infinity: never. The run has to be in a process group of its own.
 *  @param work  has to start it with this environment
 *  @returns how many such commands were started */
export async function killAt(
  box: FolderBox,
  at: number,
  work: (env: { PATH: string }) => Promise<Outcome>,
): Promise<number> {
  const folder = join(box.path, '../counted')
  const steps = join(folder, 'steps')
  mkdirSync(folder, { recursive: true })
  const last = at === Infinity ? -1 : at
  for (const name of COMMANDS) {
    const own = ['fwconsole', 'mysql'].includes(name) ? join(box.path, name) : `/usr/bin/${name}`
    const text = `#!/bin/dash\nread n <'${steps}'; n=$((n + 1)); echo $n >'${steps}'; [ $n != ${last} ] || kill -9 0\nexec ${own} "$@"\n`
    writeFileSync(join(folder, name), text, { mode: 0o755 })
  }
  writeFileSync(steps, '0\n')
  await work({ PATH: `${folder}:${box.path}` })
  const count = Number(readFileSync(steps, 'utf8'))
  rmSync(folder, { recursive: true })
  return count
}
