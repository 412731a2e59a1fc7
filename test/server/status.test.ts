import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fingerprintWords } from '../../manifests/words.ts'
import type { SiteFacts } from '../../manifests/site.ts'
import { parseMirrorConfig } from '../../server/config.ts'
import { originWarnings } from '../../server/status.ts'
import { mirrorProgram } from '../helpers/mirror-program.ts'
import { sampleRoot } from '../helpers/part.ts'
import { DAY, NOW } from '../helpers/site.ts'

const facts = (origin: string): SiteFacts => ({
  site: 'hq',
  number: 1,
  createdAt: '2026-11-22T12:00:00Z',
  groups: new Map([['pbx', { origin, yum: ['base'], files: [] }]]),
})

function warnings(told: string, listen: string, hosts: string): string[] {
  const text = `apiVersion: gapferry/v1\nkind: Mirror\norigins: [{ group: pbx, listen: "${listen}", hosts: [${hosts}] }]`
  return originWarnings(parseMirrorConfig(text, '/etc/mirror.yaml'), facts(told))
}

t.test('warns when the boxes were told a name that would be refused', async (t) => {
  for (const [told, listen, hosts] of [
    ['http://mirror.hq.lan:8416', '0.0.0.0:8416', ''],
    ['http://mirror.hq.lan:8416', '0.0.0.0:8416', 'other.lan'],
    ['http://mirror.hq.lan:8416', '10.0.0.5:8416', '"10.0.0.5"'],
    ['http://localhost:8416', '0.0.0.0:8416', ''],
  ] as const) {
    const [warning, ...more] = warnings(told, listen, hosts)
    t.match(warning, told, told)
    t.match(warning, `add hosts: [${new URL(told).hostname}]`)
    t.equal(more.length, 0)
  }
})

t.test('says nothing where the boxes will be answered', async (t) => {
  for (const [told, listen, hosts] of [
    ['http://mirror.hq.lan:8416', '0.0.0.0:8416', 'Mirror.hq.lan'],
    ['http://mirror.hq.lan', '0.0.0.0:8416', '"mirror.hq.lan"'],
    ['http://10.0.0.5:8416', '0.0.0.0:8416', ''],
    ['http://mirror.hq.lan:8416', 'mirror.hq.lan:8416', ''],
    ['http://localhost:8416', '127.0.0.1:8416', ''],
  ] as const) {
    t.same(warnings(told, listen, hosts), [], told)
  }
})

t.test('shows what to add for a group without origin, with the port that boxes were told', async (t) => {
  const config = parseMirrorConfig('apiVersion: gapferry/v1\nkind: Mirror', '/etc/mirror.yaml')
  t.match(originWarnings(config, facts('http://mirror.hq.lan:8416')), [/\{ group: pbx, listen: 0\.0\.0\.0:8416 \}/])
  t.match(originWarnings(config, facts('https://mirror.hq.lan')), [/0\.0\.0\.0:443/])
})

t.test('shows the words of the pinned root, for whoever sets up a lost laptop', async (t) => {
  const { run } = await mirrorProgram(t)
  const words = fingerprintWords(sampleRoot)
  t.match((await run(0, 'status')).stdout, words)
  t.match(JSON.parse((await run(0, 'status', '--json')).stdout), { fingerprint: words })
})

t.test('an old bundle is an alarm, as old as mirror.yaml has it', async (t) => {
  let nowMs = NOW
  const mirror = await mirrorProgram(t, { nowMs: () => nowMs })
  await mirror.run(0, 'import', '--release', mirror.stick(1))
  nowMs = NOW + 99 * DAY
  t.notMatch((await mirror.run(0, 'status')).stdout, /BUNDLE_OLD/)
  nowMs = NOW + 100 * DAY
  t.match(
    (await mirror.run(0, 'status')).stdout,
    /^ALARM BUNDLE_OLD: the newest bundle, 1, is 100 days old \(warnAfterDays: 100\): bring the next one$/m,
  )
  const file = join(mirror.dir, 'mir/mirror.yaml')
  appendFileSync(file, 'warnAfterDays: 0\n')
  t.match(await mirror.json('status'), { alarms: [] })
})

t.test('keys that do not let the listener of the boxes open are an alarm', async (t) => {
  const mirror = await mirrorProgram(t)
  writeFileSync(join(mirror.storeDir, 'delivery.key'), 'no key')
  t.match(await mirror.json('status'), { alarms: [] }, 'where there is no such listener')
  appendFileSync(join(mirror.dir, 'mir/mirror.yaml'), 'boxes: { listen: 127.0.0.1:8490 }\n')
  t.match(
    (await mirror.run(0, 'status')).stdout,
    /^ALARM BOXES_CLOSED: no box can enrol or fetch its license: .*delivery/m,
  )
})
