import { makePlan, type Plan } from '../../bundler/plan.ts'
import type { BoxInventory } from '../../bundler/yum/box-state.ts'
import type { YumRepo } from '../../bundler/config.ts'
import type { EarlierRepository } from '../../bundler/yum/carried-before.ts'
import { sha256Of } from '../../manifests/digest.ts'
import { TableBuilder, type RepositoryTable } from '../../manifests/package-columns.ts'
import { RELATION_KINDS } from '../../manifests/package-table.ts'
import { StringPool } from '../../manifests/string-pool.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import { formatNevra, type Relation } from '../../manifests/rpm-version.ts'
import type { Advisory } from '../../manifests/updateinfo.ts'
import { rowsOf } from './tables.ts'
import { factsOf, universePackage, type UniversePackage } from './universe.ts'

/** One package of a repository: as in universePackage, with the bytes of its file. */
export type OfferedPackage = UniversePackage & { bytes?: number; content?: string }

export interface BoxPlanWorld {
  /** by repository id */
  repositories: Record<string, OfferedPackage[]>
  settings?: Record<string, Partial<YumRepo>>
  boxes: BoxInventory[]
  /** what the last bundle carried, by repository id */
  earlier?: Record<string, OfferedPackage[]>
  /** of the earlier ones: gone from the store */
  gone?: string[]
  /** what filelists say: path → NEVRAs */
  paths?: Record<string, string[]>
  advisories?: Record<string, Advisory[]>
  isSecurityOnly?: boolean
  /** repositories without filelists */
  bare?: string[]
}

/** The inventory of a yum box on x86_64 without settings. */
export function boxInventory(box: string, packages: UniversePackage[], more: Partial<BoxInventory> = {}): BoxInventory {
  return {
    box,
    createdAt: '2026-11-20T08:00:00Z',
    digest: sha256Of(`inventory ${box}`),
    stateDigest: sha256Of(`state ${box}`),
    distribution: { id: 'centos', version: '7', name: 'CentOS Linux 7' },
    arch: 'x86_64',
    manager: 'yum',
    packages: packages.map(factsOf),
    mainOptions: new Map(),
    repositories: [],
    versionLocks: [],
    plugins: [],
    isGuess: false,
    ...more,
  }
}

/** Plans group `x` of site `hq` for these boxes, without network and files. */
export async function planWorld(world: BoxPlanWorld): Promise<Plan> {
  const { repositories, earlier = {}, settings = {} } = world
  const yum = Object.keys(repositories).map((id): YumRepo => {
    return { id, baseurl: [`http://u/${id}/`], vars: {}, gpgcheck: false, repoGpgcheck: false, ...settings[id] }
  })
  const pool = new StringPool()
  const listed = (kind: string, id: string, packages: OfferedPackage[]) => {
    const data = {
      primary: sha256Of(`${kind} ${id}`),
      ...(world.bare?.includes(id) ? {} : { filelists: sha256Of(`f ${id}`) }),
    }
    return { id, data, packages: repositoryTable(pool, packages) }
  }
  const before = Object.entries(earlier).map(([id, some]): [string, EarlierRepository] => {
    return [id, { ...listed('then', id, some), gone: new Set(world.gone) }]
  })
  return makePlan(
    {
      file: 'gapferry.yaml',
      storeDir: '/s',
      keysDir: '/k',
      inventoriesDir: '/i',
      budgetBytes: 1e6,
      link: {},
      sites: [{ name: 'hq', groups: [{ name: 'x', origin: 'http://m:1', yum, files: [] }] }],
    },
    undefined,
    {
      lookYum: (repo) =>
        Promise.resolve({
          ...listed('now', repo.id, repositories[repo.id]!),
          baseurls: [`http://u/${repo.id}/`],
          repomdMaxTimestamp: 9,
          repomd: { revision: '', data: [] },
          verdict: 'good' as const,
          warnings: [],
        }),
      lookFiles: (files) => (files.length === 0 ? Promise.resolve([]) : Promise.reject(new Error('no files here'))),
      planModules: () => Promise.reject(new Error('no modules here')),
      findUnprovided: () => Promise.reject(new Error('for groups without boxes')),
      lookAdvisories: ({ id }) => Promise.resolve(world.advisories?.[id]),
      isSecurityOnly: world.isSecurityOnly === true,
      boxesOf: () => world.boxes,
      carriedBefore: () => Promise.resolve(new Map(before)),
      findPaths: ({ data, packages }, wanted) => {
        const found = Object.entries(world.paths ?? {}).filter(
          ([path]) => wanted.has(path) && data.filelists !== undefined,
        )
        const rows = (owners: string[]): number[] =>
          owners.map((one) => rowsOf(packages).findIndex(({ nevra }) => nevra === one))
        return Promise.resolve(new Map(found.map(([path, owners]) => [path, rows(owners).filter((row) => row >= 0)])))
      },
      nowMs: 5,
    },
  )
}

export function offered(
  nevra: string,
  more: Record<string, string[]> = {},
  bytes = 10,
  content = nevra,
): OfferedPackage {
  return { ...universePackage(nevra, more), bytes, content }
}

function repositoryTable(pool: StringPool, packages: readonly OfferedPackage[]): RepositoryTable {
  const builder = new TableBuilder(pool, 'test')
  for (const one of packages) {
    const facts = factsOf(one)
    const relations = RELATION_KINDS.map((kind) => [kind, [...(facts[kind] ?? [])]] as const)
    builder.addStrict({
      row: rowOf(one),
      ...(Object.fromEntries(relations) as Record<(typeof RELATION_KINDS)[number], Relation[]>),
      files: [...(facts.files ?? [])],
      location: { start: 0, end: 0 },
    })
  }
  return builder.finish()
}

function rowOf(one: OfferedPackage): PackageRow {
  const { name, epoch, version, release, arch } = factsOf(one)
  const nevra = formatNevra({ name, epoch, version, release, arch })
  return {
    ...{ name, epoch, version, release, arch, nevra },
    checksum: { algorithm: 'sha256', hex: sha256Of(one.content ?? nevra) },
    bytes: one.bytes ?? 10,
    href: `Packages/${nevra}.rpm`,
    fileTime: 7,
  }
}
