import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { loadFleet } from '../../bundler/config.ts'
import { boxCertificates } from '../../bundler/licenses/states.ts'
import { issueCertificate } from '../../server/issue.ts'
import { Ledger } from '../../storage/ledger.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

const SETTINGS = `apiVersion: gapferry/v1\nkind: Fleet\nsites: [{ name: hq, groups: [{ name: a, origin: 'http://m.lan', files: [{ url: 'https://v/x', as: x }] }] }]\n`
const LIFE = { notBeforeMs: Date.UTC(2026), notAfterMs: Date.UTC(2046) }
const AUTHORITY = makeAuthority()

function newKey() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
}

function makeAuthority() {
  const key = newKey()
  const certificate = issueCertificate({ ...LIFE, site: 'hq', kind: 'authority', name: 'authority', key })
  return { key, certificate: new X509Certificate(certificate) }
}

function certificateOf(name: string, issuer = AUTHORITY): Buffer {
  return issueCertificate({ ...LIFE, site: 'hq', kind: 'box', name, key: newKey(), issuer })
}

interface Told {
  box: string
  deployment?: string
  /** that the inventory has */
  certificate?: Buffer
  /** a mirror's report brought it */
  isReported?: boolean
}

/** Certificates by the deployment, as the laptop believes them. */
function believed(t: Test, told: Told[], enrolled: Record<string, Buffer> = {}): Record<string, Buffer | undefined> {
  const dir = t.testdir({ 'gapferry.yaml': SETTINGS, store: {} })
  const folder = join(dir, 'inventories/hq')
  mkdirSync(folder, { recursive: true })
  for (const { box, deployment = 'D-1', certificate, isReported = false } of told) {
    const own = certificate === undefined ? [] : [`box-certificate ${certificate.toString('base64')}`]
    const freepbx = ['framework 16.0.40', `profile deploymentid ${deployment}`]
    writeFileSync(join(folder, `${box}.gfi`), inventoryText({ box, sections: { freepbx, readiness: own } }))
    const choice = { addedAt: '2026-11-22T12:00:00Z', ...(isReported ? { isReported } : {}) }
    writeFileSync(join(folder, `${box}.json`), `${JSON.stringify(choice)}\n`)
  }
  const ledger = new Ledger(join(dir, 'store/ledger.db'))
  try {
    ledger.identities.accept('hq', 'the mirror')
    const all = Object.entries(enrolled).map(([box, certificate]) => ({ box, certificate, isRevoked: false }))
    ledger.identities.keep('hq', { authority: AUTHORITY.certificate.raw, delivery: null, enrolled: all })
    const found = boxCertificates(loadFleet(join(dir, 'gapferry.yaml')), ledger, 'hq')
    return Object.fromEntries(['D-1', 'D-2'].map((id) => [id, found.get(ledger.licenses.hmac('deployment', 'hq', id))]))
  } finally {
    ledger.close()
  }
}

t.test(
  'licenses are sealed for a certificate that a person brought, and not for one that a mirror merely reports',
  (t) => {
    const certificate = certificateOf('pbx1', makeAuthority())
    t.strictSame(believed(t, [{ box: 'pbx1', certificate }])['D-1'], certificate, 'brought by hand')
    const reported = [{ box: 'pbx1', certificate, isReported: true }]
    t.equal(believed(t, reported)['D-1'], undefined, 'in an inventory of a report')
    t.equal(believed(t, reported, { pbx1: certificate })['D-1'], undefined, 'enrolled, but of another authority')
    const issued = certificateOf('pbx1')
    t.strictSame(believed(t, reported, { pbx1: issued })['D-1'], issued, 'the pinned authority issued it')
    t.end()
  },
)

t.test('a box that says the deployment of another does not get its license sealed', (t) => {
  const [own, other] = [certificateOf('pbx1'), certificateOf('pbx2')]
  const enrolled = { pbx1: own, pbx2: other }
  const brought: Told = { box: 'pbx1' }
  const claims: Told = { box: 'pbx2', isReported: true }
  t.strictSame(believed(t, [brought, claims], enrolled)['D-1'], own, 'one brought, one only reported')
  t.equal(believed(t, [{ ...brought, isReported: true }, claims], enrolled)['D-1'], undefined, 'both only reported')
  t.equal(believed(t, [brought, { box: 'pbx2' }], enrolled)['D-1'], undefined, 'both brought')
  t.strictSame(believed(t, [brought, { ...claims, deployment: 'D-2' }], enrolled), { 'D-1': own, 'D-2': other })
  t.end()
})
