import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { VendorFile } from '../../bundler/config.ts'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { runGapferry } from '../../bundler/program.ts'
import { fetchFile, lookFile, type FileSources, type PlannedFile } from '../../bundler/upstream-files.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inside } from '../helpers/inside.ts'
import { startUpstream, type Upstream } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retries: 2, wait: async () => {} })

interface Bench {
  upstream: Upstream
  sources: FileSources
  entry: VendorFile
  look: () => Promise<PlannedFile>
  fetch: () => ReturnType<typeof fetchFile>
}

async function bench(t: Test, more: { sha256?: string; as?: string } = {}): Promise<Bench> {
  const upstream = await startUpstream(t, new Map([['/x.bin', 'firmware 1']]))
  const root = t.testdir()
  const ledger = new Ledger(join(root, 'ledger.db'))
  t.teardown(() => ledger.close())
  const sources = { fetcher, store: new BlobStore(root), memory: ledger, signal: new AbortController().signal }
  const entry = { url: `${upstream.url}/x.bin`, as: 'firmware/x.bin', ...more }
  const look = (): Promise<PlannedFile> => lookFile(entry, sources)
  return { upstream, sources, entry, look, fetch: async () => fetchFile(await look(), sources) }
}

t.test('tells the size before a byte of the file is spent', async (t) => {
  const { upstream, entry, look } = await bench(t)
  t.strictSame(await look(), { url: entry.url, as: 'firmware/x.bin', bytes: 10, reason: 'named in files' })
  t.strictSame([upstream.count('/x.bin', 'HEAD'), upstream.count('/x.bin', 'GET')], [1, 0])
})

t.test('an unchanged file is not fetched twice', async (t) => {
  const { upstream, look, fetch, sources } = await bench(t)
  const first = await fetch()
  t.match(first, { isFetched: true, sha256: sha256Of('firmware 1') })
  t.match(await look(), { sha256: sha256Of('firmware 1'), bytes: 10, reason: /unchanged/ })
  t.match(await fetch(), { isFetched: false, sha256: sha256Of('firmware 1') })
  t.equal(upstream.count('/x.bin', 'GET'), 1)
  t.match(sources.memory.validator(first.source), { lastModified: 'Sun, 01 Nov 2026 10:00:00 GMT' })
})

t.test('a changed file is fetched, whichever sign of change the server gives', async (t) => {
  const { upstream, look, fetch } = await bench(t)
  await fetch()
  upstream.set('/x.bin', 'firmware 2')
  t.match(await look(), { sha256: undefined, reason: /changed at the upstream/ })
  t.match(await fetch(), { isFetched: true, sha256: sha256Of('firmware 2') })
  upstream.headers('/x.bin', { etag: '' })
  await fetch()
  upstream.headers('/x.bin', { etag: '', 'last-modified': 'Mon, 02 Nov 2026 10:00:00 GMT' })
  t.match(await look(), { sha256: undefined, reason: /changed/ })
  await fetch()
  t.match(await look(), { sha256: sha256Of('firmware 2') }, 'Last-Modified and size are enough')
  upstream.set('/x.bin', 'firmware 2, longer')
  t.match(await look(), { sha256: undefined }, 'the same date with another size is a change')
})

t.test('where the server tells nothing, the file is fetched each time, and the plan says so', async (t) => {
  const { upstream, look, fetch } = await bench(t)
  upstream.headers('/x.bin', { etag: '', 'last-modified': '' })
  await fetch()
  t.match(await look(), { sha256: undefined, reason: /does not tell/ })
  await fetch()
  t.equal(upstream.count('/x.bin', 'GET'), 2)
})

t.test('a file whose blob is gone from the store is fetched again', async (t) => {
  const { sources, entry, fetch } = await bench(t)
  await fetch()
  const emptied = { ...sources, store: new BlobStore(t.testdir({ other: {} })) }
  t.match(await lookFile(entry, emptied), { sha256: undefined, bytes: 10 })
})

t.test('with a digest the store answers, and the network is not asked', async (t) => {
  const sha256 = sha256Of('firmware 1')
  const { upstream, look, fetch } = await bench(t, { sha256 })
  t.match(await look(), { bytes: 10, sha256 })
  await fetch()
  upstream.requests.length = 0
  t.match(await look(), { bytes: 10, sha256 })
  t.match(await fetch(), { isFetched: false })
  t.equal(upstream.requests.length, 0)
})

t.test('other bytes than the digest says are refused', async (t) => {
  const { fetch } = await bench(t, { sha256: sha256Of('firmware 0') })
  await t.rejects(fetch(), { code: 'FETCH_DIGEST_MISMATCH', message: /firmware\/x\.bin/ })
})

t.test('a server that does not do HEAD leaves the size open and still gives the file', async (t) => {
  for (const status of [403, 405, 501]) {
    const { upstream, look, fetch } = await bench(t)
    upstream.fault('/x.bin', { kind: 'status', status, times: 1 })
    t.match(await look(), { bytes: null }, String(status))
    upstream.fault('/x.bin', { kind: 'status', status, times: 1 })
    t.match(await fetch(), { sha256: sha256Of('firmware 1') })
  }
})

t.test('a file that is not there is an error of the plan already', async (t) => {
  const { upstream, look } = await bench(t)
  upstream.fault('/x.bin', { kind: 'status', status: 404 })
  await t.rejects(look(), { code: 'FETCH_STATUS', message: /firmware\/x\.bin/ })
})

t.test('a login page gives no size and no file, unless a page is what is wanted', async (t) => {
  const { upstream, look, fetch } = await bench(t)
  upstream.fault('/x.bin', { kind: 'portal' })
  t.match(await look(), { bytes: null })
  await t.rejects(fetch(), { code: 'FETCH_CAPTIVE' })
  const page = await bench(t, { as: 'manual/index.html' })
  page.upstream.fault('/x.bin', { kind: 'portal' })
  t.ok((await page.look()).bytes)
  t.match(await page.fetch(), { isFetched: true })
})

t.test('credentials of an address are not remembered', async (t) => {
  const { upstream, sources } = await bench(t)
  const entry = { url: `${upstream.url.replace('//', '//me:secret@')}/x.bin`, as: 'x.bin' }
  await fetchFile(await lookFile(entry, sources), sources)
  t.ok(sources.memory.validator(`${upstream.url}/x.bin`))
  t.match(await lookFile(entry, sources), { sha256: sha256Of('firmware 1') })
})

t.test('a place of Gapferry and a broken digest are refused before the network is asked', async (t) => {
  const { upstream, sources, entry } = await bench(t)
  await t.rejects(lookFile({ ...entry, as: 'yum/x' }, sources), { code: 'PATH_CONFLICT' })
  await t.rejects(lookFile({ ...entry, sha256: 'abc' }, sources), { code: 'DIGEST_INVALID' })
  t.equal(upstream.requests.length, 0)
})

t.test('the files of a group are looked at together, not one after the other', async (t) => {
  const waiting: ServerResponse[] = []
  const server = createServer((_, response) => {
    waiting.push(response)
    if (waiting.length === 3) for (const one of waiting) one.writeHead(200, { 'content-length': '5' }).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const files = ['a', 'b', 'c'].map((name) => `{ url: 'http://127.0.0.1:${port}/${name}', as: ${name}.bin }`)
  const dir = t.testdir({
    'gapferry.yaml': `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: hq
    groups:
      - { name: a, origin: 'http://mirror.lan:8416', files: [${files.join(', ')}] }
`,
  })
  const signal = AbortSignal.timeout(10_000)
  const { status, stderr } = await inside(runGapferry, dir, ['plan'], { signal })
  t.equal(status, 0, stderr)
  t.equal(waiting.length, 3)
})
