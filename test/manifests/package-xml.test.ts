import * as fc from 'fast-check'
import t from 'tap'
import { TableReader } from '../../manifests/package-reader.ts'
import {
  findPackageId,
  readPackageId,
  readPackageStrictly,
  seemsWanted,
  withHref,
  type PackageRow,
} from '../../manifests/package-xml.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import { escapeXml } from '../../manifests/xml.ts'

const HEX = 'ab12'.repeat(16)

t.test('reads what selecting and downloading need', async (t) => {
  const want = {
    name: 'asterisk18',
    epoch: '2',
    version: '18.9.0',
    release: '1.sng7',
    arch: 'x86_64',
    nevra: 'asterisk18-2:18.9.0-1.sng7.x86_64',
    checksum: { algorithm: 'sha256', hex: HEX },
    bytes: 1234,
    href: 'Packages/a/asterisk18-18.9.0-1.sng7.x86_64.rpm',
    fileTime: 1_700_000_000,
  }
  t.same(readPackage(element({}), 'primary'), want)
  t.same(readPackageStrictly(element({}), 'primary').row, want)
  const ids = poolOf(HEX)
  for (const hex of [HEX, HEX.toUpperCase(), ` ${HEX}\n`]) t.ok(seemsWanted(element({ hex }), ids))
  for (const hex of ['', HEX.slice(1), 'x']) t.notOk(seemsWanted(element({ hex }), ids))
  t.notOk(seemsWanted(Buffer.from('<package/>'), ids))
})

t.test('reads the same quickly and strictly, however the upstream writes it', async () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'Z', '0', '9', '.', '_', '+'), minLength: 1, maxLength: 20 })
  const href = fc.string({ unit: fc.constantFrom('a', '/', '&', '<', '"', "'", 'é', '%', ' ', '~', '>'), minLength: 1 })
  const number = fc.nat({ max: 2 ** 31 - 1 }).map(String)
  const spelling = fc.constantFrom('plain', 'single', 'spaced', 'comment', 'cdata', 'numeric', 'swapped')
  fc.assert(
    fc.property(word, word, word, href, number, number, spelling, (name, ver, rel, href, size, time, how) => {
      const bytes = element({ name, ver, rel, href, size, time }, how)
      const [quick, strict] = [
        attempt(() => readPackage(bytes, 'x')),
        attempt(() => readPackageStrictly(bytes, 'x').row),
      ]
      if (quick !== strict) throw new Error(`${bytes.toString()}: ${quick} is not ${strict}`)
      return how === 'numeric' || quick.includes(JSON.stringify(href))
    }),
    { numRuns: 500 },
  )
})

t.test('parses only where an element is unusual', async (t) => {
  const usual = element({ format: `<rpm:requires>${'<rpm:entry name="x"/>'.repeat(20)}</rpm:requires>` })
  const base = element({ base: 'http://x/', href: 'a.rpm' })
  const reader = new TableReader(new StringPool(), 'x')
  for (const one of [usual, base, element({ href: 'a&b.rpm' })]) reader.add(one)
  t.equal(reader.strictCount, 0)
  reader.add(Buffer.from(text(usual).replace('<format>', '<!-- <format> --><format>')))
  t.equal(reader.strictCount, 1)
})

t.test('takes the sha of old repositories for sha1, and the others', async (t) => {
  for (const [type, algorithm, digits] of [
    ['sha', 'sha1', 40],
    ['sha1', 'sha1', 40],
    ['md5', 'md5', 32],
    ['sha384', 'sha384', 96],
    ['sha512', 'sha512', 128],
  ] as const) {
    const found = readPackage(element({ type, hex: 'a'.repeat(digits) }), 'x').checksum
    t.same(found, { algorithm, hex: 'a'.repeat(digits) })
  }
})

t.test('puts the place together where an xml:base stands', async (t) => {
  const base = element({ href: 'p/a b.rpm', base: 'http://user@vendor.example/os' })
  t.equal(readPackage(base, 'x').href, 'http://user@vendor.example/os/p/a%20b.rpm')
  t.equal(readPackage(element({ href: 'bind-32:9.11.rpm' }), 'x').href, './bind-32:9.11.rpm', 'an epoch is no scheme')
})

t.test('refuses fields that are missing, twice or impossible', async (t) => {
  for (const [name, fields] of Object.entries({
    name: { name: '' },
    nameWithSlash: { name: '../x' },
    arch: { arch: 'x86-64' },
    epoch: { epoch: '-1' },
    version: { ver: '1-2' },
    release: { rel: '' },
    type: { type: 'crc32' },
    hex: { hex: 'abc' },
    size: { size: '1e3' },
    hugeSize: { size: '99999999999' },
    time: { time: 'yesterday' },
    href: { href: '' },
    longHref: { href: 'x'.repeat(3000) },
    base: { base: 'nonsense' },
  })) {
    t.throws(() => readPackage(element(fields), 'the list'), { code: 'REPODATA_INVALID', message: /the list/ }, name)
    t.throws(() => readPackageStrictly(element(fields), 'the list'), { code: 'REPODATA_INVALID' }, `${name}, strictly`)
  }
  for (const tag of ['name', 'arch', 'version', 'checksum', 'size', 'location']) {
    const without = text(element({})).replace(new RegExp(`<${tag}[ >].*\\n`), '')
    t.throws(() => readPackage(Buffer.from(without), 'x'), { code: 'REPODATA_INVALID' }, `without ${tag}`)
    const line = new RegExp(`.*<${tag}[ >].*\\n`).exec(text(element({})))![0]
    const twice = text(element({})).replace(line, line + line)
    t.throws(() => readPackageStrictly(Buffer.from(twice), 'x'), { code: 'REPODATA_INVALID' }, `${tag} twice`)
  }
})

t.test('is not fooled by an element inside another where it counts', async (t) => {
  const decoy = text(element({}))
    .replace('<format>', '<format><location href="evil.rpm"/>')
    .replace(/ {2}<location.*\n/, '')
  const bytes = Buffer.from(decoy.replace('</package>', '<location href="good.rpm"/></package>'))
  t.equal(readPackageStrictly(bytes, 'x').row.href, 'good.rpm')
  t.match(moved(bytes, 'new.rpm'), /<format><location href="evil.rpm"\/>[^]*<location href="new.rpm"\/>/)
})

t.test('reads relations and the files that primary has', async (t) => {
  const format = `<rpm:provides><rpm:entry name="x" flags="EQ" epoch="1" ver="2" rel="3"/><rpm:entry name="y"/></rpm:provides>
    <rpm:requires><rpm:entry name="/bin/sh" pre="1"/><rpm:entry name="a &gt; b" flags="GE" ver="1"/></rpm:requires>
    <rpm:obsoletes><rpm:entry name="old" flags="LT" epoch="0" ver="4"/></rpm:obsoletes>
    <file>/etc/x</file><file type="dir">/etc/d&amp;</file>`
  const found = readPackageStrictly(element({ format }), 'x')
  t.same(found.provides, [{ name: 'x', flags: 'EQ', epoch: '1', version: '2', release: '3' }, { name: 'y' }])
  t.same(found.requires, [{ name: '/bin/sh' }, { name: 'a > b', flags: 'GE', epoch: '0', version: '1', release: '' }])
  t.same(found.obsoletes, [{ name: 'old', flags: 'LT', epoch: '0', version: '4', release: '' }])
  t.same(found.files, ['/etc/x', '/etc/d&'])
  t.throws(() => readPackageStrictly(element({ format: '<rpm:provides><rpm:entry/></rpm:provides>' }), 'x'), {
    code: 'REPODATA_INVALID',
  })
})

t.test('needs neither a format nor a time', async (t) => {
  const bytes = Buffer.from(
    text(element({}))
      .replace(/ {2}<format>.*\n/, '')
      .replace(/ {2}<time.*\n/, ''),
  )
  t.match(readPackage(bytes, 'x'), { name: 'asterisk18', fileTime: 0 })
  t.match(readPackageStrictly(bytes, 'x'), { provides: [], requires: [], obsoletes: [], files: [] })
})

t.test('changes nothing but the place', async (t) => {
  const before = text(element({ base: 'http://vendor.example/', summary: 'grüße &amp; \u{1f600}' }))
  const after = moved(Buffer.from(before), 'a&b.rpm')
  t.equal(after, before.replace(/<location [^>]*>/, '<location href="a&amp;b.rpm"/>'))
  const closed = before.replace(/<location ([^>]*)\/>/, '<location $1></location>')
  t.match(moved(Buffer.from(closed), 'a.rpm'), /<location href="a.rpm"><\/location>/)
})

function readPackage(bytes: Buffer, what: string): PackageRow {
  const reader = new TableReader(new StringPool(), what)
  reader.add(bytes)
  return reader.last().row
}

function moved(bytes: Buffer, href: string): string {
  return withHref(bytes, readPackageStrictly(bytes, 'x').location, href).toString()
}

function poolOf(...texts: string[]): StringPool {
  const pool = new StringPool()
  for (const text of texts) pool.intern(text)
  return pool
}

t.test('reads the package id of the other lists', async (t) => {
  t.equal(readPackageId(Buffer.from(`<package pkgid="${HEX}" name="a" arch="b">\n</package>`), 'x'), HEX)
  for (const [hex, isThere] of [
    [HEX, true],
    ['0'.repeat(64), false],
  ] as const) {
    for (const tag of [`<package pkgid="${hex}">`, `<package pkgid='${hex.toUpperCase()}'>`]) {
      t.equal(findPackageId(Buffer.from(`${tag}</package>`), poolOf('a', HEX), 'x'), isThere ? 2 : undefined)
    }
  }
  t.equal(readPackageId(Buffer.from(`<package name='>' pkgid='${HEX.toUpperCase()}'/>`), 'x'), HEX)
  for (const tag of ['<package/>', '<package pkgid=""/>', '<package pkgid="nothex"/>']) {
    t.throws(() => readPackageId(Buffer.from(tag), 'x'), { code: 'REPODATA_INVALID' }, tag)
    t.throws(() => findPackageId(Buffer.from(tag), poolOf(HEX), 'x'), { code: 'REPODATA_INVALID' }, tag)
  }
  t.throws(() => readPackageId(Buffer.from(`<package pkgid='${HEX}' pkgid='${HEX}'/>`), 'x'), { code: 'XML_INVALID' })
})

type Fields = Partial<
  Record<
    | 'name'
    | 'arch'
    | 'epoch'
    | 'ver'
    | 'rel'
    | 'type'
    | 'hex'
    | 'size'
    | 'time'
    | 'href'
    | 'base'
    | 'format'
    | 'summary',
    string
  >
>

function element(fields: Fields, how = 'plain'): Buffer {
  const { name = 'asterisk18', arch = 'x86_64', epoch = '2', ver = '18.9.0', rel = '1.sng7', type = 'sha256' } = fields
  const { hex = HEX, size = '1234', time = '1700000000', format = '', summary = 'x' } = fields
  const { href = 'Packages/a/asterisk18-18.9.0-1.sng7.x86_64.rpm', base } = fields
  const e = escapeXml
  const tags = [
    `  <version epoch="${epoch}" ver="${ver}" rel="${rel}"/>`,
    `  <checksum type="${type}" pkgid="YES">${hex}</checksum>`,
    `  <summary>${summary}</summary>`,
    '  <description>y &lt; z</description>',
    '  <packager/>',
    '  <url>http://x/?y</url>',
    `  <time file="${time}" build="1"/>`,
    `  <size package="${size}" installed="5" archive="6"/>`,
    `  <location${base === undefined ? '' : ` xml:base="${base}"`} href="${e(href)}"/>`,
    `  <format>${format}</format>`,
  ]
  if (how === 'swapped') tags.reverse()
  const nameText = how === 'numeric' ? name.replace('a', '&#97;') : how === 'cdata' ? `<![CDATA[${name}]]>` : name
  const lines = [
    '<package type="rpm">',
    `  <name>${nameText}</name>`,
    `  <arch>${arch}</arch>`,
    ...tags,
    '</package>\n',
  ]
  const plain = lines.join('\n')
  if (how === 'single') return Buffer.from(plain.replace(/="([^"']*)"/g, "='$1'"))
  if (how === 'spaced') return Buffer.from(plain.replace(/="/g, ' = "').replace(/<(\w+) /g, '<$1\n'))
  if (how === 'comment') return Buffer.from(plain.replace('<name>', '<!-- <name>no</name> --><name>'))
  return Buffer.from(plain)
}

function text(bytes: Buffer): string {
  return bytes.toString('utf8')
}

function attempt(read: () => unknown): string {
  try {
    return JSON.stringify(read())
  } catch (error) {
    return `${(error as { code: string }).code}: ${(error as Error).message}`
  }
}
