import t, { type Test } from 'tap'
import { request } from 'undici'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, testConfig, TestReleases } from '../helpers/content.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const CREATED_MS = 1_700_000_000_000

async function setUp(t: Test) {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  const clock = { nowMs: CREATED_MS }
  const mirror = await startMirror({
    releases,
    blobs,
    config: testConfig([{ group: 'b' }, { group: 'a' }]),
    clock: () => clock.nowMs,
    status: (number) => ({
      site: 'hq',
      createdAtMs: number === null ? null : CREATED_MS + number * 1000,
      store: { path: '/srv/store', blobs: 3, bytes: 4000 },
    }),
  })
  t.teardown(() => mirror.close())
  const get = async (path: string) => {
    const { statusCode, headers, body } = await request(`${mirror.adminUrl}${path}`)
    return { status: statusCode, type: headers['content-type'], text: await body.text() }
  }
  const release = async (group: string, number: number) => {
    releases.release(await makeTree(blobs, { x: { bytes: 'x' } }, { group, number }), clock.nowMs)
  }
  return { mirror, get, release, clock }
}

t.test('/healthz is 503 until something is released and served', async (t) => {
  const { get, release } = await setUp(t)
  t.match(await get('/healthz'), { status: 503, text: '{"status":"nothing is released yet"}' })
  await release('elsewhere', 1)
  t.match(await get('/healthz'), { status: 503 }, 'a group without an origin is not served')
  await release('a', 1)
  t.match(await get('/healthz'), { status: 200, text: '{"status":"serving"}' })
})

t.test('status before and after a release', async (t) => {
  const { get, release, mirror, clock } = await setUp(t)
  const [b, a] = mirror.origins.map(({ url }) => url)
  const store = { path: '/srv/store', blobs: 3, bytes: 4000 }
  t.same(JSON.parse((await get('/api/v1/status')).text), {
    alarms: [],
    site: 'hq',
    bundle: null,
    origins: [
      { group: 'b', url: b, yum: [] },
      { group: 'a', url: a, yum: [] },
    ],
    store,
    ageSeconds: null,
  })
  await release('a', 7)
  await release('b', 5)
  clock.nowMs = CREATED_MS + 7000 + 90_500
  const { type, text } = await get('/api/v1/status')
  t.match(type, 'application/json')
  t.same(JSON.parse(text), {
    alarms: [],
    site: 'hq',
    bundle: 7,
    origins: [
      { group: 'b', url: b, yum: ['base'] },
      { group: 'a', url: a, yum: ['base'] },
    ],
    store,
    ageSeconds: 90,
  })
  clock.nowMs = CREATED_MS - 1_000_000
  t.equal(
    JSON.parse((await get('/api/v1/status')).text).ageSeconds,
    0,
    'a clock behind the laptop makes no negative age',
  )
})

t.test('it answers to its own names only', async (t) => {
  const { mirror } = await setUp(t)
  const status = async (host: string) =>
    parseAnswers(await exchange(mirror.adminUrl, `GET /healthz HTTP/1.1\r\n${host}\r\n\r\n`))[0]?.status
  const { port } = new URL(mirror.adminUrl)
  t.equal(await status(`Host: localhost:${port}`), 503)
  t.equal(await status('Host: 127.0.0.1'), 503)
  t.equal(await status('Host: rebound.evil.example'), 421)
  t.equal(await status('Host: localhost\r\nHost: localhost'), 400)
  t.equal(await status('Host: localhost:1'), 421)
})

t.test('an absolute target must be one of its names, too', async (t) => {
  const { mirror } = await setUp(t)
  const { host } = new URL(mirror.adminUrl)
  const ask = async (target: string, name: string) =>
    parseAnswers(await exchange(mirror.adminUrl, `GET ${target} HTTP/1.1\r\nHost: ${name}\r\n\r\n`))[0]!
  t.match(await ask('http://evil/api/v1/status', host), { status: 421, body: /^HOST_UNKNOWN/ })
  t.match(await ask('http://evil/api/v1/status', 'evil'), { status: 421 })
  t.match(await ask(`http://${host}/api/v1/status`, host), { status: 200, body: /"site":"hq"/ })
  t.match(await ask('*', host), { status: 400, body: /^PATH_INVALID/ })
})

t.test('the Host is judged before the path, and a bad path is refused like the rest', async (t) => {
  const { mirror } = await setUp(t)
  const { host } = new URL(mirror.adminUrl)
  for (const [name, want] of [
    ['evil', { status: 421, body: /^HOST_UNKNOWN/ }],
    [host, { status: 400, body: '400\n' }],
  ] as const) {
    const answer = parseAnswers(await exchange(mirror.adminUrl, `GET /%ff HTTP/1.1\r\nHost: ${name}\r\n\r\n`))[0]!
    t.match(answer, want)
    t.equal(answer.headers.get('content-type'), 'text/plain; charset=utf-8')
  }
})

t.test('everything else is a short refusal', async (t) => {
  const { mirror } = await setUp(t)
  const url = mirror.adminUrl
  const ask = async (bytes: string) => parseAnswers(await exchange(url, bytes))[0]!
  const host = `Host: ${new URL(url).host}\r\n`
  for (const target of ['/', '/healthz/', '/api/v1', '/api/v1/status/../x', '/%zz']) {
    const answer = await ask(`GET ${target} HTTP/1.1\r\n${host}\r\n`)
    t.ok([400, 404].includes(answer.status), `${target}: ${answer.status}`)
    t.notMatch(answer.body, /\.ts|node_modules/)
  }
  const typed = `POST /healthz HTTP/1.1\r\n${host}Content-Type: ;;;\r\nContent-Length: 2\r\n\r\n{}`
  t.ok([404, 405, 415].includes((await ask(typed)).status))
  t.equal((await ask(`GET /healthz HTTP/1.1\r\n${host}X: ${'x'.repeat(9000)}\r\n\r\n`)).status, 431)
})
