/** Sticks as they are: FAT on a loop device, full at every write, pulled in the middle of a copy, bits turned below the
 *  system's cache, read-only, full of what others left there. Runs as root; the kernel's FAT where it has one, else the
 *  driver in user space (package fusefat). A machine without either, or without loop devices, fails. */
import { spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  symlinkSync,
} from 'node:fs'
import { truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { command, makeScene, partsOn, randomOf, succeeded, tool, type Scene } from '../helpers/crash.ts'
import { entriesOf } from '../helpers/tar.ts'

const SEED = Number(process.env['GAPFERRY_SEED'] ?? Date.now() % 1_000_000)
const MAIN = resolve(import.meta.dirname, '../../bundler/main.ts')
const MB = 1_000_000
/** The least that FAT32 is made for. */
const FAT_BYTES = 300 * MB

const HAS_KERNEL_FAT = /\tvfat$/m.test(readFileSync('/proc/filesystems', 'utf8'))

t.setTimeout(1_200_000)

t.test(`sticks (GAPFERRY_SEED=${SEED})`, async (t) => {
  const scene = await makeScene(t, { count: 12, bytes: 400_000 })
  const laptop = (...args: string[]) => command('gapferry', scene.toPack, ...args)
  const pack = (stick: string, ...more: string[]) =>
    laptop('pack', '--to', stick, '--part-size', scene.partSize, '--json', ...more)

  let count = 0 // of parts

  await t.test('FAT: written, read back, mended, imported', async (t) => {
    const { dir } = fat(t, scene, 'fat')
    succeeded(await pack(dir))
    const parts = partsOn(dir)
    count = parts.length
    t.ok(count > 1)
    succeeded(await laptop('verify', ...parts))
    const random = randomOf(SEED)
    for (let round = 0; round < 5; round++) {
      for (const part of parts) flip(part, placeIn(part, random))
      const verified = await laptop('verify', ...parts)
      t.equal(verified.status, 3)
      for (const part of parts) t.match(verified.stderr, part.split('/').at(-1)!, 'every bad part is named')
      const { stdout } = succeeded(await pack(dir, '--repair'))
      const [bundle] = (JSON.parse(stdout) as { bundles: { files: { mendedBytes?: number }[] }[] }).bundles
      for (const { mendedBytes } of bundle!.files) t.ok(mendedBytes !== undefined && mendedBytes <= 2 ** 20)
      succeeded(await laptop('verify', ...parts))
    }
    succeeded(await command('gapferry-mirror', scene.copy(scene.toImport), 'import', dir))
  })

  await t.test('a stick that lies: bits turned below the cache, after they were written', async (t) => {
    const disk = ext4(t, scene, 'lies')
    succeeded(await pack(disk.dir))
    tool('sync', ['-f', disk.dir])
    const part = partsOn(disk.dir)[0]!
    const blob = entriesOf(part).findLast(({ name }) => name.startsWith('blobs/'))!
    const cached = readFileSync(part)
    const at = readFileSync(disk.image).indexOf(cached.subarray(blob.bytesAt, blob.bytesAt + 64))
    t.ok(at > 0, 'found in the image')
    flip(disk.image, at + 8)
    t.ok(readFileSync(part).equals(cached), 'the cache still has the right bytes')
    const verified = await laptop('verify', part)
    t.match(verified, { status: 3, stderr: /BLOB_DIGEST_MISMATCH/ }, 'and verify is not deceived')
    t.match(JSON.parse(succeeded(await pack(disk.dir, '--repair')).stdout), {
      bundles: [{ isPastCache: true, files: [{ isKept: false }] }],
    })
    succeeded(await laptop('verify', ...partsOn(disk.dir)))
  })

  await t.test('full at every write', async (t) => {
    // The driver in user space says EPERM where there is no room.
    const { dir } = HAS_KERNEL_FAT ? fat(t, scene, 'full') : ext4(t, scene, 'full')
    const filler = join(dir, 'filler.bin')
    const codes = new Set<string>()
    for (const leftKB of [0, 16, 64, 200, 500, 1000, 2000, 3000, 4000, 5000, 6000, 20_000]) {
      rmSync(filler, { force: true })
      rmSync(join(dir, 'gapferry'), { recursive: true, force: true })
      fill(filler, dir, leftKB * 1000)
      const { status, stderr } = await pack(dir)
      codes.add(status === 0 ? 'done' : (/\[([A-Z_]+)\]/.exec(stderr)?.[1] ?? stderr))
      for (const part of partsOn(dir)) succeeded0or4(await laptop('verify', part))
      if (status !== 0) t.match(stderr, /too little|could not be written|no room/, `${leftKB} kB left`)
      rmSync(filler)
      succeeded(await pack(dir))
    }
    t.strictSame([...codes].sort(), ['SPACE_SHORT', 'done'])
  })

  await t.test('pulled in the middle of a copy', async (t) => {
    for (const [at, name] of ['1.part', '1', '1.sha256', '2.part'].entries()) {
      const disk = ext4(t, scene, `pulled-${at}`)
      const ended = await whilePacking(scene, disk.dir, `hq-2-${name.replace(/\d/, `$&of${count}.tar`)}`, () =>
        shutDown(disk.dir),
      )
      t.match(ended.stderr, /\[(MEDIUM_UNUSABLE|FILE_FAILED|PACK_READ_BACK|SPACE_SHORT)\]/, ended.stderr)
      t.not(ended.status, 0)
      disk.remount()
      for (const part of partsOn(disk.dir)) succeeded0or4(await laptop('verify', part))
      succeeded(await pack(disk.dir))
      succeeded(await laptop('verify', ...partsOn(disk.dir)))
    }
  })

  await t.test('read-only, not mounted', async (t) => {
    const disk = ext4(t, scene, 'read-only')
    tool('mount', ['-o', 'remount,ro', disk.dir])
    t.match(await pack(disk.dir), { status: 1, stderr: /MEDIUM_UNUSABLE.*\n?.*read-only/ })
    tool('mount', ['-o', 'remount,rw', disk.dir])
    succeeded(await pack(disk.dir))
    tool('mount', ['-o', 'remount,ro', disk.dir])
    succeeded(await command('gapferry-mirror', scene.copy(scene.toImport), 'import', disk.dir))
    succeeded(await laptop('verify', ...partsOn(disk.dir)))

    const place = `/mnt/gapferry-test-${process.pid}`
    mkdirSync(place)
    t.teardown(() => rmSync(place, { recursive: true }))
    t.match(await pack(place), { status: 1, stderr: /nothing is mounted/ })
    t.strictSame(readdirSync(place), [])
    succeeded(await pack(place, '--unmounted'))
  })

  await t.test('what others left there', async (t) => {
    const disk = ext4(t, scene, 'litter')
    const folder = join(disk.dir, 'gapferry/hq')
    mkdirSync(folder, { recursive: true })
    for (const name of ['hq-2.tar', `hq-2-1of${count}.tar.sha256`, 'root.json', 'hq-2.txt'])
      tool('mkfifo', [join(folder, name)])
    symlinkSync('/dev/zero', join(folder, `hq-2-2of${count}.tar`))
    for (const name of ['autorun.inf', 'Thumbs.db', '._hq-2.tar']) writeFileSync(join(folder, name), 'x')
    mkdirSync(join(disk.dir, 'System Volume Information'))
    succeeded(await pack(disk.dir))
    const parts = partsOn(disk.dir).filter((file) => file.includes(`of${count}`))
    succeeded(await laptop('verify', ...parts))
    const imported = await command('gapferry-mirror', scene.copy(scene.toImport), 'import', disk.dir)
    t.equal(imported.status, 0, imported.stderr)
    t.match(imported.stderr, 'ignored: hq-2.tar is not a regular file')
    t.notMatch(imported.stderr, /autorun|Thumbs|\._/)
  })
})

interface Disk {
  image: string
  dir: string
  remount: () => void
}

function fat(t: Test, scene: Scene, name: string): Disk {
  const mount = HAS_KERNEL_FAT
    ? (image: string, at: string) => tool('mount', ['-t', 'vfat', '-o', 'loop', image, at])
    : (image: string, at: string) => tool('fusefat', ['-o', 'rw+', image, at])
  return disk(t, scene, name, ['mkfs.vfat', '-F', '32'], mount)
}

function ext4(t: Test, scene: Scene, name: string): Disk {
  return disk(t, scene, name, ['mkfs.ext4', '-q', '-E', 'lazy_itable_init=1'], (image, at) =>
    tool('mount', ['-o', 'loop,errors=continue', image, at]),
  )
}

function disk(
  t: Test,
  scene: Scene,
  name: string,
  [mkfs, ...args]: string[],
  mount: (image: string, at: string) => void,
) {
  const [image, dir] = [join(scene.dir, `${name}.img`), join(scene.dir, name)]
  writeFileSync(image, '')
  truncateSync(image, FAT_BYTES)
  tool(mkfs!, [...args, image])
  mkdirSync(dir)
  mount(image, dir)
  const remount = (): void => {
    tool('umount', [dir])
    mount(image, dir)
  }
  t.teardown(() => {
    tool('umount', ['-l', dir])
    rmSync(image)
  })
  return { image, dir, remount }
}

/** As if the device were gone: everything fails from here on, and nothing that was not synced is kept (EXT4_IOC_SHUTDOWN). */
function shutDown(dir: string): void {
  const script = 'import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1],0),0x8004587d,struct.pack("I",2))'
  tool('python3', ['-c', script, dir])
}

/** Stops the program when it has made a file of this name, and lets it go on after `act`. */
async function whilePacking(scene: Scene, stick: string, name: string, act: () => void) {
  const args = [MAIN, 'pack', '--to', stick, '--part-size', scene.partSize]
  const child = spawn(process.execPath, args, { cwd: scene.toPack, env: { PATH: '/usr/bin:/bin' } })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  child.stdout.resume()
  const ended = new Promise<number | null>((done) => child.once('close', done))
  const file = join(stick, 'gapferry/hq', name)
  const watch = setInterval(() => {
    if (!existsSync(file)) return
    clearInterval(watch)
    child.kill('SIGSTOP')
    act()
    child.kill('SIGCONT')
  }, 1)
  const status = await ended
  clearInterval(watch)
  return { status, stderr }
}

function succeeded0or4({ status, stderr }: { status: number | null; stderr: string }): void {
  if (status !== 0 && status !== 4) throw new Error(stderr)
}

function placeIn(part: string, random: () => number): number {
  const blobs = entriesOf(part).filter(({ name }) => name.startsWith('blobs/'))
  const start = blobs[0]!.headerAt
  return start + Math.floor(random() * (readFileSync(part).length - start))
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file)
  const fd = openSync(file, 'r+')
  writeSync(fd, Buffer.from([bytes[at]! ^ 0x10]), 0, 1, at)
  closeSync(fd)
}

/** Leaves about so many bytes free. */
function fill(file: string, dir: string, leftBytes: number): void {
  const { bavail, bsize } = statfsSync(dir)
  const fd = openSync(file, 'w')
  const buffer = Buffer.alloc(MB)
  for (let left = bavail * bsize - leftBytes; left > 0; left -= MB) writeSync(fd, buffer, 0, Math.min(MB, left))
  closeSync(fd)
}
