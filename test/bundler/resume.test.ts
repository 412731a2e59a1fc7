import { createHash } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher, type FetcherOptions, type RemoteFile } from '../../bundler/fetch.ts'
import { runGapferry } from '../../bundler/program.ts'
import { partialKey } from '../../bundler/transfer.ts'
import { sha256Of } from '../../manifests/digest.ts'
import type { GapferryError } from '../../manifests/errors.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { inside } from '../helpers/inside.ts'
import { start, type Outcome } from '../helpers/process.ts'
import { startUpstream, type Fault, type Upstream } from '../helpers/upstream.ts'

const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())
const live = new AbortController().signal
const content = Buffer.from(Array.from({ length: 400_000 }, (_, i) => (i * 7 + (i >> 8)) % 251))
const changed = Buffer.from(content).fill('changed', 100_000)
const sha1 = { algorithm: 'sha1', hex: createHash('sha1').update(content).digest('hex') } as const
const declared = { checksum: sha1, bytes: content.length }

/** What a fetcher waited for, instead of waiting. */
function fetcher(options: Partial<FetcherOptions> = {}): { fetcher: Fetcher; waits: number[] } {
  const waits: number[] = []
  const wait = async (ms: number): Promise<void> => void waits.push(ms)
  const common = { dispatcher, userAgent: 'gapferry/0.0.0', retries: 4, random: () => 1, wait }
  return { fetcher: new Fetcher({ ...common, ...options }), waits }
}

const file = (urls: string | string[], more: Partial<RemoteFile> = {}): RemoteFile => ({
  urls: [urls].flat(),
  maxBytes: 1_000_000,
  what: 'asterisk-18.rpm',
  ...more,
})

/** A laptop's store as each run finds it. */
function stores(t: Test): { root: string; open: () => BlobStore } {
  const root = t.testdir()
  return {
    root,
    open: () => {
      const store = new BlobStore(root)
      store.sweep()
      store.partials.sweep(Date.now())
      return store
    },
  }
}

const filesIn = (root: string): string[] =>
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => one.name)

const PROGRAM = join(import.meta.dirname, '../helpers/fetch-program.ts')
const ranges = ({ requests }: Upstream): (string | undefined)[] => requests.map(({ headers }) => headers.range)

/** Runs one fetch that fails, on a store of its own run. */
async function failsOnce(t: Test, upstream: Upstream, store: BlobStore, more: Partial<RemoteFile> = {}): Promise<void> {
  const failing = fetcher({ retries: 0 }).fetcher.toBlob(file(`${upstream.url}/a`, more), store, live)
  await t.rejects(failing, GapferryLike)
}
const GapferryLike = { name: 'GapferryError' }

t.test('goes on where it was cut, at once, and fetches nothing twice', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  for (const kind of ['truncate', 'reset'] as const) {
    for (const more of [{}, declared]) {
      upstream.requests.length = 0
      upstream.fault('/a', { kind, after: 100_000 })
      const store = stores(t).open()
      const { fetcher: quick, waits } = fetcher()
      let total = 0
      const blob = await quick.toBlob(file(`${upstream.url}/a`, more), store, live, (bytes) => (total += bytes))
      t.strictSame(store.read(blob.sha256, content.length), content)
      // What a reset takes away on its way is asked for again.
      if (kind === 'reset') t.ok(ranges(upstream).length >= 4)
      else t.strictSame(ranges(upstream), [undefined, 'bytes=100000-', 'bytes=200000-', 'bytes=300000-'])
      const tag = upstream.requests[1]!.headers['if-range']
      t.match(tag, /^"[0-9a-f]{16}"$/)
      t.strictSame(waits, [], 'no pause while it gets on')
      t.equal(total, content.length)
    }
  }
})

t.test('the next run goes on where the last one ended', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  for (const more of [{}, declared]) {
    const { root, open } = stores(t)
    upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
    await failsOnce(t, upstream, open(), more)
    t.strictSame([...open().partials.kept().values()], [150_000])
    upstream.requests.length = 0
    const steps: number[] = []
    const store = open()
    const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, more), store, live, (n) => steps.push(n))
    t.strictSame(ranges(upstream), ['bytes=150000-'])
    t.strictSame(store.read(blob.sha256, content.length), content)
    t.equal(steps[0], 150_000, 'what was here counts as done')
    t.equal(
      steps.reduce((sum, one) => sum + one),
      content.length,
    )
    t.strictSame(filesIn(root), [blob.sha256], 'nothing is left of the beginning')
  }
})

t.test(
  'a run that was killed is gone on with, from its last note or, with a checksum, from its last byte',
  async (t) => {
    const large = Buffer.concat(Array.from({ length: 8 }, (_, i) => Buffer.alloc(400_000, `${i}abcdefg`)))
    const upstream = await startUpstream(t, new Map([['/a', large]]))
    const hex = createHash('sha512').update(large).digest('hex')
    const cases: [string[], number][] = [
      [[], 2_097_152],
      [['sha512', hex], 2_500_000],
    ]
    for (const [args, least] of cases) {
      const { root, open } = stores(t)
      upstream.fault('/a', { kind: 'stall', after: 2_500_000 })
      const child = await start(t, process.execPath, [PROGRAM, root, `${upstream.url}/a`, ...args], {
        ready: /^2500000$/m,
      })
      await child.stop('SIGKILL')
      upstream.fault('/a')
      upstream.requests.length = 0
      const [algorithm] = args
      const more = algorithm === undefined ? {} : { checksum: { algorithm: 'sha512', hex } as const }
      const wanted = file(`${upstream.url}/a`, { ...more, maxBytes: 10_000_000 })
      const store = open()
      const blob = await fetcher().fetcher.toBlob(wanted, store, live)
      t.strictSame(store.read(blob.sha256, large.length), large)
      const [from] = ranges(upstream).map((range) => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1]))
      t.ok(from! >= least && from! <= 2_500_000, `went on from ${from}`)
    }
  },
)

t.test('a file that changed in between comes anew, whole', async (t) => {
  const files = new Map([['/a', content]])
  const upstream = await startUpstream(t, files)
  const { open } = stores(t)
  upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
  await failsOnce(t, upstream, open())
  files.set('/a', changed)
  const store = open()
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`), store, live)
  t.strictSame(store.read(blob.sha256, changed.length), changed)
})

t.test('a server that heeds Range but not If-Range mixes nothing', async (t) => {
  const files = new Map([['/a', content]])
  const upstream = await startUpstream(t, files)
  upstream.headers('/by-date', { etag: '' })
  for (const path of ['/a', '/by-date']) {
    files.set(path, content)
    const { open } = stores(t)
    upstream.fault(path, { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
    const wanted = file(upstream.url + path)
    await t.rejects(fetcher({ retries: 0 }).fetcher.toBlob(wanted, open(), live), GapferryLike)
    files.set(path, changed)
    if (path === '/by-date') upstream.headers(path, { etag: '', 'last-modified': 'Mon, 02 Nov 2026 10:00:00 GMT' })
    upstream.fault(path, { kind: 'deaf' })
    const store = open()
    const blob = await fetcher().fetcher.toBlob(wanted, store, live)
    t.strictSame(store.read(blob.sha256, changed.length), changed)
  }
})

t.test('a server that ignores Range costs bytes, not truth', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const { open } = stores(t)
  upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'unranged' })
  const store = open()
  let total = 0
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`), store, live, (bytes) => (total += bytes))
  t.strictSame(store.read(blob.sha256, content.length), content)
  t.equal(total, content.length)
})

t.test('a server that ignores Range and never gets through is given up', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'unranged', after: 150_000 })
  const { fetcher: patient, waits } = fetcher()
  const failing = patient.toBlob(file(`${upstream.url}/a`), stores(t).open(), live)
  await t.rejects(failing, { code: 'FETCH_FAILED', message: /after 150000 of 400000 bytes.*tried 6 times/ })
  t.strictSame(waits, [50, 100, 200, 400], 'the first bytes were progress, the same again are none')
})

t.test('a wrong Content-Range is not believed, whatever is wrong with it', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const said = [
    '',
    'bytes 0-249999/400000',
    'bytes 150001-399999/400000',
    'bytes 150000-399999/399999',
    'bytes 150000-399998/400000',
    'bytes 150000-400000/*',
    'bytes 399999-150000/400000',
    'items 150000-399999/400000',
    'bytes 150000-399999/500000',
  ]
  for (const one of said) {
    upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'range', said: one, times: 1 })
    const store = stores(t).open()
    const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, declared), store, live)
    t.strictSame(store.read(blob.sha256, content.length), content, `heals after ${one}`)
    upstream.fault('/a', { kind: 'range', said: one })
    await t.rejects(fetcher().fetcher.toBlob(file(`${upstream.url}/a`), stores(t).open(), live), {
      code: 'FETCH_STATUS',
      message: /expected 200, found 206/,
    })
  }
  upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'range', said: said[1]!, times: 1 })
  const failing = fetcher({ retries: 0 }).fetcher.toBlob(file(`${upstream.url}/a`), stores(t).open(), live)
  await t.rejects(failing, { message: /expected the range 150000- of the file, found bytes 0-249999\/400000/ })
})

t.test('a piece that is shorter than was asked for is a step on the way', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'short', bytes: 100_000 })
  const store = stores(t).open()
  const { fetcher: quick, waits } = fetcher()
  const blob = await quick.toBlob(file(`${upstream.url}/a`), store, live)
  t.strictSame(store.read(blob.sha256, content.length), content)
  t.strictSame(ranges(upstream).slice(1), ['bytes=150000-', 'bytes=250000-', 'bytes=350000-'])
  t.strictSame(waits, [])
})

t.test('a server that says the file ends where it is gone on with is asked for all of it', async (t) => {
  const files = new Map([['/a', content]])
  const upstream = await startUpstream(t, files)
  const { open } = stores(t)
  files.set('/a', Buffer.concat([content, content]))
  upstream.fault('/a', { kind: 'truncate', after: 450_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
  await failsOnce(t, upstream, open(), { checksum: sha1 })
  t.strictSame([...open().partials.kept().values()], [450_000])
  files.set('/a', content)
  upstream.fault('/a', { kind: 'deaf', times: 1 })
  const store = open()
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, { checksum: sha1 }), store, live)
  t.strictSame(store.read(blob.sha256, content.length), content)
  t.strictSame(ranges(upstream).slice(2), ['bytes=450000-', undefined], '416, then the whole')
})

t.test('a file that a killed run had whole is not asked for again', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const { root, open } = stores(t)
  const before = open().partials.open(partialKey(file('', declared)), sha1)
  before.restart({ url: upstream.url, address: sha256Of('x'), validator: null, totalBytes: null })
  before.write(content)
  before.keep()
  const store = open()
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, declared), store, live)
  t.strictSame(store.read(blob.sha256, content.length), content)
  t.equal(upstream.requests.length, 0)
  t.strictSame(filesIn(root), [blob.sha256])
})

t.test('error text in the middle of a file is found by its digest, and the file heals or is named', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const text = '<b>Warning</b>: readfile(): failed to open stream in /srv/get.php on line 7'
  const babble: Fault = { kind: 'babble', after: 150_000, text }
  upstream.fault('/a', { ...babble, times: 1 })
  const store = stores(t).open()
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, declared), store, live)
  t.strictSame(store.read(blob.sha256, content.length), content)
  upstream.fault('/a', babble)
  const { root, open } = stores(t)
  const failing = fetcher().fetcher.toBlob(file(`${upstream.url}/a`, declared), open(), live)
  await t.rejects(failing, { code: /FETCH_(FAILED|DIGEST_MISMATCH)/ })
  t.ok(upstream.requests.length < 20)
  t.strictSame(
    filesIn(root).filter((name) => !/^[0-9a-f]{64}(\.note)?$/.test(name)),
    [],
  )
})

t.test('a login page does not take the place of what is here', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  for (const more of [{}, { checksum: sha1 }]) {
    const { open } = stores(t)
    upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'portal' })
    await t.rejects(fetcher().fetcher.toBlob(file(`${upstream.url}/a`, more), open(), live), { code: 'FETCH_CAPTIVE' })
    upstream.fault('/a')
    upstream.requests.length = 0
    const store = open()
    const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, more), store, live)
    t.strictSame(ranges(upstream), ['bytes=150000-'], 'signed in, it goes on')
    t.strictSame(store.read(blob.sha256, content.length), content)
  }
})

t.test(
  'without checksum and strong validator a file begins anew, and no run leaves anything to the next',
  async (t) => {
    const upstream = await startUpstream(t, new Map([['/a', content]]))
    const weak: Record<string, string>[] = [
      { etag: 'W/"1"' },
      { etag: '"not closed' },
      { etag: '', 'last-modified': '' },
      { etag: '', 'last-modified': new Date().toUTCString() },
    ]
    for (const headers of weak) {
      upstream.headers('/a', headers)
      const { root, open } = stores(t)
      upstream.requests.length = 0
      upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
      await failsOnce(t, upstream, open())
      t.strictSame(filesIn(root), [])
      t.strictSame(ranges(upstream), [undefined, undefined])
    }
    upstream.headers('/a', { etag: '' })
    upstream.requests.length = 0
    upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 })
    await fetcher().fetcher.toBlob(file(`${upstream.url}/a`), stores(t).open(), live)
    t.equal(upstream.requests[1]!.headers['if-range'], 'Sun, 01 Nov 2026 10:00:00 GMT', 'an old date is strong')
  },
)

t.test(
  'several addresses: with a declared checksum one goes on where the other was cut, without one never',
  async (t) => {
    const one = await startUpstream(t, new Map([['/a', content]]))
    const two = await startUpstream(t, new Map([['/a', content]]))
    const urls = [`${one.url}/a`, `${two.url}/a`]
    one.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 404 })
    const store = stores(t).open()
    const blob = await fetcher().fetcher.toBlob(file(urls, declared), store, live)
    t.strictSame(store.read(blob.sha256, content.length), content)
    t.strictSame(ranges(two), ['bytes=150000-'])
    t.equal(two.requests[0]!.headers['if-range'], undefined, 'the mark of another server means nothing here')
    one.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 404 })
    two.requests.length = 0
    await fetcher().fetcher.toBlob(file(urls), stores(t).open(), live)
    t.strictSame(ranges(two), [undefined])
  },
)

t.test('where a redirect led, only a declared checksum lets a file be gone on with', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/to', { kind: 'redirect', to: '/a' })
  for (const [more, range] of [
    [declared, 'bytes=150000-'],
    [{}, undefined],
  ] as const) {
    upstream.requests.length = 0
    upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 })
    await fetcher().fetcher.toBlob(file(`${upstream.url}/to`, more), stores(t).open(), live)
    t.match(upstream.requests[3], { path: '/a', headers: { range } })
  }
})

t.test('pauses double, with jitter, up to their bound, and begin anew after progress', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'status', status: 503 })
  const busy = fetcher({ retries: 12, maxWaitMs: 3000, random: () => 1 })
  await t.rejects(busy.fetcher.get(file(`${upstream.url}/a`), live), {
    code: 'FETCH_STATUS',
    message: /tried 13 times/,
  })
  t.strictSame(busy.waits, [50, 100, 200, 400, 800, 1600, 3000, 3000, 3000, 3000, 3000, 3000])
  const calm = fetcher({ retries: 3, random: () => 0 })
  await t.rejects(calm.fetcher.get(file(`${upstream.url}/a`), live), { code: 'FETCH_STATUS' })
  t.strictSame(calm.waits, [25, 50, 100], 'at least half')
  const stepwise: Fault[] = [1, 2].flatMap(() => [
    { kind: 'status', status: 503, times: 3 } as const,
    { kind: 'truncate', after: 150_000, times: 1 } as const,
  ])
  upstream.fault('/a', ...stepwise, { kind: 'status', status: 503, times: 3 })
  const luckless = fetcher({ retries: 4 })
  await luckless.fetcher.toBlob(file(`${upstream.url}/a`), stores(t).open(), live)
  t.strictSame(luckless.waits, [50, 100, 200, 50, 100, 200, 50, 100, 200])
})

t.test('waits as long as the server asks, within the bound', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const after = (text: string, date = 'Sun, 22 Nov 2026 10:00:00 GMT'): Fault => ({
    kind: 'status',
    status: 503,
    headers: { 'retry-after': text, date },
    times: 1,
  })
  const cases: [string, number][] = [
    ['7', 7000],
    ['Sun, 22 Nov 2026 10:00:09 GMT', 9000],
    ['Sun, 22 Nov 2026 09:00:00 GMT', 50],
    ['soon', 50],
    ['0', 50],
  ]
  for (const [text, ms] of cases) {
    upstream.fault('/a', after(text))
    const { fetcher: polite, waits } = fetcher()
    await polite.get(file(`${upstream.url}/a`), live)
    t.strictSame(waits, [ms], text)
  }
  upstream.fault('/a', after('3600'))
  const { fetcher: busy, waits } = fetcher()
  const failing = busy.get(file(`${upstream.url}/a`), live)
  await t.rejects(failing, { code: 'FETCH_STATUS', message: /503.*asks to be left alone for 3600 s/ })
  t.strictSame(waits, [])
  const other = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', after('20'))
  const both = fetcher()
  await both.fetcher.get(file([`${upstream.url}/a`, `${other.url}/a`]), live)
  t.strictSame(both.waits, [], 'another address has it now')
})

t.test('a link that goes away in the middle is waited for, one that never was is not', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const { fetcher: waiting, waits } = fetcher()
  await waiting.get(file(`${upstream.url}/a`), live)
  await upstream.close()
  await t.rejects(waiting.get(file(`${upstream.url}/a`), live), { message: /refused.*tried 5 times/ })
  t.strictSame(waits, [50, 100, 200, 400])
  const first = fetcher()
  await t.rejects(first.fetcher.get(file(`${upstream.url}/a`), live), { message: /refused/ })
  t.strictSame(first.waits, [])
})

t.test('a server that drips is no progress, however long it goes on', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'stall', after: 2000 })
  const slow = fetcher({ bodyTimeoutMs: 20, rateWindowMs: 10_000, minBytesPerSecond: 1000, retries: 3 })
  const failing = slow.fetcher.toBlob(file(`${upstream.url}/a`), stores(t).open(), live)
  await t.rejects(failing, { code: 'FETCH_TIMEOUT', message: /tried 4 times/ })
  t.equal(slow.waits.length, 3)
})

t.test('a length that is not true ends in a named error or the right bytes, never in a loop', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'length', announced: 500_000 })
  const { root, open } = stores(t)
  await t.rejects(fetcher().fetcher.toBlob(file(`${upstream.url}/a`), open(), live), { code: 'FETCH_FAILED' })
  upstream.fault('/a', { kind: 'length', announced: 500_000, times: 1 })
  const store = open()
  const blob = await fetcher().fetcher.toBlob(file(`${upstream.url}/a`, { checksum: sha1 }), store, live)
  t.strictSame(store.read(blob.sha256, content.length), content)
  t.ok(filesIn(root).includes(blob.sha256))
})

t.test('one file wanted twice at a time comes right twice', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'truncate', after: 150_000 })
  const { root, open } = stores(t)
  const store = open()
  const both = fetcher().fetcher
  const wanted = file(`${upstream.url}/a`, declared)
  const blobs = await Promise.all([1, 2].map(() => both.toBlob(wanted, store, live)))
  for (const { sha256 } of blobs) t.equal(sha256, sha256Of(content))
  t.strictSame(filesIn(root), [sha256Of(content)])
})

t.test('a form is not asked for in pieces', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  upstream.fault('/a', { kind: 'truncate', after: 150_000, times: 1 }, { kind: 'status', status: 503, times: 1 })
  const { root, open } = stores(t)
  const wanted = file(`${upstream.url}/a`, { ...declared, form: 'id=secret' })
  const failure = await t.rejects(fetcher({ retries: 0 }).fetcher.toBlob(wanted, open(), live), GapferryLike)
  t.ok((failure as unknown as GapferryError).code)
  t.strictSame(ranges(upstream), [undefined, undefined])
  t.strictSame(filesIn(root), [], 'and nothing of it is kept')
})

t.test('gapferry pull goes on where the last one was cut, by the settings of the laptop', async (t) => {
  const upstream = await startUpstream(t, new Map([['/a', content]]))
  const settings = (retries: number): string => `apiVersion: gapferry/v1
kind: Fleet
link: { retries: ${retries} }
sites:
  - name: hq
    groups:
      - name: a
        origin: http://mirror.lan:8416
        files: [{ url: '${upstream.url}/a', as: firmware/a.bin }]
`
  const dir = t.testdir({ 'gapferry.yaml': settings(0) })
  const run = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  const busy: Fault = { kind: 'status', status: 503 }
  upstream.fault('/a', { kind: 'unsized', times: 1 }, { kind: 'truncate', after: 150_000, times: 1 }, busy)
  const cut = await run('pull')
  t.equal(cut.status, 6)
  t.match(cut.stderr, /firmware\/a\.bin: .* found 503 \(tried 2 times\); left: files: 1 item \[FETCH_STATUS\]/)
  t.match((await run('store', 'status')).stdout, /^came in part +1 file, 150(\.0)? kB; to go on: gapferry pull$/m)
  writeFileSync(join(dir, 'gapferry.yaml'), settings(1))
  upstream.requests.length = 0
  upstream.fault('/a', { ...busy, times: 1 })
  const { status, stderr } = await run('pull')
  t.equal(status, 0, stderr)
  t.match(upstream.requests, [
    { method: 'HEAD' },
    { method: 'HEAD' },
    { method: 'GET', headers: { range: 'bytes=150000-' } },
  ])
  t.notMatch((await run('store', 'status')).stdout, /came in part/)
})
