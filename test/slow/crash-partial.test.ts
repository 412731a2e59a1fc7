/** Ended by SIGKILL while the beginnings of large files are written and noted: the next pull goes on with what can be believed. */
import t from 'tap'
import { makeScene, straced } from '../helpers/crash.ts'
import { removeFolder } from '../helpers/cache.ts'
import { WORKS } from '../helpers/crash-work.ts'

/** Notes are written after each megabyte. */
const FILES = { count: 3, bytes: 2_500_000 }
const CALLS = ['write', 'ftruncate', 'unlink']
const POINTS = 6

t.setTimeout(1_200_000)

t.test('killed at writes of partial files and their notes', async (t) => {
  const scene = await makeScene(t, FILES)
  const work = WORKS.pull
  for (const call of CALLS) {
    const dir = work.begin(scene)
    const { calls, status, stderr } = await straced(work.program, dir, work.args(scene), [call])
    t.equal(status, 0, stderr)
    removeFolder(dir)
    const count = calls.get(call) ?? 0
    t.ok(count > 0, `${count} of ${call}`)
    const whens = new Set(Array.from({ length: POINTS }, (_, n) => Math.ceil(((n + 1) * count) / POINTS)))
    for (const when of whens) {
      const dir = work.begin(scene)
      const killed = await straced(work.program, dir, work.args(scene), [`${call}:signal=KILL:when=${when}`])
      const { wrong, state } = await work.check(scene, dir, killed)
      t.strictSame(wrong, [], `${call} ${when} of ${count} (${killed.status}): ${state}`)
      removeFolder(dir)
    }
  }
})
