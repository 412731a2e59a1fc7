import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { boxTool } from '../../bundler/box/tool.ts'
import { runGapferry } from '../../bundler/program.ts'
import { lockStore } from '../../storage/database.ts'
import { inside } from '../helpers/inside.ts'
import { run, type Outcome } from '../helpers/process.ts'
import { serveSample } from '../helpers/sample-upstream.ts'
import type { StaticServer } from '../helpers/static-server.ts'
import { startUpstream } from '../helpers/upstream.ts'

/** The largest file of a tree, the tool for boxes, fits into a part, and not much more. */
const PART_SIZE = `${boxTool().length + 40_000}B`

const MAIN = resolve(import.meta.dirname, '../../bundler/main.ts')
const COMMANDS = ['init', 'plan', 'pull', 'pack', 'bundle', 'verify', 'inspect', 'keys', 'upstreams']

function gapferry(cwd: string, args: string[], environment: Record<string, string> = {}): Promise<Outcome> {
  return inside(runGapferry, cwd, args, { environment })
}

const settings = (upstream: string, more = ''): string => `apiVersion: gapferry/v1
kind: Fleet
${more}
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        yum:
          - { id: sng-pkgs, baseurl: ['${upstream}/sng7/sng7/'], include: ['asterisk18*'], newest: 1 }
        files:
          - { url: '${upstream}/firmware/phone-x.bin', as: firmware/phone-x.bin }
`

function readdirDeep(folder: string): string[] {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true })
  return found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

async function laptop(t: Test, more = ''): Promise<{ dir: string; upstream: StaticServer }> {
  const upstream = await serveSample()
  t.teardown(() => upstream.close())
  const dir = t.testdir({ 'gapferry.yaml': settings(upstream.url, more) })
  for (const stick of ['stick', 'other', 'a', 'b', 'c', 'd', 'deep/stick'])
    mkdirSync(join(dir, stick), { recursive: true })
  const init = await gapferry(dir, ['init', '--no-passphrase'])
  t.equal(init.status, 0, init.stderr)
  return { dir, upstream }
}

function status(t: Test, outcome: Outcome, expected: number, code?: string): void {
  t.equal(outcome.status, expected, outcome.stderr)
  if (code !== undefined) t.match(outcome.stderr, `[${code}]`)
}

t.test('help has an example on every level, and goes to standard output', async (t) => {
  const keys = ['list', 'rotate', 'sign', 'backup', 'restore'].map((name) => ['keys', name, '--help'])
  for (const args of [['--help'], ...COMMANDS.map((name) => [name, '--help']), ...keys]) {
    const help = await gapferry('/', args)
    status(t, help, 0)
    t.match(help.stdout, /Examples?:\n {2}gapferry /, args.join(' '))
    t.equal(help.stderr, '')
  }
})

t.test('a slip names the next command and ends with 2, for scripts too', async (t) => {
  for (const args of [['bundel'], ['bundle'], ['plan', '--itmes'], ['verify'], ['init', '--preset', 'x']]) {
    const slip = await gapferry('/', args)
    status(t, slip, 2, 'USAGE_INVALID')
    t.match(slip.stderr, /\n {2}next: gapferry .*--help\n/)
    t.equal(slip.stdout, '')
    const json = await gapferry('/', [...args, '--json'])
    t.match(JSON.parse(json.stdout), { error: { code: 'USAGE_INVALID' } })
  }
  status(t, await gapferry('/', ['plan', '--config', 'nowhere.yaml']), 2, 'CONFIG_MISSING')
})

t.test('init writes settings and keys once, under a passphrase that pack then asks for', async (t) => {
  const dir = t.testdir()
  const env = { GAPFERRY_PASSPHRASE: 'correct horse' }
  const args = [
    'init',
    'lap',
    '--site',
    'berlin',
    '--group',
    'pbx',
    '--preset',
    'pbxact-15',
    '--origin',
    'http://m.lan:8416',
    '--json',
  ]
  const first = await gapferry(dir, args, env)
  status(t, first, 0)
  const made = JSON.parse(first.stdout) as {
    config: string
    sites: { name: string; isNew: boolean; rootFile: string; fingerprint: string }[]
  }
  t.match(made.sites, [{ name: 'berlin', isNew: true }])
  t.equal(made.sites[0]!.fingerprint.split(' ').length, 12)
  t.match(readFileSync(made.config, 'utf8'), /preset: pbxact-15/)
  t.equal(statSync(join(dir, 'lap/keys/berlin')).mode & 0o777, 0o700)
  const root = readFileSync(made.sites[0]!.rootFile)
  status(t, await gapferry(dir, args), 2, 'CONFIG_EXISTS')
  const again = await gapferry(dir, ['init', 'lap', '--json'])
  status(t, again, 0)
  t.match(JSON.parse(again.stdout), { sites: [{ isNew: false, fingerprint: made.sites[0]!.fingerprint }] })
  t.ok(readFileSync(made.sites[0]!.rootFile).equals(root))
  status(t, await gapferry(dir, ['init', 'other']), 2, 'KEY_PASSPHRASE_MISSING')
  t.notOk(existsSync(join(dir, 'other/keys/hq')), 'no keys without a passphrase')
  writeFileSync(join(dir, 'passphrase'), 'secret\nnot this\n')
  const fd = openSync(join(dir, 'passphrase'), 'r')
  t.teardown(() => closeSync(fd))
  status(t, await gapferry(dir, ['init', 'third', '--passphrase-fd', String(fd)]), 0)
  status(t, await gapferry(join(dir, 'third'), ['init'], { GAPFERRY_PASSPHRASE: 'unused' }), 0)
})

t.test('a passphrase is asked for only when something is signed', async (t) => {
  const upstream = await serveSample()
  t.teardown(() => upstream.close())
  const dir = t.testdir({ 'gapferry.yaml': settings(upstream.url), stick: {}, other: {} })
  const env = { GAPFERRY_PASSPHRASE: 'correct horse' }
  status(t, await gapferry(dir, ['init'], env), 0)
  status(t, await gapferry(dir, ['bundle', '--to', 'stick']), 2, 'KEY_PASSPHRASE_MISSING')
  status(
    t,
    await gapferry(dir, ['bundle', '--to', 'stick'], { GAPFERRY_PASSPHRASE: 'wrong' }),
    2,
    'KEY_PASSPHRASE_WRONG',
  )
  t.notOk(existsSync(join(dir, 'stick/gapferry/hq/hq-1.tar')))
  status(t, await gapferry(dir, ['bundle', '--to', 'stick'], env), 0)
  status(t, await gapferry(dir, ['pack', '--to', 'other']), 0)
})

t.test('plan spends no payload byte, pull fetches once, pack needs no network', async (t) => {
  const { dir, upstream } = await laptop(t)
  const plan = await gapferry(dir, ['plan', '--items'])
  status(t, plan, 0)
  t.match(plan.stdout, /asterisk18-core-18\.20\.2.*include asterisk18\*, newest 1/)
  const payload = (): string[] =>
    upstream.requests.filter(({ method, url }) => method === 'GET' && /\.(rpm|bin)$/.test(url)).map(({ url }) => url)
  t.strictSame(payload(), [])
  status(t, await gapferry(dir, ['pack', '--to', 'stick']), 4, 'PLAN_UNFETCHED')
  const pulled = await gapferry(dir, ['pull', '--json'])
  status(t, pulled, 0)
  const { fetched } = JSON.parse(pulled.stdout) as { fetched: { count: number; bytes: number } }
  t.equal(payload().length, fetched.count)
  t.ok(fetched.bytes > 0)
  const before = upstream.requests.length
  status(t, await gapferry(dir, ['pack', '--to', 'stick']), 0)
  t.equal(upstream.requests.length, before)
  status(t, await gapferry(dir, ['pull']), 0)
  const twice = payload().filter((path, i, all) => all.indexOf(path) !== i)
  t.strictSame(twice, [], 'nothing was fetched twice')
  status(t, await gapferry(dir, ['plan', '--explain', 'asterisk18-core']), 0)
  status(t, await gapferry(dir, ['plan', '--explain', 'nothing']), 2, 'USAGE_INVALID')
})

t.test('a budget that is spent before anything was planned', async (t) => {
  const { dir, upstream } = await laptop(t, 'budget: 1kB')
  const pull = await gapferry(dir, ['pull'])
  status(t, pull, 5, 'BUDGET_EXCEEDED')
  t.match(pull.stderr, /the budget of 1\.0 kB is spent/)
  t.strictSame(
    upstream.requests.filter(({ url }) => url.endsWith('.rpm')),
    [],
  )
})

t.test('a bundle is signed once: unchanged it is written again, --renew gives the next number', async (t) => {
  const { dir } = await laptop(t)
  const bundle = async (
    ...args: string[]
  ): Promise<{ number: number; isNew: boolean; files: { path: string; sha256: string }[] }> => {
    const outcome = await gapferry(dir, ['bundle', '--json', ...args])
    status(t, outcome, 0)
    return (JSON.parse(outcome.stdout) as { bundles: Awaited<ReturnType<typeof bundle>>[] }).bundles[0]!
  }
  const first = await bundle('--to', 'a')
  const again = await bundle('--to', 'b')
  t.match(again, { number: 1, isNew: false })
  t.equal(again.files[0]!.sha256, first.files[0]!.sha256, 'byte for byte')
  const renewed = await bundle('--to', 'b', '--renew')
  t.match(renewed, { number: 2, isNew: true })
  const tar = renewed.files[0]!.path
  status(t, await gapferry(dir, ['verify', tar]), 0)
  status(t, await gapferry('/', ['verify', tar, '--trust', join(dir, 'keys/hq/1.root.json')]), 0)
  const inspected = await gapferry(dir, ['inspect', tar, '--json'])
  status(t, inspected, 0)
  t.match(JSON.parse(inspected.stdout), {
    bundles: [{ site: 'hq', number: 2, groups: [{ group: 'a', yum: ['sng-pkgs'] }] }],
  })
  const sum = await run('sha256sum', ['-c', `${tar}.sha256`], { cwd: join(dir, 'b/gapferry/hq') })
  t.equal(sum.status, 0, sum.stderr)
})

t.test('a clock that went back does not make bundles that a mirror would find expired', async (t) => {
  const { dir } = await laptop(t)
  const YEAR_MS = 365 * 86_400_000
  const later = await inside(runGapferry, dir, ['bundle', '--to', 'a', '--json'], {
    nowMs: () => Date.now() + 5 * YEAR_MS,
  })
  status(t, later, 0)
  const now = await gapferry(dir, ['bundle', '--to', 'b', '--renew', '--json'])
  status(t, now, 0)
  t.match(now.stderr, /warning: bundle 1 was signed at .* check the clock/)
  t.match(now.stderr, /mirrors refuse that one; the new one is dated today/)
  const [first, second] = [later, now].map(
    ({ stdout }) => (JSON.parse(stdout) as { bundles: { createdAtMs: number; expiresAtMs: number }[] }).bundles[0]!,
  )
  t.ok(second!.createdAtMs < first!.createdAtMs)
  const MONTH_MS = 30 * 86_400_000
  const ahead = await inside(runGapferry, dir, ['bundle', '--to', 'c', '--renew', '--json'], {
    nowMs: () => Date.now() + MONTH_MS,
  })
  const back = await gapferry(dir, ['bundle', '--to', 'd', '--renew', '--json'])
  t.match(back.stderr, /the new one is dated like that/)
  const dates = [ahead, back].map(
    ({ stdout }) => (JSON.parse(stdout) as { bundles: { createdAtMs: number }[] }).bundles[0]!.createdAtMs,
  )
  t.equal(dates[1], dates[0])
})

t.test('a second run on the same store is told that it is busy', async (t) => {
  const { dir } = await laptop(t)
  const release = lockStore(join(dir, 'store'))
  t.teardown(release)
  status(t, await gapferry(dir, ['plan']), 7, 'STORE_BUSY')
})

t.test('an upstream that is not there: network, by name, and nothing is lost', async (t) => {
  const { dir, upstream } = await laptop(t)
  status(t, await gapferry(dir, ['bundle', '--to', 'stick']), 0)
  await upstream.close()
  const plan = await gapferry(dir, ['plan'])
  status(t, plan, 6, 'FETCH_FAILED')
  t.match(plan.stderr, upstream.url)
  status(t, await gapferry(dir, ['pack', '--to', 'other']), 0)
})

t.test('upstreams names hosts and ports for the firewall', async (t) => {
  const dir = t.testdir()
  status(t, await gapferry(dir, ['init', '--no-passphrase']), 0)
  const { stdout } = await gapferry(dir, ['upstreams'])
  t.match(stdout, /^mirrorlist\.sangoma\.net:80 {2}mirrorlist of yum sng-base/)
})

t.test('relative paths count from where the person stands', async (t) => {
  const { dir } = await laptop(t)
  const outcome = await run(process.execPath, [MAIN, 'bundle', '--to', 'stick', '--config', '../gapferry.yaml'], {
    cwd: '/',
    env: { INIT_CWD: join(dir, 'deep'), no_proxy: '*' },
  })
  status(t, outcome, 0)
  t.ok(existsSync(join(dir, 'deep/stick/gapferry/hq/hq-1.tar')))
})

t.test('a damaged blob in the store does not get into a bundle', async (t) => {
  const { dir } = await laptop(t)
  status(t, await gapferry(dir, ['pull']), 0)
  const [package_] = readdirDeep(join(dir, 'store/blobs')).filter((file) =>
    readFileSync(file).subarray(0, 4).equals(Buffer.from('edabeedb', 'hex')),
  )
  const bytes = readFileSync(package_!)
  bytes[bytes.length - 1]! ^= 1
  rmSync(package_!)
  writeFileSync(package_!, bytes)
  status(t, await gapferry(dir, ['pack', '--to', 'stick']), 3, 'BLOB_DIGEST_MISMATCH')
  t.notOk(existsSync(join(dir, 'stick/gapferry/hq/hq-1.tar')))
})

t.test('init does not leave settings that it would not read', async (t) => {
  const dir = t.testdir()
  for (const wrong of [
    ['--site', 'a b'],
    ['--origin', 'mirror'],
    ['--group', 'A'],
  ]) {
    status(t, await gapferry(dir, ['init', '--no-passphrase', ...wrong]), 2, 'CONFIG_INVALID')
    t.notOk(existsSync(join(dir, 'gapferry.yaml')))
  }
  status(t, await gapferry(dir, ['init', '--no-passphrase', '--group', '16', '--site', '7']), 0)
  t.match(readFileSync(join(dir, 'gapferry.yaml'), 'utf8'), /name: "16"/)
})

t.test('a stick that is not there, or no folder, is not made up', async (t) => {
  const { dir } = await laptop(t)
  for (const to of ['nowhere', 'gapferry.yaml']) {
    for (const command of ['bundle', 'pack'])
      status(t, await gapferry(dir, [command, '--to', to]), 1, 'MEDIUM_UNUSABLE')
  }
  t.notOk(existsSync(join(dir, 'nowhere')))
  writeFileSync(join(dir, 'a/gapferry'), 'a file in the way')
  status(t, await gapferry(dir, ['bundle', '--to', 'a']), 1, 'MEDIUM_UNUSABLE')
})

t.test('planning one site does not forget another; changed settings need a new plan', async (t) => {
  const upstream = await serveSample()
  t.teardown(() => upstream.close())
  const two = settings(upstream.url).replace(/  - name: hq[^]*$/, (site) => site + site.replace('hq', 'second'))
  const dir = t.testdir({ 'gapferry.yaml': two, stick: {} })
  status(t, await gapferry(dir, ['init', '--no-passphrase']), 0)
  status(t, await gapferry(dir, ['pull', '--site', 'hq']), 0)
  status(t, await gapferry(dir, ['pack', '--to', 'stick']), 4, 'PLAN_UNFETCHED')
  status(t, await gapferry(dir, ['pull', '--site', 'second']), 0)
  status(t, await gapferry(dir, ['pack', '--to', 'stick']), 0)
  for (const site of ['hq', 'second']) t.ok(existsSync(join(dir, `stick/gapferry/${site}/${site}-1.tar`)))
  writeFileSync(join(dir, 'gapferry.yaml'), two.replace('newest: 1', 'newest: 2'))
  const stale = await gapferry(dir, ['pack', '--to', 'stick'])
  status(t, stale, 4, 'PLAN_UNFETCHED')
  t.match(stale.stderr, /has changed since it was planned/)
  status(t, await gapferry(dir, ['pack', '--to', 'stick', '--site', 'nowhere']), 2, 'SITE_UNKNOWN')
  t.equal(statSync(join(dir, 'store/plan.json')).mode & 0o777, 0o600)
  t.equal(statSync(join(dir, 'store')).mode & 0o777, 0o700)
})

t.test('a declared digest counts, also where the same address is wanted without one', async (t) => {
  const { dir } = await laptop(t)
  const file = join(dir, 'gapferry.yaml')
  const text = readFileSync(file, 'utf8')
  const wanted = /- (\{ url: '([^']+)', as: firmware\/phone-x\.bin \})/.exec(text)!
  writeFileSync(
    file,
    `${text.trimEnd()}\n          - { url: '${wanted[2]}', as: two.bin, sha256: '${'0'.repeat(63)}1' }\n`,
  )
  status(t, await gapferry(dir, ['bundle', '--to', 'stick']), 3, 'FETCH_DIGEST_MISMATCH')
})

t.test('a file whose size nobody tells may use what is left of the budget, no more', async (t) => {
  const upstream = await startUpstream(t, new Map([['/big.bin', Buffer.alloc(300_000)]]))
  upstream.fault('/big.bin', { kind: 'unsized' })
  const more = `files: [{ url: '${upstream.url}/big.bin', as: big.bin }]`
  const group = `      - name: a\n        origin: http://m.lan\n        ${more}`
  const text = `apiVersion: gapferry/v1\nkind: Fleet\nbudget: 100kB\nsites:\n  - name: hq\n    groups:\n${group}\n`
  const dir = t.testdir({ 'gapferry.yaml': text })
  status(t, await gapferry(dir, ['init', '--no-passphrase']), 0)
  status(t, await gapferry(dir, ['pull']), 5, 'BUDGET_EXCEEDED')
})

t.test('standard output is one JSON document, whatever happens', async (t) => {
  const { dir } = await laptop(t)
  status(t, await gapferry(dir, ['bundle', '--to', 'a', '--part-size', PART_SIZE]), 0)
  const [part] = readdirDeep(join(dir, 'a')).filter((name) => name.endsWith('.tar'))
  const verify = await gapferry(dir, ['verify', part!, '--json'])
  status(t, verify, 4, 'BUNDLE_INCOMPLETE')
  t.match(JSON.parse(verify.stdout), { bundles: [{ number: 1 }], error: { code: 'BUNDLE_INCOMPLETE' } })
  const explained = await gapferry(dir, ['plan', '--explain', 'asterisk18-core', '--json'])
  t.match(JSON.parse(explained.stdout), { items: [{ reason: 'include asterisk18*, newest 1' }] })
  status(t, await gapferry(dir, ['verify', 'nowhere.tar']), 4, 'BUNDLE_NOT_FOUND')
})

t.test('a file descriptor that is none, or cannot be read, is said plainly', async (t) => {
  const dir = t.testdir()
  status(t, await gapferry(dir, ['init', '--passphrase-fd', 'abc']), 2, 'USAGE_INVALID')
  status(t, await gapferry(dir, ['init', '--passphrase-fd', '9999']), 2, 'KEY_PASSPHRASE_MISSING')
})

t.test('a bundle that could not be signed costs no byte of the link', async (t) => {
  const { dir, upstream } = await laptop(t)
  rmSync(join(dir, 'keys'), { recursive: true })
  const before = upstream.requests.length
  status(t, await gapferry(dir, ['bundle', '--to', 'stick']), 4, 'KEY_MISSING')
  t.equal(upstream.requests.length, before)
})
