/**
 * What else a report brings: inventories of boxes, the keys that licenses are sealed for, numbers that another laptop used. The
 * mirror's identity vouches for all of it; what a person said of a box by hand stays.
 */
import { isIssuedBy, parseAuthority, parseCertificate } from '../manifests/certificate.ts'
import { GapferryError, isGapferryError } from '../manifests/errors.ts'
import { parseInventory, type Inventory } from '../manifests/inventory.ts'
import { type Report, type SignedReport } from '../manifests/report.ts'
import { readAttachment } from '../storage/attachments.ts'
import type { EnrolledBox } from '../storage/identities.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { Fleet } from './config.ts'
import { keepInventory, loadBoxes, siteOf, type KnownBox } from './inventories.ts'

/** A mirror that says it has a number further ahead than this would use up a site's numbers. */
const MAX_NUMBERS_AHEAD = 10_000

/** What became of an inventory; `older`: the one that is here is newer; `absent`: it did not fit into the report. */
export interface TakenInventory {
  /** as the laptop knows the box */
  box: string
  /** where it was kept: name and digest, for the trail */
  kept?: string
  outcome: 'new' | 'replaced' | 'unchanged' | 'older' | 'absent' | 'refused'
  /** of `refused` */
  error?: GapferryError
}

/** Remembers what the site's accepted mirror says of its keys and boxes, and the highest number that it knows.
 *  @returns a warning, where the report says what cannot be
 *  @throws REPORT_INVALID where its certificates do not belong together; then nothing is kept */
export function takeFacts(ledger: Ledger, report: Report, what: string): string | undefined {
  const { site } = report
  if (report.format > 1) {
    const { authority, delivery } = certificatesOf(report, what)
    const enrolled = enrolledOf(report, what)
    ledger.identities.keep(site, { authority, delivery, ...(report.level === 'full' && { enrolled }) })
  }
  const highest = Math.max(0, ...report.bundles.map(({ number }) => number))
  const next = ledger.nextNumber(site)
  if (highest < next) return undefined
  if (highest - next > MAX_NUMBERS_AHEAD) {
    return `${what}: it names bundle ${highest}, and this laptop's next is ${next}: where that is right, gapferry pack --number-above ${highest}`
  }
  ledger.keepAbove(site, highest)
  return undefined
}

/** @throws REPORT_INVALID */
function certificatesOf(report: Report, what: string): { authority: Buffer | null; delivery: Buffer | null } {
  const [authority, delivery] = [report.authority, report.delivery].map((text) => text && Buffer.from(text, 'base64'))
  return asReport(() => {
    const issuer = authority ? parseAuthority(authority, `${what}: the authority`) : undefined
    const issued = delivery ? parseCertificate(delivery, `${what}: the delivery certificate`) : undefined
    if (issued === undefined || (issuer !== undefined && isIssuedBy(issued, issuer) && !issued.ca)) {
      return { authority: authority || null, delivery: delivery || null }
    }
    throw new GapferryError('REPORT_INVALID', `${what}: its delivery certificate is not of its authority`)
  })
}

/** Each certificate once, and for a key that something can be sealed for. @throws REPORT_INVALID */
function enrolledOf({ enrolled }: Report, what: string): EnrolledBox[] {
  if (new Set(enrolled.map(({ certificate }) => certificate)).size < enrolled.length)
    throw new GapferryError('REPORT_INVALID', `${what}: it has the certificate of a box twice`)
  return enrolled.map(({ box, certificate, revoked }) => {
    const { raw } = asReport(() => parseCertificate(Buffer.from(certificate, 'base64'), `${what}: that of ${box}`))
    return { box, certificate: raw, isRevoked: revoked }
  })
}

function asReport<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!isGapferryError(error, 'CERTIFICATE_INVALID')) throw error
    throw new GapferryError('REPORT_INVALID', error.message, { cause: error })
  }
}

/** Keeps the inventories that came with a report of level `full`, each for itself. A box that is known under another name (a second
 *  one of its host name) keeps it, and its group.
 *  @throws INVENTORY_INVALID where what the laptop has was changed */
export function takeInventories(fleet: Fleet, signed: SignedReport, what: string, nowMs: number): TakenInventory[] {
  const { level, inventories, site } = signed.report
  if (level !== 'full' || inventories.length === 0) return []
  const known = loadBoxes(fleet, site)
  const names = new Set(inventories.map(({ box }) => box))
  const addedAt = `${new Date(nowMs).toISOString().slice(0, 19)}Z`
  return inventories.map((one) => {
    try {
      const bytes = readAttachment(signed, one, what)
      if (bytes === undefined) return { box: one.box, outcome: 'absent' }
      const inventory = parseInventory(bytes, `${what}: ${one.box}`)
      return keepOne(fleet, site, { name: one.box, bytes, inventory, known, names, addedAt })
    } catch (error) {
      if (isGapferryError(error, 'INVENTORY_OLDER')) return { box: one.box, outcome: 'older' }
      if (!isGapferryError(error)) throw error
      return { box: one.box, outcome: 'refused', error: explained(error, one.box, site) }
    }
  })
}

function keepOne(
  fleet: Fleet,
  site: string,
  offered: {
    name: string
    bytes: Buffer
    inventory: Inventory
    known: readonly KnownBox[]
    /** all boxes of the report */
    names: ReadonlySet<string>
    addedAt: string
  },
): TakenInventory {
  const { bytes, inventory, known, names, addedAt } = offered
  const { machine } = inventory
  const same = known.filter((box) => machine !== undefined && box.inventory.machine === machine)
  // Boxes that were cloned share a machine id: then the name tells them apart, and one that the report has itself is another.
  const box =
    same.find((one) => one.name === offered.name) ??
    same.find((one) => !names.has(one.name)) ??
    known.find((one) => one.name === offered.name)
  const name = box?.name ?? offered.name
  if (box?.inventory.digest === inventory.digest) return { box: name, outcome: 'unchanged' }
  const byHand = box?.isByHand === true && box.group !== undefined ? { group: box.group } : {}
  const choice = { addedAt, isReported: true, ...byHand }
  const outcome = keepInventory(fleet, siteOf(fleet, site), { name, bytes, inventory, choice, isForced: false })
  return { box: name, outcome, kept: `${name} ${inventory.digest}` }
}

/** With reports nobody names a file, so the way out is another one. */
function explained(error: GapferryError, box: string, site: string): GapferryError {
  const hints: Record<string, string> = {
    BOX_CONFLICT: `a new machine in its place: gapferry inventory remove ${box} --site ${site}, then add the report again`,
    BOX_UNGROUPED: 'say in gapferry.yaml which group takes it (boxes), then add the report again',
  }
  const hint = hints[error.code] ?? error.hint
  const message = `the inventory of ${box} in the report: ${error.message}`
  return new GapferryError(error.code, message, { cause: error, ...(hint === undefined ? {} : { hint }) })
}
