import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync, deflateSync } from 'node:zlib'
import { readPrivateKey } from 'openpgp'
import t from 'tap'
import { moduleKeys, VENDOR_FINGERPRINTS, type ModuleKey } from '../../../bundler/modules/vendor-keys.ts'
import { verifyModule, type ModuleCheck, type ModuleVerdict } from '../../../bundler/modules/verify-module.ts'
import { literal, moduleTgz, moduleXml, packet } from '../../helpers/module-files.ts'
import { boxVerdict, KEY_NAMES, moduleTestKey, SIGNED, signMessage, type KeyName } from '../../helpers/odd-keys.ts'
import { parsePackets, parseSignature, unarmor } from '../../helpers/openpgp-packets.ts'

await Promise.all(KEY_NAMES.map(moduleTestKey))
const NOW = Date.now() // after the keys were made, before anything is signed here: clocks differ
const OLD = ['--faked-system-time', `${SIGNED}!`]
const dir = t.testdir()
const tgz = moduleTgz({ files: { 'data.bin': Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i) % 251)) } })
const inner = join(dir, 'core-17.0.1.tgz')
writeFileSync(inner, tgz)
const other = join(dir, 'other.tgz')
writeFileSync(other, moduleTgz({ files: { 'other.php': '' } }))

t.test('verdicts, each beside the one of a box with the same keys', async (t) => {
  for (const { what, message, pinned, verdict, why, box } of await signedCases()) {
    const found = await verify(message, await keysOf(pinned))
    t.match(found, { verdict, ...(why === undefined ? {} : { why }) }, what)
    t.equal(await boxVerdict(pinned, message), box ?? (verdict === 'good' ? 'good' : 'refused'), `${what}: gpg`)
    t.equal(found.signer, verdict === 'good' ? (await moduleTestKey(pinned[0]!)).fingerprint : undefined)
    t.strictSame(found.inner, factsOf(tgz))
  }
})

t.test('the key of the days of SHA-1 is one', async (t) => {
  const [, , self] = parsePackets(unarmor((await moduleTestKey('sha1')).publicArmored, 'PUBLIC KEY BLOCK'))
  t.equal(parseSignature(self!.body).hash, 2)
})

t.test('what is no signed message of the one shape is refused', async (t) => {
  const plain = await signMessage(['vendor'], inner, ['-z', '0'])
  const packets = parsePackets(plain)
  const vendor = ['vendor'] as const
  const cases: [what: string, bytes: Buffer, why: RegExp][] = [
    ['an encrypted message', await encrypted(), /found an encrypted message/],
    [
      'a detached signature',
      await signMessage(vendor, inner, [], ['--detach-sign']),
      /a signature without the archive/,
    ],
    ['text', await signMessage(vendor, inner, ['--textmode', '-z', '0']), /is text/],
    ['armor', await signMessage(vendor, inner, ['--armor']), /no OpenPGP message in binary/],
    ['bzip2', await signMessage(vendor, inner, ['--compress-algo', 'bzip2']), /compressed in a way that is not known/],
    ['a message that is cut off', plain.subarray(0, -1), /cut off/],
    ['a message cut off in its data', plain.subarray(0, 300), /cut off/],
    ['garbage behind it', Buffer.concat([plain, Buffer.from('x')]), /no OpenPGP message in binary/],
    ['a second message behind it', Buffer.concat([plain, plain]), /something follows/],
    ['an empty file', Buffer.alloc(0), /found nothing/],
    ['a web page', Buffer.from('<html></html>'), /no OpenPGP message/],
    ['compressed twice', packet(8, compress(packet(8, compress(plain)))), /an OpenPGP packet of type 8/],
    ['a compressed message cut off', packet(8, compress(plain).subarray(0, -3)), /cut off/],
    [
      'something behind compressed data',
      packet(8, Buffer.concat([compress(plain), Buffer.from('x')])),
      /Trailing junk/,
    ],
    ['a public key', packet(6, packets[1]!.body), /found a public key/],
    ['a signature in front', Buffer.concat([packet(2, packets[2]!.body), plain]), /a signature without the archive/],
    ['an unknown packet in front', Buffer.concat([packet(60, Buffer.alloc(3)), plain]), /of type 60/],
    ['a one-pass packet of another version', Buffer.concat([packet(4, Buffer.alloc(13)), plain]), /not known/],
    ['a huge one-pass packet', packet(4, Buffer.alloc(100_000)), /more than 13 bytes/],
    [
      'nine one-pass packets',
      Buffer.concat(Array.from({ length: 9 }, () => packet(4, packets[0]!.body))),
      /more than 8/,
    ],
    [
      'nine signatures',
      Buffer.concat([plain, ...Array.from({ length: 9 }, () => packet(2, packets[2]!.body))]),
      /more than 8/,
    ],
    ['a huge signature', Buffer.concat([plain, packet(2, Buffer.alloc(20_000))]), /more than 16384 bytes/],
    [
      'a signature without a length',
      Buffer.concat([packet(4, packets[0]!.body), packet(11, packets[1]!.body), Buffer.from([0x8b]), packets[2]!.body]),
      /without a length, which gpg refuses/,
    ],
    ['a signature in parts', Buffer.from([0xc2, 0xe9, ...Buffer.alloc(600)]), /a signature without|too small/],
    [
      'data in tiny parts',
      Buffer.concat([packet(4, packets[0]!.body), tinyParts(literal(tgz))]),
      /parts that are too small/,
    ],
    [
      'a bomb',
      packet(8, compress(packet(11, literal(Buffer.alloc(64 * 2 ** 20))))),
      /header check|unpacks to much more/,
    ],
  ]
  for (const [what, bytes, why] of cases) {
    await t.rejects(verify(bytes, await keysOf(vendor)), { code: 'MODULE_ARCHIVE', message: why }, what)
  }
})

t.test('digests are compared, of the file and of what is inside', async (t) => {
  const keys = await keysOf(['vendor'])
  const message = await signMessage(['vendor'], inner)
  const { md5, sha1 } = factsOf(tgz)
  const zeros = '0'.repeat(40)
  t.match(await verify(message, keys, { md5, sha1 }), { verdict: 'good' })
  for (const wrong of [{ signedSha1: zeros }, { sha1: zeros }, { md5: '0'.repeat(32) }])
    await t.rejects(verify(message, keys, wrong), { code: 'MODULE_DIGEST' }, JSON.stringify(wrong))
  const unsigned = { signedSha1: undefined }
  t.match(await verify(tgz, keys, { ...unsigned, md5, sha1 }), { verdict: 'unsigned', inner: factsOf(tgz) })
  t.match(await verify(tgz, keys, unsigned), { verdict: 'unsigned' }, 'an entry without digests')
  await t.rejects(verify(tgz, keys, { ...unsigned, sha1: zeros }), { code: 'MODULE_DIGEST' })
  await t.rejects(verify(tgz, keys, { ...unsigned, sha1, md5: zeros }), { code: 'MODULE_DIGEST' })
  await t.rejects(verify(tgz, keys, { ...unsigned, md5: zeros }), { code: 'MODULE_DIGEST' })
  await t.rejects(verify(message, keys, unsigned), { code: 'MODULE_ARCHIVE' }, 'a message where an archive is promised')
  t.match(
    await verify(tgz, keys),
    { verdict: 'bad', why: /the file has none/ },
    'an archive where a message is promised',
  )
})

t.test('another module, or another version, inside', async (t) => {
  const check = (bytes: Buffer): Promise<ModuleVerdict> => verify(bytes, [], { signedSha1: undefined })
  await t.rejects(check(moduleTgz({ rawname: 'framework' })), {
    code: 'MODULE_MISMATCH',
    message: /folder is "framework"/,
  })
  await t.rejects(check(moduleTgz({ version: '17.0.2' })), { code: 'MODULE_MISMATCH', message: /version .* "17.0.2"/ })
  const xml = moduleXml('framework')
  await t.rejects(check(moduleTgz({ files: { 'module.xml': xml } })), { code: 'MODULE_MISMATCH', message: /rawname/ })
  for (const bad of [
    '',
    '<module/>',
    '<xml/>',
    xml.slice(1),
    moduleXml().replace('</module>', '<version>1</version></module>'),
  ])
    await t.rejects(check(moduleTgz({ files: { 'module.xml': bad } })), { code: 'MODULE_ARCHIVE' }, bad)
  const declared = `<?xml version="1.0" encoding="utf-8"?>\n${moduleXml().replace('17.0.1', ' 17.0.1\n')}`
  t.match(await check(moduleTgz({ files: { 'module.xml': declared } })), { verdict: 'unsigned' })
})

t.test('keys: files pin what is in them, boxes only what is pinned already', async (t) => {
  const [vendor, stranger, revoked] = await Promise.all((['vendor', 'stranger', 'revoked'] as const).map(moduleTestKey))
  const text = `Keys\n${vendor!.publicArmored}\n${stranger!.publicArmored}`
  const files = [{ file: 'keys.asc', text }]
  const found = await moduleKeys({ files, inventories: [] })
  t.strictSame(
    found.map(({ fingerprint }) => fingerprint),
    [vendor!.fingerprint, stranger!.fingerprint],
  )
  const keyFiles = new Map([
    [VENDOR_FINGERPRINTS[0]!.slice(24), stranger!.publicArmored],
    ['0000000000000000', 'no key'],
  ])
  t.strictSame(await moduleKeys({ files: [], inventories: [{ keyFiles }] }), [], 'a key under the name of a pinned one')
  const cut = text.replace(/^([\w+/]{60})[\w+/]{4}$/m, '$1')
  for (const bad of ['', 'x', cut, vendor!.secretArmored])
    await t.rejects(moduleKeys({ files: [{ file: 'bad.asc', text: bad }], inventories: [] }), {
      code: 'KEY_INVALID',
      message: /^bad.asc: /,
    })
  const lie = vendor!.secretArmored.replaceAll('PRIVATE KEY BLOCK', 'PUBLIC KEY BLOCK')
  await t.rejects(
    moduleKeys({ files: [...files, { file: 'lie.asc', text: lie }], inventories: [] }),
    { code: 'KEY_INVALID', message: /^lie.asc: / },
    'a secret key is never carried, whatever its armor says',
  )
  const message = await signMessage(['revoked'], inner)
  const before = (await readPrivateKey({ armoredKey: revoked!.secretArmored })).toPublic().armor()
  const file = { file: 'before.asc', text: before }
  t.match(await verify(message, await moduleKeys({ files: [file], inventories: [] })), { verdict: 'good' })
  for (const texts of [
    [before, revoked!.publicArmored],
    [revoked!.publicArmored, before],
  ]) {
    const both = await moduleKeys({ files: texts.map((one) => ({ file: 'key.asc', text: one })), inventories: [] })
    t.match(await verify(message, both), { verdict: 'bad', why: /revoked/ }, 'one of them knows of the revocation')
  }
})

t.test('a download that is stopped says so', async (t) => {
  const reason = new Error('stopped')
  const signal = AbortSignal.abort(reason)
  await t.rejects(verifyModule(inner, { rawname: 'core', version: '17.0.1' }, [], { signal, nowMs: NOW }), reason)
})

interface SignedCase {
  what: string
  message: Buffer
  pinned: KeyName[]
  verdict: 'good' | 'unsigned' | 'bad'
  why?: RegExp
  /** where a box is of another mind */
  box?: 'good' | 'refused'
}

async function signedCases(): Promise<SignedCase[]> {
  const signed = (keys: readonly KeyName[], ...options: string[]): Promise<Buffer> => signMessage(keys, inner, options)
  const pinned: KeyName[] = ['vendor']
  const good = { pinned, verdict: 'good' } as const
  const bad = { pinned, verdict: 'bad' } as const
  const two = await signed(['vendor', 'stranger'])
  const plain = await signed(['vendor'], '-z', '0')
  return [
    { what: 'compressed', message: await signed(['vendor']), ...good },
    { what: 'not compressed', message: plain, ...good },
    { what: 'zlib', message: await signed(['vendor'], '--compress-algo', 'zlib'), ...good },
    { what: 'SHA-512', message: await signed(['vendor'], '--digest-algo', 'SHA512'), ...good },
    { what: 'data in parts', message: inParts(plain), ...good },
    { what: 'two signatures of pinned keys', message: two, verdict: 'good', pinned: ['vendor', 'stranger'] },
    { what: 'two, one of them foreign', message: two, ...bad, why: /none of the keys for modules/ },
    { what: 'foreign', message: await signed(['stranger']), ...bad, why: /none of the keys for modules/ },
    { what: 'by a subkey', message: await signed(['subkey']), verdict: 'good', pinned: ['subkey'] },
    {
      what: 'by a key that signed itself with SHA-1',
      message: await signed(['sha1']),
      verdict: 'good',
      pinned: ['sha1'],
    },
    {
      ...{ what: 'by a key that expired since', message: await signed(['expired'], ...OLD), pinned: ['expired'] },
      ...{ verdict: 'bad', why: /expired/ },
    },
    {
      what: 'by a key renewed since',
      message: await signed(['renewed'], ...OLD),
      pinned: ['renewed'],
      verdict: 'good',
    },
    {
      what: 'by a revoked key',
      message: await signed(['revoked']),
      pinned: ['revoked'],
      verdict: 'bad',
      why: /revoked/,
      box: 'good', // where it trusts it by itself
    },
    {
      ...{ what: 'a signature that ended', message: await signed(['renewed'], ...OLD, '--default-sig-expire', '1d') },
      ...{ pinned: ['renewed'], verdict: 'bad', why: /expired/ },
    },
    { what: 'no signature', message: packet(11, literal(tgz)), pinned, verdict: 'unsigned' },
    { what: 'over other data', message: await overOtherData(plain), ...bad, why: /does not hold/ },
    {
      what: 'another name around it, which is not signed',
      message: changedName(plain),
      ...good,
      what2: 'the name in the message is not signed',
    } as SignedCase,
    {
      what: 'a signature is missing',
      message: withoutSignature(plain),
      ...bad,
      why: /announces 1 signatures and has 0/,
    },
    // Where a box is more lenient: gpg 2.2 still takes SHA-1.
    {
      what: 'SHA-1',
      message: await signed(['vendor'], '--digest-algo', 'SHA1'),
      ...bad,
      why: /holds, but is over SHA-1/,
      box: 'good',
    },
    {
      what: 'SHA-1 over other data',
      message: await overOtherData(plain, '--digest-algo', 'SHA1'),
      ...bad,
      why: /not hold/,
    },
    { what: 'SHA-1, foreign', message: await signed(['stranger'], '--digest-algo', 'SHA1'), ...bad, why: /none of/ },
    { what: 'as text', message: await asText(), ...bad, why: /not over bytes/ },
  ]
}

async function overOtherData(message: Buffer, ...options: string[]): Promise<Buffer> {
  const theirs = parsePackets(await signMessage(['vendor'], other, ['-z', '0', ...options]))
  const [, data] = parsePackets(message)
  return Buffer.concat([packet(4, theirs[0]!.body), packet(11, data!.body), packet(2, theirs[2]!.body)])
}

/** A signature over text, whose line ends do not count. */
async function asText(): Promise<Buffer> {
  const [onePass] = parsePackets(await signMessage(['vendor'], inner, ['-z', '0']))
  const [signature] = parsePackets(await signMessage(['vendor'], inner, ['--textmode'], ['--detach-sign']))
  onePass!.body[1] = 1
  return Buffer.concat([packet(4, onePass!.body), packet(11, literal(tgz)), packet(2, signature!.body)])
}

function withoutSignature(message: Buffer): Buffer {
  const [onePass, data] = parsePackets(message)
  return Buffer.concat([packet(4, onePass!.body), packet(11, data!.body)])
}

function changedName(message: Buffer): Buffer {
  const [onePass, , signature] = parsePackets(message)
  return Buffer.concat([packet(4, onePass!.body), packet(11, literal(tgz)), packet(2, signature!.body)])
}

/** The data in partial body lengths of 512 and then of 8192 bytes. */
function inParts(message: Buffer): Buffer {
  const [onePass, data, signature] = parsePackets(message)
  const parts = [Buffer.from([0xcb, 0xe9]), data!.body.subarray(0, 512)]
  let at = 512
  for (; data!.body.length - at > 8192; at += 8192) parts.push(Buffer.from([0xed]), data!.body.subarray(at, at + 8192))
  const rest = data!.body.subarray(at)
  const length = Buffer.from([0xff, 0, 0, 0, 0])
  length.writeUInt32BE(rest.length, 1)
  return Buffer.concat([packet(4, onePass!.body), ...parts, length, rest, packet(2, signature!.body)])
}

function tinyParts(body: Buffer): Buffer {
  const parts = [Buffer.from([0xcb])]
  for (let at = 0; at < 1000; at++) parts.push(Buffer.from([0xe0, body[at]!]))
  return Buffer.concat(parts)
}

async function encrypted(): Promise<Buffer> {
  return signMessage(['vendor'], inner, ['--symmetric', '--passphrase', 'x'], [])
}

function compress(bytes: Buffer): Buffer {
  return bytes.length > 2 ** 20
    ? Buffer.concat([Buffer.from([2]), deflateSync(bytes)])
    : Buffer.concat([Buffer.from([1]), deflateRawSync(bytes)])
}

async function keysOf(names: readonly KeyName[]): Promise<ModuleKey[]> {
  const keys = await Promise.all(names.map((name) => moduleTestKey(name)))
  return moduleKeys({
    files: keys.map(({ publicArmored }, i) => ({ file: `${i}.asc`, text: publicArmored })),
    inventories: [],
  })
}

async function verify(bytes: Buffer, keys: ModuleKey[], check: Partial<ModuleCheck> = {}): Promise<ModuleVerdict> {
  const file = join(dir, 'file')
  writeFileSync(file, bytes)
  const expected = { rawname: 'core', version: '17.0.1', signedSha1: factsOf(bytes).sha1, ...check }
  return verifyModule(file, expected, keys, { signal: new AbortController().signal, nowMs: NOW })
}

function factsOf(bytes: Buffer) {
  const digest = (name: string): string => createHash(name).update(bytes).digest('hex')
  return { bytes: bytes.length, md5: digest('md5'), sha1: digest('sha1'), sha256: digest('sha256') }
}
