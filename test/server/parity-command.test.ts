import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { sha256Of } from '../../manifests/digest.ts'
import { isGapferryError } from '../../manifests/errors.ts'
import { parseParityResult, serializeParity } from '../../manifests/parity.ts'
import { fingerprintWords } from '../../manifests/words.ts'
import { runMirror } from '../../server/program.ts'
import { inside } from '../helpers/inside.ts'
import { sealed } from '../helpers/inventory-text.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleRoot } from '../helpers/part.ts'
import type { Outcome } from '../helpers/process.ts'
import { NOW } from '../helpers/site.ts'

const PLANNED = sha256Of('inventory of pbx1')

interface Result {
  box?: string
  checked?: string
  inventory?: string
  differences?: string[]
  more?: string[]
}

function resultText({
  box = 'pbx1',
  checked = '2026-11-22T10:00:00Z',
  inventory = PLANNED,
  differences = [],
  more = [],
}: Result): string {
  return sealed([
    ...['gapferry-parity-result 1', `box ${box}`, `checked ${checked}`, 'tool 0.1.0', 'manager yum'],
    ...[`inventory ${inventory}`, `state ${sha256Of('')}`, `result ${differences.length > 0 ? 'differs' : 'holds'}`],
    ...[...differences.map((one) => `difference ${one}`), ...more, 'chosen a-2-1.noarch'],
  ])
}

/** A mirror that serves plans for pbx1 and pbx2. */
async function site(t: Test) {
  const dir = t.testdir({ 'root.json': sampleRoot, mir: {}, stick: {} })
  const run = (...args: string[]): Promise<Outcome> => inside(runMirror, join(dir, 'mir'), args, { nowMs: () => NOW })
  const words = fingerprintWords(sampleRoot)
  await run('init', '.', '--trust', join(dir, 'root.json'), '--fingerprint', words, '--origin', 'pbx=127.0.0.1:0')
  const plan = (box: string) =>
    serializeParity({
      ...{ box, inventory: sha256Of(`inventory of ${box}`), state: sha256Of(''), createdAt: '2026-11-22T08:00:00Z' },
      ...{ manager: 'yum', isGuess: false, candidates: ['a-2-1.noarch'], unresolved: [] },
    })
  const files = Object.fromEntries(['pbx1', 'pbx2'].map((box) => [`gapferry/parity/${box}.txt`, plan(box).toString()]))
  const parts = writeParts(join(dir, 'bundle'), signContent(makeContent(1, [{ stamp: 1, files }])))
  const imported = await run('import', '--release', ...parts)
  t.equal(imported.status, 0, imported.stderr)
  const put = (name: string, result: Result): string => {
    writeFileSync(join(dir, 'stick', name), resultText(result))
    return join(dir, 'stick', name)
  }
  return { dir, run, put, stick: join(dir, 'stick') }
}

t.test('the last result of each box is shown, and whether it is of the plan that is served', async (t) => {
  const { run, put, stick } = await site(t)
  t.match(await run('parity'), {
    status: 0,
    stdout: /^BOX +GROUP +CHECKED +RESULT\npbx1 +pbx +- +not checked yet\npbx2 /,
  })
  put('a.parity', {})
  put('b.parity', { box: 'pbx2' })
  put('c.parity', { box: 'pbx9' })
  writeFileSync(join(stick, 'other.txt'), 'x')
  mkdirSync(join(stick, 'folder.parity'))
  t.match(await run('parity', 'add', stick), {
    status: 0,
    stdout: /^pbx1: holds: 1 package\npbx2: holds.*\npbx9: holds/,
  })
  const { stdout, status } = await run('parity')
  t.equal(status, 0)
  t.match(stdout, /pbx1 +pbx +2026-11-22 10:00 UTC +holds: 1 package\n/)
  t.match(stdout, /pbx2 .*holds: 1 package, of another plan than the one served\n/)
  t.match(stdout, /pbx9 +- .*holds: 1 package, but nothing served is planned for it\n/)
})

t.test('a difference is a finding, on a terminal and as JSON', async (t) => {
  const { run, put } = await site(t)
  const differences = Array.from({ length: 7 }, (_, i) => `unplanned b-${i}-1.noarch`)
  t.match(await run('parity', 'add', put('a.parity', { differences })), {
    status: 0,
    stdout: 'pbx1: differs: 7 differences\n',
  })
  const shown = await run('parity')
  t.equal(shown.status, 1)
  t.match(shown.stdout, /\n {2}pbx1 {2}unplanned b-4-1.noarch\n {2}pbx1 {2}and 2 more\n$/)
  t.match(shown.stderr, /1 box would not update as planned: pbx1 \[PARITY_DIFFERS\]\n {2}next: /)
  const asJson = await run('parity', '--json')
  t.equal(asJson.status, 1)
  const { boxes, error } = JSON.parse(asJson.stdout) as { boxes: object[]; error: object }
  t.match(boxes[0], { box: 'pbx1', group: 'pbx', isCurrent: true, result: { holds: false, chosen: ['a-2-1.noarch'] } })
  t.match(error, { code: 'PARITY_DIFFERS' })
  const fails = put('b.parity', { checked: '2026-11-22T11:00:00Z', more: ['expected-failure nothing provides x'] })
  t.match(JSON.parse((await run('parity', 'add', fails, '--json')).stdout), { kept: [{ box: 'pbx1', holds: true }] })
  t.match(await run('parity'), { status: 0, stdout: /holds: fails as at the vendor/ })
})

t.test('an older result does not replace a newer one', async (t) => {
  const { run, put } = await site(t)
  await run('parity', 'add', put('a.parity', {}))
  const older = await run(
    'parity',
    'add',
    put('b.parity', { checked: '2026-11-21T10:00:00Z', differences: ['state x'] }),
  )
  t.match(older, { status: 0, stdout: '', stderr: /b.parity: a newer result is here/ })
  t.equal((await run('parity')).status, 0)
})

t.test('what is no result is refused with the line, and then nothing is kept', async (t) => {
  const { dir, run, put, stick } = await site(t)
  const good = put('a.parity', {})
  const text = resultText({})
  const body = (edit: (text: string) => string): string => sealed(edit(text).trimEnd().split('\n').slice(0, -1))
  for (const [bad, line] of [
    [`Hello\n${text}`, 1],
    [text.replace('chosen a', 'chosen b'), 10],
    [text.slice(0, -5), 10],
    [`${text}x\n`, 12],
    [body((all) => all.replace('box pbx1', 'box ../x')), 2],
    [body((all) => all.replace('checked', 'then')), 3],
    [body((all) => all.replace('result holds', 'result differs')), 8],
    [body((all) => all.replace('chosen', 'stolen')), 9],
    [body((all) => all.replace('chosen a', 'difference odd a').replace('holds', 'differs')), 9],
    [body((all) => all.replace('chosen a', 'chosen a b')), 9],
    [text.replace('yum', 'y\xfcm'), 5],
  ] as const) {
    writeFileSync(join(stick, 'b.parity'), bad, 'latin1')
    const outcome = await run('parity', 'add', good, join(stick, 'b.parity'))
    t.equal(outcome.status, 3)
    t.match(outcome.stderr, new RegExp(`b.parity: line ${line}: .*\\[PARITY_INVALID\\]`))
  }
  writeFileSync(join(stick, 'b.parity'), Buffer.alloc(5 << 20))
  t.equal((await run('parity', 'add', stick)).status, 3)
  t.match(await run('parity', 'add', join(dir, 'nowhere')), { status: 2, stderr: /USAGE_INVALID/ })
  t.match(await run('parity'), { stdout: /pbx1 .*not checked yet/ })
})

t.test('a plan whose names a shell could not read is not written', (t) => {
  const plan = { box: 'a', inventory: PLANNED, state: PLANNED, createdAt: '', manager: 'dnf', isGuess: true } as const
  const rest = {
    candidates: ['b-1-1.noarch', 'a-1-1.noarch', 'b-1-1.noarch'],
    unresolved: [{ requirement: 'x > 1', by: 'b' }],
  }
  t.match(
    serializeParity({ ...plan, ...rest }).toString(),
    /\nguess yes\nunresolved x > 1 \(by b\)\ncandidate a-1-1.noarch\ncandidate b-1-1.noarch\nend 10\n$/,
  )
  t.throws(() => serializeParity({ ...plan, candidates: ['a\nb'], unresolved: [] }), { code: 'PARITY_INVALID' })
  t.throws(() => serializeParity({ ...plan, box: 'A B', candidates: [], unresolved: [] }), { code: 'PARITY_INVALID' })
  t.end()
})

t.test('whatever the bytes are, a result is read or refused', (t) => {
  const lines = resultText({ differences: ['unplanned b-1-1.noarch'] })
    .trimEnd()
    .split('\n')
    .slice(0, -1)
  const word = fc.oneof(fc.constantFrom(...lines, 'end 1 00'), fc.string({ maxLength: 20 }))
  const edit = fc.tuple(fc.nat(lines.length), fc.nat(2), fc.array(word, { maxLength: 3 }))
  const isReadOrRefused = (bytes: Buffer): boolean => {
    try {
      return parseParityResult(bytes, 'box.parity').box !== ''
    } catch (error) {
      return isGapferryError(error, 'PARITY_INVALID')
    }
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1000 }), (bytes) => isReadOrRefused(Buffer.from(bytes))))
  fc.assert(
    fc.property(fc.array(edit, { maxLength: 4 }), (edits) => {
      const changed = [...lines]
      for (const [at, count, added] of edits) changed.splice(at, count, ...added)
      return isReadOrRefused(Buffer.from(sealed(changed), 'latin1'))
    }),
    { numRuns: 500 },
  )
  t.pass('only PARITY_INVALID')
  t.end()
})
