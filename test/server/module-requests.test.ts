/** A FreePBX box's requests, byte for byte, and what it gets. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { gunzipSync, gzipSync } from 'node:zlib'
import { acceptsGzip } from '../../server/conditions.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, testConfig, TestReleases, type TestFile } from '../helpers/content.ts'
import {
  boxForm,
  CORE,
  headRequest,
  LIST,
  moduleFiles,
  pestPost,
  requestsPost,
  SOUNDS,
  TAG,
} from '../helpers/module-tree.ts'
import { exchange, parseAnswers, type RawAnswer } from '../helpers/raw-http.ts'

const TARBALL = 'sounds/asterisk-core-sounds-en-ulaw-1.6.1.tar.gz'

async function setUp(t: Test, files: Record<string, TestFile> | null = moduleFiles()) {
  const dir = t.testdir()
  const blobs = new BlobStore(dir)
  const releases = new TestReleases()
  if (files !== null) releases.release(await makeTree(blobs, files), 0)
  const mirror = await startMirror({ releases, blobs, config: testConfig([{ group: 'pbx', hosts: ['mirror.lan'] }]) })
  t.teardown(() => mirror.close())
  const url = mirror.origins[0]!.url.replace('mirror.lan', '127.0.0.1')
  const host = `mirror.lan:${new URL(url).port}`
  const ask = async (bytes: string | Buffer): Promise<RawAnswer> => {
    const method = bytes.toString('latin1').split(' ')[0]!
    const keepOpen = !bytes.includes('Accept: */*\r\nContent-Length') // curl keeps its connection
    return parseAnswers(await exchange(url, bytes, { keepOpen }), [method])[0]!
  }
  const get = (path: string, ...headers: string[]): Promise<RawAnswer> =>
    ask([`GET ${path} HTTP/1.1`, `Host: ${host}`, 'Connection: close', ...headers, '', ''].join('\r\n'))
  const post = (path: string, form: string): Promise<RawAnswer> => ask(requestsPost(host, path, form))
  return { host, ask, get, post, dir }
}

function unpacked({ body }: RawAnswer): string {
  return gunzipSync(Buffer.from(body, 'latin1')).toString()
}

t.test('ma upgradeall: list, then HEAD and POST of each module', async (t) => {
  const { ask, post, host } = await setUp(t)
  const list = await post('/all-16.0.xml', boxForm())
  t.equal(list.status, 200)
  t.equal(unpacked(list), LIST)
  const { headers } = list
  t.equal(headers.get('content-type'), 'text/xml')
  t.equal(headers.get('content-encoding'), 'gzip')
  t.equal(headers.get('content-length'), String(list.body.length))
  t.equal(headers.get('vary'), 'Accept-Encoding')
  t.equal(headers.get('connection'), 'close')
  t.notOk(headers.has('transfer-encoding'))
  t.notOk(
    [...headers.keys()].some((name) => name.startsWith('x-') && name !== 'x-content-type-options'),
    'no x-regenerate-id',
  )
  t.equal(unpacked(await post('/all-16.0.xml', `firstinstall=yes&${boxForm()}`)), LIST)

  const head = await ask(headRequest(host, `/modules/${CORE}`))
  t.match(head, { status: 200, body: '' })
  t.equal(head.headers.get('content-length'), '15')
  const form = boxForm()
    .replace(/^lastaccesseduuid=[^&]*&currentuuid=[^&]*&/, '')
    .replace('&sv=2', '')
  const download = await post(`/modules/${CORE}`, form)
  t.match(download, { status: 200, body: 'a signed module' })
  for (const name of ['content-encoding', 'transfer-encoding', 'vary']) t.notOk(download.headers.has(name), name)
  t.equal(download.headers.get('content-type'), 'application/octet-stream')
  t.match(
    await post(`//modules/${CORE}`, form),
    { status: 200, body: 'a signed module' },
    'MODULE_REPO ends with a slash',
  )
  t.match(await post(`/modules/${CORE}`, ''), { status: 200, body: 'a signed module' }, 'the empty body of 15')
})

t.test('ma listonline: announcements', async (t) => {
  const { post } = await setUp(t)
  for (const version of ['16.0.40', '16.0.99.9', '17.0.1-beta1']) {
    const answer = await post(`/version-${version}.html`, 'sv=2')
    t.match(answer, { status: 200, body: '' }, version)
    t.match(answer.headers.get('content-type'), /^text\/html/)
    t.equal(answer.headers.get('content-length'), '0')
  }
})

t.test('ma download --tag', async (t) => {
  const { post, ask, get, host } = await setUp(t)
  const form = (rawname: string, tag: string): string =>
    `deploymentid=0&phpver=7.4.33&rawname=${rawname}&tag=${tag}&framework=16.0&distro=freepbxdistro&distrover=x&pbxver=16.0.30&sv=2`
  const found = await post('/mversion.php', form('core', '16.0.68'))
  t.match(found, { status: 200, body: TAG })
  t.equal(found.headers.get('content-type'), 'application/json')
  t.equal((await get(`/mversion.php?${form('core', '16.0.68')}`)).body, TAG, 'whatever the method')
  t.match(await ask(headRequest(host, '/mversion.php')), { status: 200, body: '' })
  const unknown = [
    form('core', '16.0.67'),
    form('none', '1'),
    form('', ''),
    'rawname[]=core&tag=16.0.68',
    '',
    'sv=2',
    '\0%',
  ]
  const hostile = [
    form('..%2F..', 'x'),
    form('core%00', '16.0.68'),
    form('a'.repeat(900), '1'),
    `rawname=core&tag=${'1'.repeat(100)}`,
  ]
  for (const body of [...unknown, ...hostile]) {
    const answer = await post('/mversion.php', body)
    t.match(answer, { status: 200, body: '' }, JSON.stringify(body.slice(0, 60)))
    t.equal(answer.headers.get('content-length'), '0')
  }
})

t.test('sounds are always 200: else the box asks the internet from then on', async (t) => {
  const { ask, host, get } = await setUp(t)
  const pest = (path: string): Promise<RawAnswer> =>
    ask(pestPost(host, path, `${boxForm()}&soundlangver=2&canredirect=1`))
  const list = await pest('/sounds-16.0.xml')
  t.match(list, { status: 200, body: SOUNDS }, 'not packed: this client does not ask for it')
  t.equal(list.headers.get('vary'), 'Accept-Encoding')
  t.notOk(list.headers.has('content-encoding'))
  t.match(await pest(`/${TARBALL}`), { status: 200, body: 'sounds' })
  for (const path of ['/sounds-17.0.xml', '/sounds-15.0.xml?x', '//sounds-17.0.xml']) {
    const empty = await pest(path)
    t.match(empty, { status: 200, body: '<xml><sounds/></xml>' }, path)
    t.equal(empty.headers.get('content-type'), 'text/xml')
  }
  const unknown = [
    'core-sounds-en-license.txt',
    'x-1.tar.gz',
    '',
    'a%20b',
    '%zz',
    '../x',
    'a/b/c',
    '%2f',
    'x'.repeat(300),
  ]
  for (const name of unknown) t.match(await pest(`/sounds/${name}`), { status: 200, body: '' }, name.slice(0, 20))
  t.equal((await get('/sound/x')).status, 404)
  t.equal((await get('/soundsx')).status, 404)
})

t.test('extip', async (t) => {
  const { get } = await setUp(t)
  const answer = await get('/whatismyip.php')
  t.match(answer, { status: 200, body: '<xml><ipaddress>127.0.0.1</ipaddress></xml>' })
  t.match((await get('/whatismyip.php?port=1&token=x')).status, 200)
})

t.test('a module list that cannot be had has an empty body, whatever the reason', async (t) => {
  const { get, ask, host } = await setUp(t)
  for (const path of ['/all-17.0.xml', '/modules-15.0.xml', '/all-..xml', '//all-17.0.xml?']) {
    t.match(await get(path), { status: 404, body: '' }, path)
  }
  const elsewhere = await ask(requestsPost('other.lan', '/all-16.0.xml', boxForm()))
  t.match(elsewhere, { status: 421, body: '' }, 'a name that is not ours')
  t.match(await ask(pestPost('other.lan', '/sounds-16.0.xml', '')), { status: 200, body: '<xml><sounds/></xml>' })
  t.match(await ask(pestPost('other.lan', `/${TARBALL}`, '')), { status: 200, body: '' }, 'and no content under it')
  t.match(await ask(pestPost('other.lan', '/mversion.php', '')), { status: 421, body: /^HOST_UNKNOWN/ })
  t.match(await ask(pestPost('other.lan', `/modules/${CORE}`, '')), { status: 421, body: /^HOST_UNKNOWN/ })
  t.match(await ask(requestsPost(host, '/modules/none', '')), { status: 404, body: /^PATH_UNKNOWN/ })
  t.match(await ask(`DELETE /all-16.0.xml HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`), { status: 405 })
})

t.test('before the first release', async (t) => {
  const { get } = await setUp(t, null)
  t.match(await get('/all-16.0.xml'), { status: 503, body: '' })
  t.match(await get('/sounds-16.0.xml'), { status: 200, body: '<xml><sounds/></xml>' })
  t.match(await get(`/${TARBALL}`), { status: 200, body: '' })
  t.match(await get('/version-16.0.40.html'), { status: 200, body: '' })
  t.match(await get('/mversion.php?rawname=core&tag=16.0.68'), { status: 200, body: '' })
  t.match(await get('/modules/x'), { status: 503, body: /^RELEASE_NOTHING/ })
})

t.test('damaged files', async (t) => {
  const { get, ask, host, dir } = await setUp(t)
  rmSync(join(dir, 'blobs'), { recursive: true })
  t.match(await get('/all-16.0.xml'), { status: 503, body: '' })
  t.match(await get('/all-16.0.xml', 'Accept-Encoding: gzip'), { status: 503, body: '' })
  t.match(await get('/sounds-16.0.xml'), { status: 200, body: '<xml><sounds/></xml>' })
  t.match(await get(`/${TARBALL}`), { status: 200, body: '' })
  t.match(await ask(pestPost(host, '/mversion.php', 'rawname=core&tag=16.0.68')), { status: 503, body: '' })
  t.match(await get(`/modules/${CORE}`), { status: 503, body: /^BLOB_MISSING/ })
})

t.test('an origin without modules answers none of this', async (t) => {
  const { get } = await setUp(t, { 'yum/base/p.rpm': { bytes: 'package' }, 'sounds/x': { bytes: 'a vendor file' } })
  for (const path of [
    '/all-16.0.xml',
    '/sounds-16.0.xml',
    '/sounds/y',
    '/version-1.html',
    '/mversion.php',
    '/whatismyip.php',
  ]) {
    t.match(await get(path), { status: 404, body: /^PATH_UNKNOWN/ }, path)
  }
  t.match(await get('/sounds/x'), { status: 200, body: 'a vendor file' })
})

t.test('gzip goes to who asks for it', async (t) => {
  const { get, ask, host } = await setUp(t)
  const plain = await get('/all-16.0.xml')
  t.match(plain, { status: 200, body: LIST })
  const packed = await get('/all-16.0.xml', 'Accept-Encoding: deflate, gzip')
  t.equal(unpacked(packed), LIST)
  t.not(packed.headers.get('etag'), plain.headers.get('etag'), 'two representations')
  const tag = (answer: RawAnswer): string => `If-None-Match: ${answer.headers.get('etag')}`
  const kept = await get('/all-16.0.xml', 'Accept-Encoding: gzip', tag(packed))
  t.equal(kept.status, 304)
  t.equal(kept.headers.get('vary'), 'Accept-Encoding')
  t.equal((await get('/all-16.0.xml', 'Accept-Encoding: gzip', tag(plain))).status, 200)
  t.equal((await get('/all-16.0.xml', tag(plain))).status, 304)
  const head = await ask(
    `HEAD /all-16.0.xml HTTP/1.1\r\nHost: ${host}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`,
  )
  t.match(head, { status: 200, body: '' })
  for (const name of ['content-encoding', 'content-length', 'etag', 'vary', 'content-type']) {
    t.equal(head.headers.get(name), packed.headers.get(name), name)
  }
  const part = await get('/all-16.0.xml', 'Accept-Encoding: gzip', 'Range: bytes=0-1')
  t.match(part, { status: 206, body: '\x1f\x8b' })
  t.equal(part.headers.get('content-range'), `bytes 0-1/${packed.body.length}`)
  const file = await get('/all-16.0.xml.gz', 'Accept-Encoding: gzip')
  t.equal(file.headers.get('content-type'), 'application/gzip')
  t.notOk(file.headers.has('content-encoding'), 'asked for by its own name it is a file')
  t.match(await get('/modules-16.0.xml', 'Accept-Encoding: gzip'), { status: 200, body: LIST }, 'no companion')
  t.match(await get(`/modules/${CORE}`, 'Accept-Encoding: gzip'), { status: 200, body: 'a signed module' })
})

t.test('who asks for gzip', (t) => {
  for (const field of [
    'gzip',
    'deflate, gzip',
    'GZIP',
    'x-gzip',
    ' gzip ;q=0.5',
    'gzip;q=1.0',
    'br,gzip;q=0.001',
    'a;q=0,gzip',
  ]) {
    t.ok(acceptsGzip(field), field)
  }
  for (const field of [
    undefined,
    '',
    '*',
    'identity',
    'deflate',
    'gzip;q=0',
    'gzip; q=0.000',
    'gzipx',
    'x;gzip',
    'GZIP;Q=0.0',
  ]) {
    t.notOk(acceptsGzip(field), String(field))
  }
  t.end()
})

t.test('gzip beside a repository file is not negotiated where there are no modules', async (t) => {
  const { get } = await setUp(t, {
    'list.xml': { bytes: LIST, kind: 'pointer', type: 'text/xml' },
    'list.xml.gz': { bytes: gzipSync(LIST), kind: 'companion', of: 'list.xml', type: 'application/gzip' },
  })
  const answer = await get('/list.xml', 'Accept-Encoding: gzip')
  t.equal(answer.body, LIST)
  t.notOk(answer.headers.has('vary'))
})

t.test('no body up to 1 MiB is refused, whatever it is', async (t) => {
  const { ask, host } = await setUp(t)
  const bodies: [string, string | Buffer][] = [
    ['empty', ''],
    ['broken escapes', 'a=%&%zz=%4&%5B%5D=%5'],
    ['brackets', 'a[[[=1&]]a[b=2&a[b]c[=3&[]=4&=5'],
    ['deep', `a${'[a]'.repeat(20_000)}=1`],
    ['many', 'a[]=1&'.repeat(170_000)],
    ['many modules', Array.from({ length: 15_000 }, (_, i) => `modules[m${i}][version]=1`).join('&')],
    ['binary', Buffer.alloc(100_000, '\0\xff\x80&=[%')],
    ['not a form', '{"modules": []}'],
    ['names of objects', 'modules[__proto__][version]=1&__proto__[x]=1&constructor=1&installid[]=1'],
    ['all there may be', Buffer.alloc(1024 * 1024, 'x')],
  ]
  for (const path of ['/all-16.0.xml', '/sounds-16.0.xml', '/mversion.php', `/modules/${CORE}`, `//modules/${CORE}`]) {
    for (const [what, body] of bodies) {
      const bytes = Buffer.from(body)
      const head = `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n`
      const whole = Buffer.concat([
        Buffer.from(`${head}Content-Length: ${bytes.length}\r\nContent-Type: a/b/c; =\r\n\r\n`),
        bytes,
      ])
      t.equal((await ask(whole)).status, 200, `${path}: ${what}`)
    }
  }
})

t.test('chunked, and announced', async (t) => {
  const { ask, host } = await setUp(t)
  const form = 'rawname=core&tag=16.0.68'
  const head = `POST /mversion.php HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n`
  const chunks = `8\r\n${form.slice(0, 8)}\r\n${(form.length - 8).toString(16)};x=y\r\n${form.slice(8)}\r\n0\r\nT: x\r\n\r\n`
  t.match(await ask(`${head}Transfer-Encoding: chunked\r\n\r\n${chunks}`), { status: 200, body: TAG })
  t.match(await ask(`${head}Content-Length: ${form.length}\r\nContent-Type: text/plain\r\n\r\n${form}`), { body: TAG })
  const { url } = { url: `http://127.0.0.1:${host.split(':')[1]}` }
  const expected = await exchange(url, `${head}Expect: 100-continue\r\nContent-Length: ${form.length}\r\n\r\n${form}`, {
    keepOpen: true,
  })
  t.match(expected, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  t.ok(expected.endsWith(TAG))
})
