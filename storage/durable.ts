/**
 * The few steps that make a file survive a power cut: write all of it, fsync it, rename it, fsync its folder.
 */
import { closeSync, constants, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'

const NO_ROOM = ['ENOSPC', 'EDQUOT', 'EFBIG']

/** Writes every byte at the file's position.
 *  @param what  names the file in messages
 *  @throws SPACE_SHORT when the disk, the quota or the largest file that the file system allows is reached */
export function writeAll(fd: number, bytes: Uint8Array, what: string): void {
  // A full disk shows as a short count first, without an error: a bare writeSync would lose the rest in silence.
  for (let done = 0; done < bytes.length;) {
    const count = noticeShortSpace(what, () => writeSync(fd, bytes, done, bytes.length - done))
    if (count === 0) throw spaceShort(what, 'nothing more could be written')
    done += count
  }
}

/** Makes the names in a folder durable. Does nothing where the system cannot (Windows: a folder cannot be opened). */
export function syncFolder(folder: string): void {
  if (process.platform === 'win32') return
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Puts `bytes` at `file`, durably and in one step: a reader sees the old file or the new one. A file that holds them
 *  already is left alone.
 *  @returns false when it was left alone
 *  @throws SPACE_SHORT */
export function replaceFile(file: string, bytes: Uint8Array, mode = 0o644): boolean {
  if (holds(file, bytes)) return false
  const temp = `${file}.part`
  rmSync(temp, { force: true })
  try {
    const fd = noticeShortSpace(file, () => openSync(temp, 'wx', mode))
    try {
      writeAll(fd, bytes, file)
      noticeShortSpace(file, () => fsyncSync(fd))
    } finally {
      closeSync(fd)
    }
    renameSync(temp, file)
  } finally {
    rmSync(temp, { force: true })
  }
  syncFolder(dirname(file))
  return true
}

/** Runs `step`, and says SPACE_SHORT where the system says in its own words that no room is left for `what`. */
export function noticeShortSpace<T>(what: string, step: () => T): T {
  try {
    return step()
  } catch (error) {
    if (!NO_ROOM.includes(systemCode(error))) throw error
    throw spaceShort(what, systemCode(error), error)
  }
}

/** Our own codes, SQLite's and Node's have an underscore. */
const SYSTEM_CODE = /^E[A-Z0-9]+$/

/** `ENOENT` and the like; empty where `error` is not the system's. */
export function systemCode(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' && SYSTEM_CODE.test(code) ? code : ''
}

function holds(file: string, bytes: Uint8Array): boolean {
  try {
    return readFileSync(file).equals(bytes)
  } catch {
    return false // whatever stands there, it is not this file: the write below will say what is wrong
  }
}

function spaceShort(what: string, why: string, cause?: unknown): GapferryError {
  const hint =
    why === 'EFBIG'
      ? 'the file system takes no larger file: use a smaller --part-size'
      : 'make room on this disk, or use another'
  return new GapferryError('SPACE_SHORT', `${what}: no room to write it (${why})`, { hint, cause })
}
