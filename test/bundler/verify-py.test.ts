import { generateKeyPairSync } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { serializePartHint } from '../../manifests/part-hint.ts'
import type { TreePath } from '../../manifests/path.ts'
import { roleKey } from '../../manifests/role-key.ts'
import type { Tree } from '../../manifests/tree.ts'
import {
  archive,
  partEntries,
  sampleBundle,
  sampleKeys,
  sampleRoot,
  ustarHeader,
  type RawEntry,
  type SampleBundle,
} from '../helpers/part.ts'
import { run, type Outcome } from '../helpers/process.ts'
import { DAY, flip, forge, makeBundle, makeRoot, newKey, NOW, type Loose, type SiteKeys } from '../helpers/site.ts'

const SCRIPT = join(import.meta.dirname, '../../bundler/verify.py')
const SPKI = { type: 'spki', format: 'pem' } as const
const dir = t.testdir({ tmp: {} })
const pythons = ['python3', ...(await python2())]
if (pythons.length === 1) t.comment('no python 2.7 on this machine: verify.py was run under python 3 only')
else t.comment(`verify.py is run under python 3 and ${pythons[1]}`)

const FILES = { 'a.txt': 'alpha', 'b/c.bin': Buffer.alloc(3000, 7), 'yum/base/repodata/repomd.xml': '<repomd/>' }
const good = sampleBundle({ number: 7, files: FILES })
const rootFile = write('ROOT.json', sampleRoot)
const whole = write('hq-7.tar', archive(partEntries(good)))

for (const python of pythons) {
  t.test(python, async (t) => {
    const verify = verifier(python)

    t.test('accepts a whole bundle, writes nothing beside it and leaves nothing behind', async (t) => {
      const before = readdirSync(dir)
      const { status, stdout, stderr } = await verify(rootFile, whole)
      t.equal(stderr, '')
      t.match(stdout, `root 1 of site hq, sha256 ${sha256Of(sampleRoot)}`)
      t.match(stdout, 'bundle 7 of site hq: made 2026-11-22T12:00:00Z, expires 2027-12-27T12:00:00Z')
      t.match(stdout, /genuine: 2 trees, 3 blobs of 3014 bytes\nwhole\n/)
      t.equal(status, 0)
      t.strictSame(readdirSync(dir), before)
      t.strictSame(readdirSync(join(dir, 'tmp')), [])
    })

    t.test(
      'counts several parts together, each verifies alone, and names what is missing and where it is',
      async (t) => {
        const [one, two] = twoParts(good)
        t.match(await verify(rootFile, one, two), { status: 0, stdout: /3 blobs of 3014 bytes\nwhole/ })
        t.match(await verify(rootFile, two, one), { status: 0 })
        const half = await verify(rootFile, one)
        t.equal(half.status, 4)
        const last = [...good.blobs.keys()].sort().at(-1)!
        const path = Object.entries(FILES).find(([, bytes]) => sha256Of(bytes) === last)![0]
        t.match(half.stdout, `MISSING: ${path} (blobs/${last}, look in hq-7-2of2.tar)`)
        t.match(half.stdout, 'INCOMPLETE: 1 required blobs')
      },
    )

    t.test('tells two bundles on one stick apart', async (t) => {
      const later = write('hq-8.tar', archive(partEntries(sampleBundle({ number: 8 }))))
      const { status, stdout } = await verify(rootFile, later, whole)
      t.equal(status, 0)
      t.match(stdout, /bundle 7 of site hq[^]*whole[^]*bundle 8 of site hq[^]*whole/)
    })

    t.test('blobs that only going back needs may be missing, pointers may not', async (t) => {
      const previous = { 'old.rpm': 'old', 'yum/base/repodata/repomd.xml': '<repomd>before</repomd>' }
      const bundle = sampleBundle({ number: 7, files: FILES, previous })
      const leave = (text: string) =>
        write('left.tar', archive(partEntries(bundle).filter(({ name }) => name !== `blobs/${sha256Of(text)}`)))
      t.match(await verify(rootFile, leave('old')), { status: 0, stdout: /whole; 1 blobs are not there/ })
      t.match(await verify(rootFile, leave(previous['yum/base/repodata/repomd.xml'])), { status: 4 })
    })

    t.test('an expired bundle is a warning', async (t) => {
      const old = makeRoot(sampleKeys, { expiresAtMs: Date.UTC(2021, 0, 1) })
      const metadata = makeBundle(sampleKeys, {
        number: 7,
        targets: targetsOf(good),
        roots: [old],
        createdAtMs: Date.UTC(2020, 0, 1),
      })
      const file = write('expired.tar', archive(partEntries({ ...good, metadata })))
      const { status, stderr } = await verify(write('OLD.json', old), file)
      t.equal(status, 0)
      t.match(stderr, /warning: root 1 expired 2021-01-01T00:00:00Z/)
      t.match(stderr, /warning: bundle 7 expired 2021-02-04T00:00:00Z/)
      t.equal(stderr.match(/warning/g)?.length, 2, 'said once')
    })

    t.test('follows a chain of roots to RSA keys and thresholds of two', async (t) => {
      const { root1, chain, file } = rotated()
      t.match(await verify(write('R1.json', root1), file()), { status: 0, stdout: /root 1 of site hq/ })
      t.match(await verify(write('R2.json', chain[1]!), file()), { status: 0, stdout: /root 2 of site hq/ })
      const refused = (what: string, tar: string, root = root1, message?: RegExp) =>
        refuses(t, verify, write('R.json', root), tar, what, message)
      await refused('a gap', file([chain[0]!, undefined, chain[2]!]), root1, /root 2 before it is not there/)
      await refused('a root that its own threshold did not sign', file([chain[0]!, chain[4]!]))
      await refused('a root that the one before did not sign', file([chain[0]!, chain[3]!]))
      await refused('the old keys after a rotation', whole, chain[1])
      await refused('one signature where two are needed', file(chain.slice(0, 3), 1))
    })

    t.test('refuses what the root did not sign', async (t) => {
      const stranger: SiteKeys = { root: [newKey()], bundle: [newKey()] }
      const lab = makeRoot(sampleKeys, { site: 'lab' })
      await refuses(t, verify, write('S.json', makeRoot(stranger)), whole, 'another root')
      await refuses(t, verify, write('S.json', lab), whole, 'another site', /expected site lab, found site hq/)
      await refuses(
        t,
        verify,
        write('S.json', makeRoot(sampleKeys, { signers: stranger.root })),
        whole,
        'an unsigned root',
      )
      for (const text of [
        '',
        'hello',
        '{}',
        '[]',
        '{"signed":{},"signatures":[]}',
        '\xff'.repeat(10),
        '['.repeat(100_000),
      ])
        await refuses(t, verify, write('S.json', Buffer.from(text, 'latin1')), whole, `no root: ${text.slice(0, 20)}`)
    })

    t.test('refuses keys that are not what they are called, and delegations', async (t) => {
      const spare = newKey()
      const keyid = sampleKeys.bundle[0]!.keyid
      const wrongId = forge(sampleRoot, sampleKeys.root, (signed: Loose) => void (signed.keys[keyid] = spare.key))
      await refuses(
        t,
        verify,
        write('K.json', wrongId),
        whole,
        'an id that is not the digest',
        /its id is not its sha256/,
      )
      const high = forge(sampleRoot, sampleKeys.root, (signed: Loose) => void (signed.roles.targets.threshold = 2))
      await refuses(t, verify, write('K.json', high), whole, 'a threshold that cannot be met', /threshold/)
      const zero = forge(sampleRoot, sampleKeys.root, (signed: Loose) => void (signed.roles.targets.threshold = 0))
      await refuses(t, verify, write('K.json', zero), whole, 'no threshold')
      const p384 = roleKey(
        'ecdsa',
        generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export(SPKI).toString(),
      )
      const strange = forge(sampleRoot, sampleKeys.root, (signed: Loose) => void (signed.keys[p384.keyid] = p384.key))
      await refuses(t, verify, write('K.json', strange), whole, 'another curve', /expected ECDSA P-256 or RSA-PSS/)
      const twin = { ...sampleKeys.bundle[0]!.key, note: 'the same key' }
      const twice = forge(sampleRoot, sampleKeys.root, (signed: Loose) => {
        signed.keys[sha256Of(canonicalJson(twin))] = twin
      })
      await refuses(t, verify, write('K.json', twice), whole, 'one key under two ids', /under two ids/)
      const counted = forge(sampleRoot, sampleKeys.root, (signed: Loose) => {
        signed.roles.targets = { keyids: [keyid, keyid], threshold: 2 }
      })
      await refuses(t, verify, write('K.json', counted), whole, 'one id counted twice', /a key id twice/)
      const delegating = signedAgain({ targets: (signed) => void (signed.delegations = {}) })
      await refuses(t, verify, rootFile, delegating, 'delegations', /delegations/)
    })

    t.test('refuses mixed metadata', async (t) => {
      const other = sampleBundle({ number: 8 })
      const mixed = (changes: [string, Buffer][], rename: Record<string, string> = {}) => {
        const metadata = new Map([...good.metadata].map(([name, bytes]) => [rename[name] ?? name, bytes]))
        for (const [name, bytes] of changes) metadata.set(name, bytes)
        return write('mixed.tar', archive(partEntries({ ...good, metadata })))
      }
      await refuses(
        t,
        verify,
        rootFile,
        mixed([['timestamp.json', other.metadata.get('timestamp.json')!]]),
        'a newer timestamp',
      )
      await refuses(
        t,
        verify,
        rootFile,
        mixed([['7.snapshot.json', other.metadata.get('8.snapshot.json')!]]),
        'a newer snapshot',
      )
      await refuses(
        t,
        verify,
        rootFile,
        mixed([['7.targets.json', other.metadata.get('8.targets.json')!]]),
        'newer targets',
      )
      await refuses(
        t,
        verify,
        rootFile,
        mixed([], { '7.targets.json': '6.targets.json' }),
        'a name with another number',
      )
      const wrongLength = signedAgain({ timestamp: (signed) => void (signed.meta['snapshot.json'].length += 1) })
      await refuses(t, verify, rootFile, wrongLength, 'a length that does not fit', /is not the one/)
      const twin = makeBundle(sampleKeys, {
        number: 7,
        targets: targetsOf(good),
        roots: [sampleRoot],
        createdAtMs: NOW + DAY,
      })
      const apart = write('apart.tar', archive(partEntries({ ...good, metadata: twin })))
      t.match(await verify(rootFile, whole, apart), { status: 3, stderr: /signed apart/ })
    })

    t.test('refuses trees that are about something else', async (t) => {
      const changed = (change: (tree: Tree) => void) =>
        write(
          'tree.tar',
          archive(partEntries(sampleBundle({ number: 7, files: FILES, change: ({ tree }) => change(tree) }))),
        )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.number = 8)),
        'a number',
        /expected number 7, found 8/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.site = 'lab')),
        'a site',
        /expected site hq, found lab/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.group = 'x')),
        'a group',
        /expected group pbx, found x/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.role = 'return')),
        'a role',
        /expected role current/,
      )
      const longer = changed(({ entries }) => void (entries.get('a.txt' as TreePath)!.bytes += 1))
      await refuses(t, verify, rootFile, longer, 'a size', /expected 6 bytes, found 5/)
      const current = new Map([...targetsOf(good)].filter(([name]) => name !== 'site'))
      const trees = new Map([...good.trees].filter(([digest]) => digest === current.get('pbx/current')!.sha256))
      const metadata = makeBundle(sampleKeys, { number: 7, targets: current, roots: [sampleRoot] })
      const factless = write('tree.tar', archive(partEntries({ ...good, metadata, trees })))
      await refuses(t, verify, rootFile, factless, 'no site facts', /target site: is not there/)
    })

    t.test('refuses a changed bit in every kind of entry', async (t) => {
      const entries = partEntries(good)
      for (const [i, { name, body }] of entries.entries()) {
        if (name === 'part.json' || name.endsWith('root.json')) continue
        const altered = entries.with(i, { name, body: flip(body, body.length >> 1, 2) })
        await refuses(t, verify, rootFile, write('flipped.tar', archive(altered)), name)
      }
    })

    t.test('refuses every archive that is not as it should be', async (t) => {
      for (const [what, bytes, message] of hostile(good))
        await refuses(t, verify, rootFile, write('hostile.tar', bytes), what, message)
    })

    t.test('a hint that lies or is nonsense decides nothing', async (t) => {
      const entries = partEntries(good)
      for (const parts of ['5', 'null', '[5,{}]', '[{"first":1,"last":2}]', '{"a":1}']) {
        const hinted = entries.flatMap((entry) => {
          if (entry.name.startsWith('blobs/')) return []
          return entry.name === 'part.json' ? { name: 'part.json', body: Buffer.from(`{"parts":${parts}}`) } : entry
        })
        t.match(
          await verify(rootFile, write('hint.tar', archive(hinted))),
          { status: 4, stdout: /INCOMPLETE: 3/ },
          parts,
        )
      }
    })

    t.test('usage', async (t) => {
      for (const args of [[], [rootFile], ['--help'], [join(dir, 'absent'), whole], [rootFile, join(dir, 'absent')]]) {
        t.match(await run(python, [SCRIPT, ...args], { env: { TMPDIR: join(dir, 'tmp') } }), { status: 2 })
      }
      t.match(await verify(rootFile, dir), { status: 2 }, 'a folder')
      t.match(await verify(rootFile, '/dev/null'), { status: 3, stderr: /is not a plain file/ })
      const { stdout } = await run(python, ['-c', 'import sys; print(sys.executable)'])
      const noTools = { TMPDIR: join(dir, 'tmp'), PATH: join(dir, 'tmp') }
      const none = await run(stdout.trim(), [SCRIPT, rootFile, whole], { env: noTools })
      t.match(none, { status: 2, stderr: /cannot go on: .*openssl|No such file/ }, 'no openssl command')
    })
  })
}

type Verify = (root: string, ...files: string[]) => Promise<Outcome>

async function refuses(t: Test, verify: Verify, root: string, file: string, what: string, message = /^REFUSED: /) {
  const outcome = await verify(root, file)
  t.match(outcome, { status: 3, stderr: message }, what)
  t.notMatch(outcome.stderr, /Traceback/, what)
}

function verifier(python: string): Verify {
  return (root, ...files) => run(python, [SCRIPT, root, ...files], { env: { TMPDIR: join(dir, 'tmp') } })
}

/** A python 2.7, where this machine has one: Debian 12 does not. */
async function python2(): Promise<string[]> {
  const pyenv = process.env['PYENV_ROOT'] ?? join(homedir(), '.pyenv')
  const candidates = ['python2.7', ...globSync(join(pyenv, 'versions/2.7.*/bin/python2.7'))]
  for (const python of candidates) {
    const isThere = !python.includes('/') || existsSync(python)
    const found = isThere
      ? await run(python, ['-c', 'import sys; sys.exit(sys.version_info[:2] != (2, 7))']).catch(() => undefined)
      : undefined
    if (found?.status === 0) return [python]
  }
  return []
}

function write(name: string, bytes: Uint8Array): string {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, name), bytes)
  return join(dir, name)
}

function digestOf(entry: RawEntry): Sha256 {
  return entry.name.slice('blobs/'.length) as Sha256
}

/** The last blob in a part of its own. */
function twoParts(bundle: SampleBundle): [string, string] {
  const entries = partEntries(bundle)
  const blobs = entries.filter(({ name }) => name.startsWith('blobs/'))
  const parts = [blobs.slice(0, -1), blobs.slice(-1)]
  const ranges = parts.map((part) => ({ first: digestOf(part[0]!), last: digestOf(part.at(-1)!) }))
  const [one, two] = parts.map((part, i) => {
    const hint = serializePartHint({ site: bundle.site, number: bundle.number, part: i + 1, parts: ranges })
    const head = entries.filter(({ name }) => !name.startsWith('blobs/'))
    const hinted = head.map((entry) => (entry.name === 'part.json' ? { ...entry, body: hint } : entry))
    return write(`hq-7-${i + 1}of2.tar`, archive([...hinted, ...part]))
  })
  return [one!, two!]
}

function targetsOf({ metadata, number }: SampleBundle): Map<string, { sha256: Sha256; bytes: number }> {
  const { signed } = JSON.parse(metadata.get(`${number}.targets.json`)!.toString())
  return new Map(
    Object.entries<Loose>(signed.targets).map(([name, { hashes, length }]) => [
      name,
      { sha256: hashes.sha256, bytes: length },
    ]),
  )
}

/** The good bundle with its files changed and signed again, each naming the one below. */
function signedAgain(changes: Partial<Record<'targets' | 'snapshot' | 'timestamp', (signed: Loose) => void>>): string {
  const metadata = new Map(good.metadata)
  let below: Loose
  for (const [role, name] of [
    ['targets', '7.targets.json'],
    ['snapshot', '7.snapshot.json'],
    ['timestamp', 'timestamp.json'],
  ] as const) {
    const bytes = forge(metadata.get(name)!, sampleKeys.bundle, (signed: Loose) => {
      if (below !== undefined) Object.assign(Object.values<Loose>(signed.meta)[0], below)
      changes[role]?.(signed)
    })
    below = { length: bytes.length, hashes: { sha256: sha256Of(bytes) } }
    metadata.set(name, bytes)
  }
  return write('again.tar', archive(partEntries({ ...good, metadata })))
}

/** Roots 1 → 2 (RSA, two of two) → 3; `chain[3]` is a root 2 that root 1 did not sign, `chain[4]` one that lacks C. */
function rotated() {
  const [a, b, c] = [newKey(), newKey(), newKey('rsa')]
  const keys1: SiteKeys = { root: [a], bundle: [newKey()] }
  const keys2: SiteKeys = {
    root: [b, c],
    bundle: [newKey('rsa'), newKey()],
    thresholds: { root: 2, targets: 2, snapshot: 2, timestamp: 2 },
  }
  const root1 = makeRoot(keys1)
  const chain = [
    root1,
    makeRoot(keys2, { version: 2, signers: [a, b, c] }),
    makeRoot(keys2, { version: 3 }),
    makeRoot(keys2, { version: 2, signers: [b, c] }),
    makeRoot(keys2, { version: 2, signers: [a, b] }),
  ]
  const file = (roots: (Buffer | undefined)[] = chain.slice(0, 3), signers = 2) => {
    const metadata = makeBundle(
      { ...keys2, bundle: keys2.bundle.slice(0, signers) },
      { number: 7, targets: targetsOf(good) },
    )
    for (const [i, root] of roots.entries()) if (root !== undefined) metadata.set(`${i + 1}.root.json`, root)
    return write('rotated.tar', archive(partEntries({ ...good, metadata })))
  }
  return { root1, chain, file }
}

/** Archives with one thing wrong each. */
function hostile(bundle: SampleBundle): [what: string, archive: Buffer, message?: RegExp][] {
  const entries = partEntries(bundle)
  const tar = archive(entries)
  const last = entries.length - 1
  const body = Buffer.from('evil')
  const named = (name: string, fields: Record<number, string> = {}): RawEntry => ({
    name,
    body,
    header: ustarHeader(name, 4, fields),
  })
  const odd = (fields: Record<number, string>): Buffer =>
    archive(
      entries.with(last, {
        ...entries[last]!,
        header: ustarHeader(entries[last]!.name, entries[last]!.body.length, fields),
      }),
    )
  const zero = `blobs/${'0'.repeat(64)}`
  return [
    ['empty', Buffer.alloc(0)],
    ['one block', Buffer.alloc(512)],
    ['no archive', Buffer.from('hello'.repeat(1000))],
    ['cut in a header', tar.subarray(0, 300)],
    ['cut in the metadata', tar.subarray(0, 1000)],
    ['cut in a blob', tar.subarray(0, tar.length - 1024 - 100)],
    ['no end', tar.subarray(0, tar.length - 1024)],
    ['half an end', tar.subarray(0, tar.length - 512)],
    ['an end with something in it', Buffer.concat([tar.subarray(0, tar.length - 1), Buffer.from([1])])],
    ['bytes after the end', Buffer.concat([tar, Buffer.from([0])])],
    ['a second archive', Buffer.concat([tar, tar])],
    ['a way out', archive([...entries, named('../../evil')])],
    ['an absolute name', archive([...entries, named('/etc/passwd')])],
    ['a name with a trick', archive([...entries, named('evil\u001b[2J')])],
    ['a name with a newline', archive([...entries, named(`${zero}\n`)])],
    ['a blob that nothing names', archive([...entries.filter(({ name }) => !name.startsWith('blobs/')), named(zero)])],
    ['a blob twice', archive([...entries, entries[last]!])],
    ['blobs out of order', archive([...entries.slice(0, -2), entries[last]!, entries[last - 1]!])],
    ['a tree after the blobs', archive([...entries, entries.find(({ name }) => name.startsWith('trees/'))!])],
    ['a tree missing', archive(entries.filter(({ name }) => !name.startsWith(`trees/${[...bundle.trees.keys()][0]}`)))],
    ['no tree', archive(entries.filter(({ name }) => !name.startsWith('trees/')))],
    ['no part.json', archive(entries.filter(({ name }) => name !== 'part.json'))],
    ['no root', archive(entries.filter(({ name }) => !name.endsWith('root.json')))],
    ['no timestamp', archive(entries.slice(1))],
    ['a symbolic link', odd({ 156: '2', 157: '/etc/passwd' })],
    ['a hard link', odd({ 156: '1', 157: 'x' })],
    ['a folder', odd({ 156: '5' })],
    ['a device', odd({ 156: '3' })],
    ['a PAX header', odd({ 156: 'x' })],
    ['a GNU long name', odd({ 156: 'L' })],
    ['a prefix', odd({ 345: 'evil' })],
    ['other rights', odd({ 100: '000777 ' })],
    ['an owner', odd({ 108: '000001 ' })],
    ['a time', odd({ 136: '00000000001 ' })],
    ['a wrong checksum', odd({ 148: '000000 \0' })],
    ['a size in base 256', odd({ 124: '\x80' })],
    ['a size that lies', odd({ 124: '00000000001 ' })],
    [
      'a blob of another size',
      archive(
        entries.with(last, { ...entries[last]!, body: Buffer.concat([entries[last]!.body, Buffer.alloc(1024)]) }),
      ),
    ],
    [
      'bytes between entries',
      archive(entries.with(0, { ...entries[0]!, padding: Buffer.alloc(-entries[0]!.body.length & 511, 1) })),
    ],
    ['metadata too large', archive(entries.with(0, { ...entries[0]!, body: Buffer.alloc(16_385, 0x20) })), /too large/],
  ]
}
