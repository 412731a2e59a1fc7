import t from 'tap'
import { childrenNamed, escapeXml, parseXml } from '../../manifests/xml.ts'

t.test('reads elements, attributes and text, without namespace prefixes', async (t) => {
  const root = parseXml(
    '<?xml version="1.0"?><r:a xmlns:r="x" b="1 &amp; 2"><r:c>t&#x41;<![CDATA[<d>]]></r:c><c/></r:a>',
    'x',
  )
  t.equal(root.name, 'a')
  t.equal(root.attributes.get('b'), '1 & 2')
  t.same(
    childrenNamed(root, 'c').map((child) => child.text),
    ['tA<d>', ''],
  )
})

t.test('knows where start tags stand', async (t) => {
  const text = '<a>\r\n <b c="é>"\n/>\u{1f600}<d  >x</d></a>'
  const [b, d] = parseXml(text, 'x').children
  t.equal(text.slice(b!.start, b!.tagEnd), '<b c="é>"\n/>')
  t.equal(text.slice(d!.start, d!.tagEnd), '<d  >')
})

t.test('keeps names that mean something to JavaScript apart from objects', async (t) => {
  const root = parseXml('<__proto__ constructor="1" __proto__="2"/>', 'x')
  t.equal(root.name, '__proto__')
  t.equal(root.attributes.get('__proto__'), '2')
})

t.test('refuses what hostile documents are made of', async (t) => {
  const deep = '<a>'.repeat(100) + '</a>'.repeat(100)
  const attributes = `<a ${Array.from({ length: 200_000 }, (_, i) => `b${i}="1"`).join(' ')}/>`
  const laughs = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'
  const external = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
  const started = performance.now()
  for (const [name, text] of Object.entries({
    deep,
    attributes,
    laughs,
    external,
    long: `<a b="${'x'.repeat(70_000)}"/>`,
    many: `<a>${'<b/>'.repeat(1_000_001)}</a>`,
    entity: '<a>&b;</a>',
    encoding: '<?xml version="1.0" encoding="UTF-16"?><a/>',
    open: '<a><b></a>',
    unfinished: '<a>',
    two: '<a/><b/>',
    nothing: '',
    text: 'hello',
    bytes: Buffer.from([0x3c, 0x61, 0x3e, 0xff, 0x3c, 0x2f, 0x61, 0x3e]),
  })) {
    t.throws(() => parseXml(text, 'the file'), { code: 'XML_INVALID', message: /the file/ }, name)
  }
  t.ok(performance.now() - started < 20_000, 'and does so soon')
})

t.test('escapes what it writes', async (t) => {
  const hostile = `<a b="c">&'`
  t.equal(parseXml(`<x y="${escapeXml(hostile)}">${escapeXml(hostile)}</x>`, 'x').text, hostile)
  t.equal(parseXml(`<x y="${escapeXml(hostile)}"/>`, 'x').attributes.get('y'), hostile)
})
