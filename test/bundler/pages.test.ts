import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher, type RemoteFile } from '../../bundler/fetch.ts'
import { openPages } from '../../bundler/pages.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { Ledger } from '../../storage/ledger.ts'
import { runGapferry } from '../../bundler/program.ts'
import { inside } from '../helpers/inside.ts'
import { startUpstream } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const live = new AbortController().signal
const DAY_MS = 24 * 3_600_000
const list = Buffer.from('list '.repeat(20_000))

interface Runs {
  store: BlobStore
  ledger: Ledger
  /** a fetcher as a later run has it */
  run(nowMs?: number): Fetcher
}

function runs(t: Test): Runs {
  const root = t.testdir()
  const store = new BlobStore(root)
  const ledger = new Ledger(join(root, 'ledger.db'))
  t.teardown(() => ledger.close())
  const common = { dispatcher, userAgent: 'gapferry/0.0.0', retries: 2, wait: async () => {} }
  return { store, ledger, run: (nowMs = 0) => new Fetcher({ ...common, pages: openPages(store, ledger, nowMs) }) }
}

const file = (url: string, more: Partial<RemoteFile> = {}): RemoteFile => ({
  urls: [url],
  maxBytes: 1e6,
  what: 'list',
  ...more,
})

t.test('what did not change is not sent again, by ETag or by date', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', list]]))
  for (const headers of [{}, { 'last-modified': '' }, { etag: '' }]) {
    const { run } = runs(t)
    upstream.headers('/a', headers)
    await run().get(file(`${upstream.url}/a`), live)
    const before = upstream.wire()
    const again = await run().get(file(`${upstream.url}/a`), live)
    t.strictSame([again.bytes, again.sha256], [list, sha256Of(list)])
    t.ok(upstream.wire().sent - before.sent < 1000)
  }
  upstream.headers('/a', { etag: '', 'last-modified': '' })
  const { run } = runs(t)
  for (let i = 0; i < 2; i++) t.strictSame((await run().get(file(`${upstream.url}/a`), live)).bytes, list)
  t.match(upstream.requests.at(-1)!.headers, { 'if-none-match': undefined, 'if-modified-since': undefined })
})

t.test('what changed comes, and is what is known from then on', async (t) => {
  const files = new Map([['/a', list]])
  const upstream = await startUpstream(t, files)
  const { run } = runs(t)
  await run().get(file(`${upstream.url}/a`), live)
  files.set('/a', Buffer.from('new'))
  for (let i = 0; i < 2; i++) t.equal((await run().get(file(`${upstream.url}/a`), live)).bytes.toString(), 'new')
  const [, second, third] = upstream.requests.map(({ headers }) => headers['if-none-match'])
  t.ok(second !== third && third !== undefined)
})

t.test('lists in the coding gzip are known by the marks of that coding', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', list]]))
  const { run } = runs(t)
  upstream.fault('/a', { kind: 'gzip', coded: gzipSync(list), times: 1 })
  const packed = file(`${upstream.url}/a`, { acceptsGzip: true })
  await run().get(packed, live)
  t.strictSame((await run().get(packed, live)).bytes, list)
  t.match(upstream.requests[1]!.headers['if-none-match'], /"/)
  await run().get(file(`${upstream.url}/a`), live)
  t.equal(upstream.requests[2]!.headers['if-none-match'], undefined)
})

t.test(
  'nothing is known of a form, of a blob that is gone or rotten, or by the address of somebody else',
  async (t) => {
    const upstream = await startUpstream(t, new Map([['/a', list]]))
    const { run, store } = runs(t)
    const asked = (): string | undefined => upstream.requests.at(-1)!.headers['if-none-match']
    for (let i = 0; i < 2; i++) await run().get(file(`${upstream.url}/a`, { form: 'id=1' }), live)
    t.equal(asked(), undefined)
    await run().get(file(`${upstream.url}/a?token=1`), live)
    await run().get(file(`${upstream.url}/a?token=2`), live)
    t.equal(asked(), undefined)
    for (const harm of [rmSync, (path: string) => writeFileSync(path, Buffer.alloc(list.length))]) {
      harm(store.pathOf(sha256Of(list)))
      t.strictSame((await run().get(file(`${upstream.url}/a?token=1`), live)).bytes, list)
      t.equal(asked(), undefined)
    }
  },
)

t.test('what is known and not what is declared now is asked for anew', async (t) => {
  const files = new Map([['/a', list]])
  const upstream = await startUpstream(t, files)
  const { run } = runs(t)
  upstream.headers('/a', { etag: '"always the same"' })
  await run().get(file(`${upstream.url}/a`), live)
  const next = Buffer.from('next')
  files.set('/a', next)
  t.strictSame((await run().get(file(`${upstream.url}/a`), live)).bytes, list, 'the server says so')
  const declared = file(`${upstream.url}/a`, { bytes: 4, checksum: { algorithm: 'sha256', hex: sha256Of(next) } })
  t.strictSame((await run().get(declared, live)).bytes, next)
  files.set('/a', list)
  const fetcher = run()
  fetcher.forget(file(`${upstream.url}/a`))
  t.strictSame((await fetcher.get(file(`${upstream.url}/a`), live)).bytes, list)
})

t.test('304 to a question that was not asked is no answer', async (t) => {
  const upstream = await startUpstream(t)
  upstream.fault('/a', { kind: 'status', status: 304 })
  await t.rejects(
    runs(t)
      .run()
      .get(file(`${upstream.url}/a`), live),
    { code: 'FETCH_STATUS', message: /found 304/ },
  )
})

t.test('is forgotten after sixty days in which nobody asked', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', list]]))
  const { run, ledger } = runs(t)
  await run().get(file(`${upstream.url}/a`), live)
  await run(50 * DAY_MS).get(file(`${upstream.url}/a`), live)
  run(109 * DAY_MS)
  t.strictSame(ledger.pageBlobs(), [sha256Of(list)])
  run(111 * DAY_MS)
  t.strictSame(ledger.pageBlobs(), [])
})

t.test('a run with nothing new costs less than 20 KB per upstream, and nothing of it is pruned', async (t) => {
  const upstream = await startUpstream(t, join(import.meta.dirname, '../sample'))
  const dir = t.testdir({
    'gapferry.yaml': `apiVersion: gapferry/v1
kind: Fleet
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        yum: [{ id: sng-pkgs, baseurl: ['${upstream.url}/sng7/sng7/'], newest: 1 }]
        files: [{ url: '${upstream.url}/firmware/phone-x.bin', as: firmware/phone-x.bin }]
`,
  })
  const run = async (...args: string[]): Promise<void> => {
    const { status, stderr } = await inside(runGapferry, dir, args)
    t.equal(status, 0, `${args.join(' ')}: ${stderr}`)
  }
  await run('pull')
  await run('store', 'prune', '--yes')
  upstream.requests.length = 0
  const before = upstream.wire()
  await run('pull')
  const { got, sent } = upstream.wire()
  t.ok(got + sent - before.got - before.sent < 20_000, `${got + sent - before.got - before.sent} bytes`)
  t.strictSame(
    upstream.requests.map(({ method, path, headers }) => [
      method,
      path.replace(/.*\//, ''),
      'if-none-match' in headers,
    ]),
    [
      ['GET', 'repomd.xml', true],
      ['HEAD', 'phone-x.bin', false],
    ],
  )
  t.comment(`${got + sent - before.got - before.sent} bytes`)
})
