/**
 * Finds the parts that a person means by a stick, a folder or files. Nothing is opened here and nothing found is trusted:
 * names only choose what is read.
 */
import { readdirSync, statSync, type Dirent } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { parsePartName, partName, type PartName } from '../manifests/bundle.ts'
import { GapferryError } from '../manifests/errors.ts'
import { isLitter } from '../manifests/litter.ts'
import { systemCode } from '../storage/durable.ts'

export interface FoundParts {
  /** in the order to import them: by number, then by part */
  files: string[]
  ignored: { file: string; reason: string }[]
  /** what was found in folders */
  seen: SeenFolder[]
}

/** The parts of one bundle in one folder. */
export interface SeenFolder {
  dir: string
  number: number
  /** names of files, and those of the parts that are not among them */
  parts: string[]
  absent: string[]
}

/** A stick may hold anything; more names than this in one folder are not looked through. */
const MAX_NAMES = 100_000

/** @param inputs  files are taken as they are; in a folder the newest bundle of `site` is looked for: in
 *                 `gapferry/<site>/` below it, else in itself
 *  @throws BUNDLE_NOT_FOUND saying what is there instead */
export function findParts(inputs: string[], site: string): FoundParts {
  const found: FoundParts = { files: [], ignored: [], seen: [] }
  for (const input of inputs) {
    if (isFolder(input)) searchFolder(input, site, found)
    else found.files.push(input)
  }
  found.files = [...new Set(found.files)].sort(byNumber)
  return found
}

function searchFolder(dir: string, site: string, found: FoundParts): void {
  const places = [join(dir, 'gapferry', site), join(dir, site), dir]
  const parts: { file: string; name: PartName }[] = []
  for (const place of places) {
    for (const entry of archivesIn(place)) {
      const file = join(place, entry.name)
      const name = parsePartName(entry.name)
      if (!entry.isFile()) found.ignored.push({ file, reason: 'is not a regular file' })
      else if (name === undefined) found.ignored.push({ file, reason: 'is not named like a part' })
      else if (name.site !== site) found.ignored.push({ file, reason: `is of site ${name.site}` })
      else parts.push({ file, name })
    }
    if (parts.length > 0) break
  }
  if (parts.length === 0) throw nothingFor(site, dir, found.ignored)
  const newest = Math.max(...parts.map(({ name }) => name.number))
  for (const { file, name } of parts) {
    if (name.number === newest) found.files.push(file)
    else found.ignored.push({ file, reason: `is older than bundle ${newest}` })
  }
  found.seen.push(
    seenIn(
      dirname(parts[0]!.file),
      parts.map(({ name }) => name).filter((name) => name.number === newest),
    ),
  )
}

function seenIn(dir: string, names: PartName[]): SeenFolder {
  const parts = names.sort((a, b) => a.part - b.part).map(partName)
  // A bundle that was packed twice, to other sizes, is there as soon as one set is.
  const absent = [...new Set(names.map((name) => name.parts))].map((count) =>
    Array.from({ length: count }, (_, index) => partName({ ...names[0]!, part: index + 1, parts: count })).filter(
      (name) => !parts.includes(name),
    ),
  )
  return { dir, number: names[0]!.number, parts, absent: absent.sort((a, b) => a.length - b.length)[0]! }
}

function archivesIn(dir: string): Dirent[] {
  const entries = list(dir)
  if (entries.length > MAX_NAMES) {
    throw new GapferryError('USAGE_INVALID', `${dir}: expected at most ${MAX_NAMES} names, found ${entries.length}`, {
      hint: 'name the files of the bundle instead of the folder',
    })
  }
  return entries
    .filter(({ name }) => /\.tar$/i.test(name) && !isLitter(name))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

function list(dir: string): Dirent[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error))) return []
    throw new GapferryError('BUNDLE_UNREADABLE', `${dir}: cannot be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function nothingFor(site: string, dir: string, ignored: FoundParts['ignored']): GapferryError {
  const others = list(join(dir, 'gapferry'))
    .filter((entry) => entry.isDirectory() && !isLitter(entry.name))
    .map((entry) => entry.name)
  const there = [
    ...ignored.map(({ file, reason }) => `${basename(file)} ${reason}`),
    ...(others.length > 0 ? [`bundles of ${others.slice(0, 10).join(', ')}`] : []),
  ]
  return new GapferryError(
    'BUNDLE_NOT_FOUND',
    `${dir}: no bundle of site ${site} here${there.length > 0 ? `; found: ${there.slice(0, 10).join('; ')}` : ''}`,
    { hint: `name the folder that holds gapferry/${site}/, or the files` },
  )
}

/** Numbers rise, so that an older bundle is not refused because a newer one came first. */
function byNumber(a: string, b: string): number {
  const [x, y] = [parsePartName(basename(a)), parsePartName(basename(b))]
  return (x?.number ?? 0) - (y?.number ?? 0) || (x?.part ?? 0) - (y?.part ?? 0)
}

function isFolder(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats !== undefined) return stats.isDirectory()
  throw new GapferryError('BUNDLE_NOT_FOUND', `${path}: there is no such file or folder`, {
    hint: 'is the stick mounted? gapferry-mirror import FILE or DIR',
  })
}
