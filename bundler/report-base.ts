/**
 * What a report, or words, mean for a site's next bundle: what it may leave out, and what a mirror goes back to from it. Both
 * follow what was said of the site, never what was packed for it.
 */
import { formatTime } from '../manifests/console.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { parseSealedLicenses } from '../manifests/licenses.ts'
import { heldBlobs, parseReport, type Report } from '../manifests/report.ts'
import { isPointer, isTreeTarget, LICENSES_TARGET, MAX_TREE_BYTES, type TreeRole } from '../manifests/tree.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger, SignedBundle } from '../storage/ledger.ts'
import { ifSound } from './rot.ts'
import { signedTree } from './signed-tree.ts'

/** What a bundle does not carry, because the site has it. */
export interface LeftOut {
  count: number
  bytes: number
  /** who says so, for people */
  source: string
}

/** What a site has, as far as somebody said so. */
interface Base {
  held: ReadonlySet<Sha256>
  /** where that is known from, for people */
  source: string
}

/** The tree that a group's boxes find before the next bundle is released. */
export interface TreeBefore {
  /** of the bundle that it is from */
  number: number
  role: TreeRole
  sha256: Sha256
}

/** What is served at the site, as far as that was said; where nobody said anything, what was signed last.
 *  @param last  the site's newest bundle
 *  @returns of a group: its tree; undefined where nothing is served that this laptop signed
 *  @throws REPORT_INVALID where the ledger was changed */
export function treesBefore(
  ledger: Ledger,
  site: string,
  last: SignedBundle | undefined,
): (group: string) => TreeBefore | undefined {
  const known = ledger.reports.last(site)
  if (known === undefined) return (group) => treeOf(last, group, 'current')
  const signed = ledger.bundles().filter((one) => one.site === site)
  if (known.document === null) {
    const told = signed.find((one) => stateOf(one) === known.state) ?? last
    return (group) => treeOf(told, group, 'current')
  }
  const { report } = parseReport(known.document, `report of ${site}`)
  return (group) => {
    const served = report.served.find((one) => one.group === group)
    if (served === undefined) return undefined
    const own = signed.find((one) => one.number === served.bundle && rowOf(report, one) !== undefined)
    if (own !== undefined) return treeOf(own, group, served.role)
    // Another laptop's bundle is served: what of ours is whole there costs nothing, and was served before that, perhaps.
    const whole = signed.find((one) => rowOf(report, one)?.isComplete === true)
    return treeOf(whole, group, 'current')
  }
}

/** Bundles that the next ones of their sites go back to. @returns as `ledger.bundles` */
export function bundlesBefore(ledger: Ledger): SignedBundle[] {
  return ledger.bundles().filter((bundle) => {
    const before = treesBefore(ledger, bundle.site, undefined)
    return groupsOf(bundle).some((group) => before(group)?.number === bundle.number)
  })
}

function groupsOf({ trees }: SignedBundle): string[] {
  return [...trees.keys()].filter((name) => name.endsWith('/current')).map((name) => name.slice(0, -'/current'.length))
}

function treeOf(bundle: SignedBundle | undefined, group: string, role: TreeRole): TreeBefore | undefined {
  const sha256 = bundle?.trees.get(`${group}/${role}`)
  return sha256 === undefined ? undefined : { number: bundle!.number, role, sha256 }
}

/** What a report says of this very bundle: another laptop may have used its number. */
function rowOf({ bundles }: Report, bundle: SignedBundle): Report['bundles'][number] | undefined {
  const row = bundles.find(({ number }) => number === bundle.number)
  return row?.state === stateOf(bundle) ? row : undefined
}

/** What the next bundle of the site may leave out; undefined where nobody said what the site has.
 *  @throws REPORT_INVALID where the ledger was changed */
function reportedBase({ ledger, store }: { ledger: Ledger; store: BlobStore }, site: string): Base | undefined {
  const last = ledger.reports.last(site)
  if (last === undefined) return undefined
  if (last.document !== null) {
    const { report } = parseReport(last.document, `report of ${site}`)
    const source = `the report of ${formatTime(Date.parse(report.createdAt))}`
    return { held: heldBlobs(report, `report of ${site}`), source }
  }
  const bundle = ledger.bundles().find((one) => one.site === site && stateOf(one) === last.state)
  const held = bundle && requiredBlobs(store, bundle)
  return held && { held, source: `the words of bundle ${bundle.number}, told ${formatTime(last.addedAtMs)}` }
}

/** What the site has need not travel; metadata and trees always do.
 *  @param wanted  all blobs of the bundle, with their sizes
 *  @returns what is left of them, and what is not; `leftOut` null where nothing says what the site has, or `isFull` */
export function leaveOut(
  laptop: { ledger: Ledger; store: BlobStore },
  site: string,
  wanted: Map<Sha256, number>,
  isFull: boolean,
): { wanted: Map<Sha256, number>; leftOut: LeftOut | null } {
  const base = isFull ? undefined : reportedBase(laptop, site)
  if (base === undefined) return { wanted, leftOut: null }
  const [left, kept] = [new Map<Sha256, number>(), new Map<Sha256, number>()]
  for (const [sha256, bytes] of wanted) (base.held.has(sha256) ? left : kept).set(sha256, bytes)
  const bytes = [...left.values()].reduce((total, one) => total + one, 0)
  return { wanted: kept, leftOut: { count: left.size, bytes, source: base.source } }
}

/** SHA-256 of the bundle's targets.json: its state. */
export function stateOf({ number, metadata }: SignedBundle): Sha256 {
  return sha256Of(metadata.get(`${number}.targets.json`)!)
}

/** What a bundle that is whole certainly brought. @returns undefined where its trees are not here any more */
function requiredBlobs(store: BlobStore, { trees }: SignedBundle): Set<Sha256> | undefined {
  const held = new Set<Sha256>()
  for (const [target, sha256] of trees) {
    if (target === LICENSES_TARGET) {
      const licenses = ifSound(() => parseSealedLicenses(store.read(sha256, MAX_TREE_BYTES)))
      for (const blob of licenses?.blobs.keys() ?? []) held.add(blob)
    }
    if (!isTreeTarget(target)) continue
    const tree = signedTree(store, sha256, target)
    if (tree === undefined) return undefined
    for (const entry of tree.entries.values()) {
      if (tree.role === 'current' || isPointer(entry)) held.add(entry.sha256)
    }
  }
  return held
}
