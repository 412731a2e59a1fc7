import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import type { Sha256 } from '../../manifests/digest.ts'
import { runMirror } from '../../server/program.ts'
import { contactsFile, ContactStore, type Contact } from '../../storage/contacts.ts'
import { inside } from '../helpers/inside.ts'
import { mirrorProgram, type MirrorProgram } from '../helpers/mirror-program.ts'
import { boxForm, requestsPost } from '../helpers/module-tree.ts'
import { exchange } from '../helpers/raw-http.ts'
import { NOW } from '../helpers/site.ts'

const HOUR = 3_600_000
const FIRST = '6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11'
const SECOND = '6f0e9999-0b51-4f0c-9a52-0d3b8d1c7a22'

function fill({ storeDir }: MirrorProgram): void {
  const store = new ContactStore(storeDir, { onDamage: () => undefined })
  const box = (change: Partial<Contact>): Contact => ({
    ...{
      group: 'pbx',
      installid: FIRST,
      atMs: NOW - 2 * HOUR,
      address: '192.0.2.1',
      deployment: 'd'.repeat(64) as Sha256,
    },
    ...{ framework: '16.0.30', phpver: '7.4.33', brand: 'pbxact', oddities: ['slash'] },
    modules: new Map([
      ['framework', '16.0.30'],
      ['core', '16.0.60'],
    ]),
    ...change,
  })
  const bare = { deployment: null, framework: null, phpver: null, brand: null, modules: null, oddities: [] }
  store.write([box({}), box({ installid: SECOND, atMs: NOW - HOUR, address: '192.0.2.2', ...bare })])
  store.write([box({ installid: 'e'.repeat(32), group: 'old', atMs: NOW - 30 * 24 * HOUR, oddities: ['prefix'] })])
  store.write([box({ installid: 'e'.repeat(32), group: 'old', atMs: NOW - 3 * HOUR, oddities: [] })])
  store.close()
}

t.test('boxes list, boxes show, status', async (t) => {
  const mirror = await mirrorProgram(t)
  t.match((await mirror.run(0, 'boxes', 'list')).stdout, /^no box has asked for modules or sent an inventory yet$/m)
  t.same(await mirror.json('boxes', 'list'), { site: 'hq', boxes: [] })
  t.notMatch((await mirror.run(0, 'status')).stdout, /^boxes/m)
  fill(mirror)
  const { stdout } = await mirror.run(0, 'boxes', 'list')
  t.match(stdout, /^BOX +GROUP +SEEN +BEHIND +READY +UPDATES ITSELF +LICENSE$/m)
  t.match(stdout, /^6f0e9999 +pbx +60 min +- +- +- +-$/m)
  t.match(stdout, /^6f0e2a8c +pbx +2 h +- +- +- +-$/m)
  t.match(stdout, /\nwarning: 6f0e2a8c: its MODULE_REPO ends with a slash$/m)
  t.match(stdout, /^eeeeeeee +old +3 h /m, 'mended long ago')
  t.equal((await mirror.run(0, 'boxes', 'list', '--group', 'old')).stdout.match(/^[0-9a-f]{8} /gm)?.length, 1)
  t.match(
    (await mirror.run(0, 'status')).stdout,
    /^boxes +3 asked for modules, the last 60 minutes ago; 1 set up wrongly: gapferry-mirror boxes list$/m,
  )
  t.match(await mirror.json('status'), { boxes: { asked: 3, odd: 1 } })

  const show = (await mirror.run(0, 'boxes', 'show', '6F0E2')).stdout
  for (const line of [
    /^box +6f0e2a8c-0b51-4f0c-9a52-0d3b8d1c7a11$/m,
    /^modules, as it asked: 2\n {2}core +16\.0\.60\n {2}framework +16\.0\.30$/m,
  ]) {
    t.match(show, line)
  }
  t.match(show, /^warning +its MODULE_REPO ends with a slash \(/m)
  t.match((await mirror.run(0, 'boxes', 'show', '192.0.2.2')).stdout, /^framework +not said$/m)
  t.match(await mirror.json('boxes', 'show', FIRST), {
    boxes: [{ installid: FIRST, modules: { core: '16.0.60' }, oddities: { slash: /Z$/ }, deployment: 'd'.repeat(64) }],
  })
  await mirror.run('BOX_UNKNOWN', 'boxes', 'show', 'pbx1')
  t.match((await mirror.run('BOX_UNKNOWN', 'boxes', 'show', '6f0e')).stderr, /2 boxes/)
  await mirror.run('GROUP_UNKNOWN', 'boxes', 'list', '--group', 'none')
  for (const words of [['boxes'], ['boxes', 'list'], ['boxes', 'show']]) {
    t.match((await mirror.run(0, ...words, '--help')).stdout, /\nExamples?:\n {2}gapferry-mirror boxes /)
  }
})

t.test('a damaged contacts.db is said; nothing else depends on it', async (t) => {
  const mirror = await mirrorProgram(t)
  writeFileSync(contactsFile(mirror.storeDir), 'rubbish '.repeat(1000))
  t.match((await mirror.run('STORE_DAMAGED', 'boxes', 'list')).stderr, /next: gapferry-mirror serve begins it anew/)
  t.match((await mirror.run(0, 'status')).stdout, /^boxes +which of them asked cannot be read/m)
  t.same((await mirror.json('status'))['boxes'], null)
  await mirror.run(0, 'import', '--release', mirror.stick(1))
  await mirror.run(0, 'verify')
  const backup = join(mirror.dir, 'b.backup')
  await mirror.run(0, 'backup', '--to', backup)
  t.notOk(readFileSync(backup).includes('rubbish'), 'a backup leaves it out')
})

t.test('serve notes who asked, and begins anew where the file is damaged', async (t) => {
  const mirror = await mirrorProgram(t)
  await mirror.run(0, 'import', '--release', mirror.stick(1, [{ stamp: 10, files: { 'all-16.0.xml': '<xml/>' } }]))
  writeFileSync(contactsFile(mirror.storeDir), 'rubbish '.repeat(1000))
  const ended = new AbortController()
  const stdout = new PassThrough()
  const serving = inside(runMirror, mirror.dir, ['serve', '--json', '--config', 'mir/mirror.yaml'], {
    nowMs: () => NOW,
    stdout,
    signal: ended.signal,
  })
  const [first] = (await stdout.iterator().next()).value!.toString().split('\n') as string[]
  const { origins } = JSON.parse(first!) as { origins: { url: string }[] }
  const { origin, host } = new URL(origins[0]!.url)
  await exchange(origin, requestsPost(host, '/all-16.0.xml', boxForm()), { keepOpen: true })
  ended.abort(new Error('ended'))
  const { stderr } = await serving
  t.match(stderr, /contacts\.db was damaged/)
  t.notMatch(stderr, /12345678/)
  t.match(await mirror.json('boxes', 'list'), { boxes: [{ installid: FIRST, group: 'pbx', address: '127.0.0.1' }] })
  t.same(
    readdirSync(mirror.storeDir).filter((name) => name.startsWith('contacts')),
    ['contacts.db'],
  )
})
