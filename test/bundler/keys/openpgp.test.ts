import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import t from 'tap'
import { createOpenpgpKey, signDetached, verifySignature } from '../../../bundler/keys/openpgp.ts'
import { mustRun, run } from '../../helpers/process.ts'
import { flip, NOW } from '../../helpers/site.ts'
import { parsePackets, parseSignature, unarmor } from '../../helpers/openpgp-packets.ts'

const keys = await Promise.all(['hq', 'lab', 'a-site.with_many-0-letters'].map((site) => createOpenpgpKey(site, NOW)))
const [key] = keys as [(typeof keys)[number]]
const data = Buffer.from('<repomd/>\n')
const asc = await signDetached(key.secret, data, NOW)
const dir = t.testdir()

t.test('a site key is one RSA-3072 key of version 4, signed by itself, nothing else', async (t) => {
  for (const { armored } of keys) {
    const packets = parsePackets(unarmor(armored, 'PUBLIC KEY BLOCK'))
    t.strictSame(
      packets.map(({ tag }) => tag),
      [6, 13, 2],
      'public key, user id, signature: no subkeys',
    )
    const [primary, user, self] = packets
    t.equal(primary!.body[0], 4)
    t.equal(primary!.body[5], 1, 'RSA, sign and encrypt: the id that rpm 4.11 knows')
    t.equal(primary!.body.readUInt16BE(6), 3072)
    t.ok(primary!.body.readUInt32BE(1) * 1000 < NOW, 'made before now: boxes have slow clocks')
    t.match(user!.body.toString(), /^Gapferry site [a-z0-9._-]+$/)
    const { type, hash, hashed } = parseSignature(self!.body)
    t.equal(type, 0x13)
    t.equal(hash, 8, 'SHA-256')
    t.notOk(
      hashed.some((sub) => sub.type === 9 || sub.type === 3),
      'no expiry',
    )
  }
})

t.test('no subpacket of any signature is critical, whatever the key and the date', async (t) => {
  for (const { armored } of keys) noCritical(parsePackets(unarmor(armored, 'PUBLIC KEY BLOCK')).at(-1)!.body)
  const dates = fc.integer({ min: NOW, max: Date.UTC(2105, 0, 1) })
  const property = fc.asyncProperty(
    fc.constantFrom(...keys),
    dates,
    fc.uint8Array(),
    async ({ secret }, date, bytes) => {
      const [packet, ...more] = parsePackets(unarmor(await signDetached(secret, bytes, date), 'SIGNATURE'))
      if (more.length > 0 || packet?.tag !== 2) throw new Error('expected one signature packet')
      noCritical(packet.body)
    },
  )
  await t.resolves(fc.assert(property, { numRuns: 60 }))
})

// yum 3.4.3 reads gpgkey= with a parser of its own (yum/pgpmsg.py); these are its rules, restated.
t.test("keeps to what yum's key parser can read", async (t) => {
  const known = new Set([2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 16, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29])
  for (const text of [...keys.map(({ armored }) => armored), asc]) {
    const lines = text.split('\n')
    t.match(lines[0], /^-----BEGIN PGP (?:PUBLIC KEY BLOCK|SIGNATURE)-----$/)
    t.equal(lines[1], '', 'no armor headers')
    t.notMatch(text, /[^\x20-\x7e\n]/, 'ASCII, no carriage returns')
    t.match(text, /\n=[A-Za-z0-9+/]{4}\n-----END/, 'a checksum')
    for (const { tag, body, isNewFormat } of parsePackets(unarmor(text))) {
      t.ok([2, 6, 13].includes(tag), `packet ${tag}`)
      t.type(isNewFormat, 'boolean')
      if (tag !== 2) continue
      const { version, keyAlgorithm, hash, hashed, unhashed } = parseSignature(body)
      t.strictSame([version, keyAlgorithm, hash], [4, 1, 8])
      const created = hashed.filter((sub) => sub.type === 2 && !sub.isCritical)
      t.equal(created.length, 1, 'one creation time, readable without knowing the critical bit')
      t.equal(created[0]!.data.length, 4)
      t.ok(
        [...hashed, ...unhashed].some((sub) => sub.type === 16 && sub.data.length === 8),
        'an issuer',
      )
      const strange = [...hashed, ...unhashed].filter((sub) => !known.has(sub.type)).map((sub) => sub.type)
      t.strictSame(
        strange.filter((type) => ![30, 33].includes(type)),
        [],
        'beyond it only features and issuer fingerprint, which it skips',
      )
    }
  }
})

t.test('equal key, bytes and date give equal signatures', async (t) => {
  t.equal(await signDetached(key.secret, data, NOW), asc)
  t.not(await signDetached(key.secret, data, NOW + 1000), asc)
  const [packet] = parsePackets(unarmor(asc, 'SIGNATURE'))
  const created = parseSignature(packet!.body).hashed.find((sub) => sub.type === 2)!
  t.equal(created.data.readUInt32BE() * 1000, NOW, 'the date is the one that was given')
})

t.test('gpg imports the key and verifies the signature, and refuses altered data', async (t) => {
  const home = newHome('gpg')
  writeFileSync(join(dir, 'site.asc'), key.armored)
  writeFileSync(join(dir, 'data'), data)
  writeFileSync(join(dir, 'data.asc'), asc)
  writeFileSync(join(dir, 'altered'), flip(data, 3))
  await gpg(home, '--import', join(dir, 'site.asc'))
  t.match(await gpg(home, '--with-colons', '--list-keys'), `fpr:::::::::${key.fingerprint.toUpperCase()}:`)
  const verify = (file: string) =>
    run('gpg', ['--homedir', home, ...GPG, '--status-fd', '1', '--verify', join(dir, 'data.asc'), join(dir, file)])
  t.match(await verify('data'), { status: 0, stdout: /GOODSIG .* Gapferry site hq/ })
  t.match(await verify('altered'), { status: 1, stdout: /BADSIG/ })
})

t.test('gpgv verifies with nothing but the key', async (t) => {
  const ring = join(dir, 'ring.gpg')
  writeFileSync(ring, unarmor(key.armored, 'PUBLIC KEY BLOCK'))
  const verify = (file: string) =>
    run('gpgv', ['--status-fd', '1', '--keyring', ring, join(dir, 'data.asc'), join(dir, file)])
  t.match(await verify('data'), { status: 0, stdout: /VALIDSIG/ })
  t.match(await verify('altered'), { status: 1, stdout: /BADSIG/ })
})

t.test('rpm imports every key', async (t) => {
  for (const [i, { armored, fingerprint }] of keys.entries()) {
    const dbpath = join(dir, `rpmdb${i}`)
    mkdirSync(dbpath)
    writeFileSync(join(dir, `key${i}.asc`), armored)
    await mustRun('rpm', ['--dbpath', dbpath, '--import', join(dir, `key${i}.asc`)])
    const { stdout } = await mustRun('rpm', ['--dbpath', dbpath, '-q', 'gpg-pubkey'])
    t.match(stdout, `gpg-pubkey-${fingerprint.slice(-8)}-`)
  }
})

t.test('a secret that is no key cannot sign', async (t) => {
  await t.rejects(signDetached(Buffer.from('no key'), data, NOW), { code: 'KEY_INVALID' })
  await t.rejects(signDetached(key.secret, data, Date.UTC(2020, 0, 1)), { code: 'KEY_INVALID' }, 'before it was made')
})

t.test("an upstream's signature, made by real gpg", async (t) => {
  const home = newHome('upstream')
  const at2020 = ['--faked-system-time', `${Date.UTC(2020, 0, 1) / 1000}!`]
  await gpg(
    home,
    ...at2020,
    '--passphrase',
    '',
    '--quick-gen-key',
    'Upstream <u@example.org>',
    'rsa2048',
    'sign',
    '2020-06-01',
  )
  const armored = await gpg(home, '--armor', '--export')
  writeFileSync(join(dir, 'repomd.xml'), data)
  const signed = async (...options: string[]) => {
    const out = join(dir, 'out.sig')
    rmSync(out, { force: true })
    await gpg(home, ...at2020, ...options, '--output', out, '--detach-sign', join(dir, 'repomd.xml'))
    return readFileSync(out)
  }
  const check = (signature: Uint8Array, over: { bytes?: Uint8Array; keys?: string; nowMs?: number } = {}) =>
    verifySignature({ keys: armored, bytes: data, nowMs: NOW, ...over, signature })
  const good = await signed('--armor', '--digest-algo', 'SHA256')
  t.equal(await check(good), 'good', 'the key has expired since, but not when it signed')
  t.equal(await check(await signed('--digest-algo', 'SHA512')), 'good', 'binary')
  t.equal(await check(good, { keys: `${key.armored}\n${armored}` }), 'good', 'one of several keys in one text')
  t.equal(await check(Buffer.from(good.toString().replaceAll('\n', '\r\n'))), 'good', 'line ends of another system')

  t.equal(await check(good, { bytes: flip(data, 0) }), 'bad', 'altered data')
  t.equal(await check(good, { keys: key.armored }), 'bad', 'another key')
  t.equal(await check(await signed('--armor', '--digest-algo', 'SHA1')), 'bad', 'SHA-1 over the data')
  t.equal(await check(good, { nowMs: Date.UTC(2019, 0, 1) }), 'bad', 'from the future')
  for (const text of ['', '<html>login first</html>', key.armored, 'x'.repeat(200_000), '\x99\x01']) {
    t.equal(await check(Buffer.from(text, 'latin1')), 'bad', text.slice(0, 20))
  }
  const raw = await signed('--digest-algo', 'SHA256')
  for (let at = 0; at < raw.length; at += 11) {
    const verdict = await check(flip(raw, at))
    // What a signature does not cover (hints at the end of it) may change; it is no other statement about the data.
    if (verdict === 'good') t.equal(verdict, await check(raw), `byte ${at} is not covered`)
  }
  await t.rejects(check(good, { keys: 'no key' }), { code: 'KEY_INVALID' })
})

function noCritical(body: Buffer): void {
  const { hashed, unhashed } = parseSignature(body)
  const critical = [...hashed, ...unhashed].filter((sub) => sub.isCritical || sub.type > 127)
  if (hashed.length < 3 || critical.length > 0) throw new Error(`critical: ${critical.map((sub) => sub.type).join()}`)
}

/** GnuPG keeps sockets in its home, whose path must be short. */
function newHome(name: string): string {
  const home = mkdtempSync(join(tmpdir(), `${name}-`))
  t.teardown(async () => {
    await mustRun('gpgconf', ['--homedir', home, '--kill', 'all'])
    rmSync(home, { recursive: true, force: true })
  })
  return home
}

const GPG = ['--batch', '--no-tty', '--trust-model', 'always']

async function gpg(home: string, ...args: string[]): Promise<string> {
  return (await mustRun('gpg', ['--homedir', home, ...GPG, ...args])).stdout
}
