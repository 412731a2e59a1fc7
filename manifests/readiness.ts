/**
 * Whether a box is ready for a network without internet: each fact judged from its inventory, with what to do about it. A
 * fact that the inventory does not tell is unknown, never ready.
 */
import { automaticJobs, type AutomaticJob } from './automatic.ts'
import { formatTime, plural, shortList } from './console.ts'
import { isOn } from './ini.ts'
import { isInside, words } from './inside.ts'
import type { FreepbxFacts, Inventory } from './inventory.ts'
import type { Pending } from './pending.ts'
import { isOlder, not, pairs, ready, unknown, type ReadinessRow, type Surrounding } from './readiness-rows.ts'
import { moduleRepository, proxies, repositories, repositoryKey, signingKey } from './readiness-sources.ts'

export type { ReadinessRow, Surrounding } from './readiness-rows.ts'

const MAX_OFFSET_SECONDS = 1
const MAX_SHOWN = 5
const MAX_HOST = 300
const HIDDEN_ID = 4
/** Each fact, in the order in which a person works through them. */
export function judgeReadiness(box: Inventory, around: Surrounding): ReadinessRow[] {
  const rows = [
    activation(box.freepbx, around.nowMs),
    updates(around.pending),
    nameServers(box.readiness),
    names(box),
    time(box.readiness),
    mail(box.readiness),
    proxies(box),
    moduleRepository(box, around.origin),
    repositories(box, around.origin),
    repositoryKey(box, around.siteKey),
    signingKey(box.freepbx),
    ...services(box),
    automatic(box, around.nowMs),
  ]
  return rows.filter((row) => row !== undefined)
}

/** How many are in which state. */
export function countReadiness(rows: readonly ReadinessRow[]): Record<ReadinessRow['state'], number> {
  const count = { ready: 0, not: 0, unknown: 0 }
  for (const { state } of rows) count[state]++
  return count
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
    return not(fact, `the license is for deployment ${hidden(told)}, the box is ${hidden(id)}`, remedy)
  const product = freepbx.licenses.map((one) => one.facts.get('Product-Name')).find((name) => name !== undefined)
  const brand = freepbx.profile.get('brandid')
  if (brand === 'pbxact' && product !== undefined && !/pbxact/i.test(product))
    return not(fact, `the license is for ${product}, the box is PBXact`, remedy)
  const first = firstExpiry(freepbx)
  if (first === undefined) return unknown(fact, `deployment ${hidden(id)}; when it expires is not known`, remedy)
  if (first.ms <= nowMs) return not(fact, `deployment ${hidden(id)}: ${first.name} was ${first.text}`, remedy)
  return ready(fact, `deployment ${hidden(id)}; the first to expire is ${first.name}, ${first.text}`)
}

/** Of a box's license, what expires first; undefined where none of its dates can be read. */
function firstExpiry(freepbx: FreepbxFacts | undefined): { name: string; text: string; ms: number } | undefined {
  const dates = (freepbx?.licenses ?? []).flatMap((one) => [...one.facts].filter(([key]) => key.endsWith('_exp')))
  const known = dates.map(([name, text]) => ({ name, text, ms: dateOf(text) })).filter(({ ms }) => !Number.isNaN(ms))
  return known.length < dates.length ? undefined : known.sort((a, b) => a.ms - b.ms)[0]
}

/** Enough to tell two apart, and no more: a deployment ID is half of what a license takes. */
function hidden(id: string): string {
  return id.length > HIDDEN_ID ? `…${id.slice(-4)}` : id
}

function updates(pending: Pending | undefined): ReadinessRow {
  const fact = 'updates'
  const remedy = 'on the box: yum update, then fwconsole ma upgradeall, until neither finds more'
  if (pending === undefined)
    return unknown(fact, 'what is served for this box is not known here', 'gapferry-mirror boxes list, at its mirror')
  const { packages, modules, number } = pending
  const behind = [
    ...(packages === undefined || packages.length === 0 ? [] : [counted(packages, 'package')]),
    ...(modules === undefined || modules.length === 0 ? [] : [counted(modules, 'module')]),
  ]
  if (behind.length > 0) return not(fact, `behind bundle ${number} in ${behind.join('; ')}`, remedy)
  if (packages === undefined && modules === undefined)
    return unknown(fact, `bundle ${number} has nothing that its packages and modules could be compared with`, remedy)
  return ready(fact, `nothing in bundle ${number} is newer`)
}

function counted(names: readonly string[], noun: string): string {
  return `${plural(names.length, noun)} (${shortList(names, MAX_SHOWN)})`
}

function nameServers(facts: Map<string, string>): ReadinessRow {
  const fact = 'name servers'
  const servers = words(facts.get('dns-servers'))
  const answers = pairs(facts.get('dns-answers'))
  const remedy = 'in /etc/resolv.conf: nameserver 127.0.0.1 first, then servers of this network alone'
  if (servers.length === 0) return unknown(fact, 'none is named', remedy)
  if (servers[0] !== '127.0.0.1' && servers[0] !== '::1') return not(fact, `the first is ${servers[0]}`, remedy)
  const outside = servers.find((one) => !isInside(one))
  if (outside !== undefined) return not(fact, `${outside} is on the internet`, remedy)
  const silent = servers.find((one) => answers.get(one) === 'no')
  if (silent !== undefined) return not(fact, `${silent} does not answer`, `see that it runs, or take it out: ${remedy}`)
  if (!servers.every((one) => answers.has(one)))
    return unknown(fact, `${servers.join(', ')}; whether they answer is not known`, remedy)
  return ready(fact, servers.join(', '))
}

/** Each look-up of a name that nobody knows takes ten seconds, in the middle of a call. */
function names({ readiness: facts, isGuess }: Inventory): ReadinessRow {
  const fact = 'names in settings'
  const remedy = 'give them an address (name server of this network, /etc/hosts), or take them out of the settings'
  const named = words(facts.get('setting-names'))
  const answers = pairs(facts.get('name-answers'))
  if (isGuess || isOlder(facts)) return unknown(fact, 'the inventory does not tell', remedy)
  if (named.length === 0) return ready(fact, 'there are none')
  const lost = named.filter((one) => answers.get(one) === 'no')
  if (lost.length > 0) return not(fact, `no address: ${shortList(lost, MAX_SHOWN)}`, remedy)
  if (!named.every((one) => answers.has(one)))
    return unknown(fact, `not looked up: ${shortList(named, MAX_SHOWN)}`, remedy)
  return ready(fact, `${plural(named.length, 'name')}, each has an address`)
}

function time(facts: Map<string, string>): ReadinessRow {
  const fact = 'time'
  const remedy = 'in /etc/chrony.conf: server ADDRESS iburst, with a server of this network'
  const [source, offset] = timeSource(facts)
  if (source === undefined) {
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

/** What chrony or ntpd go by; else the first that is named and answers, one of this network before the others. */
function timeSource(facts: Map<string, string>): [source: string | undefined, offsetSeconds: number] {
  const source = facts.get('time-source') ?? ''
  if (source !== '') return [source, Math.abs(Number(facts.get('time-offset') ?? Number.NaN))]
  const answering = [...pairs(facts.get('time-answers'))].filter(([, answer]) => answer !== 'no')
  const [best] = answering.sort(([a], [b]) => Number(isInside(b)) - Number(isInside(a)))
  return best === undefined ? [undefined, Number.NaN] : [best[0], Math.abs(Number(best[1]))]
}

function mail(facts: Map<string, string>): ReadinessRow {
  const fact = 'mail'
  const remedy = 'in /etc/postfix/main.cf: relayhost = [ADDRESS OF A MAIL SERVER OF THIS NETWORK]'
  const relay = facts.get('mail-relay')?.slice(0, MAX_HOST)
  if (facts.get('mail-service')?.trim() === 'off') return ready(fact, 'off')
  if (relay === undefined) return unknown(fact, 'postfix was not found', remedy)
  if (relay === '') return not(fact, 'it goes to the internet directly', remedy)
  const host = relay.replace(/^\[?([^\]]*?)\]?(?::\w+)?$/, '$1')
  return isInside(host)
    ? ready(fact, `through ${relay}`)
    : unknown(fact, `through ${relay}: is that in this network?`, remedy)
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
function automatic(box: Inventory, nowMs: number): ReadinessRow {
  const fact = 'automatic updates'
  const jobs = automaticJobs(box, nowMs)
  if (jobs === undefined) return unknown(fact, 'the inventory does not tell', 'look at crontab -l -u asterisk')
  if (jobs.length === 0) return ready(fact, 'nothing installs by itself')
  return unknown(
    fact,
    `on: ${jobs.map(jobText).join('; ')}`,
    'whatever is released installs itself then; where nobody wants that: fwconsole setting AUTOMODULEUPDATES disabled, systemctl disable --now UNIT',
  )
}

function jobText({ what, nextMs, isLoose }: AutomaticJob): string {
  const when = nextMs === undefined ? 'when is not known' : `next ${isLoose ? 'after ' : ''}${formatTime(nextMs)}`
  return `${what}, ${when}`
}

/** NaN for what has no year. */
function dateOf(text: string): number {
  return /\b\d{4}\b/.test(text) ? Date.parse(text) : Number.NaN
}
