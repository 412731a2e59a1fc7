/** The disk refuses a call, once or from then on: a plain error with its code and the next command, nothing half-made, and
 *  what was served is served. */
import t from 'tap'
import { removeFolder } from '../helpers/cache.ts'
import { makeScene, straced } from '../helpers/crash.ts'
import { plainFailure, WORKS } from '../helpers/crash-work.ts'

const ERRORS: Record<string, string[]> = {
  fsync: ['EIO'],
  fdatasync: ['EIO', 'ENOSPC'],
  rename: ['EIO', 'EDQUOT'],
  pwrite64: ['ENOSPC', 'EIO'],
  mkdir: ['ENOSPC'],
  ftruncate: ['ENOSPC'],
}

t.setTimeout(1_200_000)

t.test('the disk refuses a call', async (t) => {
  const scene = await makeScene(t, { count: 4, bytes: 20_000 })
  for (const work of Object.values(WORKS)) {
    await t.test(work.name, async (t) => {
      const counting = work.begin(scene)
      const { calls } = await straced(work.program, counting, work.args(scene), Object.keys(ERRORS))
      removeFolder(counting)
      const codes = new Map<string, number>()
      for (const [call, count] of calls) {
        const whens = new Set(['1', String(Math.ceil(count / 2)), String(count), '1+', `${Math.ceil(count / 2)}+`])
        for (const error of ERRORS[call]!) {
          for (const when of whens) {
            const dir = work.begin(scene)
            const failed = await straced(work.program, dir, work.args(scene), [`${call}:error=${error}:when=${when}`])
            const { code, wrong } = plainFailure(failed)
            codes.set(code, (codes.get(code) ?? 0) + 1)
            const checked = await work.check(scene, dir, failed)
            t.strictSame([...wrong, ...checked.wrong], [], `${call} ${error} at ${when}: ${code}, ${checked.state}`)
            removeFolder(dir)
          }
        }
      }
      t.comment(`${work.name}: ${[...codes].map(([code, times]) => `${times} × ${code}`).join(', ')}`)
      t.ok(
        [...codes].some(([code]) => code !== 'done'),
        'some failed',
      )
    })
  }
})
