import * as fc from 'fast-check'
import { SaxesParser } from 'saxes'
import t from 'tap'
import { PackageScanner, type PackageListType } from '../../manifests/package-scan.ts'

t.test('cuts the elements, whatever the pieces that the bytes come in', async (t) => {
  const document = list(['<name>a</name><packager>p</packager>', '<name>é</name>', ''])
  for (let size = 1; size < document.length; size += size < 40 ? 1 : 37) {
    const { elements, rootTag } = scan(document, pieces(document, size))
    t.same(elements, ['<name>a</name><packager>p</packager>', '<name>é</name>', ''].map(element), `pieces of ${size}`)
    t.equal(rootTag, '<metadata xmlns="c" packages="3">')
  }
})

t.test('cuts the same as a parser finds, markers hidden or not', async () => {
  fc.assert(
    fc.property(documents(), fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }), (document, sizes) => {
      const want = parserFinds(document)
      const found = scan(document, pieces(document, ...sizes)).elements
      if (JSON.stringify(found) !== JSON.stringify(want)) {
        throw new Error(`expected ${JSON.stringify(want)}, found ${JSON.stringify(found)}`)
      }
    }),
    { numRuns: 500 },
  )
})

t.test('takes a marker in a comment, a CDATA section or an instruction for what it is', async (t) => {
  const bodies = [
    '<!-- </package> <package> -->',
    '<description><![CDATA[</package><package type="rpm">]]></description>',
    '<?php </package> ?>',
    '<package>nested</package>',
  ]
  for (const body of bodies) t.same(scan(list(['x', body, 'y'])).elements, ['x', body, 'y'].map(element))
  const commented = list(['x']).replace('</metadata>', `<!-- ${element('y')} --></metadata>`)
  t.same(scan(commented).elements, [element('x')])
  t.same(scan(`<?xml version="1.0"?><!-- <package> -->${list(['x'])}`).elements, [element('x')], 'before the root')
  t.same(scan('<metadata packages="2"><package a="1"/>\n<package\nb="2" ></package ></metadata>').elements, [
    '<package a="1"/>',
    '<package\nb="2" ></package >',
  ])
})

t.test('takes only children of the root', async (t) => {
  const document = `<metadata packages="1"><group>${element('x')}</group>${element('y')}</metadata>`
  t.same(scan(document).elements, [element('y')])
})

t.test('minds no white space at the end', async (t) => {
  t.same(scan(`${list(['x'])}${' '.repeat(100_000)}`).elements, [element('x')])
  t.throws(() => scan(`${list(['x'])}${' '.repeat(100_000)}x`), { code: 'XML_INVALID' })
  t.throws(() => scan(`${list(['x'])}x`), { code: 'XML_INVALID' })
})

t.test('reads a list without packages, and one with a byte order mark', async (t) => {
  t.same(scan('<metadata packages="0"></metadata>'), { elements: [], rootTag: '<metadata packages="0">' })
  t.same(scan('<metadata packages="0"/>'), { elements: [], rootTag: '<metadata packages="0">' })
  t.same(scan(`\ufeff${list(['x'])}`).elements, [element('x')])
  t.same(scan(`\ufeff<!-- -->${list(['x'])}`).elements, [element('x')])
})

t.test('refuses a wrong number of packages', async (t) => {
  for (const packages of ['3', '', '02', '-2', '2.0']) {
    const document = list(['x', 'y']).replace('packages="2"', `packages="${packages}"`)
    t.throws(() => scan(document), { code: 'REPODATA_INVALID', message: /holds 2/ }, packages)
  }
  t.throws(() => scan(list(['x']).replace(' packages="1"', '')), { code: 'REPODATA_INVALID' })
})

t.test('refuses what is not the list that was expected, and says what came', async (t) => {
  t.throws(() => scan('<html><body>Sign in</body></html>'), { code: 'REPODATA_INVALID', message: /found <html>/ })
  t.throws(() => scan(list(['x']), undefined, 'filelists'), { code: 'REPODATA_INVALID', message: /found <metadata>/ })
  t.throws(() => scan('Sign in'), { code: 'XML_INVALID' })
  t.throws(() => scan(''), { code: 'XML_INVALID' })
})

t.test('refuses a list that is cut off anywhere', async (t) => {
  const document = Buffer.from(list(['<name>a</name>', '<name>b</name>']).trimEnd())
  for (let end = 0; end < document.length; end++) {
    t.throws(() => scan(document.subarray(0, end)), { code: /XML_INVALID|REPODATA_INVALID/ }, `${end} bytes`)
  }
})

t.test('refuses elements and gaps that would fill memory', async (t) => {
  const filler = Buffer.alloc(10_000, 'x')
  const endless = (start: string) => () => {
    const scanner = new PackageScanner('primary', 'the list', () => {}, 100_000)
    scanner.write(Buffer.from(start))
    for (let i = 0; i < 20; i++) scanner.write(filler)
  }
  const head = '<metadata packages="1">'
  t.throws(endless(`${head}<package>`), { code: 'REPODATA_INVALID', message: /too large/ })
  t.throws(endless(`${head}<package><!-- `), { code: 'REPODATA_INVALID', message: /too large/ })
  t.throws(endless(`${head}<!-- `), { code: 'REPODATA_INVALID', message: /too large/ })
  t.throws(endless('<metadata a="'), { code: /XML_INVALID|REPODATA_INVALID/ })
})

t.test('refuses document types and other encodings', async (t) => {
  t.throws(() => scan(`<!DOCTYPE metadata [<!ENTITY a "b">]>${list(['&a;'])}`), { code: 'XML_INVALID' })
  const latin = `<?xml version="1.0" encoding="ISO-8859-1"?>${list(['x'])}`
  t.throws(() => scan(latin), { code: 'XML_INVALID', message: /ISO-8859-1/ })
  t.throws(() => scan(Buffer.from(list(['x']), 'utf16le')), { code: 'XML_INVALID' })
})

function element(body: string): string {
  return `<package type="rpm">${body}</package>`
}

function list(bodies: string[]): string {
  return `<metadata xmlns="c" packages="${bodies.length}">\n${bodies.map((body) => `${element(body)}\n`).join('')}</metadata>\n`
}

function scan(
  document: string | Buffer,
  chunks: Iterable<Buffer> = [Buffer.from(document)],
  type: PackageListType = 'primary',
): { elements: string[]; rootTag: string } {
  const elements: string[] = []
  const scanner = new PackageScanner(type, 'the list', (bytes) => elements.push(bytes.toString()))
  for (const chunk of chunks) scanner.write(chunk)
  const { rootTag, count } = scanner.end()
  if (count !== elements.length) throw new Error(`counted ${count} of ${elements.length}`)
  return { elements, rootTag }
}

function* pieces(document: string | Buffer, ...sizes: number[]): Generator<Buffer> {
  const bytes = Buffer.from(document)
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = at + sizes[i % sizes.length]!
    // a copy that is overwritten, as a reused buffer would be
    const piece = Buffer.from(bytes.subarray(at, end))
    yield piece
    piece.fill('<')
    at = end
  }
}

/** Well-formed lists in which every way to hide a marker occurs. */
function documents(): fc.Arbitrary<string> {
  const hidden = fc.constantFrom(
    '</package>',
    '<package>',
    '<package ',
    'x',
    '<',
    '--',
    '</metadata>',
    '\n',
    'é',
    '!',
    '?',
  )
  const plain = fc.constantFrom('&amp;', 'x', ' ', '\r\n', 'é', '\u{1f600}', '!', '?', '>', 'package', '&lt;package>')
  const quoted = fc.constantFrom('', '>', '/>', "'", '&quot;', '!', 'é')
  const part: fc.Arbitrary<string> = fc.oneof(
    { maxDepth: 2 },
    plain,
    hidden.map((text) => `<!-- ${text.replaceAll('--', '')} -->`),
    hidden.map((text) => `<![CDATA[${text}]]>`),
    hidden.map((text) => `<?x ${text}?>`),
    quoted.map((text) => `<version a="${text}"/>`),
    plain.map((text) => `<packager>${text}</packager>`),
    plain.map((text) => `<package>${text}</package>`),
  )
  const space = fc.constantFrom('', ' ', '\n', '\r\n', '\t')
  const gap = fc.oneof(
    { weight: 8, arbitrary: space },
    { weight: 1, arbitrary: hidden.map((text) => `<!-- ${text.replaceAll('--', '')} -->`) },
    { weight: 1, arbitrary: fc.constantFrom('text', '<other/>', '<other><package/></other>', '<?x <package> ?>') },
  )
  const open = fc.constantFrom('<package>', '<package type="rpm">', "<package\n a='>'>", '<package \t>')
  const item = fc
    .tuple(open, fc.array(part, { maxLength: 4 }), gap)
    .map(([tag, parts, after]) => `${tag}${parts.join('')}</package>${after}`)
  const before = fc.constantFrom('', '<?xml version="1.0" encoding="UTF-8"?>\n', '<!-- <package> -->', '\n')
  return fc.tuple(before, gap, fc.array(item, { maxLength: 4 }), space).map(([start, first, items, end]) => {
    const root = `<metadata packages="${items.length}"`
    return `${start}${root}>${first}${items.join('')}${end}</metadata>${end}`
  })
}

function parserFinds(document: string): string[] {
  const found: string[] = []
  const parser = new SaxesParser({ xmlns: false })
  let depth = 0
  let start = 0
  parser.on('opentagstart', ({ name }) => {
    if (++depth === 2 && name === 'package') start = document.lastIndexOf('<', parser.position - 2)
  })
  parser.on('closetag', ({ name }) => {
    if (depth-- === 2 && name === 'package') found.push(document.slice(start, parser.position))
  })
  parser.write(document).close()
  return found
}
