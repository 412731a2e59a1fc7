import * as fc from 'fast-check'
import t from 'tap'
import {
  packageRow,
  pathsOf,
  relationsOf,
  TableBuilder,
  type RepositoryTable,
} from '../../manifests/package-columns.ts'
import { TableReader } from '../../manifests/package-reader.ts'
import { RELATION_KINDS, StringPool, type RelationKind } from '../../manifests/package-table.ts'
import { readPackageStrictly, type PackageRow } from '../../manifests/package-xml.ts'
import type { Relation } from '../../manifests/rpm-version.ts'
import { escapeXml } from '../../manifests/xml.ts'

const HEX = 'ab12'.repeat(16)

t.test('reads a package of primary into columns', async (t) => {
  const format = `<rpm:license>MIT</rpm:license><rpm:vendor/><rpm:header-range start="1" end="2"/>
    <rpm:provides><rpm:entry name="x" flags="EQ" epoch="1" ver="2" rel="3"/><rpm:entry name="y"/></rpm:provides>
    <rpm:requires><rpm:entry name="/bin/sh" pre="1"/><rpm:entry name="(a &gt;= 1 if b)"/></rpm:requires>
    <rpm:conflicts><rpm:entry name="c" flags="GT" epoch="0" ver="1"/></rpm:conflicts>
    <rpm:obsoletes><rpm:entry name="old" flags="LT" epoch="0" ver="4"/></rpm:obsoletes>
    <rpm:recommends><rpm:entry name="r"/></rpm:recommends><rpm:suggests><rpm:entry name="s"/></rpm:suggests>
    <rpm:supplements><rpm:entry name="u"/></rpm:supplements><rpm:enhances><rpm:entry name="e"/></rpm:enhances>
    <file>/etc/x</file><file type="dir">/etc/d&amp;é</file>`
  const { facts, strictCount } = read([element({ format }), element({ name: 'other' })])
  t.equal(strictCount, 0)
  t.same(facts[0], {
    row: {
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
    },
    provides: [{ name: 'x', flags: 'EQ', epoch: '1', version: '2', release: '3' }, { name: 'y' }],
    requires: [{ name: '/bin/sh' }, { name: '(a >= 1 if b)' }],
    obsoletes: [{ name: 'old', flags: 'LT', epoch: '0', version: '4', release: '' }],
    conflicts: [{ name: 'c', flags: 'GT', epoch: '0', version: '1', release: '' }],
    recommends: [{ name: 'r' }],
    supplements: [{ name: 'u' }],
    files: ['/etc/x', '/etc/d&é'],
  })
  t.equal(facts[1]!.row.name, 'other')
  t.same(facts[1]!.requires, [])
})

t.test('reads the same from an element as a parser, however it is written', async (t) => {
  const seen = { quickly: 0, strictly: 0, refused: 0 }
  fc.assert(
    fc.property(fc.array(elements(), { minLength: 1, maxLength: 2 }), (texts) => {
      let strictCount = -1
      const quick = attempt(() => {
        const found = read(texts)
        strictCount = found.strictCount
        return found.facts
      })
      const strict = attempt(() => readStrictly(texts))
      seen[strictCount < 0 ? 'refused' : strictCount === 0 ? 'quickly' : 'strictly']++
      if (quick !== strict) throw new Error(`${texts.join('\n')}\n\n${quick}\n\n${strict}`)
    }),
    { numRuns: 600 },
  )
  for (const [how, count] of Object.entries(seen)) t.ok(count > 60, `${count} ${how}`)
})

t.test('leaves to the parser, and so refuses or reads, what plays tricks', async (t) => {
  const entry = (attributes: string): string => `<rpm:requires><rpm:entry ${attributes}/></rpm:requires>`
  const read1 = (format: string): Facts => read([element({ format })]).facts[0]!
  t.same(read1(entry('__proto__="a" name="b" constructor="c"')).requires, [{ name: 'b' }])
  t.same(read1(entry('name="&#97;b"')).requires, [{ name: 'ab' }])
  t.same(read1('<file><![CDATA[/a&b]]><!-- c --></file>').files, ['/a&b'])
  t.equal(read([element({ more: '<!-- <name>no</name> -->' })]).strictCount, 1)
  const refused: [string, string, string][] = [
    ['an attribute twice', entry('name="a" name="b"'), 'XML_INVALID'],
    ['an unknown entity', entry('name="&no;"'), 'XML_INVALID'],
    ['an entity that does not end', entry('name="a&amp"'), 'XML_INVALID'],
    ['a tag in an attribute', entry('name="a<b"'), 'XML_INVALID'],
    ['an entry without name', entry('flags="EQ"'), 'REPODATA_INVALID'],
    ['a list twice', '<rpm:requires/><rpm:requires/>', 'REPODATA_INVALID'],
    ['a text that is too long', entry(`name="${'x'.repeat(70_000)}"`), 'XML_INVALID'],
    ['deep nesting', '<a>'.repeat(100), 'XML_INVALID'],
  ]
  for (const [what, format, code] of refused) t.throws(() => read1(format), { code }, what)
  t.throws(() => read([element({ more: '<format/>' })]), { code: 'REPODATA_INVALID' }, 'a second format')
  for (const bytes of ['\xff', '\xc0\x80', '\xed\xa0\x80']) {
    for (const field of ['description', 'format'] as const) {
      const text = element({ [field]: field === 'format' ? '<file>/a?</file>' : 'a?' })
      const broken = Buffer.from(Buffer.from(text).toString('latin1').replace('a?', `a${bytes}`), 'latin1')
      const reader = new TableReader(new StringPool(), 'primary')
      t.throws(() => reader.add(broken), { code: 'XML_INVALID' }, `not UTF-8 in ${field}`)
    }
  }
})

t.test('takes back what it read of an element before it went to the parser', async (t) => {
  const format = '<rpm:provides><rpm:entry name="p"/></rpm:provides><file>/etc/a</file>'
  const late = element({ format: `${format}<!-- late -->` })
  const { facts, strictCount } = read([element({ name: 'first', format }), late, element({ name: 'last', format })])
  t.equal(strictCount, 1)
  t.same(
    facts.map(({ row, provides, files }) => [row.name, provides.length, files.length]),
    [
      ['first', 1, 1],
      ['asterisk18', 1, 1],
      ['last', 1, 1],
    ],
  )
})

t.test('has limits for all packages together', async (t) => {
  const add = (format: string) => () => {
    const builder = new TableBuilder(new StringPool(), 'the list', { relations: 10, files: 10 })
    for (let i = 0; i < 6; i++) builder.addStrict(readPackageStrictly(Buffer.from(element({ format })), 'the list'))
  }
  const entries = '<rpm:entry name="a"/><rpm:entry name="b"/>'
  t.throws(add(`<rpm:provides>${entries}</rpm:provides>`), {
    code: 'REPODATA_INVALID',
    message: /more than 10 relations/,
  })
  t.throws(add('<file>/a</file><file>/b</file>'), { code: 'REPODATA_INVALID', message: /more than 10 files/ })
})

t.test('reads 30,000 packages of one name, and a thousand provides of one name, as quickly as others', async (t) => {
  const entry = (name: string): string => `<rpm:entry name="${name}" flags="EQ" epoch="0" ver="1"/>`
  const documentOf = (nameOf: (i: number) => string): Buffer[] =>
    Array.from({ length: 30_000 }, (_, i) => {
      const provided = i % 1000 === 0 ? Array.from({ length: 1000 }, (_, j) => entry(nameOf(j))).join('') : ''
      const format = `<rpm:provides>${provided}</rpm:provides>`
      return Buffer.from(element({ name: nameOf(i), evr: `epoch="0" ver="1.${i}" rel="1"`, format }))
    })
  const secondsOf = (elements: Buffer[]): number => {
    const before = process.threadCpuUsage()
    const reader = new TableReader(new StringPool(), 'primary')
    for (const one of elements) reader.add(one)
    const { count, provides } = reader.table()
    t.same([count, provides.name.length, reader.strictCount], [30_000, 30_000, 0])
    const { user, system } = process.threadCpuUsage(before)
    return (user + system) / 1e6
  }
  const [same, different] = [documentOf(() => 'one'), documentOf((i) => `package-${i}`)]
  secondsOf(same)
  t.ok(secondsOf(same) < 3 * secondsOf(different))
})

/** The fields of an element, raw as they stand between quotes or tags. */
interface Fields {
  name?: string
  arch?: string
  evr?: string
  type?: string
  hex?: string
  size?: string
  time?: string
  description?: string
  location?: string
  format?: string
  more?: string
}

function element(fields: Fields): string {
  const { name = 'asterisk18', arch = 'x86_64', evr = 'epoch="2" ver="18.9.0" rel="1.sng7"', more = '' } = fields
  const { type = 'sha256', hex = HEX, size = '1234', time = '1700000000', format = '' } = fields
  const { description = 'It\'s "d" &amp; é' } = fields
  const { location = 'href="Packages/a/asterisk18-18.9.0-1.sng7.x86_64.rpm"' } = fields
  return `<package type="rpm">
  <name>${name}</name>
  <arch>${arch}</arch>
  <version ${evr}/>
  <checksum type="${type}" pkgid="YES">${hex}</checksum>
  <summary>s</summary>
  <description>${description}</description>
  <packager/>
  <url>http://x/</url>
  <time file="${time}" build="1"/>
  <size package="${size}" installed="2" archive="3"/>
  <location ${location}/>${more}
  <format>${format}</format>
</package>`
}

interface Facts extends Record<RelationKind, Relation[]> {
  row: PackageRow
  files: string[]
}

function factsOf(table: RepositoryTable): Facts[] {
  return Array.from({ length: table.count }, (_, i) => {
    const relations = RELATION_KINDS.map((kind) => [kind, relationsOf(table, kind, i)])
    return {
      row: packageRow(table, i),
      ...(Object.fromEntries(relations) as Record<RelationKind, Relation[]>),
      files: pathsOf(table, i),
    }
  })
}

function read(elements: string[]): { facts: Facts[]; strictCount: number } {
  const reader = new TableReader(new StringPool(), 'primary')
  for (const text of elements) reader.add(Buffer.from(text))
  const facts = factsOf(reader.table())
  return { facts, strictCount: reader.strictCount }
}

function readStrictly(elements: string[]): Facts[] {
  const builder = new TableBuilder(new StringPool(), 'primary')
  for (const text of elements) builder.addStrict(readPackageStrictly(Buffer.from(text), 'primary'))
  return factsOf(builder.finish())
}

function attempt(read: () => unknown): string {
  try {
    return JSON.stringify(read())
  } catch (error) {
    return String((error as { code?: string }).code)
  }
}

/** Elements with everything that could be read in two ways. */
function elements(): fc.Arbitrary<string> {
  const text = fc
    .array(
      fc.oneof(
        { weight: 60, arbitrary: fc.constantFrom('a', '1', '.', '-', '_', '/', ':', '+', '~', 'Z', ' ', '%') },
        {
          weight: 2,
          arbitrary: fc.constantFrom(
            '&amp;',
            '&lt;',
            '&#65;',
            '&#x10;',
            '&apos;',
            '&quot;',
            'é',
            '\u{1f600}',
            '>',
            "'",
          ),
        },
        {
          weight: 1,
          arbitrary: fc.constantFrom('\n', '\t', ']]>', '&no;', '&', '&amp', '\u0001', '\u0085', '\ufffe', '\r\n'),
        },
      ),
      { maxLength: 8 },
    )
    .map((all) => all.join(''))
  const word = fc.stringMatching(/^[A-Za-z0-9_.+]{1,6}$/)
  const value = fc.oneof({ weight: 6, arbitrary: word }, { weight: 1, arbitrary: text })
  const number = fc.oneof(fc.nat().map(String), fc.constantFrom('0', '007', '', '-1', '2147483648', '1e3', ' 1'))
  const often = <T>(usual: T, ...others: fc.Arbitrary<T>[]): fc.Arbitrary<T> =>
    fc.oneof({ weight: 40, arbitrary: fc.constant(usual) }, ...others.map((arbitrary) => ({ weight: 1, arbitrary })))
  const quoted = (one: fc.Arbitrary<string>): fc.Arbitrary<string> =>
    fc.tuple(one, often('"', fc.constant("'"))).map(([inner, quote]) => `${quote}${inner}${quote}`)
  const attribute = (name: string, of: fc.Arbitrary<string>): fc.Arbitrary<string> =>
    fc
      .tuple(quoted(of), often('=', fc.constant(' = ')), often(' ', fc.constantFrom('  ', '\n')))
      .map(([inner, equals, space]) => `${space}${name}${equals}${inner}`)
  const attributes = (all: Record<string, fc.Arbitrary<string>>): fc.Arbitrary<string> =>
    fc
      .shuffledSubarray(Object.keys(all), { minLength: 1 })
      .chain((names) => fc.tuple(...names.map((name) => attribute(name, all[name]!))))
      .map((parts) => parts.join(''))
  const entry = attributes({
    name: value,
    flags: fc.constantFrom('EQ', 'LT', 'LE', 'GT', 'GE', 'XX', ''),
    epoch: number,
    ver: value,
    rel: value,
    pre: fc.constant('1'),
    ['__proto__']: word,
  }).map((inner) => `<rpm:entry${inner}/>`)
  const usualEntry = fc
    .tuple(value, fc.constantFrom('EQ', 'GE', 'LT'), word)
    .map(([name, flags, ver]) => `<rpm:entry name="${escapeXml(name)}" flags="${flags}" epoch="0" ver="${ver}"/>`)
  const kind = fc.constantFrom(...RELATION_KINDS, 'suggests', 'enhances')
  const list = fc
    .tuple(kind, fc.array(fc.oneof({ weight: 5, arbitrary: usualEntry }, entry), { maxLength: 3 }))
    .map(([of, entries]) => `<rpm:${of}>${entries.join('\n')}</rpm:${of}>`)
  const part = fc.oneof(
    { weight: 12, arbitrary: list },
    { weight: 9, arbitrary: text.map((path) => `<file>${path}</file>`) },
    fc.constantFrom(
      '<file type="dir">/etc/d</file>',
      '<file/>',
      '<file></file>',
      '<file type="a" type="b">x</file>',
      '<file>/a<!-- b -->c</file>',
      '<file><![CDATA[/a<b]]></file>',
      '<rpm:provides/>',
      '<rpm:requires></rpm:requires>',
      '<rpm:requires><other/></rpm:requires>',
      '<rpm:requires><rpm:entry name="a"></rpm:entry ></rpm:requires>',
      '<rpm:header-range start="1" end="2"></rpm:header-range>',
      '<rpm:license>a</rpm:license>',
      '<rpm:unknown a="b"/>',
      '<?x y?>',
      'text',
    ),
  )
  const format = fc.array(part, { maxLength: 4 }).map((parts) => parts.join('\n'))
  const record = fc.record({
    name: often('a', word, text),
    arch: often('noarch', word, text),
    evr: often('epoch="0" ver="1" rel="2"', attributes({ epoch: number, ver: value, rel: value })),
    type: often('sha256', fc.constantFrom('sha', 'sha1', 'md5', 'crc32', '__proto__', 'toString')),
    hex: often(HEX, fc.constantFrom('a'.repeat(40), 'b'.repeat(32), HEX.toUpperCase(), ` ${HEX} `, '')),
    size: often('7', number),
    time: often('7', number),
    location: often('href="a.rpm"', attributes({ href: value, 'xml:base': fc.constantFrom('http://x/', 'x', '') })),
    description: fc.oneof(fc.constant('a &lt; b\n- c'), text),
    more: often(
      '',
      fc.constantFrom('<name>b</name>', '<location href="b"/>', '<x/>', '<!-- c -->', '<format/>', 'text'),
    ),
    format,
  })
  return record.map(element)
}
