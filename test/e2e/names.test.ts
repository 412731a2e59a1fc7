import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { VENDOR_NAMES } from '../../manifests/vendor-names.ts'
import type { DnfClient } from '../helpers/dnf.ts'
import { vendorMirrorlist, vendorRepoFiles } from '../helpers/folder-box/el7.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import { catalogue, moduleSettings, oldBox, outcome } from '../helpers/module-site.ts'
import { makeModuleUpstream } from '../helpers/module-upstream.ts'
import { inOwnNetwork, type OwnNetwork } from '../helpers/own-network.ts'
import { makeBox, type BoxRun, type PhpBox } from '../helpers/php-box.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'
import { serveFolder, type Route } from '../helpers/static-server.ts'

const VENDOR = '127.0.0.1'
const MIRROR = '127.0.0.2'
const OLD: PackageSpec[] = [
  { name: 'asterisk', version: '18.9', arch: 'x86_64', requires: ['libpbx.so.1()(64bit)'] },
  { name: 'libpbx', version: '1.0', arch: 'x86_64', provides: ['libpbx.so.1()(64bit)'] },
  { name: 'oldname', version: '3.0' },
]
const NEW: PackageSpec[] = [
  { name: 'asterisk', version: '18.20', arch: 'x86_64', requires: ['libpbx.so.2()(64bit)', 'helper'] },
  { name: 'libpbx', version: '2.0', arch: 'x86_64', provides: ['libpbx.so.2()(64bit)'] },
  { name: 'newname', version: '4.0', obsoletes: ['oldname < 4'] },
]
const INSTALLED = ['asterisk-18.9-1.x86_64', 'libpbx-1.0-1.x86_64', 'oldname-3.0-1.noarch', 'bash-4.2-34.noarch']
/** word of the mirrorlist → where the vendor has the repository */
const FOLDERS: Record<string, string> = {
  os: 'os/7/os/x86_64',
  updates: 'os/7/updates/x86_64',
  extras: 'os/7/extras/x86_64',
  sng7: 'sng7/sng7',
  epel: 'sng7/epel',
}

/** The vendor's servers under their own names, and a box that was set up from them. */
interface World {
  lab: Lab
  gap: Gap
  /** a box with FreePBX, and what an upgrade from the vendor did to its twin */
  php: PhpBox
  upgraded: BoxRun
  box: () => Promise<DnfClient>
  online: () => void
  offline: () => void
}

await inOwnNetwork(t, fileURLToPath(import.meta.url), async (network) => {
  await t.test('boxes on which nothing but name resolution was changed', async (t) => {
    const world = await makeWorld(t, network)
    const { gap, lab, online, offline } = world
    const [box, twin, late] = [await world.box(), await world.box(), await world.box()]
    const expected = await twin.pending()
    t.equal(expected.filter(({ action }) => action !== 'Upgraded').length >= 4, true)
    t.match(await twin.upgrade(), { status: 0 })
    await gap.bundle()
    await gap.deliver()
    const mirror = await gap.serve()
    t.match(mirror.output().stdout, /^pbxact16 {2}http:\/\/127\.0\.0\.2:80, and the vendor’s names$/m)
    offline()

    t.strictSame(await box.pending(), expected, 'the same transaction')
    t.match(await box.upgrade(), { status: 0 })
    t.strictSame(await box.installed(), await twin.installed(), 'the same packages')
    t.strictSame(await box.pending(), [])

    await t.test('what is not carried is there and empty, and breaks nothing', async (t) => {
      const listed = await box.dnf(['-v', 'repolist'])
      t.match(listed.stdout, /Repo-id +: sng-epel\n(?:.*\n)*?Repo-pkgs +: 0\n/)
      t.match(listed.stdout, /Repo-baseurl +: http:\/\/mirrorlist\.sangoma\.net\/yum\/sng-pkgs\//)
      t.match(await box.dnf(['--enablerepo=sng-commercial', '--refresh', 'check-update']), { status: 0 })
      t.match(await box.dnf(['install', '-y', 'from-epel']), {
        status: 1,
        stderr: /No match for argument|Unable to find/,
      })
      // what an error would do: yum and dnf end
      box.repoFile('x.repo', '[x]\nname=x\nmirrorlist=http://mirror.freepbx.org/nothing\ngpgcheck=0\n')
      t.match(await box.dnf(['--refresh', 'check-update']), { status: 1, stderr: /Failed to download metadata/ })
      box.repoFile('x.repo', undefined)
    })

    await t.test('modules: https is out of reach, http works', async (t) => {
      const { php, upgraded } = world
      const plain = await php.clone().run('upgradeall')
      t.match(plain, { status: 0, repo: 'https://mirror.freepbx.org', upgraded: [], fetched: {} })
      t.match(plain.log, [/Failed to connect to mirror\.freepbx\.org port 443/, /could not be fetched/, 'Up to date.'])
      const found = await php.upgradeall('http://mirror.freepbx.org')
      t.strictSame(outcome(found), outcome(upgraded))
      t.ok(found.requests.every(({ url }) => url.startsWith('http://mirror.freepbx.org/')))
      t.match(await php.run('sounds', 'en'), { status: 0, repo: 'http://mirror.freepbx.org' })
      t.match(await gap.mirror('doctor', '--module-repo', 'https://mirror.freepbx.org'), {
        status: 1,
        stdout: /remedy +on the box: fwconsole setting MODULE_REPO http:\/\/mirror\.freepbx\.org\n/,
      })
    })

    await t.test('base URLs of the vendor’s own lead to the same', async (t) => {
      const direct = Object.entries({ os: '/os/7/os/x86_64', sng7: '/sng7/sng7', epel: '/sng7/epel' })
      const other = vendorBox(lab)
      for (const [word, path] of direct) {
        other.repoFile(`${word}.repo`, `[${word}]\nname=x\nbaseurl=http://package1.sangoma.net${path}\ngpgcheck=0\n`)
      }
      for (const name of Object.keys(vendorRepoFiles())) other.repoFile(name, undefined)
      t.match(await other.install('helper', 'asterisk-18.9'), { status: 0 })
    })

    await t.test('the vendor’s newer metadata on a box, then the mirror’s older; and a newer bundle', async (t) => {
      const newer: PackageSpec = { ...NEW[0]!, version: '18.21' }
      await publish(lab, [...NEW, newer])
      online()
      t.match(await box.pending(), [{ nevra: 'asterisk-18.21-1.x86_64' }, {}])
      offline()
      t.strictSame(await box.pending(), [], 'older metadata is taken, nothing goes down')
      online()
      await gap.bundle()
      offline()
      await gap.deliver()
      t.match(await box.upgrade(), { status: 0 })
      t.ok((await box.installed()).includes('asterisk-18.21-1.x86_64'))
    })

    await t.test('rollback and return', async (t) => {
      const asterisk = (items: { action: string; nevra: string }[]) =>
        items
          .filter(({ action, nevra }) => action === 'Upgrade' && nevra.startsWith('asterisk'))
          .map(({ nevra }) => nevra)
      t.strictSame(asterisk(await late.pending()), ['asterisk-18.21-1.x86_64'])
      t.match(await gap.mirror('rollback'), { status: 0 })
      t.strictSame(asterisk(await late.pending()), ['asterisk-18.20-1.x86_64'])
      t.strictSame(await box.pending(), [], 'a box that updated stays')
      t.match(await gap.mirror('rollback', '--return'), { status: 0 })
      t.strictSame(asterisk(await late.pending()), ['asterisk-18.21-1.x86_64'])
      t.match(await late.upgrade(), { status: 0 })
      t.strictSame(await late.installed(), await box.installed())
    })

    const doctor = await gap.mirror('doctor', '--module-repo', 'http://mirror.freepbx.org')
    t.equal(doctor.status, 0, doctor.stdout)
    t.match(doctor.stdout, /ok +vendor names +mirrorlist\.sangoma\.net.*\n? +lead\s+to this machine/)
    t.match(doctor.stdout, /ok +vendor names +unmodified boxes get sng-base, sng-updates, sng-pkgs\n/)
    t.match(doctor.stdout, /- +vendor names +not carried, so that boxes find them empty: sng-extras, sng-epel\n/)
  })
})

async function makeWorld(t: Test, network: OwnNetwork): Promise<World> {
  const lab = await makeLab(t)
  await publish(lab, NEW)
  const server = await serveFolder(lab.www, { port: 80, route: mirrorlist })
  t.teardown(() => server.close())
  const entry = (id: string, word: string): string =>
    `  - { id: ${id}, mirrorlist: '${vendorMirrorlist(word)}', vars: { releasever: '7', basearch: x86_64 }, gpgcheck: false }\n`
  const yum = `yum:\n${entry('sng-base', 'os')}${entry('sng-updates', 'updates')}${entry('sng-pkgs', 'sng7')}`
  const vendor = await makeModuleUpstream(t, catalogue(16))
  const php = await makeBox(t, oldBox(16))
  const upgraded = await php.clone().upgradeall(vendor.url)
  const form = join(lab.dir, 'box.form')
  writeFileSync(form, vendor.requests.find(({ body }) => body !== '')!.body)
  const settings = `${yum}${moduleSettings(vendor, 16, { request: form })}`
  const gap = await makeGap(t, lab.folder('gap'), settings, { listen: `${MIRROR}:80` })
  nameIt(gap)
  const online = () => network.lead(VENDOR_NAMES, VENDOR)
  online()
  const box = async (): Promise<DnfClient> => {
    const made = vendorBox(lab)
    const installed = await made.install(...INSTALLED)
    t.equal(installed.status, 0, installed.stderr)
    return made
  }
  return { lab, php, upgraded, gap, box, online, offline: () => network.lead(VENDOR_NAMES, MIRROR) }
}

/** What the vendor has now: each update in another repository. */
async function publish(lab: Lab, packages: PackageSpec[]): Promise<void> {
  const [asterisk, rest] = [packages.filter(isAsterisk), packages.filter((one) => !isAsterisk(one))]
  const content: Record<string, PackageSpec[]> = {
    os: [
      { name: 'bash', version: '4.2', release: '34' },
      { name: 'helper', version: '1' },
    ],
    updates: rest,
    extras: [],
    sng7: [...OLD, ...asterisk],
    epel: [{ name: 'from-epel', version: '1' }],
  }
  for (const [word, specs] of Object.entries(content)) await lab.publish(FOLDERS[word]!, specs, { signed: false })
}

function isAsterisk({ name }: PackageSpec): boolean {
  return name === 'asterisk'
}

/** As the vendor's server: by the word alone. */
function mirrorlist(...[request, response]: Parameters<Route>): boolean {
  const { pathname, searchParams } = new URL(request.url!, 'http://x')
  const folder = FOLDERS[searchParams.get('repo') ?? '']
  if (pathname !== '/' || request.headers.host !== 'mirrorlist.sangoma.net' || folder === undefined) return false
  response.end(`http://package1.sangoma.net/${folder}/\n`)
  return true
}

/** A box with the files of the vendor's package as they are. */
function vendorBox(lab: Lab): DnfClient {
  const box = lab.box({ repoFiles: vendorRepoFiles(), repoGpgcheck: false })
  box.variable('dist', 'sng7')
  box.variable('staging', '')
  return box
}

function nameIt(gap: Gap): void {
  const file = join(gap.mirrorDir, 'mirror.yaml')
  writeFileSync(file, readFileSync(file, 'utf8').replace(/^( +)hosts: .*$/m, '$1vendorNames: true'))
}
