/** Where the bench keeps what it generates (from one run to the next) and what it measures with (for one run). */
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

const CACHE = resolve(import.meta.dirname, '../../node_modules/.cache/gapferry-bench')

/** The folder of the data `name`, made where this version of it is not there yet; other versions are removed.
 *  @param make  fills the folder that it is given */
export async function generated(
  name: string,
  version: number,
  make: (folder: string) => void | Promise<void>,
): Promise<string> {
  mkdirSync(CACHE, { recursive: true })
  const wanted = `${name}-${version}`
  const there = readdirSync(CACHE).filter((entry) => entry.startsWith(`${name}-`))
  for (const old of there.filter((entry) => entry !== wanted)) remove(join(CACHE, old))
  const folder = join(CACHE, wanted)
  if (there.includes(wanted)) return folder
  console.error(`making ${wanted} in ${CACHE}`)
  const temp = join(CACHE, `${wanted}.part`)
  mkdirSync(temp)
  await make(temp)
  renameSync(temp, folder)
  return folder
}

/** A folder for this run, on the same disk as the data, and how to be rid of it. What a killed run left goes too. */
export function workFolder(): { folder: string; removeIt: () => void } {
  mkdirSync(CACHE, { recursive: true })
  for (const name of readdirSync(CACHE)) {
    const pid = /^work-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !isRunning(Number(pid))) remove(join(CACHE, name))
  }
  const folder = mkdtempSync(join(CACHE, `work-${process.pid}-`))
  return { folder, removeIt: () => remove(folder) }
}

export function remove(path: string): void {
  rmSync(path, { recursive: true, force: true })
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
