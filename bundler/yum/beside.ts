/** Which installed packages stay when a newer version of theirs comes: kernels and their like. */
import type { PackageTable } from '../../manifests/package-table.ts'
import type { Available } from './available.ts'
import type { BoxRules } from './box-settings.ts'
import type { PackageIndex } from './package-index.ts'

/** Versions that stand beside each other: all but the oldest ones that the manager's limit may remove when one more comes.
 *  @returns by row of the installed table: 1 where it stays */
export function findBeside(present: PackageIndex, { order }: Available, rules: BoxRules): Uint8Array {
  const { table } = present
  const isBeside = new Uint8Array(table.count)
  for (const name of new Set(table.name)) {
    const rows = [...present.named(name)].filter((i) =>
      rules.isInstallonly(table.pool.text(name), () => providesOf(table, i)),
    )
    rows.sort((a, b) => order.compare(table, b, table, a))
    const kept = rules.installonlyLimit === 0 ? rows.length : rules.installonlyLimit - 1
    for (const i of rows.slice(0, Math.max(kept, 1))) isBeside[i] = 1
  }
  return isBeside
}

function* providesOf({ pool, provides }: PackageTable, i: number): Iterable<string> {
  for (let at = provides.start[i]!; at < provides.start[i + 1]!; at++) yield pool.text(provides.name[at]!)
}
