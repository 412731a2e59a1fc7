/** Ended by SIGKILL at random moments, 40 times each: what was acknowledged is there, old or new is served, the same command
 *  goes on, and nothing is left over. */
import t from 'tap'
import { killedAfter, makeScene, randomOf } from '../helpers/crash.ts'
import { removeFolder } from '../helpers/cache.ts'
import { WORKS } from '../helpers/crash-work.ts'

const KILLS = 40
const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)

t.setTimeout(1_200_000)

t.test(`killed at random moments (GAPFERRY_SEED=${SEED})`, async (t) => {
  const scene = await makeScene(t, { count: 40, bytes: 60_000 })
  for (const work of Object.values(WORKS)) {
    await t.test(`${work.name}, ${KILLS} times`, async (t) => {
      const random = randomOf(SEED)
      let whole = await undisturbed()
      const states = new Map<string, number>()
      for (let attempt = 0; attempt < KILLS; attempt++) {
        const dir = work.begin(scene)
        // Programs need about half of the time to get going.
        const ms = whole * (0.4 + 0.6 * random())
        const killed = await killedAfter(work.program, dir, work.args(scene), ms)
        // Other work on this machine comes and goes.
        if (killed.status === 0) whole = (whole + killed.ms) / 2
        const { wrong, state } = await work.check(scene, dir, killed)
        const name = `${killed.status === null ? 'killed' : 'done'}, ${state}`
        states.set(name, (states.get(name) ?? 0) + 1)
        t.strictSame(wrong, [], `after ${Math.round(ms)} ms of ${Math.round(whole)}: ${name}`)
        removeFolder(dir)
      }
      t.comment(`${work.name}: ${[...states].map(([state, times]) => `${times} × ${state}`).join('; ')}`)
      t.ok([...states.keys()].filter((state) => state.startsWith('killed')).length >= 1, 'some were killed at work')

      async function undisturbed(): Promise<number> {
        const dir = work.begin(scene)
        const { ms, status, stderr } = await killedAfter(work.program, dir, work.args(scene))
        t.equal(status, 0, stderr)
        removeFolder(dir)
        return ms
      }
    })
  }
})
