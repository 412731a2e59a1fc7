import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { makeKeyLab, must, only, textsBelow } from '../../helpers/key-lab.ts'
import type { Outcome } from '../../helpers/process.ts'
import { DAY } from '../../helpers/site.ts'

const json = ({ stdout }: Outcome): Record<string, unknown> => JSON.parse(stdout) as Record<string, unknown>

t.test('without enough root keys the new laptop waits; signed later, the mirror takes its bundle', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
  const rootKey = only(site.keys, /^root-/)
  await site.bundle()
  must(await site.deliver())
  const lap = site.folder('new')
  const other = site.at(lap)
  const made = await other('init', '.', '--from', site.stick, '--yes')
  t.equal(made.status, 4, made.stderr)
  t.match(made.stdout, /set up again from bundle 1/)
  t.match(made.stderr, /ROOT_PENDING.*\n {2}next: gapferry keys sign --site hq --root-key FILE/)
  must(await other('pull'))
  const early = await other('pack', '--to', site.stick)
  t.equal(early.status, 4)
  t.match(early.stderr, /KEY_MISSING.*\n {2}next: gapferry keys sign/)
  t.match((await other('keys', 'list')).stdout, /this laptop cannot sign/)
  must(await other('keys', 'sign', '--root-key', rootKey))
  t.equal(await site.bundle(lap), 2)
  must(await site.deliver())
  t.equal(await site.served(), 2)
  t.match(
    readFileSync(join(lap, 'gapferry.yaml'), 'utf8'),
    /files:\n +- \{ url: "http:.*\/phone.bin", as: "phone.bin" \}/,
  )
})

t.test(
  'of a stick the newest bundle counts, parts of two bundles are refused, settings that are there stay',
  async (t) => {
    const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
    const rootKey = only(site.keys, /^root-/)
    await site.bundle()
    const part = (n: number): string => join(site.stick, `gapferry/hq/hq-${n}.tar`)
    const kept = join(site.folder('kept'), 'hq-1.tar')
    cpSync(part(1), kept)
    await site.bundle()
    const init = (name: string, ...args: string[]): Promise<Outcome> =>
      site.at(site.folder(name))('init', '.', '--no-passphrase', '--root-key', rootKey, ...args)
    const mixed = await init('a', '--from', kept, '--from', part(2), '--yes')
    t.match(mixed.stderr, /BUNDLE_MIXED/)
    t.notOk(existsSync(join(site.dir, 'a/keys')))
    cpSync(kept, part(1))
    t.match(json(must(await init('b', '--from', site.stick, '--site', 'hq', '--yes', '--json'))), {
      number: 2,
      nextNumber: 3,
    })
    t.match((await init('c', '--from', site.folder('empty'), '--yes')).stderr, /BUNDLE_NOT_FOUND/)
    t.match((await init('c', '--from', 'nowhere.tar', '--yes')).stderr, /BUNDLE_NOT_FOUND/)
    t.match((await init('c', '--from', site.stick, '--site', 'other', '--yes')).stderr, /BUNDLE_NOT_FOUND/)
    cpSync(join(site.stick, 'gapferry/hq'), join(site.stick, 'gapferry/lab'), { recursive: true })
    cpSync(part(1), join(site.stick, 'gapferry/lab/lab-1.tar'))
    t.match((await init('c', '--from', site.stick, '--yes')).stderr, /has bundles of hq, lab \[USAGE_INVALID\]/)
    const settings = readFileSync(join(site.dir, 'lap/gapferry.yaml'), 'utf8')
    writeFileSync(join(site.folder('d'), 'gapferry.yaml'), settings)
    must(await init('d', '--from', part(2), '--yes'))
    t.equal(readFileSync(join(site.dir, 'd/gapferry.yaml'), 'utf8'), settings)
    t.match((await init('d', '--from', part(2), '--yes')).stderr, /KEY_EXISTS/)
  },
)

t.test('a bundle that expired years ago is still enough, and a forged one is not', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
  const rootKey = only(site.keys, /^root-/)
  await site.bundle()
  const later = Date.now() + 7 * 365 * DAY
  const lap = site.folder('new')
  const then = site.at(lap, { nowMs: () => later })
  const made = must(await then('init', '.', '--from', site.stick, '--yes', '--no-passphrase', '--root-key', rootKey))
  t.match(made.stdout, /this bundle has expired; mirrors take only the next one/)
  must(await then('bundle', '--to', site.stick))

  const [name, text] = [...textsBelow(site.stick)].find(([one]) => one.endsWith('hq-1.tar'))!
  const bytes = Buffer.from(text, 'latin1')
  bytes[700]! ^= 1
  writeFileSync(join(site.dir, 'hq-1.tar'), bytes)
  const forged = await site.at(site.folder('x'))(
    'init',
    '.',
    '--from',
    join(site.dir, 'hq-1.tar'),
    '--yes',
    '--no-passphrase',
  )
  t.equal(forged.status, 3, `${name}: ${forged.stderr}`)
  t.strictSame([...textsBelow(join(site.dir, 'x')).keys()], [])
})
