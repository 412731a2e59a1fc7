import { packageRow, TableBuilder, type RepositoryTable } from '../../manifests/package-columns.ts'
import { RELATION_KINDS, StringPool, type RelationKind } from '../../manifests/package-table.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import type { Relation } from '../../manifests/rpm-version.ts'

/** All packages of a table as objects. */
export function rowsOf(table: RepositoryTable): PackageRow[] {
  return Array.from({ length: table.count }, (_, i) => packageRow(table, i))
}

/** A table of packages without relations. */
export function tableOfRows(rows: readonly PackageRow[]): RepositoryTable {
  const builder = new TableBuilder(new StringPool(), 'test')
  const none = Object.fromEntries(RELATION_KINDS.map((kind) => [kind, []])) as unknown as Record<
    RelationKind,
    Relation[]
  >
  for (const row of rows) builder.addStrict({ row, ...none, files: [], location: { start: 0, end: 0 } })
  return builder.finish()
}
