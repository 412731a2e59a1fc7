/** What a person reads of a plan where boxes or repositories are not as they should be. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { inside } from '../helpers/inside.ts'
import { inventoryText, type InventoryParts } from '../helpers/inventory-text.ts'
import type { Outcome } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'
import { universePackage as one, type UniversePackage } from '../helpers/universe.ts'
import { universeInventory, writeRepository } from '../helpers/written-world.ts'

t.test('the inventory of a box of another family is refused, with its system', async (t) => {
  const apt: InventoryParts = {
    box: 'deb1',
    manager: 'apt',
    sections: {
      'file /etc/redhat-release': undefined,
      'file /etc/yum.conf': undefined,
      'file /etc/os-release': ['ID=debian', 'VERSION_ID="12"', 'PRETTY_NAME="Debian 12"'],
      'file /etc/apt/sources.list': [],
      settings: [],
      relations: undefined,
      packages: undefined,
      'rpm-keys': undefined,
    },
  }
  const { status, stderr } = await planFor(t, [one('app-2-1.noarch')], inventoryText(apt))
  t.comment(stderr)
  t.equal(status, 2)
  t.match(stderr, /box deb1 runs Debian 12 and updates with apt; group x has yum repositories \[INVENTORY_MISMATCH\]/)
  t.match(stderr, /next: put it into another group/)
})

t.test('the inventory of another release of the same family is named', async (t) => {
  const offered = [one('app-2-1.el7.noarch'), one('lib-2-1.el7.noarch')]
  const box = universeInventory([one('app-1-1.el9.noarch'), one('lib-1-1.el9.noarch')])
  const { status, stdout } = await planFor(t, offered, box)
  t.equal(status, 0)
  t.match(
    stdout,
    /warning: pbx1: has packages for el9, the repositories of x have them for el7; is it in the right group\?/,
  )
})

t.test('a loop of requirements is carried once, and hides nothing that is missing', async (t) => {
  const offered = [
    one('app-2-1.noarch', { requires: ['ring1'] }),
    one('ring1-1-1.noarch', { requires: ['ring2'] }),
    one('ring2-1-1.noarch', { requires: ['ring3', 'gone'] }),
    one('ring3-1-1.noarch', { requires: ['ring1', 'ring3'], obsoletes: ['ring3 < 1'] }),
  ]
  const { status, stdout } = await planFor(t, offered, universeInventory([one('app-1-1.noarch')]), '--items')
  t.equal(status, 0)
  t.match(stdout, /yum p +4 packages/)
  t.match(stdout, /ring1-1-1\.noarch .* provides ring1 for app-2-1\.noarch/)
  t.match(stdout, /warning: nothing on offer provides gone \(for ring2-1-1\.noarch\) on pbx1/)
})

t.test('a thousand packages that provide one name are carried, and named for what', async (t) => {
  const crowd = Array.from({ length: 1000 }, (_, i) => one(`crowd${i}-1-1.noarch`, { provides: [`x = ${i}`] }))
  const offered = [one('app-2-1.noarch', { requires: ['x'] }), ...crowd]
  const { status, stdout } = await planFor(t, offered, universeInventory([one('app-1-1.noarch')]))
  t.equal(status, 0)
  t.match(stdout, /warning: p: 1000 packages provide x \(for app-2-1\.noarch, pbx1\): any of them may be chosen/)
  const fat = one('app-2-1.noarch', { provides: Array.from({ length: 1000 }, (_, i) => `x = ${i}`), requires: ['x'] })
  const alone = await planFor(t, [fat], universeInventory([one('app-1-1.noarch')]))
  t.match(alone.stdout, /yum p +1 package /)
  t.notMatch(alone.stdout, /packages provide x/)
})

t.test('a repository without filelists is named with the paths that somebody requires', async (t) => {
  const offered = [one('app-2-1.noarch', { requires: ['/usr/share/data'] }), one('data-1-1.noarch')]
  const { status, stdout } = await planFor(t, offered, universeInventory([one('app-1-1.noarch')]))
  t.equal(status, 0)
  t.match(stdout, /warning: p: .*no filelists/)
  t.match(stdout, /warning: p: no filelists: who has 1 required path is not known \(\/usr\/share\/data\)/)
  t.match(stdout, /nothing on offer provides \/usr\/share\/data \(for app-2-1\.noarch\)/)
})

/** `gapferry plan` for one box over one repository without filelists. */
async function planFor(t: Test, offered: UniversePackage[], inventory: string, ...args: string[]): Promise<Outcome> {
  const dir = t.testdir()
  writeRepository(join(dir, 'www'), offered, null)
  const server = await serveFolder(join(dir, 'www'))
  t.teardown(() => server.close())
  const group = `- { name: x, origin: 'http://m.lan', yum: [{ id: p, baseurl: ['${server.url}/'] }] }`
  const settings = `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n      ${group}\n`
  writeFileSync(join(dir, 'gapferry.yaml'), settings)
  writeFileSync(join(dir, 'box.gfi'), inventory)
  const added = await inside(runGapferry, dir, ['inventory', 'add', 'box.gfi'])
  if (added.status !== 0) throw new Error(added.stderr)
  return inside(runGapferry, dir, ['plan', ...args])
}
