import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import { openCms } from '../../manifests/cms.ts'
import { parseLicense } from '../../manifests/license.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { deploymentHmac } from '../../server/identity.ts'
import { Licenses } from '../../server/licenses.ts'
import { openStore } from '../../server/store.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import {
  captureOf,
  filesWith,
  LICENSE_MARKER,
  licensedInventory,
  makeAuthority,
  tellLaptop,
  writeLicenseFolder,
  type LicensedSpec,
} from '../helpers/licenses.ts'
import { decryptWithOpenssl } from '../helpers/openssl.ts'
import { must, run } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'
import { entriesOf, flipByte } from '../helpers/tar.ts'

const VERIFY_PY = resolve(import.meta.dirname, '../../bundler/verify.py')
const PBX1: LicensedSpec = { box: 'pbx1', deploymentId: 'MARK-11112222-a' }
const PBX2: LicensedSpec = { box: 'pbx2', deploymentId: 'MARK-33334444-b' }
const PBX3: LicensedSpec = { box: 'pbx3', deploymentId: 'MARK-55556666-c' }
const MARKERS = [PBX1, PBX2, PBX3].map(({ deploymentId }) => deploymentId).concat(LICENSE_MARKER)

/** Everything that a command said. */
const said: string[] = []

/** A gap with one vendor file to carry, and the boxes' inventories. */
async function makeSite(test: Test, boxes: LicensedSpec[]): Promise<Gap> {
  const dir = test.testdir({ vendor: { 'firmware.bin': 'firmware' } })
  const vendor = await serveFolder(join(dir, 'vendor'))
  test.teardown(() => vendor.close())
  const gap = await makeGap(test, dir, `files: [ { url: ${vendor.url}/firmware.bin, as: firmware/x.bin } ]\n`)
  const loud =
    (work: Gap['gapferry']): Gap['gapferry'] =>
    async (...args) => {
      const outcome = await work(...args)
      said.push(outcome.stdout, outcome.stderr)
      return outcome
    }
  const site = { ...gap, gapferry: loud(gap.gapferry), mirror: loud(gap.mirror) }
  for (const box of boxes) {
    writeFileSync(join(dir, `${box.box}.gfi`), licensedInventory(box))
    must(await site.gapferry('inventory', 'add', join(dir, `${box.box}.gfi`)))
  }
  return site
}

/** The blobs of a bundle's parts. */
function blobsIn(files: string[]): string[] {
  const names = files.flatMap((file) => entriesOf(file).map(({ name }) => name))
  return names.filter((name) => name.startsWith('blobs/')).map((name) => name.slice(6))
}

t.test('licenses reach the mirror sealed, and nothing of them is in the clear on the way', async (t) => {
  const gap = await makeSite(t, [PBX1, PBX2, PBX3])
  const keys = makeAuthority()
  const pbx2 = keys.box('pbx2')
  const capture = join(gap.dir, 'pbx1.license.tar')
  writeFileSync(capture, captureOf(PBX1))
  const added = must(await gap.gapferry('license', 'add', capture, writeLicenseFolder(join(gap.dir, 'pbx2'), PBX2)))
  t.match(added.stdout, /^hq: license of pbx1 added, PBXact: good: sysadmin_exp 2027-11-30$/m)
  t.match(added.stdout, /2 licenses of hq cannot be carried: the delivery key of its mirror is not known/)
  const before = must(await gap.gapferry('license', 'list', '--json'))
  t.match(JSON.parse(before.stdout), {
    licenses: [
      { box: 'pbx1', state: 'good', sealedFor: null, expires: '2027-11-30', source: 'capture' },
      { box: 'pbx2', state: 'good', sealedFor: null, source: 'folder' },
      { box: 'pbx3', state: 'missing', license: null },
    ],
  })
  const without = await gap.bundle()
  t.strictSame((await inspected(gap, without.files)).blobs, [], 'nothing is carried while nobody is known to seal for')

  tellLaptop(gap.laptopDir, keys, [{ box: 'pbx2', certificate: pbx2.certificate, isRevoked: false }])
  const plan = must(await gap.gapferry('plan'))
  t.match(plan.stdout, /licenses of hq: 2 licenses for 3 boxes\n {2}pbx3: missing: nothing is kept for it/)
  t.notMatch(plan.stdout, /cannot be carried/)
  const bundle = await gap.bundle('--part-size', '60KB')
  t.equal(bundle.isNew, true)
  t.equal((await inspected(gap, bundle.files)).blobs.length, 3, 'two licenses and the index')
  t.equal((await gap.bundle()).isNew, false, 'nothing changed, so nothing is signed')
  t.match(must(await gap.gapferry('verify', ...bundle.files)).stdout, /bundle 2/)
  const python = must(await run('python3', [VERIFY_PY, gap.rootFile, ...bundle.files]))
  t.match(python.stdout, /^whole$/m)
  await gap.deliver()
  must(await gap.mirror('verify'))
  const store = openStore(join(gap.mirrorDir, 'store'))
  const { key } = keys.authority
  const licenses = new Licenses(store, {
    key,
    delivery: { key: keys.delivery.key, certificate: new X509Certificate(keys.delivery.certificate) },
  })
  const forPbx1 = await licenses.licenseFor(deploymentHmac({ key }, 'hq', PBX1.deploymentId))
  t.match(forPbx1, { recipient: 'mirror' })
  const opened = await openCms(forPbx1!.cms, keys.delivery.key, keys.delivery.certificate, 'x')
  t.equal(sha256Of(opened), forPbx1!.content)
  const license = parseLicense(opened, 'x')
  t.match(license, { site: 'hq', deploymentId: PBX1.deploymentId, product: 'PBXact', host: 'H:ABCDE-12345' })
  t.ok(license.files[1]!.data.includes(LICENSE_MARKER))
  const forPbx2 = await licenses.licenseFor(deploymentHmac({ key }, 'hq', PBX2.deploymentId))
  t.match(forPbx2, { recipient: 'box' })
  const files = { keyFile: join(gap.dir, 'box.key'), certificateFile: join(gap.dir, 'box.pem') }
  writeFileSync(files.keyFile, pbx2.key.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(files.certificateFile, new X509Certificate(pbx2.certificate).toString())
  const byOpenssl = decryptWithOpenssl({ ...pbx2, ...files }, forPbx2!.cms)
  t.match(parseLicense(byOpenssl, 'x'), { deploymentId: PBX2.deploymentId }, 'openssl opens it with the key of the box')
  t.equal(await licenses.licenseFor(deploymentHmac({ key }, 'hq', PBX3.deploymentId)), undefined)
  t.strictSame(
    [...(await licenses.known()).values()].map(({ product }) => product),
    ['PBXact', 'PBXact'],
  )
  store.close()

  t.strictSame(filesWith(gap.stickDir, MARKERS), [], 'the stick')
  t.strictSame(filesWith(gap.mirrorDir, MARKERS), [], "the mirror's store")
  t.strictSame(filesWith(join(gap.laptopDir, 'store'), MARKERS), [], "the laptop's store, its ledger, plan and logs")
  t.strictSame(filesWith(join(gap.laptopDir, 'keys'), MARKERS), [], 'the keys')
  t.strictSame(
    MARKERS.filter((text) => said.some((output) => output.includes(text))),
    [],
    'what the commands said',
  )
  t.not(filesWith(join(gap.dir, 'pbx2'), MARKERS).length, 0, 'the search finds what is there')
})

t.test('a changed license makes a bundle that brings it and the index, and nothing that the site has', async (t) => {
  const gap = await makeSite(t, [PBX1, PBX2])
  const keys = makeAuthority()
  for (const spec of [PBX1, PBX2]) writeFileSync(join(gap.dir, `${spec.box}.tar`), captureOf(spec))
  const files = [PBX1, PBX2].map(({ box }) => join(gap.dir, `${box}.tar`))
  must(await gap.gapferry('license', 'add', ...files))
  tellLaptop(gap.laptopDir, keys)
  const first = await inspected(gap, (await gap.bundle()).files)
  await gap.deliver()
  must(await gap.gapferry('report', 'add', '--words', await wordsOf(gap)))
  writeFileSync(files[0]!, captureOf({ ...PBX1, expires: '2028-02-29' }, { capturedAt: '2026-11-21T10:00:00Z' }))
  t.match(must(await gap.gapferry('license', 'add', files[0]!)).stdout, /license of pbx1 replaced/)
  const bundle = await gap.bundle()
  const second = await inspected(gap, bundle.files)
  t.equal(second.blobs.filter(({ sha256 }) => first.blobs.some((one) => one.sha256 === sha256)).length, 1, 'pbx2')
  t.strictSame(
    second.blobs.filter(({ isHere }) => isHere).map(({ sha256 }) => first.blobs.some((one) => one.sha256 === sha256)),
    [false, false],
    'the license of pbx2 is left out',
  )
  const incomplete = await run('python3', [VERIFY_PY, gap.rootFile, ...bundle.files])
  t.match(incomplete, { status: 4, stdout: /MISSING: licenses\/[0-9a-f]{64}/ })
  await gap.deliver(...bundle.files)
  t.match(JSON.parse(must(await gap.mirror('bundles', '--json')).stdout), {
    bundles: [{ number: 2, isComplete: true }, {}],
  })

  const older = await gap.gapferry('license', 'add', join(gap.dir, 'pbx1.tar'))
  t.match(older.stdout, /is here already/)
  writeFileSync(files[0]!, captureOf({ ...PBX1, expires: '2027-01-01' }, { capturedAt: '2026-11-19T10:00:00Z' }))
  t.match(await gap.gapferry('license', 'add', files[0]!), { status: 3, stderr: /LICENSE_OLDER/ })
  must(await gap.gapferry('license', 'add', '--force', files[0]!))

  must(await gap.gapferry('license', 'remove', 'pbx1', 'pbx2'))
  const last = await gap.bundle()
  t.equal(last.isNew, true)
  t.strictSame((await inspected(gap, last.files)).blobs, [], 'forgotten licenses are not carried')
  await gap.deliver(...last.files)
  const before = blobsBelow(gap)
  must(await gap.mirror('prune', '--keep', '1', '--yes'))
  t.ok(second.blobs.every(({ sha256 }) => before.includes(sha256)))
})

t.test('a bundle without one of its licenses is not whole, and is not released', async (t) => {
  const gap = await makeSite(t, [PBX1])
  writeFileSync(join(gap.dir, 'pbx1.tar'), captureOf(PBX1))
  must(await gap.gapferry('license', 'add', join(gap.dir, 'pbx1.tar')))
  tellLaptop(gap.laptopDir, makeAuthority())
  const [whole] = (await gap.bundle()).files
  const { files } = await gap.bundle('--part-size', `${statSync(whole!).size - 2048}`)
  const { blobs, index } = await inspected(gap, files)
  const others = files.filter((file) => !blobsIn([file]).includes(index!))
  t.equal(others.length, files.length - 1)
  const imported = await gap.mirror('import', '--release', ...others)
  t.match(imported, { status: 4 })
  t.match(imported.stdout + imported.stderr, /licenses\/index/)
  t.match(await gap.mirror('release'), { status: 4, stderr: /RELEASE_INCOMPLETE/ })
  await gap.deliver(...files)
  must(await gap.mirror('verify'))
  must(await gap.mirror('prune', '--keep', '1', '--yes'))
  t.strictSame(
    blobs.filter(({ sha256 }) => !blobsBelow(gap).includes(sha256)),
    [],
    'they stay while the bundle does',
  )
  flipByte(join(gap.mirrorDir, 'store', 'blobs', index!.slice(0, 2), index!), 100)
  t.match(await gap.mirror('verify'), { status: 1, stdout: /licenses\/index/ })
})

interface InspectedLicenses {
  index: string | null
  blobs: { sha256: string; isHere: boolean }[]
}

async function inspected(gap: Gap, files: string[]): Promise<InspectedLicenses> {
  const { stdout } = must(await gap.gapferry('inspect', '--json', ...files))
  const { bundles } = JSON.parse(stdout) as { bundles: { licenses: InspectedLicenses | null }[] }
  return bundles[0]!.licenses ?? { index: null, blobs: [] }
}

/** As a person reads them from the mirror's screen. */
async function wordsOf(gap: Gap): Promise<string> {
  const { stdout } = must(await gap.mirror('report', '--level', 'words', '--json'))
  return (JSON.parse(stdout) as { words: string }).words
}

function blobsBelow(gap: Gap): string[] {
  return readdirSync(join(gap.mirrorDir, 'store', 'blobs'), { recursive: true, encoding: 'utf8' }).map((name) =>
    basename(name),
  )
}
