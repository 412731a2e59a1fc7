import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer as createSecureServer } from 'node:https'
import { createServer, request as forward, type IncomingMessage } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { proxiesOf } from '../../bundler/link-settings.ts'
import { isDirect, type Proxies } from '../../bundler/ways.ts'
import { mustRun } from '../helpers/process.ts'
import { startSocksProxy, type SocksManners } from '../helpers/socks-proxy.ts'
import { startUpstream } from '../helpers/upstream.ts'

const live = new AbortController().signal

/** Fetches `url` through `proxy`; nothing is tried twice. */
async function read(t: Test, url: string, proxy: Proxies, connectTimeoutMs?: number): Promise<string> {
  const way = makeDispatcher({ proxy, ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs }) })
  t.teardown(() => way.destroy())
  const fetcher = new Fetcher({ dispatcher: way, userAgent: 'gapferry/0.0.0', retries: 0 })
  return (await fetcher.get({ urls: [url], maxBytes: 1e6, what: 'list' }, live)).bytes.toString()
}

/** An HTTP proxy that wants `user` (`NAME:PASSWORD`), forwards http and tunnels the rest. */
async function startHttpProxy(t: Test, user?: string): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = []
  const isWelcome = ({ headers }: IncomingMessage): boolean =>
    user === undefined || headers['proxy-authorization'] === `Basic ${Buffer.from(user).toString('base64')}`
  const server = createServer((request, response): void => {
    asked.push(`${request.method} ${request.url}`)
    if (!isWelcome(request)) return void response.writeHead(407).end()
    forward(request.url!, { headers: request.headers }, (answer) => answer.pipe(response)).end()
  })
  server.on('connect', (request, socket): void => {
    asked.push(`CONNECT ${request.url}`)
    socket.on('error', () => {})
    if (!isWelcome(request)) return void socket.end('HTTP/1.1 407 No\r\n\r\n')
    if (request.url!.startsWith('gone.')) return void socket.end('HTTP/1.1 502 No\r\n\r\n')
    const upstream = connect(Number(request.url!.split(':')[1]), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.pipe(upstream).pipe(socket)
    })
    upstream.on('error', () => socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked }
}

/** A server whose certificate nobody knows: that it is refused shows that TLS was spoken with it. */
async function startSecure(t: Test): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'gapferry-ways-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
  await mustRun('openssl', [
    'req',
    '-x509',
    ...ec,
    '-nodes',
    '-keyout',
    key,
    '-out',
    cert,
    '-subj',
    '/CN=vendor',
    '-days',
    '2',
  ])
  const server = createSecureServer({ key: readFileSync(key), cert: readFileSync(cert) })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

t.test('through a SOCKS5 proxy, which resolves names; addresses go as such', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', 'list']]))
  const { port } = new URL(upstream.url)
  for (const isSlow of [false, true]) {
    const proxy = await startSocksProxy(t, { isSlow })
    t.equal(await read(t, `http://vendor.invalid:${port}/a`, { all: proxy.url }), 'list')
    t.equal(await read(t, `http://127.0.0.1:${port}/a`, { http: proxy.url.replace('socks5', 'socks5h') }), 'list')
    t.strictSame(proxy.asked, [`name vendor.invalid:${port}`, `v4 127.0.0.1:${port}`])
  }
})

t.test('TLS is spoken with the upstream, through either kind of proxy', async (t) => {
  const port = await startSecure(t)
  const [socks, http] = [await startSocksProxy(t), await startHttpProxy(t)]
  for (const proxy of [socks, http]) {
    const failing = read(t, `https://vendor.invalid:${port}/a`, { all: proxy.url })
    await t.rejects(failing, { code: 'FETCH_FAILED', message: /self-signed certificate/ }, proxy.url)
  }
  t.strictSame(socks.asked, [`name vendor.invalid:${port}`])
  t.strictSame(http.asked, [`CONNECT vendor.invalid:${port}`])
})

t.test('with user and password, which are in no message', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', 'list']]))
  const [socks, http] = [await startSocksProxy(t, { user: 'me:p@ss' }), await startHttpProxy(t, 'me:p@ss')]
  for (const { url, asked } of [socks, http]) {
    t.equal(await read(t, `${upstream.url}/a`, { all: url.replace('//', '//me:p%40ss@') }), 'list')
    t.equal(asked.length, 1)
    for (const given of ['', 'me:hush-hush@']) {
      for (const address of [`${upstream.url}/a`, 'https://vendor.invalid/a']) {
        const failing = read(t, address, { all: url.replace('//', `//${given}`) })
        const failure = await t.rejects(failing, {
          code: 'FETCH_FAILED',
          message: /proxy wants a user and password/,
          hint: /link.proxy/,
        })
        t.notMatch(inspect(failure, { depth: 9 }), /hush|p@ss|bWU6/)
      }
    }
  }
})

t.test('what a SOCKS5 proxy answers is named', async (t) => {
  const cases: [SocksManners, RegExp][] = [
    [{ reply: 1 }, /the proxy got no connection/],
    [{ reply: 2 }, /the proxy refused/],
    [{ reply: 3 }, /no way to that network/],
    [{ reply: 4 }, /no way to that host/],
    [{ reply: 5 }, /connection was refused/],
    [{ reply: 7 }, /the proxy refused/],
    [{ reply: 77 }, /the proxy got no connection/],
    [{ garbage: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n') }, /no SOCKS5 proxy/],
    [{ answers: 0 }, /no connection to the proxy/],
    [{ answers: 1 }, /no connection to the proxy/],
  ]
  for (const [manners, message] of cases) {
    const proxy = await startSocksProxy(t, manners)
    await t.rejects(read(t, 'http://vendor.invalid/a', { all: proxy.url }), { code: 'FETCH_FAILED', message })
  }
  const silent = await startSocksProxy(t, { garbage: Buffer.alloc(0) })
  await t.rejects(read(t, 'http://vendor.invalid/a', { all: silent.url }, 50), { code: 'FETCH_TIMEOUT' })
  const long = `http://${'a.'.repeat(128)}invalid/a`
  const proxy = await startSocksProxy(t)
  await t.rejects(read(t, long, { all: proxy.url }), { message: /the proxy refused/ })
})

t.test('a proxy that is not there is not taken for an upstream that is not there', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', 'list']]))
  await upstream.close()
  const { port } = new URL(upstream.url)
  for (const scheme of ['http', 'socks5']) {
    for (const address of ['http://vendor.invalid/a', 'https://vendor.invalid/a']) {
      const failing = read(t, address, { all: `${scheme}://127.0.0.1:${port}` })
      await t.rejects(failing, { code: 'FETCH_FAILED', message: /no connection to the proxy/, hint: /link.proxy/ })
    }
  }
  const proxy = await startHttpProxy(t)
  await t.rejects(read(t, 'https://gone.invalid/a', { all: proxy.url }), { message: /the proxy got no connection/ })
})

t.test('which hosts are asked directly', (t) => {
  const cases: [string, string, boolean][] = [
    ['http://vendor.example/', '', false],
    ['http://vendor.example/', '*', true],
    ['http://vendor.example/', 'vendor.example', true],
    ['http://VENDOR.example./', 'vendor.EXAMPLE', true],
    ['http://a.vendor.example/', 'other, vendor.example', true],
    ['http://a.vendor.example/', '.vendor.example', true],
    ['http://a.vendor.example/', '*.vendor.example', true],
    ['http://avendor.example/', 'vendor.example', false],
    ['http://vendor.example/', 'vendor.example:80', true],
    ['https://vendor.example/', 'vendor.example:80', false],
    ['https://vendor.example/', 'vendor.example:443', true],
    ['http://vendor.example:8080/', 'vendor.example:80 vendor.example:8080', true],
    ['http://[::1]:8080/', '::1', true],
    ['http://[::1]:8080/', '[::1]', true],
    ['http://[::1]:8080/', '[::1]:8080', true],
    ['http://[::1]:8080/', '[::1]:80', false],
    ['http://127.0.0.1/', '127.0.0.1,localhost', true],
  ]
  for (const [url, no, expected] of cases) t.equal(isDirect(new URL(url), no), expected, `${url} ${no}`)
  t.end()
})

t.test('the settings come before the environment, small letters before large ones', (t) => {
  const environment = {
    http_proxy: 'http://a',
    HTTP_PROXY: 'http://b',
    HTTPS_PROXY: 'http://c',
    all_proxy: 'socks5://d',
    no_proxy: 'lan',
  }
  t.strictSame(proxiesOf({}, environment), { http: 'http://a', https: 'http://c', all: 'socks5://d', no: 'lan' })
  t.strictSame(proxiesOf({ proxy: 'http://e' }, environment), { all: 'http://e', no: 'lan' })
  t.strictSame(proxiesOf({ proxy: 'http://e', noProxy: 'x' }, environment), { all: 'http://e', no: 'x' })
  t.strictSame(proxiesOf({ proxy: 'none' }, environment), {})
  t.end()
})

t.test('each kind of address takes its own proxy, and https that of http where it has none', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', 'list']]))
  const [http, https] = [await startHttpProxy(t), await startHttpProxy(t)]
  await read(t, `${upstream.url}/a`, { http: http.url, https: https.url })
  await t.rejects(read(t, 'https://gone.invalid/a', { http: http.url, https: https.url }))
  t.strictSame([http.asked, https.asked], [[`GET ${upstream.url}/a`], ['CONNECT gone.invalid:443']])
  await t.rejects(read(t, 'https://gone.invalid/a', { http: http.url, all: https.url }))
  t.equal(http.asked.length, 2)
  t.equal(await read(t, `${upstream.url}/a`, { https: https.url }), 'list')
  t.equal(http.asked.length + https.asked.length, 3, 'http without a proxy of its own goes directly')
})
