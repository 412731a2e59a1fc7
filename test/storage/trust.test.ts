import { mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { serializeMetadata } from '../../manifests/metadata.ts'
import { verifyMetadata, type TrustedState, type VerifiedMetadata } from '../../storage/trust.ts'
import { DAY, flip, forge, makeBundle, makeRoot, newKey, NOW, type Loose, type SiteKeys } from '../helpers/site.ts'

// One site that lives through a rotation: root 1 is 2 of 2 {A, B}, root 2 is 2 of 2 {A, C}, C is RSA; new bundle key.
const [A, B, C] = [newKey(), newKey(), newKey('rsa')]
const keys1: SiteKeys = { root: [A, B], bundle: [newKey()], thresholds: { root: 2 } }
const keys2: SiteKeys = { root: [A, C], bundle: [newKey()], thresholds: { root: 2 } }
const root1 = makeRoot(keys1)
const root2 = makeRoot(keys2, { version: 2, signers: [A, B, C] })
const pinned: TrustedState = { roots: [root1] }
const scratchDir = t.testdir()

t.afterEach(() => t.strictSame(readdirSync(scratchDir), [], 'nothing is left behind'))

t.test('accepts the first bundle', async (t) => {
  const found = await verify(bundle(1))
  t.match(found, { site: 'hq', number: 1, isNew: true, bundler: 'gapferry 0.1.0', createdAtMs: NOW })
  t.equal(found.expiresAtMs, NOW + 400 * DAY)
  t.strictSame([...found.targets.keys()], ['pbx/current', 'site'])
  t.strictSame(found.state.roots, [root1])
  t.strictSame(found.state.timestamp, bundle(1).get('timestamp.json'))
})

t.test('accepts a newer bundle, also with numbers left out', async (t) => {
  const first = await verify(bundle(1))
  t.match(await verify(bundle(2), first.state), { number: 2, isNew: true })
  t.match(await verify(bundle(9), first.state), { number: 9, isNew: true })
})

t.test('accepts the same bundle twice and says that it is not new', async (t) => {
  const first = await verify(bundle(1))
  const second = await verify(bundle(1), first.state)
  t.strictSame(second, { ...first, isNew: false })
})

t.test('accepts a root rotation, 2 of 2 {A, B} to 2 of 2 {A, RSA C}, with a new bundle key', async (t) => {
  const first = await verify(bundle(1))
  const second = await verify(bundle(2, { keys: keys2, roots: [root1, root2] }), first.state)
  t.match(second, { number: 2, isNew: true })
  t.strictSame(second.state.roots, [root1, root2])
  t.match(await verify(bundle(3, { keys: keys2, roots: [root1, root2] }), second.state), { number: 3 })
})

t.test('a mirror two rotations behind catches up, also when it starts from the pinned root', async (t) => {
  const keys3: SiteKeys = { root: [C], bundle: [newKey()] }
  const root3 = makeRoot(keys3, { version: 3, signers: [A, C] })
  const found = await verify(bundle(5, { keys: keys3, roots: [root1, root2, root3] }))
  t.strictSame(found.state.roots, [root1, root2, root3])
  t.match(await verify(bundle(6, { keys: keys3, roots: [root1, root2, root3] }), found.state), { number: 6 })
})

t.test('recovers after numbers were run ahead with a stolen key and the key was replaced', async (t) => {
  const far = await verify(bundle(9999))
  await refused(t, bundle(2), 'ROLE_ROLLBACK', far.state)
  const healed = await verify(bundle(2, { keys: keys2, roots: [root1, root2] }), far.state)
  t.match(healed, { number: 2, isNew: true })
  t.match(await verify(bundle(3, { keys: keys2, roots: [root1, root2] }), healed.state), { number: 3 })
})

t.test('recovers when only one of the three roles got new keys', async (t) => {
  for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
    const fresh = newKey()
    const root = forge(root2, [A, B, C], (signed: Loose) => {
      signed.roles = { ...JSON.parse(root1.toString()).signed.roles, root: signed.roles.root }
      signed.keys = { ...signed.keys, ...JSON.parse(root1.toString()).signed.keys, [fresh.keyid]: fresh.key }
      signed.roles[role] = { keyids: [fresh.keyid], threshold: 1 }
    })
    const far = await verify(bundle(9999))
    const mixed = resign(bundle(2, { roots: [root1, root] }), { [role]: fresh })
    t.match(await verify(mixed, far.state), { number: 2 }, role)
  }
})

t.test('a key that is added, or goes without having signed what is trusted, does not lower the number', async (t) => {
  const spare = newKey()
  const both = roomy(2, [...keys1.bundle, spare])
  const back = roomy(3, keys1.bundle)
  const first = await verify(bundle(5))
  await refused(t, bundle(4, { roots: [root1, both] }), 'ROLE_ROLLBACK', first.state)
  await refused(t, bundle(4, { roots: [root1, both, back] }), 'ROLE_ROLLBACK', first.state)
})

t.test('a half-written trusted file heals with the next bundle, and the others still guard the number', async (t) => {
  const { state } = await verify(bundle(5))
  for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
    const torn = { ...state, [role]: state[role]!.subarray(0, 200) }
    t.match(await verify(bundle(6), torn), { number: 6, isNew: true }, `${role} torn, newer bundle`)
    const again = await verify(bundle(5), torn)
    t.match(again, { number: 5, isNew: true }, `${role} torn, same bundle`)
    t.strictSame(again.state, state)
    await refused(t, bundle(4), 'ROLE_ROLLBACK', torn)
  }
})

t.test('refuses an older bundle', async (t) => {
  const { state } = await verify(bundle(2))
  await refused(t, bundle(1), 'ROLE_ROLLBACK', state, /expected bundle 2 or newer, found bundle 1/)
})

t.test('refuses an older bundle also when what is trusted has expired', async (t) => {
  const { state } = await verify(bundle(2, { createdAtMs: NOW - 500 * DAY }), pinned, NOW - 450 * DAY)
  await refused(t, bundle(1, { createdAtMs: NOW }), 'ROLE_ROLLBACK', state)
})

t.test('refuses other bytes under a number that is trusted', async (t) => {
  const { state } = await verify(bundle(2))
  await refused(t, bundle(2, { createdAtMs: NOW + 1000 }), 'ROLE_CONFLICT', state)
})

t.test('refuses any flipped byte in timestamp, snapshot, targets and a new root', async (t) => {
  const { state } = await verify(bundle(1))
  const good = bundle(2, { keys: keys2, roots: [root1, root2] })
  const codes = [
    'ROLE_INVALID',
    'ROLE_SIGNATURE',
    'ROLE_KEYID',
    'ROLE_MIXED',
    'SITE_MISMATCH',
    'ROLE_ROLLBACK',
  ] as const
  for (const name of ['timestamp.json', '2.snapshot.json', '2.targets.json', '2.root.json']) {
    const bytes = good.get(name)!
    const passed: number[] = []
    for (let at = 0; at < bytes.length; at += name === '2.root.json' ? 7 : 3) {
      const altered = new Map(good).set(name, flip(bytes, at, at % 8))
      try {
        await verify(altered, state)
        passed.push(at)
      } catch (error) {
        if (!isGapferryError(error, ...codes)) throw error
      }
    }
    t.strictSame(passed, [], name)
  }
})

t.test("the bundle's own copy of a root that is trusted is never read, and never kept", async (t) => {
  const offered = bundle(1).set('1.root.json', Buffer.from('anything'))
  t.strictSame((await verify(offered)).state.roots, [root1])
  const rotated = await verify(bundle(2, { keys: keys2, roots: [root1, root2] }))
  const later = bundle(3, { keys: keys2, roots: [Buffer.from('anything'), flip(root2, 9)] })
  t.strictSame((await verify(later, rotated.state)).state.roots, [root1, root2])
})

t.test('refuses an expired bundle, with both dates', async (t) => {
  await refused(
    t,
    bundle(1),
    'ROLE_EXPIRED',
    pinned,
    /expired 2027-12-27T12:00:00Z, now it is 2031-01-01/,
    Date.UTC(2031, 0, 1),
  )
  for (const name of ['1.snapshot.json', '1.targets.json']) {
    const short = resign(bundle(1), {}, (role, signed) => {
      if (name.includes(role)) signed.expires = '2026-11-22T12:00:00Z'
    })
    await refused(t, short, 'ROLE_EXPIRED', pinned, new RegExp(`^${name}: expired`))
  }
})

t.test('refuses everything under an expired root, and accepts under a newer one', async (t) => {
  const old = makeRoot(keys1, { expiresAtMs: NOW - DAY })
  await refused(t, bundle(1, { roots: [old] }), 'ROLE_EXPIRED', { roots: [old] }, /root/)
  t.match(await verify(bundle(1, { keys: keys2, roots: [old, root2] }), { roots: [old] }), { number: 1 })
})

t.test('judges by the time it is given, tuf-js too', async (t) => {
  const longAgo = bundle(1, { createdAtMs: Date.UTC(2020, 0, 1) })
  const root = makeRoot(keys1, { expiresAtMs: Date.UTC(2020, 6, 1) })
  const found = await verify(longAgo, { roots: [root] }, Date.UTC(2020, 1, 1))
  t.equal(found.expiresAtMs, Date.UTC(2020, 6, 1), 'the earliest of bundle and root')
})

t.test('refuses a wrong key', async (t) => {
  const stranger = { root: [newKey()], bundle: [newKey()] }
  await refused(
    t,
    bundle(1, { keys: stranger, roots: [makeRoot(stranger)] }),
    'ROLE_SIGNATURE',
    pinned,
    /expected 1 good signature/,
  )
})

t.test('refuses a bundle of another site by name, whatever signed it', async (t) => {
  await refused(t, makeBundle(keys1, { site: 'lab' }), 'SITE_MISMATCH', pinned, /expected site hq, found site lab/)
  const other = { root: [newKey()], bundle: [newKey()] }
  await refused(t, makeBundle(other, { site: 'lab', roots: [makeRoot(other, { site: 'lab' })] }), 'SITE_MISMATCH')
  const lab2 = makeRoot(keys2, { site: 'lab', version: 2, signers: [A, B, C] })
  await refused(t, makeBundle(keys2, { site: 'lab', roots: [root1, lab2] }), 'SITE_MISMATCH')
  await refused(t, bundle(1), 'SITE_MISMATCH', pinned, /expected site lab, found site hq/, NOW, 'lab')
  for (const role of ['snapshot', 'targets'])
    await refused(
      t,
      resign(bundle(1), {}, (name, signed) => void (name === role && (signed['x-site'] = 'lab'))),
      'SITE_MISMATCH',
    )
})

t.test('refuses files of several bundles together', async (t) => {
  const [one, two] = [bundle(1), bundle(2)]
  const mixes: [string, Map<string, Buffer>][] = [
    ['timestamp of 2, the rest of 1', new Map(one).set('timestamp.json', two.get('timestamp.json')!)],
    ['timestamp of 1, the rest of 2', new Map(two).set('timestamp.json', one.get('timestamp.json')!)],
    ['old snapshot renamed', new Map(two).set('2.snapshot.json', one.get('1.snapshot.json')!)],
    ['old targets renamed', new Map(two).set('2.targets.json', one.get('1.targets.json')!)],
    ['a file too many', new Map(two).set('1.targets.json', one.get('1.targets.json')!)],
    ['a file of no role', new Map(two).set('mirrors.json', one.get('1.targets.json')!)],
    [
      'an equal number, another snapshot',
      new Map(two).set('2.snapshot.json', bundle(2, { createdAtMs: NOW + DAY }).get('2.snapshot.json')!),
    ],
    [
      'an equal number, other targets',
      new Map(two).set('2.targets.json', bundle(2, { createdAtMs: NOW + DAY }).get('2.targets.json')!),
    ],
  ]
  const otherSnapshot = forge(two.get('2.snapshot.json')!, keys1.bundle, (signed: Loose) => {
    signed.expires = '2027-12-31T00:00:00Z'
  })
  mixes.push(['another snapshot that names the same targets', new Map(two).set('2.snapshot.json', otherSnapshot)])
  for (const name of two.keys()) if (name !== '1.root.json') mixes.push([`without ${name}`, without(two, name)])
  for (const [what, offered] of mixes) await refused(t, offered, 'ROLE_MIXED', pinned, undefined, NOW, 'hq', what)
  await refused(t, new Map(), 'ROLE_MIXED', pinned, /found nothing/)
})

t.test('refuses the old key after a rotation', async (t) => {
  const rotated = await verify(bundle(2, { keys: keys2, roots: [root1, root2] }))
  await refused(t, bundle(3), 'ROLE_SIGNATURE', rotated.state, /keys of root 2/)
  await refused(t, bundle(3, { roots: [root1, root2] }), 'ROLE_SIGNATURE')
})

t.test('refuses a root that the old threshold did not sign, and one over a gap', async (t) => {
  const alone = makeRoot(keys2, { version: 2, signers: [A, C] })
  await refused(t, bundle(2, { keys: keys2, roots: [root1, alone] }), 'ROLE_SIGNATURE')
  const root3 = makeRoot(keys2, { version: 3, signers: [A, B, C] })
  const gap = bundle(2, { keys: keys2 }).set('3.root.json', root3)
  await refused(t, gap, 'ROLE_INVALID', pinned, /3.root.json: expected 2.root.json before it/)
  await refused(
    t,
    bundle(2, { keys: keys2, roots: [root1, root3] }),
    'ROLE_INVALID',
    pinned,
    /expected version 2, found 3/,
  )
})

t.test('refuses fewer signatures than the threshold of a role', async (t) => {
  const pair = [newKey(), newKey()]
  const keys = { root: [A], bundle: [pair[0]!], targets: pair, thresholds: { targets: 2 } }
  const trusted = { roots: [makeRoot(keys)] }
  t.match(await verify(makeBundle(keys), trusted), { number: 1 })
  await refused(
    t,
    makeBundle({ ...keys, targets: [pair[0]!] }),
    'ROLE_SIGNATURE',
    trusted,
    /targets.json: expected 2 good/,
  )
})

t.test('refuses keys that are not what they are called, and delegations', async (t) => {
  const second = newKey()
  const wrongId = forge(root2, [A, B, C], (signed: Loose) => void (signed.keys[keys2.bundle[0]!.keyid] = second.key))
  await refused(t, bundle(2, { keys: keys2, roots: [root1, wrongId] }), 'ROLE_KEYID')
  const delegating = resign(bundle(1), {}, (role, signed) => {
    if (role === 'targets') signed.delegations = { keys: {}, roles: [] }
  })
  await refused(t, delegating, 'ROLE_DELEGATED')
})

t.test('a clock in 2031 refuses, and coming back from it does not: no state is kept of it', async (t) => {
  await refused(t, bundle(1), 'ROLE_EXPIRED', pinned, undefined, Date.UTC(2031, 0, 1))
  t.match(await verify(bundle(1)), { number: 1 })
})

t.test('refuses hostile metadata without a stack overflow or a wait', async (t) => {
  const deep = Buffer.from(`{"signatures":[],"signed":${'{"a":'.repeat(2000)}1${'}'.repeat(2001)}`)
  for (const bytes of [deep, Buffer.alloc(600_000, 0x5b), Buffer.from('{"signed":{"__proto__":{}}}')])
    for (const name of ['timestamp.json', '1.snapshot.json', '1.targets.json', '2.root.json'])
      await refused(t, bundle(1).set(name, bytes), 'ROLE_INVALID')
})

t.test('a full or missing scratch folder is no verdict on the bundle', async (t) => {
  const missing = join(scratchDir, 'missing')
  const args = { trusted: pinned, offered: bundle(1), nowMs: NOW, scratchDir: missing }
  await t.rejects(verifyMetadata(args), { code: 'ENOENT' })
  mkdirSync(missing)
  t.match(await verifyMetadata(args), { number: 1 })
  t.strictSame(readdirSync(missing), [])
  rmdirSync(missing)
})

type BundleArgs = Parameters<typeof makeBundle>[1] & { keys?: SiteKeys }

function bundle(number: number, { keys = keys1, ...rest }: BundleArgs = {}): Map<string, Buffer> {
  return makeBundle(keys, { number, roots: [root1], ...rest })
}

function verify(offered: Map<string, Buffer>, trusted = pinned, nowMs = NOW, site = 'hq'): Promise<VerifiedMetadata> {
  return verifyMetadata({ trusted, offered, nowMs, site, scratchDir })
}

async function refused(
  t: Test,
  offered: Map<string, Buffer>,
  code: string,
  trusted = pinned,
  message: RegExp = /./,
  nowMs = NOW,
  site = 'hq',
  what = code,
): Promise<void> {
  await t.rejects(verify(offered, trusted, nowMs, site), { code, message }, what)
}

function roomy(version: number, bundleKeys: SiteKeys['bundle']): Buffer {
  return makeRoot({ root: [A, B], bundle: bundleKeys, thresholds: { root: 2 } }, { version, signers: [A, B] })
}

/** The bundle with its three files changed in order (targets, snapshot, timestamp), each naming the one below, signed by
 *  root 1's bundle key or by the key given for a role. */
function resign(
  files: Map<string, Buffer>,
  signers: Partial<Record<string, ReturnType<typeof newKey>>>,
  change: (role: string, signed: Loose) => void = () => undefined,
): Map<string, Buffer> {
  const made = new Map(files)
  let below: Loose
  for (const role of ['targets', 'snapshot', 'timestamp']) {
    const name = [...files.keys()].find((key) => key.endsWith(`${role}.json`))!
    const { signed } = JSON.parse(files.get(name)!.toString())
    if (below !== undefined) Object.assign(Object.values<Loose>(signed.meta)[0], below)
    change(role, signed)
    const key = signers[role] ?? keys1.bundle[0]!
    const bytes = serializeMetadata({ signatures: [key.sign(canonicalJson(signed))], signed })
    below = { length: bytes.length, hashes: { sha256: sha256Of(bytes) } }
    made.set(name, bytes)
  }
  return made
}

function without(files: Map<string, Buffer>, name: string): Map<string, Buffer> {
  const copy = new Map(files)
  copy.delete(name)
  return copy
}
