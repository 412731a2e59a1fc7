import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Client, request } from 'undici'
import { sha256Of } from '../../manifests/digest.ts'
import { buildMirror, type Mirror } from '../../server/app.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Catalog } from '../../storage/catalog.ts'
import { Releases } from '../../storage/releases.ts'
import { makeTree, silent, startMirror, testConfig, TestReleases } from '../helpers/content.ts'
import { adopt, makeContent, makeStore } from '../helpers/mirror.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'

const REPOMD = 'yum/base/repodata/repomd.xml'

function closing(t: Test, mirror: Mirror): Mirror {
  t.teardown(() => mirror.close())
  return mirror
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** One request on a connection of its own, from an address of its own. */
async function fetchFrom(client: string, url: string): Promise<{ status: number; body: string }> {
  const { origin, pathname } = new URL(url)
  const connection = new Client(origin, { localAddress: client })
  try {
    const { statusCode, body } = await connection.request({ method: 'GET', path: pathname })
    return { status: statusCode, body: await body.text() }
  } finally {
    await connection.close()
  }
}

t.test('each group has its origin', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  for (const group of ['a', 'b']) {
    releases.release(await makeTree(blobs, { [`${group}.repo`]: { bytes: group, kind: 'pointer' } }, { group }), 0)
  }
  const mirror = closing(
    t,
    await startMirror({ releases, blobs, config: testConfig([{ group: 'a' }, { group: 'b' }]) }),
  )
  const [a, b] = mirror.origins.map(({ url }) => url)
  t.not(a, b)
  t.equal(await request(`${a}/a.repo`).then(({ body }) => body.text()), 'a')
  t.equal(await request(`${b}/b.repo`).then(({ body }) => body.text()), 'b')
  t.equal((await request(`${b}/a.repo`)).statusCode, 404)
})

t.test('groups on one port are told apart by Host', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  for (const group of ['a', 'b']) releases.release(await makeTree(blobs, { x: { bytes: group } }, { group }), 0)
  const config = testConfig()
  const port = await freePort()
  const origin = { host: '127.0.0.1', port }
  config.origins = [
    { ...origin, group: 'a', hosts: ['a.lan'] },
    { ...origin, group: 'b', hosts: ['b.lan'] },
  ]
  const mirror = closing(t, await startMirror({ releases, blobs, config }))
  t.same(mirror.origins, [
    { group: 'a', url: `http://a.lan:${port}` },
    { group: 'b', url: `http://b.lan:${port}` },
  ])
  const asked = ['Host: a.lan', `Host: b.lan:${port}`, 'Host: 127.0.0.1'].map(
    (host) => `GET /x HTTP/1.1\r\n${host}\r\n\r\n`,
  )
  const answers = parseAnswers(await exchange(`http://127.0.0.1:${port}`, `${asked.join('')}GET /x HTTP/1.0\r\n\r\n`))
  t.match(answers, [{ body: 'a' }, { body: 'b' }, { status: 421 }, { status: 400, body: /^HOST_INVALID/ }])
})

t.test('a taken port is said plainly, and nothing stays open', async (t) => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  const { port } = other.address() as AddressInfo
  const config = testConfig()
  const free = await freePort()
  config.origins = [
    { group: 'a', host: '127.0.0.1', port: free, hosts: [] },
    { group: 'b', host: '127.0.0.1', port, hosts: [] },
  ]
  const releases = new TestReleases()
  const failed = startMirror({ releases, blobs: new BlobStore(t.testdir()), config })
  await t.rejects(failed, {
    code: 'LISTEN_FAILED',
    message: `cannot listen at 127.0.0.1:${port}: another program has this port`,
  })
  const again = createServer().listen(free, '127.0.0.1')
  await once(again, 'listening')
  again.close()
})

t.test('an address that is not ours', async (t) => {
  const config = testConfig()
  config.admin.host = '192.0.2.1'
  const failed = startMirror({ releases: new TestReleases(), blobs: new BlobStore(t.testdir()), config })
  await t.rejects(failed, { code: 'LISTEN_FAILED', message: /this machine has no such address/ })
})

t.test('the requests of a real box', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  const module = 'modules/packages/core/core-16.0.68.tgz.gpg'
  const files = {
    'all-16.0.xml': { bytes: '<xml/>', kind: 'pointer' as const, type: 'text/xml' },
    [module]: { bytes: 'module' },
  }
  releases.release(await makeTree(blobs, files), 0)
  const mirror = closing(
    t,
    await startMirror({ releases, blobs, config: testConfig([{ group: 'pbx', hosts: ['mirror.lan'] }]) }),
  )
  const url = mirror.origins[0]!.url.replace('mirror.lan', '127.0.0.1')
  const form = 'installid=0123456789abcdef&brandid=1&phpver=7.4.16&astver=18.9&distro=sangoma&a%5Bb%5D=c'
  const post = (path: string, headers: string[], body: string): string =>
    [`POST ${path} HTTP/1.1`, 'Host: mirror.lan', ...headers, `Content-Length: ${body.length}`, '', body].join('\r\n')
  const browser = [
    'User-Agent: php-requests/1.7',
    'Accept: */*',
    'Accept-Encoding: deflate, gzip',
    'Referer: http://mirror.lan/all-16.0.xml',
    'Connection: close',
  ]
  const typed = 'Content-Type: application/x-www-form-urlencoded'
  const one = async (bytes: string, method = 'POST') => parseAnswers(await exchange(url, bytes), [method])[0]!

  t.match(await one(post('/all-16.0.xml', [...browser, typed], form)), { status: 200, body: '<xml/>' })
  const head = await one(`HEAD /${module}? HTTP/1.0\r\nHost: mirror.lan\r\n\r\n`, 'HEAD')
  t.match(head, { status: 200, body: '' })
  t.equal(head.headers.get('content-length'), '6')
  const download = await one(post(`/${module}`, [...browser, typed], form))
  t.match(download, { status: 200, body: 'module' })
  t.notOk(download.headers.has('content-encoding'))
  t.notOk(download.headers.has('transfer-encoding'))
  t.match(await one(post(`//${module}`, ['Accept: */*', typed], '')), { status: 200, body: 'module' })
  t.match(await one(post('/version-16.0.40.html', [...browser, typed], 'sv=2')), { status: 200, body: '' })
})

t.test('a release by another process is served without a restart', async (t) => {
  const store = makeStore(t.testdir())
  await adopt(store, makeContent(1, [{ stamp: 10, packages: ['a'] }]))
  await adopt(store, makeContent(2, [{ stamp: 20, packages: ['b'] }]))
  const other = new Catalog(`${store.root}/catalog.db`)
  t.teardown(() => (other.close(), store.catalog.close()))
  const [served, foreign] = [store.catalog, other].map((catalog) => new Releases(catalog, store.blobs)) as [
    Releases,
    Releases,
  ]
  const mirror = closing(t, await startMirror({ releases: served, blobs: store.blobs }))
  const url = `${mirror.origins[0]!.url}/${REPOMD}`
  const text = async () => request(url).then(({ body }) => body.text())
  t.match(await text(), /^RELEASE_NOTHING/)
  foreign.release({ number: 1, nowMs: Date.now() })
  t.equal(await text(), 'repomd of pbx/current 1 10')
  foreign.release({ number: 2, nowMs: Date.now() })
  t.equal(await text(), 'repomd of pbx/current 2 20')
  t.equal((await request(`${mirror.origins[0]!.url}/yum/base/a.rpm`)).statusCode, 200, 'a file of the tree before')
})

t.test('one address holds at most 128 connections', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  releases.release(await makeTree(blobs, { x: { bytes: 'x' } }), 0)
  const mirror = closing(t, await startMirror({ releases, blobs }))
  const { origin, port, host } = new URL(mirror.origins[0]!.url)
  const sockets: Socket[] = []
  t.teardown(() => sockets.forEach((socket) => socket.destroy()))
  for (let i = 0; i < 128; i++) {
    const socket = connect({ port: Number(port), host: '127.0.0.1' })
    sockets.push(socket)
    await once(socket, 'connect')
  }
  sockets[127]!.write(`GET /x HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  t.match(String(await once(sockets[127]!, 'data')), /^HTTP\/1\.1 200 /)
  t.equal(await exchange(origin, `GET /x HTTP/1.1\r\nHost: ${host}\r\n\r\n`), '', 'the next is closed')
  t.match(await fetchFrom('127.0.0.2', `${origin}/x`), { status: 200 }, 'another address is served')
  t.equal((await request(`${mirror.adminUrl}/healthz`)).statusCode, 200, 'the operator is not crowded out')
  sockets[0]!.destroy()
  let text = ''
  while (text === '') text = await exchange(origin, `GET /x HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  t.match(text, /^HTTP\/1\.1 200 /, 'a place that was left is free again')
})

t.test('closing lets an answer end, and waits for nobody who is idle', async (t) => {
  const blobs = new BlobStore(t.testdir())
  const releases = new TestReleases()
  const large = Buffer.alloc(20_000_000, 'large ')
  releases.release(await makeTree(blobs, { large: { bytes: large } }), 0)
  const mirror = await startMirror({ releases, blobs })
  const { origin, port, host } = new URL(mirror.origins[0]!.url)
  const idle = connect(Number(port), '127.0.0.1')
  idle.write(`HEAD /large HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  await once(idle, 'data')
  const client = new Client(origin)
  t.teardown(() => client.close())
  const { body } = await client.request({ method: 'GET', path: '/large' })
  const startMs = performance.now()
  const closed = mirror.close()
  await once(idle.resume(), 'close')
  t.ok(Buffer.from(await body.arrayBuffer()).equals(large))
  await closed
  t.ok(performance.now() - startMs < 4000, 'not the whole grace')
  await t.rejects(request(`${origin}/large`), { code: 'ECONNREFUSED' })
})

t.test('a mirror that never listened can be closed', async (t) => {
  const mirror = buildMirror({
    config: testConfig(),
    releases: new TestReleases(),
    blobs: new BlobStore(t.testdir()),
    status: () => ({ site: null, createdAtMs: null, store: { path: '' } }),
    clock: () => 0,
    log: silent,
  })
  await mirror.close()
  t.equal(mirror.adminUrl, 'http://127.0.0.1:0')
})

/** Generations whose "signature" is the digest of their repomd, and whose repomd names one data file. */
async function generations(blobs: BlobStore, count: number) {
  return Promise.all(
    Array.from({ length: count }, (_, i) => {
      const data = `data of generation ${i}`
      const href = `yum/base/repodata/${sha256Of(data)}-primary.xml.gz`
      const files = {
        [REPOMD]: { bytes: href, kind: 'pointer' as const },
        [`${REPOMD}.asc`]: { bytes: sha256Of(href), kind: 'companion' as const, of: REPOMD },
        [href]: { bytes: data },
      }
      return makeTree(blobs, files, { number: i + 1 })
    }),
  )
}

t.test(
  'while releases switch every few milliseconds no client gets a mixed pair, and what a repomd names stays',
  async (t) => {
    const blobs = new BlobStore(t.testdir())
    const releases = new TestReleases()
    const trees = await generations(blobs, 7)
    releases.release(trees[0]!, Date.now())
    const mirror = closing(t, await startMirror({ releases, blobs }))
    const { url } = mirror.origins[0]!
    const run = { switches: 0, isOver: false }
    const flip = async () => {
      while (!run.isOver) {
        const untilMs = performance.now() + 1 + (run.switches % 4)
        while (performance.now() < untilMs) await turn()
        releases.release(trees[++run.switches % trees.length]!, Date.now())
      }
    }
    let rounds = 0
    let crossed = 0
    const box = async (address: string) => {
      for (let i = 0; i < 12; i++) {
        const repomd = await fetchFrom(address, `${url}/${REPOMD}`)
        const before = run.switches
        if (i % 2 === 0) while (run.switches === before) await turn()
        const signature = await fetchFrom(address, `${url}/${REPOMD}.asc`)
        const data = await fetchFrom(address, `${url}/${repomd.body}`)
        rounds++
        if (run.switches > before) crossed++
        if (signature.body !== sha256Of(repomd.body)) t.fail(`${address} got a mixed pair`)
        if (data.status !== 200 || !repomd.body.includes(sha256Of(data.body)))
          t.fail(`${address}: ${data.status} for its data`)
      }
    }
    const flipping = flip()
    await Promise.all(Array.from({ length: 40 }, (_, i) => box(`127.0.0.${i + 2}`)))
    run.isOver = true
    await flipping
    t.equal(rounds, 480)
    t.ok(crossed >= 240, `${crossed} of ${rounds} pairs had a switch in between`)
    t.comment(`${run.switches} switches`)
  },
)

t.test('the same with the real catalogue, released by another process', async (t) => {
  const store = makeStore(t.testdir())
  const last = 57
  for (let number = 1; number <= last; number++) {
    await adopt(store, makeContent(number, [{ stamp: number, packages: [`p${number}`] }]))
  }
  const other = new Catalog(`${store.root}/catalog.db`)
  t.teardown(() => (other.close(), store.catalog.close()))
  const foreign = new Releases(other, store.blobs)
  const mirror = closing(
    t,
    await startMirror({ releases: new Releases(store.catalog, store.blobs), blobs: store.blobs }),
  )
  const { url } = mirror.origins[0]!
  let released = 0
  const releaseNext = (): void => void foreign.release({ number: ++released, nowMs: Date.now() })
  releaseNext()
  const box = async (address: string) => {
    for (let i = 0; i < 7; i++) {
      const repomd = await fetchFrom(address, `${url}/${REPOMD}`)
      releaseNext()
      const signature = await fetchFrom(address, `${url}/${REPOMD}.asc`)
      const number = repomd.body.split(' ').at(-1)
      const data = await fetchFrom(address, `${url}/yum/base/p${number}.rpm`)
      t.equal(signature.body, repomd.body.replace('repomd', 'signature'))
      t.equal(data.body, `package p${number}`)
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, i) => box(`127.0.1.${i + 1}`)))
  t.equal(released, last)
})
