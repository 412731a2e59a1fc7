/** What every test of the kind "a thief brings this" asks: its own code, little time and memory, and nothing changed. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import type { Test } from 'tap'
import type { ErrorCode } from '../../manifests/errors.ts'
import { openStoreForWriting, type MirrorStore } from '../../server/store.ts'
import { makeStore, traces } from './mirror.ts'
import { sampleRoot } from './part.ts'
import { mustRun } from './process.ts'
import { NOW } from './site.ts'

export interface HostileCase {
  what: string
  /** any of them where there are several */
  code: ErrorCode | ErrorCode[]
  bytes: Buffer
}

export interface Refusals {
  results: { code: string; cpuMs: number; isUnchanged: boolean }[]
  /** the most memory the process had at any time */
  peakBytes: number
}

/** Of processor time, for one file; it takes a tenth of that on a slow machine. */
const MAX_CPU_MS = 2000
const MAX_PEAK_BYTES = 200 * 1024 * 1024

/** A mirror's store with `root` pinned, open for writing until the test ends. */
export function hostileStore(t: Test, dir: string, root = sampleRoot): MirrorStore {
  const made = makeStore(dir)
  made.catalog.pin({ site: 'hq', root, nowMs: NOW })
  made.catalog.close()
  const store = openStoreForWriting(made.root)
  t.teardown(() => store.close())
  return store
}

/** Everything a mirror has: the files under blobs/ and staging/, and every row of its catalogue. */
export function stateOf(storeDir: string): string {
  const db = new SqliteDatabase(join(storeDir, 'catalog.db'), { readonly: true })
  try {
    const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").pluck().all()
    const rows = tables.map((name) => [
      name,
      db
        .prepare(`SELECT * FROM "${String(name)}"`)
        .raw()
        .all(),
    ])
    const hex = (_: string, value: unknown): unknown =>
      typeof value === 'object' && value !== null && 'type' in value
        ? Buffer.from(value as never).toString('hex')
        : value
    const files = ['blobs', 'staging'].map((name) => traces(join(storeDir, name)).map(withoutFolderTime))
    return JSON.stringify([files, rows], hex)
  } finally {
    db.close()
  }
}

/** Imports each case into the store in one process of its own, which must refuse them all as promised.
 *  @param storeDir  nobody else may hold its lock */
export async function refusesAll(t: Test, storeDir: string, cases: HostileCase[], nowMs = NOW): Promise<void> {
  const dir = join(storeDir, '..', `hostile-${Math.random().toString(36).slice(2)}`)
  mkdirSync(dir)
  const files = cases.map(({ bytes }, i) => {
    const file = join(dir, `${i}.tar`)
    writeFileSync(file, bytes)
    return file
  })
  const program = join(import.meta.dirname, 'import-program.ts')
  const input = JSON.stringify(files)
  const { stdout } = await mustRun(process.execPath, ['--expose-gc', program, storeDir, String(nowMs)], { input })
  const { results, peakBytes } = JSON.parse(stdout) as Refusals
  for (const [i, { what, code }] of cases.entries()) {
    const { cpuMs, isUnchanged, code: found } = results[i]!
    const isExpected = [code].flat().some((one) => one === found)
    const refusal = { code: isExpected ? code : found, isUnchanged, isSoon: cpuMs < MAX_CPU_MS }
    t.same(refusal, { code, isUnchanged: true, isSoon: true }, `${what}: ${found}`)
  }
  t.ok(peakBytes < MAX_PEAK_BYTES, `${Math.round(peakBytes / 2 ** 20)} MiB of memory`)
}

/** A file that was made and removed leaves its folder's time changed, and nothing else. */
function withoutFolderTime(line: string): string {
  return line.replace(/\/ [\d.]+$/, '/')
}
