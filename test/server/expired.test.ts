import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Catalog } from '../../storage/catalog.ts'
import { clockFloor } from '../../server/store.ts'
import { mirrorProgram } from '../helpers/mirror-program.ts'
import { sampleKeys, sampleRoot } from '../helpers/part.ts'
import { DAY, makeRoot, newKey, NOW } from '../helpers/site.ts'

const ACCEPT = ['--accept-expired', '--reason', 'phones are down']
const made = (createdAtMs: number) => ({ createdAtMs, expiresAtMs: createdAtMs + 400 * DAY })

t.test('an expired bundle needs --accept-expired and a reason that says something', async (t) => {
  const { run, stick, rows } = await mirrorProgram(t)
  const old = stick(1, undefined, made(NOW - 430 * DAY))
  const refused = await run('ROLE_EXPIRED', 'import', old)
  t.match(refused.stderr, /expired 2026-10-23T12:00:00Z, now it is 2026-11-22T12:00:00Z/, 'both dates')
  t.equal(refused.status, 3)
  await run('USAGE_INVALID', 'import', '--accept-expired', old)
  await run('USAGE_INVALID', 'import', '--reason', 'x', old)
  for (const reason of ['', '  ', 'x'.repeat(201), 'a\nb', 'a\u202eb', 'a\u0000b', 'a\u2028b']) {
    await run('USAGE_INVALID', 'import', '--accept-expired', '--reason', reason, old)
  }
  t.equal(rows().length, 2, 'what cannot be meant leaves no row')
  t.match((await run(0, 'import', '--dry-run', ...ACCEPT, old)).stdout, /past its end and accepted/)
  await run('ROLE_EXPIRED', 'import', old)
})

t.test('accepted with a reason: in the audit trail, in status, and the clock stays', async (t) => {
  const { run, json, stick, rows, storeDir } = await mirrorProgram(t)
  const old = stick(1, undefined, made(NOW - 430 * DAY))
  await run(0, 'import', '--release', ...ACCEPT, old)
  t.match(
    rows().find(({ what }) => what?.command === 'import'),
    {
      what: { command: 'import', bundle: 1, reason: 'phones are down', expired: '2026-10-23T12:00:00Z' },
      result: 'ok',
    },
  )
  t.match((await run(0, 'audit')).stdout, /past its end of 2026-10-23T12:00:00Z; reason: phones are down/)
  t.match(
    (await run(0, 'status')).stdout,
    /^ALARM ACCEPTED_EXPIRED: bundle 1 was good until 2026-10-23.*phones are down/,
  )
  t.match(await json('status'), { alarms: [{ name: 'ACCEPTED_EXPIRED' }] })
  t.match((await run(0, 'bundles')).stdout, /accepted past its end/)
  const catalog = new Catalog(join(storeDir, 'catalog.db'))
  t.ok(clockFloor(catalog) < NOW, 'the floor is no later than the build or the creation of the bundle')
  catalog.close()
  await run(0, 'import', '--release', stick(2))
  t.match((await json('status'))['alarms'], [], 'a newer bundle ends the alarm')
})

t.test('at most 400 days past its end', async (t) => {
  const { run, stick } = await mirrorProgram(t)
  const refused = await run('ROLE_EXPIRED', 'import', ...ACCEPT, stick(1, undefined, made(NOW - 800 * DAY)))
  t.match(refused.stderr, /at most 400 days after/)
  await run(0, 'import', ...ACCEPT, stick(1, undefined, made(NOW - 800 * DAY + 1000)))
})

t.test('an expired root is never accepted', async (t) => {
  const clock = { nowMs: NOW - 10 * DAY }
  const { run, stick } = await mirrorProgram(t, { nowMs: () => clock.nowMs })
  const dying = makeRoot(sampleKeys, { version: 2, expiresAtMs: NOW + DAY })
  const bundle = stick(1, undefined, {
    roots: [sampleRoot, dying],
    createdAtMs: NOW - 30 * DAY,
    expiresAtMs: NOW + DAY,
  })
  clock.nowMs = NOW + 2 * DAY
  t.match((await run('ROLE_EXPIRED', 'import', ...ACCEPT, bundle)).stderr, /2\.root\.json: expired/)
})

t.test('everything else holds: rollback, conflict, site, signatures, and what is damaged', async (t) => {
  const { run, stick, dir } = await mirrorProgram(t)
  const old = made(NOW - 430 * DAY)
  await run(0, 'import', ...ACCEPT, stick(5, undefined, old))
  await run('ROLE_ROLLBACK', 'import', ...ACCEPT, stick(4, undefined, old))
  await run('ROLE_CONFLICT', 'import', ...ACCEPT, stick(5, undefined, made(NOW - 431 * DAY)))
  const stranger = { root: [newKey()], bundle: [newKey()] }
  await run('ROLE_SIGNATURE', 'import', ...ACCEPT, stick(6, undefined, { ...old, keys: stranger }))
  await run(
    'SITE_MISMATCH',
    'import',
    ...ACCEPT,
    stick(6, undefined, { ...old, site: 'lab', roots: [makeRoot(sampleKeys, { site: 'lab' })] }),
  )
  const bytes = readFileSync(stick(7, undefined, old))
  bytes[900] = bytes[900]! ^ 1
  writeFileSync(join(dir, 'hq-7.tar'), bytes)
  t.equal((await run(3, 'import', ...ACCEPT, 'hq-7.tar')).status, 3)
  t.equal((await run('ROLE_EXPIRED', 'import', stick(8, undefined, old))).status, 3, 'it is asked for each time')
})

t.test('a new root leaves a row that says which keys came and went', async (t) => {
  const { run, stick, rows } = await mirrorProgram(t)
  await run(0, 'import', stick(1))
  const keys = { root: sampleKeys.root, bundle: [newKey()] }
  const roots = [sampleRoot, makeRoot(keys, { version: 2, signers: sampleKeys.root })]
  await run(0, 'import', stick(2, undefined, { keys, roots }))
  const [old, fresh] = [sampleKeys.bundle[0]!.keyid, keys.bundle[0]!.keyid]
  const roles = ['timestamp', 'snapshot', 'targets']
  const found = rows().filter(({ what }) => what?.command === 'keys')
  t.equal(found.length, 1)
  t.match(found[0], { result: 'ok', what: { roots: [2] } })
  t.same([...found[0]!.what!.added!].sort(), roles.map((role) => `${role} ${fresh}`).sort())
  t.same([...found[0]!.what!.removed!].sort(), roles.map((role) => `${role} ${old}`).sort())
  const shown = (await run(0, 'audit')).stdout
  t.match(shown, `root 2; +timestamp ${fresh.slice(0, 8)}`)
  await run(0, 'audit', 'verify')
})

t.test('changed settings leave a row with the names of what changed, never the values', async (t) => {
  const { run, stick, rows, dir } = await mirrorProgram(t)
  const file = join(dir, 'mir', 'mirror.yaml')
  const settings = () => rows().filter(({ what }) => what?.command === 'settings')
  const edit = (from: RegExp, to: string) => writeFileSync(file, readFileSync(file, 'utf8').replace(from, to))
  await run(0, 'import', stick(1))
  t.same(settings(), [], 'init has seen them')
  edit(/keepPreviousHours: 48/, 'keepPreviousHours: 77')
  edit(/hosts: \[\]/, 'hosts: [secret-name.lan]')
  await run(0, 'status')
  t.same(settings(), [], 'only what changes the mirror looks')
  await run(0, 'release')
  await run(0, 'import', stick(2))
  t.equal(settings().length, 1, 'once')
  t.match(settings()[0], { what: { files: ['mirror.yaml'], changed: ['keepPreviousHours', 'origins.pbx.hosts'] } })
  t.match(settings()[0]!.what!.sha256, /^[0-9a-f]{64}$/)
  // a digest may hold any two digits
  t.notMatch(JSON.stringify(rows()).replace(/[0-9a-f]{64}/g, ''), /secret-name|77/)
  edit(/$/, '\n# a comment\n')
  await run(0, 'prune')
  t.same(settings()[1]!.what!.changed, [])
  edit(/keepPreviousHours: 77/, 'keepPreviousHours: 78')
  await run(0, 'init', 'mir', '--trust', 'root.json')
  t.same(settings()[2]!.what!.changed, ['keepPreviousHours'], 'init swallows no change')
})
