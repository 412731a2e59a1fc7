import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { runOnBox } from '../helpers/as-box.ts'
import type { DnfClient } from '../helpers/dnf.ts'
import { STATES } from '../helpers/fleet.ts'
import {
  answer,
  answers,
  bringInventories,
  carriedAndNeeded,
  each,
  nevrasOf,
  plan,
  publish,
  startFleet,
} from '../helpers/fleet-run.ts'
import type { Gap } from '../helpers/gap.ts'
import type { Lab } from '../helpers/lab.ts'
import { report, type Outcome } from '../helpers/process.ts'

const KEYS = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

t.test('boxes in different states update from one bundle as from the vendor, and one fails alike', async (t) => {
  const fleet = await startFleet(t)
  const { lab, gap, boxes } = fleet
  const expected = await answers(fleet)
  const failing = [...expected].filter(([, { error }]) => error !== '').map(([name]) => name)
  t.same(failing, ['broken'])
  await bringInventories(fleet)
  const first = await plan(fleet, '--prove')
  t.same(
    first.proof!.map(({ box, verdict }) => [box, verdict]),
    [...boxes.keys()].sort().map((name) => [name, 'same']),
    'libsolv, too, does the same on what is carried',
  )
  const { carried, needed } = carriedAndNeeded(first, expected)
  t.comment(`${carried} bytes carried, ${needed} needed: ${(carried / needed).toFixed(3)}`)
  t.ok(needed > 0 && carried <= 1.35 * needed, 'bytes carried for what is needed', { carried, needed })

  await gap.bundle()
  const { stdout: shown } = await gap.gapferry('inventory', 'show', 'fresh')
  t.match(shown, /^ {2}not +updates +behind bundle 1 in 13 packages \(/m, 'the laptop knows it beforehand')
  await gap.deliver()
  await gap.serve()
  await gap.mirror('boxes', 'add', ...[...boxes.keys()].map((name) => inventoryFile(lab, name)))
  for (const [name, packages] of await behind(gap)) t.ok(packages.length > 0, `${name}: ${packages.length} behind`)
  await each(boxes, async (box, name) => {
    await pointAt(name, box, gap)
    succeeds(t, await box.makecache(), `${name}: takes the mirror's metadata`)
    t.strictSame(await answer(box), expected.get(name), `${name}: the same transaction`)
    const parity = await runOnBox(box, name, ['parity'])
    succeeds(t, parity, `${name}: parity`)
    const holds = name === 'broken' ? /^expected-failure /m : /^result holds$/m
    t.ok(holds.test(parity.stdout), `${name}: says so`, { said: report(parity) })
    if (name === 'broken') return
    succeeds(t, await box.upgrade(), `${name}: updates`)
    t.strictSame(await box.pending(), [], `${name}: nothing pending`)
  })

  await publish(lab, 'next')
  await bringInventories(fleet)
  for (const name of boxes.keys()) {
    const body = gzipSync(readFileSync(inventoryFile(lab, name)))
    const { status } = await fetch(`${gap.origin}/gapferry/inventories`, { method: 'POST', body })
    t.equal(status, 204, `${name}: the mirror keeps its inventory`)
  }
  const updated = [...(await behind(gap))].filter(([name]) => name !== 'broken')
  t.strictSame(
    updated,
    [...boxes.keys()]
      .filter((name) => name !== 'broken')
      .sort()
      .map((name) => [name, []]),
    '0 behind',
  )
  const second = await plan(fleet)
  await gap.bundle()
  await gap.deliver()
  const then = await answers(fleet)
  const monthly = carriedAndNeeded(second, then, nevrasOf(first))
  t.equal(second.toFetch.bytes, monthly.carried, 'what was carried is not fetched again')
  t.comment(`a month later ${monthly.carried} new bytes, ${monthly.needed} newly needed`)
  t.ok(monthly.needed > 0 && monthly.carried <= 1.1 * monthly.needed, 'new bytes for what is newly needed', monthly)
})

/** With all that a command said where it failed, and only there. */
function succeeds(t: Test, outcome: Outcome, name: string): void {
  t.equal(outcome.status, 0, name, outcome.status === 0 ? {} : { said: report(outcome) })
}

/** As the operator does: the mirror's repository file and key, the box's own options stay. */
async function pointAt(name: string, box: DnfClient, gap: Gap): Promise<void> {
  for (const id of ['sng-base', 'sng-pkgs']) {
    box.keyFile(`${KEYS}-${id}`, (await gap.fetch(`keys/${id}.asc`)).toString())
    box.repoFile(`${id}.repo`, undefined)
  }
  box.keyFile(KEYS, (await gap.fetch('keys/site.asc')).toString())
  box.repoFile('gapferry.repo', (await gap.fetch(`gapferry-${gap.group}.repo`)).toString())
  const { exclude } = STATES[name]!
  if (exclude !== undefined) box.option('sng-pkgs', 'exclude', exclude.join(' '))
}

/** As bringInventories wrote it. */
function inventoryFile(lab: Lab, name: string): string {
  return join(lab.folder('inventories'), `${name}.gfi`)
}

/** Box → packages in which an operator sees it behind. */
async function behind(gap: Gap): Promise<Map<string, string[]>> {
  const { stdout } = await gap.mirror('boxes', 'list', '--json')
  const { boxes } = JSON.parse(stdout) as { boxes: { box: string; behind: { packages: string[] } }[] }
  return new Map(boxes.map((one) => [one.box, one.behind.packages]))
}
