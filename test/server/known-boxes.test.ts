/** What an operator sees of boxes that told their inventories: how far behind, how ready, what installs by itself. */
import { appendFileSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { runMirror } from '../../server/program.ts'
import { ContactStore } from '../../storage/contacts.ts'
import { inside } from '../helpers/inside.ts'
import { inventoryText } from '../helpers/inventory-text.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { NOW } from '../helpers/site.ts'

const DEPLOYMENT = '987654321012'
const INSTALLID = '6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11'
const LIST = `<xml><module><rawname>core</rawname><version>16.0.70</version><location>packages/core/core-16.0.70.tgz.gpg</location><md5sum>00000000000000000000000000000000</md5sum></module><module><rawname>ucp</rawname><version>16.0.2</version><location>packages/ucp/ucp-16.0.2.tgz.gpg</location><md5sum>00000000000000000000000000000000</md5sum></module></xml>`
const TREES = [
  {
    stamp: 10,
    packages: ['bash-4.2-36.el7.x86_64', 'glibc-2.17-326.el7.x86_64', 'new-1-1.noarch'],
    files: { 'all-16.0.xml': LIST, 'keys/site.asc': 'the key' },
  },
]
const READINESS = [
  ...[
    'readiness 2',
    'dns-servers 127.0.0.1',
    'dns-answers 127.0.0.1=yes',
    'setting-names mirror.hq.lan pbx.example.com',
  ],
  ...['name-answers mirror.hq.lan=yes pbx.example.com=no', 'time-source 10.0.0.2', 'time-offset 0.01', 'timezone UTC'],
  ...['automatic 5 4 * * 6 /usr/sbin/fwconsole ma installall --sendemail | yum-cron=no', 'trunks sip.provider.com'],
]
const FREEPBX = [
  ...[
    'framework 16.0.40',
    `profile deploymentid ${DEPLOYMENT}`,
    `profile installid ${INSTALLID}`,
    'license /etc/schmooze/a.zl',
  ],
  ...[
    `license-fact /etc/schmooze/a.zl deploymentid ${DEPLOYMENT}`,
    'license-fact /etc/schmooze/a.zl sysadmin_exp 2027-01-31',
  ],
  ...['module core 16.0.68 enabled GPLv3+', 'module ucp 16.0.2 enabled GPLv3+', 'module sms 1.0 enabled Commercial'],
]

function inventory({ box = 'pbx1', machine = 'm1', created = '2026-11-22T11:00:00Z' } = {}): string {
  return inventoryText({ box, machine, created, sections: { readiness: READINESS, freepbx: FREEPBX } })
}

async function mirror(t: Test): Promise<MirrorProgram> {
  const program = await mirrorProgram(t)
  await program.run(0, 'import', '--release', program.stick(1, TREES))
  writeFileSync(join(program.dir, 'a.gfi'), inventory())
  return program
}

t.test('an inventory from a stick shows how far behind and how ready a box is', async (t) => {
  const program = await mirror(t)
  t.match(
    (await program.run(0, 'boxes', 'add', 'a.gfi')).stdout,
    /^pbx1: the inventory of 2026-11-22T11:00:00Z is kept$/m,
  )
  const { stdout } = await program.run(0, 'boxes', 'list')
  t.match(stdout, /^BOX +GROUP +SEEN +BEHIND +READY +UPDATES ITSELF +LICENSE$/m)
  t.match(stdout, /^pbx1 +pbx +0 min +2 +\d+\/16 +2026-11-28 04:05 UTC +2027-01-31$/m)
  t.ok(
    stdout.split('\n').every((line) => line.length <= 80),
    'fits a terminal',
  )
  const show = (await program.run(0, 'boxes', 'show', 'PBX1')).stdout
  for (const line of [
    /^system +CentOS Linux release 7.9.2009 \(Core\), x86_64, 2 packages, FreePBX 16.0.40, 3 modules$/m,
    /^inventory +of 2026-11-22 11:00 UTC, by hand$/m,
    /^ {2}not +updates +behind bundle 1 in 1 package \(bash.x86_64\); 1 module \(core\)$/m,
    /^ {2}not +names in settings +no address: pbx.example.com$/m,
    /^ {2}unknown +automatic updates +on: .*installall --sendemail, next 2026-11-28 04:05 UTC$/m,
    /^ {2}updates +on the box: yum update/m,
    /^ {2}not +text messages /m,
    /^ {2}not +trunks /m,
    /^ {2}works +user control panel /m,
  ])
    t.match(show, line)
  t.match(show, /activation +deployment …1012; the first to expire is sysadmin_exp, 2027-01-31/)
  const told = await program.json('boxes', 'list')
  t.match(told, {
    boxes: [
      {
        box: 'pbx1',
        group: 'pbx',
        inventory: { way: 'hand', createdAt: '2026-11-22T11:00:00Z' },
        behind: { bundle: 1, packages: ['bash.x86_64'], modules: ['core'] },
        automatic: [{ nextAt: '2026-11-28T04:05:00Z' }],
        license: { state: 'good', expires: '2027-01-31' },
        enrolled: null,
      },
    ],
  })
  const details = JSON.stringify(await program.json('boxes', 'show', 'pbx1'))
  t.match(JSON.parse(details), { boxes: [{ facts: [{ fact: 'activation', state: 'ready' }], features: [{}, {}, {}] }] })
  for (const text of [stdout, show, JSON.stringify(told), details]) t.notMatch(text, DEPLOYMENT)
})

t.test('after its update it is 0 behind; a plan for it knows epochs and what its settings hold back', async (t) => {
  const program = await mirrorProgram(t)
  const behind = async (): Promise<unknown> =>
    ((await program.json('boxes', 'list'))['boxes'] as { behind: unknown }[])[0]!.behind
  const plan = (...candidates: string[]): string =>
    [
      'gapferry-parity 1',
      'box pbx1',
      ...candidates.map((one) => `candidate ${one}`),
      `end ${candidates.length + 2}`,
      '',
    ].join('\n')
  const release = async (number: number, packages: string[], files: Record<string, string> = {}) => {
    await program.run(0, 'import', '--release', program.stick(number, [{ stamp: number * 10, packages, files }]))
  }
  writeFileSync(join(program.dir, 'a.gfi'), inventory())
  await program.run(0, 'boxes', 'add', 'a.gfi')
  t.equal(await behind(), null, 'nothing is released')
  await release(1, ['bash-4.2-35.el7.x86_64', 'glibc-2.17-300.el7.x86_64'])
  t.match(await behind(), { packages: [], modules: null })
  t.match((await program.run(0, 'boxes', 'list')).stdout, /^pbx1 +pbx +0 min +0 /m)
  await release(2, ['bash-4.2-36.el7.x86_64', 'glibc-2.17-400.el7.x86_64'], {
    'gapferry/parity/pbx1.txt': plan('bash-1:4.1-1.el7.x86_64', 'other-1-1.noarch'),
  })
  t.match(await behind(), { bundle: 2, packages: ['bash.x86_64'] })
  await release(3, ['bash-4.2-36.el7.x86_64'], { 'gapferry/parity/pbx1.txt': plan() })
  t.match(await behind(), { bundle: 3, packages: [] }, 'its plan says that nothing is to be done')
})

t.test('what a box said when it asked stands with its inventory', async (t) => {
  const program = await mirror(t)
  await program.run(0, 'boxes', 'add', 'a.gfi')
  const store = new ContactStore(program.storeDir, { onDamage: () => undefined })
  const said = { deployment: null, framework: '16.0.30', phpver: null, brand: null, modules: new Map([['core', '1']]) }
  const at = { address: '192.0.2.1', atMs: NOW - 60_000, oddities: ['slash' as const] }
  store.write([{ group: 'pbx', installid: INSTALLID, ...said, ...at }])
  store.write([{ group: 'pbx', installid: 'f'.repeat(32), ...said, ...at, address: '192.0.2.2', oddities: [] }])
  store.close()
  const { stdout } = await program.run(0, 'boxes', 'list')
  t.match(stdout, /^pbx1 +pbx +0 min/m)
  t.match(stdout, /^ffffffff +pbx +1 min +- /m)
  t.match(stdout, /^warning: pbx1: its MODULE_REPO ends with a slash$/m)
  t.match(stdout, /^1 box sent no inventory yet$/m)
  for (const name of ['pbx1', INSTALLID, '6f0e', '192.0.2.1'])
    t.match((await program.run(0, 'boxes', 'show', name)).stdout, /^box +pbx1$/m, name)
})

t.test('on a terminal long lines are wrapped', async (t) => {
  const program = await mirror(t)
  await program.run(0, 'boxes', 'add', 'a.gfi')
  for (const columns of [80, 120]) {
    const stdout = Object.assign(new PassThrough(), { columns })
    const chunks: Buffer[] = []
    stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    await program.runWith({ stdout }, 0, 'boxes', 'show', 'pbx1')
    const lines = Buffer.concat(chunks).toString().split('\n')
    t.ok(lines.length > 30)
    t.strictSame(
      lines.filter((line) => line.length > columns),
      [],
      `${columns} columns`,
    )
  }
})

t.test('boxes add refuses what is no inventory, and keeps none then', async (t) => {
  const program = await mirror(t)
  writeFileSync(join(program.dir, 'cut.gfi'), inventory().slice(0, -10))
  await program.run('INVENTORY_INVALID', 'boxes', 'add', 'a.gfi', 'cut.gfi')
  writeFileSync(join(program.dir, 'large.gfi'), Buffer.alloc(5 * 1024 * 1024))
  await program.run('INVENTORY_INVALID', 'boxes', 'add', 'large.gfi')
  await program.run('USAGE_INVALID', 'boxes', 'add', 'nothing.gfi')
  await program.run('USAGE_INVALID', 'boxes', 'add', '.')
  await program.run('USAGE_INVALID', 'boxes', 'add', 'a.gfi', 'a.gfi', '--name', 'x')
  await program.run('USAGE_INVALID', 'boxes', 'add', 'a.gfi', '--name', '../x')
  t.same((await program.json('boxes', 'list'))['boxes'], [])
  await program.run(0, 'boxes', 'add', 'a.gfi', '--name', 'Front')
  t.match(await program.json('boxes', 'list'), { boxes: [{ box: 'front' }] })
  await program.run('BOX_UNKNOWN', 'boxes', 'forget', 'pbx1')
  await program.run(0, 'boxes', 'forget', 'FRONT')
  t.same((await program.json('boxes', 'list'))['boxes'], [])
})

t.test('nothing in the store holds a deployment ID in the clear', async (t) => {
  const program = await mirror(t)
  await program.run(0, 'boxes', 'add', 'a.gfi')
  mkdirSync(join(program.dir, 'stick'))
  const files = readdirSync(program.storeDir, { recursive: true, encoding: 'utf8' }).map((name) =>
    join(program.storeDir, name),
  )
  const plain = files.filter((file) => statSync(file).isFile())
  t.ok(plain.some((file) => file.endsWith('pbx1.gfi.sealed')))
  for (const file of plain) t.notOk(readFileSync(file).includes(DEPLOYMENT), file)
})

t.test('serve takes inventories, unless mirror.yaml says no; a store without an identity gets one then', async (t) => {
  const program = await mirrorProgram(t)
  for (const name of ['identity.key', 'mirror-identity.json']) rmSync(join(program.storeDir, name))
  const post = async (): Promise<{ status: number; stderr: string }> => {
    const ended = new AbortController()
    const stdout = new PassThrough()
    const around = { nowMs: () => NOW, stdout, signal: ended.signal }
    const serving = inside(runMirror, program.dir, ['serve', '--json', '--config', 'mir/mirror.yaml'], around)
    const [first] = (await stdout.iterator().next()).value!.toString().split('\n') as string[]
    const { origins } = JSON.parse(first!) as { origins: { url: string }[] }
    const { status } = await fetch(`${origins[0]!.url}/gapferry/inventories`, { method: 'POST', body: inventory() })
    ended.abort(new Error('ended'))
    return { status, stderr: (await serving).stderr }
  }
  const { status, stderr } = await post()
  t.equal(status, 204)
  t.match(stderr, /"box":"pbx1".*"msg":"an inventory came"/)
  t.notMatch(stderr, DEPLOYMENT)
  t.match(await program.json('boxes', 'list'), { boxes: [{ box: 'pbx1', inventory: { way: 'network' } }] })
  appendFileSync(join(program.dir, 'mir/mirror.yaml'), 'inventories: false\n')
  t.equal((await post()).status, 503, 'nothing is released: as for any other path')
})
