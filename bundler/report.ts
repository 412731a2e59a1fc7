/**
 * Reports of mirrors on the laptop: judged and remembered. A bundle never counts as arrived because it was packed: only a
 * report, or a person who reads a mirror's words, says so. What follows for the next bundle: report-base.ts.
 */
import { GapferryError } from '../manifests/errors.ts'
import { canonicalJson } from '../manifests/json.ts'
import { parseMirrorIdentity } from '../manifests/mirror-identity.ts'
import { openReport, parseSealedReport } from '../manifests/report-seal.ts'
import { keyDigest, parseReport, parseReportJson, publicKeyOf, wholeBundle } from '../manifests/report.ts'
import type { Report, SignedReport } from '../manifests/report.ts'
import { parseFingerprint, parseStateWords, stateWords } from '../manifests/words.ts'
import type { Ledger } from '../storage/ledger.ts'
import type { KnownReport } from '../storage/reports.ts'
import { stateOf } from './report-base.ts'
import { takeFacts } from './report-intake.ts'

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
  /** with what is attached */
  signed: SignedReport
  /** `known`: this very report was here; `accepted`: with it, the identity was */
  outcome: 'added' | 'accepted' | 'known'
  /** of the mirror's identity */
  words: string
  /** what a person should know of it */
  warning: string | undefined
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
  const opened = unseal(ledger, site, bytes, what)
  const signed = parseReport(opened, what)
  const { report, words, identity } = signed
  const isInside = report.site === site && report.recipient === keyDigest(ledger.reports.publicKey(site))
  if (!isInside) throw mismatch(what, site, report.site)
  const isNewIdentity = await acceptIdentity(ledger, signed, acceptance, what)
  const last = ledger.reports.last(site)
  const document = withoutAttachments(opened, what)
  if (!isNewIdentity && last?.document?.equals(document) === true) {
    return { report, signed, outcome: 'known', words, warning: undefined }
  }
  if (!isNewIdentity && !isForced && last !== undefined) refuseOlder(last, report, what)
  const warning = ledger.write(() => {
    if (isNewIdentity) ledger.identities.accept(site, identity)
    ledger.reports.keep({ site, sequence: report.sequence, addedAtMs: nowMs, document, state: null })
    return takeFacts(ledger, report, what)
  })
  return { report, signed, outcome: isNewIdentity ? 'accepted' : 'added', words, warning }
}

/** Takes what is public of a mirror, brought by itself: licenses can be sealed for it before its first report.
 *  @throws REPORT_INVALID, REPORT_SIGNATURE, SITE_MISMATCH, REPORT_IDENTITY, REPORT_NOT_CONFIRMED */
export async function takeIdentity(
  ledger: Ledger,
  args: { site: string; bytes: Buffer; what: string; acceptance: Acceptance },
): Promise<{ words: string; outcome: 'accepted' | 'known'; hasKeys: boolean }> {
  const { site, bytes, what, acceptance } = args
  const found = parseMirrorIdentity(bytes, what)
  const { identity, words, authority, delivery } = found
  if (found.site !== site) throw mismatch(what, site, found.site)
  const isNew = await acceptIdentity(ledger, { report: { site }, identity, words }, acceptance, what)
  const hasKeys = authority !== undefined && delivery !== undefined
  ledger.write(() => {
    if (isNew) ledger.identities.accept(site, identity)
    if (hasKeys) ledger.identities.keep(site, { authority, delivery })
  })
  return { words, outcome: isNew ? 'accepted' : 'known', hasKeys }
}

/** Inventories are kept as files, not once more with each report; the signature does not cover them. */
function withoutAttachments(document: Buffer, what: string): Buffer {
  const parsed = parseReportJson(document, what) as object
  return 'attachments' in parsed ? canonicalJson({ ...parsed, attachments: {} }) : document
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
  { report: { site }, identity, words }: { report: Pick<Report, 'site'>; identity: string; words: string },
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
      hint: 'compare it with what gapferry-mirror init or report showed at the site, then add --identity "WORDS"',
    },
  )
}

function otherIdentity(what: string, words: string, why: string): GapferryError {
  return new GapferryError('REPORT_IDENTITY', `${what}: signed by a mirror with the words ${words}: ${why}`, {
    hint: 'where the mirror was made anew, compare its words by phone, then add --identity "WORDS"',
  })
}

/** Sequences rise with each report. What is served rises with each release, so that nobody makes a laptop sign as the way back
 *  what a site had long ago. */
function refuseOlder(last: KnownReport, report: Report, what: string): void {
  if (report.sequence <= last.sequence) {
    throw older(what, `report ${report.sequence} of ${report.createdAt}`, `report ${last.sequence}, which is here`)
  }
  const before = last.document === null ? [] : parseReport(last.document, `report of ${report.site}`).report.served
  for (const { group, bundle } of report.served) {
    const known = before.find((one) => one.group === group)?.bundle ?? 0
    if (bundle >= known) continue
    throw older(what, `bundle ${bundle}, which it says ${group} is served`, `bundle ${known}, which was served before`)
  }
}

function older(what: string, found: string, known: string): GapferryError {
  return new GapferryError('REPORT_OLDER', `${what}: ${found} is not newer than ${known}`, {
    hint: `write another one at the site: ${ANOTHER}; where its mirror was restored from an older backup, add --force`,
  })
}

function mismatch(what: string, site: string, found: string): GapferryError {
  return new GapferryError('SITE_MISMATCH', `${what}: expected what site ${site} reports, found what ${found} does`, {
    hint: `gapferry report add --site ${found} FILE`,
  })
}
