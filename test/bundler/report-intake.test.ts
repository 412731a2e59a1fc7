import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { signMirrorIdentity } from '../../manifests/mirror-identity.ts'
import { sealReport } from '../../manifests/report-seal.ts'
import { identityWords, publicKeyOf, signReport, type Report, type ReportInventory } from '../../manifests/report.ts'
import { packAttachments } from '../../storage/attachments.ts'
import { issueCertificate } from '../../server/issue.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inside } from '../helpers/inside.ts'
import { inventoryText, type InventoryParts } from '../helpers/inventory-text.ts'
import { newReportKey, sampleReport, signedBefore } from '../helpers/report.ts'

const MIRROR = newReportKey()
const groups = ['old', 'new'].map((name) => {
  return `{ name: ${name}, boxes: ['${name}-*'], origin: 'http://m.lan', files: [{ url: 'https://v/x', as: x }] }`
})
const SETTINGS = `apiVersion: gapferry/v1\nkind: Fleet\nsites: [{ name: hq, groups: [${groups.join(', ')}] }]\n`
const AUTHORITY = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const { authority, delivery, box } = certificates(AUTHORITY)

/** A mirror's authority, what it issued for itself and for a box, base64 of the DER. */
function certificates(own = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey) {
  const others = Array.from({ length: 2 }, () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  const keys = [own, ...others]
  const about = { site: 'hq', notBeforeMs: Date.UTC(2026), notAfterMs: Date.UTC(2046) }
  const first = issueCertificate({ ...about, kind: 'authority', name: 'authority of hq', key: keys[0]! })
  const issuer = { key: keys[0]!, certificate: new X509Certificate(first) }
  const of = (kind: 'delivery' | 'box', key = keys[1]!) => issueCertificate({ ...about, kind, name: kind, key, issuer })
  const all = { authority: first, delivery: of('delivery'), box: of('box', keys[2]) }
  return Object.fromEntries(Object.entries(all).map(([name, der]) => [name, der.toString('base64')])) as Record<
    keyof typeof all,
    string
  >
}

/** A laptop with one site of two groups, and the mirror whose reports it takes. */
function laptop(t: Test) {
  const dir = t.testdir({ 'gapferry.yaml': SETTINGS, store: {}, stick: {} })
  const withLedger = <T>(work: (ledger: Ledger) => T): T => {
    const ledger = new Ledger(join(dir, 'store/ledger.db'))
    try {
      return work(ledger)
    } finally {
      ledger.close()
    }
  }
  const put = (bytes: Buffer, name = 'hq-7.report'): string => {
    const file = join(dir, 'stick/gapferry/hq/report', name)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, bytes)
    return file
  }
  const reader = withLedger((ledger) => ledger.reports.publicKey('hq'))
  let sequence = 6
  /** a report with these inventories, as the mirror knows the boxes */
  const report = (boxes: Record<string, InventoryParts>, change: Partial<Report> = {}): string => {
    const texts = new Map(Object.entries(boxes).map(([name, parts]) => [name, Buffer.from(inventoryText(parts))]))
    const inventories = [...texts].map(([name, bytes]): ReportInventory => {
      return { box: name, sha256: sha256Of(bytes), bytes: bytes.length }
    })
    const full = { level: 'full' as const, sequence: ++sequence, inventories, ...change }
    const attached = packAttachments(inventories, (one) => texts.get(one.box))
    const signed = signReport(sampleReport(reader, full), MIRROR, attached)
    return put(sealReport(signed, reader, 'hq'))
  }
  const run = async (expected: number | string, ...args: string[]): Promise<{ stdout: string; stderr: string }> => {
    const outcome = await inside(runGapferry, dir, args)
    const found = typeof expected === 'number' ? outcome.status : /\[([A-Z_]+)\]/.exec(outcome.stderr)?.[1]
    if (!t.equal(found, expected, args.join(' '))) t.comment(outcome.stdout, outcome.stderr)
    return outcome
  }
  return { dir, put, report, reader, run, withLedger }
}

t.test('inventories that a report brings are those of the laptop, with what was said of a box by hand', async (t) => {
  const { report, run, dir, withLedger } = laptop(t)
  const first = report({ 'old-1': { box: 'old-1', machine: 'a' }, 'new-1': { box: 'new-1', machine: 'b' } })
  t.match(
    (await run(0, 'report', 'add', first, '--yes')).stdout,
    /^hq: report of .* accepted\nhq: inventories of old-1, new-1: new$/m,
  )
  t.match((await run(0, 'inventory', 'list')).stdout, /^new-1 +hq +new .*\nold-1 +hq +old /m)
  t.match(
    (await run(0, 'report', 'add', first)).stdout,
    /here already\nhq: inventories of old-1, new-1: here already$/m,
  )

  // By hand: another name for a box of a name that two have, and another group.
  const created = '2026-11-22T09:00:00Z'
  writeFileSync(join(dir, 'twin.gfi'), inventoryText({ box: 'old-1', machine: 'c' }))
  await run(0, 'inventory', 'add', 'twin.gfi', '--name', 'old-twin', '--group', 'new')
  const next = report({
    'old-1': { box: 'old-1', machine: 'a', created: '2026-11-22T07:00:00Z' },
    'old-1.site': { box: 'old-1', machine: 'c', created },
  })
  t.match(
    (await run(0, 'report', 'add', next)).stdout,
    /hq: inventory of old-1: older than what is here\nhq: inventory of old-twin: newer than what was here$/m,
  )
  t.match(JSON.parse((await run(0, 'inventory', 'list', '--json')).stdout), {
    boxes: [{ box: 'new-1' }, { box: 'old-1' }, { box: 'old-twin', group: 'new', isByHand: true, createdAt: created }],
  })
  t.match(
    withLedger((ledger) => ledger.audit.rows().map(({ what }) => what)).filter((what) => what?.boxes !== undefined),
    [
      { boxes: [/^old-1 /, /^new-1 /] },
      { boxes: [] },
      { boxes: [/^old-twin /] },
      { command: 'inventory add', files: ['hq-7.report'], boxes: [/^old-twin /] },
    ],
  )
  const kept = withLedger((ledger) => ledger.reports.last('hq')!.document!)
  t.notOk(kept.toString().includes('H4sI'), 'they are not kept once more')
})

t.test('boxes that were cloned, with one machine id, are told apart by their names', async (t) => {
  const { report, run } = laptop(t)
  const created = '2026-11-22T09:00:00Z'
  const both = (later: object): string =>
    report({ 'old-1': { box: 'vm', machine: 'a', ...later }, 'old-2': { box: 'vm', machine: 'a', ...later } })
  const first = await run(0, 'report', 'add', both({}), '--yes')
  t.match(first.stdout, /hq: inventories of old-1, old-2: new$/m)
  t.match((await run(0, 'report', 'add', both({ created }))).stdout, /of old-1, old-2: newer than what was here$/m)
  t.match(JSON.parse((await run(0, 'inventory', 'list', '--json')).stdout), {
    boxes: [
      { box: 'old-1', createdAt: created },
      { box: 'old-2', createdAt: created },
    ],
  })
})

t.test('one inventory that cannot be taken is named; report and others are', async (t) => {
  const { report, run, withLedger } = laptop(t)
  const mixed = report({
    'pbx-9': { box: 'pbx-9' },
    'old-1': { box: 'old-1', machine: 'a' },
  })
  const refused = await run('BOX_UNGROUPED', 'report', 'add', mixed, '--yes')
  t.match(refused.stdout, /hq: inventory of pbx-9: refused\nhq: inventory of old-1: new/)
  t.match(refused.stderr, /the inventory of pbx-9 in the report: .*\n.*next: say in gapferry.yaml/)
  t.equal(
    withLedger((ledger) => ledger.reports.last('hq')?.sequence),
    7,
  )
  const other = report({ 'old-1': { box: 'old-1', machine: 'other', created: '2026-11-22T09:00:00Z' } })
  t.match((await run('BOX_CONFLICT', 'report', 'add', other)).stderr, /gapferry inventory remove old-1 --site hq/)
  const shown = await run(2, 'report', 'add', other, '--json')
  t.match(JSON.parse(shown.stdout), {
    reports: [{ outcome: 'known', inventories: [{ outcome: 'refused', error: { code: 'BOX_CONFLICT' } }] }],
  })
})

t.test('below full a report brings no inventories, whatever it says; one without room says so', async (t) => {
  const { report, run } = laptop(t)
  const pseudonym = { 'box-0123456789abcdef': { box: 'box-0123456789abcdef' } }
  await run(0, 'report', 'add', report(pseudonym, { level: 'minimal' }), '--yes')
  t.match((await run(0, 'inventory', 'list', '--json')).stdout, '"boxes":[]')
  const large = { box: 'old-2', sha256: sha256Of('large'), bytes: 5 }
  t.match(
    (await run(0, 'report', 'add', report({}, { inventories: [large] }))).stdout,
    /hq: inventory of old-2: left out of the report, it had no room/,
  )
})

t.test('a report tells the keys that licenses are sealed for, and the boxes that have certificates', async (t) => {
  const { report, run, reader, put, withLedger } = laptop(t)
  const enrolled = [{ box: 'old-1', certificate: box, revoked: false }]
  await run(0, 'report', 'add', report({}, { authority, delivery, enrolled }), '--yes')
  const known = () => withLedger((ledger) => [ledger.identities.of('hq'), ledger.identities.enrolled('hq')] as const)
  const keys = { authority: Buffer.from(authority, 'base64'), delivery: Buffer.from(delivery, 'base64') }
  t.strictSame(known(), [
    { identity: publicKeyOf(MIRROR), ...keys },
    [{ box: 'old-1', certificate: Buffer.from(box, 'base64'), isRevoked: false }],
  ])
  await run(0, 'report', 'add', report({}, { level: 'minimal', authority, delivery }))
  t.equal(known()[1].length, 1, 'below full it says nothing of boxes')
  for (const change of [
    { authority: null, delivery },
    { authority: certificates().authority, delivery },
    { authority: box, delivery },
  ]) {
    await run('REPORT_INVALID', 'report', 'add', report({}, change))
  }
  t.strictSame(known()[0], { identity: publicKeyOf(MIRROR), ...keys })
  t.equal(
    withLedger((ledger) => ledger.reports.last('hq')?.sequence),
    8,
    'of a report that is refused nothing is kept',
  )
  await run('REPORT_OLDER', 'report', 'add', put(sealReport(signedBefore(reader, MIRROR), reader, 'hq')))
  t.strictSame(known()[0], { identity: publicKeyOf(MIRROR), ...keys })
})

t.test('boxes that a report names twice, or with keys that nothing can be sealed for', async (t) => {
  const { report, run, withLedger } = laptop(t)
  await run(0, 'report', 'add', report({}, { authority, delivery, enrolled: [] }), '--yes')
  const twice = { box: 'old-1', certificate: box, revoked: false }
  await run('REPORT_INVALID', 'report', 'add', report({}, { authority, delivery, enrolled: [twice, twice] }))
  const issuer = { key: AUTHORITY, certificate: new X509Certificate(Buffer.from(authority, 'base64')) }
  const key = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
  const about = { site: 'hq', name: 'old-1', notBeforeMs: Date.UTC(2026), notAfterMs: Date.UTC(2046) }
  const odd = issueCertificate({ ...about, kind: 'box', key, issuer }).toString('base64')
  const enrolled = [{ box: 'old-1', certificate: odd, revoked: false }]
  await run('REPORT_INVALID', 'report', 'add', report({}, { authority, delivery, enrolled }))
  t.same(
    withLedger((ledger) => ledger.identities.enrolled('hq')),
    [],
  )
})

t.test('mirror-identity.json is accepted by its words, alone or from the stick', async (t) => {
  const { put, report, run, withLedger } = laptop(t)
  const words = identityWords(publicKeyOf(MIRROR))
  const about = { site: 'hq', createdAt: '2026-11-22T12:00:00Z' }
  const keys = { authority: Buffer.from(authority, 'base64'), delivery: Buffer.from(delivery, 'base64') }
  const file = put(signMirrorIdentity({ ...about, ...keys }, MIRROR), 'mirror-identity.json')
  t.match((await run('REPORT_NOT_CONFIRMED', 'report', 'add', file)).stderr, words)
  t.equal(
    withLedger((ledger) => ledger.identities.of('hq')),
    undefined,
  )
  t.match(
    (await run(0, 'report', 'add', 'stick', '--identity', words)).stdout,
    /^hq: the identity of its mirror is accepted; licenses can be sealed for it$/m,
  )
  t.strictSame(
    withLedger((ledger) => ledger.identities.of('hq')),
    { identity: publicKeyOf(MIRROR), ...keys },
  )
  t.match((await run(0, 'report', 'add', file)).stdout, /is the one that was accepted;/)
  const other = put(signMirrorIdentity({ ...about, ...keys }, newReportKey()), 'mirror-identity.json')
  await run('REPORT_IDENTITY', 'report', 'add', other, '--yes')
  const elsewhere = put(signMirrorIdentity({ ...about, site: 'branch', ...keys }, MIRROR), 'mirror-identity.json')
  await run('SITE_UNKNOWN', 'report', 'add', elsewhere)
  await run('SITE_MISMATCH', 'report', 'add', elsewhere, '--site', 'hq')
  await run(0, 'report', 'add', report({}, { authority, delivery }))
})

t.test('a number that another laptop used is not used again; one that cannot be is not believed', async (t) => {
  const { report, run, withLedger } = laptop(t)
  const named = (number: number) => [{ number, state: sha256Of(`targets ${number}`), isComplete: false }]
  const next = () => withLedger((ledger) => ledger.nextNumber('hq'))
  await run(0, 'report', 'add', report({}, { bundles: named(41), served: [] }), '--yes')
  t.equal(next(), 42)
  await run(0, 'report', 'add', report({}, { bundles: named(7), served: [] }))
  t.equal(next(), 42, 'never lowered')
  const far = await run(0, 'report', 'add', report({}, { bundles: named(2 ** 40), served: [] }))
  t.match(far.stderr, /warning: hq-7.report: it names bundle 1099511627776, .*--number-above 1099511627776/)
  t.equal(next(), 42)
})

t.test('init --from REPORT: a laptop whose keys are back hears from the mirror what was packed since', async (t) => {
  const { dir, report, run, withLedger } = laptop(t)
  await run(0, 'init', '.', '--no-passphrase')
  mkdirSync(join(dir, 'new'))
  const safe = join(dir, 'hq.backup')
  const withPassphrase = { environment: { GAPFERRY_PASSPHRASE: 'a long passphrase' } }
  t.equal((await inside(runGapferry, dir, ['keys', 'backup', '--to', safe], withPassphrase)).status, 0)
  const named = [{ number: 12, state: sha256Of('targets 12'), isComplete: true }]
  const file = report({ 'old-1': { box: 'old-1' } }, { bundles: named, served: [] })

  const fresh = (...args: string[]) => inside(runGapferry, join(dir, 'new'), args, withPassphrase)
  const early = await fresh('init', '--from', file)
  t.match(early.stderr, /REPORT_KEY_MISSING.*\n.*keys restore FILE, then this again; without a backup: .*--root-key/)
  t.equal((await fresh('keys', 'restore', safe)).status, 0)
  t.match((await fresh('init', '--from', file)).stderr, /REPORT_NOT_CONFIRMED/)
  const taken = await fresh('init', '--from', file, '--yes')
  t.match(taken.stdout, /^hq: report of .* accepted\nhq: inventory of old-1: new\nhq: the next bundle is 13$/m)
  t.equal(
    withLedger((ledger) => ledger.nextNumber('hq')),
    1,
    'the other laptop was not asked',
  )

  // Set up from nothing, it has another key.
  const other = join(dir, 'other')
  mkdirSync(other)
  writeFileSync(join(other, 'gapferry.yaml'), SETTINGS)
  t.match(
    (await inside(runGapferry, other, ['init', '--from', file, '--yes'])).stderr,
    /no key of hq is here.*REPORT_KEY_MISSING/,
  )
})
