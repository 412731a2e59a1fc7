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
    message: 'f.yaml:2: unknown key "deph"',
    hint: 'did you mean "depth"?',
  })
  t.throws(() => parseSettings(Schema, 'name: a\nlist:\n  - key: x\n    kye: y\n', 'f.yaml'), {
    code: 'CONFIG_KEY_UNKNOWN',
    message: 'f.yaml:4: unknown key "kye" in list[0]',
    hint: 'did you mean "key"?',
  })
  t.throws(() => parseSettings(Schema, 'nmae: a\n', 'f.yaml'), {
    message: 'f.yaml:1: unknown key "nmae"',
    hint: 'did you mean "name"?',
  })
  for (const key of ['__proto__', 'constructor', 'toString']) {
    t.throws(() => parseSettings(Schema, `name: a\n${key}: {}\n`, 'f.yaml'), { code: 'CONFIG_KEY_UNKNOWN' }, key)
  }
  t.end()
})

t.test('says what a value must be, and its line', (t) => {
  const said = [
    ['name: 1', 'f.yaml:1: name must be a string'],
    ['depth: 1', 'f.yaml:1: the file must have "name"'],
    ['name: a\ndepth: 0', 'f.yaml:2: depth must be at least 1'],
    ['name: a\nlist: {}', 'f.yaml:2: list must be a list'],
    ['name: a\nlist:\n- key: x\n- 1', 'f.yaml:4: list[1] must be an object'],
    ['name: a\nlist:\n- key: x\n- key:', 'f.yaml:4: list[1].key must be a string'],
    ['[]', 'f.yaml:1: the file must be an object'],
    [`name: a\nlist:\n${'- 1\n'.repeat(100_000)}`, 'f.yaml:3: list[0] must be an object'],
  ] as const
  for (const [text, message] of said)
    t.throws(() => parseSettings(Schema, text, 'f.yaml'), { code: 'CONFIG_INVALID', message })
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
