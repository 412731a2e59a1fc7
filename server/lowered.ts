/**
 * Which packages a bundle would take back to an older version. Signatures cannot tell a rollback that an upstream, or who
 * speaks for it, made inside a new bundle; a person can, when it is said. Pure.
 */
import type { TreePath } from '../manifests/path.ts'
import { compareEvr, parseNevra, type Nevra } from '../manifests/rpm-version.ts'
import type { TreeEntry } from '../manifests/tree.ts'

type Entries = ReadonlyMap<TreePath, TreeEntry>

/** The newest version of one package in one yum repository, now and in the bundle. */
export interface LoweredPackage {
  repository: string
  /** `name.arch` */
  package: string
  /** `version-release` */
  served: string
  bundle: string
}

/** Lists on a terminal end here; `--json` has all of it. */
const MAX_SHOWN = 20

/** Packages are known by their file names, which do not tell the epoch; a file that is not named after its package is not
 *  compared, and neither is a package that the bundle no longer has.
 *  @param served  what boxes are served now
 *  @param bundle  the group's current tree */
export function loweredPackages(served: Entries, bundle: Entries): LoweredPackage[] {
  const after = newestVersions(bundle)
  return [...newestVersions(served)].flatMap(([key, now]) => {
    const next = after.get(key)
    if (next === undefined || compareEvr(evr(next.nevra), evr(now.nevra)) >= 0) return []
    const { name, arch } = now.nevra
    return [
      {
        repository: now.repository,
        package: `${name}.${arch}`,
        served: formatVersion(now.nevra),
        bundle: formatVersion(next.nevra),
      },
    ]
  })
}

/** One line for each, as they are said after `warning: `. */
export function loweredWarnings(changes: readonly { group: string; lowered: LoweredPackage[] }[]): string[] {
  const lines = changes.flatMap(({ group, lowered }) =>
    lowered.map((one) => `${group}, ${one.repository}: ${one.package} goes down from ${one.served} to ${one.bundle}`),
  )
  if (lines.length <= MAX_SHOWN) return lines
  return [...lines.slice(0, MAX_SHOWN), `${lines.length - MAX_SHOWN} more packages go down (all of them with --json)`]
}

interface Version {
  repository: string
  nevra: Nevra
}

function newestVersions(entries: Entries): Map<string, Version> {
  const newest = new Map<string, Version>()
  for (const [path, { kind }] of entries) {
    const [root, repository, ...rest] = path.split('/')
    const file = rest.at(-1)
    if (kind !== 'immutable' || root !== 'yum' || repository === undefined || file?.endsWith('.rpm') !== true) continue
    const nevra = parseNevra(file.slice(0, -'.rpm'.length))
    if (nevra === undefined) continue
    const key = `${repository} ${nevra.name}.${nevra.arch}`
    const known = newest.get(key)
    if (known === undefined || compareEvr(evr(nevra), evr(known.nevra)) > 0) newest.set(key, { repository, nevra })
  }
  return newest
}

function evr({ epoch, version, release }: Nevra): [string, string, string] {
  return [epoch, version, release]
}

function formatVersion({ version, release }: Nevra): string {
  return `${version}-${release}`
}
