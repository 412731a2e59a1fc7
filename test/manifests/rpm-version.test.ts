import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import {
  compareEvr,
  formatNevra,
  formatRelation,
  parseNevra,
  rangesOverlap,
  rpmvercmp,
} from '../../manifests/rpm-version.ts'
import type { Evr, Relation } from '../../manifests/rpm-version.ts'

const vectors = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), 'utf8'))

t.test('orders versions as the recorded vectors of rpm say', async (t) => {
  for (const [a, b, want] of vectors('rpmvercmp') as [string, string, number][]) {
    t.equal(rpmvercmp(a, b), want, `${a} ${b}`)
    t.equal(rpmvercmp(b, a), 0 - want, `${b} ${a}`)
  }
})

t.test('orders epoch, version and release as recorded', async (t) => {
  for (const [a, b, want] of vectors('evr') as [Evr, Evr, number][])
    t.equal(compareEvr(a, b), want, JSON.stringify([a, b]))
})

t.test('matches requirements with provides as recorded', async (t) => {
  for (const [provide, require, want] of vectors('range-overlap') as [string, string, boolean][]) {
    t.equal(rangesOverlap(relation(provide), relation(require)), want, `${provide} / ${require}`)
  }
})

t.test('agrees with the rpm that is installed on generated versions', async (t) => {
  // without - and : because rpm's own function takes them for the limits of release and epoch
  const version = fc.array(fc.constantFrom('0', '1', '9', '10', '007', 'a', 'Z', 'rc', '.', '_', '~', '^', '+'), {
    minLength: 1,
    maxLength: 6,
  })
  const pairs = fc
    .sample(fc.tuple(version, version), { numRuns: 2000, seed: 7 })
    .map(([a, b]) => [a.join(''), b.join('')] as const)
  const list = pairs.map(([a, b]) => `{"${a}","${b}"}`).join(',')
  const lua = `local o = {} for _, p in ipairs({${list}}) do o[#o + 1] = rpm.vercmp(p[1], p[2]) end print(table.concat(o, ' '))`
  const found = execFileSync('rpm', ['--eval', `%{lua:${lua}}`], { encoding: 'utf8' })
  const wants = found.trim().split(' ').map(Number)
  t.equal(wants.length, pairs.length, 'rpm answered every pair')
  const wrong = pairs.filter(([a, b], i) => rpmvercmp(a, b) !== wants[i])
  t.same(wrong, [])
})

t.test('matches as the rpm that is installed does on generated relations', async (t) => {
  const evr = fc.tuple(
    fc.constantFrom('', '', '0:', '1:'),
    fc.constantFrom('1', '1.0', '2', '1~rc1'),
    fc.constantFrom('', '-1', '-2', '-1.el7'),
  )
  const one = fc.tuple(
    fc.constantFrom('', '=', '<', '<=', '>', '>='),
    evr.map((parts) => parts.join('')),
  )
  const pairs = fc.sample(fc.tuple(one, one), { numRuns: 3000, seed: 11 })
  const program = `
import json, rpm, sys
flags = {'': 0, '=': rpm.RPMSENSE_EQUAL, '<': rpm.RPMSENSE_LESS, '>': rpm.RPMSENSE_GREATER}
flags['<='] = flags['<'] | flags['=']; flags['>='] = flags['>'] | flags['=']
of = lambda one, tag: rpm.ds(('foo', flags[one[0]], one[1] if one[0] else ''), tag)
print(json.dumps([bool(of(a, rpm.RPMTAG_PROVIDENAME).Compare(of(b, rpm.RPMTAG_REQUIRENAME))) for a, b in json.load(sys.stdin)]))`
  const found = execFileSync('/usr/bin/python3', ['-c', program], { input: JSON.stringify(pairs), encoding: 'utf8' })
  const wants = JSON.parse(found) as boolean[]
  t.equal(wants.length, pairs.length)
  t.ok(wants.includes(true) && wants.includes(false))
  const text = ([sign, version]: [string, string]): string => (sign === '' ? 'foo' : `foo ${sign} ${version}`)
  const wrong = pairs.filter(([a, b], i) => rangesOverlap(relation(text(a)), relation(text(b))) !== wants[i])
  t.same(wrong, [])
})

t.test('writes relations as rpm does', async (t) => {
  for (const text of ['foo', 'foo = 1', 'foo < 1-2', 'foo <= 3:1', 'foo > 1', 'foo >= 1:2~rc1-3.el7']) {
    t.equal(formatRelation(relation(text)), text)
  }
  t.equal(formatRelation({ name: 'foo', flags: 'EQ', epoch: '0', version: '1', release: '' }), 'foo = 1')
  t.equal(formatRelation({ name: 'foo', flags: 'EQ' }), 'foo = ')
})

t.test('takes ^ for a separator where the box has an old rpm', async (t) => {
  t.equal(rpmvercmp('1.0^git1', '1.0', { caret: false }), 1)
  t.equal(rpmvercmp('1.0^1', '1.0.1', { caret: false }), 0)
  t.equal(rpmvercmp('1.0^1', '1.0.1'), -1)
  t.equal(compareEvr(['0', '1^2', '1'], ['0', '1.2', '1'], { caret: false }), 0)
})

t.test('orders versions consistently', async () => {
  const text = fc.string({ unit: fc.constantFrom('0', '1', '2', '9', 'a', 'b', 'Z', '.', '~', '^', '-', '_') })
  fc.assert(fc.property(text, text, (a, b) => rpmvercmp(a, b) === -rpmvercmp(b, a) || rpmvercmp(a, b) === 0))
  fc.assert(
    fc.property(text, text, text, (a, b, c) => !(rpmvercmp(a, b) < 0 && rpmvercmp(b, c) < 0) || rpmvercmp(a, c) < 0),
  )
})

t.test('writes and reads a NEVRA', async (t) => {
  const kernel = { name: 'kernel-devel', epoch: '0', version: '3.10.0', release: '1160.el7', arch: 'x86_64' }
  t.equal(formatNevra(kernel), 'kernel-devel-3.10.0-1160.el7.x86_64')
  t.same(parseNevra('kernel-devel-3.10.0-1160.el7.x86_64'), kernel)
  const bind = { name: 'bind', epoch: '32', version: '9.11.4', release: '26.P2', arch: 'x86_64' }
  t.same(parseNevra(formatNevra(bind)), bind)
  for (const bad of ['', 'kernel', 'kernel-1', 'kernel-1-1', '-1-1.noarch']) t.equal(parseNevra(bad), undefined, bad)
})

function relation(text: string): Relation {
  const [name, sign, evr] = text.split(' ')
  if (sign === undefined) return { name: name! }
  const flags = ({ '=': 'EQ', '<': 'LT', '<=': 'LE', '>': 'GT', '>=': 'GE' } as const)[sign]!
  const [, epoch, version, release] = /^(?:(\d+):)?([^-]+)(?:-(.+))?$/.exec(evr!)!
  const found: Relation = { name: name!, flags, version: version! }
  if (epoch !== undefined) found.epoch = epoch
  if (release !== undefined) found.release = release
  return found
}
