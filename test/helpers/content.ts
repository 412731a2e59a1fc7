/** What serving's tests need: trees in memory, releases that a test flips, a mirror on ports of its own. */
import { pino } from 'pino'
import { sha256Of } from '../../manifests/digest.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Tree, TreeEntry } from '../../manifests/tree.ts'
import { buildMirror, type Mirror, type MirrorArgs } from '../../server/app.ts'
import { parseMirrorConfig } from '../../server/config.ts'
import type { ReleaseSource } from '../../server/served.ts'
import { BlobStore } from '../../storage/blobs.ts'
import type { ServedGroup, ServedTree } from '../../storage/releases.ts'

/** 2023-11-14 22:13:20 UTC, in seconds: the date of every file unless a test says otherwise */
const MODIFIED = 1_700_000_000

export interface TestFile {
  bytes: Buffer | string
  kind?: TreeEntry['kind']
  of?: string
  type?: string
  modified?: number
}

/** Puts the files' bytes into `blobs` and returns a tree that names them. */
export async function makeTree(
  blobs: BlobStore,
  files: Record<string, TestFile>,
  { group = 'pbx', number = 1 } = {},
): Promise<Tree> {
  const entries = new Map<TreePath, TreeEntry>()
  const batch = blobs.batch()
  for (const [
    path,
    { bytes, kind = 'immutable', of, type = 'application/x-rpm', modified = MODIFIED },
  ] of Object.entries(files)) {
    const data = Buffer.from(bytes)
    const entry: TreeEntry = { sha256: batch.put(data), bytes: data.length, modified, type, kind }
    entries.set(path as TreePath, of === undefined ? entry : { ...entry, of: of as TreePath })
  }
  await batch.commit()
  return { site: 'hq', group, role: 'current', number, stamps: new Map([['base', number]]), entries }
}

/** Releases in memory, with the shape of storage/releases.ts. */
export class TestReleases implements ReleaseSource {
  readonly #groups = new Map<string, ServedGroup>()
  #version = 1

  version(): number {
    return this.#version
  }

  served(sinceMs: number): Map<string, ServedGroup> {
    return new Map(
      [...this.#groups].map(([group, { released, replaced }]) => [
        group,
        { released, replaced: replaced.filter((tree) => tree.replacedAtMs! > sinceMs) },
      ]),
    )
  }

  release(tree: Tree, nowMs: number): void {
    const sha256 = sha256Of(`${tree.group} ${tree.number} ${[...tree.entries.values()].map((e) => e.sha256).join()}`)
    const released: ServedTree = { ...tree, sha256, tree, releasedAtMs: nowMs, replacedAtMs: null }
    const before = this.#groups.get(tree.group)
    const replaced = [
      ...(before?.released ? [{ ...before.released, replacedAtMs: nowMs }] : []),
      ...(before?.replaced ?? []),
    ]
    const distinct = replaced.filter(
      (old, i) => old.sha256 !== sha256 && replaced.findIndex((other) => other.sha256 === old.sha256) === i,
    )
    this.#groups.set(tree.group, { released, replaced: distinct })
    this.#version++
  }
}

export const silent = pino({ level: 'silent' })

/** Settings of a mirror on free loopback ports; `origins` as in mirror.yaml, without `listen`. */
export function testConfig(origins: { group: string; hosts?: string[] }[] = [{ group: 'pbx' }]): MirrorArgs['config'] {
  const settings = {
    apiVersion: 'gapferry/v1',
    kind: 'Mirror',
    admin: { listen: '127.0.0.1:0' },
    origins: origins.map((origin) => ({ listen: '127.0.0.1:0', ...origin })),
  }
  return parseMirrorConfig(JSON.stringify(settings), 'mirror.yaml')
}

/** A mirror that listens; whoever makes it closes it. */
export async function startMirror(args: Partial<MirrorArgs> & Pick<MirrorArgs, 'releases' | 'blobs'>): Promise<Mirror> {
  const mirror = buildMirror({
    config: testConfig(),
    status: () => ({ site: 'hq', createdAtMs: null, store: { path: '/store' } }),
    clock: () => Date.now(),
    log: silent,
    ...args,
  })
  await mirror.listen()
  return mirror
}
