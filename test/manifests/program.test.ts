import { resolve } from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { print, talk } from '../../manifests/program.ts'
import { run } from '../helpers/process.ts'

const MAIN = resolve(import.meta.dirname, '../../bundler/main.ts')

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
