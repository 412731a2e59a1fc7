import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import type { Plan } from '../../bundler/plan.ts'
import { makeGap } from '../helpers/gap.ts'
import { makeLab } from '../helpers/lab.ts'
import { bringInventories, moduleSettings, outcome } from '../helpers/module-site.ts'
import type { ModuleSpec } from '../helpers/module-list.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox } from '../helpers/php-box.ts'
import { entriesOf } from '../helpers/tar.ts'
import { sha256Of } from '../../manifests/digest.ts'

const SHARED: ModuleSpec = { rawname: 'shared', version: '3.1', payloadBytes: 40_000 }
const PAID: ModuleSpec = { rawname: 'paid', version: '2.5', php: ['7.4', '8.2'], payloadBytes: 30_000 }

t.test('yum and modules for two groups: one bundle, one budget, one import, two origins', async (t) => {
  const lab = await makeLab(t)
  const specs = [
    { name: 'asterisk', version: '18.1', payloadBytes: 20_000 },
    { name: 'asterisk', version: '18.2', payloadBytes: 20_000 },
  ]
  await lab.publish('pkgs', specs)
  const vendor = await makeModuleUpstream(t, { major: 16, modules: modulesOf(16) })
  await vendor.publish({ major: 17, modules: modulesOf(17) })
  const yum = `yum:\n  - { id: pkgs, baseurl: ['${lab.url}/pkgs/'], newest: 1 }\n`
  const [first, second] = [16, 17].map((major) => `boxes: ['pbx${major}-*']\n${moduleSettings(vendor, major)}`)
  const gap = await makeGap(t, lab.folder('gap'), `${yum}${first}`, { group: 'pbx16', more: { pbx17: second! } })
  const boxes = {
    'pbx16-1': await makeBox(t, {
      major: 16,
      modules: { framework: '16.0.1', core: '16.0.1', shared: '1', paid: '1' },
    }),
    'pbx17-1': await makeBox(t, {
      major: 17,
      modules: { framework: '17.0.1', core: '17.0.1', shared: '1', paid: '1' },
    }),
  }
  await bringInventories(gap, boxes, {
    'pbx16-1': {
      'file /etc/yum.repos.d/lab.repo': ['[pkgs]', `baseurl=${lab.url}/pkgs/`],
      relations: ['asterisk = 18.1-1'],
      packages: ['asterisk 0 18.1 1 noarch p=1'],
    },
  })

  const { status, stdout } = await gap.gapferry('plan', '--json')
  t.equal(status, 0)
  const { toFetch, sites } = JSON.parse(stdout) as Plan & { toFetch: { bytes: number } }
  const foretold = sites[0]!.groups.flatMap((group) => group.modules!.boxes)
  const archives = (['pbx16', 'pbx17'] as const).flatMap((group) => {
    const [major, php] = group === 'pbx16' ? ['16', '7.4'] : ['17', '8.2']
    return [
      vendor.bytes('framework', `${major}.0.9`),
      vendor.bytes('core', `${major}.0.9`),
      vendor.bytes('paid', '2.5', php),
    ]
  })
  const wanted = [...archives, vendor.bytes('shared', '3.1')]
  const rpm = 20_000
  const least = wanted.reduce((sum, one) => sum + one.length, rpm)
  t.ok(toFetch.bytes > least && toFetch.bytes < least + 30_000, 'what is shared is counted once', { toFetch, least })

  const settings = join(gap.laptopDir, 'gapferry.yaml')
  const text = readFileSync(settings, 'utf8')
  writeFileSync(settings, `budget: 60KB\n${text}`)
  const short = await gap.gapferry('bundle', '--to', gap.stickDir)
  t.equal(short.status, 5, `one budget for both kinds and both groups: ${short.stderr}`)
  writeFileSync(settings, text)
  const { files } = await gap.bundle()
  const names = files.flatMap((file) => entriesOf(file).map((entry) => entry.name))
  for (const bytes of wanted) {
    const name = `blobs/${sha256Of(bytes)}`
    t.equal(names.filter((one) => one === name).length, 1, `${name.slice(0, 20)} lies in the bundle once`)
  }
  const total = files.reduce((sum, file) => sum + statSync(file).size, 0)
  t.ok(total < least * 2 + boxTool().length, 'and the bundle is no larger than it has to be', { total, least })
  t.equal(vendor.count(vendor.path('shared', '3.1'), 'GET') + vendor.count(vendor.path('shared', '3.1'), 'POST'), 1)

  await gap.deliver()
  await gap.serve()
  for (const [name, box] of Object.entries(boxes)) {
    const group = name.slice(0, 5)
    const expected = await box.clone().upgradeall(vendor.url)
    const found = await box.upgradeall(gap.origins[group]!)
    t.strictSame(outcome(found), outcome(expected), `${name}: as from the vendor`)
    t.strictSame(found.pending, {})
    t.strictSame(found.upgraded, foretold.find((one) => one.name === name)!.upgrades, `${name}: as the plan says`)
    const php = group === 'pbx16' ? '7.4' : '8.2'
    t.equal(
      found.fetched['paid']?.sha256,
      sha256Of(vendor.bytes('paid', '2.5', php)),
      `${name}: the build for PHP ${php}`,
    )
  }
  const client = lab.box({ repoFiles: { 'gapferry.repo': (await gap.fetch('gapferry-pbx16.repo')).toString() } })
  client.keyFile('/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry', (await gap.fetch('keys/site.asc')).toString())
  client.keyFile('/etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry-pkgs', readFileSync(lab.keyFile, 'utf8'))
  t.equal((await client.makecache()).status, 0, 'the first origin serves yum')
  t.equal((await client.install('asterisk')).status, 0)
  await t.rejects(gap.fetch('gapferry-pbx17.repo', 'pbx17'), 'the second has no yum')
})

function modulesOf(major: number): ModuleSpec[] {
  return [
    { rawname: 'framework', version: `${major}.0.9`, payloadBytes: 10_000 },
    { rawname: 'core', version: `${major}.0.9`, payloadBytes: 5000 },
    SHARED,
    PAID,
  ]
}
