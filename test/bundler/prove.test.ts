import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runGapferry } from '../../bundler/program.ts'
import type { PlanProof } from '../../bundler/prove-plan.ts'
import { judge, parseSolved } from '../../bundler/yum/solver-case.ts'
import { inside } from '../helpers/inside.ts'
import type { Outcome } from '../helpers/process.ts'
import { serveFolder } from '../helpers/static-server.ts'
import { universePackage as one, type UniversePackage } from '../helpers/universe.ts'
import { universeInventory, writeRepository } from '../helpers/written-world.ts'

const PATH = '/usr/bin:/bin'
const kernel = (version: number): UniversePackage =>
  one(`kernel-${version}-1.x86_64`, { provides: ['installonlypkg(kernel)', `kernel-uname-r = ${version}-1`] })
const OFFERED = [
  one('app-2-1.x86_64', { requires: ['lib >= 2', '/usr/share/data/words', '(tool if app)'] }),
  one('app-3-1.x86_64', { requires: ['gone'] }),
  one('lib-2-1.x86_64'),
  one('data-1-1.noarch'),
  one('tool-1-1.noarch'),
  one('new-2-1.noarch', { obsoletes: ['old < 2'] }),
  one('unrelated-1-1.noarch'),
  kernel(2),
  one('odd+name-2:1.0~rc1-1.noarch', { provides: ['odd(cap)(64bit)'] }),
]
const HAS = [one('app-1-1.x86_64', { requires: ['lib'] }), one('lib-1-1.x86_64'), one('old-1-1.noarch'), kernel(1)]
const DNF = { manager: 'dnf', sections: { 'file /etc/yum.conf': undefined, 'file /etc/dnf/dnf.conf': ['[main]'] } }

t.test('each box updates from what is carried as from all that is offered, as libsolv says', async (t) => {
  const { prove, add, dir } = await laptop(t, OFFERED)
  await add('pbx1', HAS)
  await add('pbx2', [...HAS, one('odd+name-1.0-1.noarch')])
  await add('held', HAS, ['exclude=lib* unrelated'])
  const { status, stdout, stderr } = await prove()
  t.equal(status, 0, stderr)
  t.comment(stdout)
  t.match(stdout, /held +same +\d/)
  t.match(stdout, /pbx1 +same +6 packages/, 'app, lib, data, tool, new and a kernel')
  t.match(stdout, /pbx2 +same +7 packages/)
  t.match(stderr, /prove hq \/ x: /, 'says how far it is')
  t.same(readdirSync(join(dir, 'store/staging')), [], 'leaves nothing behind')
  const { proof } = JSON.parse((await prove('--json')).stdout) as { proof: PlanProof[] }
  t.match(proof, [
    { site: 'hq', group: 'x', box: 'held', verdict: 'same', onlyOffered: [], problems: { offered: [] } },
    {},
    {},
  ])
})

t.test('what is left out by hand makes another update, and that is a failure', async (t) => {
  const { prove, add } = await laptop(t, OFFERED, "exclude: ['data']")
  await add('pbx1', HAS)
  const { status, stdout, stderr } = await prove()
  t.equal(status, 1)
  t.match(stdout, /pbx1 +DIFFERS/)
  t.match(stdout, /pbx1: only from all that is offered: app-2-1\.x86_64, data-1-1\.noarch/)
  t.match(stderr, /PROOF_DIFFERS/)
  const asJson = await prove('--json')
  t.equal(asJson.status, 1)
  t.match(JSON.parse(asJson.stdout), { proof: [{ verdict: 'differs' }], error: { code: 'PROOF_DIFFERS' }, sites: [{}] })
})

t.test('without libsolv it names the package, and a tool that fails is named with what it says', async (t) => {
  const { prove, add, run, dir } = await laptop(t, OFFERED)
  const without = await prove()
  t.match(without.stdout, /no inventories: there is nothing to prove/, without.stderr)
  await add('pbx1', HAS)
  t.match(await run(['plan', '--prove'], '/nonexistent'), { status: 2, stderr: /apt install libsolv-tools.*/s })
  writeFileSync(join(dir, 'repo2solv'), '#!/bin/sh\necho no room >&2\n', { mode: 0o755 })
  const failed = await run(['plan', '--prove'], `${dir}:${PATH}`)
  t.match(failed, { status: 1, stderr: /repo2solv: no room \[TOOL_FAILED\]/ })
  t.same(readdirSync(join(dir, 'store/staging')), [])
  const stop = new AbortController()
  writeFileSync(join(dir, 'repo2solv'), '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 })
  const running = inside(runGapferry, dir, ['plan', '--prove'], {
    environment: { PATH: `${dir}:${PATH}` },
    signal: stop.signal,
  })
  setTimeout(() => stop.abort(new Error('ended by SIGINT')), 300)
  t.equal((await running).status, 130)
})

t.test('another choice counts as the same outcome when it leaves nothing more to update', async (t) => {
  const whole = parseSolved('upgrade a-1-1.noarch@system a-2-1.noarch@r0\ninstall x-1-1.noarch@r0\n')
  const part = parseSolved('upgrade a-1-1.noarch@system a-2-1.noarch@r0\ninstall y-1-1.noarch@r1\n')
  t.match(part, { removed: ['a-1-1.noarch'], added: ['a-2-1.noarch', 'y-1-1.noarch'], erased: [], problems: [] })
  const nothing = parseSolved('')
  t.equal(await judge(whole, part, () => Promise.resolve(nothing)), 'other')
  const more = parseSolved('upgrade b-1-1.noarch@system b-2-1.noarch@r0\n')
  t.equal(await judge(whole, part, (done) => Promise.resolve(done === part ? more : nothing)), 'differs')
  t.equal(await judge(whole, nothing, (done) => Promise.resolve(done === whole ? nothing : whole)), 'differs')
  t.equal(await judge(whole, parseSolved('erase b-1-1.noarch@system\n'), () => Promise.resolve(nothing)), 'differs')
  t.equal(await judge(nothing, parseSolved('problem 1 info x\n'), () => Promise.resolve(nothing)), 'differs')
})

interface ProvingLaptop {
  dir: string
  add: (name: string, packages: UniversePackage[], options?: string[]) => Promise<void>
  prove: (...more: string[]) => Promise<Outcome>
  run: (args: string[], path: string) => Promise<Outcome>
}

async function laptop(t: Test, packages: UniversePackage[], more = 'newest: 1'): Promise<ProvingLaptop> {
  const dir = t.testdir()
  writeRepository(join(dir, 'www'), packages, { '/usr/share/data/words': 'data-1-1.noarch' })
  const server = await serveFolder(join(dir, 'www'))
  t.teardown(() => server.close())
  const group = `- name: x\n        origin: http://m.lan\n        yum: [{ id: p, baseurl: ['${server.url}/'], ${more} }]`
  const settings = `apiVersion: gapferry/v1\nkind: Fleet\nsites:\n  - name: hq\n    groups:\n      ${group}\n`
  writeFileSync(join(dir, 'gapferry.yaml'), settings)
  const run = (args: string[], path: string): Promise<Outcome> =>
    inside(runGapferry, dir, args, { environment: { PATH: path } })
  return {
    dir,
    run,
    prove: (...args) => run(['plan', '--prove', ...args], PATH),
    add: async (name, installed, options = []) => {
      const text = universeInventory(installed, {
        ...DNF,
        box: name,
        sections: { ...DNF.sections, 'file /etc/yum.repos.d/p.repo': ['[p]', 'enabled=1', ...options] },
      })
      writeFileSync(join(dir, `${name}.gfi`), text)
      const { status, stderr } = await run(['inventory', 'add', `${name}.gfi`], PATH)
      if (status !== 0) throw new Error(stderr)
    },
  }
}
