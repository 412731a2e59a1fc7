import { appendFileSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { sealCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { serializeLicenseIndex, serializeSealedLicenses } from '../../manifests/licenses.ts'
import { parseMirrorIdentity } from '../../manifests/mirror-identity.ts'
import { runMirror } from '../../server/program.ts'
import { enrolWith, exchange, head, ofBox, requestFor, type TestBox } from '../helpers/box-mirror.ts'
import { inside } from '../helpers/inside.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { makeBundle } from '../helpers/site.ts'
import { sampleKeys, sampleRoot } from '../helpers/part.ts'

const DEPLOYMENT = '7198005312'
const MARKER = 'the very words of a license'
const PASSPHRASE = { environment: { GAPFERRY_PASSPHRASE: 'correct horse' } }

interface Serving {
  port: number
  stderr: () => Promise<string>
}

/** A mirror at today's time, with a listener for boxes. */
async function mirror(t: Test): Promise<MirrorProgram> {
  const program = await mirrorProgram(t, { nowMs: Date.now })
  appendFileSync(join(program.dir, 'mir/mirror.yaml'), 'boxes: { listen: 127.0.0.1:0, hosts: [mirror.hq.lan] }\n')
  return program
}

/** Runs `serve` until the test ends. */
async function serve(t: Test, { dir }: MirrorProgram, config = 'mir/mirror.yaml'): Promise<Serving> {
  const stop = new AbortController()
  let up: (port: number) => void
  const port = new Promise<number>((done) => (up = done))
  const stdout = { isTTY: false, write: (text: string) => up(Number(/^boxes .*:(\d+)$/m.exec(text)?.[1])) }
  const ended = inside(runMirror, dir, ['serve', '--config', config], {
    ...{ stdout: stdout as never, signal: stop.signal, user: 'service (99)' },
  })
  const end = async (): Promise<string> => {
    stop.abort()
    return (await ended).stderr
  }
  t.teardown(end)
  return { port: await port, stderr: end }
}

async function enrol(program: MirrorProgram, port: number, name: string, ...args: string[]): Promise<TestBox> {
  const { code } = (await program.json('boxes', 'enrol', name, ...args)) as { code: string }
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  const answer = await enrolWith(port, { name, code, request: requestFor(key) })
  return { name, key, ...(JSON.parse(answer.body.toString()) as { certificate: string }) }
}

async function statusOf(port: number, box: TestBox, deployment = DEPLOYMENT): Promise<number | undefined> {
  const asked = head('GET', `/boxes/${box.name}/license`, { 'Gapferry-Deployment': deployment })
  return (await exchange(port, asked, ofBox(box)))?.status
}

/** Bundle 1 with one license for DEPLOYMENT, sealed for this mirror, as it comes on a stick. */
async function licensedStick({ dir, storeDir }: MirrorProgram): Promise<string> {
  const { delivery } = parseMirrorIdentity(readFileSync(join(storeDir, 'mirror-identity.json')), 'x')
  const document = Buffer.from(MARKER)
  const license = await sealCms(document, [delivery!])
  const [sha256, content] = [sha256Of(license), sha256Of(document)]
  const about = { sha256, content, recipient: 'mirror' as const, product: 'PBXact', expires: [] }
  const index = await sealCms(serializeLicenseIndex('hq', new Map([[DEPLOYMENT, about]])), [delivery!])
  const blobs = new Map([license, index].map((bytes) => [sha256Of(bytes), bytes.length]))
  const named = serializeSealedLicenses({
    site: 'hq',
    number: 1,
    index: sha256Of(index),
    blobs: new Map([...blobs].sort(([a], [b]) => (a < b ? -1 : 1))),
  })
  const bundle = signContent(makeContent(1, [{ stamp: 10, packages: ['a'] }]), { createdAtMs: Date.now() - 3_600_000 })
  const facts = [...bundle.trees].find(([, bytes]) => bytes.includes('"gapferry-site"'))
  const targets = new Map([
    ...makeContent(1, [{ stamp: 10, packages: ['a'] }]).targets,
    ['site', { sha256: facts![0], bytes: facts![1].length }],
    ['licenses', { sha256: sha256Of(named), bytes: named.length }],
  ])
  const metadata = makeBundle(sampleKeys, {
    ...{ site: 'hq', number: 1, roots: [sampleRoot], targets },
    createdAtMs: Date.now() - 3_600_000,
  })
  const all = [license, index].map((bytes) => [sha256Of(bytes), bytes] as const)
  return writeParts(join(dir, 'licensed'), {
    ...bundle,
    metadata,
    trees: new Map([...bundle.trees, [sha256Of(named), named]]),
    blobs: new Map([...bundle.blobs, ...all]),
  })[0]!
}

/** Files below a folder that hold any of these. */
function holding(dir: string, texts: string[]): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => texts.some((text) => readFileSync(file).includes(text)))
}

t.test('enrol shows a code, revoke takes box and code away; both have rows', async (t) => {
  const program = await mirror(t)
  const { port, stderr } = await serve(t, program)
  const shown = await program.run(0, 'boxes', 'enrol', 'PBX1')
  t.match(
    shown.stdout,
    /^pbx1 may enrol once, until .* UTC\n {2}code {2}(\S{29})\non the box: gapferry-box enrol https:\/\/mirror\.hq\.lan:0 --box pbx1 --code \1\n$/,
  )
  const box = await enrol(program, port, 'pbx1', '--deployment', DEPLOYMENT)
  t.match(
    (await program.run(0, 'boxes', 'enrol', 'pbx1')).stdout,
    /it has a certificate, which counts until this code is used/,
  )
  t.equal(await statusOf(port, box), 404, 'there is no license')
  t.match(
    (await program.run(0, 'status')).stdout,
    /\nlicenses +https:\/\/mirror\.hq\.lan:0, 1 box is enrolled, 1 code not used yet\n/,
  )
  t.equal((await program.run(0, 'boxes', 'revoke', 'pbx1')).stdout, 'pbx1 is revoked\n')
  await program.run('BOX_UNKNOWN', 'boxes', 'revoke', 'pbx1')
  await program.run('USAGE_INVALID', 'boxes', 'enrol', 'a/b')
  const refused = await program.run('USAGE_INVALID', 'boxes', 'enrol', 'a', '--deployment', `${DEPLOYMENT}/`)
  t.notMatch(refused.stderr, DEPLOYMENT)
  t.same(
    program
      .rows()
      .filter(({ what }) => what?.boxes !== undefined)
      .map(({ who, what, result }) => [who, what?.command, result]),
    [
      ['anna (1000)', 'boxes enrol', 'ok'],
      ['anna (1000)', 'boxes enrol', 'ok'],
      ['box pbx1 (127.0.0.1)', 'enrol', 'ok'],
      ['anna (1000)', 'boxes enrol', 'ok'],
      ['box pbx1 (127.0.0.1)', 'deliver', 'DELIVERY_REFUSED'],
      ['anna (1000)', 'boxes revoke', 'ok'],
      ['anna (1000)', 'boxes revoke', 'BOX_UNKNOWN'],
    ],
  )
  t.match(await stderr(), /"url":"https:\/\/mirror\.hq\.lan:\d+","msg":"boxes"/)
})

t.test('without a listener nobody can enrol; two listeners do not share a socket', async (t) => {
  const program = await mirrorProgram(t, { nowMs: Date.now })
  await program.run(0, 'import', '--release', await licensedStick(program))
  t.match((await program.run(0, 'status')).stdout, /licenses +came with the bundle; no box can fetch them/)
  const refused = await program.run('CONFIG_INVALID', 'boxes', 'enrol', 'pbx1')
  t.match(refused.stderr, /next: add to .*mirror\.yaml: boxes: \{ listen: 0\.0\.0\.0:8490/)
  const file = join(program.dir, 'mir/mirror.yaml')
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, `${text.replaceAll(':0', ':8480')}boxes: { listen: 0.0.0.0:8480 }\n`)
  await program.run('CONFIG_INVALID', 'boxes', 'enrol', 'pbx1')
})

t.test('neither a license nor whose it is can be read in anything that lies at the mirror', async (t) => {
  const program = await mirror(t)
  await program.run(0, 'import', '--release', await licensedStick(program))
  const { port, stderr } = await serve(t, program)
  const box = await enrol(program, port, 'pbx1', '--deployment', DEPLOYMENT)
  const other = await enrol(program, port, 'pbx2')
  t.equal(await statusOf(port, box), 200)
  t.equal(await statusOf(port, other), 404)
  const result = JSON.stringify({ result: 'installed', license: sha256Of(Buffer.from(MARKER)) })
  const put = `${head('PUT', '/boxes/pbx1/result', { 'Content-Length': String(result.length) })}${result}`
  t.equal((await exchange(port, put, ofBox(box)))?.status, 204)
  const short = sha256Of(Buffer.from(MARKER)).slice(0, 12)
  const shown = (await program.run(0, 'boxes', 'show', 'pbx1')).stdout
  t.match(shown, new RegExp(`certificate +since .*\ndelivered +license ${short}, .*\nresult +installed ${short}, `))
  t.match(await program.json('boxes', 'list'), {
    boxes: [{ box: 'pbx1', enrolled: { isRevoked: false, result: { result: 'installed' } } }, { box: 'pbx2' }],
  })
  t.equal(await statusOf(port, other, `${DEPLOYMENT}/`), 404)
  await program.run(0, 'backup', '--with-blobs', '--to', 'plain.backup')
  await program.runWith(PASSPHRASE, 0, 'backup', '--with-blobs', '--passphrase', '--to', 'sealed.backup')
  const said = [await stderr(), (await program.run(0, 'audit', '--json')).stdout]
  for (const command of [['status'], ['boxes', 'list'], ['bundles'], ['report', '--to', '.', '--level', 'none']]) {
    const { stdout, stderr: talk } = await program.run(0, ...command)
    said.push(stdout, talk)
  }
  for (const text of said) t.notOk(text.includes(DEPLOYMENT) || text.includes(MARKER))
  t.same(holding(program.dir, [DEPLOYMENT, MARKER]), [])
  t.equal(program.rows().filter(({ what, result }) => what?.command === 'deliver' && result === 'ok').length, 1)
  const secrets = ['identity', 'authority', 'delivery'].map((name) => join(program.storeDir, `${name}.key`))
  const lines = secrets.flatMap((file) =>
    readFileSync(file, 'latin1')
      .split('\n')
      .filter((line) => line.length > 40 && !line.startsWith('-')),
  )
  t.same(holding(program.dir, lines).sort(), secrets.sort(), 'no key but in its own file')
  const [plain, sealed] = ['plain', 'sealed'].map((name) => statSync(join(program.dir, `${name}.backup`)).size)
  t.ok(sealed! > plain! + 1000, 'licenses and keys are only in the sealed one')
})

t.test('a mirror that comes back from a sealed backup serves its boxes on; who was revoked stays so', async (t) => {
  const program = await mirror(t)
  await program.run(0, 'import', '--release', await licensedStick(program))
  const first = await serve(t, program)
  const box = await enrol(program, first.port, 'pbx1', '--deployment', DEPLOYMENT)
  const lost = await enrol(program, first.port, 'pbx2')
  const { code } = (await program.json('boxes', 'enrol', 'pbx3')) as { code: string }
  const made = await program.runWith(PASSPHRASE, 0, 'backup', '--passphrase', '--to', 'a.backup')
  t.match(made.stdout, /\n {2}keys {4}under the passphrase; without it they are lost\n/)
  await first.stderr()

  const there = ['--config', 'new/mirror.yaml']
  await program.run('KEY_PASSPHRASE_MISSING', 'restore', 'a.backup', '--yes', ...there)
  const wrong = { environment: { GAPFERRY_PASSPHRASE: 'wrong' } }
  await program.runWith(wrong, 'KEY_PASSPHRASE_WRONG', 'restore', 'a.backup', '--yes', ...there)
  t.notOk(existsSync(join(program.dir, 'new/store/catalog.db')), 'nothing was put in place')
  await program.runWith(PASSPHRASE, 0, 'restore', 'a.backup', '--yes', ...there)
  for (const name of ['identity.key', 'authority.key', 'delivery.key']) {
    t.equal(statSync(join(program.dir, 'new/store', name)).mode & 0o777, 0o600)
  }
  const second = await serve(t, program, 'new/mirror.yaml')
  t.equal(await statusOf(second.port, box), 200)
  const request = requestFor(box.key)
  t.equal((await enrolWith(second.port, { name: 'pbx3', code, request })).status, 404, 'codes do not come back')

  await program.run(0, 'boxes', 'revoke', 'pbx2')
  const fresh = await enrol(program, (await serve(t, program)).port, 'pbx4')
  await program.run(0, 'restore', 'a.backup', '--replace')
  const third = await serve(t, program)
  t.equal(await statusOf(third.port, lost), 404)
  const rows = program.rows().filter(({ what }) => what?.command === 'deliver')
  t.match(rows.at(-1), { what: { boxes: ['pbx2'], reason: 'revoked' } })
  await statusOf(third.port, fresh)
  t.match(
    program.rows().at(-1),
    { what: { boxes: ['pbx4'], reason: 'the deployment of another' } },
    'who enrolled since still counts',
  )
})

t.test('a backup without a passphrase has no keys, and says so', async (t) => {
  const program = await mirror(t)
  const made = await program.run(0, 'backup', '--to', 'a.backup')
  t.match(made.stdout, /keys {4}none, and no licenses: .* \(--passphrase\)/)
  const restored = await program.run(0, 'restore', 'a.backup', '--yes', '--config', 'new/mirror.yaml')
  t.match(restored.stderr, /warning: no keys came with it: this mirror gets new ones/)
  t.notOk(existsSync(join(program.dir, 'new/store/identity.key')))
  await program.run(0, 'prune', '--config', 'new/mirror.yaml')
  t.ok(existsSync(join(program.dir, 'new/store/authority.pem')))
  await program.runWith(PASSPHRASE, 0, 'backup', '--passphrase', '--to', 'b.backup')
  const without = await program.run(
    0,
    'restore',
    'b.backup',
    '--yes',
    '--without-keys',
    '--config',
    'third/mirror.yaml',
  )
  t.match(without.stderr, /no keys came with it/)
})

t.test('certificates and keys that do not belong together are damage', async (t) => {
  const program = await mirror(t)
  const files = ['authority.pem', 'delivery.pem', 'authority.key', 'delivery.key']
  const kept = new Map(files.map((name) => [name, readFileSync(join(program.storeDir, name))]))
  const restore = () => kept.forEach((bytes, name) => writeFileSync(join(program.storeDir, name), bytes))
  for (const [name, bytes] of [
    ['authority.pem', kept.get('delivery.pem')!],
    ['delivery.pem', kept.get('authority.pem')!],
    ['delivery.key', kept.get('authority.key')!],
    ['authority.key', Buffer.from('x')],
    ['delivery.pem', Buffer.alloc(20_000, 0x2d)],
  ] as const) {
    writeFileSync(join(program.storeDir, name), bytes)
    const warned = await program.run(0, 'prune')
    t.match(warned.stderr, new RegExp(`warning: .*(?:authority|delivery)\\.(?:key|pem): .* cannot be read`), name)
    const { port, stderr } = await serve(t, program)
    t.ok(Number.isNaN(port), 'origins are served all the same')
    t.match(await stderr(), /"alarm":"BOXES_CLOSED","msg":"no box can enrol or fetch its license: /)
    restore()
  }
  rmSync(join(program.storeDir, 'mirror-identity.json'))
  await program.run(0, 'prune')
  t.ok(parseMirrorIdentity(readFileSync(join(program.storeDir, 'mirror-identity.json')), 'x').authority)
})
