/**
 * How it stands with the license of a box: the one judgement that the plan, the laptop's list, a mirror's boxes and reports give.
 */
import type { FreepbxFacts } from './inventory.ts'
import { isReactivation, parseLicenseDate, type LicenseDate } from './license-facts.ts'

/** `mismatch`: it is not for this box as its inventory describes it. `unknown`: it is there, and its dates are not told. */
export type LicenseState = 'good' | 'missing' | 'expired' | 'soon' | 'wrong-product' | 'mismatch' | 'unknown'

/** What is known of a license. */
export interface KnownLicense {
  product: string | null
  /** sorted by date */
  expires: readonly LicenseDate[]
  /** of the machine that it was captured on, as an inventory has it; null where nobody told */
  machine?: string | null
}

/** What is known of a box from its inventory. */
export interface LicensedBox {
  /** null where the box tells none: it was never activated, or it has no FreePBX */
  deploymentId: string | null
  /** that the license files on the box name */
  licensedFor: string | null
  /** brand and product that it says of itself */
  products: readonly string[]
  /** SHA-256 of its machine id; null where it is not told */
  machine: string | null
  /** license files that the box has itself */
  own: KnownLicense | null
}

export interface LicenseVerdict {
  state: LicenseState
  /** the first day on which something of it ends, YYYY-MM-DD; null where nothing tells */
  expires: string | null
  /** the first day by which the box has to be activated again; null where nothing tells */
  reactivation: string | null
  /** for people */
  why: string
}

/** So long before, a visit can still be planned. */
const SOON_DAYS = 30
const DAY_MS = 86_400_000

/** @param license  what is carried, or kept, for the box's deployment; where nothing is, the box's own is judged
 *  @param box      undefined where no inventory has that deployment */
export function judgeLicense(
  license: KnownLicense | undefined,
  box: LicensedBox | undefined,
  nowMs: number,
): LicenseVerdict {
  const judged = license ?? box?.own ?? undefined
  const first = judged?.expires[0]
  const reactivation = judged?.expires.find(isReactivation)?.date ?? null
  const verdict = (state: LicenseState, why: string): LicenseVerdict => {
    return { state, expires: first?.date ?? null, reactivation, why }
  }
  const wrong = mismatchOf(license, box)
  if (wrong !== undefined) return verdict('mismatch', wrong)
  if (box?.deploymentId === null) return verdict('missing', 'it was never activated: that needs the vendor, online')
  if (judged === undefined) return verdict('missing', 'none is on the box, and none was brought')
  const product = otherProduct(judged, box)
  if (product !== undefined) return verdict('wrong-product', product)
  const where = license === undefined ? 'none was brought; the one on the box: ' : ''
  if (first === undefined) return verdict('unknown', `${where}no date that is understood`)
  const left = daysBetween(nowMs, first.date)
  const named = `${where}${isReactivation(first) ? 'to be activated again: ' : ''}${first.name} ${first.date}`
  if (left < 0) return verdict('expired', named)
  return left <= SOON_DAYS ? verdict('soon', named) : verdict('good', named)
}

/** @param machine  SHA-256 of its machine id, where the inventory has it */
export function licensedBox(freepbx: FreepbxFacts | undefined, machine?: string): LicensedBox {
  const facts = freepbx?.licenses.flatMap((one) => [...one.facts]) ?? []
  const told = (key: string): string[] => facts.filter(([name]) => name.toLowerCase() === key).map(([, value]) => value)
  const [licensedFor = null] = told('deploymentid')
  const brand = freepbx?.profile.get('brandid')
  return {
    deploymentId: freepbx?.profile.get('deploymentid') ?? licensedFor,
    licensedFor,
    products: [...told('product-name'), ...(brand === undefined ? [] : [brand])],
    machine: machine ?? null,
    own:
      freepbx === undefined || freepbx.licenses.length === 0
        ? null
        : { product: told('product-name')[0] ?? null, expires: datesOf(facts) },
  }
}

/** Whether a box needs a license at all: FreePBX alone does not. */
export function needsLicense({ deploymentId, own, products }: LicensedBox): boolean {
  return deploymentId !== null || own !== null || products.some(isPbxact)
}

function datesOf(facts: readonly (readonly [string, string])[]): LicenseDate[] {
  const dates = facts.flatMap(([name, text]) => {
    const date = parseLicenseDate(text)
    return date === undefined || !name.endsWith('_exp') ? [] : [{ name, date }]
  })
  return dates.sort((a, b) => (a.date < b.date ? -1 : 1))
}

function mismatchOf(license: KnownLicense | undefined, box: LicensedBox | undefined): string | undefined {
  if (box === undefined) return 'no box of the site has its deployment'
  const { deploymentId, licensedFor, machine } = box
  if (deploymentId !== null && licensedFor !== null && licensedFor !== deploymentId)
    return 'the license on the box is for another deployment than the box'
  const captured = license?.machine ?? null
  if (captured !== null && machine !== null && captured !== machine) return 'it was captured on another machine'
  return undefined
}

/** Only what is plainly another product: vendors name one product in several ways. */
function otherProduct({ product }: KnownLicense, box: LicensedBox | undefined): string | undefined {
  const other = box?.products.find((name) => product !== null && isPbxact(name) !== isPbxact(product))
  return other === undefined ? undefined : `it is for ${product}, the box is ${other}`
}

function isPbxact(product: string): boolean {
  return /pbxact/i.test(product)
}

/** Whole days from today on; negative once the day is over. */
function daysBetween(nowMs: number, date: string): number {
  return Math.floor(Date.parse(`${date}T00:00:00Z`) / DAY_MS) - Math.floor(nowMs / DAY_MS)
}
