import t from 'tap'
import { dataOfType, newestTimestamp, parseChecksum, parseRepomd, writeRepomd } from '../../manifests/repomd.ts'

const HEX = 'a'.repeat(64)

t.test('reads what createrepo writes', async (t) => {
  const repomd = parseRepomd(
    Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
 <revision>1700000000</revision>
 <tags><distro cpeid="cpe:/o:x">x</distro></tags>
<data type="primary">
  <checksum type="sha256">${HEX}</checksum>
  <open-checksum type="sha">${'b'.repeat(40)}</open-checksum>
  <location xml:base="http://elsewhere/" href="repodata/p.xml.gz"/>
  <timestamp>1700000001</timestamp>
  <size>10</size>
  <open-size>20</open-size>
</data>
<data type="primary_db">
  <checksum type="md5">${'c'.repeat(32)}</checksum>
  <location href="repodata/p.sqlite.bz2"/>
  <timestamp>1700000009.75</timestamp>
  <database_version>10</database_version>
</data>
</repomd>`),
    'x',
  )
  t.same(repomd, {
    revision: '1700000000',
    data: [
      {
        type: 'primary',
        checksum: { algorithm: 'sha256', hex: HEX },
        openChecksum: { algorithm: 'sha1', hex: 'b'.repeat(40) },
        href: 'repodata/p.xml.gz',
        timestamp: 1_700_000_001,
        bytes: 10,
        openBytes: 20,
      },
      {
        type: 'primary_db',
        checksum: { algorithm: 'md5', hex: 'c'.repeat(32) },
        href: 'repodata/p.sqlite.bz2',
        timestamp: 1_700_000_009,
      },
    ],
  })
  t.equal(newestTimestamp(repomd), 1_700_000_009, 'of all files')
})

t.test('writes what it reads, always the same', async (t) => {
  const checksum = { algorithm: 'sha512' as const, hex: 'd'.repeat(128) }
  const full = { type: 'x"&<', checksum, openChecksum: checksum, href: 'a&b', timestamp: 5, bytes: 1, openBytes: 2 }
  const repomd = { revision: '1 < 2', data: [full, { type: 'other', checksum, href: 'o', timestamp: 0 }] }
  const bytes = writeRepomd(repomd)
  t.same(parseRepomd(bytes, 'x'), repomd)
  t.ok(writeRepomd(parseRepomd(bytes, 'x')).equals(bytes))
  t.same(parseRepomd(writeRepomd({ revision: '', data: [] }), 'x'), { revision: '', data: [] })
})

t.test('chooses the smallest of several files of a type, as yum does', async (t) => {
  const of = (href: string, size: string) => data('primary', { href, more: size })
  const chosen = (...all: string[]) => dataOfType(parse(all.join('')), 'primary')?.href
  t.equal(chosen(of('a', '<size>9</size>'), of('b', '<size>8</size>'), of('c', '<size>8</size>')), 'b')
  t.equal(chosen(of('a', ''), of('b', '<size>8</size>')), 'a', 'the first where sizes are not known')
  t.equal(chosen(data('primary_db', {}), data('primary_zck', {})), undefined)
})

t.test('takes a timestamp that is none for the oldest', async (t) => {
  for (const text of ['', 'soon', '-5', '1e9']) {
    t.equal(newestTimestamp(parse(data('primary', { more: `<timestamp>${text}</timestamp>` }))), 0, text)
  }
  t.equal(newestTimestamp(parse('')), 0)
})

t.test('refuses what is no repomd.xml and says what came', async (t) => {
  for (const [name, text, message] of [
    ['html', '<html><body>Sign in</body></html>', /http:\/\/x.*found <html>/],
    ['bad html', '<!doctype html><p>Sign in<br></p>', /Sign in/],
    ['text', 'Not found', /Not found/],
    ['nothing', '', /well-formed/],
    ['cut off', '<repomd><data type="primary">', /well-formed/],
    ['large', Buffer.alloc(2_000_000, ' '), /larger/],
    ['many', `<repomd>${'<data/>'.repeat(1001)}</repomd>`, /more than/],
  ] as const) {
    t.throws(() => parseRepomd(Buffer.from(text), 'http://x'), { code: 'REPOMD_INVALID', message }, name)
  }
})

t.test('refuses files without checksum or with a place outside', async (t) => {
  const good = data('primary', {})
  t.doesNotThrow(() => parse(good))
  t.throws(() => parse(good.replace(/<checksum.*checksum>/, '')), { code: 'REPOMD_INVALID', message: /no checksum/ })
  t.throws(() => parse(good.replace(/<location.*>/, '')), { code: 'REPOMD_INVALID', message: /no location/ })
  for (const href of ['/etc/passwd', 'file:///etc/passwd', 'http://elsewhere/p.xml', 'x'.repeat(3000)]) {
    t.throws(() => parse(data('primary', { href })), { code: 'REPOMD_INVALID', message: /not relative/ }, href)
  }
  for (const more of ['<size>-1</size>', '<size>many</size>', '<open-size>9999999999999</open-size>']) {
    t.throws(() => parse(data('primary', { more })), { code: 'REPOMD_INVALID', message: /not a size/ }, more)
  }
})

t.test('knows the checksums that yum knows', async (t) => {
  t.same(parseChecksum('sha', ` ${'A'.repeat(40)}\n`, 'x'), { algorithm: 'sha1', hex: 'a'.repeat(40) })
  for (const [type, hex] of [
    ['crc32', 'abcdef01'],
    ['__proto__', HEX],
    ['sha256', HEX.slice(1)],
    ['sha256', `${HEX.slice(1)}g`],
    ['sha256', undefined],
    [undefined, HEX],
  ] as const) {
    t.throws(
      () => parseChecksum(type, hex, 'the file'),
      { code: 'REPODATA_INVALID', message: /the file/ },
      `${type} ${hex}`,
    )
  }
})

function data(type: string, { href = 'repodata/p.xml.gz', more = '' }: { href?: string; more?: string }): string {
  const checksum = `<checksum type="sha256">${HEX}</checksum>`
  return `<data type="${type}">${checksum}\n<location href="${href}"/>\n${more}</data>`
}

function parse(inner: string): ReturnType<typeof parseRepomd> {
  return parseRepomd(Buffer.from(`<repomd>${inner}</repomd>`), 'x')
}
