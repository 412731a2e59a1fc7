import t from 'tap'
import { applyEdits, cutOut, insideEnd } from '../../manifests/edits.ts'

t.test('puts pieces in and takes pieces out, in any order', async (t) => {
  const edits = [
    { start: 4, end: 4, text: 'X' },
    { start: 0, end: 1, text: '' },
    { start: 4, end: 4, text: 'Y' },
    { start: 4, end: 6, text: 'Z' },
  ]
  t.equal(applyEdits('abcdefgh', edits), 'bcdXYZgh')
  t.equal(applyEdits('abc', []), 'abc')
  t.throws(
    () =>
      applyEdits('abcdef', [
        { start: 0, end: 3, text: '' },
        { start: 2, end: 4, text: '' },
      ]),
    /overlap/,
  )
})

t.test('takes an element out with the white space before it', async (t) => {
  t.equal(applyEdits('<a>\r\n\t <b/>\n</a>', [cutOut('<a>\r\n\t <b/>\n</a>', { start: 7, end: 11 })]), '<a>\n</a>')
  t.equal(applyEdits(' <b/>', [cutOut(' <b/>', { start: 1, end: 5 })]), '')
  t.equal(applyEdits('\u00a0<b/>', [cutOut('\u00a0<b/>', { start: 1, end: 5 })]), '\u00a0', 'which is XML’s')
})

t.test('finds the end of an element, however it ends', async (t) => {
  const put = (text: string, tagEnd: number, end: number): string =>
    applyEdits(text, [insideEnd(text, { start: 0, tagEnd, end }, '+')])
  t.equal(put('<a><b></b></a></c>', 3, 14), '<a><b></b>+</a></c>')
  t.equal(put('<a ></a ></c>', 4, 9), '<a >+</a ></c>')
  t.equal(put('<a x="1"/></c>', 10, 10), '<a x="1">+</a></c>')
})
