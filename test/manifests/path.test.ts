import fc from 'fast-check'
import t from 'tap'
import { parseRequestTarget, parseTreePath } from '../../manifests/path.ts'

t.test('accepts the paths that repositories really have', (t) => {
  for (const path of [
    'yum/sng-pkgs/repodata/repomd.xml.asc',
    'yum/sng-pkgs/Packages/a/asterisk18-18.20.2-1.sng7.x86_64.rpm',
    'yum/x/libstdc++-4.8.5-44.el7.i686.rpm',
    'yum/x/tildy-1.0~rc1-1^git.noarch.rpm',
    'gapferry-pbxact16.repo',
  ]) {
    t.equal(parseTreePath(path, 'x'), path)
    t.equal(parseRequestTarget(`/${path}`), path)
  }
  t.end()
})

t.test('refuses paths that could leave a folder or be spelled twice', (t) => {
  const bad = [
    '',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    'a/../b',
    'a/./b',
    'a\\b',
    'a b',
    'a%2fb',
    'a?b',
    'a#b',
    'ä',
    'a\0',
    'a\n',
    7,
  ]
  for (const path of [...bad, 'a/'.repeat(33) + 'a', 'a'.repeat(256), `${'a/'.repeat(512)}b`]) {
    t.throws(() => parseTreePath(path, 'x'), { code: 'PATH_INVALID' }, String(path).slice(0, 20))
  }
  t.end()
})

t.test('reads a request target once: query dropped, escapes decoded, // collapsed', (t) => {
  t.equal(parseRequestTarget('/modules/packages/core.tgz?'), 'modules/packages/core.tgz')
  t.equal(parseRequestTarget('//modules///x'), 'modules/x')
  t.equal(parseRequestTarget('/pool/a%2bb%7e1.deb?x=%00'), 'pool/a+b~1.deb')
  const bad = [
    '*',
    'x',
    '/',
    '/a%2fb',
    '/a%5Cb',
    '/a%00',
    '/%2e%2e/a',
    '/a/..',
    '/%',
    '/%c3',
    '/%E4%B8%AD',
    '/a%252e%252e',
  ]
  for (const target of bad) t.throws(() => parseRequestTarget(target), { code: 'PATH_INVALID' }, target)
  t.end()
})

t.test('whatever the target, the answer is a valid tree path or a refusal', (t) => {
  const piece = fc.oneof(
    fc.constantFrom('/', '.', '..', '%2e', '%2F', '%', '\\', '?', 'a', '~'),
    fc.string({ maxLength: 4 }),
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        const path = parseRequestTarget(`/${pieces.join('')}`)
        return parseTreePath(path, 'x') === path && !path.split('/').includes('..')
      } catch (error) {
        return (error as { code?: string }).code === 'PATH_INVALID'
      }
    }),
    { numRuns: 2000 },
  )
  t.end()
})
