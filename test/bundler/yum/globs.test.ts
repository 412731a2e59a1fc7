import t from 'tap'
import { compileGlob } from '../../../bundler/yum/globs.ts'

t.test('matches as fnmatch does', (t) => {
  const cases: [string, string, boolean][] = [
    ['php-*', 'php-cli', true],
    ['php-*', 'xphp-cli', false],
    ['*', '', true],
    ['a*a', 'a', false],
    ['a*a', 'aa', true],
    ['*ab*ab*', 'abab', true],
    ['*ab*ab*', 'aba', false],
    ['*.x86_64', 'a.b.x86_64', true],
    ['a?c', 'abc', true],
    ['a?c', 'ac', false],
    ['[ab]*[!c]', 'bd', true],
    ['[ab]*[!c]', 'bc', false],
    ['[]]x', ']x', true],
    ['a.b+c', 'a.b+c', true],
    ['a.b', 'axb', false],
    ['a|b', 'a', false],
  ]
  for (const [glob, name, expected] of cases) t.equal(compileGlob(glob).pattern.test(name), expected, `${glob} ${name}`)
  t.throws(() => compileGlob('[z-a]'), { code: 'CONFIG_INVALID' })
  t.end()
})

t.test('a glob that a hostile box wrote takes no time', (t) => {
  const before = process.cpuUsage().user
  t.equal(compileGlob(`${'*a'.repeat(40)}b`).pattern.test('a'.repeat(500)), false)
  t.ok(process.cpuUsage().user - before < 1_000_000)
  t.end()
})
