import { execFileSync } from 'node:child_process'
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const KEYS = {
  'P-256': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'RSA-2048': ['-newkey', 'rsa:2048'],
  'RSA-1024': ['-newkey', 'rsa:1024'],
  ed25519: ['-newkey', 'ed25519'],
} as const

/** A key with its self-signed certificate, as `openssl req` makes them. */
export interface Holder {
  key: KeyObject
  certificate: Buffer
  keyFile: string
  certificateFile: string
}

/** @param dir  where its files go; made if need be */
export function makeHolder(dir: string, name: string, kind: keyof typeof KEYS = 'P-256'): Holder {
  mkdirSync(dir, { recursive: true })
  const [keyFile, certificateFile] = [join(dir, `${name}.key`), join(dir, `${name}.pem`)]
  const subject = ['-subj', `/CN=${name}`, '-days', '3650']
  openssl(['req', '-x509', '-nodes', ...KEYS[kind], ...subject, '-keyout', keyFile, '-out', certificateFile])
  const certificate = new X509Certificate(readFileSync(certificateFile)).raw
  return { key: createPrivateKey(readFileSync(keyFile)), certificate, keyFile, certificateFile }
}

/** What `openssl cms -decrypt` makes of it; throws where it refuses. */
export function decryptWithOpenssl({ keyFile, certificateFile }: Holder, cms: Buffer): Buffer {
  const file = `${keyFile}.cms`
  writeFileSync(file, cms)
  const from = ['-decrypt', '-binary', '-inform', 'DER', '-in', file]
  return openssl(['cms', ...from, '-inkey', keyFile, '-recip', certificateFile])
}

export function openssl(args: string[], input?: Buffer): Buffer {
  return execFileSync('openssl', args, { stdio: ['pipe', 'pipe', 'pipe'], maxBuffer: 64 * 1024 * 1024, input })
}
