import t from 'tap'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import { judgeReadiness } from '../../manifests/readiness.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

const ORIGIN = 'http://mirror.hq.lan:8416'
const NOW = Date.parse('2026-11-22T09:00:00Z')
const REPOSITORY = { 'file /etc/yum.repos.d/a.repo': ['[a]', `baseurl=${ORIGIN}/yum/a/`, '[b]', 'enabled=0'] }
const READY = [
  ...['dns-servers 127.0.0.1 10.0.0.1', 'time-source 10.0.0.2', 'time-offset -0.01', 'mail-relay [10.0.0.3]:25'],
  ...[`module-repo ${ORIGIN}`, `module-repo-default ${ORIGIN}`, 'news-feeds ', 'statistics 0'],
  ...['automatic yum-cron=no | automoduleupdates=emailonly'],
]
const FREEPBX = [
  ...['framework 16.0.1', 'profile deploymentid 12', 'license /etc/schmooze/a.zl'],
  ...[
    'license-fact /etc/schmooze/a.zl deploymentid 12',
    'license-fact /etc/schmooze/a.zl sysadmin_exp 2027-01-31',
    'key B53D215A755231A3',
  ],
]

function judge(
  readiness: string[],
  freepbx: string[] | undefined = FREEPBX,
  more: Record<string, string[]> = REPOSITORY,
): Map<string, string> {
  const box: Inventory = parseInventory(
    Buffer.from(inventoryText({ sections: { ...more, ...(freepbx && { freepbx }), readiness } })),
    'x',
  )
  const rows = judgeReadiness(box, { origin: ORIGIN, nowMs: NOW })
  for (const row of rows) t.equal(row.remedy === undefined, row.state === 'ready', `${row.fact}: a remedy unless ready`)
  return new Map(rows.map((row) => [row.fact, row.state]))
}

t.test('a box that is prepared is ready in every fact', (t) => {
  const states = judge(READY)
  t.strictSame(
    [...states].filter(([, state]) => state !== 'ready'),
    [],
  )
  t.equal(states.size, 12)
  t.end()
})

t.test('each fact is not ready, or unknown, for its own reason', (t) => {
  const license = (...facts: string[]): string[] => [
    'license /a.zl',
    ...facts.map((fact) => `license-fact /a.zl ${fact}`),
  ]
  const cases: [
    fact: string,
    state: string,
    readiness: string[],
    freepbx?: string[],
    more?: Record<string, string[]>,
  ][] = [
    ['activation', 'not', [], ['framework 1']],
    ['activation', 'unknown', [], license('x_exp 2027-01-01')],
    ['activation', 'unknown', [], license('deploymentid 1')],
    ['activation', 'not', [], license('deploymentid 1', 'x_exp 2026-11-01', 'y_exp 2028-01-01')],
    ['activation', 'unknown', [], license('deploymentid 1', 'x_exp 99')],
    ['activation', 'not', [], ['profile deploymentid 2', ...license('deploymentid 1')]],
    ['activation', 'not', [], []],
    ['name servers', 'unknown', []],
    ['name servers', 'not', ['dns-servers 10.0.0.1']],
    ['name servers', 'not', ['dns-servers 127.0.0.1 8.8.8.8']],
    ['time', 'unknown', []],
    ['time', 'unknown', ['time-servers a.lan']],
    ['time', 'unknown', ['time-source 10.0.0.1']],
    ['time', 'not', ['time-source 10.0.0.1', 'time-offset -1.5']],
    ['time', 'not', ['time-source 8.8.8.8', 'time-offset 0']],
    ['mail', 'unknown', []],
    ['mail', 'not', ['mail-relay ']],
    ['mail', 'unknown', ['mail-relay smtp.example.com']],
    ['mail', 'ready', ['mail-relay fd00::1']],
    ['module repository', 'unknown', []],
    ['module repository', 'not', ['module-repo https://mirror.freepbx.org']],
    ['module repository', 'not', [`module-repo ${ORIGIN}`, 'module-repo-default https://mirror.freepbx.org']],
    ['package repositories', 'not', [], FREEPBX, {}],
    ['package repositories', 'not', [], FREEPBX, { 'file /etc/yum.repos.d/a.repo': ['[a]', 'mirrorlist=http://m/'] }],
    [
      'package repositories',
      'not',
      [],
      FREEPBX,
      { 'file /etc/yum.repos.d/a.repo': ['[a]', `baseurl=${ORIGIN}.evil/a`] },
    ],
    ['module signing key', 'unknown', [], ['framework 1']],
    ['module signing key', 'not', [], ['key 9F9169F4B33B4659']],
    ['news feeds', 'not', ['news-feeds http://x']],
    ['statistics', 'unknown', []],
    ['statistics', 'not', ['statistics 1']],
    ['dynamic DNS', 'not', ['dynamic-dns /etc/ddclient.conf']],
    ['support VPN', 'not', ['vpn /etc/openvpn/a.conf']],
    ['automatic updates', 'unknown', ['automatic 5 4 * * 6 fwconsole ma installall | yum-cron=no']],
    ['feature sipstation', 'not', [], ['module sipstation 1 enabled GPL', 'module sms 1 disabled GPL']],
  ]
  for (const [fact, state, readiness, freepbx, more] of cases) {
    t.equal(judge(readiness, freepbx, more).get(fact), state, `${fact}: ${readiness.join(', ')}`)
  }
  t.equal(judge([], FREEPBX).has('feature sms'), false)
  t.end()
})

t.test('without FreePBX the rest is judged', (t) => {
  const box = parseInventory(Buffer.from(inventoryText({ sections: { ...REPOSITORY, readiness: READY } })), 'x')
  const rows = judgeReadiness(box, { origin: ORIGIN, nowMs: NOW })
  t.match(
    rows.find((row) => row.fact === 'activation'),
    { state: 'unknown' },
  )
  t.notOk(rows.some((row) => row.fact === 'module repository'))
  t.end()
})
