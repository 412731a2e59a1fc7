import * as fc from 'fast-check'
import t from 'tap'
import {
  parseModuleFeed,
  tagAnswer,
  writeModuleList,
  type ModuleEntry,
  type ModuleFeed,
} from '../../manifests/module-feed.ts'

const SHA1 = 'a'.repeat(40)
const SIGNED = `<signed><type>gpg</type><sha1>${'b'.repeat(40)}</sha1></signed>`

/** The fields of an entry; `more` is put as it is. */
const fields = (rawname: string, version: string, more = ''): string =>
  `<rawname>${rawname}</rawname><version>${version}</version><location>packages/${rawname}/${rawname}-${version}.tgz</location>${more}`
const module = (rawname: string, version: string, more = ''): string =>
  `<module>${fields(rawname, version, more)}</module>`

const LIST = `<?xml version="1.0" encoding="UTF-8"?>
<xml>
  <module>
    <rawname>framework</rawname>
    <repo>standard</repo><name>FreePBX Framework</name>
    <version>16.0.40</version><license>GPLv2+</license>
    <location>packages/framework/framework-16.0.40.tgz.gpg</location>
    ${SIGNED}
    <md5sum>${'c'.repeat(32)}</md5sum><sha1sum>${SHA1}</sha1sum>
    <depends><phpversion>7.4.0</phpversion><phpcomponent>openssl</phpcomponent><file>/usr/bin/x</file><odd>y</odd></depends>
    <unheard-of kind="x">kept &amp; <![CDATA[<as it is>]]></unheard-of>
  </module>
  ${module('core', '16.0.68', '<depends><version>16.0.2</version><module>framework ge 16.0.40</module><module>x</module><module/></depends>')}
  ${module('endpoint', '16.0.90', '<commercial><type>paid</type></commercial><breaking><module><rawname>oldone</rawname><type>conflict</type><version>lt 3</version></module></breaking>')}
  ${module('ivr', '16.0.5')}
  <edge>
    <core>${fields('core', '16.0.70', '<track>edge</track>')}</core>
    <ivr>${fields('ivr', '16.0.6')}</ivr>
  </edge>
  <beta>
    <core>${fields('core', '16.0.71', '<releasetracktype>beta</releasetracktype>')}</core>
    <core>${fields('core', '16.0.72', '<releasetracktype>nightly</releasetracktype>')}</core>
  </beta>
  <previous>
    <core><releases>${module('core', '16.0.66')}${module('core', '16.0.64')}</releases></core>
    <ivr><releases>${module('ivr', '16.0.4')}</releases></ivr>
  </previous>
  <security>
    <issue><id>SEC-2026-1</id><versions><v15.0><vulnerable>yes</vulnerable><fixes><core>15.0.9</core></fixes></v15.0><v16.0><vulnerable>Yes</vulnerable><fixes><core>16.0.60</core><ivr> 16.0.3 </ivr></fixes></v16.0></versions></issue>
    <issue><id>SEC-2026-2</id><versions><v15.0><vulnerable>no</vulnerable></v15.0></versions></issue>
  </security>
  <expired>opaque &lt;module&gt;</expired>
</xml>
`
const feed = parse(LIST)

t.test('reads what a list says of each module', async (t) => {
  t.strictSame(feed.entries.map(label), [
    ...['module framework 16.0.40', 'module core 16.0.68', 'module endpoint 16.0.90', 'module ivr 16.0.5'],
    ...['edge core 16.0.70', 'edge ivr 16.0.6', 'beta core 16.0.71', 'beta core 16.0.72'],
    ...['previous core 16.0.66', 'previous core 16.0.64', 'previous ivr 16.0.4'],
  ])
  t.strictSame(feed.problems, [])
  const [framework, core, endpoint] = feed.entries
  t.match(framework, {
    name: 'FreePBX Framework',
    repo: 'standard',
    license: 'GPLv2+',
    commercial: false,
    location: 'packages/framework/framework-16.0.40.tgz.gpg',
    md5: 'c'.repeat(32),
    sha1: SHA1,
    signedSha1: 'b'.repeat(40),
    breaking: [],
  })
  t.strictSame(framework!.depends, {
    ...{ version: [], phpversion: ['7.4.0'], phpcomponent: ['openssl'], module: [], file: ['/usr/bin/x'], engine: [] },
    unknown: ['odd: y'],
  })
  t.strictSame(core!.depends.module, ['framework ge 16.0.40', 'x', ''])
  t.strictSame(core!.depends.version, ['16.0.2'])
  t.equal(core!.signedSha1, undefined)
  t.equal(endpoint!.commercial, true)
  t.strictSame(endpoint!.breaking, [{ rawname: 'oldone', type: 'conflict', version: 'lt 3' }])
})

t.test('reads the security issues of a major', async (t) => {
  const issues = (major?: number): unknown[] =>
    parseModuleFeed(Buffer.from(LIST), 'a list', major).issues.map((one) => [one.id, one.vulnerable, [...one.fixes]])
  t.strictSame(issues(16), [
    [
      'SEC-2026-1',
      true,
      [
        ['core', '16.0.60'],
        ['ivr', '16.0.3'],
      ],
    ],
    ['SEC-2026-2', undefined, []],
  ])
  t.strictSame(issues(15), [
    ['SEC-2026-1', true, [['core', '15.0.9']]],
    ['SEC-2026-2', false, []],
  ])
  t.equal(issues().length, 2)
})

t.test('leaves out an entry that a box could not use, and says so', async (t) => {
  const bad: [string, string, RegExp][] = [
    [
      'no rawname',
      '<module><version>1.0</version><location>a.tgz</location></module>',
      /module "\?": has no <rawname>/,
    ],
    ['a path', module('../etc', '1.0'), /"\.\.\/etc": its <rawname>/],
    ['two rawnames', module('bad', '1.0', '<rawname>other</rawname>'), /has 2 <rawname>/],
    ['no version', '<module><rawname>bad</rawname><location>a.tgz</location></module>', /"bad": has no <version>/],
    ['version 0', module('bad', '0'), /has no <version>/],
    ['an absurd version', module('bad', '1.0; reboot'), /its <version> "1\.0; reboot" is not one/],
    ['a long version', module('bad', `1.${'0'.repeat(100)}`), /its <version> "1\.0+…" is not one/],
    ['blanks around', module('bad', ' 1.0 '), /its <version>/],
    ['no location', '<module><rawname>bad</rawname><version>1</version></module>', /"bad": has no <location>/],
    ['upwards', located('packages/../../etc/passwd'), /its <location> .* is not a path/],
    ['absolute', located('/etc/passwd'), /its <location>/],
    ['a query', located('a.tgz?x=1'), /its <location>/],
    ['elsewhere', located('https://store.example/a.tgz'), /lies elsewhere, "https:\/\/store\.example\/a\.tgz"/],
    ['http', located('http://store.example/a.tgz'), /its <location>/],
    ['md5 in capitals', module('bad', '1.0', `<md5sum>${'C'.repeat(32)}</md5sum>`), /its <md5sum>/],
    ['a short sha1', module('bad', '1.0', '<sha1sum>abc</sha1sum>'), /its <sha1sum> "abc" is not 40 hex digits/],
    ['signed without sum', module('bad', '1.0', '<signed><type>gpg</type></signed>'), /says that it is signed/],
    ['signed twice', module('bad', '1.0', SIGNED + SIGNED), /has 2 <signed>/],
    [
      'a bomb of depends',
      module('bad', '1.0', `<depends>${'<module>x</module>'.repeat(501)}</depends>`),
      /more than 500/,
    ],
    ['the second of its name', module('core', '99.0'), /module "core": 99\.0 is there beside another one/],
    ['a second section', '<previous/>', /a second <previous>/],
    [
      'edge of another name',
      `<edge><core>${fields('ivr', '1.0')}</core></edge>`,
      /a second <edge>|stands under the name/,
    ],
  ]
  for (const [name, element, problem] of bad) {
    const list = LIST.replace('  <expired>', `  ${element}\n  <expired>`)
    const found = parse(list)
    t.strictSame(found.entries.map(label), feed.entries.map(label), name)
    t.equal(found.problems.length, 1, name)
    t.match(found.problems[0], problem, name)
    t.match(found.problems[0], /: left out$/, name)
    const all = found.entries.filter((entry) => entry.section === 'module').map((entry) => ({ entry, feed: found }))
    t.notOk(String(writeModuleList(found, all)).includes(element), `${name}: not served`)
  }
})

t.test('leaves out what a box does not find in edge, beta and previous', async (t) => {
  const found = parse(`<xml>${module('core', '1.0')}
    <edge><core>${fields('core', '2.0')}</core><core>${fields('core', '3.0')}</core><ivr>${fields('other', '1.0')}</ivr></edge>
    <beta><core>${fields('core', '2.0')}</core><core>${fields('core', '2.0')}</core></beta>
    <previous><core><releases/><releases>${module('core', '0.1')}</releases></core><ivr>${module('ivr', '1.0')}</ivr></previous>
  </xml>`)
  t.strictSame(found.entries.map(label), ['module core 1.0', 'beta core 2.0'])
  t.match(found.problems, [
    /^edge "core": stands there more than once: left out$/,
    /^edge "core"/,
    /^edge "ivr": stands under the name of "ivr": left out$/,
    '3 more entries of edge, beta and previous are left out',
  ])
})

t.test('tells no more problems than a person reads', async (t) => {
  const list = `<xml>${module('core', '1.0')}${'<module/>'.repeat(500)}</xml>`
  const { problems } = parse(list)
  t.equal(problems.length, 51)
  t.equal(problems[50], '450 more entries are left out')
})

t.test('refuses what is no list, and says what came', async (t) => {
  const bad: [string, string | Buffer, RegExp][] = [
    ['nothing', '', /a list: is empty/],
    ['a page', '<!DOCTYPE html><html><body>Sign in</body></html>', /document type; it starts with "<!DOCTYPE html/],
    ['a page that is XML', '<html><body>Sign in</body></html>', /expected <xml>, found <html>/],
    ['text', 'Service unavailable', /it starts with "Service unavailable"/],
    ['cut off', LIST.slice(0, 2000), /not well-formed/],
    ['no module', '<xml><security/></xml>', /holds no <module>/],
    ['no usable module', '<xml><module/><module/></xml>', /holds no usable <module>: module "\?": has no <rawname>/],
    ['no text', Buffer.from([0xff, 0xfe, 0x3c]), /UTF-8/],
    ['too large', Buffer.alloc(16 * 1024 * 1024 + 1, ' '), /larger than 16777216 bytes/],
    ['endless', `<xml>${'<a/>'.repeat(300_000)}</xml>`, /more than 300000 elements/],
    ['a bomb', `<!DOCTYPE x [<!ENTITY a "b">]><xml>${module('core', '1')}</xml>`, /document type/],
    [
      'issues',
      `<xml>${module('core', '1')}<security>${'<issue/>'.repeat(5001)}</security></xml>`,
      /5000 security issues/,
    ],
  ]
  for (const [name, list, message] of bad) {
    const parsing = (): unknown => parseModuleFeed(Buffer.from(list), 'a list')
    t.throws(parsing, { code: 'MODULE_LIST_INVALID', message }, name)
  }
  const many = Array.from({ length: 10_001 }, (_, i) => module(`m${i}`, '1')).join('')
  t.throws(() => parse(`<xml>${many}</xml>`), { code: 'MODULE_LIST_INVALID', message: /more than 10000 modules/ })
})

t.test('cuts out what is not listed, and leaves the rest letter by letter', async (t) => {
  const listed = pick('module framework 16.0.40', 'module ivr 16.0.5')
  const text = String(writeModuleList(feed, listed))
  const gone = (pattern: RegExp | string): void => void (shorter = shorter.replace(pattern, ''))
  let shorter = LIST
  gone(/\s+<module><rawname>core.*/)
  gone(/\s+<module><rawname>endpoint.*/)
  gone(/\s+<core>.*16\.0\.70.*/)
  gone(/\s+<ivr>.*16\.0\.6<.*/)
  gone(/\s+<core>.*16\.0\.71.*/)
  gone(/\s+<core>.*16\.0\.72.*/)
  gone(/\s+<core><releases>.*/)
  gone(/\s+<ivr><releases>.*/)
  t.equal(text, shorter)
  t.match(text, '<unheard-of kind="x">kept &amp; <![CDATA[<as it is>]]></unheard-of>')
  t.strictSame(
    parse(text).entries.map(label),
    listed.map(({ entry }) => label(entry)),
  )
})

t.test('lists edge, beta and previous entries beside the module when they are carried', async (t) => {
  const listed = pick('module framework 16.0.40', 'module core 16.0.68', 'edge core 16.0.70', 'previous core 16.0.64')
  const text = String(writeModuleList(feed, listed))
  t.strictSame(
    parse(text).entries.map(label),
    listed.map(({ entry }) => label(entry)),
  )
})

t.test('puts a pinned version in the place of its module', async (t) => {
  const listed = pick('previous core 16.0.66', 'module framework 16.0.40')
  const text = String(writeModuleList(feed, listed))
  t.strictSame(parse(text).entries.map(label), ['module framework 16.0.40', 'module core 16.0.66'])
  t.match(text, `  ${module('core', '16.0.66')}\n  <edge>`, 'where the module was')
  t.equal(text.split('16.0.66').length, LIST.split('16.0.66').length, 'and nowhere else')
})

t.test('makes a module of an edge entry that stands alone', async (t) => {
  const text = String(writeModuleList(feed, pick('edge core 16.0.70', 'module framework 16.0.40')))
  t.match(text, `<module>${fields('core', '16.0.70', '<track>edge</track>')}</module>`)
  t.strictSame(parse(text).entries.map(label), ['module framework 16.0.40', 'module core 16.0.70'])
})

t.test('takes what the list of another box has', async (t) => {
  const other = parse(
    `<xml>${module('zulu', '1.0')}${module('core', '16.0.68', '<x>other</x>')}<edge><ivr>${fields('ivr', '16.0.9')}</ivr></edge></xml>`,
  )
  const [zulu, core, edge] = other.entries.map((entry) => ({ entry, feed: other }))
  const listed = [...pick('module framework 16.0.40', 'module ivr 16.0.5'), zulu!, core!, edge!]
  const text = String(writeModuleList(feed, listed))
  t.strictSame(parse(text).entries.map(label).sort(), listed.map(({ entry }) => label(entry)).sort())
  t.match(text, '<x>other</x>')
  const bare = parse(`<xml>${module('a', '1')}${module('b', '1')}</xml>`)
  const mixed = [...bare.entries.map((entry) => ({ entry, feed: bare })), zulu!, ...pick('module ivr 16.0.5'), edge!]
  const found = parse(String(writeModuleList(bare, mixed)))
  t.strictSame(found.entries.map(label), [
    ...['module a 1', 'module b 1', 'module ivr 16.0.5', 'module zulu 1.0', 'edge ivr 16.0.9'],
  ])
})

t.test('serves at least two security issues and two modules', async (t) => {
  const sections: [string, number][] = [
    ['', 2],
    ['<security/>', 2],
    ['<security></security>', 2],
    ['<security>\n<issue><id>A</id></issue>\n</security>', 1],
    ['<security><issue><id>A</id></issue><issue><id>B</id></issue></security>', 0],
  ]
  for (const [section, added] of sections) {
    const found = parse(`<xml>${module('a', '1')}${module('b', '1')}${section}</xml>`)
    const all = found.entries.map((entry) => ({ entry, feed: found }))
    const served = parseModuleFeed(writeModuleList(found, all), 'served', 16)
    t.ok(served.issues.length >= 2, section)
    const ours = served.issues.filter((issue) => issue.id.startsWith('GAPFERRY-'))
    t.equal(ours.length, added, section)
    t.ok(ours.every((issue) => issue.vulnerable === false && issue.fixes.size === 0))
    t.throws(() => writeModuleList(found, all.slice(1)), { code: 'MODULE_LIST_SHORT', message: /one module/ })
    t.throws(() => writeModuleList(found, []), { code: 'MODULE_LIST_SHORT' })
  }
})

t.test('lists exactly what is listed, whatever that is', async () => {
  const choice = fc.subarray(feed.entries, { minLength: 0 })
  fc.assert(
    fc.property(choice, (entries) => {
      const names = new Set(entries.map((entry) => entry.rawname))
      if (names.size < 2) return
      const served = parse(
        String(
          writeModuleList(
            feed,
            entries.map((entry) => ({ entry, feed })),
          ),
        ),
      )
      const all = (list: readonly ModuleEntry[]): string[] => list.map((one) => `${one.rawname} ${one.version}`).sort()
      if (all(served.entries).join() !== all(entries).join())
        throw new Error(`${all(served.entries)} of ${all(entries)}`)
      const mains = served.entries.filter((entry) => entry.section === 'module')
      if (mains.length !== names.size || served.problems.length > 0) throw new Error('not one module of each name')
    }),
  )
})

t.test('refuses a damaged list, or reads and writes it without harm', async (t) => {
  const lines = LIST.split('\n')
  const put = fc.constantFrom('', '<', '"', '&', '0', '/', '\u00e9', '<core>', '<module>', ']]>')
  const damage = fc.oneof(
    fc.record({ line: fc.nat(lines.length), copies: fc.constantFrom(0, 2), to: fc.nat(lines.length) }),
    fc.record({ at: fc.nat(LIST.length), length: fc.nat(2), put }),
  )
  const damaged = (
    text: string,
    how: { line: number; copies: number; to: number } | { at: number; length: number; put: string },
  ): string => {
    if ('at' in how) return text.slice(0, how.at) + how.put + text.slice(how.at + how.length)
    const all = text.split('\n')
    const one = all.splice(how.line, 1)
    all.splice(how.to, 0, ...Array.from({ length: how.copies }, () => one).flat())
    return all.join('\n')
  }
  const versions = ({ entries }: ModuleFeed): string =>
    entries
      .map((one) => `${one.rawname} ${one.version}`)
      .sort()
      .join()
  let refused = 0
  let read = 0
  fc.assert(
    fc.property(fc.array(damage, { minLength: 1, maxLength: 3 }), (damages) => {
      let found: ModuleFeed
      try {
        found = parse(damages.reduce(damaged, LIST))
      } catch (error) {
        if ((error as { code?: string }).code !== 'MODULE_LIST_INVALID') throw error
        refused++
        return
      }
      read++
      if (new Set(found.entries.map((entry) => entry.rawname)).size < 2) return
      const served = parse(
        String(
          writeModuleList(
            found,
            found.entries.map((entry) => ({ entry, feed: found })),
          ),
        ),
      )
      if (versions(served) !== versions(found)) throw new Error(`${versions(served)} of ${versions(found)}`)
      if (served.problems.length > 0) throw new Error(served.problems.join())
    }),
    { numRuns: 600 },
  )
  t.ok(refused > 30 && read > 30, `${refused} refused, ${read} read`)
})

t.test('keeps its places right beside letters of every kind', async () => {
  const filling = fc.string({
    unit: fc.constantFrom('ü', '𝄞', '\r\n', '\n', '&amp;', '<!-- <module> -->', '<?x <module> ?>'),
  })
  fc.assert(
    fc.property(fc.array(filling, { minLength: 4, maxLength: 4 }), ([a, b, c, d]) => {
      const list = `<xml>${a}${module('a', '1', `<x>${b}</x>`)}${b}${module('b', '1')}${c}${module('c', '1', `<x>${d}</x>`)}${d}</xml>`
      const found = parse(list)
      const text = String(
        writeModuleList(
          found,
          [0, 2].map((i) => ({ entry: found.entries[i]!, feed: found })),
        ),
      )
      const want = list.replace(`${b}${module('b', '1')}`, b!.replace(/[\r\n]+$/, ''))
      if (text.replace(/<security>[^]*<\/security>\n/, '') !== want) throw new Error(text)
    }),
  )
})

t.test('answers --tag with what a box would have read in the list', async (t) => {
  const [framework, core] = feed.entries
  t.strictSame(JSON.parse(String(tagAnswer(core!, feed))), {
    rawname: 'core',
    version: '16.0.68',
    location: 'packages/core/core-16.0.68.tgz',
    depends: { version: '16.0.2', module: ['framework ge 16.0.40', 'x', false] },
  })
  t.match(JSON.parse(String(tagAnswer(framework!, feed))), {
    signed: { type: 'gpg', sha1: 'b'.repeat(40) },
    'unheard-of': 'kept \n&\n<as it is>',
  })
})

t.test('reads a list of 3 MB with a hundred thousand elements in a moment', async (t) => {
  const more = `${SIGNED}<depends><version>16.0</version><module>core</module></depends>${'<x>word</x>'.repeat(16)}`
  const list = `<xml>${Array.from({ length: 3700 }, (_, i) => module(`mod${i}`, `16.0.${i}`, `${more}<changelog>${'w'.repeat(200)}</changelog>`)).join('\n')}</xml>`
  t.ok(list.length > 2_500_000 && list.split(/<[a-z]/).length > 90_000)
  const before = process.cpuUsage()
  const found = parse(list)
  const { user } = process.cpuUsage(before)
  t.equal(found.entries.length, 3700)
  t.ok(user < 8_000_000, `${user} µs of processor time`)
})

function parse(list: string): ModuleFeed {
  return parseModuleFeed(Buffer.from(list), 'a list')
}

function located(location: string): string {
  return `<module><rawname>bad</rawname><version>1.0</version><location>${location}</location></module>`
}

function label({ section, rawname, version }: ModuleEntry): string {
  return `${section} ${rawname} ${version}`
}

function pick(...labels: string[]): { entry: ModuleEntry; feed: ModuleFeed }[] {
  return labels.map((one) => ({ entry: feed.entries.find((entry) => label(entry) === one)!, feed }))
}

t.test('what a box reads otherwise than everybody else is what it says', (t) => {
  const split = (more: string): string =>
    `<xml>${module('framework', '16.0.40')}${module('core', '16.0.68')}${more}</xml>`
  const last = (more: string): ModuleEntry | undefined =>
    parse(split(more)).entries.find(({ rawname }) => rawname === 'foo')
  const entry = (version: string, signed: string): string =>
    `<module><rawname>foo</rawname><version>${version}</version><location>foo.tgz</location>${signed}</module>`
  t.equal(last(entry('16.0.1<!-- -->0', ''))?.version, '16.0.1', 'a piece that is 0 is dropped')
  t.equal(last(entry('16.0.1', SIGNED.replace('gpg', 'g<!-- -->pg')))?.signedSha1, undefined, 'nothing but an archive')
  t.equal(last(entry('16.0.1', SIGNED.replace('gpg', 'gpg\r\n')))?.signedSha1, 'b'.repeat(40))
  for (const version of ['16.0<!-- -->.1', '16&#46;0.1', '16.<![CDATA[0.1]]>', '16.<?x?>0.1'])
    t.equal(last(entry(version, '')), undefined, `${version} is two lines to a box`)
  const ascii = split('<name>café</name>').replace('<xml>', '<?xml version="1.0" encoding="us-ascii"?><xml>')
  t.throws(() => parse(ascii), { code: 'MODULE_LIST_INVALID' }, 'a box finds no module in it')
  t.end()
})
