/**
 * The parts of one bundle, from files or the folder of a stick.
 */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { parsePartName } from '../../manifests/bundle.ts'
import { GapferryError } from '../../manifests/errors.ts'

/** @param inputs  parts, or folders that are searched for `gapferry/<site>/*.tar` and `*.tar`; of what a folder has the
 *                 newest bundle counts
 *  @param site    only this one
 *  @throws BUNDLE_NOT_FOUND; USAGE_INVALID for parts of several sites in a folder */
export function bundleFiles(inputs: string[], site: string | undefined): string[] {
  return inputs.flatMap((input) => {
    const isFolder = statSync(input, { throwIfNoEntry: false })?.isDirectory() === true
    if (isFolder) return newestIn(input, site)
    if (existsSync(input)) return [input]
    throw notFound(`${input}: there is no such file`)
  })
}

function newestIn(folder: string, site: string | undefined): string[] {
  const parts = [folder, ...sitesOf(folder)]
    .flatMap(partsIn)
    .filter(({ part }) => site === undefined || part.site === site)
  if (parts.length === 0) throw notFound(`${folder}: no part of a bundle is there`)
  const sites = [...new Set(parts.map(({ part }) => part.site))]
  if (sites.length > 1) {
    throw new GapferryError('USAGE_INVALID', `${folder}: has bundles of ${sites.join(', ')}`, {
      hint: `name one site: --from ${join(folder, 'gapferry', sites[0]!)}`,
    })
  }
  const newest = Math.max(...parts.map(({ part }) => part.number))
  return parts.filter(({ part }) => part.number === newest).map(({ file }) => file)
}

function sitesOf(folder: string): string[] {
  const base = join(folder, 'gapferry')
  if (!existsSync(base)) return []
  return readdirSync(base, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => join(base, name))
}

function partsIn(folder: string): { file: string; part: NonNullable<ReturnType<typeof parsePartName>> }[] {
  return readdirSync(folder)
    .sort()
    .map((name) => ({ file: join(folder, name), part: parsePartName(basename(name)) }))
    .filter((one): one is { file: string; part: NonNullable<typeof one.part> } => one.part !== undefined)
}

function notFound(message: string): GapferryError {
  return new GapferryError('BUNDLE_NOT_FOUND', message, {
    hint: 'name the parts of one bundle, or the folder of the stick',
  })
}
