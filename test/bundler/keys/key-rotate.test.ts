import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { parseRoot, rootChain } from '../../../manifests/metadata.ts'
import { makeKeyLab, must, only, textsBelow, type KeyLab } from '../../helpers/key-lab.ts'
import type { Outcome } from '../../helpers/process.ts'
import { DAY } from '../../helpers/site.ts'

const lab = (t: Test, init: string[] = ['--no-passphrase']): Promise<KeyLab> => makeKeyLab(t, t.testdir(), init)
const json = ({ stdout }: Outcome): Record<string, unknown> => JSON.parse(stdout) as Record<string, unknown>
function refused(t: Test, outcome: Outcome, status: number, code: string): void {
  t.equal(outcome.status, status, outcome.stderr)
  t.match(outcome.stderr, new RegExp(`\\[${code}\\]\\n {2}next: `))
}

t.test('two of three: no root key on the laptop, one signature is not enough, two are', async (t) => {
  const dir = t.testdir({ a: {}, b: {}, c: {} })
  const media = ['a', 'b', 'c'].map((name) => join(dir, name))
  const site = await makeKeyLab(t, dir, ['--root', '2/3', ...media.flatMap((medium) => ['--root-to', medium])])
  t.notOk(
    [...textsBelow(join(dir, 'lap')).keys()].some((name) => name.includes('root-')),
    'none on the laptop',
  )
  const keys = media.map((medium) => only(medium, /^gapferry-hq-root-[0-9a-f]{8}\.key$/))
  t.equal(await site.bundle(), 1)
  must(await site.deliver())
  const oldKey = only(site.keys, /^bundle-/)

  const first = await site.gapferry('keys', 'rotate', 'bundle', '--root-key', keys[0]!)
  refused(t, first, 4, 'ROOT_PENDING')
  t.match(first.stderr, /wants 2, has 1; [0-9a-f]{8} or [0-9a-f]{8} may still sign/)
  t.ok(existsSync(join(site.keys, 'pending.root.json')))
  t.match((await site.gapferry('keys', 'list')).stdout, /root 2 waits for signatures: root 1 wants 2, has 1/)
  t.equal(await site.bundle(), 2, 'meanwhile the root in force signs')
  must(await site.deliver())

  refused(t, await site.gapferry('keys', 'rotate', 'bundle'), 4, 'ROOT_PENDING')
  refused(t, await site.gapferry('keys', 'sign', '--root-key', keys[0]!), 4, 'ROOT_PENDING')
  refused(t, await site.gapferry('keys', 'sign', '--root-key', oldKey), 3, 'KEY_INVALID')
  const second = must(await site.gapferry('keys', 'sign', '--root-key', keys[2]!, '--json'))
  t.match(json(second), { version: 2, isInForce: true })
  t.notOk(existsSync(join(site.keys, 'pending.root.json')))
  t.equal(await site.bundle(), 3)
  must(await site.deliver())
  t.equal(await site.served(), 3)
  t.match((await site.gapferry('keys', 'list', '--json')).stdout, /"state":"retired"/)
})

t.test('a copy is signed on another machine, and two copies come together', async (t) => {
  const dir = t.testdir({ a: {}, b: {}, c: {}, elsewhere: {} })
  const media = ['a', 'b', 'c'].map((name) => join(dir, name))
  const site = await makeKeyLab(t, dir, [
    '--no-passphrase',
    '--root',
    '3/3',
    ...media.flatMap((medium) => ['--root-to', medium]),
  ])
  const keys = media.map((medium) => only(medium, /\.key$/))
  refused(t, await site.gapferry('keys', 'rotate', 'bundle', '--root-key', keys[0]!), 4, 'ROOT_PENDING')
  const elsewhere = site.at(join(dir, 'elsewhere'))
  for (const [i, name] of ['one.json', 'two.json'].entries()) {
    copyFileSync(join(site.keys, 'pending.root.json'), join(dir, 'elsewhere', name))
    const signed = must(await elsewhere('keys', 'sign', '--pending', name, '--root-key', keys[i + 1]!))
    t.match(signed.stdout, /root 2 of hq: signed by [0-9a-f]{8}\n {2}next: carry .*--copy FILE/)
  }
  const copies = ['one.json', 'two.json'].map((name) => join(dir, 'elsewhere', name))
  refused(t, await site.gapferry('keys', 'sign', '--copy', copies[0]!), 4, 'ROOT_PENDING')
  t.match(json(must(await site.gapferry('keys', 'sign', '--copy', copies[1]!, '--json'))), { isInForce: true })
  rootChain(
    [1, 2].map((n) => readFileSync(join(site.keys, `${n}.root.json`))),
    'root',
  )
  refused(t, await site.gapferry('keys', 'sign', '--copy', copies[1]!), 4, 'KEY_MISSING')
})

t.test('signatures for another root, and bad ones, do not count', async (t) => {
  const dir = t.testdir({ a: {}, b: {} })
  const site = await makeKeyLab(t, dir, [
    '--no-passphrase',
    '--root',
    '2/2',
    '--root-to',
    join(dir, 'a'),
    '--root-to',
    join(dir, 'b'),
  ])
  const [a, b] = ['a', 'b'].map((name) => only(join(dir, name), /\.key$/)) as [string, string]
  await site.gapferry('keys', 'rotate', 'bundle', '--root-key', a)
  const pending = join(site.keys, 'pending.root.json')
  copyFileSync(pending, join(dir, 'old.json'))
  must(await site.gapferry('keys', 'rotate', '--discard'))
  refused(t, await site.gapferry('keys', 'sign', '--root-key', a), 4, 'KEY_MISSING')
  await site.gapferry('keys', 'rotate', '--root-key', a)
  refused(t, await site.gapferry('keys', 'sign', '--copy', join(dir, 'old.json')), 3, 'ROLE_MIXED')
  const doc = JSON.parse(readFileSync(pending, 'utf8')) as { signatures: { keyid: string; sig: string }[] }
  const keyid = (JSON.parse(readFileSync(b, 'utf8')) as { keyid: string }).keyid
  doc.signatures.push({ keyid, sig: doc.signatures[0]!.sig })
  writeFileSync(pending, `${JSON.stringify(doc, null, 1)}\n`)
  refused(t, await site.gapferry('keys', 'sign'), 4, 'ROOT_PENDING')
  t.notOk(existsSync(join(site.keys, '2.root.json')))
  t.match(
    json(must(await site.gapferry('keys', 'sign', '--root-key', b, '--json'))),
    { isInForce: true },
    'a good one in its place',
  )
})

t.test(
  'a mirror two rotations behind catches up from one bundle; a skipped root and the old key are refused',
  async (t) => {
    const site = await lab(t)
    t.equal(await site.bundle(), 1)
    must(await site.deliver())
    const before = textsBelow(site.keys)
    must(await site.gapferry('keys', 'rotate', 'bundle'))
    must(await site.gapferry('keys', 'rotate', 'root'))
    must(await site.gapferry('keys', 'rotate', 'bundle'))
    t.equal(await site.bundle(), 2)
    const [part] = [...textsBelow(site.stick).keys()].filter((name) => name.endsWith('.tar'))
    t.ok(part)
    must(await site.deliver())
    t.equal(await site.served(), 2)

    // A thief who has the first bundle key signs with the root he knows.
    const thief = site.folder('thief')
    copyFileSync(join(site.dir, 'lap/gapferry.yaml'), join(thief, 'gapferry.yaml'))
    site.folder('thief/keys/hq')
    for (const [name, text] of before) writeFileSync(join(thief, 'keys/hq', name), Buffer.from(text, 'latin1'))
    t.equal(await site.bundle(thief, '--number-above', '9000'), 9001)
    const old = await site.deliver()
    refused(t, old, 3, 'ROLE_SIGNATURE')
    t.equal(await site.served(), 2)
  },
)

t.test('a stolen key signed a number far too high: after the rotation ordinary numbers go on', async (t) => {
  const site = await lab(t)
  await site.bundle()
  must(await site.deliver())
  const thief = site.folder('thief')
  for (const [name, text] of textsBelow(join(site.dir, 'lap'))) {
    if (name.startsWith('store/')) continue
    site.folder(join('thief', name, '..'))
    writeFileSync(join(thief, name), Buffer.from(text, 'latin1'))
  }
  t.equal(await site.bundle(thief, '--number-above', '9998'), 9999)
  must(await site.deliver())
  t.equal(await site.served(), 9999, 'the mirror believes him')
  t.equal(await site.bundle(), 2)
  refused(t, await site.deliver(), 3, 'ROLE_ROLLBACK')
  must(await site.gapferry('keys', 'rotate', 'bundle'))
  t.equal(await site.bundle(), 3)
  must(await site.deliver())
  t.equal(await site.served(), 3)
  t.equal(await site.bundle(thief), 10_000)
  refused(t, await site.deliver(), 3, 'ROLE_SIGNATURE')
})

t.test('changed keys make a new bundle although nothing else changed', async (t) => {
  const site = await lab(t)
  const pack = async (): Promise<unknown> => json(must(await site.gapferry('pack', '--to', site.stick, '--json')))
  must(await site.gapferry('pull'))
  t.match(await pack(), { bundles: [{ number: 1, isNew: true }] })
  t.match(await pack(), { bundles: [{ number: 1, isNew: false }] })
  must(await site.gapferry('keys', 'rotate'))
  t.match(await pack(), { bundles: [{ number: 2, isNew: true }] })
  t.match(await pack(), { bundles: [{ number: 2, isNew: false }] })
})

t.test('no change of keys renews the expiry; an expired root can still be renewed', async (t) => {
  const site = await lab(t)
  const later = Date.now() + 6 * 365 * DAY
  const then = site.at(join(site.dir, 'lap'), { nowMs: () => later })
  must(await site.gapferry('pull'))
  refused(t, await then('pack', '--to', site.stick), 3, 'ROLE_EXPIRED')
  t.match((await then('keys', 'list')).stdout, /root 1 has expired, bundles are refused: gapferry keys rotate/)
  const keysOf = (n: number): unknown => {
    const { keys, roles } = parseRoot(readFileSync(join(site.keys, `${n}.root.json`)), 'root').metadata.signed
    return JSON.parse(JSON.stringify({ keys, roles }))
  }
  t.match(json(must(await then('keys', 'rotate', '--json'))), { version: 2, newKeys: [], isInForce: true })
  t.same(keysOf(2), keysOf(1))
  must(await then('pack', '--to', site.stick))
})

t.test('new root keys: the old and the new threshold sign; one lost key of three is replaced', async (t) => {
  const dir = t.testdir({ a: {}, b: {}, c: {}, d: {} })
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => join(dir, name)) as [string, string, string, string]
  const site = await makeKeyLab(t, dir, ['--no-passphrase'])
  const grown = ['keys', 'rotate', 'root', '--no-passphrase', '--root', '2/3']
  refused(t, await site.gapferry(...grown), 2, 'USAGE_INVALID')
  must(await site.gapferry(...grown, '--root-to', a, '--root-to', b, '--root-to', c))
  const key = (medium: string): string => only(medium, /\.key$/)
  const lost = (JSON.parse(readFileSync(key(b), 'utf8')) as { keyid: string }).keyid.slice(0, 8)
  const replace = ['keys', 'rotate', 'root', '--no-passphrase', '--replace', lost, '--root-to', d, '--root-key', key(a)]
  refused(t, await site.gapferry(...replace), 4, 'ROOT_PENDING')
  const left = await site.gapferry('keys', 'list')
  t.match(
    left.stdout,
    /root 3 waits for signatures: root 2 wants 2, has 1; [0-9a-f]{8} or [0-9a-f]{8} may still sign\n/,
    'the new root has its two',
  )
  must(await site.gapferry('keys', 'sign', '--root-key', key(c)))
  const keyids = parseRoot(readFileSync(join(site.keys, '3.root.json')), 'root').metadata.signed.roles['root']!.keyIDs
  t.equal(keyids.length, 3)
  t.notOk(keyids.some((keyid) => keyid.startsWith(lost)))
  await site.bundle()
  must(await site.deliver())
  refused(t, await site.gapferry('keys', 'rotate', 'root', '--replace', lost, '--root-to', b), 2, 'USAGE_INVALID')
  refused(t, await site.gapferry('keys', 'rotate', 'bundle', '--root-key', key(b)), 3, 'KEY_INVALID')
})

t.test('a crash between the two steps of taking force leaves the new root in force', async (t) => {
  const dir = t.testdir({ a: {} })
  const site = await makeKeyLab(t, dir, ['--no-passphrase', '--root-to', join(dir, 'a')])
  refused(t, await site.gapferry('keys', 'rotate', 'bundle'), 4, 'ROOT_PENDING')
  const pending = readFileSync(join(site.keys, 'pending.root.json'))
  must(await site.gapferry('keys', 'sign', '--root-key', only(join(dir, 'a'), /key$/)))
  writeFileSync(join(site.keys, 'pending.root.json'), pending)
  t.notMatch((await site.gapferry('keys', 'list')).stdout, /waits/)
  await site.bundle()
  must(await site.deliver())
})

t.test('what cannot be meant is refused with the next command', async (t) => {
  const site = await lab(t, [])
  refused(t, await site.gapferry('keys', 'rotate', 'bundel'), 2, 'USAGE_INVALID')
  refused(t, await site.gapferry('keys', 'rotate', '--site', 'nowhere'), 2, 'SITE_UNKNOWN')
  refused(t, await site.gapferry('keys', 'rotate', 'root', '--root', '3/2'), 2, 'USAGE_INVALID')
  refused(t, await site.gapferry('keys', 'rotate', 'bundle', '--pkcs11', 'x.so'), 2, 'USAGE_INVALID')
  refused(t, await site.gapferry('keys', 'sign'), 4, 'KEY_MISSING')
  refused(t, await site.gapferry('keys', 'rotate', '--root-key', 'nowhere.key'), 4, 'KEY_MISSING')
  refused(t, await site.gapferry('keys', 'sign', '--pending', 'nowhere.json', '--root-key', 'x'), 4, 'KEY_MISSING')
  t.notOk(existsSync(join(site.keys, '2.root.json')))
  const wrong = site.at(join(site.dir, 'lap'), { environment: { GAPFERRY_PASSPHRASE: 'wrong' } })
  refused(t, await wrong('keys', 'rotate', 'bundle'), 2, 'KEY_PASSPHRASE_WRONG')
  t.notOk(existsSync(join(site.keys, 'pending.root.json')))
})
