/** Reports for tests, made without a mirror. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { sha256Of } from '../../manifests/digest.ts'
import { sealReport } from '../../manifests/report-seal.ts'
import { keyDigest, packBlobs, signReport, type Report } from '../../manifests/report.ts'

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
    ...change,
  }
}

/** As it lies on the stick.
 *  @param reader  the laptop's public key
 *  @param mirror  signs it */
export function sealedReport(reader: string, mirror: KeyObject, change: Partial<Report> = {}): Buffer {
  const report = sampleReport(reader, change)
  return sealReport(signReport(report, mirror), reader, report.site)
}
