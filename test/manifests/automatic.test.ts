/** What a box installs by itself, and when it does next. */
import t from 'tap'
import { automaticJobs } from '../../manifests/automatic.ts'
import { judgeFeatures } from '../../manifests/features.ts'
import { isInside } from '../../manifests/inside.ts'
import { parseInventory, type Inventory } from '../../manifests/inventory.ts'
import { inventoryText } from '../helpers/inventory-text.ts'

const NOW = Date.parse('2026-11-22T09:00:00Z') // a Sunday

function box(readiness: string[], freepbx?: string[]): Inventory {
  const sections = { readiness, ...(freepbx && { freepbx }) }
  return parseInventory(Buffer.from(inventoryText({ sections })), 'x')
}

const told = (...readiness: string[]): string[] | undefined =>
  automaticJobs(box(readiness), NOW)?.map(
    ({ what, nextMs, isLoose }) =>
      `${nextMs === undefined ? '?' : new Date(nextMs).toISOString().slice(0, 16)}${isLoose ? '+' : ''} ${what}`,
  )

t.test('whatever installs is named with its next time', (t) => {
  const cases: [automatic: string, jobs: string[]][] = [
    [
      '5 4 * * 6 /usr/sbin/fwconsole ma installall --sendemail -q > /dev/null 2>&1',
      ['2026-11-28T04:05 /usr/sbin/fwconsole ma installall --sendemail -q'],
    ],
    ['5 4 * * 6 fwconsole ma listonline --sendemail | 1 1 * * * fwconsole sys listonline', []],
    ['@daily fwconsole ma upgradeall |logger', ['2026-11-23T00:00 fwconsole ma upgradeall |logger']],
    ['@reboot fwconsole ma upgradeall', ['? @reboot fwconsole ma upgradeall']],
    ['0 3 * * * yum -y update', ['2026-11-23T03:00 yum -y update']],
    ['0 3 * * * yum -q check-update | 0 3 * * * dnf makecache', []],
    ['0 3 * * * apt-get -y dist-upgrade | 0 2 * * * apt-get update', ['2026-11-23T03:00 apt-get -y dist-upgrade']],
    ['automoduleupdates=enabled', ['? modules (AUTOMODULEUPDATES)']],
    ['automoduleupdates=enabled | 5 4 * * 6 fwconsole ma installall', ['2026-11-28T04:05 fwconsole ma installall']],
    ['automoduleupdates=emailonly | autosystemupdates=disabled | yum-cron=no', []],
    [
      'autosystemupdates=enabled | 5 4 * * 6 fwconsole ma installall',
      ['2026-11-28T04:05 fwconsole ma installall', '? system packages (AUTOSYSTEMUPDATES)'],
    ],
    ['yum-cron=yes', ['2026-11-23T03:00+ yum-cron']],
    ['dnf-automatic=yes | timer dnf-automatic.timer *-*-* 6:00', ['2026-11-23T06:00+ dnf-automatic']],
    ['dnf-automatic=yes', []],
    ['dnf-automatic=no | timer dnf-automatic-install.timer Sat 06:00', ['2026-11-28T06:00+ dnf-automatic-install']],
    ['timer dnf-automatic-download.timer *-*-* 6:00', []],
    ['unattended-upgrades=1 | timer apt-daily-upgrade.timer *-*-* 6:00', ['2026-11-23T06:00+ apt-daily-upgrade']],
    ['timer apt-daily-upgrade.timer *-*-* 6:00', []],
    ['dnf-automatic=yes | timer dnf-automatic.timer whenever', ['?+ dnf-automatic']],
  ]
  for (const [automatic, jobs] of cases) t.strictSame(told('readiness 2', `automatic ${automatic}`), jobs, automatic)
  t.strictSame(told('readiness 2'), [])
  t.strictSame(told('automatic dnf-automatic=yes'), ['?+ dnf-automatic'], 'an older inventory does not tell of timers')
  t.equal(automaticJobs({ ...box([]), isGuess: true }, NOW), undefined)
  t.end()
})

t.test('in the box’s own time', (t) => {
  const job = 'automatic 30 3 * * * fwconsole ma installall'
  t.strictSame(told(job, 'timezone America/New_York', 'utc-offset +0100'), ['2026-11-23T08:30 fwconsole ma installall'])
  t.strictSame(told(job, 'utc-offset +0100'), ['2026-11-23T02:30 fwconsole ma installall'])
  t.end()
})

t.test('features: what works, works partly, or does not', (t) => {
  const modules = [
    'sms 1 enabled GPL',
    'calendar 1 enabled GPL',
    'ucp 1 needs-upgrade GPL',
    'sipstation 1 disabled GPL',
    'constructor 1 enabled GPL',
  ]
  const rows = judgeFeatures(
    box(
      ['trunks sip.provider.com | 10.0.0.1 | pbx2.hq.lan:5061', 'vpn /etc/openvpn/a.conf'],
      modules.map((one) => `module ${one}`),
    ),
  )
  t.strictSame(
    rows.map(({ feature, state }) => `${feature}: ${state}`),
    ['remote support: not', 'text messages: not', 'calendars: partly', 'trunks: partly', 'user control panel: works'],
  )
  t.match(rows.find(({ feature }) => feature === 'trunks')!.why, /: sip\.provider\.com$/)
  t.match(judgeFeatures(box(['trunks 10.0.0.1'])), [{ feature: 'trunks', state: 'works' }])
  t.match(judgeFeatures(box(['trunks sip.a.com'])), [{ feature: 'trunks', state: 'not' }])
  t.strictSame(judgeFeatures(box([])), [])
  t.end()
})

t.test('what is inside', (t) => {
  for (const host of ['10.1.2.3', '172.16.0.1', 'fd00::1', 'localhost', 'pbx', 'a.b.lan', 'x.home.arpa'])
    t.ok(isInside(host), host)
  for (const host of ['8.8.8.8', '172.32.0.1', '2001:db8::1', 'a.example.com', '11.0.0.1', 'lan.example'])
    t.notOk(isInside(host), host)
  t.end()
})
