import { generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { openReport, parseSealedReport, sealReport } from '../../manifests/report-seal.ts'
import {
  heldBlobs,
  identityWords,
  MAX_REPORT_BYTES,
  packBlobs,
  parseReport,
  publicKeyOf,
  signReport,
  wholeBundle,
  type Report,
} from '../../manifests/report.ts'
import { parseStateWords, stateWords } from '../../manifests/words.ts'
import { newReportKey, sampleReport } from '../helpers/report.ts'
import { flip, type Loose } from '../helpers/site.ts'

const LAPTOP = newReportKey()
const READER = publicKeyOf(LAPTOP)
const MIRROR = newReportKey()
const SIGNED = signReport(sampleReport(READER), MIRROR)
const SEALED = sealReport(SIGNED, READER, 'hq')

const open = (bytes: Buffer, key = LAPTOP): Buffer => openReport(parseSealedReport(bytes, 'x'), key, 'x')
const edit = (bytes: Buffer, change: (doc: Loose) => void): Buffer => {
  const doc: Loose = JSON.parse(bytes.toString())
  change(doc)
  return canonicalJson(doc)
}

t.test('what a mirror signed and sealed comes out as it went in', (t) => {
  t.same(open(SEALED), SIGNED)
  const { report, identity, words } = parseReport(SIGNED, 'x')
  t.match(report, sampleReport(READER))
  t.equal(identity, publicKeyOf(MIRROR))
  t.equal(words, identityWords(publicKeyOf(MIRROR)))
  t.equal(words.split(' ').length, 12)
  t.notOk(SEALED.includes('box-0123456789abcdef'), 'nothing of it can be read on the stick')
  t.notSame(sealReport(SIGNED, READER, 'hq'), SEALED, 'another key each time')
  t.end()
})

t.test('a changed, cut or lengthened sealed report is refused, wherever', (t) => {
  for (let at = 0; at < SEALED.length; at += 7) {
    t.throws(() => open(flip(SEALED, at)), { code: 'REPORT_INVALID' }, `byte ${at}`)
    t.throws(() => open(SEALED.subarray(0, at)), { code: 'REPORT_INVALID' }, `${at} bytes`)
  }
  t.throws(() => open(Buffer.concat([SEALED, Buffer.from(' ')])), { code: 'REPORT_INVALID' })
  t.throws(() => open(SEALED, newReportKey()), { code: 'REPORT_INVALID' }, 'another key')
  t.throws(() => open(edit(SEALED, (doc) => (doc.site = 'branch'))), { code: 'REPORT_INVALID' }, 'renamed')
  const own = publicKeyOf(newReportKey())
  t.throws(() => open(edit(SEALED, (doc) => (doc.ephemeral = own))), { code: 'REPORT_INVALID' }, 'another pair')
  for (const tag of ['', 'AAAA', 'A'.repeat(22) + '==', 'A'.repeat(24)]) {
    t.throws(() => open(edit(SEALED, (doc) => (doc.tag = tag))), { code: 'REPORT_INVALID' }, `tag "${tag}"`)
  }
  t.end()
})

t.test('a report is believed as its identity signed it, and in no other form', (t) => {
  const resign = (change: (signed: Loose) => void): Buffer =>
    edit(SIGNED, (doc) => {
      change(doc.signed)
      doc.signature = sign('sha256', canonicalJson(doc.signed), MIRROR).toString('base64')
    })
  t.throws(
    () =>
      parseReport(
        edit(SIGNED, (doc) => (doc.signed.sequence = 8)),
        'x',
      ),
    { code: 'REPORT_SIGNATURE' },
  )
  const other = publicKeyOf(newReportKey())
  t.throws(
    () =>
      parseReport(
        edit(SIGNED, (doc) => (doc.identity = other)),
        'x',
      ),
    { code: 'REPORT_SIGNATURE' },
  )
  t.throws(
    () =>
      parseReport(
        edit(SIGNED, (doc) => (doc.signature = '')),
        'x',
      ),
    { code: 'REPORT_SIGNATURE' },
  )
  t.equal(
    parseReport(
      resign((signed) => (signed.sequence = 8)),
      'x',
    ).report.sequence,
    8,
  )
  const curves = ['P-384', 'secp256k1'].map((namedCurve) => generateKeyPairSync('ec', { namedCurve }).publicKey)
  for (const key of [...curves.map(publicKeyOf), 'AAAA', '']) {
    t.throws(
      () =>
        parseReport(
          edit(SIGNED, (doc) => (doc.identity = key)),
          'x',
        ),
      { code: 'REPORT_INVALID' },
    )
  }
  const bad: [string, (signed: Loose) => void][] = [
    ['format', (s) => (s.format = 2)],
    ['another field', (s) => (s.extra = 1)],
    ['level', (s) => (s.level = 'words')],
    ['a number below the first', (s) => (s.sequence = 0)],
    ['site', (s) => (s.site = '../x')],
    ['time', (s) => (s.createdAt = 'yesterday')],
    ['half a digest', (s) => (s.blobs = Buffer.alloc(48, 1).toString('base64'))],
    ['digests twice', (s) => (s.blobs = Buffer.alloc(64, 1).toString('base64'))],
    ['another spelling of base64', (s) => (s.blobs = `${Buffer.alloc(31).toString('base64').slice(0, -2)}B=`)],
    ['text that turns around', (s) => (s.boxes[0].box = 'a\u202eb')],
    ['__proto__', (s) => Object.defineProperty(s, '__proto__', { value: {}, enumerable: true })],
    ['too many results', (s) => (s.results = Array.from({ length: 101 }, () => s.results[0]))],
  ]
  for (const [what, change] of bad) t.throws(() => parseReport(resign(change), 'x'), { code: 'REPORT_INVALID' }, what)
  const spaced = Buffer.from(JSON.stringify(JSON.parse(SIGNED.toString()), null, 1))
  t.throws(() => parseReport(spaced, 'x'), { code: 'REPORT_INVALID' }, 'spaces')
  t.throws(() => parseReport(Buffer.alloc(MAX_REPORT_BYTES + 1, 32), 'x'), { code: 'REPORT_INVALID' }, 'too large')
  t.end()
})

t.test('what could not be read is not written', (t) => {
  t.throws(() => signReport(sampleReport(READER, { freeBytes: -1 }), MIRROR), { code: 'REPORT_INVALID' })
  const texts = Array.from({ length: 100 }, (_, i) => `${i} `.padEnd(300, 'x'))
  const parity = Array.from({ length: 450 }, (_, i) => ({
    ...{ box: `b${i}`, checkedAt: '2026-11-22T12:00:00Z', holds: false, differences: 100, texts },
  }))
  const large = signReport(sampleReport(READER, { parity }), MIRROR)
  t.throws(() => sealReport(large, READER, 'hq'), { code: 'REPORT_INVALID' }, `${large.length} bytes signed`)
  t.end()
})

t.test('a hundred thousand digests are read back, and take less than half of what may be read', (t) => {
  const all = Array.from({ length: 100_000 }, (_, i) => sha256Of(String(i)))
  const bytes = sealReport(signReport(sampleReport(READER, { blobs: packBlobs(all) }), MIRROR), READER, 'hq')
  t.ok(bytes.length < MAX_REPORT_BYTES / 2, String(bytes.length))
  const held = heldBlobs(parseReport(open(bytes), 'x').report, 'x')
  t.equal(held.size, all.length)
  t.ok(all.every((sha256) => held.has(sha256)))
  t.end()
})

t.test('the newest bundle that is whole counts', (t) => {
  const bundles = (...rows: [number, boolean][]): Pick<Report, 'bundles'> => ({
    bundles: rows.map(([number, isComplete]) => ({ number, isComplete, state: sha256Of(String(number)) })),
  })
  t.equal(wholeBundle(bundles([1, true], [3, false], [2, true]))?.number, 2)
  t.equal(wholeBundle(bundles([3, false])), undefined)
  t.end()
})

t.test('six words stand for the first 66 bits of a state', (t) => {
  t.equal(stateWords('0'.repeat(64) as Sha256), 'abandon abandon abandon abandon abandon abandon')
  t.equal(stateWords('f'.repeat(64) as Sha256), 'zoo zoo zoo zoo zoo zoo')
  const first = `0020${'0'.repeat(60)}` as Sha256
  t.equal(stateWords(first), 'ability abandon abandon abandon abandon abandon', '00000000001 first')
  t.equal(
    stateWords(`${'0'.repeat(16)}40${'f'.repeat(46)}` as Sha256),
    'abandon abandon abandon abandon abandon ability',
  )
  t.equal(parseStateWords('1. Zoo, zoo - ZOO\nzoo zoo zoo'), 'zoo zoo zoo zoo zoo zoo')
  for (const text of ['zoo zoo zoo zoo zoo', 'zoo zoo zoo zoo zoo zooo', '', 'x '.repeat(600)]) {
    t.throws(() => parseStateWords(text), { code: 'REPORT_WORDS' }, text.slice(0, 30))
  }
  t.end()
})
