import { createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { inspect } from 'node:util'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import type { Dispatcher } from 'undici'
import { Fetcher, makeDispatcher, type FetcherOptions, type RemoteFile } from '../../bundler/fetch.ts'
import { sha256Of } from '../../manifests/digest.ts'
import type { GapferryError } from '../../manifests/errors.ts'
import { startUpstream, type Fault } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const live = new AbortController().signal
const body = Buffer.from('0123456789'.repeat(1000))

const fetcher = (options: Partial<FetcherOptions> = {}): Fetcher =>
  new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retries: 2, wait: async () => {}, ...options })
const file = (...urls: string[]) => ({ urls, maxBytes: 1_000_000, what: 'the file' })

t.test('asks by name, for the bytes as they are', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  const { bytes, headers } = await fetcher().get(file(`${upstream.url}/a?release=7&x=%20`), live)
  t.strictSame(bytes, body)
  t.equal(headers['last-modified'], 'Sun, 01 Nov 2026 10:00:00 GMT')
  t.match(upstream.requests, [{ method: 'GET', path: '/a', query: 'release=7&x=%20' }])
  t.match(upstream.requests[0]!.headers, { 'user-agent': 'gapferry/0.0.0', 'accept-encoding': 'identity' })
})

t.test('follows five redirects and no sixth, relative ones too', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  upstream.fault('/a', { kind: 'chain', length: 5 })
  const { bytes, url } = await fetcher().get(file(`${upstream.url}/a`), live)
  t.strictSame(bytes, body)
  t.equal(url, `${upstream.url}/a`, 'the address that was asked for, so that the caller can go on from it')
  upstream.fault('/a', { kind: 'chain', length: 6 })
  await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), { code: 'FETCH_FAILED', message: /5 redirects/ })
})

t.test('a redirect loop ends', async (t) => {
  const upstream = await startUpstream(t)
  upstream.fault('/a', { kind: 'redirect', to: '/a', status: 307 })
  await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), { code: 'FETCH_FAILED' })
  t.equal(upstream.count('/a'), 6)
})

t.test('a redirect leads to http or https only', async (t) => {
  const upstream = await startUpstream(t)
  for (const to of ['file:///etc/passwd', 'ftp://host/a', 'data:text/plain,x', '']) {
    upstream.fault('/a', { kind: 'redirect', to })
    await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), { code: 'FETCH_FAILED' }, to)
  }
})

t.test('a failure behind a redirect names both places', async (t) => {
  const upstream = await startUpstream(t)
  const other = await startUpstream(t)
  upstream.fault('/a', { kind: 'redirect', to: `${other.url}/gone` })
  const failure = await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), { code: 'FETCH_STATUS' })
  t.match(failure, { message: `${upstream.url}/a` })
  t.match(failure, { message: `${other.url}/gone` })
})

t.test('user and password go to their own server only, and into no message', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  const other = await startUpstream(t, new Map([['/b', body]]))
  const address = `${upstream.url.replace('//', '//me:p%40ss@')}/a`
  const { source } = await fetcher().get(file(address), live)
  t.equal(source, `${upstream.url}/a`)
  t.equal(upstream.requests[0]!.headers.authorization, `Basic ${Buffer.from('me:p@ss').toString('base64')}`)
  await fetcher().get(file(address.replace('p%40ss', '%zz')), live)
  t.equal(upstream.requests[1]!.headers.authorization, `Basic ${Buffer.from('me:%zz').toString('base64')}`)
  upstream.fault('/a', { kind: 'redirect', to: `${other.url}/b` })
  await fetcher().get(file(address), live)
  t.equal(other.requests[0]!.headers.authorization, undefined)
  upstream.fault('/a', { kind: 'status', status: 403 })
  const failure = (await t.rejects(fetcher().get(file(address), live), { code: 'FETCH_STATUS' })) as unknown as Error
  t.notMatch(failure.message, /p%40ss|me:/)
})

t.test('a form is posted, and posted again where a redirect leads, as FreePBX does it', async (t) => {
  const upstream = await startUpstream(t, new Map([['/list', body]]))
  const form = 'deploymentid=4711-0815&sv=2'
  for (const status of [301, 302, 307, 308]) {
    upstream.requests.length = 0
    upstream.fault('/a', { kind: 'redirect', to: '/list?x=1', status })
    t.strictSame((await fetcher().get({ ...file(`${upstream.url}/a`), form }, live)).bytes, body)
    const both = ['/a', '/list'].map((path) => ({ method: 'POST', path, body: form }))
    t.match(upstream.requests, both, `${status}`)
    t.equal(upstream.requests[1]!.headers['content-type'], 'application/x-www-form-urlencoded')
  }
  upstream.requests.length = 0
  upstream.fault('/a', { kind: 'redirect', to: '/list', status: 303 })
  await fetcher().get({ ...file(`${upstream.url}/a`), form }, live)
  const [, second] = upstream.requests
  t.match(second, { method: 'GET', path: '/list', body: '' }, '303 means: look there')
  t.equal(second!.headers['content-type'], undefined)
  upstream.requests.length = 0
  await fetcher().head({ ...file(`${upstream.url}/list`), form }, live)
  t.match(upstream.requests, [{ method: 'HEAD', body: '' }])
})

t.test('nothing of a form gets into a message, whatever the server makes of it', async (t) => {
  const upstream = await startUpstream(t)
  const other = await startUpstream(t)
  other.fault('/told', { kind: 'status', status: 403, body: '<title>4711-08</title>' })
  const form = 'deploymentid=4711-0815&pbx=K%C3%B6ln+Mitte&sv=2'
  const secret = /4711|0815|K%C3%B6ln|Köln|Mitte/
  const faults: [Fault, string][] = [
    [{ kind: 'echo' }, 'FETCH_CAPTIVE'],
    [{ kind: 'echo', status: 403 }, 'FETCH_STATUS'],
    [{ kind: 'echo', status: 511 }, 'FETCH_CAPTIVE'],
    [{ kind: 'redirect', to: `${other.url}/4711-0815?id=4711-0815` }, 'FETCH_STATUS'],
    [{ kind: 'redirect', to: `${other.url}/told`, status: 303 }, 'FETCH_STATUS'],
    [{ kind: 'redirect', to: 'x-4711-0815:K%C3%B6ln' }, 'FETCH_FAILED'],
    [{ kind: 'truncate', after: 0 }, 'FETCH_SIZE_MISMATCH'],
    [{ kind: 'hang' }, 'FETCH_TIMEOUT'],
  ]
  for (const [fault, code] of faults) {
    upstream.fault('/a', fault)
    const quick = fetcher({ headersTimeoutMs: code === 'FETCH_TIMEOUT' ? 30 : 30_000 })
    const asked = quick.get({ ...file(`${upstream.url}/a`), form, bytes: 20 }, live)
    const failure = (await t.rejects(asked, { code })) as unknown as GapferryError
    t.match(failure.message, `${upstream.url}/a`)
    t.notMatch(inspect(failure, { depth: 9 }), secret, fault.kind)
  }
})

t.test('a form does not go from https to http', async (t) => {
  const asked: string[] = []
  const way = {
    dispatch({ origin, path }: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler) {
      asked.push(`${origin}${path}`)
      const controller = { abort() {} } as unknown as Dispatcher.DispatchController
      handler.onRequestStart!(controller, {})
      handler.onResponseStart!(controller, 302, { location: 'http://vendor.invalid/b' }, '')
      handler.onResponseEnd!(controller, {})
      return true
    },
  } as unknown as Dispatcher
  const failing = fetcher({ dispatcher: way }).get({ ...file('https://vendor.invalid/a'), form: 'a=secret' }, live)
  await t.rejects(failing, { code: 'FETCH_FAILED', message: /redirect to https/ })
  t.strictSame(asked, ['https://vendor.invalid/a'])
})

t.test('the coding gzip is asked for where it is wanted, and undone within the limit', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  const wanted: RemoteFile = { ...file(`${upstream.url}/a`), acceptsGzip: true, bytes: body.length }
  const checksum = { algorithm: 'sha256', hex: sha256Of(body) } as const
  t.strictSame((await fetcher().get(wanted, live)).bytes, body, 'a server may send it as it is')
  upstream.fault('/a', { kind: 'gzip' })
  const got = await fetcher().get({ ...wanted, checksum }, live)
  t.strictSame(got.bytes, body)
  t.equal(got.sha256, checksum.hex)
  for (const { headers } of upstream.requests) t.equal(headers['accept-encoding'], 'gzip')
  const other = { ...checksum, hex: sha256Of('other') }
  await t.rejects(fetcher().get({ ...wanted, checksum: other }, live), { code: 'FETCH_DIGEST_MISMATCH' })
  await t.rejects(fetcher().get({ ...wanted, bytes: 10_001 }, live), { code: 'FETCH_SIZE_MISMATCH' })
  upstream.headers('/a', { 'content-encoding': 'br' })
  upstream.fault('/a')
  await t.rejects(fetcher().get(wanted, live), { code: 'FETCH_FAILED', message: /coding br/ })
})

t.test('a gzip bomb, a broken coding and a packed login page are refused', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  const wanted: RemoteFile = { ...file(`${upstream.url}/a`), acceptsGzip: true }
  const cases: [Buffer, string][] = [
    [gzipSync(Buffer.alloc(200_000_000)), 'FETCH_TOO_LONG'],
    [Buffer.alloc(1_000_001), 'FETCH_TOO_LONG'],
    [gzipSync(body).subarray(0, -9), 'FETCH_FAILED'],
    [Buffer.from('no gzip'), 'FETCH_FAILED'],
    [gzipSync('<html><title>Welcome</title></html>'), 'FETCH_CAPTIVE'],
  ]
  for (const [coded, code] of cases) {
    upstream.fault('/a', { kind: 'gzip', coded })
    await t.rejects(fetcher().get(wanted, live), { code })
  }
})

t.test('addresses other than http and https are refused before anything is sent', async (t) => {
  for (const url of ['file:///etc/passwd', 'ftp://host/a', 'rsync://host/a', 'no address', 'http://']) {
    await t.rejects(fetcher().get(file(url), live), { code: 'FETCH_FAILED' }, url)
  }
  await t.rejects(fetcher().get(file(), live), { code: 'FETCH_FAILED' }, 'no address at all')
})

t.test('a server that takes the request and says nothing is given up', async (t) => {
  const upstream = await startUpstream(t)
  upstream.fault('/a', { kind: 'hang' })
  const quick = fetcher({ headersTimeoutMs: 30 })
  await t.rejects(quick.get(file(`${upstream.url}/a`), live), { code: 'FETCH_TIMEOUT', message: /within 30 ms/ })
  t.equal(upstream.count('/a'), 3, 'it may have been a bad moment: three tries')
})

t.test('early hints do not hold the clock', async (t) => {
  const upstream = await startUpstream(t)
  upstream.fault('/a', { kind: 'informs' })
  await t.rejects(fetcher({ headersTimeoutMs: 60 }).get(file(`${upstream.url}/a`), live), { code: 'FETCH_TIMEOUT' })
})

t.test('a body that stops is given up', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  upstream.fault('/a', { kind: 'drip', bytes: 100, everyMs: 3_600_000 })
  const quick = fetcher({ bodyTimeoutMs: 30 })
  await t.rejects(quick.get(file(`${upstream.url}/a`), live), {
    code: 'FETCH_TIMEOUT',
    message: /after 0 of 10000 bytes/,
  })
})

t.test('a body below the minimum rate is given up, one above it is taken', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', body]]))
  upstream.fault('/a', { kind: 'drip', bytes: 10, everyMs: 5 })
  const strict = fetcher({ rateWindowMs: 60, minBytesPerSecond: 20_000 })
  await t.rejects(strict.get(file(`${upstream.url}/a`), live), {
    code: 'FETCH_TIMEOUT',
    message: /20000 bytes per second/,
  })
  upstream.fault('/a', { kind: 'drip', bytes: 500, everyMs: 5 })
  t.strictSame(
    (await fetcher({ rateWindowMs: 60, minBytesPerSecond: 100 }).get(file(`${upstream.url}/a`), live)).bytes,
    body,
  )
})

t.test('a refused connection is not tried again and says what to do', async (t) => {
  const upstream = await startUpstream(t)
  await upstream.close()
  await t.rejects(fetcher().get(file(`${upstream.url}/a`), live), {
    code: 'FETCH_FAILED',
    message: /refused/,
    hint: /gapferry plan/,
  })
})

t.test('the signal ends a request in any state, with its own reason', async (t) => {
  const hold = (_: number, signal: AbortSignal): Promise<void> =>
    setTimeout(3_600_000, undefined, { signal }).catch(() => {})
  const upstream = await startUpstream(t, new Map([['/drip', body]]))
  upstream.fault('/hang', { kind: 'hang' })
  upstream.fault('/drip', { kind: 'drip', bytes: 10, everyMs: 5 })
  upstream.fault('/busy', { kind: 'status', status: 503 })
  for (const path of ['/hang', '/drip', '/busy']) {
    const stop = new AbortController()
    const reason = new Error('the person pressed Ctrl-C')
    const running = fetcher({ wait: hold }).get(file(`${upstream.url}${path}`), stop.signal)
    globalThis.setTimeout(() => stop.abort(reason), 30)
    await t.rejects(running, reason, path)
  }
  const reason = new Error('before it began')
  const seen = upstream.requests.length
  await t.rejects(fetcher().get(file(`${upstream.url}/hang`), AbortSignal.abort(reason)), reason)
  t.equal(upstream.requests.length, seen)
})

t.test('goes through the proxy that it is given, around it where told, and never by the environment', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', 'direct']]))
  const proxy = await startUpstream(t, new Map([[`${upstream.url}/a`, 'by proxy']]))
  const read = async (options: Parameters<typeof makeDispatcher>[0]): Promise<string> => {
    const way = makeDispatcher(options)
    t.teardown(() => way.destroy())
    return (await fetcher({ dispatcher: way }).get(file(`${upstream.url}/a`), live)).bytes.toString()
  }
  t.equal(await read({ proxy: { http: proxy.url } }), 'by proxy')
  t.equal(await read({ proxy: { http: proxy.url, no: 'localhost,127.0.0.1' } }), 'direct')
  t.equal(await read({ proxy: { http: proxy.url.replace('http://', '') } }), 'by proxy', 'as curl reads it')
  for (const http of ['socks4://host:1', 'me:secret@:x']) {
    const failure = t.throws(() => makeDispatcher({ proxy: { http } }), { code: 'USAGE_INVALID' }) as Error
    t.notMatch(failure.message, 'secret')
  }
  process.env['http_proxy'] = proxy.url
  t.teardown(() => delete process.env['http_proxy'])
  t.equal(await read({}), 'direct')
  t.equal(await read({ proxy: { https: proxy.url } }), 'direct')
})

t.test('a proxy that takes the connection and says nothing is given up', async (t) => {
  const sockets: Socket[] = []
  const proxy = createServer((socket) => void sockets.push(socket))
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    proxy.close()
  })
  const { port } = proxy.address() as AddressInfo
  const way = makeDispatcher({ proxy: { https: `http://127.0.0.1:${port}` }, connectTimeoutMs: 50 })
  t.teardown(() => way.destroy())
  const failing = fetcher({ dispatcher: way }).get(file('https://upstream.invalid/a'), live)
  await t.rejects(failing, { code: 'FETCH_TIMEOUT', message: /upstream\.invalid/ })
})
