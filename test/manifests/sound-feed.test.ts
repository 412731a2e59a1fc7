import { execFileSync } from 'node:child_process'
import t from 'tap'
import {
  parseSoundFeed,
  soundFile,
  soundLicense,
  writeSoundList,
  type SoundFeed,
  type SoundPackage,
} from '../../manifests/sound-feed.ts'

const sounds = (language: string, format: string, version: string, more = ''): string =>
  `<package><type>asterisk</type><module>core-sounds</module><language>${language}</language><format>${format}</format><version>${version}</version>${more}</package>`
const LIST = `<?xml version="1.0"?>
<xml>
  <sounds>
    ${sounds('en', 'ulaw', '1.6.1', '<license>CC</license><author>Allison &amp; Co</author><authorlink>http://x.example</authorlink>')}
    ${sounds('en', 'g722', '1.6.1')}
    ${sounds('pt_BR', 'ulaw', '1.4')}
  </sounds>
  <!-- kept -->
</xml>
`
const feed = parse(LIST)

t.test('reads the packages and says where their files lie', async (t) => {
  t.strictSame(feed.packages.map(label), ['en ulaw 1.6.1', 'en g722 1.6.1', 'pt_BR ulaw 1.4'])
  t.match(feed.packages[0], { license: 'CC', author: 'Allison & Co', authorlink: 'http://x.example' })
  t.equal(soundFile(feed.packages[0]!), 'sounds/asterisk-core-sounds-en-ulaw-1.6.1.tar.gz')
  t.equal(soundLicense(feed.packages[2]!), 'sounds/asterisk-core-sounds-pt_BR-license.txt')
  t.strictSame(feed.problems, [])
})

t.test('cuts out what is not kept, and leaves the rest letter by letter', async (t) => {
  const text = String(writeSoundList(feed, feed.packages.slice(0, 2)))
  t.equal(text, LIST.replace(`\n    ${sounds('pt_BR', 'ulaw', '1.4')}`, ''))
  t.strictSame(parse(text).packages.map(label), ['en ulaw 1.6.1', 'en g722 1.6.1'])
  const none = String(writeSoundList(feed, []))
  t.match(none, /<sounds>\s*<\/sounds>/)
  t.strictSame(parse(none).packages, [])
  t.throws(() => writeSoundList(feed, feed.packages.slice(0, 1)), /one sound package/)
  t.throws(() => writeSoundList(feed, [...feed.packages, { ...feed.packages[0]!, language: 'xx' }]), /another list/)
})

t.test('reads a served list as a box does', async (t) => {
  const served = [
    String(writeSoundList(feed, feed.packages.slice(1))),
    String(writeSoundList(feed, [])),
    '<xml><sounds/></xml>',
  ]
  const program = `
    foreach (json_decode(stream_get_contents(STDIN)) as $text)
      $all[] = json_decode(json_encode(simplexml_load_string($text)), true)['sounds']['package'] ?? [];
    echo json_encode($all);`
  const found = execFileSync('php', ['-r', program], { input: JSON.stringify(served), encoding: 'utf8' })
  const fields = ({ start: _start, end: _end, ...rest }: SoundPackage): unknown => rest
  t.strictSame(
    JSON.parse(found),
    served.map((text) => parse(text).packages.map(fields)),
  )
})

t.test('leaves out a package that a box could not use, and says so', async (t) => {
  const bad: [string, string, RegExp][] = [
    ['a path', sounds('../..', 'ulaw', '1'), /has a <language> "\.\.\/\.\."/],
    ['an absurd version', sounds('en', 'ulaw', '1;x'), /has a <version>/],
    ['no format', '<package><type>a</type><module>m</module><language>en</language></package>', /has no <format>/],
    ['two versions', sounds('en', 'wav', '1', '<version>2</version>'), /has no <version>/],
    ['CDATA', sounds('<![CDATA[en]]>', 'wav', '1'), /has no <language>/],
    ['a comment', sounds('<!-- x -->en', 'wav', '1'), /has no <language>/],
    ['text beside', sounds('en', 'wav', '1').replace('<type>', 'x<type>'), /has text beside its fields/],
    ['capitals', sounds('en', 'wav', '1').replaceAll('type>', 'Type>'), /has no <type>/],
    ['twice', sounds('en', 'ulaw', '1.6.1'), /is there already/],
  ]
  for (const [name, element, problem] of bad) {
    const found = parse(LIST.replace('  </sounds>', `${element}  </sounds>`))
    t.strictSame(found.packages.map(label), feed.packages.map(label), name)
    t.equal(found.problems.length, 1, name)
    t.match(found.problems[0], problem, name)
    t.notOk(String(writeSoundList(found, found.packages)).includes('\n    </package>'), name)
    t.equal(String(writeSoundList(found, found.packages)).split('<package>').length, 4, `${name}: not served`)
  }
  const many = parse(LIST.replace('  </sounds>', `${'<package/>'.repeat(200)}  </sounds>`))
  t.equal(many.problems.length, 50)
})

t.test('refuses what is no list', async (t) => {
  const bad: [string, string, RegExp][] = [
    ['nothing', '', /a list: is empty/],
    ['a page', '<!DOCTYPE html><html>Sign in</html>', /a list: holds a document type; it starts with "<!DOCTYPE/],
    ['cut off', LIST.slice(0, 300), /not well-formed/],
    ['something else', '<xml><module/></xml>', /expected one <sounds>, found 0/],
    ['two of them', '<xml><sounds/><sounds/></xml>', /expected one <sounds>, found 2/],
    ['text beside', LIST.replace('<sounds>', '<sounds>x'), /text stands beside its elements/],
    ['text around', LIST.replace('<sounds>', 'x<sounds>'), /text stands beside its elements/],
    ['too large', ' '.repeat(4 * 1024 * 1024 + 1), /larger than/],
    ['endless', `<xml><sounds>${'<package/>'.repeat(10_001)}</sounds></xml>`, /more than 10000 packages/],
  ]
  for (const [name, list, message] of bad) t.throws(() => parse(list), { code: 'MODULE_LIST_INVALID', message }, name)
  t.strictSame(parse('<xml><sounds/></xml>').packages, [], 'none is a list')
})

function parse(list: string): SoundFeed {
  return parseSoundFeed(Buffer.from(list), 'a list')
}

function label({ language, format, version }: SoundPackage): string {
  return `${language} ${format} ${version}`
}
