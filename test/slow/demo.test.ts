import { join, resolve } from 'node:path'
import t from 'tap'
import { freePorts } from '../helpers/gap.ts'
import { start } from '../helpers/process.ts'

const DEMO = resolve(import.meta.dirname, '../demo/start.ts')
const READY_MS = 120_000

t.test('npm start: a box is behind, then it is not; a second start finds everything there', async (t) => {
  const dir = join(t.testdir(), 'demo')
  const ports = await freePorts(3)
  const demo = async (): Promise<string> => {
    const options = { ready: /Ctrl-C ends it/, readyMs: READY_MS }
    const running = await start(t, process.execPath, [DEMO, dir, ...ports.map(String)], options)
    const { stdout } = running.output()
    t.equal((await running.stop('SIGINT')).status, 0)
    t.notMatch(stdout, /^ {2}! {3}/m, 'the doctor finds nothing')
    return stdout
  }
  const first = await demo()
  t.match(first, /^pbx1 before +5 of 7 modules behind \(and 1 new with them\), 14 of 15 packages behind$/m)
  t.match(first, /^pbx1 after +0 of 8 modules behind, 0 of 16 packages behind$/m)
  t.match(first, /^restapps +none +16\.0\.24\.3$/m)
  const second = await demo()
  t.match(second, /fetched 0 items/)
  t.match(second, /^pbx1 before +0 of 8 modules behind, 0 of 16 packages behind$/m)
  const third = await demo()
  t.match(third, /unchanged since/, 'nothing new is signed for the same content')
})
