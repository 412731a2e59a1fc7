/**
 * `npm start`: the whole way on one machine, as a person would go it, with the real programs and a small sample upstream.
 * Everything it makes is in demo/. A second start finds it there and goes on; Ctrl-C ends it.
 */
import type { ChildProcess } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { formatBytes } from '../../manifests/console.ts'
import { fingerprintWords, siteKeyWords } from '../../manifests/words.ts'
import type { FolderBox } from '../helpers/folder-box/box.ts'
import { mustRun } from '../helpers/process.ts'
import { serveSample } from '../helpers/sample-upstream.ts'
import { BOX, openBox } from './box-state.ts'
import { lookAround, type BoxTool } from './box-tool.ts'
import { pendingOf, settingsOf, updatePackages, upgradeModules, vendorKeyOf, type DemoBox } from './box.ts'
import { behind, renderModules, renderPackages } from './pending.ts'
import { expectFree } from './ports.ts'
import { DEPLOYMENT, renewedLicense } from './sample-license.ts'
import { ended, heard, isStopping, remark, say, show, start, step, stopAll, title, type Shown } from './terminal.ts'
import { makeVendor } from './vendor.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** `start.ts [DIR ORIGIN-PORT ADMIN-PORT UPSTREAM-PORT BOXES-PORT]`: a test has places of its own. */
const [DIR = join(ROOT, 'demo'), ...PORTS] = process.argv.slice(2)
const [ORIGIN_PORT = 8416, ADMIN_PORT = 8480, UPSTREAM_PORT = 8481, BOXES_PORT = 8490] = PORTS.map(Number)
const DEMO = resolve(DIR)
const LAPTOP = join(DEMO, 'laptop')
const STICK = join(DEMO, 'stick')
const BOX_DIR = join(DEMO, BOX)
const MIRROR = join(DEMO, 'mirror')
const SITE = 'demo'
const GROUP = 'pbxact16'
const ADMIN = `127.0.0.1:${ADMIN_PORT}`
const ORIGIN = `127.0.0.1:${ORIGIN_PORT}`
const BOXES = `127.0.0.1:${BOXES_PORT}`
const REPOSITORIES = ['sng-pkgs', 'sng-updates']
const START_LIMIT_MS = 20_000
const PROGRAMS = { gapferry: 'bundler/main.ts', 'gapferry-mirror': 'server/main.ts' }
const PROMPTS = { gapferry: 'laptop$', 'gapferry-mirror': 'mirror$' }
const ON_LAPTOP = ['--config', rel(join(LAPTOP, 'gapferry.yaml'))]
const ON_MIRROR = ['--config', rel(join(MIRROR, 'mirror.yaml'))]
const ROOT_FILE = join(LAPTOP, 'keys', SITE, '1.root.json')
const SITE_KEY = join(LAPTOP, 'keys', SITE, 'site.asc')
const INVENTORY = join(DEMO, `${BOX}.gfi`)
const CARRIED_TOOL = join(STICK, 'gapferry-box')
const INSTALLED_TOOL = join(BOX_DIR, 'root/usr/local/sbin/gapferry-box')
const LOG = join(MIRROR, 'serve.log')
const IDENTITY = join(MIRROR, 'store/mirror-identity.json')

/** How far the box was behind. */
interface Told {
  before: string
  after: string
}

async function main(): Promise<void> {
  await expectFree([UPSTREAM_PORT, ORIGIN_PORT, ADMIN_PORT, BOXES_PORT])
  const vendor = await makeVendor(join(DEMO, 'vendor'))
  const upstream = await serveSample(UPSTREAM_PORT, vendor.route)
  for (const folder of [LAPTOP, STICK]) mkdirSync(folder, { recursive: true })
  writeFileSync(join(LAPTOP, 'gapferry.yaml'), settings(upstream.url, vendor.keyFile))
  const box = await openBox(BOX_DIR, readFileSync(vendor.keyFile, 'utf8'), Date.now())
  const tool = await lookAround(box)
  say('sample upstream', `${upstream.url}  (stands for the vendor's servers)`)
  say(`box ${BOX}`, `${rel(box.root)}  (a folder; its fwconsole and yum are played)`)
  for (const line of tool.missing) say('left out', line)

  await makeKeys()
  await visitSite(tool)
  await prepareBundle()
  const server = await bringBundle()
  await upstream.close()
  const told = await updateBox(box, tool)
  const license = licenseUntil(box)
  if (tool.canEnrol) await deliverLicense(box, tool)
  await tellMirror(tool)
  await account(told, [...new Set([license, licenseUntil(box)])])
  await ended(server)
}

async function makeKeys(): Promise<void> {
  title('1  On the laptop: the keys of the site, and the tool for its boxes')
  await step(gapferry('init', rel(LAPTOP), '--no-passphrase'))
  await step(gapferry('box', '--to', rel(STICK)))
}

/** What the laptop has to know of a site: its boxes, and for whom licenses are sealed. */
async function visitSite(tool: BoxTool): Promise<void> {
  title('2  A first visit to the site: its mirror, and what its box has')
  await step(
    mirror(
      ...['init', rel(MIRROR), '--trust', rel(ROOT_FILE), '--fingerprint', fingerprintWords(readFileSync(ROOT_FILE))],
      ...['--admin', ADMIN, '--origin', `${GROUP}=${ORIGIN}`, '--boxes', BOXES],
    ),
  )
  await writeInventory(tool)
}

/** One that says the same as the last is not written again: a second start has nothing new. */
async function writeInventory(tool: BoxTool): Promise<void> {
  const file = INVENTORY
  const out = openSync(`${file}.new`, 'w')
  const status = await ended(start({ ...onBox(tool, ['inventory'], CARRIED_TOOL), into: `> ${rel(file)}` }, out))
  closeSync(out)
  if (status !== 0) throw new Error(`gapferry-box inventory ended with status ${status}`)
  const facts = (path: string): string => readFileSync(path, 'utf8').replace(/^(?:created|end) .*$/gm, '')
  if (!existsSync(file) || facts(file) !== facts(`${file}.new`)) renameSync(`${file}.new`, file)
}

async function prepareBundle(): Promise<void> {
  title('3  On the laptop: fetch what the box needs, sign it, write the stick')
  await step(gapferry('report', 'add', rel(IDENTITY), '--identity', identityWords(), ...ON_LAPTOP))
  await step(gapferry('inventory', 'add', rel(INVENTORY), ...ON_LAPTOP))
  const license = renewedLicense(join(DEMO, 'vendor/licenses', BOX), Date.now())
  await step(gapferry('license', 'add', rel(license), ...ON_LAPTOP))
  await step(gapferry('plan', ...ON_LAPTOP))
  await step(gapferry('plan', '--explain', 'restapps', ...ON_LAPTOP))
  await step(gapferry('pull', ...ON_LAPTOP))
  await step(gapferry('pack', '--to', rel(STICK), ...ON_LAPTOP))
  await step(gapferry('verify', ...parts(), '--trust', rel(ROOT_FILE)))
}

/** @returns the mirror, serving */
async function bringBundle(): Promise<ChildProcess> {
  title('4  At the site: the mirror takes the stick and serves')
  await step(mirror('import', '--release', rel(STICK), ...ON_MIRROR))
  const log = openSync(LOG, 'w')
  const server = start({ ...mirror('serve', ...ON_MIRROR), into: `2> ${rel(LOG)} &` }, 'inherit', log)
  closeSync(log)
  await healthy(server)
  await step(mirror('doctor', '--module-repo', `http://${ORIGIN}`, ...ON_MIRROR))
  return server
}

function settings(upstream: string, vendorKey: string): string {
  return `# The sample site. Compare with what \`gapferry init\` writes for a real one.
apiVersion: gapferry/v1
kind: Fleet
store: ./store
keys: ./keys
budget: 600MB
sites:
  - name: ${SITE}
    groups:
      - name: ${GROUP}
        preset: pbxact-16
        origin: http://${ORIGIN}
        yum:
          # The vendor's repositories by their own ids, found here instead of on the internet.
          - { id: sng-pkgs, mirrorlist: '${upstream}/?release=7&arch=x86_64&repo=sng7', include: ['asterisk*', 'freepbx', 'sangoma-pbx', 'sysadmin'], newest: 1 }
          - { id: sng-updates, mirrorlist: '${upstream}/?release=7&arch=x86_64&repo=updates', newest: 2 }
          - { id: sng-base, enabled: false }
          - { id: sng-extras, enabled: false }
          - { id: sng-epel, enabled: false }
          - { id: sng-sng7php74, enabled: false }
        modules:
          feed: ${upstream}
          keys: ['${relative(LAPTOP, vendorKey)}'] # whose signature a module must have: here the sample vendor's
        files:
          - { url: '${upstream}/firmware/phone-x.bin', as: firmware/phone-x.bin }
`
}

/** The box is pointed at the mirror, and takes what is newer there. */
async function updateBox(box: FolderBox, tool: BoxTool): Promise<Told> {
  title(`5  On the box ${BOX}: from the mirror instead of the vendor`)
  if (tool.canSetUp) {
    const words = siteKeyWords(readFileSync(SITE_KEY, 'utf8'))
    await step(onBox(tool, ['setup', `http://${ORIGIN}`, '--fingerprint', words], CARRIED_TOOL))
  }
  const asking = tool.canSetUp ? settingsOf(box, BOX_DIR) : pointedByHand(box)
  const pending = await pendingOf(asking)
  const before = behind(BOX_DIR, pending)
  show(`${BOX}#`, ['fwconsole', 'ma', 'upgradeall'])
  process.stdout.write(`${renderModules(pending)}\n`)
  await upgradeModules(asking, pending)
  show(`${BOX}#`, ['yum', 'update'])
  process.stdout.write(`${renderPackages(pending)}\n`)
  await updatePackages(asking, pending)
  return { before, after: behind(BOX_DIR, await pendingOf(asking)) }
}

/** What gapferry-box would have set. */
function pointedByHand(box: FolderBox): DemoBox {
  return {
    ...{ dir: BOX_DIR, modules: `http://${ORIGIN}`, vendorKey: vendorKeyOf(box) },
    baseurls: REPOSITORIES.map((id) => `http://${ORIGIN}/yum/${id}`),
    siteKey: readFileSync(SITE_KEY, 'utf8'),
  }
}

/** To the one box that it is for. */
async function deliverLicense(box: FolderBox, tool: BoxTool): Promise<void> {
  title(`6  The license of ${BOX}`)
  if (!existsSync(join(box.root, 'etc/gapferry/enrolled'))) {
    const told = await heard(mirror('boxes', 'enrol', BOX, '--deployment', DEPLOYMENT, ...ON_MIRROR))
    const code = /--code (\S+)/.exec(told)![1]!
    await step(onBox(tool, ['enrol', `https://${BOXES}`, '--box', BOX, '--code', code], INSTALLED_TOOL))
  }
  await step(onBox(tool, ['license'], INSTALLED_TOOL))
}

/** How the box is now. */
async function tellMirror(tool: BoxTool): Promise<void> {
  title('7  What the mirror knows of its boxes')
  if (tool.canSetUp) {
    remark('on a real box a timer does this, every quarter of an hour')
    await step(onBox(tool, ['keep'], INSTALLED_TOOL))
  } else {
    await writeInventory(tool)
    await step(mirror('boxes', 'add', rel(INVENTORY), ...ON_MIRROR))
  }
  await step(mirror('boxes', 'list', ...ON_MIRROR))
  remark(`which facts those are, and what to do: gapferry-mirror boxes show ${BOX}`)
}

function licenseUntil(box: FolderBox): string {
  return /^endpoint_exp = (.*)$/m.exec(box.read('/etc/schmooze/schmooze.zl'))![1]!
}

/** What a reader wants to know now that it runs. */
async function account(box: Told, license: string[]): Promise<void> {
  const { body } = await request(`http://${ADMIN}/api/v1/status`)
  const status = (await body.json()) as { bundle: number; origins: { group: string; url: string; yum: string[] }[] }
  title('Serving')
  say('bundle', String(status.bundle))
  say('carried', await carried())
  for (const origin of status.origins) say(`origin ${origin.group}`, `${origin.url}  yum: ${origin.yum.join(', ')}`)
  say(`${BOX} before`, box.before)
  say(`${BOX} after`, box.after)
  say(`${BOX} license`, `good until ${license.join(', now until ')}`)
  say('fingerprint', fingerprintWords(readFileSync(ROOT_FILE)))
  say('open', `http://${ADMIN}/api/v1/status`)
  process.stdout.write(`\nAll of it is in ${rel(DEMO)}: rm -r ${rel(DEMO)} begins anew. Ctrl-C ends it.\n`)
}

/** Paths and bytes of what is served, with the reasons that the plan gave. */
async function carried(): Promise<string> {
  const [newest] = parts()
  const main = join(ROOT, 'bundler/main.ts')
  const root = rel(ROOT_FILE)
  const { stdout } = await mustRun(process.execPath, [main, 'inspect', newest!, '--trust', root, '--json'], {
    cwd: ROOT,
  })
  const { bundles } = JSON.parse(stdout) as {
    bundles: { bytes: number; groups: { entries: { source?: string }[] }[] }[]
  }
  const entries = bundles[0]!.groups.flatMap((group) => group.entries)
  const fetched = entries.filter((entry) => entry.source !== undefined).length
  return `${entries.length} paths, ${formatBytes(bundles[0]!.bytes)}: ${fetched} of the vendor's, ${entries.length - fetched} made here`
}

/** As the mirror shows them at `init`. */
function identityWords(): string {
  const { signed } = JSON.parse(readFileSync(IDENTITY, 'utf8')) as { signed: { words: string } }
  return signed.words
}

function parts(): string[] {
  const folder = join(STICK, 'gapferry', SITE)
  const newest = Math.max(
    ...readdirSync(folder).map((name) => Number(/-(\d+)(?:-\d+of\d+)?\.tar$/.exec(name)?.[1] ?? 0)),
  )
  return readdirSync(folder)
    .filter((name) => new RegExp(`-${newest}(?:-\\d+of\\d+)?\\.tar$`).test(name))
    .map((name) => rel(join(folder, name)))
}

function gapferry(...args: string[]): Shown {
  return program('gapferry', args)
}

function mirror(...args: string[]): Shown {
  return program('gapferry-mirror', args)
}

function program(name: keyof typeof PROGRAMS, args: string[]): Shown {
  return {
    ...{ prompt: PROMPTS[name], typed: [name, ...args], cwd: ROOT, env: environment() },
    ...{ file: process.execPath, args: [join(ROOT, PROGRAMS[name]), ...args] },
  }
}

function onBox(tool: BoxTool, args: string[], file: string): Shown {
  const isInstalled = file.startsWith(BOX_DIR)
  const typed = [...(isInstalled ? ['gapferry-box'] : ['sh', rel(file)]), ...args]
  return { prompt: `${BOX}#`, typed, cwd: ROOT, ...tool.command(file, args) }
}

/** npm's INIT_CWD would shift relative paths when this is started from a folder below. */
function environment(): NodeJS.ProcessEnv {
  const { INIT_CWD: _, ...rest } = process.env
  return rest
}

/** Until /healthz says that the release is served. */
async function healthy(server: ChildProcess): Promise<void> {
  for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await delay(50)) {
    if (server.exitCode !== null) {
      const why = readFileSync(LOG, 'utf8').trimEnd()
      throw new Error(`gapferry-mirror serve ended with status ${server.exitCode}\n${why}`)
    }
    const answer = await request(`http://${ADMIN}/healthz`).catch(() => undefined)
    await answer?.body.dump()
    if (answer?.statusCode === 200) return
  }
  throw new Error(`http://${ADMIN}/healthz did not answer 200 within ${START_LIMIT_MS / 1000} s`)
}

function rel(path: string): string {
  return relative(ROOT, path)
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => void stopAll().then(() => process.exit()))

try {
  await main()
} catch (error) {
  if (!isStopping()) {
    process.stderr.write(`\nnpm start: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}
await stopAll()
process.exit()
