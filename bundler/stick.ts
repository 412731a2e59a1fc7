/**
 * Looks at a stick before anything is written to it: is it one, is it mounted, may it be written, what does its file system
 * take, is there room. Whatever does not fit is said with the least change that would.
 */
import {
  accessSync,
  constants,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { parsePartName } from '../manifests/bundle.ts'
import { formatBytes } from '../manifests/console.ts'
import { GapferryError } from '../manifests/errors.ts'
import { systemCode } from '../storage/durable.ts'

/** What the system says of what is mounted, and of what should be. Empty where it has no such file. */
export interface MountTables {
  /** /proc/self/mountinfo, proc(5) */
  mountinfo: string
  /** /etc/fstab, fstab(5) */
  fstab: string
}

/** Where people and desktops mount sticks, and nobody keeps anything else. */
const MOUNT_FOLDERS = ['/media', '/run/media', '/mnt', '/Volumes']
/** The largest file of FAT32: 4 GiB - 1. */
const MAX_FAT_FILE_BYTES = 2 ** 32 - 1
/** What statfs(2) says of FAT; drivers in user space are known by the name in mountinfo. */
const FAT_TYPE = 0x4d44
/** Names that Windows takes for devices, with any ending. */
const DEVICE_NAME = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/
const MB = 1_000_000

/** @param toDir    as the person gave it
 *  @param options  `isUnmounted`: the person knows that nothing is mounted there
 *  @throws MEDIUM_UNUSABLE with the next step */
export function checkStick(toDir: string, options: { isUnmounted?: boolean; tables?: MountTables } = {}): void {
  // Made by nobody but the person: a folder that springs up where no stick is mounted would look like one.
  if (statSync(toDir, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw unusable(
      toDir,
      'expected the folder of a mounted stick, found none',
      'mount the stick, or make the folder: mkdir',
    )
  }
  const { mountinfo, fstab } = options.tables ?? readTables()
  const place = options.isUnmounted === true ? undefined : unmountedPlace(realpathSync(toDir), { mountinfo, fstab })
  if (place !== undefined) {
    const why = `nothing is mounted at ${place}, so this is the laptop's own disk`
    throw unusable(toDir, why, 'mount the stick; or, where the folder itself is meant: --unmounted')
  }
  try {
    accessSync(toDir, constants.W_OK)
  } catch (error) {
    throw explainMedium(toDir, error)
  }
}

/** What the system says of a stick that is write-protected, pulled or broken, in our words; anything else as it is. */
export function explainMedium(dir: string, cause: unknown): unknown {
  const code = systemCode(cause)
  if (!['EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EEXIST', 'EIO', 'ENODEV', 'ENXIO', 'ENOENT'].includes(code))
    return cause
  const hints: Record<string, string> = {
    EROFS: 'it is mounted read-only: look for a switch on it, else unplug it, plug it in and mount it again',
    EACCES: 'run this as the user who may write there, or mount the stick for this one',
    EIO: 'the stick is gone or broken: plug it in again and run the same command, or use another',
  }
  const hint =
    hints[code] ?? 'is it mounted, and not write-protected? Then run the same command again, or use another stick'
  return new GapferryError('MEDIUM_UNUSABLE', `${dir}: cannot be written (${code})`, { hint, cause })
}

/** @param path  absolute, links resolved
 *  @returns the mount point at or above `path` where something should be mounted and nothing is */
export function unmountedPlace(path: string, { mountinfo, fstab }: MountTables): string | undefined {
  const mounted = mountPoints(mountinfo).map(({ place }) => place)
  const planned = fstab
    .split('\n')
    .filter((line) => !line.trim().startsWith('#'))
    .map((line) => unescape(line.trim().split(/\s+/)[1] ?? ''))
    .find((place) => place.length > 1 && place.startsWith('/') && isWithin(path, place) && !mounted.includes(place))
  if (mountinfo !== '' && planned !== undefined) return planned
  const folder = MOUNT_FOLDERS.find((one) => isWithin(path, one))
  if (folder === undefined) return undefined
  const isMounted =
    mountinfo === '' ? isOtherDevice(path) : mounted.some((at) => isWithin(at, folder) && isWithin(path, at))
  return isMounted ? undefined : path
}

interface StickFile {
  name: string
  bytes: number
}

/** @param folder    where the files go, or its nearest folder that is there
 *  @param mountinfo  for tests
 *  @throws SPACE_SHORT for a file that the file system does not take; MEDIUM_UNUSABLE for a name that it does not */
export function checkLimits(
  folder: string,
  site: string,
  files: readonly StickFile[],
  mountinfo = readTables().mountinfo,
): void {
  const type = fileSystemOf(realpathSync(folder), mountinfo)
  const isFat = statfsSync(folder).type === FAT_TYPE || /^(?:vfat|msdos|fat|.*\.fusefat)$/.test(type)
  if ((isFat || /exfat|ntfs/.test(type)) && DEVICE_NAME.test(site)) {
    const why = `Windows takes no folder "${site}", so where the stick is scanned nobody could read it`
    throw unusable(folder, why, 'use a stick with a file system of Linux, or another name for the site')
  }
  const large = files.find(({ bytes }) => bytes > MAX_FAT_FILE_BYTES)
  if (!isFat || large === undefined) return
  throw new GapferryError(
    'SPACE_SHORT',
    `${folder}: FAT takes no file above ${MAX_FAT_FILE_BYTES} bytes, and ${large.name} has ${large.bytes}`,
    { hint: `add --part-size ${Math.floor(MAX_FAT_FILE_BYTES / MB / 100) * 100}MB` },
  )
}

/** @param folder  where the parts go
 *  @throws SPACE_SHORT with both figures, and what to remove where that is enough */
export function checkSpace(folder: string, neededBytes: number, about: { site: string; number: number }): void {
  const { bavail, bsize } = statfsSync(folder)
  const free = bavail * bsize
  if (neededBytes <= free) return
  const short = neededBytes - free
  throw new GapferryError(
    'SPACE_SHORT',
    `${folder}: ${formatBytes(neededBytes)} to write, ${formatBytes(free)} free, ${formatBytes(short)} too little`,
    { hint: wayToFit(folder, { ...about, short, free, neededBytes }) },
  )
}

function wayToFit(
  folder: string,
  {
    site,
    number,
    short,
    free,
    neededBytes,
  }: { site: string; number: number; short: number; free: number; neededBytes: number },
): string {
  const older = olderParts(folder, site, number)
  let gained = 0
  const names = older.flatMap(({ name, bytes }) => {
    if (gained >= short) return []
    gained += bytes
    return [name]
  })
  if (gained >= short) return `remove ${names.join(', ')} of older bundles (${formatBytes(gained)}), then run it again`
  const size = Math.floor(free / MB)
  const sticks = `use a stick with ${formatBytes(neededBytes)} free`
  if (size < 1) return sticks
  return `${sticks}; or pack into a folder of the laptop with --part-size ${size}MB, and copy the parts to several sticks`
}

/** Oldest first. */
function olderParts(folder: string, site: string, number: number): StickFile[] {
  return readdirSync(folder, { withFileTypes: true })
    .flatMap((entry) => {
      const part = entry.isFile() ? parsePartName(entry.name) : undefined
      return part?.site === site && part.number < number ? [{ name: entry.name, number: part.number }] : []
    })
    .sort((a, b) => a.number - b.number)
    .map(({ name }) => ({ name, bytes: lstatSync(join(folder, name)).size }))
}

/** @returns the type of the file system that holds `path`, empty where nobody tells */
function fileSystemOf(path: string, mountinfo: string): string {
  const above = mountPoints(mountinfo).filter(({ place }) => isWithin(path, place))
  // Of two at one place the later one is seen.
  return above.reduce((best, one) => (one.place.length >= best.place.length ? one : best), { place: '', type: '' }).type
}

function mountPoints(mountinfo: string): { place: string; type: string }[] {
  return mountinfo
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields.length > 6)
    .map((fields) => ({ place: unescape(fields[4]!), type: fields[fields.indexOf('-') + 1] ?? '' }))
}

/** Both tables spell spaces and the like in octal. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === '/' ? '/' : `${folder}/`)
}

function isOtherDevice(path: string): boolean {
  return statSync(path).dev !== statSync('/').dev
}

function readTables(): MountTables {
  return { mountinfo: textOf('/proc/self/mountinfo'), fstab: textOf('/etc/fstab') }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (['ENOENT', 'EACCES'].includes(systemCode(error))) return ''
    throw error
  }
}

function unusable(dir: string, why: string, hint: string): GapferryError {
  return new GapferryError('MEDIUM_UNUSABLE', `${dir}: ${why}`, { hint })
}
