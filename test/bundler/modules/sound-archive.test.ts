import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { isSoundArchive, verifySounds } from '../../../bundler/modules/sound-archive.ts'
import { makeTgz } from '../../helpers/module-archive.ts'
import { freepbxLines, makeModuleLaptop } from '../../helpers/module-laptop.ts'
import { makeTar } from '../../helpers/tar.ts'

const GOOD = { 'core-en.txt': 'hello: Hello.\n', 'hello.ulaw': 'sound', 'digits/1.ulaw': 'one' }
/** `type` and `link` as a tar header has them */
interface Entry {
  name: string
  body?: string
  type?: string
  link?: string
}
const WHAT = 'sounds/asterisk-core-en-ulaw-1.6.tar.gz'

t.test('sounds that a box may unpack pass, the others are refused', async (t) => {
  const file = join(t.testdir(), 'sounds.tar.gz')
  const check = (bytes: Buffer): Promise<void> => {
    writeFileSync(file, bytes)
    return verifySounds(file, WHAT, new AbortController().signal)
  }
  const tar = (...more: Entry[]): Buffer => {
    const entries = [{ name: 'core-en.txt', body: 'x' } as Entry, ...more]
    return gzipSync(
      makeTar(
        entries.map(({ name, body = '', type = '0', link = '' }) => ({
          name,
          bytes: Buffer.from(body),
          header: (block) => void (block.write(type, 156, 'latin1') + block.write(link, 157, 'latin1')),
        })),
      ),
    )
  }
  await check(makeTgz(GOOD))
  await check(tar({ name: 'beep.ulaw', type: '2', link: 'core-en.txt' }))
  const hostile: Record<string, Buffer> = {
    'metadata that PHP reads': makeTgz({ ...GOOD, '.phar/.metadata.bin': 'O:8:"stdClass":0:{}' }),
    'the same in capitals': makeTgz({ ...GOOD, '.PHAR/stub.php': '<?php' }),
    'behind ./': makeTgz({ ...GOOD, './.phar/stub.php': '<?php' }),
    'a file above': tar({ name: '../x', body: 'x' }),
    'an absolute one': tar({ name: '/etc/x', body: 'x' }),
    'a link out': tar({ name: 'up', type: '2', link: '../..' }),
    'a link to the root': tar({ name: 'up', type: '2', link: '/etc' }),
    'a file through a link': tar({ name: 'a', type: '2', link: 'b' }, { name: 'a/x', body: 'x' }),
    'a device': tar({ name: 'null', type: '3' }),
    'a page': Buffer.from('<!doctype html><title>Sign in</title>'),
    'one cut off': makeTgz(GOOD).subarray(0, -20),
    nothing: Buffer.alloc(0),
  }
  for (const [name, bytes] of Object.entries(hostile)) {
    await t.rejects(
      check(bytes),
      { code: 'MODULE_ARCHIVE', message: /^sounds\/asterisk-core-en-ulaw-1\.6\.tar\.gz: / },
      name,
    )
  }
  await t.rejects(verifySounds(file, WHAT, AbortSignal.abort(new Error('stopped'))), { message: 'stopped' })
})

t.test('of the files of an origin, only archives of sounds', async (t) => {
  t.ok(isSoundArchive(WHAT))
  for (const path of ['sounds/asterisk-core-en-license.txt', 'firmware/sounds/x.tar.gz']) t.notOk(isSoundArchive(path))
})

t.test('hostile sounds are not carried', async (t) => {
  const modules = ['framework', 'core'].map((rawname) => ({ rawname, version: '16.0.9' }))
  const sounds = [{ version: '1.6' }, { version: '1.6', format: 'g722' }]
  const laptop = await makeModuleLaptop(t, { major: 16, modules, sounds })
  const { box, gapferry, vendor } = laptop
  const lines = freepbxLines(['framework 16.0.1', 'core 16.0.1'])
  await box('pbx1', [...lines, 'sound asterisk core en ulaw 1.5', 'sound asterisk core en g722 1.6'])
  vendor.fault(`/${WHAT}`, { kind: 'replace', body: makeTgz({ ...GOOD, '.phar/.metadata.bin': 'x' }) })
  const refused = await gapferry('pull')
  t.equal(refused.status, 3, refused.stderr)
  t.match(refused.stderr, /\[MODULE_ARCHIVE\]/)
  t.equal((await gapferry('pack', '--to', '.')).status, 4)
  vendor.fault(`/${WHAT}`)
  t.equal((await gapferry('bundle', '--to', '.')).status, 0)
})
