/** Inventories by network: what an origin takes, what it refuses, and that no deployment ID stands anywhere in the clear. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { isInventoryRequest, keepInventory, openInventories, takeInventories } from '../../server/inventories.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, testConfig, TestReleases } from '../helpers/content.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import { exchange, parseAnswers, type RawAnswer } from '../helpers/raw-http.ts'

const DEPLOYMENT = '987654321012'
const NOW = Date.parse('2026-11-22T12:00:00Z')
const KEY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

function inventoryOf(box = 'pbx1', machine = 'a', created = '2026-11-22T11:00:00Z'): Buffer {
  const freepbx = ['framework 16.0.40', `profile deploymentid ${DEPLOYMENT}`, 'profile installid ABC-1']
  return Buffer.from(inventoryText({ box, machine, created, sections: { freepbx } }))
}

async function setUp(t: Test, { isOff = false } = {}) {
  const dir = t.testdir()
  const store = join(dir, 'store')
  mkdirSync(store)
  const blobs = new BlobStore(store)
  const releases = new TestReleases()
  const lines: string[] = []
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  const now = { ms: NOW }
  const inventories = openInventories(store, 'hq', { key: KEY })
  const taker = takeInventories({ open: () => inventories, clock: () => now.ms, log })
  const config = testConfig([{ group: 'pbx', hosts: ['mirror.lan'] }])
  const mirror = await startMirror({ releases, blobs, log, config, ...(isOff ? {} : { inventories: taker }) })
  t.teardown(() => mirror.close())
  const url = mirror.origins[0]!.url.replace('mirror.lan', '127.0.0.1')
  const post = async (
    body: Buffer | string,
    change: { path?: string; host?: string; method?: string } = {},
  ): Promise<RawAnswer> => {
    const { path = '/gapferry/inventories', host = `mirror.lan:${new URL(url).port}`, method = 'POST' } = change
    const head = `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`
    return parseAnswers(await exchange(url, Buffer.concat([Buffer.from(head), Buffer.from(body)])))[0]!
  }
  return { store, url, lines, now, post, inventories, releases, blobs }
}

t.test('an inventory is kept, before the first release and after it, packed or not', async (t) => {
  const { post, inventories, now, lines, releases, blobs } = await setUp(t)
  const first = await post(inventoryOf())
  t.equal(first.status, 204)
  t.equal(first.headers.get('content-length'), undefined)
  t.same(inventories.read('pbx1'), inventoryOf())
  t.match(inventories.list(), [{ box: 'pbx1', group: 'pbx', address: '127.0.0.1', way: 'network', receivedMs: NOW }])
  releases.release(await makeTree(blobs, { 'a.rpm': { bytes: 'a' } }), 0)
  now.ms += 1000
  const later = inventoryOf('pbx1', 'a', '2026-11-22T11:15:00Z')
  t.equal((await post(gzipSync(later))).status, 204)
  t.same(inventories.read('pbx1'), later)
  t.equal((await post(inventoryOf('PBX2.hq.lan', 'b'), { path: '/gapferry/inventories?box=Front-Desk' })).status, 204)
  t.same(
    inventories.list().map(({ box }) => box),
    ['front-desk', 'pbx1'],
  )
  const large = inventoryText({
    box: 'large',
    sections: { readiness: ['x y'.padEnd(60_000, 'z')].concat(manyFacts(30)) },
  })
  t.ok(large.length > 1024 * 1024)
  t.equal((await post(large)).status, 204, 'more than a form may have')
  t.equal(lines.filter((line) => line.includes('an inventory came')).length, 4)
})

const manyFacts = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `fact-${i} ${'z'.repeat(60_000)}`)

t.test('nothing holds a deployment ID in the clear: not the store, not the log, not an answer', async (t) => {
  const { post, store, lines } = await setUp(t)
  const said: string[] = []
  const sound = inventoryOf()
  const bad = Buffer.from(sound.toString().replace('profile deploymentid', 'profile  deploymentid'))
  for (const body of [sound, gzipSync(sound), bad, sound.subarray(0, -100), inventoryOf('pbx1', DEPLOYMENT)]) {
    const { body: text, headers } = await post(body)
    said.push(text, ...headers.values())
  }
  t.notMatch(said.join('\n'), DEPLOYMENT)
  t.match(said.join('\n'), /INVENTORY_INVALID/)
  t.notMatch(lines.join(''), DEPLOYMENT)
  const files = readdirSync(store, { recursive: true, encoding: 'utf8' }).map((name) => join(store, name))
  const plain = files.filter((file) => statSync(file).isFile()).map((file) => readFileSync(file))
  t.ok(plain.length > 0)
  for (const bytes of plain) t.notOk(bytes.includes(DEPLOYMENT))
})

t.test('what is no inventory is refused, and nothing of it stays', async (t) => {
  const { post, inventories, now, url } = await setUp(t)
  const sound = inventoryOf()
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024, 'x'))
  const cases: [what: string, status: number, body: Buffer, change?: Parameters<typeof post>[1]][] = [
    ['nothing', 400, Buffer.alloc(0)],
    ['a form', 400, Buffer.from('installid=1')],
    [
      'a wrong last line',
      400,
      Buffer.from(sound.toString().replace(/[0-9a-f]\n$/, (end) => `${end[0] === '0' ? 1 : 0}\n`)),
    ],
    ['cut', 400, sound.subarray(0, sound.length - 1)],
    ['more behind it', 400, Buffer.concat([sound, sound])],
    ['a bomb', 400, bomb],
    ['half of what is packed', 400, gzipSync(sound).subarray(0, 50)],
    ['packed twice', 400, gzipSync(gzipSync(sound))],
    ['too long', 413, Buffer.alloc(4 * 1024 * 1024 + 1, 'x')],
    ['no name in the query', 400, sound, { path: '/gapferry/inventories?box=../x' }],
    ['another query', 400, sound, { path: '/gapferry/inventories?a=b' }],
    ['another path', 404, sound, { path: '/gapferry/inventories/' }],
    ['a foreign name of the mirror', 421, sound, { host: 'other.lan' }],
    ['another method', 404, sound, { method: 'GET' }],
  ]
  for (const [what, status, body, change] of cases) {
    now.ms += 60_000
    const before = process.memoryUsage().arrayBuffers
    t.equal((await post(body, change)).status, status === 404 && change?.method !== undefined ? 503 : status, what)
    t.ok(process.memoryUsage().arrayBuffers - before < 48 * 1024 * 1024, `${what}: memory stays`)
  }
  t.same(inventories.list(), [])
  const chunked = `POST /gapferry/inventories HTTP/1.1\r\nHost: ${new URL(url).host}\r\nTransfer-Encoding: chunked\r\n\r\n`
  const chunk = `100000\r\n${'x'.repeat(0x100000)}\r\n`
  const [answer] = parseAnswers(await exchange(url, chunked + chunk.repeat(5)))
  t.equal(answer!.status, 413, 'without a length, too')
})

t.test('another box’s name is refused, and so is a flood', async (t) => {
  const { post, inventories, now, lines } = await setUp(t)
  keepInventory(inventories, { box: 'pbx1', bytes: inventoryOf(), address: '10.0.0.1', enrolled: true, nowMs: NOW })
  const rival = await post(inventoryOf('pbx1', 'b'))
  t.equal(rival.status, 409)
  t.match(rival.body, /^BOX_CONFLICT: another machine has this name here/)
  t.equal((await post(inventoryOf('pbx1', 'a'))).status, 409, 'whoever has a certificate uses it')
  t.equal(inventories.list()[0]!.address, '10.0.0.1')
  const answers = []
  for (let i = 0; i < 25; i++) answers.push((await post(inventoryOf(`box${i}`, String(i)))).status)
  t.same(answers, [...Array<number>(18).fill(204), ...Array<number>(7).fill(429)])
  now.ms += 60_000
  t.equal((await post(inventoryOf('box24', '24'))).status, 204, 'a minute later')
  t.equal(lines.filter((line) => line.includes('was not kept')).length, 2, 'the log says each once')
})

t.test('switched off, the path is like any other', async (t) => {
  const { post, releases, blobs } = await setUp(t, { isOff: true })
  releases.release(await makeTree(blobs, { 'a.rpm': { bytes: 'a' } }), 0)
  t.equal((await post(inventoryOf())).status, 404)
  t.equal((await post(Buffer.alloc(2 * 1024 * 1024))).status, 413)
})

t.test('a mirror that cannot keep them says so, and serves on', async (t) => {
  const { post, store, lines, releases, blobs, url } = await setUp(t)
  releases.release(await makeTree(blobs, { 'a.rpm': { bytes: 'a' } }), 0)
  writeFileSync(join(store, 'inventories'), 'in the way')
  t.equal((await post(inventoryOf())).status, 500)
  t.match(lines.join(''), /"msg":"a request failed"/)
  t.equal((await fetch(`${url}/a.rpm`)).status, 200)
  t.ok(isInventoryRequest('POST', '/gapferry/inventories?box=a'))
  t.notOk(isInventoryRequest('POST', '/gapferry/inventories2'))
})
