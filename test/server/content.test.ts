import t, { type Test } from 'tap'
import type { Tree } from '../../manifests/tree.ts'
import { readHead } from '../../server/conditions.ts'
import { contentAnswers, type Answer } from '../../server/content.ts'
import { HostTable } from '../../server/hosts.ts'
import { Served } from '../../server/served.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, silent, TestReleases } from '../helpers/content.ts'

const REPOMD = 'yum/base/repodata/repomd.xml'
const RPM = 'yum/base/lib~1+2.rpm'

interface Ask {
  method?: string
  target?: string
  headers?: Record<string, string>
  client?: string
}

async function setUp(t: Test) {
  const blobs = new BlobStore(t.testdir())
  const treeOf = (word: string): Promise<Tree> =>
    makeTree(blobs, {
      [REPOMD]: { bytes: `<repomd/>${word}`, kind: 'pointer', type: 'text/xml' },
      [`${REPOMD}.asc`]: { bytes: `signature${word}`, kind: 'companion', of: REPOMD, type: 'text/plain' },
      [RPM]: { bytes: 'package' },
    })
  const tree = await treeOf('')
  const releases = new TestReleases()
  releases.release(tree, 0)
  const release = async (word: string) => {
    releases.release(await treeOf(word), 0)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const served = new Served({ releases, keepPreviousMs: 0, clock: () => 0, log: silent })
  const answer = contentAnswers(
    new HostTable({ host: '127.0.0.1', port: 8416 }, [
      { hosts: ['mirror.lan'], value: 'pbx' },
      { hosts: ['new.lan'], value: 'new' },
    ]),
    served,
  )
  const ask = ({ method = 'GET', target = `/${RPM}`, headers = {}, client = '192.0.2.1' }: Ask): Answer => {
    const raw = Object.entries({ Host: 'mirror.lan', ...headers }).flat()
    return answer({ method, target, head: readHead(raw), connection: { remoteAddress: client } })
  }
  return { ask, tree, release }
}

function headersOf(answer: Answer): Record<string, string> {
  return Object.fromEntries(
    Array.from({ length: answer.headers.length / 2 }, (_, i) => answer.headers.slice(2 * i, 2 * i + 2)),
  )
}

t.test('a whole file', async (t) => {
  const { ask, tree } = await setUp(t)
  const { sha256, bytes } = tree.entries.get(RPM as never)!
  const answer = ask({})
  t.match(answer, { status: 200, body: { sha256, bytes, start: 0, length: bytes }, isHeadOnly: false })
  t.same(headersOf(answer), {
    'Content-Type': 'application/x-rpm',
    'Content-Length': '7',
    ETag: `"${sha256.slice(0, 32)}"`,
    'Last-Modified': 'Tue, 14 Nov 2023 22:13:20 GMT',
    'Cache-Control': 'public, max-age=31536000, immutable',
    'Accept-Ranges': 'bytes',
    'X-Content-Type-Options': 'nosniff',
  })
  t.match(headersOf(ask({ target: `/${REPOMD}` })), { 'Content-Type': 'text/xml', 'Cache-Control': 'no-cache' })
  t.match(headersOf(ask({ target: `/${REPOMD}.asc` })), { 'Content-Type': 'text/plain', 'Cache-Control': 'no-cache' })
})

t.test('GET, HEAD and POST answer alike', async (t) => {
  const { ask } = await setUp(t)
  const cases: Ask[] = [
    {},
    { headers: { Range: 'bytes=1-2' } },
    { headers: { Range: 'bytes=9-' } },
    { headers: { 'If-None-Match': '*' } },
    { headers: { 'If-Match': '"x"' } },
    { target: '/nothing' },
    { target: '/%2f' },
    { headers: { Host: 'evil' } },
    { headers: { Host: 'new.lan' } },
  ]
  for (const one of cases) {
    const [get, head, post] = ['GET', 'HEAD', 'POST'].map((method) => ask({ ...one, method })) as [
      Answer,
      Answer,
      Answer,
    ]
    const what = JSON.stringify(one)
    t.same([head.status, post.status], [get.status, get.status], what)
    t.same([head.headers, post.headers], [get.headers, get.headers], what)
    t.same([head.isHeadOnly, post.isHeadOnly, get.isHeadOnly], [true, false, false])
  }
})

t.test('spellings of one path', async (t) => {
  const { ask } = await setUp(t)
  const good = [
    `/${RPM}`,
    `/${RPM}?`,
    `/${RPM}?a=/../b&c=%00`,
    `//yum///base/lib~1+2.rpm`,
    '/yum/base/lib%7e1%2b2.rpm',
    '/yum/b%61se/lib~1+2.rpm',
  ]
  for (const target of good) t.equal(ask({ target }).status, 200, target)
  t.equal(ask({ target: `http://mirror.lan/${RPM}` }).status, 200)
})

t.test('paths that are nowhere', async (t) => {
  const { ask } = await setUp(t)
  for (const target of [
    '/',
    '//',
    '/?',
    '/yum',
    '/yum/',
    '/yum/base/',
    '/yum//base//',
    `/${RPM}/`,
    `/${RPM}/?x`,
    '/Yum/base/x',
    '/favicon.ico',
  ]) {
    t.equal(ask({ target }).status, 404, target)
  }
  t.same(ask({ target: '/nothing' }).body, Buffer.from('PATH_UNKNOWN: nothing is served at this path\n'))
})

t.test('paths that cannot be', async (t) => {
  const { ask } = await setUp(t)
  const bad = [
    '/..',
    '/../etc/passwd',
    '/yum/../yum',
    '/yum/./base',
    '/%2e%2e/x',
    '/.%2e/x',
    '/yum%2fbase',
    '/yum%5Cbase',
    '/yum\\base',
    '/a%00',
    '/a%0a',
    '/%',
    '/%zz',
    '/%ff',
    '/a%20b',
    '/a#b',
    `/${'a'.repeat(256)}`,
    `/${'a/'.repeat(40)}b`,
    '/../',
    '/%2f/',
    '*',
    '',
    'yum/base',
    'ftp://mirror.lan/x',
  ]
  for (const target of bad) t.equal(ask({ target }).status, 400, target.slice(0, 40))
  t.equal(ask({ target: '/%252e%252e/x' }).status, 400, 'decoded once: what is left is no path either')
})

t.test('methods', async (t) => {
  const { ask } = await setUp(t)
  for (const method of ['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'PROPFIND', 'TRACE', 'get', '']) {
    const answer = ask({ method })
    t.equal(answer.status, 405, method)
    t.match(headersOf(answer), { Allow: 'GET, HEAD, POST' })
    t.equal(headersOf(answer)['Connection'], method === 'TRACE' ? 'close' : undefined)
  }
})

t.test('hosts', async (t) => {
  const { ask } = await setUp(t)
  t.equal(ask({ headers: { Host: 'MIRROR.lan:8416' } }).status, 200)
  const unknown = ask({ headers: { Host: 'evil.lan' } })
  t.equal(unknown.status, 421)
  t.match(String(unknown.body), /hosts in mirror\.yaml/)
  t.notMatch(String(unknown.body), /mirror\.lan|evil/, 'names neither what is served nor what was asked')
  t.equal(ask({ headers: { Host: 'a b' } }).status, 400)
  t.equal(ask({ headers: { host: 'mirror.lan' } }).status, 400, 'Host and host')
  t.equal(ask({ target: `http://new.lan/${RPM}` }).status, 421)
  t.equal(ask({ headers: { Host: 'new.lan' } }).status, 503, 'a group before its first release')
})

t.test('parts of a file', async (t) => {
  const { ask } = await setUp(t)
  const part = ask({ headers: { Range: 'bytes=2-3' } })
  t.match(part, { status: 206, body: { start: 2, length: 2, bytes: 7 } })
  t.match(headersOf(part), {
    'Content-Range': 'bytes 2-3/7',
    'Content-Length': '2',
    'Content-Type': 'application/x-rpm',
  })
  const behind = ask({ headers: { Range: 'bytes=7-' } })
  t.equal(behind.status, 416)
  t.match(headersOf(behind), { 'Content-Range': 'bytes */7' })
  t.match(headersOf(ask({})), { 'Content-Length': '7' }, 'a part changes nothing for the next request')
})

t.test('304 tells a cache what it needs, and describes no body', async (t) => {
  const { ask } = await setUp(t)
  const { ETag: tag = '' } = headersOf(ask({}))
  const answer = ask({ headers: { 'If-None-Match': tag } })
  t.match(answer, { status: 304, body: undefined })
  t.same(Object.keys(headersOf(answer)).sort(), ['Cache-Control', 'ETag', 'Last-Modified', 'X-Content-Type-Options'])
})

t.test('refusals are short plain text without a path or a stack', async (t) => {
  const { ask } = await setUp(t)
  for (const one of [{ target: '/secret-name' }, { target: '/..' }, { method: 'PUT' }, { headers: { Host: 'x' } }]) {
    const answer = ask(one)
    t.match(headersOf(answer), {
      'Content-Type': 'text/plain; charset=utf-8',
      'X-Content-Type-Options': 'nosniff',
      'Cache-Control': 'no-store',
      'Content-Length': String((answer.body as Buffer).length),
    })
    t.match(String(answer.body), /^[A-Z_]+: [^\n]{1,100}\n$/)
    t.notMatch(String(answer.body), /secret|\.ts|:\d/)
  }
})

t.test('what nobody foresaw is a 500 without words', async (t) => {
  const releases = {
    version: () => {
      throw new Error('secret')
    },
    served: () => new Map(),
  }
  const served = new Served({ releases, keepPreviousMs: 0, clock: () => 0, log: silent })
  const answers = contentAnswers(new HostTable({ host: '127.0.0.1', port: 80 }, [{ hosts: [], value: 'pbx' }]), served)
  const answer = answers({ method: 'GET', target: '/x', head: readHead([]), connection: {} })
  t.equal(answer.status, 500)
  t.notMatch(String(answer.body), /secret/)
  t.match(answer.error, /secret/, 'the log gets it')
})

t.test('a companion is the one of the pair whatever way it is asked for', async (t) => {
  const { ask, release } = await setUp(t)
  for (const method of ['GET', 'HEAD', 'POST']) {
    const client = `192.0.2.${method.length}${method.charCodeAt(0)}`
    await release('first')
    const { ETag: pointer } = headersOf(ask({ method, target: `/${REPOMD}`, client }))
    const { ETag: first = '' } = headersOf(ask({ target: `/${REPOMD}.asc`, client }))
    await release('second')
    t.not(headersOf(ask({ target: `/${REPOMD}` }))['ETag'], pointer)
    const asc = { target: `/${REPOMD}.asc`, client }
    for (const how of ['GET', 'HEAD', 'POST']) t.equal(headersOf(ask({ ...asc, method: how }))['ETag'], first, how)
    t.match(headersOf(ask({ ...asc, headers: { Range: 'bytes=0-3' } })), { 'Content-Range': /./, ETag: first })
    t.equal(ask({ ...asc, headers: { 'If-None-Match': first } }).status, 304)
    t.not(headersOf(ask({ ...asc, client: '192.0.2.99' }))['ETag'], first, 'for another client it is the released one')
  }
})

t.test('a pointer that was not modified for a client counts as got', async (t) => {
  const { ask, release } = await setUp(t)
  await release('first')
  const { ETag: pointer = '' } = headersOf(ask({ target: `/${REPOMD}`, client: 'other' }))
  const { ETag: first } = headersOf(ask({ target: `/${REPOMD}.asc`, client: 'other' }))
  t.equal(ask({ target: `/${REPOMD}`, headers: { 'If-None-Match': pointer } }).status, 304)
  await release('second')
  t.equal(headersOf(ask({ target: `/${REPOMD}.asc` }))['ETag'], first)
})
