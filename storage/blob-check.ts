/**
 * Whether what lies under a blob's name is what the name says. Disks forget; this finds out before a box does. One buffer,
 * whatever the blob's size.
 */
import { createHash } from 'node:crypto'
import { close, read } from 'node:fs'
import { promisify } from 'node:util'
import type { Sha256 } from '../manifests/digest.ts'
import { isGapferryError } from '../manifests/errors.ts'
import type { BlobStore } from './blobs.ts'
import { systemCode } from './durable.ts'

/** `unreadable`: the disk, or what stands there instead of a file, gives no bytes. */
export type BlobFault = 'missing' | 'size' | 'digest' | 'unreadable'

/** Enough for the disk; the event loop waits for the hash of one buffer at a time, about a millisecond. */
export const CHECK_BUFFER_BYTES = 1024 * 1024

const readAt = promisify(read)
const closeFile = promisify(close)

/** @param want     what signed trees say of the blob
 *  @param buffer   used again from blob to blob
 *  @param onBytes  told how many bytes were read since the last call
 *  @returns what is wrong with it; undefined when it is sound
 *  @throws the signal's reason */
export async function blobFault(
  blobs: Pick<BlobStore, 'open'>,
  want: { sha256: Sha256; bytes: number },
  options: { buffer: Buffer; onBytes?: ((bytes: number) => void) | undefined; signal?: AbortSignal | undefined },
): Promise<BlobFault | undefined> {
  let fd: number | undefined
  try {
    const file = blobs.open(want.sha256)
    fd = file.fd
    if (file.bytes !== want.bytes) return 'size'
    const found = await digestOf(fd, { ...options, bytes: want.bytes })
    return found === want.sha256 ? undefined : 'digest'
  } catch (error) {
    if (isGapferryError(error, 'BLOB_MISSING')) return 'missing'
    if (isGapferryError(error, 'BLOB_UNREADABLE') || systemCode(error).startsWith('E')) return 'unreadable'
    throw error
  } finally {
    if (fd !== undefined) await closeFile(fd)
  }
}

/** The SHA-256 of the first `bytes` of a file; of what there is where it ends early.
 *  @throws the signal's reason; what the system says */
export async function digestOf(
  fd: number,
  args: {
    bytes: number
    buffer: Buffer
    onBytes?: ((bytes: number) => void) | undefined
    signal?: AbortSignal | undefined
  },
): Promise<Sha256> {
  const { bytes, buffer, onBytes, signal } = args
  const hash = createHash('sha256')
  for (let done = 0; done < bytes;) {
    signal?.throwIfAborted()
    const { bytesRead } = await readAt(fd, buffer, 0, Math.min(buffer.length, bytes - done), done)
    if (bytesRead === 0) break
    hash.update(buffer.subarray(0, bytesRead))
    done += bytesRead
    onBytes?.(bytesRead)
  }
  return hash.digest('hex') as Sha256
}
