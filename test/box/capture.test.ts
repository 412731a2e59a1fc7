import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseInventory } from '../../manifests/inventory.ts'
import { parseCapture } from '../../manifests/license-capture.ts'
import { SHELLS, GAPFERRY_BOX } from '../helpers/box-root.ts'
import { DEPLOYMENT, licenseText, makeLicenseBox, MARKER, PYTHONS, type LicenseBox } from '../helpers/license-box.ts'
import { run } from '../helpers/process.ts'

/** Into a file, as a person does it. */
async function capture(
  box: LicenseBox,
  shell = SHELLS[0]!,
): Promise<{ status: number; stderr: string; bytes: Buffer }> {
  const file = join(box.dir, 'pbx1.license.tar')
  const script = 'out=$1; shift; exec "$@" >"$out"'
  const args = ['-c', script, 'sh', file, ...shell, GAPFERRY_BOX, 'capture', '--box', 'pbx1', '--root', box.root]
  const { status, stderr } = await run('sh', args, { env: { PATH: `${box.path}:/usr/bin:/bin` } })
  return { status, stderr, bytes: readFileSync(file) }
}

for (const [index, options] of [
  ...PYTHONS.map((python) => ({ major: 16 as const, python })),
  { major: 17 as const, python: PYTHONS[0]! },
].entries()) {
  t.test(`the license files of a box, as the laptop takes them (${options.major}, ${options.python})`, async (t) => {
    const box = await makeLicenseBox(join(t.testdir(), 'box'), options)
    box.write('/etc/schmooze/license-endpoint.zl', licenseText())
    chmodSync(join(box.root, 'etc/schmooze/license-endpoint.zl'), 0o640)
    chownSync(join(box.root, 'etc/schmooze/license-endpoint.zl'), 995, 993)
    const before = box.everything()
    const { status, stderr, bytes } = await capture(box, SHELLS[index])
    t.equal(status, 0, stderr)
    t.match(stderr, /files captured. The archive holds the license in the clear/)
    t.notMatch(stderr, new RegExp(`${MARKER}|${DEPLOYMENT}`))
    const captured = parseCapture(bytes, 'pbx1.license.tar')
    const inventory = await box.run(['inventory'])
    const { machine } = parseInventory(Buffer.from(inventory.stdout), 'x.gfi')
    t.match(captured, { box: 'pbx1', deploymentId: DEPLOYMENT, machine })
    t.ok(Math.abs(Date.parse(captured.capturedAt) - Date.now()) < 60_000)
    const paths = ['/etc/schmooze/license-endpoint.zl', '/etc/schmooze/pbxid', '/etc/schmooze/schmooze.zl']
    t.strictSame(
      captured.files.map(({ path }) => path),
      options.major === 17 ? ['/etc/sangoma/license.txt', ...paths] : paths,
    )
    const endpoint = captured.files.find(({ path }) => path === paths[0])!
    t.match(endpoint, { mode: '0640', owner: 'asterisk', group: 'asterisk' })
    t.equal(endpoint.data.toString(), licenseText())
    t.strictSame(box.everything(), before)
  })
}

t.test('only plain files of the places where licenses lie', async (t) => {
  const box = await makeLicenseBox(join(t.testdir(), 'box'))
  const folder = join(box.root, 'etc/schmooze')
  symlinkSync('/etc/shadow', join(folder, 'license.txt'))
  execFileSync('mkfifo', [join(folder, 'pipe.zl')])
  mkdirSync(join(folder, 'licenses'))
  for (const name of ['.hidden.zl', 'notes.txt', 'a b.zl', 'zl']) writeFileSync(join(folder, name), 'x')
  const { status, stderr, bytes } = await capture(box)
  t.equal(status, 0)
  t.match(stderr, /schmooze\/license\.txt is no plain file: it is left out/)
  const names = parseCapture(bytes, 'x').files.map(({ path }) => path)
  t.strictSame(names, ['/etc/schmooze/pbxid', '/etc/schmooze/schmooze.zl'])
})

t.test('a box without a license, or without a Deployment ID, has nothing to capture', async (t) => {
  const box = await makeLicenseBox(join(t.testdir(), 'box'))
  rmSync(join(box.root, 'etc/schmooze/schmooze.zl'))
  t.match(await capture(box), { status: 4, stderr: /no license file is here/, bytes: Buffer.alloc(0) })
  box.write('/etc/schmooze/schmooze.zl', 'Product-Name = PBXact\n')
  rmSync(join(box.root, 'etc/schmooze/pbxid'))
  t.match(await capture(box), { status: 4, stderr: /has no Deployment ID/, bytes: Buffer.alloc(0) })
  box.write('/etc/schmooze/schmooze.zl', licenseText())
  t.match(await capture(box), { status: 0 })
})

t.test('too many files, or too large ones', async (t) => {
  const box = await makeLicenseBox(join(t.testdir(), 'box'))
  for (let n = 0; n < 31; n++) box.write(`/etc/schmooze/${n}.zl`, 'x')
  t.match(await capture(box), { status: 3, stderr: /more than 32 license files/, bytes: Buffer.alloc(0) })
  for (let n = 1; n < 31; n++) rmSync(join(box.root, `etc/schmooze/${n}.zl`))
  box.write('/etc/schmooze/0.zl', 'x'.repeat((1 << 20) + 1))
  t.match(await capture(box), { status: 3, stderr: /has more than 1048576 bytes/, bytes: Buffer.alloc(0) })
  t.match(await box.run(['capture', '--code', 'x']), { status: 2 })
})
