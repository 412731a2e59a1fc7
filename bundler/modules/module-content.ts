/**
 * The planned modules of a group and their files → what its boxes shall find: the lists cut to what is carried, plain and
 * compressed, the files, what answers a box that asks for one version, sounds, announcements, keys.
 */
import {
  MAX_MODULE_LIST_BYTES,
  parseModuleFeed,
  tagAnswer,
  writeModuleList,
  type ModuleEntry,
  type ModuleFeed,
} from '../../manifests/module-feed.ts'
import { parseTreePath, type TreePath } from '../../manifests/path.ts'
import { MAX_SOUND_LIST_BYTES, parseSoundFeed, writeSoundList } from '../../manifests/sound-feed.ts'
import type { TreeEntry } from '../../manifests/tree.ts'
import type { BlobBatch, BlobStore } from '../../storage/blobs.ts'
import { ownEntry } from '../compose.ts'
import type { FetchedBlob } from '../fetched.ts'
import { packGzip } from '../gzip.ts'
import type { PlannedFile } from '../upstream-files.ts'
import { moduleFile, type PlannedModule, type PlannedModules } from './planned-modules.ts'
import { soundKey } from './plan-sounds.ts'
import type { ModuleKey } from './vendor-keys.ts'

export interface ModuleContentSources {
  store: BlobStore
  nowMs: number
  /** @throws PLAN_UNFETCHED */
  fetchedModule: (one: PlannedModule) => FetchedBlob
  /** @throws PLAN_UNFETCHED */
  fetchedFile: (file: PlannedFile) => FetchedBlob
  /** keys that the group's modules may be signed by */
  keys: readonly ModuleKey[]
}

/** A list that a client reads and finds nothing in. */
const NO_SOUNDS = Buffer.from('<xml><sounds/></xml>')
/** A version that can be part of a path on any file system. */
const PATH_PART = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,100}$/

/** @throws PLAN_UNFETCHED; MODULE_LIST_INVALID, BLOB_* where the lists in the store are not what they were */
export async function moduleEntries(
  planned: PlannedModules,
  sources: ModuleContentSources,
  batch: BlobBatch,
): Promise<Map<TreePath, TreeEntry>> {
  const { store, nowMs } = sources
  const entries = new Map<TreePath, TreeEntry>()
  const modified = Math.floor(nowMs / 1000)
  const own = (path: string, bytes: Buffer, type: string, of?: TreePath): TreePath => {
    const where = parseTreePath(path, 'modules')
    const about = of === undefined ? { kind: 'pointer' as const } : { kind: 'companion' as const, of }
    entries.set(where, ownEntry(batch, bytes, { modified, type, ...about }))
    return where
  }
  const list = async (path: string, bytes: Buffer): Promise<void> => {
    own(`${path}.gz`, await packGzip(bytes), 'application/gzip', own(path, bytes, 'text/xml'))
  }
  const feeds = planned.lists.map(({ blob }) =>
    parseModuleFeed(store.read(blob, MAX_MODULE_LIST_BYTES), planned.feed, planned.major),
  )
  const listed = planned.modules.map((one) => ({ one, feed: feeds[one.list]!, entry: entryOf(feeds[one.list]!, one) }))
  const bytes = writeModuleList(feeds[0]!, [...listed, ...besideListed(feeds[0]!, planned.modules)])
  for (const name of ['all', 'modules']) await list(`${name}-${planned.major}.0.xml`, bytes)
  for (const { one, feed, entry } of listed) {
    entries.set(parseTreePath(`modules/${one.location}`, one.rawname), payloadEntry(one, planned, sources))
    const name = `${one.rawname}-${one.version}`
    if (PATH_PART.test(name)) own(`gapferry/modules/${name}.json`, tagAnswer(entry, feed), 'application/json')
  }
  await list(`sounds-${planned.major}.0.xml`, soundList(planned, store))
  for (const file of planned.sounds.files) entries.set(file.as, fileEntry(file, modified, sources))
  for (const version of planned.frameworks) {
    if (PATH_PART.test(version)) own(`version-${version}.html`, Buffer.alloc(0), 'text/html')
  }
  for (const { fingerprint, key } of sources.keys) {
    own(`keys/modules/${fingerprint.slice(-16)}.key`, Buffer.from(key.armor()), 'application/pgp-keys')
  }
  return entries
}

function entryOf(feed: ModuleFeed, one: PlannedModule): ModuleEntry {
  const found = feed.entries.find((entry) => isEntry(entry, one))
  if (found === undefined) throw new Error(`${one.rawname} ${one.version} is planned and not in its list`)
  return found
}

function isEntry(entry: ModuleEntry, one: PlannedModule): boolean {
  const { rawname, version, section, location } = one
  return (
    entry.rawname === rawname && entry.version === version && entry.section === section && entry.location === location
  )
}

/** What a person may look up of a carried module stays in the list: releases before, and builds to come, whose files are not
 *  here. Of these a box takes by itself only an edge build, and only where it is set to: then that is carried. */
function besideListed(feed: ModuleFeed, modules: readonly PlannedModule[]): { entry: ModuleEntry; feed: ModuleFeed }[] {
  const carried = new Map(modules.map((one) => [one.rawname, one]))
  return feed.entries.flatMap((entry) => {
    const one = carried.get(entry.rawname)
    const isHeld = one?.reason === 'pinned' && entry.section !== 'previous'
    const isListed = entry.section === 'module' || modules.some((other) => isEntry(entry, other))
    return one === undefined || isHeld || isListed ? [] : [{ entry, feed }]
  })
}

function payloadEntry(one: PlannedModule, { feed }: PlannedModules, sources: ModuleContentSources): TreeEntry {
  const { sha256, bytes, verdict } = sources.fetchedModule(one)
  const [source] = moduleFile(feed, one).urls
  const type = 'application/octet-stream'
  return {
    sha256,
    bytes,
    modified: Math.floor(sources.nowMs / 1000),
    type,
    kind: 'immutable',
    source: source!,
    verdict,
  }
}

function soundList({ sounds, feed }: PlannedModules, store: BlobStore): Buffer {
  if (sounds.list === undefined || sounds.listed.length === 0) return NO_SOUNDS
  const all = parseSoundFeed(store.read(sounds.list, MAX_SOUND_LIST_BYTES), feed)
  const listed = new Set(sounds.listed)
  return writeSoundList(
    all,
    all.packages.filter((one) => listed.has(soundKey(one))),
  )
}

/** A pointer: the vendor may put other bytes under the same name tomorrow, and no list says what they are. */
function fileEntry(file: PlannedFile, modified: number, { fetchedFile }: ModuleContentSources): TreeEntry {
  const type = file.as.endsWith('.txt') ? 'text/plain' : 'application/gzip'
  return { ...fetchedFile(file), modified, type, kind: 'pointer', source: file.url }
}
