/** Which boxes asked: noted from real requests, within bounds whatever clients send. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import SqliteDatabase from 'better-sqlite3'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { contactOf, Contacts, type SeenRequest } from '../../server/contacts.ts'
import { repoOddity } from '../../server/module-answers.ts'
import { BlobStore } from '../../storage/blobs.ts'
import { contactsFile, ContactStore, MAX_MODULES, readContacts } from '../../storage/contacts.ts'
import { startMirror, testConfig, TestReleases } from '../helpers/content.ts'
import { boxForm, CORE, headRequest, makeModuleTree, pestPost, requestsPost } from '../helpers/module-tree.ts'
import { exchange } from '../helpers/raw-http.ts'

const BOX = '6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11'
const DEPLOYMENT = '12345678'

function idOf(i: number): string {
  return `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`
}

const deploymentOf = (id: string) => sha256Of(`of ${id}`)

/** Contacts over a store in a folder of the test, and a log. */
function setUp(t: Test, options: { maxBytes?: number } = {}) {
  const dir = t.testdir()
  const lines: string[] = []
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  const onDamage = (error: unknown): void => log.warn({ err: error }, 'began anew')
  const now = { ms: 1_000_000 }
  const contacts = new Contacts({
    open: (isDamaged) => new ContactStore(dir, { onDamage, isDamaged, ...options }),
    clock: () => now.ms,
    log,
    deploymentOf,
  })
  t.teardown(() => contacts.close())
  const note = (change: Partial<SeenRequest> = {}): void =>
    contacts.note({
      ...{ group: 'pbx', target: '/all-16.0.xml', form: Buffer.from(boxForm()), address: '192.0.2.1', status: 200 },
      ...change,
    })
  return { dir, lines, contacts, now, note }
}

t.test('a box that upgrades is known afterwards, by what it asked', async (t) => {
  const { dir, contacts, lines } = setUp(t)
  const blobs = new BlobStore(join(dir, 'store'))
  const releases = new TestReleases()
  releases.release(await makeModuleTree(blobs), 0)
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  const mirror = await startMirror({
    releases,
    blobs,
    contacts,
    log,
    config: testConfig([{ group: 'pbx', hosts: ['mirror.lan'] }]),
  })
  t.teardown(() => mirror.close())
  const url = mirror.origins[0]!.url.replace('mirror.lan', '127.0.0.1')
  const host = `mirror.lan:${new URL(url).port}`
  const form = boxForm()
  await exchange(url, requestsPost(host, '/all-16.0.xml', form), { keepOpen: true })
  await exchange(url, headRequest(host, `//modules/${CORE}`), { keepOpen: true })
  await exchange(url, requestsPost(host, `//modules/${CORE}`, form), { keepOpen: true })
  await exchange(url, requestsPost(host, '/mversion.php', 'rawname=core&tag=1&deploymentid=999'), { keepOpen: true })
  await exchange(url, pestPost(host, '/sounds-16.0.xml', boxForm({ installid: idOf(1), modules: {} })))
  await exchange(url, pestPost('other.lan', '/sounds-16.0.xml', boxForm({ installid: idOf(2) })))
  await exchange(url, requestsPost(host, `/modules/${CORE}`, boxForm({ installid: idOf(3) })), { keepOpen: true })
  contacts.flush()
  const boxes = readContacts(dir)
  t.same(boxes.map(({ installid }) => installid).sort(), [BOX, idOf(1)].sort())
  const box = boxes.find(({ installid }) => installid === BOX)!
  t.match(box, { group: 'pbx', address: '127.0.0.1', framework: '16.0.30', phpver: '7.4.33', brand: 'pbxact' })
  t.equal(box.deployment, sha256Of(`of ${DEPLOYMENT}`), 'kept as the mirror says')
  t.same(Object.fromEntries(box.modules), { core: '16.0.60', framework: '16.0.30' })
  t.same([...box.oddities.keys()], ['slash'])
  contacts.close()
  t.notOk(readFileSync(contactsFile(dir)).includes(DEPLOYMENT), 'the deployment ID is nowhere in the file')
  t.notMatch(lines.join(''), /12345678|999/, 'nor in the log')
})

t.test('what is wrong with MODULE_REPO', (t) => {
  const table: [string, ReturnType<typeof repoOddity>][] = [
    [`//modules/${CORE}`, 'slash'],
    [`///modules/${CORE}?`, 'slash'],
    [`/pbx15/modules/${CORE}`, 'prefix'],
    ['/a/b//modules/x', 'prefix'],
    ['/pbx15/all-16.0.xml', 'prefix'],
    ['/pbx15/mversion.php?x', 'prefix'],
    ['/pbx15/sounds-16.0.xml', 'prefix'],
    [`/modules/${CORE}`, undefined],
    ['/modules/packages/modules/x', undefined],
    ['//all-16.0.xml', undefined],
    ['/all-16.0.xml', undefined],
    ['/gapferry/modules/core-1.json', undefined],
    ['/yum/base/modules/x', undefined],
    ['/x?/modules/', undefined],
    ['', undefined],
  ]
  for (const [target, wanted] of table) t.equal(repoOddity(target), wanted, target)
  const { dir, contacts, note } = setUp(t)
  note({ target: `/pbx15/modules/${CORE}`, status: 404 })
  note({ target: '/all-17.0.xml', status: 404 })
  contacts.flush()
  t.same([...readContacts(dir)[0]!.oddities.keys()], ['prefix', 'list'])
  t.end()
})

t.test('only plain short texts are taken over', (t) => {
  const seen = (form: string | Buffer): SeenRequest => ({
    ...{ group: 'pbx', target: '/all-16.0.xml', form: Buffer.from(form), address: '::ffff:192.0.2.1', status: 200 },
  })
  const none = [
    '',
    'installid=',
    'installid=x',
    'installid[]=1',
    `installid=${'a'.repeat(65)}`,
    'installid=6f0e2a8c-0b51%00',
    '\0\xff=&%',
  ]
  for (const form of [...none, `installid=${BOX}%0a`, `installid=<b>${BOX}`])
    t.equal(contactOf(seen(form), 1, deploymentOf), undefined, form.slice(0, 40))
  const odd = (pairs: string) => contactOf(seen(`installid=${BOX.toUpperCase()}&${pairs}`), 1, deploymentOf)!
  const nothing = {
    installid: BOX,
    address: '192.0.2.1',
    deployment: null,
    framework: null,
    phpver: null,
    brand: null,
    modules: null,
  }
  t.match(odd(''), nothing)
  t.match(odd('pbxver=%1b[31m&phpver=7%0a4&brandid=<x>&deploymentid=0&modules=1'), nothing)
  t.match(odd(`pbxver=${'1'.repeat(33)}&phpver[]=7&brandid=${'x'.repeat(65)}&deploymentid=${'1'.repeat(300)}`), nothing)
  t.match(odd('brandid=pbxact%0a&deploymentid=+12345678+'), {
    brand: 'pbxact',
    deployment: sha256Of('of 12345678'),
  })
  const modules = (pairs: string): object => Object.fromEntries(odd(pairs).modules!)
  t.same(modules('modules[core][version]=1&modules[core][status]=2&modules[gone][version]=1&modules[gone][status]=0'), {
    core: '1',
  })
  t.same(
    modules('modules[a]=1&modules[b][version][]=1&modules[c][x]=1&modules[a%20b][version]=1&modules[%00][version]=1'),
    {},
  )
  t.same(modules(`modules[${'x'.repeat(65)}][version]=1&modules[a][version]=%1b&modules[ok][version]=16.0.1~rc1`), {
    ok: '16.0.1~rc1',
  })
  const many = (name: string): string =>
    Array.from({ length: 1500 }, (_, i) => `modules[${name}${i}][version]=1`).join('&')
  t.equal(odd(many('m')).modules!.size, MAX_MODULES)
  const long = Array.from({ length: 400 }, (_, i) => `modules[${'x'.repeat(60)}${i}][version]=${'1'.repeat(32)}`).join(
    '&',
  )
  const kept = odd(long).modules!.size
  t.ok(kept > 300 && kept < 360, `${kept} modules with long names`)
  t.same([...odd('modules[__proto__][version]=1').modules!], [['__proto__', '1']])
  t.end()
})

t.test('a client that invents a million boxes takes no place from those that are known', (t) => {
  const { dir, contacts, note, now } = setUp(t)
  for (let i = 0; i < 40; i++) note({ form: Buffer.from(boxForm({ installid: idOf(i) })), address: `192.0.2.${i}` })
  contacts.flush()
  t.equal(readContacts(dir).length, 40)
  const flood = (round: number): void => {
    for (let i = 0; i < 2000; i++) {
      const installid = idOf(1e6 + round * 2000 + i)
      note({ form: Buffer.from(`installid=${installid}&modules[core][version]=1`), address: `198.51.100.${i % 3}` })
    }
  }
  for (let round = 0; round < 10; round++) {
    now.ms += 5000
    flood(round)
    if (round % 5 === 0)
      for (let i = 0; i < 40; i++) note({ form: Buffer.from(`installid=${idOf(i)}`), address: `192.0.2.${i}` })
    contacts.flush()
  }
  const boxes = readContacts(dir)
  t.equal(boxes.filter(({ address }) => address.startsWith('192.0.2.')).length, 40, 'all that were known')
  t.ok(boxes.length <= 40 + 3 * 64, `${boxes.length} boxes`)
  contacts.close()
  t.ok(readFileSync(contactsFile(dir)).length < 1_000_000)
  t.end()
})

t.test('large bodies are read up to a budget', (t) => {
  const { dir, contacts, note } = setUp(t)
  const filler = `&x=${'x'.repeat(1024 * 1024 - 100)}`
  const cpu = process.cpuUsage()
  for (let i = 0; i < 100; i++) note({ form: Buffer.from(`installid=${idOf(i)}${filler}`), address: `192.0.2.${i}` })
  const { user, system } = process.cpuUsage(cpu)
  t.ok(user + system < 3_000_000, `${(user + system) / 1000} ms for 100 bodies of 1 MiB`)
  contacts.flush()
  t.ok(readContacts(dir).length <= 9)
  note({ form: Buffer.from(boxForm()) })
  contacts.flush()
  t.ok(
    readContacts(dir).some(({ installid }) => installid === BOX),
    'the next batch has a budget of its own',
  )
  t.end()
})

t.test('no room: said once, and noted when there is room again', (t) => {
  const options: { maxBytes?: number } = { maxBytes: 32_768 }
  const { dir, contacts, note, lines } = setUp(t, options)
  const modules = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`module-number-${i}`, `16.0.${i}`]))
  for (let i = 0; i < 10; i++) note({ form: Buffer.from(boxForm({ installid: idOf(i), modules })) })
  for (let i = 0; i < 3; i++) contacts.flush()
  t.equal(lines.filter((line) => line.includes('SPACE_SHORT')).length, 1)
  t.same(readContacts(dir), [])
  delete options.maxBytes
  contacts.flush()
  t.equal(readContacts(dir).length, 10)
  t.end()
})

t.test('a file that is damaged under a running mirror begins anew', (t) => {
  const { dir, contacts, note, lines } = setUp(t)
  note()
  contacts.flush()
  const other = new SqliteDatabase(contactsFile(dir))
  other.exec('DROP TABLE box')
  other.close()
  note()
  for (let i = 0; i < 3; i++) contacts.flush()
  t.match(readContacts(dir), [{ installid: BOX }])
  t.match(lines, { length: 1, 0: /STORE_DAMAGED/ })
  t.end()
})

t.test('where nothing can be written, nothing is thrown', (t) => {
  const dir = t.testdir({ 'contacts.db': {} })
  const lines: string[] = []
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) })
  const contacts = new Contacts({
    open: () => new ContactStore(dir, { onDamage: () => undefined }),
    clock: () => 1,
    log,
    deploymentOf,
  })
  for (let i = 0; i < 2000; i++) {
    contacts.note({
      group: 'pbx',
      target: '/all-16.0.xml',
      form: Buffer.from(boxForm({ installid: idOf(i) })),
      address: 'a',
      status: 200,
    })
    if (i % 10 === 0) contacts.flush()
  }
  contacts.close()
  t.equal(lines.length, 1, 'said once')
  t.match(JSON.parse(lines[0]!), { code: 'STORE_UNREADABLE' })
  t.end()
})
