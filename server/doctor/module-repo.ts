/**
 * MODULE_REPO, the setting that says where a box finds its modules. A box puts `/all-16.0.xml` in place of whatever path
 * it names, but appends `/modules/…` to it, and resets it to its default when a request of the sounds module fails.
 */
import { NAMED_MODULE_REPO, VENDOR_MODULE_REPO } from '../../manifests/vendor-names.ts'
import type { Sheet } from './sheet.ts'

/** The name of the check. */
export const MODULE_REPO = 'MODULE_REPO'

/** @param origin  what the group's boxes are told
 *  @param told    what boxes have; `where` names its source, `isDefault` where it is the setting's default value
 *  @param asked   how many boxes asked at the origin before
 *  @param isNamed  the origin answers under the vendor's names, too */
export function checkModuleRepo(
  sheet: Sheet,
  origin: string,
  { told, asked, isNamed = false }: { told: readonly ToldRepo[]; asked: number; isNamed?: boolean },
): void {
  for (const one of told) judge(sheet, { origin, isNamed }, one)
  if (!sheet.isClean(MODULE_REPO)) return
  const places = [...new Set(told.map(({ where }) => where))].join(' and ')
  const values = [...new Set(told.map(({ value }) => value))].join(' and ')
  if (places !== '') sheet.passed(MODULE_REPO, `${values}, as ${places} has it`)
  else if (asked > 0) sheet.passed(MODULE_REPO, `the boxes that asked here so far, ${asked}, name it as they are told`)
  else if (isNamed) sheet.skipped(MODULE_REPO, `not known here. ${HTTPS_NOTE}`)
  else sheet.skipped(MODULE_REPO, 'not known: neither --box INVENTORY nor --module-repo URL tells it')
}

export interface ToldRepo {
  where: string
  value: string
  isDefault?: boolean
}

/** What an operator who changed nothing but names has to know. */
const HTTPS_NOTE =
  `Boxes ask ${VENDOR_MODULE_REPO} unless they are told otherwise, no mirror can answer that, and fwconsole then says ` +
  `"Up to date". On each box: fwconsole setting MODULE_REPO ${NAMED_MODULE_REPO}, and the same as its default`

interface Right {
  origin: string
  isNamed: boolean
}

function judge(sheet: Sheet, { origin, isNamed }: Right, { where, value, isDefault = false }: ToldRepo): void {
  if (isNamed && value === NAMED_MODULE_REPO) return
  const fault = isNamed && value === VENDOR_MODULE_REPO ? HTTPS : moduleRepoFault(value, origin)
  const right = isNamed ? NAMED_MODULE_REPO : origin
  if (fault === undefined) return
  const found = `it is ${value === '' ? 'empty' : value}`
  const repo = { asked: `MODULE_REPO, from ${where}`, text: `${found}: ${fault.why}`, effect: fault.effect }
  const standard = { asked: `the default of MODULE_REPO, from ${where}`, text: found, effect: RESET }
  if (isDefault) sheet.found(MODULE_REPO, { ...standard, remedy: defaultOf(right) })
  else sheet.found(MODULE_REPO, { ...repo, remedy: settingOf(right) })
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

const HTTPS = {
  why: 'no mirror can answer https there, because no authority that PHP trusts certifies the name for it',
  effect: 'no connection comes up, and fwconsole ma upgradeall says "Up to date" all the same',
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
