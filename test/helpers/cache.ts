import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { randomBytes } from 'node:crypto'

/** What tests make once and use again lies here; removing the folder costs only the time to make it again. */
const CACHE = resolve(import.meta.dirname, '../../node_modules/.cache/gapferry-test')

/** The cached file `name`, or undefined. A name holds the digest of everything that decides the bytes, so nothing here
 *  is ever stale. Callers copy it before they change anything. */
export function fromCache(name: string): string | undefined {
  const file = join(CACHE, name)
  return existsSync(file) ? file : undefined
}

/** Keeps a copy of `file` as `name` and returns where. Safe with several test processes at once: a name appears with
 *  all its bytes or not at all, and the first one stays (a second process gets the first one's file). */
export function intoCache(file: string, name: string): string {
  mkdirSync(CACHE, { recursive: true })
  const target = join(CACHE, name)
  const staged = join(CACHE, `staged-${process.pid}-${randomBytes(6).toString('hex')}`)
  try {
    copyFileSync(file, staged)
    utimesSync(staged, FILE_TIME, FILE_TIME)
    linkSync(staged, target)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(staged, { force: true })
  }
  return target
}

/** The modification time (seconds) of every cached file: createrepo_c writes it into the metadata, which should not
 *  depend on when a package was built first. */
export const FILE_TIME = 1_767_225_600

/** Runs `work` with a new private folder in the system's temporary folder, which is removed at the end. */
export async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'gapferry-'))
  try {
    return await work(folder)
  } finally {
    removeFolder(folder)
  }
}

/** Removes a folder and all in it, also while a process that was just told to end (gpg's agent) still takes away what is
 *  its own there: Node 24 then stops half-way and says nothing. */
export function removeFolder(folder: string): void {
  for (let attempt = 0; existsSync(folder); attempt++) {
    if (attempt === REMOVE_ATTEMPTS) throw new Error(`${folder}: cannot be removed`)
    rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 })
  }
}

const REMOVE_ATTEMPTS = 100
