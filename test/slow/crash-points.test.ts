/** Ended by SIGKILL at every call that makes something durable, gives it its name or takes it away, one after the other. */
import t, { type Test } from 'tap'
import { makeScene, straced, type Scene } from '../helpers/crash.ts'
import { removeFolder } from '../helpers/cache.ts'
import { WORKS, type Work } from '../helpers/crash-work.ts'

const CALLS = ['fsync', 'fdatasync', 'rename', 'unlink', 'rmdir', 'mkdir', 'pwrite64']
/** Two at a time: mostly one waits for the other's disk. */
const LANES = 2

t.setTimeout(2_400_000)

t.test('killed at each fsync, rename, unlink and write of a database', async (t) => {
  const scene = await makeScene(t, { count: 6, bytes: 20_000 })
  for (const work of Object.values(WORKS)) {
    await t.test(work.name, async (t) => {
      const points = await pointsOf(t, work, scene)
      let reached = 0
      const lane = async (): Promise<void> => {
        for (let point = points.pop(); point !== undefined; point = points.pop()) {
          const dir = work.begin(scene)
          const killed = await straced(work.program, dir, work.args(scene), [point])
          if (killed.status === null || killed.status === 137) reached += 1
          const { wrong, state } = await work.check(scene, dir, killed)
          t.strictSame(wrong, [], `${point} (${killed.status}): ${state}`)
          removeFolder(dir)
        }
      }
      const count = points.length
      await Promise.all(Array.from({ length: LANES }, lane))
      t.comment(`${work.name}: ${count} points, ${reached} reached`)
      t.ok(reached >= count * 0.9, `${reached} of ${count} points were reached`)
    })
  }
})

async function pointsOf(t: Test, work: Work, scene: Scene): Promise<string[]> {
  const dir = work.begin(scene)
  const { status, stderr, calls } = await straced(work.program, dir, work.args(scene), CALLS)
  t.equal(status, 0, stderr)
  removeFolder(dir)
  const points = [...calls].flatMap(([call, count]) =>
    Array.from({ length: count }, (_, n) => `${call}:signal=KILL:when=${n + 1}`),
  )
  t.ok(
    points.length > 8,
    `${points.length} points: ${[...calls].map(([call, count]) => `${count} ${call}`).join(', ')}`,
  )
  return points
}
