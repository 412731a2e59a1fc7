import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { mustRun } from './process.ts'
import { parseSolved, type Solved } from '../../bundler/yum/solver-case.ts'
import type { UniversePackage, UniverseRelation } from './universe.ts'

const SIGNS = { EQ: '=', LT: '<', LE: '<=', GT: '>', GE: '>=' } as const
/** As dnf calls the solver. */
const SETTINGS = `system x86_64 rpm system
poolflags implicitobsoleteusescolors whatprovideswithdisabled
solverflags allowvendorchange keepexplicitobsoletes bestobeypolicy keeporphans yumobsoletes
`

/** Runs `testsolv` (Debian: libsolv-tools) for `update all packages`.
 *  @param dir  a folder for the case, made here
 *  @param jobs  more jobs, as testcases write them */
export async function testsolv(
  dir: string,
  { installed, available }: { installed: readonly UniversePackage[]; available: readonly UniversePackage[] },
  jobs: readonly string[] = [],
): Promise<Solved> {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'system.repo'), testtags(installed))
  writeFileSync(join(dir, 'available.repo'), testtags(available))
  const repositories = 'repo system 0 testtags system.repo\nrepo available 0 testtags available.repo\n'
  const wanted = [...jobs, 'update all packages'].map((job) => `job ${job}\n`).join('')
  writeFileSync(join(dir, 'case.t'), repositories + SETTINGS + wanted)
  const { stdout } = await mustRun('testsolv', ['-r', join(dir, 'case.t')])
  return parseSolved(stdout)
}

/** libsolv's own text form of a repository. */
function testtags(packages: readonly UniversePackage[]): string {
  const lines = packages.flatMap((one) => {
    const [name, epoch, version, release, arch] = one.nevra
    const self: UniverseRelation = [name, 'EQ', [epoch, version, release]]
    return [
      `=Pkg: ${name} ${evrText([epoch, version, release])} ${arch}`.replace(/-([^- ]+ \S+)$/, ' $1'),
      ...tags('Prv', [self, ...(one.provides ?? [])]),
      ...tags('Req', one.requires),
      ...tags('Obs', one.obsoletes),
      ...tags('Con', one.conflicts),
      ...tags('Rec', one.recommends),
      ...(one.files ?? []).map((path) => `=Prv: ${path}`),
    ]
  })
  return `=Ver: 3.0\n${lines.join('\n')}\n`
}

function tags(tag: string, relations: readonly UniverseRelation[] = []): string[] {
  return relations.map(
    ([name, sense, evr]) => `=${tag}: ${name}${sense == null ? '' : ` ${SIGNS[sense]} ${evrText(evr!)}`}`,
  )
}

function evrText([epoch, version, release]: readonly (string | null)[]): string {
  return `${epoch == null || epoch === '0' ? '' : `${epoch}:`}${version ?? ''}${release == null || release === '' ? '' : `-${release}`}`
}
