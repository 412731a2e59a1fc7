import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { loadFleet } from '../../../bundler/config.ts'
import { parseModuleFeed } from '../../../manifests/module-feed.ts'
import { parseSoundFeed } from '../../../manifests/sound-feed.ts'
import { fingerprintWords } from '../../../manifests/words.ts'
import { freepbxLines, makeModuleLaptop } from '../../helpers/module-laptop.ts'
import type { Catalogue } from '../../helpers/module-upstream.ts'

const DEPLOYMENT = '98765432'
const FRAMEWORK = { rawname: 'framework', version: '16.0.40.11' }
const CORE = { rawname: 'core', version: '16.0.69', depends: { version: '16.0.1' } }

const CATALOGUE: Catalogue = {
  major: 16,
  modules: [
    FRAMEWORK,
    CORE,
    { rawname: 'sipsettings', version: '16.0.20', depends: { module: 'core ge 16.0.50' } },
    { rawname: 'voicemail', version: '16.0.5' },
    { rawname: 'endpoint', version: '16.0.1', repo: 'commercial', php: ['7.4'], only: { deployment: true } },
    { rawname: 'superfecta', version: '16.0.3' },
    { rawname: 'core', version: '16.0.60', section: 'previous' },
    { rawname: 'core', version: '16.0.70', section: 'edge' },
    { rawname: 'voicemail', version: '16.0.4', section: 'previous' },
    { rawname: 'superfecta', version: '16.0.9', section: 'beta' },
  ],
  sounds: [
    { version: '1.6', format: 'ulaw' },
    { version: '1.6', format: 'g722' },
    { version: '1.6', format: 'ulaw', language: 'fr' },
  ],
}
const PBX1 = [
  ...freepbxLines(
    ['framework 16.0.33', 'core 16.0.50', 'sipsettings 16.0.19', 'voicemail 16.0.5', 'endpoint 16.0.0.9'],
    { phpver: '7.4.16', brandid: 'pbxact', deploymentid: DEPLOYMENT },
  ),
  'sound asterisk core en ulaw 1.5',
  'sound asterisk core en g722 1.6',
]

t.test('everything a box asks for is a plain file of the tree', async (t) => {
  const { box, bundle, tree, vendor, dir, gapferry } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', PBX1)
  const first = await bundle()
  const { tree: current, read } = await tree()
  const names = ['core-16.0.69', 'endpoint-16.0.1', 'framework-16.0.40.11', 'sipsettings-16.0.20']
  const places = ['core/core', 'endpoint/7.4/endpoint', 'framework/framework', 'sipsettings/sipsettings']
  t.strictSame(
    [...current.entries.keys()],
    [
      ...['all-16.0.xml', 'all-16.0.xml.gz'],
      'gapferry/gapferry-box',
      ...names.map((name) => `gapferry/modules/${name}.json`),
      'gapferry/setup.txt',
      `keys/modules/${vendor.keys.signer.fingerprint.slice(-16)}.key`,
      'keys/site.asc',
      ...['modules-16.0.xml', 'modules-16.0.xml.gz'],
      ...places.map((place, i) => `modules/packages/${place}-${names[i]!.split('-')[1]}.tgz.gpg`),
      ...['sounds-16.0.xml', 'sounds-16.0.xml.gz'],
      ...['sounds/asterisk-core-en-license.txt', 'sounds/asterisk-core-en-ulaw-1.6.tar.gz'],
      ...['version-16.0.33.html', 'version-16.0.40.11.html'],
    ],
  )
  const list = parseModuleFeed(read('all-16.0.xml'), 'served')
  const listed = list.entries.filter(({ section }) => section === 'module')
  t.strictSame(listed.map(({ rawname, version }) => `${rawname}-${version}`).sort(), names, 'what is listed is carried')
  t.strictSame(
    list.entries
      .filter((one) => !listed.includes(one))
      .map(({ rawname, version, section }) => [rawname, version, section]),
    [
      ['core', '16.0.70', 'edge'],
      ['core', '16.0.60', 'previous'],
    ],
    'of what is carried, what else there is stays to be seen',
  )
  for (const { location, rawname, version } of listed) {
    const php = rawname === 'endpoint' ? '7.4' : undefined
    t.ok(read(`modules/${location}`).equals(vendor.bytes(rawname, version, php)), `${rawname}: the vendor’s bytes`)
    t.equal(current.entries.get(`modules/${location}` as never)?.kind, 'immutable')
    t.match(JSON.parse(String(read(`gapferry/modules/${rawname}-${version}.json`))), { rawname, version, location })
  }
  for (const name of ['all-16.0.xml', 'modules-16.0.xml', 'sounds-16.0.xml']) {
    t.ok(gunzipSync(read(`${name}.gz`)).equals(read(name)), `${name}: the same, compressed`)
    t.match(current.entries.get(`${name}.gz` as never), { kind: 'companion', of: name })
  }
  t.ok(read('modules-16.0.xml').equals(read('all-16.0.xml')))
  const sounds = parseSoundFeed(read('sounds-16.0.xml'), 'served').packages
  t.strictSame(
    sounds.map(({ language, format }) => `${language} ${format}`),
    ['en ulaw', 'en g722'],
  )
  t.equal(String(read('version-16.0.33.html')), '')
  t.match(String(read(`keys/modules/${vendor.keys.signer.fingerprint.slice(-16)}.key`)), 'BEGIN PGP PUBLIC KEY')

  t.match(await bundle(), { number: first.number, isNew: false }, 'what did not change is no new bundle')
  const archives = vendor.requests.filter(({ path }) => path.startsWith('/modules/'))
  t.equal(archives.filter(({ method }) => method === 'HEAD').length, 4, 'sizes are asked for once')
  t.equal(archives.filter(({ method }) => method !== 'HEAD').length, 4, 'and files fetched once')

  t.ok(
    vendor.requests.some(({ body }) => body.includes(DEPLOYMENT)),
    'the vendor is told who asks',
  )
  for (const file of ['store/plan.json', 'store/ledger.db', `gapferry/hq/hq-${first.number}.tar`]) {
    t.notOk(readFileSync(join(dir, file)).includes(DEPLOYMENT), `${file}: nobody else`)
  }
  for (const args of [['plan', '--items'], ['plan', '--json'], ['upstreams'], ['store', 'status']]) {
    const { stdout, stderr } = await gapferry(...args)
    t.notMatch(stdout + stderr, DEPLOYMENT, args.join(' '))
  }
})

t.test('the content before stays a way back, list and all', async (t) => {
  const { box, bundle, tree, vendor } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', PBX1)
  await bundle()
  const before = (await tree()).read('all-16.0.xml')
  const later = { rawname: 'core', version: '16.0.70' }
  await vendor.publish({ ...CATALOGUE, modules: [FRAMEWORK, later, ...CATALOGUE.modules.slice(2)] })
  t.match(await bundle(), { number: 2, isNew: true })
  const [current, previous, back] = [await tree('current'), await tree('previous'), await tree('return')]
  t.ok(previous.read('all-16.0.xml').equals(before))
  t.ok(previous.tree.entries.has('modules/packages/core/core-16.0.69.tgz.gpg' as never))
  t.ok(current.tree.entries.has('modules/packages/core/core-16.0.70.tgz.gpg' as never))
  t.strictSame([...back.tree.entries], [...current.tree.entries])
})

t.test('a vendor who changes bytes under one name is refused, with the way out', async (t) => {
  const { box, bundle, gapferry, vendor, settings } = await makeModuleLaptop(t, CATALOGUE)
  await box('pbx1', PBX1)
  await bundle()
  const other = { ...CORE, files: { 'core/changed.php': 'x' } }
  await vendor.publish({ ...CATALOGUE, modules: [FRAMEWORK, other, ...CATALOGUE.modules.slice(2)] })
  const { status, stderr } = await gapferry('bundle', '--to', '.')
  t.equal(status, 3)
  t.match(stderr, /PATH_CHANGED.*core-16\.0\.69|core-16\.0\.69.*\[PATH_CHANGED\]/s)
  t.match(stderr, /policy: \{ core: block \}/)
  settings({ policy: { core: 'pin 16.0.60' } })
  t.match(await bundle(), { number: 2 }, 'another version will do, too')
})

t.test('settings that are made anew from a bundle have the modules’ feed and keys', async (t) => {
  const { box, bundle, gapferry, dir, vendor, settings } = await makeModuleLaptop(t, CATALOGUE)
  settings({ wholeSet: true })
  await box('pbx1', PBX1)
  const { files } = await bundle()
  const keys = join(dir, 'keys/hq')
  const rootKey = join(
    keys,
    readdirSync(keys).find((name) => name.startsWith('root-'))!,
  )
  const words = fingerprintWords(readFileSync(join(keys, '1.root.json')))
  const from = ['--from', files[0]!.path, '--root-key', rootKey, '--fingerprint', words, '--no-passphrase']
  const { status, stderr } = await gapferry('init', 'new', ...from)
  t.equal(status, 0, stderr)
  const [group] = loadFleet(join(dir, 'new/gapferry.yaml')).sites[0]!.groups
  t.match(group, { name: 'pbx', modules: { feed: vendor.url, major: 16 }, files: [] })
  t.match(group!.modules!.keys, [{ text: /BEGIN PGP PUBLIC KEY/ }])
})
