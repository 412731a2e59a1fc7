import t from 'tap'
import { renderSlip, slipName, type SlipContent } from '../../bundler/slip.ts'
import { sha256Of } from '../../manifests/digest.ts'
import type { TreePath } from '../../manifests/path.ts'
import type { Tree, TreeEntry } from '../../manifests/tree.ts'

const entry = (text: string, bytes: number, source?: string): TreeEntry => ({
  sha256: sha256Of(text),
  bytes,
  modified: 0,
  type: 'x/y',
  kind: 'pointer',
  ...(source === undefined ? {} : { source }),
})
const tree = (role: Tree['role'], entries: Record<string, TreeEntry>): Tree => ({
  site: 'hq',
  group: 'pbx',
  role,
  number: 7,
  stamps: new Map(),
  entries: new Map(Object.entries(entries) as [TreePath, TreeEntry][]),
})
const content: SlipContent = {
  site: 'hq',
  number: 7,
  createdAtMs: Date.UTC(2026, 10, 22, 12),
  expiresAtMs: Date.UTC(2027, 11, 27, 12),
  bundler: 'gapferry 1.2.3',
  facts: {
    site: 'hq',
    number: 7,
    createdAt: '2026-11-22T12:00:00Z',
    groups: new Map([['pbx', { origin: 'http://mirror.hq.lan:8416', yum: ['base'], files: [] }]]),
  },
  trees: [
    tree('previous', { 'yum/base/old.rpm': entry('old', 5_000_000) }),
    tree('current', {
      'yum/base/a.rpm': entry('a', 1_000_000, 'http://x/a'),
      'yum/base/b.rpm': entry('b', 2_000_000, 'http://x/b'),
      'yum/base/repodata/repomd.xml': entry('repomd', 900),
      'modules/core-1.tgz': entry('core', 3_000_000, 'http://x/c'),
      'all-16.0.xml': entry('list', 50_000),
      'modules-16.0.xml': entry('list', 50_000),
      'firmware/x.bin': entry('x', 40_000, 'http://x/x'),
    }),
  ],
  licenses: { count: 2, bytes: 3_000 },
  fingerprint: 'one two three four five six seven eight nine ten eleven twelve',
  siteKey: 'eins zwei drei vier fuenf sechs sieben acht neun zehn elf zwoelf',
  tool: { sha256: sha256Of('tool'), words: 'un deux trois quatre cinq six sept huit neuf dix onze douze' },
}
const files = [1, 2].map((part) => ({
  name: `hq-7-${part}of2.tar`,
  bytes: part * 1000,
  sha256: sha256Of(`part ${part}`),
  isKept: false,
}))

t.test('says on paper what the bundle is', (t) => {
  const text = renderSlip(content, files).toString('latin1')
  t.equal(slipName('hq', 7), 'hq-7.txt')
  for (const pattern of [
    /^bundle 7 for site hq\n=+\n/,
    /made +2026-11-22 12:00/,
    /good until +2027-12-27/,
    /group pbx, http:\/\/mirror\.hq\.lan:8416/,
    / packages +2 +3\.0 MB\n/,
    / modules +1 +3\.0 MB\n/,
    / other files +1 +40\.0 kB\n/,
    / lists and keys +3 +50\.9 kB\n/,
    /licenses of boxes, sealed\n {2}2 licenses, 3\.0 kB\n/,
    / 1 one +2 two +3 three +4 four\n/,
    / 9 nine +10 ten +11 eleven +12 twelve\n/,
  ]) {
    t.match(text, pattern)
  }
  t.notMatch(renderSlip({ ...content, licenses: null }, files).toString('latin1'), 'license')
  t.notMatch(text, 'sounds', 'no line for what there is none of')
  t.notMatch(text, '5.0 MB', 'the content before is not told of')
  for (const { name, bytes, sha256 } of files) {
    t.match(text, `${name}  ${bytes} bytes`)
    t.match(text.replaceAll(/\s/g, ''), sha256)
  }
  t.end()
})

t.test('fits on paper: plain ASCII, at most 80 columns, no blanks at the ends', (t) => {
  const text = renderSlip(content, files).toString('latin1')
  t.match(text, /^[\n -~]+$/)
  t.ok(text.endsWith('\n'))
  for (const line of text.split('\n')) t.ok(line.length <= 80 && line === line.trimEnd(), line)
  t.end()
})
