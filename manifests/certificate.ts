/**
 * The certificates of a mirror's own authority: who issued one, for which key, until when. Read with node:crypto, from DER in
 * its one spelling; names in them are not believed, only who signed. FORMAT.md#certificates.
 */
import { X509Certificate } from 'node:crypto'
import { GapferryError } from './errors.ts'

/** Ours have some 500. */
const MAX_CERTIFICATE_BYTES = 8192
const MIN_RSA_BITS = 2048

/** An X.509 certificate for a P-256 key, or RSA of at least 2048 bits.
 *  @param what  names it in messages
 *  @throws CERTIFICATE_INVALID */
export function parseCertificate(der: Buffer, what: string): X509Certificate {
  if (der.length > MAX_CERTIFICATE_BYTES) throw invalid(what, `is larger than ${MAX_CERTIFICATE_BYTES} bytes`)
  const certificate = readCertificate(der, what)
  if (!certificate.raw.equals(der)) throw invalid(what, 'has bytes beside the certificate')
  if (isKnownKey(certificate)) return certificate
  throw invalid(what, `is for a key that is neither P-256 nor RSA of at least ${MIN_RSA_BITS} bits`)
}

/** The same for the certificate of an authority: for a P-256 key, and signed with it.
 *  @throws CERTIFICATE_INVALID */
export function parseAuthority(der: Buffer, what: string): X509Certificate {
  const authority = parseCertificate(der, what)
  if (authority.publicKey.asymmetricKeyType !== 'ec') throw invalid(what, 'is not for a P-256 key')
  if (authority.ca && isIssuedBy(authority, authority)) return authority
  throw invalid(what, 'is not the certificate of an authority of its own')
}

/** Whether `authority` signed it. Says nothing of its dates. */
export function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return authority.ca && certificate.checkIssued(authority) && certificate.verify(authority.publicKey)
}

function readCertificate(der: Buffer, what: string): X509Certificate {
  try {
    // PEM, which Node would take as well, does not begin with a SEQUENCE.
    if (der[0] !== 0x30) throw new Error('expected DER')
    return new X509Certificate(der)
  } catch (cause) {
    throw new GapferryError('CERTIFICATE_INVALID', `${what} is no X.509 certificate`, { cause })
  }
}

function isKnownKey({ publicKey }: X509Certificate): boolean {
  const { asymmetricKeyType, asymmetricKeyDetails } = publicKey
  if (asymmetricKeyType === 'ec') return asymmetricKeyDetails?.namedCurve === 'prime256v1'
  return asymmetricKeyType === 'rsa' && (asymmetricKeyDetails?.modulusLength ?? 0) >= MIN_RSA_BITS
}

function invalid(what: string, why: string): GapferryError {
  return new GapferryError('CERTIFICATE_INVALID', `${what} ${why}`)
}
