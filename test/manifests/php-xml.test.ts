import { execFileSync } from 'node:child_process'
import t from 'tap'
import { parsePhpXml, phpValue } from '../../manifests/php-xml.ts'

const DOCUMENTS = [
  '<xml><module><rawname>core</rawname><version>16.0.1</version></module></xml>',
  '<xml><module><rawname>a</rawname></module><module><rawname>b</rawname></module><module><rawname>c</rawname></module></xml>',
  '<XML><Module><RawName>core</RawName></Module><module><RAWNAME>b</RAWNAME></module></XML>',
  '<xml><a x="1" y=\'2\'>t</a><b/><c></c><d> \n\t</d><e>0</e><f>00</f><g> 0</g></xml>',
  '<xml><a><![CDATA[<b>bold</b> & more]]></a><b>one<!-- two -->three</b><?pi data?><c><?pi?></c></xml>',
  '<xml><a>x &amp; y &lt;z&gt; &#65;&#x42; &quot;q&quot; &apos;</a></xml>',
  '<xml>text beside <a>elements<b>inside</b>after</a> is lost</xml>',
  '<xml><a>1</a><a><b>2</b></a><a/><a>3</a></xml>',
  '<xml><a><b>2</b></a><a>1</a></xml>',
  '<xml><a><b>2</b><b>3</b></a><a>1</a></xml>',
  '<xml>\r\n<a>line\r\nline</a>\r\n<b>größer 𝄞 ü</b></xml>',
  '<xml><depends><module>core ge 16.0</module><module>framework</module><version>16.0</version></depends></xml>',
  '<xml><a>co<!-- -->re</a><b>17.0.1<!-- -->0</b><c>g&#112;g</c><d>pack<![CDATA[ages]]></d><e>a<?pi?> <?pi?>b</e></xml>',
  '<xml><a>gpg\r\n</a><b>\r\ngpg</b><c>&#13;gpg&#10;</c><d><![CDATA[ ]]></d><e><![CDATA[0]]>1</e><f>&#48;&#48;</f></xml>',
  '<xml><constructor>c</constructor><toString>t</toString><p:q>prefix</p:q></xml>',
]

// what FreePBX's reader does, on PHP's own parser
const READER = String.raw`
  function read($text) {
    $open = [['', [], null]];
    $parser = xml_parser_create();
    xml_set_element_handler($parser,
      function ($p, $name) use (&$open) { $open[] = [strtolower($name), [], null]; },
      function ($p, $name) use (&$open) { $one = array_pop($open); $open[count($open) - 1][1][] = $one; });
    xml_set_character_data_handler($parser, function ($p, $data) use (&$open) {
      $text = &$open[count($open) - 1][2];
      if (trim($data)) $text = isset($text) ? "$text\n$data" : $data;
    });
    xml_parse($parser, $text, true) or exit('not well-formed');
    return level($open[0][1]);
  }
  function level($items) {
    $all = [];
    foreach ($items as [$name, $children, $text]) $all[$name][] = $children ? level($children) : ($text ?? false);
    return array_map(fn ($same) => count($same) > 1 ? $same : $same[0], $all);
  }
  echo json_encode(array_map('read', json_decode(stream_get_contents(STDIN))), JSON_THROW_ON_ERROR);`

t.test('makes of a document what the php that is installed makes of it', async (t) => {
  const found = execFileSync('php', ['-r', READER], { input: JSON.stringify(DOCUMENTS), encoding: 'utf8' })
  const wants = JSON.parse(found) as unknown[]
  t.equal(wants.length, DOCUMENTS.length)
  DOCUMENTS.forEach((document, i) => {
    const { root } = parsePhpXml(document, 'a test', 100)
    const isAscii = /^[\0-\x7f]*$/.test(document)
    // what is not ASCII comes in pieces that depend on the version of libxml
    const shown = (value: unknown): string =>
      isAscii ? JSON.stringify(value) : JSON.stringify(value).replaceAll('\\n', '')
    t.equal(shown({ [root.name]: phpValue(root) }), shown(wants[i]), document)
  })
})

t.test('says where an element stands, whatever stands before it', async (t) => {
  const document =
    '\uFEFF<?xml version="1.0"?>\r\n<!-- <module> -->\r\n<xml a="x > y">\r\n𝄞 ü <module a=">" ><n>1</n>\r\n</module ><module/><![CDATA[<module>]]><module></module>\r\n</xml>\r\n'
  const { text, root } = parsePhpXml(Buffer.from(document), 'a test', 100)
  t.equal(text, document.slice(1), 'without the byte order mark')
  t.strictSame(
    root.children.map(({ start, end }) => text.slice(start, end)),
    ['<module a=">" ><n>1</n>\r\n</module >', '<module/>', '<module></module>'],
  )
  t.strictSame(
    root.children.map(({ start, tagEnd }) => text.slice(start, tagEnd)),
    ['<module a=">" >', '<module/>', '<module>'],
  )
  t.equal(text.slice(root.start, root.end), text.slice(text.indexOf('<xml'), -2))
})

t.test('refuses what is no XML, and a document without end', async (t) => {
  for (const bad of [
    '',
    'Sorry',
    '<xml><a></xml>',
    '<xml>&uuml;</xml>',
    '<!DOCTYPE xml [<!ENTITY a "b">]><xml>&a;</xml>',
  ])
    t.throws(() => parsePhpXml(bad, 'a test', 10), { code: 'XML_INVALID', message: /^a test: / }, bad)
  t.throws(() => parsePhpXml(Buffer.from([0x3c, 0x78, 0x3e, 0xff]), 'a test', 10), { code: 'XML_INVALID' }, 'no UTF-8')
  t.throws(() => parsePhpXml(`<xml>${'<a/>'.repeat(10)}</xml>`, 'a test', 10), {
    code: 'XML_INVALID',
    message: /more than 10/,
  })
})
