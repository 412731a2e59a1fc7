import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import t from 'tap'
import { ModuleArchiveScanner } from '../../../bundler/modules/module-archive.ts'
import { verifyModule } from '../../../bundler/modules/verify-module.ts'
import { isGapferryError } from '../../../manifests/errors.ts'
import { moduleTgz, moduleXml } from '../../helpers/module-files.ts'
import { mustRun } from '../../helpers/process.ts'
import { makeTar } from '../../helpers/tar.ts'
import type { VerifyCosts, VerifyOrder } from '../../helpers/verify-modules-program.ts'

type Entry = Parameters<typeof makeTar>[0][number]

/** Of processor time for one file, and of memory for the process that met them all. */
const MAX_CPU_MS = 2000
const MAX_PEAK_BYTES = 200 * 2 ** 20

const XML = file('core/module.xml', moduleXml())
const LONG = 'x'.repeat(300)

t.test('every hostile archive is refused for its own reason, soon, with little memory', async (t) => {
  const dir = t.testdir()
  const cases = [
    ...names(),
    ...kinds(),
    ...links(),
    ...doubles(),
    ...metas(),
    ...headers(),
    ...ends(),
    ...gzips(),
    ...xmls(),
  ]
  t.ok(cases.length > 90, `${cases.length} cases`)
  const files = cases.map(({ bytes }, i) => {
    const path = join(dir, `${i}.tgz`)
    writeFileSync(path, bytes)
    return path
  })
  const program = join(import.meta.dirname, '../../helpers/verify-modules-program.ts')
  const { stdout } = await mustRun(process.execPath, [program], {
    input: JSON.stringify({ files } satisfies VerifyOrder),
  })
  const { results, peakBytes } = JSON.parse(stdout) as VerifyCosts
  for (const [i, { what, why }] of cases.entries()) {
    const { code, message, cpuMs } = results[i]!
    t.match({ code, message }, { code: 'MODULE_ARCHIVE', message: why }, `${what}: ${message}`)
    t.ok(cpuMs < MAX_CPU_MS, `${what}: ${cpuMs} ms of processor`)
  }
  t.ok(peakBytes < MAX_PEAK_BYTES, `${Math.round(peakBytes / 2 ** 20)} MiB of memory`)
})

t.test('what is endless ends at a limit', (t) => {
  const scanner = (): ModuleArchiveScanner => new ModuleArchiveScanner('core 17.0.1')
  const header = (name: string, bytes: number): Buffer => {
    const entry = { name, bytes: Buffer.alloc(0), header: sized(bytes) }
    return makeTar([entry]).subarray(0, 512)
  }
  const large = scanner()
  const piece = Buffer.alloc(64 * 2 ** 20)
  large.push(header('core/large', 7 * 2 ** 30))
  t.throws(() => pushOften(large, 40, () => piece), { code: 'MODULE_ARCHIVE', message: /more than 2147483648 bytes/ })
  const many = scanner()
  t.throws(() => pushOften(many, 200_000, (i) => header(`core/${i}`, 0)), { message: /more than 100000 entries/ })
  const long = scanner()
  const name = (i: number): string => `core/${'d'.repeat(250)}/${'d'.repeat(250)}/${'d'.repeat(250)}/${i}`
  const both = (i: number): Buffer => makeTar([meta('L', `${name(i)}\0`), file('core/x', '')]).subarray(0, -1024)
  t.throws(() => pushOften(long, 50_000, both), { message: /names are too long together/ })
  t.end()
})

t.test('archives of real tars are read: long names, links, every format', async (t) => {
  const dir = t.testdir()
  const deep = `core/${Array.from({ length: 12 }, (_, i) => `a-rather-long-folder-name-${i}`).join('/')}`
  mkdirSync(join(dir, deep), { recursive: true })
  writeFileSync(join(dir, 'core/module.xml'), moduleXml())
  writeFileSync(join(dir, deep, 'file ä \xe9.php'), '<?php')
  const script = `cd ${dir} && ln -s ../core.php core/a-link 2>/dev/null; rm core/a-link; ln -s module.xml core/link && ln -s ../../module.xml core/a-rather-long-folder-name-0/a-rather-long-folder-name-1/up && ln core/module.xml core/hard && ln -s ${deep.slice(5)} core/deep`
  await mustRun('sh', ['-c', script])
  const commands: Record<string, string> = {
    gnu: 'tar --format=gnu -czf',
    pax: 'tar --format=pax -czf',
    'oldgnu as root': 'tar --format=oldgnu --owner=0 -czf',
    busybox: 'busybox tar -czf',
  }
  for (const [what, command] of Object.entries(commands)) {
    await mustRun('sh', ['-c', `cd ${dir} && ${command} x.tgz ${what === 'gnu' ? './core' : 'core'}`])
    t.match(await verify(join(dir, 'x.tgz')), { verdict: 'unsigned' }, what)
  }
  await mustRun('sh', ['-c', `cd ${dir} && rm -r core/a-rather* core/deep && tar --format=ustar -czf x.tgz core`])
  t.match(await verify(join(dir, 'x.tgz')), { verdict: 'unsigned' }, 'ustar')
  const git = `cd ${dir} && git init -q && git add core/module.xml && git -c user.name=x -c user.email=x@x commit -qm x && git archive --format=tar.gz -o x.tgz HEAD`
  await mustRun('sh', ['-c', git])
  t.match(await verify(join(dir, 'x.tgz')), { verdict: 'unsigned' }, 'git archive, with a global PAX header')
})

t.test('in whatever pieces it comes, whatever bytes are changed: an answer, and the same one', (t) => {
  const tar = gunzipSync(moduleTgz({ files: { a: 'x'.repeat(700) } }))
  const change = fc.record({ at: fc.nat(tar.length - 1), to: fc.nat(255) })
  const input = fc.tuple(
    fc.array(change, { maxLength: 3 }),
    fc.array(fc.integer({ min: 1, max: 1500 }), { maxLength: 5 }),
  )
  const property = fc.property(input, ([changes, sizes]) => {
    const bytes = Buffer.from(tar)
    for (const { at, to } of changes) bytes[at] = to
    return answer(bytes, []) === answer(bytes, sizes)
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2000 }))
  t.end()
})

interface Case {
  what: string
  bytes: Buffer
  why: RegExp
}

function names(): Case[] {
  const bad: Record<string, string> = {
    'a name that climbs': '../evil',
    'a name that climbs from inside': 'core/../../evil',
    'a name that climbs and comes back': 'core/../core/evil',
    'a name that climbs behind ./': './../evil',
    'an absolute name': '/etc/passwd',
    'an empty name': '',
    'an empty segment': 'core//evil',
    'a dot segment': 'core/./evil',
    'a dot': '.',
    'two dots': '..',
    'a file with a slash behind': 'core/evil/',
    'a line feed': 'core/a\nb',
    'an escape': 'core/\x1b[2Jx',
    'a delete': 'core/\x7f',
  }
  return [
    ...Object.entries(bad).map(([what, name]) => of(what, [XML, file(name, 'x')], /no name that/)),
    of('two folders at the top', [XML, file('framework/x', '')], /one folder at the top/),
    of('a file beside the folder', [file('README', ''), XML], /one folder at the top/),
    of('a sibling whose name only begins the same', [XML, file('core2/x', '')], /one folder at the top/),
    of('a file in the place of the folder', [file('core', 'x')], /no module.xml/),
    of('no module.xml', [file('core/x', '')], /no module.xml/),
    of('module.xml too deep', [file('core/sub/module.xml', moduleXml())], /no module.xml/),
    of('MODULE.XML', [file('core/MODULE.XML', moduleXml())], /no module.xml/),
    of('nothing', [], /no module.xml/),
    of('bytes behind the end of a name', [XML, hidden('core/x\0/../../evil')], /bytes behind the end/),
    of('a prefix that climbs', [XML, prefixed('..', 'evil')], /no name that/),
    of('a prefix that is absolute', [XML, prefixed('/core', 'evil')], /no name that/),
    of('a prefix that is another folder', [XML, prefixed('other', 'core')], /one folder/),
    of('GNU’s own fields in the header', [XML, gnuPrefixed()], /GNU extensions/),
    of('a long segment', [XML, meta('L', `core/${LONG}\0`), file('x', '')], /no name that/),
    of('a tree that is deep', [XML, meta('L', `core/${'a/'.repeat(70)}b\0`), file('x', '')], /too long or too deep/),
    of('a long name', [XML, meta('L', `core/${'abc/'.repeat(300)}x\0`), file('x', '')], /too long or too deep/),
  ]
}

function kinds(): Case[] {
  const types = {
    contiguous: '7',
    character: '3',
    block: '4',
    pipe: '6',
    sparse: 'S',
    volume: 'M',
    label: 'V',
    dump: 'D',
  }
  const more = { names: 'N', acl: 'A', solaris: 'X', lower: 'z', newline: '\n', socket: 's' }
  return [
    ...Object.entries({ ...types, ...more }).map(([what, type]) =>
      of(`type ${what}`, [XML, typed('core/x', type)], /is of type/),
    ),
    of('a folder with bytes', [XML, { ...typed('core/x/', '5'), bytes: Buffer.from('x') }], /a folder of 1 bytes/),
    of('a link with bytes', [XML, { ...linked('core/x', 'y'), bytes: Buffer.from('x') }], /a link of 1 bytes/),
    of('module.xml is a folder', [typed('core/module.xml', '5')], /no plain file/),
    of('module.xml is a link', [linked('core/module.xml', 'other.xml')], /no plain file/),
    of(
      'module.xml is a hard link',
      [file('core/x', moduleXml()), linked('core/module.xml', 'core/x', '1')],
      /no plain/,
    ),
    of('module.xml is huge', [file('core/module.xml', 'x'.repeat(2 ** 20 + 1))], /1048577 bytes, more than/),
  ]
}

function links(): Case[] {
  const targets = [
    '/etc/passwd',
    '..',
    '../..',
    '../core/../x',
    '',
    '../other/x',
    'a/../../../x',
    'a/..',
    '../../core/x',
    '/',
  ]
  const hard = ['/etc/passwd', '../x', 'core/missing', 'core', 'core/link', '']
  return [
    ...targets.map((target) => of(`a link to "${target}"`, [XML, linked('core/x', target)], /a link to/)),
    ...hard.map((target) =>
      of(
        `a hard link to "${target}"`,
        [XML, linked('core/link', 'module.xml'), linked('core/x', target, '1')],
        /a link to/,
      ),
    ),
    of('a chain of links', [XML, linked('core/a/b/up', '../..'), linked('core/z', 'a/b/up/../..')], /a link to/),
    of('a file through a link', [XML, linked('core/x', 'y'), file('core/x/evil', '')], /is a link/),
    of('a folder through a link', [XML, linked('core/x', 'y'), typed('core/x/evil/', '5')], /is a link/),
    of('a file in the place of a link', [XML, linked('core/x', 'y'), file('core/x', '')], /stands there twice/),
    of('a long link that climbs', [XML, meta('K', `../../${LONG}\0`), linked('core/x', 'y')], /a link to/),
    of('a PAX link that climbs', [XML, pax({ linkpath: '../../evil' }), linked('core/x', 'y')], /a link to/),
    of('the folder is a link', [linked('core', '/tmp'), XML], /a link to/),
    of('the folder is a link to itself', [linked('core', 'core'), XML], /a link to/),
  ]
}

function doubles(): Case[] {
  const x = file('core/x', '1')
  return [
    of('a file twice', [XML, x, file('core/x', '2')], /stands there twice/),
    of('module.xml twice', [XML, file('core/module.xml', moduleXml('framework'))], /stands there twice/),
    of('module.xml again through ./', [XML, file('./core/module.xml', moduleXml('evil'))], /stands there twice/),
    of('module.xml again by PAX', [XML, pax({ path: 'core/module.xml' }), file('core/y', 'z')], /stands there twice/),
    of('a folder in the place of a file', [XML, x, typed('core/x/', '5')], /stands there twice/),
    of('a file in the place of a folder', [XML, file('core/y/z', ''), file('core/y', '')], /stands there twice/),
    of('a file below a file', [XML, x, file('core/x/y', '')], /is a file/),
  ]
}

function metas(): Case[] {
  const y = file('core/y', '')
  return [
    of('PAX: a name that climbs', [XML, pax({ path: '../evil' }), y], /no name that/),
    of('PAX: an absolute name', [XML, pax({ path: '/evil' }), y], /no name that/),
    of('PAX: NUL in a name', [XML, pax({ path: 'core/a\0b' }), y], /malformed PAX/),
    of('PAX: another size', [XML, pax({ size: '100000000000000' }), y], /two sizes/),
    of('PAX: a size that is no number', [XML, pax({ size: '-1' }), y], /no number/),
    of('PAX: a size of 10^20', [XML, pax({ size: '1'.padEnd(21, '0') }), y], /no number/),
    of('PAX: sparse', [XML, pax({ 'GNU.sparse.major': '1', 'GNU.sparse.realsize': '1' }), y], /PAX record "GNU.sparse/),
    of('PAX: character set', [XML, pax({ hdrcharset: 'BINARY' }), y], /PAX record/),
    of('PAX: no length', [XML, meta('x', 'path=core/z\n'), y], /malformed PAX/),
    of('PAX: a length beyond the header', [XML, meta('x', '99 path=core/z\n'), y], /malformed PAX/),
    of('PAX: a length too short', [XML, meta('x', '9 path=core/z\n'), y], /malformed PAX/),
    of('PAX: a length of nothing', [XML, meta('x', '0 a=\n'), y], /malformed PAX/),
    of('PAX: no key', [XML, meta('x', '5 =a\n'), y], /malformed PAX/),
    of('PAX: a key twice', [XML, meta('x', '12 path=a/b\n12 path=a/c\n'), y], /malformed PAX/),
    of('PAX: huge', [XML, meta('x', `70010 comment=${'x'.repeat(69_995)}\n`), y], /PAX header of/),
    of('PAX for all: a name', [meta('g', '15 path=core/z\n'), XML], /PAX record "path"/),
    of('PAX twice', [XML, pax({ mtime: '1' }), pax({ path: 'core/z' }), y], /named twice/),
    of('PAX and a long name', [XML, meta('L', 'core/z\0'), pax({ path: 'core/a' }), y], /named twice/),
    of('PAX for nothing', [XML, pax({ path: 'core/z' })], /an entry is missing/),
    of('a long name twice', [XML, meta('L', 'core/z\0'), meta('L', 'core/a\0'), y], /named twice/),
    of('a long name of nothing', [XML, meta('L', '\0'), y], /malformed long name/),
    of('a long name without an end', [XML, meta('L', 'core/z'), y], /malformed long name/),
    of('a long name with bytes behind', [XML, meta('L', 'core/z\0x'), y], /malformed long name/),
    of('a long name that climbs', [XML, meta('L', '../evil\0'), y], /no name that/),
    of('a huge long name', [XML, meta('L', 'a'.repeat(100_000)), y], /of 100000 bytes/),
  ]
}

function headers(): Case[] {
  const changed = (change: (block: Buffer) => void): Entry => ({ ...file('core/x', 'abc'), header: change })
  const wrongSum = makeTar([XML, file('core/x', '')])
  wrongSum[1024 + 3]! ^= 1
  return [
    { what: 'a wrong checksum', bytes: gzipSync(wrongSum), why: /wrong checksum/ },
    of('a negative size in binary', [XML, changed((block) => block.fill(0xff, 124, 136))], /no octal number/),
    of(
      'a size in binary',
      [XML, changed((block) => block.write('\x80\0\0\0\0\0\0\0\0\0\0\x03', 124, 'latin1'))],
      /no octal/,
    ),
    of('a negative size in text', [XML, changed((block) => block.write('-0000000003 ', 124))], /no octal number/),
    of('no size', [XML, changed((block) => block.fill(0, 124, 136))], /no octal number/),
    of('a size beyond the archive', [XML, changed(sized(9_999_999))], /cut off/),
    of('a size of 8 GiB', [XML, changed(sized(8 * 2 ** 30 - 1))], /cut off/),
    of('the format of 1979', [XML, changed((block) => block.fill(0, 257, 265))], /neither ustar nor GNU/),
  ]
}

function ends(): Case[] {
  const tar = makeTar([XML, file('core/x', 'y'.repeat(2000))])
  const cut = (what: string, length: number): Case => ({
    what,
    bytes: gzipSync(tar.subarray(0, length)),
    why: /cut off/,
  })
  const followed = (what: string, ...more: Buffer[]): Case => ({
    ...{ what, bytes: gzipSync(Buffer.concat([tar, ...more])), why: /something follows/ },
  })
  const hiddenEntry = Buffer.concat([tar.subarray(0, -1024), Buffer.alloc(512), makeTar([file('core/evil', '')])])
  return [
    cut('no end', tar.length - 1024),
    cut('half an end', tar.length - 512),
    cut('cut off in the end', tar.length - 100),
    cut('cut off in a file', 2500),
    cut('cut off in a header', 1100),
    cut('cut off in the padding', 1024 - 5),
    cut('cut off in the first header', 100),
    cut('no byte', 0),
    followed('a second archive behind the end', tar),
    followed('garbage behind the end', Buffer.alloc(512, 1)),
    { what: 'half a block behind the end', bytes: gzipSync(Buffer.concat([tar, Buffer.alloc(100)])), why: /cut off/ },
    { what: 'an entry behind a block of zeros', bytes: gzipSync(hiddenEntry), why: /something follows/ },
  ]
}

function gzips(): Case[] {
  const tar = makeTar([XML])
  const good = gzipSync(tar)
  const zeros = makeTar([XML, file('core/zeros', Buffer.alloc(100 * 2 ** 20))])
  const wrongCrc = Buffer.from(good)
  wrongCrc[good.length - 6]! ^= 1
  const damaged = (what: string, bytes: Buffer): Case => ({ what, bytes, why: /damaged or cut off|much more than/ })
  return [
    damaged('garbage behind gzip', Buffer.concat([good, Buffer.from('x')])),
    damaged('zeros behind gzip', Buffer.concat([good, Buffer.alloc(512)])),
    damaged('a second gzip behind', Buffer.concat([good, gzipSync(makeTar([file('core/evil', '')]))])),
    damaged('gzip cut off', good.subarray(0, -9)),
    damaged('gzip without its last byte', good.subarray(0, -1)),
    damaged('gzip with a wrong checksum', wrongCrc),
    damaged('a bomb of zeros', gzipSync(zeros, { level: 9 })),
    damaged('no gzip: a tar', tar),
    damaged('no gzip: a zip', Buffer.from('PK\x03\x04'.padEnd(200, 'x'))),
    damaged('no gzip: a page', Buffer.from('<html>captive</html>')),
    damaged('an empty file', Buffer.alloc(0)),
    { what: 'gzip in gzip', bytes: gzipSync(good), why: /wrong checksum|cut off/ },
  ]
}

function xmls(): Case[] {
  const lol = Array.from({ length: 12 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join('')
  const bad: Record<string, string> = {
    'entities of entities': `<!DOCTYPE module [<!ENTITY l0 "lol">${lol}]><module><rawname>&l12;</rawname></module>`,
    'an external entity': '<!DOCTYPE module SYSTEM "file:///etc/passwd"><module/>',
    'a deep tree': `<module>${'<a>'.repeat(100_000)}`,
    'an element with many attributes': `<module ${Array.from({ length: 60_000 }, (_, i) => `a${i}=""`).join(' ')}/>`,
    'many elements': `<module>${'<a/>'.repeat(2 ** 18 - 10)}</module`,
    'two documents': moduleXml() + moduleXml(),
    'a file that is cut off': moduleXml().slice(0, -5),
    'another encoding': `<?xml version="1.0" encoding="utf-16"?>${moduleXml()}`,
    'two versions': moduleXml().replace('</module>', '<version>9</version></module>'),
    NUL: moduleXml().replace('core', 'co\0re'),
  }
  return [
    ...Object.entries(bad).map(([what, xml]) =>
      of(`module.xml: ${what}`, [file('core/module.xml', xml)], /module.xml/),
    ),
    of('module.xml: bytes that are no text', [file('core/module.xml', Buffer.from([0x3c, 0xff, 0xfe]))], /module.xml/),
  ]
}

function of(what: string, entries: Entry[], why: RegExp, cut = 0): Case {
  const tar = makeTar(entries)
  return { what, bytes: gzipSync(cut === 0 ? tar : tar.subarray(0, cut)), why }
}

function file(name: string, bytes: string | Buffer): Entry {
  return { name, bytes: Buffer.from(bytes as string) }
}

function typed(name: string, type: string): Entry {
  return { ...file(name, ''), header: (block) => block.write(type, 156, 'latin1') }
}

function linked(name: string, target: string, type = '2'): Entry {
  const header = (block: Buffer): void => {
    block.write(type, 156, 'latin1')
    block.write(target, 157, 'latin1')
  }
  return { ...file(name, ''), header }
}

function hidden(name: string): Entry {
  return { ...file('x', ''), header: (block) => block.write(name, 0, 'latin1') }
}

function prefixed(prefix: string, name: string): Entry {
  return { ...file(name, ''), header: (block) => block.write(prefix, 345, 'latin1') }
}

function gnuPrefixed(): Entry {
  const header = (block: Buffer): void => {
    block.write('ustar  \0', 257, 'latin1')
    block.fill(0, 345)
    block.write('../evil', 345, 'latin1')
  }
  return { ...file('core/x', ''), header }
}

function sized(bytes: number): (block: Buffer) => void {
  return (block) => void block.write(`${bytes.toString(8).padStart(11, '0')} `, 124, 'latin1')
}

/** A header in front of an entry. */
function meta(type: string, body: string): Entry {
  return { name: '././@LongLink', bytes: Buffer.from(body, 'latin1'), header: (block) => block.write(type, 156) }
}

function pax(records: Record<string, string>): Entry {
  const body = Object.entries(records).map(([key, value]) => {
    const rest = ` ${key}=${value}\n`
    const length = rest.length + String(rest.length + 2).length
    return `${length}${rest}`
  })
  return meta('x', body.join(''))
}

function pushOften(scanner: ModuleArchiveScanner, times: number, piece: (i: number) => Buffer): void {
  for (let i = 0; i < times; i++) scanner.push(piece(i))
}

/** What a scanner says of `tar`, fed in pieces of these sizes and then the rest. */
function answer(tar: Buffer, sizes: number[]): string {
  const scanner = new ModuleArchiveScanner('core')
  try {
    let at = 0
    for (const size of sizes) {
      scanner.push(tar.subarray(at, at + size))
      at += size
    }
    scanner.push(tar.subarray(at))
    return scanner.end()!.moduleXml.toString('latin1')
  } catch (error) {
    if (!isGapferryError(error, 'MODULE_ARCHIVE')) throw error
    return error.message
  }
}

async function verify(path: string): ReturnType<typeof verifyModule> {
  const context = { signal: new AbortController().signal, nowMs: Date.now() }
  return verifyModule(path, { rawname: 'core', version: '17.0.1' }, [], context)
}
