import { join } from 'node:path'
import t from 'tap'
import { createSiteKeys } from '../../bundler/keys/create-keys.ts'
import { loadSite, unlockSite, type SiteSigner } from '../../bundler/keys/keys.ts'
import { signBundle } from '../../bundler/sign.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { parseTargets, parseTimestamp } from '../../manifests/metadata.ts'
import { verifyMetadata } from '../../storage/trust.ts'
import { DAY, makeRoot, newKey, NOW, type SiteKeys } from '../helpers/site.ts'

const scratchDir = t.testdir()
const pair = [newKey(), newKey()] as const
const keys: SiteKeys = { root: [newKey()], bundle: [pair[0]] }
const roots = [makeRoot(keys)]
const targets = new Map([
  ['pbx/current', { sha256: sha256Of('current'), bytes: 7 }],
  ['site', { sha256: sha256Of('site'), bytes: 4 }],
])
const order = {
  site: 'hq',
  number: 3,
  roots,
  targets,
  signer: signerOf(pair[0]),
  nowMs: NOW,
  bundler: 'gapferry 0.1.0',
}

t.test('signs a bundle that a mirror believes', async (t) => {
  const files = signBundle(order)
  t.strictSame([...files.keys()], ['timestamp.json', '3.snapshot.json', '3.targets.json', '1.root.json'])
  const found = await verifyMetadata({ trusted: { roots }, offered: files, nowMs: NOW, scratchDir })
  t.match(found, { site: 'hq', number: 3, createdAtMs: NOW, expiresAtMs: NOW + 400 * DAY, bundler: 'gapferry 0.1.0' })
  t.strictSame(found.targets, targets)
})

t.test('the order in which trees are given does not matter, and equal signatures give equal bytes', async (t) => {
  t.strictSame(signBundle({ ...order, targets: new Map([...targets].reverse()) }), signBundle(order))
})

t.test('signs with real keys', async (t) => {
  const dir = join(scratchDir, 'keys')
  await createSiteKeys({ dir, site: 'hq', passphrase: null, nowMs: NOW })
  const signer = await unlockSite({ dir, site: 'hq', passphrase: null })
  const real = loadSite(dir, 'hq').roots
  const files = signBundle({ ...order, roots: real, signer })
  t.match(await verifyMetadata({ trusted: { roots: real }, offered: files, nowMs: NOW, scratchDir }), { number: 3 })
})

t.test('carries every root, oldest first', async (t) => {
  const chain = [...roots, makeRoot(keys, { version: 2 })]
  const files = signBundle({ ...order, roots: chain })
  t.strictSame([...files.keys()].slice(3), ['1.root.json', '2.root.json'])
  const found = await verifyMetadata({ trusted: { roots }, offered: files, nowMs: NOW, scratchDir })
  t.strictSame(found.state.roots, chain)
})

t.test('expires after as many days as are asked for', async (t) => {
  const files = signBundle({ ...order, expiryDays: 30 })
  t.equal(parseTimestamp(files.get('timestamp.json')!, 'timestamp').expiresAtMs, NOW + 30 * DAY)
  t.equal(parseTargets(files.get('3.targets.json')!, 'targets').expiresAtMs, NOW + 30 * DAY)
  t.throws(() => signBundle({ ...order, expiryDays: 0 }), { code: 'ROLE_INVALID' })
})

t.test('does not make what a mirror would refuse', async (t) => {
  t.throws(() => signBundle({ ...order, site: 'lab' }), { code: 'SITE_MISMATCH' })
  t.throws(() => signBundle({ ...order, signer: signerOf(newKey()) }), { code: 'ROLE_SIGNATURE' }, 'a key of no role')
  t.throws(() => signBundle({ ...order, signer: { signMetadata: () => [] } }), { code: 'ROLE_SIGNATURE' })
  t.throws(() => signBundle({ ...order, roots: [] }), { code: 'ROOT_INVALID' })
  t.throws(() => signBundle({ ...order, nowMs: NOW + 1826 * DAY }), { code: 'ROLE_EXPIRED' }, 'the root is too old')
  t.throws(() => signBundle({ ...order, number: 2 ** 50 }), { code: 'ROLE_INVALID' })
})

t.test('two of two for targets: one key is not enough, both are', async (t) => {
  const twoRoots = [makeRoot({ ...keys, targets: [...pair], thresholds: { targets: 2 } })]
  t.throws(() => signBundle({ ...order, roots: twoRoots }), { code: 'ROLE_SIGNATURE', message: /expected 2 good/ })
  const both: Pick<SiteSigner, 'signMetadata'> = {
    signMetadata: (role, bytes) => (role === 'targets' ? pair : [pair[0]]).map((key) => key.sign(bytes)),
  }
  const files = signBundle({ ...order, roots: twoRoots, signer: both })
  t.match(await verifyMetadata({ trusted: { roots: twoRoots }, offered: files, nowMs: NOW, scratchDir }), { number: 3 })
})

function signerOf(key: ReturnType<typeof newKey>): Pick<SiteSigner, 'signMetadata'> {
  return { signMetadata: (_role, bytes) => [key.sign(bytes)] }
}
