import fc from 'fast-check'
import t from 'tap'
import { judge, parseHttpDate, readHead, type Outcome } from '../../server/conditions.ts'

const ETAG = '"0123456789abcdef0123456789abcdef"'
const DATE = 'Tue, 14 Nov 2023 22:13:20 GMT'
const EARLIER = 'Tue, 14 Nov 2023 22:13:19 GMT'
const LATER = 'Tue, 14 Nov 2023 22:13:21 GMT'
const PACKAGE = { etag: ETAG, modified: 1_700_000_000, bytes: 1000, isImmutable: true }
const POINTER = { ...PACKAGE, isImmutable: false }

function judged(headers: Record<string, string | string[]>, of = PACKAGE): Outcome {
  const raw = Object.entries(headers).flatMap(([name, value]) => [value].flat().flatMap((one) => [name, one]))
  return judge(readHead(raw), of)
}

t.test('no conditions: the whole file', (t) => {
  t.same(judged({ Host: 'x', Accept: '*/*' }), { status: 200 })
  t.end()
})

t.test('one range', (t) => {
  const part = (start: number, end: number): Outcome => ({ status: 206, start, end })
  const table: [string, Outcome][] = [
    ['bytes=0-0', part(0, 0)],
    ['bytes=0-', part(0, 999)],
    ['bytes=10-19', part(10, 19)],
    ['bytes=999-', part(999, 999)],
    ['bytes=900-5000', part(900, 999)],
    ['bytes=0-99999999999999999999', part(0, 999)],
    ['bytes=-1', part(999, 999)],
    ['bytes=-5000', part(0, 999)],
    ['BYTES=1-2', part(1, 2)],
    ['bytes= 1-2 ', part(1, 2)],
    ['bytes=1000-', { status: 416 }],
    ['bytes=1000-1001', { status: 416 }],
    ['bytes=99999999999999999999-', { status: 416 }],
    ['bytes=-0', { status: 416 }],
  ]
  for (const [range, want] of table) t.same(judged({ Range: range }), want, range)
  t.end()
})

t.test('several or malformed ranges: the whole file', (t) => {
  const several = Array.from({ length: 500 }, (_, i) => `${i}-${i}`).join(',')
  const malformed = [
    'bytes=0-1,2-3',
    `bytes=${several}`,
    'bytes=5-3',
    'bytes=-',
    'bytes=',
    'bytes=a-b',
    'bytes 0-1',
    'bytes=0x1-2',
  ]
  for (const range of [...malformed, 'items=0-1', '', 'bytes=1-2-3', 'bytes=+1-2', 'bytes=1.5-2', 'bytes=--1']) {
    t.same(judged({ Range: range }), { status: 200 }, range.slice(0, 40))
  }
  t.same(judged({ Range: ['bytes=0-1', 'bytes=0-1'] }), { status: 200 }, 'the field twice')
  t.same(judged({ Range: 'bytes=0-1' }, { ...PACKAGE, bytes: 0 }), { status: 200 }, 'of an empty file')
  t.end()
})

t.test('a range that is answered is inside the file, and is what was asked for', (t) => {
  fc.assert(
    fc.property(fc.nat(2000), fc.nat(2000), fc.integer({ min: 1, max: 1500 }), (first, last, bytes) => {
      const outcome = judged({ Range: `bytes=${first}-${last}` }, { ...PACKAGE, bytes })
      if (last < first) return outcome.status === 200
      if (first >= bytes) return outcome.status === 416
      return outcome.status === 206 && outcome.start === first && outcome.end === Math.min(last, bytes - 1)
    }),
  )
  t.end()
})

t.test('If-Range', (t) => {
  const part: Outcome = { status: 206, start: 0, end: 1 }
  const whole: Outcome = { status: 200 }
  const table: [string, Outcome, Outcome][] = [
    [ETAG, part, part],
    [`W/${ETAG}`, whole, whole],
    ['"another"', whole, whole],
    [DATE, part, whole],
    [EARLIER, whole, whole],
    [LATER, whole, whole],
    ['nonsense', whole, whole],
  ]
  for (const [value, ofPackage, ofPointer] of table) {
    t.same(judged({ Range: 'bytes=0-1', 'If-Range': value }), ofPackage, value)
    t.same(judged({ Range: 'bytes=0-1', 'If-Range': value }, POINTER), ofPointer, `${value}, of a file that changes`)
  }
  t.same(judged({ 'If-Range': '"another"' }), whole, 'says nothing without Range')
  t.end()
})

t.test('If-None-Match', (t) => {
  for (const value of [ETAG, `W/${ETAG}`, '*', `"a", ${ETAG}`, `"a",W/${ETAG} , "b"`, `"with, comma", ${ETAG}`]) {
    t.same(judged({ 'If-None-Match': value }), { status: 304 }, value)
  }
  for (const value of ['"a"', ETAG.slice(1, -1), `"${ETAG}`, '', `W/"a"`]) {
    t.same(judged({ 'If-None-Match': value }), { status: 200 }, value)
  }
  t.same(judged({ 'If-None-Match': ['"a"', ETAG] }), { status: 304 }, 'in the second of two fields')
  t.end()
})

t.test('If-Modified-Since', (t) => {
  t.same(judged({ 'If-Modified-Since': DATE }), { status: 304 })
  t.same(judged({ 'If-Modified-Since': LATER }), { status: 304 })
  t.same(judged({ 'If-Modified-Since': EARLIER }), { status: 200 })
  t.same(judged({ 'If-Modified-Since': 'yesterday' }), { status: 200 })
  t.same(judged({ 'If-Modified-Since': [DATE, DATE] }), { status: 200 }, 'given twice it is no date')
  t.same(judged({ 'If-Modified-Since': DATE }, POINTER), { status: 304 })
  t.same(judged({ 'If-Modified-Since': LATER }, POINTER), { status: 200 }, 'a rollback brings older dates')
  t.end()
})

t.test('If-Match and If-Unmodified-Since', (t) => {
  t.same(judged({ 'If-Match': ETAG }), { status: 200 })
  t.same(judged({ 'If-Match': '*' }), { status: 200 })
  t.same(judged({ 'If-Match': '"a"' }), { status: 412 })
  t.same(judged({ 'If-Match': `W/${ETAG}` }), { status: 412 }, 'strong comparison')
  t.same(judged({ 'If-Unmodified-Since': DATE }), { status: 200 })
  t.same(judged({ 'If-Unmodified-Since': EARLIER }), { status: 412 })
  t.same(judged({ 'If-Unmodified-Since': 'x' }), { status: 200 })
  t.end()
})

t.test('precedence', (t) => {
  t.same(judged({ 'If-Match': ETAG, 'If-Unmodified-Since': EARLIER }), { status: 200 }, 'tag before date')
  t.same(judged({ 'If-None-Match': '"a"', 'If-Modified-Since': LATER }), { status: 200 }, 'tag before date')
  t.same(judged({ 'If-Match': '"a"', 'If-None-Match': ETAG }), { status: 412 }, 'If-Match before If-None-Match')
  t.same(judged({ 'If-None-Match': ETAG, Range: 'bytes=0-1' }), { status: 304 }, '304 before 206')
  t.same(judged({ 'If-None-Match': ETAG, Range: 'bytes=5000-' }), { status: 304 }, '304 before 416')
  t.same(judged({ 'If-None-Match': '"a"', Range: 'bytes=0-1' }), { status: 206, start: 0, end: 1 })
  t.end()
})

t.test('dates in the three forms, and nothing else', (t) => {
  t.equal(parseHttpDate('Sun, 06 Nov 1994 08:49:37 GMT'), 784_111_777)
  t.equal(parseHttpDate('Sunday, 06-Nov-94 08:49:37 GMT'), 784_111_777)
  t.equal(parseHttpDate('Sun Nov  6 08:49:37 1994'), 784_111_777)
  for (const text of [
    '',
    '1994-11-06',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 06 Xyz 1994 08:49:37 GMT',
    '0',
    '784111777',
  ]) {
    t.equal(parseHttpDate(text), undefined, text)
  }
  t.end()
})

t.test('a head never loses a Host', (t) => {
  t.match(readHead(['host', 'a', 'HOST', 'b']), { host: 'a, b', hostCount: 2 })
  t.match(readHead([]), { host: undefined, hostCount: 0 })
  t.match(readHead(['Host', '']), { host: '', hostCount: 1 })
  t.end()
})
