import t from 'tap'
import type { Plan } from '../../bundler/plan.ts'
import { makeGap } from '../helpers/gap.ts'
import { bringInventories, catalogue, moduleSettings, oldBox } from '../helpers/module-site.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox } from '../helpers/php-box.ts'

t.test('what the site decides is what its boxes see', async (t) => {
  const vendor = await makeModuleUpstream(t, catalogue(16))
  const policy = { core: 'pin 16.0.59', voicemail: 'block', unwanted: 'want', sipsettings: 'latest' }
  const gap = await makeGap(t, t.testdir(), moduleSettings(vendor, 16, { policy, wholeSet: true }))
  const box = await makeBox(t, oldBox(16))
  const edge = await makeBox(t, { ...oldBox(16), edge: true })
  const small = await makeBox(t, { major: 16, modules: { framework: '16.0.40', core: '16.0.60' } })
  await bringInventories(gap, { pbx1: box, pbx2: small })
  const { sites } = JSON.parse((await gap.gapferry('plan', '--json')).stdout) as Plan
  const [, foretold] = sites[0]!.groups[0]!.modules!.boxes
  await gap.bundle()
  const mirror = await gap.serve({ isEmpty: true })
  const early = box.clone()
  early.use(gap.origin)
  t.match(await early.run('sounds'), { repo: gap.origin }, 'sounds reset nothing before there is anything')
  t.match(await early.run('showupgrades'), { status: 0, pending: {} }, 'nor does the list stop a box')
  await gap.deliver()
  const run = await box.upgradeall(gap.origin)
  t.equal(run.status, 0, run.log.join('\n'))
  t.equal(run.installed['core'], '16.0.59', 'pinned')
  t.equal(run.installed['voicemail'], '16.0.4', 'blocked')
  t.equal(run.installed['sipsettings'], '16.0.5')
  t.notOk(run.listed.includes('voicemail'))
  t.notOk('unwanted' in run.installed, 'what is wanted is listed, upgradeall leaves it')
  const weekly = await box.run('installall')
  t.equal(weekly.installed['unwanted'], '16.0.1', 'the weekly job brings what the site wants')
  t.notOk('voicemail' in weekly.fetched)
  t.equal((await edge.upgradeall(gap.origin)).installed['core'], '16.0.59', 'for boxes that want edge, too')
  small.use(gap.origin)
  const added = Object.keys((await small.run('installall')).fetched)
  t.strictSame(added.sort(), ['sipsettings', 'unwanted'], 'of active repositories alone')
  t.strictSame(added, foretold!.additions, 'as the plan says')
  const set = 'modules/packages/freepbx/freepbx-16.0-latest.tgz'
  t.strictSame(await gap.fetch(set), Buffer.from(await (await fetch(`${vendor.url}/${set}`)).arrayBuffer()))
  await mirror.stop()
  const { stdout } = await gap.mirror('boxes', 'list', '--json')
  t.match(stdout, /16\.0\.40/, 'the mirror knows the boxes that asked')
})
