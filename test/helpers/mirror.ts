/** What a mirror's tests need: bundles with trees and blobs, made without the bundler, and a store to put them in. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { partName } from '../../manifests/bundle.ts'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { serializePartHint } from '../../manifests/part-hint.ts'
import { serializeSiteFacts } from '../../manifests/site.ts'
import type { TreePath } from '../../manifests/path.ts'
import { serializeTree, type Tree, type TreeEntry, type TreeRole } from '../../manifests/tree.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Catalog } from '../../storage/catalog.ts'
import { missingPaths, readTrees } from '../../storage/completeness.ts'
import type { VerifiedMetadata } from '../../storage/trust.ts'
import { archive, partEntries, sampleKeys, sampleRoot, type SampleBundle } from './part.ts'
import { DAY, makeBundle, NOW, type SiteKeys } from './site.ts'

/** Trees with the blobs that they name, as they lie in a bundle. */
export interface TestContent {
  number: number
  /** `<group>/<role>` → the tree's blob */
  targets: Map<string, { sha256: Sha256; bytes: number }>
  trees: Map<Sha256, Buffer>
  blobs: Map<Sha256, Buffer>
}

export interface TestTree {
  group?: string
  role?: TreeRole
  /** stamp of repository `base` */
  stamp: number
  /** names of packages; the name is the content */
  packages?: string[]
  /** further pointers: path → content */
  files?: Record<string, string>
  stamps?: Record<string, number>
}

/** A bundle's trees, each with one yum repository `base`: repomd.xml, its signature, and packages. */
export function makeContent(number: number, trees: TestTree[], site = 'hq'): TestContent {
  const content: TestContent = { number, targets: new Map(), trees: new Map(), blobs: new Map() }
  for (const { group = 'pbx', role = 'current', stamp, stamps = {}, packages = [], files = {} } of trees) {
    const entries = new Map<TreePath, TreeEntry>()
    const add = (path: string, text: string, kind: TreeEntry['kind'], of?: string) => {
      const bytes = Buffer.from(text)
      const sha256 = sha256Of(bytes)
      content.blobs.set(sha256, bytes)
      const entry: TreeEntry = { sha256, bytes: bytes.length, modified: 1_700_000_000, type: 'text/plain', kind }
      entries.set(path as TreePath, of === undefined ? entry : { ...entry, of: of as TreePath })
    }
    const repomd = 'yum/base/repodata/repomd.xml'
    add(repomd, `repomd of ${group}/${role} ${number} ${stamp}`, 'pointer')
    add(`${repomd}.asc`, `signature of ${group}/${role} ${number} ${stamp}`, 'companion', repomd)
    for (const name of packages) add(`yum/base/${name}.rpm`, `package ${name}`, 'immutable')
    for (const [path, text] of Object.entries(files)) add(path, text, 'pointer')
    const tree: Tree = {
      site,
      group,
      role,
      number,
      stamps: new Map([['base', stamp], ...Object.entries(stamps)]),
      entries: new Map([...entries].sort(([a], [b]) => (a < b ? -1 : 1))),
    }
    const bytes = serializeTree(tree)
    const sha256 = sha256Of(bytes)
    content.trees.set(sha256, bytes)
    content.targets.set(`${group}/${role}`, { sha256, bytes: bytes.length })
  }
  return content
}

/** Metadata as if it had been verified; its files are not. */
export function pretendVerified(
  content: Pick<TestContent, 'number' | 'targets'>,
  roots = ['root 1'],
): VerifiedMetadata {
  const { number, targets } = content
  return {
    state: {
      roots: roots.map((text) => Buffer.from(text)),
      timestamp: Buffer.from(`timestamp ${number}`),
      snapshot: Buffer.from(`snapshot ${number}`),
      targets: Buffer.from(`targets ${number}`),
    },
    site: 'hq',
    number,
    createdAtMs: NOW + number,
    expiresAtMs: NOW + 400 * DAY,
    bundler: 'gapferry 0.1.0',
    targets,
    isNew: true,
    isReset: false,
    isExpired: false,
  }
}

export interface TestStore {
  root: string
  catalog: Catalog
  blobs: BlobStore
}

/** A mirror's store under `dir`, with nothing pinned. */
export function makeStore(dir: string): TestStore {
  const root = join(dir, 'store')
  mkdirSync(root, { recursive: true })
  return { root, blobs: new BlobStore(root), catalog: new Catalog(join(root, 'catalog.db')) }
}

/** Puts a bundle into a store without verifying anything. */
export async function adopt(
  store: TestStore,
  content: TestContent,
  options: { leaveOut?: Sha256[] } = {},
): Promise<void> {
  const batch = store.blobs.batch()
  for (const bytes of content.trees.values()) batch.put(bytes)
  for (const [sha256, bytes] of content.blobs) if (options.leaveOut?.includes(sha256) !== true) batch.put(bytes)
  await batch.commit()
  store.catalog.adopt(pretendVerified(content), NOW)
  const missing = missingPaths(readTrees(store.blobs, store.catalog.trees(content.number)).values(), (sha256) =>
    store.blobs.has(sha256),
  )
  const partHint = serializePartHint({ site: 'hq', number: content.number, part: 1, parts: [null] })
  store.catalog.noteParts(content.number, { isComplete: missing.length === 0, partHint })
}

/** The digest of a text blob made by `makeContent`. */
export function blobOf(text: string): Sha256 {
  return sha256Of(Buffer.from(text))
}

/** The parts of a signed bundle as files in `dir`, as `pack` would cut them.
 *  @param parts  for each part, the blobs that it has; default: one part with all
 *  @returns the files' paths, by part */
export function writeParts(
  dir: string,
  bundle: SampleBundle,
  parts: Sha256[][] = [[...bundle.blobs.keys()]],
): string[] {
  mkdirSync(dir, { recursive: true })
  const sorted = parts.map((names) => [...names].sort())
  const ranges = sorted.map((names) => (names.length === 0 ? null : { first: names[0]!, last: names.at(-1)! }))
  return sorted.map((names, i) => {
    const hint = serializePartHint({ site: bundle.site, number: bundle.number, part: i + 1, parts: ranges })
    const entries = partEntries({ ...bundle, blobs: new Map(names.map((name) => [name, bundle.blobs.get(name)!])) })
    const body = entries.map((entry) => (entry.name === 'part.json' ? { ...entry, body: hint } : entry))
    const file = join(dir, partName({ site: bundle.site, number: bundle.number, part: i + 1, parts: parts.length }))
    writeFileSync(file, archive(body))
    return file
  })
}

/** A bundle's blobs in two halves by digest, which is how parts are cut. */
export function halves({ blobs }: SampleBundle): [Sha256[], Sha256[]] {
  const names = [...blobs.keys()].sort()
  const middle = Math.ceil(names.length / 2)
  return [names.slice(0, middle), names.slice(middle)]
}

/** Every file below a folder, with size, time and content: to see that nothing changed. */
export function traces(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .map((entry) => ({ entry, path: join(entry.parentPath, entry.name) }))
    .map(({ entry, path }) => {
      const { mtimeMs, size } = statSync(path)
      const name = relative(folder, path)
      return entry.isFile() ? `${name} ${size} ${mtimeMs} ${sha256Of(readFileSync(path))}` : `${name}/ ${mtimeMs}`
    })
    .sort()
}

/** `content` as a bundle that the laptop of site `hq` (or `site`) signed, with the site facts.
 *  @param options.origin       as its boxes are told
 *  @param options.createdAtMs  default: the time of tests */
export function signContent(
  content: TestContent,
  options: {
    keys?: SiteKeys
    roots?: Buffer[]
    site?: string
    origin?: string
    createdAtMs?: number
    expiresAtMs?: number
    reportKey?: string
  } = {},
): SampleBundle {
  const { keys = sampleKeys, roots = [sampleRoot], site = 'hq', origin = 'http://127.0.0.1:8416', ...times } = options
  const { number } = content
  const trees = [...content.targets.keys()].filter((target) => target.includes('/'))
  const groups = [...new Set(trees.map((target) => target.split('/')[0]!))]
  const facts = serializeSiteFacts({
    site,
    number,
    createdAt: '2026-11-22T12:00:00Z',
    groups: new Map(groups.map((group) => [group, { origin, yum: ['base'], files: [] }])),
  })
  const targets = new Map([...content.targets, ['site', { sha256: sha256Of(facts), bytes: facts.length }]])
  return {
    site,
    number,
    root: roots[0]!,
    metadata: makeBundle(keys, { site, number, roots, targets, ...times }),
    trees: new Map([...content.trees, [sha256Of(facts), facts]]),
    blobs: content.blobs,
    wanted: new Map([...content.blobs].map(([sha256, bytes]) => [sha256, bytes.length])),
  }
}
