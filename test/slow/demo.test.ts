import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import t from 'tap'
import { freePorts } from '../helpers/gap.ts'
import { run, start } from '../helpers/process.ts'

const DEMO = resolve(import.meta.dirname, '../demo/start.ts')
const READY_MS = 120_000

t.test('npm start: a box is behind, then it is not; a second start finds everything there', async (t) => {
  const dir = join(t.testdir(), 'demo')
  const ports = await freePorts(4)
  const demo = async (): Promise<string> => {
    const options = { ready: /Ctrl-C ends it/, readyMs: READY_MS }
    const running = await start(t, process.execPath, [DEMO, dir, ...ports.map(String)], options)
    const { stdout } = running.output()
    t.equal((await running.stop('SIGINT')).status, 0)
    t.notMatch(stdout, /^ {2}! {3}/m, 'the doctor finds nothing')
    t.notMatch(stdout, /^left out/m, 'all of it can be played here')
    t.match(stdout, /^pbx1 +pbxact16 .* 0 +\d+\/\d+ /m, 'the mirror knows that the box is 0 behind')
    return stdout
  }
  const first = await demo()
  t.match(first, /^pbx1 before +5 of 7 modules behind \(and 1 new with them\), 14 of 15 packages behind$/m)
  t.match(first, /^pbx1 after +0 of 8 modules behind, 0 of 16 packages behind$/m)
  t.match(first, /^restapps +none +16\.0\.24\.3$/m)
  t.match(first, /^changed setting MODULE_REPO: "http:\/\/127\.0\.0\.1:\d+", was "https:\/\/mirror\.freepbx\.org"$/m)
  t.match(first, /^enrolled as pbx1 at https:/m)
  t.match(first, /^license installed: .* for PBXact SAMPLE$/m)
  const [, was, is] = /^pbx1 license +good until (\S+), now until (\S+)$/m.exec(first)!
  t.ok(was! < is!)
  t.match(readFileSync(join(dir, 'pbx1/root/etc/schmooze/schmooze.zl'), 'utf8'), `sysadmin_exp = ${is}\n`)
  const second = await demo()
  t.match(second, /fetched 0 items/)
  t.match(second, /^pbx1 before +0 of 8 modules behind, 0 of 16 packages behind$/m)
  t.match(second, /^nothing to change: this box is set up$/m)
  t.match(second, /^the license is the one that the mirror has$/m)
  const third = await demo()
  t.match(third, /unchanged since/, 'nothing new is signed for the same content')
})

t.test('a port that is taken is named before anything is made', async (t) => {
  const dir = join(t.testdir(), 'demo')
  const other = createServer().listen(0, '127.0.0.1')
  t.teardown(() => other.close())
  await once(other, 'listening')
  const [origin, upstream, boxes] = await freePorts(3)
  const taken = (other.address() as AddressInfo).port
  const outcome = await run(process.execPath, [DEMO, dir, ...[origin!, taken, upstream!, boxes!].map(String)])
  t.match(outcome, { status: 1, stderr: `npm start: port ${taken} is taken` })
  t.notOk(existsSync(dir))
})
