/** Globs as yum and dnf match them against packages. */
import { GapferryError } from '../../manifests/errors.ts'
import type { PackageTable } from '../../manifests/package-table.ts'
import type { Nevra } from '../../manifests/rpm-version.ts'

export interface Glob {
  text: string
  pattern: { test: (name: string) => boolean }
}

/** fnmatch: `*`, `?`, `[abc]`, `[!abc]`. Boxes bring globs, too, so matching takes no longer than both lengths multiplied.
 *  @throws CONFIG_INVALID for what is none */
export function compileGlob(text: string): Glob {
  const pieces: string[][] = [[]]
  for (const [part, not, set] of text.matchAll(/\[(!?)(\][^\]]*|[^\]]+)\]|[^]/g)) {
    if (set !== undefined) pieces.at(-1)!.push(`[${not === '!' ? '^' : ''}${set.replace(/[\\^[\]]/g, '\\$&')}]`)
    else if (part === '*') pieces.push([])
    else pieces.at(-1)!.push(part === '?' ? '[^]' : part.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&'))
  }
  try {
    return { text, pattern: patternOf(pieces) }
  } catch (cause) {
    throw new GapferryError('CONFIG_INVALID', `"${text}" is not a glob`, { cause })
  }
}

/** @param pieces  between the asterisks; each of their parts stands for one character. Each piece is taken where it first fits:
 *                 trying further places could not help. */
function patternOf(pieces: readonly string[][]): Glob['pattern'] {
  const first = pieces[0]!
  const last = pieces.length > 1 ? pieces.at(-1)! : []
  const start = new RegExp(`^${first.join('')}${pieces.length > 1 ? '' : '$'}`)
  const end = new RegExp(`${last.join('')}$`)
  const between = pieces.slice(1, -1).map((piece) => ({ length: piece.length, regex: new RegExp(piece.join(''), 'g') }))
  return {
    test(name) {
      if (!start.test(name)) return false
      let at = first.length
      for (const { length, regex } of between) {
        regex.lastIndex = at
        const found = regex.exec(name)
        if (found === null) return false
        at = found.index + length
      }
      return pieces.length === 1 || (at + last.length <= name.length && end.test(name))
    },
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
