import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { errorCodes } from '../manifests/errors.ts'

const ROOT = join(import.meta.dirname, '..')
const text = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8')

t.test('every test and document that SECURITY.md names is there', async (t) => {
  const tests = [...new Set(text.match(/\btest\/[\w./-]+\.test\.ts\b/g))]
  t.ok(tests.length > 20)
  for (const file of tests) t.ok(existsSync(join(ROOT, file)), file)
  for (const [, file] of text.matchAll(/\]\((?!https?:)([^)#]+)/g)) t.ok(existsSync(join(ROOT, file!)), `${file}`)
})

t.test('every promise has a test', async (t) => {
  const promises = text.split(/^### /m).slice(1)
  for (const promise of promises) t.match(promise, /^- `test\//m, String(promise.split('\n')[0]))
  t.same(promises.flatMap((promise) => /^P\d+/.exec(promise)?.[0] ?? []).sort(), [
    'P1',
    'P10',
    'P2',
    'P3',
    'P4',
    'P5',
    'P6',
    'P7',
  ])
})

t.test('every code that SECURITY.md names exists', async (t) => {
  for (const [code] of text.matchAll(/\b(?:ROLE|XML|FETCH|RPM|DECOMPRESS)_[A-Z_]+\b/g)) t.ok(code in errorCodes, code)
})
