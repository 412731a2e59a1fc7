import t from 'tap'
import { Fetcher, makeDispatcher } from '../../bundler/fetch.ts'
import { makeThrottle } from '../../bundler/throttle.ts'
import { startUpstream } from '../helpers/upstream.ts'

t.test('says for how long to rest, for all connections together', (t) => {
  let now = 1000
  const throttle = makeThrottle(10_000, () => now)
  t.equal(throttle(5000), 500)
  t.equal(throttle(5000), 1000, 'the next one pays for both')
  now = 1500
  t.equal(throttle(1000), 600)
  now = 60_000
  t.equal(throttle(1000), 100, 'what was not used is gone')
  t.end()
})

t.test('bytes come no faster than agreed, and slowness of our own is no fault of the server', async (t) => {
  const content = Buffer.alloc(150_000, 'x')
  const upstream = await startUpstream(t, new Map(['/a', '/b'].map((path) => [path, content])))
  const dispatcher = makeDispatcher()
  t.teardown(() => dispatcher.destroy())
  const limits = { bodyTimeoutMs: 60, rateWindowMs: 100, minBytesPerSecond: 1_000_000 }
  const fetcher = new Fetcher({
    dispatcher,
    userAgent: 'gapferry/0.0.0',
    retries: 0,
    bytesPerSecond: 500_000,
    ...limits,
  })
  const before = performance.now()
  const both = ['/a', '/b'].map((path) =>
    fetcher.get({ urls: [upstream.url + path], maxBytes: 1e6, what: path }, new AbortController().signal),
  )
  for (const { bytes } of await Promise.all(both)) t.strictSame(bytes, content)
  // The last pieces are not waited for: a little less than 600 ms.
  t.ok(performance.now() - before > 250, `${performance.now() - before} ms`)
})
