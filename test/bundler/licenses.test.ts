import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { keepLicense, openKept } from '../../bundler/licenses/keep.ts'
import { fromCapture } from '../../bundler/licenses/license-files.ts'
import { openCms } from '../../manifests/cms.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { parseLicense } from '../../manifests/license.ts'
import { deploymentHmac, ensureIdentity, lifeOf, type Identity } from '../../server/identity.ts'
import { keepInventory, openInventories } from '../../server/inventories.ts'
import { issueCertificate, pemOf } from '../../server/issue.ts'
import { licenseStates } from '../../server/license-states.ts'
import { Licenses } from '../../server/licenses.ts'
import { openStore } from '../../server/store.ts'
import { Ledger } from '../../storage/ledger.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { captureOf, filesWith, LICENSE_MARKER, licensedInventory, writeLicenseFolder } from '../helpers/licenses.ts'
import type { LicensedSpec } from '../helpers/licenses.ts'
import { decryptWithOpenssl, type Holder } from '../helpers/openssl.ts'
import { must, run } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'
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
  const files = boxes.map(({ box }) => join(dir, `${box}.gfi`))
  boxes.forEach((box, i) => writeFileSync(files[i]!, licensedInventory(box)))
  must(await site.gapferry('inventory', 'add', ...files))
  return site
}

/** The blobs of a bundle's parts. */
function blobsIn(files: string[]): string[] {
  const names = files.flatMap((file) => entriesOf(file).map(({ name }) => name))
  return names.filter((name) => name.startsWith('blobs/')).map((name) => name.slice(6))
}

t.test('licenses reach the mirror sealed, and nothing of them is in the clear on the way', async (t) => {
  const gap = await makeSite(t, [PBX1, PBX2, PBX3])
  const storeDir = join(gap.mirrorDir, 'store')
  const identity = ensureIdentity({ dir: storeDir, site: 'hq' }, Date.now())
  const capture = join(gap.dir, 'pbx1.license.tar')
  writeFileSync(capture, captureOf(PBX1))
  const added = must(await gap.gapferry('license', 'add', capture, writeLicenseFolder(join(gap.dir, 'pbx2'), PBX2)))
  t.match(added.stdout, /^hq: license of pbx1 added, PBXact: good: sysadmin_exp 2027-11-30$/m)
  t.match(added.stdout, /2 licenses of hq cannot be carried: the delivery key of its mirror is not known/)
  t.match(JSON.parse(must(await gap.gapferry('license', 'list', '--json')).stdout), {
    licenses: [
      { box: 'pbx1', state: 'good', sealedFor: null, expires: '2027-11-30', source: 'capture' },
      { box: 'pbx2', state: 'good', sealedFor: null, source: 'folder' },
      { box: 'pbx3', state: 'unknown', license: null },
    ],
  })

  must(await gap.gapferry('report', 'add', join(storeDir, 'mirror-identity.json'), '--identity', identity.words))
  const pbx2 = newBox(identity, 'pbx2')
  enroll(gap, 'pbx2', pbx2.certificate)
  const plan = must(await gap.gapferry('plan'))
  t.match(
    plan.stdout,
    /licenses of hq: 2 kept, 3 boxes in need of one\n {2}pbx3: unknown: none was brought; the one on the box: no date/,
  )
  t.notMatch(plan.stdout, /cannot be carried/)
  const packed = await gap.bundle()
  const [whole] = packed.files
  t.match(readFileSync(join(gap.stickDir, `gapferry/hq/hq-${packed.number}.txt`), 'latin1'), '  2 licenses, ')
  const bundle = await gap.bundle('--part-size', `${statSync(whole!).size - 4096}`)
  t.equal(bundle.isNew, false, 'nothing changed, so nothing is signed or sealed')
  const first = await inspected(gap, bundle.files)
  t.equal(first.blobs.length, 3, 'two licenses and the index')
  t.match(must(await gap.gapferry('verify', ...bundle.files)).stdout, /complete/)
  t.match(must(await run('python3', [VERIFY_PY, gap.rootFile, ...bundle.files])).stdout, /^whole$/m)

  const others = bundle.files.filter((file) => !blobsIn([file]).includes(first.index!))
  t.equal(others.length, bundle.files.length - 1)
  const cut = await gap.mirror('import', '--release', ...others)
  t.match(cut, { status: 4, stdout: /licenses\/index/ }, 'a bundle without the index is not whole')
  t.match(await gap.mirror('release'), { status: 4, stderr: /RELEASE_INCOMPLETE/ })
  const imported = must(await gap.mirror('import', '--release', ...bundle.files))
  t.match(imported.stdout, /^ {2}licenses +2 licenses +[\d.]+ kB +sealed, on no origin$/m)
  t.match(imported.stdout, /^ {2}pbxact16 .* nothing is served yet$/m)
  await looksRight(t, gap, { identity, pbx2 })

  must(await gap.gapferry('report', 'add', '--words', await wordsOf(gap)))
  writeFileSync(capture, captureOf({ ...PBX1, expires: '2028-02-29' }, { capturedAt: '2026-11-21T10:00:00Z' }))
  t.match(must(await gap.gapferry('license', 'add', capture)).stdout, /license of pbx1 replaced/)
  const changed = await gap.bundle()
  const second = await inspected(gap, changed.files)
  const isOld = ({ sha256 }: { sha256: string }): boolean => first.blobs.some((one) => one.sha256 === sha256)
  t.equal(second.blobs.filter(isOld).length, 1, 'the license of pbx2 is the same blob')
  t.strictSame(second.blobs.filter(({ isHere }) => isHere).map(isOld), [false, false], 'and is left out')
  const incomplete = await run('python3', [VERIFY_PY, gap.rootFile, ...changed.files])
  t.match(incomplete, { status: 4, stdout: /MISSING: licenses\/[0-9a-f]{64}/ })
  await gap.deliver(...changed.files)
  must(await gap.mirror('prune', '--keep', '1', '--yes'))
  const left = blobsBelow(storeDir)
  t.ok(
    second.blobs.every(({ sha256 }) => left.includes(sha256)),
    'they stay while their bundle does',
  )
  flipByte(join(storeDir, 'blobs', second.index!.slice(0, 2), second.index!), 100)
  t.match(await gap.mirror('verify'), { status: 1, stdout: /licenses\/index/ })
  noMarkers(t, gap)
})

t.test('what is asked for at the HTTP source stays at home, too', async (t) => {
  const gap = await makeSite(t, [PBX1, PBX2])
  const server = await serveFolder(gap.dir, {
    route: ({ url }, response) => {
      if (url?.startsWith('/licenses/') !== true) return false
      if (url.endsWith(PBX1.deploymentId)) response.end(captureOf(PBX1))
      else response.writeHead(404).end()
      return true
    },
  })
  t.teardown(() => server.close())
  const settings = join(gap.laptopDir, 'gapferry.yaml')
  const text = readFileSync(settings, 'utf8')
  writeFileSync(settings, `${text}    licenses: { url: '${server.url}/licenses/{deploymentId}' }\n`)
  const planned = must(await gap.gapferry('plan')).stdout
  t.match(planned, /^ {2}pull asks the HTTP source for 2 licenses, before the budget goes to anything else$/m)
  const pulled = must(await gap.gapferry('pull'))
  t.match(pulled.stdout, /^hq: licenses fetched: pbx1\nhq: license of pbx2: .*404/m)
  const { stdout } = must(await gap.gapferry('license', 'list'))
  t.match(stdout, /pbx1 +good .*\n.*pbx2 +unknown/)
  must(await gap.gapferry('license', 'remove', 'pbx1'))
  t.match(must(await gap.gapferry('license', 'list')).stdout, /pbx1 +unknown/)
  noMarkers(t, gap)
})

t.test('keeps the license that was captured last, unless a person says otherwise', (t) => {
  const ledger = new Ledger(join(t.testdir(), 'ledger.db'))
  t.teardown(() => ledger.close())
  const { privateKey: key, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const about = { site: 'hq', what: 'x', key: publicKey, isForced: false, nowMs: 0 }
  const brought = (spec: LicensedSpec, capturedAt: string) => fromCapture(captureOf(spec, { capturedAt }), 'x')
  const keep = (day: string, expires: string, more = {}) =>
    keepLicense(ledger, brought({ ...PBX1, expires }, `2026-11-${day}T10:00:00Z`), { ...about, ...more }).outcome
  t.equal(keep('20', '2027-11-30'), 'new')
  t.equal(keep('21', '2027-11-30'), 'unchanged', 'the same files, taken again')
  t.equal(keep('22', '2028-11-30'), 'replaced')
  t.throws(() => keep('21', '2027-11-30'), { code: 'LICENSE_OLDER' })
  t.equal(keep('21', '2027-11-30', { isForced: true }), 'replaced')
  const [kept, ...more] = ledger.licenses.of('hq')
  t.strictSame(more, [])
  t.match(openKept(ledger, kept!, key).license, { deploymentId: PBX1.deploymentId, capturedAt: '2026-11-21T10:00:00Z' })
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  t.throws(() => openKept(ledger, kept!, other), { code: 'LICENSE_INVALID' })
  t.throws(() => openKept(ledger, { ...kept!, content: '0'.repeat(64) }, key), { code: 'LICENSE_INVALID' })
  t.strictSame(ledger.licenses.of('other'), [])
  t.end()
})

/** At the mirror: who asks for which deployment gets what, and with whose key it opens. */
async function looksRight(t: Test, gap: Gap, { identity, pbx2 }: { identity: Identity; pbx2: Holder }): Promise<void> {
  const store = openStore(join(gap.mirrorDir, 'store'))
  const licenses = new Licenses(store, identity)
  const licenseOf = ({ deploymentId }: LicensedSpec) =>
    licenses.licenseFor(deploymentHmac(identity, 'hq', deploymentId))
  const forPbx1 = await licenseOf(PBX1)
  t.match(forPbx1, { recipient: 'mirror' })
  const opened = await openCms(forPbx1!.cms, identity.delivery.key, identity.delivery.certificate.raw, 'x')
  t.equal(sha256Of(opened), forPbx1!.content)
  const license = parseLicense(opened, 'x')
  t.match(license, { site: 'hq', deploymentId: PBX1.deploymentId, product: 'PBXact', host: 'H:ABCDE-12345' })
  t.ok(license.files[1]!.data.includes(LICENSE_MARKER))
  const forPbx2 = await licenseOf(PBX2)
  t.match(forPbx2, { recipient: 'box' })
  const byOpenssl = parseLicense(decryptWithOpenssl(pbx2, forPbx2!.cms), 'x')
  t.match(byOpenssl, { deploymentId: PBX2.deploymentId }, 'openssl opens it with the key of the box')
  t.equal(await licenseOf(PBX3), undefined)

  const inventories = openInventories(store.dir, 'hq', identity)
  for (const spec of [PBX1, PBX3]) {
    const bytes = Buffer.from(licensedInventory(spec), 'latin1')
    keepInventory(inventories, { box: spec.box, bytes, address: null, enrolled: false, nowMs: Date.now() })
  }
  const { boxes, failure } = await licenseStates(store, NOW)
  t.match(
    [...boxes],
    [
      ['pbx1', { state: 'good', expires: '2027-11-30' }],
      ['pbx3', { state: 'unknown' }],
    ],
  )
  t.equal(failure, undefined)

  const bytes = Buffer.from(licensedInventory(PBX2), 'latin1')
  keepInventory(inventories, { box: 'pbx2', bytes, address: null, enrolled: false, nowMs: Date.now() })
  const enrolNow = async (certificate: Buffer): Promise<unknown> => {
    const row = { sha256: sha256Of(certificate), name: 'pbx2', certificate, deployment: null, nowMs: Date.now() }
    store.catalog.write(() => store.catalog.enrolments.enrol(row))
    return (await licenseStates(store, NOW)).boxes.get('pbx2')
  }
  t.match(await enrolNow(pbx2.certificate), { state: 'good' })
  const again = newBox(identity, 'pbx2').certificate
  t.match(await enrolNow(again), { state: 'mismatch', why: /a key that this box had before it enrolled again/ })
  const anotherDir = join(gap.dir, 'another')
  mkdirSync(anotherDir)
  const another = ensureIdentity({ dir: anotherDir, site: 'hq' }, NOW)
  await t.rejects(new Licenses(store, another).licenseFor('x'), { code: 'CMS_INVALID' }, 'sealed for another mirror')
  store.close()
}

/** A certificate of the mirror's authority, with its key's files for openssl. */
function newBox({ authority }: Identity, name: string): Holder {
  const dir = t.testdirName
  mkdirSync(dir, { recursive: true })
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = issueCertificate({ kind: 'box', site: 'hq', name, key, issuer: authority, ...lifeOf(authority) })
  const [keyFile, certificateFile] = [join(dir, `${name}.key`), join(dir, `${name}.pem`)]
  writeFileSync(keyFile, key.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(certificateFile, pemOf(certificate))
  return { key, certificate, keyFile, certificateFile }
}

/** As a report of the mirror tells it. */
function enroll(gap: Gap, box: string, certificate: Buffer): void {
  const ledger = new Ledger(join(gap.laptopDir, 'store', 'ledger.db'))
  const { delivery, authority } = ledger.identities.of('hq')!
  ledger.identities.keep('hq', { delivery, authority, enrolled: [{ box, certificate, isRevoked: false }] })
  ledger.close()
}

function noMarkers(t: Test, gap: Gap): void {
  t.strictSame(filesWith(gap.stickDir, MARKERS), [], 'the stick')
  t.strictSame(filesWith(gap.mirrorDir, MARKERS), [], "the mirror's store")
  t.strictSame(filesWith(join(gap.laptopDir, 'store'), MARKERS), [], "the laptop's store, its ledger, plan and logs")
  t.strictSame(filesWith(join(gap.laptopDir, 'keys'), MARKERS), [], 'the keys')
  const told = MARKERS.filter((text) => said.some((output) => output.includes(text)))
  t.strictSame(told, [], 'what the commands said')
  t.not(filesWith(gap.dir, MARKERS).length, 0, 'the search finds what is there')
}

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

function blobsBelow(storeDir: string): string[] {
  return readdirSync(join(storeDir, 'blobs'), { recursive: true, encoding: 'utf8' }).map((name) => basename(name))
}
