/**
 * How it stands with the licenses of a site: for each box that needs one, and each license that is kept, whether it is carried
 * and what is to be done about it.
 */
import { X509Certificate } from 'node:crypto'
import { isIssuedBy, parseCertificate } from '../../manifests/certificate.ts'
import { formatTable, plural } from '../../manifests/console.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { judgeLicense, licensedBox, needsLicense, type LicenseVerdict } from '../../manifests/license-state.ts'
import type { Ledger } from '../../storage/ledger.ts'
import type { KeptLicense } from '../../storage/licenses.ts'
import type { Laptop } from '../carry.ts'
import type { Fleet } from '../config.ts'
import { loadBoxes, type KnownBox } from '../inventories.ts'
import type { Plan } from '../plan.ts'
import type { BoxCertificates } from './carried.ts'

export interface LicenseRow extends LicenseVerdict {
  site: string
  /** null where no inventory has its deployment */
  box: string | null
  /** the first digits of the deployment's HMAC, to name a license without a box; null where none is kept */
  license: string | null
  product: string | null
  source: KeptLicense['source'] | null
  /** RFC 3339 */
  capturedAt: string | null
  /** whom it is sealed for in a bundle; null where it would not be carried */
  sealedFor: 'mirror' | 'box' | null
  /** a pull asks the site's HTTP source for it */
  isAsked: boolean
}

/** A box that says its deployment. */
interface Deployed {
  box: KnownBox
  /** HMAC */
  deployment: string
}

const DAY_CHARS = 10

/** Boxes first, by name, then licenses that no box has. @throws as loadBoxes */
export function licenseRows(fleet: Fleet, ledger: Ledger, site: string, nowMs: number): LicenseRow[] {
  const kept = new Map(ledger.licenses.of(site).map((one) => [one.deployment, one]))
  const certificates = boxCertificates(fleet, ledger, site)
  const hasSource = fleet.sites.find(({ name }) => name === site)?.licenses !== undefined
  const hasMirror = (ledger.identities.of(site)?.delivery ?? null) !== null
  const claims = claimsOf(fleet, ledger, site)
  const rivals = (deployment: string | undefined, box: KnownBox | undefined): Partial<LicenseVerdict> => {
    const others = (claims.get(deployment ?? '') ?? []).filter(({ name }) => name !== box?.name)
    if (box === undefined || others.length === 0) return {}
    return { state: 'mismatch', why: `${others.map(({ name }) => name).join(', ')} says to be the same deployment` }
  }
  const row = (license: KeptLicense | undefined, box: KnownBox | undefined): LicenseRow => ({
    site,
    box: box?.name ?? null,
    license: license?.deployment.slice(0, 8) ?? null,
    product: license?.product ?? null,
    source: license?.source ?? null,
    capturedAt: license?.capturedAt ?? null,
    isAsked: hasSource && box !== undefined && licensedBox(box.inventory.freepbx).deploymentId !== null,
    sealedFor:
      license === undefined ? null : certificates.has(license.deployment) ? 'box' : hasMirror ? 'mirror' : null,
    ...judgeLicense(license, box && licensedBox(box.inventory.freepbx, box.inventory.machine), nowMs),
    ...rivals(license?.deployment, box),
  })
  const rows: LicenseRow[] = []
  for (const box of loadBoxes(fleet, site).filter(({ inventory }) => needsLicense(licensedBox(inventory.freepbx)))) {
    const deployment = deploymentOf(ledger, box)
    rows.push(row(deployment === undefined ? undefined : kept.get(deployment), box))
  }
  const left = [...kept.values()].filter(({ deployment }) => !claims.has(deployment))
  return [...rows, ...left.map((one) => row(one, undefined))]
}

/** Certificates of boxes that are believed, by deployment: what the site's authority issued and did not take back, else what an
 *  inventory has that a person brought here. None where two boxes say to be one deployment, or where the license was captured
 *  on another machine than the one with the certificate: an inventory is only what a box says, and the mirror knows whose it is.
 *  @throws as loadBoxes */
export function boxCertificates(fleet: Fleet, ledger: Ledger, site: string): BoxCertificates {
  const authority = ledger.identities.of(site)?.authority ?? null
  const enrolled = ledger.identities.enrolled(site)
  const revoked = enrolled.filter(({ isRevoked }) => isRevoked).map(({ certificate }) => certificate)
  const issued = new Map(
    enrolled
      .filter(({ certificate, isRevoked }) => !isRevoked && authority !== null && isOf(certificate, authority))
      .map(({ box, certificate }) => [box.toLowerCase(), certificate]),
  )
  const machines = new Map(ledger.licenses.of(site).map(({ deployment, machine }) => [deployment, machine]))
  const isItsOwn = (deployment: string, { inventory }: KnownBox): boolean =>
    (machines.get(deployment) ?? inventory.machine) === inventory.machine
  return new Map(
    [...claimsOf(fleet, ledger, site)].flatMap(([deployment, [box, ...others]]) => {
      if (box === undefined || others.length > 0) return []
      const own = isItsOwn(deployment, box) ? issued.get(box.name) : undefined
      const certificate = own ?? broughtCertificate(box)
      const isBelieved = certificate !== undefined && !revoked.some((other) => other.equals(certificate))
      return isBelieved ? [[deployment, certificate] as const] : []
    }),
  )
}

/** The boxes that say to be a deployment, by its HMAC; what stands in for an inventory only where no box says it. */
function claimsOf(fleet: Fleet, ledger: Ledger, site: string): Map<string, KnownBox[]> {
  const boxes = Map.groupBy(deployedBoxes(fleet, ledger, site), ({ deployment }) => deployment)
  return new Map(
    [...boxes].map(([deployment, all]) => {
      const said = all.filter(({ box }) => !box.inventory.isGuess)
      return [deployment, (said.length > 0 ? said : all).map(({ box }) => box)]
    }),
  )
}

/** That a box says of itself; what a mirror's report brought, or stands in for an inventory, is not asked. */
function broughtCertificate({ isReported, inventory }: KnownBox): Buffer | undefined {
  const told = inventory.readiness.get('box-certificate')
  if (told === undefined || told === '' || isReported || inventory.isGuess) return undefined
  try {
    return parseCertificate(Buffer.from(told, 'base64'), 'the certificate of a box').raw
  } catch (error) {
    if (isGapferryError(error, 'CERTIFICATE_INVALID')) return undefined
    throw error
  }
}

/** What keeps licenses of the site off its bundles; undefined where nothing does, or none is kept. */
export function whyNotCarried(rows: readonly LicenseRow[], site: string): string | undefined {
  const left = new Set(rows.flatMap(({ license, sealedFor }) => (sealedFor === null ? (license ?? []) : []))).size
  if (left === 0) return undefined
  return (
    `${plural(left, 'license')} of ${site} cannot be carried: the delivery key of its mirror is not known here; ` +
    'bring store/mirror-identity.json of the mirror, or its report: gapferry report add FILE'
  )
}

/** For people. */
export function renderLicenses(rows: readonly LicenseRow[]): string {
  const head = ['SITE', 'BOX', 'STATE', 'PRODUCT', 'TAKEN', 'FOR', 'WHY']
  const lines = rows.map((row) => [
    row.site,
    row.box ?? `(${row.license})`,
    row.state,
    row.product ?? '-',
    row.capturedAt?.slice(0, DAY_CHARS) ?? (row.license === null ? '-' : '?'),
    row.license === null ? '-' : (row.sealedFor ?? 'nobody'),
    withReactivation(row),
  ])
  return formatTable([head, ...lines])
}

/** Of the sites that are planned. @throws as loadBoxes */
export function licensesOf({ fleet, ledger, nowMs }: Laptop, { sites }: Pick<Plan, 'sites'>): LicenseRow[] {
  return sites.flatMap(({ name }) => licenseRows(fleet, ledger, name, nowMs()))
}

/** For a plan: how many, and what somebody has to look after. */
export function licenseLines(rows: readonly LicenseRow[]): string[] {
  return [...Map.groupBy(rows, ({ site }) => site)].flatMap(([site, own]) => {
    const kept = new Set(own.flatMap(({ license }) => license ?? [])).size
    const care = own
      .filter(({ state }) => state !== 'good')
      .map((row) => `  ${row.box ?? `license ${row.license}`}: ${row.state}: ${withReactivation(row)}`)
    const why = whyNotCarried(own, site)
    const boxes = own.filter(({ box }) => box !== null).length
    const head = `licenses of ${site}: ${kept} kept, ${plural(boxes, 'box')} in need of one`
    const asked = own.filter(({ isAsked }) => isAsked).length
    const first = `  pull asks the HTTP source for ${plural(asked, 'license')}, before the budget goes to anything else`
    return [head, ...(asked === 0 ? [] : [first]), ...care, ...(why === undefined ? [] : [`  ${why}`])]
  })
}

/** Those of a site that can be asked for, each deployment once; their IDs are in the clear. */
export function deployedBoxes(fleet: Fleet, ledger: Ledger, site: string): (Deployed & { deploymentId: string })[] {
  return loadBoxes(fleet, site).flatMap((box) => {
    const { deploymentId } = licensedBox(box.inventory.freepbx)
    if (deploymentId === null) return []
    return [{ box, deploymentId, deployment: ledger.licenses.hmac('deployment', site, deploymentId) }]
  })
}

function deploymentOf(ledger: Ledger, { site, inventory }: KnownBox): string | undefined {
  const { deploymentId } = licensedBox(inventory.freepbx)
  return deploymentId === null ? undefined : ledger.licenses.hmac('deployment', site, deploymentId)
}

function isOf(certificate: Buffer, authority: Buffer): boolean {
  return isIssuedBy(new X509Certificate(certificate), new X509Certificate(authority))
}

function withReactivation({ why, reactivation }: LicenseRow): string {
  return reactivation === null || why.includes(reactivation) ? why : `${why}; to be activated again by ${reactivation}`
}
