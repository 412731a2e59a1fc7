/**
 * MODULE_REPO, the setting that says where a box finds its modules. A box puts `/all-16.0.xml` in place of whatever path
 * it names, but appends `/modules/…` to it, and resets it to its default when a request of the sounds module fails.
 */
import type { Sheet } from './sheet.ts'

/** The name of the check. */
export const MODULE_REPO = 'MODULE_REPO'

/** @param origin  what the group's boxes are told
 *  @param told    what boxes have; `where` names its source, `isDefault` where it is the setting's default value
 *  @param asked   how many boxes asked at the origin before */
export function checkModuleRepo(
  sheet: Sheet,
  origin: string,
  { told, asked }: { told: readonly ToldRepo[]; asked: number },
): void {
  for (const one of told) judge(sheet, origin, one)
  if (!sheet.isClean(MODULE_REPO)) return
  const places = [...new Set(told.map(({ where }) => where))].join(' and ')
  if (places !== '') sheet.passed(MODULE_REPO, `${origin}, as ${places} has it`)
  else if (asked > 0) sheet.passed(MODULE_REPO, `the boxes that asked here so far, ${asked}, name it as they are told`)
  else sheet.skipped(MODULE_REPO, 'not known: neither --box INVENTORY nor --module-repo URL tells it')
}

export interface ToldRepo {
  where: string
  value: string
  isDefault?: boolean
}

function judge(sheet: Sheet, origin: string, { where, value, isDefault = false }: ToldRepo): void {
  const fault = moduleRepoFault(value, origin)
  if (fault === undefined) return
  const found = `it is ${value === '' ? 'empty' : value}`
  const repo = { asked: `MODULE_REPO, from ${where}`, text: `${found}: ${fault.why}`, effect: fault.effect }
  const standard = { asked: `the default of MODULE_REPO, from ${where}`, text: found, effect: RESET }
  if (isDefault) sheet.found(MODULE_REPO, { ...standard, remedy: defaultOf(origin) })
  else sheet.found(MODULE_REPO, { ...repo, remedy: settingOf(origin) })
}

/** What a box with this setting trips over; undefined where it is the origin and nothing else.
 *  Rule: FreePBX appends `/modules/` to the text as it is, and takes a comma as the end of one address. */
function moduleRepoFault(value: string, origin: string): { why: string; effect: string } | undefined {
  for (const one of value.split(',')) {
    const fault = addressFault(one, origin)
    if (fault !== undefined) return fault
  }
  return undefined
}

const RESET =
  'when the mirror does not answer while its sounds module asks, it sets MODULE_REPO back to that address and stays there'

function addressFault(text: string, origin: string): { why: string; effect: string } | undefined {
  if (text === origin) return undefined
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    return { why: 'it is no http address', effect: 'it says that the online server cannot be reached' }
  }
  if (url.protocol === 'https:' && origin.startsWith('http:') && url.hostname === new URL(origin).hostname) {
    return {
      why: 'the mirror speaks http there',
      effect:
        'no connection comes up; with a private authority behind it neither, because PHP trusts only its own list',
    }
  }
  if (url.origin !== origin) {
    return { why: `boxes of this group are told ${origin}`, effect: 'it asks another server for its modules' }
  }
  if (text === `${origin}/`) {
    return {
      why: 'there is a slash at its end',
      effect: 'it asks for //modules/…, which this mirror forgives and other servers do not',
    }
  }
  return {
    why: `there is ${url.pathname === '/' ? 'something' : url.pathname} behind the origin`,
    effect: `it asks for the list at ${origin}/all-….xml all the same, but for each module at ${text}/modules/…, where nothing is`,
  }
}

function settingOf(origin: string): string {
  return `on the box: fwconsole setting MODULE_REPO ${origin}`
}

function defaultOf(origin: string): string {
  return `on the box: mysql asterisk -e "UPDATE freepbx_settings SET defaultval='${origin}' WHERE keyword='MODULE_REPO'"`
}
