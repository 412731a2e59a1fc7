/** The power goes: what a disk holds at a moment is what a copy of its image holds, because a mounted file system keeps in
 *  memory what was not synced. What was acknowledged must be in the copy; at any other moment the copy must be as good as
 *  after a crash. Needs root (loop mounts). */
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { removeFolder } from '../helpers/cache.ts'
import { killedAfter, makeScene, randomOf, straced, tool, type Killed, type Scene } from '../helpers/crash.ts'
import { WORKS, type Work } from '../helpers/crash-work.ts'

const IMAGE_BYTES = 400_000_000
const CUTS = 10
const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)
/** ext4 else writes everything every five seconds by itself. */
const FILE_SYSTEMS = {
  ext4: { mkfs: ['-q', '-E', 'lazy_itable_init=1,lazy_journal_init=1'], mount: 'loop,commit=300' },
  xfs: { mkfs: ['-q'], mount: 'loop,nouuid' },
} as const
type Kind = keyof typeof FILE_SYSTEMS
type Outcome = Pick<Killed, 'status' | 'stdout'>

t.setTimeout(1_200_000)

t.test(`a power cut (GAPFERRY_SEED=${SEED})`, async (t) => {
  const scene = await makeScene(t, { count: 20, bytes: 60_000 })
  for (const kind of Object.keys(FILE_SYSTEMS) as Kind[]) {
    for (const work of Object.values(WORKS)) {
      await t.test(`${kind}, ${work.name}: what was acknowledged is there`, async (t) => {
        const disk = makeDisk(t, kind, work, scene)
        const done = await killedAfter(work.program, disk.dir, work.args(scene))
        t.equal(done.status, 0, done.stderr)
        t.strictSame(await afterCut(disk, copyOf(disk), work, scene, done), [])
      })

      await t.test(`${kind}, ${work.name}: ${CUTS} cuts at work`, async (t) => {
        const random = randomOf(SEED)
        const trial = makeDisk(t, kind, work, scene)
        const { ms: whole } = await killedAfter(work.program, trial.dir, work.args(scene))
        trial.remove()
        for (let cut = 0; cut < CUTS; cut++) {
          const disk = makeDisk(t, kind, work, scene)
          const ms = whole * (0.4 + 0.6 * random())
          const { copy, ...stopped } = await stoppedAfter(work, scene, disk, ms)
          const wrong = await afterCut(disk, copy, work, scene, stopped)
          t.strictSame(wrong, [], `after ${Math.round(ms)} of ${Math.round(whole)} ms`)
        }
      })
    }

    await t.test(`${kind}: a program that does not sync would be found out`, async (t) => {
      for (const work of [WORKS.import, WORKS.release, WORKS.pull]) {
        const disk = makeDisk(t, kind, work, scene)
        const done = await straced(work.program, disk.dir, work.args(scene), ['fsync:retval=0', 'fdatasync:retval=0'])
        t.equal(done.status, 0, done.stderr)
        const wrong = await afterCut(disk, copyOf(disk), work, scene, done)
        t.not(wrong.length, 0, `${work.name}: ${wrong[0] ?? 'nothing was found'}`)
      }
    })
  }
})

interface Disk {
  kind: Kind
  image: string
  dir: string
  remove(): void
}

/** A file system of its own with a copy of where the work starts, all of it durable. */
function makeDisk(t: Test, kind: Kind, work: Work, scene: Scene): Disk {
  const made = work.begin(scene)
  const [image, mounted] = [`${made}.img`, `${made}-disk`]
  writeFileSync(image, '')
  truncateSync(image, IMAGE_BYTES)
  tool(`mkfs.${kind}`, [...FILE_SYSTEMS[kind].mkfs, image])
  const remove = mount(t, kind, image, mounted)
  const dir = join(mounted, 'work')
  cpSync(made, dir, { recursive: true, preserveTimestamps: true })
  mkdirSync(join(dir, 'tmp'))
  tool('sync', ['-f', mounted])
  removeFolder(made)
  return { kind, image, dir, remove }
}

/** The image as it is now. */
function copyOf({ image }: Disk): string {
  tool('cp', ['--sparse=always', image, `${image}.cut`])
  return `${image}.cut`
}

/** Mounts a copy of the image and judges what is there. */
async function afterCut(disk: Disk, image: string, work: Work, scene: Scene, done: Outcome): Promise<string[]> {
  disk.remove()
  const mounted = `${image}-disk`
  const remove = mount({ teardown: () => undefined }, disk.kind, image, mounted)
  try {
    return (await work.check(scene, join(mounted, 'work'), done)).wrong
  } finally {
    remove()
  }
}

/** The program stands still; where it was done before, what it said counts. */
async function stoppedAfter(work: Work, scene: Scene, disk: Disk, ms: number): Promise<Outcome & { copy: string }> {
  const main = resolve(import.meta.dirname, '../..', work.program === 'gapferry' ? 'bundler/main.ts' : 'server/main.ts')
  const env = { PATH: '/usr/bin:/bin', no_proxy: '*', TMPDIR: join(disk.dir, 'tmp') }
  const child = spawn(process.execPath, [main, ...work.args(scene)], { cwd: disk.dir, env })
  let stdout = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.resume()
  const ended = new Promise<number | null>((done) => child.once('close', done))
  await new Promise((done) => setTimeout(done, ms))
  child.kill('SIGSTOP')
  while (child.exitCode === null && !/^\d+ \(.*\) [TZ] /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8')))
    await setImmediate()
  const heard = { status: child.exitCode, stdout }
  const copy = copyOf(disk)
  child.kill('SIGKILL')
  await ended
  return { ...heard, copy }
}

function mount(t: Pick<Test, 'teardown'>, kind: Kind, image: string, at: string): () => void {
  mkdirSync(at, { recursive: true })
  tool('mount', ['-t', kind, '-o', FILE_SYSTEMS[kind].mount, image, at])
  let isMounted = true
  const remove = (): void => {
    if (isMounted) tool('umount', ['-l', at])
    isMounted = false
    rmSync(image, { force: true })
  }
  t.teardown(remove)
  return remove
}
