import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import type { TreePath } from '../../manifests/path.ts'
import { isPointer, parseName, parseTree, serializeTree, type Tree, type TreeEntry } from '../../manifests/tree.ts'

const digest = sha256Of('x')
const entry = (more: Partial<TreeEntry> = {}): TreeEntry => ({
  sha256: digest,
  bytes: 1,
  modified: 1_700_000_000,
  type: 'text/xml',
  kind: 'immutable',
  ...more,
})
const repomd = 'yum/a/repodata/repomd.xml' as TreePath

function tree(entries: [string, TreeEntry][] = [[repomd, entry({ kind: 'pointer' })]]): Tree {
  return {
    site: 'hq',
    group: 'pbxact16',
    role: 'current',
    number: 3,
    stamps: new Map([['a', 1_700_000_000]]),
    entries: new Map(entries as [TreePath, TreeEntry][]),
  }
}

/** The plain document, to be broken in the tests. */
function doc(): Record<string, unknown> {
  return JSON.parse(serializeTree(tree()).toString()) as Record<string, unknown>
}

t.test('comes back from its bytes as it was, sorted by path', (t) => {
  const full = tree([
    ['z', entry({ source: 'http://u/z', verdict: 'unsigned' })],
    [repomd, entry({ kind: 'pointer' })],
    [`${repomd}.asc`, entry({ kind: 'companion', of: repomd })],
  ])
  const back = parseTree(serializeTree(full), 'x')
  t.strictSame([...back.entries.keys()], [repomd, `${repomd}.asc`, 'z'])
  t.strictSame(back.entries, full.entries)
  t.strictSame(back.stamps, full.stamps)
  t.equal(isPointer(back.entries.get(repomd)!), true)
  t.equal(isPointer(back.entries.get('z' as TreePath)!), false)
  t.end()
})

t.test('equal trees have equal bytes, whatever the order they were built in', (t) => {
  const a: [string, TreeEntry] = ['a', entry()]
  const b: [string, TreeEntry] = ['b', entry()]
  t.ok(serializeTree(tree([a, b])).equals(serializeTree(tree([b, a]))))
  t.end()
})

t.test('refuses every field that is not as FORMAT.md says', (t) => {
  const one = (change: object): object => ({ [repomd]: { ...entry({ kind: 'pointer' }), ...change } })
  const cases: Record<string, unknown>[] = [
    { _type: 'x' },
    { format: 2 },
    { more: 1 },
    { role: 'next' },
    { site: 'HQ' },
    { group: '-x' },
    { number: 0 },
    { number: -1 },
    { stamps: [] },
    { stamps: { 'a b': 1 } },
    { stamps: { a: 0 } },
    { stamps: Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`r${i}`, 1])) },
    {
      entries: {
        ...Object.fromEntries(
          Array.from({ length: 17 }, (_, i) => [`c${i}`, entry({ kind: 'companion', of: 'p' as TreePath })]),
        ),
        p: entry({ kind: 'pointer' }),
      },
    },
    { entries: null },
    { entries: { '../x': entry() } },
    { entries: { a: 1 } },
    { entries: one({ more: 1 }) },
    { entries: one({ sha256: 'x' }) },
    { entries: one({ bytes: -1 }) },
    { entries: one({ bytes: 2 ** 31 }) },
    { entries: one({ modified: '1' }) },
    { entries: one({ type: 'text/html; evil' }) },
    { entries: one({ type: 7 }) },
    { entries: one({ kind: 'x' }) },
    { entries: one({ of: 'x' }) },
    { entries: one({ source: 'a\nb' }) },
    { entries: one({ verdict: 'fine' }) },
    { entries: { a: entry({ kind: 'companion' }) } },
    { entries: { a: entry({ kind: 'companion', of: 'b' as TreePath }) } },
    { entries: { a: entry(), 'a/b': entry() } },
    { entries: Object.fromEntries(Array.from({ length: 20_001 }, (_, i) => [`p${i}`, 0])) },
  ]
  for (const change of cases) {
    const bytes = canonicalJson({ ...doc(), ...change })
    t.throws(
      () => parseTree(bytes, 'x'),
      { code: /TREE_INVALID|PATH_INVALID|DIGEST_INVALID/ },
      JSON.stringify(change).slice(0, 60),
    )
  }
  t.end()
})

t.test('refuses bytes that are not the canonical spelling', (t) => {
  const good = serializeTree(tree()).toString()
  for (const text of [
    `${good}\n`,
    good.replace('{', '{ '),
    good.replace('"format":1', '"format":1,"format":1'),
    JSON.stringify(Object.fromEntries(Object.entries(doc()).reverse())),
    '[]',
    '',
    'x',
  ]) {
    t.throws(() => parseTree(Buffer.from(text), 'x'), { code: 'TREE_INVALID' }, text.slice(0, 30))
  }
  t.throws(() => parseTree(Buffer.from([0xff, 0xfe]), 'x'), { code: 'TREE_INVALID' })
  t.throws(() => parseTree(Buffer.alloc(32 * 1024 * 1024 + 1), 'x'), { code: 'TREE_INVALID' })
  t.end()
})

t.test('a key named __proto__ is data, not a prototype', (t) => {
  const bytes = Buffer.from(
    serializeTree(tree())
      .toString()
      .replace('"entries":{', `"entries":{"__proto__":${JSON.stringify({})},`),
  )
  t.throws(() => parseTree(bytes, 'x'), { code: 'TREE_INVALID' })
  t.end()
})

t.test('names of sites and groups are plain', (t) => {
  for (const name of ['hq', 'pbxact16', 'a.b_c-d', 'x']) t.equal(parseName(name, 'x'), name)
  for (const name of ['', 'A', 'a/b', '.a', 'a.', 'a b', 'x'.repeat(65), null])
    t.throws(() => parseName(name, 'x'), { code: 'TREE_INVALID' })
  t.end()
})
