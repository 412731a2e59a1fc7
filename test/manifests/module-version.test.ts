import { execFileSync } from 'node:child_process'
import * as fc from 'fast-check'
import t from 'tap'
import { compareModuleVersions } from '../../manifests/module-version.ts'

const VECTORS = [
  '15.0.9 < 15.0.10',
  '15.0.16 < 15.0.16.0',
  '15.0 < 15.0.0',
  '16.0.0alpha1 < 16.0.0',
  '16.0.0beta2 < 16.0.0rc1',
  '16.0.0rc1 < 16.0.0',
  '16.0.0 < 16.0.0pl1',
  '15.0.1.2 > 15.0.1a',
  '17.0.19 > 17.0.9',
  '15.0.5 = 15.0.05',
  '15.0.1-1 = 15.0.1.1',
  '15.0.1dev < 15.0.1alpha',
  '1.0foo < 1.0alpha',
  '15.0.17.49 > 15.0.17.5',
  ' < 1',
  ' = ',
  '16.0.0RC1 = 16.0.0rc1',
  '16.0.0B2 = 16.0.0beta2',
]

t.test('orders versions as the recorded vectors say', async (t) => {
  for (const vector of VECTORS) {
    const [, a = '', sign = '', b = ''] = /^(.*) ([<=>]) ?(.*)$/.exec(vector)!
    const want = { '<': -1, '=': 0, '>': 1 }[sign]
    t.equal(compareModuleVersions(a, b), want, vector)
    t.equal(compareModuleVersions(b, a), 0 - want!, `the other way round: ${vector}`)
  }
})

t.test('agrees with the php that is installed', async (t) => {
  const piece = fc.constantFrom(
    ...['0', '1', '9', '10', '007', '17', '.', '.', '..', '-', '_', '+', '~', ' ', '#', '#N#', ':', 'é', '/'],
    ...['a', 'alpha', 'b', 'beta', 'rc', 'RC', 'Rc', 'dev', 'p', 'pl', 'pre', 'x', 'foo', 'Z', '9223372036854775808'],
  )
  const version = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''))
  const likely = fc
    .tuple(fc.constantFrom('15.0', '16.0', '17.0.19'), fc.nat(20), fc.constantFrom('', '.1', 'rc1', 'beta', '.0', '-2'))
    .map(([start, number, end]) => `${start}.${number}${end}`)
  const one = fc.oneof(version, version, likely)
  const random = fc.sample(fc.tuple(one, one), { numRuns: 2200, seed: 5 })
  const made = VECTORS.map((vector) => vector.split(/ ?[<=>] ?/) as [string, string])
  const same = random.slice(0, 200).map(([a]) => [a, a.toUpperCase()] as [string, string])
  const pairs = [...random, ...made, ...same]
  const program = `
    function version_compare_as_box($a, $b) {
      return version_compare(str_replace('rc', 'RC', strtolower($a)), str_replace('rc', 'RC', strtolower($b)));
    }
    $pairs = json_decode(stream_get_contents(STDIN));
    echo json_encode(array_map(fn ($pair) => version_compare_as_box($pair[0], $pair[1]), $pairs));`
  const found = execFileSync('php', ['-n', '-r', program], { input: JSON.stringify(pairs), encoding: 'utf8' })
  const wants = JSON.parse(found) as number[]
  t.equal(wants.length, pairs.length, 'php answered every pair')
  t.ok(
    [-1, 0, 1].every((order) => wants.filter((want) => want === order).length > 100),
    'pairs of every kind',
  )
  const wrong = pairs
    .map(([a, b], i) => [a, b, wants[i], compareModuleVersions(a, b)])
    .filter(([, , want, got]) => want !== got)
  t.strictSame(wrong, [])
})
