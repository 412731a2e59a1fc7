import { execFileSync } from 'node:child_process'
import * as fc from 'fast-check'
import t from 'tap'
import {
  isMet,
  isUpgrade,
  missingModules,
  parseComponentDemand,
  parseEngineDemand,
  parseModuleDemand,
  parseVersionDemand,
  versionAfter,
  type NamedDemand,
} from '../../manifests/module-depends.ts'

/** What a box does with a text, in its own language: [version, module, component, engine]. */
const PROGRAM = String.raw`
  const OPERATOR = '(lt|le|gt|ge|==|=|eq|!=|ne)?\s*';
  const DOTTED = '(\d+(?:\.\d*[betalphrc|]*\d+)+)';
  function held($has, $operator, $version) {
    [$has, $version] = str_replace('rc', 'RC', array_map('strtolower', [$has, $version]));
    try {
      return version_compare($has, $version, empty($operator) ? 'ge' : $operator);
    } catch (ValueError) {
      return false;
    }
  }
  function named($form, $text, $has) {
    if (!preg_match($form, $text, $match)) return null;
    return [$match[1], empty($match[3]) || held($has, $match[2], $match[3])];
  }
  function asked($text, $has) {
    $version = preg_match('/^' . OPERATOR . '(\d*[betalphrc|]?\d+(?:\.[^.]+)*)$/i', $text, $match)
      ? held($has, $match[1], $match[2]) : null;
    $component = '/^([a-z0-9_]+|Zend (?:Optimizer|Guard Loader))(?:\s+' . OPERATOR . DOTTED . ')?$/i';
    $parts = array_map(fn ($part) => named($component, $part, $has), explode('||', $text));
    return [
      $version,
      named('/^([a-z0-9_]+)(?:\s+' . OPERATOR . DOTTED . ')?$/i', $text, $has),
      in_array(null, $parts, true) ? null : $parts,
      named('/^([a-z0-9_]+)(?:\s+' . OPERATOR . '(\d+(?:\.[^.]+)*))?$/i', $text, $has),
    ];
  }
  echo json_encode(array_map(fn ($one) => asked(...$one), json_decode(stream_get_contents(STDIN))));`

t.test('demands of modules are read with their operator, ge where there is none', (t) => {
  const cases: [string, NamedDemand | undefined][] = [
    ['core', { name: 'core', version: undefined }],
    ['core 16.0.1', { name: 'core', version: { operator: 'ge', version: '16.0.1' } }],
    ['core lt 16.0.1', { name: 'core', version: { operator: 'lt', version: '16.0.1' } }],
    ['core lt16.0.1', { name: 'core', version: { operator: 'lt', version: '16.0.1' } }],
    ['core == 16.0.1', { name: 'core', version: { operator: 'eq', version: '16.0.1' } }],
    ['core = 16.0.1', { name: 'core', version: { operator: 'eq', version: '16.0.1' } }],
    ['core != 16.0.1', { name: 'core', version: { operator: 'ne', version: '16.0.1' } }],
    ['core ge 2.3.0beta1.2', { name: 'core', version: { operator: 'ge', version: '2.3.0beta1.2' } }],
    ['core GE 16.0.1', { name: 'core', version: { operator: 'never', version: '16.0.1' } }],
    ['core\n', { name: 'core', version: undefined }],
    ['core ge 16', undefined],
    ['core >= 16.0.1', undefined],
    [' core', undefined],
    ['core ', undefined],
    ['my-module', undefined],
    ['core ge 16.0.1 or newer', undefined],
    ['', undefined],
    [`core ge 16.${'0'.repeat(500)}1`, undefined],
  ]
  for (const [text, expected] of cases) t.strictSame(parseModuleDemand(text), expected, JSON.stringify(text))
  t.end()
})

t.test('alternatives of PHP components demand nothing when a box cannot read one of them', (t) => {
  t.strictSame(parseComponentDemand('zlib||Zend Guard Loader ge 3.3'), [
    { name: 'zlib', version: undefined },
    { name: 'Zend Guard Loader', version: { operator: 'ge', version: '3.3' } },
  ])
  t.equal(parseComponentDemand('zlib || ldap'), undefined)
  t.equal(parseComponentDemand('ionCube Loader'), undefined)
  t.end()
})

t.test('an engine at version 0 is one at any version', (t) => {
  t.strictSame(parseEngineDemand('asterisk lt 0'), { name: 'asterisk', version: undefined })
  t.strictSame(parseEngineDemand('asterisk ge 11'), { name: 'asterisk', version: { operator: 'ge', version: '11' } })
  t.end()
})

t.test('absurd texts are read in no time', (t) => {
  const long = [
    '1'.repeat(199),
    `a ${'1.1'.repeat(60)}`,
    `a ge 1.${'b'.repeat(180)}`,
    '||'.repeat(100),
    ' '.repeat(200),
  ]
  const start = process.cpuUsage().user
  for (let i = 0; i < 20; i++) {
    for (const text of [...long, ...long.map((one) => one.repeat(1000))]) {
      for (const parse of [parseVersionDemand, parseModuleDemand, parseComponentDemand, parseEngineDemand]) parse(text)
    }
  }
  t.ok(process.cpuUsage().user - start < 5e6, 'milliseconds each at most')
  t.end()
})

t.test('texts are read and held against versions as the php that is installed does it', (t) => {
  const words = ['core', 'a_1', 'Zend Guard Loader', 'zend optimizer', 'asterisk', 'my-x', '']
  const operators = ['lt', 'le', 'gt', 'ge', '==', '=', 'eq', '!=', 'ne', '', 'LT', 'Ge', '>=', '<>']
  const versions = [
    '1.0',
    '16.0.1',
    '2',
    '0',
    '1.0beta1',
    '1.rc2',
    '7.4.33',
    '1..2',
    '1.0.',
    '1.b|t2',
    'beta2',
    '1.0RC1.3',
    '1.x',
  ]
  const space = fc.constantFrom('', ' ', ' ', '  ', '\t', '\n', '\u00a0')
  const part = fc
    .tuple(
      fc.constantFrom(...words),
      space,
      fc.constantFrom(...operators),
      space,
      fc.constantFrom('', ...versions),
      space,
    )
    .map((parts) => parts.join(''))
  const likely = fc
    .tuple(fc.constantFrom(...words), fc.constantFrom(...operators), fc.constantFrom(...versions))
    .map((words) => words.filter((word) => word !== '').join(' '))
  const one = fc.oneof(likely, likely, part)
  const text = fc.oneof(
    one,
    fc.tuple(one, one).map((both) => both.join('||')),
  )
  const cases = fc.sample(fc.tuple(text, fc.constantFrom(...versions)), { numRuns: 4000, seed: 8 })
  const wants = JSON.parse(
    execFileSync('php', ['-n', '-r', PROGRAM], { input: JSON.stringify(cases), encoding: 'utf8' }),
  ) as unknown[]
  const held = (version: string, demand: NamedDemand | undefined): unknown =>
    demand === undefined ? null : [demand.name, isMet(version, demand.version)]
  const found = cases.map(([text, version]) => {
    const demand = parseVersionDemand(text)
    return [
      demand === undefined ? null : isMet(version, demand),
      held(version, parseModuleDemand(text)),
      parseComponentDemand(text)?.map((one) => held(version, one)) ?? null,
      held(version, parseEngineDemand(text)),
    ]
  })
  const wrong = cases.flatMap((one, i) =>
    JSON.stringify(found[i]) === JSON.stringify(wants[i]) ? [] : [[one, wants[i], found[i]]],
  )
  t.strictSame(wrong.slice(0, 3), [])
  for (const kind of [0, 1, 2, 3]) {
    const read = wants.filter((want) => (want as unknown[])[kind] !== null).length
    t.ok(read > 200 && read < cases.length, `${read} of ${cases.length}`)
  }
  t.end()
})

t.test('after its upgrades a box has the higher of what it has and what is listed', (t) => {
  t.equal(versionAfter(undefined, '1.0'), '1.0')
  t.equal(versionAfter(undefined, undefined), undefined)
  t.equal(versionAfter({ version: '2.0', state: 'enabled' }, '1.0'), '2.0')
  t.equal(versionAfter({ version: '2.0', state: 'disabled' }, '2.1'), '2.1')
  t.equal(versionAfter({ version: '2.0', state: 'enabled' }, undefined), '2.0')
  t.equal(versionAfter({ version: '2.0', state: 'broken' }, '1.0'), '1.0')
  t.equal(isUpgrade({ version: '', state: 'enabled' }, '1.0'), true)
  t.end()
})

t.test('what a list lacks for the boxes that take it is found', (t) => {
  const entry = (name: string, ...module: string[]): Parameters<typeof missingModules>[0][number] => {
    const [rawname = '', version = ''] = name.split(' ')
    return { rawname, version, depends: { module } }
  }
  const listed = [
    entry('a 2.0', 'b ge 2.0', 'c', 'd ge 1.0', 'builtin', 'not read >= 1'),
    entry('b 1.5'),
    entry('same 1.0', 'nowhere'),
    entry('off 2.0', 'nowhere'),
    entry('new 1.0', 'off'),
  ]
  const installed = new Map([
    ['a', { version: '1.0', state: 'enabled' }],
    ['d', { version: '1.0', state: 'enabled' }],
    ['same', { version: '1.0', state: 'enabled' }],
    ['off', { version: '1.0', state: 'disabled' }],
  ])
  t.strictSame(missingModules(listed, installed), [
    { by: 'a', requirement: 'b ge 2.0', rawname: 'b', found: '1.5' },
    { by: 'a', requirement: 'c', rawname: 'c', found: undefined },
  ])
  t.end()
})
