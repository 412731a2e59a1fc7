import t, { type Test } from 'tap'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { fingerprintWords } from '../../manifests/words.ts'
import { loadMirrorConfig } from '../../server/config.ts'
import { runMirror } from '../../server/program.ts'
import type { Surroundings } from '../../manifests/program.ts'
import { lockStore } from '../../storage/database.ts'
import { inside } from '../helpers/inside.ts'
import { halves, makeContent, signContent, writeParts, type TestTree } from '../helpers/mirror.ts'
import { sampleRoot, type SampleBundle } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { makeRoot, newKey, NOW } from '../helpers/site.ts'
import { entriesOf, flipByte } from '../helpers/tar.ts'

const WORDS = fingerprintWords(sampleRoot)
const ORIGIN = 'pbx=127.0.0.1:0'

/** Runs one command in this process, at the time of the samples. */
function program(cwd: string, args: string[], around: Partial<Surroundings> = {}): Promise<Outcome> {
  return inside(runMirror, cwd, args, { nowMs: () => NOW, ...around })
}

const mirror = (cwd: string, ...args: string[]): Promise<Outcome> => program(cwd, args)
/** Standard output, which must be one JSON document and nothing else. */
const json = ({ stdout }: Outcome): unknown => JSON.parse(stdout)

function bundle(number: number, trees: TestTree[]): SampleBundle {
  return signContent(makeContent(number, trees), { createdAtMs: NOW - 3_600_000 })
}

/** A folder with root.json, a stick with bundle 1, and a mirror in `mir` (unless `isBare`). */
async function site(t: Test, { isBare = false } = {}): Promise<{ dir: string; mir: string; stick: string }> {
  const dir = t.testdir({ 'root.json': sampleRoot, stick: {}, mir: {} })
  const [mir, stick] = [join(dir, 'mir'), join(dir, 'stick')]
  writeParts(join(stick, 'gapferry', 'hq'), bundle(1, [{ stamp: 10, packages: ['a', 'b'] }]))
  if (!isBare) {
    const args = [
      'init',
      'mir',
      '--trust',
      'root.json',
      '--fingerprint',
      WORDS,
      '--origin',
      ORIGIN,
      '--admin',
      '127.0.0.1:0',
    ]
    status(t, await mirror(dir, ...args), 0)
  }
  return { dir, mir, stick }
}

function status(t: Test, outcome: Outcome, expected: number, code?: string): void {
  if (!t.equal(outcome.status, expected, 'exit status')) t.comment(outcome.stderr)
  if (code === undefined) return
  t.match(outcome.stderr, new RegExp(`^gapferry-mirror: .+ \\[${code}\\]$`, 'm'), `says ${code}`)
  t.match(outcome.stderr, /^ {2}next: .+$/m, 'names the next command')
}

t.test('help with an example on every level', async (t) => {
  const dir = t.testdir()
  const commands = [
    'init',
    'import',
    'release',
    'rollback',
    'serve',
    'status',
    'bundles',
    'verify',
    'prune',
    'audit',
    'backup',
    'restore',
    'doctor',
    'boxes',
    'report',
  ]
  const outcomes = await Promise.all(
    [[], ...commands.map((name) => [name])].map((words) => mirror(dir, ...words, '--help')),
  )
  for (const outcome of outcomes) {
    t.equal(outcome.status, 0)
    t.match(outcome.stdout, /\nExamples?:\n {2}gapferry-mirror /)
    t.match(outcome.stdout, /--config <FILE>/)
    t.equal(outcome.stderr, '')
  }
  for (const name of commands) t.match(outcomes[0]!.stdout, new RegExp(`^ {2}${name} `, 'm'))
  t.notMatch(outcomes[0]!.stdout, /replicate/, 'nothing of later issues')
})

t.test('usage errors have the form of all errors', async (t) => {
  const dir = t.testdir()
  status(t, await mirror(dir, 'imprt'), 2, 'USAGE_INVALID')
  status(t, await mirror(dir, 'import'), 2, 'USAGE_INVALID')
  status(t, await mirror(dir, 'status', '--bad'), 2, 'USAGE_INVALID')
  status(t, await mirror(dir, 'init'), 2, 'USAGE_INVALID')
  const bare = await mirror(dir)
  status(t, bare, 2)
  t.match(bare.stderr, /Usage: gapferry-mirror/)
  t.match(json(await mirror(dir, 'status', '--bad', '--json')), {
    error: { code: 'USAGE_INVALID', hint: 'gapferry-mirror status --help' },
  })
})

t.test('init pins the root whose words were given, once, and writes readable settings', async (t) => {
  const { dir, mir } = await site(t, { isBare: true })
  const init = (...more: string[]) => mirror(dir, 'init', 'mir', '--trust', 'root.json', ...more)
  status(t, await init(), 2, 'ROOT_NOT_CONFIRMED')
  status(t, await init('--fingerprint', 'abandon '.repeat(11) + 'about'), 3, 'ROOT_FINGERPRINT')
  status(t, await init('--fingerprint', 'height'), 3, 'ROOT_FINGERPRINT')
  status(t, await init('--yes', '--origin', 'pbx'), 2, 'USAGE_INVALID')

  const made = await init(
    '--fingerprint',
    WORDS.toUpperCase(),
    '--origin',
    'pbx=0.0.0.0:8416',
    '--host',
    'mirror.hq.lan',
    '--json',
  )
  status(t, made, 0)
  t.match(json(made), {
    site: 'hq',
    fingerprint: WORDS,
    config: join(mir, 'mirror.yaml'),
    store: join(mir, 'store'),
    isNew: true,
  })
  const text = readFileSync(join(mir, 'mirror.yaml'), 'utf8')
  t.match(text, /^apiVersion: gapferry\/v1\nkind: Mirror$/m)
  t.match(loadMirrorConfig(join(mir, 'mirror.yaml')), {
    storeDir: join(mir, 'store'),
    admin: { host: '127.0.0.1', port: 8480 },
    origins: [{ group: 'pbx', host: '0.0.0.0', port: 8416, hosts: ['mirror.hq.lan'] }],
  })

  status(t, await init(), 0)
  status(t, await init('--yes', '--origin', 'pbx=0.0.0.0:8416', '--host', 'mirror.hq.lan'), 0)
  status(t, await init('--yes', '--origin', 'pbx=0.0.0.0:9'), 2, 'CONFIG_EXISTS')
  status(t, await init('--yes', '--admin', '127.0.0.1:9'), 2, 'CONFIG_EXISTS')
  t.equal(readFileSync(join(mir, 'mirror.yaml'), 'utf8'), text, 'settings stay as they are')

  const other = { root: [newKey()], bundle: [newKey()] }
  writeFileSync(join(dir, 'root.json'), makeRoot(other))
  status(t, await init('--yes'), 2, 'ROOT_PINNED')
  writeFileSync(join(dir, 'root.json'), '{}')
  status(t, await init('--yes'), 3, 'ROOT_INVALID')
  status(t, await mirror(dir, 'init', 'mir', '--trust', 'nowhere.json'), 2, 'USAGE_INVALID')
})

t.test('init --boxes gives boxes a place to enrol at, and says what the laptop needs', async (t) => {
  const { dir, mir } = await site(t, { isBare: true })
  const init = (...more: string[]) => mirror(dir, 'init', 'mir', '--trust', 'root.json', '--yes', ...more)
  status(t, await init('--boxes', '8490'), 2)
  const made = await init('--boxes', '0.0.0.0:8490', '--host', 'mirror.hq.lan:8416')
  status(t, made, 0)
  t.match(made.stdout, `gapferry report add ${join(mir, 'store/mirror-identity.json')}`)
  const { boxes } = loadMirrorConfig(join(mir, 'mirror.yaml'))
  t.match(boxes, { host: '0.0.0.0', port: 8490, hosts: ['mirror.hq.lan'] })
  status(t, await init('--boxes', '0.0.0.0:8490'), 0)
  const other = await init('--boxes', '0.0.0.0:8491')
  status(t, other, 2, 'CONFIG_EXISTS')
  t.match(other.stderr, 'does not have boxes at 0.0.0.0:8491')
})

t.test('init without origins writes settings that say how to add one', async (t) => {
  const { dir, mir } = await site(t, { isBare: true })
  const made = await mirror(dir, 'init', 'mir', '--trust', 'root.json', '--yes')
  status(t, made, 0)
  t.match(made.stderr, /origins/)
  t.same(loadMirrorConfig(join(mir, 'mirror.yaml')).origins, [])
  t.match(readFileSync(join(mir, 'mirror.yaml'), 'utf8'), /# - group: pbxact16/)
  status(t, await mirror(mir, 'serve'), 2, 'CONFIG_INVALID')
})

t.test('from the stick to what is served, step by step', async (t) => {
  const { mir, stick } = await site(t)
  t.match((await mirror(mir, 'status')).stdout, /none is released yet/)
  t.match((await mirror(mir, 'bundles')).stdout, /no bundle has been imported yet/)
  status(t, await mirror(mir, 'release'), 4, 'RELEASE_NOTHING')

  const dry = await mirror(mir, 'import', '--dry-run', stick)
  status(t, dry, 0)
  t.match(dry.stdout, /bundle 1 of site hq.*\n.*hq-1\.tar.*not kept.*\n.*pbx.*\ncomplete; nothing was kept/)
  t.same(json(await mirror(mir, 'bundles', '--json')), { site: 'hq', bundles: [] })

  const imported = await mirror(mir, 'import', '../stick')
  status(t, imported, 0)
  t.match(imported.stdout, /complete; nothing served has changed yet/)
  t.match(imported.stderr, /next: gapferry-mirror release 1/)
  t.match(json(await mirror(mir, 'status', '--json')), { site: 'hq', bundle: null, imported: 1, ageSeconds: null })

  t.match(json(await mirror(mir, 'release', '--json')), { number: 1, released: ['pbx'], already: [], untouched: [] })
  t.match((await mirror(mir, 'release', '1')).stdout, /released already for pbx/)
  const after = json(await mirror(mir, 'status', '--json')) as { ageSeconds: number }
  t.match(after, {
    site: 'hq',
    bundle: 1,
    origins: [{ group: 'pbx', url: 'http://127.0.0.1:0', yum: ['base'], bundle: 1 }],
    store: { path: join(mir, 'store'), bundles: 1 },
  })
  t.ok(after.ageSeconds >= 3600 && after.ageSeconds < 7200)
  t.match((await mirror(mir, 'bundles')).stdout, /^1 .* complete +released for pbx$/m)

  const again = await mirror(mir, 'import', '--release', stick)
  status(t, again, 0)
  t.match(again.stdout, /bundle 1 was already here\nbundle 1 was released already for pbx/)
})

t.test('an incomplete import ends with 4 and names every missing path and its part', async (t) => {
  const { dir, mir } = await site(t)
  const names = Array.from({ length: 60 }, (_, i) => `package-${i}`)
  const two = bundle(2, [{ stamp: 20, packages: names }])
  const [first, second] = writeParts(join(dir, 'parts'), two, halves(two)) as [string, string]
  const shown = await mirror(mir, 'import', '--release', second)
  status(t, shown, 4, 'BUNDLE_INCOMPLETE')
  t.match(shown.stdout, /missing: 31 paths\n/)
  t.match(shown.stdout, /pbx\/yum\/base\/package-\d+\.rpm +\d+ B {2}in hq-2-1of2\.tar\n/)
  t.match(shown.stdout, /and 11 more/, 'the list on a terminal ends')
  t.match(shown.stderr, /next: import hq-2-1of2\.tar too/)

  const whole = await mirror(mir, 'import', second, '--json')
  status(t, whole, 4, 'BUNDLE_INCOMPLETE')
  const result = json(whole) as { missing: { path: string; part: string }[]; isComplete: boolean }
  t.equal(result.missing.length, 31, 'all of them')
  t.ok(result.missing.every(({ part }) => part === 'hq-2-1of2.tar'))
  t.match(result, { number: 2, isComplete: false, error: { code: 'BUNDLE_INCOMPLETE' } })
  t.match((await mirror(mir, 'bundles')).stdout, /incomplete: 31 paths/)
  status(t, await mirror(mir, 'release', '2'), 4, 'RELEASE_INCOMPLETE')

  const complete = await mirror(mir, 'import', '--release', first, '--json')
  status(t, complete, 0)
  t.match(json(complete), { isComplete: true, missing: [], released: { released: ['pbx'] } })
})

t.test('what must be refused ends with 3, what is not there with 4', async (t) => {
  const { dir, mir, stick } = await site(t)
  const two = bundle(2, [{ stamp: 20, packages: ['a'] }])
  const [file] = writeParts(join(dir, 'two'), two)
  status(t, await mirror(mir, 'import', file!), 0)
  status(t, await mirror(mir, 'import', stick), 3, 'ROLE_ROLLBACK')
  const [third] = writeParts(join(dir, 'three'), bundle(3, [{ stamp: 5, packages: ['c'] }]))
  status(t, await mirror(mir, 'release'), 0)
  flipByte(third!, entriesOf(third!).at(-1)!.bytesAt)
  const flipped = await mirror(mir, 'import', third!, '--json')
  status(t, flipped, 3, 'BLOB_DIGEST_MISMATCH')
  t.match(json(flipped), { error: { code: 'BLOB_DIGEST_MISMATCH', message: /^hq-3\.tar: / } })
  flipByte(third!, entriesOf(third!).at(-1)!.bytesAt)
  const stamped = await mirror(mir, 'import', '--release', third!)
  status(t, stamped, 3, 'RELEASE_STAMP')
  status(t, await mirror(mir, 'import', join(dir, 'nowhere')), 4, 'BUNDLE_NOT_FOUND')
  status(t, await mirror(mir, 'import', dir), 4, 'BUNDLE_NOT_FOUND')
  status(t, await mirror(mir, 'release', '9'), 4, 'RELEASE_NOTHING')
  status(t, await mirror(mir, 'release', 'nine'), 2, 'USAGE_INVALID')
  status(t, await mirror(mir, 'release', '2', '--group', 'lab'), 2, 'GROUP_UNKNOWN')
  status(t, await mirror(mir, 'import', '--dry-run', '--release', stick), 2, 'USAGE_INVALID')
})

t.test('settings come from --config anywhere on the line, GAPFERRY_CONFIG, or the folder one stands in', async (t) => {
  const { dir, mir } = await site(t)
  const config = join(mir, 'mirror.yaml')
  for (const args of [
    ['--config', config, 'status'],
    ['status', '--config', 'mir/mirror.yaml'],
    ['status', `--config=${config}`],
  ]) {
    status(t, await mirror(dir, ...args), 0)
  }
  status(t, await program(dir, ['status'], { environment: { GAPFERRY_CONFIG: 'mir/mirror.yaml' } }), 0)
  status(t, await mirror(dir, 'status'), 2, 'CONFIG_MISSING')
  writeFileSync(config, readFileSync(config, 'utf8').replace('keepPreviousHours', 'keepPreviosHours'))
  const misspelt = await mirror(mir, 'status')
  status(t, misspelt, 2, 'CONFIG_KEY_UNKNOWN')
  t.match(misspelt.stderr, /did you mean "keepPreviousHours"/)
  writeFileSync(config, 'apiVersion: gapferry/v1\nkind: Mirror\nstore: ./nowhere\n')
  status(t, await mirror(mir, 'status'), 2, 'STORE_MISSING')
  status(t, await mirror(mir, 'import', dir), 2, 'STORE_MISSING')
})

t.test('a second writer is told to wait; readers are not', async (t) => {
  const { mir, stick } = await site(t)
  const unlock = lockStore(join(mir, 'store'))
  t.teardown(unlock)
  const busy = await mirror(mir, 'import', stick)
  status(t, busy, 7, 'STORE_BUSY')
  t.match(busy.stderr, `process ${process.pid}`)
  status(t, await mirror(mir, 'release'), 7, 'STORE_BUSY')
  status(t, await mirror(mir, 'status'), 0)
})

t.test('says where settings and the boxes do not fit together', async (t) => {
  const { dir, mir } = await site(t)
  const two = bundle(2, [{ stamp: 20 }, { stamp: 20, group: 'lab' }])
  const imported = await mirror(mir, 'import', '--release', ...writeParts(join(dir, 'two'), two))
  status(t, imported, 0)
  t.match(imported.stderr, /warning: group lab has no origin; add .*group: lab/)
  t.match((await mirror(mir, 'status')).stdout, /warning: group lab has no origin/)
  const config = join(mir, 'mirror.yaml')
  writeFileSync(config, readFileSync(config, 'utf8').replace('127.0.0.1:0\n    hosts: []', '0.0.0.0:0\n    hosts: []'))
  t.notMatch((await mirror(mir, 'release')).stderr, /hosts/, 'an address is known behind 0.0.0.0')
})

t.test('a taken port is one plain error', async (t) => {
  const { dir } = await site(t, { isBare: true })
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const { port } = taken.address() as AddressInfo
  status(
    t,
    await mirror(
      dir,
      'init',
      'm2',
      '--trust',
      'root.json',
      '--yes',
      '--origin',
      `pbx=127.0.0.1:${port}`,
      '--admin',
      '127.0.0.1:0',
    ),
    0,
  )
  const outcome = await mirror(join(dir, 'm2'), 'serve')
  status(t, outcome, 7, 'LISTEN_FAILED')
  t.equal(outcome.stdout, '')
  t.notMatch(outcome.stderr, /\n {4}at /, 'no stack')
})

/** What a person types at a terminal; null: the end of input, Ctrl-D. */
function typing(text: string | null): Surroundings['stdin'] {
  const stdin = Object.assign(new PassThrough(), { isTTY: true })
  if (text === null) stdin.end()
  else stdin.write(text)
  return stdin
}

t.test('on a terminal it shows the words and pins only after a yes', async (t) => {
  const { dir, mir } = await site(t, { isBare: true })
  const init = (text: string | null) =>
    program(dir, ['init', 'mir', '--trust', 'root.json', '--origin', ORIGIN], { stdin: typing(text) })
  for (const text of ['no\n', '\n', 'maybe\n', null]) {
    const refused = await init(text)
    status(t, refused, 2, 'ROOT_NOT_CONFIRMED')
    for (const word of WORDS.split(' ')) t.match(refused.stderr, word)
    t.equal(existsSync(join(mir, 'mirror.yaml')) || existsSync(join(mir, 'store')), false, 'nothing was made')
  }
  status(t, await init('Yes\n'), 0)
  status(t, await init(null), 0)
})

t.test('a long step shows a bar on a terminal only', async (t) => {
  const { mir, stick } = await site(t)
  t.match((await program(mir, ['import', '--dry-run', stick], { stdin: typing('') })).stderr, /import \[/)
  t.notMatch((await mirror(mir, 'import', stick)).stderr, /import \[/)
})

t.test('a clock that is far behind is said, and does not make old things young', async (t) => {
  const { dir, mir, stick } = await site(t)
  const at = (nowMs: number, ...args: string[]) => program(mir, args, { nowMs: () => nowMs })
  const early = await at(0, 'import', '--release', stick)
  status(t, early, 0)
  t.match(early.stderr, /warning: this machine's clock says 1970-01-01, but it must be at least 2026-11-22/)
  t.match(json(await at(0, 'status', '--json')), { bundle: 1, ageSeconds: 0 })
  const late = NOW + 500 * 86_400_000
  t.match((await at(late, 'status')).stdout, /has been out of date since 2027-12-27/, 'served on, but said')
  const [next] = writeParts(join(dir, 'two'), bundle(2, [{ stamp: 20 }]))
  status(t, await at(late, 'import', next!), 3, 'ROLE_EXPIRED')
  status(t, await at(NOW, 'import', next!), 0, undefined)
})

t.test('an import that is ended by a signal says so', async (t) => {
  const { mir, stick } = await site(t)
  const ended = await program(mir, ['import', stick], { signal: AbortSignal.abort(new Error('ended by SIGINT')) })
  status(t, ended, 130)
  t.match(ended.stderr, /gapferry-mirror: ended by SIGINT; nothing half-done is kept\n$/)
})
