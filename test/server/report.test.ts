import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { openReport, parseSealedReport } from '../../manifests/report-seal.ts'
import { heldBlobs, parseReport, publicKeyOf, type Report, type SignedReport } from '../../manifests/report.ts'
import { readAttachment } from '../../storage/attachments.ts'
import { stateWords } from '../../manifests/words.ts'
import { ContactStore } from '../../storage/contacts.ts'
import { inventoryText, sealed } from '../helpers/inventory-text.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { blobOf, halves, makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { newReportKey } from '../helpers/report.ts'
import { NOW } from '../helpers/site.ts'

const LAPTOP = newReportKey()
const HOW = { reportKey: publicKeyOf(LAPTOP) }
const TREES = [{ stamp: 10, packages: ['a', 'b'] }]
const INSTALLID = '6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11'
const HOST = 'pbx-reception.hospital.lan'

/** With a stick to write to, serving bundle 1. */
async function mirror(t: Test): Promise<MirrorProgram & { read: () => SignedReport; names: () => string[] }> {
  const program = await mirrorProgram(t)
  mkdirSync(join(program.dir, 'stick'))
  await program.run(0, 'import', '--release', program.stick(1, TREES, HOW))
  const folder = join(program.dir, 'stick/gapferry/hq/report')
  const names = (): string[] => (existsSync(folder) ? readdirSync(folder).sort() : [])
  const read = (): SignedReport => {
    const newest = names().at(-1)!
    return parseReport(
      openReport(parseSealedReport(readFileSync(join(folder, newest)), newest), LAPTOP, newest),
      newest,
    )
  }
  return { ...program, read, names }
}

const write = (program: MirrorProgram, ...args: string[]) => program.run(0, 'report', '--to', 'stick', '--yes', ...args)

function fillBoxes({ dir, storeDir }: MirrorProgram): void {
  const store = new ContactStore(storeDir, { onDamage: () => undefined })
  const facts = { framework: '16.0.30', phpver: '7.4.33', brand: 'pbxact', deployment: 'd'.repeat(64) as Sha256 }
  const modules = new Map([['core', '16.0.60']])
  store.write([
    { group: 'pbx', installid: INSTALLID, atMs: NOW, address: '192.0.2.77', ...facts, modules, oddities: [] },
  ])
  store.close()
  const result = [
    'gapferry-parity-result 1',
    `box ${HOST}`,
    'checked 2026-11-22T10:00:00Z',
    'tool 0.1.0',
    'manager yum',
  ]
  const digests = [`inventory ${sha256Of('i')}`, `state ${sha256Of('s')}`, 'result differs']
  writeFileSync(join(dir, 'a.parity'), sealed([...result, ...digests, 'difference unplanned secret-1-1.noarch']))
}

t.test('the identity is made at init, is nobody else’s to read, and stays', async (t) => {
  const program = await mirrorProgram(t)
  const [secret, open] = ['identity.key', 'mirror-identity.json'].map((name) => join(program.storeDir, name)) as [
    string,
    string,
  ]
  t.equal(statSync(secret).mode & 0o777, 0o600)
  const before = [readFileSync(secret), readFileSync(open)]
  const { signed } = JSON.parse(before[1]!.toString()) as { signed: Record<string, string> }
  t.match(signed, { _type: 'gapferry-mirror-identity', format: 2, site: 'hq', createdAt: '2026-11-22T12:00:00Z' })
  for (const name of ['authority.key', 'delivery.key'])
    t.equal(statSync(join(program.storeDir, name)).mode & 0o777, 0o600)
  const again = await program.json('init', 'mir', '--trust', 'root.json')
  t.match(again, { isNew: false, identity: signed['words'] })
  await program.run(0, 'import', program.stick(1))
  t.same([readFileSync(secret), readFileSync(open)], before)

  rmSync(secret)
  rmSync(open)
  await program.run(0, 'status')
  t.notOk(existsSync(secret), 'reading makes none')
  await program.run(0, 'release')
  t.equal(statSync(secret).mode & 0o777, 0o600, 'a store that was made before gets one when it is written to')
  t.notSame(readFileSync(secret), before[0])

  writeFileSync(secret, 'x')
  const warned = await program.run(0, 'prune')
  t.match(
    warned.stderr,
    /warning: .*identity\.key: the key that signs reports cannot be read/,
    'and nothing else ends for it',
  )
})

t.test('a restored mirror stays itself', async (t) => {
  const program = await mirror(t)
  await write(program)
  const { words, report } = program.read()
  const typed = { environment: { GAPFERRY_PASSPHRASE: 'a passphrase' } }
  await program.runWith(typed, 0, 'backup', '--passphrase', '--to', 'a.backup')
  t.equal(statSync(join(program.dir, 'a.backup')).mode & 0o777, 0o600)
  await program.runWith(typed, 0, 'restore', 'a.backup', '--yes', '--config', 'new/mirror.yaml')
  const there = join(program.dir, 'new/store/identity.key')
  t.equal(statSync(there).mode & 0o777, 0o600)
  await program.run(0, 'report', '--to', 'stick', '--yes', '--config', 'new/mirror.yaml')
  t.equal(program.read().words, words)
  t.ok(program.read().report.sequence > report.sequence, 'and its reports follow the one before')
  t.same(
    heldBlobs(program.read().report, 'x').size,
    0,
    'the files did not come with the backup: it does not claim them',
  )

  rmSync(there)
  await program.run(0, 'prune', '--config', 'new/mirror.yaml')
  const other = readFileSync(there)
  await program.run(0, 'restore', 'a.backup', '--replace', '--config', 'new/mirror.yaml')
  t.same(readFileSync(there), other, 'an identity that is here stays')
})

t.test('what leaves is shown first, and leaves only after a yes', async (t) => {
  const program = await mirror(t)
  fillBoxes(program)
  const refused = await program.run('REPORT_NOT_CONFIRMED', 'report', '--to', 'stick')
  t.equal(refused.status, 2)
  t.match(
    refused.stdout,
    /^this will leave site hq:\n\{\n {2}"site": "hq",\n[^]*"blobs": "digests of 4 files"[^]*"freeBytes": \d+,\n[^]*"licenses": \[\]\n\}$/m,
  )
  t.same(program.names(), [])
  for (const [typed, expected] of [
    ['no\n', 'REPORT_NOT_CONFIRMED'],
    [null, 'REPORT_NOT_CONFIRMED'],
    ['yes\n', 0],
  ] as const) {
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    if (typed === null) stdin.end()
    else stdin.write(typed)
    await program.runWith({ stdin }, expected, 'report', '--to', 'stick')
  }
  t.equal(program.names().length, 1)
  const shown = await program.run(0, 'report', '--to', 'stick', '--yes', '--level', 'full')
  const text = JSON.parse(/^\{\n[^]*?\n\}$/m.exec(shown.stdout)![0]) as Report
  const told = { ...text, _type: 'gapferry-report', format: 2, blobs: program.read().report.blobs }
  t.strictSame(told, program.read().report, 'all of it but the digests')
  t.match(shown.stdout, program.read().words)
  t.match(program.rows().at(-1), {
    what: { command: 'report --level full', files: [program.names().at(-1)!] },
    result: 'ok',
  })
})

t.test('below full nobody is named', async (t) => {
  const program = await mirror(t)
  fillBoxes(program)
  await program.run(0, 'parity', 'add', 'a.parity')
  const shown = await write(program)
  const secrets = [
    INSTALLID,
    INSTALLID.slice(0, 8),
    '192.0.2.77',
    HOST,
    'pbx-reception',
    'secret',
    '16.0.60',
    'd'.repeat(64),
    'anna',
  ]
  const text = JSON.stringify(program.read().report)
  for (const secret of secrets) t.notOk(`${text}${shown.stdout}`.includes(secret), secret)
  const [{ box }, parity] = [program.read().report.boxes[0]!, program.read().report.parity]
  t.match(box, /^box-[0-9a-f]{16}$/)
  t.match(parity, [{ box: /^box-[0-9a-f]{16}$/, holds: false, differences: 1 }])
  t.not(box, `box-${sha256Of(INSTALLID).slice(0, 16)}`, 'no digest that could be tried out')
  await write(program)
  t.equal(program.read().report.boxes[0]!.box, box, 'the same in every report')

  await write(program, '--level', 'full')
  t.match(program.read().report, {
    level: 'full',
    boxes: [
      { box: INSTALLID, names: { address: '192.0.2.77', modules: { core: '16.0.60' }, deployment: 'd'.repeat(64) } },
    ],
    parity: [{ box: HOST, texts: ['unplanned secret-1-1.noarch'] }],
  })
  const bytes = readFileSync(join(program.dir, 'stick/gapferry/hq/report', program.names().at(-1)!))
  for (const secret of secrets) t.notOk(bytes.includes(secret), `${secret}, sealed`)

  const other = await mirror(t)
  fillBoxes(other)
  await write(other)
  t.not(other.read().report.boxes[0]!.box, box, 'another at another mirror')
})

t.test('inventories leave at full only, whole and named beforehand', async (t) => {
  const program = await mirror(t)
  const freepbx = ['framework 16.0.40', 'profile deploymentid 987654321012', 'license /etc/schmooze/a.zl']
  freepbx.push('license-fact /etc/schmooze/a.zl sysadmin_exp 2027-01-31')
  const text = inventoryText({ box: HOST, machine: 'm1', sections: { freepbx, readiness: ['readiness 2'] } })
  writeFileSync(join(program.dir, 'a.gfi'), text)
  await program.run(0, 'boxes', 'add', 'a.gfi')

  const minimal = await write(program)
  const little = program.read()
  t.match(little.report, {
    inventories: [],
    readiness: [{ box: /^box-[0-9a-f]{16}$/, takenAt: '2026-11-22T08:00:00Z' }],
  })
  const [counts] = little.report.readiness
  t.equal(counts!.ready + counts!.not + counts!.unknown, 16)
  t.match(little.report.licenses, [{ box: counts!.box, state: 'good', expires: '2027-01-31' }])
  t.same(little.attachments, {})
  for (const secret of [HOST, '987654321012', 'bash'])
    t.notOk(`${JSON.stringify(little)}${minimal.stdout}`.includes(secret), secret)

  const shown = await write(program, '--level', 'full')
  t.match(
    shown.stdout,
    /and that inventory, whole, with packages, settings and deployment IDs; to read one: gapferry-mirror boxes show BOX --raw/,
  )
  const full = program.read()
  t.match(full.report.inventories, [{ box: HOST, bytes: text.length, sha256: sha256Of(text) }])
  t.match(full.report, { readiness: [{ box: HOST }], licenses: [{ box: HOST }] })
  t.equal(readAttachment(full, full.report.inventories[0]!, 'x')?.toString(), text)
  t.equal((await program.run(0, 'boxes', 'show', HOST, '--raw')).stdout, text)
})

t.test('it says what is here, and what became of each import and release', async (t) => {
  const program = await mirror(t)
  const bundle = signContent(makeContent(2, [{ stamp: 20, packages: ['a', 'b', 'c'] }]), { createdAtMs: NOW, ...HOW })
  const [first] = halves(bundle)
  const [part] = writeParts(join(program.dir, 'half'), bundle, [first, halves(bundle)[1]])
  await program.run('BUNDLE_INCOMPLETE', 'import', part!)
  await program.run('ROLE_ROLLBACK', 'import', program.stick(1, TREES, HOW))
  await write(program)
  const { report } = program.read()
  const state = (number: number): string => report.bundles.find((one) => one.number === number)!.state
  t.strictSame(
    report.bundles.map(({ number, isComplete }) => [number, isComplete]),
    [
      [2, false],
      [1, true],
    ],
  )
  t.equal(state(2), sha256Of(bundle.metadata.get('2.targets.json')!))
  t.strictSame(report.served, [{ group: 'pbx', bundle: 1, role: 'current' }])
  t.strictSame(
    report.results.map(({ command, result, bundle: number }) => [command, result, number]),
    [
      ['import', 'ok', 1],
      ['release', 'ok', 1],
      ['import', 'BUNDLE_INCOMPLETE', 2],
      ['import', 'ROLE_ROLLBACK', undefined],
    ],
  )
  const held = heldBlobs(report, 'x')
  t.ok(['package a', 'package b'].every((text) => held.has(blobOf(text))))
  t.ok(first.every((sha256) => held.has(sha256)))
  rmSync(join(program.storeDir, 'blobs', blobOf('package a').slice(0, 2), blobOf('package a')))
  await write(program)
  t.notOk(heldBlobs(program.read().report, 'x').has(blobOf('package a')), 'what was lost is not claimed')
  t.notOk(program.read().report.bundles.some(({ isComplete }) => isComplete))
  t.ok(program.read().report.sequence > report.sequence)
})

t.test('words, nothing, and what cannot be meant', async (t) => {
  const empty = await mirrorProgram(t)
  mkdirSync(join(empty.dir, 'stick'))
  await empty.run('RELEASE_NOTHING', 'report', '--level', 'words')
  await empty.run('REPORT_KEY_MISSING', 'report', '--to', 'stick', '--yes')
  await empty.run(0, 'import', empty.stick(1, TREES))
  t.match(
    (await empty.run('REPORT_KEY_MISSING', 'report', '--to', 'stick', '--yes')).stderr,
    /--level words/,
    'of an older laptop',
  )
  await empty.run(0, 'import', empty.stick(2, TREES, { reportKey: 'AAAA' }))
  await empty.run('REPORT_INVALID', 'report', '--to', 'stick', '--yes')
  t.same(readdirSync(join(empty.dir, 'stick')), [])

  const program = await mirror(t)
  t.match(await program.json('report', '--level', 'none'), { level: 'none' })
  await write(program)
  const { state } = program.read().report.bundles[0]!
  t.match(await program.json('report', '--level', 'words'), { bundle: 1, words: stateWords(state as Sha256) })
  t.match(
    (await program.run(0, 'report', '--level', 'words')).stdout,
    /on the laptop: gapferry report add --site hq --words "/,
  )
  for (const args of [['--level', 'all', '--to', 'stick'], [], ['--level', 'full']]) {
    await program.run('USAGE_INVALID', 'report', '--yes', ...args)
  }
  await program.run('MEDIUM_UNUSABLE', 'report', '--yes', '--to', 'no/stick')
  t.notOk(existsSync(join(program.dir, 'no')))
  const json = await program.json('report', '--to', 'stick', '--yes')
  t.match(json, { site: 'hq', identity: program.read().words, report: { sequence: program.read().report.sequence } })
  t.match((await program.run(0, 'report', '--help')).stdout, /Examples?:\n {2}gapferry-mirror report --to/)
})
