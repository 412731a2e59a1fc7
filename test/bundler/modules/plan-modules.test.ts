import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { freepbxLines, makeModuleLaptop } from '../../helpers/module-laptop.ts'
import type { Catalogue } from '../../helpers/module-upstream.ts'

const CATALOGUE: Catalogue = {
  major: 16,
  modules: [
    { rawname: 'framework', version: '16.0.40.11' },
    { rawname: 'core', version: '16.0.69', depends: { module: ['sipsettings ge 16.0.20', 'gone ge 1.0'] } },
    { rawname: 'sipsettings', version: '16.0.20', depends: { module: 'newdep' } },
    { rawname: 'newdep', version: '1.0.1' },
    { rawname: 'voicemail', version: '16.0.5' },
    { rawname: 'callforward', version: '16.0.7' },
    { rawname: 'superfecta', version: '16.0.3' },
    { rawname: 'callforward', version: '16.0.5', section: 'previous' },
  ],
}
const INSTALLED = ['framework 16.0.33', 'core 16.0.50', 'sipsettings 16.0.19', 'voicemail 16.0.3', 'callforward 16.0.1']
const BOX = freepbxLines(INSTALLED)

t.test('a person reads modules, boxes, what they upgrade, and what to know of them', async (t) => {
  const policy = { superfecta: 'want', voicemail: 'block', callforward: 'pin 16.0.5' }
  const { box, gapferry, plan } = await makeModuleLaptop(t, CATALOGUE, { policy, wholeSet: true })
  for (const name of ['pbx1', 'pbx2']) await box(name, BOX)
  const { stdout } = await gapferry('plan')
  for (const line of [
    / {2}modules 16 +6 modules +\d.*kB +of 7 offered$/m,
    / {2}files +1 file/,
    / {2}box pbx1 +4 upgrades +\d.* kB +1 new with them; of 5 modules, framework 16\.0\.33$/m,
    / {4}on pbx1, pbx2$/m,
    / {6}callforward +16\.0\.1 +→ +16\.0\.5$/m,
    / {6}newdep +new +→ +1\.0\.1, which sipsettings needs$/m,
    / {2}kept off the list by policy: voicemail$/m,
    /warning: pbx1, pbx2 will refuse core, which needs gone ge 1\.0: the vendor's list has no gone$/m,
    /warning: pbx1, pbx2: a weekly installall adds what is listed and not there: superfecta$/m,
  ]) {
    t.match(stdout, line)
  }
  const items = (await gapferry('plan', '--items')).stdout
  for (const line of [
    / callforward 16\.0\.5 .* pinned by policy; newer than 16\.0\.1 on pbx1 and one other box$/m,
    / newdep 1\.0\.1 .* sipsettings needs newdep on pbx1 and one other box$/m,
    / superfecta 16\.0\.3 .* wanted by policy$/m,
    / modules\/packages\/freepbx\/freepbx-16\.0-latest\.tgz .* the whole set \(wholeSet\)$/m,
  ]) {
    t.match(items, line)
  }
  const explained = (await gapferry('plan', '--explain', 'newdep')).stdout
  t.match(
    explained,
    /^newdep 1\.0\.1 .* hq \/ pbx \/ modules 16\n {2}newdep .*\n {2}sipsettings .* newer than 16\.0\.19 on pbx1/,
  )
  t.match(await gapferry('plan', '--explain', 'voicemail'), { status: 2, stderr: /policy keeps it off the list/ })
  t.match(await gapferry('plan', '--security'), { stdout: /warning: modules: --security does not narrow them/ })
  const planned = (await plan()).modules!
  t.equal(planned.modules.find(({ rawname }) => rawname === 'callforward')?.section, 'previous')
  t.match((await gapferry('upstreams')).stdout, /^127\.0\.0\.1:\d+ +modules 16$/m)
})

t.test('what the last bundle carried stays, and costs nothing', async (t) => {
  const { box, bundle, plan, gapferry, vendor } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', BOX)
  await bundle()
  const now = CATALOGUE.modules.flatMap(({ rawname, version, section }) => (section ? [] : [`${rawname} ${version}`]))
  await box('pbx1', freepbxLines(now))
  const reasons = Object.fromEntries((await plan()).modules!.modules.map(({ rawname, reason }) => [rawname, reason]))
  t.match(reasons, { framework: 'always', core: 'always', voicemail: 'kept', newdep: 'kept' })
  t.match((await gapferry('plan', '--items')).stdout, / voicemail .* carried before, and still the newest/)
  const count = vendor.requests.length
  t.match(await bundle(), { number: 1, isNew: false })
  const asked = vendor.requests.slice(count).map(({ method, path }) => `${method} ${path}`)
  t.strictSame(asked, ['POST /all-16.0.xml'])
})

t.test('nobody who could ask: a warning beside other things, an error where modules are wanted or all', async (t) => {
  const { gapferry, settings, dir, plan } = await makeModuleLaptop(t, CATALOGUE)
  t.match(await gapferry('plan'), { status: 2, stderr: /no inventory tells.*\[PLAN_EMPTY\]/s })
  settings({ policy: { superfecta: 'want' } })
  t.match(await gapferry('plan'), { status: 2, stderr: /\[MODULE_REQUEST_MISSING\]/ })
  settings({ wholeSet: true })
  t.match(await gapferry('plan'), { status: 0, stdout: /1 file[^]*warning: .*no inventory tells/ })
  const form = 'modules%5Bcore%5D%5Bversion%5D=16.0.50&modules%5Bcore%5D%5Bstatus%5D=2&phpver=7.4.16&pbxver=16.0.33'
  writeFileSync(join(dir, 'form'), form)
  settings({ request: 'form' })
  const { modules } = await plan()
  t.strictSame(
    modules!.boxes.map(({ name, upgrades }) => [name, upgrades.map(({ rawname }) => rawname)]),
    [['request', ['core']]],
  )
  t.strictSame(modules!.frameworks, ['16.0.33', '16.0.40.11'])
})

t.test('an apt box belongs to a group without yum repositories', async (t) => {
  const modules = ['framework', 'core'].map((rawname) => ({ rawname, version: '17.0.9' }))
  const { box, bundle, tree, gapferry } = await makeModuleLaptop(t, { major: 17, modules })
  const sections = { relations: undefined, packages: undefined, 'rpm-keys': undefined, settings: [], plugins: [] }
  await box('pbx17', freepbxLines(['framework 17.0.1', 'core 17.0.1'], { phpver: '8.2.7' }), {
    manager: 'apt',
    sections,
  })
  await bundle()
  const paths = [...(await tree()).tree.entries.keys()]
  t.ok(paths.includes('modules/packages/core/core-17.0.9.tgz.gpg' as never))
  t.notOk(
    paths.some((path) => path.startsWith('gapferry/parity/')),
    'no update of packages is planned',
  )
  t.match(await gapferry('plan', '--prove'), { status: 0, stdout: /nothing to prove/ })
})

t.test('sizes that are not told, and files that are not there', async (t) => {
  const { box, gapferry, vendor } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', BOX)
  vendor.fault(vendor.path('core', '16.0.69'), { kind: 'status', status: 405, times: 1 })
  t.match((await gapferry('plan')).stdout, /; 1 of unknown size$/m)
  t.match(await gapferry('pull', '--budget', '8kB'), { status: 5, stderr: /BUDGET_EXCEEDED/ })
  t.match(await gapferry('pull', '--budget', '80kB'), { status: 0 })
  await vendor.publish({
    major: 16,
    modules: CATALOGUE.modules.map((one) =>
      one.rawname === 'voicemail' ? { ...one, version: '16.0.6', absent: true } : one,
    ),
  })
  const gone = await gapferry('plan')
  t.match(gone, { status: 6, stderr: /voicemail 16\.0\.6: .*404.*\[FETCH_STATUS\]/ })
  t.match(gone.stderr, /policy: \{ voicemail: block \}/)
})

t.test('sounds: what boxes have, with licences; never a list of one', async (t) => {
  const sounds = [{ version: '1.6' }, { version: '1.6', format: 'g722' }, { version: '2.0', language: 'fr' }]
  const { box, plan, gapferry, vendor } = await makeModuleLaptop(t, { ...CATALOGUE, sounds })
  await box('pbx1', [...BOX, 'sound asterisk core en ulaw 1.5'])
  const one = (await plan()).modules!.sounds
  t.strictSame(one.listed, ['asterisk/core/en/ulaw', 'asterisk/core/en/g722'], 'a second one stands beside it')
  t.strictSame(
    one.files.map(({ as }) => as),
    [
      ...['ulaw', 'g722'].map((format) => `sounds/asterisk-core-en-${format}-1.6.tar.gz`),
      'sounds/asterisk-core-en-license.txt',
    ],
  )
  vendor.fault('/sounds/asterisk-core-en-license.txt', { kind: 'status', status: 404 })
  t.match(await gapferry('plan'), { status: 0, stdout: /sounds: the vendor has no asterisk-core-en-license\.txt/ })
  await box('pbx1', [...BOX, 'sound asterisk core fr ulaw 1.0'])
  t.match((await gapferry('plan')).stdout, /warning: modules: sounds: only core fr ulaw 2\.0 would be listed/)
  t.strictSame((await plan()).modules!.sounds.files, [])
})

t.test('the store keeps what the plan and bundles name', async (t) => {
  const { box, bundle, gapferry, dir } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', BOX)
  await bundle()
  t.match(await gapferry('store', 'prune', '--yes'), { status: 0 })
  t.match((await gapferry('store', 'status')).stdout, /nothing to fetch/)
  t.match(await bundle(), { number: 1, isNew: false })
  const plan = JSON.parse(readFileSync(join(dir, 'store/plan.json'), 'utf8')) as { format: number }
  t.equal(plan.format, 3)
})

t.test('two modules at one place, however it is spelled, are refused before anything is fetched', async (t) => {
  const place = 'packages/framework/framework-16.0.40.11.tgz.gpg'
  for (const location of [place, place.replace('packages', 'Packages')]) {
    const modules = CATALOGUE.modules.map((one) =>
      one.rawname === 'sipsettings' ? { ...one, entry: { location } } : one,
    )
    const { box, gapferry } = await makeModuleLaptop(t, { ...CATALOGUE, modules })
    await box('pbx1', BOX)
    const { status, stderr } = await gapferry('plan')
    t.equal(status, 3, stderr)
    t.match(stderr, /framework 16\.0\.40\.11 and sipsettings 16\.0\.20: the feed has both at .* \[PATH_CONFLICT\]/)
    t.match(stderr, /policy: \{ sipsettings: block \}/)
  }
})
