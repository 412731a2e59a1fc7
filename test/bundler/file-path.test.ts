import t from 'tap'
import { parseFilePath } from '../../bundler/file-path.ts'

t.test('a vendor file stands anywhere but where Gapferry puts its own', (t) => {
  for (const as of ['firmware/x.bin', 'yummy/x', 'keys.txt', 'yum.conf', 'phones/gapferry-x.repo', 'all-phones.xml']) {
    t.equal(parseFilePath(as, 'files'), as)
  }
  const reserved = [
    'yum/x',
    'yum',
    'YUM/x',
    'keys/site.asc',
    'Keys',
    'apt/x',
    'modules/a',
    'sounds/a',
    'gapferry/parity/x.txt',
    'all-16.0.xml',
    'modules-16.0.xml.gz',
    'Sounds-17.0.xml',
    'version-16.0.40.html',
    'gapferry-hq.repo',
    'GAPFERRY-x',
  ]
  for (const as of reserved) t.throws(() => parseFilePath(as, 'files'), { code: 'PATH_CONFLICT', hint: /"as"/ }, as)
  for (const as of ['/x', 'a/../yum/x', './x', 'a//b', '', 'a b', 'a%2fb', 7]) {
    t.throws(() => parseFilePath(as, 'files'), { code: 'PATH_INVALID' }, String(as))
  }
  t.end()
})
