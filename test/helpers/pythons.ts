import { existsSync, globSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { run } from './process.ts'

/** python3, and a python 2.7 where this machine has one: Debian 12 does not. */
export async function pythons(): Promise<string[]> {
  const pyenv = process.env['PYENV_ROOT'] ?? join(homedir(), '.pyenv')
  const candidates = ['python2.7', ...globSync(join(pyenv, 'versions/2.7.*/bin/python2.7'))]
  for (const python of candidates) {
    if (python.includes('/') && !existsSync(python)) continue
    const script = 'import sys; sys.exit(sys.version_info[:2] != (2, 7))'
    const found = await run(python, ['-c', script]).catch(() => undefined)
    if (found?.status === 0) return ['python3', python]
  }
  return ['python3']
}
