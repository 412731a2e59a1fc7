import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openBackup } from '../../../bundler/keys/key-backup.ts'
import { isGapferryError } from '../../../manifests/errors.ts'
import { sha256Of } from '../../../manifests/digest.ts'
import { Ledger } from '../../../storage/ledger.ts'
import { makeKeyLab, must, textsBelow } from '../../helpers/key-lab.ts'
import type { Outcome } from '../../helpers/process.ts'
import { flip } from '../../helpers/site.ts'

const json = ({ stdout }: Outcome): Record<string, unknown> => JSON.parse(stdout) as Record<string, unknown>

function reportKey(storeDir: string): string {
  const ledger = new Ledger(join(storeDir, 'ledger.db'))
  try {
    return ledger.reports.publicKey('hq')
  } finally {
    ledger.close()
  }
}

t.test(
  'lost laptop, backup, new laptop: the same keys, numbers that go on, and the mirror takes the next bundle',
  async (t) => {
    const site = await makeKeyLab(t, t.testdir())
    await site.bundle()
    await site.bundle()
    must(await site.deliver())
    const file = join(site.dir, 'hq.backup')
    const made = must(await site.gapferry('keys', 'backup', '--to', file, '--json'))
    t.match(json(made), { site: 'hq', usedNumber: 2 })
    t.notMatch(readFileSync(file, 'latin1'), /PRIVATE|root\.json|bundle-/, 'sealed')
    const again = await site.gapferry('keys', 'backup', '--to', file)
    t.match(again.stderr, /KEY_EXISTS/)

    const keys = textsBelow(site.keys)
    const lap = site.folder('new')
    const other = site.at(lap)
    t.match(
      (await site.at(lap, { environment: { GAPFERRY_PASSPHRASE: 'wrong' } })('keys', 'restore', file)).stderr,
      /KEY_PASSPHRASE_WRONG/,
    )
    const restored = must(await other('keys', 'restore', file))
    t.match(restored.stdout, /next bundle +3; if the mirror knows a higher one/)
    t.strictSame(textsBelow(join(lap, 'keys/hq')), keys)
    t.equal(reportKey(join(lap, 'store')), reportKey(join(site.dir, 'lap/store')), 'reports on their way can be opened')
    t.equal(readFileSync(join(lap, 'gapferry.yaml'), 'utf8'), readFileSync(join(site.dir, 'lap/gapferry.yaml'), 'utf8'))
    t.match((await other('keys', 'restore', file)).stderr, /KEY_EXISTS/, 'never over keys that are there')
    const packed = await other('bundle', '--to', site.stick, '--json')
    t.equal(packed.status, 0, packed.stderr)
    t.match(packed.stderr, /content of bundle 2 is not in this store: a mirror cannot roll back from bundle 3/)
    t.match(json(packed), { bundles: [{ number: 3, isNew: true }] })
    must(await site.deliver())
    t.equal(await site.served(), 3)
    t.equal(await site.bundle(lap), 4, 'and on')
    must(await site.deliver())
  },
)

t.test(
  'an old backup brings no number back, neither on the laptop that knows better nor where it is told',
  async (t) => {
    const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
    await site.bundle()
    const file = join(site.dir, 'old.backup')
    must(await site.gapferry('keys', 'backup', '--to', file))
    for (const expected of [2, 3, 4]) t.equal(await site.bundle(), expected)
    must(await site.deliver())
    // Keys lost, store kept.
    rmSync(site.keys, { recursive: true })
    t.match(json(must(await site.gapferry('keys', 'restore', file, '--json'))), { nextNumber: 5 })
    t.equal(await site.bundle(), 5)
    must(await site.deliver())
    // All lost; the person knows from the mirror that 5 is there.
    const lap = site.folder('new')
    t.match(json(must(await site.at(lap)('keys', 'restore', file, '--number-above', '5', '--json'))), { nextNumber: 6 })
    t.equal(await site.bundle(lap), 6)
    must(await site.deliver())
    t.equal(await site.served(), 6)
  },
)

t.test('memory is merged by what is higher, and what was promised here stays', (t) => {
  const ledger = new Ledger(join(t.testdir(), 'ledger.db'))
  t.teardown(() => ledger.close())
  const bundle = (number: number, content: string) => ({
    ...{ site: 'hq', number, createdAtMs: number, content: sha256Of(content), metadata: new Map(), trees: new Map() },
  })
  const promise = (stamp: number, blob: string) => [
    { group: 'a', stamps: new Map([['r', stamp]]), immutable: new Map([['p', sha256Of(blob)]]) },
  ]
  ledger.rememberBundle(bundle(7, 'mine'), promise(70, 'mine'))
  ledger.merge('hq', { bundle: bundle(5, 'old'), promises: promise(50, 'other'), usedNumber: 5 })
  t.equal(ledger.nextNumber('hq'), 8)
  t.strictSame(ledger.lastBundle('hq')?.content, sha256Of('mine'))
  t.strictSame(ledger.allPromises('hq'), promise(70, 'mine'))
  ledger.merge('hq', { bundle: bundle(7, 'other'), promises: promise(90, 'x'), usedNumber: 12 })
  t.equal(ledger.nextNumber('hq'), 13)
  t.strictSame(ledger.lastBundle('hq')?.content, sha256Of('mine'))
  t.equal(ledger.promises('hq', 'a').stamps.get('r'), 90)
  ledger.keepAbove('hq', 3)
  t.equal(ledger.nextNumber('hq'), 13, 'never lowered')
  t.equal(ledger.nextNumber('other'), 1)
  t.end()
})

t.test('a damaged backup is told from a wrong passphrase; what is no backup is refused', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
  const file = join(site.dir, 'hq.backup')
  must(await site.gapferry('keys', 'backup', '--to', file))
  const bytes = readFileSync(file)
  const unasked = (): Promise<string> => Promise.reject(new Error('asked for a passphrase'))
  for (let at = 0; at < bytes.length; at += 41) {
    const error = await openBackup(flip(bytes, at, at % 7), 'b', unasked).catch((thrown: unknown) => thrown)
    if (!isGapferryError(error, 'KEY_INVALID')) t.fail(`byte ${at}: ${String(error)}`)
  }
  await t.rejects(openBackup(bytes.subarray(0, 100), 'b', unasked), { code: 'KEY_INVALID' })
  const open = await openBackup(bytes, 'b', () => Promise.resolve('lab'))
  t.ok(open.files.has('site.asc'))
  const lap = site.folder('new')
  writeFileSync(join(lap, 'x'), '{}')
  t.match((await site.at(lap)('keys', 'restore', 'x')).stderr, /KEY_INVALID/)
  t.match((await site.at(lap)('keys', 'restore', 'nowhere')).stderr, /KEY_MISSING/)
  t.strictSame([...textsBelow(lap).keys()], ['x'], 'nothing was made')
})

t.test('two laptops with the same keys pack the same number: the mirror says what happened, and how on', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
  await site.bundle()
  must(await site.deliver())
  const twin = site.folder('twin')
  cpSync(join(site.dir, 'lap'), twin, { recursive: true })
  t.equal(await site.bundle(), 2)
  must(await site.deliver())
  const later = Date.now() + 60_000
  rmSync(join(site.stick, 'gapferry'), { recursive: true })
  must(await site.at(twin, { nowMs: () => later })('bundle', '--to', site.stick, '--renew'))
  const refused = await site.deliver()
  t.equal(refused.status, 3)
  t.match(
    refused.stderr,
    /adopted as bundle 2 \(signed .*Z by gapferry\/1.2.3 with key [0-9a-f]{8}\), found others under that number \(signed /,
  )
  t.match(refused.stderr, /next: two laptops.*: gapferry pack --renew --number-above 2\n/)
  mkdirSync(site.stick, { recursive: true })
  t.equal(await site.bundle(twin, '--number-above', '2'), 3)
  must(await site.deliver())
})

t.test('a second laptop has its own bundle key: which laptop signed is told by the key', async (t) => {
  const site = await makeKeyLab(t, t.testdir(), ['--no-passphrase'])
  await site.bundle()
  must(await site.deliver())
  const backup = join(site.dir, 'hq.backup')
  must(await site.gapferry('keys', 'backup', '--to', backup))
  const second = site.folder('second')
  must(await site.at(second)('keys', 'restore', backup))
  must(await site.at(second)('keys', 'rotate', 'bundle', '--keep-old'))
  cpSync(join(second, 'keys/hq/2.root.json'), join(site.keys, '2.root.json'))
  t.equal(await site.bundle(), 2, 'the first laptop, with the root that names both')
  must(await site.deliver())
  for (const name of textsBelow(site.keys).keys()) if (name.startsWith('bundle-')) rmSync(join(second, 'keys/hq', name))
  t.equal(await site.bundle(second), 2)
  const refused = await site.deliver()
  t.match(refused.stderr, /ROLE_CONFLICT/)
  const [, one, other] = /with key ([0-9a-f]{8})\).*with key ([0-9a-f]{8})\)/.exec(refused.stderr)!
  t.not(one, other)
  t.equal(await site.bundle(second, '--number-above', '2'), 3)
  must(await site.deliver())
  t.equal(await site.served(), 3)
})
