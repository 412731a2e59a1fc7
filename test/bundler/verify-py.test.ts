import { execFileSync } from 'node:child_process'
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
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

t.test('what a run that was ended by force left goes after a day; nothing else does', async (t) => {
  const place = t.testdir({ 'gapferry-verify-py-old': { key: '' }, 'gapferry-verify-py-new': {}, other: {} })
  for (const name of ['gapferry-verify-py-old', 'other']) utimesSync(join(place, name), 1, 1)
  const outcome = await run('python3', [SCRIPT, rootFile, whole], { env: { TMPDIR: place } })
  t.equal(outcome.status, 0, outcome.stderr)
  t.strictSame(readdirSync(place).sort(), ['gapferry-verify-py-new', 'other'])
})

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
      const withKey = (pem: string, keytype: 'ecdsa' | 'rsa' = 'ecdsa') => {
        const added = roleKey(keytype, pem)
        return forge(sampleRoot, sampleKeys.root, (signed: Loose) => void (signed.keys[added.keyid] = added.key))
      }
      const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
      const other = rsa.export({ type: 'spki', format: 'der' })
      other[other.length - 1] = 3
      const twins = forge(withKey(rsa.export(SPKI).toString(), 'rsa'), sampleKeys.root, (signed: Loose) => {
        const twin = roleKey(
          'rsa',
          createPublicKey({ key: other, type: 'spki', format: 'der' }).export(SPKI).toString(),
        )
        signed.keys[twin.keyid] = twin.key
      })
      await refuses(t, verify, write('K.json', twins), whole, 'one key under two ids', /under two ids/)
      const respelled = withKey(spare.key.keyval.public.replace(/\n(?=[^-])/, ''))
      await refuses(t, verify, write('K.json', respelled), whole, 'a key in another spelling', /in plain PEM/)
      const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export(SPKI).toString()
      await refuses(t, verify, write('K.json', withKey(small, 'rsa')), whole, 'a small RSA key', /2048 bits or more/)
      const noted = { ...spare.key, note: 'x' }
      const more = forge(sampleRoot, sampleKeys.root, (signed: Loose) => {
        signed.keys[sha256Of(canonicalJson(noted))] = noted
      })
      await refuses(t, verify, write('K.json', more), whole, 'a key with a further field', /unknown field note/)
      const keyless = forge(sampleRoot, sampleKeys.root, (signed: Loose) => {
        signed.roles.targets.keyids = ['0'.repeat(64)]
      })
      await refuses(t, verify, write('K.json', keyless), whole, 'a role without its key', /not among the keys/)
      const counted = forge(sampleRoot, sampleKeys.root, (signed: Loose) => {
        signed.roles.targets = { keyids: [keyid, keyid], threshold: 2 }
      })
      await refuses(t, verify, write('K.json', counted), whole, 'one id counted twice', /keyids: one of them twice/)
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
        /number: expected 7, found 8/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.site = 'lab')),
        'a site',
        /site: expected hq, found lab/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.group = 'x')),
        'a group',
        /group: expected pbx, found x/,
      )
      await refuses(
        t,
        verify,
        rootFile,
        changed((tree) => void (tree.role = 'return')),
        'a role',
        /role: expected current, found return/,
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

    t.test('a hint that lies decides nothing', async (t) => {
      const headOnly = partEntries(good).filter(({ name }) => !name.startsWith('blobs/'))
      const range = (first: string, last: string) => ({ first: first.repeat(64), last: last.repeat(64) })
      for (const parts of [[null], [range('f', '0')], [range('0', 'f')], Array(256).fill(null)]) {
        const hinted = headOnly.map((entry) => respelt(entry, 'part.json', (doc) => canonicalJson({ ...doc, parts })))
        const outcome = await verify(rootFile, write('hint.tar', archive(hinted)))
        t.match(outcome, { status: 4, stdout: /INCOMPLETE: 3/ }, `${parts.length} parts`)
      }
    })

    t.test('refuses part.json of something else, or not as gapferry writes it', async (t) => {
      const hints: [string, object | string, RegExp][] = [
        ['another site', { site: 'lab' }, /part\.json: site: expected hq, found lab/],
        ['another number', { number: 8 }, /part\.json: number: expected 7, found 8/],
        ['a part that there is not', { part: 2 }, /part\.json: is part 2 of 1/],
        ['part 0', { part: 0 }, /part\.json: part: expected a whole number from 1/],
        ['a further field', { y: 1 }, /part\.json: unknown field y/],
        ['another format', { format: 2 }, /part\.json: format: expected 1, found 2/],
        ['format true', { format: true }, /part\.json: format: expected 1, found True/],
        ['another kind', { _type: 'gapferry-site' }, /part\.json: _type: expected gapferry-part/],
        ['no parts', { parts: [] }, /part\.json: parts: expected 1 to 256/],
        ['too many parts', { parts: Array(257).fill(null) }, /part\.json: parts: expected 1 to 256/],
        ['parts that are none', { parts: { a: 1 } }, /part\.json: parts/],
        ['a part without last', { parts: [{ first: '0'.repeat(64) }] }, /parts: 0: field last is not there/],
        ['digests that are none', { parts: [{ first: 1, last: 2 }] }, /parts: 0: first: expected 64/],
        ['a key twice', '{"_type":"gapferry-part","_type":"gapferry-part"}', /part\.json: key _type stands twice/],
        ['no JSON', 'hello', /part\.json: is not JSON/],
        ['a list', '[]', /part\.json: expected an object/],
        ['deep nesting', '['.repeat(60_000), /part\.json: is not JSON/],
        ['a fraction', '{"part":1.0}', /part\.json: 1\.0 is not a whole number/],
        ['a long number', `{"part":${'1'.repeat(60_000)}}`, /part\.json: 1+ is not a whole number, or too large/],
        ['no number', '{"part":NaN}', /part\.json: NaN is not a whole number/],
      ]
      for (const [what, hint, message] of hints) {
        const make = (doc: Loose) => (typeof hint === 'string' ? Buffer.from(hint) : canonicalJson({ ...doc, ...hint }))
        const entries = partEntries(good).map((entry) => respelt(entry, 'part.json', make))
        await refuses(t, verify, rootFile, write('hint.tar', archive(entries)), what, message)
      }
      const spaced = partEntries(good).map((entry) =>
        respelt(entry, 'part.json', (doc) => Buffer.from(JSON.stringify(doc, null, 1))),
      )
      await refuses(t, verify, rootFile, write('hint.tar', archive(spaced)), 'spaces', /part\.json: .*canonical form/)
    })

    t.test('refuses metadata in another spelling, though its signature is good', async (t) => {
      const texts: [string, string, (text: string) => string, RegExp][] = [
        ['other spaces', 'timestamp', (text) => JSON.stringify(JSON.parse(text)), /timestamp\.json: is not spelled/],
        ['no line end', '7.targets', (text) => text.trimEnd(), /7\.targets\.json: is not/],
        ['an escape', '7.snapshot', (text) => text.replace('"_type"', '"\\u005ftype"'), /7\.snapshot\.json: is not/],
        [
          'a further field',
          'timestamp',
          (text) => text.replace('{', '{"evil":1,'),
          /timestamp\.json: unknown field evil/,
        ],
        [
          'a key twice',
          'timestamp',
          (text) => text.replace('"signed":', '"signed": {},\n "signed":'),
          /signed stands twice/,
        ],
        ['a signature twice', 'timestamp', twiceSigned, /timestamp\.json: .*twice/],
      ]
      for (const [what, name, change, message] of texts) {
        const entries = partEntries(good).map((entry) =>
          entry.name === `metadata/${name}.json`
            ? { ...entry, body: Buffer.from(change(entry.body.toString())) }
            : entry,
        )
        await refuses(t, verify, rootFile, write('spelled.tar', archive(entries)), what, message)
      }
      const root = write('SPELLED.json', Buffer.from(` ${sampleRoot.toString()}`))
      await refuses(t, verify, root, whole, 'a root', /ROOT\.json: root: is not spelled/)
    })

    t.test('refuses signed metadata that breaks a rule', async (t) => {
      const changes: [string, Parameters<typeof signedAgain>[0], RegExp][] = [
        [
          'a further field',
          { targets: (signed) => void (signed.note = 'x') },
          /targets\.json: signed: unknown field note/,
        ],
        [
          'another TUF',
          { snapshot: (signed) => void (signed.spec_version = '2.0.0') },
          /spec_version: expected 1\.0\.31/,
        ],
        [
          'a name that is none',
          { targets: (signed) => rename(signed.targets, 'pbx/current', '../x') },
          /expected site, licenses or/,
        ],
        ['no time', { timestamp: (signed) => void (signed.expires = '2027-02-30T00:00:00Z') }, /is not a time/],
        ['expired when made', { timestamp: (s) => void (s['x-created'] = s.expires) }, /expires before it was made/],
        [
          'a fraction',
          { timestamp: (s) => void (s.meta['snapshot.json'].length = '5') },
          /length: expected a whole number/,
        ],
        ['x-… that is no text', { snapshot: (signed) => void (signed['x-more'] = 5) }, /x-more: expected/],
      ]
      for (const [what, change, message] of changes)
        await refuses(t, verify, rootFile, signedAgain(change), what, message)
      const further = await verify(rootFile, signedAgain({ targets: (signed) => void (signed['x-more'] = 'text') }))
      t.match(further, { status: 0 }, 'further x-… texts pass')
    })

    t.test('refuses signed trees and site facts that break a rule', async (t) => {
      for (const [what, target, document, message] of wrongDocuments()) {
        const change = ({ targets }: { targets: Map<string, Buffer> }) => void targets.set(target, document)
        const file = write('rule.tar', archive(partEntries(sampleBundle({ number: 7, files: FILES, change }))))
        await refuses(t, verify, rootFile, file, what, message)
      }
    })

    t.test('usage', async (t) => {
      for (const args of [[], [rootFile], ['--help'], [join(dir, 'absent'), whole], [rootFile, join(dir, 'absent')]]) {
        t.match(await run(python, [SCRIPT, ...args], { env: { TMPDIR: join(dir, 'tmp') } }), { status: 2 })
      }
      t.match(await verify(rootFile, dir), { status: 2 }, 'a folder')
      t.match(await verify(rootFile, '/dev/null'), { status: 3, stderr: /is not a plain file/ })
      const pipe = join(dir, `${python.replaceAll('/', '_')}.pipe`)
      execFileSync('mkfifo', [pipe])
      t.match(await verify(rootFile, pipe), { status: 3, stderr: /is not a plain file/ }, 'a pipe is not waited for')
      t.match(await verify(pipe, whole), { status: 3, stderr: /ROOT.json: / })
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

/** Trees and site facts with one thing wrong each, which are then signed. */
function wrongDocuments(): [what: string, target: string, document: Buffer, message: RegExp][] {
  const found = [...good.trees.values()].map((bytes): Loose => JSON.parse(bytes.toString()))
  const make = (type: string, change: (doc: Loose) => unknown): Buffer => {
    const doc = structuredClone(found.find((each) => each['_type'] === type))
    change(doc)
    return canonicalJson(doc)
  }
  const a = 'a.txt'
  const trees: [string, (doc: Loose) => unknown, RegExp][] = [
    ...['../../x', '/etc/passwd', 'a/./b', 'a//b', 'a/', 'a b', 'a%2fb', 'a\\b', 'x'.repeat(256), 'é', ''].map(
      (path): [string, (doc: Loose) => unknown, RegExp] => [
        `path ${JSON.stringify(path)}`,
        (doc) => (doc.entries[path] = doc.entries[a]),
        /tree pbx\/current: entries: .*(is no path|expected a path)/,
      ],
    ),
    ['a deep path', (doc) => (doc.entries['a/'.repeat(32) + 'a'] = doc.entries[a]), /is no path/],
    ['a file as folder', (doc) => (doc.entries['a.txt/b'] = doc.entries[a]), /a\.txt is both a file and a folder/],
    ['format 2', (doc) => (doc.format = 2), /tree pbx\/current: format: expected 1, found 2/],
    ['another type', (doc) => (doc['_type'] = 'x'), /tree pbx\/current: _type: expected gapferry-tree/],
    ['a further field', (doc) => (doc.x = 1), /tree pbx\/current: unknown field x/],
    ['a field with a mark', (doc) => (doc.entries[a]['of?'] = a), /unknown field of\?/],
    ['a further field of an entry', (doc) => (doc.entries[a].x = 1), /entries: a\.txt: unknown field x/],
    ['another kind', (doc) => (doc.entries[a].kind = 'x'), /a\.txt: kind: expected one of immutable/],
    ['a kind that is no text', (doc) => (doc.entries[a].kind = []), /a\.txt: kind: expected one of immutable/],
    ['another verdict', (doc) => (doc.entries[a].verdict = 'x'), /a\.txt: verdict: expected one of good/],
    ['no media type', (doc) => (doc.entries[a].type = 'text/html; X: y'), /a\.txt: type: expected a media type/],
    ['a digest in capitals', (doc) => (doc.entries[a].sha256 = 'A'.repeat(64)), /a\.txt: sha256: expected 64/],
    ['bytes that are true', (doc) => (doc.entries[a].bytes = true), /a\.txt: bytes: expected a whole number/],
    ['a negative size', (doc) => (doc.entries[a].bytes = -1), /a\.txt: bytes: expected a whole number/],
    ['of without companion', (doc) => (doc.entries[a].of = 'b/c.bin'), /"of" goes with companions/],
    ['a companion alone', (doc) => (doc.entries[a].kind = 'companion'), /"of" goes with companions/],
    [
      'a companion of no pointer',
      (doc) => Object.assign(doc.entries[a], { kind: 'companion', of: 'b/c.bin' }),
      /a\.txt: its pointer is not in the tree/,
    ],
    ['stamp 0', (doc) => (doc.stamps.base = 0), /tree pbx\/current: stamps: base: expected a whole number from 1/],
    ['no stamps', (doc) => delete doc.stamps, /tree pbx\/current: field stamps is not there/],
    ['a stamp of no repository', (doc) => (doc.stamps['../x'] = 1), /stamps: expected a repository id/],
    ['no entries', (doc) => delete doc.entries, /tree pbx\/current: field entries is not there/],
    ['entries in a list', (doc) => (doc.entries = []), /tree pbx\/current: entries: expected 0 to 20000/],
  ]
  const facts: [string, (doc: Loose) => unknown, RegExp][] = [
    [
      'a group without tree',
      (doc) => (doc.groups.other = doc.groups.pbx),
      /site facts: group other has no current tree/,
    ],
    ['a tree without group', (doc) => (doc.groups = {}), /tree pbx\/current: the site facts do not know its group/],
    ['format 2', (doc) => (doc.format = 2), /site facts: format: expected 1, found 2/],
    ['a further field', (doc) => (doc.x = 1), /site facts: unknown field x/],
    ['a further field of a group', (doc) => (doc.groups.pbx.x = 1), /groups: pbx: unknown field x/],
    ['no time', (doc) => (doc.createdAt = '2026-13-01T00:00:00Z'), /createdAt: .* is not a time/],
    ['a file outside', (doc) => (doc.groups.pbx.files = ['../x']), /files: 0: \.\.\/x is no path/],
    ['a file twice', (doc) => (doc.groups.pbx.files = [a, a]), /files: one of them twice/],
    ['a repository twice', (doc) => (doc.groups.pbx.yum = [{ id: 'x' }, { id: 'x' }]), /yum: one of them twice/],
    ['an origin with a path', (doc) => (doc.groups.pbx.origin = 'http://a/b'), /origin: expected an origin/],
    ['a default port', (doc) => (doc.groups.pbx.origin = 'http://a:80'), /origin: .* is not an origin/],
    ['another site', (doc) => (doc.site = 'lab'), /site facts: site: expected hq, found lab/],
    ['too large', (doc) => (doc.x = 'x'.repeat(2 ** 20)), /site facts: larger than/],
  ]
  const spelled = (type: string, change: (text: string) => string) =>
    Buffer.from(change(make(type, () => undefined).toString()))
  const twice = (text: string) => text.replace('"format":1', '"format":1,"format":1')
  const tree = 'pbx/current'
  return [
    ...trees.map(([what, change, message]) => [`tree: ${what}`, tree, make('gapferry-tree', change), message] as const),
    ...facts.map(
      ([what, change, message]) => [`facts: ${what}`, 'site', make('gapferry-site', change), message] as const,
    ),
    ['tree: a key twice', tree, spelled('gapferry-tree', twice), /tree pbx\/current: key format stands twice/],
    ['tree: a line end', tree, spelled('gapferry-tree', (text) => `${text}\n`), /tree pbx\/current: .*canonical form/],
    ['facts: a key twice', 'site', spelled('gapferry-site', twice), /site facts: key format stands twice/],
    ['facts: a space', 'site', spelled('gapferry-site', (text) => ` ${text}`), /site facts: is not in canonical form/],
    [
      'tree: many values',
      tree,
      Buffer.from(`[${'[],'.repeat(2 ** 19)}[]]`),
      /tree pbx\/current: holds too many values/,
    ],
    ['tree: deep nesting', tree, Buffer.from('['.repeat(100_000)), /tree pbx\/current: is not JSON/],
  ].map((row) => row as [string, string, Buffer, RegExp])
}

function respelt(entry: RawEntry, name: string, make: (doc: Loose) => Buffer): RawEntry {
  return entry.name === name ? { name, body: make(JSON.parse(entry.body.toString())) } : entry
}

function twiceSigned(text: string): string {
  const doc = JSON.parse(text)
  return `${JSON.stringify({ ...doc, signatures: [...doc.signatures, ...doc.signatures] }, null, 1)}\n`
}

function rename(record: Loose, from: string, to: string): void {
  record[to] = record[from]
  delete record[from]
}
