/**
 * Bytes carried beside the bytes that the boxes' own solvers then fetch: the fleet of test/helpers/fleet.ts, by real dnf. A
 * first bundle, and a month later what is new beside what is newly needed. No times: one run says it.
 */
import {
  answers,
  bringInventories,
  carriedAndNeeded,
  each,
  nevrasOf,
  plan,
  publish,
  startFleet,
} from '../helpers/fleet-run.ts'
import { must } from '../helpers/process.ts'
import { round, type Metric } from './measure.ts'

export async function* bytesMetrics(): AsyncGenerator<Metric> {
  const undo: (() => unknown)[] = []
  try {
    const fleet = await startFleet({ teardown: (handler) => void undo.unshift(handler) })
    const expected = await answers(fleet)
    await bringInventories(fleet)
    const first = await plan(fleet)
    must(await fleet.gap.gapferry('pull'))
    yield bytesMetric('bytes', carriedAndNeeded(first, expected), '<= 1.35')
    await each(fleet.boxes, async (box, name) => {
      if (expected.get(name)!.error === '') must(await box.upgrade())
    })
    await publish(fleet.lab, 'next')
    await bringInventories(fleet)
    const second = await plan(fleet)
    const { needed } = carriedAndNeeded(second, await answers(fleet), nevrasOf(first))
    yield bytesMetric('bytes-monthly', { carried: second.toFetch.bytes, needed }, '<= 1.10')
  } finally {
    for (const handler of undo) await handler()
  }
}

function bytesMetric(metric: string, { carried, needed }: { carried: number; needed: number }, goal: string): Metric {
  const against = 'dnf upgrade, all boxes together'
  return { metric, ours: carried, peer: needed, ratio: round(carried / needed), goal, unit: 'bytes', against }
}
