import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createSiteKeys } from '../../../bundler/keys/create-keys.ts'
import { openKey, parseKeyFile } from '../../../bundler/keys/keyfile.ts'
import { runGapferry } from '../../../bundler/program.ts'
import { pinRoot } from '../../../manifests/metadata.ts'
import { inside } from '../../helpers/inside.ts'
import { must, only, textsBelow } from '../../helpers/key-lab.ts'
import type { Outcome } from '../../helpers/process.ts'
import { NOW } from '../../helpers/site.ts'

const environment = { GAPFERRY_PASSPHRASE: 'lab' }
const init = (cwd: string, args: string[], more: Record<string, string> = {}): Promise<Outcome> =>
  inside(runGapferry, cwd, ['init', 'lap', ...args], { environment: { ...environment, ...more } })
const media = (dir: string, ...names: string[]): string[] => names.flatMap((name) => ['--root-to', join(dir, name)])

t.test('one root key on the laptop is allowed, with a warning', async (t) => {
  const dir = t.testdir()
  const made = must(await init(dir, ['--no-passphrase']))
  t.match(made.stderr, /warning: the root key of hq lies on this laptop: .*--root 2\/3/)
  const listed = must(await inside(runGapferry, join(dir, 'lap'), ['keys', 'list']))
  t.match(listed.stdout, /warning: 1 root key beside the bundle key: who steals this laptop/)
  t.match(listed.stdout, /warning: 3 keys without a passphrase/)
})

t.test('two of three: each on its medium, under a passphrase of its own, none on the laptop', async (t) => {
  const dir = t.testdir({ a: {}, b: {}, c: {} })
  const made = must(
    await init(dir, ['--root', '2/3', ...media(dir, 'a', 'b', 'c'), '--json'], { GAPFERRY_ROOT_PASSPHRASE: 'root' }),
  )
  const [site] = (JSON.parse(made.stdout) as { sites: [{ rootKeys: string[] }] }).sites
  t.equal(site.rootKeys.length, 3)
  const ids = new Set<string>()
  for (const name of ['a', 'b', 'c']) {
    const file = parseKeyFile(readFileSync(only(join(dir, name), /^gapferry-hq-root-[0-9a-f]{8}\.key$/)), name)
    t.equal(file.role, 'root')
    ids.add(file.keyid)
    t.ok(await openKey(file, 'root', name), 'the passphrase of root keys')
    await t.rejects(openKey(file, 'lab', name), { code: 'KEY_PASSPHRASE_WRONG' })
  }
  t.equal(ids.size, 3)
  t.notOk([...textsBelow(join(dir, 'lap')).keys()].some((name) => name.includes('root-')))
  t.match(made.stderr, /lies on the same disk as the bundle key/, 'here all lie on one disk')
  const root = pinRoot(readFileSync(join(dir, 'lap/keys/hq/1.root.json')))
  t.equal(root.version, 1)
  const listed = must(await inside(runGapferry, join(dir, 'lap'), ['keys', 'list', '--json']))
  const [one] = (
    JSON.parse(listed.stdout) as {
      sites: [{ root: object; keys: { role: string; protection: string }[]; warnings: string[] }]
    }
  ).sites
  t.match(one.root, { threshold: 2, keys: 3 })
  t.same(one.warnings, [])
  t.equal(one.keys.filter((key) => key.role === 'root' && key.protection === 'elsewhere').length, 3)
})

t.test('everything or nothing: a medium that fails leaves no key anywhere', async (t) => {
  const dir = t.testdir({ a: {}, b: {} })
  const cases: [string, string[], number, string][] = [
    [
      'a medium that cannot be written',
      ['--root', '2/3', ...media(dir, 'a', 'b'), '--root-to', '/proc'],
      1,
      'MEDIUM_UNUSABLE',
    ],
    ['one that is not there', ['--root', '2/2', ...media(dir, 'a', 'nowhere')], 1, 'MEDIUM_UNUSABLE'],
    ['two keys on one medium', ['--root', '2/2', ...media(dir, 'a', 'a')], 2, 'USAGE_INVALID'],
    ['too few media', ['--root', '2/3', ...media(dir, 'a', 'b')], 2, 'USAGE_INVALID'],
    ['none', ['--root', '2/3'], 2, 'USAGE_INVALID'],
    ['the folder of the keys itself', media(dir, 'lap/keys'), 2, 'USAGE_INVALID'],
    ['a threshold that cannot be met', ['--root', '4/3'], 2, 'USAGE_INVALID'],
    ['no threshold', ['--root', '0/3'], 2, 'USAGE_INVALID'],
    ['no numbers', ['--root', 'all'], 2, 'USAGE_INVALID'],
  ]
  mkdirSync(join(dir, 'lap/keys'), { recursive: true })
  for (const [what, args, status, code] of cases) {
    const outcome = await init(dir, args)
    t.equal(outcome.status, status, `${what}: ${outcome.stderr}`)
    t.match(outcome.stderr, `[${code}]`, what)
    t.notOk(existsSync(join(dir, 'lap/keys/hq')), what)
    for (const name of ['a', 'b', 'lap/keys']) t.strictSame(readdirSync(join(dir, name)), [], `${what}: ${name}`)
  }
})

t.test('a folder that cannot be made takes the keys on the media with it', async (t) => {
  const dir = t.testdir({ a: {} })
  writeFileSync(join(dir, 'keys'), 'a file in the way')
  const root = { threshold: 1, number: 1, to: [join(dir, 'a')], passphrase: () => Promise.resolve(null) }
  await t.rejects(createSiteKeys({ dir: join(dir, 'keys'), site: 'hq', passphrase: null, nowMs: NOW, root }))
  t.strictSame(readdirSync(join(dir, 'a')), [])
})

t.test('a key of the list that is gone is told', async (t: Test) => {
  const dir = t.testdir()
  must(await init(dir, ['--no-passphrase']))
  const keys = join(dir, 'lap/keys/hq')
  rmSync(only(keys, /^bundle-/))
  rmSync(only(keys, /^openpgp-/))
  const listed = must(await inside(runGapferry, join(dir, 'lap'), ['keys', 'list']))
  t.match(listed.stdout, /bundle +[0-9a-f]{8} +in force +elsewhere +not on this laptop/)
  t.match(listed.stdout, /this laptop cannot sign; gapferry keys rotate bundle --site hq/)
  t.match(listed.stdout, /the OpenPGP key of site.asc is missing: gapferry keys restore FILE/)
})
