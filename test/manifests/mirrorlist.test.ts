import { createHash } from 'node:crypto'
import t from 'tap'
import {
  expandVariables,
  matchMetalink,
  parseMetalink,
  parseMirrorlist,
  toBaseurl,
} from '../../manifests/mirrorlist.ts'
import { parseRepomd } from '../../manifests/repomd.ts'

const VARS = { releasever: '7', basearch: 'x86_64', release: 'no', Dist: 'sng', yum0: 'zero' }

t.test('fills in variables as yum does', async (t) => {
  for (const [text, want] of [
    ['http://x/?release=$releasever&arch=$basearch', 'http://x/?release=7&arch=x86_64'],
    ['$RELEASEVER $YUM0 $dist', '7 zero sng'],
    ['$releasever_x $releaseverx', '$releasever_x $releaseverx'],
    ['$releasever-$basearch.$unknown$', '7-x86_64.$unknown$'],
    ['${releasever} $$basearch $toString', '${releasever} $x86_64 $toString'],
    ['no', 'no'],
  ] as const) {
    t.equal(expandVariables(text, VARS), want, text)
  }
  t.equal(expandVariables('$a', { a: '$b', b: 'c' }), '$b', 'once')
})

t.test('makes base URLs that end in a slash', async (t) => {
  t.equal(toBaseurl('http://x/$releasever/os', VARS), 'http://x/7/os/')
  t.equal(toBaseurl('https://x', VARS), 'https://x/')
  for (const other of ['ftp://x/', 'file:///x', 'x', '']) t.equal(toBaseurl(other, VARS), undefined, other)
})

t.test('reads a mirrorlist as yum does', async (t) => {
  const text = `# mirrors
http://a.example/$ARCH/
  http://indented.example/
https://b.example/os \t
http://two words/

nonsense
rsync://c.example/os\r
`
  t.same(parseMirrorlist(Buffer.from(text), 'x'), [
    'http://a.example/$BASEARCH/',
    'https://b.example/os',
    'rsync://c.example/os',
  ])
  t.equal(parseMirrorlist(Buffer.from('http://x/\n'.repeat(10_000)), 'x').length, 100)
})

t.test('says what came where no mirror did', async (t) => {
  const page = Buffer.from('<html><a href="http://login">Sign in</a></html>')
  t.throws(() => parseMirrorlist(page, 'http://list'), { code: 'MIRRORLIST_EMPTY', message: /http:\/\/list.*Sign in/ })
  t.throws(() => parseMirrorlist(Buffer.from(''), 'http://list'), { code: 'MIRRORLIST_EMPTY' })
})

const REPOMD = Buffer.from(
  `<repomd><data type="primary"><checksum type="sha256">${'a'.repeat(64)}</checksum><location href="p"/><timestamp>17</timestamp></data></repomd>`,
)

t.test('reads a metalink: best mirrors first, one per host', async (t) => {
  const { baseurls, accepted } = parseMetalink(metalink({ alternates: facts(5, 'sha512', 'f'.repeat(128)) }), 'x')
  t.same(baseurls, ['https://b.example/os', 'http://a.example/$releasever/os', 'http://c.example:8080/os'])
  t.equal(accepted.length, 2)
  t.equal(accepted[1]!.bytes, 5)
})

t.test('accepts the repomd.xml that the metalink describes, or an older one that it accepts', async (t) => {
  const repomd = parseRepomd(REPOMD, 'x')
  const now = parseMetalink(metalink({}), 'x')
  t.equal(matchMetalink(now, REPOMD, repomd, 'x').timestamp, 17)
  const older = { sha256: '0'.repeat(64), alternates: facts(REPOMD.length, 'sha256', digest('sha256')) }
  t.equal(matchMetalink(parseMetalink(metalink(older), 'x'), REPOMD, repomd, 'x').timestamp, 17)
})

t.test('refuses a repomd.xml that differs from the metalink in anything', async (t) => {
  const repomd = parseRepomd(REPOMD, 'x')
  for (const [name, wrong] of Object.entries({
    hash: { sha256: '0'.repeat(64) },
    secondHash: { sha512: '0'.repeat(128) },
    size: { bytes: REPOMD.length + 1 },
    timestamp: { timestamp: 18 },
  })) {
    const link = parseMetalink(metalink(wrong), 'x')
    t.throws(
      () => matchMetalink(link, REPOMD, repomd, 'http://x'),
      { code: 'METALINK_MISMATCH', message: /http:\/\/x/ },
      name,
    )
  }
})

t.test('refuses what is no metalink and says what came', async (t) => {
  const good = metalink({}).toString()
  for (const [name, text, message] of [
    ['html', '<html/>', /found <html>/],
    ['text', 'Sign in', /Sign in/],
    ['no repomd.xml', good.replaceAll('name="repomd.xml"', 'name="other.xml"'), /names no repomd/],
    ['two', good.replace(/<file .*<\/file>/s, '$&$&'), /twice/],
    ['no size', good.replace(/<size>\d+<\/size>/, ''), /size/],
    ['no timestamp', good.replace(/<mm0:timestamp>\d+<\/mm0:timestamp>/, ''), /timestamp/],
    ['weak hashes only', good.replace(/type="sha\d+"/g, 'type="md5"'), /sha256/],
    ['no mirrors', good.replace(/<resources.*<\/resources>/s, ''), /no http/],
    ['large', ' '.repeat(6_000_000), /larger/],
  ] as const) {
    t.throws(() => parseMetalink(Buffer.from(text), 'http://x'), { code: 'METALINK_INVALID', message }, name)
  }
})

interface Described {
  sha256?: string
  sha512?: string
  bytes?: number
  timestamp?: number
  alternates?: string
}

function metalink(with_: Described): Buffer {
  const { sha256 = digest('sha256'), sha512 = digest('sha512'), bytes = REPOMD.length, timestamp = 17 } = with_
  return Buffer.from(`<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="repomd.xml">
   <mm0:timestamp>${timestamp}</mm0:timestamp>
   <size>${bytes}</size>
   <verification><hash type="md5">wrong</hash><hash type="sha256">${sha256}</hash><hash type="sha512">${sha512}</hash></verification>
   <mm0:alternates><mm0:alternate>${with_.alternates ?? facts(1, 'sha256', 'e'.repeat(64))}</mm0:alternate></mm0:alternates>
   <resources maxconnections="1">
    <url protocol="rsync" type="rsync" preference="100">rsync://a.example/os/repodata/repomd.xml</url>
    <url protocol="http" type="http" preference="90">http://c.example:8080/os/repodata/repomd.xml</url>
    <url protocol="http" type="http" preference="99">http://a.example/$releasever/os/repodata/repomd.xml</url>
    <url protocol="http" type="http" preference="98">http://a.example/second/repodata/repomd.xml</url>
    <url protocol="https" type="https" preference="99">https://b.example/os/repodata/repomd.xml</url>
    <url protocol="http" preference="1">http://d.example/os/repodata/other.xml</url>
    <url protocol="http">http://d.example/os/repodata/repomd.xml</url>
   </resources>
  </file>
 </files>
</metalink>`)
}

function facts(bytes: number, algorithm: string, hex: string): string {
  return `<mm0:timestamp>17</mm0:timestamp><size>${bytes}</size><verification><hash type="${algorithm}">${hex}</hash></verification>`
}

function digest(algorithm: string): string {
  return createHash(algorithm).update(REPOMD).digest('hex')
}
