/** What a plan says of the modules of a group. */
import type { Checksum, Sha256 } from '../../manifests/digest.ts'
import type { ModuleEntry } from '../../manifests/module-feed.ts'
import { MAX_BLOB_BYTES } from '../../manifests/tree.ts'
import type { RemoteFile } from '../fetch.ts'
import type { ResolvedModules } from '../resolve-modules.ts'
import type { PlannedFile } from '../upstream-files.ts'
import type { ResolvedModule } from './carried-set.ts'
import type { GroupModules } from './module-settings.ts'
import type { ModuleCheck } from './verify-module.ts'

export interface PlannedModule {
  rawname: string
  version: string
  /** of its file, below `modules/` of the feed and of the origin */
  location: string
  /** which list of the plan its entry stands in, and in which section of that */
  list: number
  section: ModuleEntry['section']
  /** null when the server does not say */
  bytes: number | null
  /** of the file as it is served */
  checksum: Checksum
  /** all that the feed says of it */
  expected: ModuleCheck
  isSigned: boolean
  isCommercial: boolean
  reason: ResolvedModule['reason']
  because: ResolvedModule['because']
}

/** A box, as far as its modules go. */
export type PlannedModuleBox = ResolvedModules['boxes'][number] & { framework: string | null; installed: number }

export interface PlannedModules {
  feed: string
  major: GroupModules['major']
  /** as the feed gave them, blobs of the store; boxes that would be given the same share one */
  lists: { boxes: string[]; blob: Sha256 }[]
  /** how many modules the lists offer */
  offered: number
  modules: PlannedModule[]
  boxes: PlannedModuleBox[]
  sounds: PlannedSounds
  /** of the boxes now and before, and the one that is listed */
  frameworks: string[]
  /** rawnames that policy keeps off the list */
  blocked: string[]
  warnings: string[]
}

export interface PlannedSounds {
  /** the vendor's list, a blob of the store; undefined where no box has sounds, or the feed has no list */
  list?: Sha256
  /** those of the list that are listed, by `soundKey` */
  listed: string[]
  files: PlannedFile[]
}

/** Where a module's file is. */
export function moduleFile(
  feed: string,
  one: Pick<PlannedModule, 'rawname' | 'version' | 'location' | 'checksum' | 'bytes'>,
): RemoteFile {
  return {
    urls: [new URL(`/modules/${one.location}`, feed).href],
    checksum: one.checksum,
    // What HEAD said is no promise: the checksum is.
    maxBytes: one.bytes ?? MAX_BLOB_BYTES,
    what: `${one.rawname} ${one.version}`,
  }
}
