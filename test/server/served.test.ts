import { pino } from 'pino'
import { Writable } from 'node:stream'
import t, { type Test } from 'tap'
import type { TreePath } from '../../manifests/path.ts'
import type { Tree } from '../../manifests/tree.ts'
import { Served } from '../../server/served.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { makeTree, silent, TestReleases } from '../helpers/content.ts'

const HOUR = 3_600_000
const REPOMD = 'yum/base/repodata/repomd.xml' as TreePath
const ASC = `${REPOMD}.asc` as TreePath
const START = 1_700_000_000_000

/** the next turn of the event loop, in which a change is seen */
const turn = (): Promise<unknown> => new Promise((resolve) => setImmediate(resolve))

async function setUp(t: Test, log = silent) {
  const blobs = new BlobStore(t.testdir())
  const trees: Tree[] = []
  for (const number of [1, 2, 3]) {
    const files = {
      [REPOMD]: { bytes: `repomd ${number}`, kind: 'pointer' as const },
      [ASC]: { bytes: `signature ${number}`, kind: 'companion' as const, of: REPOMD },
      [`yum/base/p-${number}.rpm`]: { bytes: `package ${number}` },
      ...(number === 1 ? { 'old.repo': { bytes: 'old', kind: 'pointer' as const } } : {}),
    }
    trees.push(await makeTree(blobs, files, { number }))
  }
  const releases = new TestReleases()
  const clock = { nowMs: START }
  const served = new Served({ releases, keepPreviousMs: 48 * HOUR, clock: () => clock.nowMs, log })
  const release = async (number: number) => {
    releases.release(trees[number - 1]!, clock.nowMs)
    await turn()
  }
  const read = (path: string, client = 'box'): string => {
    try {
      return blobs.read(served.find('pbx', path as TreePath, client).sha256, 100).toString()
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  /** lets time pass, and with it the turn in which the clock was read */
  const wait = async (ms: number) => {
    clock.nowMs += ms
    await turn()
  }
  return { releases, served, release, read, wait, clock, blobs }
}

t.test('before the first release there is nothing', async (t) => {
  const { read, release, served } = await setUp(t)
  t.equal(read(REPOMD), 'RELEASE_NOTHING')
  t.equal(served.released().size, 0)
  await release(1)
  t.equal(read(REPOMD), 'repomd 1')
  t.equal(served.released().get('pbx')?.number, 1)
})

t.test('a release is seen by the next request', async (t) => {
  const { read, release } = await setUp(t)
  await release(1)
  t.equal(read(REPOMD), 'repomd 1')
  await release(2)
  t.equal(read(REPOMD), 'repomd 2')
  t.equal(read('yum/base/p-2.rpm'), 'package 2')
  t.equal(read('yum/base/p-3.rpm'), 'PATH_UNKNOWN')
})

t.test('immutable paths of a replaced tree stay for keepPreviousHours, counted from being replaced', async (t) => {
  const { read, release, wait } = await setUp(t)
  await release(1)
  await wait(1000 * HOUR)
  await release(2)
  await wait(24 * HOUR)
  await release(3)
  t.equal(read('yum/base/p-1.rpm'), 'package 1')
  t.equal(read('yum/base/p-2.rpm'), 'package 2')
  await wait(24 * HOUR - 1)
  t.equal(read('yum/base/p-1.rpm'), 'package 1')
  await wait(1)
  t.equal(read('yum/base/p-1.rpm'), 'PATH_UNKNOWN', 'also without a release in between')
  t.equal(read('yum/base/p-2.rpm'), 'package 2')
  await wait(24 * HOUR)
  t.equal(read('yum/base/p-2.rpm'), 'PATH_UNKNOWN')
})

t.test('changing files never come from an old tree', async (t) => {
  const { read, release } = await setUp(t)
  await release(1)
  t.equal(read('old.repo'), 'old')
  await release(2)
  t.equal(read('old.repo'), 'PATH_UNKNOWN')
  t.equal(read(ASC), 'signature 2')
})

t.test('a companion comes from the tree in which the same client got its pointer', async (t) => {
  const { read, release, wait } = await setUp(t)
  await release(1)
  t.equal(read(REPOMD, 'a'), 'repomd 1')
  await release(2)
  t.equal(read(ASC, 'a'), 'signature 1')
  t.equal(read(ASC, 'b'), 'signature 2', 'another client gets what is released')
  await release(3)
  t.equal(read(ASC, 'a'), 'signature 1', 'after two releases too')
  await wait(60_000)
  t.equal(read(ASC, 'a'), 'signature 1')
  await wait(1)
  t.equal(read(ASC, 'a'), 'signature 3', 'for a minute')
  t.equal(read(REPOMD, 'a'), 'repomd 3')
  await release(1)
  t.equal(read(REPOMD, 'a'), 'repomd 1')
  t.equal(read(ASC, 'a'), 'signature 1', 'the latest pointer counts')
})

t.test('a companion that the released tree no longer has is still answered to who got its pointer', async (t) => {
  const { read, release, releases, clock, blobs } = await setUp(t)
  await release(1)
  t.equal(read(REPOMD, 'a'), 'repomd 1')
  const bare = await makeTree(blobs, { x: { bytes: 'x' } }, { number: 9 })
  releases.release(bare, clock.nowMs)
  await turn()
  t.equal(read(REPOMD, 'a'), 'PATH_UNKNOWN')
  t.equal(read(ASC, 'a'), 'signature 1')
  t.equal(read(ASC, 'b'), 'PATH_UNKNOWN')
})

t.test('the memory of pairs is bounded: the oldest leave first', async (t) => {
  const { read, release } = await setUp(t)
  await release(1)
  for (let i = 0; i < 10_001; i++) read(REPOMD, `client ${i}`)
  await release(2)
  t.equal(read(ASC, 'client 0'), 'signature 2')
  t.equal(read(ASC, 'client 1'), 'signature 1')
  t.equal(read(ASC, 'client 10000'), 'signature 1')
})

t.test('when the catalogue cannot be read, what was released is served on and the log says so', async (t) => {
  const lines: string[] = []
  const log = pino(new Writable({ write: (chunk, _, done) => (lines.push(String(chunk)), done()) }))
  const { read, release, releases, served, wait } = await setUp(t, log)
  const version = releases.version.bind(releases)
  const broken = (): number => {
    throw new Error('disk I/O error')
  }
  releases.version = broken
  t.throws(() => served.find('pbx', REPOMD, 'a'), /disk I\/O error/, 'nothing was read before')
  releases.version = version
  await release(1)
  t.equal(read(REPOMD), 'repomd 1')
  releases.version = broken
  await turn()
  for (let i = 0; i < 10; i++) {
    t.equal(read(REPOMD), 'repomd 1')
    await turn()
  }
  t.equal(lines.length, 1, 'once, not for each request')
  releases.version = version
  await release(2)
  await wait(5000)
  t.equal(read(REPOMD), 'repomd 2', 'and it recovers')
})
