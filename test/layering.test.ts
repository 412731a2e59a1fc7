import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import t from 'tap'

const ROOT = resolve(import.meta.dirname, '..')
/** Each floor, and the floors that it may import. */
const FLOORS: Record<string, string[]> = {
  manifests: ['manifests'],
  storage: ['storage', 'manifests'],
  bundler: ['bundler', 'storage', 'manifests'],
  server: ['server', 'storage', 'manifests'],
}
/** manifests/ is pure: it may compute, not reach out. */
const PURE_BUILTINS = new Set(['node:crypto', 'node:buffer', 'node:url', 'node:util'])

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(ROOT, folder, name))
}

function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  return [...text.matchAll(/^\s*(?:import|export)\b[^'"]*?['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gms)].map(
    (match) => match[1] ?? match[2]!,
  )
}

for (const [floor, allowed] of Object.entries(FLOORS)) {
  t.test(`${floor}/ imports only ${allowed.join(', ')}`, (t) => {
    const files = sources(floor)
    t.ok(files.length > 0)
    for (const file of files) {
      for (const name of importsOf(file).filter((name) => name.startsWith('.'))) {
        const target = relative(ROOT, resolve(dirname(file), name)).split('/')[0]!
        if (!allowed.includes(target)) t.fail(`${relative(ROOT, file)} imports ${name}`)
      }
    }
    t.end()
  })
}

t.test('manifests/ does no input or output', (t) => {
  for (const file of sources('manifests')) {
    for (const name of importsOf(file).filter((name) => name.startsWith('node:'))) {
      if (!PURE_BUILTINS.has(name)) t.fail(`${relative(ROOT, file)} imports ${name}`)
    }
  }
  t.end()
})

t.test('only main.ts reads arguments, environment and clock', (t) => {
  for (const file of Object.keys(FLOORS).flatMap(sources)) {
    if (file.endsWith('/main.ts')) continue
    const code = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    for (const reach of ['process.argv', 'process.env', 'Date.now()', 'new Date()']) {
      if (code.includes(reach)) t.fail(`${relative(ROOT, file)} uses ${reach}`)
    }
  }
  t.end()
})

/** What opens a connection, or asks another machine. */
const OPENERS = ['request', 'get', 'Agent', 'connect', 'createConnection', 'Socket', 'TLSSocket']

function opensConnections(file: string): boolean {
  const text = readFileSync(file, 'utf8')
  const values = [...text.matchAll(/^import (?!type )\{([^}]*)\} from 'node:(?:https?|net|tls)'/gm)]
    .flatMap((match) => match[1]!.split(','))
    .map((name) => name.trim())
  return values.some((name) => OPENERS.includes(name)) || /\bfetch\(|'node:(?:dns|dgram|http2)/.test(text)
}

t.test('the server signs no content, and only the doctor opens connections', (t) => {
  for (const file of sources('server')) {
    for (const name of importsOf(file)) {
      if (['undici', 'openpgp'].includes(name)) t.fail(`${relative(ROOT, file)} imports ${name}`)
    }
  }
  const opening = sources('server').filter(opensConnections)
  t.strictSame(
    opening.map((file) => relative(ROOT, file)),
    ['server/doctor/ask.ts', 'server/doctor/reach.ts'],
  )
  t.end()
})
