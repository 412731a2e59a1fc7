import t from 'tap'
import { composeSite, contentDigest, type GroupContent } from '../../bundler/compose.ts'
import type { TreeBefore } from '../../bundler/report-base.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { parseTreePath, type TreePath } from '../../manifests/path.ts'
import { newestTimestamp, parseRepomd, type Repomd } from '../../manifests/repomd.ts'
import { parseSiteFacts } from '../../manifests/site.ts'
import { parseTree, serializeTree, type Tree, type TreeEntry, type TreeRole } from '../../manifests/tree.ts'
import { BlobStore } from '../../storage/blobs.ts'
import type { Promises, SignedBundle } from '../../storage/ledger.ts'

const NOW_MS = 1_800_000_000_000
const NOW_S = NOW_MS / 1000

const entry = (text: string, kind: TreeEntry['kind'] = 'immutable'): TreeEntry => ({
  sha256: sha256Of(text),
  bytes: text.length,
  modified: 1,
  type: 'application/x-rpm',
  kind,
})
const repomd = (name: string): Repomd => ({
  revision: '1',
  data: [
    {
      type: 'primary',
      checksum: { algorithm: 'sha256', hex: sha256Of(name) },
      href: `repodata/${name}.xml.gz`,
      timestamp: 5,
      bytes: 1,
    },
  ],
})

function content(packages: Record<string, string>, more: { id?: string; upstreamStamp?: number } = {}): GroupContent {
  const { id = 'r', upstreamStamp = 100 } = more
  const entries = Object.entries(packages).map(
    ([name, text]) => [parseTreePath(`yum/${id}/${name}.rpm`, 'x'), entry(text)] as const,
  )
  return {
    group: 'a',
    origin: 'http://m:1',
    entries: new Map<TreePath, TreeEntry>(entries),
    repositories: new Map([[id, { repomd: repomd(Object.keys(packages).join('-')), upstreamStamp }]]),
  }
}

/** A laptop that composes bundle after bundle. */
function laptop(dir: string) {
  const store = new BlobStore(dir)
  let last: SignedBundle | undefined
  let promises: Promises = { group: 'a', stamps: new Map(), immutable: new Map() }
  return {
    store,
    /** @param served  what a report says; default: what was signed last */
    async compose(group: GroupContent, nowMs = NOW_MS, served?: TreeBefore | null): Promise<Record<string, Tree>> {
      const number = (last?.number ?? 0) + 1
      const context = {
        site: 'hq',
        number,
        nowMs,
        store,
        signDetached: (bytes: Uint8Array) => Promise.resolve(`signed ${sha256Of(bytes)}`),
      }
      const newest = last && { number: last.number, role: 'current' as const, sha256: last.trees.get('a/current')! }
      const before = served === undefined ? newest : (served ?? undefined)
      const composed = await composeSite(context, [group], { last, before: () => before }, () => promises)
      promises = {
        ...composed.promises[0]!,
        immutable: new Map([...promises.immutable, ...composed.promises[0]!.immutable]),
      }
      const trees = new Map([...composed.targets].map(([name, bytes]) => [name, sha256Of(bytes)]))
      last = { site: 'hq', number, createdAtMs: nowMs, content: contentDigest([group]), metadata: new Map(), trees }
      t.equal(parseSiteFacts(composed.targets.get('site')!).number, number)
      const parsed = [...composed.targets].filter(([name]) => name !== 'site')
      return Object.fromEntries(parsed.map(([name, bytes]) => [name.slice(2), parseTree(bytes, name)]))
    },
  }
}

/** The timestamp in the repomd.xml of a tree, and that its signature is over these very bytes. */
function stampIn(store: BlobStore, tree: Tree, id = 'r'): number {
  const pointer = tree.entries.get(`yum/${id}/repodata/repomd.xml` as TreePath)!
  const companion = tree.entries.get(`yum/${id}/repodata/repomd.xml.asc` as TreePath)!
  t.equal(store.read(companion.sha256, 1000).toString(), `signed ${pointer.sha256}`)
  const stamp = newestTimestamp(parseRepomd(store.read(pointer.sha256, 10_000), 'x'))
  t.equal(stamp, tree.stamps.get(id), 'the tree says what repomd.xml says')
  return stamp
}

const paths = (tree: Tree): string[] => [...tree.entries.keys()].filter((path) => path.endsWith('.rpm'))

t.test('a first bundle has a current tree alone', async (t) => {
  const { compose, store } = laptop(t.testdir())
  const trees = await compose(content({ x: '1' }))
  t.strictSame(Object.keys(trees), ['current'])
  t.equal(stampIn(store, trees['current']!), NOW_S)
})

t.test('the next has the content before, stamped newer, and its own again, newer still', async (t) => {
  const { compose, store } = laptop(t.testdir())
  await compose(content({ x: '1' }))
  const { current, previous, return: back } = await compose(content({ x: '1', y: '2' }), NOW_MS + 60_000)
  t.strictSame(paths(current!), ['yum/r/x.rpm', 'yum/r/y.rpm'])
  t.strictSame(paths(previous!), ['yum/r/x.rpm'])
  t.strictSame(paths(back!), paths(current!))
  const stamps = [current, previous, back].map((tree) => stampIn(store, tree!))
  t.strictSame(stamps, [NOW_S + 60, NOW_S + 61, NOW_S + 62])
})

t.test('stamps rise strictly, whatever the laptop’s clock says', async (t) => {
  const { compose } = laptop(t.testdir())
  let highest = 0
  for (const nowMs of [NOW_MS, NOW_MS, NOW_MS - 1e9, 0, NOW_MS + 1000]) {
    const trees = await compose(content({ x: '1', [`n${highest}`]: String(highest) }), nowMs)
    for (const role of ['current', 'previous', 'return']) {
      const stamp = trees[role]?.stamps.get('r')
      if (stamp === undefined) continue
      t.ok(stamp > highest, `${stamp} > ${highest}`)
      highest = stamp
    }
  }
})

t.test('stamps stand above the upstream’s own', async (t) => {
  const { compose } = laptop(t.testdir())
  const { current } = await compose(content({ x: '1' }, { upstreamStamp: NOW_S + 5000 }))
  t.equal(current!.stamps.get('r'), NOW_S + 5001)
})

t.test('previous is what is served, whichever bundle that was of and whatever was signed since', async (t) => {
  const { compose } = laptop(t.testdir())
  const named = (number: number, tree: Tree | undefined, role: TreeRole = 'current'): TreeBefore => {
    return { number, role, sha256: sha256Of(serializeTree(tree!)) }
  }
  const first = await compose(content({ x: '1' }))
  const lost = await compose(content({ x: '1', y: '2' }))
  const third = await compose(content({ z: '3' }), NOW_MS, named(1, first['current']))
  t.strictSame(paths(third['previous']!), ['yum/r/x.rpm'])
  t.ok(third['current']!.stamps.get('r')! > lost['return']!.stamps.get('r')!, 'above all that was signed')
  t.ok(third['previous']!.stamps.get('r')! > third['current']!.stamps.get('r')!)
  const back = await compose(content({ w: '4' }), NOW_MS, named(3, third['previous'], 'previous'))
  t.strictSame(paths(back['previous']!), ['yum/r/x.rpm'], 'the mirror was rolled back')
  const none = await compose(content({ v: '5' }), NOW_MS, null)
  t.strictSame(Object.keys(none), ['current'], 'nothing is served')
})

t.test('Last-Modified never goes back behind one that was signed, whatever is served', async (t) => {
  const { compose } = laptop(t.testdir())
  const dated = (text: string, modified: number): GroupContent => {
    const made = content({})
    made.entries.set('x.list' as TreePath, { ...entry(text, 'pointer'), modified })
    return made
  }
  const store = new BlobStore(t.testdirName)
  const batch = store.batch()
  for (const text of ['1', '2']) batch.put(Buffer.from(text))
  await batch.commit()
  const first = await compose(dated('1', 10))
  await compose(dated('2', 20))
  const served: TreeBefore = { number: 1, role: 'current', sha256: sha256Of(serializeTree(first['current']!)) }
  const { current } = await compose(dated('1', 30), NOW_MS, served)
  t.equal(current!.entries.get('x.list' as TreePath)!.modified, 30)
})

t.test('a repository that is gone stays in previous, with its stamp raised', async (t) => {
  const { compose, store } = laptop(t.testdir())
  const first = await compose(content({ x: '1' }))
  const { current, previous } = await compose(content({ y: '1' }, { id: 's' }))
  t.strictSame([...current!.stamps.keys()], ['s'])
  t.strictSame([...previous!.stamps.keys()], ['r'])
  t.ok(stampIn(store, previous!) > first['current']!.stamps.get('r')!)
})

t.test('an immutable path never gets other bytes, not even after it was away', async (t) => {
  const { compose } = laptop(t.testdir())
  await compose(content({ x: '1' }))
  await compose(content({ y: '1' }))
  await t.rejects(compose(content({ x: '2' })), { code: 'PATH_CHANGED', message: /yum\/r\/x\.rpm/ })
  await compose(content({ x: '1' }))
})

t.test('Last-Modified stays where the bytes stayed', async (t) => {
  const { compose } = laptop(t.testdir())
  await compose(content({ x: '1' }))
  const later = content({ x: '1' })
  for (const one of later.entries.values()) one.modified = 999
  const { current } = await compose(later)
  t.equal(current!.entries.get('yum/r/x.rpm' as TreePath)!.modified, 1)
})

t.test('equal content has an equal digest, in any order; every difference shows', (t) => {
  const [a, b] = [content({ x: '1', y: '2' }), content({ y: '2', x: '1' })]
  t.equal(contentDigest([a]), contentDigest([b]))
  t.equal(contentDigest([a, { ...b, group: 'b' }]), contentDigest([{ ...b, group: 'b' }, a]))
  t.not(contentDigest([a]), contentDigest([content({ x: '1', y: '3' })]))
  t.not(contentDigest([a]), contentDigest([{ ...a, origin: 'http://m:2' }]))
  t.not(contentDigest([a]), contentDigest([a, { ...a, group: 'b' }]))
  t.end()
})
