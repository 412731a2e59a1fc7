/** A disk that is full, at every stage: mounted as small as it takes (so these tests run as root). No short file is ever
 *  accepted, the error says how much is missing, and once there is room the same command succeeds. */
import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { openStore } from '../../server/store.ts'
import { command, killedAfter, makeScene, servedBy, tool, type Killed, type Scene } from '../helpers/crash.ts'
import { plainFailure, WORKS, type Work } from '../helpers/crash-work.ts'

const MB = 1_000_000
const BLOCK = 4096
const MAINS = { gapferry: 'bundler/main.ts', 'gapferry-mirror': 'server/main.ts' }

t.setTimeout(1_200_000)

t.test('a full disk', async (t) => {
  const scene = await makeScene(t, { count: 12, bytes: 100_000 })

  for (const work of [WORKS.import, WORKS.pull]) {
    await t.test(`${work.name}: too little room is said before a byte is written`, async (t) => {
      for (const freeMB of [0, 1, 20, 60]) {
        const disk = mount(t, work, scene, freeMB * MB)
        const failed = await killedAfter(work.program, disk.dir, work.args(scene))
        refused(t, failed, `${freeMB} MB free`, /expected .* of free space|to fetch and .* that stay free/)
        t.strictSame(readdirSync(join(disk.dir, 'store/staging')), [], 'nothing in staging')
        await goesOn(t, work, scene, disk, failed)
      }
    })

    await t.test(`${work.name}: the room goes while it works`, async (t) => {
      const codes = new Set<string>()
      for (const leftKB of [0, 4, 40, 100, 200, 400, 700, 1000, 1300]) {
        const disk = mount(t, work, scene, 150 * MB)
        const failed = await whileFilling(work, scene, disk, leftKB * 1000)
        const { code, wrong } = plainFailure(failed)
        codes.add(code)
        t.strictSame(wrong, [], `${leftKB} kB left: ${code}`)
        await goesOn(t, work, scene, disk, failed)
      }
      t.ok(codes.has('SPACE_SHORT'), `codes: ${[...codes].join(', ')}`)
    })
  }

  await t.test('release: in steps of a block', async (t) => {
    const codes: string[] = []
    for (let freeBytes = 0; codes.at(-1) !== 'done'; freeBytes += 2 * BLOCK) {
      const disk = mount(t, WORKS.release, scene, freeBytes)
      const failed = await killedAfter('gapferry-mirror', disk.dir, ['release'])
      const { code, wrong } = plainFailure(failed)
      codes.push(code)
      t.strictSame(wrong, [], `${freeBytes} bytes free: ${code}`)
      if (code !== 'done') t.match(failed.stderr, /found /, 'how much there was')
      await goesOn(t, WORKS.release, scene, disk, failed)
      if (freeBytes > 4 * MB) throw new Error('it never succeeded')
    }
    t.ok(codes.length > 2, codes.join(', '))
  })

  await t.test('pack: a stick in steps', async (t) => {
    const codes: string[] = []
    for (let sizeKB = 16; codes.at(-1) !== 'done'; sizeKB = sizeKB < 64 ? sizeKB + 8 : Math.round(sizeKB * 1.25)) {
      const dir = WORKS.pack.begin(scene)
      const stick = join(dir, 'stick')
      tmpfs(t, stick, `${sizeKB}k`)
      const failed = await killedAfter('gapferry', dir, WORKS.pack.args(scene))
      const { code, wrong } = plainFailure(failed)
      codes.push(code)
      t.strictSame(wrong, [], `a stick of ${sizeKB} kB: ${code}`)
      if (code !== 'done') t.match(failed.stderr, /to write, .* free|could not be written/, 'how much is missing')
      remount(stick, '8m')
      const { wrong: after } = await WORKS.pack.check(scene, dir, failed)
      t.strictSame(after, [], 'with a larger stick')
    }
    t.ok(codes.length > 5, `${codes.length} sizes`)
  })

  await t.test('a mirror on a full disk is served, looked at, and pruned', async (t) => {
    const disk = mount(t, WORKS.release, scene, 4 * MB)
    const serving = openStore(join(disk.dir, 'store'))
    t.teardown(() => serving.close())
    t.equal(await servedBy(disk.dir, scene), 'old')
    disk.fill()
    t.equal(await servedBy(disk.dir, scene), 'old')
    for (const args of [['status'], ['bundles'], ['verify'], ['prune']]) {
      const { status, stderr } = await killedAfter('gapferry-mirror', disk.dir, args)
      t.equal(status, 0, `${args.join(' ')}: ${stderr}`)
    }
    const orphan = join(disk.dir, 'store/blobs/00', '0'.repeat(64))
    disk.free(4 * MB)
    mkdirSync(join(orphan, '..'), { recursive: true })
    writeFileSync(orphan, Buffer.alloc(MB))
    disk.fill()
    const pruned = await command('gapferry-mirror', disk.dir, 'prune', '--yes')
    t.equal(pruned.status, 0, pruned.stderr)
    t.notOk(existsSync(orphan), 'what nothing names makes the room that the rest needs')
  })
})

interface Disk {
  dir: string
  /** leaves so many bytes free */
  free(bytes: number): void
  fill(): void
  room(): void
}

/** A copy of where a work starts, on a disk of its own with `freeBytes` left. */
function mount(t: Test, work: Work, scene: Scene, freeBytes: number): Disk {
  const made = work.begin(scene)
  const dir = `${made}-disk`
  mkdirSync(dir)
  tmpfs(t, dir, '400m')
  cpSync(made, dir, { recursive: true, preserveTimestamps: true })
  rmSync(made, { recursive: true })
  mkdirSync(join(dir, 'tmp'), { recursive: true })
  const free = (bytes: number): void => {
    const { blocks, bfree, bsize } = statfsSync(dir)
    remount(dir, String((blocks - bfree) * bsize + bytes))
  }
  free(freeBytes)
  return { dir, free, fill: () => free(0), room: () => remount(dir, '400m') }
}

async function goesOn(t: Test, work: Work, scene: Scene, disk: Disk, failed: Killed): Promise<void> {
  disk.room()
  const { wrong, state } = await work.check(scene, disk.dir, failed)
  t.strictSame(wrong, [], `with room again: ${state}`)
}

function refused(t: Test, failed: Killed, what: string, figures: RegExp): void {
  t.equal(failed.status, 5, what)
  t.match(failed.stderr, /\[SPACE_SHORT\]/, what)
  t.match(failed.stderr, figures, what)
}

/** Stops the program as soon as it has staged something, takes the room away, and lets it go on. */
async function whileFilling(work: Work, scene: Scene, disk: Disk, leftBytes: number): Promise<Killed> {
  const staging = join(disk.dir, 'store/staging')
  const main = resolve(import.meta.dirname, '../..', MAINS[work.program])
  const child = spawn(process.execPath, [main, ...work.args(scene)], {
    cwd: disk.dir,
    env: { PATH: '/usr/bin:/bin', no_proxy: '*' },
  })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const ended = new Promise<number | null>((done) => child.once('close', done))
  const watch = setInterval(() => {
    if (!existsSync(staging) || readdirSync(staging).length === 0) return
    clearInterval(watch)
    child.kill('SIGSTOP')
    disk.free(leftBytes)
    child.kill('SIGCONT')
  }, 1)
  const status = await ended
  clearInterval(watch)
  return { status, stdout, stderr, ms: 0 }
}

function tmpfs(t: Test, dir: string, size: string): void {
  tool('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', dir])
  t.teardown(() => tool('umount', ['-l', dir]))
}

function remount(dir: string, size: string): void {
  tool('mount', ['-o', `remount,size=${size}`, dir])
}
