/**
 * Whether a box is ready for a network without internet: each fact judged from its inventory, with what to do about it. A
 * fact that the inventory does not tell is unknown, never ready.
 */
import type { FreepbxFacts, Inventory } from './inventory.ts'
import { isOn } from './ini.ts'

export interface ReadinessRow {
  fact: string
  state: 'ready' | 'not' | 'unknown'
  why: string
  /** what to do on the box or about it; undefined where it is ready */
  remedy?: string
}

interface Surrounding {
  /** under which the box's group reaches the mirror */
  origin: string
  nowMs: number
}

/** The key that signs the vendor's module packages since December 2019. */
const MODULE_KEY = 'B53D215A755231A3'
const MAX_OFFSET_SECONDS = 1
/** Module → what of it needs the internet. */
const NEEDS_INTERNET: Record<string, string> = {
  calendar: 'remote calendars; local ones work',
  certman: 'certificates of Let’s Encrypt; own certificates work',
  sangomaconnect: 'push notifications and phones outside the network',
  sangomacrm: 'hosted CRM systems',
  sipstation: 'SIPStation trunks',
  sms: 'messages through a provider',
}

/** In the order in which a person works through them. */
export function judgeReadiness(box: Inventory, around: Surrounding): ReadinessRow[] {
  const rows = [
    activation(box.freepbx, around.nowMs),
    nameServers(box.readiness),
    time(box.readiness),
    mail(box.readiness),
    moduleRepository(box, around.origin),
    repositories(box, around.origin),
    signingKey(box.freepbx),
    ...services(box),
    automatic(box),
    ...features(box.freepbx),
  ]
  return rows.filter((row) => row !== undefined)
}

function activation(freepbx: FreepbxFacts | undefined, nowMs: number): ReadinessRow | undefined {
  const fact = 'activation'
  if (freepbx === undefined)
    return unknown(fact, 'FreePBX was not found', 'take the inventory as root, on the box itself')
  const remedy = 'while the box can reach the vendor: fwconsole sa activate DEPLOYMENT-ID, then fwconsole sa update'
  const told = freepbx.licenses.map((one) => one.facts.get('deploymentid')).find((id) => id !== undefined)
  const id = freepbx.profile.get('deploymentid') ?? told
  if (freepbx.licenses.length === 0) return not(fact, 'there is no license file', remedy)
  if (id === undefined) return unknown(fact, 'no deployment ID was found', remedy)
  if (told !== undefined && told !== id)
    return not(fact, `the license is for deployment ${told}, the box is ${id}`, remedy)
  const dates = freepbx.licenses.flatMap((one) => [...one.facts].filter(([key]) => key.endsWith('_exp')))
  const [first] = dates.map(([key, text]) => ({ key, text, ms: dateOf(text) })).sort((a, b) => a.ms - b.ms)
  if (first === undefined || Number.isNaN(first.ms))
    return unknown(fact, `deployment ${id}; when it expires is not known`, remedy)
  if (first.ms <= nowMs) return not(fact, `deployment ${id}: ${first.key} was ${first.text}`, remedy)
  return ready(fact, `deployment ${id}; the first to expire is ${first.key}, ${first.text}`)
}

function nameServers(facts: Map<string, string>): ReadinessRow {
  const fact = 'name servers'
  const servers = words(facts.get('dns-servers'))
  const remedy = 'in /etc/resolv.conf: nameserver 127.0.0.1 first, then servers of this network alone'
  if (servers.length === 0) return unknown(fact, 'none is named', remedy)
  if (servers[0] !== '127.0.0.1' && servers[0] !== '::1') return not(fact, `the first is ${servers[0]}`, remedy)
  const outside = servers.find((one) => !isInside(one))
  return outside === undefined ? ready(fact, servers.join(', ')) : not(fact, `${outside} is on the internet`, remedy)
}

function time(facts: Map<string, string>): ReadinessRow {
  const fact = 'time'
  const remedy = 'in /etc/chrony.conf: server ADDRESS iburst, with a server of this network'
  const source = facts.get('time-source')
  const offset = Math.abs(Number(facts.get('time-offset') ?? Number.NaN))
  if (source === undefined || source === '') {
    const named = facts.get('time-servers')
    return unknown(
      fact,
      named === undefined ? 'no time server is named' : `no server answered; named are ${named}`,
      remedy,
    )
  }
  if (!isInside(source)) return not(fact, `it comes from ${source}, on the internet`, remedy)
  if (Number.isNaN(offset)) return unknown(fact, `it comes from ${source}; how far off is not known`, remedy)
  const text = `from ${source}, ${offset.toFixed(3)} s off`
  return offset < MAX_OFFSET_SECONDS ? ready(fact, text) : not(fact, text, remedy)
}

function mail(facts: Map<string, string>): ReadinessRow {
  const fact = 'mail'
  const remedy = 'in /etc/postfix/main.cf: relayhost = [ADDRESS OF A MAIL SERVER OF THIS NETWORK]'
  const relay = facts.get('mail-relay')
  if (relay === undefined) return unknown(fact, 'postfix was not found', remedy)
  if (relay === '') return not(fact, 'it goes to the internet directly', remedy)
  const host = relay.replace(/^\[?([^\]]*?)\]?(?::\w+)?$/, '$1')
  return isInside(host)
    ? ready(fact, `through ${relay}`)
    : unknown(fact, `through ${relay}: is that in this network?`, remedy)
}

function moduleRepository({ freepbx, readiness }: Inventory, origin: string): ReadinessRow | undefined {
  if (freepbx === undefined) return undefined
  const fact = 'module repository'
  const remedy = `fwconsole setting MODULE_REPO ${origin}`
  const [value, standard] = [readiness.get('module-repo'), readiness.get('module-repo-default')]
  if (value === undefined) return unknown(fact, 'the database was not read', remedy)
  if (value !== origin) return not(fact, `it is ${value || 'empty'}`, remedy)
  if (standard === origin) return ready(fact, value)
  return not(
    fact,
    `it is ${value}, but the sounds module may set it back to ${standard}`,
    'set the default of MODULE_REPO, too',
  )
}

function repositories(box: Inventory, origin: string): ReadinessRow {
  const fact = 'package repositories'
  const remedy = `the mirror’s repository file in /etc/yum.repos.d, the vendor’s switched off`
  if (box.manager === 'apt' || box.isGuess) return unknown(fact, 'what the box has is not known here', remedy)
  const seen = new Set<string>()
  const enabled = box.repositories.filter(({ id, options }) => {
    const isFirst = !seen.has(id)
    seen.add(id)
    return isFirst && isOn(options.get('enabled'), true)
  })
  if (enabled.length === 0) return not(fact, 'none is enabled', remedy)
  const elsewhere = enabled.filter(({ options }) => {
    const urls = words(options.get('baseurl'))
    const isHere = urls.length > 0 && urls.every((url) => url.startsWith(`${origin}/`) || url.startsWith('file:'))
    return !isHere || options.has('mirrorlist') || options.has('metalink')
  })
  const names = elsewhere.map((one) => one.id).join(', ')
  return elsewhere.length === 0 ? ready(fact, origin) : not(fact, `not from the mirror: ${names}`, remedy)
}

function signingKey(freepbx: FreepbxFacts | undefined): ReadinessRow | undefined {
  if (freepbx === undefined) return undefined
  const fact = 'module signing key'
  if (freepbx.keys.includes(MODULE_KEY)) return ready(fact, MODULE_KEY)
  const remedy = `update the framework, or put ${MODULE_KEY}.key beside admin/libraries/BMO/GPG.class.php`
  if (freepbx.keys.length === 0) return unknown(fact, 'the folder of keys was not found', remedy)
  return not(fact, `${MODULE_KEY} is missing: packages signed since 2019 are refused without a key server`, remedy)
}

function services({ readiness: facts, isGuess }: Inventory): ReadinessRow[] {
  const one = (fact: string, name: string, isOff: (value: string) => boolean, remedy: string): ReadinessRow => {
    const value = facts.get(name)
    if (value === undefined) return unknown(fact, 'the inventory does not tell', remedy)
    return isOff(value) ? ready(fact, 'off') : not(fact, `on: ${value}`, remedy)
  }
  const absent = (fact: string, name: string, remedy: string): ReadinessRow => {
    const value = facts.get(name)
    if (value !== undefined) return not(fact, `set up: ${value}`, remedy)
    return isGuess ? unknown(fact, 'the inventory does not tell', remedy) : ready(fact, 'none is set up')
  }
  return [
    one('news feeds', 'news-feeds', (value) => value === '', 'fwconsole setting RSSFEEDS ""'),
    one(
      'statistics',
      'statistics',
      (value) => !isOn(value, false) || value === '',
      'fwconsole setting BROWSER_STATS 0',
    ),
    absent('dynamic DNS', 'dynamic-dns', 'switch it off: it will not work'),
    absent('support VPN', 'vpn', 'switch it off, or see that its other end is in this network'),
  ]
}

/** Jobs that install by themselves what the mirror serves are for the operator to know, and to want. */
function automatic({ readiness: facts, isGuess }: Inventory): ReadinessRow {
  const jobs = facts.get('automatic')
  const running = words(jobs?.replaceAll(' | ', '\n') ?? '', '\n').filter(
    (job) => !/=(?:no|0|disabled|emailonly)?$/i.test(job),
  )
  if (isGuess) return unknown('automatic updates', 'the inventory does not tell', 'look at crontab -l -u asterisk')
  if (running.length === 0) return ready('automatic updates', 'no job installs by itself')
  return unknown(
    'automatic updates',
    running.join('; '),
    'see that whatever is released may install itself at that time',
  )
}

function features(freepbx: FreepbxFacts | undefined): ReadinessRow[] {
  const names = (freepbx?.modules ?? []).filter((one) => one.state === 'enabled').map((one) => one.name)
  return names
    .filter((name) => name in NEEDS_INTERNET)
    .map((name) => not(`feature ${name}`, `needs the internet: ${NEEDS_INTERNET[name]}`, 'tell the people who use it'))
}

/** NaN for what has no year. */
function dateOf(text: string): number {
  return /\b\d{4}\b/.test(text) ? Date.parse(text) : Number.NaN
}

/** An address of this network or of no network at all; names are not looked up. */
function isInside(host: string): boolean {
  if (/^(?:localhost|127\..*|::1)$/.test(host)) return true
  if (/^f[cd][0-9a-f]{2}:|^fe80:/i.test(host)) return true
  return /^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.)[\d.]+$/.test(host)
}

function words(text: string | undefined, separator: string | RegExp = /[\s,]+/): string[] {
  return (text ?? '').split(separator).filter((word) => word !== '')
}

function ready(fact: string, why: string): ReadinessRow {
  return { fact, state: 'ready', why }
}

function not(fact: string, why: string, remedy: string): ReadinessRow {
  return { fact, state: 'not', why, remedy }
}

function unknown(fact: string, why: string, remedy: string): ReadinessRow {
  return { fact, state: 'unknown', why, remedy }
}
