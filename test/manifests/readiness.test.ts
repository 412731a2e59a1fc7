import t from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import { countReadiness, judgeReadiness, type Surrounding } from '../../manifests/readiness.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

const ORIGIN = 'http://mirror.hq.lan:8416'
const NOW = Date.parse('2026-11-22T09:00:00Z')
const REPOSITORY = { 'file /etc/yum.repos.d/a.repo': ['[a]', `baseurl=${ORIGIN}/yum/a/`, '[b]', 'enabled=0'] }
const KEY = sha256Of('the site’s key')
const READY = [
  ...[
    'readiness 2',
    'dns-answers 127.0.0.1=yes 10.0.0.1=yes',
    'setting-names mirror.hq.lan',
    'name-answers mirror.hq.lan=yes',
  ],
  `package-keys /etc/pki/rpm-gpg/RPM-GPG-KEY-gapferry=${KEY}`,
  ...['dns-servers 127.0.0.1 10.0.0.1', 'time-source 10.0.0.2', 'time-offset -0.01', 'mail-relay [10.0.0.3]:25'],
  ...[`module-repo ${ORIGIN}`, `module-repo-default ${ORIGIN}`, 'news-feeds ', 'statistics 0'],
  ...['automatic yum-cron=no | automoduleupdates=emailonly'],
]
const AROUND = { origin: ORIGIN, nowMs: NOW, siteKey: KEY, pending: { packages: [], modules: [], number: 7 } }
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
  const rows = judgeReadiness(box, AROUND)
  for (const row of rows) t.equal(row.remedy === undefined, row.state === 'ready', `${row.fact}: a remedy unless ready`)
  return new Map(rows.map((row) => [row.fact, row.state]))
}

t.test('a box that is prepared is ready in every fact', (t) => {
  const states = judge(READY)
  t.strictSame(
    [...states].filter(([, state]) => state !== 'ready'),
    [],
  )
  t.equal(states.size, 16)
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
    [
      'activation',
      'not',
      [],
      ['profile brandid pbxact', ...license('deploymentid 1', 'Product-Name FreePBX', 'x_exp 2027-01-01')],
    ],
    [
      'activation',
      'ready',
      [],
      ['profile brandid pbxact', ...license('deploymentid 1', 'Product-Name PBXact', 'x_exp 2027-01-01')],
    ],
    ['name servers', 'unknown', ['dns-servers 127.0.0.1']],
    ['name servers', 'not', ['dns-servers 127.0.0.1 10.0.0.1', 'dns-answers 127.0.0.1=yes 10.0.0.1=no']],
    ['names in settings', 'unknown', []],
    ['names in settings', 'ready', ['readiness 2']],
    ['names in settings', 'unknown', ['readiness 2', 'setting-names a.lan']],
    ['names in settings', 'not', ['readiness 2', 'setting-names a.lan b', 'name-answers a.lan=yes b=no']],
    ['time', 'ready', ['time-answers 10.0.0.1=0.020']],
    ['time', 'ready', ['time-answers 8.8.8.8=0.001 ntp.lan=-0.020']],
    ['time', 'not', ['time-answers 10.0.0.1=no ntp.example.com=0.5']],
    ['time', 'not', ['time-answers 10.0.0.1=-1.5']],
    ['mail', 'ready', ['mail-relay ', 'mail-service off']],
    ['proxies', 'unknown', []],
    ['proxies', 'not', ['readiness 2', 'proxy fwconsole=http://10.0.0.1:3128']],
    ['proxies', 'not', ['readiness 2'], FREEPBX, { 'file /etc/yum.conf': ['[main]', 'proxy=http://p/'] }],
    ['package key', 'unknown', []],
    ['package key', 'not', ['readiness 2']],
    ['package key', 'not', ['readiness 2', `package-keys /a=${sha256Of('another')}`]],
    [
      'module repository',
      'ready',
      ['setup-mode stick', 'module-repo http://127.0.0.1:8482', 'module-repo-default http://127.0.0.1:8482'],
    ],
    [
      'module repository',
      'ready',
      ['setup-mode names', 'module-repo http://mirror.freepbx.org', 'module-repo-default http://mirror.freepbx.org'],
    ],
    ['module repository', 'not', ['setup-mode names', 'module-repo https://mirror.freepbx.org']],
    [
      'package repositories',
      'ready',
      ['setup-mode names'],
      FREEPBX,
      { 'file /etc/yum.repos.d/a.repo': ['[a]', 'mirrorlist=http://mirrorlist.sangoma.net/?release=7'] },
    ],
    [
      'package repositories',
      'not',
      ['setup-mode names'],
      FREEPBX,
      { 'file /etc/yum.repos.d/a.repo': ['[a]', 'mirrorlist=http://elsewhere/?release=7'] },
    ],
    [
      'package repositories',
      'ready',
      ['setup-mode stick'],
      FREEPBX,
      { 'file /etc/yum.repos.d/a.repo': ['[a]', 'baseurl=file:///var/lib/gapferry/origin/yum/a/'] },
    ],
    [
      'automatic updates',
      'ready',
      ['automatic 5 4 * * 6 fwconsole ma listonline --sendemail | autosystemupdates=emailonly'],
    ],
  ]
  for (const [fact, state, readiness, freepbx, more] of cases) {
    t.equal(judge(readiness, freepbx, more).get(fact), state, `${fact}: ${readiness.join(', ')}`)
  }
  t.end()
})

t.test('updates are ready where nothing that is served is newer', (t) => {
  const box = parseInventory(Buffer.from(inventoryText({})), 'x')
  const told = (pending: Surrounding['pending']) =>
    judgeReadiness(box, { ...AROUND, pending }).find(({ fact }) => fact === 'updates')
  t.match(told(undefined), { state: 'unknown' })
  t.match(told({ packages: undefined, modules: undefined, number: 7 }), { state: 'unknown' })
  t.match(told({ packages: undefined, modules: [], number: 7 }), {
    state: 'ready',
    why: 'nothing in bundle 7 is newer',
  })
  const behind = { packages: ['bash.x86_64'], modules: ['core', 'ucp'], number: 7 }
  t.match(told(behind), { state: 'not', why: 'behind bundle 7 in 1 package (bash.x86_64); 2 modules (core, ucp)' })
  t.strictSame(countReadiness([told(behind)!, told(undefined)!]), { ready: 0, not: 1, unknown: 1 })
  t.end()
})

t.test('where the mirror’s origin is not known, that is said', (t) => {
  const box = parseInventory(
    Buffer.from(inventoryText({ sections: { ...REPOSITORY, readiness: READY, freepbx: FREEPBX } })),
    'x',
  )
  const rows = judgeReadiness(box, { origin: undefined, nowMs: NOW })
  for (const fact of ['module repository', 'package repositories', 'package key', 'updates'])
    t.match(
      rows.find((row) => row.fact === fact),
      { state: 'unknown' },
      fact,
    )
  t.end()
})

t.test('without FreePBX the rest is judged', (t) => {
  const box = parseInventory(Buffer.from(inventoryText({ sections: { ...REPOSITORY, readiness: READY } })), 'x')
  const rows = judgeReadiness(box, AROUND)
  t.match(
    rows.find((row) => row.fact === 'activation'),
    { state: 'unknown' },
  )
  t.notOk(rows.some((row) => row.fact === 'module repository'))
  t.end()
})
