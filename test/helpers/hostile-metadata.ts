/** Metadata as a thief would bring it, each case in a whole part: the list of TUF 1.0.31's attacks, and what JSON can do to its
 *  reader. All are for who has pinned `attackedRoot` and believes `attackedBundle(2)`. */
import { createECDH } from 'node:crypto'
import type { ErrorCode } from '../../manifests/errors.ts'
import { roleKey } from '../../manifests/role-key.ts'
import { makeContent, signContent } from './mirror.ts'
import { archive, partEntries, type SampleBundle } from './part.ts'
import { DAY, flip, forge, makeRoot, newKey, NOW, type Loose, type SiteKeys, type TestKey } from './site.ts'

const [A, B, D, stolen, fresh] = Array.from({ length: 5 }, () => newKey()) as [
  TestKey,
  TestKey,
  TestKey,
  TestKey,
  TestKey,
]
const C = newKey('rsa')
/** Two of two for the root and for targets: one key is never enough. */
const keys: SiteKeys = { root: [A, B], bundle: [D], targets: [D, stolen], thresholds: { root: 2, targets: 2 } }
export const attackedRoot = makeRoot(keys)
const root1 = attackedRoot
const nextKeys: SiteKeys = { root: [A, C], bundle: [fresh], thresholds: { root: 2 } }
const root2 = makeRoot(nextKeys, { version: 2, signers: [A, B, C] })

const trees = (number: number) => makeContent(number, [{ stamp: 10 * number, packages: ['a', `p${number}`] }])
type How = NonNullable<Parameters<typeof signContent>[1]>
/** A bundle as it should be. */
export const attackedBundle = (number: number, how: How = {}): SampleBundle =>
  signContent(trees(number), { keys, roots: [root1], ...how })
const bundle = attackedBundle

/** A part whose metadata is another one. */
export function attackedPart(
  made: SampleBundle,
  change: (files: Map<string, Buffer>) => void = () => undefined,
): Buffer {
  const metadata = new Map(made.metadata)
  change(metadata)
  const order = ['timestamp', 'snapshot', 'targets', 'root']
  const rank = (name: string): number =>
    order.findIndex((role) => name.includes(role)) * 1e6 + Number.parseInt(name) || 0
  return archive(partEntries({ ...made, metadata: new Map([...metadata].sort(([a], [b]) => rank(a) - rank(b))) }))
}

/** The same with one role's document changed and signed again, and what names it made to fit. */
function forged(
  made: SampleBundle,
  role: string,
  change: (signed: Loose) => void,
  signers = { D: [D], targets: [D, stolen] },
) {
  return attackedPart(made, (files) => {
    const { number } = made
    const name = role === 'timestamp' ? 'timestamp.json' : `${number}.${role}.json`
    files.set(name, forge(files.get(name)!, role === 'targets' ? signers.targets : signers.D, change))
  })
}

const root = (change: (signed: Loose) => void, signers: TestKey[] = [A, B, C], name = '2.root.json'): Buffer =>
  attackedPart(bundle(3), (files) => files.set(name, forge(root2, signers, change)))
const rawRoot = (bytes: Buffer | string): Buffer =>
  attackedPart(bundle(3), (files) => files.set('2.root.json', Buffer.from(bytes)))
const rawTimestamp = (text: string): Buffer =>
  attackedPart(bundle(3), (files) => files.set('timestamp.json', Buffer.from(text)))

const two = bundle(2)
const three = bundle(3)
const other = bundle(3, { createdAtMs: NOW - DAY })
const swap = (name: string, from: SampleBundle, as = name): Buffer =>
  attackedPart(three, (files) => files.set(as, from.metadata.get(name)!))

/** What it is, the code or codes that a mirror refuses it with, the part. */
export const metadataAttacks: [string, ErrorCode | ErrorCode[], Buffer][] = [
  // arbitrary install
  ['signed by a stranger', 'ROLE_SIGNATURE', attackedPart(bundle(3, { keys: { root: [A, B], bundle: [newKey()] } }))],
  ['signed by a stranger who brings a root', 'ROLE_SIGNATURE', strangerWithRoot()],
  ['one signature of two', 'ROLE_SIGNATURE', attackedPart(bundle(3, { keys: { ...keys, targets: [D] } }))],
  ['the other one of two', 'ROLE_SIGNATURE', attackedPart(bundle(3, { keys: { ...keys, targets: [stolen] } }))],
  ['one key signs twice for two', 'ROLE_INVALID', twice()],
  ['the root key signs for the bundle', 'ROLE_SIGNATURE', attackedPart(bundle(3, { keys: { ...keys, bundle: [A] } }))],
  ['no signature at all', 'ROLE_SIGNATURE', unsigned()],
  // rollback and freeze
  ['an older bundle', 'ROLE_ROLLBACK', attackedPart(bundle(1))],
  ['an older timestamp', 'ROLE_ROLLBACK', swap('timestamp.json', bundle(1))],
  ['an older snapshot under the new name', 'ROLE_MIXED', renamed('snapshot')],
  ['older targets under the new name', 'ROLE_MIXED', renamed('targets')],
  ['other content under a number that is taken', 'ROLE_CONFLICT', attackedPart(bundle(2, { createdAtMs: NOW - DAY }))],
  ['expired', 'ROLE_EXPIRED', attackedPart(bundle(3, { createdAtMs: NOW - 400 * DAY, expiresAtMs: NOW }))],
  [
    'made in the far future',
    'ROLE_FUTURE',
    attackedPart(bundle(3, { createdAtMs: NOW + 5000 * DAY, expiresAtMs: NOW + 6000 * DAY })),
  ],
  [
    'expired before it was made',
    'ROLE_INVALID',
    attackedPart(bundle(3, { createdAtMs: NOW + DAY, expiresAtMs: NOW + 2 * DAY }), (files) =>
      files.set(
        'timestamp.json',
        forge(files.get('timestamp.json')!, [D], (signed) => (signed.expires = '2026-11-22T12:00:00Z')),
      ),
    ),
  ],
  // mix and match
  ['the snapshot of a twin', 'ROLE_MIXED', swap('3.snapshot.json', other)],
  ['the targets of a twin', 'ROLE_MIXED', swap('3.targets.json', withOtherTrees())],
  ['the timestamp of a twin', 'ROLE_MIXED', swap('timestamp.json', withOtherTrees())],
  ['all metadata of a twin', 'BUNDLE_ENTRY_UNKNOWN', attackedPart({ ...three, metadata: withOtherTrees().metadata })],
  ['a snapshot that was changed and signed again', 'ROLE_MIXED', forged(three, 'snapshot', (s) => (s['x-note'] = 'x'))],
  ['targets that were changed and signed again', 'ROLE_MIXED', forged(three, 'targets', (s) => (s['x-note'] = 'x'))],
  // another site
  ['another site, by its own name', 'SITE_MISMATCH', attackedPart({ ...bundle(3, { site: 'lab' }), site: 'hq' })],
  // roots
  ['a root that the old threshold did not sign', 'ROLE_SIGNATURE', root(() => undefined, [A, C])],
  ['a root that its own threshold did not sign', 'ROLE_SIGNATURE', root(() => undefined, [A, B])],
  ['a root of a stranger', 'ROLE_SIGNATURE', rawRoot(makeRoot({ root: [newKey()], bundle: [D] }, { version: 2 }))],
  ['a root version is left out', 'ROLE_INVALID', root((signed) => (signed.version = 3), [A, B, C], '3.root.json')],
  ['a root whose version is not its name’s', 'ROLE_INVALID', root((signed) => (signed.version = 9))],
  ['a root of version 1 again', 'ROLE_INVALID', rawRoot(root1)],
  ['a root of another site', 'SITE_MISMATCH', root((signed) => (signed['x-site'] = 'lab'))],
  ['a root that has expired', 'ROLE_EXPIRED', rotated((signed) => (signed.expires = '2026-11-22T11:59:59Z'))],
  ['a threshold of 0', 'ROLE_INVALID', root((signed) => (signed.roles.root.threshold = 0))],
  ['a threshold of -1', 'ROLE_INVALID', root((signed) => (signed.roles.targets.threshold = -1))],
  ['a threshold that is text', 'ROLE_INVALID', root((signed) => (signed.roles.targets.threshold = '1'))],
  ['a threshold above the keys', 'ROLE_INVALID', root((signed) => (signed.roles.root.threshold = 3))],
  ['one key id twice in a role', 'ROLE_INVALID', root((signed) => signed.roles.root.keyids.push(A.keyid))],
  ['one public key under two ids', 'ROLE_KEYID', root(secondName)],
  ['a key id that is not its key’s', 'ROLE_KEYID', root(wrongName)],
  ['a role without keys', 'ROLE_INVALID', root((signed) => (signed.roles.targets.keyids = []))],
  [
    'a key of another curve',
    'ROLE_INVALID',
    root((signed) => (Object.values<Loose>(signed.keys)[0].scheme = 'ed25519')),
  ],
  ['no consistent snapshot', 'ROLE_INVALID', root((signed) => (signed.consistent_snapshot = false))],
  ['a role that TUF does not know', 'ROLE_INVALID', root((signed) => (signed.roles.mirrors = signed.roles.root))],
  ['another spec', 'ROLE_INVALID', root((signed) => (signed.spec_version = '2.0.0'))],
  ['timestamp in place of root', 'ROLE_INVALID', rawRoot(three.metadata.get('timestamp.json')!)],
  // delegations
  ['delegations', 'ROLE_DELEGATED', forged(three, 'targets', (s) => (s.delegations = { keys: {}, roles: [] }))],
  ['succinct delegations', 'ROLE_DELEGATED', forged(three, 'targets', (s) => (s.delegations = { succinct_roles: {} }))],
  [
    'a delegated role’s file',
    'BUNDLE_ENTRY_UNKNOWN',
    attackedPart(three, (files) => files.set('3.other.json', Buffer.from('{}'))),
  ],
  // after a rotation
  ['the old key after a rotation', 'ROLE_SIGNATURE', attackedPart(bundle(4, { roots: [root1, root2] }))],
  // what JSON can do
  ['not JSON', 'ROLE_INVALID', rawTimestamp('<?xml version="1.0"?>')],
  [
    'not UTF-8',
    'ROLE_INVALID',
    attackedPart(three, (files) => files.set('timestamp.json', Buffer.from([0x22, 0xff, 0x22]))),
  ],
  ['null', 'ROLE_INVALID', rawTimestamp('null\n')],
  ['an array', 'ROLE_INVALID', rawTimestamp('[]\n')],
  ['16,000 levels deep', 'ROLE_INVALID', rawTimestamp('['.repeat(16_000))],
  ['16,000 levels deep, closed', 'ROLE_INVALID', rawTimestamp('['.repeat(8000) + ']'.repeat(8000))],
  ['100,000 levels deep', 'ROLE_INVALID', rawRoot('{"a":'.repeat(100_000))],
  ['250,000 levels deep, closed', 'ROLE_INVALID', rawRoot('['.repeat(250_000) + ']'.repeat(250_000))],
  ['a number of 500,000 digits', 'ROLE_INVALID', rawRoot('9'.repeat(500_000))],
  ['a version of 100,000 digits', 'ROLE_INVALID', text(root2, /"version": 2/, `"version": 2${'0'.repeat(100_000)}`)],
  ['a version of 2.0', 'ROLE_INVALID', text(root2, /"version": 2/, '"version": 2.0')],
  ['a version of 2e0', 'ROLE_INVALID', text(root2, /"version": 2/, '"version": 2e0')],
  ['a key given twice', 'ROLE_INVALID', text(root2, /"version": 2/, '"version": 1,\n  "version": 2')],
  [
    '__proto__',
    'ROLE_INVALID',
    text(root2, /"version": 2/, '"version": 2,\n  "__proto__": {"consistent_snapshot": true}'),
  ],
  ['constructor', 'ROLE_INVALID', root((signed) => (signed.constructor = { prototype: {} }))],
  ['a mark at the start', 'ROLE_INVALID', rawRoot(Buffer.concat([Buffer.from('\ufeff'), root2]))],
  ['white space at the end', 'ROLE_INVALID', rawRoot(Buffer.concat([root2, Buffer.alloc(400_000, ' ')]))],
  ['30,000 facts of its own', 'ROLE_SIGNATURE', root(manyFacts, [newKey()])],
  ['400 long facts of its own', 'ROLE_SIGNATURE', root(longFacts, [newKey()])],
  ['64 keys with numbers that are no keys', 'ROLE_KEYID', root(manyKeys, [newKey()])],
  [
    '15,000 facts in targets',
    'ROLE_SIGNATURE',
    forged(three, 'targets', manyFactsOf(15_000), { D: [D], targets: [newKey()] }),
  ],
]

/** One bit of each byte, as far apart as keeps this short; all of them: test/slow/mutation.test.ts. */
for (const name of ['timestamp.json', '3.snapshot.json', '3.targets.json']) {
  const bytes = three.metadata.get(name)!
  for (let at = 0; at < bytes.length; at += 61) {
    const bad = attackedPart(three, (files) => files.set(name, flip(bytes, at, at % 7)))
    metadataAttacks.push([`${name}, byte ${at} flipped`, ['ROLE_INVALID', 'ROLE_SIGNATURE'], bad])
  }
}

/** After both keys of a root were exchanged: how bundles are signed then. */
export const afterRotation = {
  keys: nextKeys,
  roots: [root1, root2, makeRoot(nextKeys, { version: 3, signers: [A, C] })],
}

function strangerWithRoot(): Buffer {
  const mine: SiteKeys = { root: [newKey()], bundle: [newKey()] }
  return attackedPart(bundle(3, { keys: mine, roots: [makeRoot(mine)] }))
}

function twice(): Buffer {
  return attackedPart(three, (files) => {
    const doc = JSON.parse(files.get('3.targets.json')!.toString())
    doc.signatures[1] = doc.signatures[0]
    files.set('3.targets.json', Buffer.from(`${JSON.stringify(doc, null, 1)}\n`))
  })
}

function unsigned(): Buffer {
  return attackedPart(three, (files) =>
    files.set(
      'timestamp.json',
      forge(files.get('timestamp.json')!, [], () => undefined),
    ),
  )
}

function renamed(role: string): Buffer {
  return attackedPart(three, (files) => files.set(`3.${role}.json`, two.metadata.get(`2.${role}.json`)!))
}

function withOtherTrees(): SampleBundle {
  return signContent(makeContent(3, [{ stamp: 77, packages: ['evil'] }]), { keys, roots: [root1] })
}

function rotated(change: (signed: Loose) => void): Buffer {
  return attackedPart(bundle(3, { keys: nextKeys }), (files) =>
    files.set('2.root.json', forge(root2, [A, B, C], change)),
  )
}

export function expiredBefore(): Buffer {
  return attackedPart(bundle(3, { createdAtMs: NOW - 400 * DAY, expiresAtMs: NOW - 2 * DAY }))
}

function text(bytes: Buffer, what: RegExp, by: string): Buffer {
  return rawRoot(bytes.toString().replace(what, by))
}

/** The same point, written in two ways, has two ids, each of them right. */
function secondName(signed: Loose): void {
  const ecdh = createECDH('prime256v1')
  ecdh.generateKeys()
  const spki = (point: Buffer): string => {
    const head = Buffer.from('301306072a8648ce3d020106082a8648ce3d030107', 'hex')
    const bits = Buffer.concat([Buffer.from([3, point.length + 1, 0]), point])
    const der = Buffer.concat([Buffer.from([0x30, head.length + bits.length]), head, bits])
    return `-----BEGIN PUBLIC KEY-----\n${der.toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PUBLIC KEY-----\n`
  }
  const both = [ecdh.getPublicKey(), ecdh.getPublicKey(null, 'compressed')].map((point) =>
    roleKey('ecdsa', spki(point)),
  )
  for (const { keyid, key } of both) signed.keys[keyid] = key
  signed.roles.targets = { keyids: both.map(({ keyid }) => keyid), threshold: 2 }
}

function wrongName(signed: Loose): void {
  signed.keys['0'.repeat(64)] = signed.keys[C.keyid]
  delete signed.keys[C.keyid]
  signed.roles.root.keyids = [A.keyid, '0'.repeat(64)]
}

function manyFacts(signed: Loose): void {
  manyFactsOf(30_000)(signed)
}

function manyFactsOf(count: number): (signed: Loose) => void {
  return (signed) => {
    for (let i = 0; i < count; i++) signed[`x-${letters(i)}`] = ''
  }
}

function longFacts(signed: Loose): void {
  for (let i = 0; i < 400; i++) signed[`x-${letters(i)}`] = '"'.repeat(500)
}

function manyKeys(signed: Loose): void {
  const pem = signed.keys[A.keyid]
  for (let i = 0; i < 60; i++) {
    signed.keys[i.toString(16).padStart(64, '0')] = { ...pem, keyval: { public: 'A'.repeat(2048) } }
  }
}

function letters(i: number): string {
  return i.toString(26).replace(/./g, (c) => 'abcdefghijklmnopqrstuvwxyz'[Number.parseInt(c, 26)]!)
}
