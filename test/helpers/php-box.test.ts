import t from 'tap'
import { makeModuleUpstream, type Catalogue } from './module-upstream.ts'
import { makeBox, type BoxSpec } from './php-box.ts'
import { sha256Of } from '../../manifests/digest.ts'

const MAJORS = [15, 16, 17] as const

/** What the vendor has for a major, newer than what `boxOf` has. */
function catalogueOf(major: number): Catalogue {
  const v = (rest: string): string => `${major}.0.${rest}`
  return {
    major,
    modules: [
      { rawname: 'voicemail', version: v('20'), depends: { module: 'helper' } },
      { rawname: 'core', version: v('9.2'), depends: { module: [`framework ge ${v('1')}`, `sipsettings ${v('3')}`] } },
      { rawname: 'framework', version: v('40'), sig: true },
      { rawname: 'sipsettings', version: v('5') },
      { rawname: 'helper', version: v('2') },
      { rawname: 'core', version: v('9.1'), section: 'previous' },
    ],
    sounds: [
      { version: '1.6.1' },
      { version: '1.6.1', format: 'g722' },
      { version: '1.6.1', format: 'sln16' },
      { version: '2.0', language: 'fr' },
    ],
  }
}

function boxOf(major: 15 | 16 | 17): BoxSpec {
  const v = (rest: string): string => `${major}.0.${rest}`
  const modules = { framework: v('2'), core: v('9'), sipsettings: v('2'), voicemail: v('9') }
  return { major, modules, sounds: [{ version: '1.6' }] }
}

for (const major of MAJORS) {
  t.test(`a box of ${major} upgrades from its vendor as recorded`, async (t) => {
    const vendor = await makeModuleUpstream(t, catalogueOf(major))
    const box = await makeBox(t, boxOf(major))
    const run = await box.upgradeall(vendor.url)
    t.equal(run.status, 0, run.log.join('\n'))
    t.strictSame(
      run.upgraded.map((one) => one.rawname),
      ['framework', 'core', 'sipsettings', 'voicemail'],
      'framework, core and sipsettings first',
    )
    t.strictSame(run.pending, {})
    t.equal(run.installed['helper'], `${major}.0.2`, 'what voicemail needs came too')
    t.equal(run.signatures['framework'], 129, 'its module.sig is good and trusted')
    t.equal(run.signatures['core'], 8, 'no module.sig')
    for (const [name, { version, sha256 }] of Object.entries(run.fetched)) {
      t.equal(sha256, sha256Of(vendor.bytes(name, version)), `${name}: the vendor's bytes`)
    }
    const [list, head, post] = vendor.requests
    t.match(list, { method: 'POST', path: `/all-${major}.0.xml`, headers: { connection: 'close', accept: '*/*' } })
    t.match(list!.body, /^firstinstall=yes&lastaccesseduuid=[-0-9a-f]{36}&currentuuid=[-0-9a-f]{36}&machineid=/)
    t.match(list!.body, /&modules%5Bcore%5D%5Bversion%5D=1.\.0\.9&modules%5Bcore%5D%5Bstatus%5D=2&/)
    t.match(list!.body, /&sv=2$/)
    t.equal(list!.body.includes('enableExpiredModuleList=1'), major === 17)
    t.match(head, { method: 'HEAD', path: vendor.path('framework', `${major}.0.40`), headers: { host: '127.0.0.1' } })
    t.match(post, { method: 'POST', path: head!.path })
    t.notMatch(post!.body, /uuid|sv=2/)
    t.equal(vendor.requests.filter((one) => one.path.startsWith('/all-')).length, 1, 'one list for the whole run')
  })
}

t.test('one version by its number: POST up to 16, GET from 17', async (t) => {
  for (const major of MAJORS) {
    const vendor = await makeModuleUpstream(t, catalogueOf(major))
    const box = await makeBox(t, boxOf(major))
    box.use(vendor.url)
    const run = await box.run('downloadinstall', 'core', `${major}.0.9.1`)
    t.strictSame(
      run.requests.map((one) => one.method),
      ['POST', 'HEAD', major === 17 ? 'GET' : 'POST'],
    )
    t.equal((await box.run('downloadinstall', 'core', '1.2.3')).status, 2)
  }
})

t.test('what a box refuses', async (t) => {
  const catalogue = catalogueOf(16)
  const vendor = await makeModuleUpstream(t, catalogue)
  const fresh = await makeBox(t, boxOf(16))
  const path = vendor.path('framework', '16.0.40')
  const refused = async (why: RegExp): Promise<void> => {
    const box = fresh.clone()
    const run = await box.upgradeall(vendor.url)
    t.equal(run.status, 2, String(why))
    t.match(run.log.at(-1), why)
    t.strictSame(box.files(), fresh.files(), 'nothing is installed')
  }
  await vendor.publish({ ...catalogue, modules: [{ rawname: 'framework', version: '16.0.41', signed: 'foreign' }] })
  await refused(/Cause: Unable to download GPG key/)
  fresh.addKey(`${vendor.keys.foreign.fingerprint.slice(-16)}.key`, vendor.keys.foreign.publicArmored)
  await refused(/GPG Verify File check failed/)
  await vendor.publish(catalogue)
  vendor.fault(path, { kind: 'flip', at: 300, times: 1 })
  await refused(/sha1 did not match/)
  const changed = { rawname: 'framework', version: '16.0.42', entry: { sha1sum: '0'.repeat(40) } }
  await vendor.publish({ ...catalogue, modules: [changed] })
  await refused(/sha1 did not match/)
  await vendor.publish({ ...catalogue, modules: [{ ...changed, entry: { md5sum: '0'.repeat(32) } }] })
  await refused(/md5sum did not match/)
  await vendor.publish(catalogue)
  t.equal((await fresh.upgradeall(vendor.url)).status, 0)
})

t.test('a box without the key file takes nothing until it has it', async (t) => {
  const vendor = await makeModuleUpstream(t, catalogueOf(15))
  const name = `${vendor.keys.signer.fingerprint.slice(-16)}.key`
  const box = await makeBox(t, { ...boxOf(15), without: [name] })
  const run = await box.upgradeall(vendor.url)
  t.equal(run.status, 2)
  t.match(run.log.at(-1), /Unable to download GPG key/)
  box.addKey(name, vendor.keys.signer.publicArmored)
  t.strictSame((await box.upgradeall(vendor.url)).pending, {})
})

t.test('a dependency that is not listed leaves the module waiting', async (t) => {
  const catalogue = catalogueOf(17)
  const modules = catalogue.modules.filter((one) => one.rawname !== 'helper')
  const vendor = await makeModuleUpstream(t, { ...catalogue, modules })
  const run = await (await makeBox(t, boxOf(17))).upgradeall(vendor.url)
  t.equal(run.status, 0)
  t.strictSame(Object.keys(run.pending), ['voicemail'])
  t.match(run.log.join('\n'), /Retrieved Module XML Was Empty\nUnable to resolve dependencies for module voicemail/)
})

t.test(
  'what is needed, too old and switched off gets new files at once and is installed by the next run',
  async (t) => {
    const modules = [
      ...catalogueOf(16).modules,
      { rawname: 'ivr', version: '2.0', depends: { module: 'helper ge 16.0.2' } },
    ]
    const vendor = await makeModuleUpstream(t, { major: 16, modules })
    const held = { framework: '16.0.40', ivr: '1.0', helper: { version: '16.0.1', state: 'disabled' as const } }
    const box = await makeBox(t, { major: 16, modules: held })
    const first = await box.upgradeall(vendor.url)
    t.strictSame(Object.keys(first.pending), ['helper', 'ivr'])
    t.match(box.held(), [{}, { rawname: 'helper', db: '16.0.1', isOn: true, file: '16.0.2' }, {}])
    t.strictSame((await box.upgradeall(vendor.url)).pending, {})
  },
)

t.test('lists that are none', async (t) => {
  const vendor = await makeModuleUpstream(t, catalogueOf(17))
  const fresh = await makeBox(t, boxOf(17))
  const show = (): ReturnType<typeof fresh.run> => {
    const box = fresh.clone()
    box.use(vendor.url)
    return box.run('showupgrades')
  }
  vendor.fault('/all-17.0.xml', { kind: 'portal' })
  t.match(await show(), { status: 0, pending: {}, log: [] }, 'a page that is XML passes for a list of nothing')
  vendor.fault('/all-17.0.xml', { kind: 'status', status: 404, body: '<html><hr></html>' })
  t.match(await show(), { status: 1, log: [/Unable to Parse XML/] }, 'the page of a 404')
  vendor.fault('/all-17.0.xml', { kind: 'status', status: 503 })
  t.match(
    await show(),
    { status: 0, pending: {}, log: ['the list could not be fetched'] },
    'an empty body says nothing',
  )
  vendor.fault('/all-17.0.xml')
  await vendor.publish({ ...catalogueOf(17), issues: [] })
  t.match(await show(), { status: 1, log: [/Undefined variable \$security/] }, 'no security')
  await vendor.publish({ ...catalogueOf(17), issues: [{ id: 'SEC-1' }] })
  t.match(await show(), { status: 1, log: [/TypeError/] }, 'a lone issue')
})

t.test('a lone module stops a box of 17 the second time, not one of 16', async (t) => {
  for (const [major, status] of [
    [16, 0],
    [17, 1],
  ] as const) {
    const modules = catalogueOf(major).modules.filter((one) => one.rawname === 'framework')
    const vendor = await makeModuleUpstream(t, { major, modules })
    const box = await makeBox(t, boxOf(major))
    box.use(vendor.url)
    t.equal((await box.run('showupgrades')).status, 0)
    t.equal((await box.run('showupgrades')).status, status)
  }
})

t.test('MODULE_REPO has to be a bare origin', async (t) => {
  const vendor = await makeModuleUpstream(t, catalogueOf(15))
  const box = await makeBox(t, boxOf(15))
  const prefixed = await box.clone().upgradeall(`${vendor.url}/pbx15`)
  t.equal(prefixed.requests[0]!.url, `${vendor.url}/all-15.0.xml`, 'the list comes without the prefix')
  t.match(prefixed.requests[1]!.url, /\/pbx15\/modules\//)
  t.match(prefixed, { status: 2, log: [/^Upgrading/, /sha1 did not match/] }, 'and the archives do not come')
  const slash = await box.clone().upgradeall(`${vendor.url}/`)
  t.match(slash.requests[1]!.url, /[0-9]\/\/modules\//)
  const list = `http://127.0.0.1:1,${vendor.url}`
  t.strictSame((await box.clone().upgradeall(list)).pending, {}, 'a list of mirrors: the next one where nobody answers')
})

t.test('sounds: an error status resets MODULE_REPO, an empty answer does not', async (t) => {
  const vendor = await makeModuleUpstream(t, catalogueOf(16))
  const fresh = await makeBox(t, boxOf(16))
  const sounds = (...args: string[]): ReturnType<typeof fresh.run> => {
    const box = fresh.clone()
    box.use(vendor.url)
    return box.run('sounds', ...args)
  }
  t.match(await sounds('en'), { status: 0, repo: vendor.url, log: ['sounds listed'] })
  t.strictSame(
    vendor.requests.map((one) => one.path),
    [
      '/sounds-16.0.xml',
      '/sounds/asterisk-core-en-license.txt',
      '/sounds/asterisk-core-en-ulaw-1.6.1.tar.gz',
      '/sounds/asterisk-core-en-license.txt',
      '/sounds/asterisk-core-en-g722-1.6.1.tar.gz',
    ],
    'both formats that the box prefers',
  )
  t.match(vendor.requests[0]!.body, /&sv=2&soundlangver=2&canredirect=1$/)
  vendor.fault('/sounds-16.0.xml', { kind: 'status', status: 404 })
  t.match(await sounds(), { status: 1, repo: 'https://mirror.freepbx.org' })
  vendor.fault('/sounds-16.0.xml', { kind: 'replace', body: '' })
  t.match(await sounds(), { status: 1, repo: vendor.url })
  vendor.fault('/sounds-16.0.xml', { kind: 'replace', body: '<xml><sounds/></xml>' })
  t.match(await sounds(), { status: 0, repo: vendor.url, log: ['no sounds'] })
  vendor.fault('/sounds-16.0.xml')
  await vendor.publish({ ...catalogueOf(16), sounds: [{ version: '1' }] })
  t.match(await sounds(), { status: 1, repo: vendor.url, log: [/TypeError/] }, 'a lone package is no list')
})

t.test('installall brings everything of active repositories that is listed', async (t) => {
  const catalogue = catalogueOf(16)
  const modules = [...catalogue.modules, { rawname: 'paid', version: '1.0', repo: 'commercial', php: ['7.4', '8.2'] }]
  const vendor = await makeModuleUpstream(t, { ...catalogue, modules })
  const box = await makeBox(t, { ...boxOf(16), modules: { framework: '16.0.2', core: '16.0.9' } })
  box.use(vendor.url)
  const run = await box.run('installall')
  t.equal(run.status, 0)
  t.strictSame(Object.keys(run.installed).sort(), ['core', 'framework', 'helper', 'sipsettings', 'voicemail'])
})

t.test('lists are personal: PHP, brand, deployment', async (t) => {
  const modules = [
    ...catalogueOf(16).modules,
    { rawname: 'paid', version: '1.0', php: ['7.4', '8.2'] },
    { rawname: 'branded', version: '1.0', only: { brand: 'pbxact' } },
    { rawname: 'activated', version: '1.0', only: { deployment: true as const } },
  ]
  const vendor = await makeModuleUpstream(t, { major: 16, modules })
  const listed = async (spec: Partial<BoxSpec>): Promise<string[]> => {
    const box = await makeBox(t, { ...boxOf(16), ...spec })
    box.use(vendor.url)
    return (await box.run('showupgrades')).listed.filter((name) => ['paid', 'branded', 'activated'].includes(name))
  }
  t.strictSame(await listed({ phpver: '8.2.1' }), ['paid'])
  t.strictSame(await listed({ phpver: '7.3.1', brand: 'pbxact' }), ['branded'])
  t.strictSame(await listed({ deployment: '12345678' }), ['paid', 'activated'])
})
