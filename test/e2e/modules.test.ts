import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { makeApache } from '../helpers/apache.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { buildModules } from '../helpers/module-archive.ts'
import { bringInventories, catalogue, moduleSettings, oldBox, outcome } from '../helpers/module-site.ts'
import { makeModuleUpstream, type ModuleUpstream } from '../helpers/module-upstream.ts'
import { makeBox, type BoxRun, type PhpBox } from '../helpers/php-box.ts'
import { unpackOrigin } from '../helpers/unpack.ts'

const MAJORS = [15, 16, 17] as const
type Major = (typeof MAJORS)[number]

/** A site with one group for each major and a box in each; what was carried is released and served. */
interface Site {
  gap: Gap
  vendor: ModuleUpstream
  /** behind, and never changed: for clones */
  boxes: Record<Major, PhpBox>
  /** the same after an upgrade from the vendor, and what that did */
  online: Record<Major, { box: PhpBox; run: BoxRun }>
}

t.test('boxes of 15, 16 and 17', async (t) => {
  const site = await servedSite(t)
  const { gap, vendor, boxes, online } = site
  const origin = (major: Major): string => gap.origins[`pbx${major}`]!
  /** like the group's box, but it asks the mirror */
  const pointed = (major: Major): PhpBox => {
    const box = boxes[major].clone()
    box.use(origin(major))
    return box
  }

  t.test('upgrade from the mirror as from their vendor', async (t) => {
    for (const major of MAJORS) {
      const { box, run: expected } = online[major]
      const offline = boxes[major].clone()
      const found = await offline.upgradeall(origin(major))
      t.equal(expected.status, 0, expected.log.join('\n'))
      t.equal(Object.keys(expected.fetched).length, 7, 'five upgrades, and two that they need')
      t.strictSame(outcome(found), outcome(expected), `${major}: the same upgrades in the same order, the same bytes`)
      t.strictSame(offline.files(), box.files(), `${major}: the same files`)
      t.strictSame(found.pending, {}, `${major}: nothing pending`)
      t.strictSame(
        entriesOf(offline, found.listed, major === 17),
        entriesOf(box, found.listed, major === 17),
        `${major}: the entries as they are`,
      )
      for (const part of ['security', 'expired'] as const) {
        t.strictSame(offline.kept(part), box.kept(part), `${major}: ${part} as it is`)
      }
      const weekly = await offline.run('installall')
      t.strictSame([weekly.status, weekly.upgraded, weekly.fetched], [0, [], {}], `${major}: installall finds nothing`)
    }
    const weekly = await online[16].box.clone().run('installall')
    t.ok('unwanted' in weekly.installed, 'where the vendor’s brings what nobody wants')
  })

  t.test('take framework and core by their number', async (t) => {
    for (const major of [15, 17] as const) {
      for (const [name, version] of [
        ['framework', `${major}.0.40`] as const,
        ['core', major === 17 ? '17.0.61' : '15.0.60'] as const,
      ]) {
        const run = await pointed(major).run('downloadinstall', name, version)
        t.equal(run.status, 0, run.log.join('\n'))
        t.equal(run.fetched[name]?.sha256, sha256Of(vendor.bytes(name, version)), `${major}: ${name}`)
      }
    }
    t.match(await pointed(16).run('downloadinstall', 'core', '1.2.3'), { status: 2, log: [/it does not exist/] })
  })

  t.test('take the vendor’s sounds, and MODULE_REPO stays', async (t) => {
    for (const major of MAJORS) {
      const expected = await online[major].box.clone().run('sounds', 'en')
      const found = await pointed(major).run('sounds', 'en')
      const answers = ({ requests }: typeof found) => requests.map(({ url, bytes }) => [new URL(url).pathname, bytes])
      t.strictSame(answers(found).slice(1), answers(expected).slice(1), `${major}: licences and archives`)
      t.strictSame([found.status, found.repo], [0, origin(major)], found.log.join('\n'))
      const french = await pointed(major).run('sounds', 'fr')
      t.equal(french.repo, origin(major), 'nor is it reset for a language that was not carried')
    }
  })

  t.test('find announcements, and the list under its older name', async (t) => {
    const run = await pointed(16).run('listonline')
    t.equal(run.status, 0)
    t.match(run.requests[0], { url: /\/version-16\.0\.2\.html$/, status: 200 })
    t.strictSame(await gap.fetch('modules-16.0.xml', 'pbx16'), await gap.fetch('all-16.0.xml', 'pbx16'))
  })

  t.test('find the key that they lack in the tree', async (t) => {
    const name = `${vendor.keys.signer.fingerprint.slice(-16)}.key`
    const box = await makeBox(t, { ...oldBox(15), without: [name] })
    const refused = await box.upgradeall(origin(15))
    t.match([refused.status, refused.log.at(-1)], [2, /Unable to download GPG key/])
    box.addKey(name, (await gap.fetch(`keys/modules/${name}`, 'pbx15')).toString())
    t.strictSame((await box.upgradeall(origin(15))).pending, {})
  })

  t.test('upgrade from the unpacked tree under Debian’s apache2', async (t) => {
    for (const major of MAJORS) {
      const apache = await makeApache(t, unpackOrigin(gap, join(gap.dir, `www${major}`), `pbx${major}`))
      const box = boxes[major].clone()
      const found = await box.upgradeall(apache.url)
      t.strictSame(outcome(found), outcome(online[major].run), `${major}: the same`)
      t.match(await box.run('sounds', 'en'), { status: 0, repo: apache.url }, `${major}: sounds, MODULE_REPO stays`)
    }
  })

  t.test('refuse a tree with a module of somebody else', async (t) => {
    const www = unpackOrigin(gap, join(gap.dir, 'forged'), 'pbx16')
    const key = vendor.keys.foreign
    const spec = { rawname: 'framework', version: '16.0.40' }
    const [forged] = await buildModules([{ spec, signWith: key, sealWith: key }])
    writeFileSync(join(www, vendor.path('framework', '16.0.40')), forged!.served)
    const apache = await makeApache(t, www)
    const box = boxes[16].clone()
    const first = await box.upgradeall(apache.url)
    t.match([first.status, first.log.at(-1)], [2, /sha1 did not match/])
    const list = readFileSync(join(www, 'all-16.0.xml'), 'utf8')
    const changed = list.replace(sha1(vendor.bytes('framework', '16.0.40')), sha1(forged!.served))
    t.not(changed, list)
    writeFileSync(join(www, 'all-16.0.xml'), changed)
    apache.publish(www)
    const second = await box.upgradeall(apache.url)
    t.match([second.status, second.log.at(-1)], [2, /Unable to download GPG key|GPG Verify File check failed/])
    t.strictSame(box.files(), boxes[16].files(), 'nothing is installed')
  })

  await aMonthLater(t, site)
})

async function aMonthLater(t: Test, { gap, vendor, online }: Site): Promise<void> {
  await t.test('upgrade alike a month later, and only what is new is fetched', async (t) => {
    for (const major of MAJORS) await vendor.publish(catalogue(major, 1))
    await bringInventories(
      gap,
      named((major) => online[major].box),
    )
    vendor.requests.length = 0
    await gap.bundle()
    const archives = vendor.requests.filter(({ method, path }) => method !== 'HEAD' && path.startsWith('/modules/'))
    const names = archives.map(({ path }) => path.replace(/^.*\/([a-z]+)-.*$/, '$1'))
    t.strictSame([...new Set(names)].sort(), ['core', 'framework', 'voicemail'])
    await gap.deliver()
    for (const major of MAJORS) {
      const { box } = online[major]
      const expected = await box.clone().upgradeall(vendor.url)
      const found = await box.upgradeall(gap.origins[`pbx${major}`]!)
      t.strictSame(outcome(found), outcome(expected), `${major}: the same`)
      t.equal(found.upgraded.length, 3)
    }
  })
}

async function servedSite(t: Test): Promise<Site> {
  const vendor = await makeModuleUpstream(t, catalogue(15))
  for (const major of [16, 17]) await vendor.publish(catalogue(major))
  const settings = (major: Major): string => `boxes: ['pbx${major}-*']\n${moduleSettings(vendor, major)}`
  const more = { pbx16: settings(16), pbx17: settings(17) }
  const gap = await makeGap(t, t.testdir(), settings(15), { group: 'pbx15', more })
  const made = await Promise.all(
    MAJORS.map(async (major) => [major, await makeBox(t, { ...oldBox(major), edge: major === 17 })] as const),
  )
  const boxes = Object.fromEntries(made) as Record<Major, PhpBox>
  await bringInventories(
    gap,
    named((major) => boxes[major]),
  )
  await gap.bundle()
  await gap.deliver()
  await gap.serve()
  const upgraded = MAJORS.map(async (major) => {
    const box = boxes[major].clone()
    return [major, { box, run: await box.upgradeall(vendor.url) }] as const
  })
  const online = Object.fromEntries(await Promise.all(upgraded)) as Site['online']
  return { gap, vendor, boxes, online }
}

function named(boxOf: (major: Major) => PhpBox): Record<string, PhpBox> {
  return Object.fromEntries(MAJORS.map((major) => [`pbx${major}-1`, boxOf(major)]))
}

/** What a box keeps of the list about these modules; of the section edge for boxes that want it. */
function entriesOf(box: PhpBox, names: readonly string[], isEdge: boolean): unknown[] {
  const all = box.kept('modules') as { rawname: string }[]
  const edge = (isEdge ? box.kept('edge') : undefined) as Record<string, unknown> | undefined
  return names.map((name) => edge?.[name] ?? all.find((one) => one.rawname === name))
}

function sha1(bytes: Buffer): string {
  return createHash('sha1').update(bytes).digest('hex')
}
