/** Reports for tests, made without a mirror. */
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { sha256Of } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { sealReport } from '../../manifests/report-seal.ts'
import { keyDigest, packBlobs, publicKeyOf, signReport, type Report } from '../../manifests/report.ts'

export function newReportKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

/** What a mirror of site `hq` might say. */
export function sampleReport(reader: string, change: Partial<Report> = {}): Omit<Report, '_type' | 'format'> {
  return {
    site: 'hq',
    recipient: keyDigest(reader),
    level: 'minimal',
    sequence: 7,
    createdAt: '2026-11-22T12:00:00Z',
    bundles: [{ number: 3, state: sha256Of('targets 3'), isComplete: true }],
    served: [{ group: 'pbx', bundle: 3, role: 'current' }],
    blobs: packBlobs([sha256Of('a'), sha256Of('b')]),
    results: [{ at: '2026-11-22T11:00:00Z', command: 'import', result: 'ok', bundle: 3, groups: ['pbx'] }],
    boxes: [{ box: 'box-0123456789abcdef', group: 'pbx', lastAskedAt: '2026-11-22T10:00:00Z' }],
    parity: [],
    freeBytes: 1_000_000,
    inventories: [],
    readiness: [{ box: 'box-0123456789abcdef', takenAt: '2026-11-22T10:00:00Z', ready: 9, not: 2, unknown: 1 }],
    enrolled: [],
    authority: null,
    delivery: null,
    licenses: [],
    ...change,
  }
}

/** Of an authority, P-256, for a hundred years: base64 of its DER. */
export const SAMPLE_CERTIFICATE =
  'MIIBizCCATGgAwIBAgIUI2MD8IkENzIgjhX94TQjWpnY2XAwCgYIKoZIzj0EAwIwGjEYMBYGA1UEAwwPYXV0aG9yaXR5IG9mIGhx' +
  'MCAXDTI2MTEyMjE0NTExMFoYDzIxMjYxMDI5MTQ1MTEwWjAaMRgwFgYDVQQDDA9hdXRob3JpdHkgb2YgaHEwWTATBgcqhkjOPQIB' +
  'BggqhkjOPQMBBwNCAAS4gd7Oyi+4wpSTNJ9ElP4CbJbj4aaA1MMJFykse3LKZLQDGaMtx3KtxGMFGAkefDzHDqAWcxtxfyPXunh3' +
  'Cs6mo1MwUTAdBgNVHQ4EFgQU4Epb8pYaLhNxYLl6aMvedPxOI3IwHwYDVR0jBBgwFoAU4Epb8pYaLhNxYLl6aMvedPxOI3IwDwYD' +
  'VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAzgWnVI7UbdXhXX7N9zhJzXbceh+YFc35vf9mDhufvBgCIBRY0SsnjoCc' +
  'L5ND86BD2Y6WUl0r7Xg6FElhDIE4XTkf'

const ADDED = ['inventories', 'readiness', 'enrolled', 'authority', 'delivery', 'licenses']

/** A report as mirrors wrote it before format 2, signed. */
export function signedBefore(reader: string, mirror: KeyObject): Buffer {
  const before: Record<string, unknown> = { _type: 'gapferry-report', ...sampleReport(reader), format: 1 }
  for (const added of ADDED) delete before[added]
  const signed = before
  const signature = sign('sha256', canonicalJson(signed), mirror).toString('base64')
  return canonicalJson({ identity: publicKeyOf(mirror), signature, signed })
}

/** As it lies on the stick.
 *  @param reader  the laptop's public key
 *  @param mirror  signs it */
export function sealedReport(reader: string, mirror: KeyObject, change: Partial<Report> = {}): Buffer {
  const report = sampleReport(reader, change)
  return sealReport(signReport(report, mirror), reader, report.site)
}
