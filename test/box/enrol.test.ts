import { X509Certificate } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fingerprintWords } from '../../manifests/words.ts'
import { GAPFERRY_BOX, SHELLS } from '../helpers/box-root.ts'
import { makeLicenseBox, PYTHONS, type LicenseBox } from '../helpers/license-box.ts'
import { makeAuthority, startLicenseMirror, type LicenseMirror, type MirrorFaults } from '../helpers/license-mirror.ts'
import { run, type Outcome } from '../helpers/process.ts'

const CODE = '7H3K-XW9Q-M2TD-ZZ04-PRVA-81CE'
const DAY_MS = 86_400_000

interface Scene {
  mirror: LicenseMirror
  box: LicenseBox
  enrol(options?: { url?: string; code?: string; name?: string; env?: Record<string, string> }): Promise<Outcome>
  /** name → bytes of /etc/gapferry */
  own(): Record<string, string>
}

async function makeScene(t: Test, faults: MirrorFaults = {}, python = PYTHONS[0]!): Promise<Scene> {
  const mirror = await startLicenseMirror(t, faults)
  mirror.codes.set('pbx1', CODE)
  const box = await makeLicenseBox(join(t.testdir(), 'box'), { python })
  const folder = join(box.root, 'etc/gapferry')
  return {
    ...{ mirror, box },
    enrol: ({ url = mirror.url, code = CODE, name = 'pbx1', env = {} } = {}) =>
      box.run(['enrol', url, '--code', code, '--box', name], { env }),
    own: () => {
      const names = existsSync(folder) ? readdirSync(folder) : []
      return Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name), 'utf8')]))
    },
  }
}

for (const [index, python] of PYTHONS.entries()) {
  t.test(`a box is enrolled with its own key (${python})`, async (t) => {
    const { mirror, box, enrol, own } = await makeScene(t, {}, python)
    // people type it as they read it
    const outcome = await enrol({ code: CODE.toLowerCase().replaceAll('-', ''), name: 'PBX1' })
    const certificate = mirror.boxes.get('pbx1')!
    t.match(outcome, { status: 0, stderr: '' })
    t.equal(
      outcome.stdout,
      `enrolled as pbx1 at ${mirror.url}\ncertificate: ${fingerprintWords(certificate)}\nnext: gapferry-box license\n`,
    )
    const files = own()
    t.strictSame(Object.keys(files).sort(), ['authority.pem', 'box.key', 'box.pem', 'enrolled'])
    t.ok(new X509Certificate(files['box.pem']!).raw.equals(certificate))
    t.ok(new X509Certificate(files['authority.pem']!).raw.equals(mirror.authority.certificate.raw))
    t.equal(files['enrolled'], `mirror ${mirror.url}\nbox pbx1\n`)
    t.equal(statSync(join(box.root, 'etc/gapferry/box.key')).mode & 0o777, 0o600)
    t.equal(statSync(join(box.root, 'etc/gapferry')).mode & 0o777, 0o700)
    t.match(await box.run(['license']), { status: 4, stderr: /has no license for this box/ })
  })
  t.test(`the code can be read from standard input (${SHELLS[index]!.join(' ')})`, async (t) => {
    const { mirror, box } = await makeScene(t, {}, python)
    const script = `printf '%s\\n' "$CODE" | "$@"`
    const tool = [...SHELLS[index]!, GAPFERRY_BOX]
    const args = ['-c', script, 'sh', ...tool, 'enrol', mirror.url, '--box', 'pbx1', '--root', box.root]
    t.match(await run('sh', args, { env: { CODE } }), { status: 0, stdout: /^enrolled as pbx1/ })
  })
}

t.test('a wrong code, a used code, a name without one: refused, and nothing is kept', async (t) => {
  const { box, enrol, own } = await makeScene(t)
  for (const wrong of [{ code: `${CODE.slice(0, -1)}F` }, { name: 'pbx2' }]) {
    t.match(await enrol(wrong), { status: 3, stdout: '', stderr: /the code is wrong, used or too old/ })
    t.strictSame(own(), {})
  }
  t.match(await enrol(), { status: 0 })
  const before = own()
  t.match(await enrol(), { status: 3, stderr: /next: on the mirror: gapferry-mirror boxes enrol pbx1/ })
  t.strictSame(own(), before)
  t.match(await box.run(['license']), { status: 4 })
})

t.test('a second enrolment replaces the first whole', async (t) => {
  const { mirror, box, enrol, own } = await makeScene(t)
  await enrol()
  const before = own()
  const other = await startLicenseMirror(t)
  other.codes.set('pbx1', CODE)
  t.match(await enrol({ url: other.url }), { status: 0 })
  const after = own()
  for (const name of Object.keys(before)) t.not(after[name], before[name], name)
  t.match(await box.run(['license']), { status: 4 })
  t.equal(other.requests.at(-1)!.line, 'GET /boxes/pbx1/license')
  t.equal(mirror.requests.length, 2)
})

t.test(
  'killed while the new keys are put in place, they are the old ones or, with the next run, the new ones',
  async (t) => {
    const seen = new Set<string>()
    for (let n = 1; n <= 5; n++) {
      const { mirror, box, enrol, own } = await makeScene(t)
      await enrol()
      const before = own()
      const other = await startLicenseMirror(t)
      other.codes.set('pbx1', CODE)
      const kill = ['-e', 'trace=rename', '-e', `inject=rename:signal=KILL:when=${n}`]
      const shell = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'signal=none', ...kill, 'dash'] as const
      const args = ['enrol', other.url, '--code', CODE, '--box', 'pbx1']
      t.match(await box.run(args, { shell: [...shell] }), { status: 137, stdout: '' })
      t.match(await box.run(['license']), { status: 4, stderr: /has no license for this box/ })
      const asked = other.requests.at(-1)!.line === 'GET /boxes/pbx1/license' ? 'new' : 'old'
      seen.add(asked)
      if (asked === 'old') t.strictSame(own(), before)
      else t.match(own(), { enrolled: `mirror ${other.url}\nbox pbx1\n` })
      t.equal(mirror.requests.at(-1)!.line === 'GET /boxes/pbx1/license', asked === 'old')
      t.strictSame(Object.keys(own()).sort(), Object.keys(before).sort())
    }
    t.strictSame([...seen], ['old', 'new'])
  },
)

t.test('wrong use is told, and changes nothing', async (t) => {
  const { box, enrol, own } = await makeScene(t)
  const urls = ['http://127.0.0.1:8490', 'https://127.0.0.1', 'https://u:p@127.0.0.1:1', 'https://127.0.0.1:1/x']
  for (const url of urls) t.match(await box.run(['enrol', url, '--code', CODE]), { status: 2 }, url)
  for (const name of ['a b', '../x', 'a'.repeat(70)]) t.match(await enrol({ name }), { status: 2 }, name)
  t.match(await box.run(['enrol']), { status: 2, stderr: /address of the mirror is missing/ })
  t.match(await box.run(['enrol', '--file', 'x']), { status: 2 })
  t.strictSame(own(), {})
})

t.test('a mirror that is away, or is none', async (t) => {
  const { enrol, own } = await makeScene(t)
  const silent = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  const { port } = silent.address() as AddressInfo
  t.match(await enrol({ url: `https://127.0.0.1:${port}` }), { status: 6, stderr: /see that the mirror serves/ })
  silent.close()
  await once(silent, 'close')
  t.match(await enrol({ url: `https://127.0.0.1:${port}` }), { status: 6, stderr: /refused/ })
  t.match(await enrol({ url: 'https://no-such-host.invalid:1' }), { status: 6 })
  t.strictSame(own(), {})
})

t.test('somebody in between, with another certificate, can pass nothing on', async (t) => {
  const { mirror, enrol, own } = await makeScene(t)
  const between = await startLicenseMirror(t, { relayTo: mirror.url })
  t.match(await enrol({ url: between.url }), { status: 3 })
  t.ok(mirror.requests.some(({ line }) => line === 'POST /enrol'))
  t.strictSame(own(), {})
  t.ok(mirror.codes.has('pbx1'), 'the code was not used up')
})

t.test('an answer with another authority in it is not believed', async (t) => {
  const { mirror, enrol, own } = await makeScene(t)
  const forged = makeAuthority()
  mirror.faults.spoil = (what, body) => {
    if (what !== 'enrol') return body
    const answer = JSON.parse(body.toString()) as Record<string, string>
    return Buffer.from(JSON.stringify({ ...answer, authority: forged.certificate.toString() }))
  }
  t.match(await enrol(), { status: 3, stderr: /not by a mirror that knows this code/ })
  t.strictSame(own(), {})
})

t.test('answers that are no answers', async (t) => {
  const { mirror, enrol, own } = await makeScene(t)
  const bodies: ((answer: Record<string, string>) => string)[] = [
    () => '',
    () => '[]',
    () => 'x'.repeat(70_000),
    () => '{"certificate":1,"authority":2,"proof":3}',
    (answer) => JSON.stringify({ ...answer, proof: answer['proof']!.replace(/^./, (c) => (c === '0' ? '1' : '0')) }),
    (answer) => JSON.stringify({ ...answer, certificate: `${answer['certificate']}${answer['certificate']}` }),
    (answer) => JSON.stringify({ ...answer, certificate: `${answer['certificate']}# for /etc/gapferry\n` }),
    (answer) => JSON.stringify({ ...answer, proof: undefined }),
  ]
  for (const make of bodies) {
    mirror.codes.set('pbx1', CODE)
    mirror.faults.spoil = (_, body) => Buffer.from(make(JSON.parse(body.toString()) as Record<string, string>))
    t.match(await enrol(), { status: 3, stdout: '' }, make.toString())
    t.strictSame(own(), {})
  }
})

t.test('an old answer is not taken again', async (t) => {
  const { mirror, enrol, own } = await makeScene(t)
  let first: Buffer | undefined
  mirror.faults.spoil = (_, body) => (first ??= body)
  t.match(await enrol(), { status: 0 })
  const before = own()
  mirror.codes.set('pbx1', CODE) // even where the code were the same again
  t.match(await enrol(), { status: 3, stderr: /is for another key/ })
  t.strictSame(own(), before)
})

t.test('a certificate for another host is told', async (t) => {
  const { enrol, own } = await makeScene(t, { hosts: ['mirror.hq.lan', '10.0.0.1'] })
  t.match(await enrol(), {
    status: 3,
    stderr: /certificate is for mirror\.hq\.lan, 10\.0\.0\.1.*, not for 127\.0\.0\.1/,
  })
  t.strictSame(own(), {})
})

t.test('names and addresses of a mirror are compared as such', async (t) => {
  for (const python of PYTHONS) {
    const { mirror, enrol } = await makeScene(t, { hosts: ['localhost', '127.0.0.1', '::1'] }, python)
    t.match(await enrol({ url: mirror.url.replace('127.0.0.1', 'LocalHost') }), { status: 0 }, python)
    mirror.codes.set('pbx1', CODE)
    t.match(await enrol(), { status: 0 }, python)
  }
})

t.test('what answers over TLS 1.1 is not spoken to', async (t) => {
  const { mirror, enrol } = await makeScene(t)
  // a server's first words in TLS 1.1, whatever it is asked
  const old = createServer((socket) => {
    socket.once('data', () => socket.end(Buffer.from('160302002a020000260302' + '00'.repeat(32) + '00002f00', 'hex')))
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  await once(old, 'listening')
  t.teardown(() => old.close())
  t.match(await enrol({ url: `https://127.0.0.1:${(old.address() as AddressInfo).port}` }), { status: 6 })
  t.strictSame(mirror.requests, [])
})

t.test('a clock that is wrong is named, on whichever side', async (t) => {
  for (const python of PYTHONS) {
    const { mirror, box, enrol, own } = await makeScene(t, { aheadMs: 40 * DAY_MS }, python)
    t.match(await enrol(), {
      status: 0,
      stderr: /the clocks differ by (39|40) days: it is .* here and .* at the mirror/,
    })
    t.match(await box.run(['license']), { status: 4, stderr: /the clocks differ by/ })
    mirror.faults.aheadMs = -3 * 3_600_000
    t.match(await box.run(['license']), { status: 4, stderr: /the clocks differ by (2|3) hours/ })
    mirror.faults.aheadMs = 60_000
    const outcome = await box.run(['license'])
    t.notMatch(outcome.stderr, /clocks/)
    t.ok(own()['enrolled'])
  }
})

t.test('a box whose clock is before the mirror was made', async (t) => {
  for (const python of PYTHONS) {
    const { mirror, box, enrol, own } = await makeScene(t, {}, python)
    const shell: [string, ...string[]] = ['faketime', '-f', '-900d', 'dash']
    const early = await box.run(['enrol', mirror.url, '--code', CODE, '--box', 'pbx1'], { shell })
    t.match(early, {
      status: 3,
      stderr: /the clocks differ by (899|900) days.*not valid yet by the clock of this box/s,
    })
    t.strictSame(own(), {})
    mirror.codes.set('pbx1', CODE)
    t.match(await enrol(), { status: 0 })
    t.match(await box.run(['license'], { shell }), {
      status: 3,
      stderr: /the clocks differ by (899|900) days.*not valid yet.*\n.*next: set the clock/s,
    })
  }
})

t.test('a mirror whose clock was in the future when it was made', async (t) => {
  const { mirror, enrol, own } = await makeScene(t, { notBeforeMs: Date.now() + 90 * DAY_MS, aheadMs: 91 * DAY_MS })
  t.match(await enrol(), { status: 3, stderr: /the clocks differ by (90|91) days: .*not valid yet/ })
  t.strictSame(own(), {})
  t.ok(mirror.requests.length > 0)
})

t.test('another mirror at the same address is not believed', async (t) => {
  for (const python of PYTHONS) {
    const { mirror, box, enrol } = await makeScene(t, {}, python)
    await enrol()
    const other = await startLicenseMirror(t)
    const text = readFileSync(join(box.root, 'etc/gapferry/enrolled'), 'utf8')
    writeFileSync(join(box.root, 'etc/gapferry/enrolled'), text.replace(mirror.url, other.url))
    t.match(await box.run(['license']), {
      ...{ status: 3, stderr: /not of the authority that this box was enrolled with/ },
    })
    t.notOk(other.requests.some(({ headers }) => 'gapferry-deployment' in headers))
  }
})

t.test('a key where there is no mirror, made once', async (t) => {
  for (const python of PYTHONS) {
    const { box, enrol, own } = await makeScene(t, {}, python)
    const made = await box.run(['key', '--box', 'pbx1'])
    t.match(made, { status: 0, stderr: '' })
    const certificate = new X509Certificate(own()['box.pem']!)
    t.equal(made.stdout, `certificate: ${fingerprintWords(certificate.raw)}\n`)
    t.match(certificate, { subject: 'CN=pbx1' })
    t.equal(certificate.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1')
    t.strictSame(await box.run(['key']), made)
    t.strictSame(Object.keys(own()).sort(), ['box.key', 'box.pem'])
    t.match(await box.run(['license']), { status: 4, stderr: /is not enrolled/ })
    t.match(await enrol(), { status: 0 })
    t.not(own()['box.pem'], certificate.toString())
  }
})
