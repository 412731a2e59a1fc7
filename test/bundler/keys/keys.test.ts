import { spawnSync } from 'node:child_process'
import { createPrivateKey, sign } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openKey, parseKeyFile, sealKey } from '../../../bundler/keys/keyfile.ts'
import { createSiteKeys } from '../../../bundler/keys/create-keys.ts'
import { loadSite, unlockSite } from '../../../bundler/keys/keys.ts'
import { verifySignature } from '../../../bundler/keys/openpgp.ts'
import { isGapferryError } from '../../../manifests/errors.ts'
import { parseRoot, pinRoot } from '../../../manifests/metadata.ts'
import { fingerprintWords } from '../../../manifests/words.ts'
import { flip, makeRoot, newKey, NOW } from '../../helpers/site.ts'

const PASSPHRASE = 'correct horse battery staple'
const dir = join(t.testdir(), 'keys')
const made = await createSiteKeys({ dir, site: 'hq', passphrase: PASSPHRASE, nowMs: NOW })
await createSiteKeys({ dir, site: 'lab', passphrase: null, nowMs: NOW })
const keyNames = readdirSync(join(dir, 'hq')).filter((name) => name.endsWith('.key'))
const nameOf = (role: string, site = 'hq') => readdirSync(join(dir, site)).find((name) => name.startsWith(`${role}-`))!

t.test('a new site has a root, three keys and its OpenPGP key in public, for its owner only', async (t) => {
  t.match(readdirSync(join(dir, 'hq')).sort(), [
    '1.root.json',
    /^bundle-[0-9a-f]{8}\.key$/,
    /^openpgp-[0-9a-f]{8}\.key$/,
    /^root-[0-9a-f]{8}\.key$/,
    'site.asc',
  ])
  t.strictSame(readdirSync(dir), ['hq', 'lab'], 'no half-made folder')
  t.equal(statSync(dir).mode & 0o777, 0o700)
  t.equal(statSync(join(dir, 'hq')).mode & 0o777, 0o700)
  for (const name of readdirSync(join(dir, 'hq'))) t.equal(statSync(join(dir, 'hq', name)).mode & 0o777, 0o600, name)
})

t.test('the first root: 1 of 1, five years, and keys with the ids in the file names', async (t) => {
  const bytes = readFileSync(made.rootFile)
  t.equal(made.fingerprint, fingerprintWords(bytes))
  t.match(pinRoot(bytes), { site: 'hq', version: 1, expiresAtMs: Date.UTC(2031, 10, 22, 12) })
  const { roles } = parseRoot(bytes, 'root').metadata.signed
  t.match(nameOf('root'), `root-${roles['root']!.keyIDs[0]!.slice(0, 8)}.key`)
  for (const role of ['timestamp', 'snapshot', 'targets']) {
    t.equal(roles[role]!.threshold, 1)
    t.match(nameOf('bundle'), `bundle-${roles[role]!.keyIDs[0]!.slice(0, 8)}.key`)
  }
})

t.test('keys are never overwritten', async (t) => {
  const before = snapshotOf('hq')
  await t.rejects(createSiteKeys({ dir, site: 'hq', passphrase: null, nowMs: NOW }), { code: 'KEY_EXISTS' })
  t.strictSame(snapshotOf('hq'), before)
})

t.test('two runs at once make one set of keys', async (t) => {
  const both = await Promise.allSettled(
    [1, 2].map(() => createSiteKeys({ dir, site: 'twin', passphrase: null, nowMs: NOW })),
  )
  t.strictSame(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  t.match(
    both.find(({ status }) => status === 'rejected'),
    { reason: { code: 'KEY_EXISTS' } },
  )
  t.ok(await unlockSite({ dir, site: 'twin', passphrase: null }))
  rmSync(join(dir, 'twin'), { recursive: true })
  t.strictSame(readdirSync(dir), ['hq', 'lab'])
})

t.test('keys that a crash left half-made are not left lying about', async (t) => {
  const { pid } = spawnSync('true')
  const half = join(dir, `.new-${pid}-abcdef`)
  mkdirSync(half)
  writeFileSync(join(half, 'root-00000000.key'), 'secret')
  await createSiteKeys({ dir, site: 'next', passphrase: null, nowMs: NOW })
  t.strictSame(readdirSync(dir), ['hq', 'lab', 'next'])
  rmSync(join(dir, 'next'), { recursive: true })
})

t.test('a name that is no name and an empty passphrase are refused before anything is made', async (t) => {
  await t.rejects(createSiteKeys({ dir, site: '../x', passphrase: 'p', nowMs: NOW }), { code: 'TREE_INVALID' })
  await t.rejects(createSiteKeys({ dir, site: 'new', passphrase: '', nowMs: NOW }), { code: 'KEY_PASSPHRASE_MISSING' })
  t.strictSame(readdirSync(dir), ['hq', 'lab'])
})

t.test('the public part needs no passphrase', async (t) => {
  const { roots, siteKeyArmored } = loadSite(dir, 'hq')
  t.strictSame(roots, [readFileSync(made.rootFile)])
  t.match(siteKeyArmored, /^-----BEGIN PGP PUBLIC KEY BLOCK-----/)
})

t.test('signs metadata and repository metadata, with and without a passphrase', async (t) => {
  for (const [site, passphrase] of [
    ['hq', PASSPHRASE],
    ['lab', null],
    ['lab', 'not needed'],
  ] as const) {
    const signer = await unlockSite({ dir, site, passphrase })
    const { roots, siteKeyArmored } = loadSite(dir, site)
    const { roles } = parseRoot(roots[0]!, 'root').metadata.signed
    for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
      const signatures = signer.signMetadata(role, Buffer.from('x'))
      t.strictSame(
        signatures.map(({ keyid }) => keyid),
        roles[role]!.keyIDs,
      )
    }
    const bytes = Buffer.from('<repomd/>')
    const signature = Buffer.from(await signer.signDetached(bytes, NOW))
    t.equal(await verifySignature({ keys: siteKeyArmored, bytes, signature, nowMs: NOW }), 'good')
  }
})

t.test('the root key may be kept elsewhere', async (t) => {
  const copy = copyOf(t, 'hq')
  rmSync(join(copy, 'hq', nameOf('root')))
  t.ok(await unlockSite({ dir: copy, site: 'hq', passphrase: PASSPHRASE }))
})

t.test('no passphrase, a wrong one, one that differs in how a letter is composed', async (t) => {
  await t.rejects(unlockSite({ dir, site: 'hq', passphrase: null }), { code: 'KEY_PASSPHRASE_MISSING' })
  await t.rejects(unlockSite({ dir, site: 'hq', passphrase: `${PASSPHRASE} ` }), { code: 'KEY_PASSPHRASE_WRONG' })
  const bytes = await sealKey(
    { role: 'bundle', keyid: '0'.repeat(64), public: 'p' },
    Buffer.from('secret'),
    'caf\u00e9',
  )
  t.strictSame(await openKey(parseKeyFile(bytes, 'key'), 'cafe\u0301', 'key'), Buffer.from('secret'))
})

t.test('a key file says what it is, and hides what it hides', async (t) => {
  for (const name of keyNames) {
    const text = readFileSync(join(dir, 'hq', name), 'utf8')
    t.match(JSON.parse(text), {
      format: 1,
      kind: 'gapferry-key',
      role: name.split('-')[0],
      kdf: { name: 'PBKDF2-HMAC-SHA-256', iterations: 600_000 },
      cipher: { name: 'AES-256-GCM' },
    })
    t.match(JSON.parse(text).public, /^-----BEGIN (?:PUBLIC KEY|PGP PUBLIC KEY BLOCK)-----/)
  }
  const salts = keyNames.map((name) => JSON.parse(readFileSync(join(dir, 'hq', name), 'utf8')).kdf.salt)
  t.equal(new Set(salts).size, 3, 'a salt for each')
  t.match(JSON.parse(readFileSync(join(dir, 'lab', nameOf('root', 'lab')), 'utf8')), {
    kdf: null,
    cipher: { name: 'none' },
  })
})

t.test('every damaged byte of a key file is noticed, and is not taken for a wrong passphrase', async (t) => {
  const bytes = readFileSync(join(dir, 'hq', nameOf('bundle')))
  const unnoticed: number[] = []
  for (let at = 0; at < bytes.length; at++) {
    try {
      parseKeyFile(flip(bytes, at, at % 8), 'key')
      unnoticed.push(at)
    } catch (error) {
      if (!isGapferryError(error, 'KEY_INVALID')) throw error
    }
  }
  t.strictSame(unnoticed, [])
  for (const cut of [0, 1, bytes.length - 1]) {
    t.throws(() => parseKeyFile(bytes.subarray(0, cut), 'key'), { code: 'KEY_INVALID' }, `cut at ${cut}`)
  }
  t.throws(() => parseKeyFile(Buffer.alloc(70_000, 0x20), 'key'), { code: 'KEY_INVALID' })
})

t.test('the readable part of a key file is bound to its secret', async (t) => {
  const header = { role: 'bundle', keyid: '0'.repeat(64), public: 'p' } as const
  const sealed = await sealKey(header, Buffer.from('secret'), 'p')
  const other = await sealKey({ ...header, keyid: '1'.repeat(64) }, Buffer.from('other'), 'p')
  const [a, b] = [parseKeyFile(sealed, 'a'), parseKeyFile(other, 'b')]
  await t.rejects(openKey({ ...a, keyid: b.keyid }, 'p', 'key'), { code: 'KEY_PASSPHRASE_WRONG' })
  await t.rejects(openKey({ ...a, role: 'root' }, 'p', 'key'), { code: 'KEY_PASSPHRASE_WRONG' })
  await t.rejects(openKey({ ...a, public: 'q' }, 'p', 'key'), { code: 'KEY_PASSPHRASE_WRONG' })
  if (a.cipher.name !== 'AES-256-GCM') throw new Error('expected an encrypted key')
  for (const tag of ['AAAA', Buffer.from(a.cipher.tag, 'base64').subarray(0, 4).toString('base64')]) {
    const short = { ...a, cipher: { ...a.cipher, tag } }
    await t.rejects(openKey(short, 'p', 'key'), { code: 'KEY_PASSPHRASE_WRONG' }, 'a tag cut short')
  }
  await t.rejects(openKey({ ...a, data: b.data }, 'p', 'key'), { code: 'KEY_PASSPHRASE_WRONG' })
})

t.test('a secret that belongs to another public key is refused', async (t) => {
  const copy = copyOf(t, 'lab')
  const file = join(copy, 'lab', nameOf('bundle', 'lab'))
  const { role, keyid, public: publicKey } = parseKeyFile(readFileSync(file), 'key')
  const other = parseKeyFile(readFileSync(join(dir, 'lab', nameOf('root', 'lab'))), 'key')
  writeFileSync(file, await sealKey({ role, keyid, public: publicKey }, await openKey(other, null, 'key'), null))
  await t.rejects(unlockSite({ dir: copy, site: 'lab', passphrase: null }), {
    code: 'KEY_INVALID',
    message: /another public key/,
  })
  writeFileSync(file, await sealKey({ role, keyid, public: publicKey }, Buffer.from('no key'), null))
  await t.rejects(unlockSite({ dir: copy, site: 'lab', passphrase: null }), { code: 'KEY_INVALID' })
})

t.test('says what is missing', async (t) => {
  t.throws(() => loadSite(dir, 'nowhere'), { code: 'KEY_MISSING', hint: /init/ })
  t.throws(() => loadSite(dir, '../keys/hq'), { code: 'TREE_INVALID' })
  for (const role of ['bundle', 'openpgp']) {
    const copy = copyOf(t, 'lab')
    rmSync(join(copy, 'lab', nameOf(role, 'lab')))
    await t.rejects(unlockSite({ dir: copy, site: 'lab', passphrase: null }), { code: 'KEY_MISSING' }, role)
  }
  const copy = copyOf(t, 'lab')
  rmSync(join(copy, 'lab', 'site.asc'))
  t.throws(() => loadSite(copy, 'lab'), { code: 'KEY_MISSING' })
})

t.test('keys in the folder of another site are refused', async (t) => {
  const copy = copyOf(t, 'lab')
  renameSync(join(copy, 'lab'), join(copy, 'hq'))
  t.throws(() => loadSite(copy, 'hq'), { code: 'SITE_MISMATCH', message: /expected site hq, found site lab/ })
})

t.test('site.asc exchanged for another key is refused', async (t) => {
  const copy = copyOf(t, 'lab')
  cpSync(join(dir, 'hq', 'site.asc'), join(copy, 'lab', 'site.asc'))
  await t.rejects(unlockSite({ dir: copy, site: 'lab', passphrase: null }), {
    code: 'KEY_MISSING',
    message: /site.asc/,
  })
})

t.test('after a rotation only the keys of the newest root sign', async (t) => {
  const copy = copyOf(t, 'lab')
  const folder = join(copy, 'lab')
  const oldRootKey = parseKeyFile(readFileSync(join(folder, nameOf('root', 'lab'))), 'root')
  const secret = await openKey(oldRootKey, null, 'root')
  const privateKey = createPrivateKey({ key: secret, format: 'der', type: 'pkcs8' })
  const root1 = parseRoot(readFileSync(join(folder, '1.root.json')), 'root')
  const rootKey = {
    keyid: oldRootKey.keyid,
    key: root1.metadata.signed.keys[oldRootKey.keyid]!.toJSON() as ReturnType<typeof newKey>['key'],
    sign: (bytes: Buffer) => ({ keyid: oldRootKey.keyid, sig: sign('sha256', bytes, privateKey).toString('hex') }),
  }
  const fresh = newKey()
  writeFileSync(
    join(folder, '2.root.json'),
    makeRoot({ root: [rootKey], bundle: [fresh] }, { site: 'lab', version: 2 }),
  )
  t.equal(loadSite(copy, 'lab').roots.length, 2)
  await t.rejects(unlockSite({ dir: copy, site: 'lab', passphrase: null }), { code: 'KEY_MISSING', message: /root 2/ })
  writeFileSync(join(folder, '2.root.json'), makeRoot({ root: [fresh], bundle: [fresh] }, { site: 'lab', version: 2 }))
  t.throws(() => loadSite(copy, 'lab'), { code: 'ROLE_SIGNATURE' }, 'a root that the one before did not sign')
})

t.test('a keys folder that cannot be written leaves nothing half made', async (t) => {
  const blocked = join(t.testdir(), 'file')
  writeFileSync(blocked, '')
  await t.rejects(createSiteKeys({ dir: blocked, site: 'hq', passphrase: null, nowMs: NOW }))
  t.equal(readFileSync(blocked).length, 0)
})

function snapshotOf(site: string): Record<string, string> {
  const names = readdirSync(join(dir, site)).sort()
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(dir, site, name), 'latin1')]))
}

/** A keys folder that a test may spoil. */
function copyOf(t: { testdir(): string }, site: string): string {
  const copy = join(t.testdir(), 'copy')
  rmSync(copy, { recursive: true, force: true })
  mkdirSync(copy)
  cpSync(join(dir, site), join(copy, site), { recursive: true })
  return copy
}
