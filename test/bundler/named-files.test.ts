import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readOffered } from '../../bundler/inventories.ts'
import { readSiteFile } from '../../bundler/keys/key-folder.ts'
import { mustRun } from '../helpers/process.ts'

t.test('a pipe or an endless device on a stick is no inventory and no key', async (t) => {
  const dir = t.testdir()
  symlinkSync('/dev/zero', join(dir, 'device'))
  await mustRun('mkfifo', [join(dir, 'pipe')])
  for (const name of ['device', 'pipe']) {
    t.throws(() => readOffered(join(dir, name)), { code: 'USAGE_INVALID' }, name)
    t.throws(() => readSiteFile(join(dir, name)), { code: 'KEY_MISSING' }, name)
  }
})
