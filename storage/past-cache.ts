/**
 * Reading what a medium has, and not what the system remembers of what was written to it: O_DIRECT, which wants buffers,
 * positions and lengths that are aligned. Not every system and file system has it (FUSE drivers, macOS, Windows).
 *
 * Beside reading through a cache that was emptied before (400 MB on the build machine, interleaved): the same user CPU,
 * 0.5 to 1.7 of the wall time with one read ahead, which the system does not do here by itself.
 */
import { constants, fstatSync, openSync, read, statfsSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { systemCode } from './durable.ts'

/** Of the language, and of no type library that this project uses. */
declare const WebAssembly: { Memory: new (descriptor: { initial: number }) => { buffer: ArrayBuffer } }

/** Enough for every alignment that a medium asks for; WebAssembly's memory has such pages, and Buffers have none. */
export const PAGE_BYTES = 65_536
/** Positions and lengths that every medium takes. */
const ALIGNED_BYTES = 4096
/** File systems that have no medium: they take the flag, and it says nothing. tmpfs, ramfs. */
const IN_MEMORY = [0x01021994, 0x858458f6]

/** Each such memory reserves gigabytes of addresses: they are used again. */
const free: Buffer[] = []

/** A buffer that starts at a page, of unknown content; to be given back.
 *  @param bytes  a multiple of PAGE_BYTES */
export function takeAligned(bytes: number): Buffer {
  const index = free.findIndex((buffer) => buffer.length === bytes)
  const [found] = index < 0 ? [] : free.splice(index, 1)
  return found ?? Buffer.from(new WebAssembly.Memory({ initial: bytes / PAGE_BYTES }).buffer)
}

/** @param buffers  nobody may use them any more */
export function giveAligned(...buffers: Buffer[]): void {
  free.push(...buffers)
}

/** Opens `file` so that reads come from the medium. Where the system cannot, the file is dropped from the cache as far as
 *  the system does that, and opened as always.
 *  @param flags  of open(2)
 *  @returns `isPastCache`: false where a read may come from the cache all the same
 *  @throws what open(2) does */
export function openPastCache(file: string, flags: number): { fd: number; isPastCache: boolean } {
  const direct: number | undefined = constants.O_DIRECT
  try {
    if (direct !== undefined) {
      const fd = openSync(file, flags | direct)
      return { fd, isPastCache: fstatSync(fd).isFile() && !IN_MEMORY.includes(statfsSync(file).type) }
    }
  } catch (error) {
    if (!['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(systemCode(error))) throw error
  }
  const fd = openSync(file, flags)
  if (fstatSync(fd).isFile()) dropCache(file)
  return { fd, isPastCache: false }
}

/** Node has no posix_fadvise; dd does it (`iflag=nocache`, count=0: the whole file). Where there is no such dd nothing is
 *  dropped. */
function dropCache(file: string): void {
  spawnSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' })
}

/** Begins to read an aligned buffer full at an aligned position, beside whatever else is done.
 *  @param sizeBytes  of the file
 *  @returns bytes read; before the end of the file a number that leaves the next position aligned, or 0 */
export async function readAhead(fd: number, buffer: Buffer, position: number, sizeBytes: number): Promise<number> {
  const count = await new Promise<number>((resolve, reject) => {
    read(fd, buffer, 0, buffer.length, position, (error, found) => (error === null ? resolve(found) : reject(error)))
  })
  return position + count >= sizeBytes ? count : count - (count % ALIGNED_BYTES)
}
