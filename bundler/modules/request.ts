/**
 * What a box sends when it asks for its list of modules, made from its inventory or taken from a body that a box sent. The
 * vendor's answer is personal to it: PHP, brand, deployment. Who asks is the laptop: its own ids stand in place of the box's.
 * Rule: the framework's generate_remote_urls, spelled as PHP's http_build_query spells it.
 *
 * A form holds a deployment ID. It is sent to the vendor, and neither kept nor shown.
 */
import type { FreepbxFacts } from '../../manifests/inventory.ts'

/** Who asks: uuids, and a SHA-256 for the machine. */
export interface RequestIds {
  installid: string
  machineid: string
  /** what the vendor gave out last; none before its first answer */
  lastaccesseduuid?: string
  /** new for each request */
  currentuuid?: string
}

/** What a list depends on; boxes with equal profiles get equal lists. For comparisons alone: it holds the deployment ID. */
export function profileOf({ profile }: FreepbxFacts): string {
  return JSON.stringify(PERSONAL.map((field) => profile.get(field) ?? null))
}

/** The body of a request for the list of modules, as application/x-www-form-urlencoded.
 *  @param args  `captured`: the body that a box sent, for a list, for sounds or for an archive; counts before `facts`.
 *               `major`: of the list */
export function listForm(args: { facts?: FreepbxFacts; captured?: string; ids: RequestIds; major: number }): string {
  const { lastaccesseduuid, currentuuid, machineid, installid } = args.ids
  const own: Pairs = [
    ['lastaccesseduuid', lastaccesseduuid],
    ['currentuuid', currentuuid],
    ['machineid', machineid],
    ['installid', installid],
  ]
  const told =
    args.captured === undefined ? spell(boxFields(args.facts, args.major)) : without(args.captured, OWN_FIELDS)
  return joined(spell(own), told, 'sv=2')
}

/** The body of a request for the list of sounds, or for one of their files: made from that of the list of modules. */
export function soundForm(form: string): string {
  return joined(without(form, ['lastaccesseduuid', 'currentuuid', 'sv']), 'sv=2&soundlangver=2&canredirect=1')
}

/** The values of a form that nobody but the vendor may see. */
export function secretsOf(form: string): string[] {
  const fields = new URLSearchParams(form)
  return SECRET.flatMap((field) => fields.getAll(field)).filter((value) => value !== '')
}

type Pairs = [name: string, value: string | undefined][]

const PERSONAL = ['phpver', 'brandid', 'deploymentid', 'distro', 'distrover', 'zend', 'ioncube'] as const
const IDS = ['lastaccesseduuid', 'currentuuid', 'machineid', 'installid']
const SECRET = [...IDS, 'deploymentid', 'extraid']
/** Of a captured body: what says who asks, and what stands at the end. */
const OWN_FIELDS = [...IDS, 'firstinstall', 'sv', 'soundlangver', 'canredirect']
/** As a box has them; one whose database could not be read has its modules enabled, as far as anybody can tell. A box says
 *  nothing of a broken module. */
const STATUS: Record<string, number> = { 'not-installed': 0, disabled: 1, enabled: 2, 'needs-upgrade': 3, unknown: 2 }
const UNTOLD = '?'
/** base64 of an empty list in JSON: nothing unusual was found on the box */
const NO_EXTRAS = 'W10='

function boxFields(facts: FreepbxFacts | undefined, major: number): Pairs {
  const profile = new Map(facts?.profile)
  const take = (field: string): [string, string | undefined] => {
    const value = profile.get(field)
    profile.delete(field)
    return [field, value]
  }
  for (const field of [...OWN_FIELDS, 'extraid']) profile.delete(field)
  return [
    ['type', take('type')[1] ?? ''],
    ...(facts?.modules ?? []).flatMap(moduleFields),
    take('brandid'),
    take('deploymentid'),
    ['enableExpiredModuleList', major >= 17 ? '1' : undefined],
    ...['astver', 'phpver', 'distro', 'distrover'].map(take),
    ['pbxver', take('pbxver')[1] ?? facts?.framework],
    take('ucount'),
    ['extraid', NO_EXTRAS],
    ...['zend', 'ioncube'].map(take),
    ...profile,
  ]
}

function moduleFields({ name, version, state, license }: FreepbxFacts['modules'][number]): Pairs {
  const status = STATUS[state]
  if (status === undefined) return []
  return [
    [`modules[${name}][version]`, version === UNTOLD ? undefined : version],
    [`modules[${name}][status]`, String(status)],
    [`modules[${name}][rawname]`, name],
    [`modules[${name}][license]`, license === UNTOLD ? 'unknown' : license],
  ]
}

/** Fields without a value are not sent. */
function spell(pairs: Pairs): string {
  return joined(...pairs.flatMap(([name, value]) => (value === undefined ? [] : [`${encode(name)}=${encode(value)}`])))
}

function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*~]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+')
}

/** A body without some of its fields, the others as they were spelled. */
function without(form: string, names: readonly string[]): string {
  const isOther = (pair: string): boolean => !names.includes([...new URLSearchParams(pair).keys()][0] ?? '')
  return joined(...form.trim().split('&').filter(isOther))
}

function joined(...parts: string[]): string {
  return parts.filter((part) => part !== '').join('&')
}
