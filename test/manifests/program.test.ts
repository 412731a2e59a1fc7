import { Command } from 'commander'
import { resolve } from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { GAPFERRY } from '../../bundler/program.ts'
import { print, talk, type Surroundings } from '../../manifests/program.ts'
import { MIRROR } from '../../server/program.ts'
import { run } from '../helpers/process.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const MAIN = resolve(ROOT, 'bundler/main.ts')

t.test('foreign names cannot move the cursor, and JSON stays JSON', (t) => {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const name = 'a\u001b]0;owned\u0007\u009b2J\u007f'
  talk({ stderr }, `ignored: ${name}\nnext line`)
  t.equal(String(stderr.read()), 'ignored: a\\u001b]0;owned\\u0007\\u009b2J\\u007f\nnext line\n')
  print({ stdout }, JSON.stringify({ name }))
  const written = String(stdout.read())
  t.notMatch(written.trimEnd(), /\p{Cc}/u)
  t.strictSame(JSON.parse(written), { name })
  print({ stdout }, 'http://user:secret@host/x')
  t.equal(String(stdout.read()), 'http://***@host/x\n')
  t.end()
})

t.test('a reader that goes away is no error', async (t) => {
  const script = `"${process.execPath}" "${MAIN}" --help | true; echo "status \${PIPESTATUS[0]}"`
  const { stdout, stderr } = await run('bash', ['-c', script])
  t.equal(stdout, 'status 0\n')
  t.equal(stderr, '')
})

t.test('each command is found in the file that is loaded for it', async (t) => {
  for (const { name, commands } of [GAPFERRY, MIRROR]) {
    for (const { names, load } of commands) {
      const program = new Command(name)
      const addCommands = await load()
      addCommands(program, {} as Surroundings)
      t.strictSame([...names].sort(), program.commands.map((command) => command.name()).sort())
    }
  }
})

t.test('a start loads only what its command needs', async (t) => {
  // Measured when all was loaded: 400 ms instead of 100.
  const heavy = /node_modules\/(?:undici|openpgp|fastify|tuf-js|valibot|yaml)\//
  const loaded = async (main: string, ...args: string[]): Promise<string[]> => {
    const script = `
      import { registerHooks } from 'node:module'
      const urls = []
      registerHooks({ load: (url, context, next) => (urls.push(url), next(url, context)) })
      process.on('exit', () => console.error(urls.join('\\n')))`
    const url = `data:text/javascript,${encodeURIComponent(script)}`
    const { stderr } = await run(process.execPath, ['--import', url, resolve(ROOT, main), ...args])
    return stderr.split('\n')
  }
  for (const main of ['bundler/main.ts', 'server/main.ts']) {
    const urls = await loaded(main, '--version')
    t.ok(
      urls.some((url) => url.endsWith('/manifests/program.ts')),
      `${main} was watched`,
    )
    t.strictSame(
      urls.filter((url) => heavy.test(url)),
      [],
    )
  }
  const verify = await loaded('bundler/main.ts', 'verify', '--trust', 'no-such-root', MAIN)
  t.ok(verify.some((url) => url.endsWith('/bundler/verify.ts')))
  t.strictSame(
    verify.filter((url) => /\/(?:undici|openpgp|fastify|yaml)\//.test(url)),
    [],
  )
  const serve = await loaded('server/main.ts', 'status', '--config', 'no-such-file')
  t.ok(serve.some((url) => url.endsWith('/server/status.ts')))
  t.strictSame(
    serve.filter((url) => /\/(?:undici|openpgp|fastify|tuf-js)\/|\/server\/doctor\/(?!command)/.test(url)),
    [],
    'what opens connections is not there, either',
  )
})
