/** What a person, or a script, reads of the boxes that the mirror knows. */
import { formatTable, formatTime, plural } from '../manifests/console.ts'
import type { LicenseVerdict } from '../manifests/license-state.ts'
import type { AutomaticJob } from '../manifests/automatic.ts'
import { behindCount, type Pending } from '../manifests/pending.ts'
import { countReadiness } from '../manifests/readiness.ts'
import { renderReadiness } from '../manifests/render-readiness.ts'
import type { HeldInventory } from '../storage/box-inventories.ts'
import type { BoxContact } from '../storage/contacts.ts'
import type { EnrolledBox } from '../storage/enrolments.ts'
import { currentOddities, ODDITIES } from './boxes.ts'
import type { JudgedBox, KnownBox } from './known-boxes.ts'
import { formatIso } from './status.ts'

const NO_BOX = `no box has asked for modules or sent an inventory yet
on a box, as root: gapferry-box inventory > box.gfi; here: gapferry-mirror boxes add box.gfi`
const SHORT_ID = 8
const SHORT_DIGEST = 12
const HOUR_MS = 3_600_000
/** A box that tells nothing for so long is worth a look: it tells every quarter of an hour. */
const STALE_MS = 7 * 24 * HOUR_MS
const WAYS: Record<HeldInventory['way'], string> = {
  network: 'over the network',
  enrolled: 'with its certificate',
  hand: 'by hand',
}
const HEADINGS = ['BOX', 'GROUP', 'SEEN', 'BEHIND', 'READY', 'UPDATES ITSELF', 'LICENSE']

export function renderList(boxes: readonly KnownBox[], nowMs: number): string {
  if (boxes.length === 0) return NO_BOX
  const rows = boxes.map((box) => listRow(box, nowMs))
  const notes = boxes.flatMap((box) => listNotes(box, nowMs))
  const silent = boxes.filter(({ held }) => held === null).length
  const hint = 'on a box: gapferry-box keep\n  by a stick: gapferry-mirror boxes add FILE'
  const missing = silent === 0 ? [] : [`${plural(silent, 'box')} sent no inventory yet\n  ${hint}`]
  return [formatTable([HEADINGS, ...rows], { right: [3, 4] }), ...notes, ...missing].join('\n')
}

export function renderBoxes(boxes: readonly KnownBox[], width: number | undefined): string {
  return boxes.map((box) => renderBox(box, width)).join('\n\n')
}

/** Fields of what it said when it asked are those of its last request. */
export function boxObject({ name, group, contacts, held, judged, enrolled, license, lastMs }: KnownBox): object {
  const [contact] = contacts
  return {
    box: name,
    group,
    lastHeardAt: lastMs === null ? null : formatIso(lastMs),
    ...contactObject(contact),
    asked: contacts.map((one) => ({ group: one.group, ...contactObject(one) })),
    inventory: held && inventoryObject(held),
    readiness: judged && countReadiness(judged.readiness),
    behind: judged?.pending ? behindObject(judged.pending) : null,
    automatic: judged?.automatic?.map(jobObject) ?? null,
    license,
    enrolled: enrolled && enrolledObject(enrolled),
  }
}

/** The same, with each fact. */
export function boxDetails(box: KnownBox): object {
  const { judged } = box
  return { ...boxObject(box), facts: judged?.readiness ?? null, features: judged?.features ?? null }
}

function contactObject(box: BoxContact | undefined): object {
  if (box === undefined) return { installid: null, address: null, modules: {}, oddities: {} }
  const { installid, address, deployment, framework, phpver, brand } = box
  return {
    installid,
    address,
    deployment,
    framework,
    phpver,
    brand,
    firstAskedAt: formatIso(box.firstMs),
    lastAskedAt: formatIso(box.lastMs),
    modules: Object.fromEntries(sortedModules(box)),
    oddities: Object.fromEntries([...box.oddities].map(([oddity, atMs]) => [oddity, formatIso(atMs)])),
  }
}

function inventoryObject({ sha256, bytes, createdAt, receivedMs, address, way }: HeldInventory): object {
  return { sha256, bytes, createdAt, receivedAt: formatIso(receivedMs), address, way }
}

function behindObject({ number, packages, modules }: Pending): object {
  return { bundle: number, packages: packages ?? null, modules: modules ?? null }
}

function jobObject({ what, nextMs, isLoose }: AutomaticJob): object {
  return { what, nextAt: nextMs === undefined ? null : formatIso(nextMs), isLoose }
}

function listRow(box: KnownBox, nowMs: number): string[] {
  const { group, lastMs, judged } = box
  const seen = lastMs === null ? 'never' : age(nowMs - lastMs)
  const rest = judged === null ? ['-', '-', '-'] : judgedCells(judged)
  return [titleOf(box), group ?? '-', seen, ...rest, licenseCell(box)]
}

/** Until when it is good, where it is. */
function licenseCell({ license }: KnownBox): string {
  if (license === null) return '-'
  const { state, expires } = license
  return state === 'good' && expires !== null ? expires : [state, ...(expires === null ? [] : [expires])].join(' ')
}

function judgedCells({ readiness, pending, automatic }: JudgedBox): string[] {
  const { ready } = countReadiness(readiness)
  const isKnown = pending !== undefined && (pending.packages !== undefined || pending.modules !== undefined)
  return [isKnown ? String(behindCount(pending)) : '?', `${ready}/${readiness.length}`, automaticCell(automatic)]
}

function automaticCell(jobs: AutomaticJob[] | undefined): string {
  if (jobs === undefined) return '?'
  const [first] = jobs
  if (first === undefined) return 'no'
  return first.nextMs === undefined ? 'yes' : formatTime(first.nextMs)
}

function listNotes(box: KnownBox, nowMs: number): string[] {
  const title = titleOf(box)
  const odd = box.contacts.flatMap((one) =>
    currentOddities(one).map((oddity) => `warning: ${title}: ${ODDITIES[oddity]}`),
  )
  const isStale = box.held !== null && nowMs - box.held.receivedMs > STALE_MS
  const isUnread = box.held !== null && box.judged === null
  const isHeld = box.judged?.inventory.readiness.get('held') === 'yes'
  return [
    ...odd,
    ...(isStale ? [`warning: ${title}: its inventory is ${age(nowMs - box.held!.receivedMs)} old`] : []),
    ...(isUnread ? [`warning: ${title}: its inventory is not understood here; install a newer gapferry-mirror`] : []),
    ...(isHeld ? [`note: ${title}: held by /etc/gapferry/hold: gapferry-box changes nothing there`] : []),
  ]
}

function renderBox(box: KnownBox, width: number | undefined): string {
  const { judged, contacts } = box
  const parts = [formatTable(factsOf(box), { width })]
  if (judged !== null) {
    parts.push(renderReadiness(judged.readiness, judged.features, width))
  }
  const [contact] = contacts
  const modules = contact === undefined ? [] : sortedModules(contact)
  if (modules.length > 0) parts.push(`modules, as it asked: ${modules.length}`, formatTable(modules, { indent: '  ' }))
  return parts.join('\n')
}

function factsOf({ name, group, contacts, held, judged, enrolled, license }: KnownBox): string[][] {
  return [
    ['box', name ?? contacts[0]!.installid],
    ['group', group ?? 'not known'],
    ...(judged === null ? [] : inventoryFacts(judged)),
    ...(held === null ? [['inventory', 'none yet']] : [['inventory', heldText(held)]]),
    ...(license === null ? [] : [['license', `${license.state}: ${license.why}${reactivationText(license)}`]]),
    ...(enrolled === null ? [] : enrolledFacts(enrolled)),
    ...contacts.flatMap((contact) => contactFacts(contact)),
  ]
}

function reactivationText({ reactivation, why }: LicenseVerdict): string {
  const isSaid = reactivation === null || why.includes(reactivation)
  return isSaid ? '' : `; to be activated again by ${reactivation}`
}

function enrolledFacts({ enrolledAtMs, revokedAtMs, delivered, deliveredAtMs, ...box }: EnrolledBox): string[][] {
  const end = revokedAtMs === null ? '' : `, revoked ${formatTime(revokedAtMs)}`
  const rows = [['certificate', `since ${formatTime(enrolledAtMs)}${end}`]]
  if (delivered !== null && deliveredAtMs !== null) {
    rows.push(['delivered', `license ${delivered.slice(0, SHORT_DIGEST)}, ${formatTime(deliveredAtMs)}`])
  }
  if (box.result !== null && box.resultAtMs !== null) {
    const { result, code, license } = JSON.parse(box.result) as { result: string; code?: string; license?: string }
    const which = license === undefined ? '' : ` ${license.slice(0, SHORT_DIGEST)}`
    rows.push(['result', `${result}${code === undefined ? '' : ` (${code})`}${which}, ${formatTime(box.resultAtMs)}`])
  }
  return rows
}

function enrolledObject({ enrolledAtMs, revokedAtMs, delivered, deliveredAtMs, ...box }: EnrolledBox): object {
  return {
    at: formatIso(enrolledAtMs),
    isRevoked: revokedAtMs !== null,
    delivered: deliveredAtMs === null ? null : { license: delivered, at: formatIso(deliveredAtMs) },
    result: box.resultAtMs === null ? null : { ...JSON.parse(box.result!), at: formatIso(box.resultAtMs) },
  }
}

function inventoryFacts({ inventory }: JudgedBox): string[][] {
  const { distribution, arch, packages, freepbx, manager } = inventory
  const modules =
    freepbx === undefined ? [] : [`FreePBX ${freepbx.framework ?? '?'}, ${plural(freepbx.modules.length, 'module')}`]
  const count = manager === 'apt' ? [] : [plural(packages.length, 'package')]
  return [['system', [distribution.name, arch, ...count, ...modules].join(', ')]]
}

function heldText({ createdAt, address, way }: HeldInventory): string {
  return `of ${formatTime(Date.parse(createdAt))}, ${WAYS[way]}${address === null ? '' : ` from ${address}`}`
}

function contactFacts(box: BoxContact): string[][] {
  const asked = `from ${box.address}, first ${formatTime(box.firstMs)}, last ${formatTime(box.lastMs)}`
  return [
    ['asked', asked],
    ['installid', box.installid],
    ['framework', box.framework ?? 'not said'],
    ['php', box.phpver ?? 'not said'],
    ['brand', box.brand ?? 'not said'],
    ['deployment', box.deployment === null ? 'not said' : `hmac ${box.deployment}`],
    ...[...box.oddities].map(([oddity, atMs]) => ['warning', `${ODDITIES[oddity]} (${formatTime(atMs)})`]),
  ]
}

function titleOf({ name, contacts }: KnownBox): string {
  return name ?? contacts[0]!.installid.slice(0, SHORT_ID)
}

function sortedModules({ modules }: BoxContact): [string, string][] {
  return [...modules].sort(([a], [b]) => (a < b ? -1 : 1))
}

/** `3 min`, `5 h`, `12 d` */
function age(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000))
  if (minutes < 100) return `${minutes} min`
  return minutes < 2 * 24 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / (24 * 60))} d`
}
