/** Releasing: 5,000 and 20,000 paths, few and many kept bundles, with and without 64 clients that are served meanwhile. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { parseTreePath } from '../../manifests/path.ts'
import { serializeTree, TREE_ROLES, type TreeEntry, type TreeRole } from '../../manifests/tree.ts'
import { Releases } from '../../storage/releases.ts'
import { makeStore, pretendVerified, type TestStore } from '../helpers/mirror.ts'
import { mustRun } from '../helpers/process.ts'
import { remove } from './folders.ts'
import { median, notInstalled, round, type Metric } from './measure.ts'
import { startMirror, stopMirror } from './mirror.ts'

const PATHS = 5_000
const MANY_PATHS = 20_000
const KEPT = 50
const RELEASES = 7
const CLIENTS = 64
const BETWEEN_MS = 800
const GROUP = 'boxes'

export async function* releaseMetrics(work: string): AsyncGenerator<Metric> {
  const dir = join(work, 'release')
  const few = storeOf(join(dir, 'few'), PATHS, RELEASES)
  const many = storeOf(join(dir, 'many'), PATHS, KEPT + RELEASES)
  const large = storeOf(join(dir, 'large'), MANY_PATHS, RELEASES)
  try {
    const [ofFew, ofMany, ofLarge]: [Time[], Time[], Time[]] = [[], [], []]
    for (let i = 0; i < RELEASES; i++) {
      ofFew.push(release(few, i + 1))
      ofMany.push(release(many, KEPT + i + 1))
      ofLarge.push(release(large, i + 1))
    }
    yield metric('release', ofFew, '<= 150 ms')
    yield metric('release-50-bundles', ofMany, '<= 1.2', { times: ofFew, against: `${RELEASES} bundles kept` })
    yield metric('release-20000-paths', ofLarge, '', { times: ofFew, against: `${PATHS} paths` })
    if ((await notInstalled(['wrk'])).length > 0) console.error('release-64-clients: wrk is not installed: left out')
    else yield metric('release-64-clients', await underLoad(join(dir, 'served')), '') // three programs share the processors
  } finally {
    for (const { catalog } of [few, many, large]) catalog.close()
    remove(dir)
  }
}

/** A store with `bundles` bundles, each with current, previous and return trees of all paths; nothing is released. */
function storeOf(dir: string, paths: number, bundles: number): TestStore {
  const store = makeStore(dir)
  store.catalog.pin({ site: 'hq', root: Buffer.from('root 1'), nowMs: Date.now() })
  const blobs = Array.from({ length: paths }, (_, i) => put(store, Buffer.from(`package ${i}`)))
  for (let number = 1; number <= bundles; number++) {
    const trees = TREE_ROLES.map(
      (role, i) => [`${GROUP}/${role}`, treeOf(blobs, number, role, number * 10 + i)] as const,
    )
    const targets = new Map(trees.map(([name, bytes]) => [name, { sha256: put(store, bytes), bytes: bytes.length }]))
    store.catalog.adopt(pretendVerified({ number, targets }), Date.now())
  }
  return store
}

/** Not durable: the bench asks how fast a release is, not how fast a store is filled. */
function put({ blobs }: TestStore, bytes: Buffer): Sha256 {
  const sha256 = sha256Of(bytes)
  mkdirSync(dirname(blobs.pathOf(sha256)), { recursive: true })
  writeFileSync(blobs.pathOf(sha256), bytes)
  return sha256
}

function treeOf(blobs: Sha256[], number: number, role: TreeRole, stamp: number): Buffer {
  const entries = blobs.map((sha256, i): [ReturnType<typeof parseTreePath>, TreeEntry] => {
    const path = parseTreePath(`yum/base/Packages/package-${String(i).padStart(5, '0')}-1.0-1.x86_64.rpm`, 'bench')
    const source = `http://upstream.example/base/${path}`
    const bytes = Buffer.byteLength(`package ${i}`)
    return [path, { sha256, bytes, modified: 1_700_000_000, type: 'application/x-rpm', kind: 'immutable', source }]
  })
  const stamps = new Map([['base', stamp]])
  return serializeTree({ site: 'hq', group: GROUP, role, number, stamps, entries: new Map(entries) })
}

/** Milliseconds of one release. */
interface Time {
  wall: number
  cpu: number
}

/** One release by a process that has read nothing yet. */
function release({ catalog, blobs }: TestStore, number: number): Time {
  const releases = new Releases(catalog, blobs)
  const [start, before] = [performance.now(), process.cpuUsage()]
  releases.release({ number, nowMs: Date.now() })
  const { user, system } = process.cpuUsage(before)
  return { wall: performance.now() - start, cpu: (user + system) / 1000 }
}

async function underLoad(dir: string): Promise<Time[]> {
  const store = storeOf(dir, PATHS, KEPT + RELEASES)
  release(store, KEPT)
  const config = join(dir, 'mirror.yaml')
  const settings = ['apiVersion: gapferry/v1', 'kind: Mirror', 'admin: { listen: 127.0.0.1:0 }']
  writeFileSync(config, [...settings, `origins: [{ group: ${GROUP}, listen: 127.0.0.1:0 }]`, ''].join('\n'))
  const mirror = await startMirror(config)
  const url = `${mirror.origin}/yum/base/Packages/package-00000-1.0-1.x86_64.rpm`
  const times: Time[] = []
  const load = mustRun('wrk', ['-t1', `-c${CLIENTS}`, `-d${RELEASES}s`, url])
  try {
    for (let i = 1; i < RELEASES; i++) {
      await wait(BETWEEN_MS)
      times.push(release(store, KEPT + i))
    }
  } finally {
    const { stdout } = await load
    await stopMirror(mirror)
    store.catalog.close()
    if (/Non-2xx|Socket errors/.test(stdout))
      console.error(`release-64-clients: the mirror did not answer well:\n${stdout}`)
  }
  return times
}

function metric(name: string, times: Time[], goal: string, beside?: { times: Time[]; against: string }): Metric {
  const of = (figure: keyof Time, list: Time[]): number => round(median(list.map((time) => time[figure])))
  const ratioOf = (figure: keyof Time): number =>
    round(median(times.map((time, i) => time[figure] / beside!.times[i]![figure])))
  return {
    metric: name,
    ours: of('wall', times),
    peer: beside === undefined ? null : of('wall', beside.times),
    ratio: beside === undefined ? null : ratioOf('wall'),
    goal,
    unit: 'ms',
    pairs: times.length,
    cpuMs: of('cpu', times),
    ...(beside === undefined ? {} : { against: beside.against, wallRatio: ratioOf('wall'), cpuRatio: ratioOf('cpu') }),
  }
}
