import t from 'tap'
import { checkAfterwards, countOf, dropCopy, killedAt, makeCrashScene } from '../helpers/license-crash.ts'
import { join } from 'node:path'

t.test('killed at every fsync of an installation', async (t) => {
  const scene = await makeCrashScene(t)
  const count = await countOf(scene.copy(), 'fsync', join(scene.dir, 'log'))
  for (let n = 1; n <= count; n++) {
    const box = scene.copy()
    t.match(await killedAt(box, 'fsync', n), { status: 137 })
    await checkAfterwards(t, box, `fsync ${n} of ${count}`)
    dropCopy(box)
  }
})

t.test('killed at many moments', async (t) => {
  const scene = await makeCrashScene(t)
  const wholeMs = await scene.copy().killedAfter(undefined)
  for (let n = 1; n <= 60; n++) {
    const box = scene.copy()
    const ms = wholeMs * Math.random()
    await box.killedAfter(ms)
    await checkAfterwards(t, box, `after ${ms.toFixed(0)} of ${wholeMs.toFixed(0)} ms`)
    dropCopy(box)
  }
})
