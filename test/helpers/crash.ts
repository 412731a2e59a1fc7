/** What tests of crashes need: both sides of the gap between a first bundle and a second, as folders that are copied for
 *  each attempt; programs that are killed; and what must be true afterwards, whatever happened. */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { request } from 'undici'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { runMirror } from '../../server/program.ts'
import { openStore } from '../../server/store.ts'
import { readTrees } from '../../storage/completeness.ts'
import { removeFolder } from './cache.ts'
import { startMirror, testConfig } from './content.ts'
import { makeGap, type Gap } from './gap.ts'
import { inside } from './inside.ts'
import type { Outcome, Teardown } from './process.ts'
import { serveFolder } from './static-server.ts'

const PROJECT = resolve(import.meta.dirname, '../..')
const MAINS = { gapferry: 'bundler/main.ts', 'gapferry-mirror': 'server/main.ts' } as const
export type ProgramName = keyof typeof MAINS

/** One site between bundle 1, which is served, and bundle 2. */
export interface Scene {
  dir: string
  gap: Gap
  /** folders to copy: the laptop that has to pull bundle 2, that has pulled it and has to pack it; the mirror that serves
   *  bundle 1, and that has bundle 2 imported and not released */
  toPull: string
  toPack: string
  toImport: string
  toRelease: string
  /** bundle 2, in parts of at most this size */
  stick: string
  partSize: string
  /** path → digest of what a box is answered with bundle 1 and with bundle 2 */
  before: Map<string, string>
  after: Map<string, string>
  /** A copy of one of the folders above. */
  copy(from: string): string
}

/** @param files  how many vendor files each bundle brings, and their size: what the programs are killed over */
export async function makeScene(t: Teardown, files: { count: number; bytes: number }): Promise<Scene> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-crash-'))
  t.teardown(() => removeFolder(dir))
  const www = join(dir, 'www')
  cpSync(join(PROJECT, 'test/sample'), www, { recursive: true })
  for (const set of ['one', 'two']) {
    mkdirSync(join(www, set))
    for (let n = 0; n < files.count; n++) writeFileSync(join(www, set, `${n}.bin`), noise(`${set} ${n}`, files.bytes))
  }
  const upstream = await serveFolder(www)
  t.teardown(() => upstream.close())
  const settings = (include: string, set: string): string =>
    [
      `yum:\n  - { id: sng-pkgs, baseurl: ['${upstream.url}/sng7/sng7/'], include: [${include}], newest: 1 }\nfiles:`,
      ...Array.from(
        { length: files.count },
        (_, n) => `  - { url: '${upstream.url}/${set}/${n}.bin', as: ${set}/${n}.bin }`,
      ),
    ].join('\n')
  const gap = await makeGap(t, join(dir, 'gap'), settings(`'asterisk18*'`, 'one'))
  await gap.bundle()
  await gap.deliver()
  const keep = (from: string, name: string): string => {
    cpSync(from, join(dir, name), { recursive: true, preserveTimestamps: true })
    return join(dir, name)
  }
  const toImport = keep(gap.mirrorDir, 'to-import')
  gap.settings(settings(`'asterisk18*', 'freepbx*'`, 'two'))
  const toPull = keep(gap.laptopDir, 'to-pull')
  succeeded(await gap.gapferry('pull'))
  const toPack = keep(gap.laptopDir, 'to-pack')
  const stick = join(dir, 'bundle-2')
  mkdirSync(stick)
  const partSize = `${Math.ceil((files.count * files.bytes) / 2) + 400_000}B`
  succeeded(await gap.gapferry('pack', '--to', stick, '--part-size', partSize))
  succeeded(await gap.mirror('import', stick))
  const toRelease = keep(gap.mirrorDir, 'to-release')
  const [before, after] = [1, 2].map((number) => currentOf(toRelease, number)) as [
    Map<string, string>,
    Map<string, string>,
  ]
  let copies = 0
  const copy = (from: string): string => keep(from, `copy-${++copies}`)
  return { dir, gap, toPull, toPack, toImport, toRelease, stick, partSize, before, after, copy }
}

/** `status` 0, or an error with all that was said. */
export function succeeded(outcome: Outcome): Outcome {
  if (outcome.status === 0) return outcome
  throw new Error(`status ${outcome.status}\n${outcome.stdout}\n${outcome.stderr}`)
}

/** Runs a command line in this process: for all that is not to be killed. */
export function command(program: ProgramName, cwd: string, ...args: string[]): Promise<Outcome> {
  return inside(program === 'gapferry' ? runGapferry : runMirror, cwd, args, { user: 'test (0)' })
}

export interface Killed {
  /** null: it ended by itself before */
  status: number | null
  stdout: string
  stderr: string
  ms: number
}

/** The real program as a process of its own, killed by SIGKILL after so many milliseconds (never, when undefined). */
export function killedAfter(program: ProgramName, cwd: string, args: string[], ms?: number): Promise<Killed> {
  return ended(process.execPath, [join(PROJECT, MAINS[program]), ...args], cwd, { ms })
}

/** The real program under strace, with what is to be injected, into any of its threads.
 *  @param inject  as strace's, without `inject=`: `fsync:signal=KILL:when=3`; or a call that is only to be counted
 *  @returns also how often one thread made each of the calls at most: strace counts per thread */
export async function straced(
  program: ProgramName,
  cwd: string,
  args: string[],
  inject: string[],
  options: { onlyPaths?: string[] } = {},
): Promise<Killed & { calls: Map<string, number> }> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-strace-'))
  try {
    const log = join(dir, 'log')
    const calls = inject.map((one) => one.split(':')[0]!)
    const line = [
      ...['-f', '-qq', '-o', log, '-e', `trace=${calls.join(',')}`],
      ...inject.filter((one) => one.includes(':')).flatMap((one) => ['-e', `inject=${one}`]),
      ...(options.onlyPaths ?? []).flatMap((path) => ['-P', path]),
      ...[process.execPath, join(PROJECT, MAINS[program]), ...args],
    ]
    // One thread does what Node does beside the main one, so that its calls have an order.
    const outcome = await ended('strace', line, cwd, { environment: { UV_THREADPOOL_SIZE: '1' } })
    return { ...outcome, calls: mostPerThread(readFileSync(log, 'utf8')) }
  } finally {
    removeFolder(dir)
  }
}

async function ended(
  file: string,
  args: string[],
  cwd: string,
  { ms, environment = {} }: { ms?: number | undefined; environment?: Record<string, string> },
): Promise<Killed> {
  const tmp = join(cwd, 'tmp') // beside what is looked through for left-overs
  mkdirSync(tmp, { recursive: true })
  const startedMs = performance.now()
  const child = spawn(file, args, { cwd, env: { ...ENVIRONMENT, TMPDIR: tmp, ...environment } })
  child.stdin.end()
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const timer = ms === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), ms)
  const status = await new Promise<number | null>((done) => child.once('close', done))
  clearTimeout(timer)
  return { status, stdout, stderr, ms: performance.now() - startedMs }
}

/** Numbers from a seed, so that a failure can be had again. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return ((x ^ (x >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** What a mirror serves: `old` or `new` when each path of either bundle is answered as that one has it, else what is mixed
 *  up or wrong. */
export async function servedBy(mirrorDir: string, { before, after, gap }: Scene): Promise<string> {
  const store = openStore(join(mirrorDir, 'store'))
  const mirror = await startMirror({
    releases: store.releases,
    blobs: store.blobs,
    // Files of a replaced release would stay fetchable; here only what is released counts.
    config: { ...testConfig([{ group: gap.group }]), keepPreviousHours: 0 },
  })
  try {
    const answers = new Map<string, string>()
    for (const path of new Set([...before.keys(), ...after.keys()])) {
      const { statusCode, body } = await request(`${mirror.origins[0]!.url}/${path}`)
      const bytes = Buffer.from(await body.arrayBuffer())
      answers.set(path, statusCode === 200 ? sha256Of(bytes) : String(statusCode))
    }
    const answersAs = (wanted: Map<string, string>): boolean =>
      [...answers].every(([path, found]) => found === (wanted.get(path) ?? '404'))
    if (answersAs(before)) return 'old'
    if (answersAs(after)) return 'new'
    const wrong = [...answers].filter(([path, found]) => ![before.get(path), after.get(path), '404'].includes(found))
    return wrong.length === 0 ? 'a mix of old and new' : `wrong: ${JSON.stringify(wrong)}`
  } finally {
    await mirror.close()
    store.close()
  }
}

/** What no finished run leaves below a folder: temporary names, anything in staging/, and of a pull in partial/. */
export function leftovers(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .filter((path) => /\.part$|\.new-|(?:^|\/)(?:staging|tmp|partial)\/./.test(path))
    .sort()
}

/** Names under blobs/ whose bytes are others. */
export function wrongBlobs(storeDir: string): string[] {
  const files = readdirSync(join(storeDir, 'blobs'), { recursive: true, withFileTypes: true })
  return files
    .filter((entry) => entry.isFile())
    .filter((entry) => {
      const hash = createHash('sha256').update(readFileSync(join(entry.parentPath, entry.name)))
      return hash.digest('hex') !== entry.name
    })
    .map(({ name }) => name)
}

/** A system tool that needs root; throws with what it said. */
export function tool(name: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(name, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${name} ${args.join(' ')} (needs root): ${error?.message ?? stderr}`)
}

/** The parts on a stick. */
export function partsOn(stick: string, site = 'hq'): string[] {
  const folder = join(stick, 'gapferry', site)
  if (!existsSync(folder)) return []
  const names = readdirSync(folder).filter((name) => name.endsWith('.tar'))
  return names.sort().map((name) => join(folder, name))
}

const ENVIRONMENT = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C.UTF-8', HOME: '/nonexistent', no_proxy: '*' }

function currentOf(mirrorDir: string, number: number): Map<string, string> {
  const store = openStore(join(mirrorDir, 'store'))
  try {
    const trees = readTrees(store.blobs, store.catalog.trees(number))
    const [current] = [...trees.values()].filter(({ role }) => role === 'current')
    return new Map([...current!.entries].map(([path, { sha256 }]) => [path, sha256]))
  } finally {
    store.close()
  }
}

/** How often one thread made each call at most: strace counts per thread. */
function mostPerThread(log: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const [, thread, call] of log.matchAll(/^(\d+) +([a-z0-9_]+)\(/gm)) {
    counts.set(`${thread} ${call}`, (counts.get(`${thread} ${call}`) ?? 0) + 1)
  }
  const most = new Map<string, number>()
  for (const [key, count] of counts) {
    const call = key.split(' ')[1]!
    most.set(call, Math.max(most.get(call) ?? 0, count))
  }
  return most
}

function noise(seed: string, bytes: number): Buffer {
  const random = randomOf(Buffer.from(seed).reduce((sum, byte) => Math.imul(sum, 31) + byte, 7))
  const words = new Uint32Array(Math.ceil(bytes / 4)).map(() => random() * 4_294_967_296)
  return Buffer.from(words.buffer).subarray(0, bytes)
}
