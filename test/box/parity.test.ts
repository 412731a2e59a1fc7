import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { parseInventory } from '../../manifests/inventory.ts'
import {
  parityPath,
  parseParityResult,
  serializeParity,
  type ParityPlan,
  type ParityResult,
} from '../../manifests/parity.ts'
import { makeBoxRoot, runBox, SHELLS, TOOLS, toolsFolder } from '../helpers/box-root.ts'
import { makeLab, type Lab } from '../helpers/lab.ts'
import { report, type Outcome } from '../helpers/process.ts'
import type { PackageSpec } from '../helpers/rpm-spec.ts'

const INSTALLED: PackageSpec[] = [
  { name: 'a', version: '1', epoch: 1 },
  { name: 'b', version: '1' },
  { name: 'kernel', version: '3.10', arch: 'x86_64' },
  { name: 'held', version: '1' },
  { name: 'sangoma-release', version: '7', release: '9', provides: ['system-release(releasever) = 7'] },
]
const OFFERED: PackageSpec[] = [
  { name: 'a', version: '2', epoch: 1, requires: ['new >= 1'] },
  { name: 'new', version: '1' },
  { name: 'b-with-a-name-that-is-far-too-long-for-any-table-of-eighty-columns', version: '1', obsoletes: ['b'] },
  { name: 'kernel', version: '3.11', arch: 'x86_64' },
  { name: 'held', version: '2' },
]
const LONG = 'b-with-a-name-that-is-far-too-long-for-any-table-of-eighty-columns-1-1.noarch'
const CANDIDATES = ['a-1:2-1.noarch', 'new-1-1.noarch', LONG, 'kernel-3.11-1.x86_64']

interface Site {
  lab: Lab
  root: string
  plan: ParityPlan
  /** publishes a plan that differs from the right one in these fields */
  publish: (changes?: Partial<ParityPlan>) => void
  check: (
    args?: string[],
    options?: Parameters<typeof runBox>[1],
  ) => Promise<{ outcome: Outcome; result: ParityResult }>
}

/** A mirror with one repository, and a box whose files point there. */
async function makeSite(t: Test, offered: PackageSpec[], installed = INSTALLED): Promise<Site> {
  const lab = await makeLab(t)
  await lab.publish('yum/pkgs', offered, { signed: 'metadata' })
  const root = lab.folder('box')
  const repository = [
    '[pkgs]',
    'name=pkgs',
    `baseurl = ${lab.url}/yum/pkgs/`,
    'gpgcheck=0',
    'repo_gpgcheck=1',
    `gpgkey=${lab.keyUrl}`,
    '',
  ]
  await makeBoxRoot(
    root,
    installed,
    {
      '/usr/bin/dnf': '#!/usr/bin/python3\n',
      '/etc/dnf/dnf.conf': '[main]\nexcludepkgs=held\nmetadata_expire=0\nplugins=0\nmodule_platform_id=platform:el7\n',
      '/etc/yum.repos.d/vendor.repo': '[vendor]\nname=vendor\nenabled=0\nbaseurl=http://vendor.invalid:1/yum/x/\n',
      '/etc/yum.repos.d/gapferry-g.repo': repository.join('\n'),
    },
    'dnf',
  )
  const inventory = await runBox(['inventory', '--root', root])
  const box = parseInventory(Buffer.from(inventory.stdout), 'box.gfi')
  const plan: ParityPlan = {
    ...{
      box: 'pbx1',
      inventory: box.digest,
      state: box.stateDigest,
      createdAt: box.createdAt,
      manager: 'dnf',
      isGuess: false,
    },
    ...{ candidates: CANDIDATES, unresolved: [] },
  }
  const publish = (changes: Partial<ParityPlan> = {}): void => {
    const file = join(lab.www, parityPath('pbx1'))
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, serializeParity({ ...plan, ...changes }))
  }
  // Debian's rpm keeps its database in the home folder of whoever calls it
  const home = lab.folder('home')
  writeFileSync(join(home, '.rpmmacros'), '%_dbpath /var/lib/rpm\n')
  const env = { HOME: home, no_proxy: '*' }
  const check = async (args: string[] = [], options: Parameters<typeof runBox>[1] = {}) => {
    const outcome = await runBox(['parity', '--box', 'PBX1', '--root', root, ...args], { ...options, env })
    if (outcome.stdout === '') throw new Error(report(outcome))
    return { outcome, result: parseParityResult(Buffer.from(outcome.stdout), 'box.parity') }
  }
  return { lab, root, plan, publish, check }
}

t.test('holds where dnf chooses from the candidates, in every shell and with every awk', async (t) => {
  const { lab, publish, check, plan } = await makeSite(t, OFFERED)
  publish()
  const ways = [...SHELLS.map((shell) => ({ shell })), ...TOOLS.map((tools) => ({ path: toolsFolder(lab.dir, tools) }))]
  for (const way of ways) {
    const { outcome, result } = await check([], way)
    t.equal(outcome.status, 0, report(outcome))
    t.match(outcome.stderr, 'gapferry-box: parity holds; 4 packages would be installed\n')
    t.strictSame(result, {
      ...{ box: 'pbx1', checkedAt: result.checkedAt, manager: 'dnf', inventory: plan.inventory, state: plan.state },
      ...{ holds: true, differences: [], expectedFailure: undefined, chosen: [...CANDIDATES].sort() },
    })
  }
  t.equal((await check([`${lab.url}/`])).outcome.status, 0, 'the origin may be given')
})

t.test('each difference is named', async (t) => {
  const { root, publish, check } = await makeSite(t, OFFERED)
  publish({ candidates: CANDIDATES.slice(1) })
  const unplanned = await check()
  t.equal(unplanned.outcome.status, 1)
  t.strictSame(unplanned.result.differences, ['unplanned a-1:2-1.noarch'])
  t.match(unplanned.outcome.stderr, '  unplanned a-1:2-1.noarch\ngapferry-box: parity differs')
  publish({ manager: 'yum' })
  t.strictSame((await check()).result.differences, ['manager planned for yum, found dnf'])
  publish()
  writeFileSync(
    join(root, 'etc/dnf/dnf.conf'),
    readFileSync(join(root, 'etc/dnf/dnf.conf'), 'utf8').replace('held', 'held\nbest=0'),
  )
  const stale = await check()
  t.match(stale.result.differences, [/^state packages or settings are not those of the inventory of 2/])
  publish({ isGuess: true })
  t.equal((await check()).result.holds, true, 'the state of a guess is not known')
})

t.test('a failure is as planned or a difference, and an unreachable repository is one', async (t) => {
  const { lab, publish, check } = await makeSite(t, [{ name: 'a', version: '2', epoch: 1, requires: ['nowhere >= 3'] }])
  writeFileSync(join(lab.dir, 'box/etc/dnf/dnf.conf'), '[main]\nbest=1\nplugins=0\nmodule_platform_id=platform:el7\n')
  publish({ isGuess: true })
  const failed = await check()
  t.equal(failed.outcome.status, 1)
  t.match(failed.result.differences, [/^failure .*nothing provides nowhere >= 3/])
  publish({ isGuess: true, unresolved: [{ requirement: 'nowhere >= 3', by: 'a-1:2-1.noarch' }] })
  const expected = await check()
  t.equal(expected.outcome.status, 0, report(expected.outcome))
  t.match(expected.result.expectedFailure, 'nowhere >= 3')
  writeFileSync(join(lab.www, 'yum/pkgs/repodata/repomd.xml'), 'x')
  t.match((await check()).result.differences, [/^failure RepoError; /])
})

t.test('yum is asked through its own python, and its transaction read there', async (t) => {
  const { lab, root, publish, check } = await makeSite(t, OFFERED)
  const modules = lab.folder('modules')
  const yum = `
class Preconf: pass
class Package:
    def __init__(self, name, version): self.name, self.epoch, self.version, self.release, self.arch = name, '0', version, '1', 'noarch'
class Member:
    def __init__(self, po): self.po = po
class Info:
    def getMembersWithState(self, pkgtup=None, output_states=None):
        assert output_states == [10, 20]
        return [Member(Package('new', '1'))]
class Repo: metadata_expire = 1
class Repos:
    def listEnabled(self): return [Repo()]
class Conf: assumeyes = False
class YumBase:
    def __init__(self): self.preconf, self.conf, self.repos, self.tsInfo = Preconf(), Conf(), Repos(), Info()
    def update(self): print('Loaded plugins: noise'); assert self.preconf.root.endswith('box')
    def buildTransaction(self):
        import os
        if os.path.exists('${lab.dir}/fail'): return 1, ['Package: a-2 (pkgs)', 'Requires: nowhere']
        return 2, ['Success']
`
  mkdirSync(join(modules, 'yum'))
  writeFileSync(join(modules, 'yum/__init__.py'), yum)
  writeFileSync(join(modules, 'yum/constants.py'), 'TS_INSTALL_STATES = [10, 20]\n')
  writeFileSync(join(root, 'usr/bin/yum'), `#!${lab.dir}/python -tt\n`)
  writeFileSync(join(lab.dir, 'python'), `#!/bin/sh\nPYTHONPATH=${modules} exec /usr/bin/python3 "$@"\n`, {
    mode: 0o755,
  })
  writeFileSync(join(root, 'etc/yum.conf'), '[main]\nexclude=held\n')
  publish({ manager: 'yum', isGuess: true })
  const { outcome, result } = await check()
  t.equal(outcome.status, 0, report(outcome))
  t.strictSame(result.chosen, ['new-1-1.noarch'])
  writeFileSync(join(lab.dir, 'fail'), '')
  t.strictSame((await check()).result.differences, ['failure Package: a-2 (pkgs); Requires: nowhere'])
})

t.test('without a whole plan for this box there is no result', async (t) => {
  const { lab, root, publish } = await makeSite(t, OFFERED)
  const refusal = async (...args: string[]): Promise<Outcome> => {
    const outcome = await runBox(['parity', '--root', root, ...args], { env: { no_proxy: '*' } })
    t.equal(outcome.stdout, '')
    return outcome
  }
  t.match(await refusal('--box', 'pbx1'), { status: 6, stderr: /gapferry\/parity\/pbx1.txt: cannot be fetched/ })
  publish()
  const file = join(lab.www, parityPath('pbx1'))
  const good = readFileSync(file, 'utf8')
  for (const bad of [
    good.replace(/^candidate new.*\n/m, ''),
    good.slice(0, -9),
    good.replace('box pbx1', 'box pbx2'),
    `x\n${good}`,
    withLine(good, 'chosen new-1-1.noarch'),
    withLine(good, 'asked dnf'),
    withLine(good, 'candidate \x1b[2J'),
    good.replace('taken ', 'taken \x07'),
    withLine(good, `candidate ${'x'.repeat(5_000_000)}`),
  ]) {
    writeFileSync(file, bad)
    t.match(await refusal('--box', 'pbx1'), { status: 3, stderr: /is not a whole plan for pbx1/ })
  }
  t.match(await refusal('ftp://x'), { status: 2 })
  t.match(await refusal('--box'), { status: 2 })
  writeFileSync(join(root, 'etc/yum.repos.d/gapferry-g.repo'), '[pkgs]\nmirrorlist=http://x/\n')
  t.match(await refusal('--box', 'pbx1'), { status: 2, stderr: /no enabled repository comes from a mirror/ })
})

/** A whole plan with one more line. */
function withLine(plan: string, line: string): string {
  const lines = plan.trimEnd().split('\n').slice(0, -1)
  return `${[...lines, line, `end ${lines.length + 1}`].join('\n')}\n`
}

t.test('what lies where root happens to stand is not run, and only a python is asked', async (t) => {
  const { lab, root, publish, check } = await makeSite(t, OFFERED)
  publish()
  const cwd = lab.folder('cwd')
  for (const name of ['dnf', 'random', 'tempfile']) writeFileSync(join(cwd, `${name}.py`), 'raise SystemExit("trap")\n')
  t.equal((await check([], { cwd })).outcome.status, 0)
  for (const line of ['#!/usr/bin/env python3', '#!/bin/sh']) {
    writeFileSync(join(root, 'usr/bin/dnf'), `${line}\n`)
    t.equal((await check([], { cwd })).outcome.status, 0, line)
  }
})
