/**
 * Plans the modules of a group: asks the feed as its boxes would, lets them be resolved, and learns how many bytes each
 * file has. Of what a box says, the plan keeps its name and its versions: a deployment ID is in the request alone.
 */
import { checksumText, type Checksum } from '../../manifests/digest.ts'
import { GapferryError, isGapferryError } from '../../manifests/errors.ts'
import type { FreepbxFacts } from '../../manifests/inventory.ts'
import { writeModuleList, type ModuleEntry } from '../../manifests/module-feed.ts'
import { parseTreePath } from '../../manifests/path.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import type { Ledger, SignedBundle } from '../../storage/ledger.ts'
import type { Fetcher } from '../fetch.ts'
import { Once } from '../once.ts'
import { resolveModules, type ResolvedModules } from '../resolve-modules.ts'
import { headOf, lookFileAt, type FileSources, type PlannedFile } from '../upstream-files.ts'
import { lookModules, type ModuleUpstream } from '../upstream-modules.ts'
import type { ResolvedModule } from './carried-set.ts'
import { moduleBlob } from './fetch-modules.ts'
import { modulesBefore, type ModulesBefore } from './carried-before.ts'
import { boxOfRequest, moduleBoxOf, type ModuleBox } from './module-box.ts'
import type { GroupModules } from './module-settings.ts'
import { planSounds } from './plan-sounds.ts'
import { moduleFile, type PlannedModule, type PlannedModuleBox, type PlannedModules } from './planned-modules.ts'

interface ModuleContext {
  fetcher: Fetcher
  store: BlobStore
  memory: Pick<Ledger, 'fetched' | 'moduleFile' | 'moduleBytes' | 'noted' | 'note' | 'validator' | 'rememberValidator'>
  signal: AbortSignal
  /** what other groups of this run have asked already */
  asked?: Once
}

interface ModuleGroup {
  /** `site / group`: names the group in messages, and in what is remembered */
  name: string
  group: string
  settings: GroupModules
  boxes: readonly { box: string; freepbx?: FreepbxFacts | undefined }[]
  /** the site's last bundle */
  last: SignedBundle | undefined
}

/** @returns a text where nobody can ask the feed: why
 *  @throws what lookModules, resolveModules and writeModuleList throw; MODULE_DIGEST for an entry without a checksum;
 *          PATH_CONFLICT for two entries with one place;
 *          FETCH_* where sizes are asked for */
export async function planModules(group: ModuleGroup, context: ModuleContext): Promise<PlannedModules | string> {
  const { settings } = group
  const boxes = group.boxes.flatMap(({ box, freepbx }) =>
    freepbx === undefined ? [] : [{ name: box, facts: freepbx }],
  )
  const upstream = await lookModules(settings, boxes, { ...context, name: group.name })
  if (upstream.lists.length === 0) return upstream.warnings.join('; ')
  const before = modulesBefore(group, context.store)
  const moduleBoxes =
    boxes.length > 0 ? boxes.map(({ name, facts }) => moduleBoxOf(name, facts)) : [boxOfRequest(settings.request!)]
  const resolved = resolveModules({
    lists: upstream.lists,
    boxes: moduleBoxes,
    policy: new Map(settings.policy),
    before: before.versions,
  })
  // Refused now rather than when all of it was fetched.
  writeModuleList(upstream.lists[0]!.feed, resolved.carried)
  const carried = resolved.carried.map((one) => plannedModule(one, upstream))
  refuseSharedPlaces(carried)
  const modules = await withSizes(carried, group, context)
  const installed = boxes.map(({ facts }) => facts.sounds)
  const { feed, sounds: list } = upstream
  const sounds = await planSounds({ feed, upstream: list, boxes: installed, before: before.sounds }, context)
  return {
    feed,
    major: settings.major,
    lists: upstream.lists.map(({ boxes, blob }) => ({ boxes, blob })),
    offered: new Set(upstream.lists.flatMap((one) => one.feed.entries.flatMap(offeredName))).size,
    modules,
    boxes: resolved.boxes.map((box) => withFacts(box, moduleBoxes)),
    sounds: sounds.planned,
    frameworks: frameworksOf(moduleBoxes, modules, before),
    blocked: resolved.blocked,
    warnings: [...upstream.warnings, ...resolved.warnings, ...sounds.warnings],
  }
}

/** The vendor's archive of all modules of a major version, which a box may be installed from. @throws as lookFile */
export async function lookWholeSet({ feed, major }: GroupModules, sources: FileSources): Promise<PlannedFile> {
  const as = parseTreePath(`modules/packages/freepbx/freepbx-${major}.0-latest.tgz`, 'wholeSet')
  const { reason, ...file } = await lookFileAt({ url: new URL(`/${as}`, feed).href, as }, sources)
  return { ...file, reason: reason.replace('named in files', 'the whole set (wholeSet)') }
}

function plannedModule({ entry, feed, reason, because }: ResolvedModule, { lists }: ModuleUpstream): PlannedModule {
  const { rawname, version, location, section, signedSha1, sha1, md5 } = entry
  const what = `module ${rawname} ${version}`
  parseTreePath(`modules/${location}`, what)
  return {
    rawname,
    version,
    location,
    list: lists.findIndex((list) => list.feed === feed),
    section,
    bytes: null,
    checksum: checksumOf(entry, what),
    expected: {
      rawname,
      version,
      ...(signedSha1 === undefined ? {} : { signedSha1 }),
      ...(md5 === undefined ? {} : { md5 }),
      ...(sha1 === undefined ? {} : { sha1 }),
    },
    isSigned: signedSha1 !== undefined,
    isCommercial: entry.commercial,
    reason,
    because,
  }
}

/** One file cannot be what two entries say: the box that asks for the other one would be given this. An unpacked tree may
 *  stand on a file system without case. */
function refuseSharedPlaces(modules: readonly PlannedModule[]): void {
  const places = new Map<string, PlannedModule>()
  for (const one of modules) {
    const there = places.get(one.location.toLowerCase())
    places.set(one.location.toLowerCase(), one)
    const isSame = there?.location === one.location && there.checksum.hex === one.checksum.hex
    if (there === undefined || isSame) continue
    const names = [there, one].map(({ rawname, version }) => `${rawname} ${version}`).join(' and ')
    throw new GapferryError('PATH_CONFLICT', `${names}: the feed has both at ${one.location}, with different content`, {
      hint: `leave one of them out until the vendor has mended that: modules: { policy: { ${one.rawname}: block } }`,
    })
  }
}

/** Of the file as it is served: what stands inside a signed one has digests of its own. */
function checksumOf({ rawname, signedSha1, sha1, md5 }: ModuleEntry, what: string): Checksum {
  const hex = signedSha1 ?? sha1
  if (hex !== undefined) return { algorithm: 'sha1', hex }
  if (md5 !== undefined) return { algorithm: 'md5', hex: md5 }
  throw unusable('MODULE_DIGEST', `${what}: the feed gives no checksum of its file`, rawname)
}

async function withSizes(
  modules: PlannedModule[],
  group: ModuleGroup,
  context: ModuleContext,
): Promise<PlannedModule[]> {
  const { fetcher, store, memory, signal, asked = new Once() } = context
  const { feed } = group.settings
  const kind = `module bytes ${group.name}`
  const known = memory.noted(kind)
  const sized = await fetcher.all(
    modules,
    async (one, signal) => {
      const stored = moduleBlob({ store, ledger: memory }, one)?.bytes
      const noted = known.get(checksumText(one.checksum))
      const ask = (): Promise<number | null> => askSize(feed, one, { fetcher, signal })
      const key = JSON.stringify(['module size', feed, one.location, checksumText(one.checksum)])
      return { ...one, bytes: stored ?? (noted === undefined ? await asked.get(key, signal, ask) : Number(noted)) }
    },
    signal,
  )
  memory.note(
    kind,
    new Map(sized.flatMap((one) => (one.bytes === null ? [] : [[checksumText(one.checksum), String(one.bytes)]]))),
  )
  return sized
}

/** Some servers say 0 of what a program sends. */
async function askSize(
  feed: string,
  one: PlannedModule,
  way: Pick<ModuleContext, 'fetcher' | 'signal'>,
): Promise<number | null> {
  try {
    const head = await headOf(moduleFile(feed, one), way)
    return head?.bytes || null
  } catch (error) {
    if (!isGapferryError(error, 'FETCH_STATUS')) throw error
    throw unusable('FETCH_STATUS', error.message, one.rawname, error)
  }
}

function unusable(
  code: 'FETCH_STATUS' | 'MODULE_DIGEST',
  message: string,
  rawname: string,
  cause?: unknown,
): GapferryError {
  const hint = `leave it out until the vendor has mended that: modules: { policy: { ${rawname}: block } }`
  return new GapferryError(code, message, { hint, cause })
}

function withFacts(box: ResolvedModules['boxes'][number], all: readonly ModuleBox[]): PlannedModuleBox {
  const { framework = null, modules } = all.find(({ name }) => name === box.name)!
  return { ...box, framework, installed: modules.length }
}

/** Those of the last bundle stay: that a box was updated is no reason for a new one. */
function frameworksOf(boxes: readonly ModuleBox[], modules: readonly PlannedModule[], before: ModulesBefore): string[] {
  const listed = modules.filter(({ rawname }) => rawname === 'framework').map(({ version }) => version)
  const installed = boxes.flatMap(({ framework }) => framework ?? [])
  return [...new Set([...before.frameworks, ...installed, ...listed])].sort()
}

function offeredName({ section, rawname }: ModuleEntry): string[] {
  return section === 'module' ? [rawname] : []
}
