import t from 'tap'
import type { Fleet, YumRepo } from '../../bundler/config.ts'
import { downloadsOf } from '../../bundler/downloads.ts'
import { makePlan, type PlanSources } from '../../bundler/plan.ts'
import { explainItem, renderExplained, renderPlan } from '../../bundler/render.ts'
import type { YumUpstream } from '../../bundler/upstream-yum.ts'
import { sha256Of } from '../../manifests/digest.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import type { TreePath } from '../../manifests/path.ts'
import { tableOfRows } from '../helpers/tables.ts'

const row = (name: string, text = name): PackageRow => ({
  name,
  epoch: '0',
  version: '1',
  release: '1',
  arch: 'noarch',
  nevra: `${name}-1-1.noarch`,
  checksum: { algorithm: 'sha256', hex: sha256Of(text) },
  bytes: 10,
  href: `Packages/${name}-1-1.noarch.rpm`,
  fileTime: 7,
})

const repo = (id: string, more: Partial<YumRepo> = {}): YumRepo => ({
  id,
  baseurl: [`http://u/${id}/`],
  vars: {},
  gpgcheck: false,
  repoGpgcheck: false,
  ...more,
})

function fleet(groups: Record<string, YumRepo[]>): Fleet {
  const list = Object.entries(groups).map(([name, yum]) => ({ name, origin: 'http://m:1', yum, files: [] }))
  return {
    file: 'gapferry.yaml',
    storeDir: '/s',
    keysDir: '/k',
    inventoriesDir: '/i',
    budgetBytes: 1000,
    link: {},
    sites: [{ name: 'hq', groups: list }],
  }
}

function sources(packages: Record<string, PackageRow[]>): PlanSources & { looked: string[] } {
  const looked: string[] = []
  return {
    looked,
    nowMs: 5,
    lookYum: (one) => {
      looked.push(one.id)
      return Promise.resolve({
        id: one.id,
        baseurls: [`http://u/${one.id}/`, `http://v/${one.id}`],
        repomdMaxTimestamp: 9,
        repomd: { revision: '', data: [] },
        verdict: 'unsigned',
        data: { primary: sha256Of(one.id) },
        packages: tableOfRows(packages[one.id]!),
        warnings: [],
      } satisfies YumUpstream)
    },
    lookFiles: (files) =>
      Promise.resolve(files.map(({ url, as }) => ({ url, as: as as TreePath, bytes: 3, reason: 'named in files' }))),
    planModules: () => Promise.reject(new Error('no modules here')),
    lookAdvisories: () => Promise.resolve(undefined),
    boxesOf: () => [],
    carriedBefore: () => Promise.resolve(new Map<string, never>()),
    findPaths: () => Promise.resolve(new Map<string, never>()),
    findUnprovided: (parts) => Promise.resolve(parts.map(() => [{ requirement: 'libz', by: 'a-1-1.noarch' }])),
  }
}

t.test('looks at each upstream once, however many groups want it, and fetches each package once', async (t) => {
  const from = sources({ r: [row('a'), row('b')] })
  const plan = await makePlan(fleet({ x: [repo('r')], y: [repo('r', { include: ['a'] })] }), undefined, from)
  t.strictSame(from.looked, ['r'])
  t.strictSame(
    plan.sites[0]!.groups.map((group) => group.yum[0]!.packages.map((one) => one.nevra)),
    [['a-1-1.noarch', 'b-1-1.noarch'], ['a-1-1.noarch']],
  )
  const downloads = downloadsOf(plan)
  t.equal(downloads.length, 2)
  t.match(downloads[0], {
    kind: 'package',
    remote: {
      urls: ['http://u/r/Packages/a-1-1.noarch.rpm', 'http://v/r/Packages/a-1-1.noarch.rpm'],
      bytes: 10,
      maxBytes: 10,
    },
  })
})

t.test('two repositories with the same package but other bytes are refused by name', async (t) => {
  const from = sources({ r: [row('a')], s: [row('a', 'other')] })
  await t.rejects(makePlan(fleet({ x: [repo('r'), repo('s')] }), undefined, from), {
    code: 'PACKAGE_CONFLICT',
    message: /a-1-1\.noarch differs between r and s/,
  })
  const same = await makePlan(
    fleet({ x: [repo('r'), repo('s')] }),
    undefined,
    sources({ r: [row('a')], s: [row('a')] }),
  )
  t.equal(downloadsOf(same).length, 1, 'the same bytes are one blob')
})

t.test('a group that would carry nothing, and a site that is not there, are errors', async (t) => {
  await t.rejects(makePlan(fleet({ x: [repo('r', { include: ['zzz'] })] }), undefined, sources({ r: [row('a')] })), {
    code: 'PLAN_EMPTY',
  })
  await t.rejects(makePlan(fleet({ x: [repo('r')] }), 'nowhere', sources({ r: [row('a')] })), {
    code: 'SITE_UNKNOWN',
    hint: /hq/,
  })
})

t.test('a person reads items, bytes, reasons, warnings and the budget', async (t) => {
  const plan = await makePlan(
    fleet({ x: [repo('r', { include: ['a', 'zzz*'] })] }),
    'hq',
    sources({ r: [row('a'), row('b')] }),
  )
  const text = renderPlan(
    plan,
    {
      toFetch: { count: 1, bytes: 2000 },
      here: { count: 0, bytes: 0 },
      budgetBytes: 1000,
      kinds: [{ kind: 'files', count: 1, bytes: 2000, fits: { count: 0, bytes: 0 } }],
    },
    true,
  )
  for (const said of [
    'hq / x',
    'yum r',
    '1 package',
    'of 2 offered',
    'a-1-1.noarch',
    'include a',
    'nothing there matches include zzz*',
    'libz (by a-1-1.noarch)',
    'OVER BUDGET',
  ]) {
    t.match(text, said)
  }
  t.match(renderExplained(explainItem(plan, 'a')), /hq \/ x \/ r: include a/)
  t.match(explainItem(plan, 'a-1-1.noarch'), [{ reason: 'include a' }])
  t.same(explainItem(plan, 'b'), [])
})
