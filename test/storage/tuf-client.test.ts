/** The cases of the public TUF conformance suite, played over loopback with repositories that our own code signs. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import type { ErrorCode } from '../../manifests/errors.ts'
import { serializeMetadata, type RoleName } from '../../manifests/metadata.ts'
import { run } from '../helpers/process.ts'
import {
  DAY,
  forge,
  makeBundle,
  makeRoot,
  newKey,
  NOW,
  type Loose,
  type SiteKeys,
  type TestKey,
} from '../helpers/site.ts'
import { download, init, refresh } from '../tuf-client/client.ts'

const keys: SiteKeys = { root: [newKey(), newKey()], bundle: [newKey(), newKey()] }
const single: SiteKeys = { root: [keys.root[0]!], bundle: [keys.bundle[0]!] }
const stranger = newKey()
const root1 = makeRoot(single)
const BODY = Buffer.from('a tree')
const TARGETS = new Map([
  ['pbx/current', { sha256: sha256Of(BODY), bytes: BODY.length }],
  ['site', { sha256: sha256Of('site'), bytes: 4 }],
])
const ROLES = ['timestamp', 'snapshot', 'targets'] as const

type Answer = Buffer | ((res: ServerResponse) => void)

interface Repository {
  dir: string
  /** path → bytes, or what answers */
  files: Map<string, Answer>
  asked: string[]
  url: string
  /** what the repository offers from now on */
  offer: (number: number, how?: Parameters<typeof makeBundle>[1] & { keys?: SiteKeys }) => void
  put: (files: Map<string, Answer>) => void
  ok: (nowMs?: number) => Promise<void>
  refuses: (code: ErrorCode, nowMs?: number, timeoutMs?: number) => Promise<void>
  version: (role: RoleName) => number | undefined
}

/** A repository over loopback HTTP, and a client that trusts its root 1. */
async function repository(t: Test): Promise<Repository> {
  const dir = t.testdir({ '1.root.json': root1 })
  const files = new Map<string, Answer>()
  const asked: string[] = []
  const server = createServer((req, res) => {
    const path = decodeURIComponent(req.url!.slice(1))
    asked.push(path)
    const answer = files.get(path)
    if (answer === undefined) res.writeHead(404).end()
    else if (typeof answer === 'function') answer(res)
    else res.writeHead(200).end(answer)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const metadataDir = join(dir, 'state')
  init(metadataDir, join(dir, '1.root.json'))
  const put: Repository['put'] = (more) => {
    for (const [name, bytes] of more) files.set(name, bytes)
  }
  const read = (name: string): Buffer | undefined =>
    existsSync(join(metadataDir, name)) ? readFileSync(join(metadataDir, name)) : undefined
  return {
    ...{ dir, files, asked, url, put },
    offer: (number, { keys: by = single, ...how } = {}) =>
      put(makeBundle(by, { number, targets: TARGETS, roots: [root1], ...how })),
    ok: async (nowMs = NOW) => {
      await refresh({ metadataDir, metadataUrl: url, nowMs })
    },
    refuses: async (code, nowMs = NOW, timeoutMs = 10_000) => {
      const before = ['root', ...ROLES].map((role) => read(`${role}.json`))
      await t.rejects(refresh({ metadataDir, metadataUrl: url, nowMs, timeoutMs }), { code })
      t.same(
        ['root', ...ROLES].map((role) => read(`${role}.json`)),
        before,
        'the trusted state is as it was',
      )
    },
    version: (role) => {
      const bytes = read(`${role}.json`)
      return bytes === undefined ? undefined : JSON.parse(bytes.toString()).signed.version
    },
  }
}

/** Signs one file anew after a change, and what names it, so that only the change itself is wrong. */
function rebuilt(number: number, role: (typeof ROLES)[number], change: (signed: Loose) => void, by = single.bundle) {
  const files = makeBundle(single, { number, targets: TARGETS, roots: [root1] })
  const names = { timestamp: 'timestamp.json', snapshot: `${number}.snapshot.json`, targets: `${number}.targets.json` }
  const name = (of: Buffer): Loose => ({ length: of.length, hashes: { sha256: sha256Of(of) } })
  const resign = (one: (typeof ROLES)[number], signed: (signed: Loose) => void, signers: TestKey[]) =>
    files.set(names[one], forge(files.get(names[one])!, signers, signed))
  resign(role, change, by)
  if (role === 'targets') {
    resign(
      'snapshot',
      (signed) => Object.assign(signed.meta['targets.json'], name(files.get(names.targets)!)),
      single.bundle,
    )
  }
  if (role !== 'timestamp') {
    resign(
      'timestamp',
      (signed) => Object.assign(signed.meta['snapshot.json'], name(files.get(names.snapshot)!)),
      single.bundle,
    )
  }
  return files
}

t.test('the command line: init, refresh, download, and status 1 where one fails', async (t) => {
  const { dir, url, put, files } = await repository(t)
  const now = Date.now()
  const root = makeRoot(single, { expiresAtMs: now + 900 * DAY })
  writeFileSync(join(dir, 'fresh.json'), root)
  put(makeBundle(single, { number: 1, targets: TARGETS, roots: [root], createdAtMs: now - 60_000 }))
  files.set(`targets/pbx/${sha256Of(BODY)}.current`, BODY)
  const main = resolve(import.meta.dirname, '../tuf-client/main.ts')
  const client = async (...args: string[]) => {
    const { status } = await run(process.execPath, [main, '--metadata-dir', 'd', ...args], {
      cwd: dir,
      env: { no_proxy: '*' },
    })
    return status
  }
  t.equal(await client('--metadata-url', url, 'refresh'), 1, 'nothing is trusted yet')
  t.equal(await client('init', 'fresh.json'), 0)
  t.same(readdirSync(join(dir, 'd')), ['root.json'])
  t.equal(await client('--metadata-url', url, 'refresh'), 0)
  t.same(readdirSync(join(dir, 'd')).sort(), ['root.json', 'snapshot.json', 'targets.json', 'timestamp.json'])
  const target = ['--target-base-url', `${url}/targets`, '--target-dir', 'x', '--target-name']
  t.equal(await client('--metadata-url', url, ...target, 'pbx/current', 'download'), 0)
  t.same(readFileSync(join(dir, 'x', 'pbx%2Fcurrent')), BODY)
  t.equal(await client('--metadata-url', url, ...target, 'lab/current', 'download'), 1)
  t.equal(await client('--metadata-url', url, 'refrsh'), 1)
  t.equal(await client('init', 'missing.json'), 1)
})

t.test('init refuses a root that is no root, unsigned, or short of its own threshold', async (t) => {
  const dir = t.testdir()
  const bad: [string, Buffer][] = [
    ['no JSON', Buffer.from('root')],
    ['unsigned', forge(root1, [], () => undefined)],
    ['another signature', forge(root1, [stranger], () => undefined)],
    ['1 of 2', forge(makeRoot({ ...keys, thresholds: { root: 2 } }), [keys.root[0]!], () => undefined)],
    ['another type', makeBundle(single).get('timestamp.json')!],
  ]
  for (const [name, bytes] of bad) {
    writeFileSync(join(dir, 'r.json'), bytes)
    t.throws(() => init(join(dir, 'd'), join(dir, 'r.json')), { code: 'ROOT_INVALID' }, name)
  }
})

t.test('a refresh asks in order, keeps the very bytes, and a second one changes nothing', async (t) => {
  const { ok, offer, asked, files, version, dir } = await repository(t)
  offer(1)
  await ok()
  t.same(asked, ['2.root.json', 'timestamp.json', '1.snapshot.json', '1.targets.json'])
  for (const [role, name] of [
    ['timestamp', 'timestamp.json'],
    ['snapshot', '1.snapshot.json'],
    ['targets', '1.targets.json'],
  ]) {
    t.same(readFileSync(join(dir, 'state', `${role}.json`)), files.get(name!))
  }
  await ok()
  offer(4)
  await ok()
  t.same(
    ['root', ...ROLES].map((role) => version(role as RoleName)),
    [1, 4, 4, 4],
  )
})

t.test(
  'several root rotations at once; none may be skipped, old, unsigned by the one before or misnamed',
  async (t) => {
    const chain: { by: SiteKeys; root: Buffer }[] = [{ by: single, root: root1 }]
    for (let version = 2; version <= 6; version++) {
      const by: SiteKeys = { root: [newKey()], bundle: [newKey()] }
      const signers = [...chain.at(-1)!.by.root, ...by.root]
      chain.push({ by, root: makeRoot(by, { version, signers }) })
    }
    const roots = chain.map(({ root }) => root)
    const last = chain.at(-1)!
    const { ok, offer, refuses, version, files } = await repository(t)
    offer(1)
    await ok()
    offer(2, { keys: last.by, roots })
    files.delete('3.root.json')
    await refuses('ROLE_SIGNATURE')
    for (const [name, wrong] of [
      ['only its own key', forge(roots[2]!, chain[2]!.by.root, () => undefined)],
      ['only the key before', forge(roots[2]!, chain[1]!.by.root, () => undefined)],
      ['a stranger', forge(roots[2]!, [stranger], () => undefined)],
    ] as const) {
      files.set('3.root.json', wrong)
      await refuses('ROLE_SIGNATURE')
      t.pass(name)
    }
    files.set('3.root.json', roots[1]!)
    await refuses('ROLE_INVALID')
    files.set('3.root.json', roots[3]!)
    await refuses('ROLE_INVALID')
    files.set('3.root.json', roots[2]!)
    await ok()
    t.equal(version('root'), 6)
    t.equal(version('timestamp'), 2)
  },
)

t.test('a threshold of two: one signature, the same key twice, one key under two ids', async (t) => {
  const two: SiteKeys = { ...keys, root: single.root, thresholds: { timestamp: 2, snapshot: 2, targets: 2 } }
  const root2 = makeRoot(two, { version: 2, signers: single.root })
  const { ok, offer, refuses, files } = await repository(t)
  const roots = [root1, root2]
  const names = { timestamp: 'timestamp.json', snapshot: '1.snapshot.json', targets: '1.targets.json' }
  for (const role of ROLES) {
    offer(1, { keys: two, roots })
    const doc = JSON.parse((files.get(names[role]) as Buffer).toString())
    files.set(names[role], serializeMetadata({ ...doc, signatures: doc.signatures.slice(0, 1) }))
    await refuses('ROLE_SIGNATURE')
    files.set(names[role], serializeMetadata({ ...doc, signatures: [doc.signatures[0], doc.signatures[0]] }))
    await refuses('ROLE_INVALID')
  }
  offer(1, { keys: two, roots })
  const twice = forge(root2, single.root, (signed) => {
    const [id] = signed.roles.timestamp.keyids
    const fake = id.replace(/^./, (c: string) => (c === '0' ? '1' : '0'))
    signed.keys[fake] = signed.keys[id]
    signed.roles.timestamp.keyids = [id, fake]
  })
  files.set('2.root.json', twice)
  await refuses('ROLE_KEYID')
  offer(1, { keys: two, roots })
  await ok()
})

t.test('each role: unsigned, by a stranger, another type, not there, expired', async (t) => {
  for (const role of ROLES) {
    const repo = await repository(t)
    const { ok, refuses, put, files, offer } = repo
    offer(1)
    await ok()
    put(rebuilt(2, role, () => undefined, []))
    await refuses('ROLE_SIGNATURE')
    put(rebuilt(2, role, () => undefined, [stranger]))
    await refuses('ROLE_SIGNATURE')
    put(rebuilt(2, role, (signed) => Object.assign(signed, { _type: 'root' })))
    await refuses('ROLE_INVALID')
    put(rebuilt(2, role, (signed) => (signed.expires = '2026-11-22T12:00:00Z')))
    await refuses(role === 'timestamp' ? 'ROLE_INVALID' : 'ROLE_EXPIRED')
    offer(2)
    files.delete(role === 'timestamp' ? 'timestamp.json' : `2.${role}.json`)
    await refuses('ROLE_MIXED')
  }
})

t.test('expiry: of the repository, of the root, and of what the client kept', async (t) => {
  const { ok, refuses, offer, version } = await repository(t)
  offer(1)
  await refuses('ROLE_EXPIRED', NOW + 401 * DAY)
  await ok()
  await refuses('ROLE_EXPIRED', NOW + 401 * DAY)
  offer(2, { createdAtMs: NOW + 400 * DAY })
  await ok(NOW + 401 * DAY)
  t.equal(version('timestamp'), 2, 'what was kept may be over')
  await refuses('ROLE_EXPIRED', NOW + 1900 * DAY)
  const root2 = makeRoot(single, { version: 2, expiresAtMs: NOW + 4000 * DAY })
  offer(3, { roots: [root1, root2], createdAtMs: NOW + 1900 * DAY })
  await ok(NOW + 1901 * DAY)
  t.equal(version('root'), 2, 'the root that was kept may be over when a newer one is there')
})

t.test('rollback of all, and of each role alone', async (t) => {
  const { ok, refuses, offer, put, files } = await repository(t)
  offer(5)
  await ok()
  offer(4)
  await refuses('ROLE_ROLLBACK')
  const old = makeBundle(single, { number: 4, targets: TARGETS, roots: [root1] })
  for (const role of ['snapshot', 'targets'] as const) {
    offer(6)
    files.set(`6.${role}.json`, old.get(`4.${role}.json`)!)
    await refuses('ROLE_MIXED')
  }
  put(rebuilt(6, 'timestamp', (signed) => (signed.meta['snapshot.json'].version = 4)))
  await refuses('ROLE_INVALID')
  put(rebuilt(6, 'snapshot', (signed) => (signed.meta['targets.json'].version = 4)))
  await refuses('ROLE_INVALID')
  offer(5, { createdAtMs: NOW + 1000 })
  await refuses('ROLE_CONFLICT')
  offer(6)
  await ok()
})

t.test('fast-forward recovery: new keys for one role, and numbers may start lower again', async (t) => {
  for (const role of ROLES) {
    const { ok, refuses, offer, put, version } = await repository(t)
    offer(99_999)
    await ok()
    offer(2)
    await refuses('ROLE_ROLLBACK')
    const fresh = newKey()
    const root2 = forge(makeRoot(single, { version: 2 }), single.root, (signed) => {
      signed.keys[fresh.keyid] = fresh.key
      signed.roles[role].keyids = [fresh.keyid]
    })
    put(rebuilt(2, role, () => undefined, [fresh]))
    put(new Map([['2.root.json', root2]]))
    await ok()
    t.same([version('root'), version(role)], [2, 2], role)
  }
})

t.test('what the file above names must be the very file: hash, length, version', async (t) => {
  const { refuses, put, ok, offer } = await repository(t)
  for (const change of [
    (named: Loose) => (named.hashes.sha256 = '0'.repeat(64)),
    (named: Loose) => (named.length += 1),
    (named: Loose) => (named.length -= 1),
  ]) {
    put(rebuilt(1, 'timestamp', (signed) => change(signed.meta['snapshot.json'])))
    await refuses('ROLE_MIXED')
    put(rebuilt(1, 'snapshot', (signed) => change(signed.meta['targets.json'])))
    await refuses('ROLE_MIXED')
  }
  put(rebuilt(1, 'timestamp', (signed) => delete signed.meta['snapshot.json'].hashes))
  await refuses('ROLE_INVALID')
  offer(1)
  await ok()
})

t.test('a generic repository is refused by profile, each difference by its own', async (t) => {
  const { refuses, put, ok } = await repository(t)
  put(rebuilt(1, 'targets', (signed) => (signed.delegations = { keys: {}, roles: [] })))
  await refuses('ROLE_DELEGATED')
  put(rebuilt(1, 'timestamp', (signed) => delete signed['x-site']))
  await refuses('ROLE_INVALID')
  put(rebuilt(1, 'timestamp', (signed) => delete signed['x-created']))
  await refuses('ROLE_INVALID')
  put(rebuilt(1, 'timestamp', (signed) => (signed.custom = 1)))
  await refuses('ROLE_INVALID')
  put(rebuilt(1, 'targets', (signed) => (signed.targets['any/file.txt'] = signed.targets.site)))
  await refuses('ROLE_INVALID')
  put(rebuilt(1, 'snapshot', (signed) => (signed['x-later'] = 'a newer laptop may say more')))
  await ok()
})

t.test('signatures by keys that the role does not have harm nothing beside good ones', async (t) => {
  const { ok, put } = await repository(t)
  put(rebuilt(1, 'timestamp', () => undefined, [stranger, ...single.bundle]))
  await ok()
})

t.test('data without end, and answers that never come, are bounded', async (t) => {
  const { refuses, offer, files, ok, version } = await repository(t)
  offer(1)
  await ok()
  const endless = (res: ServerResponse): void => {
    let sent = 0
    res.writeHead(200)
    const more = (): void => {
      // A client that reads on would get a gigabyte.
      while (!res.destroyed && sent < 2 ** 30) {
        sent += 65_536
        if (!res.write(Buffer.alloc(65_536, 0x20))) return void res.once('drain', more)
      }
      if (!res.destroyed) res.end()
    }
    more()
  }
  const silent = (res: ServerResponse): void => void res.writeHead(200).write('{')
  for (const name of ['2.root.json', 'timestamp.json', '2.snapshot.json', '2.targets.json']) {
    offer(2)
    files.delete('2.root.json')
    files.set(name, endless)
    await refuses('FETCH_TOO_LONG')
    files.set(name, silent)
    await refuses('FETCH_TIMEOUT', NOW, 60)
    files.set(name, (res) => void res.writeHead(500).end())
    await refuses('FETCH_STATUS')
    files.set(name, (res) => void res.destroy())
    await refuses('FETCH_FAILED')
  }
  offer(2)
  files.delete('2.root.json')
  await ok()
  t.equal(version('timestamp'), 2)
})

t.test("targets: by their digest's name, of their length and digest, once", async (t) => {
  const { offer, files, dir, url, asked } = await repository(t)
  offer(1)
  const name = `targets/pbx/${sha256Of(BODY)}.current`
  const get = (targetName = 'pbx/current') =>
    download({
      ...{ metadataDir: join(dir, 'state'), metadataUrl: url, nowMs: NOW, timeoutMs: 10_000 },
      ...{ targetName, targetBaseUrl: `${url}/targets`, targetDir: join(dir, 'got') },
    })
  await t.rejects(get(), { code: 'FETCH_STATUS' })
  files.set('targets/pbx/current', BODY)
  await t.rejects(get(), { code: 'FETCH_STATUS' }, 'the plain name is never asked for')
  files.set(name, BODY.subarray(1))
  await t.rejects(get(), { code: 'FETCH_SIZE_MISMATCH' })
  files.set(name, Buffer.concat([BODY, BODY]))
  await t.rejects(get(), { code: 'FETCH_TOO_LONG' })
  files.set(name, Buffer.from(BODY.toString().toUpperCase()))
  await t.rejects(get(), { code: 'FETCH_DIGEST_MISMATCH' })
  t.notOk(existsSync(join(dir, 'got')), 'nothing of them is kept')
  files.set(name, BODY)
  const file = await get()
  t.same(readFileSync(file), BODY)
  asked.length = 0
  await get()
  t.notOk(asked.includes(name), 'what is there is not asked for again')
  await t.rejects(get('nothing'), { code: 'PATH_UNKNOWN' })
  mkdirSync(join(dir, 'other'))
  const newer = Buffer.from('another')
  offer(2, { targets: new Map([...TARGETS, ['pbx/current', { sha256: sha256Of(newer), bytes: newer.length }]]) })
  files.set(`targets/pbx/${sha256Of(newer)}.current`, newer)
  t.same(readFileSync(await get()), newer, 'a target that changed is fetched anew')
})
