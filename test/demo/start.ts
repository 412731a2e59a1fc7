/**
 * `npm start`: the whole way on one machine, as a person would go it, with the real programs and a small sample upstream.
 * Everything it makes is in demo/. A second start finds it there and goes on; Ctrl-C ends it.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { request } from 'undici'
import { formatBytes, formatTable } from '../../manifests/console.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { mustRun } from '../helpers/process.ts'
import { serveSample } from '../helpers/sample-upstream.ts'
import { BOX, readBox, writeInventory } from './box-state.ts'
import { pendingOf, upgrade, type DemoBox, type Pending } from './box.ts'
import { makeVendor } from './vendor.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** `start.ts [DIR ORIGIN-PORT ADMIN-PORT UPSTREAM-PORT]`: a test has places of its own. */
const [DEMO = join(ROOT, 'demo'), ...PORTS] = process.argv.slice(2)
const [ORIGIN_PORT = 8416, ADMIN_PORT = 8480, UPSTREAM_PORT = 8481] = PORTS.map(Number)
const LAPTOP = join(DEMO, 'laptop')
const STICK = join(DEMO, 'stick')
const BOX_DIR = join(DEMO, BOX)
const MIRROR = join(DEMO, 'mirror')
const SITE = 'demo'
const GROUP = 'pbxact16'
const ADMIN = `127.0.0.1:${ADMIN_PORT}`
const ORIGIN = `127.0.0.1:${ORIGIN_PORT}`
const START_LIMIT_MS = 20_000

const children = new Set<ChildProcess>()

async function main(): Promise<void> {
  const vendor = await makeVendor(join(DEMO, 'vendor'))
  const upstream = await serveSample(UPSTREAM_PORT, vendor.route)
  say('sample upstream', `${upstream.url}  (stands for the vendor's servers)`)
  for (const folder of [LAPTOP, STICK]) mkdirSync(folder, { recursive: true })
  writeFileSync(join(LAPTOP, 'gapferry.yaml'), settings(upstream.url, vendor.keyFile))

  title('On the laptop')
  await step('gapferry', ['init', rel(LAPTOP), '--no-passphrase'])
  const laptop = ['--config', rel(join(LAPTOP, 'gapferry.yaml'))]
  await step('gapferry', ['inventory', 'add', rel(writeInventory(BOX_DIR, `http://${ORIGIN}`, Date.now())), ...laptop])
  await step('gapferry', ['plan', ...laptop])
  await step('gapferry', ['plan', '--explain', 'restapps', ...laptop])
  await step('gapferry', ['pull', ...laptop])
  await step('gapferry', ['pack', '--to', rel(STICK), ...laptop])
  const root = join(LAPTOP, 'keys', SITE, '1.root.json')
  await step('gapferry', ['verify', ...parts(), '--trust', rel(root)])

  title('At the isolated site')
  const fingerprint = fingerprintOf(root)
  await step('gapferry-mirror', [
    ...['init', rel(MIRROR), '--trust', rel(root), '--fingerprint', fingerprint],
    ...['--admin', ADMIN, '--origin', `${GROUP}=${ORIGIN}`],
  ])
  const config = ['--config', rel(join(MIRROR, 'mirror.yaml'))]
  await step('gapferry-mirror', ['import', '--release', rel(STICK), ...config])
  const server = start('gapferry-mirror', ['serve', ...config])
  await healthy(server)
  await upstream.close()
  await step('gapferry-mirror', ['doctor', '--module-repo', `http://${ORIGIN}`, ...config])
  const told = await updateBox(readFileSync(vendor.keyFile, 'utf8'))
  await account(told)
  await ended(server)
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

/** The box asks the mirror as it would ask the vendor, and takes what is newer. */
async function updateBox(vendorKey: string): Promise<{ before: string; after: string }> {
  title(`On the box ${BOX}`)
  const box: DemoBox = {
    dir: BOX_DIR,
    origin: `http://${ORIGIN}`,
    yum: ['sng-pkgs', 'sng-updates'],
    vendorKey,
    siteKey: readFileSync(join(LAPTOP, 'keys', SITE, 'site.asc'), 'utf8'),
  }
  const pending = await pendingOf(box)
  const before = behind(pending)
  process.stdout.write(renderPending(pending))
  await upgrade(box, pending)
  return { before, after: behind(await pendingOf(box)) }
}

function renderPending({ modules, packages }: Pending): string {
  if (modules.length + packages.length === 0) {
    return `\nnothing is newer than what it has: an earlier start updated it (rm -r ${rel(DEMO)} begins anew)\n`
  }
  const rows = [
    ['MODULE', 'INSTALLED', 'NOW'],
    ...modules.map(({ entry, from }) => [entry.rawname, from ?? 'none', entry.version]),
    ['', '', ''],
    ['PACKAGE', '', ''],
    ...packages.map(({ row, from }) => [row.name, `${from.version}-${from.release}`, `${row.version}-${row.release}`]),
  ]
  return `\n${formatTable(rows)}\n`
}

function behind({ modules, packages }: Pending): string {
  const state = readBox(BOX_DIR)
  const [old, added] = [
    modules.filter(({ from }) => from !== undefined),
    modules.filter(({ from }) => from === undefined),
  ]
  const more = added.length === 0 ? '' : ` (and ${added.length} new with them)`
  const counts = [
    `${old.length} of ${Object.keys(state.modules).length} modules behind${more}`,
    `${packages.length} of ${state.packages.length} packages behind`,
  ]
  return counts.join(', ')
}

/** What a reader wants to know now that it runs. */
async function account(box: { before: string; after: string }): Promise<void> {
  const { body } = await request(`http://${ADMIN}/api/v1/status`)
  const status = (await body.json()) as { bundle: number; origins: { group: string; url: string; yum: string[] }[] }
  const repo = await request(`http://${ORIGIN}/gapferry-${GROUP}.repo`)
  title('Serving')
  say('bundle', String(status.bundle))
  say('carried', await carried())
  for (const origin of status.origins) say(`origin ${origin.group}`, `${origin.url}  yum: ${origin.yum.join(', ')}`)
  say(`${BOX} before`, box.before)
  say(`${BOX} after`, box.after)
  say('fingerprint', fingerprintOf(join(LAPTOP, 'keys', SITE, '1.root.json')))
  say('open', `http://${ADMIN}/api/v1/status`)
  process.stdout.write(`\nOn a box:\n\n    fwconsole setting MODULE_REPO http://${ORIGIN}\n`)
  process.stdout.write(`\nand as /etc/yum.repos.d/gapferry-${GROUP}.repo:\n\n${indent(await repo.body.text())}\n`)
  process.stdout.write('Ctrl-C ends it.\n')
}

/** Paths and bytes of what is served, with the reasons that the plan gave. */
async function carried(): Promise<string> {
  const [newest] = parts()
  const main = join(ROOT, 'bundler/main.ts')
  const root = rel(join(LAPTOP, 'keys', SITE, '1.root.json'))
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

function fingerprintOf(rootFile: string): string {
  return fingerprintWords(readFileSync(rootFile))
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

/** Runs one command the way a person does, its output on this terminal. */
async function step(program: string, args: string[]): Promise<void> {
  process.stdout.write(`\n$ ${program} ${args.map((arg) => (/[ '"]/.test(arg) ? `'${arg}'` : arg)).join(' ')}\n`)
  const child = start(program, args)
  const status = await ended(child)
  if (status !== 0) throw new Error(`${program} ${args[0]} ended with status ${status}`)
}

function start(program: string, args: string[]): ChildProcess {
  const main = join(ROOT, program === 'gapferry' ? 'bundler/main.ts' : 'server/main.ts')
  if (args[0] === 'serve') process.stdout.write(`\n$ ${program} ${args.join(' ')}\n`)
  const child = spawn(process.execPath, [main, ...args], {
    cwd: ROOT,
    env: environment(),
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}

/** npm's INIT_CWD would shift relative paths when this is started from a folder below. */
function environment(): NodeJS.ProcessEnv {
  const { INIT_CWD: _, ...rest } = process.env
  return rest
}

function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode)
  return new Promise((done) => child.once('exit', (code) => done(code)))
}

/** Until /healthz says that the release is served. */
async function healthy(server: ChildProcess): Promise<void> {
  for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await delay(50)) {
    if (server.exitCode !== null) throw new Error(`gapferry-mirror serve ended with status ${server.exitCode}`)
    const answer = await request(`http://${ADMIN}/healthz`).catch(() => undefined)
    await answer?.body.dump()
    if (answer?.statusCode === 200) return
  }
  throw new Error(`http://${ADMIN}/healthz did not answer 200 within ${START_LIMIT_MS / 1000} s`)
}

function rel(path: string): string {
  return relative(ROOT, path)
}

function title(text: string): void {
  process.stdout.write(`\n── ${text} ${'─'.repeat(Math.max(0, 76 - text.length))}\n`)
}

function say(what: string, text: string): void {
  process.stdout.write(`${what.padEnd(18)} ${text}\n`)
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '    ')
}

let isStopping = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    isStopping = true
    for (const child of children) child.kill(signal)
  })
}

try {
  await main()
} catch (error) {
  if (!isStopping) {
    process.stderr.write(`\nnpm start: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
  for (const child of children) child.kill('SIGTERM')
}
process.exit()
