/** Whatever bytes come, a reader gives what was meant or throws one of our own errors, soon and in little memory. Single
 *  formats have properties of their own in their tests; here all of them get the same treatment. */
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { isGapferryError } from '../../manifests/errors.ts'
import { parseTimestamp } from '../../manifests/metadata.ts'
import { parsePartHint, serializePartHint } from '../../manifests/part-hint.ts'
import { readPackageStrictly } from '../../manifests/package-xml.ts'
import { parseRequestTarget } from '../../manifests/path.ts'
import { parseRpm } from '../../manifests/rpm-package.ts'
import { parseSiteFacts, serializeSiteFacts } from '../../manifests/site.ts'
import { parseTree, serializeTree } from '../../manifests/tree.ts'
import { sampleBundle } from '../helpers/part.ts'
import { mustRun } from '../helpers/process.ts'
import { readers } from '../helpers/readers.ts'

const NUMBER = { numRuns: 300 }

/** Pieces that readers of text look for. */
const PIECES = [
  ...[
    '<',
    '>',
    '</',
    '/>',
    '<?',
    '?>',
    '<!--',
    '-->',
    '<![CDATA[',
    ']]>',
    '<!DOCTYPE a [<!ENTITY b "c">]>',
    '&b;',
    '&#0;',
  ],
  ...[
    '<package',
    '</package>',
    '<metadata packages="1">',
    '</metadata>',
    '<repomd>',
    '<data type="primary">',
    '<metalink>',
  ],
  ...[
    'http://a/',
    '$basearch',
    '{',
    '}',
    '[',
    ']',
    '"',
    ':',
    ',',
    '"__proto__":',
    '"constructor"',
    '1e999',
    '-0',
    '\\u0000',
  ],
  ...['\0', '\n', '\r', '\ufeff', '\u202e', '\ud800', 'é', ' '],
]
const text = fc.array(fc.oneof(fc.constantFrom(...PIECES), fc.string({ maxLength: 5 })), { maxLength: 40 })
const anything = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  text.map((pieces) => Buffer.from(pieces.join(''))),
  fc.json().map((json) => Buffer.from(json)),
)

function throwsOnlyOurs(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch (error) {
    return isGapferryError(error)
  }
}

t.test('arbitrary bytes', async (t) => {
  const all: Record<string, (bytes: Buffer) => unknown> = {
    ...readers,
    tree: (bytes) => parseTree(bytes, 'x'),
    site: parseSiteFacts,
    hint: parsePartHint,
    timestamp: (bytes) => parseTimestamp(bytes, 'x'),
    rpm: (bytes) => parseRpm(bytes, 'x'),
    'an element': (bytes) => readPackageStrictly(bytes, 'x'),
    target: (bytes) => parseRequestTarget(bytes.toString('latin1')),
  }
  for (const [name, read] of Object.entries(all)) {
    fc.assert(
      fc.property(anything, (bytes) => throwsOnlyOurs(() => read(bytes))),
      NUMBER,
    )
    t.pass(name)
  }
})

const sample = sampleBundle({ files: { 'yum/base/repodata/repomd.xml': 'x', 'a.rpm': 'y' } })
const documents = [...sample.trees.values()]
const tree = documents.find((bytes) => bytes.includes('gapferry-tree'))!
const facts = documents.find((bytes) => bytes.includes('gapferry-site'))!
const hint = serializePartHint({ site: 'hq', number: 1, part: 1, parts: [null] })

/** A piece of a document taken out, doubled, moved, or replaced by another. */
const edits = fc.record({ at: fc.nat(), length: fc.nat(12), to: fc.nat(), by: fc.constantFrom('', ...PIECES) })

t.test('documents with a piece cut out, doubled, moved or replaced: refused, or the same', async (t) => {
  const same: [string, Buffer, (bytes: Buffer) => Buffer][] = [
    ['tree', tree, (bytes) => serializeTree(parseTree(bytes, 'x'))],
    ['site', facts, (bytes) => serializeSiteFacts(parseSiteFacts(bytes))],
    ['hint', hint, (bytes) => serializePartHint(parsePartHint(bytes))],
  ]
  for (const [name, good, again] of same) {
    const property = fc.property(edits, ({ at, length, to, by }) => {
      const [from, target] = [at % good.length, to % good.length]
      const piece = good.subarray(from, from + length)
      const rest = Buffer.concat([good.subarray(0, from), good.subarray(from + length)])
      const moved = Buffer.concat([
        rest.subarray(0, target),
        by === '' ? piece : Buffer.from(by),
        rest.subarray(target),
      ])
      try {
        return again(moved).equals(moved)
      } catch (error) {
        return isGapferryError(error)
      }
    })
    fc.assert(property, { numRuns: 1000 })
    t.pass(name)
  }
})

t.test('documents of some megabytes that are made to take long or to fill memory', async (t) => {
  // The process would end where it needed a larger heap than this.
  const program = join(import.meta.dirname, '../helpers/read-program.ts')
  const { stdout } = await mustRun(process.execPath, ['--max-old-space-size=150', program])
  const { slow, foreign } = JSON.parse(stdout) as { slow: string[]; foreign: string[] }
  t.same(slow, [], 'none takes more than its time')
  t.same(foreign, [], 'none throws anything but our errors, with a message that can be read')
})
