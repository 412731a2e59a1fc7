/** Against PHP itself: what parse_str makes of the same bytes. */
import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import t from 'tap'
import { formText, parsePhpForm, type PhpForm } from '../../manifests/php-form.ts'

/** Reads one body per line as hexadecimal digits; prints what PHP reads, keys and values as hexadecimal digits too. */
const PARSE = `
function hex($value) {
  if (!is_array($value)) return bin2hex($value);
  $pairs = [];
  foreach ($value as $key => $inner) $pairs[] = [bin2hex((string)$key), hex($inner)];
  return $pairs;
}
while (($line = fgets(STDIN)) !== false) {
  parse_str(hex2bin(trim($line)), $form);
  echo json_encode(hex($form)), "\\n";
}`

type Pairs = [string, string | Pairs][]

function phpReads(bodies: Buffer[]): Pairs[] {
  const limits = ['-d', 'max_input_vars=100000', '-d', 'memory_limit=-1']
  const input = bodies.map((body) => `${body.toString('hex')}\n`).join('')
  const output = execFileSync('php', ['-n', ...limits, '-r', PARSE], { input, maxBuffer: 1 << 28 })
  return output
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Pairs)
}

function hexPairs(form: PhpForm): Pairs {
  return [...form].map(([key, value]) => [hex(key), typeof value === 'string' ? hex(value) : hexPairs(value)])
}

function hex(text: string): string {
  return Buffer.from(text, 'latin1').toString('hex')
}

/** Reads the bodies both ways. */
function agree(t: { same: (found: unknown, wanted: unknown, what: string) => unknown }, bodies: Buffer[]): void {
  for (const [i, wanted] of phpReads(bodies).entries()) {
    t.same(hexPairs(parsePhpForm(bodies[i]!)), wanted, bodies[i]!.toString('latin1').slice(0, 100))
  }
}

t.test('what a box sends', (t) => {
  const body =
    'machineid=ab&installid=6f0e&type=&modules%5Bcore%5D%5Bversion%5D=16.0.68&modules%5Bcore%5D%5Bstatus%5D=2' +
    '&modules%5Bbuiltin%5D%5Blicense%5D=GPLv3%2B&brandid=pbxact&astver=18.9&extraid=YWJj%3D&sv=2'
  const form = parsePhpForm(Buffer.from(body))
  t.equal(formText(form, 'modules', 'core', 'version'), '16.0.68')
  t.equal(formText(form, 'modules', 'builtin', 'license'), 'GPLv3+')
  t.equal(formText(form, 'type'), '')
  t.equal(formText(form, 'none'), undefined)
  t.equal(formText(form, 'modules'), undefined, 'fields are no text')
  t.equal(formText(form, 'sv', 'core'), undefined)
  agree(t, [Buffer.from(body)])
  t.end()
})

t.test('odd keys', (t) => {
  const keys = [
    '[a]',
    '[',
    ']',
    'a[',
    'a[b',
    'a[b]c',
    'a[b][c',
    'a[b]c[d]',
    'a[ b ]',
    'a[b.c]',
    'a.b[c d]',
    ' a',
    'a b',
    '',
  ]
  const more = [
    'a[][]',
    'a%00b',
    'a[b%00c]',
    '%20%20a',
    'a.[b.',
    'a[b]].c',
    'a[[b]',
    'a[b[c]',
    'a[ ]',
    'a[\t]',
    'a[  ]',
    'a[ ',
  ]
  const pairs = [
    'a=%zz%4',
    'a',
    'a==b',
    '&&a=1&&',
    'a=1&a[b]=2',
    'a[b]=1&a=2',
    'a[b]=1&a[b][c]=2',
    'a[]=1&a[5]=2&a[]=3',
  ]
  const indexes = [
    'a[-5]=1&a[]=2',
    'a[01]=1&a[]=2',
    'a[7]=1&a[3]=2&a[]=3',
    'a[]=1&a[x]=2&a[]=3',
    'a[b.c][d=1',
    'a[-0]=1&a[]=2',
  ]
  const names = ['__proto__[x]=1&constructor=2', 'a[__proto__][__proto__]=1', 'this=1&GLOBALS=2', 'a[b][c]d]=1', '+a=+']
  agree(
    t,
    [...[...keys, ...more].map((key) => `${key}=1`), ...pairs, ...indexes, ...names].map((body) => Buffer.from(body)),
  )
  t.end()
})

t.test('random bodies', (t) => {
  const piece = fc.constantFrom(
    'a',
    'b',
    '[',
    ']',
    '[]',
    '&',
    '=',
    '.',
    ' ',
    '+',
    '%',
    '%5B',
    '%5d',
    '%00',
    '%2',
    '0',
    '7',
    '-1',
    '\t',
    '\n',
    'é',
  )
  const made = fc.array(piece, { maxLength: 24 }).map((pieces) => Buffer.from(pieces.join('')))
  const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array))
  const bodies = [...fc.sample(made, { numRuns: 6000, seed: 5 }), ...fc.sample(bytes, { numRuns: 2000, seed: 5 })]
  const wanted = phpReads(bodies)
  for (const [i, body] of bodies.entries()) {
    const found = hexPairs(parsePhpForm(body))
    if (JSON.stringify(found) !== JSON.stringify(wanted[i]))
      t.same(found, wanted[i], JSON.stringify(body.toString('latin1')))
  }
  t.equal(wanted.length, bodies.length)
  t.end()
})

t.test('limits', (t) => {
  const many = parsePhpForm(Buffer.from(Array.from({ length: 10_001 }, (_, i) => `k${i}=1`).join('&')))
  t.equal(many.size, 10_000)
  t.notOk(many.has('k10000'))
  const deep = (brackets: number): PhpForm => parsePhpForm(Buffer.from(`a${'[b]'.repeat(brackets)}=1`))
  t.equal(formText(deep(8), 'a', ...Array<string>(8).fill('b')), '1')
  t.equal(deep(9).size, 0)
  t.equal(deep(300_000).size, 0)
  t.equal(parsePhpForm(Buffer.from(`${'a'.repeat(1025)}=1&b=2`)).size, 1, 'a key over 1 KiB')
  t.equal(formText(parsePhpForm(Buffer.from(`a=${'x'.repeat(2 ** 20)}`)), 'a')!.length, 2 ** 20 - 2)
  t.end()
})

t.test('no body takes long', (t) => {
  const size = 2 ** 20
  const worst = [
    '&',
    'a&',
    '[',
    'a[',
    'a[]&',
    'a[]=1&',
    '%',
    'a=%41',
    '+',
    '%5b',
    '=',
    '\0',
    ' ',
    'a[1]=&',
    'ab]&',
    'a[\t]&',
  ]
  for (const piece of worst) {
    const body = Buffer.alloc(size, piece)
    const before = process.cpuUsage()
    parsePhpForm(body)
    const { user, system } = process.cpuUsage(before)
    t.ok(user + system < 2_000_000, `${JSON.stringify(piece)}: ${(user + system) / 1000} ms`)
  }
  t.end()
})
