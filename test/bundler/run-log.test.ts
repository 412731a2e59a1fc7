import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import { openRunLog, type RunEvent } from '../../bundler/run-log.ts'
import { inside } from '../helpers/inside.ts'
import type { Outcome } from '../helpers/process.ts'
import { startUpstream, type Upstream } from '../helpers/upstream.ts'

const parse = (text: string): RunEvent[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as RunEvent)

interface LogLaptop {
  dir: string
  upstream: Upstream
  gapferry: (...args: string[]) => Promise<Outcome>
  /** of every run, in order */
  logs: () => RunEvent[][]
}

async function laptop(t: Test): Promise<LogLaptop> {
  const upstream = await startUpstream(t, new Map([['/a.bin', 'a'.repeat(5000)]]))
  const url = upstream.url.replace('http://', 'http://anna:secret@')
  const group = `      - name: a\n        origin: http://m.lan\n        files: [{ url: '${url}/a.bin', as: a.bin }]\n`
  const dir = t.testdir({ stick: {} })
  writeFileSync(
    join(dir, 'gapferry.yaml'),
    `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n${group}`,
  )
  const gapferry = (...args: string[]): Promise<Outcome> => inside(runGapferry, dir, args)
  t.equal((await gapferry('init', '--no-passphrase')).status, 0)
  const log = join(dir, 'store/log')
  const logs = (): RunEvent[][] =>
    readdirSync(log)
      .sort()
      .map((name) => parse(readFileSync(join(log, name), 'utf8')))
  return { dir, upstream, gapferry, logs }
}

t.test('each run leaves a log without secrets: what was done, file by file, and how it ended', async (t) => {
  const { dir, upstream, gapferry, logs } = await laptop(t)
  t.equal((await gapferry('bundle', '--to', 'stick')).status, 0)
  const [bundle] = logs()
  t.match(bundle, [
    { event: 'begin', command: 'bundle' },
    { event: 'step', step: 'plan', totalBytes: null },
    { event: 'file', name: 'a.bin', kind: 'files', bytes: 5000 },
    { event: 'step', step: 'pull', bytes: 5000, totalBytes: 5000 },
    { event: 'step', step: 'pack hq' },
    { event: 'end', status: 0 },
  ])
  t.match(bundle![0], { time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/ })
  upstream.fault('/a.bin', { kind: 'status', status: 404 })
  t.equal((await gapferry('plan', '--json')).status, 6)
  t.match(
    logs().find(([begin]) => begin!['command'] === 'plan'),
    [
      { event: 'begin' },
      { event: 'step' },
      { event: 'error', code: 'FETCH_STATUS', message: /found 404/ },
      { event: 'end', status: 6 },
    ],
  )
  for (const name of readdirSync(join(dir, 'store/log'))) {
    const file = join(dir, 'store/log', name)
    t.notMatch(readFileSync(file, 'utf8'), 'secret')
    t.equal(statSync(file).mode & 0o777, 0o600)
  }
})

t.test('--events: the same on standard error, one JSON a line; standard output stays one result', async (t) => {
  const { gapferry, logs } = await laptop(t)
  const { stdout, stderr, status } = await gapferry('pull', '--events', '--json')
  t.equal(status, 0)
  t.match(JSON.parse(stdout), { fetched: { count: 1 } })
  t.strictSame(
    parse(stderr).filter(({ event }) => event !== 'progress'),
    logs()[0],
  )
  t.equal(parse(stderr).length, stderr.trim().split('\n').length, 'and nothing else')
})

t.test('bounded, whatever is told; old ones go; a disk that takes no log stops no run', (t) => {
  const dir = t.testdir()
  let nowMs = 0
  const stderr = new Writable({ write: (_chunk, _encoding, done) => done() })
  const { signal } = new AbortController()
  const around = { stderr, nowMs: () => (nowMs += 1000), version: '1.2.3', signal }
  for (let i = 0; i < 25; i++) openRunLog(dir, 'pull', around, false).end()
  const files = (): string[] => readdirSync(join(dir, 'log')).sort()
  t.equal(files().length, 20)
  const log = openRunLog(dir, 'pull', around, false)
  for (let i = 0; i < 300; i++) log.tell({ event: 'warning', message: 'x'.repeat(10_000) })
  log.end()
  const last = join(dir, 'log', files().at(-1)!)
  t.ok(statSync(last).size < 1_001_000)
  t.match(parse(readFileSync(last, 'utf8')).at(-1), { event: 'cut' })
  rmSync(join(dir, 'log'), { recursive: true })
  writeFileSync(join(dir, 'log'), '')
  t.doesNotThrow(() => openRunLog(dir, 'pull', around, false).end())
  rmSync(join(dir, 'log'))
  mkdirSync(join(dir, 'log'))
  const evil = openRunLog(dir, 'pull', around, false)
  evil.tell({ event: 'file', name: 'a\u202eb http://anna:secret@vendor/x\n{"event":"forged"}' })
  const text = readFileSync(join(dir, 'log', files()[0]!), 'utf8')
  t.notMatch(text, 'secret')
  t.notMatch(text, '\u202e')
  t.notOk(parse(text).some(({ event }) => event === 'forged'))
  t.end()
})
