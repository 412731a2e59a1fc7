/** Where reports are found: a file, or the stick. */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { GapferryError } from '../manifests/errors.ts'
import { looksLikeMirrorIdentity, parseMirrorIdentity } from '../manifests/mirror-identity.ts'
import { parseSealedReport } from '../manifests/report-seal.ts'
import { MAX_REPORT_BYTES } from '../manifests/report.ts'
import { systemCode } from '../storage/durable.ts'
import type { Fleet } from './config.ts'
import { siteOf } from './inventories.ts'

/** Where a report is read from, and what it says its site is. */
export interface Found {
  file: string
  site: string
  bytes: Buffer
}

const MAX_NAMES = 10_000
/** Canonical form sorts the keys. */
const FIRST_BYTES = Buffer.from('{"_type":"gapferry-sealed-report"')
/** What is public of a mirror, as its store has it. */
const IDENTITY_NAME = 'mirror-identity.json'
const REPORT_NAME = /^([a-z0-9._-]{1,64})-([1-9][0-9]{0,12})\.report$/

/** A file as it is; of a folder the newest report of each site, by its name; without one, what is public of its mirror.
 *  @throws USAGE_INVALID where there is none; SITE_UNKNOWN, SITE_MISMATCH, REPORT_INVALID */
export function findReports(input: string, fleet: Fleet, named: string | undefined): Found[] {
  const sites = named === undefined ? fleet.sites : [siteOf(fleet, named)]
  if (statSync(input, { throwIfNoEntry: false })?.isDirectory() !== true) {
    const bytes = readReport(input)
    const what = basename(input)
    const { site } = looksLikeMirrorIdentity(bytes) ? parseMirrorIdentity(bytes, what) : parseSealedReport(bytes, what)
    return [{ file: input, site: siteOf(fleet, named ?? site).name, bytes }]
  }
  const found = sites.flatMap(({ name }) => newestIn(join(input, 'gapferry', name, 'report'), name))
  if (found.length > 0) return found
  throw usage(
    `${input}: no report of ${sites.map(({ name }) => name).join(', ')} in gapferry/SITE/report/`,
    'at the site: gapferry-mirror report --to DIR',
  )
}

function newestIn(folder: string, site: string): Found[] {
  let names: string[]
  try {
    names = readdirSync(folder).slice(0, MAX_NAMES)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error))) return []
    throw error
  }
  const numbered = names.flatMap((name) => {
    const [, named, number] = REPORT_NAME.exec(name) ?? []
    return named === site ? [{ name, number: Number(number) }] : []
  })
  const [newest] = numbered.sort((a, b) => b.number - a.number)
  const name = newest?.name ?? names.find((one) => one === IDENTITY_NAME)
  if (name === undefined) return []
  const file = join(folder, name)
  return [{ file, site, bytes: readReport(file) }]
}

/** Whether a file is a sealed report, as far as its beginning tells. */
export function isReport(file: string): boolean {
  if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) return false
  const fd = openSync(file, 'r')
  try {
    const start = Buffer.alloc(FIRST_BYTES.length)
    return readSync(fd, start, 0, start.length, 0) === start.length && start.equals(FIRST_BYTES)
  } finally {
    closeSync(fd)
  }
}

/** @throws USAGE_INVALID where there is none; REPORT_INVALID for what is no file, or too large a one */
export function readReport(file: string): Buffer {
  let fd: number
  try {
    // A stick may hold a link, or a pipe that would be waited for.
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    if (systemCode(cause) === 'ELOOP') throw noFile(file, 'is a link')
    throw usage(`${file}: ${(cause as Error).message}`, 'gapferry report add FILE or DIR')
  }
  try {
    const stats = fstatSync(fd)
    if (!stats.isFile()) throw noFile(file, 'is no plain file')
    if (stats.size > MAX_REPORT_BYTES) throw noFile(file, `has more than ${MAX_REPORT_BYTES} bytes`)
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

function noFile(file: string, why: string): GapferryError {
  return new GapferryError('REPORT_INVALID', `${basename(file)}: ${why}`)
}

function usage(why: string, hint: string): GapferryError {
  return new GapferryError('USAGE_INVALID', why, { hint })
}
