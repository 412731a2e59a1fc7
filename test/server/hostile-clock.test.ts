/** The whole program under a clock that is wrong, as an isolated machine's is after its battery died. */
import { join } from 'node:path'
import t from 'tap'
import { stateOf } from '../helpers/hostile.ts'
import { makeContent, signContent, writeParts } from '../helpers/mirror.ts'
import { sampleKeys } from '../helpers/part.ts'
import { report, run, type Outcome } from '../helpers/process.ts'
import { DAY, makeRoot, NOW } from '../helpers/site.ts'

const MAIN = join(import.meta.dirname, '../../server/main.ts')
const ROOT = makeRoot(sampleKeys)

t.test('in 2031 nothing is taken, in 1970 nothing old is, and neither leaves its date behind', async (t) => {
  const dir = t.testdir({ 'root.json': ROOT, mir: {} })
  const at = async (time: string, args: string[], expected: number): Promise<Outcome> => {
    const outcome = await run('faketime', [time, process.execPath, MAIN, ...args], { cwd: join(dir, 'mir') })
    if (!t.equal(outcome.status, expected, `${time}: ${args[0]}`)) t.comment(report(outcome))
    return outcome
  }
  const bring = (time: string, number: number, expected: number, times = {}): Promise<Outcome> => {
    const content = makeContent(number, [{ stamp: number, packages: [`p${number}`] }])
    const how = { createdAtMs: NOW - 3_600_000, expiresAtMs: NOW + 399 * DAY, roots: [ROOT], ...times }
    const files = writeParts(join(dir, 'stick', String(number)), signContent(content, how))
    return at(time, ['import', ...files], expected)
  }
  const state = (): string => stateOf(join(dir, 'mir', 'store')).replace(/\["audit".*/s, '')
  const today = '2026-11-22 12:00:00'
  await at(today, ['init', '.', '--trust', '../root.json', '--yes', '--origin', 'pbx=127.0.0.1:0'], 0)
  await bring(today, 1, 0)
  await at(today, ['release'], 0)
  const before = state()

  const late = await bring('2031-01-01 00:00:00', 2, 3)
  t.match(late.stderr, /expired 2027-12-26.*now it is 2031-01-01.*\[ROLE_EXPIRED\]/)
  t.equal(state(), before)
  t.match((await at('2031-01-01 00:00:00', ['status'], 0)).stdout, 'has been out of date since 2027-12-26')
  await bring(today, 2, 0)

  const old = { createdAtMs: NOW - 400 * DAY, expiresAtMs: NOW - 3 * DAY }
  const early = await bring('1970-01-02 00:00:00', 3, 3, old)
  t.match(early.stderr, /expired 2026-11-19.*\[ROLE_EXPIRED\]/)
  t.match(early.stderr, /warning: this machine's clock says 1970-01-02, but it must be at least 2026-11-22/)
  t.match((await at('1970-01-02 00:00:00', ['status'], 0)).stdout, 'good until 2027-12-26')
  t.match((await bring('1970-01-02 00:00:00', 3, 0)).stderr, 'warning: this machine')
  await bring('1970-01-02 00:00:00', 1, 3)
})
