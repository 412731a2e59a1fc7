/** Takes what was found on a stick, each site's for itself, and says what came of it. */
import { basename } from 'node:path'
import { errorObject, formatTime, plural } from '../manifests/console.ts'
import { sha256Of } from '../manifests/digest.ts'
import { isGapferryError, type GapferryError } from '../manifests/errors.ts'
import { looksLikeMirrorIdentity } from '../manifests/mirror-identity.ts'
import { print, PrintedError, talk, type Surroundings } from '../manifests/program.ts'
import { heldBlobs } from '../manifests/report.ts'
import { askLine } from '../storage/ask.ts'
import type { AuditWhat } from '../storage/audit.ts'
import type { Ledger } from '../storage/ledger.ts'
import { auditedOnLaptop } from './audit.ts'
import type { Fleet } from './config.ts'
import type { Found } from './find-reports.ts'
import { takeInventories, type TakenInventory } from './report-intake.ts'
import { takeIdentity, takeReport, type Acceptance, type TakenReport } from './report.ts'

export interface AddOptions {
  site?: string
  words?: string
  identity?: string
  yes?: boolean
  force?: boolean
}

interface Work {
  ledger: Ledger
  fleet: Fleet
}

/** Each site's is taken for itself: one that is refused does not keep the others back. */
export async function addFound(
  work: Work,
  found: readonly Found[],
  options: AddOptions,
  json: boolean,
  around: Surroundings,
): Promise<void> {
  const rows: object[] = []
  const failures: GapferryError[] = []
  for (const one of found) {
    try {
      const added = await addOne(work, one, options, around)
      rows.push(added.row)
      if (!json) for (const line of added.lines) print(around, line)
      failures.push(...added.failures)
    } catch (error) {
      if (!isGapferryError(error) || found.length === 1) throw error
      failures.push(error)
      rows.push({ site: one.site, file: one.file, ...errorObject(error) })
    }
  }
  if (json) print(around, JSON.stringify({ reports: rows }))
  const [first, ...others] = failures
  for (const { message } of others) talk(around, message)
  if (first !== undefined) throw json ? new PrintedError('report', { cause: first }) : first
}

/** What was added: for JSON, for people, and what of it could not be. */
interface Added {
  row: object
  lines: string[]
  failures: GapferryError[]
}

function addOne(work: Work, found: Found, options: AddOptions, around: Surroundings): Promise<Added> {
  return looksLikeMirrorIdentity(found.bytes)
    ? addIdentity(work, found, options, around)
    : addReport(work, found, options, around)
}

async function addIdentity({ ledger }: Work, found: Found, options: AddOptions, around: Surroundings): Promise<Added> {
  const { file, site, bytes } = found
  const asked = askedOf(found)
  const take = () =>
    takeIdentity(ledger, { site, bytes, what: basename(file), acceptance: acceptance(options, around) })
  const { words, outcome, hasKeys } = await auditedOnLaptop(ledger, around, asked, take, ({ outcome, words }) => {
    return outcome === 'accepted' ? { ...asked, added: [`identity ${words}`] } : asked
  })
  const keys = hasKeys
    ? 'licenses can be sealed for it'
    : 'it has no key for licenses yet: a newer gapferry-mirror makes one'
  const line = `${site}: the identity of its mirror is ${outcome === 'accepted' ? 'accepted' : 'the one that was accepted'}; ${keys}`
  return { row: { site, file, outcome, identity: words, hasKeys }, lines: [line], failures: [] }
}

async function addReport(work: Work, found: Found, options: AddOptions, around: Surroundings): Promise<Added> {
  const { ledger } = work
  const { file, site, bytes } = found
  const asked = askedOf(found)
  const what = basename(file)
  const isForced = options.force === true
  const take = () =>
    takeReport(ledger, {
      site,
      bytes,
      what,
      isForced,
      nowMs: around.nowMs(),
      acceptance: acceptance(options, around),
    })
  const done = ({ outcome, words }: TakenReport) =>
    outcome === 'accepted' ? { ...asked, added: [`identity ${words}`] } : asked
  const taken = await auditedOnLaptop(ledger, around, asked, take, done)
  if (taken.warning !== undefined) talk(around, `warning: ${taken.warning}`)
  const inventories = await addInventories(work, taken, what, around)
  return {
    row: {
      site,
      file,
      outcome: taken.outcome,
      identity: taken.words,
      report: taken.report,
      inventories: inventories.map(({ box, outcome, error }) => ({ box, outcome, ...(error && errorObject(error)) })),
    },
    lines: [sentence(taken), ...inventorySentences(site, inventories)],
    failures: inventories.flatMap(({ error }) => error ?? []),
  }
}

function addInventories(
  { ledger, fleet }: Work,
  { signed, report: { site, inventories } }: TakenReport,
  what: string,
  around: Surroundings,
): Promise<TakenInventory[]> {
  if (inventories.length === 0) return Promise.resolve([])
  const asked = { command: 'inventory add', site, files: [what] }
  const done = (taken: TakenInventory[]) => ({ ...asked, boxes: taken.flatMap(({ kept }) => kept ?? []) })
  const take = async () => takeInventories(fleet, signed, what, around.nowMs())
  return auditedOnLaptop(ledger, around, asked, take, done)
}

function askedOf({ file, site, bytes }: Found): AuditWhat & { command: string } {
  return { command: 'report add', site, files: [basename(file)], sha256: sha256Of(bytes) }
}

const OUTCOMES: Record<TakenInventory['outcome'], string> = {
  new: 'new',
  replaced: 'newer than what was here',
  unchanged: 'here already',
  older: 'older than what is here',
  absent: 'left out of the report, it had no room',
  refused: 'refused',
}

function inventorySentences(site: string, inventories: readonly TakenInventory[]): string[] {
  return [...Map.groupBy(inventories, ({ outcome }) => outcome)].map(([outcome, some]) => {
    const [one] = some
    const boxes =
      some.length === 1 ? `inventory of ${one!.box}` : `inventories of ${some.map(({ box }) => box).join(', ')}`
    return `${site}: ${boxes}: ${OUTCOMES[outcome]}`
  })
}

function acceptance({ identity, yes }: AddOptions, around: Surroundings): Acceptance {
  const isTerminal = around.stdin.isTTY === true && around.stderr.isTTY === true
  const ask = async (site: string, words: string): Promise<boolean> => {
    talk(around, `the first report of ${site}; the identity of its mirror:\n\n    ${words}\n`)
    talk(around, 'Compare these words with those that gapferry-mirror report shows there, by phone or from paper.')
    const answer = await askLine(around, 'Are they the same? [yes/no] ')
    return ['yes', 'y'].includes(answer.trim().toLowerCase())
  }
  return { words: identity, isConfirmed: yes === true, ask: isTerminal ? ask : undefined }
}

function sentence({ report, outcome }: TakenReport): string {
  const { site, createdAt } = report
  const files = plural(heldBlobs(report, site).size, 'file')
  if (outcome === 'known') return `${site}: this report is here already`
  const accepted = outcome === 'accepted' ? '; the identity of its mirror is accepted' : ''
  return `${site}: report of ${formatTime(Date.parse(createdAt))} added, ${files} are there${accepted}`
}
