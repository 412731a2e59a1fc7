/** Licenses of sites without a mirror, and boxes that say they are another. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t, { type Test } from 'tap'
import { parseLicense } from '../../manifests/license.ts'
import { ensureIdentity, lifeOf } from '../../server/identity.ts'
import { issueCertificate } from '../../server/issue.ts'
import { Ledger } from '../../storage/ledger.ts'
import { makeGap, type Gap } from '../helpers/gap.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import { captureOf, filesWith, LICENSE_MARKER, licensedInventory, type LicensedSpec } from '../helpers/licenses.ts'
import { decryptWithOpenssl, makeHolder } from '../helpers/openssl.ts'
import { must, run } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'

const VERIFY_PY = resolve(import.meta.dirname, '../../bundler/verify.py')
const PBX1: LicensedSpec = { box: 'pbx1', deploymentId: 'MARK-11112222-a' }

const VENDOR = { vendor: { 'firmware.bin': 'firmware' } }

/** @param dir  with VENDOR */
async function makeSite(test: Test, dir: string, inventories: Record<string, string>): Promise<Gap> {
  const vendor = await serveFolder(join(dir, 'vendor'))
  test.teardown(() => vendor.close())
  const gap = await makeGap(test, dir, `files: [ { url: ${vendor.url}/firmware.bin, as: firmware/x.bin } ]\n`)
  const files = Object.entries(inventories).map(([box, text]) => {
    const file = join(dir, `${box}.gfi`)
    writeFileSync(file, text)
    return file
  })
  must(await gap.gapferry('inventory', 'add', ...files))
  const capture = join(dir, 'pbx1.license.tar')
  writeFileSync(capture, captureOf(PBX1))
  must(await gap.gapferry('license', 'add', capture))
  return gap
}

t.test('a site without a mirror: sealed for the key of the box, and no index', async (t) => {
  const dir = t.testdir(VENDOR)
  const box = makeHolder(join(dir, 'box'), 'pbx1')
  const freepbx = ['framework 16.0.40.11', `profile deploymentid ${PBX1.deploymentId}`, 'profile brandid pbxact']
  const readiness = [`box-certificate ${box.certificate.toString('base64')}`]
  const gap = await makeSite(t, dir, { pbx1: inventoryText({ box: 'pbx1', sections: { freepbx, readiness } }) })
  t.match(JSON.parse(must(await gap.gapferry('license', 'list', '--json')).stdout), {
    licenses: [{ box: 'pbx1', sealedFor: 'box' }],
    notes: [],
  })
  const { files } = await gap.bundle()
  const { bundles } = JSON.parse(must(await gap.gapferry('inspect', '--json', ...files)).stdout) as {
    bundles: { licenses: { index: string | null; blobs: { sha256: string }[] } }[]
  }
  const { index, blobs } = bundles[0]!.licenses
  t.equal(index, null)
  t.equal(blobs.length, 1)
  t.match(must(await gap.gapferry('verify', ...files)).stdout, /complete/)
  t.match(must(await run('python3', [VERIFY_PY, gap.rootFile, ...files])).stdout, /^whole$/m)
  const name = `blobs/${blobs[0]!.sha256}`
  await gap.deliver(...files)
  const storeDir = join(gap.mirrorDir, 'store')
  const blob = join(storeDir, 'blobs', name.slice(6, 8), name.slice(6))
  const kept = readFileSync(blob)
  t.match(parseLicense(decryptWithOpenssl(box, kept), 'x'), { deploymentId: PBX1.deploymentId })
  must(await gap.mirror('boxes', 'list'))
  must(await gap.mirror('verify'))
  t.equal((await gap.bundle()).isNew, false, 'nothing changed, so nothing is sealed anew')
  must(await gap.mirror('prune', '--keep', '1', '--yes'))
  t.same(readFileSync(blob), kept)
  must(await gap.mirror('backup', '--to', join(gap.mirrorDir, 'kept.tar'), '--with-blobs'))
  const backup = readFileSync(join(gap.mirrorDir, 'kept.tar'))
  t.ok(backup.includes('blobs/'))
  t.notOk(backup.includes(name), 'a backup without a passphrase has no license')
  const markers = [PBX1.deploymentId, LICENSE_MARKER]
  for (const dir of [gap.stickDir, gap.mirrorDir, join(gap.laptopDir, 'store')]) t.same(filesWith(dir, markers), [])
})

t.test('a box that says the deployment of another is not whom its license is sealed for', async (t) => {
  const rival = { ...PBX1, box: 'zzz' }
  const gap = await makeSite(t, t.testdir(VENDOR), { pbx1: licensedInventory(PBX1), zzz: licensedInventory(rival) })
  const dir = join(gap.dir, 'identity')
  mkdirSync(dir)
  const { authority, delivery } = ensureIdentity({ dir, site: 'hq' }, Date.now())
  const { key } = makeHolder(join(gap.dir, 'keys'), 'zzz')
  const certificate = issueCertificate({
    ...{ kind: 'box', site: 'hq', name: 'zzz', key, issuer: authority },
    ...lifeOf(authority),
  })
  const ledger = new Ledger(join(gap.laptopDir, 'store', 'ledger.db'))
  ledger.identities.accept('hq', 'an identity')
  ledger.identities.keep('hq', {
    delivery: delivery.certificate.raw,
    authority: authority.certificate.raw,
    enrolled: [{ box: 'zzz', certificate, isRevoked: false }],
  })
  ledger.close()
  const { licenses } = JSON.parse(must(await gap.gapferry('license', 'list', '--json')).stdout) as {
    licenses: { box: string; sealedFor: string | null; state: string }[]
  }
  t.match(licenses[0], { box: 'pbx1', sealedFor: 'mirror' }, 'which knows whose it is')
  t.match(licenses, [
    { box: 'pbx1', state: 'mismatch' },
    { box: 'zzz', state: 'mismatch' },
  ])
})
