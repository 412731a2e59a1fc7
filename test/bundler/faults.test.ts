import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Fetcher, makeDispatcher, type RemoteFile } from '../../bundler/fetch.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { randomOf } from '../helpers/crash.ts'
import { startUpstream, type Fault, type Upstream } from '../helpers/upstream.ts'

const SEQUENCES = 200
const MAX_RUNS = 4
/** At a time: most of it is waiting for servers that say nothing. */
const LANES = 20
/** With all that may be tried: `retries` pauses, and progress by each fault. */
const MAX_REQUESTS = 60
const CODES = ['FAILED', 'STATUS', 'TIMEOUT', 'CAPTIVE', 'TOO_LONG', 'SIZE_MISMATCH', 'DIGEST_MISMATCH'] as const
const dispatcher = makeDispatcher()
t.teardown(() => dispatcher.destroy())

/** A whole number below another one; the same row for the same seed. */
function dice(seed: number): (below: number) => number {
  const random = randomOf(seed)
  return (below) => Math.floor(random() * below)
}

type Roll = ReturnType<typeof dice>

function bytesOf(roll: Roll): Buffer {
  const size = [0, 1000, 150_000, 250_000, 300_000, 350_000][roll(6)]! + roll(1000)
  const salt = roll(256)
  return Buffer.alloc(size, Buffer.from(Array.from({ length: 65_521 }, (_, i) => (i * 7 + (i >> 8) + salt) % 251)))
}

/** @param isDeclared  then also faults that nobody could see without a checksum */
function faultOf(roll: Roll, size: number, isDeclared: boolean): Fault {
  const after = roll(size + 1)
  const seen: Fault[] = [
    { kind: 'truncate', after },
    { kind: 'truncate', after },
    { kind: 'reset', after },
    { kind: 'reset', after },
    { kind: 'stall', after },
    { kind: 'unranged' },
    { kind: 'unranged', after },
    { kind: 'deaf' },
    { kind: 'short', bytes: 1 + roll(size + 1) },
    {
      kind: 'range',
      said: ['', 'bytes 0-9/10', `bytes 0-LAST/${size}`, `bytes ${after}-${after}/${size + 1}`][roll(4)]!,
    },
    { kind: 'portal' },
    { kind: 'status', status: [500, 503, 404, 403, 416, 429, 511][roll(7)]!, body: 'error' },
    { kind: 'status', status: 503, headers: { 'retry-after': String(roll(200)) } },
    { kind: 'length', announced: size + 1 + roll(5000) },
    { kind: 'endless' },
    { kind: 'unsized' },
    { kind: 'gzip' },
    { kind: 'hang' },
    { kind: 'drip', bytes: 10, everyMs: 5 },
    { kind: 'redirect', to: '/a?again' },
  ]
  const unseen: Fault[] = [
    { kind: 'babble', after, text: 'Warning: readfile() failed in get.php on line 7' },
    { kind: 'replace', body: 'other bytes' },
    { kind: 'flip', at: Math.min(after, size - 1) },
    { kind: 'length', announced: roll(size + 1) },
  ]
  const faults = isDeclared ? [...seen, ...unseen] : seen
  return { ...faults[roll(faults.length)]!, times: 1 + roll(2) }
}

/** Mostly something after a cut: that is where a beginning is at stake.
 *  @param hasChanged  since the beginning came: then a server that does not notice is what matters */
function faultsOf(
  roll: Roll,
  size: number,
  { isDeclared, hasChanged }: { isDeclared: boolean; hasChanged: boolean },
): Fault[] {
  const first: Fault[] = hasChanged ? [{ kind: 'deaf', times: 1 }] : []
  const rest = Array.from({ length: roll(4) }, (): Fault[] => {
    const cut: Fault = { kind: 'truncate', after: roll(size + 1), times: 1 }
    const end: Fault = { kind: 'status', status: 404, times: 1 }
    return [[cut, end], [cut, faultOf(roll, size, isDeclared)], [faultOf(roll, size, isDeclared)]][roll(3)]!
  })
  return [...first, ...rest.flat()]
}

interface Outcome {
  /** digest, or the code of the error */
  found: string
  requests: number
  total: number
}

async function runOnce(
  root: string,
  upstreams: Upstream[],
  wanted: RemoteFile,
  { roll, isWell }: { roll: Roll; isWell: boolean },
): Promise<Outcome> {
  const store = new BlobStore(root)
  store.sweep()
  store.partials.sweep(Date.now())
  const quick = {
    headersTimeoutMs: 100,
    bodyTimeoutMs: 100,
    rateWindowMs: 100,
    minBytesPerSecond: 20_000,
    maxWaitMs: 60_000,
  }
  const limits = isWell ? {} : quick
  const wait = async (): Promise<void> => {}
  const random = (): number => roll(1000) / 1000
  const fetcher = new Fetcher({ dispatcher, userAgent: 'gapferry/0.0.0', retries: 3, random, wait, ...limits })
  const before = upstreams.reduce((sum, { requests }) => sum + requests.length, 0)
  let total = 0
  const found = await fetcher
    .toBlob(wanted, store, new AbortController().signal, (bytes) => (total += bytes))
    .then(({ sha256 }) => createHash('sha1').update(store.read(sha256, 1e6)).digest('hex'))
    .catch((error: unknown) => {
      if (isGapferryError(error, ...CODES.map((code) => `FETCH_${code}` as const))) return error.code
      throw error
    })
  return { found, total, requests: upstreams.reduce((sum, { requests }) => sum + requests.length, 0) - before }
}

/** What lies in the store and should not. */
function litter(root: string): string[] {
  const partial = readdirSync(root).includes('partial') ? readdirSync(join(root, 'partial')) : []
  const single = partial.filter(
    (name) => !partial.includes(name.endsWith('.note') ? name.slice(0, -5) : `${name}.note`),
  )
  return [...readdirSync(join(root, 'staging')), ...single]
}

/** One sequence to its end. @returns what each run found */
async function play(t: Test, seed: number, { contents, servers }: Lane): Promise<string[]> {
  const roll = dice(seed)
  const root = mkdtempSync(join(tmpdir(), 'gapferry-faults-'))
  const upstreams = servers.slice(0, 1 + roll(3))
  const isDeclared = roll(2) === 0
  const rightOnes = new Set<string>()
  const story: string[] = []
  const kinds: string[] = []
  const offer = (bytes: Buffer): Buffer => {
    rightOnes.add(sha1(bytes))
    for (const one of contents) one.set('/a', bytes)
    return bytes
  }
  let content = offer(bytesOf(roll))
  let hasChanged = false
  const wanted: RemoteFile = {
    urls: upstreams.map(({ url }) => `${url}/a`),
    maxBytes: 400_000,
    what: 'file',
    ...(isDeclared ? { checksum: { algorithm: 'sha1', hex: sha1(content) } } : {}),
    ...(roll(3) === 0 ? { bytes: content.length } : {}),
  }
  for (let run = 1; run <= MAX_RUNS; run++) {
    // The last run meets servers that are well again.
    const isWell = run === MAX_RUNS
    for (const upstream of upstreams) {
      const faults = isWell ? [] : faultsOf(roll, content.length, { isDeclared, hasChanged })
      upstream.fault('/a', ...faults)
      story.push(JSON.stringify(faults))
    }
    const { found, requests, total } = await runOnce(root, upstreams, wanted, { roll, isWell })
    story.push(found)
    const isRight = rightOnes.has(found)
    kinds.push(isRight ? 'right' : found)
    const isSound = (isRight || found.startsWith('FETCH_')) && total === (isRight ? content.length : 0)
    if (!isSound || requests > MAX_REQUESTS || litter(root).length > 0 || (isWell && !isRight)) {
      t.fail(`seed ${seed}, run ${run}`, { found, requests, total, litter: litter(root), wanted, story })
    }
    if (isRight) break
    hasChanged = !isDeclared && wanted.bytes === undefined && roll(4) > 0
    if (hasChanged) content = offer(bytesOf(roll))
  }
  rmSync(root, { recursive: true })
  return kinds
}

function sha1(bytes: Buffer): string {
  return createHash('sha1').update(bytes).digest('hex')
}

interface Lane {
  contents: Map<string, Buffer>[]
  servers: Upstream[]
}

async function laneOf(t: Test): Promise<Lane> {
  const contents = [1, 2, 3].map(() => new Map<string, Buffer>())
  return { contents, servers: await Promise.all(contents.map((content) => startUpstream(t, content))) }
}

t.test(`${SEQUENCES} random sequences of faults: the right bytes or a named error`, async (t) => {
  const seen = new Map<string, number>()
  let seed = 0
  const work = async (): Promise<void> => {
    const lane = await laneOf(t)
    while (seed < SEQUENCES) {
      for (const kind of await play(t, ++seed, lane)) seen.set(kind, (seen.get(kind) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: LANES }, work))
  t.comment(Object.fromEntries(seen))
  t.equal(seen.get('right'), SEQUENCES, 'each ended well, some in a later run')
  t.ok(seen.size >= 5, 'after several kinds of failure')
})
