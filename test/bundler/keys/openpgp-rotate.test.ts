import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { unlockSite } from '../../../bundler/keys/keys.ts'
import { verifySignature } from '../../../bundler/keys/openpgp.ts'
import { parseSiteKey, publishedKeys } from '../../../bundler/keys/site-key.ts'
import { verifyDetached } from '../../helpers/gpg.ts'
import { makeKeyLab, must, only, type KeyLab } from '../../helpers/key-lab.ts'
import { parsePackets, parseSignature, unarmor } from '../../helpers/openpgp-packets.ts'
import type { Outcome } from '../../helpers/process.ts'

const lab = (t: Test): Promise<KeyLab> => makeKeyLab(t, t.testdir())
const states = (dir: string): string[] => publishedKeys(dir, 'hq').map(({ state }) => state)
function refused(t: Test, outcome: Outcome, status: number, code: string): void {
  t.equal(outcome.status, status, outcome.stderr)
  t.match(outcome.stderr, new RegExp(`\\[${code}\\]\\n {2}next: `))
}

/** Which of the published keys signs now, by its place. */
async function signerOf(dir: string): Promise<number> {
  const bytes = Buffer.from('<repomd/>')
  const { signDetached } = await unlockSite({ dir, site: 'hq', passphrase: 'lab' })
  const asc = await signDetached(bytes, Date.now())
  const found = []
  for (const { armored } of publishedKeys(dir, 'hq')) {
    const verdict = await verifySignature({ keys: armored, bytes, signature: Buffer.from(asc), nowMs: Date.now() })
    t.equal((await verifyDetached(armored, bytes, asc)).status === 0, verdict === 'good', 'gpgv agrees')
    found.push(verdict)
  }
  t.equal(found.filter((verdict) => verdict === 'good').length, 1)
  return found.indexOf('good')
}

t.test('published beforehand, used later, the old one taken out at last', async (t) => {
  const { dir, keys, gapferry, bundle } = await lab(t)
  const keysDir = join(dir, 'lap/keys')
  refused(t, await gapferry('keys', 'rotate', 'openpgp', '--now'), 4, 'KEY_MISSING')
  const [old] = publishedKeys(keysDir, 'hq')
  await bundle()
  const announced = must(await gapferry('keys', 'rotate', 'openpgp'))
  t.match(
    announced.stdout,
    /in force +[0-9A-F]{4} [^]*waiting +[0-9A-F]{4} [^]*curl -o \S+ http:\/\/mirror.lan:8416\/keys\/site.asc/,
  )
  t.strictSame(states(keysDir), ['in force', 'waiting'])
  t.equal(await signerOf(keysDir), 0)
  t.equal(publishedKeys(keysDir, 'hq')[0]!.fingerprint, old!.fingerprint)
  refused(t, await gapferry('keys', 'rotate', 'openpgp'), 2, 'KEY_EXISTS')
  const listed = must(await gapferry('keys', 'list'))
  t.match(listed.stdout, /openpgp +[0-9a-f]{8} +waiting +passphrase/)
  t.match(
    listed.stdout,
    /OpenPGP keys that boxes find in keys\/site.asc:\n {4}in force +\S{4} [^]*\n {4}waiting +\S{4} /,
  )
  t.match(listed.stdout, /warning: OpenPGP key [0-9a-f]{8} waits until the boxes have it/)
  noCritical(
    t,
    publishedKeys(keysDir, 'hq').map(({ armored }) => armored),
  )

  const early = must(await gapferry('keys', 'rotate', 'openpgp', '--now'))
  t.match(early.stderr, /warning: no bundle has brought the new key/)
  t.strictSame(states(keysDir), ['in force', 'retired'])
  t.equal(await signerOf(keysDir), 0)
  t.not(publishedKeys(keysDir, 'hq')[0]!.fingerprint, old!.fingerprint)
  refused(t, await gapferry('keys', 'rotate', 'openpgp', '--now'), 4, 'KEY_MISSING')
  const [now] = publishedKeys(keysDir, 'hq')
  for (const id of ['abc', now!.fingerprint, 'ffffffff'])
    refused(t, await gapferry('keys', 'rotate', 'openpgp', '--remove', id), 2, 'USAGE_INVALID')
  const gone = must(await gapferry('keys', 'rotate', 'openpgp', '--remove', old!.fingerprint.slice(0, 8), '--json'))
  t.match(JSON.parse(gone.stdout), { site: 'hq', openpgp: [{ fingerprint: now!.fingerprint, state: 'in force' }] })
  t.match((await gapferry('keys', 'list')).stdout, new RegExp(`openpgp +${old!.fingerprint.slice(0, 8)} +retired`))

  const trail = JSON.parse((await gapferry('audit', '--json')).stdout) as { rows: { what: object; result: string }[] }
  t.match(trail.rows.filter(({ result }) => result === 'ok').slice(-3), [
    { what: { command: 'keys rotate openpgp', site: 'hq', added: [`openpgp ${now!.fingerprint} waiting`] } },
    { what: { command: 'keys rotate openpgp --now', changed: [/ in force$/, / retired$/] } },
    { what: { command: 'keys rotate openpgp --remove', removed: [`openpgp ${old!.fingerprint}`] } },
  ])
  const short = now!.fingerprint.slice(0, 8)
  t.match((await gapferry('audit')).stdout, new RegExp(` ok +\\+openpgp ${short} waiting$`, 'm'))
  t.ok(only(keys, new RegExp(`openpgp-${now!.fingerprint.slice(0, 8)}`)))
})

t.test('a younger key is younger whatever the clock says, and states are told by that', async (t) => {
  const { dir, at } = await lab(t)
  const keysDir = join(dir, 'lap/keys')
  const earlier = at(join(dir, 'lap'), { nowMs: () => Date.now() - 3_600_000 })
  must(await earlier('keys', 'rotate', 'openpgp'))
  t.strictSame(states(keysDir), ['in force', 'waiting'])
  must(await earlier('keys', 'rotate', 'openpgp', '--now'))
  t.strictSame(states(keysDir), ['in force', 'retired'])
})

t.test('backup and restore bring both back, also before the new one signs', async (t) => {
  const { dir, gapferry, folder, at } = await lab(t)
  must(await gapferry('keys', 'rotate', 'openpgp'))
  const file = join(folder('safe'), 'b')
  must(await gapferry('keys', 'backup', '--to', file))
  const lap = folder('new')
  must(await at(lap)('keys', 'restore', file))
  t.strictSame(publishedKeys(join(lap, 'keys'), 'hq'), publishedKeys(join(dir, 'lap/keys'), 'hq'))
  must(await at(lap)('keys', 'rotate', 'openpgp', '--now'))
  t.equal(await signerOf(join(lap, 'keys')), 0)
})

t.test('a lost laptop: the new key signs, those of the bundle stay published', async (t) => {
  const { dir, keys, gapferry, bundle, stick, at, folder } = await lab(t)
  must(await gapferry('keys', 'rotate', 'openpgp'))
  await bundle()
  const lap = folder('new')
  must(await at(lap)('init', '--from', stick, '--yes', '--root-key', only(keys, /^root-/)))
  const before = publishedKeys(join(dir, 'lap/keys'), 'hq').map(({ fingerprint }) => fingerprint)
  t.strictSame(states(join(lap, 'keys')), ['in force', 'retired', 'retired'])
  t.strictSame(
    publishedKeys(join(lap, 'keys'), 'hq')
      .slice(1)
      .map(({ fingerprint }) => fingerprint),
    before,
  )
  t.match((await at(lap)('keys', 'list')).stdout, /openpgp +[0-9a-f]{8} +retired +elsewhere +not on this laptop/)
  t.equal(await signerOf(join(lap, 'keys')), 0)
})

t.test(
  'a crash between key file and site.asc leaves the old key in force; what is no site.asc is refused',
  async (t) => {
    const { dir, keys, gapferry } = await lab(t)
    const keysDir = join(dir, 'lap/keys')
    const before = readFileSync(join(keys, 'site.asc'))
    must(await gapferry('keys', 'rotate', 'openpgp'))
    const after = readFileSync(join(keys, 'site.asc'), 'latin1')
    writeFileSync(join(keys, 'site.asc'), before)
    t.equal(await signerOf(keysDir), 0)
    must(await gapferry('keys', 'rotate', 'openpgp'))
    t.strictSame(states(keysDir), ['in force', 'waiting'])
    const waiting = publishedKeys(keysDir, 'hq')[1]!
    rmSync(only(keys, new RegExp(`openpgp-${waiting.fingerprint.slice(0, 8)}`)))
    refused(t, await gapferry('keys', 'rotate', 'openpgp', '--now'), 4, 'KEY_MISSING')
    t.strictSame(states(keysDir), ['in force', 'waiting'], 'nothing was changed')

    const block = before.toString()
    const bad = ['', 'x', `${block}x`, `x${block}`, block.repeat(2), after.repeat(5), block.replace('\n\nxs', '\n\nAA')]
    for (const text of bad) t.throws(() => parseSiteKey(text, 'k'), { code: 'KEY_INVALID' }, text.slice(0, 40))
    appendFileSync(join(keys, 'site.asc'), 'x')
    refused(t, await gapferry('keys', 'rotate', 'openpgp'), 3, 'KEY_INVALID')
  },
)

/** The rules of the first key hold for the next one. */
function noCritical(t: Test, armored: string[]): void {
  for (const text of armored) {
    const packets = parsePackets(unarmor(text, 'PUBLIC KEY BLOCK'))
    t.strictSame(
      packets.map(({ tag }) => tag),
      [6, 13, 2],
    )
    t.equal(packets[0]!.body.readUInt16BE(6), 3072)
    t.notOk(parseSignature(packets[2]!.body).hashed.some(({ isCritical }) => isCritical))
  }
}
