/**
 * Reports of mirrors on the laptop: judged, remembered, and what the next bundle may leave out because of them. A bundle never
 * counts as arrived because it was packed: only a report, or a person who reads a mirror's words, says so.
 */
import { formatTime } from '../manifests/console.ts'
import { sha256Of, type Sha256 } from '../manifests/digest.ts'
import { GapferryError } from '../manifests/errors.ts'
import { openReport, parseSealedReport } from '../manifests/report-seal.ts'
import { heldBlobs, keyDigest, parseReport, publicKeyOf, wholeBundle } from '../manifests/report.ts'
import type { Report, SignedReport } from '../manifests/report.ts'
import { parseSealedLicenses } from '../manifests/licenses.ts'
import { isPointer, isTreeTarget, LICENSES_TARGET, MAX_TREE_BYTES } from '../manifests/tree.ts'
import { parseFingerprint, parseStateWords, stateWords } from '../manifests/words.ts'
import type { BlobStore } from '../storage/blobs.ts'
import type { Ledger, SignedBundle } from '../storage/ledger.ts'
import { ifSound } from './rot.ts'
import { signedTree } from './signed-tree.ts'

/** Who says that an identity is that of a site's mirror. */
export interface Acceptance {
  /** words that it must have; they replace an identity that was accepted before */
  words?: string | undefined
  /** it is taken as it is where none was accepted before */
  isConfirmed: boolean
  /** shows it to a person; undefined where there is nobody to ask */
  ask: ((site: string, words: string) => Promise<boolean>) | undefined
}

export interface TakenReport {
  report: Report
  /** `known`: this very report was here; `accepted`: with it, the identity was */
  outcome: 'added' | 'accepted' | 'known'
  /** of the mirror's identity */
  words: string
}

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

const ANOTHER = 'gapferry-mirror report --to DIR'

/** Opens and judges a report, and remembers it as the base of the next bundle.
 *  @param args.site      the site that it has to be of
 *  @param args.isForced  also where it is older than the last
 *  @throws REPORT_INVALID, REPORT_SIGNATURE, SITE_MISMATCH; REPORT_KEY_MISSING where it is sealed for another laptop;
 *          REPORT_IDENTITY, REPORT_NOT_CONFIRMED; REPORT_OLDER */
export async function takeReport(
  ledger: Ledger,
  args: { site: string; bytes: Buffer; what: string; acceptance: Acceptance; isForced: boolean; nowMs: number },
): Promise<TakenReport> {
  const { site, bytes, what, acceptance, isForced, nowMs } = args
  const document = unseal(ledger, site, bytes, what)
  const signed = parseReport(document, what)
  const { report, words, identity } = signed
  const isInside = report.site === site && report.recipient === keyDigest(ledger.reports.publicKey(site))
  if (!isInside) throw mismatch(what, site, report.site)
  const isNewIdentity = await acceptIdentity(ledger, signed, acceptance, what)
  const last = ledger.reports.last(site)
  if (!isNewIdentity && last?.document?.equals(document) === true) return { report, outcome: 'known', words }
  if (!isNewIdentity && !isForced && last !== undefined && report.sequence <= last.sequence) {
    throw older(what, report, last.sequence)
  }
  ledger.write(() => {
    if (isNewIdentity) ledger.identities.accept(site, identity)
    ledger.reports.keep({ site, sequence: report.sequence, addedAtMs: nowMs, document, state: null })
  })
  return { report, outcome: isNewIdentity ? 'accepted' : 'added', words }
}

/** Remembers the state that a person read from a mirror's screen.
 *  @returns the number of the bundle that is whole there
 *  @throws REPORT_WORDS where no bundle of the site has them */
export function takeWords(ledger: Ledger, args: { site: string; words: string; nowMs: number }): number {
  const { site, nowMs } = args
  const words = parseStateWords(args.words)
  const bundle = ledger.bundles().find((one) => one.site === site && stateWords(stateOf(one)) === words)
  if (bundle === undefined) {
    throw new GapferryError('REPORT_WORDS', `no bundle that this laptop signed for ${site} has the words "${words}"`, {
      hint: 'let them be read again: gapferry-mirror report --level words; without them: gapferry pack --full',
    })
  }
  const { sequence = 0 } = ledger.reports.last(site) ?? {}
  ledger.reports.keep({ site, sequence, addedAtMs: nowMs, document: null, state: stateOf(bundle) })
  return bundle.number
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

/** What is known of a site, for `report list`. */
export interface KnownSite {
  site: string
  /** of the mirror's identity; null where none was accepted */
  identity: string | null
  addedAtMs: number
  /** null where its state was told in words since */
  report: Report | null
  /** that is whole there, as was said last */
  bundle: number | null
}

/** @returns undefined where nothing is known */
export function knownSite(ledger: Ledger, site: string): KnownSite | undefined {
  const last = ledger.reports.last(site)
  if (last === undefined) return undefined
  const signed = last.document === null ? undefined : parseReport(last.document, `report of ${site}`)
  const told = ledger.bundles().find((one) => one.site === site && stateOf(one) === last.state)?.number
  return {
    site,
    identity: signed?.words ?? null,
    addedAtMs: last.addedAtMs,
    report: signed?.report ?? null,
    bundle: (signed === undefined ? told : wholeBundle(signed.report)?.number) ?? null,
  }
}

/** SHA-256 of the bundle's targets.json: its state. */
function stateOf({ number, metadata }: SignedBundle): Sha256 {
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

function unseal(ledger: Ledger, site: string, bytes: Buffer, what: string): Buffer {
  const sealed = parseSealedReport(bytes, what)
  if (sealed.site !== site) throw mismatch(what, site, sealed.site)
  const key = ledger.reports.key(site)
  const own = keyDigest(publicKeyOf(key))
  if (sealed.recipient === own) return openReport(sealed, key, what)
  throw new GapferryError(
    'REPORT_KEY_MISSING',
    `${what}: sealed for key ${sealed.recipient.slice(0, 8)}, this laptop has ${own.slice(0, 8)} for ${site}`,
    {
      hint: 'another laptop packed what that mirror imported last: add it there; or by phone: gapferry report add --words WORDS',
    },
  )
}

/** @returns true where the identity was not accepted before */
async function acceptIdentity(
  ledger: Ledger,
  { report: { site }, identity, words }: SignedReport,
  { words: given, isConfirmed, ask }: Acceptance,
  what: string,
): Promise<boolean> {
  const pinned = ledger.identities.of(site)?.identity
  if (given !== undefined && parseFingerprint(given) !== words) throw otherIdentity(what, words, 'not the words given')
  if (pinned === identity) return false
  if (given !== undefined) return true
  if (pinned !== undefined) throw otherIdentity(what, words, `not the one that was accepted for ${site}`)
  if (isConfirmed || (await ask?.(site, words)) === true) return true
  const why = ask === undefined ? 'nobody is at a terminal to compare' : 'it was not confirmed'
  throw new GapferryError(
    'REPORT_NOT_CONFIRMED',
    `${what}: the identity of ${site}’s mirror is new, ${why}: ${words}`,
    {
      hint: 'compare it with what gapferry-mirror report shows at the site, then add --identity "WORDS"',
    },
  )
}

function otherIdentity(what: string, words: string, why: string): GapferryError {
  return new GapferryError('REPORT_IDENTITY', `${what}: signed by a mirror with the words ${words}: ${why}`, {
    hint: 'where the mirror was made anew, compare its words by phone, then add --identity "WORDS"',
  })
}

function older(what: string, report: Report, known: number): GapferryError {
  const message = `${what}: report ${report.sequence} of ${report.createdAt} is not newer than report ${known}, which is here`
  return new GapferryError('REPORT_OLDER', message, {
    hint: `write another one at the site: ${ANOTHER}; where its mirror was restored from an older backup, add --force`,
  })
}

function mismatch(what: string, site: string, found: string): GapferryError {
  return new GapferryError('SITE_MISMATCH', `${what}: expected a report of site ${site}, found one of ${found}`, {
    hint: `gapferry report add --site ${found} FILE`,
  })
}
