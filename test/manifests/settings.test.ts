import fc from 'fast-check'
import t from 'tap'
import * as v from 'valibot'
import { strictObject } from '../../manifests/document.ts'
import { nearest, parseListen, parseSettings, parseSize } from '../../manifests/settings.ts'

const Schema = strictObject({
  name: v.pipe(v.string(), v.minLength(1)),
  depth: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1)), 3),
  list: v.exactOptional(v.array(strictObject({ key: v.string() })), []),
})

t.test('fills in defaults', (t) => {
  t.strictSame(parseSettings(Schema, 'name: a\n', 'f.yaml'), { name: 'a', depth: 3, list: [] })
  t.end()
})

t.test('names an unknown key, its line and the nearest known one', (t) => {
  t.throws(() => parseSettings(Schema, 'name: a\ndeph: 2\n', 'f.yaml'), {
    code: 'CONFIG_KEY_UNKNOWN',
    message: 'f.yaml:1: unknown key "deph"',
    hint: 'did you mean "depth"?',
  })
  t.throws(() => parseSettings(Schema, 'name: a\nlist:\n  - key: x\n    kye: y\n', 'f.yaml'), {
    code: 'CONFIG_KEY_UNKNOWN',
    message: 'f.yaml:3: unknown key "kye" in list[0]',
    hint: 'did you mean "key"?',
  })
  t.end()
})

t.test('refuses what is not plain YAML', (t) => {
  const bad = [
    'name: [',
    'a: &x 1\nname: *x',
    'name: a\nname: b',
    '',
    '- a',
    'name: !!js/function x',
    'name: 1',
    'name: a\ndepth: 0',
  ]
  for (const text of bad) t.throws(() => parseSettings(Schema, text, 'f.yaml'), { code: 'CONFIG_INVALID' }, text)
  t.throws(() => parseSettings(Schema, `name: ${'a'.repeat(2 ** 20)}`, 'f.yaml'), { code: 'CONFIG_INVALID' })
  t.end()
})

t.test('reads sizes as people write them', (t) => {
  t.equal(parseSize('600MB', 'budget'), 600_000_000)
  t.equal(parseSize('1.5 GiB', 'budget'), 1.5 * 2 ** 30)
  t.equal(parseSize('12', 'budget'), 12)
  for (const text of ['', '-1', '1 XB', '1e9', 'MB'])
    t.throws(() => parseSize(text, 'budget'), { code: 'CONFIG_INVALID' })
  t.end()
})

t.test('reads addresses to listen on', (t) => {
  t.strictSame(parseListen('0.0.0.0:8416', 'x'), { host: '0.0.0.0', port: 8416 })
  t.strictSame(parseListen('[::1]:0', 'x'), { host: '::1', port: 0 })
  for (const text of ['8416', 'a:b', 'a:65536', '::1:80', 'a b:1']) {
    t.throws(() => parseListen(text, 'x'), { code: 'CONFIG_INVALID' }, text)
  }
  t.end()
})

t.test('finds the nearest word, or none', (t) => {
  t.equal(nearest('baseurls', ['baseurl', 'mirrorlist']), 'baseurl')
  t.equal(nearest('zzzzzzz', ['baseurl', 'mirrorlist']), undefined)
  t.end()
})

t.test('never throws anything but its own errors', (t) => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseSettings(Schema, text, 'f')
      } catch (error) {
        if ((error as Error).name !== 'GapferryError') throw error
      }
    }),
  )
  t.end()
})
