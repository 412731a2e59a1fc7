import t, { type Test } from 'tap'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { request } from 'undici'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleKeys } from '../helpers/part.ts'
import { report, run, start, type Outcome, type RunOptions } from '../helpers/process.ts'
import { DAY, makeRoot } from '../helpers/site.ts'

// The program looks at the real clock.
const CREATED_MS = Date.now() - 3_600_000
const ROOT = makeRoot(sampleKeys, { expiresAtMs: CREATED_MS + 1000 * DAY })
const MAIN = join(import.meta.dirname, '../../server/main.ts')

async function mirror(t: Test, args: string[], options: RunOptions, expected = 0): Promise<Outcome> {
  const outcome = await run(process.execPath, [MAIN, ...args], options)
  if (!t.equal(outcome.status, expected, `status of ${args[0]}`)) t.comment(report(outcome))
  return outcome
}

t.test('serves, sees a release by another process, and ends cleanly', async (t) => {
  const dir = t.testdir({ 'root.json': ROOT })
  const mir = join(dir, 'mir')
  const content = makeContent(1, [{ stamp: 10, packages: ['a'] }])
  writeParts(join(dir, 'stick', 'gapferry', 'hq'), signContent(content, { createdAtMs: CREATED_MS, roots: [ROOT] }))
  const init = ['init', 'mir', '--trust', 'root.json', '--yes', '--origin', 'pbx=127.0.0.1:0', '--admin', '127.0.0.1:0']
  await mirror(t, init, { cwd: '/', env: { INIT_CWD: dir } })

  const ready = /^pbx +(http:\S+)\nadmin +(http:\S+)$/m
  const running = await start(t, process.execPath, [MAIN, 'serve'], { cwd: mir, ready })
  const [, origin, admin] = ready.exec(running.output().stdout)!
  const get = async (url: string) => {
    const { statusCode, body } = await request(url)
    return [statusCode, await body.text()] as const
  }
  t.equal((await get(`${admin}/healthz`))[0], 503)
  await mirror(t, ['import', '--release', '../stick'], { cwd: mir })
  t.equal((await get(`${admin}/healthz`))[0], 200)
  t.same(await get(`${origin}/yum/base/a.rpm`), [200, 'package a'])
  t.match(JSON.parse((await get(`${admin}/api/v1/status`))[1]), {
    site: 'hq',
    bundle: 1,
    origins: [{ group: 'pbx', url: origin, yum: ['base'] }],
    store: { path: join(mir, 'store') },
  })
  const ended = await running.stop('SIGTERM')
  t.equal(ended.status, 0)
  for (const line of ended.stderr.trim().split('\n')) t.ok(JSON.parse(line), 'the log is JSON, line by line')
})

t.test('an exit status and one plain error, on standard error', async (t) => {
  const dir = t.testdir()
  const outcome = await mirror(t, ['status'], { cwd: dir }, 2)
  t.equal(outcome.stdout, '')
  t.match(outcome.stderr, /^gapferry-mirror: .*mirror\.yaml: .* \[CONFIG_MISSING\]\n {2}next: .*\n$/)
  writeFileSync(join(dir, 'mirror.yaml'), 'apiVersion: gapferry/v1\nkind: Mirror\n')
  const json = await mirror(t, ['status', '--json'], { cwd: dir }, 2)
  t.match(JSON.parse(json.stdout), { error: { code: 'STORE_MISSING' } })
})
