import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runOnBox } from '../helpers/as-box.ts'
import type { DnfClient, TransactionItem } from '../helpers/dnf.ts'
import { GENERATIONS, makeBox, STATES } from '../helpers/fleet.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import { report } from '../helpers/process.ts'

const KEYS = '/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry'

t.test('six boxes in different states update from one bundle as from the vendor, and one fails alike', async (t) => {
  const lab = await makeLab(t)
  await lab.publish('base', GENERATIONS.all.base)
  await lab.publish('pkgs', GENERATIONS.all.pkgs)
  const gap = await makeGap(t, lab.folder('gap'), settings(lab))
  const fleet = new Map<string, Promised>()
  for (const name of Object.keys(STATES)) {
    const box = await makeBox(t, lab, name)
    fleet.set(name, { box, expected: await answer(box) })
  }
  t.same(
    [...fleet].filter(([, { expected }]) => expected.error !== '').map(([name]) => name),
    ['broken'],
  )
  await addInventories(t, gap, fleet, lab.folder('inventories'))

  await gap.bundle()
  await gap.deliver()
  await gap.serve()
  for (const [name, { box, expected }] of fleet) {
    await pointAt(name, box, gap)
    t.equal((await box.makecache()).status, 0)
    const found = await answer(box)
    t.strictSame(found, expected, `${name}: the same transaction`)
    const parity = await runOnBox(box, name, ['parity'])
    t.equal(parity.status, 0, report(parity))
    t.match(parity.stdout, name === 'broken' ? /^expected-failure /m : /^result holds$/m)
  }
  for (const [name, { box, expected }] of fleet) {
    if (expected.error !== '') continue
    const done = await box.upgrade()
    t.equal(done.status, 0, report(done))
    t.strictSame(await box.pending(), [], `${name}: nothing pending`)
  }
})

interface Promised {
  box: DnfClient
  expected: Answer
}
interface Answer {
  items: TransactionItem[]
  error: string
}

/** What dnf would do now, or why it would do nothing. */
async function answer(box: DnfClient): Promise<Answer> {
  try {
    return { items: await box.pending(), error: '' }
  } catch (error) {
    return { items: [], error: String(error) }
  }
}

async function addInventories(t: Test, gap: Gap, fleet: Map<string, Promised>, dir: string): Promise<void> {
  mkdirSync(dir, { recursive: true })
  for (const [name, { box }] of fleet) {
    const inventory = await runOnBox(box, name, ['inventory'])
    t.equal(inventory.status, 0, report(inventory))
    writeFileSync(join(dir, `${name}.gfi`), inventory.stdout)
  }
  const files = [...fleet.keys()].map((name) => join(dir, `${name}.gfi`))
  const added = await gap.gapferry('inventory', 'add', ...files)
  t.equal(added.status, 0, report(added))
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

function settings(lab: Lab): string {
  const repository = (id: string, path: string): string =>
    `  - { id: ${id}, baseurl: ['${lab.url}/${path}/'], gpgkey: '${lab.keyFile}', repoGpgcheck: true, gpgcheck: true }\n`
  return `yum:\n${repository('sng-base', 'base')}${repository('sng-pkgs', 'pkgs')}`
}
