/** The inventories beside a report, packed for it and taken out again, one at a time and under a limit. FORMAT.md#report. */
import { gunzipSync, gzipSync } from 'node:zlib'
import { sha256Of } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { MAX_ATTACHED_CHARS, type ReportInventory, type SignedReport } from '../manifests/report.ts'

/** Inventories in their order, packed, as many as a report has room for.
 *  @param read  the bytes of one; undefined leaves it out
 *  @param maxChars  for all of them together */
export function packAttachments(
  inventories: readonly ReportInventory[],
  read: (inventory: ReportInventory) => Buffer | undefined,
  maxChars: number = MAX_ATTACHED_CHARS,
): Record<string, string> {
  const attachments: Record<string, string> = {}
  let chars = 0
  for (const inventory of inventories) {
    if (inventory.sha256 in attachments) continue
    const packed = packed64(read(inventory))
    if (packed === undefined || chars + packed.length > maxChars) continue
    attachments[inventory.sha256] = packed
    chars += packed.length
  }
  return attachments
}

/** The bytes of an inventory that a report names; undefined where they are not with it.
 *  @throws REPORT_INVALID where they are other ones than it says */
export function readAttachment(
  { attachments }: Pick<SignedReport, 'attachments'>,
  { box, sha256, bytes }: ReportInventory,
  what: string,
): Buffer | undefined {
  const packed = Object.hasOwn(attachments, sha256) ? attachments[sha256] : undefined
  if (packed === undefined) return undefined
  const refused = (cause?: unknown) =>
    new GapferryError('REPORT_INVALID', `${what}: the inventory of ${box} in it is not the one that it names`, {
      cause,
    })
  let unpacked: Buffer
  try {
    unpacked = gunzipSync(Buffer.from(packed, 'base64'), { maxOutputLength: bytes })
  } catch (cause) {
    throw refused(cause)
  }
  if (unpacked.length !== bytes || sha256Of(unpacked) !== sha256) throw refused()
  return unpacked
}

function packed64(bytes: Buffer | undefined): string | undefined {
  return bytes && gzipSync(bytes, { level: 9 }).toString('base64')
}
