/**
 * Makes certificates (X.509 v3, RFC 5280), signed with ECDSA and SHA-256. What each kind allows: FORMAT.md#certificates.
 */
import { createHash, createPublicKey, randomBytes, sign, type KeyObject, type X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { bitString, der, integer, oid, readAll, readDer, sequence, TAG, time } from '../manifests/der.ts'

export type CertificateKind = 'authority' | 'delivery' | 'server' | 'box'

/** Who signs; an authority signs itself, and has none. */
export interface Issuer {
  key: KeyObject
  certificate: X509Certificate
}

const SERIAL_BYTES = 16
const KEY_ID_BYTES = 20
/** RFC 5280, ub-common-name and ub-organization-name */
const MAX_NAME_CHARS = 64
/** of key usage, RFC 5280 §4.2.1.3, most significant first; then how many bits do not count */
const DIGITAL_SIGNATURE = 0x80
const KEY_ENCIPHERMENT = 0x20
const KEY_AGREEMENT = 0x08
const SIGNS_CERTIFICATES = 0x06
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/** @param args.site, args.name  organization and common name of the subject
 *  @param args.issuer  whose key signs; without one `args.key`, a private key, signs for itself
 *  @param args.key     whose public half it is about
 *  @param args.hosts   names and addresses that it is good for
 *  @returns DER */
export function issueCertificate(args: {
  kind: CertificateKind
  site: string
  name: string
  key: KeyObject
  issuer?: Issuer
  notBeforeMs: number
  notAfterMs: number
  hosts?: readonly string[]
}): Buffer {
  const { kind, issuer, key } = args
  const subject = nameOf(args)
  const publicKey = key.type === 'private' ? createPublicKey(key) : key
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const issuerKey = issuer === undefined ? publicKey : issuer.certificate.publicKey
  const extensions = [
    ...usage(kind, publicKey),
    extension('2.5.29.14', der(TAG.octetString, keyId(publicKey))),
    extension('2.5.29.35', sequence(der(0x80, keyId(issuerKey)))),
    ...(args.hosts === undefined ? [] : [extension('2.5.29.17', sequence(...args.hosts.flatMap(alternative)))]),
  ]
  const algorithm = sequence(oid('1.2.840.10045.4.3.2'))
  const signed = sequence(
    der(0xa0, integer(Buffer.of(2))),
    integer(newSerial()),
    algorithm,
    issuer === undefined ? subject : subjectOf(issuer.certificate),
    sequence(time(args.notBeforeMs), time(args.notAfterMs)),
    subject,
    spki,
    der(0xa3, sequence(...extensions)),
  )
  return sequence(signed, algorithm, bitString(sign('sha256', signed, issuer?.key ?? key)))
}

export function pemOf(certificate: Buffer): string {
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

/** Positive, and never begins with a zero. */
function newSerial(): Buffer {
  const bytes = randomBytes(SERIAL_BYTES)
  bytes[0] = (bytes[0]! & 0x3f) | 0x40
  return bytes
}

function nameOf({ site, name }: { site: string; name: string }): Buffer {
  return sequence(namePart('2.5.4.10', site), namePart('2.5.4.3', name))
}

function namePart(id: string, text: string): Buffer {
  return der(TAG.set, sequence(oid(id), der(TAG.utf8, Buffer.from(text.slice(0, MAX_NAME_CHARS)))))
}

/** As it stands there: an issuer's name is compared by its bytes. */
function subjectOf({ raw }: X509Certificate): Buffer {
  const signed = readAll(readDer(raw)!.content)![0]!
  return readAll(signed.content)![5]!.whole
}

function keyId(publicKey: KeyObject): Buffer {
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest().subarray(0, KEY_ID_BYTES)
}

function usage(kind: CertificateKind, publicKey: KeyObject): Buffer[] {
  const isRsa = publicKey.asymmetricKeyType === 'rsa'
  const bits = {
    authority: SIGNS_CERTIFICATES,
    delivery: KEY_AGREEMENT,
    server: DIGITAL_SIGNATURE,
    // the same key opens what is sealed for the box
    box: DIGITAL_SIGNATURE | (isRsa ? KEY_ENCIPHERMENT : KEY_AGREEMENT),
  }[kind]
  const isAuthority = kind === 'authority'
  const pathLengthZero = [der(TAG.boolean, Buffer.of(0xff)), integer(Buffer.of(0))]
  const extended = { authority: undefined, delivery: undefined, server: SERVER_AUTH, box: CLIENT_AUTH }[kind]
  return [
    critical('2.5.29.19', sequence(...(isAuthority ? pathLengthZero : []))),
    critical('2.5.29.15', bitString(Buffer.of(bits), trailingZeros(bits))),
    ...(extended === undefined ? [] : [extension('2.5.29.37', sequence(oid(extended)))]),
  ]
}

function trailingZeros(bits: number): number {
  return 31 - Math.clz32(bits & -bits)
}

/** An address also as a name: ssl of Python 2.7 knows only names. */
function alternative(host: string): Buffer[] {
  const name = der(0x82, Buffer.from(host, 'latin1'))
  return isIP(host) === 0 ? [name] : [der(0x87, addressBytes(host)), name]
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  // A URL spells every IPv6 address in hexadecimal groups, the longest run of zeros as two colons.
  const [head = '', tail] = new URL(`http://[${address}]`).hostname.slice(1, -1).split('::')
  const [first, last] = [groupsOf(head), groupsOf(tail ?? '')]
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]))
}

function groupsOf(text: string): number[] {
  return text === '' ? [] : text.split(':').map((group) => parseInt(group, 16))
}

function critical(id: string, value: Buffer): Buffer {
  return sequence(oid(id), der(TAG.boolean, Buffer.of(0xff)), der(TAG.octetString, value))
}

function extension(id: string, value: Buffer): Buffer {
  return sequence(oid(id), der(TAG.octetString, value))
}
