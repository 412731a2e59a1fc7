/**
 * The archive of a sound package, looked through like that of a module. No list says what its bytes are and nobody signed
 * them, and a box unpacks it with PHP's own reader of archives.
 */
import { createReadStream } from 'node:fs'
import { createGunzip } from 'node:zlib'
import { ModuleArchiveScanner } from './module-archive.ts'
import { inflated } from './signed-message.ts'

/** Sounds hardly shrink; silence does. */
const MAX_RATIO = 100
const CHUNK_BYTES = 64 * 1024
const SOUND_ARCHIVE = /^sounds\/.*\.tar\.gz$/i

/** True for paths of an origin where a sound package lies. */
export function isSoundArchive(path: string): boolean {
  return SOUND_ARCHIVE.test(path)
}

/** @param what  names it in messages
 *  @throws MODULE_ARCHIVE for what is no gzipped tar, is hostile, or is over a limit */
export async function verifySounds(file: string, what: string, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const source = createReadStream(file, { highWaterMark: CHUNK_BYTES, signal })
  try {
    const gunzip = createGunzip({ chunkSize: CHUNK_BYTES, rejectGarbageAfterEnd: true })
    const scanner = new ModuleArchiveScanner(what, 'sounds')
    for await (const piece of inflated(source, gunzip, { maxRatio: MAX_RATIO }, what)) scanner.push(piece)
    scanner.end()
  } catch (error) {
    signal.throwIfAborted() // what was stopped looks cut off
    throw error
  } finally {
    source.destroy()
  }
}
