/** What the demo's box has to take, for a person. */
import { formatTable } from '../../manifests/console.ts'
import { installedModules, installedPackages } from './box-state.ts'
import type { Pending } from './box.ts'

const NOTHING = 'nothing to do: an earlier start did it'

export function renderModules({ modules }: Pending): string {
  if (modules.length === 0) return NOTHING
  return formatTable([
    ['MODULE', 'INSTALLED', 'NOW'],
    ...modules.map(({ entry, from }) => [entry.rawname, from ?? 'none', entry.version]),
  ])
}

export function renderPackages({ packages }: Pending): string {
  if (packages.length === 0) return NOTHING
  return formatTable([
    ['PACKAGE', 'INSTALLED', 'NOW'],
    ...packages.map(({ row, from }) => [row.name, `${from.version}-${from.release}`, `${row.version}-${row.release}`]),
  ])
}

/** How far the box in `dir` is behind, in a line. */
export function behind(dir: string, { modules, packages }: Pending): string {
  const [old, added] = [
    modules.filter(({ from }) => from !== undefined),
    modules.filter(({ from }) => from === undefined),
  ]
  const more = added.length === 0 ? '' : ` (and ${added.length} new with them)`
  const counts = [
    `${old.length} of ${Object.keys(installedModules(dir)).length} modules behind${more}`,
    `${packages.length} of ${installedPackages(dir).length} packages behind`,
  ]
  return counts.join(', ')
}
