import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { sha256Of, type Checksum } from '../../manifests/digest.ts'
import { Fetcher, makeDispatcher, type FetcherOptions, type RemoteFile } from '../../bundler/fetch.ts'
import { GapferryError } from '../../manifests/errors.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { startUpstream, type Fault } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const live = new AbortController().signal
const content = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 7) % 251))
const ALGORITHMS = ['md5', 'sha1', 'sha256', 'sha384', 'sha512'] as const

const fetcher = (options: Partial<FetcherOptions> = {}): Fetcher =>
  new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retries: 2, wait: async () => {}, ...options })
const file = (urls: string | string[], more: Partial<RemoteFile> = {}): RemoteFile => ({
  urls: [urls].flat(),
  maxBytes: 1_000_000,
  what: 'asterisk-18.rpm',
  ...more,
})
const checksum = (algorithm: Checksum['algorithm'], bytes: Buffer = content): Checksum => ({
  algorithm,
  hex: createHash(algorithm).update(bytes).digest('hex'),
})

/** Every regular file below the store: what is kept and what was left lying. */
function filesIn(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => one.name)
}

function openStore(t: Test): { store: BlobStore; root: string } {
  const root = t.testdir()
  return { store: new BlobStore(root), root }
}

t.test('keeps a file under its SHA-256, whatever algorithm the upstream declares', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  for (const algorithm of ALGORITHMS) {
    const { store } = openStore(t)
    const wanted = file(`${upstream.url}/a`, { bytes: content.length, checksum: checksum(algorithm) })
    const blob = await fetcher().toBlob(wanted, store, live)
    t.match(blob, { sha256: sha256Of(content), bytes: content.length, isFetched: true, url: `${upstream.url}/a` })
    t.strictSame(store.read(blob.sha256, content.length), content)
  }
})

t.test('one wrong bit is found by each algorithm and nothing is kept', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'flip', at: 100_000 })
  const { store, root } = openStore(t)
  for (const algorithm of ALGORITHMS) {
    const wanted = file(`${upstream.url}/a`, { bytes: content.length, checksum: checksum(algorithm) })
    const expected = { code: 'FETCH_DIGEST_MISMATCH', message: wanted.checksum!.hex }
    await t.rejects(fetcher().toBlob(wanted, store, live), expected, algorithm)
    await t.rejects(fetcher().get(wanted, live), expected, algorithm)
  }
  t.strictSame(filesIn(root), [])
})

t.test('what is in the store is never fetched again', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const { store } = openStore(t)
  const wanted = file(`${upstream.url}/a`, { bytes: content.length, checksum: checksum('sha256') })
  await fetcher().toBlob(wanted, store, live)
  const again = await fetcher().toBlob(wanted, store, live)
  t.match(again, { sha256: sha256Of(content), bytes: content.length, isFetched: false })
  t.equal(upstream.count('/a'), 1)
})

const faults: [string, Fault, Partial<RemoteFile>, string][] = [
  ['a login page in its place', { kind: 'portal' }, {}, 'FETCH_CAPTIVE'],
  ['a login page where a digest is known', { kind: 'portal' }, { checksum: checksum('sha1') }, 'FETCH_CAPTIVE'],
  ['a login page where a size is known', { kind: 'portal' }, { bytes: 200_000 }, 'FETCH_CAPTIVE'],
  ['status 511', { kind: 'status', status: 511, body: '<title>Sign in</title>' }, {}, 'FETCH_CAPTIVE'],
  ['status 404', { kind: 'status', status: 404 }, {}, 'FETCH_STATUS'],
  ['status 500', { kind: 'status', status: 500 }, {}, 'FETCH_STATUS'],
  ['an answer without content', { kind: 'status', status: 204 }, {}, 'FETCH_STATUS'],
  [
    'an error page that is longer than anybody reads',
    { kind: 'status', status: 404, body: 'x'.repeat(300_000) },
    {},
    'FETCH_STATUS',
  ],
  ['a body that ends early', { kind: 'truncate', after: 1000 }, {}, 'FETCH_FAILED'],
  ['a reset in the body', { kind: 'reset', after: 1000 }, {}, 'FETCH_FAILED'],
  ['a body without end', { kind: 'endless' }, {}, 'FETCH_TOO_LONG'],
  ['a body without end, size known', { kind: 'endless' }, { bytes: 200_000 }, 'FETCH_SIZE_MISMATCH'],
  ['a size above the limit', { kind: 'length', announced: 1_000_001 }, {}, 'FETCH_TOO_LONG'],
  ['another size than declared', { kind: 'length', announced: 199_999 }, { bytes: 200_000 }, 'FETCH_SIZE_MISMATCH'],
  ['more bytes than announced', { kind: 'length', announced: 10 }, { bytes: 200_000 }, 'FETCH_SIZE_MISMATCH'],
  ['fewer bytes than declared, size not announced', { kind: 'unsized' }, { bytes: 200_001 }, 'FETCH_SIZE_MISMATCH'],
  ['more bytes than declared, size not announced', { kind: 'unsized' }, { bytes: 199_999 }, 'FETCH_SIZE_MISMATCH'],
  ['a declared size above the limit', { kind: 'unsized' }, { bytes: 1_000_001 }, 'FETCH_TOO_LONG'],
  ['other bytes', { kind: 'replace', body: 'other' }, { checksum: checksum('sha256') }, 'FETCH_DIGEST_MISMATCH'],
  ['compressed without being asked to', { kind: 'gzip' }, {}, 'FETCH_FAILED'],
  ['no answer', { kind: 'hang' }, {}, 'FETCH_TIMEOUT'],
  ['a stalled body', { kind: 'drip', bytes: 1, everyMs: 3_600_000 }, {}, 'FETCH_TIMEOUT'],
  ['a redirect to a file', { kind: 'redirect', to: 'file:///etc/passwd' }, {}, 'FETCH_FAILED'],
]

for (const [name, fault, more, code] of faults) {
  t.test(`refuses ${name}, naming item and address, and keeps nothing`, async (t) => {
    const upstream = await startUpstream(t, new Map([['/a', content]]))
    upstream.fault('/a', fault)
    const { store, root } = openStore(t)
    const wanted = file(`${upstream.url}/a`, more)
    // Short only where it must run out: a busy machine may need longer than that for an honest answer.
    const quick = fetcher(code === 'FETCH_TIMEOUT' ? { headersTimeoutMs: 50, bodyTimeoutMs: 50 } : {})
    let total = 0
    let most = 0
    const taken = quick.toBlob(wanted, store, live, (bytes) => (most = Math.max(most, (total += bytes))))
    const failure = await t.rejects(taken, { code })
    t.match(failure, { message: `asterisk-18.rpm: ${upstream.url}/a: ` })
    t.match(failure, { message: /expected .*, found/ })
    t.strictSame(filesIn(root), [])
    t.equal(total, 0, 'what came is taken back')
    t.ok(most <= (more.bytes ?? wanted.maxBytes), 'never more than allowed')
    await t.rejects(quick.get(wanted, live), { code }, 'the same into memory')
  })
}

t.test('a login page is described, with the way out', async (t) => {
  const upstream = await startUpstream(t)
  const portal = await startUpstream(t)
  portal.fault('/login', { kind: 'portal', title: `Welcome to ${'Hotel '.repeat(30)}` })
  upstream.fault('/a', { kind: 'redirect', to: `${portal.url}/login` })
  await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), {
    code: 'FETCH_CAPTIVE',
    message: new RegExp(`found an HTML page "Welcome to Hotel[^"]{44}" from ${portal.url}/login`),
    hint: `open ${portal.url}/login in a browser`,
  })
})

t.test('a page is taken where a page is wanted, and lists whatever they are called', async (t) => {
  const upstream = await startUpstream(
    t,
    new Map([
      ['/index.html', '<html>x</html>'],
      ['/list', 'http://mirror/a\n'],
    ]),
  )
  upstream.headers('/list', { 'content-type': 'text/html' })
  t.equal((await fetcher().get(file(`${upstream.url}/index.html`, { isPage: true }), live)).bytes.length, 14)
  t.equal((await fetcher().get(file(`${upstream.url}/list`), live)).bytes.toString(), 'http://mirror/a\n')
})

t.test('compressed files come as they are, also from servers that call that a coding', async (t) => {
  const packed = gzipSync('x')
  const upstream = await startUpstream(
    t,
    new Map([
      ['/primary.xml.gz', packed],
      ['/list', packed],
    ]),
  )
  upstream.headers('/primary.xml.gz', { 'content-encoding': 'x-gzip' })
  upstream.headers('/list', { 'content-encoding': 'gzip' })
  t.strictSame((await fetcher().get(file(`${upstream.url}/primary.xml.gz`), live)).bytes, packed)
  const known = file(`${upstream.url}/list`, { checksum: checksum('sha256', packed) })
  t.strictSame((await fetcher().get(known, live)).bytes, packed, 'a digest decides')
})

t.test('an empty file is a file', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', '']]))
  const { store } = openStore(t)
  t.match(await fetcher().toBlob(file(`${upstream.url}/a`, { bytes: 0 }), store, live), {
    bytes: 0,
    sha256: sha256Of(''),
  })
})

t.test('a passing failure is tried again, a lasting one is not', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const passing: Fault[] = [
    { kind: 'status', status: 503, times: 2 },
    { kind: 'truncate', after: 5000, times: 1 },
    { kind: 'reset', after: 5000, times: 1 },
  ]
  for (const fault of passing) {
    upstream.fault('/a', fault)
    const { store } = openStore(t)
    let total = 0
    await fetcher().toBlob(file(`${upstream.url}/a`), store, live, (bytes) => (total += bytes))
    t.equal(total, content.length, `${fault.kind}: counted once`)
  }
  upstream.requests.length = 0
  await t.rejects(fetcher().get(file(`${upstream.url}/gone`), live), { code: 'FETCH_STATUS', message: '404 Not Found' })
  t.equal(upstream.count('/gone'), 1)
  upstream.fault('/busy', { kind: 'status', status: 503 })
  await t.rejects(fetcher().get(file(`${upstream.url}/busy`), live), { code: 'FETCH_STATUS' })
  t.equal(upstream.count('/busy'), 3)
})

t.test('other bytes than declared are asked for once more, for the list may just have changed', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const mirror = await startUpstream(t, new Map([['/a', content]]))
  const { store } = openStore(t)
  const wanted = file(`${upstream.url}/a`, { checksum: checksum('sha1') })
  upstream.fault('/a', { kind: 'flip', at: 7, times: 1 })
  t.equal((await fetcher().toBlob(wanted, store, live)).sha256, sha256Of(content))
  t.equal(upstream.count('/a'), 2)
  upstream.fault('/a', { kind: 'flip', at: 7, times: 1 })
  t.equal((await fetcher().get(wanted, live)).sha256, sha256Of(content))
  upstream.requests.length = 0
  upstream.fault('/a', { kind: 'flip', at: 7 })
  await t.rejects(fetcher().get(wanted, live), { code: 'FETCH_DIGEST_MISMATCH' })
  t.equal(upstream.count('/a'), 2, 'never more than once')
  mirror.fault('/a', { kind: 'flip', at: 7 })
  const urls = [`${mirror.url}/a`, `${upstream.url}/a`]
  await t.rejects(fetcher().get({ ...wanted, urls }, live), { code: 'FETCH_DIGEST_MISMATCH' })
  t.strictSame([mirror.count('/a'), upstream.count('/a')], [2, 3], 'of several addresses one')
})

t.test('fails over to the next address, also from one that sends other bytes', async (t) => {
  const bad = await startUpstream(t, new Map([['/a', content]]))
  const good = await startUpstream(t, new Map([['/a', content]]))
  const wanted = file([`${bad.url}/a`, `${good.url}/a`], { checksum: checksum('sha1') })
  const kinds: Fault[] = [
    { kind: 'status', status: 404 },
    { kind: 'flip', at: 0 },
    { kind: 'portal' },
    { kind: 'truncate', after: 10 },
  ]
  for (const fault of kinds) {
    bad.fault('/a', fault)
    const { store, root } = openStore(t)
    const blob = await fetcher().toBlob(wanted, store, live)
    t.equal(blob.url, `${good.url}/a`, fault.kind)
    t.equal(filesIn(root).length, 1)
  }
  t.equal(bad.count('/a'), kinds.length, 'the first address is asked once, the second has it')
})

t.test('when no address gives the file, all are named', async (t) => {
  const one = await startUpstream(t)
  const two = await startUpstream(t)
  two.fault('/a', { kind: 'portal' })
  const wanted = file([`${one.url}/a`, `${two.url}/a`, 'rsync://host/a'])
  const failure = await t.rejects(fetcher().get(wanted, live), { code: 'FETCH_FAILED', message: /none of 3 addresses/ })
  for (const url of wanted.urls) t.match(failure, { message: url })
})

t.test('an aborted download leaves nothing', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'drip', bytes: 1000, everyMs: 2 })
  const { store, root } = openStore(t)
  const stop = new AbortController()
  const reason = new Error('enough')
  const running = fetcher().toBlob(file(`${upstream.url}/a`), store, stop.signal, () => stop.abort(reason))
  await t.rejects(running, reason)
  t.strictSame(filesIn(root), [])
})

t.test("a full disk is not the upstream's fault: no other address is asked", async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const { store, root } = openStore(t)
  const full = new GapferryError('SPACE_SHORT', 'no room')
  const partial = store.partials.open(sha256Of('any'), undefined)
  store.partials.open = () => partial
  partial.write = () => {
    throw full
  }
  await t.rejects(fetcher().toBlob(file([`${upstream.url}/a`, `${upstream.url}/b`]), store, live), full)
  t.equal(upstream.count('/b'), 0)
  t.strictSame(filesIn(root), [])
})

t.test('asks for the size before a byte is spent', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  t.match(await fetcher().head(file(`${upstream.url}/a`), live), { bytes: content.length, headers: { etag: /"/ } })
  await t.rejects(fetcher().head(file(`${upstream.url}/a`, { maxBytes: 10 }), live), { code: 'FETCH_TOO_LONG' })
  await t.rejects(fetcher().head(file(`${upstream.url}/a`, { bytes: 10 }), live), { code: 'FETCH_SIZE_MISMATCH' })
  await t.rejects(fetcher().head(file(`${upstream.url}/gone`), live), { code: 'FETCH_STATUS' })
  upstream.fault('/a', { kind: 'unsized' })
  t.equal((await fetcher().head(file(`${upstream.url}/a`), live)).bytes, undefined)
  t.equal(upstream.count('/a', 'GET'), 0)
})

t.test('works on many at a time, but no more than agreed, and gives results in order', async (t) => {
  const names = Array.from({ length: 20 }, (_, i) => `/${i}`)
  const upstream = await startUpstream(t, new Map(names.map((name) => [name, name])))
  const three = fetcher({ concurrency: 3 })
  let now = 0
  let most = 0
  const got = await three.all(
    names,
    async (name, signal) => {
      most = Math.max(most, ++now)
      const { bytes } = await three.get(file(upstream.url + name), signal)
      now--
      return bytes.toString()
    },
    live,
  )
  t.strictSame(got, names)
  t.equal(most, 3)
})

t.test('the first failure stops the others and is the one that is told', async (t) => {
  const upstream = await startUpstream(t, new Map([['/b', content]]))
  upstream.fault('/hang', { kind: 'hang' })
  const two = fetcher({ concurrency: 2 })
  const paths = ['/hang', '/gone', '/b', '/b', '/b']
  const work = (path: string, signal: AbortSignal) => two.get(file(upstream.url + path), signal)
  await t.rejects(two.all(paths, work, live), { code: 'FETCH_STATUS' })
  t.equal(upstream.count('/b'), 0)
  const reason = new Error('stopped')
  await t.rejects(two.all(paths, work, AbortSignal.abort(reason)), reason)
})
