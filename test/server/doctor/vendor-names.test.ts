import { join } from 'node:path'
import t from 'tap'
import { parseInventory } from '../../../manifests/inventory.ts'
import { inventoryText } from '../../helpers/inventory-text.ts'
import { vendorRepoFiles } from '../../helpers/folder-box/el7.ts'
import { answering, hasFinding, makeWard, pass } from '../../helpers/ward.ts'

const CHECK = 'vendor names'
const here = { lookup: async () => ['192.0.2.9'], addresses: () => ['192.0.2.9', '127.0.0.1'] }

t.test('names that lead elsewhere, or that this machine does not know', async (t) => {
  const ward = await makeWard(t, { vendorNames: true })
  const elsewhere = await ward.examine(
    {},
    { vendorPort: ward.port, network: { ...here, lookup: async () => ['203.0.113.7'] } },
  )
  hasFinding(t, elsewhere, CHECK, /^it is 203\.0\.113\.7, which is no address of this machine/)
  t.equal(elsewhere.findings.filter(({ text }) => text.startsWith('it is 203')).length, 4, 'one for each name')
  const lookup = (name: string) => (name === 'sng7.com' ? Promise.reject(new Error('ENOTFOUND')) : here.lookup())
  const unknown = await ward.examine({}, { vendorPort: ward.port, network: { ...here, lookup } })
  t.match(
    unknown.checks.filter(({ check, state }) => check === CHECK && state === 'skipped').map(({ text }) => text),
    [/^do not resolve here: sng7\.com; on the boxes they have to lead to 192\.0\.2\.9$/],
  )
})

t.test('nothing at port 80, or another program', async (t) => {
  const ward = await makeWard(t, { vendorNames: true, front: pass })
  const silent = await ward.examine({}, { vendorPort: 1, network: here })
  const [, row] = silent.checks.filter(({ check }) => check === CHECK)
  t.match(row, {
    state: 'skipped',
    text: /at port 1, where nothing listens on this machine; .* curl "http:\/\/mirrorlist/,
  })
  t.match(silent.findings, [{ text: /has an id of the vendor’s files/ }], 'and the rest at its own port')
  for (const [front, text, remedy] of [
    [answering('/', (res) => res.end('<html>a router</html>')), /is no mirrorlist of this mirror/, /end the program/],
    [
      answering('/', (res) => res.end('http://package1.sangoma.net/x/\n')),
      /is no mirrorlist of this mirror/,
      /end the/,
    ],
    [answering('/', (res) => res.writeHead(421).end()), /answered 421/, /listen at port 80/],
    [answering(INDEX, (res) => res.writeHead(503).end()), /answered 503/, /verify/],
    [answering(INDEX, (res) => res.socket!.destroy()), /cut/, /verify/],
  ] as const) {
    const sheet = await ward.behind(front, { vendorPort: ward.port, network: here })
    hasFinding(t, sheet, CHECK, text)
    t.match(sheet.findings.find(({ check }) => check === CHECK)!.remedy, remedy)
  }
})

/** Of what this mirror does not carry. */
const INDEX = '/gapferry/not-carried/os/repodata/repomd.xml'

t.test('ids that are not the vendor’s; damage', async (t) => {
  const ward = await makeWard(t, { vendorNames: true })
  const sheet = await ward.examine({}, { vendorPort: ward.port, network: here })
  hasFinding(t, sheet, CHECK, /^none of its repositories \(base\) has an id of the vendor’s files/)
  t.match(sheet.findings[0]!.remedy, /sng-base, sng-updates, sng-extras, sng-pkgs, sng-epel/)
  const plain = await makeWard(t)
  const none = await plain.examine({}, { vendorPort: plain.port, network: here })
  t.notOk(
    none.checks.some(({ check }) => check === CHECK),
    'an origin without them',
  )
})

t.test('MODULE_REPO: https cannot be answered, http can', async (t) => {
  const ward = await makeWard(t, { vendorNames: true })
  const examine = (value?: string, isDefault = false) =>
    ward.examine(
      { moduleRepos: value === undefined ? [] : [{ where: 'pbx1', value, isDefault }] },
      { vendorPort: ward.port, network: here },
    )
  const unknown = await examine()
  const https = await examine('https://mirror.freepbx.org')
  const standard = await examine('https://mirror.freepbx.org', true)
  const http = await examine('http://mirror.freepbx.org')
  const row = unknown.checks.find(({ check }) => check === 'MODULE_REPO')
  t.match(row, { state: 'skipped', text: /fwconsole setting MODULE_REPO http:\/\/mirror\.freepbx\.org/ })
  hasFinding(t, https, 'MODULE_REPO', /no mirror can answer https there/)
  t.match(https.findings[0], { effect: /"Up to date"/, remedy: /MODULE_REPO http:\/\/mirror\.freepbx\.org$/ })
  t.match(standard.findings[0], { remedy: /defaultval='http:\/\/mirror\.freepbx\.org'/ })
  t.match(
    http.checks.find(({ check }) => check === 'MODULE_REPO'),
    { state: 'passed', text: 'http://mirror.freepbx.org, as pbx1 has it' },
  )
  t.match(
    (await makeAndExamine(t)).findings,
    [{ text: /boxes of this group are told/ }],
    'only where the origin has the names',
  )
})

async function makeAndExamine(t: Parameters<typeof makeWard>[0]) {
  const ward = await makeWard(t)
  return ward.examine({ moduleRepos: [{ where: 'pbx1', value: 'http://mirror.freepbx.org' }] })
}

t.test('a box with the vendor’s own files is right, but for what comes from elsewhere', async (t) => {
  const ward = await makeWard(t, { vendorNames: true })
  const lines = (text: string) => text.trimEnd().split('\n')
  const files = vendorRepoFiles()
  const box = (more: Record<string, string[]>) =>
    parseInventory(
      Buffer.from(
        inventoryText({
          sections: { 'file /etc/yum.repos.d/Sangoma-Base.repo': lines(files['Sangoma-Base.repo']!), ...more },
        }),
      ),
      'pbx1.gfi',
    )
  const examine = (one: ReturnType<typeof box>) => ward.examine({ box: one }, { vendorPort: ward.port, network: here })
  const own = await examine(box({}))
  t.notOk(own.findings.some(({ check }) => check === 'package repositories'))
  t.ok(
    own.checks.some(
      ({ state, text }) => state === 'skipped' && /^pbx1 has sng-base, .*sng-epel, which this/.test(text),
    ),
  )
  const other = await examine(box({ 'file /etc/yum.repos.d/x.repo': ['[x]', 'baseurl=http://vault.centos.org/7/'] }))
  hasFinding(t, other, CHECK, /^x comes from http:\/\/vault\.centos\.org\/7\/, which is none of these names/)
})

t.test('status and serve say it, and warn of another port', async (t) => {
  const ward = await makeWard(t, { vendorNames: true, isListening: false })
  t.match(await ward.run('status'), { status: 0, stdout: /http:\/\/127\.0\.0\.1:\d+, and the vendor’s names / })
  t.match(JSON.parse((await ward.run('status', '--json')).stdout), { origins: [{ vendorNames: true }] })
  const stick = join(ward.dir, 'stick')
  t.match(
    (await ward.run('import', '--dry-run', stick)).stderr,
    /boxes ask at port 80, but listens at port \d+: in .*mirror\.yaml/,
  )
})
