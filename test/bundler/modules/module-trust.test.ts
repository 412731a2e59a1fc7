import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readPrivateKey, revokeKey } from 'openpgp'
import t, { type Test } from 'tap'
import { sha256Of } from '../../../manifests/digest.ts'
import type { TreePath } from '../../../manifests/path.ts'
import { freepbxLines, makeModuleLaptop, type ModuleLaptop } from '../../helpers/module-laptop.ts'
import type { ModuleSpec } from '../../helpers/module-list.ts'
import type { Outcome } from '../../helpers/process.ts'

const GOOD: ModuleSpec[] = ['framework', 'core', 'ivr'].map((rawname) => ({ rawname, version: '16.0.9' }))
const BOX = freepbxLines(['framework 16.0.1', 'core 16.0.1', 'ivr 16.0.1'])

const CORE = 'modules/packages/core/core-16.0.9.tgz.gpg' as TreePath

/** A laptop whose vendor has this `core`. */
async function withCore(t: Test, core: Partial<ModuleSpec>, settings?: Record<string, unknown>): Promise<ModuleLaptop> {
  const modules = GOOD.map((one) => (one.rawname === 'core' ? { ...one, ...core } : one))
  const laptop = await makeModuleLaptop(t, { major: 16, modules }, settings)
  await laptop.box('pbx1', BOX)
  return laptop
}

function refused(t: Test, { status, stderr }: Outcome, code: string, exit: number, ...says: RegExp[]): void {
  t.equal(status, exit, stderr)
  t.match(stderr, new RegExp(`\\[${code}\\]`))
  for (const one of says) t.match(stderr, one)
}

const fetches = ({ vendor }: ModuleLaptop, rawname: string): number =>
  vendor.requests.filter(({ path, method }) => path.includes(`/${rawname}-`) && method !== 'HEAD').length

t.test('a module that no pinned key signed is refused by name, and the others are kept', async (t) => {
  const laptop = await withCore(t, { signed: 'foreign' })
  const { gapferry, vendor, settings, bundle, tree } = laptop
  const signer = new RegExp(vendor.keys.signer.fingerprint)
  const found =
    /core 16\.0\.9 for hq \/ pbx: its signature is by [0-9A-F]{40}, which is none of .*; expected a signature of/
  const ways = [/policy: \{ core: block \}/, /allowUnsigned: \[core\]/]
  refused(t, await gapferry('pull'), 'MODULE_SIGNATURE', 3, found, signer, ...ways)
  refused(t, await gapferry('pack', '--to', '.'), 'PLAN_UNFETCHED', 4, /core 16\.0\.9/, /gapferry pull/)
  settings({ allowUnsigned: ['core'] })
  await bundle()
  for (const rawname of ['framework', 'core', 'ivr']) t.equal(fetches(laptop, rawname), 1, `${rawname}: once in all`)
  t.equal((await tree()).tree.entries.get(CORE)?.verdict, 'bad', 'and the bundle says so')
  settings()
  refused(t, await gapferry('pack', '--to', '.'), 'PLAN_UNFETCHED', 4, /changed since it was planned/)
  settings({ policy: { core: 'block', ivr: 'want' } })
  await bundle()
  t.notOk((await tree()).tree.entries.has(CORE))
})

t.test('so is one without a signature', async (t) => {
  const { gapferry, settings, bundle, tree } = await withCore(t, { signed: 'no' })
  refused(t, await gapferry('pull'), 'MODULE_SIGNATURE', 3, /core 16\.0\.9 for hq \/ pbx: its entry has no signature;/)
  settings({ allowUnsigned: ['core'] })
  await bundle()
  t.equal((await tree()).tree.entries.get(CORE.replace('.gpg', '') as TreePath)?.verdict, 'unsigned')
})

t.test('every module that is refused is named at once', async (t) => {
  const { gapferry, vendor } = await withCore(t, { signed: 'foreign' })
  const modules = GOOD.map((one) => (one.rawname === 'ivr' ? one : { ...one, signed: 'foreign' as const }))
  await vendor.publish({ major: 16, modules })
  refused(
    t,
    await gapferry('pull'),
    'MODULE_SIGNATURE',
    3,
    /core 16\.0\.9.*framework 16\.0\.9|framework 16\.0\.9.*core/s,
  )
})

t.test('without any key nothing is fetched, and the plan says so before', async (t) => {
  const laptop = await withCore(t, {}, { keys: [] })
  const { gapferry, settings, dir, vendor } = laptop
  t.match((await gapferry('plan')).stdout, /warning: modules: modules are signed, and no key is here/)
  refused(t, await gapferry('pull'), 'MODULE_KEY_MISSING', 4, /hq \/ pbx/, /inventory add/, /keys: \[FILE\]/)
  t.equal(fetches(laptop, 'core'), 0)
  writeFileSync(join(dir, 'foreign.key'), vendor.keys.foreign.publicArmored)
  settings({ keys: ['foreign.key'] })
  refused(
    t,
    await gapferry('pull'),
    'MODULE_SIGNATURE',
    3,
    new RegExp(`expected a signature of ${vendor.keys.foreign.fingerprint}`),
  )
  settings()
  t.equal((await gapferry('pull')).status, 0, 'what came is judged anew when keys change')
  t.equal(fetches(laptop, 'core'), 1)
})

t.test('a key of a box counts only where it is the vendor’s own', async (t) => {
  const laptop = await withCore(t, {}, { keys: [] })
  const { fingerprint, publicArmored } = laptop.vendor.keys.signer
  const name = fingerprint.slice(-16)
  const lines = publicArmored.trimEnd().split('\n')
  await laptop.box('pbx1', [...BOX, `key ${name}.key`, ...lines.map((line) => `key-line ${name} ${line}`.trimEnd())])
  refused(t, await laptop.gapferry('pull'), 'MODULE_KEY_MISSING', 4)
})

t.test('a key that was revoked since counts no more, and nothing is fetched to find that out', async (t) => {
  const laptop = await withCore(t, {})
  const { gapferry, dir, vendor } = laptop
  t.equal((await gapferry('pull')).status, 0)
  const key = await readPrivateKey({ armoredKey: vendor.keys.signer.secretArmored })
  const { publicKey } = await revokeKey({ key, format: 'armored' })
  writeFileSync(join(dir, 'vendor.key'), publicKey)
  refused(t, await gapferry('pack', '--to', '.'), 'PLAN_UNFETCHED', 4, /gapferry pull/)
  refused(t, await gapferry('pull'), 'MODULE_SIGNATURE', 3, /core 16\.0\.9/, /revoked/)
  t.equal(fetches(laptop, 'core'), 1)
})

t.test('a verdict counts for what the list said then', async (t) => {
  const laptop = await withCore(t, {})
  const { gapferry, vendor } = laptop
  t.equal((await gapferry('pull')).status, 0)
  const entry = { md5sum: 'e'.repeat(32) }
  await vendor.publish({ major: 16, modules: GOOD.map((one) => (one.rawname === 'core' ? { ...one, entry } : one)) })
  refused(t, await gapferry('pull'), 'MODULE_DIGEST', 3, /core 16\.0\.9/)
  refused(t, await gapferry('pack', '--to', '.'), 'PLAN_UNFETCHED', 4, /core/)
  t.equal(fetches(laptop, 'core'), 1, 'the file is the same, and is not fetched again')
})

t.test('a file that was cut short is fetched again, and not signed before', async (t) => {
  const laptop = await withCore(t, {})
  const { gapferry, vendor, open } = laptop
  t.equal((await gapferry('pull')).status, 0)
  await open(({ store }) => truncateSync(store.pathOf(sha256Of(vendor.bytes('core', '16.0.9'))), 100))
  refused(t, await gapferry('pack', '--to', '.'), 'PLAN_UNFETCHED', 4, /core 16\.0\.9/)
  t.equal((await gapferry('bundle', '--to', '.')).status, 0)
  t.strictSame(
    ['core', 'ivr'].map((rawname) => fetches(laptop, rawname)),
    [2, 1],
  )
})

t.test('a file that two groups want is fetched once, and each says for itself whose signature counts', async (t) => {
  const laptop = await withCore(t, { signed: 'foreign' })
  const { gapferry, vendor, dir, box } = laptop
  const modules = (more: string): string => `{ feed: '${vendor.url}', major: 16, keys: [vendor.key], ${more} }`
  const group = (name: string, more: string): string =>
    `      - { name: ${name}, origin: 'http://${name}.lan', boxes: ['${name}*'], modules: ${modules(more)} }\n`
  const head = 'apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n'
  await gapferry('inventory', 'remove', 'pbx1')
  writeFileSync(join(dir, 'gapferry.yaml'), `${head}${group('a', 'allowUnsigned: [core]')}${group('b', '')}`)
  for (const name of ['a1', 'b1']) await box(name, BOX)
  refused(t, await gapferry('pull'), 'MODULE_SIGNATURE', 3, /core 16\.0\.9 for hq \/ b:/)
  writeFileSync(join(dir, 'foreign.key'), vendor.keys.foreign.publicArmored)
  writeFileSync(
    join(dir, 'gapferry.yaml'),
    `${head}${group('a', 'allowUnsigned: [core]')}${group('b', '').replace('vendor.key', 'vendor.key, foreign.key')}`,
  )
  t.equal((await gapferry('bundle', '--to', '.')).status, 0)
  for (const rawname of ['framework', 'core', 'ivr']) t.equal(fetches(laptop, rawname), 1)
  const { stdout } = await gapferry('inspect', 'gapferry/hq/hq-1.tar')
  t.match(stdout, /^a .*core-16\.0\.9\.tgz\.gpg +\S+ kB +bad.*^b .*core-16\.0\.9\.tgz\.gpg +\S+ kB +good/ms)
})
