/**
 * Files of the laptop's store that are not what they were.
 */
import { isGapferryError } from '../manifests/errors.ts'

/** A damaged file is named by `verify`, removed, and fetched again. */
export const MEND = { hint: 'gapferry store verify --mend, then gapferry pull' }

/** @returns undefined where `read` finds that the store has lost a blob, or has it with other bytes */
export function ifSound<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (!isGapferryError(error, 'BLOB_MISSING', 'BLOB_UNREADABLE', 'BLOB_DIGEST_MISMATCH', 'BLOB_SIZE_MISMATCH')) {
      throw error
    }
    return undefined
  }
}
