import { gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { parseMirrorlist } from '../../manifests/mirrorlist.ts'
import type { TreePath } from '../../manifests/path.ts'
import { newestTimestamp, parseRepomd } from '../../manifests/repomd.ts'
import type { Tree } from '../../manifests/tree.ts'
import { readHead } from '../../server/conditions.ts'
import { contentAnswers, type Answer } from '../../server/content.ts'
import { HostTable } from '../../server/hosts.ts'
import { Served } from '../../server/served.ts'
import { carriedBy, vendorAnswer } from '../../server/vendor-answers.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, silent, TestReleases } from '../helpers/content.ts'

const LISTS = 'mirrorlist.sangoma.net'
const FILES = {
  'yum/sng-pkgs/repodata/repomd.xml': { bytes: 'index of sng-pkgs', kind: 'pointer', type: 'text/xml' },
  'yum/sng-pkgs/Packages/a+b~1.rpm': { bytes: 'package' },
  'yum/other/c.rpm': { bytes: 'other' },
  'all-16.0.xml': { bytes: 'list', kind: 'pointer', type: 'text/xml' },
} as const

async function setUp(t: Test, change: (tree: Tree) => Tree = (tree) => tree) {
  const blobs = new BlobStore(t.testdir())
  const made = await makeTree(blobs, FILES)
  const tree = change({
    ...made,
    stamps: new Map([
      ['sng-pkgs', 1000],
      ['other', 2000],
    ]),
  })
  const releases = new TestReleases()
  releases.release(tree, 0)
  const served = new Served({ releases, keepPreviousMs: 0, clock: () => 0, log: silent })
  const hosts = [
    { hosts: [LISTS, 'package1.sangoma.net', 'sng7.com', 'mirror.freepbx.org', 'mirror.lan'], value: 'pbx' },
  ]
  const table = new HostTable({ host: '127.0.0.1', port: 80 }, hosts)
  const asking = (names: Set<string>) => {
    const answer = contentAnswers(table, served, names)
    return (host: string, target: string, method = 'GET'): Answer =>
      answer({ method, target, head: readHead(['Host', host]), connection: { remoteAddress: '192.0.2.1' } })
  }
  return { blobs, tree, ask: asking(new Set(['pbx'])), plain: asking(new Set()) }
}

const textOf = ({ body }: Answer): string => (Buffer.isBuffer(body) ? body.toString() : '')

t.test('a mirrorlist leads to the repository, under the name that was asked', async (t) => {
  const { ask, tree } = await setUp(t)
  const target = '/?release=7&arch=x86_64&repo=sng7&dist=$dist&staging=$staging'
  for (const host of [LISTS, `${LISTS}:80`, 'SNG7.com']) {
    const answer = ask(host, target)
    t.match(answer, { status: 200, group: 'pbx', isHeadOnly: false })
    t.strictSame(parseMirrorlist(Buffer.from(textOf(answer)), 'reply'), [`http://${host}/yum/sng-pkgs/`])
  }
  t.equal(ask(LISTS, target, 'HEAD').isHeadOnly, true)
  t.match(ask(LISTS, '/yum/sng-pkgs/repodata/repomd.xml'), {
    body: { sha256: tree.entries.get('yum/sng-pkgs/repodata/repomd.xml' as TreePath)!.sha256 },
  })
  t.equal(textOf(ask(LISTS, '/?repo=other')), `http://${LISTS}/yum/other/\n`, 'an id that is no word of the vendor’s')
})

t.test('what is not carried is an empty repository, older than any that may come', async (t) => {
  const { ask } = await setUp(t)
  const [base] = parseMirrorlist(Buffer.from(textOf(ask(LISTS, '/?repo=epel'))), 'reply')
  const { pathname } = new URL(base!)
  for (const folder of [pathname, '/sng7/epel/', '/os/7/os/x86_64/', '/sng7/php74/of/whatever/']) {
    const index = parseRepomd(Buffer.from(textOf(ask(LISTS, `${folder}repodata/repomd.xml`))), 'repomd.xml')
    t.equal(newestTimestamp(index), 1000, 'the lowest stamp of the tree')
    t.strictSame(
      index.data.map(({ type }) => type),
      ['primary', 'filelists', 'other'],
    )
    for (const { href, checksum, openChecksum, bytes } of index.data) {
      const { body } = ask(LISTS, folder + href)
      t.strictSame([sha256Of(body as Buffer), (body as Buffer).length], [checksum.hex, bytes])
      const open = gunzipSync(body as Buffer)
      t.equal(sha256Of(open), openChecksum!.hex)
      t.match(open.toString(), / packages="0">/)
    }
    t.match(ask(LISTS, `${folder}Packages/x.rpm`), { status: 404 })
    t.match(ask(LISTS, `${folder}repodata/repomd.xml.asc`), { status: 404 })
  }
})

t.test('the vendor’s paths are those of the tree', async (t) => {
  const { ask, tree } = await setUp(t)
  const { sha256 } = tree.entries.get('yum/sng-pkgs/Packages/a+b~1.rpm' as TreePath)!
  for (const path of ['/sng7/sng7/Packages/a+b~1.rpm', '//sng7/sng7/Packages/a%2bb~1.rpm?x'])
    t.match(ask('package1.sangoma.net', path), { status: 200, body: { sha256 } }, path)
  for (const path of ['/sng7/sng7/%2e%2e/x', '/sng7/sng7/Packages/..%2fx'])
    t.match(ask('package1.sangoma.net', path), { status: 400 }, path)
  t.match(ask('package1.sangoma.net', '/sng7/sng7/'), { status: 404 })
  t.match(ask('package1.sangoma.net', '/'), { status: 404 })
})

t.test('where the laptop took a repository from, a box finds it too', async (t) => {
  const { ask } = await setUp(t, (tree) => {
    const path = 'yum/other/c.rpm' as TreePath
    const entry = { ...tree.entries.get(path)!, source: 'http://package1.sangoma.net/some/place/c.rpm' }
    return { ...tree, entries: new Map([...tree.entries, [path, entry]]) }
  })
  t.match(ask('package1.sangoma.net', '/some/place/c.rpm'), { status: 200, body: { length: 5 } })
  t.match(ask('sng7.com', '/some/place/c.rpm'), { status: 404 })
})

t.test('modules are asked for at the paths of the tree; other names are not touched', async (t) => {
  const { ask, plain } = await setUp(t)
  t.match(ask('mirror.freepbx.org', '/all-16.0.xml', 'POST'), { status: 200, body: { length: 4 } })
  t.match(ask('mirror.freepbx.org', '/?repo=sng7'), { status: 404 })
  t.match(ask('mirror.lan', '/?repo=sng7'), { status: 404 })
  t.match(ask('mirror.lan', '/sng7/epel/repodata/repomd.xml'), { status: 404 })
  t.match(plain(LISTS, '/?repo=sng7'), { status: 404 }, 'an origin without vendorNames')
})

t.test('before the first release nothing is said to be empty', async (t) => {
  const served = new Served({ releases: new TestReleases(), keepPreviousMs: 0, clock: () => 0, log: silent })
  const table = new HostTable({ host: '127.0.0.1', port: 80 }, [{ hosts: [LISTS], value: 'pbx' }])
  const answer = contentAnswers(table, served, new Set(['pbx']))
  const ask = (target: string) => answer({ method: 'GET', target, head: readHead(['Host', LISTS]), connection: {} })
  t.match([ask('/?repo=os'), ask('/os/7/os/x86_64/repodata/repomd.xml')], [{ status: 503 }, { status: 503 }])
})

t.test('a tree without yum, and one with odd sources', async (t) => {
  const { tree } = await setUp(t)
  const path = 'yum/other/c.rpm' as TreePath
  const odd = (source: string) =>
    carriedBy({ ...tree, entries: new Map([[path, { ...tree.entries.get(path)!, source }]]) }).bases
  t.strictSame([...odd('http://elsewhere.example/x/c.rpm'), ...odd('ftp://sng7.com/x/c.rpm'), ...odd('no url')], [])
  const none = carriedBy({ ...tree, stamps: new Map() })
  t.equal(none.stamp, Math.max(...[...tree.entries.values()].map(({ modified }) => modified)))
  t.match(vendorAnswer(LISTS, '/?repo=os', none), { type: /^text\/plain/ })
})
