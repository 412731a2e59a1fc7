import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../../bundler/program.ts'
import { inside } from '../../helpers/inside.ts'
import { inventoryText } from '../../helpers/inventory-text.ts'
import { makeModuleUpstream, type Catalogue, type ModuleUpstream } from '../../helpers/module-upstream.ts'
import type { Outcome } from '../../helpers/process.ts'

const DEPLOYMENT = '98765432'

const CATALOGUE: Catalogue = {
  major: 16,
  modules: [
    { rawname: 'framework', version: '16.0.40.11', name: 'FreePBX Framework' },
    { rawname: 'core', version: '16.0.69', depends: { version: '16.0.1' } },
    { rawname: 'sipsettings', version: '16.0.20', depends: { module: 'core ge 16.0.50' } },
    { rawname: 'voicemail', version: '16.0.5' },
    { rawname: 'endpoint', version: '16.0.1', repo: 'commercial', php: ['7.4'], only: { deployment: true } },
    { rawname: 'superfecta', version: '16.0.3' },
  ],
  sounds: [
    { version: '1.6', format: 'ulaw' },
    { version: '1.6', format: 'g722' },
    { version: '1.6', format: 'ulaw', language: 'fr' },
  ],
}

interface Site {
  dir: string
  upstream: ModuleUpstream
  gapferry: (...args: string[]) => Promise<Outcome>
  settings: (fields?: string) => void
  box: (name: string, lines: string[]) => Promise<void>
}

/** A laptop whose only group has modules alone. */
async function makeSite(t: Test, catalogue = CATALOGUE, fields = ''): Promise<Site> {
  const upstream = await makeModuleUpstream(t, catalogue)
  const dir = t.testdir()
  cpSync(upstream.keyFile, join(dir, 'vendor.key'))
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  const settings = (fields = ''): void => {
    const modules = `{ feed: '${upstream.url}', major: ${catalogue.major}, keys: [vendor.key], ${fields} }`
    const group = `      - name: pbxact16\n        origin: http://m.lan\n        modules: ${modules}\n`
    const head = 'apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n'
    writeFileSync(join(dir, 'gapferry.yaml'), head + group)
  }
  settings(fields)
  t.equal((await gapferry('init', '--no-passphrase')).status, 0)
  const box = async (name: string, lines: string[]): Promise<void> => {
    const file = join(dir, `${name}.gfi`)
    writeFileSync(file, inventoryText({ box: name, sections: { freepbx: lines } }))
    const { status, stderr } = await gapferry('inventory', 'add', file, '--force')
    t.equal(status, 0, stderr)
  }
  return { dir, upstream, gapferry, settings, box }
}

const PBX1 = [
  'framework 16.0.33',
  ...['framework 16.0.33', 'core 16.0.50', 'sipsettings 16.0.19', 'voicemail 16.0.5'].map(
    (one) => `module ${one} enabled GPLv3+`,
  ),
  'module endpoint 16.0.0.9 enabled Commercial',
  'profile phpver 7.4.16',
  'profile brandid pbxact',
  `profile deploymentid ${DEPLOYMENT}`,
  'sound asterisk core en ulaw 1.5',
  'sound asterisk core en g722 1.6',
]

t.test('what the boxes upgrade is planned, fetched, judged and packed', async (t) => {
  const { box, gapferry } = await makeSite(t)
  await box('pbx1', PBX1)
  const plan = await gapferry('plan', '--items')
  t.equal(plan.status, 0, plan.stderr)
  t.match(plan.stdout, /modules 16 +4 modules .* of 6 offered; 1 commercial/)
  t.match(plan.stdout, /core 16\.0\.69 .* modules 16: newer than 16\.0\.50 on pbx1/)
  t.equal((await gapferry('bundle', '--to', '.')).status, 0)
  const { stdout } = await gapferry('inspect', 'gapferry/hq/hq-1.tar')
  t.match(stdout, /modules\/packages\/endpoint\/7\.4\/endpoint-16\.0\.1\.tgz\.gpg .* good$/m)
  t.match(stdout, /all-16\.0\.xml\.gz .* made here$/m)
})
