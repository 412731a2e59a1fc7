import t from 'tap'
import {
  errorObject,
  formatBytes,
  formatError,
  formatTable,
  formatTime,
  plural,
  shortList,
} from '../../manifests/console.ts'
import { GapferryError, exitStatus, httpStatus, isGapferryError } from '../../manifests/errors.ts'

t.test('shows sizes in decimal units', (t) => {
  t.strictSame([0, 999, 1000, 1234567, 99_950_000, 600e6, 5e12, 3e15].map(formatBytes), [
    '0 B',
    '999 B',
    '1.0 kB',
    '1.2 MB',
    '100 MB',
    '600 MB',
    '5.0 TB',
    '3000 TB',
  ])
  t.equal(plural(1, 'package'), '1 package')
  t.equal(plural(0, 'package'), '0 packages')
  t.equal(plural(2, 'box'), '2 boxes')
  t.equal(shortList([], 2), '')
  t.equal(shortList(['a', 'b'], 2), 'a, b')
  t.equal(shortList(['a', 'b', 'c', 'd'], 2), 'a, b and 2 more')
  t.equal(formatTime(0), '1970-01-01 00:00 UTC')
  t.end()
})

t.test('aligns tables and shows control characters instead of sending them', (t) => {
  t.equal(
    formatTable(
      [
        ['a', '1'],
        ['bbb', '22'],
      ],
      { right: [1], indent: ' ' },
    ),
    ' a     1\n bbb  22',
  )
  t.equal(formatTable([['a\u001b[2J', 'b']]), 'a\\x1b[2J  b')
  t.end()
})

t.test('an error names what happened, its code and the next command', (t) => {
  const error = new GapferryError('BLOB_MISSING', 'x: gone\n', {
    hint: 'gapferry-mirror import',
    cause: new Error('below'),
  })
  t.equal(formatError('gapferry', error), 'gapferry: x: gone\\x0a [BLOB_MISSING]\n  next: gapferry-mirror import')
  t.strictSame(errorObject(error), {
    error: { code: 'BLOB_MISSING', message: 'x: gone\\x0a', hint: 'gapferry-mirror import' },
  })
  t.equal(exitStatus(error), 4)
  t.equal(httpStatus(error), 503)
  t.equal(isGapferryError(error, 'BLOB_MISSING'), true)
  t.equal(isGapferryError(error, 'INTERNAL'), false)
  t.equal((error.cause as Error).message, 'below')
  t.equal(formatError('gapferry', new GapferryError('INTERNAL', 'x')), 'gapferry: x [INTERNAL]')
  t.strictSame(errorObject(new GapferryError('INTERNAL', 'x')), { error: { code: 'INTERNAL', message: 'x' } })
  t.equal(httpStatus(new GapferryError('CONFIG_INVALID', 'x')), 500)
  t.end()
})

t.test('an unexpected error keeps its stack and ends with status 1', (t) => {
  t.match(formatError('gapferry', new TypeError('boom')), /INTERNAL: this should not happen.*\nTypeError: boom\n/)
  t.match(formatError('gapferry', 'text'), /\ntext$/)
  t.strictSame(errorObject(new TypeError('boom')), { error: { code: 'INTERNAL', message: 'boom' } })
  t.strictSame(errorObject('text'), { error: { code: 'INTERNAL', message: 'text' } })
  t.equal(exitStatus(new Error('x')), 1)
  t.equal(httpStatus(new Error('x')), 500)
  t.equal(isGapferryError(new Error('x')), false)
  t.end()
})

t.test('credentials never stand in a message', (t) => {
  const error = new GapferryError('FETCH_STATUS', 'http://user:secret@host/x gave 403', { hint: 'curl https://a:b@c/' })
  t.equal(error.message, 'http://***@host/x gave 403')
  t.equal(error.hint, 'curl https://***@c/')
  t.end()
})
