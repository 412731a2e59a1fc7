import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import t from 'tap'
import { isIssuedBy, parseAuthority, parseCertificate } from '../../manifests/certificate.ts'
import { der, integer, oid, readAll, readDer, sequence, time } from '../../manifests/der.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { looksLikeMirrorIdentity, parseMirrorIdentity, signMirrorIdentity } from '../../manifests/mirror-identity.ts'
import { identityWords, publicKeyOf } from '../../manifests/report.ts'
import { issueCertificate, pemOf, type CertificateKind, type Issuer } from '../../server/issue.ts'
import { makeHolder } from '../helpers/openssl.ts'
import { flip, NOW, type Loose } from '../helpers/site.ts'

const newP256 = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const dates = { notBeforeMs: NOW, notAfterMs: Date.UTC(2055, 0, 1) }

function issue(kind: CertificateKind, issuer?: Issuer, key = newP256()): Issuer & { raw: Buffer } {
  const more = issuer === undefined ? {} : { issuer }
  const raw = issueCertificate({ kind, site: 'hq', name: `a ${kind}`, key, ...dates, ...more })
  return { key, raw, certificate: new X509Certificate(raw) }
}

const AUTHORITY = issue('authority')
const DELIVERY = issue('delivery', AUTHORITY)
const IDENTITY = newP256()
const ABOUT = { site: 'hq', createdAt: '2026-11-22T12:00:00Z', authority: AUTHORITY.raw, delivery: DELIVERY.raw }
const SIGNED = signMirrorIdentity(ABOUT, IDENTITY)

t.test('certificates say what they are for, until when, by whom', (t) => {
  const { certificate } = AUTHORITY
  t.ok(certificate.ca)
  t.ok(isIssuedBy(certificate, certificate))
  t.same(
    [certificate.validFromDate.getTime(), certificate.validToDate.getTime()],
    [dates.notBeforeMs, dates.notAfterMs],
  )
  t.ok(isIssuedBy(DELIVERY.certificate, certificate))
  t.notOk(isIssuedBy(certificate, DELIVERY.certificate))
  t.notOk(isIssuedBy(issue('box', DELIVERY).certificate, DELIVERY.certificate), 'what is no authority issues nothing')
  const twin = issue('authority')
  t.notOk(isIssuedBy(DELIVERY.certificate, twin.certificate), 'an authority of the same name')
  t.equal(new X509Certificate(pemOf(DELIVERY.raw)).fingerprint256, DELIVERY.certificate.fingerprint256)
  t.end()
})

t.test('foreign bytes are no certificates, and others than ours no authorities', (t) => {
  const dir = t.testdir()
  const refused = (bytes: Buffer, what: string) =>
    t.throws(() => parseCertificate(bytes, 'it'), { code: 'CERTIFICATE_INVALID' }, what)
  t.equal(parseCertificate(AUTHORITY.raw, 'it').fingerprint256, AUTHORITY.certificate.fingerprint256)
  parseCertificate(makeHolder(dir, 'rsa', 'RSA-2048').certificate, 'it')
  refused(Buffer.alloc(0), 'nothing')
  refused(Buffer.from(pemOf(AUTHORITY.raw)), 'PEM')
  refused(Buffer.concat([AUTHORITY.raw, Buffer.of(0)]), 'a byte more')
  refused(Buffer.alloc(9000, 0x30), 'too long')
  for (let at = 0; at < AUTHORITY.raw.length; at += 11) refused(AUTHORITY.raw.subarray(0, at), `${at} bytes`)
  for (const kind of ['P-384', 'RSA-1024', 'ed25519'] as const) refused(makeHolder(dir, kind, kind).certificate, kind)
  for (const other of [DELIVERY.raw, makeHolder(dir, 'rsa-ca', 'RSA-2048').certificate]) {
    t.throws(() => parseAuthority(other, 'it'), { code: 'CERTIFICATE_INVALID' })
  }
  const key = newP256()
  const forged = issue('authority', { key, certificate: AUTHORITY.certificate }, key)
  t.throws(() => parseAuthority(forged.raw, 'it'), { code: 'CERTIFICATE_INVALID' }, 'signed by others')
  t.end()
})

t.test('an identity comes out as it went in', (t) => {
  const identity = publicKeyOf(IDENTITY)
  t.same(parseMirrorIdentity(SIGNED, 'x'), { ...ABOUT, identity, words: identityWords(identity) })
  t.ok(looksLikeMirrorIdentity(SIGNED))
  t.notOk(looksLikeMirrorIdentity(Buffer.from('{"_type":"gapferry-sealed-report"}')))
  const first = parseMirrorIdentity(signed({ format: 1, authority: undefined, delivery: undefined }), 'x')
  t.match(first, { site: 'hq', authority: undefined, delivery: undefined }, 'mirrors that have none yet')
  t.end()
})

t.test('an identity that was changed, cut or put together is refused', (t) => {
  const refused = (bytes: Buffer, code: string, what: string) =>
    t.throws(() => parseMirrorIdentity(bytes, 'x'), { code }, what)
  for (let at = 0; at < SIGNED.length; at += 5) {
    t.throws(() => parseMirrorIdentity(flip(SIGNED, at), 'x'), /x: /, `byte ${at}`)
    refused(SIGNED.subarray(0, at), 'REPORT_INVALID', `${at} bytes`)
  }
  const other = issue('authority')
  const text = (bytes: Buffer): string => bytes.toString('base64')
  refused(signed({ authority: text(other.raw) }, null), 'REPORT_SIGNATURE', 'another authority')
  refused(signed({ authority: text(other.raw) }), 'REPORT_INVALID', 'of which the delivery certificate is not')
  refused(signed({ delivery: text(AUTHORITY.raw) }), 'REPORT_INVALID', 'the authority in place of it')
  refused(signed({ authority: text(DELIVERY.raw) }), 'REPORT_INVALID', 'no authority')
  refused(signed({ delivery: 'AAAA' }), 'REPORT_INVALID', 'no certificate')
  refused(signed({ words: identityWords(publicKeyOf(newP256())) }), 'REPORT_INVALID', 'words of another key')
  refused(signed({ format: 3 }), 'REPORT_INVALID', 'a later format')
  refused(signed({ format: 1 }), 'REPORT_INVALID', 'keys that the format does not have')
  refused(signed({ format: 2.5 }), 'REPORT_INVALID', 'what canonical JSON cannot spell')
  refused(Buffer.from(`${SIGNED.toString()}\n`), 'REPORT_INVALID', 'another spelling')
  refused(Buffer.alloc(17_000, 0x20), 'REPORT_INVALID', 'too long')
  t.end()
})

t.test('DER is read in its shortest form only', (t) => {
  t.equal(oid('1.2.840.113549.1.1.11').toString('hex'), '06092a864886f70d01010b')
  t.equal(integer(Buffer.of(0, 0, 0x80)).toString('hex'), '02020080')
  t.equal(integer(Buffer.of(0, 0)).toString('hex'), '020100')
  t.equal(
    time(Date.UTC(2049, 11, 31, 23, 59, 59))
      .toString('latin1')
      .slice(2),
    '491231235959Z',
  )
  t.equal(
    time(Date.UTC(2050, 0, 1))
      .toString('latin1')
      .slice(2),
    '20500101000000Z',
  )
  for (const length of [0, 1, 127, 128, 255, 256, 65_535, 65_536]) {
    const value = der(4, Buffer.alloc(length))
    t.equal(readDer(value)?.content.length, length)
    t.equal(readDer(value.subarray(0, -1)), undefined)
    t.equal(readDer(Buffer.concat([value, Buffer.of(5, 0)])), undefined)
  }
  for (const hex of [
    '0480',
    '048100',
    '04817f' + '00'.repeat(127),
    '0482007f' + '00'.repeat(127),
    '0484000000010a',
    '1f0100',
    '04',
  ]) {
    t.equal(readDer(Buffer.from(hex, 'hex')), undefined, hex.slice(0, 16))
  }
  t.same(
    readAll(sequence(integer(Buffer.of(1)), integer(Buffer.of(2))).subarray(2))?.map(({ content }) => content[0]),
    [1, 2],
  )
  t.same(readAll(Buffer.alloc(0)), [])
  t.end()
})

/** SIGNED with other fields, signed again unless `key` is null. */
function signed(change: Record<string, unknown>, key?: null): Buffer {
  const doc: Loose = JSON.parse(SIGNED.toString())
  const fields = Object.entries({ ...(doc.signed as object), ...change }).filter(([, value]) => value !== undefined)
  const about = Object.fromEntries(fields)
  const bytes = about['format'] === 2.5 ? Buffer.from(JSON.stringify(about)) : canonicalJson(about)
  const signature = key === null ? doc.signature : signText(bytes)
  const whole = { identity: doc.identity, signature, signed: about }
  return about['format'] === 2.5 ? Buffer.from(JSON.stringify(whole)) : canonicalJson(whole)
}

function signText(bytes: Buffer): string {
  return sign('sha256', bytes, IDENTITY).toString('base64')
}
