import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { parseInventory } from '../../../manifests/inventory.ts'
import type { Sheet } from '../../../server/doctor/sheet.ts'
import { inventoryText } from '../../helpers/inventory-text.ts'
import type { ModuleSpec } from '../../helpers/module-list.ts'
import { mustRun } from '../../helpers/process.ts'
import { answering, hasFinding, makeWard, MODULES, pass } from '../../helpers/ward.ts'

t.test('the list: error, empty, page, short of modules and issues, sent on', async (t) => {
  const other = createServer((_, res) => void res.end())
  other.listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
  let strayed = 0
  other.on('connection', () => strayed++)
  const elsewhere = `http://127.0.0.1:${(other.address() as AddressInfo).port}/all-16.0.xml`

  const { behind } = await makeWard(t, { front: pass })
  const list = (answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering('/all-16.0.xml', answer))
  const lost = await list((res) => res.writeHead(404).end('<html>'))
  hasFinding(t, lost, 'module list', /answered 404/)
  t.match(lost.findings[0]!.effect, /takes the text for the list/)
  hasFinding(t, await list((res) => res.end()), 'module list', /the answer is empty/)
  hasFinding(t, await list((res) => res.end('<html><body>log in</body></html>')), 'module list', /expected <xml>/)
  hasFinding(
    t,
    await list((res) => res.writeHead(302, { location: elsewhere }).end()),
    'module list',
    /sent on to http/,
  )
  t.equal(strayed, 0, 'the doctor does not follow')
  const cut = await list((res) => res.writeHead(200, { 'content-length': '9999' }).write('<xml>', () => res.destroy()))
  hasFinding(t, cut, 'module list', /cut/)
  const coded = await list((res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end('no gzip'))
  hasFinding(t, coded, 'module list', /its gzip is broken/)

  const one = await makeWard(t, { modules: [MODULES[0]!], issues: [{ id: 'SEC-1' }] })
  const short = await one.examine()
  hasFinding(t, short, 'module list', /1 module, and needs 2/)
  hasFinding(t, short, 'module list', /1 security issue, and needs 2/)
  const none = await makeWard(t, { modules: [] })
  t.match((await none.examine()).checks.at(-1), { check: 'modules', state: 'skipped' })
})

t.test('a list that nobody signed', async (t) => {
  const ward = await makeWard(t, { front: answering('/all-16.0.xml', (res) => res.end(list)) })
  const list = String(readFileSync(await signedList(ward.dir)))
    .replace('<newfield', '<neWfield')
    .replace('</newfield', '</neWfield')
  hasFinding(t, await ward.examine(), 'module list', /not the list that was released/)
})

t.test('files of modules: missing, short, other bytes, coded, unsafe, refused', async (t) => {
  const path = (file: string): string => `/modules/packages/${file}`
  const core = path('core/core-16.0.68.tgz.gpg')
  const { behind } = await makeWard(t, { front: pass })
  const files = (at: string, answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering(at, answer))
  hasFinding(t, await files(core, (res) => res.end('x')), 'modules', /1 of \d+ bytes came/)
  const length = 'signed archive of core 16.0.68'.length
  hasFinding(t, await files(core, (res) => res.end('x'.repeat(length))), 'modules', /its sha1 is .*, the list says/)
  hasFinding(t, await files(core, (res) => res.end('x'.repeat(length + 1))), 'modules', /longer than/)
  const plain = path('labmod/labmod-16.0.2.tgz')
  hasFinding(t, await files(plain, (res) => res.end('archive of labmod 16.0.3')), 'modules', /its md5 is/)
  hasFinding(
    t,
    await files(plain, (res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end('archive of labmod 16.0.2')),
    'modules',
    /Content-Encoding gzip/,
  )
  const absent = await makeWard(t, { modules: [...MODULES, { rawname: 'gone', version: '16.0.1', absent: true }] })
  hasFinding(t, await absent.examine(), 'modules', /answered 404/)
  const unsafe = { rawname: 'bad', version: '16.0.1', entry: { location: '../../etc/passwd' } }
  hasFinding(
    t,
    await (await makeWard(t, { modules: [...MODULES, unsafe] })).examine(),
    'module list',
    /"bad".*<location>/,
  )
})

t.test('many findings of one kind are counted', async (t) => {
  const modules = Array.from({ length: 30 }, (_, i) => ({ rawname: `m${i}`, version: '16.0.1', absent: true as const }))
  const ward = await makeWard(t, { modules })
  const { stdout } = await ward.run('doctor')
  t.equal(stdout.match(/POST \/modules\/packages/g)?.length, 8)
  t.match(stdout, /modules +and 22 more\n/)
  t.equal(stdout.match(/the module stays as it is/g)?.length, 1, 'what is the same is said once')
})

t.test('dependencies, with the box that is played', async (t) => {
  const modules = [
    ...MODULES,
    { rawname: 'ivr', version: '16.0.9', depends: { module: ['recordings ge 16.0.5', 'core'] } },
  ]
  const ward = await makeWard(t, { modules })
  const told = (await ward.examine()).checks.find(({ check }) => check === 'dependencies')
  t.match(told, { state: 'skipped', text: /not listed, .*: recordings; --box/ })
  const box = async (...lines: string[]) => {
    const freepbx = ['framework 16.0.40', 'module ivr 16.0.1 enabled GPLv3+', ...lines]
    writeFileSync(join(ward.dir, 'pbx1.gfi'), inventoryText({ sections: { freepbx } }))
    return ward.run('doctor', '--box', '../pbx1.gfi')
  }
  t.match(
    (await box()).stdout,
    /! +dependencies +what ivr depends on: recordings ge 16\.0\.5: it is neither listed\s+nor/,
  )
  t.match((await box('module recordings 16.0.1 enabled GPLv3+')).stdout, /pbx1 would have\s+16\.0\.1/)
  t.match((await box('module recordings 16.0.7 enabled GPLv3+')).stdout, /ok +dependencies +all that pbx1 would take/)
})

t.test('a build for another PHP; sounds that are newer and not carried', async (t) => {
  const sounds = [{ version: '1.6.1' }, { version: '1.6.1', format: 'g722' }]
  const endpoint = { rawname: 'endpoint', version: '16.0.9', depends: { phpversion: 'ge 8.2' } }
  const files = { 'sounds/asterisk-core-en-ulaw-1.6.1.tar.gz': undefined }
  const ward = await makeWard(t, { modules: [...MODULES, endpoint], sounds, files })
  const box = async (php: string, sound: string): Promise<string> => {
    const freepbx = ['framework 16.0.40', 'module endpoint 16.0.1 enabled Commercial', `profile phpver ${php}`]
    const sections = { freepbx: [...freepbx, `sound asterisk core en ulaw ${sound}`] }
    writeFileSync(join(ward.dir, 'pbx1.gfi'), inventoryText({ sections }))
    return (await ward.run('doctor', '--box', '../pbx1.gfi')).stdout
  }
  const wrong = await box('7.4.33', '1.5')
  t.match(wrong, /! +dependencies +what endpoint 16\.0\.9 depends on: PHP ge 8\.2: pbx1 has PHP 7\.4\.33\n/)
  t.match(wrong, /! +sounds +.*ulaw-1\.6\.1\.tar\.gz: it is listed and\s+not\s+carried, and pbx1\s+has\s+1\.5\n/)
  const right = await box('8.2.7', '1.6.1')
  t.match(right, /ok +dependencies /)
  t.match(right, /ok +sounds /)
})

t.test('versions for --tag: no answer, another file, one that is not there', async (t) => {
  const { behind } = await makeWard(t, { front: pass })
  const versions = (answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering('/mversion.php', answer))
  hasFinding(t, await versions((res) => res.end()), 'versions', /the answer is empty/)
  hasFinding(t, await versions((res) => res.end('none')), 'versions', /no JSON object/)
  hasFinding(t, await versions((res) => res.writeHead(404).end()), 'versions', /answered 404/)
  hasFinding(t, await versions((res) => res.end('{"rawname":"core","version":"1"}')), 'versions', /another file/)
})

t.test('sounds: any error makes a box leave', async (t) => {
  const sounds = [{ version: '1.6.1' }, { version: '1.6.1', format: 'g722' }]
  const { behind } = await makeWard(t, { sounds, front: pass })
  const at = (path: string, answer: (res: ServerResponse) => void): Promise<Sheet> => behind(answering(path, answer))
  const lost = await at('/sounds-16.0.xml', (res) => res.writeHead(500).end())
  hasFinding(t, lost, 'sounds', /answered 500/)
  t.match(lost.findings.find(({ check }) => check === 'sounds')!.effect, /sets MODULE_REPO back/)
  hasFinding(t, await at('/sounds-16.0.xml', (res) => res.end()), 'sounds', /the answer is empty/)
  hasFinding(t, await at('/sounds-16.0.xml', (res) => res.end('<html>')), 'sounds', /./)
  const file = '/sounds/asterisk-core-en-ulaw-1.6.1.tar.gz'
  hasFinding(t, await at(file, (res) => res.writeHead(404).end()), 'sounds', /answered 404/)
  const nowhere = '/sounds/module-doctor-xx-license.txt'
  hasFinding(t, await at(nowhere, (res) => res.writeHead(404).end()), 'sounds', /answered 404/)
  hasFinding(t, await (await makeWard(t, { sounds: [{ version: '1' }] })).examine(), 'sounds', /1 package/)
})

/** The blob of the released list. */
async function signedList(dir: string): Promise<string> {
  const { stdout } = await mustRun('grep', ['-rl', '<newfield', join(dir, 'mir/store/blobs')])
  return stdout.trim()
}

t.test(
  'versions that are only listed beside a module need not be here, but edge builds for a box that takes them',
  async (t) => {
    const beside: ModuleSpec[] = (['edge', 'beta', 'previous'] as const).map((section, i) => {
      return { rawname: 'core', version: `16.0.7${i}`, section, absent: true }
    })
    const ward = await makeWard(t, { modules: [...MODULES, ...beside] })
    const sheet = await ward.examine()
    t.strictSame(sheet.findings, [])
    const sections = { freepbx: ['framework 16.0.40.11', 'setting MODULEADMINEDGE 1'] }
    const box = parseInventory(Buffer.from(inventoryText({ sections })), 'pbx1.gfi')
    hasFinding(t, await ward.examine({ box }), 'modules', /answered 404/)
  },
)
