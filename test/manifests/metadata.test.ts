import { createECDH, createPublicKey, generateKeyPairSync } from 'node:crypto'
import * as fc from 'fast-check'
import t from 'tap'
import { authorBundle, authorRoot } from '../../manifests/author.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import {
  checkNamed,
  MAX_METADATA_BYTES,
  nextRoot,
  parseRoot,
  parseSnapshot,
  parseTargets,
  parseTimestamp,
  pinRoot,
  rootChain,
  serializeMetadata,
  verifySignatures,
} from '../../manifests/metadata.ts'
import { roleKey } from '../../manifests/role-key.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { DAY, flip, forge, makeBundle, makeRoot, newKey, NOW, signWith, type Loose } from '../helpers/site.ts'

const keys = { root: [newKey()], bundle: [newKey()] }
const root1 = makeRoot(keys)
const files = makeBundle(keys, { number: 7 })
const timestamp = files.get('timestamp.json')!
const snapshot = files.get('7.snapshot.json')!
const targets = files.get('7.targets.json')!
const parsers = [
  ['root', root1, parseRoot, keys.root],
  ['timestamp', timestamp, parseTimestamp, keys.bundle],
  ['snapshot', snapshot, parseSnapshot, keys.bundle],
  ['targets', targets, parseTargets, keys.bundle],
] as const

t.test('writes the fields that the layout asks for', async (t) => {
  const root = JSON.parse(root1.toString()).signed
  t.match(root, { _type: 'root', spec_version: '1.0.31', version: 1, consistent_snapshot: true, 'x-site': 'hq' })
  for (const role of ['root', 'timestamp', 'snapshot', 'targets']) {
    const owner = role === 'root' ? keys.root : keys.bundle
    t.strictSame(root.roles[role], { keyids: [owner[0]!.keyid], threshold: 1 })
  }
  t.strictSame(JSON.parse(timestamp.toString()).signed, {
    _type: 'timestamp',
    spec_version: '1.0.31',
    version: 7,
    expires: '2027-12-27T12:00:00Z',
    'x-site': 'hq',
    'x-created': '2026-11-22T12:00:00Z',
    'x-bundler': 'gapferry 0.1.0',
    meta: { 'snapshot.json': { version: 7, length: snapshot.length, hashes: { sha256: sha256Of(snapshot) } } },
  })
  t.strictSame(JSON.parse(snapshot.toString()).signed.meta, {
    'targets.json': { version: 7, length: targets.length, hashes: { sha256: sha256Of(targets) } },
  })
  t.strictSame([...files.keys()], ['timestamp.json', '7.snapshot.json', '7.targets.json'])
})

t.test('reads back what it writes', async (t) => {
  const root = parseRoot(root1, 'root')
  const read = parseTimestamp(timestamp, 'timestamp')
  verifySignatures(root, read)
  t.match(read, { version: 7, site: 'hq', createdAtMs: NOW, expiresAtMs: NOW + 400 * DAY, bundler: 'gapferry 0.1.0' })
  checkNamed(parseSnapshot(snapshot, 's'), read.snapshot)
  t.strictSame([...parseTargets(targets, 't').targets.keys()], ['pbx/current', 'site'])
})

t.test('equal arguments and signatures give equal bytes', async (t) => {
  t.strictSame(makeBundle(keys, { number: 7 }), files)
})

t.test('a pinned root shows site, version, digest and fingerprint', async (t) => {
  t.strictSame(pinRoot(root1), {
    site: 'hq',
    version: 1,
    expiresAtMs: NOW + 1826 * DAY,
    sha256: sha256Of(root1),
    fingerprint: fingerprintWords(root1),
  })
})

t.test('a root that cannot be pinned is ROOT_INVALID, and says why', async (t) => {
  const other = newKey()
  const cases: [string, Buffer, RegExp][] = [
    ['not JSON', Buffer.from('hello'), /is not JSON/],
    ['another role', timestamp, /signed/],
    ['signed by another key', makeRoot(keys, { signers: [other] }), /expected 1 good signature/],
    ['unsigned', makeRoot(keys, { signers: [] }), /signatures found: none/],
  ]
  for (const [what, bytes, message] of cases) t.throws(() => pinRoot(bytes), { code: 'ROOT_INVALID', message }, what)
})

t.test('a key id that is not the digest of its key is refused', async (t) => {
  const renamed = forge(root1, keys.root, (signed: Loose) => {
    const [[keyid, key]] = Object.entries(signed.keys) as [[string, unknown]]
    const wrong = flip(Buffer.from(keyid, 'hex'), 3).toString('hex')
    delete signed.keys[keyid]
    signed.keys[wrong] = key
    for (const role of Object.values<Loose>(signed.roles))
      role.keyids = role.keyids.map((id: string) => (id === keyid ? wrong : id))
  })
  t.throws(() => parseRoot(renamed, 'root'), { code: 'ROLE_KEYID', message: /its SHA-256 is/ })
})

t.test('one public key under two ids is refused: a point and the same point, compressed', async (t) => {
  const ecdh = createECDH('prime256v1')
  ecdh.generateKeys()
  const plain = roleKey('ecdsa', spki(ecdh.getPublicKey()))
  const compressed = roleKey('ecdsa', spki(ecdh.getPublicKey(null, 'compressed')))
  t.not(plain.keyid, compressed.keyid, 'two spellings have two ids')
  const twice = forge(root1, keys.root, (signed: Loose) => {
    for (const { keyid, key } of [plain, compressed]) signed.keys[keyid] = key
    signed.roles.targets = { keyids: [plain.keyid, compressed.keyid], threshold: 2 }
  })
  t.throws(() => parseRoot(twice, 'root'), { code: 'ROLE_KEYID', message: /under two ids/ })
})

t.test('only P-256 and RSA from 2048 bits, in plain PEM', async (t) => {
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const k256 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' })
  const ed = generateKeyPairSync('ed25519')
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  parseRoot(withKey('ecdsa', pem('spki', p256)), 'root')
  parseRoot(withKey('rsa', pem('spki', rsa)), 'root')
  const refused: [string, Buffer][] = [
    ['P-384', withKey('ecdsa', pem('spki', p384))],
    ['secp256k1', withKey('ecdsa', pem('spki', k256))],
    ['Ed25519', withKey('ecdsa', pem('spki', ed))],
    ['RSA 1024', withKey('rsa', pem('spki', small))],
    ['RSA as ecdsa', withKey('ecdsa', pem('spki', rsa))],
    ['P-256 as rsa', withKey('rsa', pem('spki', p256))],
    ['a private key', withKey('ecdsa', pem('pkcs8', p256))],
    ['text before the PEM', withKey('ecdsa', `hello\n${pem('spki', p256)}`)],
    ['no PEM', withKey('ecdsa', 'abcdef')],
  ]
  for (const [what, bytes] of refused) t.throws(() => parseRoot(bytes, 'root'), { code: 'ROLE_INVALID' }, what)
})

t.test('refuses what no root may say', async (t) => {
  const changes: Record<string, (signed: Loose) => void> = {
    'a threshold that cannot be met': (s) => void (s.roles.targets.threshold = 2),
    'threshold 0': (s) => void (s.roles.root.threshold = 0),
    'a threshold as text': (s) => void (s.roles.root.threshold = '1'),
    'no keys for a role': (s) => void (s.roles.timestamp.keyids = []),
    'a key id twice': (s) => void s.roles.timestamp.keyids.push(s.roles.timestamp.keyids[0]),
    'a key id that is not among the keys': (s) => void (s.roles.timestamp.keyids = ['0'.repeat(64)]),
    'a role missing': (s) => void delete s.roles.snapshot,
    'a fifth role': (s) => void (s.roles.mirrors = s.roles.snapshot),
    'no consistent snapshot': (s) => void (s.consistent_snapshot = false),
    'version 0': (s) => void (s.version = 0),
    'version as text': (s) => void (s.version = '1'),
    'another specification': (s) => void (s.spec_version = '2.0.0'),
    'no site': (s) => void delete s['x-site'],
    'a site that is no name': (s) => void (s['x-site'] = 'Head Office'),
    'the 30th of February': (s) => void (s.expires = '2027-02-30T00:00:00Z'),
    'an unknown field': (s) => void (s.extra = 1),
    'an unknown field in a key': (s) => void (Object.values<Loose>(s.keys)[0].extra = 1),
  }
  for (const [what, change] of Object.entries(changes)) {
    t.throws(() => parseRoot(forge(root1, keys.root, change), 'root'), { code: 'ROLE_INVALID' }, what)
  }
})

t.test('refuses what no bundle may say', async (t) => {
  const refuses = (
    code: string,
    [role, bytes, parse]: readonly [string, Buffer, Loose, ...unknown[]],
    change: (signed: Loose) => void,
    what: string,
  ) => t.throws(() => parse(forge(bytes, keys.bundle, change), role), { code }, `${role}: ${what}`)
  const [, ts, sn, tg] = parsers
  refuses('ROLE_INVALID', ts, (s) => void (s.meta['snapshot.json'].version = 6), 'names another number')
  refuses('ROLE_INVALID', ts, (s) => void delete s.meta['snapshot.json'].length, 'no length')
  refuses('ROLE_INVALID', ts, (s) => void delete s.meta['snapshot.json'].hashes, 'no hashes')
  refuses('ROLE_INVALID', ts, (s) => void (s.meta['snapshot.json'].hashes.md5 = '0'), 'a second algorithm')
  refuses('ROLE_INVALID', ts, (s) => void delete s['x-created'], 'no x-created')
  refuses('ROLE_INVALID', ts, (s) => void (s['x-bundler'] = 'a\nb'), 'a control character')
  refuses('ROLE_INVALID', ts, (s) => void (s['x-created'] = '2030-01-01T00:00:00Z'), 'made after it expires')
  refuses('ROLE_INVALID', sn, (s) => void (s.meta['targets.json'].version = 8), 'names another number')
  refuses('ROLE_INVALID', sn, (s) => void (s.meta['extra.json'] = s.meta['targets.json']), 'names a further role')
  refuses('ROLE_DELEGATED', tg, (s) => void (s.delegations = { keys: {}, roles: [] }), 'delegations')
  refuses('ROLE_DELEGATED', tg, (s) => void (s.delegations = null), 'delegations that are nothing')
  for (const name of [
    'current',
    'pbx',
    'pbx/next',
    '/current',
    'a/b/current',
    '../current',
    'PBX/current',
    '__proto__',
    '',
    'x'.repeat(65) + '/current',
  ])
    refuses(
      'ROLE_INVALID',
      tg,
      (s) => Object.defineProperty(s.targets, name, { value: s.targets['site'], enumerable: true }),
      `target "${name.slice(0, 20)}"`,
    )
  refuses('ROLE_INVALID', tg, (s) => void (s.targets = {}), 'no targets')
  refuses('ROLE_INVALID', tg, (s) => void (s.targets['site'].length = -1), 'a negative length')
  refuses('ROLE_INVALID', tg, (s) => void (s.targets['site'].custom = {}), 'custom')
})

t.test('signed x- texts that are not known here do not matter', async (t) => {
  for (const [role, bytes, parse, owners] of parsers) {
    const extended = forge(bytes, [...owners], (signed: Loose) => void (signed['x-later'] = 'a fact'))
    t.ok(parse(extended, role))
    const wrong = forge(bytes, [...owners], (signed: Loose) => void (signed['x-later'] = { deep: 1 }))
    t.throws(() => parse(wrong, role), { code: 'ROLE_INVALID' })
  }
})

t.test('one spelling: white space, escapes, a second key, a mark at the start are refused', async (t) => {
  const text = timestamp.toString()
  const spelled: [string, string][] = [
    ['compact', JSON.stringify(JSON.parse(text))],
    ['a blank more', text.replace('{', '{ ')],
    ['an escape', text.replace('timestamp', '\\u0074imestamp')],
    ['a number otherwise', text.replace('"version": 7', '"version": 7.0')],
    ['a field twice', text.replace('"version": 7', '"version": 8,\n  "version": 7')],
    ['a byte order mark', `\ufeff${text}`],
    ['no line end', text.trimEnd()],
    ['a second document', text + text],
  ]
  for (const [what, other] of spelled)
    t.throws(() => parseTimestamp(Buffer.from(other), 'timestamp'), { code: 'ROLE_INVALID' }, what)
})

t.test('hostile JSON is refused, in bounded time', async (t) => {
  const deep = `{"signatures":${'['.repeat(6000)}${']'.repeat(6000)},"signed":{}}`
  const wide = `{${Array.from({ length: 1300 }, (_, i) => `"k${i}":0`).join(',')}}`
  const poisoned = '{"__proto__":{"signatures":[],"signed":{}},"signatures":[],"signed":{"__proto__":{"version":1}}}'
  const shapes = [
    '',
    '{}',
    '[]',
    'null',
    '1',
    '"signed"',
    '{"signed":null,"signatures":[]}',
    '{"signed":[],"signatures":{}}',
    deep,
    wide,
    poisoned,
  ]
  for (const [role, , parse] of parsers) {
    for (const text of shapes)
      t.throws(() => parse(Buffer.from(text), role), { code: 'ROLE_INVALID' }, `${role} ${text.slice(0, 40)}`)
    t.throws(() => parse(Buffer.from([0x22, 0xff, 0xfe, 0x22]), role), { code: 'ROLE_INVALID' }, 'not UTF-8')
    t.throws(() => parse(Buffer.alloc(MAX_METADATA_BYTES[role] + 1, 0x20), role), {
      code: 'ROLE_INVALID',
      message: /at most/,
    })
  }
  const before = performance.now()
  t.equal(
    parseTargets(makeBundle(keys, { targets: manyTargets(700) }).get('1.targets.json')!, 'targets').targets.size,
    700,
  )
  t.throws(() => makeBundle(keys, { targets: manyTargets(701) }), { code: 'ROLE_INVALID' })
  t.ok(performance.now() - before < 5000)
})

t.test('no parser throws anything but a code, whatever the JSON', async () => {
  const leaf = fc.oneof(
    fc.constantFrom(
      'root',
      'timestamp',
      1,
      -1,
      2 ** 60,
      1.5,
      null,
      true,
      '1.0.31',
      '2026-11-22T12:00:00Z',
      '2026-13-32T25:61:61Z',
    ),
    fc.string(),
  )
  for (const [role, bytes, parse] of parsers) {
    const doc = JSON.parse(bytes.toString())
    const paths = leaves(doc)
    const change = fc.tuple(fc.constantFrom(...paths), fc.oneof(leaf, fc.jsonValue({ maxDepth: 3 })))
    fc.assert(
      fc.property(change, ([path, value]) => {
        const copy = structuredClone(doc)
        put(copy, path, value)
        try {
          parse(serializeMetadata(copy), role)
        } catch (error) {
          if (!isGapferryError(error)) throw error
        }
      }),
      { numRuns: 300 },
    )
  }
})

t.test('every byte of every file, flipped, is refused by the parser or by the signature', async (t) => {
  const root = parseRoot(root1, 'root')
  for (const [role, bytes, parse] of parsers) {
    const believed: number[] = []
    for (let at = 0; at < bytes.length; at++) {
      try {
        verifySignatures(root, parse(flip(bytes, at, at % 8), role))
        believed.push(at)
      } catch (error) {
        if (!isGapferryError(error, 'ROLE_INVALID', 'ROLE_KEYID', 'ROLE_SIGNATURE')) throw error
      }
    }
    t.strictSame(believed, [], `${role}: ${bytes.length} bytes`)
  }
})

t.test('the chain of roots', async (t) => {
  const [a, b, c, next] = [newKey(), newKey(), newKey('rsa'), newKey()]
  const two = { root: [a, b], bundle: keys.bundle, thresholds: { root: 2 } }
  const first = makeRoot(two)
  const later = { root: [a, c], bundle: [next], thresholds: { root: 2 } }
  const second = makeRoot(later, { version: 2, signers: [a, b, c] })
  t.match(rootChain([first, second], 'root'), { version: 2, site: 'hq' }, '2 of 2 {A, B} → {A, RSA C}')
  const from = rootChain([first], 'root')
  t.throws(
    () => nextRoot(from, makeRoot(later, { version: 2, signers: [a, c] })),
    { code: 'ROLE_SIGNATURE' },
    'without the old threshold',
  )
  t.throws(
    () => nextRoot(from, makeRoot(later, { version: 2, signers: [a, b] })),
    { code: 'ROLE_SIGNATURE' },
    'without the new threshold',
  )
  t.throws(() => nextRoot(from, makeRoot(later, { version: 3, signers: [a, b, c] })), {
    code: 'ROLE_INVALID',
    message: /expected version 2, found 3/,
  })
  t.throws(() => nextRoot(from, first), { code: 'ROLE_INVALID' })
  t.throws(() => nextRoot(from, makeRoot(later, { version: 2, site: 'lab', signers: [a, b, c] })), {
    code: 'SITE_MISMATCH',
    message: /expected site hq, found site lab/,
  })
  t.throws(() => rootChain([], 'root'), { code: 'ROOT_INVALID' })
})

t.test('a signature that is there twice does not count twice', async (t) => {
  const two = { root: [newKey(), newKey()], bundle: keys.bundle, thresholds: { root: 2 } }
  const [a] = two.root
  const doubled = makeRoot(two, { signers: [a!, a!] })
  t.throws(() => rootChain([doubled], 'root'), { code: 'ROLE_INVALID' })
})

t.test('nothing is signed that would be refused', async (t) => {
  const tree = { sha256: sha256Of('x'), bytes: 1 }
  const bundle = {
    site: 'hq',
    number: 1,
    targets: new Map([['site', tree]]),
    createdAtMs: NOW,
    expiresAtMs: NOW + DAY,
    bundler: 'x',
    sign,
  }
  t.throws(() => authorBundle({ ...bundle, targets: new Map([['../x', tree]]) }), { code: 'ROLE_INVALID' })
  t.throws(() => authorBundle({ ...bundle, number: 0 }), { code: 'ROLE_INVALID' })
  t.throws(() => authorBundle({ ...bundle, sign: signWith(keys.bundle), expiresAtMs: NOW - DAY }), {
    code: 'ROLE_INVALID',
  })
  const role = { keyids: [keys.root[0]!.keyid], threshold: 2 }
  const roles = { root: role, timestamp: role, snapshot: role, targets: role }
  const held = new Map([[keys.root[0]!.keyid, keys.root[0]!.key]])
  t.throws(() => authorRoot({ site: 'hq', version: 1, expiresAtMs: NOW, keys: held, roles, sign }), {
    code: 'ROLE_INVALID',
  })
})

function leaves(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => leaves(inner, [...path, key]))].filter(
    (p) => p.length > 0,
  )
}

function put(doc: Loose, path: string[], value: unknown): void {
  const last = path.at(-1)!
  let at = doc
  for (const key of path.slice(0, -1)) at = at[key]
  at[last] = value
}

function spki(point: Buffer): string {
  const head = Buffer.from('301306072a8648ce3d020106082a8648ce3d030107', 'hex')
  const bits = Buffer.concat([Buffer.from([3, point.length + 1, 0]), point])
  const key = Buffer.concat([Buffer.from([0x30, head.length + bits.length]), head, bits])
  return pem('spki', { publicKey: createPublicKey({ key, format: 'der', type: 'spki' }) })
}

function pem(type: 'spki' | 'pkcs8', pair: { publicKey: Loose; privateKey?: Loose }): string {
  return String((type === 'spki' ? pair.publicKey : pair.privateKey).export({ type, format: 'pem' }))
}

function withKey(keytype: 'ecdsa' | 'rsa', text: string): Buffer {
  const { keyid, key } = roleKey(keytype, text)
  return forge(root1, keys.root, (signed: Loose) => void (signed.keys[keyid] = key))
}

function manyTargets(n: number): Map<string, { sha256: Sha256; bytes: number }> {
  return new Map(Array.from({ length: n }, (_, i) => [`g${i}/current`, { sha256: sha256Of('x'), bytes: 1 }]))
}

function sign(): never {
  throw new Error('must not be asked')
}
