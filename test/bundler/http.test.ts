import { createServer, type AddressInfo, type Socket } from 'node:net'
import t from 'tap'
import { Fetcher, makeDispatcher, type FetcherOptions } from '../../bundler/fetch.ts'
import { startUpstream } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const live = new AbortController().signal
const body = Buffer.from('0123456789'.repeat(1000))

const fetcher = (options: Partial<FetcherOptions> = {}): Fetcher =>
  new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retryDelayMs: 0, ...options })
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
  const upstream = await startUpstream(t, new Map([['/drip', body]]))
  upstream.fault('/hang', { kind: 'hang' })
  upstream.fault('/drip', { kind: 'drip', bytes: 10, everyMs: 5 })
  upstream.fault('/busy', { kind: 'status', status: 503 })
  for (const path of ['/hang', '/drip', '/busy']) {
    const stop = new AbortController()
    const reason = new Error('the person pressed Ctrl-C')
    const running = fetcher({ retryDelayMs: 3_600_000 }).get(file(`${upstream.url}${path}`), stop.signal)
    setTimeout(() => stop.abort(reason), 30)
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
  for (const http of ['socks5://host:1', 'me:secret@:x']) {
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
