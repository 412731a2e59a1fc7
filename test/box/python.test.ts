/** The python parts of gapferry-box run on CentOS 7's python 2.7 and on every python 3. A machine without 2.7 cannot run them
 *  there, so what 2.7 does not know is looked for in their text, too. */
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { compareModuleVersions } from '../../manifests/module-version.ts'
import { pythons } from '../helpers/pythons.ts'
import { mustRun, run } from '../helpers/process.ts'

const BUNDLER = join(import.meta.dirname, '../../bundler')
const PARTS = [join(BUNDLER, 'verify.py'), ...globSync(join(BUNDLER, 'box/*.py')).sort()]
const found = await pythons()
t.comment(`run under ${found.join(' and ')}`)

/** What 2.7 does not know, or knows otherwise, by how it is written. */
const NOT_IN_2: Record<string, RegExp> = {
  'a formatted text': /(?<![\w'"])[rb]?f["']/,
  'an annotation': /\bdef \w+\([^)]*\w: |\) ->/,
  nonlocal: /^\s*nonlocal\b/m,
  'an assignment in an expression': /:=/,
  'yield from': /\byield from\b/,
  'raise from': /\braise [^\n]*\) from \w/,
  'arguments by name alone': /\bdef \w+\([^)]*(?:, |\()\*,/,
  'a starred target': /^\s*\w+(?:, \w+)*, \*\w+(?:, \w+)* = |^\s*\*\w+, /m,
  'super without arguments': /\bsuper\(\)/,
  'a class of the library that came later':
    /\b(?:FileNotFoundError|FileExistsError|PermissionError|NotADirectoryError|ProcessLookupError|TimeoutError|pathlib|contextlib\.suppress)\b/,
  'a function that came later':
    /\bexist_ok=|\bsubprocess\.run\b|\bos\.(?:replace|scandir|fsencode|fsdecode)\b|\bshutil\.(?:disk_usage|which)\b|\btime\.monotonic\b|\.hex\(\)|\bint\.from_bytes\b|\.to_bytes\(|\.bit_count\(|\btempfile\.TemporaryDirectory\b|\bre\.fullmatch\b|\.timestamp\(\)/,
  'bytes with %': /\bb"[^"\n]*%[sd][^"\n]*" %/,
  async: /^\s*(?:async|await)\b/m,
}
const LIBRARY = /^(?:from __future__ import [\w, ]+|import [\w., ]+|from [\w.]+ import [\w, ]+)$/

for (const file of PARTS) {
  const name = basename(file)
  const text = readFileSync(file, 'utf8')
  t.test(name, async (t) => {
    t.equal(/[^\n -~]/.exec(text)?.[0], undefined, 'ASCII: python 2 wants to be told of anything else')
    const code = text.replace(/"""[^]*?"""/g, '""').replace(/^\s*#.*$/gm, '')
    for (const [what, pattern] of Object.entries(NOT_IN_2)) t.equal(pattern.exec(code)?.[0], undefined, what)
    const imports = code.split('\n').filter((line) => /^(?:import|from) /.test(line))
    for (const line of imports) t.match(line, LIBRARY)
    if (code.includes('file=sys')) t.ok(code.includes('from __future__ import print_function'))
    for (const python of found) {
      const script = 'import sys; compile(open(sys.argv[1]).read(), sys.argv[1], "exec")'
      t.match(await run(python, ['-B', '-c', script, file]), { status: 0 }, python)
    }
  })
}

t.test('modules are ordered as FreePBX does', async (t) => {
  const pieces = [
    '1',
    '2',
    '10',
    '0',
    '16.0',
    'rc',
    'RC1',
    'alpha',
    'beta2',
    'a',
    'b',
    'dev',
    'pl',
    'p1',
    'x',
    '9999999999999999999',
    '',
  ]
  const joints = ['.', '-', '_', '+', '', '~']
  let seed = 7
  const random = (count: number): number => (seed = (seed * 16807) % 2147483647) % count
  const version = (): string =>
    Array.from({ length: 1 + random(4) }, () => pieces[random(pieces.length)]! + joints[random(joints.length)]!).join(
      '',
    )
  const usual = (): string =>
    Array.from({ length: 3 + random(2) }, () => random(30)).join('.') + ['', '', 'rc1', 'beta1', 'alpha3'][random(5)]!
  const pairs = Array.from({ length: 3000 }, (_, i) => (i % 2 === 0 ? [version(), version()] : [usual(), usual()]))
  const text = readFileSync(join(BUNDLER, 'box/upgrades.py'), 'utf8').replace(/^if __name__[^]*/m, '')
  const script = `${text}\nimport json\nprint(json.dumps([compare(str(a), str(b)) for a, b in json.load(sys.stdin)]))\n`
  const expected = pairs.map(([a, b]) => compareModuleVersions(a!, b!))
  for (const python of found) {
    const { stdout } = await mustRun(python, ['-c', script], { input: JSON.stringify(pairs) })
    const wrong = (JSON.parse(stdout) as number[]).flatMap((order, i) =>
      Math.sign(order) === expected[i] ? [] : [[...pairs[i]!, expected[i], order]],
    )
    t.strictSame(wrong.slice(0, 10), [], python)
  }
})
