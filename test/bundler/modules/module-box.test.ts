import t from 'tap'
import { moduleBoxOf } from '../../../bundler/modules/module-box.ts'

const NOTHING = { framework: undefined, modules: [], profile: new Map<string, string>() }

t.test('what a box does not tell is not known', (t) => {
  t.strictSame(moduleBoxOf('one', NOTHING), { name: 'one', modules: [], edge: false })
  t.end()
})

t.test('a PHP that tells its version tells its loaders, too', (t) => {
  const box = moduleBoxOf('one', {
    framework: '16.0.40',
    modules: [{ name: 'a', version: '?', state: 'enabled', license: '?' }],
    profile: new Map([
      ['phpver', '7.4.33'],
      ['ioncube', '12.0.5'],
      ['astver', '18.20.0'],
    ]),
    settings: new Map([['MODULEADMINEDGE', '1']]),
  })
  t.match(box, { framework: '16.0.40', phpver: '7.4.33', astver: '18.20.0', edge: true })
  t.strictSame(
    [...box.components!],
    [
      ['zend guard loader', null],
      ['ioncube loader', '12.0.5'],
    ],
  )
  t.equal(box.modules[0]!.version, '', 'a version that its database has not is lower than all')
  const zend = new Map([
    ['phpver', '5.6.40'],
    ['zend', 'available'],
  ])
  t.equal(moduleBoxOf('two', { ...NOTHING, profile: zend }).components!.get('zend guard loader'), '')
  t.end()
})

t.test('edge builds are off in every spelling of no', (t) => {
  for (const [value, edge] of [
    ['0', false],
    ['', false],
    ['false', false],
    ['1', true],
    ['true', true],
  ] as const) {
    t.equal(moduleBoxOf('one', { ...NOTHING, settings: new Map([['MODULEADMINEDGE', value]]) }).edge, edge, value)
  }
  t.end()
})
