import { once } from 'node:events'
import {
  appendFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { request } from 'undici'
import type { Sha256 } from '../../manifests/digest.ts'
import type { BlobSource } from '../../server/send.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, startMirror, TestReleases } from '../helpers/content.ts'
import { exchange, parseAnswers } from '../helpers/raw-http.ts'
import { flipByte } from '../helpers/tar.ts'

const SMALL = Buffer.from('a small package')
const LARGE = Buffer.from(Array.from({ length: 200_000 }, (_, i) => `line ${i}\n`).join(''))

/** @param wrap  puts something between the mirror and its blobs */
async function setUp(t: Test, wrap = (blobs: BlobStore): BlobSource => blobs) {
  const blobs = new BlobStore(t.testdir())
  const tree = await makeTree(blobs, { small: { bytes: SMALL }, large: { bytes: LARGE } })
  const releases = new TestReleases()
  releases.release(tree, 0)
  const lines: { code?: string; msg: string }[] = []
  const log = pino(new Writable({ write: (chunk, _, done) => (lines.push(JSON.parse(String(chunk))), done()) }))
  const mirror = await startMirror({ releases, blobs: wrap(blobs), log })
  t.teardown(() => mirror.close())
  lines.length = 0
  const url = mirror.origins[0]!.url
  const get = async (path: string, method: 'GET' | 'HEAD' = 'GET', headers = {}) => {
    const { statusCode, headers: answered, body } = await request(`${url}/${path}`, { method, headers })
    return { status: statusCode, length: answered['content-length'], body: Buffer.from(await body.arrayBuffer()) }
  }
  const fileOf = (name: string): string => blobs.pathOf(tree.entries.get(name as never)!.sha256)
  return { url, get, lines, fileOf, blobs, releases }
}

/** files of the store that this process has open */
function openBlobs(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)].filter((file) => file.includes('/blobs/'))
    } catch {
      return [] // the one that read the folder
    }
  })
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve))
}

t.test('small and large files, whole and in parts', async (t) => {
  const { get } = await setUp(t)
  for (const [path, bytes] of [
    ['small', SMALL],
    ['large', LARGE],
  ] as const) {
    t.strictSame(await get(path), { status: 200, length: String(bytes.length), body: bytes }, path)
    t.strictSame(await get(path, 'HEAD'), { status: 200, length: String(bytes.length), body: Buffer.alloc(0) })
    const part = await get(path, 'GET', { range: 'bytes=5-8' })
    t.strictSame(part, { status: 206, length: '4', body: bytes.subarray(5, 9) })
    const rest = await get(path, 'GET', { range: `bytes=${bytes.length - 3}-` })
    t.strictSame(rest, { status: 206, length: '3', body: bytes.subarray(-3) })
  }
  const middle = await get('large', 'GET', { range: 'bytes=600000-1300000' })
  t.ok(middle.body.equals(LARGE.subarray(600_000, 1_300_001)))
  await until(() => openBlobs().length === 0)
})

t.test('many large files at once', async (t) => {
  const { get } = await setUp(t)
  const answers = await Promise.all(Array.from({ length: 60 }, () => get('large')))
  t.ok(answers.every(({ body }) => body.equals(LARGE)))
})

t.test('a damaged blob is never sent', async (t) => {
  const harm: [string, (file: string) => void, string][] = [
    ['missing', (file) => rmSync(file), 'BLOB_MISSING'],
    ['shorter', (file) => truncateSync(file, 3), 'BLOB_'],
    ['longer', (file) => appendFileSync(file, 'x'), 'BLOB_SIZE_MISMATCH'],
    [
      'a link',
      (file) => {
        renameSync(file, `${file}.real`)
        symlinkSync(`${file}.real`, file)
      },
      'BLOB_UNREADABLE',
    ],
  ]
  for (const [what, damage, code] of harm) {
    for (const path of ['small', 'large']) {
      await t.test(`${path}, ${what}`, async (t) => {
        const { get, lines, fileOf } = await setUp(t)
        damage(fileOf(path))
        const answer = await get(path)
        t.equal(answer.status, 503)
        t.match(String(answer.body), /^BLOB_[A-Z_]+: the file is damaged or missing at the mirror\n$/)
        t.equal((await get(path, 'HEAD')).status, 503)
        t.equal(lines.length, 2)
        t.match(lines[0]?.code, code)
        t.equal((await get(path === 'small' ? 'large' : 'small')).status, 200, 'others are served on')
      })
    }
  }
})

t.test('a small blob with other bytes of the same length is not sent', async (t) => {
  const { get, lines, fileOf } = await setUp(t)
  writeFileSync(fileOf('small'), SMALL.toString().toUpperCase())
  t.equal((await get('small')).status, 503)
  t.match(lines, [{ code: 'BLOB_DIGEST_MISMATCH' }])
})

t.test('a large blob with a flipped bit is not sent, and the log names the path; a mended one is', async (t) => {
  const { get, lines, fileOf } = await setUp(t)
  flipByte(fileOf('large'), 1_500_000)
  const answers = await Promise.all([get('large'), get('large', 'HEAD'), get('large', 'GET', { range: 'bytes=5-8' })])
  for (const { status } of answers) t.equal(status, 503)
  t.equal(lines.length, 3)
  for (const line of lines) t.match(line, { code: 'BLOB_DIGEST_MISMATCH', path: '/large' })
  writeFileSync(`${fileOf('large')}.new`, LARGE)
  renameSync(`${fileOf('large')}.new`, fileOf('large'))
  t.ok((await get('large')).body.equals(LARGE))
})

t.test('a large blob that is changed after its first answer is not sent any more', async (t) => {
  const { get, fileOf } = await setUp(t)
  t.equal((await get('large')).status, 200)
  flipByte(fileOf('large'), 0)
  t.equal((await get('large')).status, 503)
})

t.test('small blobs that are asked for again are read once, and 24 MiB of them are kept', async (t) => {
  const reads: Sha256[] = []
  const { get, blobs, releases } = await setUp(t, (store) => ({
    open: (sha256) => store.open(sha256),
    read: (sha256, most) => (reads.push(sha256), store.read(sha256, most)),
  }))
  await get('small')
  await get('small')
  t.equal(reads.length, 1)
  const files = Object.fromEntries(
    Array.from({ length: 200 }, (_, i) => [`f${i}`, { bytes: Buffer.alloc(131_072, `${i} `) }]),
  )
  releases.release(await makeTree(blobs, files, { number: 2 }), 0)
  reads.length = 0
  for (let i = 0; i < 200; i++) t.ok((await get(`f${i}`)).body.equals(files[`f${i}`]!.bytes))
  t.equal(reads.length, 0, 'what is asked for once is not kept')
  for (let i = 0; i < 200; i++) t.ok((await get(`f${i}`)).body.equals(files[`f${i}`]!.bytes))
  t.equal(reads.length, 200)
  await get('f199')
  await get('f20')
  t.equal(reads.length, 200, 'the latest are in memory')
  await get('f0')
  await get('f0')
  t.equal(reads.length, 201, 'the first has left')
})

t.test('a file that ends early cuts the connection: fewer bytes than said, none of them wrong', async (t) => {
  let isCut = false
  const { url, get, lines } = await setUp(t, (store) => ({
    read: (sha256, most) => store.read(sha256, most),
    open: (sha256) => {
      if (isCut) process.nextTick(() => truncateSync(store.pathOf(sha256), 1_000_000)) // when the answer has begun
      return store.open(sha256)
    },
  }))
  t.equal((await get('large')).status, 200)
  isCut = true
  const text = await exchange(url, `GET /large HTTP/1.1\r\nHost: ${new URL(url).host}\r\n\r\n`, { keepOpen: true })
  const [answer] = parseAnswers(text)
  t.equal(answer?.headers.get('content-length'), String(LARGE.length))
  t.equal(answer?.body, LARGE.subarray(0, 1_000_000).toString())
  t.match(lines, [{ code: 'BLOB_SIZE_MISMATCH', msg: 'an answer was cut short', path: '/large' }])
})

t.test('a client that goes away leaves no file open and no line in the log', async (t) => {
  const { url, get, lines } = await setUp(t)
  const { host, port } = new URL(url)
  for (let i = 0; i < 20; i++) {
    const socket = connect(Number(port), '127.0.0.1').on('error', () => undefined)
    socket.write(`GET /large HTTP/1.1\r\nHost: ${host}\r\n\r\n`.repeat(i % 3 === 0 ? 16 : 1))
    await once(socket, 'data')
    if (i % 2 === 0) socket.destroy()
    else socket.resetAndDestroy()
  }
  await until(() => openBlobs().length === 0)
  t.ok((await get('large')).body.equals(LARGE))
  t.strictSame(lines, [])
})

t.test('a client may ask far ahead without holding files open', async (t) => {
  const { url } = await setUp(t)
  const { host, port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  socket.write(`GET /large HTTP/1.1\r\nHost: ${host}\r\n\r\n`.repeat(16))
  await once(socket, 'data')
  socket.pause()
  await new Promise((resolve) => setImmediate(resolve))
  t.ok(openBlobs().length <= 1)
  socket.destroy()
  await until(() => openBlobs().length === 0)
})
