/**
 * The few steps that make a file survive a power cut: write all of it, fsync it, rename it, fsync its folder.
 */
import { closeSync, constants, fsyncSync, lstatSync, mkdtempSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { renameSync, rmSync, statfsSync, unlinkSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { formatBytes } from '../manifests/console.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { NO_ROOM, systemCode } from '../manifests/system-error.ts'

export { systemCode } from '../manifests/system-error.ts'

/** Writes every byte at the file's position.
 *  @param what  names the file in messages
 *  @throws SPACE_SHORT when the disk, the quota or the largest file that the file system allows is reached */
export function writeAll(fd: number, bytes: Uint8Array, what: string): void {
  // A full disk shows as a short count first, without an error: a bare writeSync would lose the rest in silence.
  for (let done = 0; done < bytes.length;) {
    const count = noticeShortSpace(what, () => writeSync(fd, bytes, done, bytes.length - done))
    if (count === 0) throw spaceShort(what, `${bytes.length - done} of ${bytes.length} bytes could not be written`)
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
  const temp = `${file}.part`
  removeFile(temp) // a crash may have left it, also where the file is as it shall be
  if (holds(file, bytes)) return false
  writeTemp(temp, bytes, { mode, file })
  try {
    renameSync(temp, file)
  } catch (error) {
    removeAfter(temp)
    throw error
  }
  syncFolder(dirname(file))
  return true
}

/** Removes a file, a link or a pipe where there is one; what goes wrong has the system's code, which it does not with Node's rmSync. */
export function removeFile(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error
  }
}

/** As removeFile, after a failure that is to be told: where the disk is gone, removing fails, too. */
export function removeAfter(file: string): void {
  try {
    removeFile(file)
  } catch {
    // the next run removes it
  }
}

/** Writes `temp`, which must not be there, whole and durable; only its name is not.
 *  @param about.file  what it will be called: for messages
 *  @throws SPACE_SHORT with both figures, what the system says; nothing is left then */
export function writeTemp(temp: string, bytes: Uint8Array, { mode, file }: { mode: number; file: string }): void {
  try {
    const fd = openSync(temp, 'wx', mode)
    try {
      writeAll(fd, bytes, file)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') removeAfter(temp)
    if (isGapferryError(error, 'SPACE_SHORT') || NO_ROOM.includes(systemCode(error))) {
      throw spaceShort(
        file,
        `expected ${formatBytes(bytes.length)} of free space, ${foundRoom(file, bytes.length)}`,
        error,
      )
    }
    throw error
  }
}

/** After a write of `bytes` failed for want of room. */
export function foundRoom(file: string, bytes: number): string {
  const { bavail, bsize } = statfsSync(dirname(file))
  const free = bavail * bsize
  return free < bytes + bsize ? `found ${formatBytes(free)}` : 'found a quota or limit that is used up'
}

/** A new folder for what lives no longer than this process, for its owner only. What processes that are gone have left
 *  there under the same prefix is removed first, so that a crash leaves it only until the next run.
 *  @param prefix  of the folder's name; belongs to one purpose */
export function makeScratch(parent: string, prefix: string): string {
  for (const name of readdirSync(parent)) {
    const pid = name.startsWith(prefix) ? /^(\d{1,10})-/.exec(name.slice(prefix.length))?.[1] : undefined
    if (pid !== undefined && !isRunning(Number(pid))) removeOwn(join(parent, name))
  }
  return mkdtempSync(join(parent, `${prefix}${process.pid}-`))
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

function holds(file: string, bytes: Uint8Array): boolean {
  try {
    // A pipe would be waited for, and a link be followed to something else.
    const found = lstatSync(file, { throwIfNoEntry: false })
    return found?.isFile() === true && found.size === bytes.length && readFileSync(file).equals(bytes)
  } catch {
    return false // whatever stands there, it is not this file: the write below will say what is wrong
  }
}

/** A number that was given to another process since looks alive: such a folder stays until that one has ended. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemCode(error) !== 'ESRCH'
  }
}

/** Another user's folder is not ours to take away. */
function removeOwn(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true })
  } catch (error) {
    if (!['EACCES', 'EPERM'].includes(systemCode(error))) throw error
  }
}

function spaceShort(what: string, why: string, cause?: unknown): GapferryError {
  const hint =
    why === 'EFBIG'
      ? 'the file system takes no larger file: use a smaller --part-size'
      : 'make room on this disk, or use another'
  return new GapferryError('SPACE_SHORT', `${what}: no room to write it (${why})`, { hint, cause })
}
