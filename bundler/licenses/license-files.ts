/**
 * Licenses as a person brings them: what `gapferry-box capture` wrote, or a folder with the files of one box as they lie on it.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { GapferryError } from '../../manifests/errors.ts'
import { isCapture, MAX_CAPTURE_BYTES, parseCapture } from '../../manifests/license-capture.ts'
import { MAX_LICENSE_BYTES, MAX_LICENSE_FILES, type LicenseFile } from '../../manifests/license.ts'
import { systemCode } from '../../manifests/system-error.ts'
import type { KeptLicense } from '../../storage/licenses.ts'

/** The files of one license, and what came with them. */
export interface BroughtLicense {
  files: Omit<LicenseFile, 'sha256'>[]
  source: KeptLicense['source']
  deploymentId?: string
  capturedAt: string | null
  machine: string | null
}

/** Below which a folder has the box's files, by the folder of the box that they belong to. */
const PLACES = ['etc/schmooze', 'etc/sangoma', 'schmooze', 'sangoma'] as const
const IS_LICENSE = /^(?:pbxid|.*\.zl|license.*)$/
/** Nobody else need read it, and the web server of a box must. */
const MODE = '0644'
const OWNER = 'root'
const MAX_NAMES = 1000

/** @throws LICENSE_INVALID for what is neither; USAGE_INVALID where there is nothing; FILE_FAILED as the system says it */
export function readBrought(path: string): BroughtLicense {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) throw new GapferryError('USAGE_INVALID', `${path}: there is no such file or folder`)
  if (found.isDirectory()) return readFolder(path)
  const bytes = readBounded(path, MAX_CAPTURE_BYTES)
  if (isCapture(bytes)) return fromCapture(bytes, basename(path))
  throw new GapferryError('LICENSE_INVALID', `${basename(path)}: is not what gapferry-box capture writes`, {
    hint: 'for single files: a folder with etc/schmooze/ or etc/sangoma/ in it, as on the box',
  })
}

/** @throws LICENSE_INVALID */
export function fromCapture(bytes: Buffer, what: string): BroughtLicense {
  const { files, deploymentId, capturedAt, machine = null } = parseCapture(bytes, what)
  return { files, source: 'capture', deploymentId, capturedAt, machine }
}

/** A license file that has no place of its own in what brought it. */
export function plainFile(path: string, data: Buffer): Omit<LicenseFile, 'sha256'> {
  return { path, mode: MODE, owner: OWNER, group: OWNER, data }
}

function readFolder(dir: string): BroughtLicense {
  const places = PLACES.filter((place) => isFolder(join(dir, place)))
  const files = places.flatMap((place) =>
    licenseNames(join(dir, place)).map((name) =>
      plainFile(`/etc/${basename(place)}/${name}`, readBounded(join(dir, place, name), MAX_LICENSE_BYTES)),
    ),
  )
  if (files.length > 0) return { files, source: 'folder', capturedAt: null, machine: null }
  throw new GapferryError('LICENSE_INVALID', `${dir}: has no license files in ${PLACES.slice(0, 2).join(' or ')}`, {
    hint: 'a folder holds the files of one box, as on the box: etc/schmooze/schmooze.zl, etc/sangoma/license.txt …',
  })
}

function isFolder(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}

function licenseNames(dir: string): string[] {
  const names = readdirSync(dir).slice(0, MAX_NAMES)
  return names
    .filter((name) => IS_LICENSE.test(name))
    .sort()
    .slice(0, MAX_LICENSE_FILES + 1)
}

function readBounded(file: string, maxBytes: number): Buffer {
  const fd = openPlain(file)
  try {
    const stats = fstatSync(fd)
    if (!stats.isFile() || stats.size > maxBytes)
      throw new GapferryError('LICENSE_INVALID', `${basename(file)}: is no plain file of at most ${maxBytes} bytes`)
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** A stick may hold a link, or a pipe that would be waited for. */
function openPlain(file: string): number {
  try {
    return openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    if (systemCode(cause) !== 'ELOOP') throw cause
    throw new GapferryError('LICENSE_INVALID', `${basename(file)}: is a link`, { cause })
  }
}
