import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { errorCodes } from '../../manifests/errors.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const SOURCES = ['manifests', 'storage', 'bundler', 'server'].flatMap((floor) =>
  readdirSync(join(ROOT, floor), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && name !== 'errors.ts')
    .map((name) => readFileSync(join(ROOT, floor, name), 'utf8')),
)
const FORMAT = readFileSync(join(ROOT, 'manifests/FORMAT.md'), 'utf8')

t.test('every code is thrown somewhere', (t) => {
  for (const code of Object.keys(errorCodes)) {
    const thrown = new RegExp(`\\(\\s*'${code}'|[?:] '${code}'|return '${code}'|return refused\\('${code}'`)
    t.ok(
      SOURCES.some((text) => thrown.test(text)),
      code,
    )
  }
  t.end()
})

t.test('every code stands in FORMAT.md with its exit status, and no other does', (t) => {
  const rows = [...FORMAT.matchAll(/^\| `([A-Z_]+)` \| (\d) \| .+ \|$/gm)].map((match) => [match[1]!, Number(match[2])])
  t.strictSame(
    new Map(rows as [string, number][]),
    new Map(Object.entries(errorCodes).map(([code, { exit }]) => [code, exit])),
  )
  t.end()
})
