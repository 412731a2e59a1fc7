/** What the last bundle of a site carried of modules and sounds, read from that bundle itself. */
import { isGapferryError } from '../../manifests/errors.ts'
import { parseModuleFeed } from '../../manifests/module-feed.ts'
import { parseTreePath, type TreePath } from '../../manifests/path.ts'
import { MAX_TREE_BYTES, parseTree } from '../../manifests/tree.ts'
import type { BlobStore } from '../../storage/blobs.ts'
import type { SignedBundle } from '../../storage/ledger.ts'
import { ifSound } from '../rot.ts'
import type { GroupModules } from './module-settings.ts'

export interface ModulesBefore {
  /** rawname → version */
  versions: Map<string, string>
  /** places of sound packages and their licences */
  sounds: Set<TreePath>
  /** versions of frameworks that had an announcement */
  frameworks: string[]
}

/** @returns nothing for what the store has lost, or has damaged */
export function modulesBefore(
  { group, settings, last }: { group: string; settings: Pick<GroupModules, 'major'>; last: SignedBundle | undefined },
  store: BlobStore,
): ModulesBefore {
  const found: ModulesBefore = { versions: new Map(), sounds: new Set(), frameworks: [] }
  const sha256 = last?.trees.get(`${group}/current`)
  const bytes = sha256 === undefined ? undefined : ifSound(() => store.read(sha256, MAX_TREE_BYTES))
  if (bytes === undefined) return found
  const { entries } = parseTree(bytes, `${group}/current`)
  for (const path of entries.keys()) {
    if (path.startsWith('sounds/')) found.sounds.add(path)
    found.frameworks.push(...(/^version-(.+)\.html$/.exec(path)?.slice(1) ?? []))
  }
  const list = entries.get(parseTreePath(`all-${settings.major}.0.xml`, group))
  const text = list === undefined ? undefined : ifSound(() => store.read(list.sha256, list.bytes))
  if (text === undefined) return found
  try {
    for (const { rawname, version, section } of parseModuleFeed(text, 'the modules of the last bundle').entries) {
      if (section === 'module') found.versions.set(rawname, version)
    }
  } catch (error) {
    // It was made and read here when it was signed: whatever is wrong with it now, nothing is kept for its sake.
    if (!isGapferryError(error)) throw error
  }
  return found
}
