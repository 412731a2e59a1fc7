/** Bundles and their parts for tests: signed for real, archived by code of its own, so that both can be made wrong. */
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { serializePartHint } from '../../manifests/part-hint.ts'
import type { TreePath } from '../../manifests/path.ts'
import { serializeSiteFacts, type SiteFacts } from '../../manifests/site.ts'
import { serializeTree, type Tree, type TreeEntry } from '../../manifests/tree.ts'
import { makeBundle, makeRoot, newKey, type SiteKeys } from './site.ts'

export interface SampleBundle {
  site: string
  number: number
  root: Buffer
  metadata: Map<string, Buffer>
  trees: Map<Sha256, Buffer>
  blobs: Map<Sha256, Buffer>
  wanted: Map<Sha256, number>
}

/** One key pair for all samples: making keys is slow. */
export const sampleKeys: SiteKeys = { root: [newKey()], bundle: [newKey()] }
export const sampleRoot = makeRoot(sampleKeys)

/** A site `hq` with the group `pbx`, its current tree with one path per file.
 *  @param args.change  may make documents wrong before they are signed */
export function sampleBundle(
  args: {
    number?: number
    files?: Record<string, Buffer | string>
    previous?: Record<string, Buffer | string>
    change?: (documents: { tree: Tree; facts: SiteFacts; targets: Map<string, Buffer> }) => void
  } = {},
): SampleBundle {
  const number = args.number ?? 1
  const blobs = new Map<Sha256, Buffer>()
  const tree = sampleTree(
    'current',
    number,
    args.files ?? { 'a.txt': 'alpha', 'b/c.bin': Buffer.alloc(3000, 7) },
    blobs,
  )
  const facts: SiteFacts = {
    site: 'hq',
    number,
    createdAt: '2026-11-22T12:00:00Z',
    groups: new Map([['pbx', { origin: 'http://mirror.hq.lan:8416', yum: ['base'], files: [] }]]),
  }
  const targets = new Map<string, Buffer>()
  args.change?.({ tree, facts, targets })
  if (!targets.has('pbx/current')) targets.set('pbx/current', serializeTree(tree))
  if (args.previous) targets.set('pbx/previous', serializeTree(sampleTree('previous', number, args.previous, blobs)))
  if (!targets.has('site')) targets.set('site', serializeSiteFacts(facts))
  const listed = [...targets].map(([name, bytes]) => [name, { sha256: sha256Of(bytes), bytes: bytes.length }] as const)
  return {
    site: 'hq',
    number,
    root: sampleRoot,
    metadata: makeBundle(sampleKeys, { number, targets: new Map(listed), roots: [sampleRoot] }),
    trees: new Map([...targets.values()].map((bytes) => [sha256Of(bytes), bytes])),
    blobs,
    wanted: new Map([...blobs].map(([sha256, bytes]) => [sha256, bytes.length])),
  }
}

function sampleTree(
  role: 'current' | 'previous',
  number: number,
  files: Record<string, Buffer | string>,
  blobs: Map<Sha256, Buffer>,
): Tree {
  const entries = new Map<TreePath, TreeEntry>()
  for (const [path, content] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const bytes = Buffer.from(content)
    const sha256 = sha256Of(bytes)
    blobs.set(sha256, bytes)
    const kind = path.endsWith('repomd.xml') ? 'pointer' : 'immutable'
    const type = 'application/octet-stream'
    entries.set(path as TreePath, { sha256, bytes: bytes.length, modified: 1_700_000_000, type, kind })
  }
  return { site: 'hq', group: 'pbx', role, number, stamps: new Map([['base', 1_700_000_000]]), entries }
}

/** One entry as a test wants it in an archive; `header` and `padding` replace what would be right. */
export interface RawEntry {
  name: string
  body: Buffer
  header?: Buffer
  padding?: Buffer
}

/** The entries of a one-part archive, as they should be. */
export function partEntries(bundle: SampleBundle): RawEntry[] {
  const blobs = byDigest(bundle.blobs)
  const parts = blobs.length === 0 ? [null] : [{ first: blobs[0]![0], last: blobs.at(-1)![0] }]
  const hint = serializePartHint({ site: 'hq', number: bundle.number, part: 1, parts })
  return [
    ...[...bundle.metadata].map(([name, body]) => ({ name: `metadata/${name}`, body })),
    ...byDigest(bundle.trees).map(([sha256, body]) => ({ name: `trees/${sha256}`, body })),
    { name: 'part.json', body: hint },
    ...blobs.map(([sha256, body]) => ({ name: `blobs/${sha256}`, body })),
  ]
}

function byDigest<V>(map: Map<Sha256, V>): [Sha256, V][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1))
}

const END = Buffer.alloc(1024)

export function archive(entries: RawEntry[], end = END): Buffer {
  const pieces = entries.flatMap(({ name, body, header, padding }) => [
    header ?? ustarHeader(name, body.length),
    body,
    padding ?? Buffer.alloc((512 - (body.length % 512)) % 512),
  ])
  return Buffer.concat([...pieces, end])
}

/** A header as POSIX.1-1988 lays it out, in the spelling of the format.
 *  @param fields  offset → text that replaces what stands there; the checksum is made to fit, unless it is given (148) */
export function ustarHeader(name: string, bytes: number, fields: Record<number, string> = {}): Buffer {
  const block = Buffer.alloc(512)
  const put = (at: number, text: string) => block.write(text, at, 'latin1')
  put(0, name)
  put(100, '000644 \x00000000 \x00000000 \0')
  put(124, `${bytes.toString(8).padStart(11, '0')} `)
  put(136, '00000000000 ')
  put(148, '        ')
  put(156, '0')
  put(257, 'ustar\x0000')
  put(329, '000000 \x00000000 \0')
  for (const [at, text] of Object.entries(fields)) put(Number(at), text)
  if (fields[148] === undefined) {
    const sum = block.reduce((total, byte) => total + byte, 0)
    put(148, `${sum.toString(8).padStart(6, '0')} \0`)
  }
  return block
}
