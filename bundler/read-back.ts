/**
 * Judges a part by what the medium gives back, not by what the cache remembers of what was written.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync } from 'node:fs'
import type { Sha256 } from '../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { systemCode } from '../storage/durable.ts'
import { giveAligned, openPastCache, readAhead, takeAligned } from '../storage/past-cache.ts'
import { frameOf } from './part-bytes.ts'
import { MEND } from './rot.ts'
import type { PlannedPart } from './split.ts'
import type { JudgedPart } from './verify.ts'

const BUFFER_BYTES = 1024 * 1024

/** Reads every byte of a part, checks each blob's digest. */
export type Judge = (file: string) => Promise<JudgedPart>

/** @param temp    the file
 *  @param sha256  of what was written to it
 *  @returns whether it was the medium that was read, for sure
 *  @throws PACK_READ_BACK naming the part; BLOB_DIGEST_MISMATCH where what was written was wrong already; what `verify` throws */
export async function readBack(
  temp: string,
  part: PlannedPart,
  sha256: Sha256,
  { verify, signal }: { verify: Judge; signal?: AbortSignal },
): Promise<boolean> {
  let cause: unknown
  try {
    const { frame, isPastCache } = await verify(temp)
    if (frame === (await frameOf(part.entries))) return isPastCache
  } catch (error) {
    cause = error
  }
  // Which of the two is bad, the medium or what was to be written?
  const found = await digestOf(temp, signal)
  if (found === sha256 && cause !== undefined) {
    if ((await judged(temp, part, verify)) === undefined) throw explainRot(part.name, cause)
    throw badMedium(part.name, 'read twice, it gave other bytes each time', cause)
  }
  throw badMedium(part.name, `wrote sha256 ${sha256}, read back ${found ?? 'what cannot be read'}`, cause)
}

/** Judges a part that is there.
 *  @returns undefined where it is not the part that is planned, byte for byte */
export async function judged(file: string, part: PlannedPart, verify: Judge): Promise<JudgedPart | undefined> {
  const found = await verify(file).catch((error: unknown) => {
    if (isGapferryError(error)) return undefined
    throw error
  })
  return found?.frame === (await frameOf(part.entries)) ? found : undefined
}

/** @returns PACK_READ_BACK */
export function badMedium(name: string, why: string, cause?: unknown): GapferryError {
  return new GapferryError('PACK_READ_BACK', `${name}: ${why}`, {
    hint: 'the medium is faulty: use another stick',
    cause,
  })
}

/** Of what the medium has. @returns undefined where it does not give it back */
export async function digestOf(file: string, signal?: AbortSignal): Promise<Sha256 | undefined> {
  const hash = createHash('sha256')
  const { fd } = openPastCache(file, constants.O_RDONLY | constants.O_NOFOLLOW)
  const buffer = takeAligned(BUFFER_BYTES)
  try {
    const { size } = fstatSync(fd)
    for (let done = 0; done < size;) {
      const count = await readAhead(fd, buffer, done, size)
      if (count === 0) return undefined
      hash.update(buffer.subarray(0, count))
      done += count
      signal?.throwIfAborted()
    }
    return hash.digest('hex') as Sha256
  } catch (error) {
    if (systemCode(error) === 'EIO') return undefined
    throw error
  } finally {
    giveAligned(buffer)
    closeSync(fd)
  }
}

/** What was written is what the store gave. The bundle stays signed: with the file mended, the next run writes the same one. */
function explainRot(name: string, cause: unknown): unknown {
  if (!isGapferryError(cause, 'BLOB_DIGEST_MISMATCH')) return cause
  const what = cause.message.replace(`${name}.part: `, '')
  return new GapferryError(cause.code, `${name} was not written: a file of the store is damaged: ${what}`, {
    ...MEND,
    cause,
  })
}
