/**
 * What license files say of themselves in text: lines `Key = Value`, in files that also hold a signature. Whatever else is in
 * them is the vendor's, and is neither read nor changed. Which keys there are is known from the field, not from a specification.
 */

/** When something of a license ends. */
export interface LicenseDate {
  /** the key, as in `sysadmin_exp` */
  name: string
  /** YYYY-MM-DD */
  date: string
}

/** What a license's files tell; null where none does. */
export interface LicenseFacts {
  /** every one that is named, each once */
  deploymentIds: string[]
  product: string | null
  /** sorted by date, then name */
  expires: LicenseDate[]
  /** the machine that it is bound to, as the vendor names it */
  host: string | null
}

const MAX_LINE_CHARS = 512
const MAX_FACT_CHARS = 120
export const MAX_LICENSE_DATES = 200
const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
const LINE = /^\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,79})\s*[=:]\s*(\S.*?)\s*$/
/** A date of a module, or of the license as a whole. */
const DATE_KEY = /^(?:[A-Za-z0-9_]{1,60}_exp|expires|expiration|expiry|.*re-?activat.*)$/i
/** What a box must have renewed before, whatever its modules say. */
const REACTIVATION_KEY = /^(?:expires|expiration|expiry|.*re-?activat.*)$/i
const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']

/** @param files  paths and bytes */
export function readLicenseFacts(files: readonly { path: string; data: Buffer }[]): LicenseFacts {
  const ids = new Set<string>()
  const expires = new Map<string, LicenseDate>()
  const facts: { product: string | null; host: string | null } = { product: null, host: null }
  for (const { path, data } of files) {
    const text = data.toString('latin1')
    if (path.endsWith('/pbxid')) addId(ids, text.trim())
    for (const [key, value] of linesOf(text)) {
      const name = key.toLowerCase()
      if (name === 'deploymentid') addId(ids, value)
      else if (name === 'product-name') facts.product ??= plain(value)
      else if (name === 'hostid' || name === 'host-id' || name === 'machineid') facts.host ??= plain(value)
      else if (DATE_KEY.test(key)) addDate(expires, key, value)
    }
  }
  const dates = [...expires.values()].sort((a, b) => compare(a.date, b.date) || compare(a.name, b.name))
  return { deploymentIds: [...ids], ...facts, expires: dates.slice(0, MAX_LICENSE_DATES) }
}

/** Whether a date is one on which the box itself has to be activated again. */
export function isReactivation({ name }: LicenseDate): boolean {
  return REACTIVATION_KEY.test(name)
}

/** A calendar day as vendors write it: `2027-03-01`, with or without a time; `20270301`; `01-Mar-2027`; `Mar 1, 2027`; `3/1/2027`,
 *  month first; or seconds since 1970.
 *  @returns YYYY-MM-DD; undefined for anything else, `Never` among it */
export function parseLicenseDate(text: string): string | undefined {
  const iso = /^(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?:[T ].*)?$/.exec(text)
  if (iso !== null) return dayOf(iso[1]!, Number(iso[2]), iso[3]!)
  const british = /^(\d{1,2})[- ]([A-Za-z]{3})[a-z]*[- ,]+(\d{4})\b/.exec(text)
  if (british !== null) return dayOf(british[3]!, monthOf(british[2]!), british[1]!)
  const american = /^([A-Za-z]{3})[a-z]* (\d{1,2}),? (\d{4})\b/.exec(text)
  if (american !== null) return dayOf(american[3]!, monthOf(american[1]!), american[2]!)
  const slashed = /^(\d{1,2})\/(\d{1,2})\/(\d{4})\b/.exec(text)
  if (slashed !== null) return dayOf(slashed[3]!, Number(slashed[1]), slashed[2]!)
  return /^[1-9]\d{9}$/.test(text) ? new Date(Number(text) * 1000).toISOString().slice(0, 10) : undefined
}

function* linesOf(text: string): Generator<[key: string, value: string]> {
  for (const line of text.split(/\r\n|[\r\n]/)) {
    const match = line.length > MAX_LINE_CHARS ? null : LINE.exec(line)
    if (match !== null) yield [match[1]!, match[2]!.replace(/^"(.*)"$/, '$1')]
  }
}

function addId(ids: Set<string>, text: string): void {
  if (ID.test(text)) ids.add(text)
}

function addDate(expires: Map<string, LicenseDate>, name: string, value: string): void {
  const date = parseLicenseDate(value)
  const before = expires.get(name)
  // Of several files that name it, the one that ends last counts: a renewal may lie beside what it renews.
  if (date !== undefined && (before === undefined || before.date < date)) expires.set(name, { name, date })
}

function dayOf(year: string, month: number, day: string): string | undefined {
  const text = `${year}-${String(month).padStart(2, '0')}-${day.padStart(2, '0')}`
  const ms = Date.parse(`${text}T00:00:00Z`)
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text) ? text : undefined
}

function monthOf(name: string): number {
  return MONTHS.indexOf(name.toLowerCase()) + 1
}

/** For people: printable, and short; null where nothing is left. */
function plain(text: string): string | null {
  const kept = text.replace(/[^\x20-\x7e]/g, '').slice(0, MAX_FACT_CHARS)
  return kept === '' ? null : kept
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
