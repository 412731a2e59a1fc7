import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { sha256Of, type Sha256 } from '../../manifests/digest.ts'
import { canonicalJson } from '../../manifests/json.ts'
import { openReport, parseSealedReport, sealReport } from '../../manifests/report-seal.ts'
import {
  attachmentRoom,
  heldBlobs,
  identityWords,
  MAX_REPORT_BYTES,
  packBlobs,
  parseReport,
  publicKeyOf,
  signReport,
  wholeBundle,
  type Report,
  type ReportInventory,
} from '../../manifests/report.ts'
import { packAttachments, readAttachment } from '../../storage/attachments.ts'
import { parseStateWords, stateWords } from '../../manifests/words.ts'
import { newReportKey, SAMPLE_CERTIFICATE, sampleReport, signedBefore } from '../helpers/report.ts'
import { flip, type Loose } from '../helpers/site.ts'

const LAPTOP = newReportKey()
const READER = publicKeyOf(LAPTOP)
const MIRROR = newReportKey()
const SIGNED = signReport(sampleReport(READER), MIRROR)
const SEALED = sealReport(SIGNED, READER, 'hq')

const INVENTORY = Buffer.from('what pbx1 has\n'.repeat(1000))
const HELD = { box: 'pbx1', sha256: sha256Of(INVENTORY), bytes: INVENTORY.length }

const longer = (base64: string): string =>
  Buffer.concat([Buffer.from(base64, 'base64'), Buffer.of(0)]).toString('base64')
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
    ['format', (s) => (s.format = 3)],
    ['the format before, with what came after it', (s) => (s.format = 1)],
    ['a missing field', (s) => delete s.delivery],
    ['no certificate', (s) => (s.authority = Buffer.from('no certificate').toString('base64'))],
    ['a certificate and more', (s) => (s.delivery = longer(SAMPLE_CERTIFICATE))],
    ['an inventory that is larger than any', (s) => (s.inventories = [{ ...HELD, bytes: 4 * 1024 * 1024 + 1 }])],
    ['an inventory of no box', (s) => (s.inventories = [{ ...HELD, box: '../pbx1' }])],
    ['when a license ends', (s) => (s.licenses = [{ box: 'pbx1', state: 'present', expires: 'soon' }])],
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

t.test('a report of the format before is read as one that says nothing of what came after', (t) => {
  const { report, words, attachments } = parseReport(signedBefore(READER, MIRROR), 'x')
  t.equal(report.format, 1)
  t.equal(words, identityWords(publicKeyOf(MIRROR)))
  t.match(report, { sequence: 7, boxes: sampleReport(READER).boxes })
  const nothing = { inventories: [], readiness: [], enrolled: [], authority: null, delivery: null, licenses: [] }
  t.match(report, nothing)
  t.same(attachments, {})
  const attached = edit(signedBefore(READER, MIRROR), (doc) => (doc.attachments = {}))
  t.throws(() => parseReport(attached, 'x'), { code: 'REPORT_INVALID' })
  t.end()
})

t.test('inventories come along, and certificates', (t) => {
  const attachments = packAttachments([HELD, HELD], () => INVENTORY)
  const change = {
    inventories: [HELD],
    enrolled: [{ box: 'pbx1', certificate: SAMPLE_CERTIFICATE, revoked: false }],
    authority: SAMPLE_CERTIFICATE,
    delivery: SAMPLE_CERTIFICATE,
    licenses: [{ box: 'pbx1', state: 'present', expires: '2027-01-31' }],
  }
  const bytes = open(sealReport(signReport(sampleReport(READER, change), MIRROR, attachments), READER, 'hq'))
  const signed = parseReport(bytes, 'x')
  t.match(signed.report, change)
  t.same(readAttachment(signed, HELD, 'x'), INVENTORY)
  t.equal(readAttachment({ attachments: {} }, HELD, 'x'), undefined, 'there was no room')
  t.equal(readAttachment({ attachments: {} }, { ...HELD, sha256: 'constructor' }, 'x'), undefined)
  t.throws(() => signReport(sampleReport(READER), MIRROR, attachments), { code: 'REPORT_INVALID' }, 'not named')
  const name = { ...attachments, '../x': '' }
  t.throws(() => signReport(sampleReport(READER, change), MIRROR, name), { code: 'REPORT_INVALID' })
  t.end()
})

t.test('an attachment that is not what the report names is refused before it fills memory', (t) => {
  const gz = (bytes: Buffer): string => gzipSync(bytes).toString('base64')
  const bad: [string, string][] = [
    ['other bytes', gz(Buffer.from(INVENTORY).fill('x', 0, 1))],
    ['shorter', gz(INVENTORY.subarray(1))],
    ['a bomb', gz(Buffer.alloc(64 * 1024 * 1024))],
    ['cut', gz(INVENTORY).slice(0, 40)],
    ['not packed', INVENTORY.toString('base64')],
    ['nothing', ''],
  ]
  for (const [what, text] of bad) {
    const attachments = { [HELD.sha256]: text }
    const before = process.memoryUsage().arrayBuffers
    t.throws(() => readAttachment({ attachments }, HELD, 'x'), { code: 'REPORT_INVALID' }, what)
    t.ok(process.memoryUsage().arrayBuffers - before < 8 * 1024 * 1024, `${what}: little was unpacked`)
  }
  t.end()
})

t.test('as many inventories come along as there is room for', (t) => {
  const all = Array.from({ length: 20 }, (_, i) => randomBytes(1000 + i))
  const held = all.map((bytes, i) => ({ box: `pbx${i}`, sha256: sha256Of(bytes), bytes: bytes.length }))
  const read = ({ sha256 }: ReportInventory) => all.find((bytes) => sha256Of(bytes) === sha256)
  t.equal(Object.keys(packAttachments(held, read)).length, 20)
  const few = packAttachments(held, read, 5000)
  t.same(
    Object.keys(few),
    held.slice(0, 3).map(({ sha256 }) => sha256),
    'the first ones',
  )
  t.same(
    packAttachments(held, () => undefined),
    {},
    'what cannot be read stays away',
  )

  const blobs = packBlobs(Array.from({ length: 100_000 }, (_, i) => sha256Of(String(i))))
  const large = sampleReport(READER, { blobs })
  const room = attachmentRoom(large)
  t.ok(room > 4 * 1024 * 1024 && room < attachmentRoom(sampleReport(READER)), String(room))
  const bytes = randomBytes(Math.floor((room / 4) * 3 - 1000))
  const inventories = Array.from({ length: 3 }, (_, i) => ({ bytes: bytes.subarray(i * 1e6, (i + 1) * 1e6), i })).map(
    ({ bytes, i }) => ({ box: `pbx${i}`, sha256: sha256Of(bytes), bytes: bytes.length }),
  )
  const packed = packAttachments(
    inventories,
    ({ box }) => bytes.subarray(Number(box.slice(3)) * 1e6).subarray(0, 1e6),
    room,
  )
  t.equal(Object.keys(packed).length, 3)
  t.doesNotThrow(() => sealReport(signReport({ ...large, inventories }, MIRROR, packed), READER, 'hq'))
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
