import { assert, property, uint8Array } from 'fast-check'
import t from 'tap'
import { excerptOf, looksLikePage, networkFailure, publicUrl } from '../../bundler/fetch-failure.ts'

t.test('knows a page by its start, whatever stands before the first tag', (t) => {
  const pages = [
    '<!DOCTYPE html><html>',
    '<!doctype HTML PUBLIC "-//W3C//DTD HTML 4.01//EN">',
    '\uFEFF\r\n  <HTML lang=en>',
    '<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">',
    '<!-- hotel --><!-- net -->\n<head>',
    '<meta http-equiv="refresh" content="0;url=http://login/">',
    '<script>location="http://login/"</script>',
    '<h1>It works!</h1>',
  ]
  for (const page of pages) t.equal(looksLikePage(Buffer.from(page)), true, page)
  t.end()
})

t.test('takes lists, metadata and binaries for what they are', (t) => {
  const files = [
    '',
    'http://mirror/a\nhttp://mirror/b\n',
    '# <html> in a comment line',
    '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="x">',
    '<xml><module><rawname>core</rawname></module></xml>',
    '<metalink version="3.0">',
    '<header/>',
    '\u001f\u008b\b<html>',
    '<!-- never closed <html>',
  ]
  for (const file of files) t.equal(looksLikePage(Buffer.from(file)), false, file)
  t.end()
})

t.test('a page made to keep the check busy is done with at once', (t) => {
  for (const piece of ['<!---->', '<!-- --> ', '<!--', '<title', '<script']) {
    const hostile = Buffer.from(piece.repeat(4096))
    looksLikePage(hostile)
    excerptOf(hostile)
  }
  t.pass('came to an end')
  t.end()
})

t.test('shows the title of a page, else its first words, never more than 60 characters', (t) => {
  t.equal(excerptOf(Buffer.from('<html><title>\n 404  Not\tFound </title><p>x')), '404 Not Found')
  t.equal(excerptOf(Buffer.from('<title> </title><script>var a</script><h1>No <b>such</b> file</h1>')), 'No such file')
  t.equal(excerptOf(Buffer.from('plain words')), 'plain words')
  assert(property(uint8Array({ maxLength: 300 }), (bytes) => excerptOf(Buffer.from(bytes)).length <= 60))
  t.end()
})

t.test('an address is shown without user, password and tokens', (t) => {
  t.equal(publicUrl('https://me:p%40ss@host/a?b=1'), 'https://host/a?b=1')
  t.equal(publicUrl('https://host/a?X-Amz-Signature=abc&repo=os'), 'https://host/a?X-Amz-Signature=***&repo=os')
  t.equal(publicUrl('http://me:pa/ss@ho st:x/'), 'http://ho st:x/')
  t.end()
})

t.test('says in words what the network did, and what to do next', (t) => {
  const expired = networkFailure(Object.assign(new Error('x'), { code: 'CERT_HAS_EXPIRED' }), '')
  t.match(expired.message, /certificate that has expired/)
  t.match(expired.hint, /clock/)
  t.equal(expired.isTransient, false)
  const cut = networkFailure(Object.assign(new Error('x'), { code: 'ECONNRESET' }), ' after 5 of 10 bytes')
  t.match(cut.message, /cut after 5 of 10 bytes/)
  t.equal(cut.isTransient, true)
  t.equal(networkFailure(Object.assign(new Error('x'), { code: 'UND_ERR_CONNECT_TIMEOUT' }), '').code, 'FETCH_TIMEOUT')
  t.match(networkFailure(new Error('something new'), '').message, /something new/)
  t.end()
})
