/** Globs as yum and dnf match them against packages. */
import { GapferryError } from '../../manifests/errors.ts'
import type { PackageTable } from '../../manifests/package-table.ts'
import type { Nevra } from '../../manifests/rpm-version.ts'

export interface Glob {
  text: string
  pattern: RegExp
}

/** fnmatch: `*`, `?`, `[abc]`, `[!abc]`. @throws CONFIG_INVALID for what is none */
export function compileGlob(text: string): Glob {
  const source = text.replace(/\[(!?)(\]?[^\]]+)\]|[^]/g, (part, not: string | undefined, set: string | undefined) => {
    if (set !== undefined) return `[${not === '!' ? '^' : ''}${set.replace(/[\\^[\]]/g, '\\$&')}]`
    if (part === '*') return '.*'
    if (part === '?') return '.'
    return part.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&')
  })
  try {
    return { text, pattern: new RegExp(`^${source}$`) }
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', `"${text}" is not a glob`, { cause })
  }
}

/** Everything that yum calls a package: `name`, `name.arch`, `name-version`, `name-version-release`, with `.arch`, with epoch. */
export function namesOf({ name, epoch, version, release, arch }: Nevra): string[] {
  const full = `${version}-${release}.${arch}`
  return [
    name,
    `${name}.${arch}`,
    `${name}-${version}`,
    `${name}-${version}-${release}`,
    `${name}-${full}`,
    `${epoch}:${name}-${full}`,
    `${name}-${epoch}:${full}`,
  ]
}

/** The names of row `i`. */
export function nevraAt(table: PackageTable, i: number): Nevra {
  const { pool, name, epoch, version, release, arch } = table
  const text = (column: Uint32Array): string => pool.text(column[i]!)
  return { name: text(name), epoch: text(epoch), version: text(version), release: text(release), arch: text(arch) }
}
