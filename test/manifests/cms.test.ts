import { randomBytes, X509Certificate } from 'node:crypto'
import t from 'tap'
import { MAX_CMS_BYTES, openCms, sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { decryptWithOpenssl, makeHolder, openssl, type Holder } from '../helpers/openssl.ts'

const dir = t.testdir()
const ec = makeHolder(dir, 'ec')
const other = makeHolder(dir, 'other')
const rsa = makeHolder(dir, 'rsa', 'RSA-2048')
const CONTENT = Buffer.concat([
  Buffer.from('deploymentid = 12345678\r\n'),
  Buffer.from([0, 255, 10]),
  randomBytes(3000),
])

/** As a person or another program would make one. */
const sealWithOpenssl = ({ certificateFile }: Holder, options: string[] = [], cipher = '-aes-256-cbc') =>
  openssl(['cms', '-encrypt', '-binary', '-outform', 'DER', cipher, '-recip', certificateFile, ...options], CONTENT)
const SHA256_KDF = ['-keyopt', 'ecdh_kdf_md:sha256']
const OAEP = ['-keyopt', 'rsa_padding_mode:oaep', '-keyopt', 'rsa_oaep_md:sha256']

t.test('what is sealed is opened by openssl cms, by each of those that it is for and by nobody else', async (t) => {
  const cms = await sealCms(CONTENT, [ec.certificate, rsa.certificate])
  t.ok(decryptWithOpenssl(ec, cms).equals(CONTENT))
  t.ok(decryptWithOpenssl(rsa, cms).equals(CONTENT))
  t.throws(() => decryptWithOpenssl(other, cms))
  t.notOk(cms.includes('deploymentid'), 'nothing of it is in the clear')
  t.notOk(cms.includes(CONTENT.subarray(-16)))
})

t.test('what is sealed is opened here, by the same ones', async (t) => {
  const cms = await sealCms(CONTENT, [ec.certificate, rsa.certificate])
  t.ok((await openCms(cms, ec.key, ec.certificate, 'x')).equals(CONTENT))
  t.ok((await openCms(cms, rsa.key, rsa.certificate, 'x')).equals(CONTENT))
  await t.rejects(openCms(cms, other.key, other.certificate, 'x'), { code: 'CMS_INVALID' })
  await t.rejects(
    openCms(cms, other.key, ec.certificate, 'x'),
    { code: 'CMS_INVALID' },
    'the key of another certificate',
  )
  const again = await sealCms(CONTENT, [ec.certificate, rsa.certificate])
  t.not(sha256Of(again), sha256Of(cms), 'another each time')
})

t.test('what openssl cms seals in the same way is opened', async (t) => {
  t.ok((await openCms(sealWithOpenssl(ec, SHA256_KDF), ec.key, ec.certificate, 'x')).equals(CONTENT))
  t.ok((await openCms(sealWithOpenssl(rsa, OAEP), rsa.key, rsa.certificate, 'x')).equals(CONTENT))
})

t.test('openssl reads it as DER of the algorithms that are written down', async (t) => {
  const cms = await sealCms(CONTENT, [ec.certificate, rsa.certificate])
  const text = openssl(['cms', '-cmsout', '-print', '-inform', 'DER', '-noout'], cms).toString()
  for (const name of ['aes-256-cbc', 'dhSinglePass-stdDH-sha256kdf-scheme', 'id-aes256-wrap', 'rsaesOaep'])
    t.match(text, new RegExp(name), name)
  const tree = openssl(['asn1parse', '-inform', 'DER'], cms).toString()
  t.notMatch(tree, /inf /, 'definite lengths')
})

t.test('other ways of sealing are refused', async (t) => {
  const cases: [string, Holder, Buffer][] = [
    ['the default of openssl: ECDH with SHA-1', ec, sealWithOpenssl(ec)],
    ['the default of openssl: PKCS #1 v1.5', rsa, sealWithOpenssl(rsa)],
    ['OAEP with SHA-1', rsa, sealWithOpenssl(rsa, OAEP.slice(0, 2))],
    ['AES-128', ec, sealWithOpenssl(ec, SHA256_KDF, '-aes-128-cbc')],
    ['3DES', ec, sealWithOpenssl(ec, SHA256_KDF, '-des3')],
    ['AuthEnvelopedData', ec, sealWithOpenssl(ec, SHA256_KDF, '-aes-256-gcm')],
    ['indefinite lengths', ec, sealWithOpenssl(ec, [...SHA256_KDF, '-stream'])],
    ['a recipient by key identifier', ec, sealWithOpenssl(ec, [...SHA256_KDF, '-keyid'])],
    ['content in the clear', ec, openssl(['cms', '-data_create', '-binary', '-outform', 'DER'], CONTENT)],
  ]
  for (const [name, { key, certificate }, cms] of cases)
    await t.rejects(openCms(cms, key, certificate, 'x'), { code: 'CMS_INVALID' }, name)
})

t.test('nothing is sealed for weak or foreign keys, for nobody, or too much', async (t) => {
  for (const kind of ['P-384', 'RSA-1024', 'ed25519'] as const)
    await t.rejects(sealCms(CONTENT, [makeHolder(dir, kind, kind).certificate]), { code: 'CMS_INVALID' }, kind)
  await t.rejects(sealCms(CONTENT, []), { code: 'CMS_INVALID' }, 'nobody')
  await t.rejects(sealCms(CONTENT, Array(17).fill(ec.certificate) as Buffer[]), { code: 'CMS_INVALID' }, '17 of them')
  await t.rejects(sealCms(Buffer.alloc(0), [ec.certificate]), { code: 'CMS_INVALID' }, 'nothing')
  await t.rejects(sealCms(Buffer.alloc(MAX_CMS_BYTES), [ec.certificate]), { code: 'CMS_INVALID' }, 'too much')
  for (const certificate of [Buffer.from('no certificate'), ec.certificate.subarray(0, -1), Buffer.alloc(20_000, 0x30)])
    await t.rejects(sealCms(CONTENT, [certificate]), { code: 'CMS_INVALID' })
  t.ok(new X509Certificate(ec.certificate))
})

t.test('a changed document is refused, or opens as far as CBC goes: whoever opens it has its digest', async (t) => {
  const cms = await sealCms(CONTENT, [ec.certificate])
  const open = (bytes: Buffer) => openCms(bytes, ec.key, ec.certificate, 'x')
  let opened = 0
  const places = Array.from({ length: 130 }, (_, n) => (n < 100 ? n * 7 : 700 + (n - 100) * 97))
  for (const at of places) {
    const changed = Buffer.from(cms)
    changed[at]! ^= 1
    const got = await open(changed).catch((error: unknown) => error)
    if (Buffer.isBuffer(got)) opened++
    else t.match(got, { code: 'CMS_INVALID' }, `byte ${at}`)
  }
  t.ok(opened < places.length, `${opened} of ${places.length} opened`)
})

t.test('a hostile document is refused at once', async (t) => {
  const cms = await sealCms(CONTENT, [ec.certificate])
  const deep = Buffer.alloc(60_000, 0x30)
  for (const [name, bytes] of Object.entries({
    nothing: Buffer.alloc(0),
    'the first half': cms.subarray(0, cms.length / 2),
    'a byte more': Buffer.concat([cms, Buffer.alloc(1)]),
    nested: Buffer.concat([Buffer.from([0x30, 0x82, 0xff, 0xfc]), nested(65_532)]),
    'of many elements': Buffer.concat([Buffer.from([0x30, 0x82, 0xff, 0xfe]), Buffer.alloc(65_534, '0500', 'hex')]),
    'of endless lengths': deep,
    'too long': Buffer.alloc(MAX_CMS_BYTES + 1),
  }))
    await t.rejects(openCms(bytes, ec.key, ec.certificate, 'x'), { code: 'CMS_INVALID' }, name)
})

/** Sequences in sequences, each with a length of two bytes. */
function nested(length: number): Buffer {
  const bytes = Buffer.alloc(length, 0)
  for (let at = 0; at + 4 <= length; at += 4) {
    bytes.writeUInt16BE(0x3082, at)
    bytes.writeUInt16BE(length - at - 4, at + 2)
  }
  return bytes
}
