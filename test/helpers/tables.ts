import { packageRow, TableBuilder, type RepositoryTable } from '../../manifests/package-columns.ts'
import { RELATION_KINDS, StringPool, type PackageFacts, type RelationKind } from '../../manifests/package-table.ts'
import type { PackageRow } from '../../manifests/package-xml.ts'
import type { Relation } from '../../manifests/rpm-version.ts'

/** All packages of a table as objects. */
export function rowsOf(table: RepositoryTable): PackageRow[] {
  return Array.from({ length: table.count }, (_, i) => packageRow(table, i))
}

/** A table of packages, without relations where only their rows are given. */
export function tableOfRows(
  rows: readonly (PackageRow & Partial<PackageFacts>)[],
  pool: StringPool = new StringPool(),
): RepositoryTable {
  const builder = new TableBuilder(pool, 'test')
  for (const row of rows) {
    const relations = RELATION_KINDS.map((kind) => [kind, [...(row[kind] ?? [])]])
    builder.addStrict({
      row,
      ...(Object.fromEntries(relations) as Record<RelationKind, Relation[]>),
      files: [...(row.files ?? [])],
      location: { start: 0, end: 0 },
    })
  }
  return builder.finish()
}
