/**
 * What the operating system refuses, in our words: every failure that a disk can cause has a code and a next command,
 * wherever it was met.
 */
import { GapferryError } from './errors.ts'

/** What a system says when there is no room: on the disk, in the quota, in one file. */
export const NO_ROOM: readonly string[] = ['ENOSPC', 'EDQUOT', 'EFBIG']
/** What it says of a disk that is broken, gone, write-protected or somebody else's. */
const DISK_FAULTS = ['EIO', 'EROFS', 'EACCES', 'EPERM', 'ENODEV', 'ENXIO', 'ESTALE', 'EBUSY', 'EMFILE', 'ENFILE']
const NOT_OF_FILES = ['connect', 'listen', 'bind', 'accept']

/** EDQUOT, a quota that is used up, of Linux and of macOS: Node has no name for it. */
const QUOTA_NUMBERS = [-122, -69]

/** Our own codes, SQLite's and Node's have an underscore. */
const SYSTEM_CODE = /^E[A-Z0-9]+$/

/** `ENOENT` and the like; empty where `error` is not the system's. */
export function systemCode(error: unknown): string {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return ''
  if (SYSTEM_CODE.test(error.code)) return error.code
  const isUnnamed = error.code.startsWith('Unknown system error') && 'errno' in error
  return isUnnamed && QUOTA_NUMBERS.includes(Number(error.errno)) ? 'EDQUOT' : ''
}

/** What SQLite calls a refusal of the disk, where nobody met it nearer to the file. */
const SQLITE_CODES = { SQLITE_FULL: 'ENOSPC', SQLITE_IOERR: 'EIO', SQLITE_READONLY: 'EROFS' }

/** What the system refused while a file was worked on, as an error of ours: SPACE_SHORT or FILE_FAILED. Anything else comes
 *  back as it is. */
export function withCode(error: unknown): unknown {
  const { code, syscall, what } = refusalOf(error)
  const isSpace = NO_ROOM.includes(code)
  if ((!isSpace && !DISK_FAULTS.includes(code)) || NOT_OF_FILES.includes(syscall)) return error
  const hint = isSpace
    ? 'make room on this disk, then run the same command again'
    : 'see that the disk is sound and mounted for writing, then run the same command again'
  return new GapferryError(isSpace ? 'SPACE_SHORT' : 'FILE_FAILED', `${what}: ${syscall} failed (${code})`, {
    hint,
    cause: error,
  })
}

function refusalOf(error: unknown): { code: string; syscall: string; what: string } {
  const none = { code: '', syscall: '', what: '' }
  if (!(error instanceof Error) || !('code' in error)) return none
  const sqlite = Object.entries(SQLITE_CODES).find(([code]) => String(error.code).startsWith(code))
  if (sqlite !== undefined) return { code: sqlite[1], syscall: 'SQLite', what: 'a database of the store' }
  if (!('syscall' in error)) return none
  const what = 'path' in error ? String(error.path) : 'a file'
  return { code: systemCode(error), syscall: String(error.syscall), what }
}
