/**
 * What of a box works in a network without internet: works, works partly, or does not. For the operator to tell people
 * before they find out. Pure; read from an inventory.
 */
import type { Inventory } from './inventory.ts'
import { isInside, words } from './inside.ts'

export interface FeatureRow {
  feature: string
  state: 'works' | 'partly' | 'not'
  why: string
}

/** Module → what it is, how far it works, and why. Only of those that reach for the internet at all. */
const OF_MODULES: Record<string, FeatureRow> = {
  calendar: row('calendars', 'partly', 'local ones work; remote ones (Google, Microsoft 365, iCal links) do not'),
  certman: row('certificates', 'partly', 'own ones work; Let’s Encrypt does not'),
  endpoint: row(
    'provisioning of phones',
    'partly',
    'by DHCP option 66 or by hand; the vendor’s redirect service is not reached',
  ),
  filestore: row(
    'backups to other places',
    'partly',
    'servers of this network work; Amazon S3, Dropbox and the like do not',
  ),
  sangomaconnect: row(
    'Sangoma Connect',
    'not',
    'push notifications and phones outside the network need the vendor’s servers',
  ),
  sangomacrm: row('CRM', 'partly', 'a CRM of this network works; hosted ones do not'),
  sipstation: row('SIPStation trunks', 'not', 'they lead to the vendor'),
  sms: row('text messages', 'not', 'they go through a provider'),
  smsconnector: row('text messages by connector', 'not', 'they go through a provider'),
  zulu: row('Zulu', 'partly', 'desktops in this network work; push to mobiles does not'),
  clearlydevices: row(
    'provisioning of ClearlyIP phones',
    'partly',
    'in this network; the vendor’s cloud is not reached',
  ),
  vega: row('gateways', 'works', 'in this network'),
  ucp: row('user control panel', 'works', 'in this network'),
}

/** Those that the box has, the ones that do not work first. */
export function judgeFeatures(box: Inventory): FeatureRow[] {
  const enabled = (box.freepbx?.modules ?? []).filter(({ state }) => state === 'enabled' || state === 'needs-upgrade')
  const rows = [
    ...enabled.flatMap(({ name }) => (Object.hasOwn(OF_MODULES, name) ? [OF_MODULES[name]!] : [])),
    ...trunks(box.readiness),
    ...support(box.readiness),
  ]
  const order = ['not', 'partly', 'works']
  return rows.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || (a.feature < b.feature ? -1 : 1))
}

function trunks(facts: Map<string, string>): FeatureRow[] {
  const hosts = words(facts.get('trunks')?.replaceAll(' | ', ' '))
  const outside = hosts.filter((host) => !isInside(host.replace(/:\d+$/, '')))
  if (hosts.length === 0) return []
  if (outside.length === 0) return [row('trunks', 'works', `in this network: ${hosts.join(', ')}`)]
  const state = outside.length === hosts.length ? 'not' : 'partly'
  return [row('trunks', state, `not in this network, as far as their names tell: ${outside.join(', ')}`)]
}

function support(facts: Map<string, string>): FeatureRow[] {
  return facts.has('vpn') ? [row('remote support', 'not', 'the vendor’s VPN leads out of this network')] : []
}

function row(feature: string, state: FeatureRow['state'], why: string): FeatureRow {
  return { feature, state, why }
}
