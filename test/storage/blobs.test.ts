import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { BlobStore } from '../../storage/blobs.ts'

const HELLO = Buffer.from('hello')
const DIGEST = sha256Of(HELLO)
const ABSENT = 'a'.repeat(64) as Sha256

t.test('a small blob goes in and comes out', async (t) => {
  const { store } = open(t)
  t.equal(await store.put(HELLO), DIGEST)
  t.equal(store.has(DIGEST), true)
  t.equal(store.sizeOf(DIGEST), 5)
  t.strictSame(store.read(DIGEST, 5), HELLO)
  t.equal(await store.put(HELLO), DIGEST, 'also twice')
  t.equal(await store.put(Buffer.alloc(0)), sha256Of(''))
  t.strictSame(store.read(sha256Of(''), 0), Buffer.alloc(0))
})

t.test('a blob lies under its name, for its owner only', async (t) => {
  const { root, store } = open(t)
  await store.put(HELLO)
  t.equal(store.pathOf(DIGEST), join(root, 'blobs', DIGEST.slice(0, 2), DIGEST))
  t.equal(statSync(store.pathOf(DIGEST)).mode & 0o777, 0o600)
  t.equal(statSync(join(root, 'blobs', DIGEST.slice(0, 2))).mode & 0o777, 0o700)
  t.equal(statSync(join(root, 'staging')).mode & 0o777, 0o700)
})

t.test('a blob that is not here is missing', (t) => {
  const { store } = open(t)
  t.equal(store.has(ABSENT), false)
  t.equal(store.sizeOf(ABSENT), undefined)
  t.throws(() => store.read(ABSENT, 10), { code: 'BLOB_MISSING' })
  t.throws(() => store.open(ABSENT), { code: 'BLOB_MISSING' })
  t.end()
})

t.test('a rotten blob is not read', async (t) => {
  const { store } = open(t)
  await store.put(HELLO)
  writeFileSync(store.pathOf(DIGEST), 'hellO')
  t.throws(() => store.read(DIGEST, 5), { code: 'BLOB_DIGEST_MISMATCH', message: new RegExp(DIGEST) })
  truncateSync(store.pathOf(DIGEST), 2)
  t.throws(() => store.read(DIGEST, 5), { code: 'BLOB_DIGEST_MISMATCH' })
  await store.put(HELLO)
  t.strictSame(store.read(DIGEST, 5), HELLO, 'and putting it again heals it')
})

t.test('a blob longer than expected is not read', async (t) => {
  const { store } = open(t)
  await store.put(HELLO)
  t.throws(() => store.read(DIGEST, 4), { code: 'BLOB_SIZE_MISMATCH' })
})

t.test('a link in the place of a blob is not followed', (t) => {
  const { root, store } = open(t)
  t.testdir({ root: { blobs: { [DIGEST.slice(0, 2)]: {} }, staging: {} }, elsewhere: 'hello' })
  symlinkSync(join(root, '..', 'elsewhere'), store.pathOf(DIGEST))
  t.throws(() => store.read(DIGEST, 5), { code: 'ELOOP' })
  t.end()
})

t.test('nothing of a batch is there before commit, everything after', async (t) => {
  const { root, store } = open(t)
  const batch = store.batch()
  const small = batch.put(HELLO)
  const large = Buffer.alloc(300_000, 'x')
  const writer = batch.begin({ sha256: sha256Of(large), bytes: large.length, maxBytes: large.length })
  for (let at = 0; at < large.length; at += 100_000) writer.write(large.subarray(at, at + 100_000))
  t.equal(writer.finish(), sha256Of(large))
  t.equal(store.has(small), false)
  t.equal(store.has(sha256Of(large)), false)
  await batch.commit()
  t.strictSame(store.read(small, 5), HELLO)
  t.strictSame(store.read(sha256Of(large), large.length), large)
  t.strictSame(readdirSync(join(root, 'staging')), [])
})

t.test('a batch of more blobs than syncs in flight, some the same, becomes durable as one', async (t) => {
  const { root, store } = open(t)
  const batch = store.batch()
  const names = Array.from({ length: 200 }, (_, i) => batch.put(Buffer.from(`blob ${i % 150}`)))
  await batch.commit()
  t.equal(new Set(names).size, 150)
  t.ok(names.every((sha256) => store.has(sha256)))
  t.strictSame(readdirSync(join(root, 'staging')), [])
})

t.test('discard leaves no trace, whatever the batch was doing', async (t) => {
  const { root, store } = open(t)
  const batch = store.batch()
  batch.put(HELLO)
  const open1 = batch.begin({ maxBytes: 10 })
  open1.write(HELLO)
  batch.begin({ maxBytes: 10 })
  t.equal(readdirSync(join(root, 'staging')).length, 3)
  batch.discard()
  t.strictSame(readdirSync(join(root, 'staging')), [])
  batch.discard()
  await batch.commit()
  t.equal(store.has(DIGEST), false)
})

t.test('discard after commit removes nothing', async (t) => {
  const { store } = open(t)
  const batch = store.batch()
  batch.put(HELLO)
  await batch.commit()
  batch.discard()
  t.equal(store.has(DIGEST), true)
})

t.test('refuses bytes that are not what was wanted, and keeps none of them', async (t) => {
  const { root, store } = open(t)
  const batch = store.batch()
  const attempt = (want: Parameters<typeof batch.begin>[0], chunks: string[]) => () => {
    const writer = batch.begin(want)
    try {
      for (const chunk of chunks) writer.write(Buffer.from(chunk))
      writer.finish()
    } finally {
      writer.abort()
    }
  }
  t.throws(attempt({ sha256: ABSENT, maxBytes: 9 }, ['hello']), { code: 'BLOB_DIGEST_MISMATCH' })
  t.throws(attempt({ bytes: 6, maxBytes: 9 }, ['hello']), { code: 'BLOB_SIZE_MISMATCH' }, 'too short')
  t.throws(attempt({ bytes: 4, maxBytes: 9 }, ['hel', 'lo']), { code: 'BLOB_SIZE_MISMATCH' }, 'too long')
  t.throws(attempt({ maxBytes: 4 }, ['hello']), { code: 'BLOB_SIZE_MISMATCH' }, 'endless')
  t.throws(
    attempt({ bytes: 9, maxBytes: 4 }, ['hello']),
    { code: 'BLOB_SIZE_MISMATCH' },
    'the limit counts whatever was said',
  )
  t.strictSame(readdirSync(join(root, 'staging')), [])
  await batch.commit()
  t.strictSame(readdirSync(join(root, 'blobs')), [])
})

t.test('the first byte too many is refused before it is written', (t) => {
  const { root, store } = open(t)
  const writer = store.batch().begin({ maxBytes: 4 })
  writer.write(Buffer.from('1234'))
  t.throws(() => writer.write(Buffer.from('5')), { code: 'BLOB_SIZE_MISMATCH' })
  const [staged] = readdirSync(join(root, 'staging'))
  t.equal(readFileSync(join(root, 'staging', staged!), 'utf8'), '1234')
  writer.abort()
  writer.abort()
  t.throws(() => writer.write(Buffer.from('5')), { code: 'BLOB_SIZE_MISMATCH' })
  t.throws(() => writer.finish(), { code: 'INTERNAL' }, 'finish after abort is a fault of ours')
  t.end()
})

t.test('sweep removes what a crash left behind, and nothing else', async (t) => {
  const { root, store } = open(t)
  await store.put(HELLO)
  const batch = store.batch()
  batch.put(Buffer.from('staged, then the power went'))
  batch.begin({ maxBytes: 5 }).write(HELLO)
  const again = new BlobStore(root)
  t.equal(again.sweep(), 2)
  t.equal(again.sweep(), 0)
  t.strictSame(readdirSync(join(root, 'staging')), [])
  t.strictSame(again.read(DIGEST, 5), HELLO)
})

t.test('a disk without room is said plainly and leaves nothing', (t) => {
  // A limit on the size of files is what a test can set without privileges; a full disk takes the same way.
  const root = t.testdir()
  const script = `
    import { BlobStore } from ${JSON.stringify(join(import.meta.dirname, '../../storage/blobs.ts'))}
    const batch = new BlobStore(${JSON.stringify(root)}).batch()
    const writer = batch.begin({ maxBytes: 1e6 })
    try { writer.write(Buffer.alloc(100_000)); writer.finish() } catch (error) { process.stdout.write(error.code) }
    batch.discard()`
  const args = [
    '-c',
    'trap "" XFSZ; ulimit -f 64; exec "$0" --input-type=module-typescript -e "$1"',
    process.execPath,
    script,
  ]
  const { stdout, stderr } = spawnSync('sh', args, { encoding: 'utf8' })
  t.equal(stdout, 'SPACE_SHORT', stderr)
  t.strictSame(readdirSync(join(root, 'staging')), [])
  t.end()
})

t.test('bytes reach the disk before their name, and the name before commit ends', (t) => {
  const root = t.testdir()
  const trace = traced(t, root, "await store.put(Buffer.from('hello'))")
  const calls = trace.matchAll(/(fsync|fdatasync|rename)\((?:\d+<)?"?([^">]+)/g)
  const steps = [...calls].map(
    ([, call, path]) => `${call} ${path!.slice(root.length + 1).replace(/[0-9a-f-]{36}/, 'NEW')}`,
  )
  const own = steps.filter((step) => /staging|blobs/.test(step))
  t.strictSame(own, ['fdatasync staging/NEW', 'rename staging/NEW', 'fsync blobs', `fsync blobs/${DIGEST.slice(0, 2)}`])
  t.end()
})

t.test('of a batch, all bytes are on the disk before the first name is', (t) => {
  const root = t.testdir()
  const script = `
    const batch = store.batch()
    for (let i = 0; i < 200; i++) {
      batch.put(Buffer.from(String(i % 150)))
      if (i % 90 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await batch.commit()`
  const trace = traced(t, root, script)
  const before = trace.slice(0, trace.search(/rename\(".*staging/))
  const synced = new Set([...before.matchAll(/fdatasync\(\d+<([^>]+)/g)].map(([, path]) => path!))
  const renamed = [...trace.matchAll(/rename\("([^"]*staging[^"]*)"/g)].map(([, path]) => path!)
  t.equal(renamed.length, 150)
  t.ok(renamed.every((path) => synced.has(path)))
  t.equal(
    [...before.matchAll(/fdatasync(?:\([^\n]*| resumed>\)) += 0/g)].length,
    synced.size,
    'and each sync has ended',
  )
  t.end()
})

t.test('whatever goes in, in whatever pieces, comes out', async (t) => {
  const { store } = open(t)
  const pieces = fc.array(fc.uint8Array({ maxLength: 2000 }), { maxLength: 8 })
  await fc.assert(
    fc.asyncProperty(pieces, async (pieces) => {
      const whole = Buffer.concat(pieces)
      const batch = store.batch()
      const writer = batch.begin({ sha256: sha256Of(whole), bytes: whole.length, maxBytes: whole.length })
      for (const piece of pieces) writer.write(piece)
      writer.finish()
      await batch.commit()
      return store.read(sha256Of(whole), whole.length).equals(whole)
    }),
    { numRuns: 50 },
  )
})

function open(t: Test): { root: string; store: BlobStore } {
  const root = join(t.testdir({ root: {} }), 'root')
  return { root, store: new BlobStore(root) }
}

/** What `script`, run with a `store` in `root`, asks of the system. */
function traced(t: Test, root: string, script: string): string {
  const trace = join(root, 'trace')
  const program = `
    import { BlobStore } from ${JSON.stringify(join(import.meta.dirname, '../../storage/blobs.ts'))}
    const store = new BlobStore(${JSON.stringify(root)})
    ${script}`
  const strace = ['-f', '-y', '-e', 'trace=fsync,fdatasync,rename', '-o', trace]
  const node = [process.execPath, '--input-type=module-typescript', '-e', program]
  const { status, stderr } = spawnSync('strace', [...strace, ...node], { encoding: 'utf8' })
  t.equal(status, 0, stderr)
  return readFileSync(trace, 'utf8')
}
