/**
 * Which packages of a repository are carried: what include, exclude and newest name, and nothing that follows from them.
 */
import { packageRow, type RepositoryTable } from '../manifests/package-columns.ts'
import type { PackageRow } from '../manifests/package-xml.ts'
import { GapferryError } from '../manifests/errors.ts'
import { compareEvr, type Evr } from '../manifests/rpm-version.ts'
import { compileGlob, namesOf, nevraAt } from './yum/globs.ts'

export interface YumWishes {
  /** name globs; everything when absent */
  include?: string[]
  exclude?: string[]
  /** so many versions of each name and architecture; all when absent */
  newest?: number
}

export interface YumSelection {
  /** sorted by NEVRA */
  carried: PackageRow[]
  /** NEVRA → why: `include asterisk*, newest 1` */
  reasons: Map<string, string>
  /** include globs that no package of the repository matches */
  unmatched: string[]
}

const SOURCE_ARCHES = new Set(['src', 'nosrc'])

/** A glob is matched against everything that yum calls a package: `name`, `name.arch`, `name-version`,
 *  `name-version-release`, with `.arch`, with epoch. Source packages are left out: boxes never install them.
 *  @throws CONFIG_INVALID for a glob that is none; PACKAGE_CONFLICT for two different packages of one NEVRA, or of one file name (yum keeps packages by it) */
export function selectPackages(upstream: { id: string; packages: RepositoryTable }, wishes: YumWishes): YumSelection {
  const include = wishes.include?.map(compileGlob)
  const exclude = (wishes.exclude ?? []).map(compileGlob)
  const unmatched = new Set(wishes.include)
  const wanted: { row: PackageRow; glob: string | undefined }[] = []
  const { count, pool, arch } = upstream.packages
  for (let i = 0; i < count; i++) {
    if (SOURCE_ARCHES.has(pool.text(arch[i]!))) continue
    const names = include === undefined && exclude.length === 0 ? [] : namesOf(nevraAt(upstream.packages, i))
    const matches = include?.filter((glob) => names.some((name) => glob.pattern.test(name)))
    for (const glob of matches ?? []) unmatched.delete(glob.text)
    if (matches?.length === 0 || exclude.some((glob) => names.some((name) => glob.pattern.test(name)))) continue
    wanted.push({ row: packageRow(upstream.packages, i), glob: matches?.[0]?.text })
  }
  const kept = wishes.newest === undefined ? wanted : keepNewest(wanted, wishes.newest)
  const carried = refuseConflicts(
    kept.map((one) => one.row),
    upstream.id,
  )
  const reasons = new Map(kept.map(({ row, glob }) => [row.nevra, reasonOf(glob, wishes.newest)]))
  return { carried, reasons, unmatched: [...unmatched] }
}

function keepNewest<T extends { row: PackageRow }>(wanted: T[], newest: number): T[] {
  const kinds = Map.groupBy(wanted, ({ row }) => `${row.name}.${row.arch}`)
  return [...kinds.values()].flatMap((all) => {
    const sorted = all.sort((a, b) => compareEvr(evrOf(b.row), evrOf(a.row)))
    let versions = 0
    return sorted.filter(({ row }, i) => {
      const before = sorted[i - 1]
      if (before === undefined || compareEvr(evrOf(before.row), evrOf(row)) !== 0) versions++
      return versions <= newest
    })
  })
}

function evrOf({ epoch, version, release }: PackageRow): Evr {
  return [epoch, version, release]
}

/** The same package listed twice is one. @returns sorted by NEVRA
 *  @param id  of their repository
 *  @throws PACKAGE_CONFLICT as selectPackages */
export function refuseConflicts(rows: PackageRow[], id: string): PackageRow[] {
  const byNevra = new Map<string, PackageRow>()
  const byFile = new Map<string, PackageRow>()
  for (const row of rows) {
    const twin = byNevra.get(row.nevra)
    if (twin !== undefined && twin.checksum.hex === row.checksum.hex) continue
    if (twin !== undefined) throw conflict(id, `${row.nevra} stands there twice with different checksums`, twin, row)
    const file = row.href.slice(row.href.lastIndexOf('/') + 1)
    const namesake = byFile.get(file)
    if (namesake !== undefined) throw conflict(id, `two packages have the file name ${file}`, namesake, row)
    byNevra.set(row.nevra, row)
    byFile.set(file, row)
  }
  return [...byNevra.values()].sort((a, b) => (a.nevra < b.nevra ? -1 : 1))
}

function conflict(id: string, why: string, a: PackageRow, b: PackageRow): GapferryError {
  return new GapferryError('PACKAGE_CONFLICT', `yum ${id}: ${why}: ${a.nevra} at ${a.href}, ${b.nevra} at ${b.href}`, {
    hint: `exclude one of them: exclude: ["${b.nevra}"]`,
  })
}

function reasonOf(glob: string | undefined, newest: number | undefined): string {
  const reasons = [
    ...(glob === undefined ? [] : [`include ${glob}`]),
    ...(newest === undefined ? [] : [`newest ${newest}`]),
  ]
  return reasons.join(', ') || 'everything'
}
