import * as fc from 'fast-check'
import t from 'tap'
import { FileFinder } from '../../manifests/package-files.ts'
import { childrenNamed, parseXml } from '../../manifests/xml.ts'

const ID = 'ab12'.repeat(16)

t.test('finds the packages that list a file', async (t) => {
  const finder = new FileFinder(['/usr/bin/a', '/usr/lib/b & c', '/none', '/usr/bin'], 'filelists')
  const second = 'cd34'.repeat(16)
  finder.add(element('<file>/usr/bin/a</file>\n  <file>/usr/bin/ab</file>\n  <file type="dir">/usr/bin</file>'))
  finder.add(element('<file>/usr/lib/b &amp; c</file><file>/usr/bin/a</file><file>/usr/bin/a</file>', second))
  t.same(
    [...finder.found].map(([path, ids]) => [path, [...ids]]),
    [
      ['/usr/bin/a', [ID, second]],
      ['/usr/bin', [ID]],
      ['/usr/lib/b & c', [second]],
    ],
  )
})

t.test('finds the same as a parser, however a well-formed list is written', async (t) => {
  const seen = { found: 0, refused: 0 }
  const path = fc.constantFrom('/a', '/b/c', '/é', '/a&b', '/x>y', '/', '/long'.repeat(900))
  const spelled = fc.constantFrom(
    ...[
      '/a',
      '/b/c',
      '/é',
      '/a&amp;b',
      '/&#97;',
      '/x>y',
      '/x&gt;y',
      '/A',
      ' /a',
      '/a ',
      '',
      '/a\n',
      '/a&b',
      '/b&#x2f;c',
    ],
  )
  const file = fc.oneof(
    { weight: 6, arbitrary: spelled.map((text) => `<file>${text}</file>`) },
    spelled.map((text) => `<file type="dir">${text}</file>`),
    spelled.map((text) => `<file type='ghost'>${text}</file>`),
    spelled.map((text) => `<file ><![CDATA[${text}]]></file >`),
    spelled.map((text) => `<file>${text}<!-- x --></file>`),
    spelled.map((text) => `<other><file>${text}</file></other>`),
    spelled.map((text) => `<file>/a<x/>${text}</file>`),
    fc.constantFrom('<file/>', '<!-- <file>/a</file> -->', 'text', '<version a="<file>/a</file>"/>', '<file>/a'),
  )
  const gap = fc.constantFrom('', '\n  ', 'x')
  fc.assert(
    fc.property(fc.array(path, { minLength: 1 }), fc.array(fc.tuple(file, gap), { maxLength: 4 }), (paths, parts) => {
      const one = element(parts.flat().join(''))
      const quick = attempt(() => {
        const finder = new FileFinder(paths, 'filelists')
        finder.add(one)
        return [...finder.found.keys()].sort()
      })
      const strict = attempt(() => {
        const texts = childrenNamed(parseXml(one, 'filelists'), 'file').map((child) => child.text)
        return [...new Set(paths)].filter((wanted) => texts.includes(wanted)).sort()
      })
      seen[strict === 'XML_INVALID' ? 'refused' : 'found']++
      // what is passed over need not be well-formed
      if (quick !== strict && strict !== 'XML_INVALID') throw new Error(`${one.toString()}: ${quick} is not ${strict}`)
    }),
    { numRuns: 1500 },
  )
  for (const [how, count] of Object.entries(seen)) t.ok(count > 100, `${count} ${how}`)
})

t.test('refuses a package without a usable id only where it matters', async (t) => {
  const finder = new FileFinder(['/a'], 'filelists')
  const nameless = Buffer.from('<package name="x"><file>/a</file></package>')
  t.throws(() => finder.add(nameless), { code: 'REPODATA_INVALID' })
  t.doesNotThrow(() => finder.add(Buffer.from('<package name="x"><file>/b</file></package>')))
})

function element(files: string, id = ID): Buffer {
  return Buffer.from(
    `<package pkgid="${id}" name="a" arch="b">\n  <version epoch="0" ver="1" rel="1"/>\n  ${files}\n</package>`,
  )
}

function attempt(read: () => unknown): string {
  try {
    return JSON.stringify(read())
  } catch (error) {
    return String((error as { code?: string }).code)
  }
}
