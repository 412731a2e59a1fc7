/**
 * Sound packages of a group's boxes: the vendor's list cut to what they have installed, with the files that a box may ask
 * for. A client that fails here forgets its module server, so what is listed must be there.
 */
import { isGapferryError } from '../../manifests/errors.ts'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import type { TreePath } from '../../manifests/path.ts'
import { soundFile, soundLicense, type SoundPackage } from '../../manifests/sound-feed.ts'
import { lookFileAt, type FileSources, type PlannedFile } from '../upstream-files.ts'
import type { ModuleUpstream } from '../upstream-modules.ts'
import type { PlannedSounds } from './planned-modules.ts'

type InstalledSound = Pick<SoundPackage, 'type' | 'module' | 'language' | 'format' | 'version'>

interface SoundsWanted {
  feed: string
  upstream: ModuleUpstream['sounds']
  /** of each box */
  boxes: readonly (readonly InstalledSound[])[]
  /** places in the last bundle */
  before: ReadonlySet<TreePath>
}

/** @throws what looking at files throws, but for a licence that the vendor does not have */
export async function planSounds(
  wanted: SoundsWanted,
  context: FileSources,
): Promise<{ planned: PlannedSounds; warnings: string[] }> {
  const { upstream } = wanted
  const installed = Map.groupBy(wanted.boxes.flat(), soundKey)
  if (upstream === undefined || installed.size === 0) return { planned: { listed: [], files: [] }, warnings: [] }
  const listed = upstream.feed.packages.filter((one) => installed.has(soundKey(one)))
  const warnings: string[] = []
  const companion = listed.length === 1 ? companionOf(listed[0]!, upstream.feed.packages) : undefined
  if (listed.length === 1 && companion === undefined) {
    warnings.push(`sounds: only ${nameOf(listed[0]!)} would be listed, which boxes cannot read; none is`)
    listed.length = 0
  }
  const needed = listed.filter((one) => {
    const versions = installed.get(soundKey(one))!.map(({ version }) => version)
    const isNewer = versions.some((version) => compareModuleVersions(version, one.version) < 0)
    return isNewer || wanted.before.has(soundFile(one))
  })
  if (companion !== undefined) for (const list of [listed, needed]) list.push(companion)
  const files: PlannedFile[] = []
  for (const one of needed) files.push(await look(wanted.feed, soundFile(one), `sounds ${nameOf(one)}`, context))
  for (const path of new Set(listed.map(soundLicense))) {
    try {
      files.push(await look(wanted.feed, path, 'license text of sounds', context))
    } catch (error) {
      if (!isGapferryError(error, 'FETCH_STATUS')) throw error
      warnings.push(`sounds: the vendor has no ${path.slice(path.lastIndexOf('/') + 1)}`)
    }
  }
  return { planned: { list: upstream.blob, listed: listed.map(soundKey), files }, warnings }
}

/** Names one package of a list, whatever its version. */
export function soundKey({ type, module, language, format }: Omit<InstalledSound, 'version'>): string {
  return [type, module, language, format].join('/')
}

/** The same sounds in another format: a box reads no list of one. */
function companionOf(one: SoundPackage, all: readonly SoundPackage[]): SoundPackage | undefined {
  return all.find(
    (other) => other.module === one.module && other.language === one.language && soundKey(other) !== soundKey(one),
  )
}

async function look(feed: string, as: TreePath, reason: string, context: FileSources): Promise<PlannedFile> {
  return { ...(await lookFileAt({ url: new URL(`/${as}`, feed).href, as }, context)), reason }
}

function nameOf({ module, language, format, version }: SoundPackage): string {
  return `${module} ${language} ${format} ${version}`
}
